//! Rebuilding a store from whatever can still be read of a damaged one.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use caesium::atom::AtomSpec;
use caesium::journal::{
    Fact, Journal, JournalError, JournalOptions, Record, Retention, Salvaged, salvage,
};
use caesium::lifecycle::State;
use caesium::{Reason, Timestamp};
use common::*;

const MAGIC: [u8; 4] = [0xCA, 0xE5, 0x1A, 0x6D];

fn tiny() -> JournalOptions {
    JournalOptions::default().segment_bytes(8 << 10)
}

/// A store with a history, several segments, a long event and atoms that exist; and its events.
fn filled(dir: &Path) -> Vec<Record> {
    let (journal, _) = Journal::open_dir(dir, tiny()).unwrap();
    append(&journal, id(9001), created(AtomSpec::command("true").name("old"))).unwrap();
    append(&journal, id(9001), started()).unwrap();
    let long = AtomSpec::command("true").args((0..3).map(|_| "long ".repeat(9000)));
    append(&journal, id(9002), created(long)).unwrap();
    for number in 0..60 {
        life(&journal, number).unwrap();
    }
    append(&journal, id(9003), created(AtomSpec::command("true").name("new"))).unwrap();
    append(&journal, id(9003), started()).unwrap();
    append(&journal, id(9003), lost()).unwrap();
    let records = all(&journal);
    journal.close().unwrap();
    assert!(dir.join("history/head").exists(), "something was packed");
    records
}

/// All files under a directory, and when they were last touched.
fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, [i64; 4])> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let times = fs::metadata(&path).unwrap();
            let times = [times.atime(), times.atime_nsec(), times.mtime(), times.mtime_nsec()];
            found.insert(path.clone(), (fs::read(&path).unwrap(), times));
        }
    }
    found
}

fn is_lost(record: &Record) -> bool {
    matches!(record.fact, Fact::Lost)
}

/// A journal, and where it is as long as it is needed.
struct Rebuilt {
    journal: Journal,
    _place: tempfile::TempDir,
}

impl std::ops::Deref for Rebuilt {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

/// Salvages, and checks all that must hold whatever the damage was.
fn check(damaged: &Path, original: &[Record], what: &str) -> (Salvaged, Vec<Record>, Rebuilt) {
    let before = files(damaged);
    let place = tempfile::tempdir().unwrap();
    let into = place.path().join("new");
    let salvaged = salvage(damaged, &into).unwrap_or_else(|error| panic!("{what}: {error}"));
    let contents = |files: BTreeMap<PathBuf, (Vec<u8>, [i64; 4])>| -> Vec<_> {
        files.into_iter().map(|(path, (bytes, times))| (path, bytes, times[2..].to_vec())).collect()
    };
    assert_eq!(contents(files(damaged)), contents(before), "{what}: the damaged store was changed");
    let (journal, recovery) = Journal::open_dir(&into, tiny().must_exist(true)).unwrap();
    assert!(recovery.clean, "{what}");
    journal.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
    let oldest = journal.oldest_seq().unwrap();
    assert_eq!(oldest, salvaged.first, "{what}");
    let records: Vec<Record> = journal.read(oldest).unwrap().map(Result::unwrap).collect();
    for (position, record) in records.iter().enumerate() {
        assert_eq!(record.seq, oldest + position as u64, "{what}");
        // What is not lost is as it was, or says who is invalid.
        match original.get(record.seq as usize - 1) {
            Some(was) if record.seq <= salvaged.last => {
                assert!(is_lost(record) || record == was, "{what}: event {}", record.seq);
            }
            Some(_) | None => assert_eq!(record.state, State::Invalid, "{what}"),
        }
    }
    let lost = records.iter().filter(|record| is_lost(record)).count() as u64;
    assert_eq!(salvaged.lost, lost, "{what}");
    assert_eq!(salvaged.recovered + salvaged.lost, salvaged.last + 1 - salvaged.first, "{what}");
    let gaps: u64 = salvaged.gaps.iter().map(|(from, to)| to + 1 - from).sum();
    assert_eq!(gaps, lost, "{what}");
    for atom in &salvaged.invalid {
        let state = journal.with_view(|view| view.get(*atom).map(|atom| atom.state()));
        assert_eq!(state, Some(State::Invalid), "{what}");
        let why = journal.with_view(|view| view.get(*atom).unwrap().reason());
        assert_eq!(why, Some(Reason::EventsLost), "{what}");
    }
    (salvaged, records, Rebuilt { journal, _place: place })
}

/// The events of which a whole frame is left in these files. Only frames in one piece.
fn readable(dir: &Path) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for (_, (bytes, _)) in files(dir) {
        for at in (0..bytes.len().saturating_sub(36)).filter(|at| bytes[*at..].starts_with(&MAGIC))
        {
            let number =
                |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
            let length = number(at + 8) as usize;
            let payload = bytes.get(at + 36..at + 36 + length);
            if bytes[at + 5] == 4
                && crc32c::crc32c(&bytes[at..at + 32]) == number(at + 32)
                && payload.is_some_and(|payload| crc32c::crc32c(payload) == number(at + 28))
            {
                found.insert(u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap()));
            }
        }
    }
    found
}

#[test]
fn of_a_sound_store_everything_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let original = filled(dir.path());
    let (salvaged, records, journal) = check(dir.path(), &original, "sound");
    assert_eq!(records, original);
    assert_eq!((salvaged.lost, salvaged.invalid.len(), salvaged.atoms), (0, 0, 3));
    assert!(!salvaged.held && salvaged.problems.is_empty(), "{salvaged:?}");
    let (was, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    assert_eq!(states(&journal), states(&was));
    // It goes on, and can be salvaged and compacted like any other.
    life(&journal, 700).unwrap();
    journal.verify().unwrap();
}

#[test]
fn a_salvaged_store_goes_on_is_cut_and_is_salvaged_again() {
    let dir = tempfile::tempdir().unwrap();
    let original = filled(dir.path());
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    // Without its history the beginning is lost.
    fs::remove_dir_all(dir.path().join("history")).unwrap();
    let first = salvage(dir.path(), &one).unwrap();
    assert!(first.lost > 0 && first.recovered > 0);
    assert_eq!((first.first, first.atoms, first.invalid.len()), (1, 3, 0));
    let (journal, _) = Journal::open_dir(&one, tiny().must_exist(true)).unwrap();
    for number in 700..800 {
        life(&journal, number).unwrap();
    }
    journal.verify().unwrap();
    let kept = journal.recent_seq();
    journal.close().unwrap();
    let second = salvage(&one, &two).unwrap();
    assert_eq!((second.lost, second.last), (first.lost, kept));
    assert_eq!(second.gaps, first.gaps);
    let (journal, _) = Journal::open_dir(&one, tiny().must_exist(true)).unwrap();
    for events in [kept - 20, 100] {
        let retention = Retention { max_events: Some(events), ..Retention::default() };
        journal.compact(&retention).unwrap();
        assert_eq!(journal.oldest_seq().unwrap(), kept + 1 - events);
        journal.verify().unwrap();
    }
    assert!(original.len() as u64 <= kept);
    assert_eq!(journal.with_view(|view| view.len()), 3);
}

#[test]
fn every_kind_of_damage_costs_what_it_hits_and_nothing_else() {
    let store = tempfile::tempdir().unwrap();
    let original = filled(store.path());
    let sound = readable(store.path());
    let place = tempfile::tempdir().unwrap();
    let names: Vec<PathBuf> = files(store.path())
        .into_keys()
        .map(|path| path.strip_prefix(store.path()).unwrap().to_owned())
        .collect();
    let mut tried = 0;
    for name in &names {
        let length = fs::metadata(store.path().join(name)).unwrap().len() as usize;
        type Damage = Box<dyn Fn(&mut Vec<u8>)>;
        let mut kinds: Vec<(String, Damage)> = vec![
            ("emptied".into(), Box::new(Vec::clear)),
            ("cut in half".into(), Box::new(|bytes| bytes.truncate(bytes.len() / 2))),
            ("its first page zeroed".into(), Box::new(|bytes| zero(bytes, 0, 4096))),
            (
                "every page but one zeroed".into(),
                Box::new(|bytes| {
                    let end = bytes.len();
                    zero(bytes, 0, end / 3);
                    zero(bytes, end / 3 + 4096, end);
                }),
            ),
            (
                "a bit in every 5000 flipped".into(),
                Box::new(|bytes| {
                    for at in (97..bytes.len()).step_by(625) {
                        bytes[at] ^= 1 << (at % 8);
                    }
                }),
            ),
            (
                "two pages swapped".into(),
                Box::new(|bytes| {
                    if bytes.len() >= 16384 {
                        let (front, back) = bytes.split_at_mut(8192);
                        front[4096..].swap_with_slice(&mut back[..4096]);
                    }
                }),
            ),
        ];
        let at = length / 3;
        kinds.push((
            "one bit flipped".into(),
            Box::new(move |bytes| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x20;
                }
            }),
        ));
        let bytes = fs::read(store.path().join(name)).unwrap();
        if !bytes.windows(4).any(|window| window == MAGIC) {
            // No frame is in it: that it can be gone is all there is to see.
            kinds.truncate(1);
        }
        for (kind, damage) in kinds {
            let what = format!("{} {kind}", name.display());
            let damaged = place.path().join(format!("{tried}"));
            copy(store.path(), &damaged);
            let path = damaged.join(name);
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            one(&damaged, &original, &sound, &what);
            tried += 1;
        }
        let damaged = place.path().join(format!("{tried}"));
        copy(store.path(), &damaged);
        fs::remove_file(damaged.join(name)).unwrap();
        one(&damaged, &original, &sound, &format!("{} removed", name.display()));
        tried += 1;
    }
    println!("{tried} damaged stores");
}

fn zero(bytes: &mut [u8], from: usize, to: usize) {
    let to = to.min(bytes.len());
    bytes[from.min(to)..to].fill(0);
}

fn one(damaged: &Path, original: &[Record], sound: &BTreeSet<u64>, what: &str) {
    let left = readable(damaged);
    let (salvaged, records, _) = check(damaged, original, what);
    // Everything of which a whole frame is left is there; the rest is lost.
    for record in records.iter().filter(|record| record.seq <= salvaged.last) {
        let there = left.contains(&record.seq);
        // What is packed in several values is put together from where it is.
        let long = !sound.contains(&record.seq);
        assert!(long || is_lost(record) != there, "{what}: event {}", record.seq);
    }
    assert_eq!(salvaged.first, 1, "{what}");
    assert!(left.last().is_none_or(|last| *last <= salvaged.last), "{what}");
    fs::remove_dir_all(damaged).unwrap();
}

#[test]
fn one_damaged_frame_costs_one_frame_and_its_atom_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), JournalOptions::default()).unwrap();
    append(&journal, id(1), created(AtomSpec::command("true").name("one"))).unwrap();
    append(&journal, id(2), created(AtomSpec::command("true").name("two"))).unwrap();
    append(&journal, id(1), started()).unwrap();
    append(&journal, id(2), started()).unwrap();
    append(&journal, id(3), created(AtomSpec::command("true"))).unwrap();
    append(&journal, id(1), lost()).unwrap();
    append(&journal, id(3), started()).unwrap();
    let original = all(&journal);
    journal.close().unwrap();
    let segment = dir.path().join("wal/00000000000000000001.seg");
    let good = fs::read(&segment).unwrap();
    let starts: Vec<usize> = (0..good.len() - 36)
        .filter(|at| good[*at..].starts_with(&MAGIC) && good[at + 5] == 4)
        .collect();
    assert_eq!(starts.len(), 7);
    let expected: [&[u64]; 7] = [&[1], &[2], &[], &[], &[3], &[], &[]];
    for (position, start) in starts.iter().enumerate() {
        let mut bytes = good.clone();
        bytes[start + 40] ^= 1;
        fs::write(&segment, &bytes).unwrap();
        let what = format!("event {}", position + 1);
        let (salvaged, _, journal) = check(dir.path(), &original, &what);
        let seq = position as u64 + 1;
        assert_eq!((salvaged.recovered, salvaged.gaps), (6, vec![(seq, seq)]), "{what}");
        let invalid: Vec<_> = expected[position].iter().map(|number| id(*number)).collect();
        assert_eq!(salvaged.invalid, invalid, "{what}");
        // An atom that nothing contradicts keeps the state that the rest gives.
        let state = |number| journal.with_view(|view| view.get(id(number)).map(|a| a.state()));
        match position {
            0 | 1 | 4 => {}
            2 => assert_eq!(state(1), Some(State::Stopped), "{what}"),
            3 => assert_eq!(state(2), Some(State::Created), "{what}"),
            5 => assert_eq!(state(1), Some(State::Running), "{what}"),
            _ => assert_eq!(state(3), Some(State::Created), "{what}"),
        }
    }
}

#[test]
fn a_compacted_store_is_salvaged_from_its_oldest_event_on() {
    let dir = tempfile::tempdir().unwrap();
    let original = filled(dir.path());
    let (journal, _) = Journal::open_dir(dir.path(), tiny()).unwrap();
    let retention = Retention { max_events: Some(200), ..Retention::default() };
    let oldest = journal.compact(&retention).unwrap().oldest;
    let before = states(&journal);
    journal.close().unwrap();
    let (salvaged, _, journal) = check(dir.path(), &original, "compacted");
    assert_eq!((salvaged.first, salvaged.lost, salvaged.invalid.len()), (oldest, 0, 0));
    assert_eq!(states(&journal), before);
    // Also when what it builds on is gone: a later snapshot has the atoms.
    fs::remove_file(dir.path().join(format!("history/{:020}.base", 1))).unwrap();
    let (salvaged, _, journal) = check(dir.path(), &original, "no base");
    assert_eq!((salvaged.first, salvaged.lost), (oldest, 0));
    assert_eq!(states(&journal), before);
    // Without the head nothing says that there was a cut: what was cut is back as far as it is there.
    fs::remove_file(dir.path().join("history/head")).unwrap();
    let (salvaged, _, journal) = check(dir.path(), &original, "no head");
    assert_eq!((salvaged.first, salvaged.lost), (1, 0));
    assert_eq!(states(&journal), before);
}

#[test]
fn what_cannot_be_used_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let place = tempfile::tempdir().unwrap();
    let full = place.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "precious").unwrap();
    let refused = salvage(dir.path(), &full).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    let inside = salvage(dir.path(), &dir.path().join("new")).unwrap_err();
    assert!(inside.to_string().contains("inside the damaged store"), "{inside}");
    let nothing = salvage(&full, &place.path().join("new")).unwrap_err();
    assert!(matches!(nothing, JournalError::Damaged { .. }), "{nothing}");
    assert!(matches!(
        salvage(&place.path().join("none"), &place.path().join("new")),
        Err(JournalError::Io { .. })
    ));
    // What an interrupted salvage has left goes; what somebody else has put there does not.
    let unfinished = place.path().join("new.unfinished");
    fs::create_dir_all(unfinished.join("wal")).unwrap();
    fs::write(unfinished.join("mine"), "precious").unwrap();
    assert!(salvage(dir.path(), &place.path().join("new")).is_err());
    fs::remove_file(unfinished.join("mine")).unwrap();
    fs::create_dir(place.path().join("new")).unwrap();
    salvage(dir.path(), &place.path().join("new")).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["full", "new"]);
}

#[test]
fn what_an_atom_says_is_not_taken_for_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), JournalOptions::default()).unwrap();
    // A frame of an event that never was, within a spec, and in what an atom has printed.
    let mut forged = vec![0xCA, 0xE5, 0x1A, 0x6D, 1, 4, 0, 0];
    let record = Record {
        seq: 3,
        at: Timestamp::default(),
        atom: id(66),
        state: State::Running,
        fact: lost(),
    };
    let payload = bincode::serialize(&record).unwrap();
    forged.extend((payload.len() as u32).to_le_bytes());
    forged.extend([0; 4]);
    forged.extend(3_u64.to_le_bytes());
    forged.extend([0; 4]);
    forged.extend(crc32c::crc32c(&payload).to_le_bytes());
    forged.extend(crc32c::crc32c(&forged).to_le_bytes());
    forged.extend(payload);
    use std::os::unix::ffi::OsStrExt;
    let argument = std::ffi::OsStr::from_bytes(&forged);
    append(&journal, id(1), created(AtomSpec::command("true").arg(argument))).unwrap();
    append(&journal, id(1), started()).unwrap();
    let original = all(&journal);
    journal.close().unwrap();
    fs::create_dir(dir.path().join("atoms")).unwrap();
    fs::write(dir.path().join("atoms/log"), &forged).unwrap();
    let (salvaged, records, _) = check(dir.path(), &original, "forged");
    assert_eq!((salvaged.last, salvaged.lost), (2, 0));
    assert_eq!(records, original);
}
