//! Reading the events in order, across history and segments.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::catalog;
use super::core::Core;
use super::error::JournalError;
use super::frame::{self, Kind};
use super::wal::reader::{ReadEvent, SegmentReader};
use super::wal::segment::{self, Spot};
use super::{Record, codec};
use crate::atom::AtomId;

/// The events from one number on, in one unbroken sequence, up to the last one
/// that was acknowledged when the reading began.
#[derive(Debug)]
pub struct Records {
    core: Arc<Core>,
    next: u64,
    end: u64,
    chain: Option<u32>,
    source: Source,
    failed: bool,
}

#[derive(Debug)]
enum Source {
    None,
    /// The event was read already, to know that it is there.
    Segment(Box<SegmentReader>, Option<Box<ReadEvent>>),
    History {
        frames: Vec<u8>,
        offset: usize,
    },
}

/// How much of the history is read at a time by who reads on; at first only what is asked for.
pub(crate) const READ_AHEAD: usize = 256 << 10;

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
        Ok(Self { core, next: from, end, chain: None, source: Source::None, failed: false })
    }

    /// Lets it read up to a later event.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = end;
        if let Source::Segment(reader, _) = &mut self.source {
            reader.refresh();
        }
    }

    /// The number of the event that comes next.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// The next event with its frame; checks that it follows the one before it.
    pub(crate) fn next_event(&mut self) -> Result<Option<ReadEvent>, JournalError> {
        while self.next <= self.end {
            let event = match &mut self.source {
                Source::None => None,
                Source::Segment(reader, first) => match first.take() {
                    Some(event) => Some(*event),
                    None => reader.next()?,
                },
                Source::History { frames, offset } => packed(frames, offset)?,
            };
            let Some(event) = event else {
                let most = match self.source {
                    Source::History { .. } => READ_AHEAD,
                    Source::None | Source::Segment(..) => 0,
                };
                self.source = self.source_of(self.next, most)?;
                continue;
            };
            if event.header.seq < self.next {
                continue;
            }
            if event.header.seq > self.next || self.chain.is_some_and(|c| c != event.header.prev) {
                return Err(JournalError::Inconsistent {
                    seq: self.next,
                    problem: "it does not follow the event before it".to_owned(),
                });
            }
            self.next += 1;
            self.chain = Some(event.header.crc);
            return Ok(Some(event));
        }
        Ok(None)
    }

    /// Where the event with this number is.
    fn source_of(&self, seq: u64, most: usize) -> Result<Source, JournalError> {
        let oldest = self.core.oldest.load(Ordering::Acquire);
        if oldest > seq {
            // It was cut while this was reading. It may still be there, and counts no more.
            return Err(JournalError::Compacted { asked: seq, oldest });
        }
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
                return Ok(Source::History { frames, offset: 0 });
            }
            let path = self.core.storage.path(&segment::name(first));
            let spot = Spot { path, offset: reader.end(), seq: Some(seq) };
            return Err(spot.damaged("the segment that should have this event ends before it"));
        }
        match self.core.history.frames(seq, most)? {
            Some(frames) => Ok(Source::History { frames, offset: 0 }),
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

/// The next event of packed frames.
pub(crate) fn packed(frames: &[u8], offset: &mut usize) -> Result<Option<ReadEvent>, JournalError> {
    let damaged = |problem: String| JournalError::HistoryDamaged { problem };
    let rest = &frames[*offset..];
    if rest.is_empty() {
        return Ok(None);
    }
    let (header, payload) = frame::decode(rest).map_err(|flaw| damaged(flaw.problem().into()))?;
    if header.kind != Kind::Event {
        return Err(damaged("a frame that is no event".into()));
    }
    let record: Record = codec::decode(payload).map_err(damaged)?;
    if record.seq != header.seq {
        return Err(damaged("the record has another number than its frame".into()));
    }
    *offset += header.frame_bytes();
    Ok(Some(ReadEvent { header, record }))
}

impl Iterator for Records {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let event = self.next_event().map(|event| event.map(|event| event.record)).transpose();
        self.failed = matches!(event, Some(Err(_)));
        event
    }
}
