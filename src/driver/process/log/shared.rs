//! What the writer and the readers of one log know of each other.

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::atom::AtomId;
use crate::driver::process::keeper::Extent;
use crate::wakers::{Wakers, wake};

/// Who writes a log, here or in another process.
pub(crate) trait Author: std::fmt::Debug + Send + Sync {
    /// A lossless reader has moved on, and the writer was held up: it can go on.
    fn resume(&self, atom: AtomId);

    /// The oldest segment that is needed is another one now. Of interest to a writer that cannot look itself.
    fn needed(&self, _atom: AtomId, _segment: Option<u64>) {}
}

/// Shared by the writer of a log and its readers.
#[derive(Debug)]
pub(crate) struct LogShared {
    atom: AtomId,
    author: Arc<dyn Author>,
    state: Mutex<LogState>,
    changed: Condvar,
}

/// How far a log has come.
#[derive(Debug, Default)]
pub(super) struct LogState {
    /// The segment that is being written.
    pub(super) segment: u64,
    /// How many bytes of it are whole chunks.
    pub(super) written: u64,
    /// Nothing more will come.
    pub(super) complete: bool,
    /// The driver has closed: what comes is not seen here.
    pub(super) closed: bool,
    /// Readers that wait.
    waiting: usize,
    /// Those of them that do not block.
    wakers: Wakers,
    /// Readers that nothing may be dropped for: their number, and the segment that they read.
    lossless: Vec<(u64, u64)>,
    next_reader: u64,
    /// The writer is held up by one of them.
    held_up: bool,
    /// Segments of a finished log that are beyond its bound, and there for one of them.
    surplus: Range<u64>,
}

impl LogShared {
    pub(crate) fn new(atom: AtomId, author: Arc<dyn Author>) -> Arc<Self> {
        Arc::new(Self { atom, author, state: Mutex::default(), changed: Condvar::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock()
    }

    /// Tells the readers how far the log has come.
    pub(super) fn publish(&self, segment: u64, written: u64) {
        let mut state = self.state.lock();
        (state.segment, state.written) = (segment, written);
        self.notify(state);
    }

    /// Tells the readers that nothing more will come, and keeps in mind which segments are to go after them.
    pub(super) fn finish(&self, surplus: Range<u64>) {
        self.state.lock().surplus = surplus;
        self.complete();
    }

    /// The segments that are to go and that nobody needs; each is given once.
    pub(super) fn take_surplus(&self) -> Range<u64> {
        let mut state = self.state.lock();
        let Range { start, end } = state.surplus;
        let gone = start..state.needed().map_or(end, |needed| needed.min(end)).max(start);
        state.surplus.start = gone.end;
        gone
    }

    /// Tells the readers that nothing more will come.
    pub(crate) fn complete(&self) {
        let mut state = self.state.lock();
        state.complete = true;
        self.notify(state);
    }

    /// Tells the readers that nobody will tell them more. A complete log stays one.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.notify(state);
    }

    fn notify(&self, mut state: MutexGuard<'_, LogState>) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        let woken = state.wakers.take();
        drop(state);
        wake(woken);
    }

    /// Whether there is more than a reader has seen; if not, it is woken when there is.
    pub(super) fn has_more(&self, seen: (u64, u64), key: &mut Option<u64>, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let more = (state.segment, state.written) != seen || state.complete || state.closed;
        if !more {
            state.wakers.add(key, waker);
        }
        more
    }

    /// A reader that waited without blocking waits no longer.
    pub(super) fn unwatch(&self, key: u64) {
        self.state.lock().wakers.remove(key);
    }

    /// Waits until there is more than a reader has seen; false when the deadline has passed.
    pub(super) fn wait_beyond(&self, seen: (u64, u64), deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        state.waiting += 1;
        let mut in_time = true;
        while in_time && (state.segment, state.written) == seen && !state.complete && !state.closed
        {
            match deadline {
                Some(deadline) => {
                    in_time = !self.changed.wait_until(&mut state, deadline).timed_out();
                }
                None => self.changed.wait(&mut state),
            }
        }
        state.waiting -= 1;
        in_time
    }

    /// Lets a reader in that nothing may be dropped for.
    pub(crate) fn enter(&self, segment: u64) -> u64 {
        let mut state = self.state.lock();
        let number = state.next_reader;
        state.next_reader += 1;
        state.lossless.push((number, segment));
        number
    }

    /// Says which segment such a reader has come to; `None` when it has gone.
    pub(crate) fn moved(&self, reader: u64, segment: Option<u64>) {
        let mut state = self.state.lock();
        let before = state.needed();
        match segment {
            Some(segment) => {
                for (_, at) in state.lossless.iter_mut().filter(|(number, _)| *number == reader) {
                    *at = segment;
                }
            }
            None => state.lossless.retain(|(number, _)| *number != reader),
        }
        let (after, held_up) = (state.needed(), std::mem::take(&mut state.held_up));
        drop(state);
        if before != after {
            self.author.needed(self.atom, after);
        }
        if held_up {
            self.author.resume(self.atom);
        }
    }

    /// Whether there is a reader that nothing may be dropped for.
    pub(crate) fn has_lossless(&self) -> bool {
        !self.state.lock().lossless.is_empty()
    }

    /// How far it has come.
    pub(crate) fn extent(&self) -> Extent {
        let state = self.state.lock();
        Extent { segment: state.segment, written: state.written, complete: state.complete }
    }

    /// Takes over how far it has come from where it is written.
    pub(crate) fn advance(&self, extent: Extent) {
        let mut state = self.state.lock();
        (state.segment, state.written) = (extent.segment, extent.written);
        state.complete |= extent.complete;
        self.notify(state);
    }

    /// The oldest segment that somebody still needs.
    pub(super) fn needed(&self) -> Option<u64> {
        self.state.lock().needed()
    }

    /// Computes the writer's room from the oldest segment that is needed. When
    /// there is none, the next move of a reader wakes the monitor.
    pub(super) fn room(&self, room: impl FnOnce(Option<u64>) -> usize) -> usize {
        let mut state = self.state.lock();
        let room = room(state.needed());
        state.held_up = room == 0;
        room
    }
}

impl LogState {
    fn needed(&self) -> Option<u64> {
        self.lossless.iter().map(|(_, segment)| *segment).min()
    }
}
