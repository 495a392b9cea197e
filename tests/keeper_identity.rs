//! A pid that belongs to somebody else now is neither taken for ours nor signalled.
//!
//! The reuse is forced, in a pid namespace of its own, by `ns_last_pid`.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

mod process_harness;

use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;

use caesium::driver::{Command, Driver, Observation, Remembered, Sighting};
use caesium::lifecycle::Reason;
use caesium::{AtomId, State};
use process_harness::{World, keeper, lives, remembered, sh, signal, wait_gone};
use rustix::process::Signal;

const INSIDE: &str = "CAESIUM_TEST_PID_NAMESPACE";
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Runs the test of this name in a pid namespace whose first process reaps; true inside.
fn in_a_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = |command: &[&str]| {
        let mut program = Program::new("unshare");
        program.args(["--pid", "--mount-proc", "--fork", "--kill-child"]).args(command);
        program.env(INSIDE, "1");
        program
    };
    let writable = format!("echo 300 > {LAST_PID}");
    let probe = unshare(&["sh", "-c", &writable]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIP: no pid namespace can be made here in which pids can be chosen");
        return false;
    }
    let binary = std::env::current_exe().unwrap();
    let binary = binary.to_str().unwrap();
    // The shell is its init: it reaps whoever comes to it.
    let script = "\"$@\"; exit $?";
    let arguments = [binary, "--exact", name, "--nocapture", "--test-threads=1"];
    let output = unshare(&[&["sh", "-c", script, "sh"], &arguments[..]].concat()).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

/// Somebody who has nothing to do with us, under this very pid.
fn stranger(pid: u32) -> Child {
    for _ in 0..1000 {
        std::fs::write(LAST_PID, (pid - 1).to_string()).unwrap();
        let mut child = Program::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        if child.id() == pid {
            return child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    panic!("nobody gets the pid {pid}");
}

/// An atom that has ended with its keeper and its guard, when nobody watched, and whose pid somebody else has.
fn ended_and_replaced(dir: &Path) -> (AtomId, Remembered, Child) {
    let world = World::at(dir.join("atoms"));
    let spec = sh("exec sleep 1000");
    let atom = world.start(spec.clone());
    let (pid, handle, at) = world.started(atom);
    let keeper = keeper(&world);
    world.driver.close();
    let stat = std::fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    let guard: u32 = stat.split_whitespace().nth(3).unwrap().parse().unwrap();
    for process in [guard, keeper, pid] {
        signal(process, Signal::KILL);
        wait_gone(process);
    }
    let known = Remembered {
        handle: Some(Arc::clone(&handle)),
        started_at: Some(at),
        ..remembered(atom, &spec, State::Running)
    };
    (atom, known, stranger(pid))
}

#[test]
fn whoever_has_the_pid_of_an_atom_now_is_left_alone() {
    if !in_a_namespace("whoever_has_the_pid_of_an_atom_now_is_left_alone") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (atom, known, mut stranger) = ended_and_replaced(dir.path());
    let world = World::at(dir.path().join("atoms"));
    assert_eq!(world.look(known.clone()), Sighting::Changed);
    let reason = world.expect("lost sight", |o| match o {
        Observation::LostSight { atom: of, reason, .. } if *of == atom => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Reason::ExitUnobserved);
    world.stop(atom, std::time::Duration::ZERO, true);
    world.sync(1);
    assert!(lives(stranger.id()));
    world.send(Command::Remove { atom, handle: known.handle });
    world.removed(atom);
    assert!(lives(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_stop_that_was_under_way_does_not_hit_whoever_has_the_pid_now() {
    if !in_a_namespace("a_stop_that_was_under_way_does_not_hit_whoever_has_the_pid_now") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (atom, known, mut stranger) = ended_and_replaced(dir.path());
    let world = World::at(dir.path().join("atoms"));
    let now = process_harness::wall();
    let stop = caesium::lifecycle::Stop {
        asked_at: now,
        kill_at: now,
        force: true,
        cause: caesium::lifecycle::StopCause::Requested,
    };
    let stopping = Remembered { state: State::Stopping, stop: Some(stop), ..known.clone() };
    assert_eq!(world.look(stopping), Sighting::Changed);
    assert!(lives(stranger.id()));
    world.remove(atom, known.handle);
    assert!(lives(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}
