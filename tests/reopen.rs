//! What a reopened store knows: reconciling the journal with a world that went on without it.
//!
//! The driver is the one in memory, whose world outlives the host; the store is real.

use std::path::Path;
use std::time::Duration;

use caesium::driver::Driver;
use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::engine::{
    DeleteRequest, GetRequest, ListRequest, LogsRequest, StopRequest, WaitRequest,
};
use caesium::lifecycle::{Backoff, OnInvalid, OutcomeSet, Reason, RetryPolicy, WaitStatus};
use caesium::{
    Atom, AtomId, AtomSpec, Engine, EngineOptions, JournaledEngine, OnClose, Outcome, State,
};

type MemoryEngine = JournaledEngine<MemoryDriver>;

const LONG: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(60);

fn open(store: &Path, world: &World) -> MemoryEngine {
    EngineOptions::new()
        .on_close(OnClose::Leave)
        .open_with(store.join("store"), |_| Ok(MemoryDriver::new(world.clone())))
        .unwrap()
}

fn get(engine: &MemoryEngine, atom: &Atom) -> Atom {
    engine.get(&GetRequest::from(atom.id())).unwrap()
}

fn ended(engine: &MemoryEngine, id: AtomId) -> Atom {
    engine.wait(&WaitRequest::from(id).timeout(PATIENCE)).unwrap()
}

fn until(engine: &MemoryEngine, shows: impl Fn(&[Atom]) -> bool) -> Vec<Atom> {
    let mut events = engine.subscribe(1);
    loop {
        let atoms = engine.list(&ListRequest::all()).unwrap();
        if shows(&atoms) {
            return atoms;
        }
        let patience = std::time::Instant::now() + PATIENCE;
        assert!(events.next(Some(patience)).unwrap().is_some(), "never seen; there is {atoms:#?}");
    }
}

fn ending(atom: &Atom) -> (State, Option<Outcome>, Option<Reason>) {
    (atom.state(), atom.result(), atom.reason())
}

/// Creates an atom, lets the world go on as `meanwhile` says while no host is there, and comes back.
fn across(
    spec: AtomSpec,
    meanwhile: impl FnOnce(&World, AtomId),
) -> (tempfile::TempDir, World, MemoryEngine, Atom) {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let atom = engine.create(spec.into()).unwrap();
    engine.close().unwrap();
    meanwhile(&world, atom.id());
    let engine = open(dir.path(), &world);
    (dir, world, engine, atom)
}

#[test]
fn what_has_stopped_is_found_as_it_was() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let atoms: Vec<Atom> =
        [Act::Exit(0), Act::Exit(9), Act::Signal(11), Act::FailToStart(Reason::BadWorkdir)]
            .iter()
            .map(|act| {
                ended(&engine, engine.create(act.spec().label("k", "v").into()).unwrap().id())
            })
            .collect();
    engine.close().unwrap();
    let engine = open(dir.path(), &world);
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), atoms);
    assert_eq!(engine.verify().unwrap().atoms, 4);
}

#[test]
fn what_lives_is_adopted() {
    let (_dir, _world, engine, atom) = across(Act::ExitOnTerm(4).spec(), |_, _| ());
    assert_eq!(get(&engine, &atom), atom, "nothing has changed, and nothing was written");
    let stopped = engine.stop(&StopRequest::from(atom.id())).unwrap();
    assert_eq!(
        ending(&stopped),
        (State::Stopped, Some(Outcome::Terminated), Some(Reason::Stopped))
    );
    assert_eq!((stopped.pid(), stopped.exit_code()), (atom.pid(), Some(4)));
}

#[test]
fn what_ended_meanwhile_has_its_true_ending() {
    let (_dir, _world, engine, atom) =
        across(Act::Linger.spec(), |world, id| world.end(id, WaitStatus::Exited { code: 7 }));
    let atom = get(&engine, &atom);
    assert_eq!(ending(&atom), (State::Stopped, Some(Outcome::Failure), Some(Reason::Exited)));
    assert_eq!(atom.exit_code(), Some(7));
}

#[test]
fn a_reboot_leaves_the_outcome_unknown() {
    let (_dir, world, engine, atom) = across(Act::Linger.spec(), |world, _| world.reboot());
    let atom = get(&engine, &atom);
    assert_eq!(ending(&atom), (State::Stopped, Some(Outcome::Unknown), Some(Reason::HostRebooted)));
    assert_eq!(world.living(), []);
}

#[test]
fn a_create_whose_host_died_before_the_start_is_withdrawn() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    world.hold_starts(true);
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| engine.create(Act::Linger.spec().into()));
        until(&engine, |atoms| !atoms.is_empty());
        // The host goes while its create hangs.
        engine.shutdown(OnClose::Leave).unwrap();
        let error = creating.join().unwrap().unwrap_err();
        assert!(matches!(error, caesium::Error::InDoubt(_)), "it is journaled: {error:?}");
    });
    drop(engine);
    world.hold_starts(false);
    let engine = open(dir.path(), &world);
    let atoms = engine.list(&ListRequest::all()).unwrap();
    assert_eq!(atoms.len(), 1);
    assert_eq!(
        ending(&atoms[0]),
        (State::Stopped, Some(Outcome::StartupFailure), Some(Reason::NeverStarted))
    );
    assert_eq!(world.living(), [], "it is not started later");
}

#[test]
fn a_stop_that_was_under_way_goes_on() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let atom = engine.create(Act::IgnoreTerm.spec().into()).unwrap();
    std::thread::scope(|scope| {
        scope
            .spawn(|| engine.stop(&StopRequest::from(atom.id()).grace(Duration::from_millis(300))));
        until(&engine, |atoms| atoms[0].state() == State::Stopping);
        engine.shutdown(OnClose::Leave).unwrap();
    });
    drop(engine);
    let engine = open(dir.path(), &world);
    let atom = ended(&engine, atom.id());
    assert_eq!(ending(&atom), (State::Stopped, Some(Outcome::Killed), Some(Reason::StopForced)));
}

#[test]
fn a_deadline_holds_for_the_next_host() {
    let spec = Act::Linger.spec().timeout(Duration::from_millis(200));
    let (_dir, _world, engine, atom) = across(spec, |_, _| ());
    let atom = ended(&engine, atom.id());
    assert_eq!(ending(&atom), (State::Stopped, Some(Outcome::Terminated), Some(Reason::Deadline)));
}

#[test]
fn a_deletion_that_was_under_way_is_finished() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let atom = ended(&engine, engine.create(Act::Exit(0).spec().into()).unwrap().id());
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    engine.close().unwrap();
    let engine = open(dir.path(), &world);
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), []);
    let events: Vec<_> = engine.events(1).unwrap().map(|event| event.unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event.event_name()).collect();
    assert_eq!(names, ["created", "started", "exited", "delete_asked", "removed"]);
    assert_eq!(events.last().unwrap().state, State::Deleted);
    assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
}

fn retry(initial: Duration) -> RetryPolicy {
    let backoff = Backoff { initial, max: LONG, factor: 1.0, jitter: 0.0 };
    RetryPolicy { max_attempts: 2, backoff, on: OutcomeSet::FAILURES }
}

#[test]
fn a_planned_retry_survives_reopening() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let spec = Act::Exit(1).spec().retry(retry(Duration::from_millis(400)));
    let atom = engine.create(spec.into()).unwrap();
    let planned =
        until(&engine, |atoms| atoms[0].planned_retry().is_some())[0].planned_retry().unwrap();
    engine.close().unwrap();
    let engine = open(dir.path(), &world);
    let atoms = until(&engine, |atoms| atoms.len() == 2 && atoms[1].state() == State::Stopped);
    assert_eq!(atoms[1].id(), planned.id, "the very atom that was planned");
    assert_eq!((atoms[1].retry_of(), atoms[1].attempt()), (Some(atom.id()), 2));
    assert!(atoms[1].created_at() >= planned.due, "not before its time");
}

#[test]
fn a_retry_without_the_host_that_knew_its_secret_is_withdrawn() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let spec =
        Act::Exit(1).spec().secret_env("TOKEN", "hush").retry(retry(Duration::from_millis(300)));
    engine.create(spec.into()).unwrap();
    until(&engine, |atoms| atoms[0].planned_retry().is_some());
    engine.close().unwrap();
    let engine = open(dir.path(), &world);
    let atoms = until(&engine, |atoms| atoms.len() == 2 && atoms[1].state() == State::Stopped);
    assert_eq!(
        ending(&atoms[1]),
        (State::Stopped, Some(Outcome::StartupFailure), Some(Reason::NeverStarted))
    );
    assert!(atoms[1].detail().unwrap().contains("TOKEN"));
    assert!(!atoms[1].detail().unwrap().contains("hush"));
}

#[test]
fn an_invalid_atom_is_kept_and_deleting_it_ends_what_runs() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let mut alerts = engine.subscribe(1);
    let atom = engine.create(Act::Linger.spec().into()).unwrap();
    world.contradict(atom.id());
    let atom = ended(&engine, atom.id());
    assert_eq!(ending(&atom), (State::Invalid, None, Some(Reason::IdentityMismatch)));
    let patience = Some(std::time::Instant::now() + PATIENCE);
    let told = std::iter::from_fn(|| alerts.next(patience).unwrap())
        .find(|event| event.state == State::Invalid);
    assert_eq!(told.unwrap().event_name(), "contradiction");
    assert!(matches!(
        engine.stop(&StopRequest::from(atom.id())),
        Err(caesium::Error::Rejected { .. })
    ));
    engine.close().unwrap();
    let engine = open(dir.path(), &world);
    assert_eq!(get(&engine, &atom), atom, "it is kept across reopening");
    assert_eq!(world.living(), [atom.id()]);
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    assert_eq!(world.living(), []);
}

#[test]
fn an_invalid_atom_is_deleted_when_its_policy_says_so() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let atom = engine.create(Act::Linger.spec().on_invalid(OnInvalid::Delete).into()).unwrap();
    world.contradict(atom.id());
    until(&engine, <[Atom]>::is_empty);
    assert_eq!((world.living(), world.places()), (vec![], 0));
}

#[test]
fn an_invalid_atom_is_retried_when_its_policy_says_so() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let spec = Act::Linger
        .spec()
        .name("one")
        .on_invalid(OnInvalid::Retry)
        .retry(retry(Duration::from_millis(1)));
    let first = engine.create(spec.into()).unwrap();
    world.contradict(first.id());
    let atoms = until(&engine, |atoms| {
        atoms.len() == 1 && atoms[0].id() != first.id() && atoms[0].pid().is_some()
    });
    assert_eq!((atoms[0].retry_of(), atoms[0].attempt()), (Some(first.id()), 2));
    assert_eq!(engine.find("one").unwrap().id(), atoms[0].id());
    assert_eq!(world.living(), [atoms[0].id()], "the first one was ended before the second began");
    let events: Vec<_> = engine.events(1).unwrap().map(|event| event.unwrap()).collect();
    let removed = events.iter().position(|event| event.event_name() == "removed").unwrap();
    let started = events.iter().rposition(|event| event.event_name() == "started").unwrap();
    assert!(removed < started);
}

#[test]
fn closing_stops_what_lives_unless_told_to_leave_it() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let stop = EngineOptions::new().on_close(OnClose::Stop);
    let engine =
        stop.open_with(dir.path().join("store"), |_| Ok(MemoryDriver::new(world.clone()))).unwrap();
    let atoms: Vec<Atom> =
        (0..5).map(|_| engine.create(Act::Linger.spec().into()).unwrap()).collect();
    engine.close().unwrap();
    assert_eq!(world.living(), []);
    let engine = open(dir.path(), &world);
    for atom in atoms {
        assert_eq!(
            ending(&get(&engine, &atom)),
            (State::Stopped, Some(Outcome::Terminated), Some(Reason::Stopped))
        );
    }
}

#[test]
fn without_room_nothing_is_created() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    world.room_for(Some(1));
    engine.create(Act::Exit(0).spec().into()).unwrap();
    let error = engine.create(Act::Exit(0).spec().into()).unwrap_err();
    assert!(error.to_string().contains("ran out"), "{error}");
    assert_eq!((engine.list(&ListRequest::all()).unwrap().len(), world.places()), (1, 1));
}

#[test]
fn a_log_is_read_after_reopening() {
    let act = Act::Print { out: "hello".into(), err: String::new() };
    let (_dir, _world, engine, atom) = across(act.spec(), |_, _| ());
    assert_eq!(
        engine.logs(&LogsRequest::from(atom.id())).unwrap().read_to_end().unwrap(),
        b"hello"
    );
}

#[test]
fn what_was_set_aside_for_an_atom_that_the_journal_does_not_know_is_removed() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let driver = MemoryDriver::new(world.clone());
    driver.prepare(AtomId::new(), &Act::Linger.spec(), None).unwrap();
    drop(driver);
    assert_eq!(world.places(), 1);
    let engine = open(dir.path(), &world);
    assert_eq!(world.places(), 0);
    assert_eq!(engine.list(&ListRequest::all()).unwrap(), []);
}

#[test]
fn closing_lets_no_retry_in_while_it_waits_for_a_slow_stop() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let stop = EngineOptions::new().on_close(OnClose::Stop);
    let engine =
        stop.open_with(dir.path().join("store"), |_| Ok(MemoryDriver::new(world.clone()))).unwrap();
    engine.create(Act::IgnoreTerm.spec().grace(Duration::from_millis(600)).into()).unwrap();
    let failing = Act::Exit(1).spec().retry(retry(Duration::from_millis(100)));
    let failed = engine.create(failing.into()).unwrap();
    until(&engine, |atoms| atoms[1].planned_retry().is_some());
    engine.close().unwrap();
    assert_eq!(world.living(), []);
    let engine = open(dir.path(), &world);
    assert_eq!(get(&engine, &failed).attempt(), 1);
    until(&engine, |atoms| atoms.len() == 3 && atoms[2].state() == State::Stopped);
}

#[test]
fn an_engine_that_only_looks_carries_out_no_policy() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    let spec = Act::Exit(1).spec().retry(retry(Duration::from_millis(300)));
    engine.create(spec.into()).unwrap();
    until(&engine, |atoms| atoms[0].planned_retry().is_some());
    engine.close().unwrap();
    let looking = EngineOptions::new().on_close(OnClose::Leave).policies(false);
    let looking = looking
        .open_with(dir.path().join("store"), |_| Ok(MemoryDriver::new(world.clone())))
        .unwrap();
    // It goes through the whole machinery after the retry is due.
    let patient =
        looking.create(Act::Linger.spec().timeout(Duration::from_millis(500)).into()).unwrap();
    ended(&looking, patient.id());
    assert_eq!(looking.list(&ListRequest::all()).unwrap().len(), 2);
    looking.close().unwrap();
    let engine = open(dir.path(), &world);
    until(&engine, |atoms| atoms.len() == 3);
}

#[test]
fn deleting_an_atom_whose_retry_is_overdue_starts_nothing() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let engine = open(dir.path(), &world);
    world.room_for(Some(1));
    let spec = Act::Exit(1).spec().retry(retry(Duration::from_millis(1)));
    let atom = engine.create(spec.into()).unwrap();
    until(&engine, |atoms| {
        atoms[0]
            .planned_retry()
            .is_some_and(|planned| planned.due < atoms[0].life().latest().saturating_add(LONG))
    });
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    world.room_for(None);
    engine.close().unwrap();
    let engine = open(dir.path(), &world);
    assert_eq!((engine.list(&ListRequest::all()).unwrap(), world.places()), (vec![], 0));
}
