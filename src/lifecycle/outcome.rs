//! How an atom ended, and how that is read from what the kernel reported.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StopCause;
use crate::text::named;

/// How an atom ended.
///
/// The order of the variants is their position in the journal: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It exited with code 0.
    Success,
    /// It exited with another code, or crashed.
    Failure,
    /// It was never executed.
    StartupFailure,
    /// It ran out of something that was limited: memory, CPU time, file size.
    ResourceFailure,
    /// SIGKILL ended it.
    Killed,
    /// It ended because it was asked to.
    Terminated,
    /// Nobody can know.
    Unknown,
}

named!(Outcome, "outcome", {
    Success => "success",
    Failure => "failure",
    StartupFailure => "startup_failure",
    ResourceFailure => "resource_failure",
    Killed => "killed",
    Terminated => "terminated",
    Unknown => "unknown",
});

impl Outcome {
    /// True for everything but [`Outcome::Success`]; what is unknown is not a success.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Success => false,
            Self::Failure
            | Self::StartupFailure
            | Self::ResourceFailure
            | Self::Killed
            | Self::Terminated
            | Self::Unknown => true,
        }
    }
}

/// The machine-readable cause of an ending, a failed start or a contradiction.
///
/// The order of the variants is their position in the journal: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It exited by itself.
    Exited,
    /// It ended after our SIGTERM had reached it alive.
    Stopped,
    /// We sent SIGKILL: a forced stop, or the grace was over.
    StopForced,
    /// Its deadline had passed.
    Deadline,
    /// A signal that we did not send.
    Signal,
    /// A signal by which the kernel reports a fault of the program.
    Crashed,
    /// The kernel's OOM killer; the counter of its own cgroup is the evidence.
    OomKilled,
    /// SIGXCPU: `RLIMIT_CPU`.
    CpuLimit,
    /// SIGXFSZ: `RLIMIT_FSIZE`.
    FileSizeLimit,
    /// There is no such program.
    ExecNotFound,
    /// The program may not be executed.
    ExecPermission,
    /// The kernel would not execute it for another reason.
    ExecFailed,
    /// The working directory is missing, not a directory, or closed to us.
    BadWorkdir,
    /// There is no such user, or we may not become it.
    BadUser,
    /// The file for standard input cannot be opened.
    BadStdin,
    /// A limit was asked for that cannot be set here.
    LimitUnsupported,
    /// Certain never to have run.
    NeverStarted,
    /// Another boot of the machine: nothing of the earlier one runs, and its endings went with it.
    HostRebooted,
    /// It ended while nobody watched, and the kernel has forgotten how.
    ExitUnobserved,
    /// The store was copied or restored: what the original started is not ours.
    StoreCopied,
    /// This host lives in another pid namespace: the pids mean something else here.
    NamespaceChanged,
    /// A live process under an atom that has stopped.
    UnexpectedProcess,
    /// Another process under the atom's identity.
    IdentityMismatch,
    /// The driver reported a state that the engine does not define.
    UndefinedState,
    /// Events of its life were lost: what is left of them does not add up.
    EventsLost,
}

named!(Reason, "reason", {
    Exited => "exited",
    Stopped => "stopped",
    StopForced => "stop_forced",
    Deadline => "deadline",
    Signal => "signal",
    Crashed => "crashed",
    OomKilled => "oom_killed",
    CpuLimit => "cpu_limit",
    FileSizeLimit => "file_size_limit",
    ExecNotFound => "exec_not_found",
    ExecPermission => "exec_permission",
    ExecFailed => "exec_failed",
    BadWorkdir => "bad_workdir",
    BadUser => "bad_user",
    BadStdin => "bad_stdin",
    LimitUnsupported => "limit_unsupported",
    NeverStarted => "never_started",
    HostRebooted => "host_rebooted",
    ExitUnobserved => "exit_unobserved",
    StoreCopied => "store_copied",
    NamespaceChanged => "namespace_changed",
    UnexpectedProcess => "unexpected_process",
    IdentityMismatch => "identity_mismatch",
    UndefinedState => "undefined_state",
    EventsLost => "events_lost",
});

/// What the kernel reported of a process that ended: wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WaitStatus {
    /// It called `exit` with this code, 0–255.
    Exited {
        /// The code.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number, 1–64.
        signal: u8,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
}

impl WaitStatus {
    /// Reads the status word of wait(2) (`WIFEXITED` and the rest).
    ///
    /// `None` for a word that reports no ending (stopped, continued).
    pub const fn from_raw(word: i32) -> Option<Self> {
        let signal = (word & 0x7f) as u8;
        match signal {
            0 => Some(Self::Exited { code: ((word >> 8) & 0xff) as u8 }),
            0x7f => None,
            signal => Some(Self::Signaled { signal, core_dumped: word & 0x80 != 0 }),
        }
    }
}

/// What we did, and what the atom's cgroup counted, beside the kernel's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Our SIGTERM was sent while the process had not yet ended.
    pub term_reached: bool,
    /// We sent SIGKILL.
    pub kill_sent: bool,
    /// Why we sent either.
    pub cause: Option<StopCause>,
    /// The leader itself was chosen by the OOM killer, by the counter of its own cgroup.
    pub oom_killed: bool,
    /// OOM kills among all processes of the atom.
    pub oom_kills: u32,
}

/// How an atom ended: the outcome, its cause, and what the kernel said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ending {
    /// The verdict.
    pub outcome: Outcome,
    /// Its machine-readable cause.
    pub reason: Reason,
    /// The exit code, when there was one.
    pub exit_code: Option<u8>,
    /// The signal that ended it, when one did.
    pub signal: Option<u8>,
    /// Whether the kernel wrote a core dump.
    pub core_dumped: bool,
    /// OOM kills among the atom's processes, whatever its leader did.
    pub oom_kills: u32,
}

// Signal numbers of signal(7) that Linux shares on every architecture that it
// still supports but for SIGBUS, SIGSYS and SIGXCPU/SIGXFSZ on MIPS and friends;
// x86, Arm, POWER, RISC-V, s390 and LoongArch agree on all of them.
const SIGILL: u8 = 4;
const SIGTRAP: u8 = 5;
const SIGABRT: u8 = 6;
const SIGBUS: u8 = 7;
const SIGFPE: u8 = 8;
const SIGKILL: u8 = 9;
const SIGSEGV: u8 = 11;
const SIGTERM: u8 = 15;
const SIGXCPU: u8 = 24;
const SIGXFSZ: u8 = 25;
const SIGSYS: u8 = 31;

impl Ending {
    /// Reads the outcome from what the kernel reported and what we did: first row that fits.
    pub const fn observed(status: WaitStatus, evidence: Evidence) -> Self {
        let (outcome, reason) = verdict(status, evidence);
        let (exit_code, signal, core_dumped) = match status {
            WaitStatus::Exited { code } => (Some(code), None, false),
            WaitStatus::Signaled { signal, core_dumped } => (None, Some(signal), core_dumped),
        };
        Self { outcome, reason, exit_code, signal, core_dumped, oom_kills: evidence.oom_kills }
    }

    /// An ending of which the kernel said nothing: never run, or lost sight of.
    pub(super) const fn unreported(outcome: Outcome, reason: Reason) -> Self {
        Self { outcome, reason, exit_code: None, signal: None, core_dumped: false, oom_kills: 0 }
    }
}

const fn verdict(status: WaitStatus, evidence: Evidence) -> (Outcome, Reason) {
    match status {
        WaitStatus::Signaled { signal: SIGKILL, .. } => {
            if evidence.oom_killed {
                (Outcome::ResourceFailure, Reason::OomKilled)
            } else if evidence.kill_sent {
                (Outcome::Killed, by(evidence.cause, Reason::StopForced))
            } else {
                (Outcome::Killed, Reason::Signal)
            }
        }
        WaitStatus::Exited { .. } | WaitStatus::Signaled { signal: SIGTERM, .. }
            if evidence.term_reached =>
        {
            (Outcome::Terminated, by(evidence.cause, Reason::Stopped))
        }
        WaitStatus::Signaled { signal: SIGTERM, .. } => (Outcome::Terminated, Reason::Signal),
        WaitStatus::Exited { code: 0 } => (Outcome::Success, Reason::Exited),
        WaitStatus::Exited { .. } => (Outcome::Failure, Reason::Exited),
        WaitStatus::Signaled { signal: SIGXCPU, .. } => {
            (Outcome::ResourceFailure, Reason::CpuLimit)
        }
        WaitStatus::Signaled { signal: SIGXFSZ, .. } => {
            (Outcome::ResourceFailure, Reason::FileSizeLimit)
        }
        WaitStatus::Signaled {
            signal: SIGSEGV | SIGBUS | SIGFPE | SIGILL | SIGABRT | SIGTRAP | SIGSYS,
            ..
        } => (Outcome::Failure, Reason::Crashed),
        WaitStatus::Signaled { .. } => (Outcome::Unknown, Reason::Signal),
    }
}

const fn by(cause: Option<StopCause>, requested: Reason) -> Reason {
    match cause {
        Some(StopCause::Deadline) => Reason::Deadline,
        Some(StopCause::Requested) | None => requested,
    }
}

/// A set of [`Outcome`]s: a list of names in JSON, one byte in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutcomeSet(u8);

impl OutcomeSet {
    /// Every outcome but success.
    pub const FAILURES: Self = {
        let mut set = Self(0);
        let mut position = 0;
        while position < Outcome::ALL.len() {
            if Outcome::ALL[position].is_failure() {
                set = set.with(Outcome::ALL[position]);
            }
            position += 1;
        }
        set
    };

    /// The set with `outcome` added.
    #[must_use]
    pub const fn with(self, outcome: Outcome) -> Self {
        Self(self.0 | 1 << outcome as u8)
    }

    /// Whether `outcome` is in the set.
    pub const fn contains(self, outcome: Outcome) -> bool {
        self.0 & (1 << outcome as u8) != 0
    }
}

impl Serialize for OutcomeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let named = Outcome::ALL.iter().filter(|outcome| self.contains(**outcome));
            serializer.collect_seq(named)
        } else {
            serializer.serialize_u8(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for OutcomeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_seq(Names)
        } else {
            u8::deserialize(deserializer).map(Self)
        }
    }
}

/// Reads a list of names.
struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = OutcomeSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of outcomes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<OutcomeSet, A::Error> {
        let mut set = OutcomeSet::default();
        while let Some(outcome) = names.next_element()? {
            set = set.with(outcome);
        }
        Ok(set)
    }
}

impl FromIterator<Outcome> for OutcomeSet {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        outcomes.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_outcomes_is_written_as_their_names() {
        let set: OutcomeSet = [Outcome::Failure, Outcome::Killed].into_iter().collect();
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(json, r#"["failure","killed"]"#);
        assert_eq!(serde_json::from_str::<OutcomeSet>(&json).unwrap(), set);
        assert_eq!(bincode::serialize(&set).unwrap(), [0b1_0010]);
    }
}
