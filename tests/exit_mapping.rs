//! From what the kernel reported to the outcome: every code, every signal, all evidence.
//!
//! [`CONTRACT`] states section 3 of the contract once more, as a list of rows of
//! which the first that fits decides; it shares nothing with the code it checks.

#![cfg(target_os = "linux")]

use caesium::lifecycle::{Ending, Evidence, Outcome, Reason, StopCause, WaitStatus};

/// One observed ending, in plain terms.
#[derive(Debug, Clone, Copy)]
struct Case {
    code: Option<u8>,
    signal: Option<u8>,
    core_dumped: bool,
    evidence: Evidence,
}

type Fits = fn(&Case) -> bool;

/// What happened, outcome, reason; `None` for the reason of whoever asked for the stop, else the given one.
const CONTRACT: &[(&str, Fits, Outcome, Why)] = &[
    (
        "killed by the kernel's OOM killer, with the counter of its own cgroup as evidence",
        |case| case.signal == Some(libc::SIGKILL as u8) && case.evidence.oom_killed,
        Outcome::ResourceFailure,
        Why::Is(Reason::OomKilled),
    ),
    (
        "SIGKILL that we sent",
        |case| case.signal == Some(libc::SIGKILL as u8) && case.evidence.kill_sent,
        Outcome::Killed,
        Why::AskedOr(Reason::StopForced),
    ),
    (
        "any other SIGKILL",
        |case| case.signal == Some(libc::SIGKILL as u8),
        Outcome::Killed,
        Why::Is(Reason::Signal),
    ),
    (
        "any exit code, or SIGTERM, after our SIGTERM reached it alive",
        |case| {
            case.evidence.term_reached
                && (case.code.is_some() || case.signal == Some(libc::SIGTERM as u8))
        },
        Outcome::Terminated,
        Why::AskedOr(Reason::Stopped),
    ),
    (
        "SIGTERM from elsewhere",
        |case| case.signal == Some(libc::SIGTERM as u8),
        Outcome::Terminated,
        Why::Is(Reason::Signal),
    ),
    ("exit code 0", |case| case.code == Some(0), Outcome::Success, Why::Is(Reason::Exited)),
    (
        "any other exit code of a program that did run",
        |case| case.code.is_some(),
        Outcome::Failure,
        Why::Is(Reason::Exited),
    ),
    (
        "SIGXCPU",
        |case| case.signal == Some(libc::SIGXCPU as u8),
        Outcome::ResourceFailure,
        Why::Is(Reason::CpuLimit),
    ),
    (
        "SIGXFSZ",
        |case| case.signal == Some(libc::SIGXFSZ as u8),
        Outcome::ResourceFailure,
        Why::Is(Reason::FileSizeLimit),
    ),
    (
        "SIGSEGV SIGBUS SIGFPE SIGILL SIGABRT SIGTRAP SIGSYS",
        |case| {
            let crashes = [
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGABRT,
                libc::SIGTRAP,
                libc::SIGSYS,
            ];
            case.signal.is_some_and(|signal| crashes.contains(&i32::from(signal)))
        },
        Outcome::Failure,
        Why::Is(Reason::Crashed),
    ),
    ("any other signal", |case| case.signal.is_some(), Outcome::Unknown, Why::Is(Reason::Signal)),
];

/// How a row names its reason.
#[derive(Debug, Clone, Copy)]
enum Why {
    Is(Reason),
    /// `deadline` when the deadline asked, else the given one.
    AskedOr(Reason),
}

fn expected(case: &Case) -> (Outcome, Reason) {
    let (_, _, outcome, why) = CONTRACT.iter().find(|row| row.1(case)).unwrap();
    let reason = match *why {
        Why::Is(reason) => reason,
        Why::AskedOr(_) if case.evidence.cause == Some(StopCause::Deadline) => Reason::Deadline,
        Why::AskedOr(reason) => reason,
    };
    (*outcome, reason)
}

/// All that can be known beside the kernel's report.
fn all_evidence() -> Vec<Evidence> {
    let mut all = Vec::new();
    for term_reached in [false, true] {
        for kill_sent in [false, true] {
            for cause in [None, Some(StopCause::Requested), Some(StopCause::Deadline)] {
                for oom_killed in [false, true] {
                    for oom_kills in [0, 1, u32::MAX] {
                        all.push(Evidence {
                            term_reached,
                            kill_sent,
                            cause,
                            oom_killed,
                            oom_kills,
                        });
                    }
                }
            }
        }
    }
    all
}

fn check(case: Case) {
    let status = match (case.code, case.signal) {
        (Some(code), None) => WaitStatus::Exited { code },
        (None, Some(signal)) => WaitStatus::Signaled { signal, core_dumped: case.core_dumped },
        other => panic!("no ending: {other:?}"),
    };
    let ending = Ending::observed(status, case.evidence);
    assert_eq!((ending.outcome, ending.reason), expected(&case), "{case:?}");
    assert_eq!(
        (ending.exit_code, ending.signal),
        (case.code, case.signal),
        "always kept: {case:?}"
    );
    assert_eq!(ending.core_dumped, case.core_dumped, "{case:?}");
    assert_eq!(ending.oom_kills, case.evidence.oom_kills, "whatever the leader did: {case:?}");
}

#[test]
fn every_exit_code_with_all_evidence() {
    for code in 0..=u8::MAX {
        for evidence in all_evidence() {
            check(Case { code: Some(code), signal: None, core_dumped: false, evidence });
        }
    }
}

#[test]
fn every_signal_with_all_evidence_with_and_without_a_core() {
    for signal in 1..=64 {
        for core_dumped in [false, true] {
            for evidence in all_evidence() {
                check(Case { code: None, signal: Some(signal), core_dumped, evidence });
            }
        }
    }
}

#[test]
fn every_row_of_the_contract_decides_something() {
    let mut decided = vec![0; CONTRACT.len()];
    let codes = (0..=u8::MAX).map(|code| (Some(code), None));
    let signals = (1..=64).map(|signal| (None, Some(signal)));
    for (code, signal) in codes.chain(signals) {
        for evidence in all_evidence() {
            let case = Case { code, signal, core_dumped: false, evidence };
            decided[CONTRACT.iter().position(|row| row.1(&case)).unwrap()] += 1;
        }
    }
    for (row, count) in CONTRACT.iter().zip(decided) {
        assert!(count > 0, "no case is decided by {:?}", row.0);
    }
}

/// Spelt out, for those who look one up.
#[test]
fn the_well_known_endings() {
    let none = Evidence::default();
    let term = Evidence { term_reached: true, cause: Some(StopCause::Requested), ..none };
    let kill = Evidence { kill_sent: true, ..term };
    let deadline = Evidence { cause: Some(StopCause::Deadline), ..kill };
    let oom = Evidence { oom_killed: true, oom_kills: 1, ..none };
    let exit = |code| WaitStatus::Exited { code };
    let signal = |signal| WaitStatus::Signaled { signal, core_dumped: false };
    for (status, evidence, outcome, reason) in [
        (exit(0), none, Outcome::Success, Reason::Exited),
        (exit(1), none, Outcome::Failure, Reason::Exited),
        (exit(126), none, Outcome::Failure, Reason::Exited),
        (exit(127), none, Outcome::Failure, Reason::Exited),
        (exit(137), none, Outcome::Failure, Reason::Exited),
        (exit(143), none, Outcome::Failure, Reason::Exited),
        (exit(0), term, Outcome::Terminated, Reason::Stopped),
        (exit(143), term, Outcome::Terminated, Reason::Stopped),
        (exit(0), oom, Outcome::Success, Reason::Exited),
        (signal(15), term, Outcome::Terminated, Reason::Stopped),
        (signal(15), none, Outcome::Terminated, Reason::Signal),
        (signal(9), kill, Outcome::Killed, Reason::StopForced),
        (signal(9), deadline, Outcome::Killed, Reason::Deadline),
        (signal(9), none, Outcome::Killed, Reason::Signal),
        (signal(9), term, Outcome::Killed, Reason::Signal),
        (signal(9), oom, Outcome::ResourceFailure, Reason::OomKilled),
        (signal(11), none, Outcome::Failure, Reason::Crashed),
        (signal(11), kill, Outcome::Failure, Reason::Crashed),
        (signal(24), none, Outcome::ResourceFailure, Reason::CpuLimit),
        (signal(25), none, Outcome::ResourceFailure, Reason::FileSizeLimit),
        (signal(2), term, Outcome::Unknown, Reason::Signal),
        (signal(1), none, Outcome::Unknown, Reason::Signal),
    ] {
        let ending = Ending::observed(status, evidence);
        assert_eq!((ending.outcome, ending.reason), (outcome, reason), "{status:?} {evidence:?}");
    }
}

#[test]
fn every_status_word_is_read_as_the_c_library_reads_it() {
    for word in 0..=0xffff {
        let expected = if libc::WIFEXITED(word) {
            Some(WaitStatus::Exited { code: libc::WEXITSTATUS(word) as u8 })
        } else if libc::WIFSIGNALED(word) {
            Some(WaitStatus::Signaled {
                signal: libc::WTERMSIG(word) as u8,
                core_dumped: libc::WCOREDUMP(word),
            })
        } else {
            // Stopped, continued, or no word that wait(2) gives: no ending.
            None
        };
        assert_eq!(WaitStatus::from_raw(word), expected, "{word:#x}");
    }
}
