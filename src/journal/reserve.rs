//! Room that is set aside so that what runs can always be seen to end.

use crate::lifecycle::State;

/// Set aside for an atom that may still have a live process: to start, to be
/// asked to stop, to end and to be deleted, with the longest notes.
pub const LIVE_RESERVE: u64 = 3072;

/// Of [`LIVE_RESERVE`], what only an ending and a deletion may use.
pub const ENDING_RESERVE: u64 = 1536;

/// Set aside for any other atom: to be deleted, with a note.
pub const DELETION_RESERVE: u64 = 512;

/// How many atoms exist, by what is set aside for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Population {
    live: u64,
    other: u64,
}

impl Population {
    pub(crate) fn count(states: impl Iterator<Item = State>) -> Self {
        let mut population = Self::default();
        for state in states {
            *population.place(state) += 1;
        }
        population
    }

    fn place(&mut self, state: State) -> &mut u64 {
        if state.is_live() { &mut self.live } else { &mut self.other }
    }

    /// An atom went from one state to another; `None` where it did not exist.
    pub(crate) fn change(&mut self, from: Option<State>, to: State) {
        if let Some(from) = from {
            let place = self.place(from);
            *place = place.saturating_sub(1);
        }
        if to != State::Deleted {
            *self.place(to) += 1;
        }
    }

    /// What must be free after a new atom was let in.
    pub(crate) fn full(self) -> u64 {
        self.live * LIVE_RESERVE + self.other * DELETION_RESERVE
    }

    /// What must be free after anything but an ending.
    pub(crate) fn endings(self) -> u64 {
        self.live * ENDING_RESERVE + self.other * DELETION_RESERVE
    }
}

/// How far into the reserve a change may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// It ends or deletes atoms: all of it.
    Ending,
    /// It leaves atoms alive: not into what endings need.
    Living,
    /// It makes atoms: not at all.
    Creating,
}
