//! The in-memory twin of the history.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Chunk, Head, History, HistoryState, HistoryUsage};
use crate::atom::AtomId;
use crate::journal::JournalError;

/// A history that is gone with its last handle.
#[derive(Debug, Default)]
pub struct MemoryHistory {
    chunks: Mutex<BTreeMap<u64, Chunk>>,
}

impl MemoryHistory {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }
}

impl History for MemoryHistory {
    fn head(&self) -> Result<Option<Head>, JournalError> {
        let chunks = self.chunks.lock();
        let (first, last) = (chunks.first_key_value(), chunks.last_key_value());
        Ok(first.zip(last).map(|((first, _), (_, last))| Head {
            first: *first,
            last: last.last,
            chain: last.chain,
        }))
    }

    fn append(&self, new: &[Chunk]) -> Result<(), JournalError> {
        let mut chunks = self.chunks.lock();
        for chunk in new {
            chunks.insert(chunk.first, chunk.clone());
        }
        Ok(())
    }

    fn frames(&self, seq: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let chunks = self.chunks.lock();
        let chunk = chunks.range(..=seq).next_back().map(|(_, chunk)| chunk);
        Ok(chunk.filter(|chunk| chunk.last >= seq).map(|chunk| chunk.frames.clone()))
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        let chunks = self.chunks.lock();
        let all = chunks.values().flat_map(|chunk| &chunk.atoms);
        Ok(all.filter(|(id, _)| *id == atom).map(|(_, seq)| *seq).collect())
    }

    fn usage(&self) -> HistoryUsage {
        let chunks = self.chunks.lock();
        let bytes = chunks.values().map(|chunk| chunk.frames.len() as u64).sum();
        let state = if chunks.is_empty() { HistoryState::Absent } else { HistoryState::Whole };
        HistoryUsage { state, bytes }
    }

    fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}
