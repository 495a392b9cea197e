//! Supervised processes as a library: what SQLite is to storage.
//!
//! A host links this crate, opens a directory and creates *atoms*: programs
//! that are started, watched, stopped and remembered. What happens to an atom
//! is an event in a journal on disk, and is durable before anybody is told.
//! Opening a store always replays and reconciles, however the last host ended.
//!
//! ```
//! use caesium::{AtomSpec, Engine, Outcome, ProcessEngine};
//!
//! fn main() -> Result<(), caesium::Error> {
//!     caesium::init();
//! #   let directory = tempfile::tempdir().unwrap();
//! #   std::env::set_current_dir(&directory).unwrap();
//!     let engine = ProcessEngine::open("state")?;
//!     let atom = engine.create(AtomSpec::command("sh").args(["-c", "echo hello"]).into())?;
//!     let atom = engine.wait(&atom.id().into())?;
//!     assert_eq!(atom.result(), Some(Outcome::Success));
//! #   assert_eq!(engine.logs(&atom.id().into())?.read_to_end()?, b"hello\n");
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//!
//! * The [guide], in the order in which one needs it; [coming from](guide::coming_from) `tokio::process`, supervisord, pueue
//!   and systemd-run; and [what it cannot do](guide::limits).
//! * [`Engine`]: what hosts call. [`ProcessEngine`] is the one for processes of
//!   this machine, [`JournaledEngine`] the one implementation behind every driver.
//! * [`AtomSpec`]: what is asked of an atom. [`Atom`]: what is known of it.
//! * [`lifecycle`]: [`State`]s, events and [`Outcome`]s, and the one table that
//!   decides between them. Pure.
//! * [`journal`]: what remembers. [`driver`]: what touches the outside world, and
//!   what to implement for another back end.
//!
//! # What is promised
//!
//! What was acknowledged is on disk ([`Durability`] says how firmly). No atom is
//! started twice. An ending that nobody saw is [`Outcome::Unknown`], never made up.
//! Living atoms of a host that was killed are adopted by the next one that opens
//! the store. See the README for what is not there yet.
//!
//! # Features
//!
//! * `cli` (default): the `caesium` command. Without it, the library builds no
//!   command-line dependency.
//! * `test-util`: the conformance suite for drivers, and a driver in memory.

pub mod atom;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[doc(hidden)]
pub mod cli;
#[cfg(target_os = "linux")]
mod control;
mod crash;
pub mod driver;
mod durability;
pub mod engine;
#[cfg(doc)]
pub mod guide;
mod init;
pub mod journal;
mod lane;
pub mod lifecycle;
pub mod log;
#[cfg(target_os = "linux")]
mod socket;
mod store;
mod text;
mod time;
mod trace;
mod wakers;

pub use atom::{Atom, AtomId, AtomSpec, LABEL, Leftovers};
#[cfg(target_os = "linux")]
pub use control::{RemoteEngine, connect_or_open};
pub use durability::Durability;
pub use engine::{
    CreateRequest, DeleteRequest, Engine, EngineOptions, Error, EventStream, Events, GetRequest,
    JournaledEngine, LabelSelector, ListRequest, LogStream, Logs, LogsRequest, OnClose,
    StdinRequest, StopRequest, Subscription, WaitManyRequest, WaitRequest, Waiting,
};
#[cfg(target_os = "linux")]
pub use engine::{ProcessEngine, StdinWriter};
pub use init::init;
pub use journal::Retention;
pub use lifecycle::{OnInvalid, Outcome, Reason, RetryPolicy, State};
pub use log::{LogChunk, LogItem, Stream};
pub use time::{BadTimestamp, Clock, Timestamp};

/// What the fuzz targets in `fuzz/` and the tests of crashes call. Not part of the API.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fuzzing {
    #[cfg(target_os = "linux")]
    pub use crate::control::fuzzing::{control, control_seeds};
    pub use crate::crash::POINTS;
    #[cfg(target_os = "linux")]
    pub use crate::driver::process::fuzzing::{keeper, keeper_seeds};
    pub use crate::journal::fuzzing::{frame, lifecycle, salvage, segment, store, store_seeds};
}
