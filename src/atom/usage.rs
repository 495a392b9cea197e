//! What an atom used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an atom used, as far as the kernel told: where it had a cgroup, all of its processes; else
/// its leader and the children that the leader waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// From the execution of its program to its end, by a clock that nobody sets. For an atom that an
    /// earlier host or keeper started: to a hundredth of a second.
    #[serde(with = "crate::text::duration")]
    pub wall: Duration,
    /// CPU time in user mode.
    #[serde(with = "crate::text::duration")]
    pub user: Duration,
    /// CPU time in the kernel.
    #[serde(with = "crate::text::duration")]
    pub system: Duration,
    /// The largest resident set of one process, in bytes; where its parent told. Linux counts in what the process that started it
    /// had at its most: it is never less than that of the keeper, or of a host that supervises by itself.
    pub max_rss: Option<u64>,
    /// Bytes read from storage, where a cgroup tells.
    pub read_bytes: Option<u64>,
    /// Bytes written to storage, where a cgroup tells.
    pub written_bytes: Option<u64>,
    /// The most memory at one time of all processes together, in bytes, where a cgroup tells.
    pub peak_memory: Option<u64>,
}
