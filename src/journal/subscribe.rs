//! Following the journal: what was, then what comes, without a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use super::Record;
use super::core::Core;
use super::error::JournalError;
use super::read::Records;
use crate::wakers::block_on_poll;

/// A reader that follows the journal.
///
/// It has no queue of its own, so it cannot hold up the writer: it takes what
/// it needs from the newest events in memory, or from disk when it is further behind.
#[derive(Debug)]
pub struct Subscription {
    core: Arc<Core>,
    next: u64,
    /// The same for others to see.
    position: Arc<AtomicU64>,
    records: Option<Records>,
    /// Our number among those who are woken by news.
    key: Option<u64>,
}

/// Where the next event of a subscription is.
#[derive(Debug)]
pub(crate) enum Near {
    /// In memory: here it is.
    Event(Arc<Record>),
    /// It has to be read from disk: [`Subscription::next`] does that.
    OnDisk,
}

impl Subscription {
    pub(crate) fn new(core: Arc<Core>, from: u64) -> Self {
        let next = from.max(1);
        let position = core.measured.follow(next);
        Self { core, next, position, records: None, key: None }
    }

    /// The number of the event that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next event; blocks until there is one. `None` when the deadline passes before.
    ///
    /// # Errors
    ///
    /// [`JournalError::Closed`] or [`JournalError::Poisoned`] once every
    /// acknowledged event was given and no more will come;
    /// [`JournalError::Lagged`] when the event is no longer kept; or what reading gives.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Arc<Record>>, JournalError> {
        match block_on_poll(deadline, |context| self.poll_near(context)).transpose()? {
            None => return Ok(None),
            Some(Near::Event(record)) => return Ok(Some(record)),
            Some(Near::OnDisk) => {}
        }
        let end = self.core.visible.lock().seq;
        let mut records = match self.records.take() {
            Some(mut records) if records.position() == self.next => {
                records.extend(end);
                records
            }
            Some(_) | None => Records::new(self.core.clone(), self.next, end).map_err(lagged)?,
        };
        let event = records.next_event().map_err(lagged)?;
        self.records = Some(records);
        Ok(event.map(|event| {
            self.move_to(self.next + 1);
            Arc::new(event.record)
        }))
    }

    /// The next event if that takes no reading; whoever has to wait is woken when there may be more.
    pub(crate) fn poll_near(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Near, JournalError>> {
        let event = self.core.visible.poll_event(self.next, &mut self.key, context.waker());
        event.map_ok(|event| match event {
            Some(record) => {
                self.move_to(self.next + 1);
                self.records = None;
                Near::Event(record)
            }
            None => Near::OnDisk,
        })
    }

    /// Goes on with the oldest event that is kept, if that is a later one; gives how many were missed.
    ///
    /// # Errors
    ///
    /// When the history cannot tell.
    pub fn skip_to_oldest(&mut self) -> Result<u64, JournalError> {
        let oldest = self.core.oldest_seq()?;
        let missed = oldest.saturating_sub(self.next);
        self.move_to(self.next + missed);
        Ok(missed)
    }

    /// Goes on with this event, if it is a later one.
    pub(crate) fn skip_to(&mut self, next: u64) {
        self.move_to(self.next.max(next));
    }

    fn move_to(&mut self, next: u64) {
        self.next = next;
        self.position.store(next, Ordering::Relaxed);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.core.visible.unfollow(key);
        }
    }
}

/// What is gone for a reader has overtaken a subscription.
fn lagged(error: JournalError) -> JournalError {
    match error {
        JournalError::Compacted { asked, oldest } => JournalError::Lagged { at: asked, oldest },
        JournalError::Unfit(_)
        | JournalError::Io { .. }
        | JournalError::NoSpace { .. }
        | JournalError::TooLarge { .. }
        | JournalError::Damaged { .. }
        | JournalError::Newer { .. }
        | JournalError::InDoubt { .. }
        | JournalError::Poisoned { .. }
        | JournalError::Lagged { .. }
        | JournalError::Inconsistent { .. }
        | JournalError::Closed
        | JournalError::HistoryDamaged { .. } => error,
    }
}
