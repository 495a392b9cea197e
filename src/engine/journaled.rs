//! The engine for every driver: decides by the lifecycle, journals, and lets the driver act.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::steward::Steward;
use super::{
    Conduct, CreateRequest, DeleteRequest, Engine, Error, GetRequest, ListRequest, Logs,
    LogsRequest, OnClose, StopRequest, WaitRequest, find,
};
use crate::Durability;
use crate::atom::{Atom, AtomId};
use crate::crash;
use crate::driver::{Command, Driver, Order};
use crate::journal::{
    Compacted, Creation, Fact, Journal, JournalError, JournalOptions, Records, Recovery, Retention,
    Stats, Subscription, Unfit, Verified,
};
use crate::lifecycle::{
    Event, EventKind, Rejection, State, Stop, StopCause, StopOrder, allowed_events,
};
use crate::store::Store;
use crate::time::now;

/// An engine that journals everything, over any [`Driver`].
///
/// Closing is [`close`](Self::close), or `Drop`, which does the same and cannot
/// report. What becomes of living atoms then is [`OnClose`].
#[derive(Debug)]
pub struct JournaledEngine<D: Driver> {
    core: Arc<Core<D>>,
    steward: Mutex<Option<Steward>>,
    recovery: Recovery,
    on_close: OnClose,
    /// Held to the end: the lock on the directory goes with it.
    store: Mutex<Option<Store>>,
}

/// What the engine and its steward share.
#[derive(Debug)]
pub(super) struct Core<D> {
    pub(super) journal: Journal,
    pub(super) driver: D,
    /// From now on nothing is created. Set and read while a change is being
    /// decided, so that every atom is either seen by who closes, or refused.
    pub(super) closing: AtomicBool,
    /// Retries and the policies for invalid atoms are carried out.
    pub(super) policies: bool,
}

impl<D: Driver> JournaledEngine<D> {
    /// An engine without a store: nothing is written, and nothing outlives it. For tests.
    ///
    /// # Errors
    ///
    /// When the driver does not start.
    pub fn in_memory(driver: D) -> Result<Self, Error> {
        let options =
            JournalOptions { durability: Durability::Memory, ..JournalOptions::default() };
        let journal = Journal::in_memory(options)?;
        Self::assemble(journal, Recovery::empty(), driver, Conduct::default(), None)
    }

    /// Puts an engine together, and brings it to terms with what is outside.
    pub(super) fn assemble(
        journal: Journal,
        recovery: Recovery,
        driver: D,
        conduct: Conduct,
        store: Option<Store>,
    ) -> Result<Self, Error> {
        let Conduct { on_close, policies } = conduct;
        let core = Arc::new(Core { journal, driver, closing: AtomicBool::new(false), policies });
        let steward = Steward::start(core.clone())?;
        steward.reconcile()?;
        let mut store = store;
        if let Some(store) = &mut store {
            store.bind()?;
        }
        Ok(Self {
            core,
            steward: Mutex::new(Some(steward)),
            recovery,
            on_close,
            store: Mutex::new(store),
        })
    }

    /// As [`create`](Engine::create), with a reader that was there before the atom was started:
    /// it follows the output from its first byte, and nothing is dropped that it has not read,
    /// however small the log is.
    ///
    /// # Errors
    ///
    /// As [`create`](Engine::create). A log that cannot be read is told by the reader.
    pub fn create_followed(&self, request: CreateRequest) -> Result<(Atom, Logs), Error> {
        let order = self.core.order(request)?;
        let query = LogsRequest::from(order.atom).follow().lossless().query();
        let mut logs = None;
        let atom = self.core.create(order, 1, None, |driver, atom| {
            logs = Some(Logs::opened(driver.logs(atom, &query)));
        })?;
        logs.map(|logs| (atom, logs)).ok_or(Error::Closed)
    }

    /// What opening the store found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.core.driver
    }

    /// All durable events from number `from` on, the oldest first.
    ///
    /// # Errors
    ///
    /// [`JournalError::Compacted`] when `from` is no longer kept; [`JournalError::HistoryDamaged`].
    pub fn events(&self, from: u64) -> Result<Records, Error> {
        Ok(self.core.journal.read(from)?)
    }

    /// Events from number `from` on: first those that are there, then those that come, without a gap.
    pub fn subscribe(&self, from: u64) -> Subscription {
        self.core.journal.subscribe(from)
    }

    /// The number of the newest durable event; 0 when there is none.
    pub fn durable_seq(&self) -> u64 {
        self.core.journal.durable_seq()
    }

    /// Drops the events that a retention lets go. Atoms that exist stay as they are.
    ///
    /// # Errors
    ///
    /// What reading or writing gives; nothing was dropped then, unless it can be
    /// told only after reopening.
    pub fn compact(&self, retention: &Retention) -> Result<Compacted, Error> {
        Ok(self.core.journal.compact(retention)?)
    }

    /// What the journal says of itself: sizes, times, and who lags behind.
    ///
    /// # Errors
    ///
    /// When the length of a segment cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        Ok(self.core.journal.stats()?)
    }

    /// Reads the whole journal, checks every byte of it, and that folding the events gives the stored states.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn verify(&self) -> Result<Verified, Error> {
        Ok(self.core.journal.verify()?)
    }

    /// Closes the engine: living atoms are stopped or left, as [`OnClose`] says; the journal is sealed.
    ///
    /// # Errors
    ///
    /// When the journal could not be sealed. The engine is closed all the same.
    pub fn close(self) -> Result<(), Error> {
        self.shutdown()
    }

    /// [`close`](Self::close) for an engine that is shared: whoever still waits is told
    /// [`Error::Closed`], and so is every later request that would change something.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close). Closing what is closed succeeds.
    pub fn shutdown(&self) -> Result<(), Error> {
        let Some(steward) = self.steward.lock().take() else { return Ok(()) };
        let living = self.core.admit_no_more();
        let stopped = match self.on_close {
            OnClose::Stop => self.stop_all(&living),
            OnClose::Leave => Ok(()),
        };
        // No observation may come after the steward has gone: the driver ends first.
        self.core.driver.close();
        steward.join();
        let closed = self.core.journal.close();
        *self.store.lock() = None;
        stopped.and(Ok(closed?))
    }

    fn stop_all(&self, living: &[AtomId]) -> Result<(), Error> {
        for atom in living {
            let request = StopRequest::from(atom);
            match self.core.ask_to_stop(&request) {
                Ok(()) | Err(Error::NotFound(_) | Error::Rejected { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        for atom in living {
            match self.core.until_stopped(*atom, None) {
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

impl<D: Driver> Drop for JournaledEngine<D> {
    fn drop(&mut self) {
        if let Err(error) = self.shutdown() {
            tracing::warn!(%error, "the engine was closed with an error");
        }
    }
}

impl<D: Driver> Engine for JournaledEngine<D> {
    fn get(&self, request: &GetRequest) -> Result<Atom, Error> {
        self.core.get(request.id)
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error> {
        let limit = request.limit.unwrap_or(usize::MAX);
        Ok(self.core.journal.with_view(|view| {
            view.atoms().filter(|atom| request.matches(atom)).take(limit).cloned().collect()
        }))
    }

    fn create(&self, request: CreateRequest) -> Result<Atom, Error> {
        self.core.create(self.core.order(request)?, 1, None, |_, _| ())
    }

    fn wait(&self, request: &WaitRequest) -> Result<Atom, Error> {
        self.core.until_stopped(request.id, request.timeout)
    }

    fn stop(&self, request: &StopRequest) -> Result<Atom, Error> {
        self.core.ask_to_stop(request)?;
        self.core.until_stopped(request.id, None)
    }

    fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        if request.force && self.core.get(request.id)?.state().is_live() {
            self.stop(&StopRequest::from(request.id).force())?;
        }
        self.core.ask_to_delete(request.id, Deletion::Requested)?;
        self.core.until(request.id, None, |atom| atom.is_none().then_some(()))?;
        Ok(())
    }

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error> {
        let atom = self.core.get(request.id)?;
        Ok(Logs::new(self.core.driver.logs(&atom, &request.query())?))
    }

    fn find(&self, text: &str) -> Result<Atom, Error> {
        self.core.journal.with_view(|view| find::find(view, text))
    }
}

impl<D: Driver> Core<D> {
    /// From here on nothing is created; gives what may be alive.
    fn admit_no_more(&self) -> Vec<AtomId> {
        // Of what is decided, durable or not: a create that got in before is among them.
        let living = self.journal.change(|draft| {
            self.closing.store(true, Ordering::Relaxed);
            let living = draft.view().atoms().filter(|atom| atom.state().is_live());
            Ok::<_, JournalError>(living.map(Atom::id).collect())
        });
        // A journal that takes no more changes lets nothing in either.
        self.closing.store(true, Ordering::Relaxed);
        living.map(|(living, _nothing_written)| living).unwrap_or_default()
    }

    fn get(&self, id: AtomId) -> Result<Atom, Error> {
        self.journal
            .with_view(|view| view.get(id).cloned())
            .ok_or_else(|| Error::NotFound(id.to_string()))
    }

    /// Checks what is asked for, and fills in what it leaves open.
    fn order(&self, request: CreateRequest) -> Result<Order, Error> {
        request.spec.validate()?;
        let spec = self.driver.complete(request.spec)?;
        spec.validate()?;
        Ok(Order { atom: AtomId::new(), spec: Arc::new(spec) })
    }

    /// Creates an atom, starts it, and waits until it runs or has stopped.
    fn create(
        &self,
        order: Order,
        attempt: u32,
        retry_of: Option<AtomId>,
        before_start: impl FnOnce(&D, &Atom),
    ) -> Result<Atom, Error> {
        let id = order.atom;
        let seq = self.record_created(order, attempt, retry_of, before_start)?;
        let settled = |atom: Option<&Atom>| match atom {
            None => Some(Err(Error::NotFound(id.to_string()))),
            Some(atom) => {
                let pending = match atom.state() {
                    State::Created => true,
                    State::Stopping => atom.started_at().is_none(),
                    State::Running
                    | State::Stopped
                    | State::Deleting
                    | State::Deleted
                    | State::Invalid => false,
                };
                (!pending).then(|| Ok(atom.clone()))
            }
        };
        match self.until(id, None, settled) {
            Ok(Some(result)) => result,
            // It is journaled, and nobody will tell whether it was started.
            Ok(None) | Err(Error::Closed) => Err(in_doubt(seq, "the engine was closed")),
            Err(error) => Err(in_doubt(seq, &error.to_string())),
        }
    }

    /// Sets everything aside, journals the atom, and sends it on its way.
    pub(super) fn record_created(
        &self,
        order: Order,
        attempt: u32,
        retry_of: Option<AtomId>,
        before_start: impl FnOnce(&D, &Atom),
    ) -> Result<u64, Error> {
        let id = order.atom;
        // Before anything is set aside: the common mistake, and the cheap check. The journal checks again.
        let ((), _nothing_written) = self.journal.change(|draft| {
            match order.spec.get_name().and_then(|name| draft.view().named(name)) {
                Some(other) if Some(other.id()) != retry_of => Err(Error::NameInUse {
                    name: order.spec.get_name().unwrap_or_default().into(),
                    by: other.id(),
                }),
                Some(_) | None => Ok(()),
            }
        })?;
        self.driver.prepare(id, &order.spec)?;
        crash::point("host/has-prepared");
        let creation = Creation {
            engine: self.driver.name().into(),
            spec: order.spec.clone(),
            attempt,
            retry_of,
        };
        let admitted = self.journal.change(|draft| {
            if self.closing.load(Ordering::Relaxed) {
                return Err(JournalError::Closed);
            }
            draft.append(id, now(), Fact::Created(creation))
        });
        let durable = admitted.and_then(|(atom, ticket)| {
            let seq = ticket.seq().unwrap_or_default();
            crash::point("host/has-queued-created");
            ticket.wait().map(|()| (atom, seq))
        });
        match durable {
            Ok((atom, seq)) => {
                crash::point("host/created-is-durable");
                before_start(&self.driver, &atom);
                match self.driver.send(Command::Start(order)) {
                    Ok(()) => {
                        crash::point("host/has-sent-start");
                        Ok(seq)
                    }
                    Err(error) => Err(in_doubt(seq, &error.to_string())),
                }
            }
            Err(error) => {
                self.driver.release(id);
                Err(error.into())
            }
        }
    }

    /// Journals a request to stop, and has it carried out. A stopped atom needs none.
    fn ask_to_stop(&self, request: &StopRequest) -> Result<(), Error> {
        let id = request.id;
        let (order, ticket) = self.journal.change(|draft| {
            let atom = draft.view().get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
            let grace = request.grace.unwrap_or(atom.spec().get_grace());
            let order = StopOrder { grace, force: request.force, cause: StopCause::Requested };
            match atom.state() {
                State::Created | State::Running => {}
                State::Stopping => {
                    if !tightens(atom.life().stop(), order) {
                        return Ok(None);
                    }
                }
                State::Stopped => return Ok(None),
                State::Deleting | State::Deleted | State::Invalid => {
                    return Err(refusal(atom, EventKind::StopAsked));
                }
            }
            draft.append(id, now(), Event::StopAsked(order).into())?;
            Ok(Some(order))
        })?;
        if order.is_some() {
            crash::point("host/has-queued-stop");
        }
        ticket.wait()?;
        if let Some(StopOrder { grace, force, cause: _ }) = order {
            crash::point("host/stop-is-durable");
            self.driver.send(Command::Stop { atom: id, grace, force })?;
            crash::point("host/has-sent-stop");
        }
        Ok(())
    }

    /// Journals a request to delete, and has it carried out.
    pub(super) fn ask_to_delete(&self, id: AtomId, why: Deletion) -> Result<(), Error> {
        let (handle, ticket) = self.journal.change(|draft| {
            let atom =
                draft.view().get(id).cloned().ok_or_else(|| Error::NotFound(id.to_string()))?;
            match atom.state() {
                State::Deleting => return Ok(None),
                State::Stopped | State::Invalid => {}
                State::Created | State::Running | State::Stopping | State::Deleted => {
                    return Err(refusal(&atom, EventKind::DeleteAsked));
                }
            }
            match (why, atom.planned_retry()) {
                (Deletion::Requested, Some(_)) => {
                    draft.append(id, now(), Fact::RetryDropped)?;
                }
                (Deletion::Requested, None) | (Deletion::ByPolicy, _) => {}
            }
            draft.append(id, now(), Event::DeleteAsked.into())?;
            Ok::<_, Error>(Some(atom.known().handle.clone()))
        })?;
        ticket.wait()?;
        if let Some(handle) = handle {
            crash::point("host/delete-is-durable");
            self.driver.send(Command::Remove { atom: id, handle })?;
            crash::point("host/has-sent-remove");
        }
        Ok(())
    }

    /// Waits until the atom has ended, or nobody can tell any more.
    fn until_stopped(&self, id: AtomId, timeout: Option<Duration>) -> Result<Atom, Error> {
        let stopped = |atom: Option<&Atom>| match atom {
            None => Some(Err(Error::NotFound(id.to_string()))),
            Some(atom) => match atom.state() {
                State::Stopped | State::Deleting | State::Deleted | State::Invalid => {
                    Some(Ok(atom.clone()))
                }
                State::Created | State::Running | State::Stopping => None,
            },
        };
        match self.until(id, timeout, stopped)? {
            Some(result) => result,
            None => {
                let (state, waited) = (self.get(id)?.state(), timeout.unwrap_or_default());
                Err(Error::TimedOut { id, state, waited })
            }
        }
    }

    /// Waits until `done` says so of what is durable; `None` when the time is over.
    fn until<T>(
        &self,
        id: AtomId,
        timeout: Option<Duration>,
        done: impl FnMut(Option<&Atom>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        // A timeout too long to add up is none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(self.journal.wait_until(id, deadline, done)?)
    }
}

/// Why an atom is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Somebody asked for it: then it is not tried again either.
    Requested,
    /// Its policy for invalid atoms: a planned retry follows.
    ByPolicy,
}

/// The error of a create whose atom is in the journal, and may or may not have been started.
fn in_doubt(seq: u64, cause: &str) -> Error {
    Error::InDoubt(JournalError::InDoubt { seq, cause: cause.into() })
}

/// Whether the order would change a stop that is under way.
pub(super) fn tightens(stop: Option<Stop>, order: StopOrder) -> bool {
    stop.is_none_or(|stop| stop.tightened(order, now()) != stop)
}

fn refusal(atom: &Atom, event: EventKind) -> Error {
    let state = atom.state();
    Error::Rejected {
        id: atom.id(),
        rejection: Rejection { state, event, allowed: allowed_events(state) },
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Self {
        JournalError::from(unfit).into()
    }
}
