//! Reading the history on, on a thread, while what was read is decoded.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::super::core::Core;
use super::super::open::spawn;
use super::frames::{Checked, READ_AHEAD};

/// So often whoever reads on reads by itself: most never come farther.
const BY_ITSELF: u32 = 2;

/// How many frames may wait, in portions of [`READ_AHEAD`].
const WAITING: usize = 16;

/// What is read ahead for one reader.
#[derive(Debug)]
pub(super) enum Ahead {
    /// Nothing, so far.
    Not {
        /// How often it could have been.
        asked: u32,
    },
    /// A thread reads.
    Reading(Reading),
    /// Nothing more: the thread came to the end of the history, or to what it cannot read.
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
            *self = Reading::start(core.clone(), seq, end).map_or(Self::Over, Self::Reading);
        }
        let Self::Reading(reading) = self else { return None };
        let next = reading.frames.as_mut().and_then(|frames| frames.get_mut().recv().ok());
        match next.filter(|(first, _)| *first == seq) {
            Some((_, frames)) => Some(frames),
            None => {
                *self = Self::Over;
                None
            }
        }
    }
}

/// The thread, and what comes from it: frames, and the event that they were read for.
#[derive(Debug)]
pub(super) struct Reading {
    frames: Option<Mutex<Receiver<(u64, Checked)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Reading {
    fn start(core: Arc<Core>, first: u64, end: u64) -> Option<Self> {
        let (sender, frames) = sync_channel(WAITING);
        let started = spawn("caesium-read", move || read(&core, first, end, &sender));
        let thread = started.map_err(|error| tracing::warn!(%error, "nothing is read ahead"));
        Some(Self { frames: Some(Mutex::new(frames)), thread: Some(thread.ok()?) })
    }
}

impl Drop for Reading {
    /// Waits for the thread: nothing of the journal is in use any more when its reader is gone.
    fn drop(&mut self) {
        self.frames = None;
        if let Some(thread) = self.thread.take() {
            // When it panicked, whoever reads has met the same.
            let _ = thread.join();
        }
    }
}

/// Reads until nobody listens, or there is nothing more that is whole.
fn read(core: &Core, first: u64, end: u64, sender: &SyncSender<(u64, Checked)>) {
    let mut next = first;
    while next <= end {
        let Ok(Some(frames)) = core.history.frames(next, READ_AHEAD) else { return };
        let frames = Checked::new(frames);
        let last = frames.last();
        if sender.send((next, frames)).is_err() {
            return;
        }
        match last.filter(|last| *last >= next) {
            Some(last) => next = last + 1,
            None => return,
        }
    }
}
