//! Packing sealed segments into the history, off everybody's path.

use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::catalog;
use super::core::Core;
use super::error::{self, JournalError};
use super::history::{Packing, Part};
use super::open::spawn;
use super::options::{SEALED_KEPT, SEALED_WAITING};
use super::wal::segment;
use crate::time::Timestamp;

/// The maintenance of a journal. Its thread is started when there is something to do.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    core: OnceLock<Weak<Core>>,
    state: Mutex<State>,
    bell: Condvar,
    /// Those who append wait here while too much is to be packed.
    packed: Condvar,
    /// The first event of a part that was looked at and not worth being written again, and
    /// how old its events had to be then.
    looked_at: Mutex<Option<(u64, Timestamp)>>,
    /// Held by whoever needs the segments to stay, or removes them.
    pub(crate) segments_stay: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    thread: Option<JoinHandle<()>>,
    wanted: bool,
    stopping: bool,
    /// The last try failed: nobody waits for the next one.
    failing: bool,
    /// It failed for want of disk space, then.
    full_since: Option<Instant>,
    /// How many tries there were.
    tries: u64,
    /// How many changes had to wait.
    waited: u64,
}

impl State {
    /// Whether waiting for the packer has an end: a history that cannot be written
    /// does not stop the journal, and its flush has a watchdog.
    fn gets_on(&self) -> bool {
        self.thread.is_some() && !self.failing && !self.stopping
    }
}

impl Maintenance {
    /// Tells whose maintenance it is.
    pub(crate) fn attach(&self, core: &Arc<Core>) {
        // It is called once, by the one who makes the core.
        let _ = self.core.set(Arc::downgrade(core));
    }

    /// Wakes or starts the thread when there are more segments than have to stay: after a seal, and at opening.
    pub(crate) fn look_for_work(&self, core: &Core) {
        if core.catalog.lock().firsts().len() <= SEALED_KEPT + 1 {
            return;
        }
        let mut state = self.state.lock();
        state.wanted = true;
        self.bell.notify_all();
        if state.thread.is_some() || state.stopping || core.stepped {
            return;
        }
        let Some(core) = self.core.get().and_then(Weak::upgrade) else { return };
        match spawn("caesium-packer", move || run(&core)) {
            Ok(thread) => state.thread = Some(thread),
            // Segments stay a while longer; the next seal tries again.
            Err(error) => tracing::warn!(%error, "sealed segments are not packed yet"),
        }
    }

    /// Ends the thread, once it is done with what it is at.
    pub(crate) fn stop(&self) {
        let thread = {
            let mut state = self.state.lock();
            state.stopping = true;
            self.bell.notify_all();
            self.packed.notify_all();
            state.thread.take()
        };
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("packing sealed segments panicked");
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Whether enough of a part can have become too old since it was looked at.
    pub(crate) fn worth_a_look(&self, part: &Part, youngest: Option<Timestamp>) -> bool {
        match (*self.looked_at.lock(), youngest) {
            (Some((first, then)), Some(youngest)) if first == part.first => {
                let span = part.newest.saturating_since(part.oldest);
                youngest.saturating_since(then) >= span / 8
            }
            (Some(_) | None, _) => true,
        }
    }

    /// A part was looked at, and is not worth being written again yet.
    pub(crate) fn looked_at(&self, part: &Part, youngest: Option<Timestamp>) {
        *self.looked_at.lock() = youngest.map(|youngest| (part.first, youngest));
    }

    /// How many changes had to wait for the packer since the journal was opened, those that do so now among them.
    pub(crate) fn waited(&self) -> u64 {
        self.state.lock().waited
    }

    /// How a try went, or that some of it is packed.
    pub(crate) fn tell(&self, packed: Result<(), &JournalError>) {
        let mut state = self.state.lock();
        state.failing = packed.is_err();
        let full = packed.is_err_and(error::is_full);
        state.full_since = full.then(Instant::now);
        state.tries += 1;
        drop(state);
        self.packed.notify_all();
    }

    /// Whether packing has failed for want of disk space. Then no new segment is to take what there may be.
    pub(crate) fn lacks_space(&self) -> bool {
        self.state.lock().full_since.is_some()
    }

    /// Where there was no space: waits for another try, unless there was one just now.
    fn try_again(&self) {
        let mut state = self.state.lock();
        if state.full_since.is_none_or(|since| since.elapsed() < BETWEEN_TRIES) {
            return;
        }
        state.wanted = true;
        self.bell.notify_all();
        let tries = state.tries;
        while state.tries == tries && state.thread.is_some() && !state.stopping {
            self.packed.wait(&mut state);
        }
    }
}

/// How long a full disk is taken to stay one.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

fn run(core: &Arc<Core>) {
    loop {
        {
            let mut state = core.maintenance.state.lock();
            while !state.wanted && !state.stopping {
                core.maintenance.bell.wait(&mut state);
            }
            if state.stopping && !(state.wanted && core.has_backlog()) {
                return;
            }
            state.wanted = false;
        }
        if core.pack_and_tell()
            && let Err(error) = core.compact_if_worth_it()
        {
            // What there was is still there; the next seal tries again.
            tracing::warn!(%error, "the history could not be compacted");
        }
    }
}

/// So many segments more than have to stay are a backlog: a store that is only
/// ever opened for moments would never be packed if every close broke it off.
const BACKLOG: usize = 3;

impl Core {
    /// Whether a close has to wait until one segment more is packed.
    fn has_backlog(&self) -> bool {
        self.catalog.lock().firsts().len() > SEALED_KEPT + 1 + BACKLOG
    }

    /// Blocks while too many sealed segments wait to be packed, so that the log has a bound.
    /// Nothing may be locked: whoever packs or verifies may need it.
    pub(crate) fn let_packer_catch_up(&self) {
        if self.stepped {
            if self.is_far_behind() || self.maintenance.lacks_space() {
                self.pack_and_tell();
            }
            return;
        }
        self.maintenance.try_again();
        if !self.must_wait_for_packer() {
            return;
        }
        let mut state = self.maintenance.state.lock();
        state.waited += 1;
        while state.gets_on() && self.is_far_behind() {
            self.maintenance.packed.wait(&mut state);
        }
    }

    /// Whether too much is to be packed, and somebody is at it.
    pub(crate) fn must_wait_for_packer(&self) -> bool {
        self.is_far_behind() && self.maintenance.state.lock().gets_on()
    }

    fn is_far_behind(&self) -> bool {
        self.catalog.lock().len() > SEALED_KEPT + 1 + SEALED_WAITING
    }

    /// Packs what is sealed; whether that succeeds.
    pub(crate) fn pack_and_tell(&self) -> bool {
        let packed = self.pack();
        self.maintenance.tell(packed.as_ref().copied());
        if let Err(error) = &packed {
            // The segments stay, so nothing is lost; the next seal tries again.
            tracing::warn!(%error, "sealed segments could not be packed into the history");
        }
        packed.is_ok()
    }

    /// Packs what is sealed, and removes the segments that need not stay.
    pub(crate) fn pack(&self) -> Result<(), JournalError> {
        let _stay = self.maintenance.segments_stay.lock();
        let firsts = self.catalog.lock().firsts();
        let head = self.history.head()?;
        let mut next = head.map_or(1, |head| head.last + 1);
        let mut chain = head.map(|head| head.chain);
        let backlog = self.has_backlog();
        if firsts.first().is_some_and(|oldest| *oldest > next) {
            let problem = format!("it ends before event {next}, which is in no segment any more");
            return Err(JournalError::HistoryDamaged { problem });
        }
        for sealed in firsts.windows(2) {
            let (first, after) = (sealed[0], sealed[1]);
            if after <= next {
                continue;
            }
            let mut reader = catalog::reader(&*self.storage, first, None)?;
            let mut chunks = Packing::default();
            while reader.seq() < after {
                if !backlog && self.maintenance.stopping() {
                    return Ok(());
                }
                let seq = reader.seq();
                let Some((header, brief)) = reader.next_in_brief()? else {
                    let path = self.storage.path(&segment::name(first));
                    let spot = segment::Spot { path, offset: reader.end(), seq: Some(seq) };
                    return Err(spot.damaged("a sealed segment ends before its last event"));
                };
                if seq < next {
                    continue;
                }
                if chain.is_some_and(|chain| chain != header.prev) {
                    let problem = "it does not follow the history".to_owned();
                    return Err(JournalError::Inconsistent { seq, problem });
                }
                chain = Some(header.crc);
                next = seq + 1;
                chunks.add_frame(&header, brief.atom, brief.at, reader.frame(&header));
            }
            let mut base = || catalog::reader(&*self.storage, first, None)?.base();
            self.history.append(&chunks.finish(), &mut base)?;
            self.remove_packed(next)?;
            self.maintenance.tell(Ok(()));
            if self.maintenance.stopping() {
                return Ok(());
            }
        }
        self.remove_packed(next)
    }

    /// Removes the segments before the last sealed ones; all their events are below `next`.
    fn remove_packed(&self, next: u64) -> Result<(), JournalError> {
        let firsts = self.catalog.lock().firsts();
        let sync = || {
            let failed = |e| error::io("cannot sync directory", self.storage.path(""), e);
            self.storage.sync_dir().map_err(failed)
        };
        let removable = firsts.len().saturating_sub(SEALED_KEPT + 1);
        let packed = |position: &usize| firsts[position + 1] <= next;
        let removable = (0..removable).take_while(packed).count();
        if removable > 0 {
            self.history.settle()?;
            // An earlier try may have removed one and failed to make that durable.
            sync()?;
        }
        for first in &firsts[..removable] {
            // Readers that have it open read on; others find it in the history.
            self.catalog.lock().remove(*first);
            let name = segment::name(*first);
            if let Err(source) = self.storage.remove(&name) {
                self.catalog.lock().put_back(*first);
                let path = self.storage.path(&name);
                return Err(error::io("cannot remove packed segment", path, source));
            }
            // One at a time, so that a crash never leaves a gap between two that stay.
            sync()?;
        }
        Ok(())
    }
}
