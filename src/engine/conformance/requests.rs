//! Requests that must be refused, and leave everything as it was; names, lists, logs, deletion.

use std::time::Duration;

use super::{Case, Fixture, LONG, begin, create, ended, spec};
use crate::atom::AtomId;
use crate::driver::memory::Act;
use crate::engine::{
    DeleteRequest, Engine, Error, GetRequest, ListRequest, LogsRequest, StopRequest, WaitRequest,
};
use crate::lifecycle::{EventKind, Outcome, State};
use crate::log::{LogItem, Stream};

pub(super) const CASES: &[Case] = &[
    ("an unknown id is not found, whatever is asked", unknown_id),
    ("a spec that cannot be is refused, and nothing is created", invalid_spec),
    ("deleting a running atom needs force", delete_running),
    ("a deleted atom is gone, and so is its log", delete_stopped),
    ("a name belongs to one atom, and is free after deletion", names),
    ("waiting has a deadline", wait_deadline),
    ("lists narrow by time, state, outcome and label, oldest first", lists),
    ("logs have both streams, apart and whole", logs),
    ("following a log ends with the atom", follow),
];

fn unknown_id(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let id = AtomId::new();
    let found = [
        engine.get(&GetRequest::from(id)).map(drop),
        engine.wait(&WaitRequest::from(id)).map(drop),
        engine.stop(&StopRequest::from(id)).map(drop),
        engine.stop(&StopRequest::from(id).force()).map(drop),
        engine.delete(&DeleteRequest::from(id)),
        engine.delete(&DeleteRequest::from(id).force()),
        engine.logs(&LogsRequest::from(id)).map(drop),
    ];
    for result in found {
        assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
    }
}

fn invalid_spec(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(good) = spec(fixture, &Act::Exit(0)) else { return };
    for bad in [
        good.clone().arg("a\0b"),
        good.clone().env("A=B", "c"),
        good.clone().name(""),
        good.clone().label(crate::LABEL, "mine"),
        good.clone().timeout(Duration::ZERO),
        good.clone().log_max(1),
        good.clone().arg("x".repeat(crate::atom::MAX_SPEC_BYTES)),
    ] {
        let result = engine.create(bad.into());
        assert!(matches!(result, Err(Error::InvalidSpec(_))), "{result:?}");
    }
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), []);
}

fn delete_running(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::IgnoreTerm) else { return };
    let atom = begin(fixture, &*engine, spec.grace(LONG));
    match engine.delete(&DeleteRequest::from(atom.id())) {
        Err(Error::Rejected { id, rejection }) => {
            assert_eq!(
                (id, rejection.state, rejection.event),
                (atom.id(), State::Running, EventKind::DeleteAsked)
            );
            assert!(rejection.allowed.contains(EventKind::StopAsked));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.get(&GetRequest::from(atom.id())).unwrap(), atom, "nothing has changed");
    engine.delete(&DeleteRequest::from(atom.id()).force()).unwrap();
    assert!(matches!(engine.get(&GetRequest::from(atom.id())), Err(Error::NotFound(_))));
}

fn delete_stopped(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(0)) else { return };
    let atom = ended(&*engine, &create(&*engine, spec));
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    assert!(matches!(engine.delete(&DeleteRequest::from(atom.id())), Err(Error::NotFound(_))));
    assert!(matches!(engine.logs(&LogsRequest::from(atom.id())), Err(Error::NotFound(_))));
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), []);
}

fn names(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(0)) else { return };
    let spec = spec.name("nightly");
    let first = create(&*engine, spec.clone());
    match engine.create(spec.clone().into()) {
        Err(Error::NameInUse { name, by }) => {
            assert_eq!((name.as_str(), by), ("nightly", first.id()))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.list(&ListRequest::all()).unwrap().len(), 1, "nothing was created");
    ended(&*engine, &first);
    assert!(
        matches!(engine.create(spec.clone().into()), Err(Error::NameInUse { .. })),
        "stopped, and still listed"
    );
    engine.delete(&DeleteRequest::from(first.id())).unwrap();
    let second = create(&*engine, spec);
    assert_eq!(engine.find("nightly").unwrap().id(), second.id());
}

fn wait_deadline(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    let atom = create(&*engine, spec);
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        match engine.wait(&WaitRequest::from(atom.id()).timeout(timeout)) {
            Err(Error::TimedOut { id, state, waited }) => {
                assert_eq!((id, state, waited), (atom.id(), State::Running, timeout));
            }
            other => panic!("{other:?}"),
        }
    }
    engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
    engine.wait(&WaitRequest::from(atom.id()).timeout(Duration::ZERO)).unwrap();
}

fn lists(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let (Some(good), Some(bad), Some(long)) =
        (spec(fixture, &Act::Exit(0)), spec(fixture, &Act::Exit(1)), spec(fixture, &Act::Linger))
    else {
        return;
    };
    let first = ended(&*engine, &create(&*engine, good.label("team", "a").name("nightly")));
    let second = ended(&*engine, &create(&*engine, bad.label("team", "b")));
    let third = create(&*engine, long.label("team", "a"));
    let ids = |request: ListRequest| -> Vec<AtomId> {
        engine.list(&request).unwrap().iter().map(crate::Atom::id).collect()
    };
    let [a, b, c] = [first.id(), second.id(), third.id()];
    assert_eq!(ids(ListRequest::all()), [a, b, c]);
    assert_eq!(ids(ListRequest::all().limit(2)), [a, b]);
    assert_eq!(ids(ListRequest::all().state(State::Running)), [c]);
    assert_eq!(ids(ListRequest::all().outcome(Outcome::Success).outcome(Outcome::Failure)), [a, b]);
    assert_eq!(ids(ListRequest::all().label("team", "a")), [a, c]);
    assert_eq!(
        ids(ListRequest::all().label("team", "a").label(crate::LABEL, first.engine())),
        [a, c]
    );
    assert_eq!(ids(ListRequest::all().label("team", "c")), []);
    assert_eq!(ids(ListRequest::all().since(second.created_at())), [b, c]);
    assert_eq!(ids(ListRequest::all().before(second.created_at())), [a]);
    for (selector, fits) in [
        ("team=a", &[a, c][..]),
        ("team!=a", &[b]),
        ("team", &[a, b, c]),
        ("!team", &[]),
        ("!other", &[a, b, c]),
    ] {
        assert_eq!(ids(ListRequest::all().select(selector.parse().unwrap())), fits, "{selector}");
    }
    assert_eq!(ids(ListRequest::all().name("night*")), [a]);
    assert_eq!(ids(ListRequest::all().name("?")), []);
    assert_eq!(ids(ListRequest::all().newest_first()), [c, b, a]);
    assert_eq!(ids(ListRequest::all().after(a)), [b, c]);
    assert_eq!(ids(ListRequest::all().after(a).limit(1)), [b]);
    assert_eq!(ids(ListRequest::all().newest_first().after(b)), [a]);
    assert_eq!(ids(ListRequest::all().after(c)), []);
    engine.stop(&StopRequest::from(c).force()).unwrap();
}

fn logs(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let act = Act::Print { out: "to out\n".into(), err: "to err\n".into() };
    let Some(spec) = spec(fixture, &act) else { return };
    let atom = ended(&*engine, &create(&*engine, spec));
    let read = |request: LogsRequest| engine.logs(&request).unwrap().read_to_end().unwrap();
    assert_eq!(read(LogsRequest::from(atom.id()).stream(Stream::Stdout)), b"to out\n");
    assert_eq!(read(LogsRequest::from(atom.id()).stream(Stream::Stderr)), b"to err\n");
    assert_eq!(read(LogsRequest::from(atom.id())).len(), 14);
    let stopped = atom.stopped_at().unwrap();
    assert_eq!(read(LogsRequest::from(atom.id()).since(stopped.saturating_add(PAST))), b"");
    assert_eq!(read(LogsRequest::from(atom.id()).since(atom.created_at())).len(), 14);
}

/// Later than anything that a test prints.
const PAST: Duration = Duration::from_secs(3600);

fn follow(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(linger) = spec(fixture, &Act::Linger) else { return };
    let atom = create(&*engine, linger);
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| everything(&*engine, LogsRequest::from(atom.id()).follow()));
        engine.stop(&StopRequest::from(atom.id())).unwrap();
        assert_eq!(follower.join().unwrap(), b"");
    });
    let Some(print) = spec(fixture, &Act::Print { out: "to out\n".into(), err: String::new() })
    else {
        return;
    };
    let atom = create(&*engine, print);
    assert_eq!(everything(&*engine, LogsRequest::from(atom.id()).follow().lossless()), b"to out\n");
}

fn everything(engine: &dyn Engine, request: LogsRequest) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in engine.logs(&request).unwrap() {
        match item.unwrap() {
            LogItem::Chunk(chunk) => {
                assert_eq!(chunk.offset, bytes.len() as u64, "offsets count the bytes before");
                bytes.extend(chunk.bytes);
            }
            LogItem::Dropped { bytes } => panic!("{bytes} bytes were dropped"),
        }
    }
    bytes
}
