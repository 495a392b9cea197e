//! What a journal needs to last: `stats`, `compact`, `salvage`.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use std::fs;

use cli_harness::{Place, text};
use serde_json::{Value, json};

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[test]
fn stats_tell_how_large_the_journal_is() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 0");
    let stats = &place.json(["stats", "--json"])[0];
    assert_eq!(
        (&stats["events"], &stats["oldest"], &stats["atoms"]),
        (&json!(3), &json!(1), &json!(1))
    );
    assert_eq!((&stats["history"], &stats["in_doubt"]), (&json!("absent"), &json!(0)));
    assert!(stats["bytes"].as_u64() > stats["unused"].as_u64());
    let human = place.ok(["stats"]);
    assert!(human.contains("3 (1 to 3)") && human.contains("history"), "{human}");
}

#[test]
fn compact_cuts_the_oldest_events_and_forgets_no_atom() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.sh(&["--name", name], "exit 3");
    }
    let atoms = place.atoms();
    let said = place.ok(["compact", "--keep-events", "2"]);
    assert!(said.starts_with("7 events dropped, the oldest is 8:"), "{said}");
    assert_eq!(seqs(&place.events()), [8, 9]);
    assert_eq!(place.atoms(), atoms);
    place.ok(["verify"]);
    place.run(["events", "--since", "3"]).refused(1);
    place.sh(&["--name", "four"], "exit 0");
    assert_eq!(seqs(&place.events()), [8, 9, 10, 11, 12]);
    let compacted = &place.json(["compact", "--keep-age", "1year", "--json"])[0];
    assert_eq!((&compacted["dropped"], &compacted["oldest"]), (&json!(0), &json!(8)));
    place.ok(["verify"]);
}

#[test]
fn salvage_brings_back_what_can_be_read() {
    let place = Place::new();
    for name in ["one", "two"] {
        place.sh(&["--name", name], "exit 3");
    }
    let events = place.events();
    let segment = place.store().join("wal/00000000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let magic = [0xCA, 0xE5, 0x1A, 0x6D];
    let frames: Vec<usize> = (0..bytes.len() - 40)
        .filter(|at| bytes[*at..].starts_with(&magic) && bytes[at + 5] == 4)
        .collect();
    // The start of the second atom.
    bytes[frames[4] + 50] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let refused = place.run(["events"]);
    assert!(refused.refused(1).contains("caesium salvage"), "{refused:?}");
    let into = place.store().with_file_name("salvaged");
    let into = into.to_str().unwrap();
    let said = place.ok(["salvage", "--into", into]);
    assert!(said.starts_with("5 events recovered, 1 lost; 2 atoms, 1 of them invalid:"), "{said}");
    assert!(said.contains("lost: events 5 to 5"), "{said}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
    let told = place.json(["--store", into, "events", "--json"]);
    assert_eq!(seqs(&told), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(told[..4], events[..4]);
    assert_eq!(told[5], events[5]);
    assert_eq!(
        (&told[4]["event"], &told[4]["atom"], &told[4]["state"]),
        (&json!("lost"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        (text(&told[6], "event"), text(&told[6], "reason"), text(&told[6], "state")),
        ("contradiction".into(), "events_lost".into(), "invalid".into())
    );
    let human = place.ok(["--store", into, "events"]);
    assert!(human.lines().nth(4).unwrap().contains("lost"), "{human}");
    place.ok(["--store", into, "verify"]);
    let one = &place.json(["--store", into, "inspect", "--json", "one"])[0];
    assert_eq!((text(one, "state"), &one["exit_code"]), ("stopped".into(), &json!(3)));
    let two = &place.json(["--store", into, "inspect", "--json", "two"])[0];
    assert_eq!(text(two, "state"), "invalid");
    place.ok(["--store", into, "rm", "two"]);
    place.ok(["--store", into, "verify"]);
    // Never into what is not empty.
    assert!(place.run(["salvage", "--into", into]).refused(1).contains("not empty"));
    // A store that is held is read all the same, and that is said.
    let place = Place::new();
    let run = place.begin(&[], "echo ready; exec sleep 1000");
    let other = place.store().with_file_name("other");
    let done = place.run(["salvage", "--into", other.to_str().unwrap()]);
    assert!(done.err.contains("has the damaged store open") && done.status == 0, "{done:?}");
    assert!(done.out.starts_with("2 events recovered, 0 lost"), "{done:?}");
    place.ok(["--store", other.to_str().unwrap(), "verify"]);
    run.signal(rustix::process::Signal::TERM);
    run.end();
}
