//! A history of several parts: how they are begun, read, cut and damaged, and what a kill leaves of it.

mod common;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use caesium::atom::AtomSpec;
use caesium::journal::{
    Journal, JournalError, JournalOptions, Record, Retention, SEALED_KEPT, Salvaged, salvage,
};
use caesium::lifecycle::Event;
use common::*;

fn options() -> JournalOptions {
    JournalOptions::default().segment_bytes(256 << 10)
}

fn open(dir: &Path) -> Journal {
    Journal::open_dir(dir, options().must_exist(true)).unwrap().0
}

fn newest(events: u64) -> Retention {
    Retention { max_events: Some(events), ..Retention::default() }
}

/// Lives of five events and some four kilobytes each, twenty in a change.
fn load(journal: &Journal, from: u64, lives: u64) {
    for batch in (from..from + lives).step_by(20) {
        let ((), ticket) = journal
            .change(|draft| -> Result<(), JournalError> {
                for number in batch..(batch + 20).min(from + lives) {
                    let spec = AtomSpec::command("true").arg("x".repeat(3600));
                    let facts = [
                        created(spec),
                        started(),
                        lost(),
                        Event::DeleteAsked.into(),
                        Event::Removed.into(),
                    ];
                    for fact in facts {
                        draft.append(id(number), at(number), fact)?;
                    }
                }
                Ok(())
            })
            .unwrap();
        ticket.wait().unwrap();
    }
}

/// A store with an old atom that runs, and some fifteen megabytes of history: 15,002 events.
fn filled(dir: &Path) -> Journal {
    let (journal, _) = Journal::open_dir(dir, options()).unwrap();
    append(&journal, id(u64::MAX), created(AtomSpec::command("true").name("old"))).unwrap();
    append(&journal, id(u64::MAX), started()).unwrap();
    load(&journal, 0, 3000);
    packed(&journal);
    journal
}

/// Waits until all is packed that will be.
fn packed(journal: &Journal) {
    let patience = Instant::now() + Duration::from_secs(120);
    while journal.stats().unwrap().segments > SEALED_KEPT + 1 {
        assert!(Instant::now() < patience, "it is not packed");
        std::thread::yield_now();
    }
}

/// The first events of the parts that are there.
fn parts(dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(dir.join("history")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut firsts: Vec<u64> = names.filter_map(|name| name.parse().ok()).collect();
    firsts.sort_unstable();
    firsts
}

/// Reads and verifies everything; gives the events.
fn check(journal: &Journal, oldest: u64) -> Vec<Record> {
    assert_eq!(journal.oldest_seq().unwrap(), oldest);
    let records: Vec<Record> = journal.read(oldest).unwrap().map(Result::unwrap).collect();
    assert!(records.iter().map(|record| record.seq).eq(oldest..=journal.recent_seq()));
    let verified = journal.verify().unwrap();
    assert_eq!((verified.oldest, verified.events), (oldest, records.len() as u64));
    records
}

#[test]
fn parts_are_begun_with_the_history_and_the_oldest_go_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    let all = parts(dir.path());
    assert!((4..=8).contains(&all.len()), "{all:?}");
    check(&journal, 1);
    let life_of_one: Vec<u64> =
        journal.read_atom(id(7)).unwrap().iter().map(|record| record.seq).collect();
    assert_eq!(life_of_one, [38, 39, 40, 41, 42]);
    assert_eq!(journal.read_atom(id(u64::MAX)).unwrap().len(), 2);
    journal.close().unwrap();
    // In the midst of a part: those before it go, and no other file is touched.
    let before = files(&dir.path().join("history"));
    let cut = all[2] + 50;
    let journal = open(dir.path());
    let compacted = journal.compact(&newest(journal.recent_seq() + 1 - cut)).unwrap();
    assert_eq!((compacted.dropped, compacted.oldest), (cut - 1, cut));
    assert!(compacted.after < compacted.before - (3 << 20), "{compacted:?}");
    assert_eq!(parts(dir.path()), all[2..]);
    check(&journal, cut);
    assert_eq!(journal.with_view(|view| view.named("old").unwrap().id()), id(u64::MAX));
    journal.close().unwrap();
    let newest_part = format!("{:020}", all.last().unwrap());
    for (path, bytes) in files(&dir.path().join("history")) {
        let name = path.strip_prefix(dir.path().join("history")).unwrap().to_str().unwrap();
        if name != "head" && !name.starts_with(&newest_part) {
            assert!(before[&path] == bytes, "{name} was changed");
        }
    }
    check(&open(dir.path()), cut);
}

#[test]
fn a_part_of_which_little_is_kept_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    let all = parts(dir.path());
    // A little before the last part: what is kept is less than what would be wasted.
    let cut = all.last().unwrap() - 100;
    journal.compact(&newest(journal.recent_seq() + 1 - cut)).unwrap();
    assert_eq!(parts(dir.path()), [cut, *all.last().unwrap()]);
    check(&journal, cut);
    // Also the one that is appended to.
    load(&journal, 5_000, 650);
    let cut = journal.recent_seq() - 200;
    journal.compact(&newest(201)).unwrap();
    assert_eq!(parts(dir.path()), [cut]);
    load(&journal, 10_000, 200);
    packed(&journal);
    check(&journal, cut);
    journal.close().unwrap();
    let journal = open(dir.path());
    check(&journal, cut);
    journal.compact(&newest(0)).unwrap();
    assert_eq!(parts(dir.path()), [0; 0]);
    load(&journal, 20_000, 200);
    check(&journal, journal.oldest_seq().unwrap());
}

#[test]
fn reading_changes_nothing_and_makes_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).close().unwrap();
    let before = files(&dir.path().join("history"));
    let journal = open(dir.path());
    check(&journal, 1);
    journal.read_atom(id(5)).unwrap();
    // Not even while they are open.
    assert!(files(&dir.path().join("history")) == before);
    journal.close().unwrap();
    assert!(files(&dir.path().join("history")) == before);
}

#[test]
fn many_read_at_once_and_whoever_stops_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    let last = journal.recent_seq();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| check(&journal, 1));
        }
    });
    // For some of these is read ahead, and nobody takes it.
    let mut readers: Vec<_> = (0..6).map(|_| journal.read(1).unwrap()).collect();
    for reader in &mut readers {
        assert_eq!(reader.by_ref().take(3000).last().unwrap().unwrap().seq, 3000);
    }
    drop(readers.pop());
    let rest: Vec<u64> = readers[0].by_ref().map(|record| record.unwrap().seq).collect();
    assert!(rest.into_iter().eq(3001..=last));
    journal.close().unwrap();
}

#[test]
fn a_damaged_part_costs_its_own_events_until_it_is_cut_away() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).close().unwrap();
    let all = parts(dir.path());
    let sum = dir.path().join(format!("history/{:020}.sum", all[1]));
    let db = dir.path().join(format!("history/{:020}/db", all[1]));
    let mut bytes = fs::read(&db).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20_000].fill(0);
    fs::write(&db, &bytes).unwrap();
    let journal = open(dir.path());
    let error = journal.read(all[1]).unwrap().find_map(Result::err).unwrap();
    assert!(matches!(error, JournalError::HistoryDamaged { .. }), "{error}");
    let told = format!("events {} to {}", all[1], all[2] - 1);
    assert!(error.to_string().contains(&told), "{error}");
    // The parts around it are as they were.
    let first: Vec<_> = journal.read(1).unwrap().take(all[1] as usize - 1).collect();
    assert!(first.iter().all(Result::is_ok));
    assert!(journal.read(all[2]).unwrap().all(|record| record.is_ok()));
    assert!(matches!(journal.verify(), Err(JournalError::HistoryDamaged { .. })));
    load(&journal, 50_000, 400);
    packed(&journal);
    journal.close().unwrap();
    assert!(fs::read(&db).unwrap() == bytes && sum.exists());
    // A salvage loses only what was zeroed.
    let place = tempfile::tempdir().unwrap();
    let told: Salvaged = salvage(dir.path(), &place.path().join("new")).unwrap();
    assert_eq!((told.first, told.lost + told.recovered), (1, told.last));
    assert!((1..100).contains(&told.lost), "{told:?}");
    // As is the store itself, once that part is over the limits.
    let journal = open(dir.path());
    journal.compact(&newest(journal.recent_seq() + 1 - all[2])).unwrap();
    check(&journal, all[2]);
    assert!(!db.exists() && !sum.exists());
}

#[test]
fn what_a_part_builds_on_is_what_those_before_it_give() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).close().unwrap();
    let all = parts(dir.path());
    let base = |first| dir.path().join(format!("history/{first:020}.base"));
    // Whole in itself, and of another event; and none.
    let good = fs::read(base(all[2])).unwrap();
    for bad in [Some(fs::read(base(all[1])).unwrap()), Some(good[..50].to_vec()), None] {
        match bad {
            Some(bad) => fs::write(base(all[2]), bad).unwrap(),
            None => fs::remove_file(base(all[2])).unwrap(),
        }
        let journal = open(dir.path());
        assert!(matches!(journal.verify(), Err(JournalError::HistoryDamaged { .. })));
        // What is only read needs no base.
        assert!(journal.read(1).unwrap().all(|record| record.is_ok()));
    }
    fs::write(base(all[2]), &good).unwrap();
    check(&open(dir.path()), 1);
}

/// A store as it was, with some of the files as they are.
fn mixed(before: &Path, after: &Path, chosen: &dyn Fn(&str) -> Option<usize>, into: &Path) {
    copy(before, into);
    for (path, bytes) in files(after) {
        let relative = path.strip_prefix(after).unwrap();
        let Some(length) = chosen(relative.to_str().unwrap()) else { continue };
        let to = into.join(relative);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, &bytes[..length.min(bytes.len())]).unwrap();
    }
}

#[test]
fn whatever_a_kill_leaves_of_a_cut_opens() {
    let place = tempfile::tempdir().unwrap();
    let (old, new) = (place.path().join("old"), place.path().join("new"));
    fs::create_dir(&old).unwrap();
    let journal = filled(&old);
    // All that compacting does before the cut, which is not the matter here.
    assert_eq!(journal.compact(&newest(15_002)).unwrap().dropped, 0);
    journal.close().unwrap();
    let all = parts(&old);
    copy(&old, &new);
    let journal = open(&new);
    let cut = all.last().unwrap() - 100;
    journal.compact(&newest(15_003 - cut)).unwrap();
    let remaining = parts(&new);
    assert_eq!(remaining[0], cut, "a part was written again");
    journal.close().unwrap();
    let made = format!("history/{cut:020}");
    let try_one = |what: &str, build: &dyn Fn(&Path), oldest: u64| {
        let store = tempfile::tempdir_in(place.path()).unwrap();
        build(store.path());
        let journal = open(store.path());
        let left = parts(store.path());
        assert_eq!(left, if oldest == 1 { all.clone() } else { remaining.clone() }, "{what}");
        check(&journal, oldest);
        journal.compact(&newest(3)).unwrap();
        journal.verify().unwrap();
        journal.close().unwrap();
    };
    for length in [0, 1, 70_000, usize::MAX] {
        let what = format!("half a part of {length} bytes");
        let leftover = |name: &str| name.starts_with(&made).then_some(length);
        try_one(&what, &|into| mixed(&old, &new, &leftover, into), 1);
    }
    let head = fs::read(new.join("history/head")).unwrap();
    try_one(
        "a head that is not renamed yet",
        &|into| {
            mixed(&old, &new, &|name| name.starts_with(&made).then_some(usize::MAX), into);
            fs::write(into.join("history/head.tmp"), &head).unwrap();
        },
        1,
    );
    for length in [0, 70_000, usize::MAX] {
        try_one(
            &format!("old parts of {length} bytes beside the new head"),
            &|into| {
                let gone = |name: &str| {
                    let first = name.strip_prefix("history/")?.get(..20)?.parse::<u64>().ok()?;
                    (!remaining.contains(&first)).then_some(length)
                };
                mixed(&new, &old, &gone, into);
            },
            cut,
        );
    }
}
