//! The process driver: atoms that are processes of this machine.
//!
//! ```text
//!  engine ──Command──▶ ProcessDriver ──mailbox──▶ Monitor (one thread, one epoll)
//!                        │ prepare                  │ spawn · stop · adopt · exit
//!                        ▼                          ▼
//!                 atoms/<id>/  out err (FIFOs)   Observation ──▶ engine
//!                              prepared             │
//!                              log.N  ◀─────────────┘ pump
//! ```
//!
//! The monitor knows nothing of engines or journals: it takes serialisable
//! commands and gives serialisable observations.

mod adopt;
mod clearing;
mod context;
mod dir;
mod driver;
mod endings;
mod exit;
mod fork;
#[cfg(feature = "test-util")]
pub(crate) mod fuzzing;
mod identity;
mod keeper;
mod leftovers;
mod log;
mod mailbox;
mod marker;
mod monitor;
mod program;
mod reaper;
mod signal;
mod spares;
mod spawn;
mod start;
mod stop;
mod stops;
mod sys;
mod timers;
mod tree;
mod watched;

pub use driver::{
    DEFAULT_KEEPER_PATIENCE, FDS_PER_ATOM, FDS_PER_DRIVER, FDS_PER_RUNNING_ATOM, OnDeath,
    ProcessDriver, ProcessOptions, Supervision,
};
pub(crate) use keeper::{can_serve, serve_if_asked};
pub use spawn::{DEFAULT_PATH, MARKER};
