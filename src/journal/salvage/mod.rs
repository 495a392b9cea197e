//! Rebuilding a store from whatever can still be read of a damaged one.
//!
//! The damaged store is only read. Frames are found by their magic and their
//! checksums, wherever they are; where several say to be the same event, the chain
//! decides. What is found is told again in a fresh store, every number of it:
//!
//! ```text
//! files ─▶ carve ─▶ gather ─▶ choose ─▶ lives ─▶ write
//!          frames   by number  by chain  atoms    a store that verifies
//! ```

mod choose;
mod gather;
mod lives;
mod quiet;
mod write;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::choose::Bytes;
pub use self::choose::MAX_LOST;
use self::gather::Gathered;
use self::lives::Lives;
use self::write::{Retold, Story};
#[cfg(feature = "test-util")]
use super::carve::of_bytes;
use super::carve::{LONGEST, carve};
use super::error::{self, JournalError};
use super::frame;
use super::history::{head_of, part_of};
use super::wal::segment;
use super::{Fact, View};
use crate::atom::AtomId;

/// What a salvage has found, and what it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Salvaged {
    /// The number of the first event of the new store.
    pub first: u64,
    /// The number of the last one that the damaged store had, as far as it tells.
    pub last: u64,
    /// Events that were read.
    pub recovered: u64,
    /// Events that were not: each is an event `lost` in the new store.
    pub lost: u64,
    /// The numbers of these: from, and up to.
    pub gaps: Vec<(u64, u64)>,
    /// Atoms that exist.
    pub atoms: usize,
    /// Those among them whose life does not add up; the last events of the new store say so.
    pub invalid: Vec<AtomId>,
    /// What else is wrong with the damaged store, in words.
    pub problems: Vec<String>,
    /// A process had the damaged store open: what it has written since is not there.
    pub held: bool,
}

/// Rebuilds a store in `into`, which must not exist or be empty, from what can be read of the one in `damaged`.
///
/// The damaged store is neither written to nor locked. The new one passes
/// [`Journal::verify`](super::Journal::verify); it is a copy, as far as living processes go.
///
/// # Errors
///
/// [`JournalError::Io`] when `into` cannot be used or written, [`JournalError::Newer`],
/// and [`JournalError::Damaged`] when nothing of a journal is found. Nothing is left in `into` then.
pub fn salvage(damaged: &Path, into: &Path) -> Result<Salvaged, JournalError> {
    check(damaged, into)?;
    let held = quiet::is_held(damaged);
    let mut problems = Vec::new();
    let names = quiet::journal_files(damaged)
        .map_err(|source| error::io("cannot read store", damaged.to_owned(), source))?;
    let (paths, files) = open_all(names, &mut problems);
    let mut found = gather(&paths, &files, &mut problems);
    if let Some(format) = found.newer {
        let (found, known) = (u32::from(format), u32::from(frame::FORMAT));
        return Err(JournalError::Newer { path: damaged.to_owned(), found, known });
    }
    if found.frames == 0 {
        return Err(JournalError::Damaged {
            path: damaged.to_owned(),
            offset: 0,
            seq: None,
            problem: match problems.first() {
                Some(first) => format!("nothing of a journal can be found in it: {first}"),
                None => "nothing of a journal can be found in it".to_owned(),
            },
        });
    }
    let first = first_number(damaged, &paths, &files, &found, &mut problems);
    let settled = found.events.settle(first);
    let (first, last) = (settled.first, settled.last);
    problems.extend(settled.problems);
    let mut salvaged = Salvaged {
        first,
        last,
        recovered: 0,
        lost: 0,
        gaps: Vec::new(),
        atoms: 0,
        invalid: Vec::new(),
        problems,
        held,
    };
    let story = read(&mut found, &files, &mut salvaged)?;
    salvaged.atoms = story.view.len();
    salvaged.invalid.clone_from(&story.broken);
    let dir = write::begin(into)?;
    let source = Retold::again(&found.events, &files, &story);
    let written = write::write(&dir, &story, source).and_then(|()| {
        let cannot = |error: crate::Error| {
            error::io("cannot make a store of", dir.clone(), io::Error::other(error.to_string()))
        };
        crate::store::mark_as_copy(&dir, damaged).map_err(cannot)?;
        write::finish(&dir, into)
    });
    if let Err(error) = written {
        // What is left of it has no name that anybody would open.
        let _ = fs::remove_dir_all(&dir);
        return Err(error);
    }
    Ok(salvaged)
}

/// Whether there is something to read, and room to write.
fn check(damaged: &Path, into: &Path) -> Result<(), JournalError> {
    let store = damaged
        .canonicalize()
        .map_err(|source| error::io("cannot read store", damaged.to_owned(), source))?;
    let refused = |problem: &str| {
        let source = io::Error::new(io::ErrorKind::AlreadyExists, problem);
        Err(error::io("cannot salvage into", into.to_owned(), source))
    };
    match into.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(error::io("cannot look at", into.to_owned(), source)),
        Ok(metadata) if !metadata.is_dir() => {
            return refused("it is no directory: choose a new or an empty one");
        }
        Ok(_) => {
            let entries = into.read_dir();
            let mut entries =
                entries.map_err(|source| error::io("cannot read", into.to_owned(), source))?;
            if entries.next().is_some() {
                return refused("it is not empty: choose a new or an empty directory");
            }
        }
    }
    let absolute = std::path::absolute(into)
        .map_err(|source| error::io("cannot look at", into.to_owned(), source))?;
    let parent = absolute.ancestors().skip(1).find_map(|above| above.canonicalize().ok());
    if parent.is_some_and(|parent| parent.starts_with(&store)) {
        return refused("it is inside the damaged store, which is not written to");
    }
    Ok(())
}

fn open_all(names: Vec<PathBuf>, problems: &mut Vec<String>) -> (Vec<PathBuf>, Vec<File>) {
    let (mut paths, mut files) = (Vec::new(), Vec::new());
    for path in names {
        match quiet::open(&path) {
            Ok(file) => {
                paths.push(path);
                files.push(file);
            }
            Err(error) => problems.push(format!("{} cannot be opened: {error}", path.display())),
        }
    }
    (paths, files)
}

/// The first event of what a file is by its name: a segment, or what the history builds on.
fn named(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    segment::first_of(name).or_else(|| name.ends_with(".base").then(|| part_of(name)).flatten())
}

/// How far ahead is searched at a time.
const WINDOW: usize = 4 << 20;

/// Finds every frame in the files.
fn gather(paths: &[PathBuf], files: &[File], problems: &mut Vec<String>) -> Gathered {
    let mut found = Gathered::default();
    for (number, file) in files.iter().enumerate() {
        found.begin(number, named(&paths[number]));
        let read_at = |piece: &mut [u8], offset: u64| quiet::read_at(file, piece, offset);
        let unreadable = carve(WINDOW, LONGEST, read_at, &mut found);
        if unreadable > 0 {
            let path = paths[number].display();
            problems.push(format!("{unreadable} bytes of {path} cannot be read"));
        }
    }
    found.flush();
    found.put_together(|bytes| quiet::bytes(files, bytes));
    if found.unknown > 0 {
        problems.push(format!("{} whole frames say nothing that is known", found.unknown));
    }
    found
}

/// The head of a history is not longer than this, whatever is in its place.
const MAX_HEAD_BYTES: u64 = 64 << 20;

/// The first number of the store: 1, unless something was cut from it.
fn first_number(
    damaged: &Path,
    paths: &[PathBuf],
    files: &[File],
    found: &Gathered,
    problems: &mut Vec<String>,
) -> u64 {
    let told = paths.iter().position(|path| *path == damaged.join("history/head"));
    let told = told.and_then(|file| {
        let length = files[file].metadata().ok()?.len();
        let length = usize::try_from(length).ok().filter(|_| length <= MAX_HEAD_BYTES)?;
        head_of(&quiet::bytes(files, Bytes { file, offset: 0, length })?)
    });
    match told.map(|head| head.first.max(1)) {
        Some(first) if first == 1 || found.events.can_begin_with(first) => return first,
        Some(first) => problems.push(format!(
            "the head of the history says that the store begins with event {first}, and nothing else knows of it: it is not believed"
        )),
        None => {}
    }
    // Without a head, the parts of the history that there are say what was cut.
    let parts = paths.iter().filter_map(|path| {
        let name = path.strip_prefix(damaged.join("history")).ok()?.iter().next()?.to_str()?;
        part_of(name)
    });
    parts.min().filter(|first| found.events.can_begin_with(*first)).unwrap_or(1)
}

/// Goes through all that was found, in order.
fn read(
    found: &mut Gathered,
    files: &[File],
    salvaged: &mut Salvaged,
) -> Result<Story, JournalError> {
    let (first, last) = (salvaged.first, salvaged.last);
    let mut lives = Lives::default();
    let mut snapshots = std::mem::take(&mut found.snapshots);
    let later = snapshots.split_off(&first);
    let mut later = later.into_iter().peekable();
    let mut retold = Retold::new(&found.events, files, first, last);
    // What the first event builds on: the atoms some time before it, and what became of them.
    if let Some((seq, snapshot)) = snapshots.pop_last() {
        lives.snapshot(snapshot);
        for event in found.events.before(seq + 1) {
            if let Some(record) = retold.read(&event.place) {
                lives.event(&record);
            }
        }
    }
    while let Some((event, _)) = retold.next()? {
        let seq = event.header.seq;
        match event.record.fact {
            Fact::Lost => {
                salvaged.lost += 1;
                match salvaged.gaps.last_mut() {
                    Some((_, to)) if *to + 1 == seq => *to = seq,
                    Some(_) | None => salvaged.gaps.push((seq, seq)),
                }
            }
            Fact::Created(_)
            | Fact::Happened { .. }
            | Fact::RetryPlanned(_)
            | Fact::RetryDropped => {
                salvaged.recovered += 1;
                lives.event(&event.record);
            }
        }
        if let Some((_, snapshot)) = later.next_if(|(at, _)| *at == seq) {
            lives.snapshot(snapshot);
        }
    }
    let (chain, unreadable) = (retold.chain, retold.unreadable);
    let (view, broken): (View, Vec<AtomId>) = lives.end();
    Ok(Story { view, broken, first, last, chain, unreadable })
}

/// Any bytes as the file of a damaged store: finding never panics, and what is found leads to atoms.
#[cfg(feature = "test-util")]
pub(super) fn fuzz(bytes: &[u8]) {
    let mut found = Gathered::default();
    // Whatever it begins with is what its name says.
    let begins = frame::decode_header(bytes).ok().map(|header| header.seq + 1);
    found.begin(0, begins);
    carve(WINDOW, LONGEST, of_bytes(bytes), &mut found);
    found.flush();
    found.put_together(|piece| {
        let offset = usize::try_from(piece.offset).ok()?;
        Some(bytes.get(offset..offset + piece.length)?.to_vec())
    });
    let settled = found.events.settle(1);
    let events = found.events.settled(bytes);
    let lost = settled.last + 1 - settled.first - events.len() as u64;
    assert!(lost <= MAX_LOST, "{settled:?}");
    let mut lives = Lives::default();
    // No more than there are: what is lost says nothing of atoms.
    for (seq, record) in events {
        assert!((settled.first..=settled.last).contains(&seq));
        lives.event(&record);
        if let Some(snapshot) = found.snapshots.remove(&seq) {
            lives.snapshot(snapshot);
        }
    }
    let (view, broken) = lives.end();
    assert!(broken.iter().all(|id| view.get(*id).is_some()));
}
