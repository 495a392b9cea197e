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
    pub(crate) fn add(&mut self, event: ReadEvent) {
        let (seq, frame) = (event.header.seq, event.frame);
        self.bytes += frame.len();
        let last = self.chunks.last_mut();
        match last.filter(|chunk| chunk.frames.len() + frame.len() <= CHUNK_BYTES) {
            Some(chunk) => {
                chunk.last = seq;
                chunk.chain = event.header.crc;
                chunk.frames.extend_from_slice(&frame);
                chunk.atoms.push((event.record.atom, seq));
            }
            None => self.chunks.push(Chunk {
                first: seq,
                last: seq,
                chain: event.header.crc,
                frames: frame,
                atoms: vec![(event.record.atom, seq)],
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
