//! The seeds of the fuzz targets, replayed. `UPDATE_CORPUS=1` makes the made ones again.
#![cfg(feature = "test-util")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use caesium::atom::AtomSpec;
use caesium::journal::JournalOptions;
use caesium::lifecycle::Event;
use common::*;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut seeds = 0;
    for entry in fs::read_dir(corpus(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(path).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 4, "the seeds of {target} are in the repository");
}

#[test]
fn every_frame_seed_passes() {
    make_seeds();
    replay("frame", caesium::fuzzing::frame);
}

#[test]
fn every_lifecycle_seed_passes() {
    replay("lifecycle", caesium::fuzzing::lifecycle);
}

#[test]
fn every_segment_seed_passes() {
    make_broken_seeds();
    replay("segment", caesium::fuzzing::segment);
}

#[test]
fn every_salvage_seed_passes() {
    make_broken_seeds();
    replay("salvage", caesium::fuzzing::salvage);
}

#[test]
fn every_store_seed_passes() {
    write_seeds("store", caesium::fuzzing::store_seeds());
    replay("store", caesium::fuzzing::store);
}

#[test]
#[cfg(target_os = "linux")]
fn every_keeper_seed_passes() {
    write_seeds("keeper", caesium::fuzzing::keeper_seeds());
    replay("keeper", caesium::fuzzing::keeper);
}

#[test]
#[cfg(target_os = "linux")]
fn every_control_seed_passes() {
    write_seeds("control", caesium::fuzzing::control_seeds());
    replay("control", caesium::fuzzing::control);
}

fn write_seeds(target: &str, seeds: Vec<(&str, Vec<u8>)>) {
    if std::env::var_os("UPDATE_CORPUS").is_some() {
        fs::create_dir_all(corpus(target)).unwrap();
        for (name, seed) in seeds {
            fs::write(corpus(target).join(name), seed).unwrap();
        }
    }
}

/// A closed segment, the same while it was open, and what could become of it.
fn make_broken_seeds() {
    if std::env::var_os("UPDATE_CORPUS").is_none() {
        return;
    }
    let store = Store::memory();
    let (journal, _) = store.open_with(JournalOptions::default().segment_bytes(256)).unwrap();
    append(&journal, id(1), created(AtomSpec::command("true").name("one"))).unwrap();
    append(&journal, id(1), started()).unwrap();
    append(&journal, id(1), lost()).unwrap();
    let name = store.storage.list().unwrap().pop().unwrap();
    let open = store.disk_twin().contents(&name).unwrap();
    journal.close().unwrap();
    let closed = store.disk_twin().contents(&name).unwrap();
    let used = open.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let torn = [&open[..used - 20], &vec![0; open.len() - used + 20]].concat();
    let mut flipped = closed.clone();
    flipped[used / 2] ^= 8;
    let mut zeroed = closed.clone();
    zeroed[..60].fill(0);
    // A number that no store comes to, whole in itself.
    let mut far = closed.clone();
    far[16..24].copy_from_slice(&(1_u64 << 50).to_le_bytes());
    let crc = crc32c::crc32c(&far[..32]).to_le_bytes();
    far[32..36].copy_from_slice(&crc);
    // The same frames twice, in no order, and not at the beginning of a file.
    let scattered = [&[7; 100][..], &closed[used / 3..used], &closed[..used], &flipped].concat();
    let seeds = [
        ("open", &open),
        ("closed", &closed),
        ("torn", &torn),
        ("flipped", &flipped),
        ("zeroed", &zeroed),
        ("scattered", &scattered),
        ("far", &far),
    ];
    for target in ["segment", "salvage"] {
        let dir = corpus(target);
        fs::create_dir_all(&dir).unwrap();
        for (name, seed) in seeds {
            fs::write(dir.join(name), seed).unwrap();
        }
    }
}

/// A segment, its frames one by one, and two broken ones.
fn make_seeds() {
    if std::env::var_os("UPDATE_CORPUS").is_none() {
        return;
    }
    let store = Store::memory();
    let (journal, _) = store.open_with(JournalOptions::default().segment_bytes(256)).unwrap();
    append(&journal, id(1), created(AtomSpec::command("true").name("one"))).unwrap();
    append(&journal, id(1), started()).unwrap();
    append(&journal, id(1), lost()).unwrap();
    append(&journal, id(1), Event::DeleteAsked.into()).unwrap();
    append(&journal, id(1), Event::Removed.into()).unwrap();
    journal.close().unwrap();
    let name = store.storage.list().unwrap().pop().unwrap();
    let bytes = store.disk_twin().contents(&name).unwrap();
    let dir = corpus("frame");
    fs::create_dir_all(&dir).unwrap();
    let magic = [0xCA, 0xE5, 0x1A, 0x6D];
    let starts: Vec<usize> =
        (0..bytes.len() - 4).filter(|at| bytes[*at..at + 4] == magic).collect();
    for (number, start) in starts.iter().enumerate() {
        let length = u32::from_le_bytes(bytes[start + 8..start + 12].try_into().unwrap());
        let end = start + 36 + length as usize;
        fs::write(dir.join(format!("frame-{number}")), &bytes[*start..end]).unwrap();
        fs::write(dir.join(format!("payload-{number}")), &bytes[start + 36..end]).unwrap();
    }
    fs::write(dir.join("segment"), &bytes).unwrap();
    fs::write(dir.join("truncated"), &bytes[..bytes.len() / 3]).unwrap();
    let dir = corpus("lifecycle");
    fs::create_dir_all(&dir).unwrap();
    for (name, seed) in [
        ("whole-life", &[0x20, 1, 0x33, 2, 0x04, 3, 0x06, 4, 0x07, 5][..]),
        ("never-started", &[0x02, 1, 0x06, 2, 0x07, 3]),
        ("stopped-before-start", &[0x03, 9, 0x00, 8, 0x13, 7, 0x04, 6]),
        ("contradicted", &[0x00, 1, 0x08, 2, 0x06, 3, 0x07, 4]),
        ("clock-goes-back", &[0x00, 255, 0x03, 0, 0x04, 0]),
        ("refused", &[0x07, 0, 0x04, 0, 0x06, 0, 0x05, 0, 0x05, 0]),
    ] {
        fs::write(dir.join(name), seed).unwrap();
    }
}
