//! What an engine does for those it serves, whoever they are: its own handles, or clients of its socket.

#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::time::Duration;

use super::wait::Waiting;
use super::{
    CreateRequest, Error, Events, GetRequest, ListRequest, Logs, LogsRequest, StopRequest,
    Subscription,
};
use crate::atom::{Atom, AtomId};
use crate::journal::{Compacted, Retention, Stats, Verified};
use crate::lane::Lane;

/// An engine without its driver's type. Nothing here waits for an atom: what has to is a [`Waiting`].
pub(crate) trait Served: Send + Sync {
    /// Where is read from disk for those who must not block.
    fn reads(&self) -> &Lane;

    fn get(&self, request: &GetRequest) -> Result<Atom, Error>;

    fn find(&self, text: &str) -> Result<Atom, Error>;

    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error>;

    /// Returns when the atom is journaled and was sent on its way; with a reader that was there before it started.
    fn create(
        &self,
        request: CreateRequest,
        followed: bool,
    ) -> Result<(Waiting<Atom>, Option<Logs>), Error>;

    /// The same for several, with one commit.
    fn create_many(&self, requests: Vec<CreateRequest>) -> Waiting<Vec<Result<Atom, Error>>>;

    /// Returns when the wish is journaled and was passed on.
    fn stop(&self, request: &StopRequest) -> Result<Waiting<Atom>, Error>;

    /// The same for several, with one commit.
    fn stop_many(
        &self,
        requests: &[StopRequest],
    ) -> Result<Waiting<Vec<Result<Atom, Error>>>, Error>;

    /// The same as for one that is to stop, for an atom that has.
    fn delete(&self, id: AtomId) -> Result<Waiting<()>, Error>;

    fn wait(&self, id: AtomId) -> Waiting<Atom>;

    /// The error of who has waited in vain for one of these atoms.
    fn timed_out(&self, ids: &[AtomId], waited: Duration) -> Error;

    fn wait_any(&self, ids: Vec<AtomId>) -> Waiting<Atom>;

    fn wait_all(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>>;

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error>;

    /// Becomes ready when the atom runs, or has stopped.
    #[cfg(target_os = "linux")]
    fn stdin(&self, id: AtomId) -> Result<Waiting<PathBuf>, Error>;

    /// For one of which that is so.
    #[cfg(target_os = "linux")]
    fn close_stdin(&self, id: AtomId) -> Result<(), Error>;

    fn events(&self, from: u64) -> Result<Events, Error>;

    fn subscribe(&self, from: u64) -> Subscription;

    fn durable_seq(&self) -> u64;

    fn stats(&self) -> Result<Stats, Error>;

    fn verify(&self) -> Result<Verified, Error>;

    fn compact(&self, retention: &Retention) -> Result<Compacted, Error>;
}
