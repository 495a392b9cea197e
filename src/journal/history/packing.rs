//! Frames on their way into chunks.

use super::{CHUNK_BYTES, Chunk};
use crate::journal::wal::reader::ReadEvent;

/// Chunks in the making.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    chunks: Vec<Chunk>,
    bytes: usize,
}

impl Packing {
    /// Adds an event, and the bytes of its frame.
    pub(crate) fn add(&mut self, event: &ReadEvent, frame: &[u8]) {
        let ReadEvent { header, record } = event;
        self.bytes += frame.len();
        let last = self.chunks.last_mut();
        match last.filter(|chunk| chunk.frames.len() + frame.len() <= CHUNK_BYTES) {
            Some(chunk) => {
                chunk.last = header.seq;
                chunk.chain = header.crc;
                chunk.frames.extend_from_slice(frame);
                chunk.oldest = chunk.oldest.min(record.at);
                chunk.newest = chunk.newest.max(record.at);
                if let Err(place) = chunk.atoms.binary_search(&record.atom) {
                    chunk.atoms.insert(place, record.atom);
                }
            }
            None => self.chunks.push(Chunk {
                first: header.seq,
                last: header.seq,
                chain: header.crc,
                frames: frame.to_vec(),
                atoms: vec![record.atom],
                oldest: record.at,
                newest: record.at,
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
