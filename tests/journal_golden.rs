//! A store of format 1, as it was written once: it opens for ever, and the same events give the same bytes.
//!
//! `UPDATE_GOLDEN=1` writes it anew. After a release that is never right: a
//! change of these bytes is a new format, with a golden store of its own.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caesium::atom::{AtomSpec, LeftBehind, Leftovers, Limits, PlannedRetry, Resource, Usage};
use caesium::journal::{Creation, Fact, Journal, JournalOptions, Note, Record, Retention};
use caesium::lifecycle::{
    Backoff, Ending, Event, Evidence, OnInvalid, Outcome, OutcomeSet, Reason, RetryPolicy,
    StopCause, StopOrder, WaitStatus,
};
use common::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
}

fn options() -> JournalOptions {
    JournalOptions::default().segment_bytes(7000)
}

/// A spec that uses everything a spec has.
fn whole_spec() -> AtomSpec {
    AtomSpec::command("/bin/sh")
        .args(["-c", "exit 3"])
        .env("OPEN", "value")
        .secret_env("SECRET", "never written")
        .env_clear(true)
        .workdir("/tmp")
        .stdin_file("/dev/null")
        .name("golden")
        .key("request-1")
        .label("team", "journal")
        .timeout(Duration::from_secs(60))
        .grace(Duration::from_millis(1500))
        .log_max(1 << 20)
        .limits(Limits {
            memory: Some(64 << 20),
            pids: Some(8),
            cpus: Some(0.5),
            rlimits: vec![(Resource::ALL[0], 1024)],
        })
        .leftovers(Leftovers::Keep)
        .nice(-5)
        .oom_score_adj(500)
        .user("nobody")
        .group("nogroup")
        .umask(0o27)
        .no_new_privs(true)
        .on_invalid(OnInvalid::Retry)
        .retry(RetryPolicy {
            max_attempts: 3,
            backoff: Backoff { initial: Duration::from_secs(2), ..Backoff::default() },
            on: OutcomeSet::FAILURES,
        })
}

fn noted(event: Event) -> Fact {
    let mut usage = Usage::default();
    usage.user = Duration::from_micros(1234);
    usage.max_rss = Some(4096);
    usage.peak_memory = Some(8192);
    usage.wall = Duration::from_micros(5678);
    let note = Note {
        detail: Some("a detail".into()),
        handle: Some(b"handle".as_slice().into()),
        usage: Some(usage.into()),
        left_behind: Some(Arc::new(LeftBehind::new(true, [(17, "sleep".to_owned())]))),
    };
    Fact::Happened { event, note }
}

/// Every fact and every event there is, over two hosts' lives and several segments.
fn write(store: &Store) -> Vec<Record> {
    let (journal, _) = store.open_with(options()).unwrap();
    append(&journal, id(1), created(whole_spec())).unwrap();
    append(&journal, id(1), noted(Event::Started { pid: Some(4242) })).unwrap();
    let exited = Ending::observed(WaitStatus::Exited { code: 3 }, Evidence::default());
    assert_eq!(exited.outcome, Outcome::Failure);
    append(&journal, id(1), noted(Event::Exited(exited))).unwrap();
    let planned = PlannedRetry { id: id(2), due: at(100) };
    append(&journal, id(1), Fact::RetryPlanned(planned)).unwrap();
    journal.close().unwrap();
    let (journal, _) = store.open_with(options()).unwrap();
    let retry = Creation {
        engine: "test".into(),
        spec: Arc::new(whole_spec()),
        attempt: 2,
        retry_of: Some(id(1)),
    };
    append(&journal, id(2), Fact::Created(retry)).unwrap();
    let stop = StopOrder { grace: Duration::from_secs(3), force: true, cause: StopCause::Deadline };
    append(&journal, id(2), Event::StopAsked(stop).into()).unwrap();
    append(&journal, id(2), Event::Withdrawn.into()).unwrap();
    append(&journal, id(3), created(AtomSpec::command("missing"))).unwrap();
    append(&journal, id(3), Event::StartFailed { reason: Reason::ExecNotFound }.into()).unwrap();
    append(&journal, id(3), Event::DeleteAsked.into()).unwrap();
    append(&journal, id(3), Event::Removed.into()).unwrap();
    append(&journal, id(4), created(AtomSpec::command("true"))).unwrap();
    append(&journal, id(4), lost()).unwrap();
    let contradiction = Event::Contradiction { reason: Reason::UnexpectedProcess };
    append(&journal, id(4), contradiction.into()).unwrap();
    append(&journal, id(5), created(AtomSpec::command("true"))).unwrap();
    append(&journal, id(5), started()).unwrap();
    journal.verify().unwrap();
    let records = all(&journal);
    journal.close().unwrap();
    records
}

fn json(records: &[Record]) -> String {
    records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
}

#[test]
fn the_same_events_give_the_same_bytes() {
    let store = Store::memory();
    let records = write(&store);
    let wal = golden().join("wal");
    let names = store.storage.list().unwrap();
    // More would be packed, at a time of its own.
    assert!((2..=3).contains(&names.len()), "{names:?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&wal).unwrap();
        for name in &names {
            fs::write(wal.join(name), store.disk_twin().contents(name).unwrap()).unwrap();
        }
        fs::write(golden().join("events.jsonl"), json(&records)).unwrap();
    }
    let mut kept: Vec<String> = fs::read_dir(&wal)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(names, kept);
    for name in names {
        let kept = fs::read(wal.join(&name)).unwrap();
        assert!(store.disk_twin().contents(&name).unwrap() == kept, "{name} has other bytes");
    }
}

#[test]
fn a_store_of_format_1_opens_and_goes_on() {
    opens_and_goes_on("wal");
}

/// The same events as a program wrote them that went on in the same segment, after a mark, however much was in it.
#[test]
fn a_store_of_format_1_whose_segment_was_opened_again_opens_and_goes_on() {
    opens_and_goes_on("wal-reopened");
}

fn opens_and_goes_on(wal: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("wal")).unwrap();
    for entry in fs::read_dir(golden().join(wal)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("wal").join(entry.file_name())).unwrap();
    }
    let (journal, recovery) = Journal::open_dir(dir.path(), options().must_exist(true)).unwrap();
    assert!(recovery.clean);
    let expected = fs::read_to_string(golden().join("events.jsonl")).unwrap();
    assert_eq!(json(&all(&journal)), expected);
    journal.verify().unwrap();
    append(&journal, id(5), lost()).unwrap();
    append(&journal, id(9), created(AtomSpec::command("true"))).unwrap();
    journal.verify().unwrap();
}

/// A store with parts of a history, of which the first is cut through, and a long event in pieces.
/// sled's bytes are not the same twice, so this one is only read.
#[test]
fn a_history_of_format_1_opens_and_goes_on() {
    let golden = golden().join("history");
    let options = || JournalOptions::default().segment_bytes(6000).part_bytes(12_000);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open_dir(dir.path(), options()).unwrap();
        append(&journal, id(1000), created(whole_spec())).unwrap();
        let long = AtomSpec::command("true").arg("long ".repeat(6000));
        append(&journal, id(1001), created(long)).unwrap();
        append(&journal, id(1001), lost()).unwrap();
        append(&journal, id(1001), Event::DeleteAsked.into()).unwrap();
        append(&journal, id(1001), Event::Removed.into()).unwrap();
        for number in 0..40 {
            life(&journal, number).unwrap();
        }
        let keep = Retention { max_events: Some(204), ..Retention::EVERYTHING };
        journal.compact(&keep).unwrap();
        journal.verify().unwrap();
        let records: Vec<Record> = journal.read(2).unwrap().map(Result::unwrap).collect();
        journal.close().unwrap();
        let _ = fs::remove_dir_all(&golden);
        copy(dir.path(), &golden);
        fs::write(golden.join("events.jsonl"), json(&records)).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&golden, dir.path());
    // An empty directory is in no repository.
    for entry in fs::read_dir(dir.path().join("history")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::create_dir_all(path.join("blobs")).unwrap();
        }
    }
    let (journal, recovery) = Journal::open_dir(dir.path(), options().must_exist(true)).unwrap();
    assert!(recovery.clean);
    assert!(journal.stats().unwrap().parts >= 2);
    let read = journal.read(journal.oldest_seq().unwrap()).unwrap();
    let records: Vec<Record> = read.map(Result::unwrap).collect();
    assert_eq!(json(&records), fs::read_to_string(golden.join("events.jsonl")).unwrap());
    journal.verify().unwrap();
    for number in 50..80 {
        life(&journal, number).unwrap();
    }
    journal.verify().unwrap();
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let store = Store::memory();
    drop(store.open_with(options()).unwrap());
    let name = "00000000000000000001.seg";
    let mut bytes = store.disk_twin().contents(name).unwrap();
    bytes[4] = 2;
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    store.disk_twin().put(name, bytes.clone());
    let refused = store.open_with(options()).unwrap_err();
    assert!(refused.to_string().contains("use a newer caesium"), "{refused}");
    assert_eq!(store.disk_twin().contents(name).unwrap(), bytes);
}
