//! Cutting the oldest events off: what stays, what goes, and what a kill leaves.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes, the test fails")]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use caesium::atom::AtomSpec;
use caesium::journal::{Journal, JournalError, JournalOptions, Retention};
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
    let store = Store::memory();
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

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A part of the history, or what is beside it.
fn part(first: u64, end: &str) -> String {
    let dot = if end.is_empty() { "" } else { "." };
    format!("{first:020}{dot}{end}")
}

#[test]
fn a_compacted_store_reopens_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    journal.compact(&newest(300)).unwrap();
    check(&journal, 703);
    journal.close().unwrap();
    assert_eq!(names(dir.path()), ["history", "wal"]);
    // The part that the cut goes through is not worth being written again.
    let expected = [part(1, ""), part(1, "base"), part(1, "sum"), "head".into(), "room".into()];
    let history = dir.path().join("history");
    assert_eq!(names(&history), expected);
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, 703);
    load(&journal, 1000, 100);
    check(&journal, 703);
    journal.compact(&newest(300)).unwrap();
    check(&journal, 1203);
    journal.close().unwrap();
    // Also when the files were not handed over.
    fs::remove_file(history.join(part(1, "sum"))).unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, 1203);
    journal.close().unwrap();
    assert!(!history.join(part(1, "sum")).exists());
    // Only who appends to the history hands it over again.
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    load(&journal, 1500, 100);
    journal.compact(&newest(300)).unwrap();
    journal.close().unwrap();
    assert_eq!(names(&history), expected);
    // When everything goes, no part is left.
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    journal.compact(&newest(0)).unwrap();
    journal.close().unwrap();
    assert_eq!(names(&history), ["head", "room"]);
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, journal.recent_seq() + 1);
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

#[test]
fn an_unreadable_head_removes_nothing_and_a_missing_base_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    journal.compact(&newest(300)).unwrap();
    journal.close().unwrap();
    let history = dir.path().join("history");
    let base = history.join(part(1, "base"));
    let bytes = fs::read(&base).unwrap();
    for damaged in [None, Some(&bytes[..bytes.len() / 2])] {
        fs::remove_file(&base).unwrap();
        if let Some(damaged) = damaged {
            fs::write(&base, damaged).unwrap();
        }
        let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
        let error = journal.verify().unwrap_err();
        assert!(matches!(error, JournalError::HistoryDamaged { .. }), "{error}");
        assert!(from_oldest(&journal).into_iter().eq(703..=1002), "the events are there");
        journal.close().unwrap();
        fs::write(&base, &bytes).unwrap();
    }
    let head = history.join("head");
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
    // A head of a newer program is called that.
    let mut newer = good.clone();
    newer[4] = 2;
    let sealed = newer.len() - 4;
    let crc = crc32c::crc32c(&newer[..sealed]).to_le_bytes();
    newer[sealed..].copy_from_slice(&crc);
    fs::write(&head, &newer).unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    let refused = journal.read(1).unwrap_err();
    assert!(matches!(refused, JournalError::Newer { found: 2, known: 1, .. }), "{refused}");
    drop(journal);
    assert_eq!(fs::read(&head).unwrap(), newer);
    fs::write(&head, &good).unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    check(&journal, 703);
}
