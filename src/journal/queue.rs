//! What waits for the writer, and who waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Condvar;

use super::Record;
use super::core::Core;
use super::error::JournalError;
use super::storage::StoredFile;
use super::writer;

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
    /// How many changes they are of.
    pub(crate) changes: usize,
    /// It must be durable before anything after it is written, whatever the durability.
    pub(crate) barrier: bool,
    pub(crate) done: Arc<Done>,
}

/// Between the appending side and the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) groups: VecDeque<Group>,
    pub(crate) bytes: usize,
    /// Somebody is at work on a group that is no longer in `groups`: the writer, or one who waits for it.
    pub(crate) busy: bool,
    /// The last group was of several changes, or others came while it was written: the writer has enough to do.
    pub(crate) crowded: bool,
    /// When what was written must be synced, and the file: for batched durability.
    pub(crate) due: Option<(Instant, Arc<dyn StoredFile>)>,
    /// The last event known to be synced.
    pub(crate) synced: u64,
    pub(crate) closing: bool,
    pub(crate) failed: Option<Arc<str>>,
}

impl Queue {
    /// Has what is queued written. Whoever writes already goes on with it, or tells the writer.
    pub(crate) fn tell_writer(&self, work: &Condvar) {
        if !self.busy {
            work.notify_one();
        }
    }
}

/// Whether a group is done. Those who wait for it are woken all at once.
#[derive(Debug, Default)]
pub(crate) struct Done {
    result: OnceLock<Result<(), Arc<str>>>,
}

impl Done {
    /// Only the first result counts.
    pub(crate) fn set(&self, result: Result<(), Arc<str>>) {
        let _ = self.result.set(result);
    }

    fn is_set(&self) -> bool {
        self.result.get().is_some()
    }

    fn wait(&self) -> Result<(), Arc<str>> {
        self.result.wait().clone()
    }
}

/// The promise of a change: it becomes durable and visible, or an error says that it is in doubt.
///
/// Dropping it without waiting is fine: the change goes its way.
#[derive(Debug)]
#[must_use = "a change is not durable before its ticket was waited for"]
pub struct Ticket {
    waits_for: Option<(u64, Arc<Done>)>,
    /// The writer was not told of it: this writes it, or tells it.
    untold: Option<Arc<Core>>,
}

impl Ticket {
    pub(crate) fn ready() -> Self {
        Self { waits_for: None, untold: None }
    }

    pub(crate) fn of(seq: u64, done: Arc<Done>) -> Self {
        Self { waits_for: Some((seq, done)), untold: None }
    }

    /// The same of a change of which the writer was not told.
    pub(crate) fn untold(seq: u64, done: Arc<Done>, core: &Arc<Core>) -> Self {
        Self { waits_for: Some((seq, done)), untold: Some(Arc::clone(core)) }
    }

    /// Has a change written of which the writer was not told: here, unless somebody is writing.
    pub(crate) fn write(&mut self) {
        if let Some(core) = self.take_untold() {
            writer::write_here(&core);
        }
    }

    /// Tells the writer of a change of which it was not told.
    pub(crate) fn tell(&mut self) {
        if let Some(core) = self.take_untold() {
            core.queue.lock().tell_writer(&core.work);
        }
    }

    /// Whose change nobody has written yet of which the writer was not told. It is seen to once.
    fn take_untold(&mut self) -> Option<Arc<Core>> {
        let core = self.untold.take()?;
        let (_, done) = self.waits_for.as_ref()?;
        (!done.is_set()).then_some(core)
    }

    /// Blocks until the change is durable and visible.
    ///
    /// # Errors
    ///
    /// [`JournalError::InDoubt`] when a write failed: the change may or may not be there after reopening.
    pub fn wait(mut self) -> Result<(), JournalError> {
        self.write();
        match self.waits_for.take() {
            None => Ok(()),
            Some((seq, done)) => done.wait().map_err(|cause| JournalError::InDoubt { seq, cause }),
        }
    }

    /// The number of the last event of the change; `None` when it has none.
    pub fn seq(&self) -> Option<u64> {
        self.waits_for.as_ref().map(|(seq, _)| *seq)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tell();
    }
}
