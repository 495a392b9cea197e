//! Where an atom is in its life.

use crate::text::named;

/// Where an atom is in its lifecycle.
///
/// The order of the variants is their position in the journal: new ones go to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Journaled; its start has not been confirmed.
    Created,
    /// It runs.
    Running,
    /// It was asked to end and has not ended.
    Stopping,
    /// It has ended, or never ran. It has an [`Outcome`](super::Outcome).
    Stopped,
    /// It is being deleted.
    Deleting,
    /// It is gone; only the journal's history still knows it.
    Deleted,
    /// The outside world contradicted the journal. Somebody has to look.
    Invalid,
}

named!(State, "state", {
    Created => "created",
    Running => "running",
    Stopping => "stopping",
    Stopped => "stopped",
    Deleting => "deleting",
    Deleted => "deleted",
    Invalid => "invalid",
});

impl State {
    /// Whether the atom may have a live process: created, running or stopping.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Created | Self::Running | Self::Stopping => true,
            Self::Stopped | Self::Deleting | Self::Deleted | Self::Invalid => false,
        }
    }
}
