//! What opening and verifying make of files that are not what was written.

mod common;

use std::time::Duration;

use caesium::Durability;
use caesium::atom::AtomSpec;
use caesium::journal::storage::{Crash, Keep, MemoryStorage};
use caesium::journal::{JournalError, JournalOptions, Record};
use caesium::lifecycle::Event;
use common::*;

const FIRST: &str = "00000000000000000001.seg";

fn tiny() -> JournalOptions {
    // The room that atoms are granted comes on top of this.
    JournalOptions::default().segment_bytes(4096)
}

fn copy_of(bytes: &[u8]) -> Store {
    let memory = MemoryStorage::new();
    memory.put(FIRST, bytes.to_vec());
    Store::on(memory, std::sync::Arc::new(caesium::journal::MemoryHistory::new()))
}

/// A closed store with a few events in one segment.
fn closed() -> (Vec<u8>, Vec<Record>) {
    let store = Store::memory();
    let (journal, _) = store.open_with(tiny()).unwrap();
    append(&journal, id(1), created(AtomSpec::command("true").name("one"))).unwrap();
    append(&journal, id(1), started()).unwrap();
    append(&journal, id(1), lost()).unwrap();
    let records = all(&journal);
    journal.close().unwrap();
    (store.disk_twin().contents(FIRST).unwrap(), records)
}

/// Where the frames of a segment end: the header's `back` is how many bytes at the end are not for them.
fn room_of_frames(bytes: &[u8]) -> usize {
    bytes.len() - u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize
}

#[test]
fn every_flipped_bit_of_a_closed_store_is_refused_and_left_as_it_is() {
    let (mut bytes, records) = closed();
    let room = room_of_frames(&bytes);
    // Of what is not for frames some are enough.
    for bit in (0..bytes.len() * 8).filter(|bit| bit / 8 < room || bit % 31 == 0) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let store = copy_of(&bytes);
        match store.open_with(tiny()) {
            Err(JournalError::Damaged { .. } | JournalError::Newer { .. }) if bit / 8 < room => {}
            // How far the log had come, its footer says as well.
            Ok((journal, recovery)) if bit / 8 >= room => {
                assert!(recovery.clean && all(&journal) == records, "bit {bit}: {recovery:?}");
            }
            other => panic!("bit {} of byte {}: {other:?}", bit % 8, bit / 8),
        }
        assert_eq!(store.disk_twin().contents(FIRST).unwrap(), bytes, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A page of zeros where the last writes of a host that was killed should be looks like one that was
/// never written: but it is said elsewhere how far the log had come.
#[test]
fn whatever_is_wiped_out_after_an_unclean_end_only_the_last_write_goes_and_not_in_silence() {
    let roomy = || JournalOptions::default().segment_bytes(30_000);
    let store = Store::memory();
    let (journal, _) = store.open_with(roomy()).unwrap();
    for number in 0..12 {
        life(&journal, number).unwrap();
    }
    let whole = all(&journal);
    let bytes = store.disk_twin().contents(FIRST).unwrap();
    let room = room_of_frames(&bytes);
    let used = bytes[..room].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut refused, mut reported) = (0, 0);
    for from in (0..bytes.len()).step_by(56) {
        for until in [used, from + 512, from / 4096 * 4096 + 4096] {
            let mut wiped = bytes.clone();
            let until = until.min(bytes.len()).max(from);
            wiped[from..until].fill(0);
            let store = copy_of(&wiped);
            match store.open_with(roomy()) {
                Err(JournalError::Damaged { .. }) => {
                    refused += 1;
                    assert_eq!(store.disk_twin().contents(FIRST).unwrap(), wiped);
                }
                Err(error) => panic!("{from} to {until}: {error}"),
                Ok((journal, recovery)) => {
                    let kept = all(&journal);
                    assert!(whole.starts_with(&kept), "{from} to {until}");
                    assert_eq!(recovery.cut.is_some(), kept.len() < whole.len());
                    assert!(kept.len() + 1 >= whole.len(), "{from} to {until}: {recovery:?}");
                    reported += u32::from(recovery.cut.is_some());
                    // Opening has changed nothing, and the journal goes on.
                    assert_eq!(store.disk_twin().contents(FIRST).unwrap(), wiped);
                    append(&journal, id(100), created(AtomSpec::command("true"))).unwrap();
                    drop(journal);
                    let (journal, recovery) = store.open_with(roomy()).unwrap();
                    assert_eq!((recovery.events, recovery.cut), (kept.len() as u64 + 1, None));
                    journal.verify().unwrap();
                    journal.close().unwrap();
                    assert!(store.open_with(roomy()).unwrap().1.clean);
                }
            }
        }
    }
    assert!(refused > 0 && reported > 0, "{refused} {reported}");
}

/// The footer of a closed store may be wiped out with the last events: that is no torn write.
#[test]
fn a_closed_store_without_its_last_bytes_is_refused_unless_they_were_its_footer() {
    let (bytes, records) = closed();
    let room = room_of_frames(&bytes);
    let used = bytes[..room].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let footer = used - 52;
    for from in 0..used {
        let mut wiped = bytes.clone();
        wiped[from..used].fill(0);
        let store = copy_of(&wiped);
        match store.open_with(tiny()) {
            Err(JournalError::Damaged { .. }) => {
                assert!(store.disk_twin().contents(FIRST).unwrap() == wiped, "from {from}");
            }
            Ok((journal, recovery)) if from >= footer => {
                assert!(all(&journal) == records && !recovery.clean, "{from}: {recovery:?}");
            }
            other => panic!("from {from}: {other:?}"),
        }
    }
}

#[test]
fn a_truncated_store_is_refused_at_every_length() {
    let (bytes, _) = closed();
    for length in 0..bytes.len() {
        let store = copy_of(&bytes[..length]);
        assert!(
            matches!(store.open_with(tiny()), Err(JournalError::Damaged { .. })),
            "length {length}"
        );
        assert_eq!(store.disk_twin().contents(FIRST).unwrap(), bytes[..length]);
    }
}

/// An open store whose last write is cut at every byte: what was acknowledged before it stays.
#[test]
fn a_write_that_is_torn_at_any_byte_costs_at_most_its_own_group() {
    let store = Store::memory();
    let (journal, _) = store.open_with(tiny()).unwrap();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    append(&journal, id(1), started()).unwrap();
    let before = store.disk_twin().contents(FIRST).unwrap();
    let acknowledged = all(&journal);
    // One change of three events is one group.
    let ((), ticket) = journal
        .change(|draft| -> Result<(), JournalError> {
            draft.append(id(1), at(9), lost())?;
            draft.append(id(1), at(9), Event::DeleteAsked.into())?;
            draft.append(id(1), at(9), Event::Removed.into())?;
            Ok(())
        })
        .unwrap();
    ticket.wait().unwrap();
    let whole = all(&journal);
    let after = store.disk_twin().contents(FIRST).unwrap();
    let start = before.iter().zip(&after).position(|(left, right)| left != right).unwrap();
    let room = room_of_frames(&after);
    let end = after[..room].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for cut in start..=end {
        let mut bytes = after[..cut].to_vec();
        bytes.resize(room, 0);
        // What is written after it is not there yet.
        bytes.extend(&before[room..]);
        let store = copy_of(&bytes);
        let (journal, recovery) = store.open_with(tiny()).unwrap();
        let kept = all(&journal);
        assert!(kept.len() >= acknowledged.len() && whole.starts_with(&kept), "cut at {cut}");
        // Nothing is left out in silence: a torn frame is reported. The last
        // bytes of a frame can be zeros, and then nothing is torn.
        assert_eq!(recovery.cut.is_some(), !frame_ends(&bytes[start..room]), "cut at {cut}");
        assert!(!recovery.clean);
        // And the journal goes on, cleanly, whatever was there.
        append(&journal, id(7), created(AtomSpec::command("true"))).unwrap();
        journal.verify().unwrap();
        journal.close().unwrap();
        let (journal, recovery) = store.open_with(tiny()).unwrap();
        assert_eq!((recovery.events, recovery.clean), (kept.len() as u64 + 1, true));
        journal.verify().unwrap();
    }
}

/// Whether only whole frames, and then zeros, are there.
fn frame_ends(mut bytes: &[u8]) -> bool {
    while bytes.iter().any(|byte| *byte != 0) {
        let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let crc = u32::from_le_bytes(bytes[32..36].try_into().unwrap());
        let payload = &bytes[36..];
        if crc32c::crc32c(&bytes[..32]) != crc
            || payload.len() < length
            || crc32c::crc32c(&payload[..length])
                != u32::from_le_bytes(bytes[28..32].try_into().unwrap())
        {
            return false;
        }
        bytes = &payload[length..];
    }
    true
}

#[test]
fn damage_before_the_last_group_of_an_open_store_is_refused() {
    let store = Store::memory();
    let (journal, _) = store.open_with(tiny()).unwrap();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    let one = store.disk_twin().contents(FIRST).unwrap();
    append(&journal, id(1), started()).unwrap();
    let two = store.disk_twin().contents(FIRST).unwrap();
    let border = one.iter().zip(&two).position(|(left, right)| left != right).unwrap();
    let end = two[..room_of_frames(&two)].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in 0..end {
        let mut bytes = two.clone();
        bytes[at] ^= 0x10;
        let store = copy_of(&bytes);
        let opened = store.open_with(tiny());
        if at < border {
            assert!(opened.is_err(), "byte {at} before the last group");
            assert_eq!(store.disk_twin().contents(FIRST).unwrap(), bytes);
        } else if let Ok((_, recovery)) = opened {
            // The last group cannot be told from a torn write: cut, and said so.
            assert_eq!(recovery.events, 1, "byte {at}");
            assert!(recovery.cut.is_some(), "byte {at}");
        }
    }
}

#[test]
fn whatever_a_crash_leaves_what_was_acknowledged_is_there() {
    for seed in 0..300 {
        let mut memory = MemoryStorage::new();
        let mut acknowledged: Vec<Record> = Vec::new();
        // With small segments every sync but the seals' could be missing unseen.
        let options = || if seed % 4 < 2 { tiny() } else { JournalOptions::default() };
        for round in 0..4 {
            let history = std::sync::Arc::new(caesium::journal::MemoryHistory::on(&memory));
            let store = Store::on(memory.clone(), history);
            let (journal, _) = store.open_with(options()).unwrap_or_else(|error| {
                panic!("seed {seed}, round {round}: {error}");
            });
            let found = all(&journal);
            assert!(found.starts_with(&acknowledged), "seed {seed}, round {round}");
            let atom = id(seed * 10 + round);
            append(&journal, atom, created(AtomSpec::command("true").arg("x".repeat(700))))
                .unwrap();
            append(&journal, atom, started()).unwrap();
            acknowledged = all(&journal);
            // On its way when the machine dies, or already there.
            let tickets: Vec<_> = (0..3)
                .map(|more| {
                    let spec = AtomSpec::command("true").arg("y".repeat(900));
                    queue(&journal, id(1_000_000 + seed * 100 + round * 10 + more), created(spec))
                })
                .collect();
            let keep = [Keep::Some, Keep::Nothing, Keep::All][(seed % 3) as usize];
            let sector = if seed % 2 == 0 { 512 } else { 4096 };
            memory = memory.crash(Crash { seed: seed * 7 + round, keep, sector });
            drop(tickets);
        }
    }
}

/// With batched syncs everything since the last one may go, and nothing else.
#[test]
fn whatever_a_crash_leaves_of_batched_events_the_synced_ones_are_there() {
    let batched = || tiny().durability(Durability::Batched(Duration::from_secs(3600)));
    for seed in 0..200 {
        let mut memory = MemoryStorage::new();
        let mut synced: Vec<Record> = Vec::new();
        for round in 0..4 {
            let history = std::sync::Arc::new(caesium::journal::MemoryHistory::on(&memory));
            let store = Store::on(memory.clone(), history);
            let (journal, _) = store.open_with(batched()).unwrap_or_else(|error| {
                panic!("seed {seed}, round {round}: {error}");
            });
            let found = all(&journal);
            assert!(found.starts_with(&synced), "seed {seed}, round {round}");
            for more in 0..1 + seed % 5 {
                let atom = id(seed * 100 + round * 10 + more);
                let spec = AtomSpec::command("true").arg("x".repeat(300));
                append(&journal, atom, created(spec)).unwrap();
                append(&journal, atom, started()).unwrap();
            }
            synced = all(&journal);
            synced.truncate(journal.durable_seq() as usize);
            memory = memory.crash(Crash { seed: seed * 11 + round, keep: Keep::Some, sector: 512 });
        }
    }
}

#[test]
fn a_missing_newest_segment_is_noticed() {
    let store = Store::memory();
    let (journal, _) = store.open_with(tiny()).unwrap();
    for number in 0..40 {
        life(&journal, number).unwrap();
    }
    journal.close().unwrap();
    let names = store.storage.list().unwrap();
    assert!(names.len() > 1);
    store.storage.remove(names.last().unwrap()).unwrap();
    let refused = store.open_with(tiny()).unwrap_err();
    assert!(refused.to_string().contains("should follow"), "{refused}");
}

#[test]
fn verify_finds_a_flipped_bit_in_an_older_segment() {
    let store = Store::memory();
    let (journal, _) = store.open_with(tiny()).unwrap();
    for number in 0..40 {
        life(&journal, number).unwrap();
    }
    assert_eq!(journal.verify().unwrap().events, 200);
    journal.close().unwrap();
    let names = store.storage.list().unwrap();
    let older = &names[names.len() - 2];
    let good = store.disk_twin().contents(older).unwrap();
    for at in (0..room_of_frames(&good)).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        store.disk_twin().put(older, bytes);
        let (journal, _) = store.open_with(tiny()).unwrap();
        assert!(journal.verify().is_err(), "byte {at}");
    }
    store.disk_twin().put(older, good);
    store.open_with(tiny()).unwrap().0.verify().unwrap();
}
