//! Drivers: what touches the outside world.
//!
//! Engine and driver pass plain, serialisable values: [`Command`]s down,
//! [`Observation`]s up. A driver knows nothing of the journal; the engine
//! decides what an observation means, and journals it. So the part that
//! watches can live on a thread of the host or in a helper process.

mod kernel_file;
#[cfg(any(test, feature = "test-util"))]
pub mod memory;
mod message;
#[cfg(target_os = "linux")]
pub mod process;
mod surroundings;

pub use message::{Command, Handle, Observation, Order, Remembered, Sighting};
pub use surroundings::Surroundings;

use std::borrow::Cow;
use std::path::PathBuf;

use crate::atom::{Atom, AtomId, AtomSpec};
use crate::log::{LogQuery, LogSource};

/// What a driver calls for each observation; from any of its threads, in the order in which things happened.
///
/// It does not block and does not call back into the driver.
pub type Observer = Box<dyn Fn(Observation) + Send + Sync>;

/// What touches the outside world: starts, watches, stops and removes what atoms stand for.
///
/// A new back end is a new driver that passes [`conformance`](crate::engine::conformance).
pub trait Driver: Send + Sync + 'static {
    /// The name of the engine that works with this driver: `process`, for one. It becomes a label of every atom.
    fn name(&self) -> &'static str;

    /// Begins to work and to observe. Called once, before everything else.
    ///
    /// # Errors
    ///
    /// When threads or descriptors are not to be had; nothing was begun.
    fn start(&self, observer: Observer) -> Result<(), DriverError>;

    /// Fills in what the spec leaves to who asks, at the moment of asking (the working directory, for one).
    /// `around` is what there is around who asks; `None` when that is this host.
    ///
    /// # Errors
    ///
    /// When the host's own surroundings cannot be read.
    fn complete(
        &self,
        spec: AtomSpec,
        around: Option<&Surroundings>,
    ) -> Result<AtomSpec, DriverError> {
        let _ = around;
        Ok(spec)
    }

    /// Sets aside everything that the atom will need and that could run out: descriptors, files, room.
    ///
    /// `around` is what the atom has of who asks for it beside its spec; `None` when that is this host.
    ///
    /// Nothing is started. Called before the atom is journaled, so that a
    /// failure here means that nothing was created. Is undone by
    /// [`Command::Remove`] or [`Driver::release`].
    ///
    /// # Errors
    ///
    /// When it cannot be had; nothing is left behind then.
    fn prepare(
        &self,
        atom: AtomId,
        spec: &AtomSpec,
        around: Option<&Surroundings>,
    ) -> Result<(), DriverError>;

    /// Gives back what [`Driver::prepare`] set aside for an atom that was not journaled after all.
    fn release(&self, atom: AtomId);

    /// The atoms for which something was set aside or left, in this life of the host or an earlier one.
    ///
    /// The engine removes what the journal does not know: a host that died in
    /// the midst of a create leaves such things. A driver that keeps nothing need not say anything.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    fn residue(&self) -> Result<Vec<AtomId>, DriverError> {
        Ok(Vec::new())
    }

    /// Takes a command. It is carried out later; what comes of it is observed.
    ///
    /// # Errors
    ///
    /// When the driver has closed.
    fn send(&self, command: Command) -> Result<(), DriverError>;

    /// Opens what an atom printed.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    fn logs(&self, atom: &Atom, query: &LogQuery) -> Result<Box<dyn LogSource>, DriverError>;

    /// The FIFO that an atom with [`AtomSpec::stdin_pipe`] reads as its standard input. It is opened for each write, without
    /// blocking, and closed again: who holds it open for the atom is the driver, until
    /// [`Command::CloseStdin`], after which it is not to be found.
    ///
    /// # Errors
    ///
    /// When the driver knows nothing of the kind.
    fn stdin(&self, atom: AtomId) -> Result<PathBuf, DriverError> {
        let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
        let what = format!("engine {} cannot write to the standard input of {atom}", self.name());
        Err(DriverError::Io { what, source })
    }

    /// Ends the driver's own work: its threads and descriptors. Idempotent.
    ///
    /// Atoms that still run are left alone: stopping them is the engine's decision, and was carried out before.
    fn close(&self);
}

/// Why a driver could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// Descriptors, processes, memory or disk space have run out.
    #[error("{what} ran out{}: {hint}", source.as_ref().map(|e| format!(" ({e})")).unwrap_or_default())]
    Exhausted {
        /// What ran out.
        what: Cow<'static, str>,
        /// What to do.
        hint: String,
        /// What the system said.
        source: Option<std::io::Error>,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on what.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The driver has closed.
    #[error("the driver has closed")]
    Closed,
}
