//! Without cgroups the keeper holds what it holds with them: the same tests, with a reaper for each atom.

#![cfg(target_os = "linux")]
#![allow(clippy::duplicate_mod, reason = "each of these files is a test of its own, too")]

#[path = "process_endings.rs"]
mod endings;
#[path = "process_logs.rs"]
mod logs;
#[path = "process_stop.rs"]
mod stop;

use std::path::Path;
use std::sync::Arc;

use caesium::driver::{Driver, Remembered, Sighting};
use caesium::lifecycle::WaitStatus;
use caesium::{AtomId, State};
use endings::process_harness::{
    World, following, keeper, lives, read_until, remembered, sh, signal, wait_gone,
};
use rustix::process::Signal;

/// An atom that waits at a gate and exits with 6; somebody who has left its session lives on.
fn at_gate(world: &World, dir: &Path) -> (AtomId, Remembered) {
    let spec = sh("mkfifo gate; setsid sleep 1000 & echo ready; read x < gate; exit 6");
    let spec = spec.workdir(dir);
    let atom = world.start(spec.clone());
    let (_, handle, at) = world.started(atom);
    read_until(&mut *world.log(atom, following()), "ready\n");
    let known = Remembered {
        handle: Some(Arc::clone(&handle)),
        started_at: Some(at),
        ..remembered(atom, &spec, State::Running)
    };
    (atom, known)
}

/// The children of the atom's reaper that live.
fn descendants(leader: u32) -> Vec<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn when_the_keeper_is_killed_the_reaper_still_knows_and_still_ends_all() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(dir.path().join("atoms"));
    let (atom, known) = at_gate(&world, dir.path());
    let all = descendants(world.started(atom).0);
    let first = keeper(&world);
    signal(first, Signal::KILL);
    wait_gone(first);
    std::fs::write(dir.path().join("gate"), "\n").unwrap();
    let exit = world.exit(atom);
    assert_eq!(exit.status, WaitStatus::Exited { code: 6 });
    // Only its parent is told that.
    assert!(exit.usage.unwrap().max_rss.unwrap() > 0);
    assert!(all.into_iter().all(|pid| !lives(pid)));
    world.remove(atom, known.handle);
}

#[test]
fn when_host_and_keeper_are_gone_the_reaper_writes_down_how_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(dir.path().join("atoms"));
    let (atom, known) = at_gate(&world, dir.path());
    let (leader, ..) = world.started(atom);
    let all = descendants(leader);
    assert!(!all.is_empty());
    let first = keeper(&world);
    world.driver.close();
    signal(first, Signal::KILL);
    wait_gone(first);
    std::fs::write(dir.path().join("gate"), "\n").unwrap();
    for pid in all {
        wait_gone(pid);
    }
    let next = World::at(dir.path().join("atoms"));
    // Its reaper may just be about to write it down.
    assert_ne!(next.look(known.clone()), Sighting::AsRemembered);
    assert_eq!(next.exit(atom).status, WaitStatus::Exited { code: 6 });
    next.remove(atom, known.handle);
}

#[test]
fn what_an_earlier_keeper_started_is_stopped_with_all_that_descends_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(dir.path().join("atoms"));
    let (atom, known) = at_gate(&world, dir.path());
    let all = descendants(world.started(atom).0);
    let first = keeper(&world);
    world.driver.close();
    signal(first, Signal::KILL);
    wait_gone(first);
    let next = World::at(dir.path().join("atoms"));
    assert_eq!(next.look(known.clone()), Sighting::Adopted);
    next.stop(atom, std::time::Duration::from_secs(1000), false);
    assert_eq!(next.exit(atom).status, WaitStatus::Signaled { signal: 15, core_dumped: false });
    assert!(all.into_iter().all(|pid| !lives(pid)));
    next.remove(atom, known.handle);
}
