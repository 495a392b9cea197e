//! Cutting the oldest events off: what stays, what goes, and what a kill leaves.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes, the test fails")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caesium::atom::AtomSpec;
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{
    Journal, JournalError, JournalOptions, MemoryHistory, Retention, SEALED_KEPT,
};
use caesium::lifecycle::Event;
use common::*;

fn newest(events: u64) -> Retention {
    Retention { max_events: Some(events), ..Retention::default() }
}

fn tiny() -> JournalOptions {
    JournalOptions::default().segment_bytes(8 << 10)
}

fn from_oldest(journal: &Journal) -> Vec<u64> {
    let oldest = journal.oldest_seq().unwrap();
    journal.read(oldest).unwrap().map(|record| record.unwrap().seq).collect()
}

/// An atom that stays, and lives that end.
fn load(journal: &Journal, from: u64, lives: u64) {
    for number in from..from + lives {
        life(journal, number).unwrap();
    }
}

/// A store of 1002 events: one old atom that runs, and two hundred lives.
fn filled(dir: &Path) -> Journal {
    let (journal, _) = Journal::open_dir(dir, tiny()).unwrap();
    append(&journal, id(9999), created(AtomSpec::command("true").name("old"))).unwrap();
    append(&journal, id(9999), started()).unwrap();
    load(&journal, 0, 200);
    journal
}

fn check(journal: &Journal, oldest: u64) {
    assert_eq!(journal.oldest_seq().unwrap(), oldest);
    let expected: Vec<u64> = (oldest..=journal.recent_seq()).collect();
    assert_eq!(from_oldest(journal), expected);
    if oldest > 1 {
        match journal.read(oldest - 1) {
            Err(JournalError::Compacted { asked, oldest: told }) => {
                assert_eq!((asked, told), (oldest - 1, oldest));
            }
            other => panic!("{other:?}"),
        }
    }
    let verified = journal.verify().unwrap();
    assert_eq!((verified.oldest, verified.events), (oldest, expected.len() as u64));
}

#[test]
fn the_newest_events_stay_and_atoms_are_never_forgotten() {
    let store = Store::on(MemoryStorage::new(), Arc::new(MemoryHistory::new()));
    let (journal, _) = store.open_with(tiny()).unwrap();
    append(&journal, id(9999), created(AtomSpec::command("true").name("old"))).unwrap();
    load(&journal, 0, 100);
    let before = states(&journal);
    let compacted = journal.compact(&newest(50)).unwrap();
    assert_eq!((compacted.dropped, compacted.oldest), (451, 452));
    assert!(compacted.after < compacted.before, "{compacted:?}");
    check(&journal, 452);
    assert_eq!(journal.read_atom(id(0)).unwrap(), []);
    assert_eq!(journal.read_atom(id(99)).unwrap().len(), 5);
    // Numbers go on, and a second cut builds on the first.
    load(&journal, 200, 100);
    check(&journal, 452);
    assert_eq!(journal.compact(&newest(5)).unwrap().oldest, 997);
    assert_eq!(journal.compact(&newest(5)).unwrap().dropped, 0);
    check(&journal, 997);
    // Everything may go; what exists stays.
    journal.compact(&newest(0)).unwrap();
    check(&journal, 1002);
    assert_eq!(states(&journal), before);
    append(&journal, id(9999), started()).unwrap();
    check(&journal, 1002);
    journal.close().unwrap();
    let (journal, _) = store.open_with(tiny()).unwrap();
    check(&journal, 1002);
    assert_eq!(journal.with_view(|view| view.named("old").unwrap().id()), id(9999));
}

#[test]
fn a_compacted_store_reopens_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    journal.compact(&newest(300)).unwrap();
    check(&journal, 703);
    journal.close().unwrap();
    let names = |path: &Path| -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let expected = ["history.1", "history.1.base", "history.1.sum", "history.head", "wal"];
    assert_eq!(names(dir.path()), expected);
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, 703);
    load(&journal, 1000, 100);
    check(&journal, 703);
    journal.compact(&newest(10)).unwrap();
    check(&journal, 1493);
    journal.close().unwrap();
    // Also when the files were not handed over.
    fs::remove_file(dir.path().join("history.2.sum")).unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, 1493);
    // What is kept may all be in the log; only who opens the history hands it over again.
    load(&journal, 1500, 100);
    journal.close().unwrap();
    let expected = ["history.2", "history.2.base", "history.2.sum", "history.head", "wal"];
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn age_drops_what_is_older_and_stops_at_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    // The events of these tests are from 2023.
    let year = Duration::from_secs(365 * 86400);
    let young = Retention { max_age: Some(100 * year), ..Retention::default() };
    assert_eq!(journal.compact(&young).unwrap().dropped, 0);
    let now = caesium::Timestamp::from(std::time::UNIX_EPOCH + 60 * year);
    let ((), ticket) = journal
        .change(|draft| draft.append(id(1), now, created(AtomSpec::command("true"))).map(|_| ()))
        .unwrap();
    ticket.wait().unwrap();
    append(&journal, id(1), lost()).unwrap();
    let old = Retention { max_age: Some(Duration::ZERO), ..Retention::default() };
    // Event 1003 is of a time to come; the one after it is old again, and stays behind it.
    assert_eq!(journal.compact(&old).unwrap().oldest, 1003);
    check(&journal, 1003);
}

#[test]
fn readers_learn_that_they_are_too_late_and_subscribers_go_on_from_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    let mut reader = journal.read(1).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().seq, 1);
    let mut follower = journal.subscribe(1);
    assert_eq!(follower.next(None).unwrap().unwrap().seq, 1);
    let mut late = journal.subscribe(3);
    load(&journal, 1000, 300);
    journal.compact(&newest(1200)).unwrap();
    let oldest = journal.oldest_seq().unwrap();
    let end = reader.find_map(Result::err).unwrap();
    assert!(matches!(end, JournalError::Compacted { oldest: o, .. } if o == oldest), "{end}");
    let lagged = loop {
        match follower.next(Some(Instant::now())) {
            Ok(record) => assert!(record.is_some()),
            Err(error) => break error,
        }
    };
    match lagged {
        JournalError::Lagged { at, oldest: told } => {
            assert_eq!((at, told), (follower.position(), oldest));
        }
        other => panic!("{other}"),
    }
    // It says so until it is told to go on.
    assert!(matches!(follower.next(None), Err(JournalError::Lagged { .. })));
    let missed = follower.skip_to_oldest().unwrap();
    assert_eq!(missed, oldest - follower_position(&lagged));
    for seq in oldest..=journal.recent_seq() {
        assert_eq!(follower.next(None).unwrap().unwrap().seq, seq);
    }
    assert!(matches!(late.next(None), Err(JournalError::Lagged { at: 3, .. })));
}

fn follower_position(lagged: &JournalError) -> u64 {
    match lagged {
        JournalError::Lagged { at, .. } => *at,
        other => panic!("{other}"),
    }
}

/// All files under a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Makes a directory of the files of two moments.
fn mixed(
    from: &Path,
    files: &BTreeMap<PathBuf, Vec<u8>>,
    mut chosen: impl FnMut(&str) -> Option<usize>,
    into: &Path,
) {
    for (path, bytes) in files {
        let relative = path.strip_prefix(from).unwrap();
        let Some(length) = chosen(relative.to_str().unwrap()) else { continue };
        let to = into.join(relative);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, &bytes[..length.min(bytes.len())]).unwrap();
    }
    for made in ["history", "history.1"] {
        if into.join(made).is_dir() {
            fs::create_dir_all(into.join(made).join("blobs")).unwrap();
        }
    }
}

#[test]
fn whatever_a_kill_leaves_of_a_compaction_opens() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    // What compacting does before the cut, which is not the matter here.
    assert_eq!(journal.compact(&newest(1002)).unwrap().dropped, 0);
    journal.close().unwrap();
    let before = files(dir.path());
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    let cut = journal.compact(&newest(700)).unwrap().oldest;
    journal.close().unwrap();
    let after = files(dir.path());
    let try_one = |what: &str, build: &dyn Fn(&Path), oldest: u64| {
        let store = tempfile::tempdir().unwrap();
        build(store.path());
        let (journal, _) = Journal::open_dir(store.path(), tiny().must_exist(true))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let left: Vec<String> = fs::read_dir(store.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("history") && name != "history.head")
            .collect();
        let current = if oldest == 1 { "history" } else { "history.1" };
        let other = |name: &String| name.starts_with("history.1") != (current == "history.1");
        assert!(!left.iter().any(other), "{what}: {left:?}");
        check(&journal, oldest);
        journal.compact(&newest(3)).unwrap();
        journal.verify().unwrap();
        journal.close().unwrap();
    };
    let base = dir.path();
    for length in [0, 1, 70_000, usize::MAX] {
        try_one(
            &format!("half a generation of {length} bytes"),
            &|into| {
                mixed(base, &before, |_| Some(usize::MAX), into);
                let new = |name: &str| name.starts_with("history.1").then_some(length);
                mixed(base, &after, new, into);
            },
            1,
        );
    }
    try_one(
        "a head that is not renamed yet",
        &|into| {
            mixed(base, &before, |_| Some(usize::MAX), into);
            mixed(base, &after, |name| name.starts_with("history.1").then_some(usize::MAX), into);
            fs::write(into.join("history.head.tmp"), &after[&base.join("history.head")]).unwrap();
        },
        1,
    );
    for length in [0, 70_000, usize::MAX] {
        try_one(
            &format!("an old generation of {length} bytes beside the new head"),
            &|into| {
                mixed(base, &after, |_| Some(usize::MAX), into);
                let old = |name: &str| {
                    let old = name.starts_with("history/") || name == "history.sum";
                    old.then_some(length)
                };
                mixed(base, &before, old, into);
            },
            cut,
        );
    }
}

#[test]
fn an_unreadable_head_removes_nothing_and_a_missing_base_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    journal.compact(&newest(300)).unwrap();
    journal.close().unwrap();
    let base = dir.path().join("history.1.base");
    let bytes = fs::read(&base).unwrap();
    for damaged in [None, Some(&bytes[..bytes.len() / 2])] {
        fs::remove_file(&base).unwrap();
        if let Some(damaged) = damaged {
            fs::write(&base, damaged).unwrap();
        }
        let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
        let error = journal.verify().unwrap_err();
        assert!(matches!(error, JournalError::HistoryDamaged { .. }), "{error}");
        assert!(journal.compact(&newest(1)).is_err());
        journal.close().unwrap();
        fs::write(&base, &bytes).unwrap();
    }
    let head = dir.path().join("history.head");
    let good = fs::read(&head).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&head, &bad).unwrap();
        let before = files(dir.path());
        let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
        assert!(matches!(journal.read(1), Err(JournalError::HistoryDamaged { .. })), "bit {bit}");
        drop(journal);
        assert_eq!(files(dir.path()), before, "bit {bit}");
    }
    fs::write(&head, &good).unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, 703);
}

/// Bytes on disk under a directory.
fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += disk_use(&entry.path()),
            Ok(metadata) => bytes += metadata.blocks() * 512,
            Err(_) => {}
        }
    }
    bytes
}

/// Half a year of load, with a month of it kept: what is on disk stays within bounds.
///
/// The bounds are not yet the three times that they should be: sled alone takes
/// three times what is put into it, and while a generation is rewritten there are two
/// (docs/decisions/0004).
#[test]
fn months_of_load_take_a_bounded_multiple_of_what_is_kept() {
    const MONTH: u64 = 5_000;
    const FIXED: u64 = 16 << 20;
    let dir = tempfile::tempdir().unwrap();
    let options = JournalOptions::default().segment_bytes(256 << 10).retention(newest(MONTH));
    let (journal, _) = Journal::open_dir(dir.path(), options).unwrap();
    append(&journal, id(u64::MAX), created(AtomSpec::command("true").name("old"))).unwrap();
    let (mut most, mut kept, mut number) = (0, 0, 0);
    while journal.recent_seq() < 6 * MONTH {
        let ((), ticket) = journal
            .change(|draft| -> Result<(), JournalError> {
                for _ in 0..20 {
                    number += 1;
                    let spec = AtomSpec::command("true").arg("x".repeat(1200));
                    let atom = id(number);
                    let facts = [
                        created(spec),
                        started(),
                        lost(),
                        Event::DeleteAsked.into(),
                        Event::Removed.into(),
                    ];
                    for fact in facts {
                        draft.append(atom, at(number), fact)?;
                    }
                }
                Ok(())
            })
            .unwrap();
        ticket.wait().unwrap();
        // A year has time between its events: what is sealed is packed before there is more.
        while journal.stats().unwrap().segments > SEALED_KEPT + 3 {
            most = most.max(disk_use(dir.path()));
            std::thread::yield_now();
        }
        if kept == 0 && journal.recent_seq() >= MONTH {
            kept = journal.read(1).unwrap().map(|record| frame_bytes(&record.unwrap())).sum();
        }
    }
    println!(
        "kept {kept} bytes, at the most {most} on disk, {:.2} times",
        most as f64 / kept as f64
    );
    println!("{:?}", journal.stats().unwrap());
    assert!(most <= 10 * kept + FIXED, "{most} bytes on disk for {kept}");
    // The automatic cut may still be at work, and this one comes after it.
    let oldest = journal.compact(&newest(MONTH)).unwrap().oldest;
    assert_eq!(journal.recent_seq() - oldest, MONTH - 1);
    check(&journal, oldest);
    assert!(journal.with_view(|view| view.named("old").is_some()));
}

/// What a record takes as a frame.
fn frame_bytes(record: &caesium::journal::Record) -> u64 {
    36 + bincode::serialized_size(record).unwrap()
}
