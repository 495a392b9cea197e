//! What the events of a history build on, when those before them are gone.

use std::path::PathBuf;

use crate::atom::Atom;
use crate::journal::JournalError;
use crate::journal::View;
use crate::journal::frame;
use crate::journal::wal::create;
use crate::journal::wal::preface::Preface;

/// The atoms as they were before an event, and the checksum of the event before
/// it: folding begins here. In the bytes of a segment's header and snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    first: u64,
    chain: u32,
    frames: Vec<u8>,
}

impl Base {
    /// The base of the event `first`.
    pub(crate) fn new(first: u64, chain: u32, view: &View) -> Result<Self, JournalError> {
        let atoms: Vec<Atom> = view.atoms().cloned().collect();
        let (frames, _) = create::snapshot(first, chain, &atoms, None)?;
        Ok(Self { first, chain, frames })
    }

    /// Reads what [`Base::frames`] gave.
    ///
    /// # Errors
    ///
    /// In words, what is wrong with it.
    pub(crate) fn read(frames: Vec<u8>) -> Result<Self, String> {
        let (header, _) = frame::decode(&frames).map_err(|flaw| flaw.problem().to_owned())?;
        let base = Self { first: header.seq.saturating_add(1), chain: header.prev, frames };
        base.view().map(|_| base)
    }

    /// The event that builds on it.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The checksum of the event before that one.
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    pub(crate) fn frames(&self) -> &[u8] {
        &self.frames
    }

    /// The atoms.
    pub(crate) fn view(&self) -> Result<View, String> {
        let path = PathBuf::from("what the history builds on");
        let preface = Preface::read(&self.frames, self.frames.len() as u64, path, self.first);
        Ok(preface.map_err(|error| error.to_string())?.view)
    }
}
