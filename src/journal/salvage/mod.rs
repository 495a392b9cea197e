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

mod carve;
mod choose;
mod gather;
mod lives;
mod quiet;
mod write;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::choose::MAX_LOST;
use self::gather::Gathered;
use self::lives::Lives;
use self::write::{Retold, Story};
use super::error::{self, JournalError};
use super::frame;
use super::history::head_of;
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
            problem: "nothing of a journal can be found in it".to_owned(),
        });
    }
    let first = first_number(&paths, &found, &mut problems);
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
    let source = Retold::new(&found.events, &files, first, last);
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
    segment::first_of(name)
}

/// Finds every frame in the files.
fn gather(paths: &[PathBuf], files: &[File], problems: &mut Vec<String>) -> Gathered {
    let mut found = Gathered::default();
    for (number, file) in files.iter().enumerate() {
        found.begin(number, named(&paths[number]));
        let read_at = |piece: &mut [u8], offset: u64| quiet::read_at(file, piece, offset);
        let unreadable = carve::carve(read_at, &mut found);
        if unreadable > 0 {
            let path = paths[number].display();
            problems.push(format!("{unreadable} bytes of {path} cannot be read"));
        }
    }
    found.flush();
    let headless = std::mem::take(&mut found.headless);
    let missing: Vec<_> = headless
        .into_iter()
        .filter(|(_, header, _)| !found.events.has(header.seq, header.crc))
        .collect();
    if !missing.is_empty() {
        put_together(&missing, files, &mut found);
    }
    if found.unknown > 0 {
        problems.push(format!("{} whole frames say nothing that is known", found.unknown));
    }
    found
}

/// Finds the pieces of frames that were packed in several values.
fn put_together(missing: &[(usize, frame::Header, Vec<u8>)], files: &[File], found: &mut Gathered) {
    use self::carve::Finder;
    let mut contents: Vec<Vec<u8>> = Vec::new();
    let mut of: Vec<usize> = missing.iter().map(|(file, ..)| *file).collect();
    of.dedup();
    contents.extend(of.into_iter().filter_map(|file| files.get(file)).map(whole));
    for (_, header, beginning) in missing {
        if found.events.has(header.seq, header.crc) {
            continue;
        }
        if let Some(frame) = carve::in_log(*header, beginning, &contents) {
            found.stitched(*header, frame);
        }
    }
}

/// All of a file that can be read.
fn whole(file: &File) -> Vec<u8> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let (read, _) = quiet::read_at(file, &mut bytes, 0);
    bytes.truncate(read);
    bytes
}

/// The first number of the store: 1, unless something was cut from it.
fn first_number(paths: &[PathBuf], found: &Gathered, problems: &mut Vec<String>) -> u64 {
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let head = paths.iter().find(|path| name(path).as_deref() == Some("history.head"));
    let told = head.and_then(|path| quiet::open(path).ok()).and_then(|file| head_of(&whole(&file)));
    match told.map(|head| head.first.max(1)) {
        Some(first) if first == 1 || found.events.can_begin_with(first) => return first,
        Some(first) => problems.push(format!(
            "the head of the history says that the store begins with event {first}, and nothing else knows of it: it is not believed"
        )),
        None => {}
    }
    // Only what was cut has generations, or something that it builds on.
    let was_cut = paths.iter().any(|path| {
        path.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            let mut rest = part.strip_prefix("history.").into_iter().flat_map(|s| s.split('.'));
            rest.any(|part| part == "base" || part.parse::<u64>().is_ok())
        })
    });
    if was_cut { found.events.first().unwrap_or(1) } else { 1 }
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
    // What the first event builds on; older ones leave a gap.
    if let Some(snapshot) = snapshots.remove(&(first - 1)) {
        lives.snapshot(snapshot);
    }
    let mut later = later.into_iter().peekable();
    let mut retold = Retold::new(&found.events, files, first, last);
    while let Some(event) = retold.next()? {
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
    let chain = retold.chain;
    let (view, broken): (View, Vec<AtomId>) = lives.end();
    Ok(Story { view, broken, first, last, chain })
}

/// Any bytes as the file of a damaged store: finding never panics, and what is found leads to atoms.
#[cfg(feature = "test-util")]
pub(super) fn fuzz(bytes: &[u8]) {
    let mut found = Gathered::default();
    // Whatever it begins with is what its name says.
    let begins = frame::decode_header(bytes).ok().map(|header| header.seq + 1);
    found.begin(0, begins);
    let read_at = |piece: &mut [u8], offset: u64| {
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let read = rest.len().min(piece.len());
        piece[..read].copy_from_slice(&rest[..read]);
        (read, 0)
    };
    carve::carve(read_at, &mut found);
    found.flush();
    for (_, header, beginning) in std::mem::take(&mut found.headless) {
        let _ = carve::in_log(header, &beginning, &[bytes.to_vec()]);
    }
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
