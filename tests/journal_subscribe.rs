//! Following the journal while it grows and is cut: from any event that is kept, each once, in order.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caesium::atom::AtomSpec;
use caesium::journal::{
    Journal, JournalError, JournalOptions, MAX_RECENT_EVENTS, Retention, SEALED_KEPT, Subscription,
};
use caesium::lifecycle::Event;
use common::*;

/// Segments and parts of which there are many.
fn options() -> JournalOptions {
    JournalOptions::default().segment_bytes(16 << 10).part_bytes(64 << 10)
}

fn newest(events: u64) -> Retention {
    Retention { max_events: Some(events), ..Retention::default() }
}

/// Lives of five events, one change each.
fn load(journal: &Journal, from: u64, lives: u64) {
    let mut tickets = Vec::new();
    for number in from..from + lives {
        let ((), ticket) = journal
            .change(|draft| -> Result<(), JournalError> {
                let facts = [
                    created(AtomSpec::command("true").arg("x".repeat(300))),
                    started(),
                    lost(),
                    Event::DeleteAsked.into(),
                    Event::Removed.into(),
                ];
                for fact in facts {
                    draft.append(id(number), at(number), fact)?;
                }
                Ok(())
            })
            .unwrap();
        tickets.push(ticket);
    }
    for ticket in tickets {
        ticket.wait().unwrap();
    }
}

fn far() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(120))
}

fn until(what: &str, done: impl Fn() -> bool) {
    let patience = far().unwrap();
    while !done() {
        assert!(Instant::now() < patience, "{what}");
        thread::yield_now();
    }
}

/// Takes events up to one number, each of which must come once and in its place.
fn take(subscription: &mut Subscription, next: u64, last: u64) {
    for seq in next..=last {
        assert_eq!(subscription.position(), seq);
        assert_eq!(subscription.next(far()).unwrap().unwrap().seq, seq);
    }
}

fn filled(dir: &Path) -> Journal {
    let (journal, _) = Journal::open_dir(dir, options()).unwrap();
    load(&journal, 0, 2000);
    until("it is not packed", || journal.stats().unwrap().segments <= SEALED_KEPT + 1);
    assert!(journal.stats().unwrap().parts > 3);
    journal
}

#[test]
fn a_subscription_begins_with_any_event_that_is_kept_and_goes_on_with_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let journal = filled(dir.path());
    let oldest = journal.compact(&newest(9000)).unwrap().oldest;
    assert_eq!(oldest, 1001);
    // In and around every part, every segment, and what is in memory.
    let names = |dir: &Path| -> Vec<u64> {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.to_str()?.get(..20)?.parse().ok()).collect()
    };
    let mut borders = names(&dir.path().join("history"));
    borders.extend(names(&dir.path().join("wal")));
    borders.push(journal.recent_seq() - MAX_RECENT_EVENTS as u64);
    borders.extend([oldest, journal.recent_seq()]);
    let from: Vec<u64> = borders.iter().flat_map(|border| border - 1..=border + 1).collect();
    let mut followers: Vec<(u64, Subscription)> =
        from.iter().map(|from| (*from, journal.subscribe(*from))).collect();
    load(&journal, 10_000, 100);
    let last = journal.recent_seq();
    for (from, follower) in &mut followers {
        if *from < oldest {
            let refused = follower.next(None).unwrap_err();
            assert!(
                matches!(refused, JournalError::Lagged { at, oldest: o } if (at, o) == (*from, oldest)),
                "{from}: {refused}"
            );
            assert_eq!(follower.skip_to_oldest().unwrap(), oldest - *from);
            *from = oldest;
        }
        take(follower, *from, (*from + 700).min(last));
    }
    // The last ones to have come are followed live.
    let mut live = journal.subscribe(last + 1);
    assert!(live.next(Some(Instant::now())).unwrap().is_none());
    thread::scope(|scope| {
        let takes = scope.spawn(|| take(&mut live, last + 1, last + 50));
        load(&journal, 20_000, 10);
        takes.join().unwrap();
    });
}

/// Follows to the end, and counts how often it was told that it lags.
fn follow(journal: &Journal, from: u64, done: &AtomicBool, pause: impl Fn(u64, u64)) -> (u64, u64) {
    let mut subscription = journal.subscribe(from);
    let (mut next, mut lagged, mut seen) = (from, 0, 0);
    loop {
        let ended = done.load(Ordering::SeqCst);
        match subscription.next(Some(Instant::now() + Duration::from_millis(20))) {
            Ok(Some(record)) => {
                assert_eq!(record.seq, next, "a gap or a double");
                (next, seen) = (next + 1, seen + 1);
                pause(next, seen);
            }
            Ok(None) if ended && next > journal.recent_seq() => return (lagged, seen),
            Ok(None) => {}
            Err(JournalError::Lagged { at, oldest }) => {
                assert_eq!(at, next);
                assert!(oldest > next);
                let missed = subscription.skip_to_oldest().unwrap();
                // It may have been cut again since.
                assert!(missed >= oldest - next, "{missed}");
                (next, lagged) = (next + missed, lagged + 1);
            }
            Err(other) => panic!("at {next}: {other}"),
        }
    }
}

#[test]
fn followers_of_every_speed_see_each_event_once_while_the_history_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_dir(dir.path(), options()).unwrap();
    load(&journal, 0, 100);
    let done = AtomicBool::new(false);
    let idle = journal.subscribe(1);
    thread::scope(|scope| {
        let (journal, done) = (&journal, &done);
        let fast: Vec<_> =
            (0..2).map(|_| scope.spawn(|| follow(journal, 1, done, |_, _| {}))).collect();
        // It takes a hundred, then waits until it is thousands behind, or all is over.
        let slow = scope.spawn(|| {
            follow(journal, 1, done, |next, seen| {
                if seen % 100 == 0 {
                    until("nothing comes", || {
                        done.load(Ordering::SeqCst) || journal.recent_seq() > next + 3000
                    });
                }
            })
        });
        let cuts = scope.spawn(|| {
            let (mut cuts, mut next) = (0, 1000);
            while !done.load(Ordering::SeqCst) {
                if journal.recent_seq() < next {
                    thread::park_timeout(Duration::from_millis(1));
                    continue;
                }
                next = journal.recent_seq() + 800;
                cuts += u64::from(journal.compact(&newest(600)).unwrap().dropped > 0);
            }
            cuts
        });
        let writers: Vec<_> =
            (1..3).map(|n| scope.spawn(move || load(journal, n * 1_000_000, 1500))).collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        assert!(cuts.join().unwrap() > 3);
        let (lagged, seen) = slow.join().unwrap();
        assert!(lagged > 0 && seen > 600, "{lagged} times, {seen} events");
        for fast in fast {
            let (lagged, seen) = fast.join().unwrap();
            assert!(lagged > 0 || seen == 15_500, "{lagged} times, {seen} events");
        }
    });
    // Who never reads has held up nobody, and is only a number that is far behind.
    assert_eq!(idle.position(), 1);
    assert_eq!(journal.stats().unwrap().lags, [15_500]);
    journal.verify().unwrap();
}
