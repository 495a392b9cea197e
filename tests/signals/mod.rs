//! What becomes of signals in this process, and so in what it starts.

use rustix::process::Signal;

/// Whether a signal is ignored.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    ignored & (1 << (signal.as_raw() - 1)) != 0
}
