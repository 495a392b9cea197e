//! Watching one atom without blocking.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::core::Core;
use super::error::JournalError;
use crate::atom::{Atom, AtomId};

/// One who waits for an atom, woken by its changes: [`Journal::wait_until`](super::Journal::wait_until)
/// for those who must not block.
#[derive(Debug)]
pub(crate) struct AtomWatch {
    core: Arc<Core>,
    atom: AtomId,
    key: Option<u64>,
}

impl AtomWatch {
    pub(super) fn new(core: Arc<Core>, atom: AtomId) -> Self {
        Self { core, atom, key: None }
    }

    /// Ready when `done` gives something for the acknowledged atom, or nothing more comes. `done` must not
    /// call the journal.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        done: impl FnOnce(Option<&Atom>) -> Option<T>,
    ) -> Poll<Result<T, JournalError>> {
        self.core.visible.poll_until(self.atom, &mut self.key, context.waker(), done)
    }
}

impl Drop for AtomWatch {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.core.visible.forget(self.atom, key);
        }
    }
}
