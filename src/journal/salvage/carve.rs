//! Finding frames in whatever bytes there are.
//!
//! A frame begins with a magic number, and its header and its payload have
//! checksums, so no help is needed to find it: not of a segment's order, and not of
//! sled, which writes every value in one piece, in its log and in its pages. Only a
//! frame that was packed in several values is in pieces:
//!
//! - in a page its values follow one another, each after its length;
//! - in the log each is by itself, after its key and its length.

use crate::journal::CHUNK_BYTES;
use crate::journal::frame::{self, Flaw, HEADER_BYTES, Header, MAGIC, MAX_PAYLOAD};

/// How far ahead is searched at a time.
const WINDOW: usize = 4 << 20;

/// The longest frame, and the lengths between the pieces that it may be in.
const LONGEST: usize = HEADER_BYTES + MAX_PAYLOAD + 4096;

/// What is found in a file, in the order of its offsets.
pub(super) trait Finder {
    /// A whole frame.
    fn frame(&mut self, offset: u64, header: Header, frame: &[u8]);
    /// A whole frame that is not in one piece in the file.
    fn stitched(&mut self, header: Header, frame: Vec<u8>);
    /// The header is whole, and the payload is not here.
    fn headless(&mut self, header: Header, beginning: &[u8]);
    /// A frame of a newer format.
    fn newer(&mut self, format: u8);
}

/// Finds the frames of a file; gives how many of its bytes could not be read.
///
/// `read_at` fills a piece from an offset on; it gives how many bytes there were, and how many of them are unreadable.
pub(super) fn carve(
    mut read_at: impl FnMut(&mut [u8], u64) -> (usize, u64),
    finder: &mut impl Finder,
) -> u64 {
    let mut bytes = vec![0; WINDOW + LONGEST];
    let (mut start, mut unreadable) = (0_u64, 0);
    loop {
        let (read, bad) = read_at(&mut bytes, start);
        let last = read < bytes.len();
        let end = if last { read } else { WINDOW };
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
        unreadable += bad.min(WINDOW as u64);
        start += at.max(end) as u64;
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
        Err(Flaw::Payload(header)) => match in_page(bytes, header) {
            Some(frame) => finder.stitched(header, frame),
            None => finder.headless(header, &bytes[..bytes.len().min(CHUNK_BYTES)]),
        },
        Err(Flaw::Newer(format)) => finder.newer(format),
        Err(Flaw::Short | Flaw::NoFrame | Flaw::HeaderCrc | Flaw::Unknown) => {}
    }
    MAGIC.len()
}

pub(super) fn find(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let found = bytes[from..].iter().position(|byte| *byte == MAGIC[0])? + from;
        if bytes[found..].starts_with(&MAGIC) {
            return Some(found);
        }
        from = found + 1;
    }
}

/// A length as sled writes it.
fn length(bytes: usize) -> Vec<u8> {
    match bytes {
        0..=240 => vec![bytes as u8],
        241..=2287 => vec![((bytes - 240) / 256 + 241) as u8, ((bytes - 240) % 256) as u8],
        _ => vec![249, ((bytes - 2288) / 256) as u8, ((bytes - 2288) % 256) as u8],
    }
}

/// The lengths of the values that a frame was packed in.
fn parts(header: Header) -> impl Iterator<Item = usize> {
    let total = header.frame_bytes();
    (0..total).step_by(CHUNK_BYTES).map(move |at| CHUNK_BYTES.min(total - at))
}

/// A frame whose values follow one another.
fn in_page(bytes: &[u8], header: Header) -> Option<Vec<u8>> {
    if header.frame_bytes() <= CHUNK_BYTES {
        return None;
    }
    let mut frame = Vec::with_capacity(header.frame_bytes());
    let mut at = 0;
    for (number, part) in parts(header).enumerate() {
        if number > 0 {
            let told = length(part);
            bytes.get(at..)?.starts_with(&told).then_some(())?;
            at += told.len();
        }
        frame.extend_from_slice(bytes.get(at..at + part)?);
        at += part;
    }
    whole(frame)
}

fn whole(frame: Vec<u8>) -> Option<Vec<u8>> {
    frame::decode(&frame).is_ok().then_some(frame)
}

/// A frame whose values are in the log, each by itself: puts together what `files` have of it.
pub(super) fn in_log(header: Header, beginning: &[u8], files: &[Vec<u8>]) -> Option<Vec<u8>> {
    if header.frame_bytes() <= CHUNK_BYTES || beginning.len() < CHUNK_BYTES {
        return None;
    }
    // Pages leave out what their keys have in common: the end of the key is always there,
    // the last of the event's number and then the number of the part.
    let [.., high, low] = header.seq.to_be_bytes();
    let told: Vec<Vec<u8>> = parts(header).map(length).collect();
    let sizes: Vec<usize> = parts(header).collect();
    let mut values: Vec<Vec<&[u8]>> = vec![Vec::new(); sizes.len()];
    for file in files {
        for (at, _) in file.iter().enumerate().filter(|(_, byte)| **byte == high) {
            let Some([_, second, 0, 0, a, b]) = file.get(at..at + 6) else { continue };
            let part = usize::from(u16::from_be_bytes([*a, *b]));
            if *second != low || part == 0 || part >= sizes.len() {
                continue;
            }
            let start = at + 6 + told[part].len();
            let value = file.get(start..start + sizes[part]);
            // Copies of one value are the same; few others can look like one.
            if let Some(value) = value
                && file[at + 6..].starts_with(&told[part])
                && values[part].len() < 4
                && !values[part].contains(&value)
            {
                values[part].push(value);
            }
        }
    }
    let mut found: Vec<Vec<u8>> = vec![beginning[..CHUNK_BYTES].to_vec()];
    for values in &values[1..] {
        found = found
            .iter()
            .flat_map(|front| values.iter().map(move |value| [front, *value].concat()))
            .take(256)
            .collect();
    }
    found.into_iter().find_map(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_sleds() {
        assert_eq!(length(240), [240]);
        assert_eq!(length(241), [241, 1]);
        assert_eq!(length(2287), [248, 255]);
        assert_eq!(length(2288), [249, 0, 0]);
        assert_eq!(length(16384), [249, 55, 16]);
    }
}
