//! A year of load with a month of it kept: what is on disk stays within three times what is kept.
//!
//! Time is an argument, so a year takes seconds. `CAESIUM_YEAR_LIVES` says how many atoms live
//! and end on an ordinary day; with more of them the fixed part weighs less.

mod common;

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use caesium::atom::AtomSpec;
use caesium::journal::{
    Journal, JournalError, JournalOptions, Record, Retention, SEALED_KEPT, SEALED_WAITING,
};
use caesium::lifecycle::Event;
use caesium::{Clock, Timestamp};
use common::*;

const DAY: u64 = 86_400_000_000;
/// Noon of the first day, in microseconds.
const BEGIN: u64 = 1_700_000_000_000_000;
const KEPT_DAYS: u64 = 30;
const SEGMENT: u64 = 512 << 10;

/// What a store takes however little is kept: the segments that stay, those that may wait to
/// be packed, the one that is written to and the next one; a sled that is
/// begun, and what of a part may be over the limits before it goes.
const FIXED: u64 = (SEALED_KEPT + SEALED_WAITING + 2) as u64 * SEGMENT + (4 << 20);

/// Bytes on disk under a directory.
fn disk_use(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += disk_use(&entry.path()),
            Ok(metadata) => bytes += metadata.blocks() * 512,
            Err(_) => {}
        }
    }
    bytes
}

/// What a record takes as a frame.
fn frame_bytes(record: &Record) -> u64 {
    36 + bincode::serialized_size(record).unwrap()
}

/// What happens in a year: how many atoms on a day, from quiet days to rushes.
fn lives(day: u64, ordinary: u64) -> u64 {
    match (day % 7, day % 90) {
        // A rush once a quarter.
        (_, 40..=42) => ordinary * 4,
        (5 | 6, _) => ordinary / 4,
        (_, _) => ordinary,
    }
}

/// What was measured, and what is kept at the moment.
struct Sampled {
    kept: AtomicU64,
    stop: AtomicBool,
    /// Disk use by what is kept, in thousandths, where that is more than the fixed part.
    most: AtomicU64,
    most_bytes: AtomicU64,
    /// By how much it was more than three times what is kept, wherever.
    over: AtomicU64,
    samples: AtomicU64,
}

impl Sampled {
    fn sample(&self, dir: &Path) {
        // What is kept may have grown since, never what it was.
        let kept = self.kept.load(Ordering::SeqCst);
        let used = disk_use(dir);
        self.samples.fetch_add(1, Ordering::SeqCst);
        self.most_bytes.fetch_max(used, Ordering::SeqCst);
        if kept > FIXED {
            self.most.fetch_max(used * 1000 / kept, Ordering::SeqCst);
        }
        self.over.fetch_max(used.saturating_sub(3 * kept), Ordering::SeqCst);
    }
}

fn year(name: &str, retention: impl Fn(u64) -> Retention) {
    let ordinary: u64 =
        std::env::var("CAESIUM_YEAR_LIVES").map_or(32, |lives| lives.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(BEGIN));
    let clock = Clock::new({
        let now = now.clone();
        move || Timestamp::from_micros(now.load(Ordering::SeqCst))
    });
    let options = JournalOptions::default()
        .segment_bytes(SEGMENT)
        .retention(retention(ordinary))
        .clock(clock);
    let (journal, _) = Journal::open_dir(dir.path(), options).unwrap();
    append(&journal, id(u64::MAX), created(AtomSpec::command("true").name("old"))).unwrap();
    let sampled = Sampled {
        kept: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        most: AtomicU64::new(0),
        most_bytes: AtomicU64::new(0),
        over: AtomicU64::new(0),
        samples: AtomicU64::new(0),
    };
    let (total, kept) = thread::scope(|scope| {
        scope.spawn(|| {
            while !sampled.stop.load(Ordering::SeqCst) {
                sampled.sample(dir.path());
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let lived = live_a_year(&journal, dir.path(), &now, &sampled, ordinary, &retention);
        sampled.stop.store(true, Ordering::SeqCst);
        lived
    });
    println!(
        "{name}: {total} bytes of events in a year, {kept} of them kept in the end; at the most {} on disk, {:.2} times what was kept, in {} samples",
        sampled.most_bytes.load(Ordering::SeqCst),
        sampled.most.load(Ordering::SeqCst) as f64 / 1000.0,
        sampled.samples.load(Ordering::SeqCst)
    );
    println!("{:?}", journal.stats().unwrap());
    let over = sampled.over.load(Ordering::SeqCst);
    assert!(over <= FIXED, "{over} bytes more than three times what was kept");
    let most = sampled.most.load(Ordering::SeqCst);
    assert!((1..=3000).contains(&most), "{most} thousandths of what was kept");
    // Nothing that is to be kept has gone, and all of it adds up.
    let verified = journal.verify().unwrap();
    let records = journal.read(verified.oldest).unwrap().map(Result::unwrap);
    let month_ago = now.load(Ordering::SeqCst) - KEPT_DAYS * DAY;
    let young = records.filter(|record| record.at.as_micros() >= month_ago);
    let expected: u64 = (336..=365).map(|day| lives(day, ordinary) * 5).sum();
    assert!(young.count() as u64 >= expected);
    assert!(journal.with_view(|view| view.named("old").is_some()));
    journal.close().unwrap();
}

/// Gives how many bytes of events there were, and how many of them are kept in the end.
fn live_a_year(
    journal: &Journal,
    dir: &Path,
    now: &AtomicU64,
    sampled: &Sampled,
    ordinary: u64,
    retention: &impl Fn(u64) -> Retention,
) -> (u64, u64) {
    let (mut total, mut number) = (0, 0);
    // Time and bytes of what is kept.
    let mut young: VecDeque<(u64, u64)> = VecDeque::new();
    let mut kept = 0;
    for day in 1..=365 {
        let lives = lives(day, ordinary);
        for batch in (0..lives).step_by(10) {
            let time = BEGIN + day * DAY + batch * (DAY / (lives + 1));
            now.store(time, Ordering::SeqCst);
            let before = journal.recent_seq();
            let ((), ticket) = journal
                .change(|draft| -> Result<(), JournalError> {
                    for _ in batch..lives.min(batch + 10) {
                        number += 1;
                        let length = 200 + number * 7919 % 20_000;
                        let spec = AtomSpec::command("true").arg("x".repeat(length as usize));
                        let facts = [
                            created(spec),
                            started(),
                            lost(),
                            Event::DeleteAsked.into(),
                            Event::Removed.into(),
                        ];
                        for fact in facts {
                            draft.append(id(number), Timestamp::from_micros(time), fact)?;
                        }
                    }
                    Ok(())
                })
                .unwrap();
            ticket.wait().unwrap();
            for record in journal.read(before + 1).unwrap() {
                let bytes = frame_bytes(&record.unwrap());
                young.push_back((time, bytes));
                (kept, total) = (kept + bytes, total + bytes);
            }
            let most = retention(ordinary).max_events.unwrap_or(u64::MAX);
            while young.front().is_some_and(|(at, _)| {
                young.len() as u64 > most || (most == u64::MAX && *at + KEPT_DAYS * DAY < time)
            }) {
                kept -= young.pop_front().map_or(0, |(_, bytes)| bytes);
            }
            sampled.kept.store(kept, Ordering::SeqCst);
            sampled.sample(dir);
        }
        if day % 61 == 0 {
            // Who looks at everything now and then needs room for it, too.
            journal.verify().unwrap();
        }
    }
    (total, kept)
}

#[test]
fn a_year_with_a_month_kept_by_age_stays_within_three_times_what_is_kept() {
    year("by age", |_| Retention {
        max_age: Some(Duration::from_micros(KEPT_DAYS * DAY)),
        ..Retention::default()
    });
}

#[test]
fn a_year_with_as_many_events_kept_stays_within_three_times_what_is_kept() {
    year("by count", |ordinary| Retention {
        max_events: Some(ordinary * 5 * KEPT_DAYS),
        ..Retention::default()
    });
}
