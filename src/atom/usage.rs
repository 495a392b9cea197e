//! What an atom used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an atom's leader and the children it waited for used, as far as the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// CPU time in user mode.
    #[serde(with = "crate::text::duration")]
    pub user: Duration,
    /// CPU time in the kernel.
    #[serde(with = "crate::text::duration")]
    pub system: Duration,
    /// The largest resident set of one process, in bytes.
    pub max_rss: u64,
    /// Bytes read from storage, where a cgroup tells.
    pub read_bytes: Option<u64>,
    /// Bytes written to storage, where a cgroup tells.
    pub written_bytes: Option<u64>,
    /// The most memory at one time of all processes together, in bytes, where a cgroup tells.
    pub peak_memory: Option<u64>,
    /// How many processes had to be killed after the leader had gone.
    pub killed_leftovers: u32,
}
