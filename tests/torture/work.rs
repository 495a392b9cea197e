//! What a host does in these tests, and how every event of it is known again.
//!
//! An event follows from the number of its atom and its step in that atom's
//! life. So an event that nobody appended is seen as such, without a list.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caesium::AtomSpec;
use caesium::Timestamp;
use caesium::atom::AtomId;
use caesium::journal::{
    Draft, Fact, Journal, JournalError, JournalOptions, Record, Retention, Ticket,
};
use caesium::lifecycle::Event;

use super::table::Dice;
use crate::common::{created, id, lost, started};

pub(super) const ORDERS: &str = "CAESIUM_TORTURE_ORDERS";
pub(super) const DIR: &str = "CAESIUM_TORTURE_DIR";

/// How a host ends when its lives are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It verifies and closes.
    Close,
    /// It says so, and waits to be killed.
    Park,
}

/// What a host is to do.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    /// No two hosts of a store have the same.
    pub(super) round: u64,
    pub(super) segment_bytes: u64,
    pub(super) writers: u64,
    /// Of each writer.
    pub(super) lives: u64,
    /// It reads everything before it writes.
    pub(super) read_first: bool,
    pub(super) end: End,
    /// It cuts the history to so many events again and again; 0: never.
    pub(super) keep: u64,
}

pub(super) const ENDLESS: u64 = 1 << 24;

impl Orders {
    pub(super) fn text(&self) -> String {
        let Self { round, segment_bytes, writers, lives, read_first, end, keep } = self;
        let close = u8::from(*end == End::Close);
        let read = u8::from(*read_first);
        format!("work {round} {segment_bytes} {writers} {lives} {read} {close} {keep}")
    }

    fn parse(fields: &[u64]) -> Self {
        let &[round, segment_bytes, writers, lives, read, close, keep] = fields else {
            panic!("orders: {fields:?}")
        };
        let end = if close == 1 { End::Close } else { End::Park };
        Self { round, segment_bytes, writers, lives, read_first: read == 1, end, keep }
    }
}

/// How many steps an atom takes: most are deleted in the end.
pub(super) fn steps(number: u64) -> u64 {
    match number % 64 {
        0 => 2,
        1 => 3,
        _ => 5,
    }
}

/// The step of an atom's life: when, and what.
pub(super) fn step(number: u64, step: u64) -> (Timestamp, Fact) {
    let at = 1_700_000_000_000_000 + (number % 1_000_000) * 10 + step;
    let fact = match step {
        0 => created(AtomSpec::command("true").arg(text(number))),
        1 => started(),
        2 => lost(),
        3 => Event::DeleteAsked.into(),
        _ => Event::Removed.into(),
    };
    (Timestamp::from_micros(at), fact)
}

/// Some bytes, mostly few; frames of all lengths, on all offsets.
fn text(number: u64) -> String {
    let mut dice = Dice::new(number);
    let longest = match dice.below(64) {
        0 => 20_000,
        1..=7 => 2_000,
        _ => 200,
    };
    (0..dice.below(longest)).map(|_| char::from(b'a' + (dice.roll() % 26) as u8)).collect()
}

/// The number of the atom with this id.
pub(super) fn number(atom: AtomId) -> u64 {
    u64::from_be_bytes(*atom.to_bytes().last_chunk().unwrap())
}

/// Which step of its atom a record is.
pub(super) fn step_of(record: &Record) -> Option<u64> {
    (0..5).find(|nth| is_step(record, *nth))
}

/// Whether a record is the step of its atom.
fn is_step(record: &Record, nth: u64) -> bool {
    let number = number(record.atom);
    let (at, fact) = step(number, nth);
    nth < steps(number) && id(number) == record.atom && record.at == at && record.fact == fact
}

/// Says a line in one write, so that it is whole even when the next moment is the last.
pub(super) fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Nobody may listen any more.
    let _ = out.write_all(format!("\n{line}\n").as_bytes());
    let _ = out.flush();
}

pub(super) fn options(segment_bytes: u64) -> JournalOptions {
    // Every few segments another part of the history is begun.
    JournalOptions::default().segment_bytes(segment_bytes).part_bytes(4 * segment_bytes)
}

/// Not a test: what this binary does when a test executes it as a host.
#[test]
fn host() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let (role, fields) = orders.split_once(' ').unwrap();
    let fields: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap()).collect();
    match role {
        "work" => work(&dir, &Orders::parse(&fields)),
        "salvage" => super::salvaging::run(&dir),
        "full" => super::full::fill(&dir, fields[0]),
        "damage" => super::damage::judge_all(&dir, fields[0], fields[1]),
        other => panic!("no role {other}"),
    }
    say("done");
}

fn work(dir: &Path, orders: &Orders) {
    say("opening");
    let (journal, recovery) = match Journal::open_dir(dir, options(orders.segment_bytes)) {
        Ok(opened) => opened,
        Err(error) => return failed("open", &error),
    };
    say(&format!("opened {}", recovery.events));
    if orders.read_first
        && let Err(error) = super::check::all(&journal)
    {
        failed("read", &error);
    }
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        if orders.keep > 0 {
            scope.spawn(|| compact(&journal, orders, &written));
        }
        for writer in 0..orders.writers {
            let journal = &journal;
            let base = (orders.round << 32) + (writer << 24);
            let written = &written;
            scope.spawn(move || {
                // Also when it gives up.
                let _counted = Counted(written);
                for number in base..base + orders.lives {
                    if let Err(error) = live(journal, number) {
                        return failed("append", &error);
                    }
                }
            });
        }
    });
    match orders.end {
        End::Park => {
            say("parked");
            loop {
                std::thread::park();
            }
        }
        End::Close => {
            if let Err(error) = journal.verify() {
                failed("verify", &error);
            }
            say("closing");
            if let Err(error) = journal.close() {
                failed("close", &error);
            }
            // What is left is dropped, which must not panic either.
            drop(journal);
            say("closed");
        }
    }
}

/// Counts one more when it is dropped.
struct Counted<'a>(&'a AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Cuts the history whenever there are some more events, until all writers are through.
fn compact(journal: &Journal, orders: &Orders, written: &AtomicU64) {
    let retention = Retention { max_events: Some(orders.keep), ..Retention::EVERYTHING };
    let mut next = 0;
    while written.load(Ordering::SeqCst) < orders.writers {
        if journal.recent_seq() < next {
            std::thread::park_timeout(Duration::from_micros(200));
            continue;
        }
        next = journal.recent_seq() + 30;
        say("compacting");
        match journal.compact(&retention) {
            Ok(compacted) => say(&format!("oldest {}", compacted.oldest)),
            Err(error) => return failed("compact", &error),
        }
    }
}

pub(super) fn failed(what: &str, error: &JournalError) {
    let debug = format!("{error:?}");
    let kind = debug.split([' ', '(', '{']).next().unwrap_or_default();
    say(&format!("failed {what} {kind} {error}"));
}

/// The whole life of an atom, in one of three ways.
pub(super) fn live(journal: &Journal, number: u64) -> Result<(), JournalError> {
    let steps = steps(number);
    match number % 3 {
        // Each waits for the one before it.
        0 => {
            for nth in 0..steps {
                acknowledge(append(journal, number, nth..nth + 1)?, number, nth, 1)?;
            }
        }
        // One after the other, without waiting.
        1 => {
            let tickets: Vec<Ticket> = (0..steps)
                .map(|nth| append(journal, number, nth..nth + 1))
                .collect::<Result<_, _>>()?;
            for (nth, ticket) in (0..).zip(tickets) {
                acknowledge(ticket, number, nth, 1)?;
            }
        }
        // All or nothing.
        _ => acknowledge(append(journal, number, 0..steps)?, number, steps - 1, steps)?,
    }
    Ok(())
}

/// Appends steps of an atom in one change; of every other atom one that is written by whoever waits for it.
pub(super) fn append(
    journal: &Journal,
    number: u64,
    steps: std::ops::Range<u64>,
) -> Result<Ticket, JournalError> {
    let decide = |draft: &mut Draft<'_>| -> Result<(), JournalError> {
        for nth in steps {
            let (at, fact) = step(number, nth);
            draft.append(id(number), at, fact)?;
        }
        Ok(())
    };
    let ((), ticket) = match number % 2 {
        0 => journal.change_lazily(decide)?,
        _ => journal.change(decide)?,
    };
    Ok(ticket)
}

/// Waits, and says what is acknowledged: the last event's number, how many, and which the last is.
pub(super) fn acknowledge(
    ticket: Ticket,
    number: u64,
    last: u64,
    count: u64,
) -> Result<(), JournalError> {
    let seq = ticket.seq().unwrap();
    ticket.wait()?;
    say(&format!("ack {seq} {count} {number} {last}"));
    Ok(())
}
