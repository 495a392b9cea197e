//! Whatever an atom does, nothing of it lives after a kill.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// Each role, ended in each way.
const ROLES: [&str; 9] =
    ["sleeper", "daemon", "escapee", "deaf", "storm", "stopped", "traced", "closed", "nested"];

fn end_all(way: Way) {
    let name = store_name();
    for role in ROLES {
        let Some(cgroups) = cgroups(way, &name) else { return };
        let mut played = Played::start(cgroups, role, &Limits::default());
        assert!(!played.group().members().unwrap().is_empty(), "{role}: it is in its group");
        assert!(!played.group().is_empty().unwrap(), "{role}");
        assert!(!played.living().is_empty(), "{role}: it lives before it is killed");
        played.kill();
        assert_eq!(traces(&name), NOWHERE, "{role}: no cgroup is left");
    }
}

#[test]
fn by_the_kill_of_the_unified_hierarchy() {
    end_all(Way::UnifiedKill);
}

#[test]
fn by_freezing_in_the_unified_hierarchy() {
    end_all(Way::UnifiedFreeze);
}

#[test]
fn by_the_freezer_of_the_first_version() {
    end_all(Way::LegacyFreezer);
}

#[test]
fn by_the_list_of_pids_alone() {
    end_all(Way::LegacyPids);
}

#[test]
fn by_what_is_found_here() {
    end_all(Way::Found);
}

#[test]
fn one_that_a_stranger_traces_dies_too() {
    for way in [Way::UnifiedKill, Way::LegacyFreezer, Way::LegacyPids] {
        let Some(cgroups) = cgroups(way, &store_name()) else { continue };
        let mut played = Played::start(cgroups, "sleeper", &Limits::default());
        let pid = played.leader.id().cast_signed();
        // SAFETY: neither takes memory of ours; the process is a child that nobody has waited for.
        unsafe {
            if libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) != 0 {
                eprintln!("SKIP: processes may not be traced here");
                return;
            }
            assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL), pid);
        }
        // It is stopped by the tracer, this very thread, which does not let it go.
        played.kill();
    }
}

#[test]
fn one_that_froze_itself_dies_too() {
    for (way, file, text) in [
        (Way::UnifiedKill, "cgroup.freeze", "1"),
        (Way::UnifiedFreeze, "cgroup.freeze", "1"),
        (Way::LegacyFreezer, "freezer.state", "FROZEN"),
    ] {
        let Some(cgroups) = cgroups(way, &store_name()) else { continue };
        let mut played = Played::start(cgroups, "nested", &Limits::default());
        let dir = &played.group().nodes()[0].dir;
        files::write(&dir.join("inner").join(file), text).unwrap();
        files::write(&dir.join("inner/most").join(file), text).unwrap();
        played.kill();
    }
}

#[test]
fn a_signal_reaches_each_member_and_a_deaf_one_outlives_it() {
    for way in [Way::UnifiedKill, Way::LegacyPids] {
        let Some(cgroups) = cgroups(way, &store_name()) else { continue };
        let mut played = Played::start(cgroups, "escapee", &Limits::default());
        assert_eq!(played.group().signal(rustix::process::Signal::TERM).unwrap(), 2);
        assert!(played.group().wait_empty(soon()));
        played.kill();

        let Some(cgroups) = self::cgroups(way, &store_name()) else { continue };
        let mut played = Played::start(cgroups, "deaf", &Limits::default());
        assert_eq!(played.group().signal(rustix::process::Signal::TERM).unwrap(), 1);
        assert!(!played.group().wait_empty(Instant::now() + Duration::from_millis(50)));
        played.kill();
    }
}

#[test]
fn whoever_left_the_group_in_one_hierarchy_is_found_in_another() {
    let name = store_name();
    let Some(cgroups) = Cgroups::only(&name, true, |kind| match kind {
        Kind::V2 { kill } => *kill,
        Kind::V1(controllers) => controllers.contains(&Controller::Memory),
    }) else {
        eprintln!("SKIP: no cgroup can be made here");
        return;
    };
    let mut played = Played::start(cgroups, "sleeper", &Limits::default());
    let nodes = played.group().nodes();
    if nodes.len() < 2 {
        eprintln!("SKIP: only one hierarchy can be used here");
        return;
    }
    // Back to where everybody is, in the one that can be killed at once.
    let unified = played.group().unified().unwrap();
    let pid = played.leader.id();
    files::write(&unified.hierarchy.base.join("cgroup.procs"), &pid.to_string()).unwrap();
    assert_eq!(files::members(&unified.dir).unwrap(), [0_u32; 0]);
    assert!(!played.group().is_empty().unwrap());
    played.kill();
}

#[test]
fn the_descriptor_tells_when_the_last_one_has_left() {
    let Some(cgroups) = cgroups(Way::UnifiedKill, &store_name()) else { return };
    let mut played = Played::start(cgroups, "daemon", &Limits::default());
    let ready = |wait: i64| {
        let fd = played.group().emptied_fd().unwrap();
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::PRI)];
        let turn = rustix::event::Timespec { tv_sec: wait, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&turn)).unwrap() > 0
    };
    // Just opened, it says that there is something to read.
    assert!(ready(0));
    assert!(!played.group().is_empty_by_fd().unwrap());
    assert!(!ready(0), "nothing has changed since it was read");
    played.group().kill().unwrap();
    while !played.group().is_empty_by_fd().unwrap() {
        assert!(ready(30), "it is not told that the group is empty");
    }
    played.kill();
}

#[test]
fn without_descriptors_a_kill_fails_and_does_not_pretend() {
    const NAME: &str = "driver::process::tree::tests::kills::without_descriptors_a_kill_fails_and_does_not_pretend";
    const ALONE: &str = "CAESIUM_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // In a process of its own: the others here need theirs.
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(ALONE, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    for way in [Way::UnifiedKill, Way::UnifiedFreeze, Way::LegacyFreezer, Way::LegacyPids] {
        let Some(cgroups) = cgroups(way, &store_name()) else { continue };
        let mut played = Played::start(cgroups, "escapee", &Limits::default());
        let limit = getrlimit(Resource::Nofile);
        // The numbers that may be given out lie below the limit: none, then one, then …
        for spare in 0..4 {
            let free = std::fs::File::open("/dev/null").unwrap();
            let lowest = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
            drop(free);
            let fewer = Rlimit { current: Some(lowest + spare), ..limit };
            setrlimit(Resource::Nofile, fewer).unwrap();
            let killed = played.group().kill();
            setrlimit(Resource::Nofile, limit).unwrap();
            match killed {
                Ok(()) => assert!(played.group().wait_empty(soon()), "{way:?} with {spare}"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}"),
            }
        }
        played.kill();
    }
}
