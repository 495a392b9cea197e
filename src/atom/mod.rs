//! Atoms: supervised units, what they are asked to be and what is known of them.

pub(crate) mod bytes;
mod id;
mod json;
mod known;
mod leftovers;
mod limits;
mod spec;
mod stdin;
mod usage;

#[cfg(target_os = "linux")]
pub(crate) use bytes::Bytes;
#[cfg(feature = "cli")]
pub(crate) use bytes::HIDDEN;
pub use id::{AtomId, BadAtomId};
pub(crate) use known::Known;
pub use known::{Atom, PlannedRetry};
pub use leftovers::{LeftBehind, LeftProcess, Leftovers, MAX_NAMED_LEFTOVERS};
pub use limits::{Limits, Resource};
pub use spec::{
    AtomSpec, DEFAULT_GRACE, DEFAULT_LOG_MAX, MAX_NAME_BYTES, MAX_SPEC_BYTES, MIN_LOG_MAX,
    SpecError,
};
use stdin::Stdin;
pub use usage::Usage;

/// The label that every engine puts on every atom; its value is the engine's name.
pub const LABEL: &str = "cloud.caesium";
