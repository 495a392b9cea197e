//! A part that is read where it lies, without sled: it would change the files.
//!
//! sled writes each value in one piece, so the frames of a chunk stand one after another in its file, whatever stands
//! around them. Which of them count is told by the chain: back from the last event that the head knows, to the first.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::super::shelf::Next;
use super::super::trouble::Trouble;
use crate::atom::AtomId;
#[cfg(feature = "test-util")]
use crate::journal::carve::of_bytes;
use crate::journal::carve::{Finder, carve};
use crate::journal::error;
use crate::journal::frame::{self, Flaw, HEADER_BYTES, Header, Kind};
use crate::journal::storage::read_at;
use crate::journal::wal::reader::Brief;
use crate::journal::{CHUNK_BYTES, Part, codec};

/// How much is searched at a time.
const WINDOW: usize = 256 << 10;

/// An index with more entries is not kept: each takes 24 bytes.
const KEPT: usize = 40_000;

/// Frames that follow one another in the file.
#[derive(Debug)]
struct Stretch {
    first: u64,
    last: u64,
    /// The checksum of the frame before the first.
    prev: u32,
    /// The checksum of the last frame.
    chain: u32,
    place: Place,
}

impl Stretch {
    fn flawed(&self, flaw: Flaw) -> Trouble {
        Trouble::Damage(format!("event {}: {}", self.first, flaw.problem()))
    }
}

#[derive(Debug)]
enum Place {
    Whole {
        offset: u64,
        bytes: usize,
    },
    /// The one frame is in pieces, which are frames themselves: where each of them is.
    Pieces(Vec<(u64, usize)>),
}

/// A part that is open to be read.
#[derive(Debug)]
pub(super) struct InPlace {
    file: File,
    path: PathBuf,
    /// What counts, in order.
    stretches: Vec<Stretch>,
    /// Each atom with the first event of each stretch that has events of it, in order; once it was asked for, and if it is
    /// not too long to be kept.
    atoms: OnceLock<Vec<(AtomId, u64)>>,
}

impl InPlace {
    /// Finds the events of the part whose sled is in `dir`.
    pub(super) fn open(dir: &Path, part: &Part) -> Result<Self, Trouble> {
        let path = dir.join("db");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Trouble::Damage(format!("{} is gone", path.display())));
            }
            Err(source) => return Err(error::io("cannot open", path, source).into()),
        };
        let found = find(&file).map_err(|source| error::io("cannot read", path.clone(), source))?;
        let stretches = in_a_row(found, part)?;
        Ok(Self { file, path, stretches, atoms: OnceLock::new() })
    }

    /// As that of an open part.
    pub(super) fn chunk(&self, seq: u64, frames: &mut Vec<u8>) -> Result<Option<Next>, Trouble> {
        let at = self.stretches.partition_point(|stretch| stretch.last < seq);
        let Some(stretch) = self.stretches.get(at) else { return Ok(None) };
        self.frames(stretch, frames)?;
        Ok(Some(Next { first: self.stretches.get(at + 1).map(|next| next.first) }))
    }

    /// As that of an open part.
    pub(super) fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, Trouble> {
        if let Some(index) = self.atoms.get() {
            let at = index.partition_point(|(other, _)| *other < atom);
            let ours = index[at..].iter().take_while(|(other, _)| *other == atom);
            return Ok(ours.map(|(_, first)| *first).collect());
        }
        let (mut found, mut index) = (Vec::new(), Vec::new());
        self.each(|first, atoms| {
            if atoms.binary_search(&atom).is_ok() {
                found.push(first);
            }
            if index.len() <= KEPT {
                index.extend(atoms.iter().map(|atom| (*atom, first)));
            }
        })?;
        if index.len() <= KEPT {
            index.sort_unstable();
            index.shrink_to_fit();
            let _ = self.atoms.set(index);
        }
        Ok(found)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), Trouble> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|source| error::io("cannot read", self.path.clone(), source).into())
    }

    /// Appends the frames of a stretch.
    fn frames(&self, stretch: &Stretch, frames: &mut Vec<u8>) -> Result<(), Trouble> {
        let places = match &stretch.place {
            Place::Whole { offset, bytes } => {
                let before = frames.len();
                frames.resize(before + bytes, 0);
                return self.read(&mut frames[before..], *offset);
            }
            Place::Pieces(places) => places,
        };
        let mut piece = Vec::new();
        for (offset, bytes) in places {
            piece.resize(*bytes, 0);
            self.read(&mut piece, *offset)?;
            let (_, payload) = frame::decode(&piece).map_err(|flaw| stretch.flawed(flaw))?;
            frames.extend_from_slice(payload);
        }
        Ok(())
    }

    /// Reads all of it; gives the first event of each stretch, and the atoms that it has events of, each once, in order.
    fn each(&self, mut give: impl FnMut(u64, &[AtomId])) -> Result<(), Trouble> {
        let (mut atoms, mut frames) = (Vec::new(), Vec::new());
        for stretch in &self.stretches {
            atoms.clear();
            frames.clear();
            self.frames(stretch, &mut frames)?;
            let mut rest = &frames[..];
            while !rest.is_empty() {
                let (header, payload) = frame::decode(rest).map_err(|flaw| stretch.flawed(flaw))?;
                let brief: Brief = codec::decode_beginning(payload).map_err(Trouble::Damage)?;
                atoms.push(brief.atom);
                rest = &rest[header.frame_bytes()..];
            }
            atoms.sort_unstable();
            atoms.dedup();
            give(stretch.first, &atoms);
        }
        Ok(())
    }
}

/// All stretches of a file.
fn find(file: &File) -> io::Result<Vec<Stretch>> {
    let (mut found, mut failed) = (Found::default(), None);
    let read_at = |window: &mut [u8], offset| match read_at(file, window, offset) {
        Ok(read) => (read, 0),
        Err(error) => {
            failed = Some(error);
            (0, 0)
        }
    };
    carve(WINDOW, CHUNK_BYTES, read_at, &mut found);
    match failed {
        Some(error) => Err(error),
        None => Ok(found.finish()),
    }
}

/// Any bytes as the file of a part: whatever it is said to end with, finding its events does not panic.
#[cfg(feature = "test-util")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let stretches = || {
        let mut found = Found::default();
        carve(WINDOW, CHUNK_BYTES, of_bytes(bytes), &mut found);
        found.finish()
    };
    // No more than a few: each is looked for among all.
    let ends: Vec<(u64, u32)> =
        stretches().iter().map(|one| (one.last, one.chain)).take(8).collect();
    for (last, chain) in ends {
        for first in [1, last] {
            let part = Part { last, chain, ..super::super::parts::begun(first, true) };
            if let Ok(row) = in_a_row(stretches(), &part) {
                let mut next = None;
                for one in row {
                    assert!(next.is_none_or(|next| next == (one.first, one.prev)));
                    next = Some((one.last + 1, one.chain));
                }
                assert_eq!(next, Some((last + 1, chain)));
            }
        }
    }
}

/// What was found so far: stretches, and pieces that are not together yet.
#[derive(Debug, Default)]
struct Found {
    stretches: Vec<Stretch>,
    pieces: HashMap<(u64, u32), Pieces>,
}

/// What was found of a frame that is in pieces.
#[derive(Debug, Default)]
struct Pieces {
    /// The header of the frame, which the first of them begins with.
    whole: Option<Header>,
    places: HashMap<u32, (u64, usize)>,
}

impl Finder for Found {
    fn frame(&mut self, offset: u64, header: Header, frame: &[u8]) {
        match header.kind {
            Kind::Event => self.event(offset, header),
            Kind::Piece => {
                let pieces = self.pieces.entry((header.seq, header.prev)).or_default();
                pieces.places.insert(header.back, (offset, frame.len()));
                if header.back == 0 {
                    pieces.whole = frame::decode_header(&frame[HEADER_BYTES..]).ok();
                }
            }
            Kind::Header
            | Kind::Atom
            | Kind::SnapshotEnd
            | Kind::Footer
            | Kind::Opened
            | Kind::Progress => {}
        }
    }

    /// A part is of the format that its head has.
    fn newer(&mut self, _: u8) {}
}

impl Found {
    fn event(&mut self, offset: u64, header: Header) {
        if let Some(Stretch { last, chain, place: Place::Whole { offset: start, bytes }, .. }) =
            self.stretches.last_mut()
            && (*last + 1, *chain, *start + *bytes as u64) == (header.seq, header.prev, offset)
        {
            (*last, *chain) = (header.seq, header.crc);
            *bytes += header.frame_bytes();
            return;
        }
        let Header { seq, prev, crc, .. } = header;
        let place = Place::Whole { offset, bytes: header.frame_bytes() };
        self.stretches.push(Stretch { first: seq, last: seq, prev, chain: crc, place });
    }

    fn finish(mut self) -> Vec<Stretch> {
        for ((seq, crc), Pieces { whole, places }) in self.pieces {
            let Some(whole) = whole.filter(|whole| (whole.seq, whole.crc) == (seq, crc)) else {
                continue;
            };
            let bytes: usize = places.values().map(|(_, bytes)| bytes - HEADER_BYTES).sum();
            let in_order = (0..).map_while(|number| places.get(&number).copied());
            let in_order: Vec<_> = in_order.collect();
            if in_order.len() == places.len() && bytes == whole.frame_bytes() {
                let place = Place::Pieces(in_order);
                let (prev, chain) = (whole.prev, crc);
                self.stretches.push(Stretch { first: seq, last: seq, prev, chain, place });
            }
        }
        self.stretches
    }
}

/// Those that lead to the last event of the part, in order. There may be others: sled writes pages anew, and what a host
/// has packed before it died is packed again, perhaps in other chunks.
fn in_a_row(mut stretches: Vec<Stretch>, part: &Part) -> Result<Vec<Stretch>, Trouble> {
    stretches.sort_unstable_by_key(|stretch| stretch.last);
    // Those that follow from the first event of the part, by their ends; and what is before each.
    let mut reached: HashMap<(u64, u32), usize> = HashMap::new();
    let mut before = vec![None; stretches.len()];
    let mut missing = part.first;
    for (at, stretch) in stretches.iter().enumerate() {
        if stretch.first > part.first {
            match reached.get(&(stretch.first - 1, stretch.prev)) {
                Some(previous) => before[at] = Some(*previous),
                None => continue,
            }
        }
        missing = missing.max(stretch.last + 1);
        reached.entry((stretch.last, stretch.chain)).or_insert(at);
    }
    let mut next = reached.get(&(part.last, part.chain)).copied();
    if next.is_none() {
        let missing = missing.min(part.last);
        return Err(Trouble::Damage(format!("event {missing} is missing")));
    }
    let mut counts = vec![false; stretches.len()];
    while let Some(at) = next {
        counts[at] = true;
        next = before[at];
    }
    let mut counts = counts.into_iter();
    stretches.retain(|_| counts.next().unwrap_or(false));
    Ok(stretches)
}

#[cfg(test)]
mod tests;
