//! Changes that are written by whoever waits for them.

mod common;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use caesium::atom::{Atom, AtomId, AtomSpec};
use caesium::journal::storage::{Call, Failing};
use caesium::journal::{Fact, Journal, JournalError, Ticket};
use common::*;

/// Appends one fact, which nobody writes before somebody waits.
fn queue_lazily(journal: &Journal, atom: AtomId, fact: Fact) -> Result<Ticket, JournalError> {
    let (_, ticket): (Atom, Ticket) =
        journal.change_lazily(|draft| draft.append(atom, at(1), fact))?;
    Ok(ticket)
}

fn command() -> Fact {
    created(AtomSpec::command("true"))
}

fn is_visible(journal: &Journal, number: u64) -> bool {
    journal.with_view(|view| view.get(id(number)).is_some())
}

/// Waits until an atom is visible; whoever is told of it has written it.
fn wait_visible(journal: &Journal, number: u64) {
    journal.wait_until(id(number), None, |atom| atom.map(drop)).unwrap();
}

#[test]
fn nothing_is_written_before_somebody_waits_or_lets_go() {
    let (journal, _) = Store::memory().open();
    let first = queue_lazily(&journal, id(1), command()).unwrap();
    assert_eq!(first.seq(), Some(1));
    assert!(!is_visible(&journal, 1));
    first.wait().unwrap();
    assert!(is_visible(&journal, 1), "what is acknowledged is visible");
    drop(queue_lazily(&journal, id(2), command()).unwrap());
    wait_visible(&journal, 2);
    // Another change takes with it what is held.
    let held = queue_lazily(&journal, id(3), command()).unwrap();
    append(&journal, id(4), command()).unwrap();
    assert!(is_visible(&journal, 3));
    held.wait().unwrap();
    // One that changes nothing has nothing to wait for.
    let ((), nothing) = journal.change_lazily(|_| Ok::<_, JournalError>(())).unwrap();
    nothing.wait().unwrap();
    assert_eq!(all(&journal).len(), 4);
}

#[test]
fn many_threads_lose_nothing_whichever_way_they_write() {
    const THREADS: usize = 8;
    const EACH: usize = 50;
    let store = Store::disk();
    let (journal, _) = store.open();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for way in 0..THREADS {
            let (journal, next) = (&journal, &next);
            scope.spawn(move || {
                for _ in 0..EACH {
                    let atom = id(next.fetch_add(1, Ordering::Relaxed) as u64);
                    match way % 4 {
                        0 => append(journal, atom, command()).unwrap(),
                        1 => drop(queue_lazily(journal, atom, command()).unwrap()),
                        _ => queue_lazily(journal, atom, command()).unwrap().wait().unwrap(),
                    }
                }
            });
        }
    });
    journal.close().unwrap();
    let (journal, _) = store.open();
    let seqs: Vec<u64> = all(&journal).iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=(THREADS * EACH) as u64).collect::<Vec<_>>());
    assert_eq!(journal.with_view(|view| view.atoms().count()), THREADS * EACH);
    journal.verify().unwrap();
}

/// A new segment needs all of the old one to be written: who holds a ticket may make the change that needs it.
#[test]
fn a_ticket_that_is_held_holds_up_no_new_segment() {
    let (journal, _) = Store::memory().open();
    let mut held = Vec::new();
    for number in 0..200 {
        let large = created(AtomSpec::command("true").arg("z".repeat(1000)));
        held.push(queue_lazily(&journal, id(number), large).unwrap());
    }
    held.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(all(&journal).len(), 200);
    journal.verify().unwrap();
}

#[test]
fn closing_writes_what_is_held() {
    let store = Store::memory();
    let (journal, _) = store.open();
    let held = queue_lazily(&journal, id(1), command()).unwrap();
    journal.close().unwrap();
    held.wait().unwrap();
    assert!(is_visible(&store.open().0, 1));
}

#[test]
fn a_failed_sync_is_told_to_whoever_writes_and_to_whoever_waits_with_it() {
    for call in [Call::Sync, Call::Write] {
        let store = Store::memory();
        let (journal, _) = store.open();
        append(&journal, id(1), command()).unwrap();
        let (first, second) = (
            queue_lazily(&journal, id(2), command()).unwrap(),
            queue_lazily(&journal, id(3), command()).unwrap(),
        );
        store.disk_twin().fail(call, 1, Failing::Once, ErrorKind::Other);
        let doubt = first.wait().unwrap_err();
        assert!(matches!(doubt, JournalError::InDoubt { seq: 2, .. }), "{doubt}");
        let doubt = second.wait().unwrap_err();
        assert!(matches!(doubt, JournalError::InDoubt { seq: 3, .. }), "{doubt}");
        let refused = queue_lazily(&journal, id(4), command()).unwrap_err();
        assert!(matches!(refused, JournalError::Poisoned { .. }), "{refused}");
        assert!(matches!(journal.close(), Err(JournalError::Poisoned { .. })));
        assert!(is_visible(&store.open().0, 1));
    }
}
