//! What a group costs: printed, never judged by.
//!
//! `CAESIUM_TREE_ROUNDS=200 cargo test --release --lib tree::tests::figures -- --nocapture`

use super::*;
use crate::driver::process::tree::trial::Subject;

/// Runs something and keeps how long it took.
fn timed<T>(times: &mut Vec<Duration>, what: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = what();
    times.push(started.elapsed());
    result
}

#[test]
fn what_a_group_costs() {
    let rounds = std::env::var("CAESIUM_TREE_ROUNDS").map_or(3, |text| text.parse().unwrap());
    let name = store_name();
    let mut find = Vec::new();
    for _ in 0..rounds.min(20) {
        timed(&mut find, || Cgroups::find(&name));
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_micros()
    };
    println!("find: {} us", median(&mut find));
    for (what, way, limits) in [
        ("unlimited", Way::Found, Limits::default()),
        ("limited", Way::Found, Limits { pids: Some(1000), ..Limits::default() }),
        ("v2 alone", Way::UnifiedKill, Limits::default()),
    ] {
        let Some(cgroups) = cgroups(way, &name) else { continue };
        if !can_limit(&cgroups, &limits) {
            continue;
        }
        let mut times: [Vec<Duration>; 4] = Default::default();
        let [create, join, kill, remove] = &mut times;
        let mut hierarchies = 0;
        for _ in 0..rounds {
            let group = timed(create, || cgroups.create(AtomId::new(), &limits).unwrap());
            let subject = Subject::start(None, &[]).unwrap();
            let files = group.join_files();
            hierarchies = files.len();
            timed(join, || {
                for file in &files {
                    files::write(file, &subject.pid().to_string()).unwrap();
                }
            });
            timed(kill, || {
                group.kill().unwrap();
                assert!(group.wait_empty(soon()));
            });
            timed(remove, || group.remove().unwrap());
        }
        let [create, join, kill, remove] = times.each_mut().map(median);
        println!(
            "{what}: {hierarchies} hierarchies, create {create} us, join {join} us, \
             kill and wait {kill} us, remove {remove} us"
        );
        cgroups.remove_store_group();
    }
    assert_eq!(traces(&name), NOWHERE);
}
