//! What is left after the host was killed: real processes, a real SIGKILL, a real store.
//!
//! The host is this very test binary, executed again: see [`host`].

#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caesium::engine::{
    DeleteRequest, GetRequest, ListRequest, LogsRequest, StopRequest, WaitRequest,
};
use caesium::lifecycle::Reason;
use caesium::{Atom, AtomId, AtomSpec, Engine, OnClose, Outcome, ProcessEngine, State};

const ROLE: &str = "CAESIUM_TEST_HOST_ROLE";
const DIR: &str = "CAESIUM_TEST_HOST_DIR";
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: what this binary does when a test executes it as a host. It never ends by itself.
#[test]
fn host() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let engine = ProcessEngine::open(dir.join("store")).unwrap();
    match role.as_str() {
        "one" => {
            let atom = engine.create(patient(&dir).into()).unwrap();
            // What was read from the atom and not written yet goes with its host.
            engine.logs(&LogsRequest::from(atom.id()).follow()).unwrap().next().unwrap().unwrap();
            say(&format!("atom {}", atom.id()));
        }
        "busy" => busy(&engine, &dir),
        other => panic!("no role {other}"),
    }
    loop {
        std::thread::park();
    }
}

/// Creates, stops and deletes without end, and says what was acknowledged.
fn busy(engine: &ProcessEngine, dir: &Path) {
    let witness = dir.join("witness");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (engine, witness) = (engine, witness.clone());
            scope.spawn(move || {
                for round in 0.. {
                    let script = match (thread + round) % 4 {
                        0 => "exit 0",
                        1 => "exit 3",
                        2 => "exec sleep 1000",
                        _ => "trap '' TERM; sleep 1000 & wait",
                    };
                    let script = format!("echo $CAESIUM_ATOM >> \"$1\"; {script}");
                    let spec = AtomSpec::command("sh").args(["-c", &script, "sh"]).arg(&witness);
                    let atom = engine.create(spec.grace(Duration::from_millis(5)).into()).unwrap();
                    say(&format!("created {}", atom.id()));
                    if round % 3 > 0 {
                        engine.stop(&StopRequest::from(atom.id())).unwrap();
                        say(&format!("stopped {}", atom.id()));
                    }
                    if round % 3 > 1 {
                        engine.delete(&DeleteRequest::from(atom.id())).unwrap();
                        say(&format!("deleted {}", atom.id()));
                    }
                }
            });
        }
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Prints a line, waits for the file `go`, prints another and exits with 5.
fn patient(dir: &Path) -> AtomSpec {
    let script = "echo before; while [ ! -e \"$1/go\" ]; do sleep 0.02; done; echo after; exit 5";
    AtomSpec::command("sh").args(["-c", script, "sh"]).arg(dir)
}

struct Host(Child);

impl Host {
    fn start(role: &str, dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "host", "--nocapture"]).env(ROLE, role).env(DIR, dir);
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// The lines that the host says, each with the word before it.
    fn lines(&mut self) -> impl Iterator<Item = (String, AtomId)> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        lines.map_while(Result::ok).filter_map(|line| {
            let (word, id) = line.split_once(' ')?;
            Some((word.to_owned(), id.parse().ok()?))
        })
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A host with one patient atom, killed.
fn orphan(dir: &Path) -> AtomId {
    let mut host = Host::start("one", dir);
    let (_, id) = host.lines().next().unwrap();
    host.kill();
    id
}

fn open(dir: &Path) -> ProcessEngine {
    ProcessEngine::options().on_close(OnClose::Leave).open(dir.join("store")).unwrap()
}

fn get(engine: &ProcessEngine, id: AtomId) -> Atom {
    engine.get(&GetRequest::from(id)).unwrap()
}

fn log(engine: &ProcessEngine, id: AtomId) -> String {
    String::from_utf8(engine.logs(&LogsRequest::from(id)).unwrap().read_to_end().unwrap()).unwrap()
}

fn go(dir: &Path) {
    std::fs::write(dir.join("go"), "").unwrap();
}

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn a_living_atom_is_adopted_with_its_log_and_its_true_ending() {
    let dir = tempfile::tempdir().unwrap();
    let id = orphan(dir.path());
    let engine = open(dir.path());
    let adopted = get(&engine, id);
    assert_eq!(adopted.state(), State::Running);
    assert!(alive(adopted.pid().unwrap()));
    go(dir.path());
    let atom = engine.wait(&WaitRequest::from(id).timeout(PATIENCE)).unwrap();
    assert_eq!(atom.pid(), adopted.pid(), "it was not started again");
    assert_eq!(log(&engine, id), "before\nafter\n");
    if atom.reason() == Some(Reason::ExitUnobserved) {
        println!(
            "SKIP: this kernel does not tell the exit status of an adopted process (PIDFD_GET_INFO, Linux 6.15)"
        );
        assert_eq!(atom.result(), Some(Outcome::Unknown));
    } else {
        assert_eq!((atom.result(), atom.exit_code()), (Some(Outcome::Failure), Some(5)));
    }
}

#[test]
fn an_adopted_atom_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let id = orphan(dir.path());
    let engine = open(dir.path());
    let pid = get(&engine, id).pid().unwrap();
    let atom = engine.stop(&StopRequest::from(id)).unwrap();
    assert_eq!(atom.state(), State::Stopped);
    assert!(!alive(pid));
    let outcomes = [Some(Outcome::Terminated), Some(Outcome::Unknown)];
    assert!(outcomes.contains(&atom.result()), "{atom:#?}");
}

#[test]
fn an_end_that_nobody_saw_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let id = orphan(dir.path());
    let engine = open(dir.path());
    let pid = get(&engine, id).pid().unwrap();
    engine.close().unwrap();
    go(dir.path());
    let patience = Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < patience, "the orphan was never reaped");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let engine = open(dir.path());
    let atom = get(&engine, id);
    assert_eq!((atom.state(), atom.result()), (State::Stopped, Some(Outcome::Unknown)));
    assert_eq!((atom.reason(), atom.exit_code()), (Some(Reason::ExitUnobserved), None));
    // What it printed while nobody held the other end went with its pipe.
    assert_eq!(log(&engine, id), "before\n");
}

#[test]
fn a_copied_store_leaves_the_originals_process_alone() {
    let dir = tempfile::tempdir().unwrap();
    let id = orphan(dir.path());
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(dir.path().join("store"))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let engine = open(copy.path());
    let atom = get(&engine, id);
    assert_eq!((atom.result(), atom.reason()), (Some(Outcome::Unknown), Some(Reason::StoreCopied)));
    engine.delete(&DeleteRequest::from(id).force()).unwrap();
    engine.close().unwrap();
    let engine = open(dir.path());
    let original = get(&engine, id);
    assert_eq!(original.state(), State::Running);
    assert!(alive(original.pid().unwrap()));
    engine.delete(&DeleteRequest::from(id).force()).unwrap();
}

/// Rounds of the short form; the long form is behind `CAESIUM_KILL_ROUNDS`.
fn rounds() -> u64 {
    std::env::var("CAESIUM_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8)
}

#[test]
fn whenever_the_host_is_killed_nothing_acknowledged_is_lost_and_nothing_runs_twice() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..rounds() {
        let mut host = Host::start("busy", dir.path());
        // Somewhere in the midst of it: after so many acknowledgements.
        let mut lines = host.lines();
        let mut said: Vec<(String, AtomId)> =
            lines.by_ref().take((round as usize * 7) % 40 + 1).collect();
        host.kill();
        said.extend(lines);
        let engine = open(dir.path());
        check(&engine, &said);
        clear(&engine, dir.path());
        engine.close().unwrap();
    }
}

fn check(engine: &ProcessEngine, said: &[(String, AtomId)]) {
    let listed: HashSet<AtomId> =
        engine.list(&ListRequest::all()).unwrap().iter().map(Atom::id).collect();
    let of = |word: &str| -> HashSet<AtomId> {
        said.iter().filter(|(w, _)| w == word).map(|(_, id)| *id).collect()
    };
    for id in of("deleted") {
        assert!(!listed.contains(&id), "{id} was deleted, and is back");
    }
    let events: Vec<_> = engine.events(1).unwrap().map(|event| event.unwrap()).collect();
    for id in of("created") {
        assert!(events.iter().any(|event| event.atom == id), "{id} was acknowledged, and is lost");
    }
    for id in of("stopped").intersection(&listed) {
        assert_eq!(get(engine, *id).state(), State::Stopped);
    }
    for id in &listed {
        let atom = get(engine, *id);
        assert!(atom.state() != State::Created && atom.state() != State::Invalid, "{atom:#?}");
        if atom.reason() == Some(Reason::Exited) {
            assert!(matches!(atom.exit_code(), Some(0 | 3)), "{atom:#?}");
        }
    }
    engine.verify().unwrap();
}

/// Ends and deletes everything, and sees that nothing runs that the journal did not know, and that nothing ran twice.
fn clear(engine: &ProcessEngine, dir: &Path) {
    for atom in engine.list(&ListRequest::all()).unwrap() {
        engine.delete(&DeleteRequest::from(atom.id()).force()).unwrap();
    }
    let known: HashSet<String> =
        engine.events(1).unwrap().map(|event| event.unwrap().atom.to_string()).collect();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let marker =
            environ.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(b"CAESIUM_ATOM="));
        let Some(marker) = marker else { continue };
        let id = String::from_utf8_lossy(marker).into_owned();
        assert!(
            !known.contains(&id),
            "{} still runs for the deleted atom {id}",
            process.path().display()
        );
        // One that no journal knows would have this store's witness among its arguments.
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        assert!(
            !arguments.contains(&*dir.to_string_lossy()),
            "{id} runs, and the journal does not know it"
        );
    }
    let witness = std::fs::read_to_string(dir.join("witness")).unwrap_or_default();
    let mut seen = HashSet::new();
    for id in witness.lines() {
        assert!(seen.insert(id), "{id} ran twice");
        assert!(known.contains(id), "{id} ran, and the journal does not know it");
    }
}
