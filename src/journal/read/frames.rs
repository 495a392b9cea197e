//! Packed frames: what the history gives.

use std::vec;

use super::super::error::JournalError;
use super::super::frame::{self, HEADER_BYTES, Header, Kind};
use super::super::wal::reader::ReadEvent;
use super::super::{Record, codec};

/// How much of the history is read at a time by who reads on; at first only what is asked for.
pub(crate) const READ_AHEAD: usize = 256 << 10;

fn damaged(problem: impl Into<String>) -> JournalError {
    JournalError::HistoryDamaged { problem: problem.into() }
}

/// Frames whose checksums were found right, and perhaps one after them whose were not.
#[derive(Debug)]
pub(super) struct Checked {
    bytes: Vec<u8>,
    headers: vec::IntoIter<Header>,
    /// Where the next frame begins.
    offset: usize,
    last: Option<u64>,
    flaw: Option<JournalError>,
}

impl Checked {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let (mut headers, mut offset, mut flaw) = (Vec::new(), 0, None);
        loop {
            match checked(&bytes[offset..]) {
                Ok(None) => break,
                Ok(Some((header, _))) => {
                    offset += header.frame_bytes();
                    headers.push(header);
                }
                Err(error) => {
                    flaw = Some(error);
                    break;
                }
            }
        }
        let last = headers.last().map(|header| header.seq);
        Self { bytes, headers: headers.into_iter(), offset: 0, last, flaw }
    }

    /// The number of the last event, if all are as they should be.
    pub(super) fn last(&self) -> Option<u64> {
        self.last.filter(|_| self.flaw.is_none())
    }

    /// The header and the payload of the next one.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(Header, &[u8])>, JournalError> {
        let Some(header) = self.headers.next() else {
            return self.flaw.take().map_or(Ok(None), Err);
        };
        let start = self.offset;
        self.offset += header.frame_bytes();
        Ok(Some((header, &self.bytes[start + HEADER_BYTES..self.offset])))
    }
}

/// The frame of the event at the beginning of packed frames.
fn checked(frames: &[u8]) -> Result<Option<(Header, &[u8])>, JournalError> {
    if frames.is_empty() {
        return Ok(None);
    }
    let (header, payload) = frame::decode(frames).map_err(|flaw| damaged(flaw.problem()))?;
    match header.kind {
        Kind::Event => Ok(Some((header, payload))),
        Kind::Header
        | Kind::Atom
        | Kind::SnapshotEnd
        | Kind::Footer
        | Kind::Opened
        | Kind::Piece
        | Kind::Progress => Err(damaged("a frame that is no event")),
    }
}

/// What the payload of an event's frame says.
#[inline]
pub(super) fn record(header: &Header, payload: &[u8]) -> Result<Record, JournalError> {
    match codec::decode::<Record>(payload) {
        Ok(record) if record.seq == header.seq => Ok(record),
        Ok(_) => Err(damaged("the record has another number than its frame")),
        Err(problem) => Err(damaged(problem)),
    }
}

/// The next event of packed frames.
pub(crate) fn packed(frames: &[u8], offset: &mut usize) -> Result<Option<ReadEvent>, JournalError> {
    let Some((header, payload)) = checked(&frames[*offset..])? else { return Ok(None) };
    let record = record(&header, payload)?;
    *offset += header.frame_bytes();
    Ok(Some(ReadEvent { header, record }))
}
