//! Waiting, following and subscribing under any executor, or none: never blocking its thread, and free to be given up.
//!
//! Every scenario runs on one thread: if anything blocked it, nothing would ever happen again.

#![cfg(target_os = "linux")]

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::driver::process::Supervision;
use caesium::engine::{EventStream, LogStream, LogsRequest, StopRequest};
use caesium::lifecycle::WaitStatus;
use caesium::log::LogItem;
use caesium::{
    AtomSpec, Durability, Engine, EngineOptions, JournaledEngine, Outcome, ProcessEngine,
    RemoteEngine,
};
use smol::stream::StreamExt;

/// An engine whose atoms act in memory, and another one that is served by it.
struct Pair {
    _dir: tempfile::TempDir,
    world: World,
    local: JournaledEngine<MemoryDriver>,
    remote: RemoteEngine,
}

impl Pair {
    fn new() -> Self {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
        let store = dir.path().join("store");
        let options = EngineOptions::new().serve(true).durability(Durability::Memory);
        let local = options.open_with(&store, |_| Ok(MemoryDriver::new(world.clone()))).unwrap();
        let remote = RemoteEngine::connect(&store).unwrap();
        Self { _dir: dir, world, local, remote }
    }

    fn both(&self) -> [Arc<dyn Engine>; 2] {
        [Arc::new(self.local.clone()), Arc::new(self.remote.clone())]
    }
}

async fn all_of(mut stream: LogStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(item) = stream.next().await {
        match item.unwrap() {
            LogItem::Chunk(chunk) => bytes.extend(chunk.bytes),
            LogItem::Dropped { bytes } => panic!("{bytes} bytes were dropped"),
        }
    }
    bytes
}

async fn next_names(stream: &mut EventStream, count: usize) -> Vec<&'static str> {
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(stream.next().await.unwrap().unwrap().event_name());
    }
    names
}

/// Gives way to whatever else is to be done on this thread, once.
async fn give_way() {
    let mut gave = false;
    poll_fn(|context| {
        if std::mem::replace(&mut gave, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Everything that waits, at the same time, on one thread; what is waited for happens on the same thread, later.
async fn scenario(engine: Arc<dyn Engine>, world: World) {
    let before = engine.durable_seq().unwrap();
    let mut events = engine.subscribe(before + 1).into_stream();
    let [first, second] = [(); 2].map(|()| engine.create(Act::Linger.spec().into()).unwrap());
    assert_eq!(next_names(&mut events, 4).await, ["created", "started", "created", "started"]);
    let logs = engine.logs(&LogsRequest::from(first.id()).follow()).unwrap().into_stream();
    let any_is_known = std::sync::atomic::AtomicBool::new(false);
    let waits = async {
        let ids = vec![second.id(), first.id()];
        let any = engine.wait_any_async(ids.clone()).await.unwrap();
        any_is_known.store(true, Ordering::Relaxed);
        let one = engine.wait_async(first.id()).await.unwrap();
        (any, one, engine.wait_all_async(ids).await.unwrap())
    };
    let happens = async {
        world.end(first.id(), WaitStatus::Exited { code: 3 });
        while !any_is_known.load(Ordering::Relaxed) {
            give_way().await;
        }
        world.end(second.id(), WaitStatus::Exited { code: 3 });
    };
    let follows = async { next_names(&mut events, 2).await };
    let ((printed, (any, one, all)), ((), names)) = smol::future::zip(
        smol::future::zip(all_of(logs), waits),
        smol::future::zip(happens, follows),
    )
    .await;
    assert_eq!(printed, b"");
    assert_eq!((any.id(), one.id()), (first.id(), first.id()));
    assert_eq!(all.iter().map(|atom| atom.exit_code()).collect::<Vec<_>>(), [Some(3), Some(3)]);
    assert_eq!(names, ["exited", "exited"]);
    given_up(&*engine, &mut events).await;
}

/// What is given up at any moment misses nothing later.
async fn given_up(engine: &dyn Engine, events: &mut EventStream) {
    let atom = engine.create(Act::Linger.spec().into()).unwrap();
    let mut names = Vec::new();
    while names.len() < 2 {
        // Polled once, and dropped.
        let mut next = pin!(smol::future::poll_once(events.next()));
        if let Some(event) = next.as_mut().await {
            names.push(event.unwrap().unwrap().event_name());
        }
        let waits = smol::future::poll_once(engine.wait_async(atom.id()));
        assert!(waits.await.is_none());
        give_way().await;
    }
    assert_eq!(names, ["created", "started"]);
}

/// The least that an executor can be: one thread, which sleeps when there is nothing to do.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Parked(std::thread::Thread);
    impl Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Parked(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn under_nothing_but_a_thread_that_parks() {
    let pair = Pair::new();
    for engine in pair.both() {
        block_on(scenario(engine, pair.world.clone()));
    }
}

#[test]
fn under_tokio_on_one_thread() {
    let pair = Pair::new();
    for engine in pair.both() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(scenario(engine, pair.world.clone()));
    }
}

#[test]
fn under_tokio_on_many_threads() {
    let pair = Pair::new();
    for engine in pair.both() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            // What waits can be sent to another thread.
            tokio::spawn(scenario(engine.clone(), pair.world.clone())).await.unwrap();
            let atom = engine.create(Act::Linger.spec().into()).unwrap();
            let late =
                tokio::time::timeout(Duration::from_millis(20), engine.wait_async(atom.id()));
            assert!(late.await.is_err(), "a timeout of the executor's own");
        });
    }
}

#[test]
fn under_smol() {
    let pair = Pair::new();
    for engine in pair.both() {
        let executor = smol::LocalExecutor::new();
        let task = executor.spawn(scenario(engine, pair.world.clone()));
        smol::block_on(executor.run(task));
    }
}

#[test]
fn an_engine_can_be_shared_and_sent() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn sent<T: Send + Unpin + 'static>() {}
    shared::<ProcessEngine>();
    shared::<RemoteEngine>();
    shared::<Arc<dyn Engine>>();
    sent::<EventStream>();
    sent::<LogStream>();
    sent::<caesium::Waiting<caesium::Atom>>();
    sent::<caesium::Subscription>();
    sent::<caesium::Logs>();
    sent::<caesium::Events>();
}

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(|task| Some(name(task.ok()?)?.trim().to_owned())).collect()
}

/// Says to this binary which test it is to be, in a process of its own.
const ALONE: &str = "CAESIUM_TEST_ALONE";

fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in its own process");
}

#[test]
fn ten_thousand_waits_need_no_thread() {
    alone("ten_thousand_waits_need_no_thread", || {
        let pair = Pair::new();
        let atom = pair.local.create(Act::Linger.spec().into()).unwrap();
        let before = threads();
        let mut waits: Vec<Pin<Box<_>>> =
            (0..10_000).map(|_| Box::pin(pair.local.wait_async(atom.id()))).collect();
        let mut context = Context::from_waker(Waker::noop());
        for wait in &mut waits {
            assert!(wait.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(threads().len(), before.len());
        // Most are given up again; the others are told.
        waits.truncate(100);
        pair.world.end(atom.id(), WaitStatus::Exited { code: 0 });
        for wait in waits {
            assert_eq!(block_on(wait).unwrap().result(), Some(Outcome::Success));
        }
    });
}

#[test]
fn what_is_on_disk_is_read_by_a_thread_of_the_engines_own() {
    alone("what_is_on_disk_is_read_by_a_thread_of_the_engines_own", || {
        let dir = tempfile::tempdir().unwrap();
        let options = EngineOptions::new().supervision(Supervision::InHost);
        let engine = options.open(dir.path().join("one")).unwrap();
        let has_reader = || threads().iter().any(|name| name == "caesium-reads");
        let spec = AtomSpec::command("sh").args(["-c", "seq 100000"]);
        let atom = engine.create(spec.into()).unwrap();
        block_on(engine.wait_async(atom.id())).unwrap();
        // The newest events are in memory.
        let mut newest = engine.subscribe(1).into_stream();
        assert_eq!(block_on(next_names(&mut newest, 3)), ["created", "started", "exited"]);
        assert!(!has_reader());
        let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
        let logs = engine.logs(&LogsRequest::from(atom.id())).unwrap().into_stream();
        assert!(block_on(all_of(logs)) == numbers.as_bytes());
        assert!(has_reader());
        // And 1,024 of them are: the others are read from disk, some from the history.
        let options = EngineOptions::new().segment_bytes(65536);
        let memory = |_: caesium::engine::DriverHome<'_>| Ok(MemoryDriver::new(World::new()));
        let engine = options.open_with(dir.path().join("two"), memory).unwrap();
        let created = engine.create_many(vec![Act::Exit(0).spec().into(); 600]).unwrap();
        let ids = created.iter().map(|atom| atom.as_ref().unwrap().id()).collect();
        block_on(engine.wait_all_async(ids)).unwrap();
        let mut all = engine.subscribe(1).into_stream();
        block_on(async {
            for seq in 1..=engine.durable_seq().unwrap() {
                assert_eq!(all.next().await.unwrap().unwrap().seq, seq);
            }
        });
    });
}

#[test]
fn what_waits_when_its_engine_is_closed_is_told() {
    let pair = Pair::new();
    let atom = pair.local.create(Act::Linger.spec().into()).unwrap();
    for engine in pair.both() {
        let wait = engine.wait_async(atom.id());
        let mut events = engine.subscribe(3).into_stream();
        let mut logs = engine.logs(&LogsRequest::from(atom.id()).follow()).unwrap().into_stream();
        engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
        block_on(async {
            assert_eq!(wait.await.unwrap().result(), Some(Outcome::Killed));
            assert!(logs.next().await.is_none());
            assert!(events.next().await.unwrap().is_ok());
        });
    }
    let mut streams: Vec<_> =
        pair.both().iter().map(|engine| engine.subscribe(1000).into_stream()).collect();
    drop(pair);
    for stream in &mut streams {
        assert!(block_on(stream.next()).unwrap().is_err());
        assert!(block_on(stream.next()).is_none());
    }
}
