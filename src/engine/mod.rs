//! Engines: what hosts call.

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod core;
mod create;
mod error;
mod events;
mod feed;
mod find;
mod journaled;
mod list;
mod logs;
mod options;
#[cfg(target_os = "linux")]
mod process;
mod request;
mod select;
mod served;
#[cfg(target_os = "linux")]
mod sigpipe;
#[cfg(target_os = "linux")]
mod stdin;
mod steward;
mod wait;

pub use error::Error;
pub use events::{EventStream, Events, Subscription};
pub(crate) use feed::{Feed, Follow, Next};
pub use journaled::JournaledEngine;
pub use logs::{LogStream, Logs};
use options::Conduct;
pub use options::{DEFAULT_LOCK_WAIT, DriverHome, EngineOptions, OnClose};
#[cfg(target_os = "linux")]
pub use process::ProcessEngine;
pub use request::{
    CreateRequest, DeleteRequest, GetRequest, ListRequest, LogsRequest, StdinRequest, StopRequest,
    WaitManyRequest, WaitRequest,
};
pub use select::{BadSelector, LabelSelector};
pub(crate) use served::Served;
#[cfg(target_os = "linux")]
pub use stdin::StdinWriter;
pub use wait::Waiting;

use crate::atom::{Atom, AtomId};
use crate::journal::{Compacted, Retention, Stats, Verified};

/// What hosts call: creates, watches, stops and deletes atoms, and reads their journal.
///
/// It is one trait, usable as `dyn Engine`, so that a host need not know whether it
/// has the store open itself or is served by the process that has.
///
/// Every method may be called from any thread. None returns before what it
/// says is durable, as far as the engine's [`Durability`](crate::Durability) goes. They block, but for those
/// that say otherwise: an executor's thread should call them where it may be blocked, and wait, follow and
/// subscribe by [`wait_async`](Self::wait_async), [`Logs::into_stream`] and [`Subscription::into_stream`].
pub trait Engine: Send + Sync {
    /// One atom, as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    fn get(&self, request: &GetRequest) -> Result<Atom, Error>;

    /// The atoms that fit, or a page of them, in the order of their creation.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error>;

    /// Creates an atom and starts it. Returns when it runs, or has stopped:
    /// an atom whose program cannot be executed is `Ok`, with
    /// [`Outcome::StartupFailure`](crate::Outcome::StartupFailure).
    ///
    /// A request with a [key](crate::AtomSpec::key), or with an [id](CreateRequest::id) of the caller's, creates
    /// one atom however often it is made, at the same time or across crashes: every other time it gives the
    /// first atom, as it is by then, for as long as that exists. One that has [never
    /// started](crate::Reason::NeverStarted) stays so: delete it to have it run.
    ///
    /// # Errors
    ///
    /// Nothing was created: the spec is invalid, the name is taken, descriptors or disk space ran out,
    /// the journal failed; [`Error::KeyInUse`], [`Error::IdInUse`] for another spec than before.
    /// Only [`Error::InDoubt`] and [`Error::HolderGone`] leave open whether it was.
    fn create(&self, request: CreateRequest) -> Result<Atom, Error>;

    /// As [`create`](Self::create), with a reader that was there before the atom was started:
    /// it follows the output from its first byte, and nothing is dropped that it has not read,
    /// however small the log is.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create). A log that cannot be read is told by the reader.
    fn create_followed(&self, request: CreateRequest) -> Result<(Atom, Logs), Error>;

    /// Creates several atoms, with one commit for every 256 of them (fewer when descriptors are scarce), and
    /// returns when each of them runs, or has stopped. Gives what came of each, in the order of the requests: one
    /// that cannot be created leaves the others alone.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create) are in the list. [`Error::HolderGone`] when there is none.
    fn create_many(&self, requests: Vec<CreateRequest>) -> Result<Vec<Result<Atom, Error>>, Error>;

    /// Waits until the atom has stopped or turned invalid; returns at once when it has.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::TimedOut`].
    fn wait(&self, request: &WaitRequest) -> Result<Atom, Error>;

    /// Waits until one of several atoms has stopped or turned invalid: the first that does, or one that has.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToWaitFor`] without an atom; [`Error::NotFound`] when one of them does not exist, or is deleted
    /// meanwhile; [`Error::TimedOut`].
    fn wait_any(&self, request: &WaitManyRequest) -> Result<Atom, Error>;

    /// Waits until all of several atoms have stopped or turned invalid; gives them in the order of the request.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when one of them does not exist, or is deleted meanwhile; [`Error::TimedOut`] with
    /// the first that has not stopped.
    fn wait_all(&self, request: &WaitManyRequest) -> Result<Vec<Atom>, Error>;

    /// As [`wait`](Self::wait), for those who must not block: a future of any executor or none. It has no timeout, since
    /// executors have their own; dropping it ends the waiting.
    fn wait_async(&self, id: AtomId) -> Waiting<Atom>;

    /// As [`wait_any`](Self::wait_any), for those who must not block.
    fn wait_any_async(&self, ids: Vec<AtomId>) -> Waiting<Atom>;

    /// As [`wait_all`](Self::wait_all), for those who must not block.
    fn wait_all_async(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>>;

    /// Asks the atom to end, and waits until nothing of it runs. Succeeds for one that has stopped, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Rejected`] for one that is being deleted or is invalid.
    fn stop(&self, request: &StopRequest) -> Result<Atom, Error>;

    /// Asks several atoms to end, with one commit, and waits until nothing of them runs, so that their graces do
    /// not add up. Gives what came of each, in the order of the requests.
    ///
    /// # Errors
    ///
    /// Those of [`stop`](Self::stop) are in the list. When the journal failed there is none.
    fn stop_many(&self, requests: &[StopRequest]) -> Result<Vec<Result<Atom, Error>>, Error>;

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

    /// The way into the pipe that an atom with [`AtomSpec::stdin_pipe`](crate::AtomSpec::stdin_pipe) reads. Returns when
    /// it runs, or has stopped. Any number of writers may be there, in any process; dropping them ends nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NoStdinPipe`].
    #[cfg(target_os = "linux")]
    fn stdin(&self, request: &StdinRequest) -> Result<StdinWriter, Error>;

    /// Ends the standard input of an atom: it reads what was written, and then its end. Whoever writes from now
    /// on is told [`Error::StdinClosed`]. Ending what has ended succeeds.
    ///
    /// # Errors
    ///
    /// As [`stdin`](Self::stdin).
    #[cfg(target_os = "linux")]
    fn close_stdin(&self, request: &StdinRequest) -> Result<(), Error>;

    /// Finds an atom by what a person types: its name, its id, or a prefix of the id of at least four characters.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Ambiguous`].
    fn find(&self, text: &str) -> Result<Atom, Error>;

    /// All durable events from number `from` on, the oldest first.
    ///
    /// # Errors
    ///
    /// [`JournalError::Compacted`](crate::journal::JournalError::Compacted) when `from` is no longer kept,
    /// [`JournalError::HistoryDamaged`](crate::journal::JournalError::HistoryDamaged).
    fn events(&self, from: u64) -> Result<Events, Error>;

    /// Events from number `from` on: first those that are there, then those that come, without a gap.
    /// What stands in the way is told by the first that is read.
    fn subscribe(&self, from: u64) -> Subscription;

    /// The number of the newest durable event; 0 when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    fn durable_seq(&self) -> Result<u64, Error>;

    /// What the journal says of itself: sizes, times, and who lags behind.
    ///
    /// # Errors
    ///
    /// When the length of a segment cannot be read.
    fn stats(&self) -> Result<Stats, Error>;

    /// Reads the whole journal, checks every byte of it, and that folding the events gives the stored states.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    fn verify(&self) -> Result<Verified, Error>;

    /// Drops the events that a retention lets go. Atoms that exist stay as they are.
    ///
    /// # Errors
    ///
    /// What reading or writing gives; nothing was dropped then, unless it can be
    /// told only after reopening.
    fn compact(&self, retention: &Retention) -> Result<Compacted, Error>;

    /// Closes the engine, for all of its handles: living atoms are stopped or left, as `policy` says, and
    /// the journal is sealed. Whoever still waits is told [`Error::Closed`], and so is every later request
    /// that would change something. Closing what is closed succeeds, and waits until it is.
    ///
    /// # Errors
    ///
    /// When the journal could not be sealed. The engine is closed all the same.
    fn shutdown(&self, policy: OnClose) -> Result<(), Error>;
}
