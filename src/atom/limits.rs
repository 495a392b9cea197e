//! What an atom may use.

use serde::{Deserialize, Serialize};

use crate::text::named;

/// Limits on what an atom may use. All are off until set; one that is asked
/// for and cannot be set is a `startup_failure` with reason `limit_unsupported`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory of all its processes together.
    pub memory: Option<u64>,
    /// Processes and threads at one time.
    pub pids: Option<u64>,
    /// CPUs' worth of time: 0.5 is half of one.
    pub cpus: Option<f64>,
    /// Limits of setrlimit(2), soft and hard alike.
    pub rlimits: Vec<(Resource, u64)>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A resource of setrlimit(2), named as in ulimit and systemd without the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Address space, in bytes.
    As,
    /// Size of a core dump, in bytes.
    Core,
    /// CPU time, in seconds.
    Cpu,
    /// Data segment, in bytes.
    Data,
    /// Size of a file it writes, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Ceiling of the nice value.
    Nice,
    /// Open descriptors.
    Nofile,
    /// Processes of its user.
    Nproc,
    /// Real-time priority.
    Rtprio,
    /// Real-time CPU time without a blocking call, in microseconds.
    Rttime,
    /// Pending signals.
    Sigpending,
    /// Stack, in bytes.
    Stack,
}

named!(Resource, "resource limit", {
    As => "as",
    Core => "core",
    Cpu => "cpu",
    Data => "data",
    Fsize => "fsize",
    Memlock => "memlock",
    Msgqueue => "msgqueue",
    Nice => "nice",
    Nofile => "nofile",
    Nproc => "nproc",
    Rtprio => "rtprio",
    Rttime => "rttime",
    Sigpending => "sigpending",
    Stack => "stack",
});
