//! Reading the events in order, across history and segments.

mod ahead;
mod frames;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::ahead::Ahead;
pub(crate) use self::ahead::Readers;
use self::frames::{Checked, record};
pub(crate) use self::frames::{READ_AHEAD, packed};
use super::Record;
use super::catalog;
use super::core::Core;
use super::error::JournalError;
use super::frame::Header;
use super::wal::reader::{ReadEvent, SegmentReader};
use super::wal::segment::{self, Spot};
use crate::atom::AtomId;

/// The events from one number on, in one unbroken sequence, up to the last one
/// that was acknowledged when the reading began.
#[derive(Debug)]
pub struct Records {
    core: Arc<Core>,
    line: Line,
    source: Source,
    ahead: Ahead,
    failed: bool,
}

/// Where a reader is in the sequence.
#[derive(Debug)]
struct Line {
    next: u64,
    end: u64,
    chain: Option<u32>,
}

impl Line {
    /// Whether this event is the next one, and not one before it.
    fn is_at(&self, header: &Header) -> Result<bool, JournalError> {
        if header.seq < self.next {
            return Ok(false);
        }
        if header.seq > self.next || self.chain.is_some_and(|chain| chain != header.prev) {
            return Err(JournalError::Inconsistent {
                seq: self.next,
                problem: "it does not follow the event before it".to_owned(),
            });
        }
        Ok(true)
    }

    fn go_on(&mut self, header: &Header) {
        self.next += 1;
        self.chain = Some(header.crc);
    }
}

#[derive(Debug)]
enum Source {
    None,
    /// The event was read already, to know that it is there.
    Segment(Box<SegmentReader>, Option<Box<ReadEvent>>),
    History(Checked),
}

impl Records {
    pub(crate) fn new(core: Arc<Core>, from: u64, end: u64) -> Result<Self, JournalError> {
        // What is in the log can be read whatever has become of the history.
        match core.oldest_seq() {
            Ok(oldest) if from < oldest => {
                return Err(JournalError::Compacted { asked: from, oldest });
            }
            Ok(_) => {}
            Err(_) if core.catalog.lock().oldest().is_some_and(|in_log| from >= in_log) => {}
            Err(error) => return Err(error),
        }
        let line = Line { next: from, end, chain: None };
        let ahead = Ahead::Not { asked: 0 };
        Ok(Self { core, line, source: Source::None, ahead, failed: false })
    }

    /// Lets it read up to a later event.
    pub(crate) fn extend(&mut self, end: u64) {
        self.line.end = end;
        if let Source::Segment(reader, _) = &mut self.source {
            reader.refresh();
        }
    }

    /// The number of the event that comes next.
    pub(crate) fn position(&self) -> u64 {
        self.line.next
    }

    /// The next event with its frame; checks that it follows the one before it.
    pub(crate) fn next_event(&mut self) -> Result<Option<ReadEvent>, JournalError> {
        self.next_as(|header, record| ReadEvent { header, record })
    }

    /// The next event as `give` makes it. (A record is not small, so it is made where it is given from.)
    #[inline]
    fn next_as<T>(
        &mut self,
        give: impl Fn(Header, Record) -> T,
    ) -> Result<Option<T>, JournalError> {
        while self.line.next <= self.line.end {
            match &mut self.source {
                Source::None => {}
                Source::Segment(reader, first) => {
                    let event = match first.take() {
                        Some(event) => Some(*event),
                        None => reader.next()?,
                    };
                    if let Some(ReadEvent { header, record }) = event {
                        if self.line.is_at(&header)? {
                            self.line.go_on(&header);
                            return Ok(Some(give(header, record)));
                        }
                        continue;
                    }
                }
                Source::History(frames) => {
                    if let Some((header, payload)) = frames.next()? {
                        if self.line.is_at(&header)? {
                            let record = record(&header, payload)?;
                            self.line.go_on(&header);
                            return Ok(Some(give(header, record)));
                        }
                        continue;
                    }
                }
            }
            self.source = self.go_on()?;
        }
        Ok(None)
    }

    /// What comes after what was read.
    fn go_on(&mut self) -> Result<Source, JournalError> {
        let Line { next, end, .. } = self.line;
        let mut most = 0;
        if let Source::History(_) = self.source {
            if let Some(frames) = self.ahead.take(&self.core, next, end) {
                self.is_kept(next)?;
                return Ok(Source::History(frames));
            }
            most = READ_AHEAD;
        }
        self.source_of(next, most)
    }

    /// An event that was cut while this was reading may still be there, and counts no more.
    fn is_kept(&self, seq: u64) -> Result<(), JournalError> {
        match self.core.oldest.load(Ordering::Acquire) {
            oldest if oldest > seq => Err(JournalError::Compacted { asked: seq, oldest }),
            _ => Ok(()),
        }
    }

    /// Where the event with this number is.
    fn source_of(&self, seq: u64, most: usize) -> Result<Source, JournalError> {
        self.is_kept(seq)?;
        let found = self.core.catalog.lock().find(seq);
        if let Some((first, file)) = found {
            let mut reader = match catalog::reader(&*self.core.storage, first, file) {
                Ok(reader) => reader,
                // It may have been packed and removed since it was found.
                Err(_) if self.core.catalog.lock().find(seq).is_none() => {
                    return self.source_of(seq, most);
                }
                Err(error) => return Err(error),
            };
            loop {
                match reader.next()? {
                    Some(event) if event.header.seq == seq => {
                        return Ok(Source::Segment(Box::new(reader), Some(Box::new(event))));
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            // The segment after this one was packed and removed before it.
            if let Some(frames) = self.core.history.frames(seq, most)? {
                return Ok(Source::History(Checked::new(frames)));
            }
            let path = self.core.storage.path(&segment::name(first));
            let spot = Spot { path, offset: reader.end(), seq: Some(seq) };
            return Err(spot.damaged("the segment that should have this event ends before it"));
        }
        match self.core.history.frames(seq, most)? {
            Some(frames) => Ok(Source::History(Checked::new(frames))),
            None => Err(match self.core.oldest_after_cut()? {
                // It was, and went while this was reading.
                oldest if oldest > seq => JournalError::Compacted { asked: seq, oldest },
                _ => JournalError::HistoryDamaged {
                    problem: format!("event {seq} is neither in the log nor in the history"),
                },
            }),
        }
    }
}

/// See [`Journal::read_atom`](super::Journal::read_atom).
pub(crate) fn of_atom(core: &Arc<Core>, atom: AtomId) -> Result<Vec<Record>, JournalError> {
    let oldest = core.oldest_seq()?;
    let end = core.visible.lock().seq;
    let mut records: Vec<Record> = Vec::new();
    // What is packed meanwhile is read from the log.
    let packed_up_to = core.history.head()?.map_or(0, |head| head.last);
    let mut next = oldest;
    for first in core.history.of_atom(atom)? {
        let Some(frames) = core.history.frames(first, 0)? else { continue };
        let mut offset = 0;
        while let Some(event) = packed(&frames, &mut offset)? {
            let seq = event.header.seq;
            if event.record.atom == atom && (next..=packed_up_to).contains(&seq) {
                next = seq + 1;
                records.push(event.record);
            }
        }
    }
    for record in Records::new(core.clone(), oldest.max(packed_up_to + 1), end)? {
        let record = record?;
        if record.atom == atom {
            records.push(record);
        }
    }
    Ok(records)
}

impl Iterator for Records {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.next_as(|_, record| record) {
            Ok(record) => record.map(Ok),
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}
