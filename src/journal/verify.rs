//! Reading everything and proving that it fits together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::error::{self, JournalError};
use super::frame;
use super::read::packed;
use super::storage::StoredFile;
use super::view::View;
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

/// What the history leads to where a segment begins.
struct Mark {
    chain: u32,
    atoms: Vec<Vec<u8>>,
}

fn inconsistent<T>(seq: u64, problem: impl Into<String>) -> Result<T, JournalError> {
    Err(JournalError::Inconsistent { seq, problem: problem.into() })
}

impl Core {
    /// See [`Journal::verify`](super::Journal::verify).
    pub(crate) fn verify(&self) -> Result<Verified, JournalError> {
        let _stay = self.maintenance.segments_stay.lock();
        let newest = self.newest()?;
        let oldest = self.oldest_seq()?;
        let mut verified = Verified {
            oldest,
            events: newest.seq + 1 - oldest,
            packed: 0,
            atoms: newest.view.len(),
            segments: newest.firsts.len(),
            bytes: newest.bytes.len() as u64,
        };
        // What is both in the history and still in a segment must be the same.
        let mut twice = Vec::new();
        let marks = self.fold_history(&newest.firsts, &mut twice, &mut verified)?;
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
                Some(fold) => Some(Mark { chain: fold.chain, atoms: view_bytes(&fold.view)? }),
                None => None,
            };
            for mark in mark.iter().chain(marks.get(first)) {
                if !follows || mark.chain != chain {
                    return inconsistent(*first, format!("segment {name} does not follow"));
                }
                if mark.atoms != before {
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
            compare(&twice, &bytes[start..scan.offset])?;
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

    /// Folds the history from what it builds on; gives what it leads to wherever a segment begins.
    fn fold_history(
        &self,
        firsts: &[u64],
        twice: &mut Vec<(u64, u32)>,
        verified: &mut Verified,
    ) -> Result<BTreeMap<u64, Mark>, JournalError> {
        let damaged = |problem: String| JournalError::HistoryDamaged { problem };
        let in_log = firsts.first().copied().unwrap_or(1);
        let mut marks = BTreeMap::new();
        let Some(head) = self.history.head()? else {
            if in_log > 1 {
                return Err(damaged(format!("the events before {in_log} are gone")));
            }
            marks.insert(1, Mark { chain: frame::CHAIN_START, atoms: Vec::new() });
            return Ok(marks);
        };
        if in_log > head.last + 1 {
            let gone = head.last + 1..in_log;
            return Err(damaged(format!("the events from {} to {in_log} are gone", gone.start)));
        }
        // What is before the base is read, and not folded.
        let (mut view, base, base_chain) = match self.history.base()? {
            Some(base) => (base.view().map_err(damaged)?, base.first(), Some(base.chain())),
            None if head.first == 1 => (View::default(), 1, Some(frame::CHAIN_START)),
            None => {
                let first = head.first;
                return Err(damaged(format!("what event {first} builds on is gone")));
            }
        };
        let mut chain = None;
        let mut next = head.first;
        let mut frames = Vec::new();
        let mut offset = 0;
        loop {
            if next == base {
                if chain.is_some() && chain != base_chain {
                    return Err(damaged(format!("event {next} does not follow what it builds on")));
                }
                chain = base_chain;
            }
            if let (true, Some(chain)) = (next >= base && firsts.contains(&next), chain) {
                marks.insert(next, Mark { chain, atoms: view_bytes(&view)? });
            }
            if next > head.last {
                break;
            }
            let event = loop {
                match packed(&frames, &mut offset)? {
                    Some(event) if event.header.seq < next && frames.len() > offset => {}
                    Some(event) => break event,
                    None => {
                        let found = self.history.frames(next)?;
                        frames = found.ok_or_else(|| damaged(format!("no event {next}")))?;
                        verified.bytes += frames.len() as u64;
                        offset = 0;
                    }
                }
            };
            let header = event.header;
            if header.seq != next || chain.is_some_and(|chain| chain != header.prev) {
                let problem = format!("event {next} does not follow the one before it");
                return Err(damaged(problem));
            }
            chain = Some(header.crc);
            next += 1;
            verified.packed += 1;
            if header.seq >= in_log {
                twice.push((header.seq, header.crc));
            }
            if header.seq < base {
                continue;
            }
            let record = event.record;
            match view.apply(record.atom, record.at, &record.fact) {
                Ok(atom) if atom.state() == record.state => {}
                Ok(_) => return inconsistent(record.seq, "it leads to another state"),
                Err(unfit) => return inconsistent(record.seq, unfit.to_string()),
            }
        }
        if chain.is_some_and(|chain| chain != head.chain) {
            return Err(damaged(format!("event {} is not the one that was packed", head.last)));
        }
        Ok(marks)
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
