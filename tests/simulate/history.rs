//! A history that fails when it is told to and is copied when the machine crashes.

use std::sync::Arc;

use caesium::atom::AtomId;
use caesium::journal::storage::MemoryStorage;
use caesium::journal::{Chunk, Head, History, JournalError, MemoryHistory};
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
    /// Which append from now on fails, and whether its chunks are there all the same.
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
        self.powered()?;
        let mut told = self.told.lock();
        let mut fails = None;
        if let Some((nth, there)) = &mut told.fails {
            *nth -= 1;
            if *nth == 0 {
                fails = Some(*there);
            }
        }
        if fails.is_some() {
            told.fails = None;
            told.failures += 1;
        }
        if fails != Some(false) {
            self.inner.append(chunks)?;
        }
        match fails {
            Some(_) => Err(JournalError::HistoryDamaged { problem: "injected".into() }),
            None => Ok(()),
        }
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
