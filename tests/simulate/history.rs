//! A history that fails when it is told to and is copied when the machine crashes.

use std::sync::Arc;

use caesium::atom::AtomId;
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{
    Base, Chunk, Head, History, HistoryUsage, JournalError, MemoryHistory, Part,
};
use parking_lot::Mutex;

/// The in-memory twin of the history, on the disk that it shares with the log.
#[derive(Debug, Clone)]
pub struct Packed {
    inner: Arc<MemoryHistory>,
    disk: MemoryStorage,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// Which append or cut from now on fails, and whether it was done all the same.
    fails: Option<(u64, bool)>,
    failures: u64,
}

impl Packed {
    pub fn new(disk: MemoryStorage) -> Self {
        Self { inner: Arc::new(MemoryHistory::on(&disk)), disk, told: Arc::default() }
    }

    pub fn fail(&self, nth: u64, there: bool) {
        self.told.lock().fails = Some((nth, there));
    }

    pub fn heal(&self) {
        self.told.lock().fails = None;
    }

    pub fn failures(&self) -> u64 {
        self.told.lock().failures
    }

    /// Does something to the history, or fails, or does both.
    fn failing(&self, act: impl FnOnce() -> Result<(), JournalError>) -> Result<(), JournalError> {
        self.powered()?;
        let mut told = self.told.lock();
        match &mut told.fails {
            Some((1, there)) => {
                let there = *there;
                told.fails = None;
                told.failures += 1;
                if there {
                    act()?;
                }
                Err(JournalError::HistoryDamaged { problem: "injected".into() })
            }
            Some((nth, _)) => {
                *nth -= 1;
                act()
            }
            None => act(),
        }
    }

    fn powered(&self) -> Result<(), JournalError> {
        match self.disk.is_off() {
            true => Err(JournalError::HistoryDamaged { problem: "the power is gone".into() }),
            false => Ok(()),
        }
    }
}

impl History for Packed {
    fn head(&self) -> Result<Option<Head>, JournalError> {
        self.powered()?;
        self.inner.head()
    }

    fn settle(&self) -> Result<(), JournalError> {
        self.powered()?;
        self.inner.settle()
    }

    fn parts(&self) -> Result<Vec<Part>, JournalError> {
        self.powered()?;
        self.inner.parts()
    }

    fn append(
        &self,
        chunks: &[Chunk],
        base: &mut dyn FnMut() -> Result<Base, JournalError>,
    ) -> Result<(), JournalError> {
        self.failing(|| self.inner.append(chunks, base))
    }

    fn base(&self, first: u64) -> Result<Option<Base>, JournalError> {
        self.powered()?;
        self.inner.base(first)
    }

    fn cut(&self, first: u64, going_on: &dyn Fn() -> bool) -> Result<(), JournalError> {
        self.failing(|| self.inner.cut(first, going_on))
    }

    fn frames(&self, seq: u64, most: usize) -> Result<Option<Vec<u8>>, JournalError> {
        self.powered()?;
        self.inner.frames(seq, most)
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        self.powered()?;
        self.inner.of_atom(atom)
    }

    fn usage(&self) -> HistoryUsage {
        self.inner.usage()
    }

    fn tidy(&self) -> Result<(), JournalError> {
        self.inner.tidy()
    }

    fn close(&self) -> Result<(), JournalError> {
        self.powered()?;
        self.inner.close()
    }
}
