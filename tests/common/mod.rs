//! What the journal's tests share: atoms with a life, and stores to break.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caesium::atom::{Atom, AtomId, AtomSpec};
use caesium::journal::storage::{DiskStorage, MemoryStorage, Storage};
use caesium::journal::{
    Creation, Fact, History, Journal, JournalError, JournalOptions, MemoryHistory, Record,
    Recovery, Ticket,
};
use caesium::lifecycle::{Event, Reason};
use caesium::{Durability, Timestamp};

pub fn id(number: u64) -> AtomId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes[6] = 0x70;
    AtomId::from_bytes(bytes)
}

pub fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

pub fn created(spec: AtomSpec) -> Fact {
    Fact::Created(Creation {
        engine: "test".into(),
        spec: Arc::new(spec),
        attempt: 1,
        retry_of: None,
    })
}

pub fn started() -> Fact {
    Event::Started { pid: Some(42) }.into()
}

pub fn lost() -> Fact {
    Event::LostSight { reason: Reason::ExitUnobserved }.into()
}

/// Appends one fact, without waiting.
pub fn queue(journal: &Journal, atom: AtomId, fact: Fact) -> Result<Ticket, JournalError> {
    let seconds = journal.recent_seq();
    let (_, ticket): (Atom, Ticket) =
        journal.change(|draft| draft.append(atom, at(seconds), fact))?;
    Ok(ticket)
}

/// Appends one fact and waits until it is durable.
pub fn append(journal: &Journal, atom: AtomId, fact: Fact) -> Result<(), JournalError> {
    queue(journal, atom, fact)?.wait()
}

/// The life of one atom up to its deletion: five events.
pub fn life(journal: &Journal, number: u64) -> Result<(), JournalError> {
    let atom = id(number);
    append(journal, atom, created(AtomSpec::command("true").arg(format!("number {number}"))))?;
    append(journal, atom, started())?;
    append(journal, atom, lost())?;
    append(journal, atom, Event::DeleteAsked.into())?;
    append(journal, atom, Event::Removed.into())
}

/// A store that outlives its journal: in memory, or in a directory.
#[derive(Debug, Clone)]
pub struct Store {
    pub storage: Arc<dyn Storage>,
    pub history: Arc<dyn History>,
    pub memory: Option<MemoryStorage>,
    dir: Option<Arc<tempfile::TempDir>>,
}

impl Store {
    pub fn memory() -> Self {
        let memory = MemoryStorage::new();
        let history = MemoryHistory::on(&memory);
        Self::on(memory, Arc::new(history))
    }

    pub fn on(memory: MemoryStorage, history: Arc<dyn History>) -> Self {
        Self { storage: Arc::new(memory.clone()), history, memory: Some(memory), dir: None }
    }

    pub fn disk() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let storage = Arc::new(DiskStorage::new(dir.path()));
        Self { storage, history: Arc::new(MemoryHistory::new()), memory: None, dir: Some(dir) }
    }

    pub fn open_with(&self, options: JournalOptions) -> Result<(Journal, Recovery), JournalError> {
        Journal::open(self.storage.clone(), self.history.clone(), options)
    }

    pub fn open(&self) -> (Journal, Recovery) {
        self.open_with(small()).unwrap()
    }

    pub fn disk_twin(&self) -> &MemoryStorage {
        self.memory.as_ref().unwrap()
    }
}

/// Segments of 16 KiB, so that a test meets more than one.
pub fn small() -> JournalOptions {
    JournalOptions::default().durability(Durability::Sync).segment_bytes(16 << 10)
}

pub fn all(journal: &Journal) -> Vec<Record> {
    journal.read(1).unwrap().map(Result::unwrap).collect()
}

/// What the atoms are, in a form that can be compared after reopening.
pub fn states(journal: &Journal) -> Vec<String> {
    journal.with_view(|view| view.atoms().map(|atom| format!("{atom:?}")).collect())
}

/// All files under a directory.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Copies a directory with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
