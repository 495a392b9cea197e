//! Events that have left the write-ahead log: packed into sled, and read as if they had not.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caesium::atom::AtomSpec;
use caesium::journal::{
    HistoryState, Journal, JournalError, JournalOptions, Recovery, Retention, SEALED_KEPT,
};
use caesium::lifecycle::Event;
use common::*;

fn options() -> JournalOptions {
    JournalOptions::default().segment_bytes(32 << 10)
}

fn open(dir: &Path) -> (Journal, Recovery) {
    Journal::open_dir(dir, options()).unwrap()
}

/// The directory of the first part, or what is beside it.
fn part(dir: &Path, end: &str) -> PathBuf {
    let dot = if end.is_empty() { "" } else { "." };
    dir.join(format!("history/{:020}{dot}{end}", 1))
}

fn segments(dir: &Path) -> usize {
    let names = fs::read_dir(dir.join("wal")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".seg")).count()
}

/// Appends lives until the packer has packed and removed segments.
fn fill(journal: &Journal, dir: &Path, from: u64) -> u64 {
    let patience = Instant::now() + Duration::from_secs(120);
    let mut number = from;
    let head = dir.join("history/head");
    let before = fs::read(&head).ok();
    // Packed is not removed yet: what is still in the log is read from there.
    let first = dir.join("wal/00000000000000000001.seg");
    while fs::read(&head).ok() == before || first.exists() || segments(dir) > SEALED_KEPT + 2 {
        assert!(Instant::now() < patience, "nothing was packed");
        life(journal, number).unwrap();
        number += 1;
    }
    number
}

fn contiguous(journal: &Journal) -> u64 {
    let mut next = 1;
    for record in journal.read(1).unwrap() {
        assert_eq!(record.unwrap().seq, next);
        next += 1;
    }
    assert_eq!(next - 1, journal.recent_seq());
    next - 1
}

#[test]
fn reading_is_unbroken_across_history_and_log_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let next = fill(&journal, dir.path(), 0);
    let events = contiguous(&journal);
    assert_eq!(events, next * 5);
    let verified = journal.verify().unwrap();
    assert!(verified.packed > 0 && verified.oldest == 1 && verified.events == events);
    let life_of_first: Vec<&str> =
        journal.read_atom(id(0)).unwrap().iter().map(|record| record.event_name()).collect();
    assert_eq!(life_of_first, ["created", "started", "lost_sight", "delete_asked", "removed"]);
    journal.close().unwrap();
    assert!(part(dir.path(), "sum").exists());
    let (journal, recovery) = open(dir.path());
    assert!(recovery.clean);
    assert_eq!(contiguous(&journal), events);
    fill(&journal, dir.path(), next);
    contiguous(&journal);
    journal.verify().unwrap();
    let blobs = fs::read_dir(part(dir.path(), "").join("blobs")).unwrap().count();
    assert_eq!(blobs, 0);
}

#[test]
fn large_frames_are_packed_in_parts_and_no_blob_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for number in 0..12 {
        let spec = AtomSpec::command("true").args((0..14).map(|_| "x".repeat(60_000)));
        append(&journal, id(number), created(spec)).unwrap();
        append(&journal, id(number), lost()).unwrap();
        append(&journal, id(number), Event::DeleteAsked.into()).unwrap();
        append(&journal, id(number), Event::Removed.into()).unwrap();
    }
    let next = fill(&journal, dir.path(), 1000);
    assert!(next >= 1000);
    contiguous(&journal);
    journal.verify().unwrap();
    journal.close().unwrap();
    assert_eq!(fs::read_dir(part(dir.path(), "").join("blobs")).unwrap().count(), 0);
    open(dir.path()).0.verify().unwrap();
}

#[test]
fn a_history_that_was_not_handed_over_is_proven_on_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal, dir.path(), 0);
    journal.close().unwrap();
    fs::remove_file(part(dir.path(), "sum")).unwrap();
    let (journal, _) = open(dir.path());
    contiguous(&journal);
    journal.verify().unwrap();
    journal.close().unwrap();
    for copy in ["new", "old", "read"] {
        assert!(!part(dir.path(), copy).exists(), "{copy}");
    }
}

/// sled had spoilt the files, for a read that failed, and they could not be put back.
#[test]
fn what_was_kept_beside_a_spoilt_part_is_used() {
    for appends in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        let next = fill(&journal, dir.path(), 0);
        journal.close().unwrap();
        let (of, old) = (part(dir.path(), ""), part(dir.path(), "old"));
        fs::create_dir(&old).unwrap();
        for name in ["conf", "db"] {
            fs::copy(of.join(name), old.join(name)).unwrap();
        }
        let db = fs::read(of.join("db")).unwrap();
        fs::write(of.join("db"), &db[..db.len() / 2]).unwrap();
        fs::remove_file(part(dir.path(), "sum")).unwrap();
        let head = || fs::read(dir.path().join("history/head")).unwrap();
        let before = head();
        let (journal, _) = open(dir.path());
        if appends {
            fill(&journal, dir.path(), next);
        }
        contiguous(&journal);
        journal.verify().unwrap();
        journal.close().unwrap();
        // It stays until something was appended and the part is whole again.
        assert_eq!(old.exists(), head() == before);
        assert!(head() != before || !appends);
        let (journal, _) = open(dir.path());
        contiguous(&journal);
        journal.verify().unwrap();
    }
}

/// What sled cannot open may have every event: it is read, before and after something was to be appended.
#[test]
fn a_part_that_sled_cannot_open_is_read_and_another_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let next = fill(&journal, dir.path(), 0);
    journal.close().unwrap();
    fs::write(part(dir.path(), "").join("conf"), "not sled's").unwrap();
    let (journal, _) = open(dir.path());
    contiguous(&journal);
    journal.verify().unwrap();
    let mut number = next;
    while journal.stats().unwrap().parts < 2 {
        life(&journal, number).unwrap();
        number += 1;
    }
    contiguous(&journal);
    assert_eq!(journal.read_atom(id(0)).unwrap().len(), 5);
    assert_eq!(journal.stats().unwrap().history, HistoryState::Damaged);
}

#[test]
fn a_damaged_history_is_reported_and_left_as_it_is_while_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let next = fill(&journal, dir.path(), 0);
    journal.close().unwrap();
    let db = part(dir.path(), "").join("db");
    let mut bytes = fs::read(&db).unwrap();
    let magic = [0xCA, 0xE5, 0x1A, 0x6D];
    // sled keeps older copies of its pages: damage every frame there is.
    let frames = bytes.windows(4).enumerate().filter(|(_, window)| *window == magic);
    let frames: Vec<usize> = frames.map(|(at, _)| at).collect();
    for frame in frames {
        bytes[frame + 50] ^= 1;
    }
    fs::write(&db, &bytes).unwrap();
    let (journal, _) = open(dir.path());
    let first = journal.read(1).unwrap().next().unwrap();
    assert!(matches!(first, Err(JournalError::HistoryDamaged { .. })), "{first:?}");
    assert!(matches!(journal.verify(), Err(JournalError::HistoryDamaged { .. })));
    // Newer events are in the log, and more come: they are packed into another part.
    let packed = |journal: &Journal| journal.stats().unwrap().parts;
    let mut number = next;
    let patience = Instant::now() + Duration::from_secs(120);
    while packed(&journal) < 2 || segments(dir.path()) > SEALED_KEPT + 2 {
        assert!(Instant::now() < patience, "nothing is packed beside it");
        life(&journal, number).unwrap();
        number += 1;
    }
    journal.close().unwrap();
    assert_eq!(fs::read(&db).unwrap(), bytes);
    // What is in the other part can be read, and once the damaged one is cut away all is whole.
    let (journal, _) = open(dir.path());
    let (last, oldest) = (number * 5, next * 5 + 1);
    let newer: Vec<u64> = journal.read(oldest).unwrap().map(|r| r.unwrap().seq).collect();
    assert!(newer.into_iter().eq(oldest..=last));
    assert!(matches!(journal.verify(), Err(JournalError::HistoryDamaged { .. })));
    assert_eq!(journal.stats().unwrap().history, HistoryState::Damaged);
    let keep = Retention { max_events: Some(10), ..Retention::default() };
    journal.compact(&keep).unwrap();
    journal.verify().unwrap();
    assert_eq!(journal.stats().unwrap().history, HistoryState::Whole);
    assert!(!db.exists());
}

#[test]
fn a_head_that_cannot_be_written_costs_nothing_once_it_can() {
    for packed_before in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path());
        let mut next = if packed_before { fill(&journal, dir.path(), 0) } else { 0 };
        let in_the_way = dir.path().join("history/head.tmp");
        let deadline = Instant::now() + Duration::from_secs(60);
        // One may just be written there.
        while fs::create_dir_all(&in_the_way).is_err() {
            assert!(Instant::now() < deadline, "head.tmp stays");
            std::thread::yield_now();
        }
        while segments(dir.path()) < SEALED_KEPT + 6 {
            life(&journal, next).unwrap();
            next += 1;
        }
        journal.close().unwrap();
        fs::remove_dir(&in_the_way).unwrap();
        let (journal, _) = open(dir.path());
        assert_eq!(contiguous(&journal), next * 5);
        journal.verify().unwrap();
        fill(&journal, dir.path(), next);
        contiguous(&journal);
        journal.verify().unwrap();
    }
}

#[test]
fn a_history_whose_head_is_gone_is_damaged_and_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let next = fill(&journal, dir.path(), 0);
    journal.close().unwrap();
    fs::remove_file(dir.path().join("history/head")).unwrap();
    let (journal, _) = open(dir.path());
    let damaged = |error| matches!(error, JournalError::HistoryDamaged { .. });
    assert!(damaged(journal.read(1).unwrap_err()));
    assert!(damaged(journal.oldest_seq().unwrap_err()));
    assert!(damaged(journal.verify().unwrap_err()));
    // What is in the log needs no history.
    let last = next * 5;
    assert_eq!(journal.read(last).unwrap().next().unwrap().unwrap().seq, last);
}

#[test]
fn a_log_that_is_gone_beside_a_history_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal, dir.path(), 0);
    journal.close().unwrap();
    fs::remove_dir_all(dir.path().join("wal")).unwrap();
    let refused = Journal::open_dir(dir.path(), options()).unwrap_err();
    assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
}

#[test]
fn files_are_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    fill(&journal, dir.path(), 0);
    let mut dirs: Vec<_> = vec![dir.path().join("wal"), dir.path().join("history")];
    while let Some(path) = dirs.pop() {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700, "{path:?}");
        for entry in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else {
                assert_eq!(mode(&entry), 0o600, "{entry:?}");
            }
        }
    }
}

#[test]
fn a_journal_that_is_only_open_for_moments_is_packed_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut most = 0;
    for number in 0..300 {
        let (journal, _) = open(dir.path());
        let spec = AtomSpec::command("true").arg("x".repeat(8 << 10));
        append(&journal, id(number), created(spec)).unwrap();
        append(&journal, id(number), lost()).unwrap();
        append(&journal, id(number), Event::DeleteAsked.into()).unwrap();
        append(&journal, id(number), Event::Removed.into()).unwrap();
        journal.close().unwrap();
        most = most.max(segments(dir.path()));
    }
    assert!(most <= SEALED_KEPT + 8, "{most} segments");
    let (journal, _) = open(dir.path());
    assert_eq!(contiguous(&journal), 1200);
    journal.verify().unwrap();
}

#[test]
fn a_head_that_cannot_be_read_is_no_damage_and_makes_no_new_journal() {
    let dir = tempfile::tempdir().unwrap();
    // Reading a directory fails, as reading from a failing disk does.
    fs::create_dir_all(dir.path().join("history/head")).unwrap();
    let refused = Journal::open_dir(dir.path(), options()).unwrap_err();
    assert!(matches!(refused, JournalError::Io { .. }), "{refused}");
    fs::remove_dir(dir.path().join("history/head")).unwrap();
    open(dir.path()).0.verify().unwrap();
}
