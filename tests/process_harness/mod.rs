//! Drives a process driver directly and collects what it observes.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::wildcard_enum_match_arm,
    reason = "each test binary uses its part of the harness, and waits for one kind of observation"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use caesium::driver::process::{ProcessDriver, ProcessOptions, Supervision};
use caesium::driver::{Command, Driver, Handle, Observation, Order, Remembered, Sighting};
use caesium::lifecycle::{Ending, Evidence, Stop, WaitStatus};
use caesium::log::{LogChunk, LogItem, LogNext, LogQuery, LogSource, Stream};
use caesium::{AtomId, AtomSpec, State, Timestamp};

/// How long anything may take before a test fails: far above what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

type Seen = Arc<(Mutex<Vec<Observation>>, Condvar)>;

/// A driver, and what it has observed.
pub struct World {
    pub driver: ProcessDriver,
    pub atoms: PathBuf,
    seen: Seen,
    _dir: Option<tempfile::TempDir>,
}

/// How an atom ended.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    pub status: WaitStatus,
    pub evidence: Evidence,
    pub usage: Option<caesium::atom::Usage>,
}

impl Exit {
    pub fn ending(&self) -> Ending {
        Ending::observed(self.status, self.evidence)
    }
}

/// Where the program is that is the keeper, if it is not where it was built.
pub const KEEPER_PROGRAM: &str = "CAESIUM_TEST_KEEPER_PROGRAM";

/// What this test binary is called.
fn name() -> String {
    let binary = std::env::current_exe().unwrap();
    binary.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Who supervises in this test binary.
pub fn supervision() -> Supervision {
    if name().starts_with("keeper") { Supervision::Keeper } else { Supervision::InHost }
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world = Self::at(dir.path().join("atoms"));
        world._dir = Some(dir);
        world
    }

    pub fn at(atoms: impl Into<PathBuf>) -> Self {
        Self::with(ProcessOptions::new(atoms))
    }

    /// In a test binary whose name begins with `keeper` the keeper supervises, in every other one its host;
    /// where `reaper` is in the name, no cgroup is made.
    pub fn with(mut options: ProcessOptions) -> Self {
        options.supervision = supervision();
        options.cgroups &= !name().contains("reaper");
        let elsewhere = std::env::var_os(KEEPER_PROGRAM);
        let program = elsewhere.unwrap_or_else(|| env!("CARGO_BIN_EXE_caesium").into());
        options.keeper_program = Some(program.into());
        let atoms = options.dir.clone();
        let driver = ProcessDriver::new(options).unwrap();
        let seen = Seen::default();
        let sink = Arc::clone(&seen);
        driver
            .start(Box::new(move |observation| {
                sink.0.lock().unwrap().push(observation);
                sink.1.notify_all();
            }))
            .unwrap();
        Self { driver, atoms, seen, _dir: None }
    }

    pub fn send(&self, command: Command) {
        self.driver.send(command).unwrap();
    }

    /// Prepares and starts an atom.
    pub fn start(&self, spec: AtomSpec) -> AtomId {
        let (atom, spec) = self.prepare(spec);
        self.send(Command::Start(Order { atom, spec }));
        atom
    }

    pub fn prepare(&self, spec: AtomSpec) -> (AtomId, Arc<AtomSpec>) {
        let atom = AtomId::new();
        spec.validate().unwrap();
        let spec = self.driver.complete(spec, None).unwrap();
        self.driver.prepare(atom, &spec, None).unwrap();
        (atom, Arc::new(spec))
    }

    pub fn stop(&self, atom: AtomId, grace: Duration, force: bool) {
        self.send(Command::Stop { atom, grace, force });
    }

    /// Waits for an observation.
    pub fn expect<T>(&self, what: &str, mut pick: impl FnMut(&Observation) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            if let Some(found) = seen.iter().find_map(&mut pick) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}; seen: {seen:#?}");
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Everything observed so far.
    pub fn seen(&self) -> Vec<Observation> {
        self.seen.0.lock().unwrap().clone()
    }

    pub fn started(&self, wanted: AtomId) -> (u32, Handle, Timestamp) {
        self.expect("started", |o| match o {
            Observation::Started { atom, at, pid, handle } if *atom == wanted => {
                Some((pid.unwrap(), Arc::clone(handle), *at))
            }
            _ => None,
        })
    }

    pub fn exit(&self, wanted: AtomId) -> Exit {
        self.expect("exited", |o| match o {
            Observation::Exited { atom, status, evidence, usage, .. } if *atom == wanted => {
                Some(Exit { status: *status, evidence: *evidence, usage: *usage })
            }
            _ => None,
        })
    }

    pub fn removed(&self, wanted: AtomId) {
        self.expect("removed", |o| {
            matches!(o, Observation::Removed { atom, .. } if *atom == wanted).then_some(())
        });
    }

    pub fn remove(&self, atom: AtomId, handle: Option<Handle>) {
        self.send(Command::Remove { atom, handle });
        self.removed(atom);
    }

    pub fn sync(&self, token: u64) {
        self.send(Command::Sync { token });
        self.expect("synced", |o| (*o == Observation::Synced { token }).then_some(()));
    }

    pub fn look(&self, remembered: Remembered) -> Sighting {
        let wanted = remembered.order.atom;
        self.send(Command::Look(remembered));
        self.expect("seen", |o| match o {
            Observation::Seen { atom, sighting } if *atom == wanted => Some(sighting.clone()),
            _ => None,
        })
    }

    pub fn log(&self, atom: AtomId, query: LogQuery) -> Box<dyn LogSource> {
        self.driver.open_log(atom, &query).unwrap()
    }

    /// Everything that an atom prints, until its end.
    pub fn follow(&self, atom: AtomId) -> Output {
        Output::read(&mut *self.log(atom, LogQuery { follow: true, ..LogQuery::default() }))
    }

    /// What is there of its log.
    pub fn output(&self, atom: AtomId) -> Output {
        Output::read(&mut *self.log(atom, LogQuery::default()))
    }

    pub fn dir(&self, atom: AtomId) -> PathBuf {
        self.atoms.join(atom.to_string())
    }
}

/// What was read of a log.
#[derive(Debug, Default)]
pub struct Output {
    pub chunks: Vec<LogChunk>,
    pub dropped: u64,
}

impl Output {
    pub fn read(source: &mut dyn LogSource) -> Self {
        let mut output = Self::default();
        loop {
            match source.next(Some(Instant::now() + PATIENCE)).unwrap() {
                LogNext::Item(LogItem::Chunk(chunk)) => output.chunks.push(chunk),
                LogNext::Item(LogItem::Dropped { bytes }) => output.dropped += bytes,
                LogNext::End => return output,
                LogNext::TimedOut => {
                    panic!("the log does not end; read: {} chunks", output.chunks.len())
                }
            }
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    pub fn of(&self, stream: Stream) -> String {
        let chunks = self.chunks.iter().filter(|chunk| chunk.stream == stream);
        String::from_utf8(chunks.flat_map(|chunk| chunk.bytes.iter().copied()).collect()).unwrap()
    }
}

/// Reads a log until it has printed `text`.
pub fn read_until(source: &mut dyn LogSource, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        match source.next(Some(Instant::now() + PATIENCE)).unwrap() {
            LogNext::Item(LogItem::Chunk(chunk)) => {
                read.push_str(std::str::from_utf8(&chunk.bytes).unwrap());
            }
            LogNext::Item(LogItem::Dropped { .. }) => {}
            other @ (LogNext::End | LogNext::TimedOut) => {
                panic!("no {text:?} in {read:?}: {other:?}")
            }
        }
    }
    read
}

pub fn sh(script: &str) -> AtomSpec {
    AtomSpec::command("sh").args(["-c", script])
}

pub fn following() -> LogQuery {
    LogQuery { follow: true, ..LogQuery::default() }
}

/// The pid of a store's keeper.
pub fn keeper(world: &World) -> u32 {
    let socket = world.atoms.parent().unwrap().join("keeper.sock");
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let peer = rustix::net::sockopt::socket_peercred(stream).unwrap();
    peer.pid.as_raw_nonzero().get().cast_unsigned()
}

/// Sends a signal to a process that a test has started.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        signal,
    )
    .unwrap();
}

/// Whether a process is there and is not a zombie.
pub fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(')').unwrap().1.trim_start().as_bytes()[0];
    !matches!(state, b'Z' | b'X')
}

/// Waits until a process has ended, by its pidfd.
pub fn wait_gone(pid: u32) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let Ok(pidfd) = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()) else {
        return;
    };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert!(poll(&mut fds, Some(&limit)).unwrap() > 0, "process {pid} does not end");
}

/// What a journal would remember of a running atom.
pub fn remembered(atom: AtomId, spec: &AtomSpec, state: State) -> Remembered {
    Remembered {
        order: Order { atom, spec: Arc::new(spec.clone()) },
        state,
        handle: None,
        started_at: None,
        stop: None::<Stop>,
    }
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// By the wall clock, for stops that are remembered.
#[allow(clippy::disallowed_methods, reason = "a test has no other clock")]
pub fn wall() -> Timestamp {
    std::time::SystemTime::now().into()
}
