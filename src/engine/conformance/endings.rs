//! Every way to end, row by row of the contract's table.

use super::{Case, Fixture, create, ended, spec};
use crate::atom::Atom;
use crate::driver::memory::Act;
use crate::lifecycle::{Outcome, Reason, State};

pub(super) const CASES: &[Case] = &[
    ("exit codes become success or failure, none of them a signal", exit_codes),
    ("signals of its own become what they mean", own_signals),
    ("what cannot be executed is a stopped atom with a reason", startup_failures),
    ("an ended atom has times in order and what it was asked to be", particulars),
];

fn exit_codes(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    for code in [0, 1, 2, 100, 125, 126, 127, 128, 130, 137, 139, 143, 255] {
        let Some(spec) = spec(fixture, &Act::Exit(code)) else { return };
        let atom = ended(&*engine, &create(&*engine, spec));
        let outcome = if code == 0 { Outcome::Success } else { Outcome::Failure };
        check(&atom, outcome, Reason::Exited, Some(i32::from(code)), None);
    }
}

fn own_signals(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let rows: &[(&[u8], Outcome, Reason)] = &[
        (&[9], Outcome::Killed, Reason::Signal),
        (&[15], Outcome::Terminated, Reason::Signal),
        (&[24], Outcome::ResourceFailure, Reason::CpuLimit),
        (&[25], Outcome::ResourceFailure, Reason::FileSizeLimit),
        (&[4, 5, 6, 7, 8, 11, 31], Outcome::Failure, Reason::Crashed),
        (&[1, 2, 3, 10, 12, 13, 14, 34, 64], Outcome::Unknown, Reason::Signal),
    ];
    for (signals, outcome, reason) in rows {
        for signal in *signals {
            let Some(spec) = spec(fixture, &Act::Signal(*signal)) else { continue };
            let atom = ended(&*engine, &create(&*engine, spec));
            check(&atom, *outcome, *reason, None, Some(i32::from(*signal)));
        }
    }
}

fn startup_failures(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    for reason in [
        Reason::ExecNotFound,
        Reason::ExecPermission,
        Reason::ExecFailed,
        Reason::BadWorkdir,
        Reason::BadUser,
        Reason::BadStdin,
        Reason::LimitUnsupported,
    ] {
        let Some(spec) = spec(fixture, &Act::FailToStart(reason)) else { continue };
        let atom = create(&*engine, spec);
        assert_eq!(atom.state(), State::Stopped, "create tells of {reason} at once");
        check(&atom, Outcome::StartupFailure, reason, None, None);
        assert_eq!((atom.pid(), atom.started_at()), (None, None), "{reason}: it never ran");
        assert!(
            atom.detail().is_some_and(|detail| !detail.is_empty()),
            "{reason}: a person is told more"
        );
        assert_eq!(ended(&*engine, &atom), atom, "{reason}: waiting gives the same");
    }
}

fn particulars(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(0)) else { return };
    let created = create(&*engine, spec.label("tier", "test"));
    let atom = ended(&*engine, &created);
    assert_eq!(atom.id(), created.id());
    assert!(Some(atom.created_at()) <= atom.started_at() && atom.started_at() <= atom.stopped_at());
    assert_eq!(atom.labels()["tier"], "test");
    assert_eq!(atom.labels()[crate::LABEL], atom.engine());
    assert_eq!((atom.attempt(), atom.retry_of(), atom.planned_retry()), (1, None, None));
}

fn check(atom: &Atom, outcome: Outcome, reason: Reason, code: Option<i32>, signal: Option<i32>) {
    let seen = (atom.state(), atom.result(), atom.reason(), atom.exit_code(), atom.signal());
    assert_eq!(seen, (State::Stopped, Some(outcome), Some(reason), code, signal), "{atom:#?}");
}
