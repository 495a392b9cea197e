#![doc = "tmp"]
pub mod atom;
pub mod driver;
pub mod engine;
pub mod journal;
pub mod lifecycle;
pub mod log;
mod store;
mod text;
mod time;
pub use atom::{Atom, AtomId, AtomSpec, LABEL};
#[cfg(target_os = "linux")]
pub use engine::ProcessEngine;
pub use engine::{Engine, EngineOptions, Error, JournaledEngine, OnClose};
pub use lifecycle::{Outcome, State};
pub use time::Timestamp;

/// How much an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// What is acknowledged is on disk: it survives a power cut. The default.
    #[default]
    Sync,
    /// What is acknowledged is written, and on disk at the latest after this
    /// time: it survives the end of the host, and a power cut takes the last events.
    Batched(std::time::Duration),
    /// Nothing is written. For tests.
    Memory,
}

/// What the fuzz targets in `fuzz/` call. Not part of the API.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::journal::fuzzing::{frame, lifecycle};
}
