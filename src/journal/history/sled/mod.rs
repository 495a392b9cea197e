//! The history in sled, which is never trusted further than it was proven.
//!
//! sled does not sync what it flushes, can panic on damaged files, and changes
//! them when it opens them. So: our own fdatasync after every flush; a head
//! beside it that says how far each part must reach; a checksum of the files of a part since they
//! were handed over; a copy to open, whenever the checksum does not match; and no sled at all for who only reads.

mod files;
mod guard;
mod in_place;
mod part;
mod row;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::guard::caught;
use self::in_place::InPlace;
#[cfg(feature = "test-util")]
pub(crate) use self::in_place::fuzz;
use self::part::OpenSled;
use super::parts::{Parts, number};
use super::shelf::{Access, Next, OpenPart, Shelf, Sizes};
use super::trouble::Trouble;
use super::{Base, Chunk, Head, HistoryUsage, Part, history_of_parts};
use crate::atom::AtomId;
use crate::journal::error;
use crate::journal::history::Packing;
use crate::journal::open::make_dir;
use crate::journal::storage::DiskStorage;
use crate::journal::wal::reader::ReadEvent;
use crate::journal::{JournalError, PART_BYTES};

/// The history of a store, in `<store>/history`.
#[derive(Debug)]
pub struct SledHistory {
    parts: Parts<SledShelf>,
}

impl SledHistory {
    /// The history of the store in `store`. Nothing is opened or made before it is needed.
    pub fn new(store: &Path) -> Self {
        Self::with_parts(store, PART_BYTES)
    }

    /// The same, with parts of so many bytes of events at the least.
    pub fn with_parts(store: &Path, bytes: u64) -> Self {
        let dir = store.join("history");
        let storage = Arc::new(DiskStorage::new(dir.clone()));
        let (most, waste) = (bytes.saturating_mul(LARGEST), bytes / 2);
        let sizes = Sizes { least: bytes, most, bases: BASES, waste, room: ROOM_BYTES };
        Self { parts: Parts::new(storage, SledShelf { dir, sizes }) }
    }

    /// Writes a history from the event `first` on that does not fold; `source` gives its events in order, with
    /// their frames.
    pub(crate) fn archive(
        &self,
        first: u64,
        source: &mut dyn FnMut() -> Result<Option<(ReadEvent, Vec<u8>)>, JournalError>,
    ) -> Result<(), JournalError> {
        let dir = &self.parts.shelf.dir;
        if first > 1 && !dir.is_dir() {
            make_dir(dir)?;
        }
        self.parts.begin_with(first)?;
        let mut packing = Packing::default();
        loop {
            match source()? {
                Some((event, frame)) => packing.add(&event, &frame),
                None => return self.parts.archive(&packing.finish()),
            }
            if packing.bytes() >= ARCHIVED_BYTES {
                self.parts.archive(&std::mem::take(&mut packing).finish())?;
            }
        }
    }
}

/// The largest parts are so many times as large as the smallest.
const LARGEST: u64 = 32;

/// What a part begins with is a copy of all atoms: it is to be a small part of it.
const BASES: u64 = 8;

/// Set aside for a head, and what its name takes: a head of a thousand parts.
const ROOM_BYTES: u64 = 64 << 10;

/// How much of an archive is in memory at a time.
const ARCHIVED_BYTES: usize = 4 << 20;

history_of_parts!(SledHistory);

/// Each part is a sled in a directory of its own, named by its first event.
#[derive(Debug)]
struct SledShelf {
    dir: PathBuf,
    sizes: Sizes,
}

impl SledShelf {
    fn part(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}"))
    }

    /// The files themselves, which sled changes.
    fn open_files(&self, dir: &Path, part: &Part) -> Result<OpenSled, Trouble> {
        if !files::sums_match(dir)? {
            // The last host did not hand it over. sled gets a copy, and the
            // original stays as it is until the copy has proven itself.
            let copy = files::first_that(dir, |source| {
                let copy = files::copy_for_proof(source, dir)?;
                let proven = caught(|| {
                    let opened = OpenSled::open(&copy)?;
                    opened.cut_beyond(part.last)?;
                    opened.prove(part)?;
                    opened.shut()?;
                    Ok(files::sync_tree(&copy)?)
                });
                if proven.is_err() {
                    let _ = files::remove_tree(&copy);
                }
                proven.map(|()| copy)
            })?;
            files::exchange(dir, &copy)?;
        } else {
            files::set_aside(dir)?;
        }
        // From here on sled changes the files, and takes a read that fails for
        // damage that it may cut away: so what was proven stays until it is open.
        let opened = caught(|| {
            files::forget_sums(dir)?;
            let opened = OpenSled::open(dir)?;
            opened.must_end_with(part)?;
            Ok(opened)
        });
        match opened {
            Ok(opened) => {
                if let Err(error) = files::remove_old(dir) {
                    tracing::warn!(%error, "what a part was before it was opened takes room");
                }
                Ok(opened)
            }
            Err(trouble) => {
                files::restore(dir)?;
                Err(trouble)
            }
        }
    }
}

/// A part that is open.
#[derive(Debug)]
enum Opened {
    /// To be read.
    InPlace(InPlace),
    /// To be appended to.
    Sled(OpenSled),
}

impl OpenPart for Opened {
    fn append(&mut self, chunks: &[Chunk]) -> Result<(), Trouble> {
        match self {
            Self::InPlace(_) => Err(Trouble::Damage("it is open to be read".to_owned())),
            Self::Sled(part) => part.append(chunks),
        }
    }

    fn chunk(&self, seq: u64, frames: &mut Vec<u8>) -> Result<Option<Next>, Trouble> {
        match self {
            Self::InPlace(part) => part.chunk(seq, frames),
            Self::Sled(part) => part.chunk(seq, frames),
        }
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, Trouble> {
        match self {
            Self::InPlace(part) => part.of_atom(atom),
            Self::Sled(part) => part.of_atom(atom),
        }
    }

    fn forget(self) {
        match self {
            Self::InPlace(_) => {}
            Self::Sled(part) => part.forget(),
        }
    }
}

impl Shelf for SledShelf {
    type Opened = Opened;

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn create(&self, first: u64) -> Result<Opened, Trouble> {
        if !self.dir.is_dir() {
            make_dir(&self.dir)?;
        }
        let dir = self.part(first);
        files::remove_part(&dir)?;
        make_dir(&dir)?;
        let opened = caught(|| OpenSled::open(&dir))?;
        files::sync_tree(&dir)?;
        Ok(Opened::Sled(opened))
    }

    fn open(&self, part: &Part, access: Access) -> Result<Opened, Trouble> {
        let dir = self.part(part.first);
        files::finish_exchange(&dir)?;
        if !dir.is_dir() {
            return Err(Trouble::Damage(format!("{} is gone", dir.display())));
        }
        match access {
            Access::Read => {
                files::first_that(&dir, |dir| InPlace::open(dir, part)).map(Opened::InPlace)
            }
            Access::Append => self.open_files(&dir, part).map(Opened::Sled),
        }
    }

    fn close(&self, first: u64, opened: Opened, hand_over: bool) -> Result<(), Trouble> {
        let Opened::Sled(opened) = opened else { return Ok(()) };
        let dir = self.part(first);
        caught(|| opened.shut())?;
        if hand_over {
            files::sync_tree(&dir)?;
            if let Err(error) = files::write_sums(&dir) {
                // On a full disk, say. Nothing is lost: the next opening proves a copy.
                tracing::warn!(%error, "a part of the history has no checksums");
            }
        }
        Ok(())
    }

    fn remove(&self, first: u64) -> Result<(), JournalError> {
        files::remove_part(&self.part(first))
    }

    fn tidy(&self, first: u64) -> Result<(), JournalError> {
        files::tidy(&self.part(first))
    }

    fn list(&self) -> Result<Vec<u64>, JournalError> {
        let failed = |source| error::io("cannot list", self.dir.clone(), source);
        let mut firsts = Vec::new();
        for entry in self.dir.read_dir().map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // A base alone is no part.
            let first = name.to_str().map(files::split);
            firsts.extend(
                first
                    .filter(|(_, end)| !end.starts_with("base"))
                    .and_then(|(first, _)| number(first)),
            );
        }
        firsts.sort_unstable();
        firsts.dedup();
        Ok(firsts)
    }

    fn has(&self, first: u64) -> bool {
        let dir = self.part(first);
        dir.is_dir() || files::was_set_aside(&dir)
    }

    fn bytes(&self) -> Result<u64, JournalError> {
        files::disk_bytes(&self.dir)
            .map_err(|source: io::Error| error::io("cannot look at", self.dir.clone(), source))
    }
}
