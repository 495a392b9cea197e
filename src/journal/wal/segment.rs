//! Segments: their names, and the payloads of the frames that hold them together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::journal::JournalError;
use crate::journal::codec;
use crate::journal::frame::{self, HEADER_BYTES, Header, Kind, Place};

/// What the name of a segment ends with.
const SUFFIX: &str = ".seg";
/// What the name of a file ends with that is not in its place yet.
pub(crate) const TEMPORARY: &str = ".tmp";
/// The digits of a `u64`, so that names sort as numbers.
const DIGITS: usize = 20;

/// The name of the segment whose first event is `first`.
pub(crate) fn name(first: u64) -> String {
    format!("{first:0DIGITS$}{SUFFIX}")
}

/// The number of the first event in the segment with this name.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|first| (1..=frame::MAX_SEQ).contains(first))
}

/// The payload of [`Kind::Header`]. The frame's `seq` is the number of the
/// last event before the segment, its `prev` that event's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentHeader {
    /// The length of the file. A file that is shorter or longer is damaged.
    pub(crate) bytes: u64,
    /// Atoms in the snapshot that follows.
    pub(crate) atoms: u64,
    /// Bytes of the frames of the snapshot, its end included.
    pub(crate) snapshot_bytes: u64,
}

/// Where in its file what is. The end of the file, on a page of its own, is for the progress: so
/// that no page that is lost takes both the last events and the word that there were some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the room for frames ends.
    pub(crate) end: u64,
    /// Where the progress is; segments of earlier programs have none.
    pub(crate) progress: Option<u64>,
    /// The length of the file.
    pub(crate) bytes: u64,
}

/// What is lost or damaged together, mostly.
const PAGE: u64 = 4096;

/// What a disk writes whole or not at all: the room of the progress.
const PROGRESS_ROOM: u64 = 512;

impl Layout {
    /// That of a file whose room for frames ends there.
    pub(crate) fn with_end(end: u64) -> Self {
        let progress = end.next_multiple_of(PAGE);
        Self { end, progress: Some(progress), bytes: progress + PROGRESS_ROOM }
    }

    /// That of a file of `bytes` that has nothing but frames.
    pub(crate) fn plain(bytes: u64) -> Self {
        Self { end: bytes, progress: None, bytes }
    }

    /// What the header's `back` says of it.
    pub(crate) fn back(self) -> u32 {
        (self.bytes - self.end) as u32
    }

    /// That of a file of `bytes` with this header; `None` when there is no such layout.
    pub(crate) fn of(header: Header, bytes: u64) -> Option<Self> {
        let end = bytes.checked_sub(u64::from(header.back))?;
        [Self::plain(end), Self::with_end(end)].into_iter().find(|layout| layout.bytes == bytes)
    }
}

/// The payload of [`Kind::Progress`]. The frame's `seq` is an event that was durable before the
/// last write began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The last event of that write.
    pub(crate) last: u64,
}

/// The frame that says how far the log has come.
pub(crate) fn progress(durable: u64, last: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 8);
    let place = Place { kind: Kind::Progress, back: 0, seq: durable, prev: 0 };
    frame::encode(place, &last.to_le_bytes(), &mut bytes);
    bytes
}

/// What [`progress`] has written, the last event that was durable before and the last one written.
/// What is no such frame says nothing: it may be torn, or not be written yet.
pub(crate) fn read_progress(bytes: &[u8]) -> Option<(u64, u64)> {
    let (header, payload) = frame::decode(bytes).ok()?;
    let written: Written = crate::journal::codec::decode(payload).ok()?;
    (header.kind == Kind::Progress).then_some((header.seq, written.last))
}

/// Bytes of the header's frame.
pub(crate) const SEGMENT_HEADER_BYTES: usize = HEADER_BYTES + 24;

/// The payload of [`Kind::SnapshotEnd`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotEnd {
    /// Atoms in the snapshot.
    pub(crate) atoms: u64,
}

/// The payload of [`Kind::Footer`]. The frame's `seq` is that of the last
/// event, its `prev` that event's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    /// Events in this segment.
    pub(crate) events: u64,
    /// The first event of the segment that follows; 0 as long as none does.
    pub(crate) next: u64,
}

/// Bytes of a footer's frame.
pub(crate) const FOOTER_BYTES: usize = HEADER_BYTES + 16;

/// Bytes of a mark that a closed segment is written again.
pub(crate) const OPENED_BYTES: usize = HEADER_BYTES;

/// Room that is never given to events: two footers of a seal, one of a close, and a mark.
pub(crate) const FIXED_ROOM: u64 = (3 * FOOTER_BYTES + OPENED_BYTES) as u64;

/// The frame of a footer; gives its checksum too.
pub(crate) fn footer(seq: u64, chain: u32, footer: Footer) -> (Vec<u8>, u32) {
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&footer.events.to_le_bytes());
    payload[8..].copy_from_slice(&footer.next.to_le_bytes());
    let mut bytes = Vec::with_capacity(FOOTER_BYTES);
    let place = Place { kind: Kind::Footer, back: 0, seq, prev: chain };
    let crc = frame::encode(place, &payload, &mut bytes);
    (bytes, crc)
}

/// The frame that says that a cleanly closed segment is written again.
pub(crate) fn opened(seq: u64, footer_crc: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OPENED_BYTES);
    frame::encode(Place { kind: Kind::Opened, back: 0, seq, prev: footer_crc }, &[], &mut bytes);
    bytes
}

/// Whether all bytes are zeros, some at a time: most of a segment is.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// How many bytes there are up to the last one that is not zero.
pub(crate) fn used(bytes: &[u8]) -> usize {
    let blank = 64 * bytes.rchunks_exact(64).take_while(|word| is_zero(word)).count();
    let rest = &bytes[..bytes.len() - blank];
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Where something is wrong: the one way damage is reported.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) seq: Option<u64>,
}

impl Spot {
    pub(crate) fn damaged(self, problem: impl Into<String>) -> JournalError {
        JournalError::Damaged {
            path: self.path,
            offset: self.offset,
            seq: self.seq,
            problem: problem.into(),
        }
    }

    /// The error for bytes that are not the frame they should be.
    pub(crate) fn flawed(self, flaw: frame::Flaw) -> JournalError {
        if let frame::Flaw::Newer(found) = flaw {
            let (found, known) = (u32::from(found), u32::from(frame::FORMAT));
            return JournalError::Newer { path: self.path, found, known };
        }
        self.damaged(flaw.problem())
    }
}

/// Reads a payload whose checksum was right.
pub(crate) fn payload<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    spot: impl FnOnce() -> Spot,
) -> Result<T, JournalError> {
    codec::decode(bytes).map_err(|problem| spot().damaged(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_that_is_not_zero_is_found_wherever_it_is() {
        for length in [0, 1, 63, 64, 65, 200] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes) && used(&bytes) == 0);
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes) && used(&bytes) == at + 1, "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
