//! The control socket: who may use it, what it bears, and what becomes of clients when their holder goes.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::driver::process::Supervision;
use caesium::engine::{CreateRequest, ListRequest, LogsRequest, WaitManyRequest, WaitRequest};
use caesium::lifecycle::WaitStatus;
use caesium::log::LogItem;
use caesium::{
    AtomId, AtomSpec, Durability, Engine, EngineOptions, Error, JournaledEngine, OnClose, Outcome,
    ProcessEngine, RemoteEngine, State,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// For what does not come where a thread was slow.
const SOON: Duration = Duration::from_secs(5);
const HELLO: &[u8; 16] = b"CAESIUMC\0\0\x01\0\x01\0\0\0";

/// A store that is served, with atoms that act in memory.
struct Served {
    dir: tempfile::TempDir,
    world: World,
    engine: JournaledEngine<MemoryDriver>,
}

impl Served {
    fn new() -> Self {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
        let engine = EngineOptions::new()
            .serve(true)
            .durability(Durability::Memory)
            .open_with(dir.path().join("store"), |_| Ok(MemoryDriver::new(world.clone())))
            .unwrap();
        Self { dir, world, engine }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn socket(&self) -> PathBuf {
        self.store().join("control.sock")
    }

    fn client(&self) -> RemoteEngine {
        RemoteEngine::connect(self.store()).unwrap()
    }

    /// A connection that says only what the test says.
    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// Reads to the end; what was sent and not read by the other side may make that a reset.
fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    bytes
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_engine() {
    let served = Served::new();
    let mode = served.socket().symlink_metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = served.client();
    assert_eq!(client.list(&ListRequest::all()).unwrap(), []);
    served.engine.shutdown(OnClose::Stop).unwrap();
    assert!(!served.socket().exists());
    assert!(matches!(client.list(&ListRequest::all()), Err(Error::HolderGone { .. })));
    assert!(matches!(RemoteEngine::connect(served.store()), Err(Error::NotServed { .. })));
}

#[test]
fn a_store_may_lie_deeper_than_a_sockets_address_is_long() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(200)).join("e".repeat(200)).join("store");
    let engine = EngineOptions::new()
        .serve(true)
        .open_with(&deep, |_| Ok(MemoryDriver::new(World::new())))
        .unwrap();
    let client = RemoteEngine::connect(&deep).unwrap();
    let atom = client.create(Act::Exit(3).spec().into()).unwrap();
    assert_eq!(engine.wait(&atom.id().into()).unwrap().exit_code(), Some(3));
}

#[test]
fn a_store_is_served_only_when_its_holder_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let open = |options: EngineOptions| options.lock_wait(Duration::from_millis(50));
    let store = dir.path().join("store");
    let holder = open(EngineOptions::new()).open(&store).unwrap();
    assert!(matches!(RemoteEngine::connect(&store), Err(Error::NotServed { .. })));
    match open(EngineOptions::new()).connect_or_open(&store) {
        Err(Error::StoreLocked { holder, .. }) => assert!(holder.contains("control"), "{holder}"),
        other => panic!("{:?}", other.map(|_| "an engine")),
    }
    holder.close().unwrap();
    let first = open(EngineOptions::new()).connect_or_open(&store).unwrap();
    let second = open(EngineOptions::new()).connect_or_open(&store).unwrap();
    let atom = second.create(AtomSpec::command("true").into()).unwrap();
    assert_eq!(first.wait(&atom.id().into()).unwrap().result(), Some(Outcome::Success));
    assert!(matches!(RemoteEngine::connect(dir.path().join("none")), Err(Error::NotServed { .. })));
}

#[test]
fn what_is_no_client_harms_nobody() {
    let served = Served::new();
    let atom = served.engine.create(Act::Linger.spec().into()).unwrap();
    let client = served.client();
    let waits = std::thread::spawn({
        let (client, id) = (client.clone(), atom.id());
        move || client.wait(&id.into())
    });
    // Never says what it speaks; says a part of it; says too much; asks for what there is not.
    let silent = served.raw();
    let mut slow = served.raw();
    slow.write_all(&HELLO[..7]).unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 4096], &[0; 16], &HELLO[..9]]
    {
        let mut stream = served.raw();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(rest(&mut stream), b"", "{garbage:?}");
    }
    for frame in [
        &u32::MAX.to_le_bytes()[..],
        &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[1, 0, 0, 0, 0],
        &[0, 0, 0, 0],
        &[9, 0, 0, 0, 0, 0, 0, 0, 1],
    ] {
        let mut stream = served.raw();
        stream.write_all(HELLO).unwrap();
        stream.write_all(frame).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(rest(&mut stream), HELLO, "{frame:?}");
    }
    // One that went in the midst of everything.
    for _ in 0..20 {
        let mut stream = served.raw();
        stream.write_all(HELLO).unwrap();
        stream.write_all(&[200, 0, 0, 0, 1, 2, 3]).unwrap();
    }
    assert_eq!(client.get(&atom.id().into()).unwrap(), atom);
    served.world.end(atom.id(), WaitStatus::Exited { code: 4 });
    assert_eq!(waits.join().unwrap().unwrap().exit_code(), Some(4));
    drop((silent, slow));
}

#[test]
fn who_says_nothing_is_sent_away() {
    let served = Served::new();
    let mut silent = served.raw();
    let mut slow = served.raw();
    slow.write_all(&HELLO[..15]).unwrap();
    assert_eq!(rest(&mut silent), b"");
    assert_eq!(rest(&mut slow), b"");
}

#[test]
fn another_protocol_is_said_and_not_spoken() {
    let served = Served::new();
    let mut newer = served.raw();
    newer.write_all(b"CAESIUMC\0\0\x02\0\x09\0\0\0").unwrap();
    assert_eq!(rest(&mut newer), HELLO);
    // A holder that speaks newer ones only.
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
    let holder = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"CAESIUMC\0\0\x02\0\x09\0\0\0").unwrap();
        rest(&mut stream)
    });
    match RemoteEngine::connect(dir.path()) {
        Err(Error::Incompatible { oldest: 2, newest: 9, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(holder.join().unwrap(), HELLO);
}

#[test]
fn a_process_of_another_user_is_sent_away() {
    const ROLE: &str = "CAESIUM_TEST_STRANGER";
    if let Some(socket) = std::env::var_os(ROLE) {
        let mut stream = UnixStream::connect(PathBuf::from(socket)).unwrap();
        let _ = stream.write_all(HELLO);
        assert_eq!(rest(&mut stream), b"");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: only root may become another user");
        return;
    }
    let served = Served::new();
    // As if somebody had opened the directory to others: the credentials are looked at all the same.
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    open(served.dir.path(), 0o711);
    open(&served.store(), 0o711);
    open(&served.socket(), 0o666);
    // Where the stranger may execute it.
    let binary = served.dir.path().join("stranger");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    open(&binary, 0o755);
    let status = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&binary)
        .args(["--exact", "a_process_of_another_user_is_sent_away"])
        .env(ROLE, served.socket())
        .current_dir("/")
        .stdout(Stdio::null())
        .status();
    match status {
        Ok(status) => assert!(status.success()),
        Err(error) => eprintln!("SKIP: setpriv cannot be run: {error}"),
    }
    assert_eq!(served.client().list(&ListRequest::all()).unwrap(), []);
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn sixty_four_clients_at_once_with_a_thousand_waits_cost_no_thread_each() {
    const ROLE: &str = "CAESIUM_TEST_MANY_CLIENTS";
    if let Some(store) = std::env::var_os(ROLE) {
        return many_clients(Path::new(&store));
    }
    let served = Served::new();
    let atom = served.engine.create(Act::Linger.spec().into()).unwrap();
    let before = threads();
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sixty_four_clients_at_once_with_a_thousand_waits_cost_no_thread_each"])
        .args(["--nocapture"])
        .env(ROLE, served.store())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(clients.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "all wait"), "the clients are there");
    let during = threads();
    println!("threads of the holder: {before} before, {during} with 64 clients and 1,024 waits");
    // The lanes: two that change, two that read, one for what takes long.
    assert!(during <= before + 5, "{during} of {before}");
    served.world.end(atom.id(), WaitStatus::Exited { code: 7 });
    assert!(lines.any(|line| line == "1024 were told 7"));
    assert!(clients.wait().unwrap().success());
}

/// Each connection waits for the first atom 16 times, lists, and follows its log and the journal.
fn many_clients(store: &Path) {
    let clients: Vec<_> = (0..64).map(|_| RemoteEngine::connect(store).unwrap()).collect();
    let atom = clients[0].list(&ListRequest::all()).unwrap().remove(0).id();
    let mut waits: Vec<_> = clients
        .iter()
        .flat_map(|client| (0..16).map(|_| client.wait_async(atom)))
        .map(Box::pin)
        .collect();
    let mut streams = Vec::new();
    for (client, wait) in clients.iter().zip(&mut waits) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        streams
            .push((client.logs(&LogsRequest::from(atom).follow()).unwrap(), client.subscribe(1)));
        assert_eq!(client.get(&atom.into()).unwrap().state(), State::Running);
    }
    println!("\nall wait");
    let told = waits.into_iter().map(|wait| block_on(wait).unwrap().exit_code());
    println!("\n{} were told 7", told.filter(|code| *code == Some(7)).count());
    for (logs, mut subscription) in streams {
        assert_eq!(logs.read_to_end().unwrap(), b"");
        let deadline = Some(Instant::now() + PATIENCE);
        assert_eq!(subscription.next(deadline).unwrap().unwrap().seq, 1);
    }
}

/// The least that awaits: a thread that parks.
fn block_on<T>(mut future: impl Future<Output = T> + Unpin) -> T {
    struct Parked(std::thread::Thread);
    impl std::task::Wake for Parked {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Parked(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match std::pin::Pin::new(&mut future).poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn more_clients_than_there_may_be_are_told_so() {
    let served = Served::new();
    let mut there = Vec::new();
    let refused = loop {
        match RemoteEngine::connect(served.store()) {
            Ok(client) => there.push(client),
            Err(error) => break error,
        }
        assert!(there.len() <= 128);
    };
    assert!(matches!(refused, Error::HolderBusy { .. }), "{refused:?}");
    assert_eq!(there.len(), 128);
    assert_eq!(there[127].list(&ListRequest::all()).unwrap(), []);
    drop(there.pop());
    let patience = Instant::now() + PATIENCE;
    while let Err(error) = RemoteEngine::connect(served.store()) {
        assert!(Instant::now() < patience, "{error:?}: its place is free");
        std::thread::yield_now();
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let served = Served::new();
    let big = Act::Exit(0).spec().arg("x".repeat(100_000));
    // Ten times what is put out for a client before it reads.
    let deaf = served.client();
    let mut streams: Vec<_> = (0..4).map(|_| deaf.subscribe(1)).collect();
    let mut raw = served.raw();
    raw.write_all(HELLO).unwrap();
    // Asks for the events, and for the same list again and again, and reads nothing.
    let ask = |id: u64, question: &[u8]| {
        let mut frame = [&0_u32.to_le_bytes()[..], &id.to_le_bytes(), question].concat();
        let length = frame.len() as u32;
        frame.splice(0..0, length.to_le_bytes());
        frame
    };
    raw.write_all(&ask(1, &[&11_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat())).unwrap();
    for number in 0..100 {
        served.engine.create(big.clone().arg(format!("{number}")).into()).unwrap();
    }
    raw.set_nonblocking(true).unwrap();
    // `durable_seq`, as often as it goes.
    let question = ask(0, &13_u32.to_le_bytes());
    let mut asked = 2_u64;
    while let Ok(bytes) = {
        let mut frame = question.clone();
        frame[8..16].copy_from_slice(&asked.to_le_bytes());
        raw.write(&frame)
    } {
        assert_eq!(bytes, question.len(), "a socket takes a small frame whole");
        asked += 1;
    }
    assert!(asked > 100, "{asked}");
    // Others are served all the while, and the holder creates.
    let client = served.client();
    for _ in 0..20 {
        let atom = client.create(Act::Exit(0).spec().into()).unwrap();
        client.wait(&atom.id().into()).unwrap();
    }
    // Who reads late gets everything, in order.
    for stream in &mut streams {
        let deadline = Some(Instant::now() + PATIENCE);
        for seq in 1..=300 {
            assert_eq!(stream.next(deadline).unwrap().unwrap().seq, seq);
        }
    }
}

#[test]
fn output_is_streamed_only_as_far_as_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let holder =
        ProcessEngine::options().serve(true).supervision(Supervision::InHost).open(&store).unwrap();
    let client = RemoteEngine::connect(&store).unwrap();
    // Much more than fits into the log, the window and the socket together.
    let spec = AtomSpec::command("seq").arg("3000000").log_max(65536);
    let (atom, logs) = client.create_followed(spec.into()).unwrap();
    let other = client.create(AtomSpec::command("true").into()).unwrap();
    assert_eq!(client.wait(&other.id().into()).unwrap().result(), Some(Outcome::Success));
    // Nothing was read: it is held up.
    assert_eq!(holder.get(&atom.id().into()).unwrap().state(), State::Running);
    let (mut expected, mut lines) = (1_u32, Vec::new());
    for item in logs {
        let LogItem::Chunk(chunk) = item.unwrap() else { panic!("output is missing") };
        lines.extend(chunk.bytes);
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in lines.drain(..whole).collect::<Vec<_>>().split_inclusive(|byte| *byte == b'\n')
        {
            assert_eq!(line, format!("{expected}\n").as_bytes());
            expected += 1;
        }
    }
    assert_eq!(expected, 3_000_001);
    assert_eq!(client.wait(&atom.id().into()).unwrap().result(), Some(Outcome::Success));
}

#[test]
fn what_is_given_up_is_taken_back() {
    let served = Served::new();
    let client = served.client();
    let atom = client.create(Act::Linger.spec().into()).unwrap();
    // More than may be open at once, one after the other.
    for _ in 0..3000 {
        let mut wait = Box::pin(client.wait_async(atom.id()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
    }
    for _ in 0..3000 {
        drop(client.subscribe(1));
    }
    let mut open: Vec<_> = (0..1024).map(|_| Box::pin(client.wait_async(atom.id()))).collect();
    // One more is one too many: the holder says so instead of keeping it waiting.
    match client.wait(&atom.id().into()) {
        Err(Error::HolderBusy { .. }) => {}
        other => panic!("{other:?}"),
    }
    served.world.end(atom.id(), WaitStatus::Exited { code: 0 });
    for wait in &mut open {
        assert_eq!(block_on(wait).unwrap().result(), Some(Outcome::Success));
    }
    assert_eq!(client.wait(&atom.id().into()).unwrap().result(), Some(Outcome::Success));
}

#[test]
fn a_long_list_comes_whole() {
    let served = Served::new();
    let client = served.client();
    let spec = Act::Exit(0).spec();
    let small = vec![CreateRequest::from(spec.clone()); 3000];
    let large = (0..10).map(|_| CreateRequest::from(spec.clone().arg("x".repeat(900_000))));
    let requests = small.into_iter().chain(large).collect();
    let created = client.create_many(requests).unwrap();
    assert!(created.iter().all(Result::is_ok));
    let ids: WaitManyRequest = created.iter().flatten().map(caesium::Atom::id).collect();
    assert_eq!(client.wait_all(&ids).unwrap().len(), 3010);
    let listed = client.list(&ListRequest::all()).unwrap();
    assert!(listed == served.engine.list(&ListRequest::all()).unwrap());
    assert_eq!(client.list(&ListRequest::all().limit(2500)).unwrap().len(), 2500);
    let newest = client.list(&ListRequest::all().newest_first().limit(5)).unwrap();
    assert!(newest.iter().eq(listed.iter().rev().take(5)));
    // What no message can carry is refused here, and nothing happens.
    let huge = WaitManyRequest::from(vec![listed[0].id(); 600_000]);
    assert!(matches!(client.wait_all(&huge), Err(Error::RequestTooLarge { .. })));
    assert_eq!(client.get(&listed[0].id().into()).unwrap(), listed[0]);
}

#[test]
fn a_secret_reaches_the_atom_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let _holder = EngineOptions::new().serve(true).open(&store).unwrap();
    let client = RemoteEngine::connect(&store).unwrap();
    let spec = AtomSpec::command("sh").args(["-c", "test ${#TOKEN} = 8"]);
    let spec = spec.secret_env("TOKEN", "hightide");
    let atom = client.create(spec.into()).unwrap();
    let atom = client.wait(&atom.id().into()).unwrap();
    assert_eq!(atom.result(), Some(Outcome::Success));
    assert!(!format!("{atom:?}").contains("hightide"));
    let grep = Command::new("grep").args(["-rqa", "hightide"]).arg(&store).status().unwrap();
    assert!(!grep.success(), "it is on disk");
}

const HOST: &str = "CAESIUM_TEST_CONTROL_HOST";

/// Not a test: a holder in a process of its own, which serves until it is killed.
#[test]
fn host() {
    let Some(store) = std::env::var_os(HOST) else { return };
    let engine = ProcessEngine::options()
        .serve(true)
        .supervision(Supervision::Keeper)
        .keeper_program(env!("CARGO_BIN_EXE_caesium"))
        .open(PathBuf::from(store))
        .unwrap();
    println!("\nserves");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    engine.shutdown(OnClose::Leave).unwrap();
}

struct Holder {
    child: Child,
    _out: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(store: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "host", "--nocapture"])
            .env(HOST, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        assert!(out.by_ref().lines().map_while(Result::ok).any(|line| line == "serves"));
        Self { child, _out: out }
    }

    /// Ends it: killed, or politely.
    fn end(mut self, kill: bool) {
        if kill {
            self.child.kill().unwrap();
        }
        drop(self.child.stdin.take());
        assert_eq!(self.child.wait().unwrap().success(), !kill);
    }
}

fn attach(store: &Path) -> std::sync::Arc<dyn Engine> {
    EngineOptions::new()
        .on_close(OnClose::Leave)
        .keeper_program(env!("CARGO_BIN_EXE_caesium"))
        .supervision(Supervision::Keeper)
        .connect_or_open(store)
        .unwrap()
}

#[test]
fn when_the_holder_goes_who_waits_is_told_and_the_next_request_opens_the_store() {
    for kill in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let holder = Holder::start(&store);
        let engine = attach(&store);
        let gate = dir.path().join("gate");
        let script = "echo before; until [ -e \"$1\" ]; do sleep 0.02; done; echo after; exit 6";
        let spec = AtomSpec::command("sh").args(["-c", script, "sh"]).arg(&gate);
        let (atom, mut logs) = engine.create_followed(spec.into()).unwrap();
        let mut subscription = engine.subscribe(1);
        let deadline = Some(Instant::now() + PATIENCE);
        for seq in 1..=2 {
            assert_eq!(subscription.next(deadline).unwrap().unwrap().seq, seq);
        }
        let offset = match logs.next() {
            Some(Ok(LogItem::Chunk(chunk))) => chunk.bytes.len() as u64,
            other => panic!("{other:?}"),
        };
        let request = WaitRequest::from(atom.id()).timeout(SOON);
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| engine.wait(&request));
            // It is asked for when this returns.
            let polled = engine.wait_async(atom.id());
            holder.end(kill);
            assert!(matches!(block_on(polled), Err(Error::HolderGone { .. })));
            let waited = wait.join().unwrap();
            // A thread that came to it only after the holder had gone waits in the store that it has opened.
            let late = matches!(waited, Err(Error::TimedOut { .. }));
            assert!(late || matches!(waited, Err(Error::HolderGone { .. })), "{kill}: {waited:?}");
        });
        assert!(matches!(logs.next(), Some(Err(Error::HolderGone { .. }))));
        assert!(logs.next().is_none());
        assert!(matches!(subscription.next(None), Err(Error::HolderGone { .. })));
        // Now this process has it, and is where others are served.
        assert_eq!(engine.get(&atom.id().into()).unwrap(), atom);
        let other = RemoteEngine::connect(&store).unwrap();
        std::fs::write(&gate, "").unwrap();
        let rest = LogsRequest::from(atom.id()).follow().from_offset(offset);
        assert_eq!(other.logs(&rest).unwrap().read_to_end().unwrap(), b"after\n");
        assert_eq!(other.wait(&atom.id().into()).unwrap().exit_code(), Some(6));
        let mut subscription = engine.subscribe(3);
        assert_eq!(subscription.next(deadline).unwrap().unwrap().event_name(), "exited");
    }
}

#[test]
fn of_many_who_come_at_once_one_opens_the_store_and_the_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    for _ in 0..5 {
        std::thread::scope(|scope| {
            let comers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let engine = EngineOptions::new().connect_or_open(&store).unwrap();
                        let id = AtomId::new();
                        let request = CreateRequest::from(AtomSpec::command("true")).id(id);
                        // Whoever has the store may go before the others are done.
                        loop {
                            let done = engine.create(request.clone());
                            match done.and_then(|atom| engine.wait(&atom.id().into())) {
                                Ok(atom) => break atom.state(),
                                Err(Error::HolderGone { .. } | Error::InDoubt(_)) => {}
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                    })
                })
                .collect();
            for comer in comers {
                assert_eq!(comer.join().unwrap(), State::Stopped);
            }
        });
    }
    let engine = ProcessEngine::open(&store).unwrap();
    assert_eq!(engine.list(&ListRequest::all()).unwrap().len(), 40);
    engine.verify().unwrap();
}
