//! What all handles of one journal share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::catalog::Catalog;
use super::error::JournalError;
use super::history::History;
use super::options::JournalOptions;
use super::queue::Queue;
use super::reserve::Population;
use super::storage::Storage;
use super::view::View;
use super::visible::{Ended, Visible};
use super::wal::create::Segment;
use super::wal::recover::Mend;
use super::wal::segment::{FIXED_ROOM, FOOTER_BYTES, OPENED_BYTES};

/// The shared part of a journal.
///
/// Locks are taken in this order, and never the other way round:
/// `decided`, then `queue` or `visible` or `catalog`. Whoever writes takes the
/// latter three, one at a time.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: JournalOptions,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) history: Arc<dyn History>,
    pub(crate) decided: Mutex<Decided>,
    pub(crate) queue: Mutex<Queue>,
    /// The writer waits here for work.
    pub(crate) work: Condvar,
    /// Those who append wait here for room, or for the writer to be done.
    pub(crate) room: Condvar,
    pub(crate) visible: Visible,
    pub(crate) catalog: Mutex<Catalog>,
    pub(crate) maintenance: super::maintain::Maintenance,
    pub(crate) measured: super::stats::Measured,
    /// Who reads ahead.
    pub(crate) readers: super::read::Readers,
    /// There are no threads: see [`Journal::open_stepped`](super::Journal::open_stepped).
    pub(crate) stepped: bool,
    /// The oldest event that is kept; 0 when it has to be asked for.
    pub(crate) oldest: AtomicU64,
}

/// What was decided, durable or not, and where the next frame goes.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) view: View,
    pub(crate) population: Population,
    /// The number of the last event, and its checksum.
    pub(crate) seq: u64,
    pub(crate) chain: u32,
    pub(crate) segment: Segment,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    pub(crate) mend: Mend,
    /// The footer that was found, and where: see [`Core::prove`].
    pub(crate) unproven: Option<(u64, Vec<u8>)>,
    pub(crate) closed: bool,
}

impl Decided {
    /// Bytes that must be written before the next event, marks only: zeros take no room.
    pub(crate) fn mend_bytes(&self) -> u64 {
        let mark = match self.mend {
            Mend::Nothing | Mend::Zeros { then_mark: None, .. } => 0,
            Mend::Mark { .. } | Mend::Zeros { then_mark: Some(_), .. } => OPENED_BYTES,
        };
        mark as u64
    }

    /// Whether a footer, and the mark after it, leave what endings need.
    pub(crate) fn may_close(&self) -> bool {
        let close = (FOOTER_BYTES + OPENED_BYTES) as u64;
        let kept = FIXED_ROOM + self.population.endings();
        self.offset + self.mend_bytes() + close + kept <= self.segment.layout.end
    }
}

impl Core {
    /// Stops everything after a failed write or sync: what is queued is in
    /// doubt, and nothing is written any more. Only the first cause counts.
    pub(crate) fn poison(&self, cause: &str) -> Arc<str> {
        let cause: Arc<str> = cause.into();
        let (cause, groups) = {
            let mut queue = self.queue.lock();
            let cause = queue.failed.get_or_insert(cause).clone();
            queue.due = None;
            queue.bytes = 0;
            (cause, std::mem::take(&mut queue.groups))
        };
        crate::trace::failed(&cause);
        for group in groups {
            group.done.set(Err(cause.clone()));
        }
        self.visible.end(Ended::Poisoned(cause.clone()));
        self.work.notify_all();
        self.room.notify_all();
        cause
    }

    /// The error of a poisoned journal, if it is one.
    pub(crate) fn failed(&self) -> Option<JournalError> {
        let cause = self.queue.lock().failed.clone()?;
        Some(JournalError::Poisoned { cause })
    }

    /// Blocks until the writer has nothing left to do.
    pub(crate) fn drain(&self) -> Result<(), JournalError> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(cause) = &queue.failed {
                return Err(JournalError::Poisoned { cause: cause.clone() });
            }
            if queue.groups.is_empty() && !queue.busy {
                return Ok(());
            }
            self.wait_for_room(&mut queue);
        }
    }

    /// Waits until the writer has done something; without a writer, does it.
    pub(crate) fn wait_for_room(&self, queue: &mut MutexGuard<'_, Queue>) {
        if self.stepped {
            MutexGuard::unlocked(queue, || super::writer::step(self));
        } else {
            // Of what is queued it may not have been told.
            queue.tell_writer(&self.work);
            self.room.wait(queue);
        }
    }
}
