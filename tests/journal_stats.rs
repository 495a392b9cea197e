//! What the journal says of itself.

mod common;

use std::io::ErrorKind;
use std::time::Instant;

use caesium::journal::storage::{Call, Failing};
use caesium::journal::{HistoryState, JournalOptions};
use common::*;

#[test]
fn stats_add_up() {
    let store = Store::memory();
    let (journal, _) = store.open_with(JournalOptions::default().segment_bytes(4096)).unwrap();
    let fresh = journal.stats().unwrap();
    assert_eq!((fresh.events, fresh.oldest, fresh.recent, fresh.groups), (0, 1, 0, 0));
    assert_eq!(fresh.history, HistoryState::Absent);
    assert!(fresh.bytes > fresh.unused && fresh.unused > 4096);
    let mut behind = journal.subscribe(1);
    for number in 0..100 {
        life(&journal, number).unwrap();
    }
    behind.next(Some(Instant::now())).unwrap().unwrap();
    let stats = journal.stats().unwrap();
    assert_eq!((stats.events, stats.recent, stats.durable, stats.atoms), (500, 500, 500, 0));
    assert_eq!((stats.groups, stats.group_p50, stats.group_max), (500, 1, 1));
    assert!(stats.syncs >= 500 && stats.sync_p50_micros <= stats.sync_p99_micros);
    assert!(stats.segments > 1 && stats.bytes > stats.unused + stats.history_bytes);
    assert_eq!((stats.in_doubt, &stats.lags[..]), (0, &[499][..]));
    drop(behind);
    assert_eq!(journal.stats().unwrap().lags, [0; 0]);
    let json = serde_json::to_value(&stats).unwrap();
    assert_eq!((&json["events"], &json["lags"][0]), (&500.into(), &499.into()));
}

#[test]
fn what_is_in_doubt_is_counted() {
    let store = Store::memory();
    let (journal, _) = store.open();
    append(&journal, id(1), created(caesium::AtomSpec::command("true"))).unwrap();
    store.disk_twin().fail(Call::Sync, 1, Failing::Forever, ErrorKind::Other);
    append(&journal, id(1), started()).unwrap_err();
    let stats = journal.stats().unwrap();
    assert_eq!((stats.in_doubt, stats.recent, stats.durable), (1, 1, 1));
}
