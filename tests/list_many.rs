//! Many atoms are listed a page at a time: whoever lists them never has them all.
//!
//! `CAESIUM_LIST_ATOMS=100000 cargo test --release --test list_many -- --nocapture` prints what they take.

#![cfg(all(feature = "cli", target_os = "linux"))]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use caesium::journal::{Creation, Fact, Journal, JournalError, JournalOptions};
use caesium::lifecycle::Event;
use caesium::{AtomId, AtomSpec, Engine, ListRequest, ProcessEngine, RemoteEngine, Timestamp};

/// How many, unless `CAESIUM_LIST_ATOMS` says otherwise.
fn many() -> usize {
    let asked = std::env::var("CAESIUM_LIST_ATOMS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(20_000)
}

/// One segment for all: each begins with a snapshot of what exists, and to make one after the other takes its time.
const SEGMENT: u64 = 256 << 20;

/// A store with many atoms, all of which were withdrawn.
fn fill(store: &Path) {
    ProcessEngine::open(store).unwrap().close().unwrap();
    let options = JournalOptions::default().segment_bytes(SEGMENT);
    let (journal, _) = Journal::open_dir(store, options).unwrap();
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    for first in (0..many()).step_by(1000) {
        let create = |draft: &mut caesium::journal::Draft<'_>| {
            for number in first..first + 1000 {
                let spec = AtomSpec::command("make").arg(format!("target-{number}"));
                let spec = spec.label("team", "infra").env("NUMBER", number.to_string());
                let (id, spec) = (AtomId::new(), Arc::new(spec));
                let engine = "process".into();
                let created = Creation { engine, spec, attempt: 1, retry_of: None };
                draft.append(id, at, Fact::Created(created))?;
                draft.append(id, at, Event::Withdrawn.into())?;
            }
            Ok::<_, JournalError>(())
        };
        journal.change(create).unwrap().1.wait().unwrap();
    }
    journal.close().unwrap();
}

/// How many lines `caesium ps` prints, and how much memory it had at its peak, in bytes. For more than a few lines: it
/// is looked at while it still has some to print.
fn ps(store: &Path, options: &[&str]) -> (usize, u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caesium"));
    command.arg("--store").arg(store).args(["ps", "--all", "--json"]).args(options);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let (mut lines, mut peak) = (0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        assert!(line.unwrap().starts_with('{'));
        lines += 1;
        if lines % 500 == 0
            && let Some(now) = peak_of(child.id())
        {
            peak = now;
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(peak > 0);
    (lines, peak)
}

/// `None` once it has ended.
fn peak_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[test]
fn whoever_lists_many_atoms_never_has_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    fill(&store);
    let (_, holds) = ps(&store, &["--limit", "2000"]);
    let holder = ProcessEngine::options().serve(true).segment_bytes(SEGMENT).open(&store).unwrap();
    let (some, least) = ps(&store, &["--limit", "2000"]);
    let (all, most) = ps(&store, &[]);
    assert_eq!((some, all), (2000, many()));
    println!(
        "{} atoms: who opens the store has {} MB at its peak; a client that lists 2,000 of them {} MB, all {} MB",
        many(),
        holds >> 20,
        least >> 20,
        most >> 20,
    );
    let they_take = holds.saturating_sub(least);
    assert!(most < least + they_take / 2, "{most} bytes for all, {least} for some, {holds} at all");

    // The same by the library: pages in order, each atom once, whatever the page.
    let client = RemoteEngine::connect(&store).unwrap();
    let (mut request, mut listed) = (ListRequest::all().label("team", "infra").limit(7_777), 0);
    loop {
        let page = client.list(&request).unwrap();
        assert!(page.is_sorted_by_key(|atom| atom.id()));
        listed += page.len();
        match page.last() {
            Some(last) if page.len() == 7_777 => request = request.after(last.id()),
            Some(_) | None => break,
        }
    }
    assert_eq!(listed, many());
    holder.close().unwrap();
}
