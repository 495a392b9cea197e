//! Setting what an atom was limited to.

use std::io;
use std::path::Path;

use super::files;
use super::hierarchy::{Controller, Kind};
use crate::atom::Limits;
use crate::driver::process::spawn::Failure;
use crate::lifecycle::Reason;

/// The period over which CPU time is counted out, in microseconds.
const PERIOD: f64 = 100_000.0;

/// The longest one, for those who get little, and the least that the kernel counts out.
const LONG_PERIOD: f64 = 1_000_000.0;
const LEAST_QUOTA: f64 = 1_000.0;

/// Above any number of processes that Linux can have (`PIDS_MAX`): no limit at all to the kernel.
const PIDS_MAX: u64 = 4 << 20;

/// One limit that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit {
    pub(super) controller: Controller,
    /// As it is named to the user.
    name: &'static str,
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Bytes(u64),
    Processes(u64),
    /// Of each period this much, both in microseconds.
    Quota(u64, u64),
}

/// The limits that need a cgroup.
///
/// # Errors
///
/// For one that no kernel can set.
pub(super) fn asked(limits: &Limits) -> Result<Vec<Limit>, Failure> {
    let mut asked = Vec::new();
    if let Some(bytes) = limits.memory {
        asked.push(Limit {
            controller: Controller::Memory,
            name: "memory",
            value: Value::Bytes(bytes),
        });
    }
    if let Some(count) = limits.pids {
        asked.push(Limit {
            controller: Controller::Pids,
            name: "pids",
            value: Value::Processes(count),
        });
    }
    if let Some(cpus) = limits.cpus {
        let period = if cpus * PERIOD < LEAST_QUOTA { LONG_PERIOD } else { PERIOD };
        let quota = (cpus * period).round();
        let limit = |value| Limit { controller: Controller::Cpu, name: "cpus", value };
        if quota < LEAST_QUOTA {
            return Err(limit(Value::Quota(0, 0)).failure(&format!(
                "{cpus} of a CPU is less than the kernel can count out; ask for at least {}",
                LEAST_QUOTA / LONG_PERIOD
            )));
        }
        // What is above the range of the type is far above what the kernel takes, and refused by it.
        asked.push(limit(Value::Quota(quota as u64, period as u64)));
    }
    Ok(asked)
}

impl Limit {
    /// That it cannot be set, and why.
    pub(super) fn failure(&self, why: &str) -> Failure {
        Failure::new(Reason::LimitUnsupported, format!("{} cannot be limited: {why}", self.name))
    }

    /// Sets it in a cgroup that has its controller.
    pub(super) fn set(&self, dir: &Path, kind: &Kind) -> Result<(), Failure> {
        let set = |file: &str, text: String| {
            files::write(&dir.join(file), &text).map_err(|error| {
                self.failure(&format!("writing {text} to {}: {error}", dir.join(file).display()))
            })
        };
        match (self.value, kind) {
            (Value::Bytes(bytes), Kind::V2 { .. }) => {
                set("memory.max", bytes.to_string())?;
                self.set_swap(dir, "memory.swap.max", 0)
            }
            (Value::Bytes(bytes), Kind::V1(_)) => {
                set("memory.limit_in_bytes", bytes.to_string())?;
                // Memory and swap together: never below what memory alone may have.
                self.set_swap(dir, "memory.memsw.limit_in_bytes", bytes)
            }
            (Value::Processes(count), _) if count >= PIDS_MAX => set("pids.max", "max".to_owned()),
            (Value::Processes(count), _) => set("pids.max", count.to_string()),
            (Value::Quota(quota, period), Kind::V2 { .. }) => {
                set("cpu.max", format!("{quota} {period}"))
            }
            (Value::Quota(quota, period), Kind::V1(_)) => {
                set("cpu.cfs_period_us", period.to_string())?;
                set("cpu.cfs_quota_us", quota.to_string())
            }
        }
    }

    /// Keeps it from swapping instead; a kernel that does not count swap has no such file.
    fn set_swap(&self, dir: &Path, file: &str, bytes: u64) -> Result<(), Failure> {
        match files::write(&dir.join(file), &bytes.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => {
                Err(self
                    .failure(&format!("writing {bytes} to {}: {error}", dir.join(file).display())))
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(cpus: f64) -> Result<Value, Reason> {
        let limits = Limits { cpus: Some(cpus), ..Limits::default() };
        match asked(&limits) {
            Ok(asked) => Ok(asked[0].value),
            Err(failure) => Err(failure.reason),
        }
    }

    #[test]
    fn cpus_become_a_quota_that_the_kernel_takes_or_are_refused() {
        assert_eq!(quota(0.5), Ok(Value::Quota(50_000, 100_000)));
        assert_eq!(quota(16.0), Ok(Value::Quota(1_600_000, 100_000)));
        assert_eq!(quota(0.005), Ok(Value::Quota(5_000, 1_000_000)));
        assert_eq!(quota(0.001), Ok(Value::Quota(1_000, 1_000_000)));
        assert_eq!(quota(0.0001), Err(Reason::LimitUnsupported));
    }

    #[test]
    fn what_is_not_limited_needs_no_cgroup() {
        assert_eq!(asked(&Limits::default()).unwrap(), []);
    }
}
