//! What the kernel counted for an atom: OOM kills, and what it used.

use std::path::Path;
use std::time::Duration;

use super::files;
use super::group::{Group, Node};
use super::hierarchy::{Controller, Kind};
use crate::driver::kernel_file;
use crate::lifecycle::WaitStatus;

/// What the OOM killer did in an atom's cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::driver::process) struct Oom {
    /// How many of its processes were killed, the leader included; `None` without a memory controller.
    pub(in crate::driver::process) kills: Option<u32>,
}

/// What all processes of an atom used together, as far as the kernel counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::driver::process) struct GroupUsage {
    /// CPU time in user mode.
    pub(in crate::driver::process) user: Option<Duration>,
    /// CPU time in the kernel.
    pub(in crate::driver::process) system: Option<Duration>,
    /// The most memory at one time, page cache included, in bytes.
    pub(in crate::driver::process) peak_memory: Option<u64>,
    /// Bytes read from storage.
    pub(in crate::driver::process) read_bytes: Option<u64>,
    /// Bytes written to storage.
    pub(in crate::driver::process) written_bytes: Option<u64>,
}

/// Whether the OOM killer ended the leader: it died of a SIGKILL that we did not
/// send, and its own cgroup has counted an OOM kill.
///
/// The counter is to be read after the leader has ended and before the cgroup goes:
/// the kernel counts a victim before it signals it.
pub(in crate::driver::process) fn leader_oom_killed(
    status: WaitStatus,
    kill_sent: bool,
    oom: Oom,
) -> bool {
    // The counter has no names. A child that was its victim, and a SIGKILL to the
    // leader from elsewhere after that, look the same: see docs/decisions/0005.
    let killed = match status {
        WaitStatus::Signaled { signal, .. } => i32::from(signal) == libc::SIGKILL,
        WaitStatus::Exited { .. } => false,
    };
    killed && !kill_sent && oom.kills.is_some_and(|kills| kills > 0)
}

impl Group {
    /// What the OOM killer did in it up to now.
    pub(in crate::driver::process) fn oom(&self) -> Oom {
        Oom { kills: self.nodes().iter().find_map(oom_kills) }
    }

    /// What was used in it up to now.
    pub(in crate::driver::process) fn usage(&self) -> GroupUsage {
        let mut usage = GroupUsage::default();
        for node in self.nodes() {
            match &node.hierarchy.kind {
                Kind::V2 { .. } => unified(&node.dir, &mut usage),
                Kind::V1(controllers) => {
                    for controller in controllers {
                        legacy(*controller, &node.dir, &mut usage);
                    }
                }
            }
        }
        usage
    }
}

fn oom_kills(node: &Node) -> Option<u32> {
    let read = |dir: &Path, file: &str| {
        files::keyed(&kernel_file::read_text(dir.join(file)).ok()?, "oom_kill")
    };
    let kills = match &node.hierarchy.kind {
        // With those of nested ones.
        Kind::V2 { .. } => read(&node.dir, "memory.events")?,
        Kind::V1(controllers) if controllers.contains(&Controller::Memory) => {
            let dirs = files::nested(&node.dir).ok()?;
            let each = dirs.iter().filter_map(|dir| read(dir, "memory.oom_control"));
            each.reduce(u64::saturating_add)?
        }
        Kind::V1(_) => return None,
    };
    Some(u32::try_from(kills).unwrap_or(u32::MAX))
}

fn unified(dir: &Path, usage: &mut GroupUsage) {
    if let Ok(text) = kernel_file::read_text(dir.join("cpu.stat")) {
        let time = |key| files::keyed(&text, key).map(Duration::from_micros);
        (usage.user, usage.system) = (time("user_usec"), time("system_usec"));
    }
    if let Some(peak) = files::number(&dir.join("memory.peak")) {
        usage.peak_memory = Some(peak);
    }
    if let Ok(text) = kernel_file::read_text(dir.join("io.stat")) {
        let sum = |key: &str| {
            let fields = text.split_ascii_whitespace();
            fields.filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok()).sum()
        };
        usage.read_bytes = Some(sum("rbytes="));
        usage.written_bytes = Some(sum("wbytes="));
    }
}

fn legacy(controller: Controller, dir: &Path, usage: &mut GroupUsage) {
    match controller {
        Controller::Cpuacct => {
            let time = |file| files::number(&dir.join(file)).map(Duration::from_nanos);
            usage.user = time("cpuacct.usage_user").or(usage.user);
            usage.system = time("cpuacct.usage_sys").or(usage.system);
        }
        Controller::Memory => {
            usage.peak_memory = files::number(&dir.join("memory.max_usage_in_bytes"));
        }
        Controller::Io => {
            let file = dir.join("blkio.throttle.io_service_bytes_recursive");
            let Ok(text) = kernel_file::read_text(file) else { return };
            let sum = |kind: &str| {
                let of_device = |line: &str| -> Option<u64> {
                    let (_, rest) = line.split_once(' ')?;
                    rest.strip_prefix(kind)?.trim().parse().ok()
                };
                text.lines().filter_map(of_device).sum()
            };
            usage.read_bytes = Some(sum("Read "));
            usage.written_bytes = Some(sum("Write "));
        }
        Controller::Pids | Controller::Cpu | Controller::Freezer => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_was_the_victim_only_with_all_the_evidence() {
        let signaled = |signal| WaitStatus::Signaled { signal, core_dumped: false };
        let kills = |kills| Oom { kills };
        assert!(leader_oom_killed(signaled(9), false, kills(Some(1))));
        assert!(!leader_oom_killed(signaled(9), true, kills(Some(1))));
        assert!(!leader_oom_killed(signaled(9), false, kills(Some(0))));
        assert!(!leader_oom_killed(signaled(9), false, kills(None)));
        assert!(!leader_oom_killed(signaled(15), false, kills(Some(1))));
        let exited = WaitStatus::Exited { code: 137 };
        assert!(!leader_oom_killed(exited, false, kills(Some(1))));
    }
}
