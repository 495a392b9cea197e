//! Standard input by a pipe of the process driver: who keeps it open, and what becomes of it when they go.

#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use caesium::driver::process::Supervision;
use caesium::engine::{LogsRequest, StdinWriter, StopRequest, WaitRequest};
use caesium::lifecycle::Backoff;
use caesium::log::LogItem;
use caesium::{
    Atom, AtomId, AtomSpec, Engine, Error, ListRequest, OnClose, Outcome, ProcessEngine,
    RetryPolicy,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    _dir: tempfile::TempDir,
    store: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: dir.path().join("store"), _dir: dir }
    }

    fn open(&self, supervision: Supervision) -> ProcessEngine {
        ProcessEngine::options()
            .supervision(supervision)
            .keeper_program(env!("CARGO_BIN_EXE_caesium"))
            .on_close(OnClose::Stop)
            .open(&self.store)
            .unwrap()
    }

    fn kill_keeper(&self) {
        let socket = UnixStream::connect(self.store.join("keeper.sock")).unwrap();
        let keeper = rustix::net::sockopt::socket_peercred(&socket).unwrap().pid;
        rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    }
}

fn sh(script: &str) -> AtomSpec {
    AtomSpec::command("sh").args(["-c", script]).stdin_pipe()
}

fn create(engine: &dyn Engine, spec: AtomSpec) -> (Atom, StdinWriter) {
    let atom = engine.create(spec.into()).unwrap();
    let stdin = engine.stdin(&atom.id().into()).unwrap();
    (atom, stdin)
}

fn ended(engine: &dyn Engine, atom: &Atom) -> (Option<Outcome>, Vec<u8>) {
    let ended = engine.wait(&WaitRequest::from(atom.id()).timeout(PATIENCE)).unwrap();
    (ended.result(), engine.logs(&atom.id().into()).unwrap().read_to_end().unwrap())
}

/// Waits until the atom has printed that.
fn printed(engine: &dyn Engine, atom: AtomId, text: &str) {
    let mut seen = Vec::new();
    for item in engine.logs(&LogsRequest::from(atom).follow()).unwrap() {
        if let LogItem::Chunk(chunk) = item.unwrap() {
            seen.extend(chunk.bytes);
        }
        if String::from_utf8_lossy(&seen).contains(text) {
            return;
        }
    }
    panic!("it ended after {:?}", String::from_utf8_lossy(&seen));
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn an_atom_that_closes_its_input_is_told_of_at_once() {
    for supervision in [Supervision::InHost, Supervision::Keeper] {
        let place = Place::new();
        let engine = place.open(supervision);
        let (atom, mut stdin) = create(&engine, sh("exec <&-; echo closed; exec sleep 1000"));
        printed(&engine, atom.id(), "closed");
        assert!(matches!(stdin.try_write(b"x"), Err(Error::StdinClosed(id)) if id == atom.id()));
        assert_eq!(stdin.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        // It is no end of the atom.
        assert!(engine.get(&atom.id().into()).unwrap().state().is_live());
        engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
    }
}

#[test]
fn the_input_outlives_the_keeper_and_does_not_end_with_it() {
    let place = Place::new();
    let engine = place.open(Supervision::Keeper);
    let (atom, mut stdin) = create(&engine, sh("cat; echo end"));
    for round in 0..3 {
        stdin.write_all(format!("round {round}\n").as_bytes()).unwrap();
        printed(&engine, atom.id(), &format!("round {round}"));
        place.kill_keeper();
        // The next one has it when it answers for this.
        let other = engine.create(AtomSpec::command("true").into()).unwrap();
        assert_eq!(ended(&engine, &other).0, Some(Outcome::Success));
        assert!(engine.get(&atom.id().into()).unwrap().state().is_live(), "round {round}");
    }
    engine.close_stdin(&atom.id().into()).unwrap();
    let expected = b"round 0\nround 1\nround 2\nend\n".to_vec();
    assert_eq!(ended(&engine, &atom), (Some(Outcome::Success), expected));
}

#[test]
fn an_input_that_is_ended_while_there_is_no_keeper_has_ended_for_the_next_one() {
    let place = Place::new();
    let engine = place.open(Supervision::Keeper);
    let out = place.store.with_extension("out");
    let script =
        format!("cat >{out}.part; mv {out}.part {out}; exec sleep 1000", out = out.display());
    let (atom, mut stdin) = create(&engine, sh(&script));
    stdin.write_all(b"all\n").unwrap();
    place.kill_keeper();
    engine.close_stdin(&atom.id().into()).unwrap();
    assert!(matches!(stdin.try_write(b"x"), Err(Error::StdinClosed(_))));
    until("it has read the end", || out.exists());
    assert_eq!(std::fs::read(&out).unwrap(), b"all\n");
    engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
}

#[test]
fn with_a_keeper_the_next_host_writes_on() {
    let place = Place::new();
    let engine = place.open(Supervision::Keeper);
    let (atom, mut stdin) = create(&engine, sh("cat; echo end"));
    stdin.write_all(b"one\n").unwrap();
    printed(&engine, atom.id(), "one");
    engine.shutdown(OnClose::Leave).unwrap();
    // What is written goes into the pipe, and needs no engine.
    stdin.write_all(b"nobody\n").unwrap();
    let engine = place.open(Supervision::Keeper);
    engine.stdin(&atom.id().into()).unwrap().write_all(b"two\n").unwrap();
    engine.close_stdin(&atom.id().into()).unwrap();
    let expected = b"one\nnobody\ntwo\nend\n".to_vec();
    assert_eq!(ended(&engine, &atom), (Some(Outcome::Success), expected));
}

#[test]
fn without_a_keeper_it_ends_with_its_host() {
    let place = Place::new();
    let out = place.store.with_extension("out");
    let engine = place.open(Supervision::InHost);
    let script = format!("cat >{out}.part; mv {out}.part {out}", out = out.display());
    let (_, mut stdin) = create(&engine, sh(&script));
    stdin.write_all(b"what there was").unwrap();
    engine.shutdown(OnClose::Leave).unwrap();
    until("it has read the end", || out.exists());
    assert_eq!(std::fs::read(&out).unwrap(), b"what there was");
    // How it ended nobody saw; nothing else is left of it.
    drop(place.open(Supervision::InHost));
}

#[test]
fn a_retry_has_an_empty_pipe_of_its_own() {
    for supervision in [Supervision::InHost, Supervision::Keeper] {
        let place = Place::new();
        let engine = place.open(supervision);
        let backoff = Backoff { initial: Duration::from_millis(1), ..Backoff::default() };
        let policy = RetryPolicy { max_attempts: 2, backoff, ..RetryPolicy::default() };
        let (first, mut stdin) =
            create(&engine, sh("read a; echo $a; [ $a = good ]").retry(policy));
        stdin.write_all(b"bad\n").unwrap();
        assert_eq!(ended(&engine, &first), (Some(Outcome::Failure), b"bad\n".to_vec()));
        let second = || {
            let atoms = engine.list(&ListRequest::all()).unwrap();
            atoms.into_iter().find(|atom| atom.retry_of() == Some(first.id()))
        };
        until("it is tried again", || second().is_some_and(|atom| atom.started_at().is_some()));
        let second = second().unwrap();
        engine.stdin(&second.id().into()).unwrap().write_all(b"good\n").unwrap();
        assert_eq!(ended(&engine, &second), (Some(Outcome::Success), b"good\n".to_vec()));
        assert!(matches!(stdin.try_write(b"x"), Err(Error::StdinClosed(_))));
    }
}

#[test]
fn small_writes_of_many_are_not_mixed_up() {
    let place = Place::new();
    let engine = place.open(Supervision::InHost);
    let (atom, stdin) = create(&engine, AtomSpec::command("cat").stdin_pipe());
    std::thread::scope(|scope| {
        for writer in 0..8_u8 {
            let mut stdin = stdin.clone();
            scope.spawn(move || {
                let line = [&[b'a' + writer; 999][..], b"\n"].concat();
                (0..200).for_each(|_| stdin.write_all(&line).unwrap());
            });
        }
    });
    engine.close_stdin(&atom.id().into()).unwrap();
    let (_, output) = ended(&engine, &atom);
    let lines: Vec<&[u8]> = output.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 8 * 200 + 1);
    assert!(lines.iter().all(|line| line.iter().all(|byte| *byte == line[0])));
}

#[test]
fn an_executor_writes_without_a_thread_of_its_own() {
    use tokio::io::AsyncWriteExt;
    let place = Place::new();
    let engine = place.open(Supervision::InHost);
    let (atom, stdin) = create(&engine, sh("sleep 0.1; cat"));
    let much = vec![b'x'; 1 << 20];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pipe =
            tokio::net::unix::pipe::Sender::from_owned_fd(stdin.open().unwrap()).unwrap();
        pipe.write_all(&much).await.unwrap();
    });
    engine.close_stdin(&atom.id().into()).unwrap();
    assert!(ended(&engine, &atom).1 == much);
}

#[test]
fn no_descriptor_is_left_of_atoms_that_have_ended() {
    let place = Place::new();
    let engine = place.open(Supervision::InHost);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let pipes_of_it = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|to| to.starts_with(&place.store) && to.ends_with("in")).count()
    };
    assert!(open() > 0);
    let atoms: Vec<_> = (0..20).map(|_| create(&engine, sh("read a; exit 0"))).collect();
    assert_eq!(pipes_of_it(), 20, "one for each, while it runs");
    for (atom, mut stdin) in atoms {
        stdin.write_all(b"a\n").unwrap();
        assert_eq!(ended(&engine, &atom).0, Some(Outcome::Success));
    }
    until("they are closed", || pipes_of_it() == 0);
}

const ROLE: &str = "CAESIUM_TEST_DIES_OF_SIGPIPE";

/// Not a test: a host that does not ignore SIGPIPE, as those that are not written in Rust do not.
#[test]
fn helper() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    // SAFETY: it only sets what the signal does.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let place = Place::new();
    let engine = place.open(Supervision::InHost);
    let (atom, stdin) = create(&engine, sh("exec <&-; echo closed; exec sleep 1000"));
    // Opened while it is read, so that it is the writing that fails.
    let much = vec![0; 1 << 20];
    let told = std::thread::scope(|scope| {
        let writing = scope.spawn(|| stdin.clone().write_all(&much));
        printed(&engine, atom.id(), "closed");
        writing.join().unwrap()
    });
    assert_eq!(told.unwrap_err().kind(), ErrorKind::BrokenPipe);
    engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
}

#[test]
fn a_host_that_does_not_ignore_sigpipe_lives() {
    let mut helper = Command::new(std::env::current_exe().unwrap());
    let status = helper.args(["--exact", "helper"]).env(ROLE, "1").output().unwrap().status;
    assert_eq!((status.signal(), status.code()), (None, Some(0)));
}
