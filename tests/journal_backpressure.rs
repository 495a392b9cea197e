//! A history that takes events more slowly than they come, or not at all: the log has a bound.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caesium::atom::AtomId;
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{
    Base, Chunk, Head, History, Journal, JournalError, JournalOptions, MemoryHistory, Part,
    SEALED_KEPT, SEALED_WAITING,
};
use common::*;
use parking_lot::{Condvar, Mutex};

/// As many segments as there may be while packing gets on: those that stay, those that wait, the one
/// that is written to, and the one that was sealed by the change that nobody waited with.
const MOST: usize = SEALED_KEPT + SEALED_WAITING + 2;

/// A history whose appends wait for a gate, or fail.
#[derive(Debug, Default)]
struct Gated {
    inner: MemoryHistory,
    open: Mutex<bool>,
    opened: Condvar,
    fails: AtomicBool,
}

impl Gated {
    fn set_open(&self, open: bool) {
        *self.open.lock() = open;
        self.opened.notify_all();
    }
}

impl History for Gated {
    fn head(&self) -> Result<Option<Head>, JournalError> {
        self.inner.head()
    }

    fn parts(&self) -> Result<Vec<Part>, JournalError> {
        self.inner.parts()
    }

    fn append(
        &self,
        chunks: &[Chunk],
        base: &mut dyn FnMut() -> Result<Base, JournalError>,
    ) -> Result<(), JournalError> {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(JournalError::HistoryDamaged { problem: "injected".into() });
        }
        self.inner.append(chunks, base)
    }

    fn frames(&self, seq: u64, most: usize) -> Result<Option<Vec<u8>>, JournalError> {
        self.inner.frames(seq, most)
    }

    fn cut(&self, first: u64, going_on: &dyn Fn() -> bool) -> Result<(), JournalError> {
        self.inner.cut(first, going_on)
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        self.inner.of_atom(atom)
    }

    fn base(&self, first: u64) -> Result<Option<Base>, JournalError> {
        self.inner.base(first)
    }

    fn close(&self) -> Result<(), JournalError> {
        self.inner.close()
    }
}

struct Setting {
    memory: MemoryStorage,
    history: Arc<Gated>,
    journal: Journal,
}

fn setting(open: bool) -> Setting {
    let memory = MemoryStorage::new();
    let history = Arc::new(Gated::default());
    history.set_open(open);
    let options = JournalOptions::default().segment_bytes(2048);
    let (journal, _) = Journal::open(Arc::new(memory.clone()), history.clone(), options).unwrap();
    Setting { memory, history, journal }
}

impl Setting {
    fn segments(&self) -> usize {
        self.memory.names().iter().filter(|name| name.ends_with(".seg")).count()
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < patience, "{what}");
        thread::yield_now();
    }
}

#[test]
fn writers_wait_for_a_slow_history_and_the_log_stays_bounded() {
    let setting = setting(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let setting = &setting;
                scope.spawn(move || {
                    for number in 0..60 {
                        life(&setting.journal, writer * 1000 + number).unwrap();
                        assert!(setting.segments() <= MOST, "{} segments", setting.segments());
                    }
                })
            })
            .collect();
        until("nobody waits", || setting.journal.stats().unwrap().waited >= 3);
        // As long as nothing is packed there is nothing to wait for but that.
        assert_eq!(setting.segments(), MOST);
        assert!(writers.iter().all(|writer| !writer.is_finished()));
        // Readers are not held up.
        assert!(setting.journal.read(1).unwrap().all(|record| record.is_ok()));
        setting.history.set_open(true);
    });
    assert_eq!(setting.journal.recent_seq(), 900);
    setting.journal.verify().unwrap();
    until("not all is packed", || setting.segments() <= SEALED_KEPT + 1);
    setting.journal.close().unwrap();
}

#[test]
fn a_history_that_cannot_be_written_is_not_waited_for() {
    let setting = setting(true);
    setting.history.fails.store(true, Ordering::SeqCst);
    for number in 0..100 {
        life(&setting.journal, number).unwrap();
    }
    assert!(setting.segments() > MOST);
    assert_eq!(all(&setting.journal).len(), 500);
    // As soon as it can, everything is packed.
    setting.history.fails.store(false, Ordering::SeqCst);
    let next = AtomicU64::new(100);
    until("not all is packed", || {
        // Every seal is a new try.
        life(&setting.journal, next.fetch_add(1, Ordering::SeqCst)).unwrap();
        setting.segments() <= SEALED_KEPT + 2
    });
    setting.journal.verify().unwrap();
    setting.journal.close().unwrap();
}

#[test]
fn a_close_ends_the_wait() {
    let setting = setting(false);
    thread::scope(|scope| {
        let writer = scope
            .spawn(|| (0..1000).map(|number| life(&setting.journal, number)).find_map(Result::err));
        until("nobody waits", || setting.journal.stats().unwrap().waited >= 1);
        let closing = scope.spawn(|| setting.journal.close());
        let refused = writer.join().unwrap();
        assert!(matches!(refused, Some(JournalError::Closed)), "{refused:?}");
        setting.history.set_open(true);
        closing.join().unwrap().unwrap();
    });
}
