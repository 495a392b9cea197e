//! What can happen to an atom: past-tense facts.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ending, Reason};
use crate::text::named;

/// What happened to an atom, with what is known of it.
///
/// The order of the variants is their position in the journal: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// It runs now. A driver without processes has no pid to tell.
    Started {
        /// The process id in the pid namespace of the host.
        pid: Option<u32>,
    },
    /// Its program could not be executed.
    StartFailed {
        /// What stood in the way.
        reason: Reason,
    },
    /// It is certain never to have run, and will not.
    Withdrawn,
    /// Somebody, or its deadline, asked it to end.
    StopAsked(StopOrder),
    /// It ended, and the kernel said how.
    Exited(Ending),
    /// It may have run, and its ending cannot be known.
    LostSight {
        /// Why not.
        reason: Reason,
    },
    /// Somebody asked to delete it.
    DeleteAsked,
    /// Everything that belonged to it is gone.
    Removed,
    /// The outside shows what cannot be.
    Contradiction {
        /// What was seen.
        reason: Reason,
    },
}

/// An [`Event`] without its particulars: a column of the transition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// [`Event::Started`]
    Started,
    /// [`Event::StartFailed`]
    StartFailed,
    /// [`Event::Withdrawn`]
    Withdrawn,
    /// [`Event::StopAsked`]
    StopAsked,
    /// [`Event::Exited`]
    Exited,
    /// [`Event::LostSight`]
    LostSight,
    /// [`Event::DeleteAsked`]
    DeleteAsked,
    /// [`Event::Removed`]
    Removed,
    /// [`Event::Contradiction`]
    Contradiction,
}

named!(EventKind, "event", {
    Started => "started",
    StartFailed => "start_failed",
    Withdrawn => "withdrawn",
    StopAsked => "stop_asked",
    Exited => "exited",
    LostSight => "lost_sight",
    DeleteAsked => "delete_asked",
    Removed => "removed",
    Contradiction => "contradiction",
});

impl Event {
    /// Which kind of event this is.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Started { .. } => EventKind::Started,
            Self::StartFailed { .. } => EventKind::StartFailed,
            Self::Withdrawn => EventKind::Withdrawn,
            Self::StopAsked(_) => EventKind::StopAsked,
            Self::Exited(_) => EventKind::Exited,
            Self::LostSight { .. } => EventKind::LostSight,
            Self::DeleteAsked => EventKind::DeleteAsked,
            Self::Removed => EventKind::Removed,
            Self::Contradiction { .. } => EventKind::Contradiction,
        }
    }
}

/// How an atom is to be stopped: terminate, wait for the grace, kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// How long it may take to end by itself after it was asked to.
    #[serde(with = "crate::text::duration")]
    pub grace: Duration,
    /// Kill at once, without asking.
    pub force: bool,
    /// Who wants it to end.
    pub cause: StopCause,
}

/// Who wants an atom to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// A request: such a stop is never retried.
    Requested,
    /// The atom's own deadline has passed.
    Deadline,
}

named!(StopCause, "stop cause", {
    Requested => "requested",
    Deadline => "deadline",
});

/// A set of [`EventKind`]s, in the order of the transition table's columns.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSet(u16);

impl EventSet {
    /// The empty set.
    pub const fn none() -> Self {
        Self(0)
    }

    /// The set with `kind` added.
    #[must_use]
    pub const fn with(self, kind: EventKind) -> Self {
        Self(self.0 | 1 << kind as u16)
    }

    /// Whether `kind` is in the set.
    pub const fn contains(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds in the set.
    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.iter().copied().filter(move |kind| self.contains(*kind))
    }
}

impl fmt::Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// `started, withdrawn`, or `none`.
impl fmt::Display for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (position, kind) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(kind.as_str())?;
        }
        Ok(())
    }
}
