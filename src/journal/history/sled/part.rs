//! One part in sled: what is in it, and how it is found.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `frames` | a number, from 0 | a chunk of frames; or a piece of a frame that is longer than a chunk |
//! | `starts` | the first event of a chunk | the number of its value, and how many values it has |
//! | `atoms` | a number, from 0 | atoms, sorted, each with the first event of a chunk that has events of it |

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::super::shelf::{Next, OpenPart};
use super::super::trouble::Trouble;
use super::files;
use super::guard::{caught, watched};
use super::row::{Row, number};
use crate::atom::AtomId;
use crate::journal::error;
use crate::journal::frame::{self, HEADER_BYTES, Kind, Place};
use crate::journal::read::packed;
use crate::journal::{CHUNK_BYTES, Chunk, Part};

/// Fixed when a part is made. A value, or a page with its values, over a quarter of it would
/// become a blob, which sled never syncs; a larger one makes opening slower.
const SEGMENT_BYTES: usize = 1 << 20;

/// sled's default is a gigabyte.
const CACHE_BYTES: u64 = 8 << 20;

/// Frames that are flushed between two fdatasyncs: what can be torn or
/// reordered must stay far below one of sled's segments.
const SYNC_BYTES: usize = 128 << 10;

/// For how long sled's file lock, which can outlive its process, is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// An atom and the first event of a chunk.
const ENTRY_BYTES: usize = 24;

/// A sled that is open. Its `Drop` panics when a sync fails, so everything of it is
/// dropped where that is caught, or never.
#[derive(Debug)]
pub(super) struct OpenSled {
    sled: ManuallyDrop<Trees>,
    /// Our own descriptor of sled's file: the one that is synced.
    file: File,
    dir: PathBuf,
}

#[derive(Debug)]
struct Trees {
    frames: Row,
    starts: sled::Tree,
    atoms: Row,
    /// After the trees, which are of it.
    db: sled::Db,
}

impl OpenSled {
    /// Lets sled open the files in `dir`, or make them. They must be proven, or a copy.
    pub(super) fn open(dir: &Path) -> Result<Self, Trouble> {
        files::remove_unfinished_snapshots(dir)?;
        let config = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None);
        let patience = Instant::now() + LOCK_PATIENCE;
        let db = loop {
            match config.open() {
                // Whatever fails from here on, it is not dropped.
                Ok(db) => break ManuallyDrop::new(db),
                Err(sled::Error::Io(error)) if Instant::now() < patience && is_lock(&error) => {
                    thread::park_timeout(Duration::from_millis(10));
                }
                Err(sled::Error::Io(source)) => {
                    return Err(error::io("cannot open history", dir.to_owned(), source).into());
                }
                Err(error) => return Err(error.into()),
            }
        };
        let starts = ManuallyDrop::new(db.open_tree("starts")?);
        let next = match starts.last()? {
            Some((_, place)) => {
                let (value, values) = place_of(&place)?;
                value.saturating_add(values)
            }
            None => 0,
        };
        let frames = ManuallyDrop::new(Row::open(db.open_tree("frames")?, next)?);
        let atoms = ManuallyDrop::new(atoms(db.open_tree("atoms")?)?);
        files::make_private(dir)?;
        let path = dir.join("db");
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| error::io("cannot open", path, source))?;
        let trees = Trees {
            frames: ManuallyDrop::into_inner(frames),
            starts: ManuallyDrop::into_inner(starts),
            atoms: ManuallyDrop::into_inner(atoms),
            db: ManuallyDrop::into_inner(db),
        };
        Ok(Self { sled: ManuallyDrop::new(trees), file, dir: dir.to_owned() })
    }

    /// Closes it, and waits until it has written what it had.
    pub(super) fn shut(self) -> Result<(), Trouble> {
        let Self { sled, file, dir } = self;
        watched("close", move || {
            drop(ManuallyDrop::into_inner(sled));
            Ok(())
        })?;
        file.sync_all().map_err(|source| error::io("cannot sync history", dir, source))?;
        Ok(())
    }

    /// Removes what an interrupted packing has left: it is still in the write-ahead log, and
    /// may be here in part. Values that nothing starts with are nobody's.
    pub(super) fn cut_beyond(&self, last: u64) -> Result<(), Trouble> {
        for entry in self.sled.starts.range((last + 1).to_be_bytes()..) {
            let (key, _) = entry?;
            self.sled.starts.remove(key)?;
        }
        Ok(())
    }

    /// Its last event must be the one that it is told to be.
    pub(super) fn must_end_with(&self, part: &Part) -> Result<(), Trouble> {
        let last = match self.sled.starts.last()? {
            Some((first, place)) => {
                let mut frames = Vec::new();
                self.values(first_of(&first)?, &place, &mut frames)?;
                last_of(&frames)?
            }
            None => None,
        };
        if last == Some((part.last, part.chain)) {
            return Ok(());
        }
        let found = last.map_or(0, |(seq, _)| seq);
        let problem = format!("it ends with event {found}, and should with {}", part.last);
        Err(Trouble::Damage(problem))
    }

    /// Reads everything: the frames must be whole, follow one another, reach the
    /// end that is told, and the index must know each of them.
    pub(super) fn prove(&self, part: &Part) -> Result<(), Trouble> {
        let damage = |problem: String| Err(Trouble::Damage(problem));
        let mut index = Vec::new();
        for entry in self.sled.atoms.tree.iter() {
            index.extend(entries(&entry?.1)?);
        }
        index.sort_unstable();
        let (mut next, mut chain, mut frames) = (part.first, None, Vec::new());
        while next <= part.last {
            frames.clear();
            let Some(Next { first: after }) = self.read(next, &mut frames)? else {
                return damage(format!("event {next} is missing"));
            };
            let (first, mut offset) = (next, 0);
            while let Some(event) = packed(&frames, &mut offset)? {
                if event.header.seq != next || chain.is_some_and(|c| c != event.header.prev) {
                    return damage(format!("event {next} does not follow the one before it"));
                }
                if index.binary_search(&(event.record.atom, first)).is_err() {
                    return damage(format!("the index does not know event {next}"));
                }
                (next, chain) = (next + 1, Some(event.header.crc));
            }
            if after.is_some_and(|after| after != next) || next == first {
                return damage(format!("event {next} is missing"));
            }
        }
        match chain == Some(part.chain) && next == part.last + 1 {
            true => Ok(()),
            false => damage(format!("event {} is not the one that was packed", part.last)),
        }
    }

    /// Appends the frames of the chunk that would have the event with this number.
    fn read(&self, seq: u64, frames: &mut Vec<u8>) -> Result<Option<Next>, Trouble> {
        let starts = &self.sled.starts;
        let Some(found) = starts.range(..=seq.to_be_bytes()).next_back() else { return Ok(None) };
        let (first, place) = found?;
        let next = starts.range((first_of(&first)? + 1).to_be_bytes()..).next().transpose()?;
        let next = next.map(|(first, _)| first_of(&first)).transpose()?;
        self.values(first_of(&first)?, &place, frames)?;
        Ok(Some(Next { first: next }))
    }

    /// Appends the frames of a chunk, put together where they are in pieces.
    fn values(&self, first: u64, place: &[u8], frames: &mut Vec<u8>) -> Result<(), Trouble> {
        let (value, values) = place_of(place)?;
        let missing = || Trouble::Damage(format!("the frames from event {first} on are missing"));
        if values == 1 {
            frames.extend_from_slice(&self.sled.frames.get(value)?.ok_or_else(missing)?);
            return Ok(());
        }
        for number in value..value.saturating_add(values) {
            let piece = self.sled.frames.get(number)?.ok_or_else(missing)?;
            let (header, bytes) = frame::decode(&piece)
                .map_err(|flaw| Trouble::Damage(format!("event {first}: {}", flaw.problem())))?;
            if (header.kind, header.seq) != (Kind::Piece, first) || header.back != number - value {
                return Err(missing());
            }
            frames.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn insert(&mut self, chunks: &[Chunk]) -> Result<(), Trouble> {
        let mut index: Vec<(AtomId, u64)> = Vec::new();
        for chunk in chunks {
            index.extend(chunk.atoms.iter().map(|atom| (*atom, chunk.first)));
        }
        index.sort_unstable();
        // First the index: frames that it does not know would be damage, the reverse is not.
        for some in index.chunks(CHUNK_BYTES / ENTRY_BYTES) {
            let mut value = Vec::with_capacity(some.len() * ENTRY_BYTES);
            for (atom, first) in some {
                value.extend(atom.to_bytes());
                value.extend(first.to_be_bytes());
            }
            self.sled.atoms.push(&value)?;
        }
        let mut pending = 0;
        for chunk in chunks {
            let value = self.sled.frames.next();
            for piece in pieces(chunk)? {
                self.sled.frames.push(&piece)?;
                pending += piece.len();
                if pending >= SYNC_BYTES {
                    self.sync()?;
                    pending = 0;
                }
            }
            let values = self.sled.frames.next() - value;
            let place = [value.to_be_bytes(), values.to_be_bytes()].concat();
            self.sled.starts.insert(chunk.first.to_be_bytes(), place)?;
        }
        self.sync()
    }

    fn sync(&self) -> Result<(), Trouble> {
        let db = sled::Db::clone(&self.sled.db);
        watched("flush", move || db.flush())?;
        // A failed sync is final: what was flushed may be gone, and a second one would not tell.
        self.file.sync_data().map_err(|error| Trouble::Damage(format!("its sync failed: {error}")))
    }
}

impl OpenPart for OpenSled {
    fn append(&mut self, chunks: &[Chunk]) -> Result<(), Trouble> {
        caught(|| {
            let mut rest = chunks;
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |chunk: &&Chunk| {
                    let fits = bytes == 0 || bytes + chunk.frames.len() <= SYNC_BYTES;
                    bytes += chunk.frames.len();
                    fits
                };
                let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
                self.insert(now)?;
                rest = later;
            }
            Ok(())
        })
    }

    fn chunk(&self, seq: u64, frames: &mut Vec<u8>) -> Result<Option<Next>, Trouble> {
        caught(|| self.read(seq, frames))
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, Trouble> {
        caught(|| {
            let mut firsts = Vec::new();
            for entry in self.sled.atoms.tree.iter() {
                let value = entry?.1;
                let from = (AtomId::from_bytes(atom.to_bytes()), 0);
                let entries = entries(&value)?;
                let at = entries.partition_point(|entry| *entry < from);
                let ours = entries[at..].iter().take_while(|(other, _)| *other == atom);
                firsts.extend(ours.map(|(_, first)| *first));
            }
            // The index is written first, so it may know of what was packed only later, or never.
            firsts.sort_unstable();
            firsts.dedup();
            Ok(firsts)
        })
    }

    fn forget(self) {
        let Self { sled, file, dir: _ } = self;
        // `ManuallyDrop` drops nothing by itself.
        let _ = sled;
        drop(file);
    }
}

/// The index goes on after its last value.
fn atoms(tree: sled::Tree) -> Result<Row, Trouble> {
    let mut next = 0;
    for entry in tree.iter().rev() {
        let (key, value) = entry?;
        if !value.is_empty() {
            next = number(&key)? + 1;
            break;
        }
    }
    Row::open(tree, next)
}

fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("lock")
}

fn first_of(key: &[u8]) -> Result<u64, Trouble> {
    let first = key.try_into().map(u64::from_be_bytes);
    first.map_err(|_| Trouble::Damage("a bad key among the starts".into()))
}

/// The number of a chunk's first value, and how many it has.
fn place_of(value: &[u8]) -> Result<(u32, u32), Trouble> {
    let bad = || Trouble::Damage("a bad value among the starts".into());
    let (first, count) = value.split_first_chunk::<4>().ok_or_else(bad)?;
    let count = u32::from_be_bytes(count.try_into().map_err(|_| bad())?);
    if count == 0 { Err(bad()) } else { Ok((u32::from_be_bytes(*first), count)) }
}

fn entries(value: &[u8]) -> Result<Vec<(AtomId, u64)>, Trouble> {
    if !value.len().is_multiple_of(ENTRY_BYTES) {
        return Err(Trouble::Damage("a bad value in the index".into()));
    }
    let entries = value.chunks_exact(ENTRY_BYTES).map(|entry| {
        let (mut atom, mut first) = ([0; 16], [0; 8]);
        atom.copy_from_slice(&entry[..16]);
        first.copy_from_slice(&entry[16..]);
        (AtomId::from_bytes(atom), u64::from_be_bytes(first))
    });
    Ok(entries.collect())
}

/// The last event of frames, and its checksum.
fn last_of(frames: &[u8]) -> Result<Option<(u64, u32)>, Trouble> {
    let mut offset = 0;
    let mut last = None;
    while let Some(event) = packed(frames, &mut offset)? {
        last = Some((event.header.seq, event.header.crc));
    }
    Ok(last)
}

/// The values of a chunk: the frames themselves, or a frame for each piece of the one frame
/// that is too long, so that a piece is found and proven without sled's help.
fn pieces(chunk: &Chunk) -> Result<Vec<Cow<'_, [u8]>>, Trouble> {
    if chunk.frames.len() <= CHUNK_BYTES {
        return Ok(vec![Cow::Borrowed(&chunk.frames)]);
    }
    let whole = frame::decode_header(&chunk.frames)
        .map_err(|flaw| Trouble::Damage(flaw.problem().to_owned()))?;
    let pieces = chunk.frames.chunks(CHUNK_BYTES - HEADER_BYTES).zip(0..).map(|(bytes, back)| {
        let mut piece = Vec::with_capacity(HEADER_BYTES + bytes.len());
        let place = Place { kind: Kind::Piece, back, seq: whole.seq, prev: whole.crc };
        frame::encode(place, bytes, &mut piece);
        Cow::Owned(piece)
    });
    Ok(pieces.collect())
}
