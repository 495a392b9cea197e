//! Deciding by the lifecycle, journaling, and letting the driver act: what every request comes to.

#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::create::{Chosen, Created};
use super::feed::Local;
use super::served::Served;
#[cfg(target_os = "linux")]
use super::wait::has_settled;
use super::wait::{Until, UntilMany, Waiting, has_stopped};
use super::{
    CreateRequest, Error, Events, GetRequest, ListRequest, Logs, LogsRequest, StopRequest,
    Subscription, find, list,
};
use crate::atom::{Atom, AtomId};
use crate::crash;
use crate::driver::{Command, Driver};
use crate::journal::{
    Compacted, Draft, Fact, Journal, JournalError, Retention, Stats, Unfit, Verified,
};
use crate::lane::Lane;
use crate::lifecycle::{
    Event, EventKind, Rejection, State, Stop, StopCause, StopOrder, allowed_events,
};
use crate::log::LogSource;
use crate::time::now;
use crate::wakers::block_on_until;

/// What the handles of an engine, its steward and those it serves share.
#[derive(Debug)]
pub(super) struct Core<D> {
    pub(super) journal: Journal,
    pub(super) driver: D,
    /// Reads from disk for those who must not block.
    pub(super) reads: Arc<Lane>,
    pub(super) chosen: Chosen,
    /// From now on nothing is created. Set and read while a change is being
    /// decided, so that every atom is either seen by who closes, or refused.
    pub(super) closing: AtomicBool,
    /// Retries and the policies for invalid atoms are carried out.
    pub(super) policies: bool,
}

impl<D: Driver> Core<D> {
    /// From here on nothing is created; gives what may be alive.
    pub(super) fn admit_no_more(&self) -> Vec<AtomId> {
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

    /// Blocks until that is ready, at most `timeout`. A timeout too long to add up is none.
    pub(super) fn wait_for<T>(
        &self,
        waiting: Waiting<T>,
        ids: &[AtomId],
        timeout: Option<Duration>,
    ) -> Result<T, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        block_on_until(deadline, waiting)
            .unwrap_or_else(|| Err(self.timed_out(ids, timeout.unwrap_or_default())))
    }

    pub(super) fn open_logs(&self, source: Box<dyn LogSource>) -> Logs {
        Logs::new(Local::new(source, Arc::clone(&self.reads)))
    }

    /// Journals requests to stop, with one commit, and has them carried out. A stopped atom needs none.
    pub(super) fn ask_to_stop(
        &self,
        requests: &[StopRequest],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let (decided, ticket) = self.journal.change_lazily(|draft| {
            Ok::<_, Error>(requests.iter().map(|one| decide_stop(draft, one)).collect::<Vec<_>>())
        })?;
        if ticket.seq().is_some() {
            crash::point("host/has-queued-stop");
        }
        ticket.wait()?;
        let send = |(decided, request): (Result<_, Error>, &StopRequest)| {
            if let Some(StopOrder { grace, force, cause: _ }) = decided? {
                crash::point("host/stop-is-durable");
                self.driver.send(Command::Stop { atom: request.id, grace, force })?;
                crash::point("host/has-sent-stop");
            }
            Ok(())
        };
        Ok(decided.into_iter().zip(requests).map(send).collect())
    }

    /// Journals a request to delete, and has it carried out.
    pub(super) fn ask_to_delete(&self, id: AtomId, why: Deletion) -> Result<(), Error> {
        let (handle, ticket) = self.journal.change_lazily(|draft| {
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
}

impl<D: Driver> Served for Core<D> {
    fn reads(&self) -> &Lane {
        &self.reads
    }

    fn get(&self, request: &GetRequest) -> Result<Atom, Error> {
        self.journal
            .with_view(|view| view.get(request.id).cloned())
            .ok_or_else(|| Error::NotFound(request.id.to_string()))
    }

    fn find(&self, text: &str) -> Result<Atom, Error> {
        self.journal.with_view(|view| find::find(view, text))
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error> {
        Ok(list::list(&self.journal, request))
    }

    fn create(
        &self,
        request: CreateRequest,
        followed: bool,
    ) -> Result<(Waiting<Atom>, Option<Logs>), Error> {
        let created = self.create_one(self.wanted(request, followed)?)?;
        let settled = self.settled(&created);
        Ok(match created {
            Created::Now { logs, .. } => (settled, logs),
            Created::Before(id) if followed => {
                let request = LogsRequest::from(id).follow().lossless();
                (settled, Some(self.logs(&request)?))
            }
            Created::Before(_) => (settled, None),
        })
    }

    fn create_many(&self, requests: Vec<CreateRequest>) -> Waiting<Vec<Result<Atom, Error>>> {
        let (mut results, mut wanted, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            results.push(match self.wanted(request, false) {
                Ok(valid) => {
                    wanted.push(valid);
                    places.push(results.len());
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        let mut settled = Vec::new();
        for (place, created) in places.into_iter().zip(self.create_all(wanted)) {
            match created {
                Ok(created) => settled.push((place, self.settled(&created))),
                Err(error) => results[place] = Some(Err(error)),
            }
        }
        Waiting::new(async move {
            for (place, settled) in settled {
                results[place] = Some(settled.await);
            }
            Ok(results.into_iter().flatten().collect())
        })
    }

    fn stop(&self, request: &StopRequest) -> Result<Waiting<Atom>, Error> {
        self.ask_to_stop(&[*request])?.pop().unwrap_or(Ok(()))?;
        Ok(self.wait(request.id))
    }

    fn stop_many(
        &self,
        requests: &[StopRequest],
    ) -> Result<Waiting<Vec<Result<Atom, Error>>>, Error> {
        let wait = |(asked, request): (Result<(), Error>, &StopRequest)| {
            asked.map(|()| self.wait(request.id))
        };
        let stops: Vec<_> =
            self.ask_to_stop(requests)?.into_iter().zip(requests).map(wait).collect();
        Ok(Waiting::new(async move {
            let mut stopped = Vec::with_capacity(stops.len());
            for stop in stops {
                stopped.push(match stop {
                    Ok(stop) => stop.await,
                    Err(error) => Err(error),
                });
            }
            Ok(stopped)
        }))
    }

    fn delete(&self, id: AtomId) -> Result<Waiting<()>, Error> {
        self.ask_to_delete(id, Deletion::Requested)?;
        let gone = |atom: Option<&Atom>| atom.is_none().then_some(Ok(()));
        Ok(Waiting::new(Until::new(&self.journal, id, gone)))
    }

    fn wait(&self, id: AtomId) -> Waiting<Atom> {
        Waiting::new(Until::new(&self.journal, id, has_stopped(id)))
    }

    fn timed_out(&self, ids: &[AtomId], waited: Duration) -> Error {
        for id in ids {
            match self.get(&id.into()) {
                Ok(atom) if atom.state().is_live() => {
                    return Error::TimedOut { id: *id, state: atom.state(), waited };
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        // They have stopped in this very moment.
        let (id, state) = (ids.first().copied().unwrap_or_else(AtomId::new), State::Stopped);
        Error::TimedOut { id, state, waited }
    }

    fn wait_any(&self, ids: Vec<AtomId>) -> Waiting<Atom> {
        let first = UntilMany::new(&self.journal, ids, true);
        Waiting::new(async { first.await?.pop().ok_or(Error::NothingToWaitFor) })
    }

    fn wait_all(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>> {
        Waiting::new(UntilMany::new(&self.journal, ids, false))
    }

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error> {
        let atom = self.get(&request.id.into())?;
        Ok(self.open_logs(self.driver.logs(&atom, &request.query())?))
    }

    #[cfg(target_os = "linux")]
    fn stdin(&self, id: AtomId) -> Result<Waiting<PathBuf>, Error> {
        if !self.get(&id.into())?.spec().get_stdin_pipe() {
            return Err(Error::NoStdinPipe(id));
        }
        let path = self.driver.stdin(id)?;
        let settled = Until::new(&self.journal, id, has_settled(id));
        Ok(Waiting::new(async move { settled.await.map(|_| path) }))
    }

    #[cfg(target_os = "linux")]
    fn close_stdin(&self, id: AtomId) -> Result<(), Error> {
        Ok(self.driver.send(Command::CloseStdin { atom: id })?)
    }

    fn events(&self, from: u64) -> Result<Events, Error> {
        let records = self.journal.read(from)?;
        Ok(Events::new(records.map(|record| record.map_err(Error::from))))
    }

    fn subscribe(&self, from: u64) -> Subscription {
        let local = Local::new(self.journal.subscribe(from), Arc::clone(&self.reads));
        Subscription::new(local, from)
    }

    fn durable_seq(&self) -> u64 {
        self.journal.durable_seq()
    }

    fn stats(&self) -> Result<Stats, Error> {
        Ok(self.journal.stats()?)
    }

    fn verify(&self) -> Result<Verified, Error> {
        Ok(self.journal.verify()?)
    }

    fn compact(&self, retention: &Retention) -> Result<Compacted, Error> {
        Ok(self.journal.compact(retention)?)
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

/// What a request to stop comes to; nothing for an atom that has stopped, or does so as strictly.
fn decide_stop(draft: &mut Draft<'_>, request: &StopRequest) -> Result<Option<StopOrder>, Error> {
    let id = request.id;
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
