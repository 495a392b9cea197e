//! Reading the history on, on a thread, while what was read is decoded.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::{Condvar, Mutex};

use super::super::core::Core;
use super::super::open::spawn;
use super::frames::{Checked, READ_AHEAD};

/// So often whoever reads on reads by itself: most never come farther.
const BY_ITSELF: u32 = 2;

/// How many portions of [`READ_AHEAD`] may wait: enough to go on with while a part is opened.
const WAITING: usize = 16;

/// For so many readers of a journal is read ahead at a time; any other reads by itself.
const READERS: usize = 4;

/// What is read ahead for one reader.
#[derive(Debug)]
pub(super) enum Ahead {
    /// Nothing, so far.
    Not {
        /// How often it could have been.
        asked: u32,
    },
    /// A thread reads: frames come, each with the event that they were read for. It ends when nobody takes them.
    Reading(Mutex<Receiver<(u64, Checked)>>),
    /// Nothing more: the thread came to the end of what is only in the history, or to what it cannot read.
    Over,
}

impl Ahead {
    /// The frames from this event on, if somebody has read them ahead. Whoever gets none reads them by itself.
    pub(super) fn take(&mut self, core: &Arc<Core>, seq: u64, end: u64) -> Option<Checked> {
        if let Self::Not { asked } = self {
            *asked += 1;
            if *asked <= BY_ITSELF {
                return None;
            }
            *self = start(core, seq, end).map_or(Self::Over, |frames| Self::Reading(frames.into()));
        }
        let Self::Reading(frames) = self else { return None };
        let next = frames.get_mut().recv().ok();
        match next.filter(|(first, _)| *first == seq) {
            Some((_, frames)) => Some(frames),
            None => {
                *self = Self::Over;
                None
            }
        }
    }
}

fn start(core: &Arc<Core>, first: u64, end: u64) -> Option<Receiver<(u64, Checked)>> {
    let seat = Seat::take(core)?;
    let (sender, frames) = sync_channel(WAITING);
    let started = spawn("caesium-read", move || read(&seat.0, first, end, &sender));
    started.map_err(|error| tracing::warn!(%error, "nothing is read ahead")).ok()?;
    Some(frames)
}

/// Reads until nobody listens, or there is nothing more that is whole and only in the history.
fn read(core: &Core, first: u64, end: u64, sender: &SyncSender<(u64, Checked)>) {
    let mut next = first;
    while next <= end && core.catalog.lock().oldest().is_none_or(|in_log| next < in_log) {
        let Some(frames) = core.readers.at_work(|| core.history.frames(next, READ_AHEAD)) else {
            return;
        };
        let Ok(Some(frames)) = frames else { return };
        let frames = Checked::new(frames);
        let Some(last) = frames.last().filter(|last| *last >= next) else { return };
        if sender.send((next, frames)).is_err() {
            return;
        }
        next = last + 1;
    }
}

/// The threads that read ahead in a journal.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    state: Mutex<State>,
    /// None of them is at work any more.
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    seats: usize,
    at_work: usize,
    closed: bool,
}

impl Readers {
    /// Does something with the history, unless the journal was closed.
    fn at_work<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            state.at_work += 1;
        }
        // Also when it panics.
        let _done = Done(self);
        Some(work())
    }

    /// Waits until none of them uses the history; none will from now on.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        while state.at_work > 0 {
            self.idle.wait(&mut state);
        }
    }
}

struct Done<'a>(&'a Readers);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.state.lock().at_work -= 1;
        self.0.idle.notify_all();
    }
}

/// The right to be one of [`READERS`], until this is dropped.
struct Seat(Arc<Core>);

impl Seat {
    fn take(core: &Arc<Core>) -> Option<Self> {
        let mut state = core.readers.state.lock();
        if core.stepped || state.closed || state.seats == READERS {
            return None;
        }
        state.seats += 1;
        Some(Self(Arc::clone(core)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.readers.state.lock().seats -= 1;
    }
}
