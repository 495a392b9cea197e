//! Many at once, and things that happen at the same moment.

use super::{Case, Fixture, begin, create, ended, spec};
use crate::driver::memory::Act;
use crate::engine::{DeleteRequest, ListRequest, StopRequest, WaitRequest};
use crate::lifecycle::{Outcome, Reason, State};

pub(super) const CASES: &[Case] = &[
    ("two hundred atoms at once all end as they should", two_hundred),
    ("a stop that races with the exit tells the truth", stop_races_exit),
    ("everybody who waits for an atom is told", many_waiters),
    ("stops and deletions that race leave nothing behind", deletions_race),
];

fn two_hundred(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::ExitOnTerm(5)) else { return };
    let atoms: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..25).map(|_| begin(fixture, &*engine, spec.clone())).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(engine.list(&ListRequest::all().state(State::Running)).unwrap().len(), 200);
    std::thread::scope(|scope| {
        for chunk in atoms.chunks(25) {
            let engine = &*engine;
            scope.spawn(move || {
                for atom in chunk {
                    let stopped = engine.stop(&StopRequest::from(atom.id())).unwrap();
                    assert_eq!(
                        (stopped.result(), stopped.exit_code()),
                        (Some(Outcome::Terminated), Some(5))
                    );
                }
            });
        }
    });
    let stopped = engine.list(&ListRequest::all().outcome(Outcome::Terminated)).unwrap();
    assert_eq!(stopped.len(), 200);
    assert!(stopped.windows(2).all(|pair| pair[0].id() < pair[1].id()));
}

fn stop_races_exit(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(3)) else { return };
    for round in 0..50 {
        let atom = create(&*engine, spec.clone());
        let request = StopRequest::from(atom.id());
        let stopped = engine.stop(&if round % 2 == 0 { request } else { request.force() }).unwrap();
        let seen = (
            stopped.result().unwrap(),
            stopped.reason().unwrap(),
            stopped.exit_code(),
            stopped.signal(),
        );
        let truths = [
            (Outcome::Failure, Reason::Exited, Some(3), None),
            (Outcome::Terminated, Reason::Stopped, Some(3), None),
            (Outcome::Terminated, Reason::Stopped, None, Some(15)),
            (Outcome::Killed, Reason::StopForced, None, Some(9)),
        ];
        assert!(truths.contains(&seen), "{stopped:#?}");
    }
}

fn many_waiters(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    let atom = create(&*engine, spec);
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..32)
            .map(|_| scope.spawn(|| engine.wait(&WaitRequest::from(atom.id())).unwrap()))
            .collect();
        let stopped = engine.stop(&StopRequest::from(atom.id())).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), stopped);
        }
    });
    assert_eq!(ended(&*engine, &atom).result(), Some(Outcome::Terminated));
}

fn deletions_race(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    for _ in 0..10 {
        let atom = create(&*engine, spec.clone());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                // One of them deletes it; the others find that out in one way or another.
                scope.spawn(|| engine.delete(&DeleteRequest::from(atom.id()).force()));
                scope.spawn(|| engine.stop(&StopRequest::from(atom.id())));
            }
        });
    }
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), []);
}
