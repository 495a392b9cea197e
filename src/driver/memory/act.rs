//! The programs of the world in memory.

use std::time::Duration;

use crate::atom::AtomSpec;
use crate::lifecycle::{Reason, WaitStatus};

/// What an atom does, in tests: what a driver in memory plays, and what a
/// conformance fixture translates for a real one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// Exits at once with this code.
    Exit(u8),
    /// Ends at once by this signal, sent by itself.
    Signal(u8),
    /// Runs until it is stopped; SIGTERM ends it.
    Linger,
    /// Runs until it is killed; it ignores SIGTERM.
    IgnoreTerm,
    /// Runs until SIGTERM, and then exits with this code.
    ExitOnTerm(u8),
    /// Prints a text to each stream and exits with 0.
    Print {
        /// To standard output.
        out: String,
        /// To standard error.
        err: String,
    },
    /// Prints what it reads from its standard input, a pipe, and exits with 0 when that ends. SIGTERM ends it.
    Cat,
    /// Cannot be executed, for this reason.
    FailToStart(Reason),
}

impl Act {
    /// The spec by which a [`MemoryDriver`](super::MemoryDriver) knows the act.
    pub fn spec(&self) -> AtomSpec {
        match self {
            Self::Exit(code) => AtomSpec::command("exit").arg(code.to_string()),
            Self::Signal(signal) => AtomSpec::command("signal").arg(signal.to_string()),
            Self::Linger => AtomSpec::command("linger"),
            Self::IgnoreTerm => AtomSpec::command("ignore-term"),
            Self::ExitOnTerm(code) => AtomSpec::command("exit-on-term").arg(code.to_string()),
            Self::Print { out, err } => AtomSpec::command("print").args([out, err]),
            Self::Cat => AtomSpec::command("cat").stdin_pipe(),
            Self::FailToStart(reason) => AtomSpec::command("fail-to-start").arg(reason.as_str()),
        }
        .grace(Duration::from_millis(200))
    }

    /// Reads the act back from a spec; `None` for one that is no act: there is no such program.
    pub(super) fn read(spec: &AtomSpec) -> Option<Self> {
        let args: Vec<&str> = spec.get_args().filter_map(|arg| arg.to_str()).collect();
        let number = || args.first()?.parse().ok();
        Some(match spec.get_program().to_str()? {
            "exit" => Self::Exit(number()?),
            "signal" => Self::Signal(number()?),
            "linger" => Self::Linger,
            "ignore-term" => Self::IgnoreTerm,
            "exit-on-term" => Self::ExitOnTerm(number()?),
            "print" => Self::Print { out: (*args.first()?).into(), err: (*args.get(1)?).into() },
            "cat" => Self::Cat,
            "fail-to-start" => Self::FailToStart(args.first()?.parse().ok()?),
            _ => return None,
        })
    }

    /// How it ends by itself, if it does.
    pub(super) fn own_end(&self) -> Option<WaitStatus> {
        match self {
            Self::Exit(code) => Some(WaitStatus::Exited { code: *code }),
            Self::Signal(signal) => {
                Some(WaitStatus::Signaled { signal: *signal, core_dumped: false })
            }
            Self::Print { .. } => Some(WaitStatus::Exited { code: 0 }),
            Self::Linger
            | Self::IgnoreTerm
            | Self::ExitOnTerm(_)
            | Self::Cat
            | Self::FailToStart(_) => None,
        }
    }

    /// What SIGTERM does to it, if anything.
    pub(super) fn end_on_term(&self) -> Option<WaitStatus> {
        match self {
            Self::ExitOnTerm(code) => Some(WaitStatus::Exited { code: *code }),
            Self::IgnoreTerm => None,
            Self::Exit(_)
            | Self::Signal(_)
            | Self::Linger
            | Self::Cat
            | Self::Print { .. }
            | Self::FailToStart(_) => Some(WaitStatus::Signaled { signal: 15, core_dumped: false }),
        }
    }
}
