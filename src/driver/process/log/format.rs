//! The bytes of a log, format 1.
//!
//! ```text
//! segment: "caeslog" 1 | CRC-32C u32 | 0 u32 | offset u64      offset: bytes of output before it
//! chunk:   CRC-32C u32 | kind u8 | 0 u8×3 | length u32 | 0 u32 | at u64 | offset u64 | bytes
//! ```
//!
//! An atom that prints nothing has none. Little endian. A CRC covers everything after itself, the bytes of output included.
//! An offset larger than the end of the chunk before it says that the bytes
//! between were dropped. The last chunk of a complete log is an empty one of
//! kind *end*, so that a loss at the very end is told too. A segment may be
//! written into the file of a dropped one: an empty chunk of kind *old* stands
//! where that one's bytes still follow, until the next chunk is written over it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::log::Stream;
use crate::time::Timestamp;

/// What a segment begins with; the last byte is the version.
const MAGIC: [u8; 8] = *b"caeslog\x01";

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: u64 = 24;

/// What stands in the header's place of a file that is about to be another segment.
pub(super) const NO_SEGMENT: [u8; SEGMENT_HEADER as usize] = [0; SEGMENT_HEADER as usize];

/// Bytes of a chunk's header.
pub(crate) const HEADER: usize = 32;

/// The most bytes of output in one chunk: what one read of a FIFO takes at
/// most. Larger ones made the log no faster and leave the processor's cache.
pub(crate) const MAX_PAYLOAD: usize = 256 << 10;

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Output.
    Output(Stream),
    /// The end of a complete log.
    End,
    /// What follows is of the segment that the file was before.
    Old,
}

impl Kind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Output(Stream::Stdout) => 1,
            Self::Output(Stream::Stderr) => 2,
            Self::End => 3,
            Self::Old => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Output(Stream::Stdout), Self::Output(Stream::Stderr), Self::End, Self::Old]
            .into_iter()
            .find(|kind| kind.to_byte() == byte)
    }
}

/// The header of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    crc: u32,
    pub(super) kind: Kind,
    pub(super) length: usize,
    pub(super) at: Timestamp,
    /// Bytes of output, of both streams, before it.
    pub(super) offset: u64,
}

/// Writes the header of a chunk into the [`HEADER`] bytes that stand before its payload.
pub(super) fn seal(chunk: &mut [u8], kind: Kind, at: Timestamp, offset: u64) {
    let length =
        u32::try_from(chunk.len() - HEADER).expect("a chunk has at most MAX_PAYLOAD bytes");
    chunk[4..8].copy_from_slice(&[kind.to_byte(), 0, 0, 0]);
    chunk[8..12].copy_from_slice(&length.to_le_bytes());
    chunk[12..16].fill(0);
    chunk[16..24].copy_from_slice(&at.as_micros().to_le_bytes());
    chunk[24..32].copy_from_slice(&offset.to_le_bytes());
    let crc = crc32c::crc32c(&chunk[4..]);
    chunk[..4].copy_from_slice(&crc.to_le_bytes());
}

impl ChunkHeader {
    /// Reads a header; `None` when it cannot be one.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let length = usize::try_from(u32_at(8)).ok().filter(|length| *length <= MAX_PAYLOAD)?;
        // A sum that overflows belongs to no log.
        u64_at(24).checked_add(length as u64)?;
        Some(Self {
            crc: u32_at(0),
            kind: Kind::from_byte(bytes[4])?,
            length,
            at: Timestamp::from_micros(u64_at(16)),
            offset: u64_at(24),
        })
    }

    /// Whether header and payload are as they were written.
    pub(super) fn matches(&self, chunk: &[u8]) -> bool {
        crc32c::crc32c(&chunk[4..]) == self.crc
    }
}

/// The header of a segment that begins after `offset` bytes of output.
pub(super) fn segment_header(offset: u64) -> [u8; SEGMENT_HEADER as usize] {
    let mut bytes = [0; SEGMENT_HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[16..].copy_from_slice(&offset.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[16..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads the header of a segment: the offset that it begins at.
pub(super) fn parse_segment_header(bytes: &[u8; SEGMENT_HEADER as usize]) -> Option<u64> {
    let offset = u64::from_le_bytes(bytes[16..].try_into().expect("8 bytes"));
    (segment_header(offset) == *bytes).then_some(offset)
}

/// The file of a segment.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number}"))
}

/// The numbers of the segments that are there, ascending.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        if let Some(number) =
            name.to_str().and_then(|name| name.strip_prefix("log.")).and_then(|n| n.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes all segments.
pub(in crate::driver::process) fn remove_segments(dir: &Path) -> io::Result<()> {
    segments(dir)?.into_iter().try_for_each(|number| fs::remove_file(segment_path(dir, number)))
}
