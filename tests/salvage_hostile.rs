//! Salvaging what somebody has made up: numbers that no store has, and too much of everything.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use caesium::Timestamp;
use caesium::atom::AtomSpec;
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{
    Journal, JournalError, JournalOptions, MAX_LOST, MemoryHistory, Record, Salvaged, salvage,
};
use caesium::lifecycle::State;
use common::*;

const HEADER: u8 = 1;
const SNAPSHOT_END: u8 = 3;
const EVENT: u8 = 4;

/// A frame as `docs/journal-format.md` describes it, and its checksum.
fn frame(kind: u8, seq: u64, prev: u32, payload: &[u8]) -> (Vec<u8>, u32) {
    let mut bytes = vec![0xCA, 0xE5, 0x1A, 0x6D, 1, kind, 0, 0];
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(seq.to_le_bytes());
    bytes.extend(prev.to_le_bytes());
    bytes.extend(crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(payload);
    (bytes, crc)
}

/// A segment that begins with the event `first`, without atoms and events.
fn segment(first: u64, length: usize) -> Vec<u8> {
    let mut end = Vec::new();
    let told = [length as u64, 0, 36 + 8].map(u64::to_le_bytes).concat();
    let (mut bytes, crc) = frame(HEADER, first - 1, 7, &told);
    let (snapshot_end, _) = frame(SNAPSHOT_END, first - 1, crc, &0_u64.to_le_bytes());
    bytes.append(&mut { snapshot_end });
    end.resize(length - bytes.len(), 0);
    bytes.extend(end);
    bytes
}

/// Events that follow one another.
fn events(first: u64, count: u64) -> Vec<u8> {
    let (mut bytes, mut prev) = (Vec::new(), 99);
    for seq in first..first + count {
        let fact = if seq == first { created(AtomSpec::command("forged")) } else { started() };
        let record =
            Record { seq, at: Timestamp::default(), atom: id(seq), state: State::Running, fact };
        let (frame, crc) = frame(EVENT, seq, prev, &bincode::serialize(&record).unwrap());
        bytes.extend(frame);
        prev = crc;
    }
    bytes
}

/// A store of a hundred events.
fn filled(dir: &Path) -> Vec<Record> {
    let options = JournalOptions::default().segment_bytes(4 << 10);
    let (journal, _) = Journal::open_dir(dir, options).unwrap();
    for number in 0..20 {
        life(&journal, number).unwrap();
    }
    let records = all(&journal);
    journal.close().unwrap();
    records
}

fn salvaged(dir: &Path) -> (Salvaged, Vec<Record>) {
    let place = tempfile::tempdir().unwrap();
    let into = place.path().join("new");
    let told = salvage(dir, &into).unwrap();
    let (journal, _) =
        Journal::open_dir(&into, JournalOptions::default().must_exist(true)).unwrap();
    journal.verify().unwrap();
    let read = journal.read(journal.oldest_seq().unwrap()).unwrap();
    let records = read.map(Result::unwrap).collect();
    journal.close().unwrap();
    (told, records)
}

fn put_segment(dir: &Path, first: u64, bytes: &[u8]) {
    fs::write(dir.join(format!("wal/{first:020}.seg")), bytes).unwrap();
}

#[test]
fn a_header_with_a_number_that_no_store_has_loses_nothing_and_invents_nothing() {
    let far = [1 << 24, 1 << 40, 1 << 55, (1 << 56) - 1, 1 << 56, 1 << 60, u64::MAX];
    for first in far {
        for named in [first, 5000] {
            let dir = tempfile::tempdir().unwrap();
            let original = filled(dir.path());
            put_segment(dir.path(), named, &segment(first, 4096));
            let (told, records) = salvaged(dir.path());
            assert_eq!(records, original, "{first} in {named}");
            assert_eq!((told.first, told.last, told.lost), (1, 100, 0), "{first} in {named}");
            // What is no frame of ours at all, or not where its name says, is nothing to tell of.
            let believable = first < 1 << 56 && named == first;
            assert_eq!(told.problems.len(), usize::from(believable), "{:?}", told.problems);
        }
    }
}

#[test]
fn a_header_that_can_be_right_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let original = filled(dir.path());
    put_segment(dir.path(), 1101, &segment(1101, 4096));
    let (told, records) = salvaged(dir.path());
    assert_eq!((told.recovered, told.gaps), (100, vec![(101, 1100)]));
    assert_eq!(records[..100], original);
}

#[test]
fn events_that_are_too_far_away_are_left_out_and_told() {
    for first in [1 << 24, 1 << 55] {
        let dir = tempfile::tempdir().unwrap();
        let original = filled(dir.path());
        let mut bytes = segment(first, 8192);
        let forged = events(first, 5);
        bytes[104..104 + forged.len()].copy_from_slice(&forged);
        put_segment(dir.path(), first, &bytes);
        let (told, records) = salvaged(dir.path());
        assert_eq!((records, told.lost), (original, 0));
        assert!(told.problems[0].contains("5 events say"), "{:?}", told.problems);
    }
}

#[test]
fn a_log_without_its_long_history_is_rebuilt_from_where_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("wal")).unwrap();
    let first = MAX_LOST * 3;
    let mut bytes = segment(first, 8192);
    let real = events(first, 5);
    bytes[104..104 + real.len()].copy_from_slice(&real);
    put_segment(dir.path(), first, &bytes);
    let (told, records) = salvaged(dir.path());
    // The event before the segment was there: its header says so.
    assert_eq!((told.first, told.last, told.lost, told.recovered), (first - 1, first + 4, 1, 5));
    assert!(told.problems[0].contains("too many are missing"), "{:?}", told.problems);
    assert_eq!(records[1].seq, first);
}

#[test]
fn a_head_that_nothing_else_bears_out_is_not_believed() {
    for first in [102, 5000, 1 << 50, (1 << 56) - 1] {
        let dir = tempfile::tempdir().unwrap();
        let original = filled(dir.path());
        // All before its first event was cut, it says, and nothing came after that.
        let mut head = vec![0xCA, 0xE5, 0x1A, 0x48, 1, 0, 0, 0];
        head.extend([first, first - 1].map(u64::to_le_bytes).concat());
        head.extend([1, 2, 3, 4, 0, 0, 0, 0]);
        head.extend(crc32c::crc32c(&head).to_le_bytes());
        fs::create_dir_all(dir.path().join("history")).unwrap();
        fs::write(dir.path().join("history/head"), head).unwrap();
        let (told, records) = salvaged(dir.path());
        assert_eq!((records, told.lost), (original, 0), "{first}");
        assert!(told.problems[0].contains("not believed"), "{:?}", told.problems);
    }
}

#[test]
fn a_hundred_thousand_frames_of_one_number_take_no_more_than_a_look() {
    let dir = tempfile::tempdir().unwrap();
    let original = filled(dir.path());
    let mut bytes = Vec::new();
    for made_up in 0..100_000_u32 {
        let record = Record { seq: 50, atom: id(u64::from(made_up)), ..original[49].clone() };
        bytes.extend(frame(EVENT, 50, made_up, &bincode::serialize(&record).unwrap()).0);
    }
    fs::write(dir.path().join("wal/z"), bytes).unwrap();
    let (told, records) = salvaged(dir.path());
    assert_eq!((records, told.lost), (original, 0));
}

#[test]
fn a_store_whose_numbers_are_made_up_ends_with_a_typed_error() {
    let memory = MemoryStorage::new();
    let first: u64 = (1 << 56) - 1;
    memory.put(&format!("{first:020}.seg"), segment(first, 8192));
    let store = Store::on(memory, Arc::new(MemoryHistory::new()));
    let (journal, recovery) = store.open();
    assert_eq!(recovery.events, first - 1);
    let create = |number| -> Result<(), JournalError> {
        let fact = created(AtomSpec::command("true"));
        let (_, ticket) = journal.change(|draft| draft.append(id(number), at(0), fact))?;
        ticket.wait()
    };
    create(1).unwrap();
    let refused = create(2).unwrap_err();
    assert!(matches!(refused, JournalError::Inconsistent { .. }), "{refused}");
    let _ = journal.verify();
    journal.close().unwrap();
    // A number beyond the last is no segment's.
    let memory = MemoryStorage::new();
    memory.put(&format!("{:020}.seg", u64::MAX), segment(u64::MAX, 8192));
    let store = Store::on(memory, Arc::new(MemoryHistory::new()));
    let refused = store.open_with(small().must_exist(true)).unwrap_err();
    assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
}
