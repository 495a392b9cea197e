//! A limit holds, or is refused, and never half of it.

use super::*;
use crate::lifecycle::Reason;

#[test]
fn a_crowd_ends_at_the_limit_of_processes() {
    let Some(cgroups) = cgroups(Way::Found, &store_name()) else { return };
    let limits = Limits { pids: Some(12), ..Limits::default() };
    if !can_limit(&cgroups, &limits) {
        return;
    }
    let mut played = Played::start(cgroups, "crowd", &limits);
    let children: u64 = played.said.parse().unwrap();
    assert!((1..12).contains(&children), "{children} children and their parent");
    assert_eq!(content(played.group(), "pids.max").as_deref(), Some("12"));
    // The harness of the role has a thread of its own, which counts too.
    assert!(played.group().members().unwrap().len() as u64 > children);
    played.kill();
}

#[test]
fn a_storm_under_a_limit_of_processes_is_ended() {
    let Some(cgroups) = cgroups(Way::Found, &store_name()) else { return };
    let limits = Limits { pids: Some(60), ..Limits::default() };
    if !can_limit(&cgroups, &limits) {
        return;
    }
    let mut played = Played::start(cgroups, "storm", &limits);
    assert_eq!(content(played.group(), "pids.max").as_deref(), Some("60"));
    // Counting those who live says nothing: they come and go while they are counted. The kernel
    // says how often it has refused another one.
    let deadline = soon();
    while files::keyed(&content(played.group(), "pids.events").unwrap(), "max") == Some(0) {
        assert!(Instant::now() < deadline, "the storm never met its limit");
        std::thread::yield_now();
    }
    played.kill();
}

#[test]
fn the_limits_are_written_where_the_kernel_reads_them() {
    let name = store_name();
    let Some(cgroups) = cgroups(Way::Found, &name) else { return };
    for (limits, files) in [
        (
            Limits { cpus: Some(0.5), ..Limits::default() },
            &[
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.max", "50000 100000"),
            ][..],
        ),
        (
            Limits { memory: Some(64 << 20), ..Limits::default() },
            &[
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "67108864"),
                ("memory.max", "67108864"),
                ("memory.swap.max", "0"),
            ],
        ),
        (Limits { pids: Some(u64::MAX), ..Limits::default() }, &[("pids.max", "max")]),
    ] {
        if !can_limit(&cgroups, &limits) {
            continue;
        }
        let group = cgroups.create(AtomId::new(), &limits).unwrap();
        let read: Vec<_> =
            files.iter().filter_map(|(file, want)| Some((content(&group, file)?, *want))).collect();
        assert!(!read.is_empty(), "{limits:?} is written nowhere");
        for (read, want) in read {
            assert_eq!(read, want, "{limits:?}");
        }
        group.remove().unwrap();
    }
    cgroups.remove_store_group();
    assert_eq!(traces(&name), NOWHERE);
}

#[test]
fn a_limit_that_cannot_be_set_is_refused_and_leaves_nothing() {
    let name = store_name();
    if let Some(cgroups) = cgroups(Way::LegacyFreezer, &name) {
        for limits in [
            Limits { memory: Some(1 << 30), ..Limits::default() },
            Limits { pids: Some(1), ..Limits::default() },
            Limits { cpus: Some(1.0), ..Limits::default() },
        ] {
            let failure = cgroups.create(AtomId::new(), &limits).unwrap_err();
            assert_eq!(failure.reason, Reason::LimitUnsupported);
            assert_eq!(traces(&name), NOWHERE);
        }
    }
    let Some(cgroups) = cgroups(Way::Found, &name) else { return };
    let limits = Limits { memory: Some(1 << 30), cpus: Some(1.0), ..Limits::default() };
    if !can_limit(&cgroups, &limits) {
        return;
    }
    cgroups.remove_store_group();
    // The first one is set, the second one is more than the kernel takes.
    let limits = Limits { cpus: Some(1e15), ..limits };
    let failure = cgroups.create(AtomId::new(), &limits).unwrap_err();
    assert_eq!(failure.reason, Reason::LimitUnsupported);
    assert!(failure.detail.starts_with("cpus cannot be limited: "), "{}", failure.detail);
    assert_eq!(traces(&name), NOWHERE);
}
