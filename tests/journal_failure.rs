//! What a journal does when the disk fails or is full.

mod common;

use std::io::ErrorKind;

use caesium::atom::AtomSpec;
use caesium::journal::storage::{Call, Failing};
use caesium::journal::{JournalError, JournalOptions};
use caesium::lifecycle::{Event, State, StopCause, StopOrder};
use common::*;

#[test]
fn a_failed_sync_puts_its_events_in_doubt_and_ends_writing_for_good() {
    for call in [Call::Sync, Call::Write] {
        let store = Store::memory();
        let (journal, _) = store.open();
        append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
        append(&journal, id(1), started()).unwrap();
        let acknowledged = all(&journal);
        store.disk_twin().fail(call, 1, Failing::Once, ErrorKind::Other);
        let doubt = append(&journal, id(1), lost()).unwrap_err();
        assert!(matches!(doubt, JournalError::InDoubt { seq: 3, .. }), "{doubt}");
        // The disk is well again, and still nothing more is accepted.
        let refused = append(&journal, id(2), created(AtomSpec::command("true"))).unwrap_err();
        assert!(matches!(refused, JournalError::Poisoned { .. }), "{refused}");
        assert_eq!(all(&journal), acknowledged);
        journal.verify().unwrap();
        let running = journal.with_view(|view| view.get(id(1)).unwrap().state());
        assert_eq!(running, State::Running);
        let satisfied = journal.wait_until(id(1), None, |atom| atom.map(|atom| atom.state()));
        assert_eq!(satisfied.unwrap(), Some(State::Running));
        let waits = journal.wait_until(id(1), None, |_| None::<()>);
        assert!(matches!(waits, Err(JournalError::Poisoned { .. })));
        assert!(matches!(journal.close(), Err(JournalError::Poisoned { .. })));
        let (journal, _) = store.open();
        assert!(all(&journal).starts_with(&acknowledged));
        append(&journal, id(2), created(AtomSpec::command("true"))).unwrap();
        journal.verify().unwrap();
    }
}

/// Fails every call of every kind in turn, once and from then on: no
/// acknowledgement is lost, and the store opens again.
#[test]
fn whichever_call_fails_nothing_acknowledged_is_lost() {
    let options = || JournalOptions::default().segment_bytes(2048);
    for call in Call::ALL {
        for failing in [Failing::Once, Failing::Forever] {
            for nth in 1.. {
                let store = Store::memory();
                let disk = store.disk_twin();
                disk.fail(call, nth, failing, ErrorKind::Other);
                let mut acknowledged = Vec::new();
                if let Ok((journal, _)) = store.open_with(options()) {
                    'work: for number in 0..8 {
                        let atom = id(number);
                        let facts = [
                            created(AtomSpec::command("true").arg("z".repeat(500))),
                            started(),
                            lost(),
                        ];
                        for fact in facts {
                            let Ok(ticket) = queue(&journal, atom, fact) else { break 'work };
                            let seq = ticket.seq().unwrap();
                            match ticket.wait() {
                                Ok(()) => acknowledged.push(seq),
                                Err(JournalError::InDoubt { .. }) => break 'work,
                                Err(other) => panic!("{call:?} {nth}: {other}"),
                            }
                        }
                    }
                    let _ = journal.close();
                }
                let reached = disk.calls(call) >= nth;
                disk.heal();
                let (journal, _) = store.open_with(options()).unwrap_or_else(|error| {
                    panic!("{call:?} {nth} {failing:?}: {error}");
                });
                let found: Vec<u64> = all(&journal).iter().map(|record| record.seq).collect();
                assert!(found.starts_with(&acknowledged), "{call:?} {nth} {failing:?}");
                journal.verify().unwrap();
                if !reached {
                    break;
                }
            }
        }
    }
}

#[test]
fn on_a_full_disk_atoms_are_refused_and_endings_are_not() {
    let store = Store::memory();
    let (journal, _) = store.open_with(JournalOptions::default().segment_bytes(64 << 10)).unwrap();
    store.disk_twin().set_capacity(Some(64 << 10));
    let mut running = Vec::new();
    let refused = loop {
        let atom = id(running.len() as u64);
        match append(&journal, atom, created(AtomSpec::command("true"))) {
            Ok(()) => running.push(atom),
            Err(error) => break error,
        }
        append(&journal, atom, started()).unwrap();
    };
    assert!(matches!(refused, JournalError::NoSpace { .. }), "{refused}");
    assert!(running.len() > 10);
    // The refused one is not there, and its id is free.
    journal.with_view(|view| assert_eq!(view.len(), running.len()));
    let stop = StopOrder {
        grace: std::time::Duration::from_secs(1),
        force: false,
        cause: StopCause::Requested,
    };
    for atom in &running {
        append(&journal, *atom, Event::StopAsked(stop).into()).unwrap();
        append(&journal, *atom, lost()).unwrap();
    }
    for atom in &running {
        append(&journal, *atom, Event::DeleteAsked.into()).unwrap();
        append(&journal, *atom, Event::Removed.into()).unwrap();
    }
    journal.verify().unwrap();
    // With space freed work resumes, without a repair or a reopening.
    store.disk_twin().set_capacity(None);
    for number in 100..200 {
        append(&journal, id(number), created(AtomSpec::command("true"))).unwrap();
    }
    journal.close().unwrap();
    let (journal, recovery) = store.open();
    assert!(recovery.clean);
    assert_eq!(recovery.atoms, 100);
    journal.verify().unwrap();
}

#[test]
fn a_detail_that_is_too_long_is_cut_and_a_handle_refused() {
    use caesium::journal::{Fact, MAX_DETAIL_BYTES, MAX_HANDLE_BYTES, Note};
    let (journal, _) = Store::memory().open();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    let fact = |detail: &str, handle: usize| Fact::Happened {
        event: Event::Started { pid: None },
        note: Note {
            detail: Some(detail.into()),
            handle: Some(vec![0; handle].into()),
            ..Note::default()
        },
    };
    let refused = append(&journal, id(1), fact("", MAX_HANDLE_BYTES + 1)).unwrap_err();
    assert!(matches!(refused, JournalError::TooLarge { .. }));
    append(&journal, id(1), fact(&"ä".repeat(MAX_DETAIL_BYTES), MAX_HANDLE_BYTES)).unwrap();
    journal.with_view(|view| {
        assert_eq!(view.get(id(1)).unwrap().detail().unwrap().len(), MAX_DETAIL_BYTES);
    });
}
