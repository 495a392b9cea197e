//! The journal as its users see it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;

use super::Record;
use super::change::Draft;
use super::compact::{Compacted, Retention};
use super::core::Core;
use super::error::JournalError;
use super::history::{History, MemoryHistory};
use super::open::{self, Recovery};
use super::options::JournalOptions;
use super::queue::Ticket;
use super::read::Records;
use super::stats::Stats;
use super::storage::{MemoryStorage, Storage};
use super::subscribe::Subscription;
use super::verify::Verified;
use super::view::View;
use super::visible::Ended;
use super::watch::AtomWatch;
use crate::atom::{Atom, AtomId};
use crate::wakers::{block_on, block_on_poll};

/// The journal of a store: decides, appends, acknowledges, remembers.
///
/// Clones are the same journal. Dropping the last one closes it, as
/// [`Journal::close`] does, but tells nobody whether that succeeded.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
    closed: Mutex<Option<Result<(), JournalError>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the journal could not be closed cleanly");
        }
    }
}

impl Journal {
    /// Opens the journal in `dir`, or makes one: `dir/wal` and `dir/history` are its own.
    ///
    /// The directory must exist, and the caller must hold the lock on it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Damaged`], [`JournalError::Newer`] and
    /// [`JournalError::Io`]; nothing was changed then.
    pub fn open_dir(dir: &Path, options: JournalOptions) -> Result<(Self, Recovery), JournalError> {
        if options.durability == crate::Durability::Memory {
            return Ok((Self::in_memory(options)?, Recovery::empty()));
        }
        let (storage, history) = open::stores(dir, &options)?;
        Self::open(storage, history, options)
    }

    /// Opens the journal on a given storage and history.
    ///
    /// # Errors
    ///
    /// As [`Journal::open_dir`].
    pub fn open(
        storage: Arc<dyn Storage>,
        history: Arc<dyn History>,
        options: JournalOptions,
    ) -> Result<(Self, Recovery), JournalError> {
        let (core, recovery) = open::open(storage, history, options)?;
        let core = Arc::new(core);
        core.maintenance.attach(&core);
        core.maintenance.look_for_work(&core);
        let writer = open::spawn("caesium-journal", {
            let core = core.clone();
            move || super::writer::run(&core)
        })?;
        let inner = Inner { core, writer: Mutex::new(Some(writer)), closed: Mutex::new(None) };
        Ok((Self { inner: Arc::new(inner) }, recovery))
    }

    /// Opens a journal without threads, for simulations: what its writer and
    /// its packer would do is done by [`Journal::step`] and [`Journal::pack`],
    /// so that one thread decides the order of everything. Waiting for a
    /// ticket before its group was written would block for ever.
    ///
    /// # Errors
    ///
    /// As [`Journal::open_dir`].
    #[cfg(feature = "test-util")]
    pub fn open_stepped(
        storage: Arc<dyn Storage>,
        history: Arc<dyn History>,
        options: JournalOptions,
    ) -> Result<(Self, Recovery), JournalError> {
        let (mut core, recovery) = open::open(storage, history, options)?;
        core.stepped = true;
        let core = Arc::new(core);
        core.maintenance.attach(&core);
        let inner = Inner { core, writer: Mutex::new(None), closed: Mutex::new(None) };
        Ok((Self { inner: Arc::new(inner) }, recovery))
    }

    /// Writes the next group of a journal without threads, or syncs what
    /// batched durability has left; false when there was nothing to do.
    #[cfg(feature = "test-util")]
    pub fn step(&self) -> bool {
        super::writer::step(&self.inner.core)
    }

    /// Packs what is sealed into the history, and removes what need not stay.
    ///
    /// # Errors
    ///
    /// What failed. Nothing is lost then.
    #[cfg(feature = "test-util")]
    pub fn pack(&self) -> Result<(), JournalError> {
        self.inner.core.pack()
    }

    /// A new journal in memory.
    ///
    /// # Errors
    ///
    /// Only when its thread cannot be started.
    pub fn in_memory(options: JournalOptions) -> Result<Self, JournalError> {
        let storage = Arc::new(MemoryStorage::new());
        let history = Arc::new(MemoryHistory::new());
        Ok(Self::open(storage, history, options)?.0)
    }

    /// Decides and appends, under one lock.
    ///
    /// `decide` sees the atoms as they are decided, what is queued included.
    /// What it appends is written together; nothing of it when it fails. It
    /// must have no effects of its own, since the change can be refused after
    /// it, and must not call the journal.
    ///
    /// Waits where [`MAX_QUEUED_BYTES`](super::MAX_QUEUED_BYTES) are queued, and where more than
    /// [`SEALED_WAITING`](super::SEALED_WAITING) sealed segments are still to be packed.
    ///
    /// # Errors
    ///
    /// What `decide` gives; [`JournalError::NoSpace`] when it makes atoms and
    /// there is no room, [`JournalError::Poisoned`], [`JournalError::Closed`].
    pub fn change<T, E: From<JournalError>>(
        &self,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<(T, Ticket), E> {
        self.inner.core.change(decide)
    }

    /// As [`change`](Self::change), for whoever waits for the ticket next: nothing need be begun before that. Where
    /// nobody else is writing then, the thread that waits writes and syncs, which spares it two changes of threads. Where
    /// many make changes at a time it is the same as [`change`](Self::change).
    ///
    /// A ticket that is dropped is told to the writer; one that is held without waiting holds the change up, until
    /// somebody makes another one that is told or waited for. Those who wait for the atoms are woken by the thread that writes.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub fn change_lazily<T, E: From<JournalError>>(
        &self,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<(T, Ticket), E> {
        self.inner.core.change_lazily(decide)
    }

    /// Reads the atoms as they are acknowledged. Must not call the journal again.
    pub fn with_view<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.inner.core.visible.lock().view)
    }

    /// Blocks until `done` gives something for the acknowledged atom (`None`
    /// when there is none of this id), or the deadline passes: then `None`.
    ///
    /// Only changes of this atom wake it. `done` must not call the journal.
    ///
    /// # Errors
    ///
    /// [`JournalError::Closed`] and [`JournalError::Poisoned`], when `done` is not satisfied.
    pub fn wait_until<T>(
        &self,
        atom: AtomId,
        deadline: Option<Instant>,
        mut done: impl FnMut(Option<&Atom>) -> Option<T>,
    ) -> Result<Option<T>, JournalError> {
        let mut watch = self.watch(atom);
        block_on_poll(deadline, |context| watch.poll(context, &mut done)).transpose()
    }

    /// Blocks until the event with this number is acknowledged.
    ///
    /// # Errors
    ///
    /// [`JournalError::Closed`] and [`JournalError::Poisoned`].
    pub(crate) fn wait_for(&self, seq: u64) -> Result<(), JournalError> {
        let (visible, mut key) = (&self.inner.core.visible, None);
        let acknowledged = block_on(std::future::poll_fn(|context| {
            visible.poll_event(seq, &mut key, context.waker()).map_ok(drop)
        }));
        if let Some(key) = key {
            visible.unfollow(key);
        }
        acknowledged
    }

    /// As [`Journal::wait_until`], for those who must not block.
    pub(crate) fn watch(&self, atom: AtomId) -> AtomWatch {
        AtomWatch::new(self.inner.core.clone(), atom)
    }

    /// The acknowledged events from one number on, in order.
    ///
    /// # Errors
    ///
    /// [`JournalError::Compacted`] when that one is no longer kept.
    pub fn read(&self, from: u64) -> Result<Records, JournalError> {
        let end = self.recent_seq();
        Records::new(self.inner.core.clone(), from.max(1), end)
    }

    /// Follows the events from one number on: what was, then what comes.
    pub fn subscribe(&self, from: u64) -> Subscription {
        Subscription::new(self.inner.core.clone(), from)
    }

    /// The number of the last acknowledged event; 0 before the first.
    pub fn recent_seq(&self) -> u64 {
        self.inner.core.visible.lock().seq
    }

    /// The number of the last event known to be on disk; 0 before the first.
    pub fn durable_seq(&self) -> u64 {
        self.inner.core.queue.lock().synced
    }

    /// The number of the oldest event that is kept.
    ///
    /// # Errors
    ///
    /// When the history cannot tell.
    pub fn oldest_seq(&self) -> Result<u64, JournalError> {
        self.inner.core.oldest_seq()
    }

    /// The acknowledged events of one atom, in order, also of one that is deleted.
    ///
    /// # Errors
    ///
    /// What reading gives.
    pub fn read_atom(&self, atom: AtomId) -> Result<Vec<Record>, JournalError> {
        super::read::of_atom(&self.inner.core, atom)
    }

    /// Reads every byte of history and segments, and proves that folding the
    /// events gives every snapshot, every state and the atoms as they are.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong: [`JournalError::Damaged`],
    /// [`JournalError::HistoryDamaged`] or [`JournalError::Inconsistent`].
    pub fn verify(&self) -> Result<Verified, JournalError> {
        self.inner.core.verify()
    }

    /// Events of the history that [`verify`](Self::verify) has gone through, since this journal was opened.
    #[cfg(feature = "cli")]
    pub(crate) fn verified_so_far(&self) -> u64 {
        self.inner.core.measured.verified.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Drops the events that a retention lets go, and what they took on disk.
    ///
    /// What the writers wait for meanwhile is one change of segments. Numbers go
    /// on, and atoms that exist stay as they are: what the events that are kept
    /// build on is kept with them. A kill at any moment leaves a journal that opens.
    ///
    /// The history is in parts, and those of which nothing is kept go. Of the part that the cut goes
    /// through the rest may stay on disk, no more than a third of all, and is not shown. On a full
    /// disk what is packed already goes, and [`Compacted::oldest`] says how far that was.
    ///
    /// # Errors
    ///
    /// What reading or writing gives; nothing was dropped then, unless it can be
    /// told only after reopening.
    pub fn compact(&self, retention: &Retention) -> Result<Compacted, JournalError> {
        self.inner.core.compact(retention)
    }

    /// What the journal says of itself: sizes, times, and who lags behind. Opens no history.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] when the length of a segment cannot be read.
    pub fn stats(&self) -> Result<Stats, JournalError> {
        self.inner.core.stats()
    }

    /// Writes what is queued, ends with a footer, and joins the threads. Idempotent. If the next opening had to read many
    /// events otherwise, the footer is that of a new segment.
    ///
    /// # Errors
    ///
    /// [`JournalError::Poisoned`] when a write has failed, before or now.
    pub fn close(&self) -> Result<(), JournalError> {
        self.inner.close()
    }
}

impl Inner {
    fn close(&self) -> Result<(), JournalError> {
        let mut closed = self.closed.lock();
        if let Some(result) = &*closed {
            return result.clone();
        }
        let result = self.close_once();
        *closed = Some(result.clone());
        result
    }

    fn close_once(&self) -> Result<(), JournalError> {
        let core = &self.core;
        let mut decided = core.decided.lock();
        decided.closed = true;
        core.queue.lock().closing = true;
        core.work.notify_all();
        while core.stepped && super::writer::step(core) {}
        let writer = self.writer.lock().take();
        let joined = writer.is_none_or(|writer| writer.join().is_ok());
        let sealed = match core.failed() {
            Some(error) => Err(error),
            None if !joined => Err(JournalError::Poisoned { cause: "the writer panicked".into() }),
            None => core.end_log(&mut decided),
        };
        drop(decided);
        core.visible.end(Ended::Closed);
        core.maintenance.stop();
        core.readers.close();
        // Whoever compacts or verifies on a thread of their own ends first.
        let _stay = core.maintenance.segments_stay.lock();
        let history = core.history.close();
        sealed.and(history)
    }
}
