//! What the driver costs its host, and what it does when the host has nothing left to give.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

mod process_harness;
mod signals;

use std::fs;
use std::process::Command as Program;

use caesium::driver::process::{FDS_PER_ATOM, FDS_PER_RUNNING_ATOM, MARKER};
use caesium::driver::{Command, Driver, DriverError, Observation, Order};
use caesium::lifecycle::{Reason, WaitStatus};
use caesium::{AtomId, Outcome};
use process_harness::{World, following, read_until, sh, wait_gone};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use signals::is_ignored;

/// Says to this binary which test it is to be, in a process of its own.
const ALONE: &str = "CAESIUM_TEST_ALONE";

/// Runs `body` in a process of its own, started through `wrapper`: what it counts or breaks there belongs to nobody else.
fn alone(name: &str, wrapper: &str, body: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        body();
        return;
    }
    let status = Program::new("sh")
        .args(["-c", &format!("exec {wrapper} \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in its own process");
}

fn count(dir: &str) -> usize {
    fs::read_dir(dir).unwrap().count()
}

fn fds() -> usize {
    count("/proc/self/fd")
}

#[test]
fn descriptors_and_threads_return_to_where_they_were() {
    alone("descriptors_and_threads_return_to_where_they_were", "", || {
        let (fds_before, threads_before) = (fds(), count("/proc/self/task"));
        let world = World::new();
        world.sync(1);
        let fds_idle = fds();
        assert_eq!(fds_idle - fds_before, caesium::driver::process::FDS_PER_DRIVER);
        assert_eq!(count("/proc/self/task") - threads_before, 1);

        let prepared = world.prepare(sh("true"));
        assert_eq!(fds() - fds_idle, FDS_PER_ATOM);
        world.send(Command::Start(Order { atom: prepared.0, spec: prepared.1 }));
        world.exit(prepared.0);
        world.follow(prepared.0);
        world.sync(2);
        assert_eq!(fds(), fds_idle, "a stopped atom costs none");

        let sleeper = world.start(sh("exec sleep 1000"));
        world.started(sleeper);
        world.sync(3);
        assert_eq!(fds() - fds_idle, FDS_PER_RUNNING_ATOM);
        world.remove(sleeper, None);
        assert_eq!(fds(), fds_idle);

        let atoms: Vec<_> = (0..200).map(|_| world.start(sh("echo x; exit 1"))).collect();
        for atom in &atoms {
            world.exit(*atom);
            assert_eq!(world.follow(*atom).text(), "x\n");
        }
        world.sync(4);
        assert_eq!(fds(), fds_idle);
        for atom in atoms.into_iter().chain([prepared.0]) {
            world.remove(atom, None);
        }
        let left = fs::read_dir(&world.atoms).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.filter(|name| name != ".spare").count(), 0);
        let children =
            fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
        assert_eq!(children.unwrap_or_default(), "", "no zombie");
        drop(world);
        assert_eq!((fds(), count("/proc/self/task")), (fds_before, threads_before));
    });
}

#[test]
fn without_descriptors_nothing_is_created() {
    alone("without_descriptors_nothing_is_created", "", || {
        let world = World::new();
        let limit = getrlimit(Resource::Nofile);
        let spec = world.driver.complete(sh("echo it runs"), None).unwrap();
        for spare in 0..FDS_PER_ATOM + 2 {
            setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..limit }).unwrap();
            // Every number is taken, then as many are given back: none is free by chance.
            let mut taken: Vec<_> =
                std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
            taken.truncate(taken.len() - spare);
            let atom = AtomId::new();
            let result = world.driver.prepare(atom, &spec, None);
            if spare < FDS_PER_ATOM {
                match result {
                    Err(DriverError::Exhausted { hint, .. }) => {
                        assert!(hint.contains("RLIMIT_NOFILE"), "{hint}");
                    }
                    other => panic!("with {spare} descriptors: {other:?}"),
                }
                setrlimit(Resource::Nofile, limit).unwrap();
                assert_eq!(count(world.atoms.to_str().unwrap()), 0, "nothing is left behind");
            } else if result.is_ok() {
                // What was set aside is enough to run it, with nothing to spare.
                let spec = std::sync::Arc::new(spec.clone());
                world.send(Command::Start(Order { atom, spec }));
                let exit = world.exit(atom);
                setrlimit(Resource::Nofile, limit).unwrap();
                assert_eq!(exit.ending().outcome, Outcome::Success);
                assert_eq!(world.follow(atom).text(), "it runs\n");
                world.remove(atom, None);
                return;
            }
            setrlimit(Resource::Nofile, limit).unwrap();
        }
        panic!("it cannot be prepared with FDS_PER_ATOM descriptors");
    });
}

#[test]
fn a_host_that_ignores_sigchld_learns_how_its_atoms_end() {
    alone(
        "a_host_that_ignores_sigchld_learns_how_its_atoms_end",
        "env --ignore-signal=CHLD",
        || {
            if !is_ignored(Signal::CHILD) {
                eprintln!("SKIP: SIGCHLD could not be ignored");
                return;
            }
            let world = World::new();
            let gate = world.atoms.join("gate");
            let script = format!(
                "mkfifo {0}; sleep 1000 & echo $!; echo ready; read x < {0}; echo end; exit 9",
                gate.display()
            );
            let wanted = world.start(sh(&script));
            let printed = read_until(&mut *world.log(wanted, following()), "ready\n");
            let child: u32 = printed.lines().next().unwrap().parse().unwrap();
            fs::write(gate, "\n").unwrap();
            let ended = world.expect("an ending", |o| match o {
                Observation::Exited { atom, status, .. } if *atom == wanted => Some(Ok(*status)),
                Observation::LostSight { atom, reason, .. } if *atom == wanted => {
                    Some(Err(*reason))
                }
                _ => None,
            });
            match ended {
                Ok(status) => assert_eq!(status, WaitStatus::Exited { code: 9 }),
                Err(reason) => {
                    assert_eq!(reason, Reason::ExitUnobserved);
                    eprintln!("SKIP: this kernel does not tell how an unwaited process ended");
                }
            }
            assert!(world.follow(wanted).text().ends_with("end\n"));
            wait_gone(child);
            // Those that end at once may be gone before anything can hold them: unknown then, never wrong.
            for _ in 0..20 {
                let wanted = world.start(sh("exit 3"));
                world.expect("an ending", |o| match o {
                    Observation::Exited { atom, status, .. } if *atom == wanted => {
                        assert_eq!(*status, WaitStatus::Exited { code: 3 });
                        Some(())
                    }
                    Observation::LostSight { atom, .. } if *atom == wanted => Some(()),
                    _ => None,
                });
            }
        },
    );
}

#[test]
fn an_atom_inherits_no_descriptor_of_the_host() {
    let world = World::new();
    let atom = world.start(sh("ls /proc/$$/fd"));
    // What the host itself was given without close-on-exec is everybody's.
    let bare = Program::new("sh").args(["-c", "ls /proc/$$/fd"]).output().unwrap();
    assert_eq!(world.follow(atom).text(), String::from_utf8(bare.stdout).unwrap());
}

#[test]
fn every_process_of_an_atom_has_the_marker() {
    let world = World::new();
    let atom = world.start(sh("env; sh -c env; exit 0"));
    let entry = format!("{MARKER}={atom}");
    let output = world.follow(atom).text();
    assert_eq!(output.lines().filter(|line| **line == entry).count(), 2);
}

#[test]
fn a_silent_atom_wakes_nobody() {
    alone("a_silent_atom_wakes_nobody", "", || {
        let world = World::new();
        let atom = world
            .start(sh("echo ready; exec sleep 1000").timeout(std::time::Duration::from_secs(3600)));
        read_until(&mut *world.log(atom, following()), "ready\n");
        world.sync(1);
        let switches = || -> u64 {
            fs::read_dir("/proc/self/task")
                .unwrap()
                .map(|task| task.unwrap().path())
                .filter(|task| {
                    fs::read_to_string(task.join("comm")).unwrap().trim() == "caesium-process"
                })
                .map(|task| {
                    let status = fs::read_to_string(task.join("status")).unwrap();
                    let line = status.lines().find(|l| l.starts_with("voluntary_ctxt")).unwrap();
                    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
                })
                .sum()
        };
        // It has gone to wait when it has given up the processor after the sync: that may take a moment,
        // in which another atom of another driver can start and end.
        let other = World::new();
        let rest = |other: &World| {
            for _ in 0..5 {
                other.exit(other.start(sh("sleep 0.1")));
            }
        };
        rest(&other);
        drop(other);
        let before = switches();
        let status = Program::new("sleep").arg("1").status().unwrap();
        assert!(status.success());
        assert_eq!(switches(), before, "the monitor woke up");
        world.remove(atom, None);
    });
}
