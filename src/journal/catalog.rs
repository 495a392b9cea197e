//! Which segments there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{self, JournalError};
use super::storage::{Storage, StoredFile};
use super::wal::reader::SegmentReader;
use super::wal::segment;

/// The segments of the write-ahead log, by their first event. The last one is written to.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    segments: BTreeMap<u64, Option<Arc<dyn StoredFile>>>,
}

impl Catalog {
    pub(crate) fn new(firsts: impl IntoIterator<Item = u64>) -> Self {
        Self { segments: firsts.into_iter().map(|first| (first, None)).collect() }
    }

    /// Adds the segment that is written to from now on; lets go of the file of the one before.
    pub(crate) fn add(&mut self, first: u64, file: Arc<dyn StoredFile>) {
        for older in self.segments.values_mut() {
            *older = None;
        }
        self.segments.insert(first, Some(file));
    }

    pub(crate) fn remove(&mut self, first: u64) {
        self.segments.remove(&first);
    }

    /// Adds one again that could not be removed.
    pub(crate) fn put_back(&mut self, first: u64) {
        self.segments.insert(first, None);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    /// The first events of all segments.
    pub(crate) fn firsts(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }

    /// The first event that is still in the write-ahead log.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.segments.keys().next().copied()
    }

    /// The file of the segment that has the event with this number, and its first event.
    pub(crate) fn find(&self, seq: u64) -> Option<(u64, Option<Arc<dyn StoredFile>>)> {
        let (first, file) = self.segments.range(..=seq).next_back()?;
        Some((*first, file.clone()))
    }
}

/// A reader at the beginning of a segment.
pub(crate) fn reader(
    storage: &dyn Storage,
    first: u64,
    file: Option<Arc<dyn StoredFile>>,
) -> Result<SegmentReader, JournalError> {
    let name = segment::name(first);
    let path = storage.path(&name);
    let file = match file {
        Some(file) => file,
        None => {
            storage.open(&name).map_err(|e| error::io("cannot open segment", path.clone(), e))?
        }
    };
    SegmentReader::open(file, path, first)
}
