//! Engines: what hosts call.

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod error;
mod find;
mod journaled;
mod logs;
mod options;
#[cfg(target_os = "linux")]
mod process;
mod request;
mod steward;

pub use error::Error;
pub use journaled::JournaledEngine;
pub use logs::Logs;
use options::Conduct;
pub use options::{DEFAULT_LOCK_WAIT, DriverHome, EngineOptions, OnClose};
#[cfg(target_os = "linux")]
pub use process::ProcessEngine;
pub use request::{
    CreateRequest, DeleteRequest, GetRequest, ListRequest, LogsRequest, StopRequest, WaitRequest,
};

use crate::atom::Atom;

/// What hosts call: creates, watches, stops and deletes atoms.
///
/// Every method may be called from any thread. None returns before what it
/// says is durable, as far as the engine's [`Durability`](crate::Durability) goes.
pub trait Engine: Send + Sync {
    /// One atom, as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    fn get(&self, request: &GetRequest) -> Result<Atom, Error>;

    /// The atoms that fit, in the order of their creation.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error>;

    /// Creates an atom and starts it. Returns when it runs, or has stopped:
    /// an atom whose program cannot be executed is `Ok`, with
    /// [`Outcome::StartupFailure`](crate::Outcome::StartupFailure).
    ///
    /// # Errors
    ///
    /// Nothing was created: the spec is invalid, the name is taken, descriptors or disk space ran out,
    /// the journal failed. Only [`Error::InDoubt`] leaves open whether it was.
    fn create(&self, request: CreateRequest) -> Result<Atom, Error>;

    /// Waits until the atom has stopped or turned invalid; returns at once when it has.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::TimedOut`].
    fn wait(&self, request: &WaitRequest) -> Result<Atom, Error>;

    /// Asks the atom to end, and waits until nothing of it runs. Succeeds for one that has stopped, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Rejected`] for one that is being deleted or is invalid.
    fn stop(&self, request: &StopRequest) -> Result<Atom, Error>;

    /// Deletes the atom with its log; its events stay in the journal.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Rejected`] for one that has not stopped, unless forced.
    fn delete(&self, request: &DeleteRequest) -> Result<(), Error>;

    /// What the atom printed, from the oldest that is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Driver`] when the log cannot be read.
    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error>;

    /// Finds an atom by what a person types: its name, its id, or a prefix of the id of at least four characters.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Ambiguous`].
    fn find(&self, text: &str) -> Result<Atom, Error>;
}
