//! The beginning of a segment: its header, and the atoms that there were.

use std::path::PathBuf;

use super::segment::{self, Layout, SEGMENT_HEADER_BYTES, SegmentHeader, SnapshotEnd, Spot};
use crate::atom::Known;
use crate::journal::frame::{self, Kind};
use crate::journal::{JournalError, View, codec};

/// What is before the first event of a segment.
#[derive(Debug)]
pub(crate) struct Preface {
    pub(crate) path: PathBuf,
    /// The number of the first event.
    pub(crate) first: u64,
    pub(crate) layout: Layout,
    /// Where it ends.
    pub(crate) end: usize,
    /// The checksum that the first event follows.
    pub(crate) chain: u32,
    pub(crate) view: View,
}

impl Preface {
    /// Reads it, of a file of this length, from bytes that reach at least to its end. It was durable before the
    /// segment got its name, so any flaw is damage.
    pub(crate) fn read(
        bytes: &[u8],
        length: u64,
        path: PathBuf,
        first: u64,
    ) -> Result<Self, JournalError> {
        let spot = |offset: usize| Spot { path: path.clone(), offset: offset as u64, seq: None };
        let (header, payload) = frame::decode(bytes).map_err(|flaw| spot(0).flawed(flaw))?;
        if header.kind != Kind::Header || header.seq != first - 1 {
            return Err(spot(0).damaged("this is not the segment that its name says"));
        }
        let told: SegmentHeader = segment::payload(payload, || spot(0))?;
        if told.bytes != length {
            let problem = format!("the file has {length} bytes, not {}", told.bytes);
            return Err(spot(0).damaged(problem));
        }
        let Some(layout) = Layout::of(header, length) else {
            return Err(spot(0).damaged("the file is not divided as a segment is"));
        };
        let end = usize::try_from(layout.end).unwrap_or(usize::MAX);
        let bytes = bytes.get(..end).unwrap_or(bytes);
        let chain = header.prev;
        let mut view = View::default();
        let (mut offset, mut prev, mut atoms) = (header.frame_bytes(), header.crc, 0);
        loop {
            let rest = bytes.get(offset..).unwrap_or_default();
            let (header, payload) =
                frame::decode(rest).map_err(|flaw| spot(offset).flawed(flaw))?;
            if header.prev != prev || header.seq != first - 1 {
                return Err(spot(offset).damaged("the snapshot is not in one piece"));
            }
            prev = header.crc;
            match header.kind {
                Kind::Atom => {
                    let known: Known = segment::payload(payload, || spot(offset))?;
                    view.restore(known);
                    atoms += 1;
                    offset += header.frame_bytes();
                }
                Kind::SnapshotEnd => {
                    let end: SnapshotEnd = segment::payload(payload, || spot(offset))?;
                    offset += header.frame_bytes();
                    let length = (offset - SEGMENT_HEADER_BYTES) as u64;
                    if end.atoms != atoms || told.atoms != atoms || told.snapshot_bytes != length {
                        return Err(spot(offset).damaged("the snapshot is not complete"));
                    }
                    return Ok(Self { path, first, layout, end: offset, chain, view });
                }
                Kind::Header
                | Kind::Event
                | Kind::Footer
                | Kind::Opened
                | Kind::Piece
                | Kind::Progress => {
                    return Err(spot(offset).damaged("the snapshot has no end"));
                }
            }
        }
    }
}

/// How many bytes the preface has of the segment that begins with these, as its header tells.
pub(crate) fn told_bytes(beginning: &[u8]) -> Option<usize> {
    let (_, payload) = frame::decode(beginning).ok()?;
    let told: SegmentHeader = codec::decode(payload).ok()?;
    SEGMENT_HEADER_BYTES.checked_add(usize::try_from(told.snapshot_bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::frame::Place;

    #[test]
    fn a_header_that_leaves_no_room_for_itself_is_damage() {
        for (length, back) in [(512, 512), (4608, 4608), (4608, 4607), (4608, 4549)] {
            let told = SegmentHeader { bytes: length, atoms: 0, snapshot_bytes: 0 };
            let mut bytes = Vec::new();
            let place = Place { kind: Kind::Header, back, seq: 0, prev: 0 };
            frame::encode(place, &codec::encode(&told).unwrap(), &mut bytes);
            bytes.resize(length as usize, 0);
            let read = Preface::read(&bytes, length, PathBuf::new(), 1);
            assert!(
                matches!(read, Err(JournalError::Damaged { .. })),
                "{length}, {back}: {read:?}"
            );
        }
    }
}
