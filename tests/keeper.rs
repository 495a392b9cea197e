//! The keeper's own ways: it holds nobody up, and leaves nothing behind.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

mod process_harness;

use std::time::{Duration, Instant};

use caesium::driver::process::ProcessOptions;
use caesium::driver::{Command, Driver, Observation, Order, Remembered};
use caesium::lifecycle::{Outcome, WaitStatus};
use caesium::{AtomId, AtomSpec, State};
use process_harness::{PATIENCE, World, keeper, lives, sh, signal, wait_gone};
use rustix::process::Signal;

/// The children of a process that live.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.filter(|pid| lives(*pid)).collect()
}

/// Prepares an atom whose child stands still before its go.
fn held_up(world: &World, spec: AtomSpec) -> (Order, u32) {
    let before = children(keeper(world));
    let (atom, spec) = world.prepare(spec);
    let deadline = Instant::now() + PATIENCE;
    let child = loop {
        let mut now = children(keeper(world));
        now.retain(|pid| !before.contains(pid));
        match now.pop() {
            Some(child) => break child,
            None => assert!(Instant::now() < deadline, "no child was forked"),
        }
    };
    signal(child, Signal::STOP);
    (Order { atom, spec }, child)
}

fn seen(world: &World, atom: AtomId) -> Vec<Observation> {
    world.seen().into_iter().filter(|seen| seen.atom() == Some(atom)).collect()
}

#[test]
fn an_execution_that_is_held_up_holds_up_nobody_else() {
    let world = World::new();
    // So that there is a keeper to look at.
    let first = world.start(sh("exit 1"));
    assert_eq!(world.exit(first).status, WaitStatus::Exited { code: 1 });
    let (order, child) = held_up(&world, sh("exit 7"));
    let atom = order.atom;
    world.send(Command::Start(order));
    let other = world.start(sh("exit 3"));
    assert_eq!(world.exit(other).status, WaitStatus::Exited { code: 3 });
    assert_eq!(seen(&world, atom), []);
    signal(child, Signal::CONT);
    assert_eq!(world.started(atom).0, child);
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 7 });
}

#[test]
fn a_stop_that_comes_during_the_execution_is_carried_out_after_it() {
    for (force, outcome) in [(false, Outcome::Terminated), (true, Outcome::Killed)] {
        let world = World::new();
        let first = world.start(sh("exit 1"));
        world.exit(first);
        let (order, child) = held_up(&world, sh("exec sleep 1000"));
        let atom = order.atom;
        world.send(Command::Start(order));
        // Otherwise both are there at once, and it is withdrawn.
        world.sync(0);
        world.stop(atom, Duration::from_secs(1000), force);
        world.sync(1);
        assert!(lives(child));
        signal(child, Signal::CONT);
        assert_eq!(world.exit(atom).ending().outcome, outcome);
        let kinds: Vec<_> = seen(&world, atom);
        assert!(matches!(kinds[0], Observation::Started { .. }), "{kinds:?}");
    }
}

#[test]
fn what_was_prepared_and_never_started_ends_with_its_host_and_leaves_nothing() {
    let world = World::new();
    let first = world.start(sh("exec sleep 1000"));
    world.started(first);
    let keeper = keeper(&world);
    let (order, child) = held_up(&world, sh("echo ran > ran"));
    signal(child, Signal::CONT);
    world.driver.close();
    wait_gone(child);
    let again = World::at(world.atoms.clone());
    again.sync(1);
    assert!(!world.dir(order.atom).join("out").exists());
    assert!(!world.dir(order.atom).join("ran").exists());
    again.remove(first, None);
    again.remove(order.atom, None);
    drop(again);
    wait_gone(keeper);
}

#[test]
fn a_keeper_that_is_stopped_makes_no_host_wait_for_ever() {
    let mut options = ProcessOptions::new("");
    options.keeper_patience = Duration::from_millis(200);
    let dir = tempfile::tempdir().unwrap();
    options.dir = dir.path().join("atoms");
    let world = World::with(options);
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("gate"), rustix::fs::Mode::RWXU).unwrap();
    let atom = world.start(sh("read x < gate; exit 7").workdir(dir.path()));
    world.started(atom);
    let keeper = keeper(&world);
    signal(keeper, Signal::STOP);
    let other = AtomId::new();
    let spec = world.driver.complete(sh("exit 3"), None).unwrap();
    // Until the socket takes no more, and beyond.
    for _ in 0..3 {
        let error = world.driver.prepare(other, &spec, None).unwrap_err().to_string();
        assert!(error.contains("does not answer") && error.contains("keeper of"), "{error}");
    }
    let large = spec.clone().env("LARGE", "x".repeat(900 << 10));
    let error = world.driver.prepare(AtomId::new(), &large, None).unwrap_err().to_string();
    assert!(error.contains("keeper of"), "{error}");
    signal(keeper, Signal::CONT);
    std::fs::write(dir.path().join("gate"), "\n").unwrap();
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 7 });
    // What was given up can be had anew.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = world.driver.prepare(other, &spec, None) {
        assert!(Instant::now() < deadline, "{error}");
    }
    world.send(Command::Start(Order { atom: other, spec: spec.into() }));
    assert_eq!(world.exit(other).status, WaitStatus::Exited { code: 3 });
}

#[test]
fn an_atom_may_run_longer_than_its_start_may_take() {
    let world = World::new();
    // The keeper gives up a program that was not executed after 30 s.
    let atom = world.start(sh("sleep 31; exit 5"));
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 5 });
    let others = seen(&world, atom)
        .into_iter()
        .filter(|seen| !matches!(seen, Observation::Started { .. } | Observation::Exited { .. }));
    assert_eq!(others.collect::<Vec<_>>(), []);
}

#[test]
fn what_the_keeper_has_to_say_is_in_its_file() {
    let world = World::new();
    world.exit(world.start(sh("exit 0")));
    let home = world.atoms.parent().unwrap();
    // Somebody who is no host.
    let stream = std::os::unix::net::UnixStream::connect(home.join("keeper.sock")).unwrap();
    std::io::Write::write_all(&mut &stream, &[b'x'; 64]).unwrap();
    drop(stream);
    let deadline = Instant::now() + PATIENCE;
    let log = loop {
        let log = std::fs::read_to_string(home.join("keeper.log")).unwrap();
        if log.ends_with('\n') {
            break log;
        }
        assert!(Instant::now() < deadline, "{log:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    };
    assert!(log.contains(" WARN ") && log.contains("no host was sent away"), "{log}");
}

#[test]
fn a_noisy_atom_starves_nobody() {
    let world = World::new();
    // As fast as it can, until it is stopped.
    let noisy: Vec<_> = (0..2).map(|_| world.start(AtomSpec::command("yes"))).collect();
    for atom in &noisy {
        world.started(*atom);
    }
    let others: Vec<_> =
        (0..20).map(|code| world.start(sh(&format!("echo {code}; exit {code}")))).collect();
    for (code, atom) in (0_u8..).zip(&others) {
        assert_eq!(world.exit(*atom).status, WaitStatus::Exited { code });
        assert_eq!(world.output(*atom).text(), format!("{code}\n"));
    }
    for atom in noisy {
        assert!(!world.output(atom).chunks.is_empty());
        world.stop(atom, Duration::ZERO, true);
        world.exit(atom);
    }
}

#[test]
fn what_is_printed_between_two_keepers_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("gate"), rustix::fs::Mode::RWXU).unwrap();
    let world = World::at(dir.path().join("atoms"));
    let spec =
        sh("echo before; read x < gate; seq 1000; echo after >&2; exit 3").workdir(dir.path());
    let atom = world.start(spec.clone());
    let (pid, handle, at) = world.started(atom);
    process_harness::read_until(&mut *world.log(atom, process_harness::following()), "before\n");
    let keeper = keeper(&world);
    world.driver.close();
    signal(keeper, Signal::KILL);
    wait_gone(keeper);
    // The guard has seen that, and has opened the pipes, when it has reaped the keeper.
    let deadline = Instant::now() + PATIENCE;
    while std::path::Path::new(&format!("/proc/{keeper}")).exists() {
        assert!(Instant::now() < deadline, "the keeper is not reaped");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    std::fs::write(dir.path().join("gate"), "\n").unwrap();
    wait_gone(pid);
    let next = World::at(dir.path().join("atoms"));
    next.look(Remembered {
        handle: Some(handle.clone()),
        started_at: Some(at),
        ..process_harness::remembered(atom, &spec, State::Running)
    });
    assert_eq!(next.exit(atom).status, WaitStatus::Exited { code: 3 });
    let output = next.output(atom);
    let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(output.of(caesium::log::Stream::Stdout), format!("before\n{numbers}"));
    assert_eq!(output.of(caesium::log::Stream::Stderr), "after\n");
    next.remove(atom, Some(handle));
}
