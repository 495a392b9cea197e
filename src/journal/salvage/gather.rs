//! All that is found in the files of a journal.

use std::collections::BTreeMap;

use super::choose::{Bytes, Candidate, Candidates, Place};
use super::lives::Snapshot;
use crate::atom::Known;
use crate::journal::carve::Finder;
use crate::journal::frame::{self, HEADER_BYTES, Header, Kind};
use crate::journal::wal::segment::{SegmentHeader, SnapshotEnd};
use crate::journal::{Fact, Record, codec};

/// No frame is in more pieces, whatever says so.
const MAX_PIECES: usize = 1 << 10;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) events: Candidates,
    /// By the last event before each.
    pub(super) snapshots: BTreeMap<u64, Snapshot>,
    /// Frames that are in pieces, by number and checksum: each piece by its own number.
    pieces: BTreeMap<(u64, u32), BTreeMap<u32, Bytes>>,
    /// Whole frames, of any kind.
    pub(super) frames: u64,
    /// Frames that are whole and whose payload says nothing that is known.
    pub(super) unknown: u64,
    pub(super) newer: Option<u8>,
    file: usize,
    /// The first event of the segment that the file should be, by its name.
    named: Option<u64>,
    under_way: Option<UnderWay>,
}

/// A snapshot of which not everything was met yet.
#[derive(Debug)]
struct UnderWay {
    seq: u64,
    prev: u32,
    /// How many atoms it has, if its header is whole and nothing after it is missing.
    told: Option<u64>,
    snapshot: Snapshot,
}

impl Gathered {
    /// What comes is from another file; its name may say with which event it begins.
    pub(super) fn begin(&mut self, file: usize, named: Option<u64>) {
        self.flush();
        self.file = file;
        self.named = named;
    }

    /// Nothing more comes from this file.
    pub(super) fn flush(&mut self) {
        let Some(UnderWay { seq, snapshot, .. }) = self.under_way.take() else { return };
        let kept = self.snapshots.entry(seq).or_default();
        if snapshot.complete {
            *kept = snapshot;
        } else if !kept.complete {
            kept.atoms.extend(snapshot.atoms);
        }
    }

    fn found(&mut self, header: Header, frame: &[u8], place: Place) {
        self.frames += 1;
        let payload = &frame[HEADER_BYTES..];
        match header.kind {
            Kind::Header => {
                self.flush();
                self.events.anchor(header.seq, header.prev);
                // Nothing that an atom has a hand in is at the beginning of a file; and what is
                // there must be what the file's name says, or it came there by damage.
                if let Place::Whole(Bytes { offset: 0, .. }) = place
                    && self.named == Some(header.seq + 1)
                {
                    self.events.tell(header.seq);
                }
                let told: Option<SegmentHeader> = codec::decode(payload).ok();
                self.under_way = Some(UnderWay {
                    seq: header.seq,
                    prev: header.crc,
                    told: told.map(|told| told.atoms),
                    snapshot: Snapshot::default(),
                });
            }
            Kind::Atom => match codec::decode::<Known>(payload) {
                Ok(known) => self.atom(header, known),
                Err(_) => self.unknown += 1,
            },
            Kind::SnapshotEnd => {
                let told: Option<SnapshotEnd> = codec::decode(payload).ok();
                if let Some(one) = &mut self.under_way
                    && one.seq == header.seq
                {
                    let all = one.snapshot.atoms.len() as u64;
                    one.snapshot.complete = one.prev == header.prev
                        && one.told == Some(all)
                        && told.is_some_and(|told| told.atoms == all);
                }
                self.flush();
            }
            Kind::Event => {
                self.flush();
                match codec::decode::<Record>(payload) {
                    Ok(record) if record.seq != header.seq || record.seq == 0 => self.unknown += 1,
                    // It was lost before.
                    Ok(Record { fact: Fact::Lost, .. }) => {
                        self.events.anchor(header.seq, header.crc);
                    }
                    Ok(_) => {
                        let Header { crc, prev, seq, .. } = header;
                        self.events.add(seq, Candidate { crc, prev, place });
                    }
                    Err(_) => self.unknown += 1,
                }
            }
            Kind::Footer => {
                self.flush();
                self.events.anchor(header.seq, header.prev);
            }
            Kind::Opened | Kind::Progress => self.flush(),
            Kind::Piece => {
                if let Place::Whole(bytes) = place {
                    let pieces = self.pieces.entry((header.seq, header.prev)).or_default();
                    pieces.entry(header.back).or_insert(bytes);
                }
            }
        }
    }

    /// Puts together what is in pieces; `read` gives the bytes of a file.
    pub(super) fn put_together(&mut self, read: impl Fn(Bytes) -> Option<Vec<u8>>) {
        for ((seq, crc), pieces) in std::mem::take(&mut self.pieces) {
            let in_order = pieces
                .into_iter()
                .zip(0..)
                .map_while(|((number, bytes), expected)| (number == expected).then_some(bytes));
            let pieces: Vec<Bytes> = in_order.take(MAX_PIECES).collect();
            if pieces.is_empty() || self.events.has(seq, crc) {
                continue;
            }
            let place = Place::Pieces(pieces);
            let Some(whole) = place.frame(&read) else { continue };
            if let Ok((header, _)) = frame::decode(&whole)
                && (header.kind, header.seq, header.crc) == (Kind::Event, seq, crc)
                && header.frame_bytes() == whole.len()
            {
                self.found(header, &whole, place);
            }
        }
    }

    fn atom(&mut self, header: Header, known: Known) {
        if self.under_way.as_ref().is_some_and(|one| one.seq != header.seq) {
            self.flush();
        }
        let one = self.under_way.get_or_insert_with(|| UnderWay {
            seq: header.seq,
            prev: 0,
            told: None,
            snapshot: Snapshot::default(),
        });
        if one.prev != header.prev {
            one.told = None;
        }
        one.prev = header.crc;
        one.snapshot.atoms.push(known);
    }
}

impl Finder for Gathered {
    fn frame(&mut self, offset: u64, header: Header, frame: &[u8]) {
        let bytes = Bytes { file: self.file, offset, length: frame.len() };
        self.found(header, frame, Place::Whole(bytes));
    }

    fn newer(&mut self, format: u8) {
        self.newer = self.newer.max(Some(format));
    }
}
