//! The history: every event that has left the write-ahead log, packed.

mod base;
mod files;
mod memory;
mod packing;
mod sled;

use std::fmt;

use super::JournalError;
use crate::atom::AtomId;
use crate::text::named;

pub use self::sled::SledHistory;
pub use base::Base;
pub(crate) use files::head_of;
pub use memory::MemoryHistory;
pub(crate) use packing::Packing;

/// How far the history reaches. When all of it was cut, `last` is the event before `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The first event that is kept.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The checksum of the last one's frame.
    pub chain: u32,
}

/// What is known of a history without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryState {
    /// Nothing was packed yet.
    Absent,
    /// Nothing is known to be wrong with it.
    Whole,
    /// It cannot be read.
    Damaged,
}

named!(HistoryState, "state of a history", {
    Absent => "absent",
    Whole => "whole",
    Damaged => "damaged",
});

/// What a history takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryUsage {
    /// What is known of it.
    pub state: HistoryState,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Frames of consecutive events, verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The number of the first event.
    pub first: u64,
    /// The number of the last event.
    pub last: u64,
    /// The checksum of the last frame.
    pub chain: u32,
    /// Their frames, one after another.
    pub frames: Vec<u8>,
    /// Which atom each event is about.
    pub atoms: Vec<(AtomId, u64)>,
}

/// The most bytes of frames in one chunk, but for a single frame that is
/// larger, and in one value of sled.
///
/// sled puts up to seventeen neighbouring values into one page before it splits
/// it, and a page over a quarter of its segments becomes a blob, which it never
/// syncs: seventeen of these stay well below the 512 KiB that a quarter is.
pub const CHUNK_BYTES: usize = 16 << 10;

/// Where events go when their segment is sealed.
pub trait History: fmt::Debug + Send + Sync {
    /// How far it reaches; `None` while it is empty. Cheap: opens nothing that is large.
    fn head(&self) -> Result<Option<Head>, JournalError>;
    /// Appends chunks that follow the head. They are durable when it returns.
    fn append(&self, chunks: &[Chunk]) -> Result<(), JournalError>;
    /// The frames from the event with this number on, as many as are kept together.
    /// They may begin with events before it.
    fn frames(&self, seq: u64) -> Result<Option<Vec<u8>>, JournalError>;
    /// The numbers of the events of an atom that are in it.
    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError>;
    /// What its first event builds on; `None` when that is event 1, and nothing is needed.
    /// It may also be further on: what is before it can be read, and is not folded.
    fn base(&self) -> Result<Option<Base>, JournalError> {
        Ok(None)
    }
    /// Drops the events before `first`, for good, unless `going_on` says no. All
    /// others stay, and so does everything when it fails. A crash leaves either.
    /// `base` is the base from then on; it may lie after `first`, if it did before.
    fn cut(
        &self,
        first: u64,
        base: &Base,
        going_on: &dyn Fn() -> bool,
    ) -> Result<(), JournalError> {
        let _ = (first, base, going_on);
        let problem = "this history cannot be cut".to_owned();
        Err(JournalError::HistoryDamaged { problem })
    }
    /// Removes what an interrupted cut has left. Called when the journal is opened.
    fn tidy(&self) -> Result<(), JournalError> {
        Ok(())
    }
    /// What it takes on disk, and what is known of it. Opens nothing that is large.
    fn usage(&self) -> HistoryUsage {
        let state = match self.head() {
            Ok(None) => HistoryState::Absent,
            Ok(Some(_)) => HistoryState::Whole,
            Err(_) => HistoryState::Damaged,
        };
        HistoryUsage { state, bytes: 0 }
    }
    /// Hands the files over in a state that the next opening can prove whole. Idempotent.
    fn close(&self) -> Result<(), JournalError>;
}
