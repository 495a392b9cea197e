//! Frames on their way into chunks.

use super::{CHUNK_BYTES, Chunk};
use crate::atom::AtomId;
use crate::journal::frame::Header;
use crate::journal::wal::reader::ReadEvent;
use crate::time::Timestamp;

/// Chunks in the making.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    chunks: Vec<Chunk>,
    bytes: usize,
}

impl Packing {
    /// Adds an event, and the bytes of its frame.
    pub(crate) fn add(&mut self, event: &ReadEvent, frame: &[u8]) {
        self.add_frame(&event.header, event.record.atom, event.record.at, frame);
    }

    /// The same, where not more of it is known.
    pub(crate) fn add_frame(&mut self, header: &Header, atom: AtomId, at: Timestamp, frame: &[u8]) {
        self.bytes += frame.len();
        let last = self.chunks.last_mut();
        match last.filter(|chunk| chunk.frames.len() + frame.len() <= CHUNK_BYTES) {
            Some(chunk) => {
                chunk.last = header.seq;
                chunk.chain = header.crc;
                chunk.frames.extend_from_slice(frame);
                chunk.oldest = chunk.oldest.min(at);
                chunk.newest = chunk.newest.max(at);
                if let Err(place) = chunk.atoms.binary_search(&atom) {
                    chunk.atoms.insert(place, atom);
                }
            }
            None => self.chunks.push(Chunk {
                first: header.seq,
                last: header.seq,
                chain: header.crc,
                frames: frame.to_vec(),
                atoms: vec![atom],
                oldest: at,
                newest: at,
            }),
        }
    }

    /// Bytes of frames so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn finish(self) -> Vec<Chunk> {
        self.chunks
    }
}
