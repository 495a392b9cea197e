use std::fs;

use super::super::super::shelf::OpenPart;
use super::super::part::OpenSled;
use super::*;
use crate::atom::AtomSpec;
use crate::journal::frame::Place as At;
use crate::journal::history::parts::{begun, grown};
use crate::journal::history::{Chunk, Packing};
use crate::journal::read::packed;
use crate::journal::{Creation, Fact, Record};
use crate::lifecycle::State;
use crate::time::Timestamp;

/// The event with this number, of one of seven atoms; each twentieth is too long for a value.
fn record(seq: u64) -> Record {
    let atom = AtomId::from_bytes([u8::try_from(seq % 7).unwrap(); 16]);
    let fact = match seq % 20 {
        0 => Fact::Created(Creation {
            engine: "test".into(),
            spec: AtomSpec::command("true").arg("x".repeat(30_000)).into(),
            attempt: 1,
            retry_of: None,
        }),
        _ => Fact::RetryDropped,
    };
    Record { seq, at: Timestamp::from_micros(seq), atom, state: State::Created, fact }
}

/// Chunks of these events, the first of which follows a frame with this checksum.
fn chunks(events: std::ops::RangeInclusive<u64>, mut chain: u32) -> Vec<Chunk> {
    let mut packing = Packing::default();
    for seq in events {
        let record = record(seq);
        let mut bytes = Vec::new();
        let place = At { kind: Kind::Event, back: 0, seq, prev: chain };
        chain = frame::encode(place, &codec::encode(&record).unwrap(), &mut bytes);
        packing.add_frame(&frame::decode_header(&bytes).unwrap(), record.atom, record.at, &bytes);
    }
    packing.finish()
}

/// A part in sled, and what the head says of it.
fn filled(dir: &Path, events: u64) -> (OpenSled, Part) {
    let mut sled = OpenSled::open(dir).unwrap();
    let chunks = chunks(1..=events, 0);
    sled.append(&chunks).unwrap();
    (sled, grown(begun(1, true), &chunks))
}

fn damage(opened: Result<InPlace, Trouble>) -> String {
    match opened {
        Err(Trouble::Damage(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_sled_was_given_is_found_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let (sled, part) = filled(dir.path(), 2000);
    let compare = |in_place: &InPlace| {
        for seq in 1..=2000 {
            let [mut ours, mut theirs] = [Vec::new(), Vec::new()];
            let next = in_place.chunk(seq, &mut ours).unwrap();
            assert_eq!(next, sled.chunk(seq, &mut theirs).unwrap(), "event {seq}");
            assert!(ours == theirs, "event {seq}");
        }
        for atom in 0..8 {
            let atom = AtomId::from_bytes([atom; 16]);
            assert_eq!(in_place.of_atom(atom).unwrap(), sled.of_atom(atom).unwrap());
        }
    };
    // While sled has it, and once it was closed.
    compare(&InPlace::open(dir.path(), &part).unwrap());
    let copy = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("db"), copy.path().join("db")).unwrap();
    compare(&InPlace::open(copy.path(), &part).unwrap());
    sled.shut().unwrap();
    let in_place = InPlace::open(dir.path(), &part).unwrap();
    assert_eq!(in_place.chunk(2001, &mut Vec::new()).unwrap(), None);
}

#[test]
fn what_is_beyond_the_head_and_was_packed_again_does_not_disturb() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sled, part) = filled(dir.path(), 50);
    // A host that died before the head said so, and one after it, which divides the events otherwise.
    sled.append(&chunks(51..=90, part.chain)).unwrap();
    sled.cut_beyond(50).unwrap();
    let short = chunks(51..=67, part.chain);
    sled.append(&short).unwrap();
    let rest = chunks(68..=90, short.last().unwrap().chain);
    sled.append(&rest).unwrap();
    sled.shut().unwrap();
    for part in [part, grown(part, &short), grown(grown(part, &short), &rest)] {
        let in_place = InPlace::open(dir.path(), &part).unwrap();
        let (mut frames, mut next) = (Vec::new(), Some(1));
        while let Some(seq) = next.filter(|seq| *seq <= part.last) {
            next = in_place.chunk(seq, &mut frames).unwrap().unwrap().first;
        }
        let (mut offset, mut seqs) = (0, Vec::new());
        while let Some(event) = packed(&frames, &mut offset).unwrap() {
            assert_eq!(event.record, record(event.header.seq));
            seqs.push(event.header.seq);
        }
        assert!(seqs.into_iter().eq(1..=part.last));
    }
}

#[test]
fn another_end_than_the_one_that_counts_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (sled, part) = filled(dir.path(), 50);
    sled.shut().unwrap();
    for other in [Part { chain: part.chain ^ 1, ..part }, Part { last: 51, ..part }] {
        damage(InPlace::open(dir.path(), &other));
    }
    fs::remove_file(dir.path().join("db")).unwrap();
    assert!(damage(InPlace::open(dir.path(), &part)).contains("gone"));
}

#[test]
fn no_flipped_bit_in_a_frame_goes_unseen() {
    let dir = tempfile::tempdir().unwrap();
    // No long one: sled would write the page with it anew, and its frame would be there twice.
    let mut sled = OpenSled::open(dir.path()).unwrap();
    let chunks = chunks(1..=8, 0);
    sled.append(&chunks).unwrap();
    let part = grown(begun(1, true), &chunks);
    sled.shut().unwrap();
    let whole = fs::read(dir.path().join("db")).unwrap();
    let frames = &chunks[0].frames;
    let places = whole.windows(frames.len()).enumerate();
    let places: Vec<usize> =
        places.filter(|(_, window)| *window == *frames).map(|(at, _)| at).collect();
    for bit in (0..frames.len() * 8).step_by(3) {
        let mut bytes = whole.clone();
        for place in &places {
            bytes[place + bit / 8] ^= 1 << (bit % 8);
        }
        fs::write(dir.path().join("db"), bytes).unwrap();
        let problem = damage(InPlace::open(dir.path(), &part));
        assert!(problem.contains("is missing"), "bit {bit}: {problem}");
    }
}
