//! What passes between an engine and a driver.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::atom::{AtomId, AtomSpec, LeftBehind, Usage};
use crate::lifecycle::{Evidence, Reason, State, Stop, StopCause, WaitStatus};
use crate::time::Timestamp;

/// What a driver needs to recognise a run in a later life of the host. Only the driver reads it.
pub type Handle = Arc<[u8]>;

/// What an engine tells a driver to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Start a prepared atom. Answered by [`Observation::Started`], [`Observation::StartFailed`]
    /// or, when it was stopped before, [`Observation::NeverStarted`].
    Start(Order),
    /// Stop an atom: ask it to end, and kill it and its tree when the grace is over. Answered by the ending.
    /// For an atom that has already ended it does nothing. Given again it tightens: the shorter grace, or force.
    Stop {
        /// Which atom.
        atom: AtomId,
        /// From now to the kill.
        grace: Duration,
        /// Kill at once.
        force: bool,
    },
    /// Find out what became of an atom that an earlier life of the host started.
    /// Answered by exactly one [`Observation::Seen`], then by whatever happens to it.
    Look(Remembered),
    /// End whatever still runs under the atom and remove all that belongs to it. Answered by [`Observation::Removed`].
    /// `handle` is the last known one, for what was never looked for in this life.
    Remove {
        /// Which atom.
        atom: AtomId,
        /// How to recognise what may still run under it.
        handle: Option<Handle>,
    },
    /// Answered by [`Observation::Synced`] once every command before it has been answered as far as
    /// it can be at once (every `Look` has been seen).
    Sync {
        /// Told back.
        token: u64,
    },
    /// End an atom's standard input, if that is a pipe. Not answered; once it was taken, whoever looks for the
    /// [FIFO](super::Driver::stdin) does not find it.
    CloseStdin {
        /// Which atom.
        atom: AtomId,
    },
}

/// What to start, and what to do with it even if nobody is there to ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Which atom.
    pub atom: AtomId,
    /// What it is asked to be. Secret values are there in memory and are not serialised.
    pub spec: Arc<AtomSpec>,
}

/// What the journal remembers of an atom, to look for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// The order it was, or was to be, started with.
    pub order: Order,
    /// Its state by the journal: created, running or stopping; stopped or invalid
    /// when it is only to be checked that nothing lives.
    pub state: State,
    /// How to recognise the run; `None` when no start was journaled.
    pub handle: Option<Handle>,
    /// When it was started, for its deadline.
    pub started_at: Option<Timestamp>,
    /// The stop that was under way.
    pub stop: Option<Stop>,
}

/// What a driver saw happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// It runs.
    Started {
        /// Which atom.
        atom: AtomId,
        /// When.
        at: Timestamp,
        /// Its process id, where there is one.
        pid: Option<u32>,
        /// How to recognise the run later.
        handle: Handle,
    },
    /// Its program could not be executed.
    StartFailed {
        /// Which atom.
        atom: AtomId,
        /// When.
        at: Timestamp,
        /// What stood in the way.
        reason: Reason,
        /// What a person should know: the path, the system's message.
        detail: String,
    },
    /// It is certain never to have run, and will not.
    NeverStarted {
        /// Which atom.
        atom: AtomId,
        /// When that became certain.
        at: Timestamp,
        /// Why.
        detail: String,
    },
    /// The driver began a stop that it was ordered to make by itself: the deadline has passed.
    StopBegan {
        /// Which atom.
        atom: AtomId,
        /// When.
        at: Timestamp,
        /// Why.
        cause: StopCause,
        /// From then to the kill.
        grace: Duration,
    },
    /// It ended, and the kernel said how.
    Exited {
        /// Which atom.
        atom: AtomId,
        /// When.
        at: Timestamp,
        /// What the kernel reported.
        status: WaitStatus,
        /// What we did to it, and what its cgroup counted.
        evidence: Evidence,
        /// What it used, where the kernel told.
        usage: Option<Usage>,
        /// What its leader left behind; `None` when that was nothing.
        left_behind: Option<Arc<LeftBehind>>,
    },
    /// It may have run, it does not run now, and its ending cannot be known.
    LostSight {
        /// Which atom.
        atom: AtomId,
        /// When that became certain.
        at: Timestamp,
        /// Why not.
        reason: Reason,
        /// What a person should know.
        detail: String,
    },
    /// The outside shows what cannot be.
    Contradiction {
        /// Which atom.
        atom: AtomId,
        /// When it was seen.
        at: Timestamp,
        /// What was seen.
        reason: Reason,
        /// What a person should know.
        detail: String,
    },
    /// The answer to [`Command::Look`].
    Seen {
        /// Which atom.
        atom: AtomId,
        /// What became of it.
        sighting: Sighting,
    },
    /// Nothing of the atom runs or is left.
    Removed {
        /// Which atom.
        atom: AtomId,
        /// When.
        at: Timestamp,
    },
    /// The answer to [`Command::Sync`].
    Synced {
        /// What the command said.
        token: u64,
    },
}

impl Observation {
    /// The atom that it is about; none for [`Observation::Synced`].
    pub fn atom(&self) -> Option<AtomId> {
        match self {
            Self::Started { atom, .. }
            | Self::StartFailed { atom, .. }
            | Self::NeverStarted { atom, .. }
            | Self::StopBegan { atom, .. }
            | Self::Exited { atom, .. }
            | Self::LostSight { atom, .. }
            | Self::Contradiction { atom, .. }
            | Self::Seen { atom, .. }
            | Self::Removed { atom, .. } => Some(*atom),
            Self::Synced { .. } => None,
        }
    }
}

/// What became of an atom that was looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Sighting {
    /// It lives and is watched again: for a running or stopping atom nothing has changed.
    Adopted,
    /// It is as the journal says: a stopped atom of which nothing lives.
    AsRemembered,
    /// It is not as the journal says, as the observation that was sent just before tells:
    /// started, exited, lost, never started, or a contradiction.
    Changed,
}
