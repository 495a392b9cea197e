//! What can go wrong with a part: with the disk, or with what is on it.

use crate::journal::JournalError;

/// Why a part could not do what was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The disk, or the system; another time it may succeed.
    Io(JournalError),
    /// What is there is not what was put there. In words, what is wrong.
    Damage(String),
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::HistoryDamaged { problem } => Self::Damage(problem),
            JournalError::Unfit(_)
            | JournalError::Io { .. }
            | JournalError::NoSpace { .. }
            | JournalError::TooLarge { .. }
            | JournalError::Damaged { .. }
            | JournalError::Newer { .. }
            | JournalError::InDoubt { .. }
            | JournalError::Poisoned { .. }
            | JournalError::Lagged { .. }
            | JournalError::Inconsistent { .. }
            | JournalError::Closed
            | JournalError::Compacted { .. } => Self::Io(error),
        }
    }
}
