//! Reading the events of a segment in order, a piece at a time.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::preface::Preface;
use super::segment::{self, Layout, SEGMENT_HEADER_BYTES, SegmentHeader, Spot};
use crate::atom::AtomId;
use crate::journal::frame::{self, HEADER_BYTES, Header, Kind};
use crate::journal::storage::StoredFile;
use crate::journal::{Base, JournalError, Record, codec, error};
use crate::time::Timestamp;

/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// An event as it was read.
#[derive(Debug)]
pub(crate) struct ReadEvent {
    pub(crate) header: Header,
    pub(crate) record: Record,
}

/// What every record begins with: enough to pack its frame.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Brief {
    seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) atom: AtomId,
}

/// Reads the events of one segment.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: Arc<dyn StoredFile>,
    path: PathBuf,
    layout: Layout,
    offset: u64,
    piece: Vec<u8>,
    piece_at: u64,
    seq: u64,
    chain: u32,
    footer: Option<segment::Footer>,
}

impl SegmentReader {
    /// Begins with the first event of the segment, which must be `first`.
    pub(crate) fn open(
        file: Arc<dyn StoredFile>,
        path: PathBuf,
        first: u64,
    ) -> Result<Self, JournalError> {
        let bytes = file.len().map_err(|e| error::io("cannot read segment", path.clone(), e))?;
        let mut reader = Self {
            file,
            path,
            layout: Layout::plain(bytes),
            offset: 0,
            piece: Vec::new(),
            piece_at: 0,
            seq: first,
            chain: 0,
            footer: None,
        };
        let start = reader.peek(SEGMENT_HEADER_BYTES)?.to_vec();
        let (header, payload) = frame::decode(&start).map_err(|flaw| reader.spot().flawed(flaw))?;
        let told: SegmentHeader = segment::payload(payload, || reader.spot())?;
        if header.kind != Kind::Header || header.seq + 1 != first {
            return Err(reader.spot().damaged("this is not the segment that its name says"));
        }
        if told.bytes != bytes {
            let problem = format!("the file has {bytes} bytes and should have {}", told.bytes);
            return Err(reader.spot().damaged(problem));
        }
        let Some(layout) = Layout::of(header, bytes) else {
            return Err(reader.spot().damaged("the file is not divided as a segment is"));
        };
        reader.layout = layout;
        reader.chain = header.prev;
        reader.offset = (header.frame_bytes() as u64).saturating_add(told.snapshot_bytes);
        Ok(reader)
    }

    fn spot(&self) -> Spot {
        Spot { path: self.path.clone(), offset: self.offset, seq: Some(self.seq) }
    }

    /// The atoms before the first event, as the beginning of the segment has them. Only before
    /// anything else is read.
    pub(crate) fn base(&mut self) -> Result<Base, JournalError> {
        let length = usize::try_from(self.offset.min(self.layout.end)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        let read = self
            .file
            .read_at(&mut bytes, 0)
            .map_err(|e| error::io("cannot read segment", self.path.clone(), e))?;
        bytes.truncate(read);
        let preface = Preface::read(&bytes, self.layout.bytes, self.path.clone(), self.seq)?;
        Base::new(self.seq, preface.chain, &preface.view)
    }

    /// The number of the event that comes next.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Where the room for events ends.
    pub(crate) fn end(&self) -> u64 {
        self.layout.end
    }

    /// The frame of the event that was read last.
    pub(crate) fn frame(&self, header: &Header) -> &[u8] {
        let end = usize::try_from(self.offset.saturating_sub(self.piece_at)).unwrap_or(usize::MAX);
        let start = end.saturating_sub(header.frame_bytes());
        self.piece.get(start..end).unwrap_or_default()
    }

    /// Forgets what was read ahead: the file may have grown since.
    pub(crate) fn refresh(&mut self) {
        self.piece.clear();
    }

    /// Reads on so that there are `len` bytes from where the reader stands, if the segment has them.
    fn look_ahead(&mut self, len: usize) -> Result<(), JournalError> {
        let have = self.offset.checked_sub(self.piece_at).map_or(0, |from| {
            self.piece.len().saturating_sub(usize::try_from(from).unwrap_or(usize::MAX))
        });
        if have < len {
            // Never more than there is room for, whatever a length says.
            let rest = self.layout.end.saturating_sub(self.offset);
            let want = len.max(PIECE).min(usize::try_from(rest).unwrap_or(usize::MAX));
            self.piece.resize(want, 0);
            self.piece_at = self.offset;
            let read = self
                .file
                .read_at(&mut self.piece, self.offset)
                .map_err(|e| error::io("cannot read segment", self.path.clone(), e))?;
            self.piece.truncate(read);
        }
        Ok(())
    }

    /// What was read of the `len` bytes from where the reader stands.
    fn ahead(&self, len: usize) -> &[u8] {
        let from = (self.offset - self.piece_at) as usize;
        let piece = self.piece.get(from..).unwrap_or_default();
        &piece[..piece.len().min(len)]
    }

    fn peek(&mut self, len: usize) -> Result<&[u8], JournalError> {
        self.look_ahead(len)?;
        Ok(self.ahead(len))
    }

    /// The next event; `None` where only zeros, or nothing, follows.
    pub(crate) fn next(&mut self) -> Result<Option<ReadEvent>, JournalError> {
        let read = self.read(codec::decode, |record: &Record| record.seq)?;
        Ok(read.map(|(header, record)| ReadEvent { header, record }))
    }

    /// The same, of which only what packing needs is decoded.
    pub(crate) fn next_in_brief(&mut self) -> Result<Option<(Header, Brief)>, JournalError> {
        self.read(codec::decode_beginning, |brief: &Brief| brief.seq)
    }

    fn read<T>(
        &mut self,
        decode: impl Fn(&[u8]) -> Result<T, String>,
        number: impl Fn(&T) -> u64,
    ) -> Result<Option<(Header, T)>, JournalError> {
        loop {
            let start = self.peek(HEADER_BYTES)?;
            if start.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let header = match frame::decode_header(start) {
                Ok(header) => header,
                // After a footer nothing but a torn mark can be here; opening and verifying look closer.
                Err(_) if self.footer.is_some() => return Ok(None),
                Err(flaw) => return Err(self.spot().flawed(flaw)),
            };
            let length = header.frame_bytes();
            self.look_ahead(length)?;
            let payload = match frame::payload(&header, self.ahead(length)) {
                Ok(payload) => payload,
                Err(_) if self.footer.is_some() => return Ok(None),
                Err(flaw) => return Err(self.spot().flawed(flaw)),
            };
            match header.kind {
                Kind::Event => {}
                Kind::Footer => {
                    self.footer = Some(segment::payload(payload, || self.spot())?);
                    self.offset += length as u64;
                    continue;
                }
                Kind::Opened => {
                    self.offset += length as u64;
                    continue;
                }
                Kind::Header | Kind::Atom | Kind::SnapshotEnd | Kind::Piece | Kind::Progress => {
                    return Err(self.spot().damaged("a frame that is no event among the events"));
                }
            }
            if header.seq != self.seq || header.prev != self.chain {
                let problem = format!("event {} does not follow the one before it", header.seq);
                return Err(self.spot().damaged(problem));
            }
            let read = decode(payload).map_err(|problem| self.spot().damaged(problem))?;
            if number(&read) != header.seq {
                return Err(self.spot().damaged("the record has another number than its frame"));
            }
            self.offset += length as u64;
            self.seq += 1;
            self.chain = header.crc;
            self.footer = None;
            return Ok(Some((header, read)));
        }
    }
}
