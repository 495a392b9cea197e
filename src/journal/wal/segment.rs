//! Segments: their names, and the payloads of the frames that hold them together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::journal::JournalError;
use crate::journal::codec;
use crate::journal::frame::{self, HEADER_BYTES, Kind, Place};

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
