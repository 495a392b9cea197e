//! What waits for the writer, and who waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Record;
use super::error::JournalError;
use super::storage::StoredFile;

/// Events that are written and made durable in one go.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) file: Arc<dyn StoredFile>,
    pub(crate) offset: u64,
    /// Where it is written how far the log has come.
    pub(crate) progress: Option<u64>,
    pub(crate) bytes: Vec<u8>,
    /// With the bytes of each one's frame.
    pub(crate) records: Vec<(Arc<Record>, usize)>,
    /// It must be durable before anything after it is written, whatever the durability.
    pub(crate) barrier: bool,
    pub(crate) done: Arc<Done>,
}

/// Between the appending side and the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) groups: VecDeque<Group>,
    pub(crate) bytes: usize,
    /// The writer is at work on a group that is no longer in `groups`.
    pub(crate) busy: bool,
    /// When what was written must be synced, and the file: for batched durability.
    pub(crate) due: Option<(Instant, Arc<dyn StoredFile>)>,
    /// The last event known to be synced.
    pub(crate) synced: u64,
    pub(crate) closing: bool,
    pub(crate) failed: Option<Arc<str>>,
}

/// Whether a group is done, and who waits for that.
#[derive(Debug, Default)]
pub(crate) struct Done {
    result: Mutex<Option<Result<(), Arc<str>>>>,
    changed: Condvar,
}

impl Done {
    pub(crate) fn set(&self, result: Result<(), Arc<str>>) {
        *self.result.lock() = Some(result);
        self.changed.notify_all();
    }

    fn wait(&self) -> Result<(), Arc<str>> {
        let mut result = self.result.lock();
        loop {
            match &*result {
                Some(result) => return result.clone(),
                None => self.changed.wait(&mut result),
            }
        }
    }
}

/// The promise of a change: it becomes durable and visible, or an error says that it is in doubt.
///
/// Dropping it without waiting is fine: the change goes its way.
#[derive(Debug)]
#[must_use = "a change is not durable before its ticket was waited for"]
pub struct Ticket {
    waits_for: Option<(u64, Arc<Done>)>,
}

impl Ticket {
    pub(crate) fn ready() -> Self {
        Self { waits_for: None }
    }

    pub(crate) fn of(seq: u64, done: Arc<Done>) -> Self {
        Self { waits_for: Some((seq, done)) }
    }

    /// Blocks until the change is durable and visible.
    ///
    /// # Errors
    ///
    /// [`JournalError::InDoubt`] when a write failed: the change may or may not be there after reopening.
    pub fn wait(self) -> Result<(), JournalError> {
        match self.waits_for {
            None => Ok(()),
            Some((seq, done)) => done.wait().map_err(|cause| JournalError::InDoubt { seq, cause }),
        }
    }

    /// The number of the last event of the change; `None` when it has none.
    pub fn seq(&self) -> Option<u64> {
        self.waits_for.as_ref().map(|(seq, _)| *seq)
    }
}
