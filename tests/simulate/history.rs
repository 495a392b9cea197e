//! A history that fails when it is told to and is copied when the machine crashes.

use std::sync::Arc;

use caesium::atom::AtomId;
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{Base, Chunk, Head, History, JournalError, MemoryHistory};
use parking_lot::Mutex;

/// The in-memory twin of the history, beside the disk it shares its power with.
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
        Self { inner: Arc::default(), disk, told: Arc::default() }
    }

    /// What a crash leaves: what was appended is durable.
    pub fn crash(&self, disk: MemoryStorage) -> Self {
        Self { inner: Arc::new(self.inner.crash()), disk, told: Arc::default() }
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

    fn append(&self, chunks: &[Chunk]) -> Result<(), JournalError> {
        self.failing(|| self.inner.append(chunks))
    }

    fn base(&self) -> Result<Option<Base>, JournalError> {
        self.powered()?;
        self.inner.base()
    }

    fn cut(
        &self,
        first: u64,
        base: &Base,
        going_on: &dyn Fn() -> bool,
    ) -> Result<(), JournalError> {
        self.failing(|| self.inner.cut(first, base, going_on))
    }

    fn frames(&self, seq: u64) -> Result<Option<Vec<u8>>, JournalError> {
        self.powered()?;
        self.inner.frames(seq)
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        self.powered()?;
        self.inner.of_atom(atom)
    }

    fn close(&self) -> Result<(), JournalError> {
        self.powered()
    }
}
