//! Making a segment: whole and durable under a temporary name before it gets its own.

use std::io;
use std::sync::Arc;

use super::segment::{
    self, FIXED_ROOM, Layout, SEGMENT_HEADER_BYTES, SegmentHeader, SnapshotEnd, TEMPORARY,
};
use crate::atom::Atom;
use crate::journal::codec;
use crate::journal::frame::{self, Kind, Place};
use crate::journal::storage::{Storage, StoredFile};
use crate::journal::{JournalError, error};

/// A segment that is written to.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn StoredFile>,
    /// The number of its first event.
    pub(crate) first: u64,
    /// Where in the file what is.
    pub(crate) layout: Layout,
    /// Where the first event's frame begins.
    pub(crate) start: u64,
}

/// The first bytes of a segment with `room` bytes for events, and what its file is like.
pub(crate) fn preface(
    first: u64,
    chain: u32,
    atoms: &[Atom],
    room: u64,
) -> Result<(Vec<u8>, Layout), JournalError> {
    snapshot(first, chain, atoms, Some(FIXED_ROOM + room))
}

/// A header and a snapshot, for a file with so many bytes for frames `after` them or with nothing, and
/// what that file is like.
pub(crate) fn snapshot(
    first: u64,
    chain: u32,
    atoms: &[Atom],
    after: Option<u64>,
) -> Result<(Vec<u8>, Layout), JournalError> {
    let seq = first - 1;
    let mut snapshot = Vec::new();
    // The snapshot's chain begins with the header, and the header tells the
    // snapshot's length: so the header is made again once that is known. Its
    // own length never changes.
    let lengths: Vec<Vec<u8>> =
        atoms.iter().map(|atom| codec::encode(atom.known())).collect::<Result<_, _>>()?;
    let end = codec::encode(&SnapshotEnd { atoms: atoms.len() as u64 })?;
    let snapshot_bytes: usize =
        lengths.iter().chain([&end]).map(|payload| frame::HEADER_BYTES + payload.len()).sum();
    let start = (SEGMENT_HEADER_BYTES + snapshot_bytes) as u64;
    let layout =
        after.map_or(Layout::plain(start), |after| Layout::with_end(start.saturating_add(after)));
    let header = SegmentHeader {
        bytes: layout.bytes,
        atoms: atoms.len() as u64,
        snapshot_bytes: snapshot_bytes as u64,
    };
    let place = Place { kind: Kind::Header, back: layout.back(), seq, prev: chain };
    let mut prev = frame::encode(place, &codec::encode(&header)?, &mut snapshot);
    for payload in &lengths {
        prev =
            frame::encode(Place { kind: Kind::Atom, back: 0, seq, prev }, payload, &mut snapshot);
    }
    frame::encode(Place { kind: Kind::SnapshotEnd, back: 0, seq, prev }, &end, &mut snapshot);
    Ok((snapshot, layout))
}

/// A segment that is whole and durable under its temporary name.
#[derive(Debug)]
pub(crate) struct Prepared {
    temporary: String,
    segment: Segment,
}

impl Prepared {
    /// Writes a segment whose first event will be `first`, with `room` bytes for events.
    ///
    /// # Errors
    ///
    /// When it fails the temporary file is removed, as far as that succeeds.
    pub(crate) fn write(
        storage: &dyn Storage,
        first: u64,
        chain: u32,
        atoms: &[Atom],
        room: u64,
    ) -> Result<Self, JournalError> {
        let name = segment::name(first);
        let temporary = format!("{name}{TEMPORARY}");
        let (preface, layout) = preface(first, chain, atoms, room)?;
        match fill(storage, &temporary, &preface, layout.bytes) {
            Ok(file) => {
                let start = preface.len() as u64;
                Ok(Self { temporary, segment: Segment { name, file, first, layout, start } })
            }
            Err(source) => {
                // What is left of it is in nobody's way: the next open removes it.
                let _ = storage.remove(&temporary);
                Err(error::io("cannot make segment", storage.path(&temporary), source))
            }
        }
    }

    /// Gives it its name. Durable after [`Storage::sync_dir`].
    ///
    /// # Errors
    ///
    /// When it fails the temporary file is removed, as far as that succeeds.
    pub(crate) fn install(self, storage: &dyn Storage) -> Result<Segment, JournalError> {
        if let Err(source) = storage.rename(&self.temporary, &self.segment.name) {
            let _ = storage.remove(&self.temporary);
            let path = storage.path(&self.temporary);
            return Err(error::io("cannot rename segment", path, source));
        }
        Ok(self.segment)
    }
}

fn fill(
    storage: &dyn Storage,
    temporary: &str,
    preface: &[u8],
    bytes: u64,
) -> io::Result<Arc<dyn StoredFile>> {
    if storage.list()?.iter().any(|name| name == temporary) {
        // Of an earlier try that could not be removed.
        storage.remove(temporary)?;
    }
    let file = storage.create(temporary)?;
    file.allocate(bytes)?;
    file.write_at(preface, 0)?;
    file.sync_data()?;
    Ok(file)
}
