//! Stopping: SIGTERM, grace, SIGKILL, to the whole group; and deadlines.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

mod process_harness;

use std::time::Duration;

use caesium::driver::Observation;
use caesium::lifecycle::{Reason, StopCause, WaitStatus};
use caesium::{AtomId, AtomSpec, Outcome};
use process_harness::{World, following, lives, read_until, remembered, sh, wait_gone};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(50);

/// Starts it and waits until it has printed `ready`; gives what it printed.
fn ready(world: &World, spec: AtomSpec) -> (AtomId, String) {
    let atom = world.start(spec);
    let printed = read_until(&mut *world.log(atom, following()), "ready\n");
    (atom, printed)
}

/// The pids that a script printed, one per line.
fn pids(printed: &str) -> Vec<u32> {
    printed.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn sigterm_ends_what_does_not_care() {
    let world = World::new();
    let (atom, _) = ready(&world, sh("echo ready; exec sleep 1000"));
    world.stop(atom, LONG, false);
    let exit = world.exit(atom);
    assert_eq!(exit.status, WaitStatus::Signaled { signal: 15, core_dumped: false });
    assert!(exit.evidence.term_reached && !exit.evidence.kill_sent);
    assert_eq!(exit.ending().outcome, Outcome::Terminated);
    assert_eq!(exit.ending().reason, Reason::Stopped);
}

#[test]
fn what_exits_with_a_code_after_sigterm_was_terminated() {
    let world = World::new();
    let script = "trap 'echo bye; exit 5' TERM; echo ready; sleep 1000 & wait";
    let (atom, _) = ready(&world, sh(script));
    world.stop(atom, LONG, false);
    let ending = world.exit(atom).ending();
    assert_eq!((ending.outcome, ending.exit_code), (Outcome::Terminated, Some(5)));
    assert_eq!(world.output(atom).text(), "ready\nbye\n");
}

#[test]
fn what_ignores_sigterm_is_killed_when_the_grace_is_over() {
    let world = World::new();
    let (atom, _) = ready(&world, sh("trap '' TERM; echo ready; sleep 1000; sleep 1000"));
    world.stop(atom, SHORT, false);
    let exit = world.exit(atom);
    assert!(exit.evidence.term_reached && exit.evidence.kill_sent);
    assert_eq!(exit.ending().outcome, Outcome::Killed);
    assert_eq!(exit.ending().reason, Reason::StopForced);
}

#[test]
fn force_kills_at_once_and_escalates() {
    let world = World::new();
    let (atom, _) = ready(&world, sh("echo ready; exec sleep 1000"));
    world.stop(atom, LONG, true);
    let exit = world.exit(atom);
    assert!(!exit.evidence.term_reached && exit.evidence.kill_sent);
    assert_eq!(exit.ending().reason, Reason::StopForced);

    let deaf = || sh("trap '' TERM; echo ready; sleep 1000; sleep 1000");
    let (atom, _) = ready(&world, deaf());
    world.stop(atom, LONG, false);
    world.stop(atom, LONG, true);
    assert_eq!(world.exit(atom).ending().reason, Reason::StopForced);

    let (atom, _) = ready(&world, deaf());
    world.stop(atom, LONG, false);
    world.stop(atom, SHORT, false);
    assert_eq!(world.exit(atom).ending().reason, Reason::StopForced);
}

#[test]
fn what_was_stopped_by_a_signal_can_still_be_stopped() {
    let world = World::new();
    let script = "trap 'exit 6' TERM; echo ready; kill -STOP $$; sleep 1000 & wait";
    let (atom, _) = ready(&world, sh(script));
    world.stop(atom, LONG, false);
    assert_eq!(world.exit(atom).ending().exit_code, Some(6));

    // Simulates a process that is stopped and deaf: only the kill is left.
    let (atom, _) = ready(&world, sh("trap '' TERM; echo ready; kill -STOP $$; sleep 1000"));
    world.stop(atom, SHORT, false);
    assert_eq!(world.exit(atom).ending().outcome, Outcome::Killed);
}

#[test]
fn nobody_of_the_group_is_left_after_a_stop() {
    let world = World::new();
    let script = "
        trap '' TERM
        (trap '' TERM; sleep 1000 & echo $!; sleep 1000) &
        sleep 1000 & echo $!
        sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!
        echo ready; wait; sleep 1000";
    let (atom, _) = ready(&world, sh(script));
    world.stop(atom, SHORT, false);
    world.exit(atom);
    let printed = pids(&world.follow(atom).text());
    assert_eq!(printed.len(), 3);
    for pid in printed {
        wait_gone(pid);
        assert!(!lives(pid));
    }
}

#[test]
fn what_the_leader_leaves_behind_in_its_group_is_killed() {
    let world = World::new();
    // Simulates a program that forgets its helpers: one that holds its output open, and one that does not.
    let script = "(trap '' TERM HUP; sleep 1000) & echo $!; sleep 1000 >&- 2>&- & echo $!; exit 4";
    let atom = world.start(sh(script));
    let exit = world.exit(atom);
    assert_eq!(exit.status, WaitStatus::Exited { code: 4 });
    assert_eq!(exit.ending().outcome, Outcome::Failure, "the kill was not of the leader");
    for pid in pids(&world.follow(atom).text()) {
        wait_gone(pid);
    }
}

/// Starts what ignores SIGTERM and runs longer than it may, and waits for its deadline's stop; says with what grace it began.
fn beyond_its_deadline(world: &World, grace: Duration) -> (AtomId, Duration) {
    loop {
        let script = "trap '' TERM; echo ready; sleep 1000; sleep 1000";
        let wanted = world.start(sh(script).timeout(SHORT).grace(grace));
        let (cause, grace) = world.expect("a stop by deadline", |o| match o {
            Observation::StopBegan { atom, cause, grace, .. } if *atom == wanted => {
                Some((*cause, *grace))
            }
            _ => None,
        });
        assert_eq!(cause, StopCause::Deadline);
        if world.output(wanted).text() == "ready\n" {
            return (wanted, grace);
        }
        // On a busy machine the deadline may come before it ignores anything.
        world.remove(wanted, None);
    }
}

#[test]
fn the_deadline_stops_it_with_the_grace_of_the_spec() {
    let world = World::new();
    let (wanted, grace) = beyond_its_deadline(&world, SHORT);
    assert_eq!(grace, SHORT);
    let ending = world.exit(wanted).ending();
    assert_eq!((ending.outcome, ending.reason), (Outcome::Killed, Reason::Deadline));

    let atom = world.start(sh("exec sleep 1000").timeout(SHORT).grace(LONG));
    let ending = world.exit(atom).ending();
    assert_eq!((ending.outcome, ending.reason), (Outcome::Terminated, Reason::Deadline));
}

#[test]
fn a_request_during_the_stop_of_a_deadline_makes_it_a_requested_one() {
    let world = World::new();
    let (wanted, _) = beyond_its_deadline(&world, LONG);
    world.stop(wanted, LONG, true);
    let exit = world.exit(wanted);
    assert_eq!(exit.evidence.cause, Some(StopCause::Requested));
    assert_eq!(exit.ending().reason, Reason::StopForced);
}

#[test]
fn a_stop_of_what_has_ended_does_nothing() {
    let world = World::new();
    let atom = world.start(sh("exit 0"));
    world.exit(atom);
    world.stop(atom, LONG, true);
    world.stop(AtomId::new(), LONG, true);
    world.sync(1);
    let endings = world.seen().iter().filter(|o| matches!(o, Observation::Exited { .. })).count();
    assert_eq!(endings, 1);
}

#[test]
fn removing_ends_what_still_runs_and_says_nothing_of_its_end() {
    let world = World::new();
    let (atom, _) = ready(&world, sh("trap '' TERM; echo ready; sleep 1000; sleep 1000"));
    let (pid, handle, _) = world.started(atom);
    world.remove(atom, Some(handle));
    assert!(!lives(pid));
    assert!(!world.seen().iter().any(|o| matches!(o, Observation::Exited { .. })));
    assert!(!process_harness::exists(&world.dir(atom)));
}

#[test]
fn a_stop_that_races_with_the_end_gives_one_ending() {
    let world = World::new();
    let atoms: Vec<_> = (0..100).map(|_| world.start(sh("exit 0"))).collect();
    for atom in &atoms {
        world.stop(*atom, LONG, false);
    }
    world.sync(1);
    for wanted in atoms {
        world.expect("an ending", |o| match o {
            Observation::Exited { atom, .. } | Observation::NeverStarted { atom, .. }
                if *atom == wanted =>
            {
                Some(())
            }
            _ => None,
        });
    }
    let ended = |o: &Observation| {
        matches!(o, Observation::Exited { .. } | Observation::NeverStarted { .. })
    };
    assert_eq!(world.seen().iter().filter(|o| ended(o)).count(), 100);
}

#[test]
fn closing_leaves_what_lives_alone_and_the_next_driver_has_it() {
    let first = World::new();
    let spec = sh("echo ready; exec sleep 1000");
    let (atom, _) = ready(&first, spec.clone());
    let (pid, handle, at) = first.started(atom);
    use caesium::driver::Driver;
    first.driver.close();
    assert!(first.driver.send(caesium::driver::Command::Sync { token: 1 }).is_err());
    assert!(lives(pid));
    let second = World::at(&first.atoms);
    let mut known = remembered(atom, &spec, caesium::State::Running);
    known.handle = Some(handle);
    known.started_at = Some(at);
    assert_eq!(second.look(known), caesium::driver::Sighting::Adopted);
    second.stop(atom, LONG, false);
    let exit = second.exit(atom);
    assert_eq!(exit.ending().outcome, Outcome::Terminated);
    assert!(exit.usage.is_some(), "it is our own child");
}
