//! What the journal tells through an engine: events, subscriptions, checks, and what is let go.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_core::Stream;

use super::{Case, Fixture, PATIENCE, create, ended, spec};
use crate::atom::{Atom, AtomId};
use crate::driver::memory::Act;
use crate::engine::{DeleteRequest, Engine, Error, EventStream, StopRequest, Subscription};
use crate::journal::{JournalError, Record, Retention};
use crate::lifecycle::State;
use crate::wakers::block_on;

pub(super) const CASES: &[Case] = &[
    ("events are numbered from 1 and tell every life in order", numbered),
    ("a subscriber sees what was and what comes, without a gap", subscribes),
    ("a subscriber waits no longer than it wants to", patience),
    ("who must not block sees the same events", streams),
    ("verify and stats say what the events say", agrees),
    ("what is compacted away is told, and atoms stay", compacts),
];

const LIFE: [&str; 5] = ["created", "started", "exited", "delete_asked", "removed"];

/// An atom that ends and is deleted: the events of [`LIFE`].
fn live(fixture: &dyn Fixture, engine: &dyn Engine) -> Option<AtomId> {
    let atom = ended(engine, &create(engine, spec(fixture, &Act::Exit(0))?));
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    Some(atom.id())
}

fn names(records: &[Arc<Record>]) -> Vec<&'static str> {
    records.iter().map(|record| record.event_name()).collect()
}

fn numbered(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    assert_eq!(engine.durable_seq().unwrap(), 0);
    assert_eq!(engine.events(1).unwrap().count(), 0);
    for _ in 0..3 {
        if live(fixture, &*engine).is_none() {
            return;
        }
    }
    let events: Vec<_> = engine.events(1).unwrap().map(|event| Arc::new(event.unwrap())).collect();
    assert_eq!(names(&events), LIFE.repeat(3));
    assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
    assert!(events.chunks(5).all(|life| life[4].state == State::Deleted));
    assert_eq!(engine.durable_seq().unwrap(), 15);
    let late: Vec<_> = engine.events(14).unwrap().map(|event| Arc::new(event.unwrap())).collect();
    assert_eq!(late, events[13..]);
    assert_eq!(engine.events(16).unwrap().count(), 0);
}

fn take(subscription: &mut Subscription, count: usize) -> Vec<Arc<Record>> {
    let deadline = Some(Instant::now() + PATIENCE);
    let mut next = || subscription.next(deadline).unwrap().expect("an event in time");
    (0..count).map(|_| next()).collect()
}

fn subscribes(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(first) = live(fixture, &*engine) else { return };
    let mut subscription = engine.subscribe(2);
    assert_eq!(names(&take(&mut subscription, 4)), LIFE[1..]);
    assert_eq!(subscription.position(), 6);
    let second = std::thread::scope(|scope| {
        let taken = scope.spawn(|| take(&mut subscription, 5));
        let second = live(fixture, &*engine);
        let taken = taken.join().unwrap();
        assert_eq!(names(&taken), LIFE);
        assert!(taken.iter().all(|event| Some(event.atom) == second && event.atom != first));
        second
    });
    assert!(second.is_some());
}

fn patience(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let mut subscription = engine.subscribe(1);
    assert_eq!(subscription.next(Some(Instant::now())).unwrap(), None);
    if live(fixture, &*engine).is_some() {
        assert_eq!(names(&take(&mut subscription, 5)), LIFE);
        assert_eq!(subscription.next(Some(Instant::now())).unwrap(), None);
    }
}

/// The next events of a stream, awaited.
fn awaited(stream: &mut EventStream, count: usize) -> Vec<Arc<Record>> {
    let mut next = || {
        let event = block_on(std::future::poll_fn(|cx| pin!(&mut *stream).poll_next(cx)));
        event.expect("the stream goes on").unwrap()
    };
    (0..count).map(|_| next()).collect()
}

fn streams(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    if live(fixture, &*engine).is_none() {
        return;
    }
    let mut stream = engine.subscribe(1).into_stream();
    assert_eq!(names(&awaited(&mut stream, 5)), LIFE);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| awaited(&mut stream, 5));
        live(fixture, &*engine);
        assert_eq!(names(&waits.join().unwrap()), LIFE);
    });
    // One that is dropped while it waits holds up nobody.
    let mut given_up = engine.subscribe(11).into_stream();
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(pin!(&mut given_up).poll_next(&mut context).is_pending());
    drop(given_up);
    live(fixture, &*engine);
    assert_eq!(names(&awaited(&mut stream, 5)), LIFE);
}

fn agrees(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(linger) = spec(fixture, &Act::Linger) else { return };
    for _ in 0..3 {
        live(fixture, &*engine);
    }
    let atom = create(&*engine, linger);
    engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
    let events = engine.events(1).unwrap().count() as u64;
    let (verified, stats) = (engine.verify().unwrap(), engine.stats().unwrap());
    assert_eq!((verified.oldest, verified.events, verified.atoms), (1, events, 1));
    assert_eq!((stats.oldest, stats.events, stats.atoms), (1, events, 1));
    assert_eq!((stats.recent, stats.durable, stats.in_doubt), (events, events, 0));
    assert_eq!(engine.durable_seq().unwrap(), events);
}

fn compacts(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(linger) = spec(fixture, &Act::Linger) else { return };
    let kept = create(&*engine, linger);
    for _ in 0..3 {
        live(fixture, &*engine);
    }
    let events = engine.durable_seq().unwrap();
    let compacted = engine.compact(&Retention { max_events: Some(4), max_age: None }).unwrap();
    assert!(compacted.dropped > 0 && compacted.oldest == compacted.dropped + 1, "{compacted:?}");
    match engine.events(1) {
        Err(Error::Journal(JournalError::Compacted { asked: 1, oldest })) => {
            assert_eq!(oldest, compacted.oldest);
        }
        other => panic!("{other:?}"),
    }
    let mut subscription = engine.subscribe(1);
    let next = match subscription.next(Some(Instant::now() + PATIENCE)) {
        Err(Error::Journal(JournalError::Lagged { at: 1, .. })) => {
            assert_eq!(subscription.skip_to_oldest(), compacted.dropped);
            compacted.oldest
        }
        // It may still be in memory.
        Ok(Some(event)) if event.seq == 1 => 2,
        other => panic!("{other:?}"),
    };
    assert_eq!((subscription.position(), subscription.skip_to_oldest()), (next, 0));
    let rest = take(&mut subscription, (events + 1 - next) as usize);
    assert_eq!((rest[0].seq, rest[rest.len() - 1].seq), (next, events));
    let atom: Atom = engine.get(&kept.id().into()).unwrap();
    assert_eq!(atom, kept);
    engine.stop(&StopRequest::from(kept.id()).force()).unwrap();
    assert_eq!(engine.verify().unwrap().oldest, compacted.oldest);
}
