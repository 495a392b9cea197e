//! A host of one version meets the keeper of another one: it has its own take over, and the atoms do not notice.

#![cfg(target_os = "linux")]

mod process_harness;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};

use caesium::driver::process::ProcessOptions;
use caesium::driver::{Remembered, Sighting};
use caesium::lifecycle::WaitStatus;
use caesium::{AtomId, AtomSpec, State, Timestamp};
use process_harness::{World, following, keeper, lives, read_until, remembered, sh, wait_gone};

const DIR: &str = "CAESIUM_TEST_HOST";
const PROTOCOL: &str = "CAESIUM_TEST_PROTOCOL";
const REAPER: &str = "CAESIUM_TEST_REAPER";

fn world(dir: &Path, cgroups: bool) -> World {
    let mut options = ProcessOptions::new(dir.join("atoms"));
    options.cgroups = cgroups;
    World::with(options)
}

fn spec(dir: &Path) -> AtomSpec {
    sh("echo before; read x < gate; echo after; exit 9").workdir(dir)
}

/// Not a test: a host of some version, which says what it has started. It never ends by itself.
#[test]
fn as_host() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let world = world(&dir, std::env::var_os(REAPER).is_none());
    let atom = world.start(spec(&dir));
    let (pid, handle, at) = world.started(atom);
    read_until(&mut *world.log(atom, following()), "before\n");
    let handle: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("\nHOST {atom} {pid} {handle} {}", at.as_micros());
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

fn another_version_takes_over(protocol: &str, cgroups: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("gate"), mode).unwrap();
    let mut program = Program::new(std::env::current_exe().unwrap());
    program.args(["--exact", "as_host", "--nocapture", "--test-threads=1"]);
    program.env(DIR, dir.path()).env(PROTOCOL, protocol).stdout(Stdio::piped());
    if !cgroups {
        program.env(REAPER, "1");
    }
    let mut host: Child = program.spawn().unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("HOST ")).unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let atom: AtomId = words[1].parse().unwrap();
    let pid: u32 = words[2].parse().unwrap();
    let byte = |at: usize| u8::from_str_radix(&words[3][2 * at..2 * at + 2], 16).unwrap();
    let handle: Vec<u8> = (0..words[3].len() / 2).map(byte).collect();
    let known = Remembered {
        handle: Some(handle.into()),
        started_at: Some(Timestamp::from_micros(words[4].parse().unwrap())),
        ..remembered(atom, &spec(dir.path()), State::Running)
    };
    // Its keeper is still there, and speaks what we do not.
    let theirs = {
        let socket = dir.path().join("keeper.sock");
        let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let peer = rustix::net::sockopt::socket_peercred(stream).unwrap();
        peer.pid.as_raw_nonzero().get().cast_unsigned()
    };
    let ours = world(dir.path(), cgroups);
    assert_eq!(ours.look(known.clone()), Sighting::Adopted);
    assert_ne!(keeper(&ours), theirs);
    wait_gone(theirs);
    assert!(lives(pid));
    std::fs::write(dir.path().join("gate"), "\n").unwrap();
    assert_eq!(ours.exit(atom).status, WaitStatus::Exited { code: 9 });
    assert_eq!(ours.follow(atom).text(), "before\nafter\n");
    ours.remove(atom, known.handle);
}

#[test]
fn a_host_that_is_older_than_the_keeper_has_its_own_take_over() {
    another_version_takes_over("2", false);
}

#[test]
fn a_host_that_is_newer_than_the_keeper_has_its_own_take_over() {
    another_version_takes_over("0", false);
}

#[test]
fn what_is_in_a_cgroup_does_not_notice_either() {
    another_version_takes_over("7", true);
}
