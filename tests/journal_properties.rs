//! The journal with its threads, against a reference model: what proptest
//! draws and shrinks. `tests/simulate` is the same idea without threads, for
//! what fails at any call; here the writer and the packer run as they do in a host.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use caesium::Durability;
use caesium::atom::AtomSpec;
use caesium::journal::storage::{Crash, Keep, MemoryStorage};
use caesium::journal::{
    Fact, Journal, JournalError, JournalOptions, MemoryHistory, Record, Retention, Subscription,
    Ticket, View,
};
use caesium::lifecycle::Event;
use common::*;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// What is done to a store.
#[derive(Debug, Clone)]
enum Transition {
    /// Appends facts about the atom with this number, in one change, and waits or not.
    Append { facts: Vec<(u64, Step)>, wait: bool },
    /// Makes a large atom and deletes it, which seals segments.
    Fill { bytes: usize },
    /// Reads from an event on.
    Read { from: u64 },
    /// Follows from an event on.
    Subscribe { from: u64 },
    /// Takes all that the subscription must have.
    Take,
    /// Verifies everything.
    Verify,
    /// Drops all but the newest events.
    Compact { keep: u64 },
    /// Closes and opens again.
    Reopen,
    /// Kills the host, or cuts the power.
    Crash { seed: u64, keep: Keep, sector: u64 },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Start,
    Lose,
    Delete,
    Remove,
}

fn fact(step: Step) -> Fact {
    match step {
        Step::Create => created(AtomSpec::command("true").arg("some argument")),
        Step::Start => started(),
        Step::Lose => lost(),
        Step::Delete => Event::DeleteAsked.into(),
        Step::Remove => Event::Removed.into(),
    }
}

/// How the journal is kept. What is in the store is known only where the
/// journal is: a crash may or may not keep what nobody waited for.
#[derive(Debug, Clone)]
struct Reference {
    segment_bytes: u64,
    batched: bool,
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        (prop::sample::select(vec![1, 2000, 20_000]), any::<bool>())
            .prop_map(|(segment_bytes, batched)| Self { segment_bytes, batched })
            .boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Transition> {
        let step = prop::sample::select(vec![
            Step::Create,
            Step::Start,
            Step::Lose,
            Step::Delete,
            Step::Remove,
        ]);
        let facts = prop::collection::vec((0..6u64, step), 1..8);
        let keep = prop::sample::select(vec![Keep::Some, Keep::Some, Keep::Nothing, Keep::All]);
        let sector = prop::sample::select(vec![512, 4096]);
        prop_oneof![
            8 => (facts, any::<bool>()).prop_map(|(facts, wait)| Transition::Append { facts, wait }),
            2 => (1..5000usize).prop_map(|bytes| Transition::Fill { bytes }),
            1 => (1..100u64).prop_map(|from| Transition::Read { from }),
            1 => (1..100u64).prop_map(|from| Transition::Subscribe { from }),
            1 => Just(Transition::Take),
            1 => Just(Transition::Verify),
            1 => (0..60u64).prop_map(|keep| Transition::Compact { keep }),
            1 => Just(Transition::Reopen),
            2 => (any::<u64>(), keep, sector)
                .prop_map(|(seed, keep, sector)| Transition::Crash { seed, keep, sector }),
        ]
        .boxed()
    }

    fn apply(state: Self, _: &Transition) -> Self {
        state
    }
}

/// The journal, and what is known of it.
struct Store {
    options: JournalOptions,
    disk: MemoryStorage,
    history: Arc<MemoryHistory>,
    journal: Journal,
    /// What was appended, in order: number, atom and fact.
    sent: Vec<Sent>,
    tickets: Vec<Ticket>,
    subscription: Option<(Subscription, u64)>,
    made: u64,
    /// The first event that compaction has left.
    oldest: u64,
}

#[derive(Debug, Clone)]
struct Sent {
    atom: u64,
    seconds: u64,
    fact: Fact,
}

impl Store {
    fn append(&mut self, facts: &[(u64, Fact)]) {
        let mut appended = Vec::new();
        let base = self.sent.len() as u64;
        let ((), ticket) = self
            .journal
            .change(|draft| {
                for (atom, fact) in facts {
                    let seconds = base + appended.len() as u64;
                    match draft.append(id(*atom), at(seconds), fact.clone()) {
                        Ok(_) => {
                            appended.push(Sent { atom: *atom, seconds, fact: fact.clone() });
                        }
                        Err(JournalError::Unfit(_)) => {}
                        Err(other) => return Err(other),
                    }
                }
                Ok(())
            })
            .unwrap();
        let last = base + appended.len() as u64;
        assert_eq!(ticket.seq(), (!appended.is_empty()).then_some(last));
        self.sent.extend(appended);
        self.tickets.push(ticket);
    }

    fn wait(&mut self) {
        for ticket in self.tickets.drain(..) {
            ticket.wait().unwrap();
        }
        assert_eq!(self.journal.recent_seq(), self.sent.len() as u64);
    }

    fn is_sent(&self, record: &Record, seq: u64) {
        let sent = &self.sent[seq as usize - 1];
        assert_eq!(record.seq, seq);
        assert_eq!(record.atom, id(sent.atom));
        assert_eq!(record.at, at(sent.seconds));
        assert_eq!(record.fact, sent.fact);
    }

    fn read(&self, from: u64) {
        let recent = self.journal.recent_seq();
        if from < self.oldest {
            let refused = self.journal.read(from).unwrap_err();
            assert!(matches!(refused, JournalError::Compacted { .. }), "{refused}");
        }
        let mut next = from.max(self.oldest);
        for record in self.journal.read(next).unwrap() {
            self.is_sent(&record.unwrap(), next);
            next += 1;
        }
        assert!(next > recent, "reading ends before {next} of {recent}");
    }

    /// Opens the journal on what the disk is now: at least `floor` events must be there.
    fn open(&mut self, floor: u64) {
        self.tickets.clear();
        self.subscription = None;
        let storage = Arc::new(self.disk.clone());
        let opened = Journal::open(storage, self.history.clone(), self.options.clone());
        let (journal, recovery) = opened.unwrap();
        self.journal = journal;
        let appended = self.sent.len() as u64;
        assert!(recovery.events >= floor, "{} of {floor} acknowledged", recovery.events);
        assert!(recovery.events <= appended, "{} of {appended} appended", recovery.events);
        self.sent.truncate(recovery.events as usize);
        let mut view = View::default();
        for sent in &self.sent {
            view.apply(id(sent.atom), at(sent.seconds), &sent.fact).unwrap();
        }
        self.journal.with_view(|found| assert_eq!(*found, view));
        assert_eq!(self.journal.oldest_seq().unwrap(), self.oldest);
        self.read(self.oldest);
        self.journal.verify().unwrap();
    }
}

struct Machine;

impl StateMachineTest for Machine {
    type SystemUnderTest = Store;
    type Reference = Reference;

    fn init_test(reference: &Reference) -> Store {
        let durability = match reference.batched {
            true => Durability::Batched(Duration::from_secs(3600)),
            false => Durability::Sync,
        };
        let options =
            JournalOptions::default().durability(durability).segment_bytes(reference.segment_bytes);
        let disk = MemoryStorage::new();
        let history = Arc::new(MemoryHistory::on(&disk));
        let storage = Arc::new(disk.clone());
        let (journal, recovery) = Journal::open(storage, history.clone(), options.clone()).unwrap();
        assert!(recovery.clean);
        Store {
            options,
            disk,
            history,
            journal,
            sent: Vec::new(),
            tickets: Vec::new(),
            subscription: None,
            made: 100,
            oldest: 1,
        }
    }

    fn apply(mut store: Store, reference: &Reference, transition: Transition) -> Store {
        match transition {
            Transition::Append { facts, wait } => {
                let facts: Vec<_> =
                    facts.into_iter().map(|(atom, step)| (atom, fact(step))).collect();
                store.append(&facts);
                if wait {
                    store.wait();
                }
            }
            Transition::Fill { bytes } => {
                store.made += 1;
                let atom = store.made;
                let large = created(AtomSpec::command("true").arg("x".repeat(bytes)));
                store.append(&[(atom, large), (atom, lost())]);
                store.append(&[(atom, fact(Step::Delete)), (atom, fact(Step::Remove))]);
            }
            Transition::Read { from } => store.read(from),
            Transition::Subscribe { from } => {
                let from = from.min(store.sent.len() as u64 + 1).max(store.oldest);
                store.subscription = Some((store.journal.subscribe(from), from));
            }
            Transition::Take => {
                if let Some((mut subscription, mut next)) = store.subscription.take() {
                    let patience = Instant::now() + Duration::from_secs(60);
                    while next <= store.sent.len() as u64 {
                        let record = subscription.next(Some(patience)).unwrap().unwrap();
                        store.is_sent(&record, next);
                        next += 1;
                    }
                    assert!(subscription.next(Some(Instant::now())).unwrap().is_none());
                    store.subscription = Some((subscription, next));
                }
            }
            Transition::Verify => {
                let verified = store.journal.verify().unwrap();
                let kept = store.sent.len() as u64 + 1 - store.oldest;
                assert_eq!((verified.oldest, verified.events), (store.oldest, kept));
            }
            Transition::Compact { keep } => {
                // What nobody waited for is not acknowledged, and not counted.
                store.wait();
                let retention = Retention { max_events: Some(keep), ..Retention::EVERYTHING };
                let compacted = store.journal.compact(&retention).unwrap();
                let wanted = (store.sent.len() as u64 + 1).saturating_sub(keep);
                assert_eq!(compacted.oldest, store.oldest.max(wanted));
                store.oldest = compacted.oldest;
                if let Some((mut subscription, next)) = store.subscription.take() {
                    if next >= store.oldest {
                        store.subscription = Some((subscription, next));
                    } else if let Ok(Some(record)) = subscription.next(Some(Instant::now())) {
                        // It had it in memory still.
                        store.is_sent(&record, next);
                    }
                }
            }
            Transition::Reopen => {
                store.journal.close().unwrap();
                let all = store.sent.len() as u64;
                store.open(all);
            }
            Transition::Crash { seed, keep, sector } => {
                let floor = match (keep, reference.batched) {
                    (Keep::All, _) | (_, false) => store.journal.recent_seq(),
                    (Keep::Some | Keep::Nothing, true) => store.journal.durable_seq(),
                };
                store.disk = store.disk.crash(Crash { seed, keep, sector });
                store.history = Arc::new(MemoryHistory::on(&store.disk));
                store.open(floor);
            }
        }
        store
    }

    fn teardown(mut store: Store, _: Reference) {
        store.wait();
        store.journal.close().unwrap();
        let all = store.sent.len() as u64;
        store.open(all);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_does_what_the_model_says(sequential 1..40 => Machine);
}
