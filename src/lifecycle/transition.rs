//! The transition table, and what each event does to what is known of an atom.

use serde::{Deserialize, Serialize};

use super::{Ending, Event, EventKind, EventSet, Outcome, Reason, State, StopCause, StopOrder};
use crate::time::Timestamp;

/// The transition table: where `event` leads from `state`, or `None` where it is not allowed.
///
/// Everything else that speaks of transitions — [`transition`], [`can`],
/// [`allowed_events`], the drawings — asks this function.
#[inline]
pub const fn next(state: State, event: EventKind) -> Option<State> {
    TABLE[state as usize][event as usize]
}

/// [`rule`], looked up once and for all: a load instead of two jumps.
const TABLE: [[Option<State>; EventKind::ALL.len()]; State::ALL.len()] = {
    let mut table = [[None; EventKind::ALL.len()]; State::ALL.len()];
    let mut at = 0;
    while at < State::ALL.len() * EventKind::ALL.len() {
        let (state, event) =
            (State::ALL[at / EventKind::ALL.len()], EventKind::ALL[at % EventKind::ALL.len()]);
        table[state as usize][event as usize] = rule(state, event);
        at += 1;
    }
    table
};

const fn rule(state: State, event: EventKind) -> Option<State> {
    use EventKind as E;
    use State::{Created, Deleted, Deleting, Invalid, Running, Stopped, Stopping};
    match state {
        Created => match event {
            E::Started => Some(Running),
            E::StartFailed | E::Withdrawn | E::LostSight => Some(Stopped),
            E::StopAsked => Some(Stopping),
            E::Contradiction => Some(Invalid),
            E::Exited | E::DeleteAsked | E::Removed => None,
        },
        Running => match event {
            E::StopAsked => Some(Stopping),
            E::Exited | E::LostSight => Some(Stopped),
            E::Contradiction => Some(Invalid),
            E::Started | E::StartFailed | E::Withdrawn | E::DeleteAsked | E::Removed => None,
        },
        Stopping => match event {
            E::Started | E::StopAsked => Some(Stopping),
            E::StartFailed | E::Withdrawn | E::Exited | E::LostSight => Some(Stopped),
            E::Contradiction => Some(Invalid),
            E::DeleteAsked | E::Removed => None,
        },
        Stopped => match event {
            E::DeleteAsked => Some(Deleting),
            E::Contradiction => Some(Invalid),
            E::Started
            | E::StartFailed
            | E::Withdrawn
            | E::StopAsked
            | E::Exited
            | E::LostSight
            | E::Removed => None,
        },
        Deleting => match event {
            E::Removed => Some(Deleted),
            E::Contradiction => Some(Invalid),
            E::Started
            | E::StartFailed
            | E::Withdrawn
            | E::StopAsked
            | E::Exited
            | E::LostSight
            | E::DeleteAsked => None,
        },
        Deleted => match event {
            E::Started
            | E::StartFailed
            | E::Withdrawn
            | E::StopAsked
            | E::Exited
            | E::LostSight
            | E::DeleteAsked
            | E::Removed
            | E::Contradiction => None,
        },
        Invalid => match event {
            E::DeleteAsked => Some(Deleting),
            E::Started
            | E::StartFailed
            | E::Withdrawn
            | E::StopAsked
            | E::Exited
            | E::LostSight
            | E::Removed
            | E::Contradiction => None,
        },
    }
}

/// Whether `event` is allowed in `state`.
pub const fn can(state: State, event: EventKind) -> bool {
    next(state, event).is_some()
}

/// The events that are allowed in `state`.
pub const fn allowed_events(state: State) -> EventSet {
    let mut set = EventSet::none();
    let mut position = 0;
    while position < EventKind::ALL.len() {
        if can(state, EventKind::ALL[position]) {
            set = set.with(EventKind::ALL[position]);
        }
        position += 1;
    }
    set
}

/// The allowed cells of the table, row by row: from, event, to.
pub fn transitions() -> impl Iterator<Item = (State, EventKind, State)> {
    State::ALL.iter().flat_map(|from| {
        EventKind::ALL.iter().filter_map(|event| next(*from, *event).map(|to| (*from, *event, to)))
    })
}

/// An event that the state does not allow. Nothing was changed or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {event} is not allowed in state {state} (allowed: {allowed})")]
pub struct Rejection {
    /// The state the atom is in, and stays in.
    pub state: State,
    /// The event that was refused.
    pub event: EventKind,
    /// The events that would have been allowed.
    pub allowed: EventSet,
}

/// An execution: what is known of it beside its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The process id in the pid namespace of the host; `None` where a driver has no processes.
    pub pid: Option<u32>,
    /// When it was started.
    pub started_at: Timestamp,
}

/// A stop that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// When it was first asked for.
    pub asked_at: Timestamp,
    /// When the grace is over and it is killed.
    pub kill_at: Timestamp,
    /// It was, or has become, a forced stop.
    pub force: bool,
    /// Who asked first. A request during a deadline's stop makes it a requested one.
    pub cause: StopCause,
}

impl Stop {
    fn asked(order: StopOrder, at: Timestamp) -> Self {
        let kill_at = if order.force { at } else { at.saturating_add(order.grace) };
        Self { asked_at: at, kill_at, force: order.force, cause: order.cause }
    }

    /// The stricter of this stop and another order: the shorter grace, force, and a request over a deadline.
    #[must_use]
    pub fn tightened(self, order: StopOrder, at: Timestamp) -> Self {
        let other = Self::asked(order, at);
        Self {
            asked_at: self.asked_at,
            kill_at: self.kill_at.min(other.kill_at),
            force: self.force || other.force,
            cause: match (self.cause, other.cause) {
                (StopCause::Deadline, StopCause::Deadline) => StopCause::Deadline,
                (StopCause::Requested, StopCause::Requested | StopCause::Deadline)
                | (StopCause::Deadline, StopCause::Requested) => StopCause::Requested,
            },
        }
    }
}

/// The end of an atom: how, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How it ended.
    pub ending: Ending,
    /// When that was journaled.
    pub stopped_at: Timestamp,
}

/// A life so far: a state, and just the data that this state can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    created_at: Timestamp,
    latest: Timestamp,
    phase: Phase,
}

/// A state with its data: what a state cannot have, it has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Created,
    Running { run: Run },
    Stopping { run: Option<Run>, stop: Stop },
    Stopped { run: Option<Run>, stop: Option<Stop>, end: End },
    Deleting { run: Option<Run>, stop: Option<Stop>, end: Option<End> },
    Deleted { run: Option<Run>, stop: Option<Stop>, end: Option<End> },
    Invalid { run: Option<Run>, stop: Option<Stop>, end: Option<End>, why: Reason },
}

impl Life {
    /// The life of an atom that was created at `at`.
    pub const fn created(at: Timestamp) -> Self {
        Self { created_at: at, latest: at, phase: Phase::Created }
    }

    /// Where the atom is.
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::Created => State::Created,
            Phase::Running { .. } => State::Running,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Stopped { .. } => State::Stopped,
            Phase::Deleting { .. } => State::Deleting,
            Phase::Deleted { .. } => State::Deleted,
            Phase::Invalid { .. } => State::Invalid,
        }
    }

    /// When it was created.
    pub const fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When its last event happened.
    pub const fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Its execution, once it was started.
    pub const fn run(&self) -> Option<Run> {
        match self.phase {
            Phase::Created => None,
            Phase::Running { run } => Some(run),
            Phase::Stopping { run, .. }
            | Phase::Stopped { run, .. }
            | Phase::Deleting { run, .. }
            | Phase::Deleted { run, .. }
            | Phase::Invalid { run, .. } => run,
        }
    }

    /// The stop that was asked for, if one was.
    pub const fn stop(&self) -> Option<Stop> {
        match self.phase {
            Phase::Created | Phase::Running { .. } => None,
            Phase::Stopping { stop, .. } => Some(stop),
            Phase::Stopped { stop, .. }
            | Phase::Deleting { stop, .. }
            | Phase::Deleted { stop, .. }
            | Phase::Invalid { stop, .. } => stop,
        }
    }

    /// How and when it ended, once it has.
    pub const fn end(&self) -> Option<End> {
        match self.phase {
            Phase::Created | Phase::Running { .. } | Phase::Stopping { .. } => None,
            Phase::Stopped { end, .. } => Some(end),
            Phase::Deleting { end, .. }
            | Phase::Deleted { end, .. }
            | Phase::Invalid { end, .. } => end,
        }
    }

    /// What contradicted the journal, while the atom is invalid.
    pub const fn contradiction(&self) -> Option<Reason> {
        match self.phase {
            Phase::Invalid { why, .. } => Some(why),
            Phase::Created
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped { .. }
            | Phase::Deleting { .. }
            | Phase::Deleted { .. } => None,
        }
    }
}

/// Applies an event to a life: the one function behind every change of state, live and in replay.
///
/// `at` is when it happened; a clock that went backwards is held at the life's
/// latest time, so that times never decrease.
///
/// # Errors
///
/// [`Rejection`] when the table does not allow the event; the life stays as it was.
pub fn transition(life: &Life, event: &Event, at: Timestamp) -> Result<Life, Rejection> {
    let state = life.state();
    let Some(to) = next(state, event.kind()) else {
        return Err(Rejection { state, event: event.kind(), allowed: allowed_events(state) });
    };
    let latest = at.max(life.latest);
    let phase = phase_after(life, event, to, latest);
    Ok(Life { created_at: life.created_at, latest, phase })
}

/// The phase that `event` leads to; `to` is what the table says.
fn phase_after(life: &Life, event: &Event, to: State, at: Timestamp) -> Phase {
    let (run, stop, end) = (life.run(), life.stop(), life.end());
    let ended = |ending| Phase::Stopped { run, stop, end: End { ending, stopped_at: at } };
    match *event {
        Event::Started { pid } => {
            let run = Run { pid, started_at: at };
            match stop {
                Some(stop) => Phase::Stopping { run: Some(run), stop },
                None => Phase::Running { run },
            }
        }
        Event::StartFailed { reason } => ended(Ending::unreported(Outcome::StartupFailure, reason)),
        Event::Withdrawn => {
            let outcome = match stop {
                Some(_) => Outcome::Terminated,
                None => Outcome::StartupFailure,
            };
            ended(Ending::unreported(outcome, Reason::NeverStarted))
        }
        Event::StopAsked(order) => {
            let stop = match stop {
                Some(stop) => stop.tightened(order, at),
                None => Stop::asked(order, at),
            };
            Phase::Stopping { run, stop }
        }
        Event::Exited(ending) => ended(ending),
        Event::LostSight { reason } => ended(Ending::unreported(Outcome::Unknown, reason)),
        Event::DeleteAsked => Phase::Deleting { run, stop, end },
        Event::Removed => Phase::Deleted { run, stop, end },
        Event::Contradiction { reason } => Phase::Invalid { run, stop, end, why: reason },
    }
    .checked(to)
}

impl Phase {
    /// The table and the data must agree; that they do is tested for every cell.
    fn checked(self, to: State) -> Self {
        let life =
            Life { created_at: Timestamp::default(), latest: Timestamp::default(), phase: self };
        debug_assert_eq!(life.state(), to, "the phase built and the transition table disagree");
        self
    }
}
