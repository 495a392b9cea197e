//! Several at once, and the same request more than once.

use super::{Case, Fixture, LONG, begin, create, ended, spec};
use crate::atom::{AtomId, AtomSpec};
use crate::driver::memory::Act;
use crate::engine::{
    CreateRequest, DeleteRequest, Engine, Error, ListRequest, LogsRequest, StopRequest,
    WaitManyRequest,
};
use crate::lifecycle::{Backoff, Outcome, OutcomeSet, Reason, RetryPolicy, State};

pub(super) const CASES: &[Case] = &[
    ("several are created in order, and one that cannot be leaves the others alone", create_many),
    ("several are stopped at once, each with its own answer", stop_many),
    ("a request with a key is carried out once", keyed),
    ("a request with an id is carried out once, and has it", chosen),
    ("the same request made at the same moment creates one atom", concurrent),
    (
        "a key stays with the first of those that are retried, and is free when all are gone",
        retried,
    ),
    ("who asks again may follow, and sees all of the output", followed_again),
];

fn create_many(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    assert_eq!(engine.create_many(Vec::new()).unwrap().len(), 0);
    let Some(exit) = spec(fixture, &Act::Exit(3)) else { return };
    let before = engine.stats().unwrap().groups;
    let specs = (0..60).map(|number| match number {
        7 => exit.clone().arg("a\0b"),
        // The one before it has the name.
        20 => exit.clone().name("number 19"),
        30 => spec(fixture, &Act::FailToStart(Reason::ExecNotFound)).unwrap_or(exit.clone()),
        // The same request as the one before it.
        40 | 41 => exit.clone().key("both"),
        number => exit.clone().name(format!("number {number}")),
    });
    let created = engine.create_many(specs.map(CreateRequest::from).collect()).unwrap();
    assert_eq!(created.len(), 60);
    for (number, result) in created.iter().enumerate() {
        match (number, result) {
            (7, Err(Error::InvalidSpec(_))) => {}
            (20, Err(Error::NameInUse { name, .. })) => assert_eq!(name, "number 19"),
            (30, Ok(atom)) => assert!(atom.state() != State::Created),
            (40 | 41, Ok(atom)) => assert_eq!(atom.spec().get_key(), Some("both")),
            (_, Ok(atom)) => assert_eq!(atom.name(), Some(&*format!("number {number}"))),
            other => panic!("{other:?}"),
        }
    }
    let id = |number: usize| created[number].as_ref().unwrap().id();
    assert_eq!(id(40), id(41));
    let ids: WaitManyRequest = created.iter().flatten().map(crate::Atom::id).collect();
    assert!(engine.wait_all(&ids).unwrap().iter().all(|atom| atom.state() == State::Stopped));
    assert_eq!(engine.list(&ListRequest::all()).unwrap().len(), 57);
    // What is created together is written together: the largest group has most of them.
    let after = engine.stats().unwrap();
    assert!(after.group_max >= 19 && after.groups > before, "{after:?}");
}

fn stop_many(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    assert_eq!(engine.stop_many(&[]).unwrap().len(), 0);
    let (Some(linger), Some(exit)) = (spec(fixture, &Act::Linger), spec(fixture, &Act::Exit(3)))
    else {
        return;
    };
    let stopped = ended(&*engine, &create(&*engine, exit));
    let alive: Vec<_> = (0..5).map(|_| begin(fixture, &*engine, linger.clone())).collect();
    let unknown = AtomId::new();
    let mut requests: Vec<_> = alive.iter().map(|atom| StopRequest::from(atom.id())).collect();
    requests.extend([StopRequest::from(unknown), StopRequest::from(stopped.id())]);
    requests[1] = requests[1].force();
    let results = engine.stop_many(&requests).unwrap();
    assert_eq!(results.len(), 7);
    for (number, result) in results.iter().enumerate() {
        match (number, result) {
            (5, Err(Error::NotFound(id))) => assert_eq!(*id, unknown.to_string()),
            (6, Ok(atom)) => assert_eq!(*atom, stopped),
            (1, Ok(atom)) => assert_eq!(atom.result(), Some(Outcome::Killed)),
            (number, Ok(atom)) => {
                assert_eq!(
                    (atom.id(), atom.result()),
                    (alive[number].id(), Some(Outcome::Terminated))
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

fn keyed(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(exit) = spec(fixture, &Act::Exit(3)) else { return };
    let spec = exit.clone().key("once").secret_env("TOKEN", "one");
    let first = create(&*engine, spec.clone());
    let ended = ended(&*engine, &first);
    // A secret is not kept, and so cannot tell one request from another.
    for again in [spec.clone(), spec.clone().secret_env("TOKEN", "two")] {
        assert_eq!(create(&*engine, again), ended, "as it is by now");
    }
    for other in [spec.clone().arg("other"), spec.clone().secret_env("OTHER", "one")] {
        match engine.create(other.into()) {
            Err(Error::KeyInUse { key, by }) => {
                assert_eq!((key.as_str(), by), ("once", first.id()))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), [ended]);
    engine.delete(&DeleteRequest::from(first.id())).unwrap();
    assert_ne!(create(&*engine, spec).id(), first.id(), "the key is free again");
}

fn chosen(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(exit) = spec(fixture, &Act::Exit(3)) else { return };
    let id = AtomId::new();
    let request = CreateRequest::from(exit.clone()).id(id);
    let first = engine.create(request.clone()).unwrap();
    assert_eq!(first.id(), id);
    let ended = ended(&*engine, &first);
    assert_eq!(engine.create(request.clone()).unwrap(), ended);
    match engine.create(CreateRequest::from(exit.clone().arg("other")).id(id)) {
        Err(Error::IdInUse(by)) => assert_eq!(by, id),
        other => panic!("{other:?}"),
    }
    let improper = AtomId::from_bytes([7; 16]);
    let refused = engine.create(CreateRequest::from(exit).id(improper));
    assert!(matches!(refused, Err(Error::InvalidSpec(_))), "{refused:?}");
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), [ended]);
    engine.delete(&DeleteRequest::from(id)).unwrap();
    assert_eq!(engine.create(request).unwrap().id(), id);
}

fn concurrent(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(exit) = spec(fixture, &Act::Exit(3)) else { return };
    for round in 0..10 {
        let request = match round % 2 {
            0 => CreateRequest::from(exit.clone().key(format!("round {round}"))),
            _ => CreateRequest::from(exit.clone()).id(AtomId::new()),
        };
        let ids: Vec<_> = std::thread::scope(|scope| {
            let create = || engine.create(request.clone()).unwrap().id();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(engine.list(&ListRequest::all()).unwrap().len(), round + 1);
    }
}

fn retry() -> RetryPolicy {
    let backoff = Backoff { initial: LONG / 3_600_000, factor: 1.0, ..Backoff::default() };
    RetryPolicy { max_attempts: 3, backoff, on: OutcomeSet::FAILURES }
}

fn keyed_ids(engine: &dyn Engine, spec: &AtomSpec) -> Vec<AtomId> {
    let over = |atoms: &[crate::Atom]| {
        atoms.len() == 3 && atoms.iter().all(|atom| atom.state() == State::Stopped)
    };
    create(engine, spec.clone());
    super::until(engine, "three attempts", over).iter().map(crate::Atom::id).collect()
}

fn retried(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(exit) = spec(fixture, &Act::Exit(3)) else { return };
    let spec = exit.key("tried").retry(retry());
    let ids = keyed_ids(&*engine, &spec);
    assert_eq!(create(&*engine, spec.clone()).id(), ids[0]);
    engine.delete(&DeleteRequest::from(ids[1])).unwrap();
    assert_eq!(create(&*engine, spec.clone()).id(), ids[0]);
    engine.delete(&DeleteRequest::from(ids[0])).unwrap();
    assert_eq!(create(&*engine, spec.clone()).id(), ids[2]);
    engine.delete(&DeleteRequest::from(ids[2])).unwrap();
    assert!(!ids.contains(&create(&*engine, spec).id()));
}

fn followed_again(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let act = Act::Print { out: "to out\n".into(), err: String::new() };
    let Some(print) = spec(fixture, &act) else { return };
    let print = print.key("shown");
    let (first, logs) = engine.create_followed(print.clone().into()).unwrap();
    assert_eq!(logs.read_to_end().unwrap(), b"to out\n");
    let ended = ended(&*engine, &first);
    let (again, logs) = engine.create_followed(print.into()).unwrap();
    assert_eq!((again, logs.read_to_end().unwrap()), (ended, b"to out\n".to_vec()));
    let kept = engine.logs(&LogsRequest::from(first.id())).unwrap();
    assert_eq!(kept.read_to_end().unwrap(), b"to out\n");
}
