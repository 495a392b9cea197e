//! The history: every event that has left the write-ahead log, packed.
//!
//! ```text
//! Parts ─ the head says which parts count ─ head.rs
//!   │      begun, appended to, cut          ─ parts.rs, cut.rs
//!   └─ a Shelf keeps them: in sled (sled/), or in a file of a Storage (memory.rs)
//! ```

mod base;
mod cut;
mod head;
mod memory;
mod packing;
mod parts;
mod shelf;
mod sled;
mod trouble;

use std::fmt;

use super::JournalError;
use crate::atom::AtomId;
use crate::text::named;
use crate::time::Timestamp;

pub use self::sled::SledHistory;
#[cfg(feature = "test-util")]
pub(crate) use self::sled::fuzz;
pub use base::Base;
pub(crate) use cut::wasted;
pub(crate) use head::head_of;
pub use memory::MemoryHistory;
pub(crate) use packing::Packing;
pub(crate) use parts::number_of as part_of;

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

/// What is known of a part of the history without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its first event. The oldest part may have some that are no longer kept.
    pub first: u64,
    /// Its last event.
    pub last: u64,
    /// The checksum of the last event's frame.
    pub chain: u32,
    /// Folding its events gives the atoms. What a salvage has written does not fold.
    pub folds: bool,
    /// Bytes of frames.
    pub bytes: u64,
    /// The earliest time of an event in it.
    pub oldest: Timestamp,
    /// The latest.
    pub newest: Timestamp,
}

/// What is known of a history without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryState {
    /// Nothing was packed yet.
    Absent,
    /// Nothing is known to be wrong with it.
    Whole,
    /// It cannot be read, or a part of it cannot.
    Damaged,
}

named!(HistoryState, "state of a history", {
    Absent => "absent",
    Whole => "whole",
    Damaged => "damaged",
});

/// What a history takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryUsage {
    /// What is known of it.
    pub state: HistoryState,
    /// How many parts it has.
    pub parts: usize,
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
    /// Which atoms the events are about, each once, in order.
    pub atoms: Vec<AtomId>,
    /// The earliest time of an event.
    pub oldest: Timestamp,
    /// The latest.
    pub newest: Timestamp,
}

/// The most bytes of frames in one chunk, but for a single frame that is
/// larger, and in one value of sled.
///
/// sled may write a page anew with all its values, and a page over a quarter of its
/// segments becomes a blob, which it never syncs: the seventeen values that a page can
/// have at the most stay below that.
pub const CHUNK_BYTES: usize = 12 << 10;

/// Where events go when their segment is sealed.
pub trait History: fmt::Debug + Send + Sync {
    /// How far it reaches; `None` while it is empty. Cheap: opens nothing that is large.
    fn head(&self) -> Result<Option<Head>, JournalError>;
    /// Makes sure that what the head says is durable: before anything goes because of it.
    fn settle(&self) -> Result<(), JournalError> {
        Ok(())
    }
    /// Its parts, in order. Cheap as well.
    fn parts(&self) -> Result<Vec<Part>, JournalError>;
    /// Appends chunks that follow the head. They are durable when it returns.
    /// `base` gives what the first of them builds on: a new part may begin there.
    fn append(
        &self,
        chunks: &[Chunk],
        base: &mut dyn FnMut() -> Result<Base, JournalError>,
    ) -> Result<(), JournalError>;
    /// The frames of the chunk that has this event, and of those after it until they have
    /// `most` bytes together, or more; `None` where there is none.
    /// They may begin with events before it, and with events that are no longer kept.
    fn frames(&self, seq: u64, most: usize) -> Result<Option<Vec<u8>>, JournalError>;
    /// The first events of the chunks that have events of an atom, in order.
    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError>;
    /// What the part that begins with this event builds on; `None` when it does not fold.
    fn base(&self, first: u64) -> Result<Option<Base>, JournalError>;
    /// Drops the events before `first`. They are not kept any more, though some of them may
    /// be on disk until the part that they are in goes. All others stay, and so does everything
    /// when it fails. A crash leaves either. What may take long is left out once `going_on`
    /// says no.
    fn cut(&self, first: u64, going_on: &dyn Fn() -> bool) -> Result<(), JournalError>;
    /// Removes what something that was interrupted has left. Called when the journal is opened.
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
        HistoryUsage { state, parts: self.parts().map_or(0, |parts| parts.len()), bytes: 0 }
    }
    /// Hands the files over in a state that the next opening can prove whole. Idempotent.
    fn close(&self) -> Result<(), JournalError>;
}

/// Implements [`History`] by a field `parts`.
macro_rules! history_of_parts {
    ($name:ty) => {
        impl crate::journal::history::History for $name {
            fn head(&self) -> Result<Option<Head>, JournalError> {
                self.parts.head()
            }
            fn settle(&self) -> Result<(), JournalError> {
                self.parts.settle()
            }
            fn parts(&self) -> Result<Vec<Part>, JournalError> {
                self.parts.parts()
            }
            fn append(
                &self,
                chunks: &[Chunk],
                base: &mut dyn FnMut() -> Result<Base, JournalError>,
            ) -> Result<(), JournalError> {
                self.parts.append(chunks, base)
            }
            fn frames(&self, seq: u64, most: usize) -> Result<Option<Vec<u8>>, JournalError> {
                self.parts.frames(seq, most)
            }
            fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
                self.parts.of_atom(atom)
            }
            fn base(&self, first: u64) -> Result<Option<Base>, JournalError> {
                self.parts.base(first)
            }
            fn cut(&self, first: u64, going_on: &dyn Fn() -> bool) -> Result<(), JournalError> {
                self.parts.cut(first, going_on)
            }
            fn tidy(&self) -> Result<(), JournalError> {
                self.parts.tidy()
            }
            fn usage(&self) -> HistoryUsage {
                self.parts.usage()
            }
            fn close(&self) -> Result<(), JournalError> {
                self.parts.close()
            }
        }
    };
}
pub(crate) use history_of_parts;
