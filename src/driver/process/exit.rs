//! How a process ended, from whoever knows: the kernel's report to its parent,
//! to the holder of its pidfd, or on its zombie. Never a guess.

use super::identity::{ProcStat, may_inspect};
use super::marker::Marker;
use super::signal::Leader;
use super::sys::{self, ExitInfo};
use crate::atom::Usage;
use crate::crash;
use crate::lifecycle::WaitStatus;
use crate::time;

/// What can be learnt of an ending now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// How it ended.
    Known(WaitStatus, Option<Usage>),
    /// It will be known once its parent has reaped it; the pidfd tells.
    Pending,
    /// Nobody tells.
    Unknowable,
}

impl Leader {
    /// Learns how it ended, and reaps it if it is a child of this process. To be asked once it has ended.
    ///
    /// How it ended is written down before it is reaped: if we are killed then, whoever comes next finds one or the other.
    pub(super) fn ended(&self, marker: Marker<'_>) -> Ended {
        match sys::peek(self.pidfd()) {
            Ok(Some((status, usage))) => {
                marker.record_end(time::now(), status, usage);
                crash::point("keeper/has-written-the-status");
                // It is a child that has ended: there is nothing to go wrong.
                let _ = sys::reap(self.pidfd());
                return Ended::Known(status, Some(usage));
            }
            // A tracer of it has to let go first.
            Ok(None) => return Ended::Pending,
            // Not a child of ours; or SIGCHLD is ignored here; or the host reaped it.
            Err(_) => {}
        }
        if let Some(ended) = self.told_by_pidfd() {
            return ended;
        }
        if let Some(status) = self.told_by_zombie() {
            return Ended::Known(status, None);
        }
        // It may have been reaped between the two questions.
        if let Some(ended) = self.told_by_pidfd() {
            return ended;
        }
        if sys::exit_info(self.pidfd()) == ExitInfo::NotYet && self.stat().is_some() {
            return Ended::Pending;
        }
        Ended::Unknowable
    }

    fn told_by_pidfd(&self) -> Option<Ended> {
        match sys::exit_info(self.pidfd()) {
            ExitInfo::Status(status) => Some(Ended::Known(status, None)),
            ExitInfo::NotYet | ExitInfo::Unsupported => None,
        }
    }

    fn told_by_zombie(&self) -> Option<WaitStatus> {
        let stat = self.stat()?;
        // Asked before the status is read again: a link that can be read says that the status is a true one.
        if !stat.is_zombie() || !may_inspect(self.identity().pid) {
            return None;
        }
        WaitStatus::from_raw(self.stat()?.exit_code)
    }

    /// What `/proc` says of it, as long as the pid is still its own.
    pub(super) fn stat(&self) -> Option<ProcStat> {
        let identity = self.identity();
        ProcStat::read(identity.pid).ok().filter(|stat| stat.start_time == identity.start_time)
    }
}
