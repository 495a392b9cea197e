//! Finding frames in whatever bytes there are.
//!
//! A frame begins with a magic number, and its header and its payload have
//! checksums, so no help is needed to find it: not of a segment's order, and not of
//! sled, which writes every value in one piece, in its log and in its pages. What is too
//! long for one value is packed as pieces, each of which is a frame itself.

use super::frame::{self, Flaw, HEADER_BYTES, Header, MAGIC, MAX_PAYLOAD};

/// The longest frame there is.
pub(crate) const LONGEST: usize = HEADER_BYTES + MAX_PAYLOAD;

/// What is found in a file, in the order of its offsets.
pub(crate) trait Finder {
    /// A whole frame.
    fn frame(&mut self, offset: u64, header: Header, frame: &[u8]);
    /// A frame of a newer format.
    fn newer(&mut self, format: u8);
}

/// Finds the frames of a file that are no longer than `longest`, `window` bytes at a time; gives how many
/// of its bytes could not be read.
///
/// `read_at` fills a piece from an offset on; it gives how many bytes there were, and how many of them are unreadable.
pub(crate) fn carve(
    window: usize,
    longest: usize,
    mut read_at: impl FnMut(&mut [u8], u64) -> (usize, u64),
    finder: &mut impl Finder,
) -> u64 {
    let mut bytes = vec![0; window + longest];
    let (mut start, mut unreadable) = (0_u64, 0);
    loop {
        let (read, bad) = read_at(&mut bytes, start);
        let last = read < bytes.len();
        let end = if last { read } else { window };
        let mut at = 0;
        while at < end {
            let Some(found) = find(&bytes[at..read]) else {
                at = end;
                break;
            };
            at += found;
            if at >= end {
                break;
            }
            at += step(start + at as u64, &bytes[at..read], finder);
        }
        if last {
            return unreadable + bad;
        }
        // What overlaps is read again, and counted then.
        unreadable += bad.min(window as u64);
        start += at.max(end) as u64;
    }
}

/// Reads bytes as if they were a file.
#[cfg(feature = "test-util")]
pub(crate) fn of_bytes(bytes: &[u8]) -> impl Fn(&mut [u8], u64) -> (usize, u64) {
    move |piece, offset| {
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let read = rest.len().min(piece.len());
        piece[..read].copy_from_slice(&rest[..read]);
        (read, 0)
    }
}

/// Looks at bytes that begin with the magic; gives how far to go on.
fn step(offset: u64, bytes: &[u8], finder: &mut impl Finder) -> usize {
    match frame::decode(bytes) {
        Ok((header, _)) => {
            let length = header.frame_bytes();
            finder.frame(offset, header, &bytes[..length]);
            // What is within a payload is not looked at: it may be made to look like a frame.
            return length;
        }
        Err(Flaw::Newer(format)) => finder.newer(format),
        Err(Flaw::Short | Flaw::NoFrame | Flaw::HeaderCrc | Flaw::Unknown | Flaw::Payload(_)) => {}
    }
    MAGIC.len()
}

fn find(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let found = bytes[from..].iter().position(|byte| *byte == MAGIC[0])? + from;
        if bytes[found..].starts_with(&MAGIC) {
            return Some(found);
        }
        from = found + 1;
    }
}
