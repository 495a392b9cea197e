//! What is acknowledged: the view that readers see, and who waits for it to change.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use super::error::JournalError;
use super::options::{MAX_RECENT_BYTES, MAX_RECENT_EVENTS};
use super::view::View;
use super::{Fact, Record, Unfit};
use crate::atom::{Atom, AtomId};
use crate::wakers::{Wakers, wake};

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
    /// Those who wait for one atom.
    waiters: HashMap<AtomId, Wakers>,
    /// Those who wait for any news.
    followers: Wakers,
}

impl Seen {
    /// The event with this number, if it is one of the newest.
    fn recent(&self, seq: u64) -> Option<Arc<Record>> {
        let oldest = self.recent.front()?.0.seq;
        let position = usize::try_from(seq.checked_sub(oldest)?).ok()?;
        Some(self.recent.get(position)?.0.clone())
    }
}

/// [`Seen`], and its lock.
#[derive(Debug, Default)]
pub(crate) struct Visible {
    seen: Mutex<Seen>,
}

impl Visible {
    pub(crate) fn new(view: View, seq: u64) -> Self {
        Self { seen: Mutex::new(Seen { view, seq, ..Seen::default() }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    /// Makes events visible and wakes those who wait for their atoms.
    pub(crate) fn publish(&self, records: Vec<(Arc<Record>, usize)>) -> Result<(), Unfit> {
        if records.is_empty() {
            return Ok(());
        }
        let mut guard = self.seen.lock();
        let seen = &mut *guard;
        let mut woken = Vec::new();
        let applied = records.into_iter().try_for_each(|(record, bytes)| {
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
                if let Some(mut waiters) = seen.waiters.remove(&atom) {
                    woken.append(&mut waiters.take());
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
            Ok(())
        });
        woken.append(&mut seen.followers.take());
        drop(guard);
        wake(woken);
        applied
    }

    /// Nothing more comes: wakes everybody. The first reason stays.
    pub(crate) fn end(&self, ended: Ended) {
        let mut seen = self.seen.lock();
        match (&seen.ended, &ended) {
            (None, _) | (Some(Ended::Poisoned(_)), Ended::Closed) => seen.ended = Some(ended),
            (Some(_), _) => {}
        }
        let mut woken = seen.followers.take();
        for (_, mut waiters) in seen.waiters.drain() {
            woken.append(&mut waiters.take());
        }
        drop(seen);
        wake(woken);
    }

    /// Ready when `done` is satisfied with the atom, or nothing more comes; if not, `waker` is woken
    /// when it is worth asking again.
    pub(crate) fn poll_until<T>(
        &self,
        atom: AtomId,
        key: &mut Option<u64>,
        waker: &Waker,
        done: impl FnOnce(Option<&Atom>) -> Option<T>,
    ) -> Poll<Result<T, JournalError>> {
        let mut seen = self.seen.lock();
        if let Some(answer) = done(seen.view.get(atom)) {
            return Poll::Ready(Ok(answer));
        }
        if let Some(ended) = &seen.ended {
            return Poll::Ready(Err(ended.error()));
        }
        seen.waiters.entry(atom).or_default().add(key, waker);
        Poll::Pending
    }

    /// One who waited for this atom waits no longer.
    pub(crate) fn forget(&self, atom: AtomId, key: u64) {
        let mut seen = self.seen.lock();
        if let Some(waiters) = seen.waiters.get_mut(&atom) {
            waiters.remove(key);
            if waiters.is_empty() {
                seen.waiters.remove(&atom);
            }
        }
    }

    /// Ready when the event with this number was acknowledged, with it if it is in memory, or when nothing
    /// more comes; if not, `waker` is woken by any news.
    pub(crate) fn poll_event(
        &self,
        seq: u64,
        key: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<Result<Option<Arc<Record>>, JournalError>> {
        let mut seen = self.seen.lock();
        if seen.seq >= seq {
            return Poll::Ready(Ok(seen.recent(seq)));
        }
        if let Some(ended) = &seen.ended {
            return Poll::Ready(Err(ended.error()));
        }
        seen.followers.add(key, waker);
        Poll::Pending
    }

    /// One who waited for news waits no longer.
    pub(crate) fn unfollow(&self, key: u64) {
        self.seen.lock().followers.remove(key);
    }
}
