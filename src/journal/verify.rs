//! Reading everything and proving that it fits together.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::error::{self, JournalError};
use super::frame;
use super::history::Part;
use super::read::{READ_AHEAD, packed};
use super::storage::StoredFile;
use super::view::View;
use super::wal::reader::ReadEvent;
use super::wal::recover::{Mend, Scan, view_bytes};
use super::wal::segment::{self, SEGMENT_HEADER_BYTES, Spot};

/// What was read and found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verified {
    /// The number of the first event that is kept.
    pub oldest: u64,
    /// Events from that one on.
    pub events: u64,
    /// Events in the history, of these.
    pub packed: u64,
    /// Atoms that exist.
    pub atoms: usize,
    /// Segments of the write-ahead log.
    pub segments: usize,
    /// Bytes of segments and packed frames.
    pub bytes: u64,
}

/// The fold so far.
struct Fold {
    view: View,
    seq: u64,
    chain: u32,
}

/// What the history leads to where a segment begins: the atoms, where it folds.
struct Mark {
    chain: u32,
    atoms: Option<Vec<Vec<u8>>>,
}

/// The fold of the history, as far as it went.
struct Folded {
    /// The event that comes next.
    next: u64,
    chain: Option<u32>,
    /// The atoms before it; `None` where the events do not fold.
    view: Option<View>,
    marks: BTreeMap<u64, Mark>,
    /// What is also in a segment, and must be the same there.
    twice: Vec<(u64, u32)>,
    /// Events that are kept.
    events: u64,
    bytes: u64,
}

/// So often is the history read again that was cut meanwhile, before nobody may cut it any more.
const TRIES: u32 = 3;

fn inconsistent<T>(seq: u64, problem: impl Into<String>) -> Result<T, JournalError> {
    Err(JournalError::Inconsistent { seq, problem: problem.into() })
}

fn damaged<T>(problem: String) -> Result<T, JournalError> {
    Err(JournalError::HistoryDamaged { problem })
}

impl Core {
    /// See [`Journal::verify`](super::Journal::verify).
    pub(crate) fn verify(&self) -> Result<Verified, JournalError> {
        // The history may be long, and whoever packs, and whoever waits for that, has to go on.
        let mut folded = None;
        for _ in 0..TRIES {
            match self.fold_history(None) {
                Ok(done) => {
                    folded = Some(done);
                    break;
                }
                Err(JournalError::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let _stay = self.maintenance.segments_stay.lock();
        // What was packed since.
        let folded = match self.fold_history(folded) {
            Err(JournalError::Compacted { .. }) => self.fold_history(None)?,
            other => other?,
        };
        let newest = self.newest()?;
        let oldest = self.oldest_seq()?;
        let mut verified = Verified {
            oldest,
            events: newest.seq + 1 - oldest,
            packed: folded.events.min(folded.next.saturating_sub(oldest)),
            atoms: newest.view.len(),
            segments: newest.firsts.len(),
            bytes: newest.bytes.len() as u64 + folded.bytes,
        };
        let in_log = newest.firsts.first().copied().unwrap_or(1);
        if in_log > folded.next {
            return damaged(format!("the events from {} to {in_log} are gone", folded.next));
        }
        let mut fold: Option<Fold> = None;
        for (position, first) in newest.firsts.iter().enumerate() {
            let name = segment::name(*first);
            let path = self.storage.path(&name);
            let read;
            let (bytes, next) = match newest.firsts.get(position + 1) {
                None => (&newest.bytes, None),
                Some(next) => {
                    let file = self
                        .storage
                        .open(&name)
                        .map_err(|e| error::io("cannot open segment", path.clone(), e))?;
                    read = whole(&*file, || path.clone())?;
                    verified.bytes += read.len() as u64;
                    (&read, Some(*next))
                }
            };
            let mut scan = Scan::preface(bytes, path, *first)?;
            let (before, chain) = (view_bytes(&scan.view)?, scan.chain);
            let follows = fold.as_ref().is_none_or(|fold| fold.seq + 1 == *first);
            let mark = match &fold {
                Some(fold) => {
                    Some(Mark { chain: fold.chain, atoms: Some(view_bytes(&fold.view)?) })
                }
                None => None,
            };
            for mark in mark.iter().chain(folded.marks.get(first)) {
                if !follows || mark.chain != chain {
                    return inconsistent(*first, format!("segment {name} does not follow"));
                }
                if mark.atoms.as_ref().is_some_and(|atoms| *atoms != before) {
                    return inconsistent(*first, "a snapshot is not what the events give");
                }
            }
            let start = scan.offset;
            scan.events()?;
            match next {
                Some(next) => scan.must_be_sealed(next)?,
                None if scan.cut.is_some() && !newest.torn => {
                    let spot = Spot {
                        path: self.storage.path(&name),
                        offset: scan.offset as u64,
                        seq: Some(scan.seq + 1),
                    };
                    return Err(spot.damaged("there is something after the last event"));
                }
                None => {}
            }
            compare(&folded.twice, &bytes[start..scan.offset])?;
            fold = Some(Fold { view: scan.view, seq: scan.seq, chain: scan.chain });
        }
        match fold {
            // What was in doubt may be there, or not.
            Some(fold) if newest.poisoned && fold.seq >= newest.seq => Ok(verified),
            Some(fold) if fold.seq != newest.seq => {
                inconsistent(fold.seq, format!("the last event should be {}", newest.seq))
            }
            Some(fold) if view_bytes(&fold.view)? != view_bytes(&newest.view)? => {
                inconsistent(fold.seq, "the events give other atoms than there are")
            }
            Some(_) | None => Ok(verified),
        }
    }

    /// Folds the history, part by part, from its beginning or from where another fold ended; gives what it
    /// leads to wherever a segment begins.
    fn fold_history(&self, from: Option<Folded>) -> Result<Folded, JournalError> {
        let (head, parts) = (self.history.head()?, self.history.parts()?);
        // Asked for after the head: what is sealed later begins beyond it.
        let firsts = self.catalog.lock().firsts();
        let Some(head) = head else {
            let marks =
                BTreeMap::from([(1, Mark::of(frame::CHAIN_START, Some(&View::default()))?)]);
            return Ok(Folded { marks, ..Folded::nothing(1, None) });
        };
        let begins = parts.first().map_or(head.first, |part| part.first);
        let mut folded = match from {
            Some(folded) => folded,
            None if parts.is_empty() => Folded::nothing(begins, Some(head.chain)),
            None => Folded::nothing(begins, None),
        };
        let in_log = firsts.first().copied().unwrap_or(1);
        let oldest = head.first;
        for part in &parts {
            if part.last < folded.next {
                continue;
            }
            if part.first > folded.next {
                return Err(JournalError::Compacted { asked: folded.next, oldest });
            }
            if part.first == folded.next {
                self.begin_part(part, &mut folded)?;
            }
            let (mut frames, mut offset, mut asked) = (Vec::new(), 0, None);
            while folded.next <= part.last {
                let event = match packed(&frames, &mut offset)? {
                    Some(event) if event.header.seq < folded.next => continue,
                    Some(event) => event,
                    None if asked == Some(folded.next) => {
                        return damaged(format!("event {} is missing", folded.next));
                    }
                    None => {
                        let next = folded.next;
                        let found = self.history.frames(next, READ_AHEAD)?;
                        frames = found.ok_or(JournalError::Compacted { asked: next, oldest })?;
                        (offset, asked) = (0, Some(next));
                        continue;
                    }
                };
                if firsts.binary_search(&folded.next).is_ok() {
                    folded.mark()?;
                }
                folded.event(event, oldest, in_log)?;
                self.measured.verified.fetch_add(1, Ordering::Relaxed);
            }
            if folded.chain != Some(part.chain) {
                return damaged(format!("event {} is not the one that was packed", part.last));
            }
        }
        folded.mark()?;
        Ok(folded)
    }

    /// What a part builds on must be what those before it lead to.
    fn begin_part(&self, part: &Part, folded: &mut Folded) -> Result<(), JournalError> {
        let first = part.first;
        let Some(base) = self.history.base(first)? else {
            if part.folds {
                // It went since its part was asked for.
                return Err(JournalError::Compacted { asked: first, oldest: first + 1 });
            }
            folded.view = None;
            return Ok(());
        };
        let view = base.view().map_err(|problem| JournalError::HistoryDamaged { problem })?;
        if folded.chain.is_some_and(|chain| chain != base.chain()) {
            return damaged(format!("event {first} does not follow what it builds on"));
        }
        if let Some(before) = &folded.view
            && view_bytes(before)? != view_bytes(&view)?
        {
            return inconsistent(
                first,
                "what a part of the history builds on is not what the events give",
            );
        }
        (folded.chain, folded.view) = (Some(base.chain()), Some(view));
        Ok(())
    }

    /// The newest segment and the atoms as they are, at one moment.
    fn newest(&self) -> Result<Newest, JournalError> {
        let decided = self.decided.lock();
        // A poisoned journal has nothing under way either.
        let poisoned = self.drain().is_err();
        let bytes = whole(&*decided.segment.file, || self.storage.path(&decided.segment.name))?;
        let (view, seq) = {
            let seen = self.visible.lock();
            (seen.view.clone(), seen.seq)
        };
        let firsts = self.catalog.lock().firsts();
        let torn = poisoned || matches!(decided.mend, Mend::Zeros { .. });
        Ok(Newest { bytes, view, seq, firsts, torn, poisoned })
    }
}

impl Mark {
    fn of(chain: u32, view: Option<&View>) -> Result<Self, JournalError> {
        Ok(Self { chain, atoms: view.map(view_bytes).transpose()? })
    }
}

impl Folded {
    fn nothing(next: u64, chain: Option<u32>) -> Self {
        let (marks, twice) = (BTreeMap::new(), Vec::new());
        Self { next, chain, view: None, marks, twice, events: 0, bytes: 0 }
    }

    /// Remembers what was folded so far.
    fn mark(&mut self) -> Result<(), JournalError> {
        if let Some(chain) = self.chain {
            self.marks.insert(self.next, Mark::of(chain, self.view.as_ref())?);
        }
        Ok(())
    }

    fn event(&mut self, event: ReadEvent, oldest: u64, in_log: u64) -> Result<(), JournalError> {
        let (header, record) = (event.header, event.record);
        if header.seq != self.next || self.chain.is_some_and(|chain| chain != header.prev) {
            return damaged(format!("event {} does not follow the one before it", self.next));
        }
        self.chain = Some(header.crc);
        self.next += 1;
        self.bytes += header.frame_bytes() as u64;
        self.events += u64::from(header.seq >= oldest);
        if header.seq >= in_log {
            self.twice.push((header.seq, header.crc));
        }
        match self.view.as_mut().map(|view| view.apply(record.atom, record.at, &record.fact)) {
            None => Ok(()),
            Some(Ok(atom)) if atom.state() == record.state => Ok(()),
            Some(Ok(_)) => inconsistent(record.seq, "it leads to another state"),
            Some(Err(unfit)) => inconsistent(record.seq, unfit.to_string()),
        }
    }
}

struct Newest {
    bytes: Vec<u8>,
    view: View,
    seq: u64,
    firsts: Vec<u64>,
    /// What follows the last event may be anything.
    torn: bool,
    poisoned: bool,
}

fn whole(
    file: &dyn StoredFile,
    path: impl Fn() -> std::path::PathBuf,
) -> Result<Vec<u8>, JournalError> {
    let failed = |source| error::io("cannot read segment", path(), source);
    let len = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
    if len < SEGMENT_HEADER_BYTES {
        return Err(Spot { path: path(), offset: 0, seq: None }.damaged("the file is too short"));
    }
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Whether the frames of a segment that are also in the history are the same there.
fn compare(twice: &[(u64, u32)], mut frames: &[u8]) -> Result<(), JournalError> {
    while let Ok((header, _)) = frame::decode(frames) {
        let found = twice.binary_search_by_key(&header.seq, |(seq, _)| *seq);
        if header.kind == frame::Kind::Event && found.is_ok_and(|at| twice[at].1 != header.crc) {
            return inconsistent(header.seq, "history and write-ahead log disagree about it");
        }
        frames = &frames[header.frame_bytes()..];
    }
    Ok(())
}
