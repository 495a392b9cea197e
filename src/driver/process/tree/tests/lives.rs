//! Groups are made, found again, and leave nothing.

use std::os::fd::AsFd;

use super::*;
use crate::atom::AtomSpec;
use crate::driver::Surroundings;
use crate::driver::process::fork::{Plan, fork};
use crate::driver::process::spawn::Streams;
use crate::driver::process::sys::{reap, wait_ended};
use crate::driver::process::tree::store_group::StoreGroup;

#[test]
fn looking_for_them_leaves_nothing_behind() {
    let name = store_name();
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let cgroups = Cgroups::find(&name);
    assert_eq!(children(), "");
    assert_eq!(traces(&name), NOWHERE);
    drop(cgroups);
    // Other tests open and close theirs meanwhile: none of ours piles up.
    for _ in 0..50 {
        Cgroups::find(&name);
    }
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() < before + 50);
    assert_eq!(traces(&name), NOWHERE);
}

#[test]
fn an_earlier_keepers_group_is_found_again_and_killed() {
    let name = store_name();
    let Some(cgroups) = cgroups(Way::Found, &name) else { return };
    let mut played = Played::start(cgroups, "escapee", &Limits::default());
    let atom = played.group().atom();

    let later = Cgroups::find(&name);
    assert_eq!(later.leftover_groups(), [atom]);
    assert!(later.reopen(AtomId::new()).is_none());
    let group = later.reopen(atom).unwrap();
    assert_eq!(group.members().unwrap(), played.group().members().unwrap());
    assert_eq!(group.join_files(), played.group().join_files());
    // Not while an atom is in it.
    later.remove_store_group();
    assert_eq!(later.leftover_groups(), [atom]);
    assert!(group.remove().is_err(), "something lives in it");
    played.kill();
    assert!(later.reopen(atom).is_none());
    assert_eq!(traces(&name), NOWHERE);
}

#[test]
fn a_keeper_that_ran_elsewhere_left_a_group_that_is_found() {
    let name = store_name();
    let Some(mut cgroups) = cgroups(Way::Found, &name) else { return };
    // As if the earlier one had been started from another login session.
    let elsewhere = format!("caesium-other-{name}");
    let mut sessions = Vec::new();
    for store in cgroups.stores_mut() {
        let mut hierarchy = (*store.hierarchy).clone();
        hierarchy.base.push(&elsewhere);
        fs::create_dir(&hierarchy.base).unwrap();
        sessions.push(hierarchy.base.clone());
        *store = StoreGroup::new(hierarchy, &format!("caesium-{name}"));
    }
    let group = cgroups.create(AtomId::new(), &Limits::default()).unwrap();
    let atom = group.atom();

    let later = Cgroups::find(&name);
    assert_eq!(later.leftover_groups(), [atom]);
    later.reopen(atom).unwrap().remove().unwrap();
    later.remove_store_group();
    for session in sessions {
        fs::remove_dir(session).unwrap();
    }
    assert_eq!(traces(&name), NOWHERE);
}

#[test]
fn the_group_of_an_interrupted_start_is_used_unless_somebody_is_in_it() {
    let name = store_name();
    let Some(cgroups) = cgroups(Way::Found, &name) else { return };
    let atom = AtomId::new();
    drop(cgroups.create(atom, &Limits::default()).unwrap());
    cgroups.create(atom, &Limits::default()).unwrap().remove().unwrap();
    let mut played = Played::start(cgroups, "sleeper", &Limits::default());
    let taken = played.group().atom();
    assert!(played.cgroups.create(taken, &Limits::default()).is_err());
    assert!(!played.group().is_empty().unwrap(), "it was left alone");
    assert_eq!(played.group().members().unwrap(), [played.leader.id()]);
    played.kill();
}

#[test]
fn a_group_costs_a_descriptor_only_when_it_is_watched() {
    let Some(cgroups) = cgroups(Way::UnifiedKill, &store_name()) else { return };
    let group = cgroups.create(AtomId::new(), &Limits::default()).unwrap();
    let open = || {
        let events = group.nodes()[0].dir.join("cgroup.events");
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == events))
            .count()
    };
    assert!(group.is_empty().unwrap());
    assert_eq!(open(), 0);
    assert!(group.is_empty_by_fd().unwrap());
    group.emptied_fd().unwrap();
    assert_eq!(open(), 1);
    group.remove().unwrap();
    cgroups.remove_store_group();
}

#[test]
fn a_child_is_in_its_groups_before_it_has_its_go() {
    let name = store_name();
    let Some(cgroups) = cgroups(Way::Found, &name) else { return };
    let group = cgroups.create(AtomId::new(), &Limits::default()).unwrap();
    let around = Surroundings::new([], "/", None);
    let plan = Plan::new(group.atom(), &AtomSpec::command("/bin/true"), &around).unwrap().into();
    let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let marker = tempfile::tempfile().unwrap();
    marker.set_len(4096).unwrap();
    let streams = Streams { stdin: null(), stdout: null(), stderr: null() };
    let waiting = fork(&plan, streams, &group.join(), marker.as_fd(), 75).unwrap();
    // It is set up when it has said so.
    let channel = waiting.channel();
    let mut fds = [PollFd::new(&channel, PollFlags::IN)];
    poll(&mut fds, None).unwrap();
    let about = fs::read_to_string(format!("/proc/{}/cgroup", waiting.pid)).unwrap();
    for node in group.nodes() {
        assert!(node.hierarchy.contains(&node.dir, &about), "{} in {about}", node.dir.display());
    }
    let pidfd = waiting.into_pidfd();
    assert!(wait_ended(&pidfd, soon()), "without its go it ends");
    reap(pidfd.as_fd()).unwrap();
    assert!(group.wait_empty(soon()));
    group.remove().unwrap();
    cgroups.remove_store_group();
    assert_eq!(traces(&name), NOWHERE);
}

#[test]
fn what_a_killed_keeper_has_left_empty_goes_with_the_next_one() {
    let name = store_name();
    let Some(cgroups) = cgroups(Way::Found, &name) else { return };
    drop(cgroups.create(AtomId::new(), &Limits::default()).unwrap());
    let mut played = Played::start(cgroups, "escapee", &Limits::default());
    let atom = played.group().atom();
    Cgroups::untried(&name).sweep();
    assert_eq!(Cgroups::find(&name).leftover_groups(), [atom], "something lives in it");
    played.kill();
    assert_eq!(traces(&name), NOWHERE);
}
