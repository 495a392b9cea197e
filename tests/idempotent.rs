//! A request with a key is carried out once: across reopening, and whenever its host is killed.

#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use caesium::driver::process::Supervision;
use caesium::engine::{CreateRequest, ListRequest, WaitManyRequest};
use caesium::{Atom, AtomId, AtomSpec, Engine, Error, OnClose, ProcessEngine, State};

const DIR: &str = "CAESIUM_TEST_KEYED_DIR";
const KEYS: u64 = 40;

/// Supervises by itself, so that a kill takes everything that is under way with it.
fn open(dir: &Path) -> ProcessEngine {
    ProcessEngine::options()
        .on_close(OnClose::Leave)
        .supervision(Supervision::InHost)
        .open(dir.join("store"))
        .unwrap()
}

/// Writes its id down, so that one that runs twice, or two of one key, are seen.
fn spec(dir: &Path, key: u64) -> AtomSpec {
    let script = "echo $0 $CAESIUM_ATOM >> \"$1\"";
    let witness = dir.join("witness");
    let spec = AtomSpec::command("sh").args(["-c", script, &format!("key{key}")]).arg(witness);
    spec.key(format!("key{key}"))
}

/// Not a test: the host. Makes every request, one after the other and some at the same time, and says so.
#[test]
fn host() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let engine = open(&dir);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (engine, dir) = (&engine, &dir);
            scope.spawn(move || {
                for key in 0..KEYS {
                    let atom = engine.create(spec(dir, key).into()).unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "\nkey{key} {}", atom.id()).unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
    loop {
        std::thread::park();
    }
}

fn start(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "host", "--nocapture"]).env(DIR, dir);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn said(line: &str) -> Option<(String, AtomId)> {
    let (key, id) = line.split_once(' ')?;
    Some((key.to_owned(), id.parse().ok()?))
}

#[test]
fn whenever_the_host_is_killed_a_request_that_is_made_again_gives_the_first_atom() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, AtomId> = HashMap::new();
    for round in 0..10 {
        let mut host = start(dir.path());
        let mut lines = BufReader::new(host.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut heard: Vec<_> =
            lines.by_ref().filter_map(|line| said(&line)).take(1 + round * 7).collect();
        host.kill().unwrap();
        host.wait().unwrap();
        heard.extend(lines.filter_map(|line| said(&line)));
        for (key, id) in heard {
            let first = *acknowledged.entry(key.clone()).or_insert(id);
            assert_eq!(first, id, "{key} was created twice");
        }
        let engine = open(dir.path());
        let mut of_key: HashMap<String, AtomId> = HashMap::new();
        for atom in engine.list(&ListRequest::all()).unwrap() {
            let key = atom.spec().get_key().unwrap().to_owned();
            assert!(of_key.insert(key, atom.id()).is_none(), "two atoms of one key: {atom:#?}");
        }
        for (key, id) in &acknowledged {
            assert_eq!(of_key.get(key), Some(id), "{key} was acknowledged");
        }
        engine.verify().unwrap();
        engine.close().unwrap();
    }
    let engine = open(dir.path());
    let requests = (0..KEYS).map(|key| CreateRequest::from(spec(dir.path(), key))).collect();
    let atoms: Vec<Atom> =
        engine.create_many(requests).unwrap().into_iter().map(Result::unwrap).collect();
    for atom in &atoms {
        if let Some(id) = acknowledged.get(atom.spec().get_key().unwrap()) {
            assert_eq!(atom.id(), *id);
        }
    }
    let all: WaitManyRequest = atoms.iter().map(Atom::id).collect();
    assert!(engine.wait_all(&all).unwrap().iter().all(|atom| atom.state() == State::Stopped));
    let witness = std::fs::read_to_string(dir.path().join("witness")).unwrap();
    let mut ran: Vec<&str> = witness.lines().filter_map(|line| line.split(' ').next()).collect();
    ran.sort_unstable();
    let before = ran.len();
    ran.dedup();
    assert_eq!(ran.len(), before, "a request ran twice");
}

#[test]
fn a_key_holds_after_reopening_and_a_copy_of_it_in_a_snapshot_does() {
    let dir = tempfile::tempdir().unwrap();
    // Every few events a segment: what is known of the keys comes from a snapshot.
    let small = || {
        let options = ProcessEngine::options().segment_bytes(4096).supervision(Supervision::InHost);
        options.open(dir.path().join("store")).unwrap()
    };
    let engine = small();
    let first = engine.create(spec(dir.path(), 1).into()).unwrap();
    for _ in 0..40 {
        let atom = engine.create(AtomSpec::command("true").into()).unwrap();
        engine.wait(&atom.id().into()).unwrap();
    }
    engine.close().unwrap();
    let engine = small();
    assert_eq!(engine.create(spec(dir.path(), 1).into()).unwrap().id(), first.id());
    let other = spec(dir.path(), 1).arg("other");
    match engine.create(other.into()) {
        Err(Error::KeyInUse { by, .. }) => assert_eq!(by, first.id()),
        other => panic!("{other:?}"),
    }
    engine.delete(&first.id().into()).unwrap();
    assert_ne!(engine.create(spec(dir.path(), 1).into()).unwrap().id(), first.id());
}
