//! What an ending is as an exit status, and in words.

use crate::atom::Atom;
use crate::lifecycle::{Outcome, Reason, State};

/// Of every command but `run` and `wait` when it fails.
pub(super) const FAILURE: u8 = 1;
/// Of what was typed and cannot be understood.
pub(super) const USAGE: u8 = 2;
/// Of `run` and `wait` when caesium fails, and when there is no other status to give.
pub(super) const OWN_FAILURE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The status for signal n is this and n.
const SIGNALED: u8 = 128;

/// The exit status that stands for the way an atom ended.
pub(super) fn of(atom: &Atom) -> u8 {
    let Some(ending) = atom.ending() else { return OWN_FAILURE };
    if let Some(code) = ending.exit_code {
        return code;
    }
    if let Some(signal) = ending.signal {
        return SIGNALED.saturating_add(signal);
    }
    match (ending.outcome, ending.reason) {
        (Outcome::StartupFailure, Reason::ExecNotFound) => NOT_FOUND,
        // A file that the kernel makes no sense of is one that it cannot execute.
        (Outcome::StartupFailure, Reason::ExecPermission | Reason::ExecFailed) => NOT_EXECUTABLE,
        (_, _) => OWN_FAILURE,
    }
}

/// How it ended, briefly: `success`, `failure (3)`, `killed (SIGKILL)`, `startup_failure (exec_not_found)`.
pub(super) fn short(atom: &Atom) -> Option<String> {
    let ending = atom.ending()?;
    let outcome = ending.outcome;
    Some(match (ending.exit_code, ending.signal) {
        (Some(0), _) if outcome == Outcome::Success => outcome.to_string(),
        (Some(code), _) => format!("{outcome} ({code})"),
        (None, Some(signal)) => format!("{outcome} ({})", signal_name(signal)),
        (None, None) => format!("{outcome} ({})", ending.reason),
    })
}

/// What a person at a terminal should be told of an ending, beside the exit
/// status; `None` for the ordinary ones.
pub(super) fn remark(atom: &Atom) -> Option<String> {
    let program = atom.spec().get_program().to_string_lossy().into_owned();
    let detail = atom.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    if atom.state() == State::Invalid {
        let reason = atom.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
        return Some(format!("atom {} is invalid{reason}{detail}", atom.id()));
    }
    let ending = atom.ending()?;
    let by = ending.signal.map(|signal| format!(" by {}", signal_name(signal))).unwrap_or_default();
    match (ending.outcome, ending.reason) {
        (Outcome::Success | Outcome::Failure, Reason::Exited) => None,
        (Outcome::Terminated | Outcome::Killed, Reason::Stopped | Reason::StopForced) => None,
        (Outcome::StartupFailure, reason) => {
            Some(format!("{program} was not started ({reason}){detail}"))
        }
        (outcome, Reason::Deadline) => {
            let after = atom.spec().get_timeout().map(humantime::format_duration);
            let after = after.map(|after| format!(" of {after}")).unwrap_or_default();
            Some(format!("{program} was {outcome}: its timeout{after} was over"))
        }
        (Outcome::Unknown, Reason::Signal) => Some(format!("{program} was ended{by}")),
        (Outcome::Unknown, reason) => {
            Some(format!("nobody knows how {program} ended ({reason}){detail}"))
        }
        (Outcome::Killed | Outcome::Terminated, Reason::Signal) => {
            Some(format!("{program} was {}{by}, which caesium did not send", ending.outcome))
        }
        (outcome, reason) => Some(format!("{program} ended{by}: {outcome} ({reason}){detail}")),
    }
}

/// `SIGTERM`, or `signal 40`.
pub(super) fn signal_name(signal: u8) -> String {
    match signal_hook::low_level::signal_name(i32::from(signal)) {
        Some(name) => name.to_owned(),
        None => format!("signal {signal}"),
    }
}
