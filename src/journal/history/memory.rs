//! The in-memory twin of the history: parts in plain files of a [`MemoryStorage`], one for each.
//!
//! Which parts there are, and from where on they count, is decided by the very code that
//! decides it for sled, on a disk that fails, forgets and tears when it is told to.

use std::sync::Arc;

use super::head::read_file;
use super::parts::{Parts, number};
use super::shelf::{Access, Next, OpenPart, Shelf, Sizes};
use super::trouble::Trouble;
use super::{Base, Chunk, Head, HistoryUsage, Part, history_of_parts};
use crate::atom::AtomId;
use crate::journal::read::packed;
use crate::journal::storage::{Crash, Keep, MemoryStorage, Storage, StoredFile};
use crate::journal::{JournalError, error};

/// A history in memory.
#[derive(Debug)]
pub struct MemoryHistory {
    parts: Parts<Files>,
    memory: MemoryStorage,
}

impl MemoryHistory {
    /// An empty history, on a disk of its own.
    pub fn new() -> Self {
        Self::on(&MemoryStorage::new())
    }

    /// The history on a disk, beside the log that is there.
    pub fn on(disk: &MemoryStorage) -> Self {
        let memory = disk.dir("history");
        let storage = Arc::new(memory.clone());
        Self { parts: Parts::new(storage.clone(), Files { storage }), memory }
    }

    /// What the end of its host leaves: another history, with all of it.
    pub fn crash(&self) -> Self {
        let memory = self.memory.crash(Crash { seed: 0, keep: Keep::All, sector: 512 });
        let storage = Arc::new(memory.clone());
        Self { parts: Parts::new(storage.clone(), Files { storage }), memory }
    }
}

impl Default for MemoryHistory {
    fn default() -> Self {
        Self::new()
    }
}

history_of_parts!(MemoryHistory);

/// Each part is a file of frames.
#[derive(Debug)]
struct Files {
    storage: Arc<dyn Storage>,
}

const SUFFIX: &str = ".part";

fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// More than any part here has.
const MAX_BYTES: u64 = 1 << 32;

impl Files {
    fn failed(&self, first: u64) -> impl Fn(std::io::Error) -> Trouble {
        let path = self.storage.path(&name(first));
        move |source| Trouble::Io(error::io("cannot use", path.clone(), source))
    }
}

impl Shelf for Files {
    type Opened = OpenFile;

    fn sizes(&self) -> Sizes {
        // Small, so that what is done to a history in a test has several.
        Sizes { least: 1 << 10, most: 16 << 10, bases: 0, waste: 512, room: 256 }
    }

    fn create(&self, first: u64) -> Result<OpenFile, Trouble> {
        let failed = self.failed(first);
        match self.storage.remove(&name(first)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let file = self.storage.create(&name(first)).map_err(&failed)?;
        self.storage.sync_dir().map_err(&failed)?;
        Ok(OpenFile { file, events: Vec::new(), end: 0 })
    }

    fn open(&self, part: &Part, _: Access) -> Result<OpenFile, Trouble> {
        let bytes = read_file(&*self.storage, &name(part.first), MAX_BYTES)?
            .ok_or_else(|| Trouble::Damage("it is gone".to_owned()))?;
        let mut opened = OpenFile {
            file: self.storage.open(&name(part.first)).map_err(self.failed(part.first))?,
            events: Vec::new(),
            end: 0,
        };
        let (mut next, mut chain) = (part.first, None);
        while next <= part.last {
            let mut offset = opened.end;
            let event = packed(&bytes, &mut offset)?;
            let event = event.filter(|event| {
                event.header.seq == next && chain.is_none_or(|chain| chain == event.header.prev)
            });
            let Some(event) = event else {
                return Err(Trouble::Damage(format!("event {next} is missing")));
            };
            opened.events.push((next, opened.end, event.record.atom));
            (opened.end, next, chain) = (offset, next + 1, Some(event.header.crc));
        }
        if chain == Some(part.chain) {
            return Ok(opened);
        }
        Err(Trouble::Damage("it does not end as it should".to_owned()))
    }

    fn close(&self, _: u64, _: OpenFile, _: bool) -> Result<(), Trouble> {
        Ok(())
    }

    fn remove(&self, first: u64) -> Result<(), JournalError> {
        match self.storage.remove(&name(first)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(error::io("cannot remove", self.storage.path(&name(first)), source))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn tidy(&self, _: u64) -> Result<(), JournalError> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<u64>, JournalError> {
        let failed = |source| error::io("cannot list", self.storage.path(""), source);
        let names = self.storage.list().map_err(failed)?;
        Ok(names.iter().filter_map(|name| number(name.strip_suffix(SUFFIX)?)).collect())
    }

    fn has(&self, first: u64) -> bool {
        self.storage.open(&name(first)).is_ok()
    }

    fn bytes(&self) -> Result<u64, JournalError> {
        let failed = |source| error::io("cannot look at", self.storage.path(""), source);
        let names = self.storage.list().map_err(failed)?;
        let lengths = names.iter().map(|name| self.storage.open(name)?.len());
        lengths.sum::<std::io::Result<u64>>().map_err(failed)
    }
}

#[derive(Debug)]
struct OpenFile {
    file: Arc<dyn StoredFile>,
    /// Number, offset and atom of each event.
    events: Vec<(u64, usize, AtomId)>,
    end: usize,
}

/// How much is read at a time.
const PIECE: usize = 1 << 10;

impl OpenPart for OpenFile {
    fn append(&mut self, chunks: &[Chunk]) -> Result<(), Trouble> {
        let frames: Vec<u8> = chunks.iter().flat_map(|chunk| &chunk.frames).copied().collect();
        let failed = |e| Trouble::Io(error::io("cannot append", "memory".into(), e));
        self.file.write_at(&frames, self.end as u64).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        let mut offset = 0;
        while let Some(event) = packed(&frames, &mut offset)? {
            let at = self.end + offset - event.header.frame_bytes();
            self.events.push((event.header.seq, at, event.record.atom));
        }
        self.end += frames.len();
        Ok(())
    }

    fn chunk(&self, seq: u64, frames: &mut Vec<u8>) -> Result<Option<Next>, Trouble> {
        let Ok(at) = self.events.binary_search_by_key(&seq, |(seq, ..)| *seq) else {
            return Ok(None);
        };
        let start = self.events[at].1;
        let more = self.events[at..].iter().take_while(|(_, offset, _)| offset - start < PIECE);
        let next = self.events.get(at + more.count());
        let end = next.map_or(self.end, |(_, offset, _)| *offset);
        let before = frames.len();
        frames.resize(before + end - start, 0);
        let failed = |e| Trouble::Io(error::io("cannot read", "memory".into(), e));
        let read = self.file.read_at(&mut frames[before..], start as u64).map_err(failed)?;
        frames.truncate(before + read);
        Ok(Some(Next { first: next.map(|(seq, ..)| *seq) }))
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, Trouble> {
        let ours = self.events.iter().filter(|(_, _, of)| *of == atom);
        Ok(ours.map(|(seq, ..)| *seq).collect())
    }

    fn forget(self) {}
}
