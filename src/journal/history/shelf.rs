//! Where parts are kept: the seam between the history as a whole and one part of it.

use std::fmt;

use super::trouble::Trouble;
use super::{Chunk, Part};
use crate::atom::AtomId;
use crate::journal::JournalError;

/// How a part is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be read: what is kept stays as it is.
    Read,
    /// To be appended to.
    Append,
}

/// How large parts are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// A part takes as many bytes of frames before another one is begun.
    pub(crate) least: u64,
    /// However long the history is, a part takes no more, but for one segment.
    pub(crate) most: u64,
    /// A part is at least so many times as large as the atoms that it begins with.
    pub(crate) bases: u64,
    /// For fewer bytes that nobody needs no part is written again.
    pub(crate) waste: u64,
    /// So many bytes are set aside for the head.
    pub(crate) room: u64,
}

/// Keeps parts, by their first events.
pub(crate) trait Shelf: fmt::Debug + Send + Sync {
    type Opened: OpenPart;

    fn sizes(&self) -> Sizes;
    /// Makes an empty part, durably, in place of what an interrupted try has left.
    fn create(&self, first: u64) -> Result<Self::Opened, Trouble>;
    /// Opens a part. It has the events that it is told to have, as far as that can be known
    /// without reading what was handed over; what is there beyond them is not.
    fn open(&self, part: &Part, access: Access) -> Result<Self::Opened, Trouble>;
    /// Closes a part. One that was appended to can be proven whole the next time,
    /// if `hand_over` says that all of it counts.
    fn close(&self, first: u64, opened: Self::Opened, hand_over: bool) -> Result<(), Trouble>;
    /// Removes a part, and all that is beside it.
    fn remove(&self, first: u64) -> Result<(), JournalError>;
    /// Removes what interrupted openings of a part have left beside it.
    fn tidy(&self, first: u64) -> Result<(), JournalError>;
    /// Of which parts anything is there.
    fn list(&self) -> Result<Vec<u64>, JournalError>;
    /// Whether a part is there, in whatever state.
    fn has(&self, first: u64) -> bool;
    /// What all parts take on disk.
    fn bytes(&self) -> Result<u64, JournalError>;
}

/// What comes after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// The first event of the chunk after it, if there is one.
    pub(crate) first: Option<u64>,
}

/// A part that is open.
pub(crate) trait OpenPart: fmt::Debug + Send {
    /// Appends chunks that follow what it has. They are durable when it returns.
    fn append(&mut self, chunks: &[Chunk]) -> Result<(), Trouble>;
    /// Appends to `frames` those of the chunk that has the event with this number; `None` where there is no such chunk.
    fn chunk(&self, seq: u64, frames: &mut Vec<u8>) -> Result<Option<Next>, Trouble>;
    /// The first events of the chunks that have events of an atom.
    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, Trouble>;
    /// Leaves it as it is, whatever state that is: something went wrong that closing would meet again.
    fn forget(self);
}
