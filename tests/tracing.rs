//! What a host with a subscriber sees: `docs/tracing.md` says what, and here it happens.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::engine::{CreateRequest, DeleteRequest, StopRequest, WaitRequest};
use caesium::lifecycle::Backoff;
use caesium::{
    AtomId, AtomSpec, Durability, Engine, EngineOptions, Error, JournaledEngine, OnClose, Outcome,
    RemoteEngine, Retention, RetryPolicy,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Something that was traced; a span when it was entered.
#[derive(Debug, Clone)]
struct Traced {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
    thread: ThreadId,
    /// The span that it happened in.
    within: Option<&'static str>,
}

/// Keeps everything that comes with a name that stays.
#[derive(Debug, Default)]
struct Kept {
    traced: Mutex<Vec<Traced>>,
    came: Condvar,
    spans: Mutex<BTreeMap<u64, Traced>>,
    open: Mutex<Vec<(ThreadId, &'static str)>>,
    last: AtomicU64,
}

/// A handle of it.
#[derive(Debug, Clone, Default)]
struct Listener(Arc<Kept>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Listener {
    fn keep(&self, metadata: &'static Metadata<'static>, fields: Fields) -> Traced {
        let thread = std::thread::current().id();
        let open = self.0.open.lock();
        let within = open.iter().rev().find(|(by, _)| *by == thread).map(|(_, name)| *name);
        Traced { name: metadata.name(), fields: fields.0, thread, within }
    }

    fn add(&self, traced: Traced) {
        self.0.traced.lock().push(traced);
        self.0.came.notify_all();
    }

    /// Everything so far that has such a field.
    fn of(&self, field: &str, value: impl ToString) -> Vec<Traced> {
        let value = value.to_string();
        let traced = self.0.traced.lock();
        traced.iter().filter(|one| one.fields.get(field) == Some(&value)).cloned().collect()
    }

    /// What went on in an atom until that, by what came first.
    fn life(&self, atom: AtomId, last: &str) -> Vec<Traced> {
        self.find(|one| one.name == last && one.fields["atom"] == atom.to_string());
        let mut life = self.of("atom", atom);
        life.retain(|one| one.fields.contains_key("seq"));
        life.sort_by_key(|one| one.fields["seq"].parse::<u64>().unwrap());
        life
    }

    /// Waits until that came.
    fn find(&self, what: impl Fn(&Traced) -> bool) -> Traced {
        let deadline = Instant::now() + PATIENCE;
        let mut traced = self.0.traced.lock();
        loop {
            if let Some(found) = traced.iter().find(|one| what(one)) {
                return found.clone();
            }
            let timed_out = self.0.came.wait_until(&mut traced, deadline).timed_out();
            assert!(!timed_out, "it does not come: {traced:#?}");
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("caesium")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let id = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let traced = self.keep(span.metadata(), fields);
        self.0.spans.lock().insert(id, traced);
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if !event.metadata().name().starts_with("event ") {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.add(self.keep(event.metadata(), fields));
        }
    }

    fn enter(&self, id: &Id) {
        let span = self.0.spans.lock()[&id.into_u64()].clone();
        self.0.open.lock().push((std::thread::current().id(), span.name));
        self.add(span);
    }

    fn exit(&self, id: &Id) {
        let (thread, name) =
            (std::thread::current().id(), self.0.spans.lock()[&id.into_u64()].name);
        let mut open = self.0.open.lock();
        let place = open.iter().rposition(|span| *span == (thread, name)).unwrap();
        open.remove(place);
    }
}

/// The one of this process: the tests tell theirs by atom, store, or thread.
fn listener() -> Listener {
    static LISTENER: std::sync::OnceLock<Listener> = std::sync::OnceLock::new();
    let listen = || {
        let listener = Listener::default();
        tracing::subscriber::set_global_default(listener.clone()).unwrap();
        listener
    };
    LISTENER.get_or_init(listen).clone()
}

fn names(traced: &[Traced]) -> Vec<&'static str> {
    traced.iter().map(|one| one.name).collect()
}

fn options() -> EngineOptions {
    EngineOptions::new()
        .durability(Durability::Batched(Duration::from_millis(1)))
        .on_close(OnClose::Leave)
}

fn open(options: EngineOptions, store: &Path, world: &World) -> JournaledEngine<MemoryDriver> {
    options.open_with(store, |_| Ok(MemoryDriver::new(world.clone()))).unwrap()
}

struct Place {
    _dir: tempfile::TempDir,
    store: PathBuf,
    world: World,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        Self { _dir: dir, store, world: World::new() }
    }

    fn open(&self) -> JournaledEngine<MemoryDriver> {
        open(options(), &self.store, &self.world)
    }
}

#[test]
fn the_life_of_an_atom_is_seen_as_it_is_journaled() {
    let (listener, place) = (listener(), Place::new());
    let engine = place.open();
    let atom = engine.create(Act::Exit(3).spec().name("three").into()).unwrap();
    engine.wait(&atom.id().into()).unwrap();
    engine.delete(&atom.id().into()).unwrap();
    let journaled = engine.events(1).unwrap().map(|record| {
        let record = record.unwrap();
        (format!("atom.{}", record.event_name()), record.seq.to_string())
    });
    let life = listener.life(atom.id(), "atom.removed");
    let traced = life.iter().map(|one| (one.name.to_owned(), one.fields["seq"].clone()));
    assert_eq!(traced.collect::<Vec<_>>(), journaled.collect::<Vec<_>>());
    let field = |at: usize, name: &str| life[at].fields.get(name).map(String::as_str);
    assert_eq!(field(0, "name"), Some("three"));
    assert_eq!(field(0, "program"), Some("exit"));
    assert_eq!(field(2, "outcome"), Some("failure"));
    assert_eq!(field(2, "reason"), Some("exited"));
    assert_eq!((field(2, "exit_code"), field(2, "signal")), (Some("3"), None));
    assert_eq!(life[0].within, Some("engine.create"));
    assert_eq!(life[0].thread, std::thread::current().id());
}

#[test]
fn stops_retries_and_what_cannot_be_are_seen() {
    let (listener, place) = (listener(), Place::new());
    let engine = place.open();
    let stopped = engine.create(Act::Linger.spec().into()).unwrap();
    engine.stop(&StopRequest::from(stopped.id())).unwrap();
    let life = listener.life(stopped.id(), "atom.exited");
    let names_of_it = ["atom.created", "atom.started", "atom.stop_asked", "atom.exited"];
    assert_eq!(names(&life), names_of_it);
    assert_eq!(life[2].fields["cause"], "requested");
    assert_eq!(life[2].fields["grace_ms"], "200");

    let backoff = Backoff { initial: Duration::from_millis(1), ..Backoff::default() };
    let policy = RetryPolicy { max_attempts: 2, backoff, ..RetryPolicy::default() };
    let retried = Act::Exit(1).spec().retry(policy);
    let retried = engine.create(retried.into()).unwrap();
    engine.wait(&retried.id().into()).unwrap();
    let again = listener.find(|one| {
        one.name == "atom.created" && one.fields.get("retry_of") == Some(&retried.id().to_string())
    });
    assert_eq!(again.fields["attempt"], "2");
    let planned = listener.life(retried.id(), "atom.retry_planned").pop().unwrap();
    assert_eq!(
        (planned.name, &planned.fields["retry"]),
        ("atom.retry_planned", &again.fields["atom"])
    );

    let invalid = engine.create(Act::Linger.spec().into()).unwrap();
    place.world.contradict(invalid.id());
    let seen = listener.find(|one| {
        one.name == "atom.contradiction" && one.fields["atom"] == invalid.id().to_string()
    });
    // It is traced a moment before anybody else can see it.
    let invalid = engine.wait(&invalid.id().into()).unwrap();
    assert_eq!(seen.fields["reason"], invalid.reason().unwrap().as_str());
}

#[test]
fn a_store_is_seen_to_be_opened_adopted_compacted_and_closed() {
    let (listener, place) = (listener(), Place::new());
    let store = place.store.display().to_string();
    let engine = place.open();
    let atom = engine.create(Act::Linger.spec().into()).unwrap();
    engine.shutdown(OnClose::Leave).unwrap();
    let again = place.open();
    let opened = listener.of("store", &store);
    let expected = ["engine.open", "engine.opened", "engine.open", "engine.opened"];
    assert_eq!(names(&opened), expected);
    let field = |name: &str| opened[3].fields[name].clone();
    assert_eq!(
        (field("events"), field("atoms"), field("clean")),
        ("2".into(), "1".into(), "true".into())
    );
    assert_eq!(opened[3].within, Some("engine.open"));
    let adopted = listener.of("atom", atom.id()).into_iter().find(|one| one.name == "atom.adopted");
    assert_eq!(adopted.map(|one| one.name), Some("atom.adopted"));

    let cut = again.compact(&Retention { max_events: Some(1), max_age: None }).unwrap();
    let compacted = listener.find(|one| one.name == "journal.compacted");
    assert_eq!(compacted.fields["dropped"], cut.dropped.to_string());
    assert_eq!(compacted.within, Some("engine.compact"));
    again.shutdown(OnClose::Kill).unwrap();
    let ours = std::thread::current().id();
    let closed = listener.find(|one| {
        one.name == "engine.closed" && one.thread == ours && one.fields["policy"] == "Kill"
    });
    assert_eq!(closed.within, Some("engine.shutdown"));
    assert!(!closed.fields.contains_key("error"));
}

#[test]
fn a_torn_write_is_seen_to_be_left_out() {
    let (listener, place) = (listener(), Place::new());
    place.open().close().unwrap();
    let wal = place.store.join("wal");
    let segment = wal.read_dir().unwrap().next().unwrap().unwrap().path();
    // As if a host had opened it, and been killed while it wrote.
    let engine = place.open();
    engine.create(Act::Exit(0).spec().into()).unwrap();
    let copy = place.store.with_extension("killed");
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(copy.join("wal")).unwrap();
    for entry in place.store.read_dir().unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let mut bytes = std::fs::read(&segment).unwrap();
    // The last 512 bytes say how far it had come; the last event is before them.
    let frames = bytes.len() - 512;
    let used = bytes[..frames].iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 3..frames].fill(0);
    std::fs::write(copy.join("wal").join(segment.file_name().unwrap()), &bytes).unwrap();
    drop(open(options(), &copy, &place.world));
    let torn = listener.find(|one| one.name == "journal.torn");
    assert!(torn.fields["file"].starts_with(&copy.display().to_string()), "{torn:?}");
}

#[test]
fn who_uses_a_store_is_seen_on_both_sides() {
    let (listener, place) = (listener(), Place::new());
    let engine = open(options().serve(true), &place.store, &place.world);
    let store = place.store.display().to_string();
    assert!(names(&listener.of("store", &store)).contains(&"control.serving"));
    let client = RemoteEngine::connect(&place.store).unwrap();
    let came = listener.find(|one| one.name == "control.client_came");
    assert_eq!(came.fields["pid"], std::process::id().to_string());
    let atom = client.create(CreateRequest::from(Act::Exit(0).spec())).unwrap();
    client.wait(&WaitRequest::from(atom.id())).unwrap();
    client.delete(&DeleteRequest::from(atom.id())).unwrap();
    let ours: Vec<_> = listener.of("atom", atom.id());
    let asked = ours.iter().filter(|one| one.thread == std::thread::current().id());
    let asked = asked.map(|one| one.name).collect::<Vec<_>>();
    assert_eq!(asked, ["engine.wait", "engine.delete"], "what is asked for is a span here");
    let life = listener.life(atom.id(), "atom.removed");
    assert_eq!(life.len(), 5, "and happens there, on another thread");

    let mut stranger = UnixStream::connect(place.store.join("control.sock")).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").unwrap();
    let refused = listener.find(|one| one.name == "control.client_refused");
    assert!(refused.fields["why"].contains("cannot be understood"), "{refused:?}");
    let _ = stranger.read(&mut [0; 16]);
    drop(engine);
    listener.find(|one| one.name == "control.holder_gone");
    assert!(matches!(client.find("any"), Err(Error::HolderGone { .. })));
    listener.find(|one| one.name == "control.client_gone");
}

#[test]
fn a_keeper_is_seen_to_die_and_its_atom_lives_on() {
    let (listener, place) = (listener(), Place::new());
    let engine = caesium::ProcessEngine::options()
        .supervision(caesium::driver::process::Supervision::Keeper)
        .keeper_program(env!("CARGO_BIN_EXE_caesium"))
        .open(&place.store)
        .unwrap();
    let spec = AtomSpec::command("sleep").arg("3600").grace(Duration::from_secs(1));
    let atom = engine.create(spec.into()).unwrap();
    let socket = UnixStream::connect(place.store.join("keeper.sock")).unwrap();
    let keeper = rustix::net::sockopt::socket_peercred(&socket).unwrap().pid;
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    listener.find(|one| one.name == "keeper.died");
    let stopped = engine.stop(&StopRequest::from(atom.id())).unwrap();
    assert_eq!(stopped.result(), Some(Outcome::Terminated));
}
