//! Closing an engine, by whichever handle and in the midst of everything: no panic, no hang, no lost event.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::engine::{CreateRequest, ListRequest, StopRequest, WaitRequest};
use caesium::{
    AtomId, Durability, Engine, EngineOptions, Error, JournaledEngine, OnClose, Outcome, State,
};

const LONG: Duration = Duration::from_secs(3600);

fn open(dir: &Path, world: &World, on_close: OnClose) -> JournaledEngine<MemoryDriver> {
    EngineOptions::new()
        .on_close(on_close)
        .durability(Durability::Batched(Duration::from_millis(5)))
        .open_with(dir.join("store"), |_| Ok(MemoryDriver::new(world.clone())))
        .unwrap()
}

#[test]
fn an_engine_is_open_as_long_as_one_handle_is_left() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let first = open(dir.path(), &world, OnClose::Leave);
    let second = first.clone();
    drop(first);
    let atom = second.create(Act::Linger.spec().into()).unwrap();
    let third = second.clone();
    let closed = std::thread::spawn(move || drop(second));
    closed.join().unwrap();
    assert_eq!(third.get(&atom.id().into()).unwrap().state(), State::Running);
    drop(third);
    assert_eq!(world.living(), [atom.id()], "left, as it was opened to be");
    let again = open(dir.path(), &world, OnClose::Stop);
    assert_eq!(again.get(&atom.id().into()).unwrap(), atom);
    drop(again);
    assert_eq!(world.living(), []);
}

#[test]
fn one_handle_closes_for_all() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world, OnClose::Leave);
    let other = engine.clone();
    let atom = engine.create(Act::Linger.spec().into()).unwrap();
    engine.close().unwrap();
    assert!(matches!(other.create(Act::Exit(0).spec().into()), Err(Error::Closed)));
    assert!(matches!(other.wait(&WaitRequest::from(atom.id())), Err(Error::Closed)));
    other.shutdown(OnClose::Kill).unwrap();
    assert_eq!(world.living(), [atom.id()], "what is closed is not closed again");
}

#[test]
fn the_policy_says_what_becomes_of_what_lives() {
    for (policy, outcome) in [
        (OnClose::Stop, Some(Outcome::Terminated)),
        (OnClose::Kill, Some(Outcome::Killed)),
        (OnClose::Leave, None),
    ] {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
        let engine = open(dir.path(), &world, OnClose::Stop);
        let atoms: Vec<_> =
            (0..5).map(|_| engine.create(Act::Linger.spec().grace(LONG).into()).unwrap()).collect();
        engine.shutdown(policy).unwrap();
        assert_eq!(world.living().len(), if policy == OnClose::Leave { 5 } else { 0 });
        let again = open(dir.path(), &world, OnClose::Kill);
        for atom in atoms {
            assert_eq!(again.get(&atom.id().into()).unwrap().result(), outcome, "{policy:?}");
        }
    }
}

#[test]
fn a_harsher_close_overtakes_a_patient_one() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world, OnClose::Stop);
    let atom = engine.create(Act::IgnoreTerm.spec().grace(LONG).into()).unwrap();
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| engine.shutdown(OnClose::Stop));
        let mut events = engine.subscribe(1);
        while events.next(None).unwrap().unwrap().event_name() != "stop_asked" {}
        assert!(!patient.is_finished());
        engine.shutdown(OnClose::Kill).unwrap();
        patient.join().unwrap().unwrap();
    });
    let again = open(dir.path(), &world, OnClose::Kill);
    assert_eq!(again.get(&atom.id().into()).unwrap().result(), Some(Outcome::Killed));
}

#[test]
fn closing_in_the_midst_of_everything_loses_nothing_that_was_acknowledged() {
    for round in 0..20 {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
        let engine = open(dir.path(), &world, OnClose::Kill);
        let acknowledged = AtomicUsize::new(0);
        let created: HashSet<AtomId> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|worker| {
                    let (engine, acknowledged) = (engine.clone(), &acknowledged);
                    scope.spawn(move || {
                        let mut created = Vec::new();
                        loop {
                            let request = CreateRequest::from(Act::Linger.spec());
                            let atom = match engine.create(request) {
                                Ok(atom) => atom,
                                Err(Error::Closed | Error::InDoubt(_)) => return created,
                                Err(error) => panic!("{error:?}"),
                            };
                            created.push(atom.id());
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            if worker % 2 == 0 {
                                match engine.stop(&StopRequest::from(atom.id()).force()) {
                                    Ok(_) | Err(Error::Closed | Error::InDoubt(_)) => {}
                                    Err(error) => panic!("{error:?}"),
                                }
                            }
                        }
                    })
                })
                .collect();
            let follower = scope.spawn(|| {
                let mut events = engine.subscribe(1);
                let mut last = 0;
                while let Ok(Some(event)) = events.next(None) {
                    assert_eq!(event.seq, last + 1);
                    last = event.seq;
                }
                last
            });
            while acknowledged.load(Ordering::Relaxed) < 1 + round * 3 {
                std::thread::yield_now();
            }
            engine.shutdown(OnClose::Kill).unwrap();
            let last = follower.join().unwrap();
            assert!(last >= engine.durable_seq().unwrap(), "the follower saw all of it");
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(world.living(), []);
        drop(engine);
        let again = open(dir.path(), &world, OnClose::Kill);
        let listed = again.list(&ListRequest::all()).unwrap();
        assert!(listed.iter().all(|atom| atom.state() == State::Stopped), "{listed:#?}");
        let listed: HashSet<AtomId> = listed.iter().map(caesium::Atom::id).collect();
        assert!(created.is_subset(&listed), "something acknowledged is lost");
        again.verify().unwrap();
    }
}
