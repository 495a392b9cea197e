//! The thread that journals what the driver observes, and does what follows from it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Error;
use super::core::{Core, Deletion, tightens};
use super::create::Wanted;
use crate::atom::{Atom, AtomId, AtomSpec, PlannedRetry};
use crate::crash;
use crate::driver::{Command, Driver, DriverError, Observation, Order, Remembered, Sighting};
use crate::journal::{Fact, JournalError, Note, Ticket};
use crate::lifecycle::{Ending, Event, EventKind, Reason, State, StopOrder, Verdict, can, decide};
use crate::time::{Timestamp, now};
use crate::trace;

/// How long a retry waits at the least that could not be made when it was due.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// The engine's own thread. One, whatever the number of atoms.
#[derive(Debug)]
pub(super) struct Steward {
    inbox: Sender<Input>,
    thread: JoinHandle<()>,
}

enum Input {
    Observed(Observation),
    /// Come to terms with what is outside, and answer.
    Reconcile(Sender<Result<(), Error>>),
    Close,
}

impl Steward {
    pub(super) fn start<D: Driver>(core: Arc<Core<D>>) -> Result<Self, Error> {
        let (inbox, receiver) = channel();
        let observed = inbox.clone();
        // The steward outlives the driver's threads; after it has gone nobody listens.
        core.driver.start(Box::new(move |observation| {
            drop(observed.send(Input::Observed(observation)))
        }))?;
        let thread = std::thread::Builder::new()
            .name("caesium-steward".into())
            .spawn(move || Work::new(core).run(&receiver))
            .map_err(|source| DriverError::Io { what: "start a thread".into(), source })?;
        Ok(Self { inbox, thread })
    }

    /// Compares the journal with what is outside; returns when every difference is journaled.
    pub(super) fn reconcile(&self) -> Result<(), Error> {
        let (answer, result) = channel();
        self.inbox.send(Input::Reconcile(answer)).map_err(|_| Error::Closed)?;
        result.recv().map_err(|_| Error::Closed)?
    }

    pub(super) fn join(self) {
        // A steward that has gone already cannot be told; joining it is the same.
        let _ = self.inbox.send(Input::Close);
        if self.thread.join().is_err() {
            tracing::error!("the engine's steward panicked");
        }
    }
}

struct Work<D> {
    core: Arc<Core<D>>,
    /// The retries to be made, the next one first: by the atom that they replace.
    due: BTreeSet<(Timestamp, AtomId)>,
    /// What an earlier host had set aside for atoms that it did not journal, and that is being removed. The atom of a
    /// planned retry may be among them: its number is known beforehand.
    residue: HashSet<AtomId>,
    /// Retries that wait for that.
    held: Vec<(Timestamp, AtomId)>,
    reconciling: Option<Sender<Result<(), Error>>>,
    /// Of the last event journaled here: what is durable is durable in order.
    last: Option<Ticket>,
}

impl<D: Driver> Work<D> {
    fn new(core: Arc<Core<D>>) -> Self {
        let (due, residue, held) = (BTreeSet::new(), HashSet::new(), Vec::new());
        Self { core, due, residue, held, reconciling: None, last: None }
    }

    fn run(mut self, inbox: &Receiver<Input>) {
        loop {
            let input = self.next(inbox);
            match input {
                Ok(Input::Observed(observation)) => self.observed(observation),
                Ok(Input::Reconcile(answer)) => self.reconcile(answer),
                Ok(Input::Close) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.retry_due(),
            }
        }
    }

    /// What comes next, before the next retry is due. Who has something to do has the journal's writer write what was
    /// journaled last; who would wait anyway writes it here.
    fn next(&mut self, inbox: &Receiver<Input>) -> Result<Input, RecvTimeoutError> {
        if let Ok(input) = inbox.try_recv() {
            self.tell_last();
            return Ok(input);
        }
        if let Some(last) = &mut self.last {
            last.write();
        }
        match self.due.first() {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((due, _)) => inbox.recv_timeout(due.saturating_since(now())),
        }
    }

    /// Has the journal's writer write what was journaled last.
    fn tell_last(&mut self) {
        if let Some(last) = &mut self.last {
            last.tell();
        }
    }

    /// Asks the driver after every atom whose state may have changed while nobody watched.
    fn reconcile(&mut self, answer: Sender<Result<(), Error>>) {
        let atoms: Vec<Atom> = self.core.journal.with_view(|view| view.atoms().cloned().collect());
        let asked = self.core.driver.residue().and_then(|residue| {
            let known: HashSet<AtomId> = atoms.iter().map(Atom::id).collect();
            self.residue = residue.into_iter().filter(|atom| !known.contains(atom)).collect();
            let unknown = self.residue.iter().copied();
            unknown
                .map(|atom| Command::Remove { atom, handle: None })
                .chain(atoms.iter().filter_map(question))
                .chain([Command::Sync { token: 0 }])
                .try_for_each(|command| self.core.driver.send(command))
        });
        crash::point("host/has-asked-for-all");
        for atom in &atoms {
            match atom.planned_retry() {
                Some(planned) => self.schedule(planned.due, atom.id()),
                // Decided with the ending, but its record may not have made it to disk with it.
                None => self.settle(atom.id()),
            }
        }
        match asked {
            Ok(()) => self.reconciling = Some(answer),
            // Whoever asked has gone, or is told.
            Err(error) => drop(answer.send(Err(error.into()))),
        }
    }

    fn observed(&mut self, observation: Observation) {
        match observation {
            Observation::Started { atom, at, pid, handle } => {
                crash::point("host/has-heard-started");
                let note = Note { handle: Some(handle), ..Note::default() };
                self.happened(atom, at, Event::Started { pid }, note);
            }
            Observation::StartFailed { atom, at, reason, detail } => {
                self.happened(atom, at, Event::StartFailed { reason }, detailed(detail));
            }
            Observation::NeverStarted { atom, at, detail } => {
                self.happened(atom, at, Event::Withdrawn, detailed(detail));
            }
            Observation::StopBegan { atom, at, cause, grace } => {
                let order = StopOrder { grace, force: false, cause };
                self.happened(atom, at, Event::StopAsked(order), Note::default());
            }
            Observation::Exited { atom, at, status, evidence, usage, left_behind } => {
                crash::point("host/has-heard-an-end");
                let usage = usage.map(Arc::new);
                let note = Note { usage, left_behind, ..Note::default() };
                self.happened(atom, at, Event::Exited(Ending::observed(status, evidence)), note);
                crash::point("host/has-queued-an-end");
            }
            Observation::LostSight { atom, at, reason, detail } => {
                self.happened(atom, at, Event::LostSight { reason }, detailed(detail));
            }
            Observation::Contradiction { atom, at, reason, detail } => {
                self.happened(atom, at, Event::Contradiction { reason }, detailed(detail));
            }
            Observation::Removed { atom, at } => {
                crash::point("host/has-heard-removed");
                if self.residue.remove(&atom) {
                    self.due.extend(self.held.drain(..));
                } else {
                    self.removed(atom, at);
                }
            }
            Observation::Seen { atom, sighting } => match sighting {
                Sighting::Adopted => trace::adopted(atom),
                Sighting::AsRemembered | Sighting::Changed => {}
            },
            Observation::Synced { token: _ } => {
                if let Some(answer) = self.reconciling.take() {
                    let durable = self.last.take().map_or(Ok(()), Ticket::wait);
                    // Whoever asked may have given up.
                    let _ = answer.send(durable.map_err(Error::from));
                }
            }
        }
    }

    /// Journals an event that the driver observed, and does what follows from it.
    fn happened(&mut self, id: AtomId, at: Timestamp, event: Event, note: Note) {
        let result = self.core.journal.change_lazily(|draft| {
            let Some(atom) = draft.view().get(id).cloned() else { return Ok(None) };
            if let (Event::StopAsked(order), State::Stopping) = (event, atom.state())
                && !tightens(atom.life().stop(), order)
            {
                return Ok(None);
            }
            let fact = if can(atom.state(), event.kind()) {
                Fact::Happened { event, note }
            } else if can(atom.state(), EventKind::Contradiction) {
                contradiction(&atom, event.kind())
            } else {
                return Ok(None);
            };
            draft.append(id, at, fact).map(Some)
        });
        match result {
            Ok((Some(atom), ticket)) => {
                self.last = Some(ticket);
                self.follow_up(&atom);
            }
            Ok((None, _)) => {
                tracing::debug!(atom = %id, ?event, "an observation that changes nothing")
            }
            Err(error) => {
                tracing::error!(atom = %id, ?event, %error, "an observation could not be journaled")
            }
        }
    }

    /// What follows from the state that an event led to.
    fn follow_up(&mut self, atom: &Atom) {
        match atom.state() {
            State::Stopped | State::Invalid => self.settle(atom.id()),
            State::Created
            | State::Running
            | State::Stopping
            | State::Deleting
            | State::Deleted => {}
        }
    }

    /// Applies the atom's policies to how it ended, unless that was done before.
    fn settle(&mut self, id: AtomId) {
        let planned = self.core.journal.change(|draft| {
            let Some(atom) = draft.view().get(id).cloned() else { return Ok(None) };
            if atom.planned_retry().is_some() || atom.replaced_by().is_some() {
                return Ok(None);
            }
            let replacement = AtomId::new();
            match verdict(&atom, replacement) {
                Verdict::Keep => Ok(None),
                Verdict::Delete => Ok(Some(None)),
                Verdict::Retry { after } => {
                    let due = atom.life().latest().saturating_add(after);
                    let planned = PlannedRetry { id: replacement, due };
                    draft.append(id, now(), Fact::RetryPlanned(planned))?;
                    Ok::<_, JournalError>(Some(Some(planned)))
                }
            }
        });
        match planned {
            Ok((None, _)) => {}
            Ok((Some(Some(planned)), _)) => {
                crash::point("host/has-planned-a-retry");
                self.schedule(planned.due, id);
            }
            Ok((Some(None), _)) => self.delete(id),
            Err(error) => {
                tracing::error!(atom = %id, %error, "what follows from an ending could not be journaled")
            }
        }
    }

    fn schedule(&mut self, due: Timestamp, id: AtomId) {
        if self.core.policies {
            self.due.insert((due, id));
        }
    }

    fn delete(&self, id: AtomId) {
        if !self.core.policies {
            return;
        }
        match self.core.ask_to_delete(id, Deletion::ByPolicy) {
            // Somebody else deleted it first.
            Ok(()) | Err(Error::NotFound(_) | Error::Rejected { .. }) => {}
            Err(error) => {
                tracing::error!(atom = %id, %error, "an invalid atom could not be deleted")
            }
        }
    }

    /// The atom as it is decided: what was planned a moment ago need not be durable to be acted upon,
    /// since what is journaled after it is durable after it.
    fn decided(&self, id: AtomId) -> Option<Atom> {
        let atom =
            self.core.journal.change(|draft| Ok::<_, JournalError>(draft.view().get(id).cloned()));
        atom.ok().and_then(|(atom, _nothing_written)| atom)
    }

    /// Makes the retries whose time has come.
    fn retry_due(&mut self) {
        while let Some((due, id)) = self.due.first().copied().filter(|(due, _)| *due <= now()) {
            self.due.remove(&(due, id));
            // Making a retry takes its time.
            self.tell_last();
            let atom = self.decided(id);
            let Some(planned) = atom.as_ref().and_then(Atom::planned_retry) else { continue };
            if self.residue.contains(&planned.id) {
                self.held.push((due, id));
                continue;
            }
            let Some(atom) = atom else { continue };
            match atom.state() {
                State::Stopped => drop(self.retry(&atom, planned)),
                // What lives under it goes first; its removal makes the retry.
                State::Invalid => self.delete(id),
                // It has gone, and its successor had to wait.
                State::Deleting => self.removed(id, now()),
                State::Created | State::Running | State::Stopping | State::Deleted => {}
            }
        }
    }

    /// Creates the atom that takes the place of another; false when that has to wait.
    fn retry(&mut self, atom: &Atom, planned: PlannedRetry) -> bool {
        let spec = atom.known().spec.clone();
        let missing = spec.missing_secret().map(str::to_owned);
        let order = Order { atom: planned.id, spec };
        let made = match &missing {
            None => {
                let attempt = atom.attempt() + 1;
                let retry_of = Some(atom.id());
                let (around, followed) = (None, false);
                let wanted = Wanted { order, around, followed, attempt, retry_of };
                self.core.create_one(wanted).map(drop)
            }
            Some(secret) => self.withdraw(order, atom, secret),
        };
        match made {
            Ok(()) => return true,
            // It stays planned, for the next engine.
            Err(Error::Closed) => {}
            Err(error @ Error::Driver(_)) => {
                trace::retry_delayed(atom.id(), &error);
                let backoff = atom.spec().get_retry().backoff.delay(atom.attempt(), 0);
                self.schedule(now().saturating_add(backoff.max(LEAST_WAIT)), atom.id());
            }
            Err(error) => tracing::error!(atom = %atom.id(), %error, "a retry could not be made"),
        }
        false
    }

    /// A retry whose secret values went with the host that knew them: it is journaled, and not started.
    fn withdraw(&self, order: Order, atom: &Atom, secret: &str) -> Result<(), Error> {
        let id = order.atom;
        let detail = format!("the value of the secret {secret} went with the host that knew it");
        let (_, ticket) = self.core.journal.change_lazily(|draft| {
            draft.append(id, now(), self.creation(order, atom))?;
            let note = detailed(detail);
            draft.append(id, now(), Fact::Happened { event: Event::Withdrawn, note })
        })?;
        Ok(ticket.wait()?)
    }

    fn creation(&self, order: Order, replaced: &Atom) -> Fact {
        Fact::Created(crate::journal::Creation {
            engine: self.core.driver.name().into(),
            spec: order.spec,
            attempt: replaced.attempt() + 1,
            retry_of: Some(replaced.id()),
        })
    }

    /// Nothing is left of a deleted atom. If it is to be retried, its successor is journaled first.
    fn removed(&mut self, id: AtomId, at: Timestamp) {
        let atom = self.decided(id);
        if let Some(atom) = atom
            && let Some(planned) = atom.planned_retry()
            && !self.retry(&atom, planned)
        {
            // The plan must not go before it is carried out: the atom is still being deleted.
            return;
        }
        self.happened(id, at, Event::Removed, Note::default());
    }
}

/// What to ask the driver about an atom of an earlier life; nothing where its state cannot have changed.
fn question(atom: &Atom) -> Option<Command> {
    let known = atom.known();
    let look = || {
        Some(Command::Look(Remembered {
            order: Order { atom: known.id, spec: known.spec.clone() },
            state: atom.state(),
            handle: known.handle.clone(),
            started_at: atom.started_at(),
            stop: atom.life().stop(),
        }))
    };
    match atom.state() {
        State::Created | State::Running | State::Stopping => look(),
        // Its end was not seen: then it is worth a look whether it is one.
        State::Stopped => match atom.reason() {
            Some(Reason::ExitUnobserved) => look(),
            Some(_) | None => None,
        },
        State::Deleting => Some(Command::Remove { atom: known.id, handle: known.handle.clone() }),
        State::Invalid | State::Deleted => None,
    }
}

/// What the atom's policies make of how it ended.
fn verdict(atom: &Atom, replacement: AtomId) -> Verdict {
    let spec: &AtomSpec = atom.spec();
    if spec.missing_secret().is_some() && atom.reason() == Some(Reason::NeverStarted) {
        // Another host cannot know the secret either: trying again would withdraw again.
        return Verdict::Keep;
    }
    let [.., a, b, c, d, e, f, g, h] = replacement.to_bytes();
    let chance = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    // The random bits of a UUID begin after its variant's two: shift those out.
    decide(atom.life(), spec.get_retry(), spec.get_on_invalid(), atom.attempt(), chance << 2)
}

/// What the driver saw does not fit the journal, and the journal can say so.
fn contradiction(atom: &Atom, event: EventKind) -> Fact {
    let reason = match event {
        EventKind::Started => Reason::UnexpectedProcess,
        EventKind::StartFailed
        | EventKind::Withdrawn
        | EventKind::StopAsked
        | EventKind::Exited
        | EventKind::LostSight
        | EventKind::DeleteAsked
        | EventKind::Removed
        | EventKind::Contradiction => Reason::UndefinedState,
    };
    let detail = format!("the driver reported {event} of an atom that is {}", atom.state());
    Fact::Happened { event: Event::Contradiction { reason }, note: detailed(detail) }
}

fn detailed(detail: String) -> Note {
    Note { detail: Some(detail.into()), ..Note::default() }
}
