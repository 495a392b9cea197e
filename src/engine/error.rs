//! What can go wrong with a request.

use std::path::PathBuf;
use std::time::Duration;

use crate::atom::{AtomId, SpecError};
use crate::driver::DriverError;
use crate::journal::{JournalError, Unfit};
use crate::lifecycle::{Rejection, State};

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No atom has this id, prefix or name.
    #[error("no atom {0:?}{hint}: `caesium ps -a` lists what there is", hint = too_short(.0))]
    NotFound(String),
    /// More than one atom has an id that begins like this.
    #[error("{text:?} is the beginning of {count} ids: {}{}", listed(ids), if *count > ids.len() { ", …" } else { "" })]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// The first ids that begin with it; at most ten.
        ids: Vec<AtomId>,
        /// How many there are.
        count: usize,
    },
    /// The spec cannot be run as it is. Nothing was created.
    #[error("the spec's {0}")]
    InvalidSpec(#[from] SpecError),
    /// Another atom has the name. Nothing was created.
    #[error(
        "the name {name:?} is in use by atom {by}: delete that atom first, or choose another name"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        by: AtomId,
    },
    /// Another request was made with the key. Nothing was created.
    #[error(
        "the key {key:?} belongs to another request, of which atom {by} was made: use a key for one request only"
    )]
    KeyInUse {
        /// The key.
        key: String,
        /// The atom that was created with it.
        by: AtomId,
    },
    /// Another request was made with the id. Nothing was created.
    #[error("the id {0} belongs to an atom of another request: use an id for one request only")]
    IdInUse(AtomId),
    /// The atom's state does not allow it. Nothing was changed.
    #[error("atom {id} is {}: {rejection}", rejection.state)]
    Rejected {
        /// Which atom.
        id: AtomId,
        /// The state, the event, and what would have been allowed.
        rejection: Rejection,
    },
    /// The time to wait is over; the atom goes on.
    #[error("atom {id} is still {state} after {}", humantime::format_duration(*waited))]
    TimedOut {
        /// Which atom.
        id: AtomId,
        /// Its state now.
        state: State,
        /// How long was waited.
        waited: Duration,
    },
    /// Another process has the store open.
    #[error("store {} is held by {holder}: try again when it has ended", path.display())]
    StoreLocked {
        /// The store.
        path: PathBuf,
        /// Who holds it, as far as it said.
        holder: String,
    },
    /// The directory is not one that a store may live in. It was not touched.
    #[error("{} cannot be a store: {problem}", path.display())]
    StoreRefused {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The event may or may not be journaled: see [`JournalError::InDoubt`].
    #[error("{0}")]
    InDoubt(JournalError),
    /// The journal failed.
    #[error(transparent)]
    Journal(JournalError),
    /// The driver failed.
    #[error(transparent)]
    Driver(DriverError),
    /// The request has too many bytes for one that is carried out by another process. Nothing was done.
    #[error("a request to another process may have at most {limit} bytes: ask for less at a time")]
    RequestTooLarge {
        /// The most bytes it may have.
        limit: usize,
    },
    /// The first of no atoms cannot be waited for.
    #[error("nothing to wait for: name at least one atom")]
    NothingToWaitFor,
    /// The atom's standard input is no pipe.
    #[error(
        "atom {0} has no pipe to write to: it has to be created with one (`run -i`, AtomSpec::stdin_pipe)"
    )]
    NoStdinPipe(AtomId),
    /// The pipe to the atom is full: it does not read, or not as fast. Nothing of this was written.
    #[error("the pipe to atom {0} is full: write the rest when it has read some")]
    StdinFull(AtomId),
    /// Nobody reads the pipe to the atom any more: it has closed its standard input, or ended; or that was
    /// [ended](crate::Engine::close_stdin). Nothing of this was written.
    #[error("the standard input of atom {0} is closed")]
    StdinClosed(AtomId),
    /// The engine was closed.
    #[error("the engine is closed")]
    Closed,
    /// The process that served the store ended, or closed it, before it had answered. What was to be changed may or
    /// may not have been: asking again will tell, by whoever has the store then.
    #[error("the process that had {} open has ended: try again", path.display())]
    HolderGone {
        /// The store.
        path: PathBuf,
    },
    /// No process has the store open, or the one that has serves nobody.
    #[error("no process serves {}: it is not open, or is not shared", path.display())]
    NotServed {
        /// The store.
        path: PathBuf,
    },
    /// The process that has the store open serves as many others, or has as many questions of ours to answer, as it may.
    #[error("the process that has {} open does not answer, or has too much to do for others: try again later", path.display())]
    HolderBusy {
        /// The store.
        path: PathBuf,
    },
    /// The process that has the store open is of another version, and there is no protocol that both speak.
    #[error(
        "the process that has {} open speaks control protocols {oldest} to {newest}, this program {}: use the same version of caesium, or try again when it has ended",
        path.display(), crate::control::PROTOCOL
    )]
    Incompatible {
        /// The store.
        path: PathBuf,
        /// The oldest protocol that it speaks.
        oldest: u16,
        /// The newest.
        newest: u16,
    },
}

/// Why a beginning of an id finds nothing whatever there is.
fn too_short(text: &str) -> &'static str {
    let hexadecimal = text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if hexadecimal && text.len() < super::find::MIN_PREFIX {
        " (the beginning of an id needs at least 4 characters)"
    } else {
        ""
    }
}

fn listed(ids: &[AtomId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Closed => Self::Closed,
            DriverError::Exhausted { .. } | DriverError::Io { .. } => Self::Driver(error),
        }
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Unfit(Unfit::NoSuchAtom(id)) => Self::NotFound(id.to_string()),
            JournalError::Unfit(Unfit::NameInUse { name, by }) => Self::NameInUse { name, by },
            JournalError::Unfit(Unfit::KeyInUse { key, by }) => Self::KeyInUse { key, by },
            JournalError::Unfit(Unfit::IdInUse(id)) => Self::IdInUse(id),
            JournalError::InDoubt { .. } => Self::InDoubt(error),
            JournalError::Closed => Self::Closed,
            JournalError::Unfit(Unfit::Rejected(_))
            | JournalError::Io { .. }
            | JournalError::NoSpace { .. }
            | JournalError::TooLarge { .. }
            | JournalError::Damaged { .. }
            | JournalError::Newer { .. }
            | JournalError::HistoryDamaged { .. }
            | JournalError::Poisoned { .. }
            | JournalError::Compacted { .. }
            | JournalError::Lagged { .. }
            | JournalError::Inconsistent { .. } => Self::Journal(error),
        }
    }
}
