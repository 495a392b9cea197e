//! Retries: how many, after what, and who has the name.

use std::time::Duration;

use super::{Case, Fixture, LONG, create, spec, until};
use crate::atom::AtomSpec;
use crate::driver::memory::Act;
use crate::engine::{DeleteRequest, ListRequest, StopRequest};
use crate::lifecycle::{Backoff, Outcome, OutcomeSet, RetryPolicy, State};

pub(super) const CASES: &[Case] = &[
    ("a failing atom is retried as often as its policy says", retries),
    ("what the policy does not name is not retried", other_outcomes),
    ("a requested stop is never retried", requested),
    ("deleting the atom drops its retry", dropped),
];

fn policy(max_attempts: u32, initial: Duration) -> RetryPolicy {
    let backoff = Backoff { initial, factor: 1.0, ..Backoff::default() };
    RetryPolicy { max_attempts, backoff, on: OutcomeSet::FAILURES }
}

fn soon(spec: AtomSpec) -> AtomSpec {
    spec.retry(policy(3, Duration::from_millis(1)))
}

fn retries(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(1)) else { return };
    let first = create(&*engine, soon(spec).name("again"));
    let over = |atoms: &[crate::Atom]| {
        atoms.len() == 3 && atoms.iter().all(|atom| atom.state() == State::Stopped)
    };
    let atoms = until(&*engine, "three attempts", over);
    assert_eq!(atoms[0].id(), first.id());
    for (position, atom) in atoms.iter().enumerate() {
        assert_eq!(atom.attempt() as usize, position + 1);
        assert_eq!(atom.result(), Some(Outcome::Failure));
        assert_eq!(atom.retry_of(), position.checked_sub(1).map(|before| atoms[before].id()));
        assert_eq!(atom.replaced_by(), atoms.get(position + 1).map(crate::Atom::id));
        assert_eq!(atom.planned_retry(), None);
    }
    assert_eq!(engine.find("again").unwrap(), atoms[2], "a retry takes the name over");
}

fn other_outcomes(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(1)) else { return };
    let only_killed = RetryPolicy {
        on: OutcomeSet::default().with(Outcome::Killed),
        ..policy(3, Duration::ZERO)
    };
    let atom = super::ended(&*engine, &create(&*engine, spec.retry(only_killed)));
    assert_eq!((atom.planned_retry(), atom.replaced_by()), (None, None));
}

fn requested(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    let atom = create(&*engine, soon(spec));
    let stopped = engine.stop(&StopRequest::from(atom.id())).unwrap();
    assert_eq!(stopped.result(), Some(Outcome::Terminated));
    // A second atom goes through the whole machinery after it; the first one has made no other by then.
    delete_after_end(fixture, &*engine);
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), [stopped]);
}

fn delete_after_end(fixture: &dyn Fixture, engine: &dyn crate::Engine) {
    let Some(spec) = spec(fixture, &Act::Exit(0)) else { return };
    let atom = super::ended(engine, &create(engine, spec));
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
}

fn dropped(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(1)) else { return };
    let policy = RetryPolicy {
        backoff: Backoff { initial: LONG, max: LONG, ..Backoff::default() },
        ..policy(2, LONG)
    };
    let atom = create(&*engine, spec.retry(policy).name("once"));
    until(&*engine, "the planned retry", |atoms| atoms[0].planned_retry().is_some());
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), []);
}
