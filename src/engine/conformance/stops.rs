//! Stopping: asking, grace, force, deadlines, and what stopping must not do.

use std::time::Duration;

use super::{Case, Fixture, LONG, begin, create, ended, spec};
use crate::atom::Atom;
use crate::driver::memory::Act;
use crate::engine::{GetRequest, StopRequest};
use crate::lifecycle::{Outcome, Reason, State};

pub(super) const CASES: &[Case] = &[
    ("a stop terminates", terminates),
    ("a stop that is ignored kills when the grace is over", kills_after_grace),
    ("a forced stop kills at once", forced),
    ("force during a stop escalates", escalates),
    ("a shorter grace during a stop is kept", shortens),
    ("stopping what has stopped succeeds and changes nothing", idempotent),
    ("a deadline terminates", deadline),
    ("a deadline that is ignored kills", deadline_kills),
    ("a stop with a long deadline ahead is a requested stop", request_before_deadline),
];

fn terminates(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    for (act, code, signal) in [
        (Act::Linger, None, Some(15)),
        (Act::ExitOnTerm(0), Some(0), None),
        (Act::ExitOnTerm(7), Some(7), None),
    ] {
        let Some(spec) = spec(fixture, &act) else { continue };
        let atom = begin(fixture, &*engine, spec.grace(LONG));
        let stopped = engine.stop(&StopRequest::from(atom.id())).unwrap();
        check(&stopped, Outcome::Terminated, Reason::Stopped);
        assert_eq!((stopped.exit_code(), stopped.signal()), (code, signal), "{act:?}");
        assert_eq!(stopped.pid(), atom.pid(), "{act:?}: the pid is kept");
    }
}

fn kills_after_grace(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::IgnoreTerm) else { return };
    let atom = begin(fixture, &*engine, spec);
    let stopped =
        engine.stop(&StopRequest::from(atom.id()).grace(Duration::from_millis(50))).unwrap();
    check(&stopped, Outcome::Killed, Reason::StopForced);
    assert_eq!(stopped.signal(), Some(9));
}

fn forced(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    for act in [Act::Linger, Act::IgnoreTerm] {
        let Some(spec) = spec(fixture, &act) else { continue };
        let atom = begin(fixture, &*engine, spec.grace(LONG));
        let stopped = engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
        check(&stopped, Outcome::Killed, Reason::StopForced);
    }
}

fn escalates(fixture: &dyn Fixture) {
    tightened(fixture, |stop| stop.force());
}

fn shortens(fixture: &dyn Fixture) {
    tightened(fixture, |stop| stop.grace(Duration::from_millis(20)));
}

/// A stop with a grace that nobody lives to see, and a stricter one while it goes on.
fn tightened(fixture: &dyn Fixture, stricter: impl Fn(StopRequest) -> StopRequest) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::IgnoreTerm) else { return };
    let atom = begin(fixture, &*engine, spec.grace(LONG));
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| engine.stop(&StopRequest::from(atom.id())).unwrap());
        super::until(&*engine, "the stop under way", |atoms| atoms[0].state() == State::Stopping);
        let strict = engine.stop(&stricter(StopRequest::from(atom.id()))).unwrap();
        check(&strict, Outcome::Killed, Reason::StopForced);
        assert_eq!(patient.join().unwrap(), strict, "both are told the same");
    });
}

fn idempotent(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(3)) else { return };
    let atom = ended(&*engine, &create(&*engine, spec));
    for request in [StopRequest::from(atom.id()), StopRequest::from(atom.id()).force()] {
        assert_eq!(engine.stop(&request).unwrap(), atom);
    }
    assert_eq!(engine.get(&GetRequest::from(atom.id())).unwrap(), atom);
}

fn deadline(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    for act in [Act::Linger, Act::ExitOnTerm(0)] {
        let Some(spec) = spec(fixture, &act) else { continue };
        let atom =
            ended(&*engine, &create(&*engine, spec.timeout(Duration::from_millis(50)).grace(LONG)));
        check(&atom, Outcome::Terminated, Reason::Deadline);
    }
}

fn deadline_kills(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::IgnoreTerm) else { return };
    let spec = spec.timeout(Duration::from_millis(1500)).grace(Duration::from_millis(50));
    let atom = ended(&*engine, &create(&*engine, spec));
    check(&atom, Outcome::Killed, Reason::Deadline);
}

fn request_before_deadline(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    let atom = begin(fixture, &*engine, spec.timeout(LONG));
    check(
        &engine.stop(&StopRequest::from(atom.id())).unwrap(),
        Outcome::Terminated,
        Reason::Stopped,
    );
}

fn check(atom: &Atom, outcome: Outcome, reason: Reason) {
    let seen = (atom.state(), atom.result(), atom.reason());
    assert_eq!(seen, (State::Stopped, Some(outcome), Some(reason)), "{atom:#?}");
}
