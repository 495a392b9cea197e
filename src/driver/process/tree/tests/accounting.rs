//! What is counted of an atom.

use std::os::unix::process::ExitStatusExt;

use super::super::leader_oom_killed;
use super::*;
use crate::lifecycle::WaitStatus;

const SMALL: Limits =
    Limits { memory: Some(64 << 20), pids: None, cpus: None, rlimits: Vec::new() };

#[test]
fn a_leader_that_the_oom_killer_ended_is_known_by_the_counter() {
    let Some(cgroups) = cgroups(Way::Found, &store_name()) else { return };
    if !can_limit(&cgroups, &SMALL) {
        return;
    }
    let mut played = Played::start(cgroups, "hog", &SMALL);
    assert_eq!(played.said, "", "it did not survive to say anything");
    let status = played.leader.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    let oom = played.group().oom();
    assert_eq!(oom.kills, Some(1));
    let status = WaitStatus::from_raw(status.into_raw()).unwrap();
    assert!(leader_oom_killed(status, false, oom));
    let peak = played.group().usage().peak_memory;
    assert!(peak.is_none_or(|peak| peak > 32 << 20 && peak <= 64 << 20), "{peak:?}");
    played.kill();
}

#[test]
fn a_child_that_the_oom_killer_ended_is_counted_and_the_leader_is_not_its_victim() {
    let Some(cgroups) = cgroups(Way::Found, &store_name()) else { return };
    if !can_limit(&cgroups, &SMALL) {
        return;
    }
    let mut played = Played::start(cgroups, "hog-child", &SMALL);
    let status = played.leader.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    let oom = played.group().oom();
    assert_eq!(oom.kills, Some(1));
    let status = WaitStatus::from_raw(status.into_raw()).unwrap();
    assert!(!leader_oom_killed(status, false, oom));
    played.kill();
}

#[test]
fn what_an_atom_used_is_told_as_far_as_the_kernel_counts_it() {
    let Some(cgroups) = cgroups(Way::Found, &store_name()) else { return };
    // A limit far off has it measured by everything that there is.
    let far = Limits { pids: Some(10_000), ..Limits::default() };
    let limits = if can_limit(&cgroups, &far) { far } else { Limits::default() };
    let mut played = Played::start(cgroups, "burner", &limits);
    let usage = played.group().usage();
    assert_eq!(usage.user.is_some(), usage.system.is_some());
    match usage.user.zip(usage.system) {
        Some((user, system)) => assert!(user + system > Duration::from_millis(10), "{usage:?}"),
        None => eprintln!("SKIP: no CPU time is counted here"),
    }
    match usage.peak_memory {
        Some(peak) => assert!(peak > 100_000, "{usage:?}"),
        None => eprintln!("SKIP: no memory is counted here"),
    }
    played.kill();
}
