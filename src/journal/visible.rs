//! What is acknowledged: the view that readers see, and who waits for it to change.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::error::JournalError;
use super::options::{MAX_RECENT_BYTES, MAX_RECENT_EVENTS};
use super::view::View;
use super::{Fact, Record, Unfit};
use crate::atom::{Atom, AtomId};

/// Why nothing more will come.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    Closed,
    Poisoned(Arc<str>),
}

impl Ended {
    pub(crate) fn error(&self) -> JournalError {
        match self {
            Self::Closed => JournalError::Closed,
            Self::Poisoned(cause) => JournalError::Poisoned { cause: cause.clone() },
        }
    }
}

/// The acknowledged state.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) view: View,
    /// The number of the last event in it.
    pub(crate) seq: u64,
    pub(crate) ended: Option<Ended>,
    recent: VecDeque<(Arc<Record>, usize)>,
    recent_bytes: usize,
    waiters: HashMap<AtomId, Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    changed: Arc<Condvar>,
    count: usize,
}

impl Seen {
    /// The event with this number, if it is one of the newest.
    pub(crate) fn recent(&self, seq: u64) -> Option<Arc<Record>> {
        let oldest = self.recent.front()?.0.seq;
        let position = usize::try_from(seq.checked_sub(oldest)?).ok()?;
        Some(self.recent.get(position)?.0.clone())
    }
}

/// [`Seen`], its lock, and the bells of those who wait.
#[derive(Debug, Default)]
pub(crate) struct Visible {
    seen: Mutex<Seen>,
    news: Condvar,
}

impl Visible {
    pub(crate) fn new(view: View, seq: u64) -> Self {
        Self { seen: Mutex::new(Seen { view, seq, ..Seen::default() }), news: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// Makes events visible and wakes those who wait for their atoms.
    pub(crate) fn publish(&self, records: Vec<(Arc<Record>, usize)>) -> Result<(), Unfit> {
        if records.is_empty() {
            return Ok(());
        }
        let mut seen = self.seen.lock();
        let seen = &mut *seen;
        for (record, bytes) in records {
            seen.view.apply(record.atom, record.at, &record.fact)?;
            seen.seq = record.seq;
            // A retry changes the atom that it replaces, too.
            let replaced = match &record.fact {
                Fact::Created(creation) => creation.retry_of,
                Fact::Happened { .. } | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => {
                    None
                }
            };
            for atom in [Some(record.atom), replaced].into_iter().flatten() {
                if let Some(waiters) = seen.waiters.get(&atom) {
                    waiters.changed.notify_all();
                }
            }
            seen.recent_bytes += bytes;
            seen.recent.push_back((record, bytes));
            while seen.recent.len() > MAX_RECENT_EVENTS
                || (seen.recent_bytes > MAX_RECENT_BYTES && seen.recent.len() > 1)
            {
                if let Some((_, bytes)) = seen.recent.pop_front() {
                    seen.recent_bytes -= bytes;
                }
            }
        }
        self.news.notify_all();
        Ok(())
    }

    /// Nothing more comes: wakes everybody. The first reason stays.
    pub(crate) fn end(&self, ended: Ended) {
        let mut seen = self.seen.lock();
        match (&seen.ended, &ended) {
            (None, _) | (Some(Ended::Poisoned(_)), Ended::Closed) => seen.ended = Some(ended),
            (Some(_), _) => {}
        }
        for waiters in seen.waiters.values() {
            waiters.changed.notify_all();
        }
        self.news.notify_all();
    }

    /// Blocks until `done` is satisfied with the atom, the deadline passes, or nothing more comes.
    pub(crate) fn wait_until<T>(
        &self,
        atom: AtomId,
        deadline: Option<Instant>,
        mut done: impl FnMut(Option<&Atom>) -> Option<T>,
    ) -> Result<Option<T>, JournalError> {
        let mut seen = self.seen.lock();
        loop {
            if let Some(answer) = done(seen.view.get(atom)) {
                return Ok(Some(answer));
            }
            if let Some(ended) = &seen.ended {
                return Err(ended.error());
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
            let waiters = seen.waiters.entry(atom).or_default();
            waiters.count += 1;
            let changed = waiters.changed.clone();
            wait(&changed, &mut seen, deadline);
            if let Some(waiters) = seen.waiters.get_mut(&atom) {
                waiters.count -= 1;
                if waiters.count == 0 {
                    seen.waiters.remove(&atom);
                }
            }
        }
    }

    /// Blocks until there is any news, or the deadline passes. May return early.
    pub(crate) fn wait_for_news(&self, seen: &mut MutexGuard<'_, Seen>, deadline: Option<Instant>) {
        wait(&self.news, seen, deadline);
    }
}

fn wait(bell: &Condvar, seen: &mut MutexGuard<'_, Seen>, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => {
            bell.wait_until(seen, deadline);
        }
        None => bell.wait(seen),
    }
}
