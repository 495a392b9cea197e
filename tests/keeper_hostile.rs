//! Programs that do not want to end, under the keeper: when it tells their end, nothing of them lives.
//!
//! With a cgroup each, with a reaper each, and as an ordinary user.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

#[path = "../src/driver/process/tree/tests/hostile.rs"]
mod hostile;
mod process_harness;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use std::time::Duration;

use caesium::atom::{LeftBehind, Leftovers};
use caesium::driver::Observation;
use caesium::driver::process::ProcessOptions;
use caesium::{AtomId, AtomSpec};
use process_harness::{KEEPER_PROGRAM, World, following, lives, read_until, sh};

/// What contains them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Cgroups,
    Reapers,
}

/// A world in which atoms are contained like this.
fn world(by: By, dir: &Path) -> World {
    let mut options = ProcessOptions::new(dir.join("atoms"));
    options.cgroups = by == By::Cgroups;
    World::with(options)
}

/// This very test binary, in a role.
fn role(role: &str) -> AtomSpec {
    AtomSpec::command(std::env::current_exe().unwrap())
        .args(["--exact", hostile::ENTRY_BESIDE, "--nocapture", "--test-threads=1"])
        .env(hostile::ROLE, role)
}

/// Everything that lives and was started as this atom, wherever it has gone.
fn living(atom: AtomId) -> Vec<u32> {
    let entry = format!("CAESIUM_ATOM={atom}").into_bytes();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|one| one == entry) && lives(*pid)
    };
    pids.filter(is_it).collect()
}

fn left_behind(world: &World, wanted: AtomId) -> Option<Arc<LeftBehind>> {
    world.expect("exited", |o| match o {
        Observation::Exited { atom, left_behind, .. } if *atom == wanted => {
            Some(left_behind.clone())
        }
        _ => None,
    })
}

fn each_is_ended(by: By) {
    let dir = tempfile::tempdir().unwrap();
    let world = world(by, dir.path());
    for name in ["sleeper", "daemon", "escapee", "deaf", "storm", "stopped", "traced", "closed"] {
        let atom = world.start(role(name));
        read_until(&mut *world.log(atom, following()), hostile::READY);
        world.stop(atom, Duration::from_millis(100), false);
        let left = left_behind(&world, atom);
        assert_eq!(living(atom), [0_u32; 0], "{name} under {by:?}");
        if ["daemon", "escapee"].contains(&name) {
            let left = left.unwrap_or_else(|| panic!("{name} under {by:?} left nobody behind"));
            assert!(left.killed && left.count > 0 && !left.processes.is_empty(), "{left:?}");
        }
        world.remove(atom, None);
    }
}

#[test]
fn each_is_ended_in_its_cgroup() {
    each_is_ended(By::Cgroups);
}

#[test]
fn each_is_ended_by_its_reaper() {
    each_is_ended(By::Reapers);
}

/// Its leader exits when a descendant runs that has left the session.
fn leaves_one(dir: &Path) -> AtomSpec {
    let script =
        "mkfifo gate; setsid sh -c 'echo $$; echo > gate; exec sleep 1000' & read x < gate; exit 4";
    sh(script).workdir(dir)
}

fn what_is_left_is_killed_or_kept(by: By) {
    for policy in [Leftovers::Kill, Leftovers::Keep] {
        let dir = tempfile::tempdir().unwrap();
        let world = world(by, dir.path());
        let atom = world.start(leaves_one(dir.path()).leftovers(policy));
        let left = left_behind(&world, atom).expect("one was left");
        let pid: u32 = world.output(atom).text().trim().parse().unwrap();
        assert_eq!((left.count, left.killed), (1, policy == Leftovers::Kill), "{by:?}");
        assert_eq!(left.processes[0].pid, pid);
        assert!(["sleep", "sh"].contains(&&*left.processes[0].name), "{left:?}");
        assert_eq!(lives(pid), policy == Leftovers::Keep, "{by:?}");
        world.remove(atom, None);
        assert!(!lives(pid), "{by:?}");
    }
}

#[test]
fn what_is_left_in_a_cgroup_is_killed_or_kept() {
    what_is_left_is_killed_or_kept(By::Cgroups);
}

#[test]
fn what_is_left_with_a_reaper_is_killed_or_kept() {
    what_is_left_is_killed_or_kept(By::Reapers);
}

#[test]
fn an_atom_that_kills_its_reaper_is_ended_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let world = world(By::Reapers, dir.path());
    let script = "setsid sleep 1000 & kill -9 $PPID; echo ready; read x < /dev/zero; exit 4";
    let atom = world.start(sh(script));
    read_until(&mut *world.log(atom, following()), "ready");
    world.stop(atom, Duration::from_millis(100), true);
    world.exit(atom);
    assert_eq!(living(atom), [0_u32; 0]);
}

/// Says to this binary that it is an ordinary user's.
const ORDINARY: &str = "CAESIUM_TEST_ORDINARY";

/// Not a test by itself: what the next one executes as an ordinary user.
#[test]
fn as_an_ordinary_user() {
    if std::env::var_os(ORDINARY).is_none() {
        return;
    }
    each_is_ended(By::Cgroups);
    what_is_left_is_killed_or_kept(By::Cgroups);
}

#[test]
fn an_ordinary_user_has_each_ended_too() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: this needs root, to become an ordinary user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    // What is ours may not be his to execute where it is.
    let copy = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    let binary = copy(&std::env::current_exe().unwrap(), "keeper_of_nobody");
    let keeper = copy(Path::new(env!("CARGO_BIN_EXE_caesium")), "caesium");
    let output = Program::new(binary)
        .args(["--exact", "as_an_ordinary_user", "--nocapture", "--test-threads=1"])
        .env(ORDINARY, "1")
        .env(KEEPER_PROGRAM, keeper)
        .env("TMPDIR", dir.path())
        .current_dir(dir.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}
