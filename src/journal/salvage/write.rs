//! Telling the story again, in a fresh store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::subscriber::NoSubscriber;

use super::choose::{Candidates, Place};
use super::quiet;
use crate::atom::{Atom, AtomId};
use crate::journal::frame::{self, CHAIN_START, HEADER_BYTES, Kind};
use crate::journal::history::SledHistory;
use crate::journal::open::{make_dir, sync_dir};
use crate::journal::options::FIRST_SEGMENT_BYTES;
use crate::journal::reserve::Population;
use crate::journal::storage::{DiskStorage, Storage};
use crate::journal::wal::create::Prepared;
use crate::journal::wal::reader::ReadEvent;
use crate::journal::{
    Fact, Journal, JournalError, JournalOptions, Note, Record, View, codec, error,
};
use crate::lifecycle::{Event, Reason, State};
use crate::time::{Timestamp, now};

/// The events from one number to another, in a chain of their own; one that
/// could not be read is said to be lost.
pub(super) struct Retold<'a> {
    pub(super) events: &'a Candidates,
    pub(super) files: &'a [File],
    pub(super) next: u64,
    pub(super) last: u64,
    pub(super) chain: u32,
    pub(super) at: Timestamp,
    /// Events that were found and could not be read after that.
    pub(super) unreadable: BTreeSet<u64>,
    /// It is told once more, and must be the same.
    again: bool,
}

impl<'a> Retold<'a> {
    pub(super) fn new(events: &'a Candidates, files: &'a [File], first: u64, last: u64) -> Self {
        let (at, unreadable) = (Timestamp::default(), BTreeSet::new());
        let chain = CHAIN_START;
        Self { events, files, next: first, last, chain, at, unreadable, again: false }
    }

    /// The same events once more.
    pub(super) fn again(events: &'a Candidates, files: &'a [File], story: &Story) -> Self {
        let unreadable = story.unreadable.clone();
        Self { unreadable, again: true, ..Self::new(events, files, story.first, story.last) }
    }

    /// The next event, and its frame.
    pub(super) fn next(&mut self) -> Result<Option<(ReadEvent, Vec<u8>)>, JournalError> {
        if self.next > self.last {
            return Ok(None);
        }
        let seq = self.next;
        let found = self.events.get(seq).filter(|_| !self.unreadable.contains(&seq));
        let record = match found.map(|one| self.read(&one.place)) {
            Some(Some(record)) => record,
            Some(None) if self.again => {
                let source = io::Error::other("it could be read before");
                return Err(error::io(
                    "cannot read once more event",
                    seq.to_string().into(),
                    source,
                ));
            }
            other => {
                if other.is_some() {
                    self.unreadable.insert(seq);
                }
                Record {
                    seq,
                    at: self.at,
                    atom: AtomId::from_bytes([0; 16]),
                    state: State::Invalid,
                    fact: Fact::Lost,
                }
            }
        };
        self.at = record.at;
        let payload = codec::encode(&record)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        let place = frame::Place { kind: Kind::Event, back: 0, seq, prev: self.chain };
        self.chain = frame::encode(place, &payload, &mut bytes);
        let unreadable = |flaw: frame::Flaw| JournalError::Inconsistent {
            seq,
            problem: flaw.problem().to_owned(),
        };
        let header = frame::decode_header(&bytes).map_err(unreadable)?;
        self.next += 1;
        Ok(Some((ReadEvent { header, record }, bytes)))
    }

    pub(super) fn read(&self, place: &Place) -> Option<Record> {
        let frame = place.frame(|bytes| quiet::bytes(self.files, bytes))?;
        // It was whole when it was found; whoever holds the store may have removed it since.
        let (_, payload) = frame::decode(&frame).ok()?;
        codec::decode(payload).ok()
    }
}

/// What is written.
pub(super) struct Story {
    pub(super) view: View,
    pub(super) broken: Vec<AtomId>,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) chain: u32,
    /// Events that were found and could not be read after that.
    pub(super) unreadable: BTreeSet<u64>,
}

/// Writes a store into the directory `dir`, which must be new, and proves it.
pub(super) fn write(dir: &Path, story: &Story, mut source: Retold<'_>) -> Result<(), JournalError> {
    let wal = dir.join("wal");
    make_dir(&wal)?;
    let history = SledHistory::new(dir);
    history.archive(story.first, &mut || source.next())?;
    let storage = DiskStorage::new(wal);
    let atoms: Vec<Atom> = story.view.atoms().cloned().collect();
    let room = FIRST_SEGMENT_BYTES + Population::count(atoms.iter().map(Atom::state)).full();
    Prepared::write(&storage, story.last + 1, story.chain, &atoms, room)?.install(&storage)?;
    storage
        .sync_dir()
        .map_err(|source| error::io("cannot sync directory", storage.path(""), source))?;
    let options = JournalOptions::default().must_exist(true);
    let (journal, _) = Journal::open(Arc::new(storage), Arc::new(history), options)?;
    // What it makes invalid is in its report: nothing outside contradicts anything.
    let _silent = tracing::subscriber::set_default(NoSubscriber::new());
    for atoms in story.broken.chunks(64) {
        let ((), ticket) = journal.change(|draft| -> Result<(), JournalError> {
            for atom in atoms {
                draft.append(*atom, now(), contradiction())?;
            }
            Ok(())
        })?;
        ticket.wait()?;
    }
    journal.verify()?;
    journal.close()
}

fn contradiction() -> Fact {
    let detail = "events of its life could not be read when the store was salvaged";
    let note = Note { detail: Some(detail.into()), ..Note::default() };
    Fact::Happened { event: Event::Contradiction { reason: Reason::EventsLost }, note }
}

/// Where the store is written before it has its name.
pub(super) fn temporary(into: &Path) -> PathBuf {
    let mut name = into.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

/// Makes the directory that is written to, in place of one that an interrupted salvage has left.
pub(super) fn begin(into: &Path) -> Result<PathBuf, JournalError> {
    let dir = temporary(into);
    let failed = |what| {
        let dir = dir.clone();
        move |source| error::io(what, dir, source)
    };
    match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("cannot read")(error)),
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed("cannot read"))?.file_name();
                let name = name.to_string_lossy();
                let ours =
                    name == "wal" || name.starts_with("history") || name.starts_with("FORMAT");
                if !ours {
                    let problem = format!("{name:?} is in it: remove the directory yourself");
                    return Err(failed("cannot use")(io::Error::other(problem)));
                }
            }
            fs::remove_dir_all(&dir).map_err(failed("cannot remove"))?;
        }
    }
    make_dir(&dir)?;
    Ok(dir)
}

/// Gives the store its name.
pub(super) fn finish(dir: &Path, into: &Path) -> Result<(), JournalError> {
    sync_dir(dir)?;
    fs::rename(dir, into)
        .map_err(|source| error::io("cannot rename to", into.to_owned(), source))?;
    match into.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => sync_dir(Path::new(".")),
    }
}
