//! What common work allocates, counted: a change that makes it dearer is seen, whatever the machine does beside.
//!
//! The bounds are what there is today and a tenth. Who lowers a count lowers its bound.

use std::sync::Arc;

use allocation_counter::{AllocationInfo, measure};
use caesium::Timestamp;
use caesium::atom::{AtomId, AtomSpec};
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{
    Creation, Fact, Journal, JournalError, JournalOptions, MemoryHistory, Note,
};
use caesium::lifecycle::{Event, Life, StopCause, StopOrder, transition};

/// A journal without threads: whatever it does, it does here.
fn journal() -> Journal {
    let (storage, history) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryHistory::new()));
    Journal::open_stepped(storage, history, JournalOptions::default()).unwrap().0
}

fn create(journal: &Journal) -> AtomId {
    let atom = AtomId::new();
    let spec = AtomSpec::command("sh").args(["-c", "true"]).into();
    let creation = Creation { engine: "test".into(), spec, attempt: 1, retry_of: None };
    append(journal, atom, 1, &Fact::Created(creation));
    atom
}

fn append(journal: &Journal, atom: AtomId, events: usize, fact: &Fact) {
    let ((), ticket) = journal
        .change(|draft| {
            for _ in 0..events {
                draft.append(atom, Timestamp::from_micros(1), fact.clone())?;
            }
            Ok::<_, JournalError>(())
        })
        .unwrap();
    while journal.step() {}
    ticket.wait().unwrap();
}

fn stop() -> Event {
    let grace = std::time::Duration::from_secs(10);
    Event::StopAsked(StopOrder { grace, force: false, cause: StopCause::Requested })
}

fn of<T>(work: impl FnMut() -> T) -> AllocationInfo {
    let mut work = work;
    measure(|| {
        std::hint::black_box(work());
    })
}

#[test]
fn deciding_allocates_nothing() {
    let life = Life::created(Timestamp::from_micros(1));
    let event = stop();
    let info = of(|| {
        let stopping = transition(&life, &event, Timestamp::from_micros(2)).unwrap();
        transition(&stopping, &Event::Removed, Timestamp::from_micros(3)).is_err()
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn an_event_allocates_as_much_as_it_did() {
    let journal = journal();
    let atom = create(&journal);
    let fact = Fact::Happened { event: stop(), note: Note::default() };
    append(&journal, atom, 100, &fact);
    let alone = of(|| append(&journal, atom, 1, &fact)).count_total;
    let grouped = of(|| append(&journal, atom, 100, &fact)).count_total;
    println!("{alone} allocations for an event, {grouped} for a hundred");
    assert!(alone <= 17, "{alone} allocations for an event");
    assert!(grouped <= 360, "{grouped} allocations for a hundred events");
}

#[test]
fn an_event_that_is_read_allocates_what_it_has() {
    let journal = journal();
    let atom = create(&journal);
    let detail = Some("it was asked for".into());
    let fact = Fact::Happened { event: stop(), note: Note { detail, ..Note::default() } };
    append(&journal, atom, 1000, &fact);
    let count = of(|| journal.read(2).unwrap().map(Result::unwrap).count()).count_total;
    println!("{count} allocations for a thousand events that are read");
    assert!(count <= 1100, "{count} allocations for a thousand events that are read");
}
