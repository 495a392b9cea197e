//! What a journal does, on a disk and in memory alike.

mod common;

use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use caesium::Durability;
use caesium::atom::AtomSpec;
use caesium::journal::{Journal, JournalError, JournalOptions, Unfit};
use caesium::lifecycle::{Event, State};
use common::*;

/// Makes one test per storage of each function.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod memory { $(#[test] fn $name() { super::$name(super::Store::memory()); })+ }
        mod disk { $(#[test] fn $name() { super::$name(super::Store::disk()); })+ }
    };
}

on_both!(
    what_was_acknowledged_is_there_after_reopening,
    a_clean_store_opens_clean_and_goes_on_in_its_segment,
    a_close_that_leaves_much_to_be_read_begins_another_segment,
    a_refused_fact_changes_and_writes_nothing,
    a_change_that_fails_takes_everything_back,
    a_change_that_panics_takes_everything_back,
    waiting_for_an_atom_ends_when_a_retry_replaces_it,
    an_empty_change_has_a_ready_ticket,
    reading_is_unbroken_across_segments,
    sixty_four_writers_get_contiguous_numbers,
    waiting_ends_with_the_change_of_its_atom,
    waiting_ends_when_the_journal_closes,
    a_subscriber_sees_everything_once_and_in_order,
    a_subscriber_ends_when_the_journal_closes,
    a_journal_that_was_only_dropped_is_closed,
    a_closed_journal_says_so,
    batched_acknowledgements_survive_a_close,
    a_large_spec_goes_through,
    an_empty_store_that_should_exist_is_refused,
);

fn far() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(60))
}

fn what_was_acknowledged_is_there_after_reopening(store: Store) {
    let (journal, recovery) = store.open();
    assert!(recovery.clean);
    append(&journal, id(1), created(AtomSpec::command("true").name("one"))).unwrap();
    append(&journal, id(1), started()).unwrap();
    let (before, records) = (states(&journal), all(&journal));
    journal.close().unwrap();
    let (journal, recovery) = store.open();
    assert_eq!((recovery.events, recovery.atoms, recovery.clean), (2, 1, true));
    assert_eq!(states(&journal), before);
    assert_eq!(all(&journal), records);
    journal.with_view(|view| assert_eq!(view.named("one").unwrap().id(), id(1)));
}

fn a_clean_store_opens_clean_and_goes_on_in_its_segment(store: Store) {
    for round in 0..5 {
        let (journal, recovery) = store.open_with(JournalOptions::default()).unwrap();
        assert_eq!((recovery.events, recovery.clean), (round, true));
        append(&journal, id(round), created(AtomSpec::command("true"))).unwrap();
        journal.close().unwrap();
    }
    assert_eq!(store.storage.list().unwrap(), ["00000000000000000001.seg"]);
}

fn a_close_that_leaves_much_to_be_read_begins_another_segment(store: Store) {
    let newest = || store.storage.list().unwrap().into_iter().max().unwrap();
    let (journal, _) = store.open();
    append(&journal, id(0), created(AtomSpec::command("true").name("lives"))).unwrap();
    let spec = || AtomSpec::command("true").arg("x".repeat(3000));
    for number in 1..300 {
        append(&journal, id(number), created(spec())).unwrap();
        for fact in [lost(), Event::DeleteAsked.into(), Event::Removed.into()] {
            append(&journal, id(number), fact).unwrap();
        }
    }
    let last = journal.recent_seq();
    journal.close().unwrap();
    let begun = format!("{:020}.seg", last + 1);
    assert_eq!(newest(), begun);
    // It has the atoms, and nothing that happened; once is enough.
    for _ in 0..2 {
        let (journal, recovery) = store.open();
        assert_eq!((recovery.events, recovery.atoms, recovery.clean), (last, 1, true));
        assert!(journal.with_view(|view| view.named("lives").is_some()));
        assert_eq!(journal.read(1).unwrap().count() as u64, last);
        journal.verify().unwrap();
        journal.close().unwrap();
        assert_eq!(newest(), begun);
    }
    let (journal, _) = store.open();
    append(&journal, id(0), lost()).unwrap();
    journal.close().unwrap();
    assert_eq!(newest(), begun, "a little more is no reason");
}

fn a_refused_fact_changes_and_writes_nothing(store: Store) {
    let (journal, _) = store.open();
    let refused = append(&journal, id(1), started()).unwrap_err();
    assert!(matches!(refused, JournalError::Unfit(Unfit::NoSuchAtom(_))));
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    let refused = append(&journal, id(1), Event::Removed.into()).unwrap_err();
    assert!(matches!(refused, JournalError::Unfit(Unfit::Rejected(_))));
    assert_eq!(journal.recent_seq(), 1);
    assert_eq!(all(&journal).len(), 1);
}

fn a_change_that_fails_takes_everything_back(store: Store) {
    let (journal, _) = store.open();
    append(&journal, id(1), created(AtomSpec::command("true").name("mine"))).unwrap();
    let before = states(&journal);
    let result = journal.change(|draft| -> Result<(), JournalError> {
        draft.append(id(2), at(0), created(AtomSpec::command("true").name("other")))?;
        draft.append(id(1), at(0), started())?;
        draft.append(id(1), at(0), started())?;
        Ok(())
    });
    assert!(matches!(result, Err(JournalError::Unfit(_))));
    let (decided, _ticket) = journal
        .change(|draft| {
            let states = draft.view().atoms().map(|atom| format!("{atom:?}")).collect::<Vec<_>>();
            assert!(draft.view().named("other").is_none());
            Ok::<_, JournalError>(states)
        })
        .unwrap();
    assert_eq!(decided, before);
    append(&journal, id(3), created(AtomSpec::command("true").name("other"))).unwrap();
    assert_eq!(all(&journal).iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2]);
}

fn an_empty_change_has_a_ready_ticket(store: Store) {
    let (journal, _) = store.open();
    let ((), ticket) = journal.change(|_| Ok::<_, JournalError>(())).unwrap();
    assert_eq!(ticket.seq(), None);
    ticket.wait().unwrap();
}

fn reading_is_unbroken_across_segments(store: Store) {
    let (journal, _) = store.open();
    for number in 0..100 {
        life(&journal, number).unwrap();
    }
    let records = all(&journal);
    assert!(records.iter().map(|record| record.seq).eq(1..=500));
    assert!(store.storage.list().unwrap().len() > 1);
    for from in [1, 2, 77, 250, 499, 500, 501] {
        let rest: Vec<_> = journal.read(from).unwrap().map(Result::unwrap).collect();
        assert_eq!(rest, records[from as usize - 1..]);
    }
    drop(journal);
    assert_eq!(all(&store.open().0), records);
}

fn sixty_four_writers_get_contiguous_numbers(store: Store) {
    let (journal, _) = store.open();
    thread::scope(|scope| {
        for writer in 0..64 {
            let journal = &journal;
            scope.spawn(move || life(journal, writer).unwrap());
        }
    });
    assert!(all(&journal).iter().map(|record| record.seq).eq(1..=320));
    assert!(journal.with_view(|view| view.is_empty()));
    assert_eq!(journal.durable_seq(), 320);
}

fn waiting_ends_with_the_change_of_its_atom(store: Store) {
    let (journal, _) = store.open();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            journal.wait_until(id(1), far(), |atom| {
                atom.map(|atom| atom.state()).filter(|state| *state == State::Stopped)
            })
        });
        append(&journal, id(1), started()).unwrap();
        append(&journal, id(1), lost()).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), Some(State::Stopped));
    });
    let nothing = journal.wait_until(id(1), Some(Instant::now()), |_| None::<()>);
    assert_eq!(nothing.unwrap(), None);
    let missing = journal.wait_until(id(9), far(), |atom| atom.is_none().then_some(()));
    assert_eq!(missing.unwrap(), Some(()));
}

fn waiting_ends_when_the_journal_closes(store: Store) {
    let (journal, _) = store.open();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| journal.wait_until(id(1), None, |_| None::<()>));
        journal.close().unwrap();
        assert!(matches!(waits.join().unwrap(), Err(JournalError::Closed)));
    });
}

fn a_subscriber_sees_everything_once_and_in_order(store: Store) {
    let (journal, _) = store.open();
    for number in 0..300 {
        life(&journal, number).unwrap();
    }
    thread::scope(|scope| {
        let mut subscription = journal.subscribe(1);
        let reads = scope.spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 2000 {
                seen.push(subscription.next(far()).unwrap().unwrap().seq);
            }
            seen
        });
        for number in 300..400 {
            life(&journal, number).unwrap();
        }
        assert!(reads.join().unwrap().into_iter().eq(1..=2000));
    });
    let mut late = journal.subscribe(2001);
    assert!(late.next(Some(Instant::now())).unwrap().is_none());
}

fn a_subscriber_ends_when_the_journal_closes(store: Store) {
    let (journal, _) = store.open();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    let mut subscription = journal.subscribe(1);
    thread::scope(|scope| {
        let ends = scope.spawn(move || {
            assert_eq!(subscription.next(None).unwrap().unwrap().seq, 1);
            subscription.next(None)
        });
        journal.close().unwrap();
        assert!(matches!(ends.join().unwrap(), Err(JournalError::Closed)));
    });
}

fn a_journal_that_was_only_dropped_is_closed(store: Store) {
    let (journal, _) = store.open();
    let ticket = queue(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    drop(journal);
    ticket.wait().unwrap();
    let (_, recovery) = store.open();
    assert!(recovery.clean);
    assert_eq!(recovery.events, 1);
}

fn a_closed_journal_says_so(store: Store) {
    let (journal, _) = store.open();
    journal.close().unwrap();
    journal.close().unwrap();
    let refused = append(&journal, id(1), created(AtomSpec::command("true")));
    assert!(matches!(refused, Err(JournalError::Closed)));
}

fn batched_acknowledgements_survive_a_close(store: Store) {
    let batched = small().durability(Durability::Batched(Duration::from_secs(3600)));
    let (journal, _) = store.open_with(batched).unwrap();
    for number in 0..50 {
        life(&journal, number).unwrap();
    }
    assert!(journal.durable_seq() < 250);
    journal.close().unwrap();
    assert_eq!(journal.durable_seq(), 250);
    assert_eq!(all(&store.open().0).len(), 250);
}

fn a_large_spec_goes_through(store: Store) {
    let spec = AtomSpec::command("true").args((0..15).map(|_| "x".repeat(65_000)));
    spec.validate().unwrap();
    let (journal, _) = store.open();
    append(&journal, id(1), created(AtomSpec::command("true"))).unwrap();
    append(&journal, id(2), created(spec.clone())).unwrap();
    append(&journal, id(2), started()).unwrap();
    let beyond = AtomSpec::command("true").arg("x".repeat(2 << 20));
    let refused = append(&journal, id(3), created(beyond)).unwrap_err();
    assert!(matches!(refused, JournalError::TooLarge { .. }));
    drop(journal);
    let (journal, _) = store.open();
    assert_eq!(all(&journal).len(), 3);
    journal.with_view(|view| assert_eq!(*view.get(id(2)).unwrap().spec(), spec));
}

fn an_empty_store_that_should_exist_is_refused(store: Store) {
    let refused = store.open_with(small().must_exist(true)).unwrap_err();
    assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
    assert!(store.storage.list().unwrap().is_empty());
    let (journal, _) = store.open_with(JournalOptions::default()).unwrap();
    journal.close().unwrap();
    store.open_with(small().must_exist(true)).unwrap();
}

fn a_change_that_panics_takes_everything_back(store: Store) {
    let (journal, _) = store.open();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = journal.change(|draft| -> Result<(), JournalError> {
            draft.append(id(1), at(0), created(AtomSpec::command("true").name("one")))?;
            panic!("in the middle of a decision");
        });
    }));
    assert!(panicked.is_err());
    append(&journal, id(2), created(AtomSpec::command("true").name("one"))).unwrap();
    assert_eq!(journal.with_view(|view| view.len()), 1);
    journal.verify().unwrap();
}

fn waiting_for_an_atom_ends_when_a_retry_replaces_it(store: Store) {
    use caesium::journal::{Creation, Fact};
    let (journal, _) = store.open();
    append(&journal, id(1), created(AtomSpec::command("true").name("one"))).unwrap();
    append(&journal, id(1), lost()).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            journal.wait_until(id(1), far(), |atom| atom.and_then(|atom| atom.replaced_by()))
        });
        let retry = Creation {
            engine: "test".into(),
            spec: AtomSpec::command("true").name("one").into(),
            attempt: 2,
            retry_of: Some(id(1)),
        };
        append(&journal, id(2), Fact::Created(retry)).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), Some(id(2)));
    });
}

/// With so many atoms that what they need is more than a small segment has.
#[test]
fn what_a_close_begins_has_room_for_more_than_endings() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::open_dir(dir.path(), JournalOptions::default()).unwrap().0;
    let newest = || {
        let names = std::fs::read_dir(dir.path().join("wal")).unwrap();
        let newest = names.map(|entry| entry.unwrap()).max_by_key(|entry| entry.file_name());
        newest.map(|entry| (entry.file_name(), entry.metadata().unwrap().ino())).unwrap()
    };
    let spec = |bytes| AtomSpec::command("true").arg("x".repeat(bytes));
    let make = |journal: &Journal, numbers: std::ops::Range<u64>, bytes, end: &[Event]| {
        let change = journal.change(|draft| {
            for number in numbers {
                draft.append(id(number), at(number), created(spec(bytes)))?;
                for event in end {
                    draft.append(id(number), at(number), (*event).into())?;
                }
            }
            Ok::<_, JournalError>(())
        });
        change.unwrap().1.wait().unwrap();
    };
    let journal = open();
    make(&journal, 0..1000, 1, &[Event::Withdrawn]);
    make(&journal, 1000..1050, 60_000, &[Event::Withdrawn, Event::DeleteAsked, Event::Removed]);
    let last = journal.recent_seq();
    journal.close().unwrap();
    let begun = newest();
    assert_eq!(begun.0.to_str(), Some(&*format!("{:020}.seg", last + 1)));
    let journal = open();
    make(&journal, 2000..2001, 1, &[]);
    assert_eq!(newest(), begun, "another one took its place");
    journal.close().unwrap();
}
