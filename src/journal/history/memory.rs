//! The in-memory twin of the history.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Base, Chunk, Head, History, HistoryState, HistoryUsage, Packing};
use crate::atom::AtomId;
use crate::journal::JournalError;
use crate::journal::read::packed;

/// A history that is gone with its last handle.
#[derive(Debug, Default)]
pub struct MemoryHistory {
    kept: Mutex<Kept>,
}

#[derive(Debug, Clone, Default)]
struct Kept {
    chunks: BTreeMap<u64, Chunk>,
    base: Option<Base>,
}

impl MemoryHistory {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a crash at this moment leaves: another history, with all of it.
    pub fn crash(&self) -> Self {
        Self { kept: Mutex::new(self.kept.lock().clone()) }
    }
}

impl History for MemoryHistory {
    fn head(&self) -> Result<Option<Head>, JournalError> {
        let kept = self.kept.lock();
        let (first, last) = (kept.chunks.first_key_value(), kept.chunks.last_key_value());
        let cut = kept.base.as_ref().map(|base| Head {
            first: base.first(),
            last: base.first() - 1,
            chain: base.chain(),
        });
        let head = first.zip(last).map(|((first, _), (_, last))| Head {
            first: *first,
            last: last.last,
            chain: last.chain,
        });
        Ok(head.or(cut))
    }

    fn append(&self, new: &[Chunk]) -> Result<(), JournalError> {
        let mut kept = self.kept.lock();
        for chunk in new {
            kept.chunks.insert(chunk.first, chunk.clone());
        }
        Ok(())
    }

    fn frames(&self, seq: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let kept = self.kept.lock();
        let chunk = kept.chunks.range(..=seq).next_back().map(|(_, chunk)| chunk);
        Ok(chunk.filter(|chunk| chunk.last >= seq).map(|chunk| chunk.frames.clone()))
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        let kept = self.kept.lock();
        let all = kept.chunks.values().flat_map(|chunk| &chunk.atoms);
        Ok(all.filter(|(id, _)| *id == atom).map(|(_, seq)| *seq).collect())
    }

    fn base(&self) -> Result<Option<Base>, JournalError> {
        Ok(self.kept.lock().base.clone())
    }

    fn cut(
        &self,
        first: u64,
        base: &Base,
        going_on: &dyn Fn() -> bool,
    ) -> Result<(), JournalError> {
        if !going_on() {
            return Err(JournalError::Closed);
        }
        let mut kept = self.kept.lock();
        let mut packing = Packing::default();
        for chunk in kept.chunks.values().filter(|chunk| chunk.last >= first) {
            let mut offset = 0;
            while let Some(event) = packed(&chunk.frames, &mut offset)? {
                if event.header.seq >= first {
                    packing.add(event);
                }
            }
        }
        kept.chunks = packing.finish().into_iter().map(|chunk| (chunk.first, chunk)).collect();
        kept.base = Some(base.clone());
        Ok(())
    }

    fn usage(&self) -> HistoryUsage {
        let kept = self.kept.lock();
        let bytes = kept.chunks.values().map(|chunk| chunk.frames.len() as u64).sum();
        let absent = kept.chunks.is_empty() && kept.base.is_none();
        let state = if absent { HistoryState::Absent } else { HistoryState::Whole };
        HistoryUsage { state, bytes }
    }

    fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
