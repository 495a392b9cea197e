//! What can go wrong with a journal.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::MAX_SEQ;
use super::view::Unfit;

/// Why a journal could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The fact does not fit what is known. Nothing was written.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Input or output failed before anything was promised.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: Cow<'static, str>,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// There is no room for another atom; the endings of those that run still have theirs.
    #[error("no disk space for another atom: free some and try again ({source})")]
    NoSpace {
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The record is longer than any may be. Nothing was written.
    #[error("an event may have at most {limit} bytes: make its spec or its note smaller")]
    TooLarge {
        /// The most bytes it may have.
        limit: usize,
    },
    /// The file is not what was written there.
    #[error(
        "{} is damaged at byte {offset}{}: {problem}; nothing was changed, `caesium salvage` reads what is left",
        path.display(),
        seq.map(|seq| format!(" (event {seq})")).unwrap_or_default()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The sequence number that should have been there, as far as it is known.
        seq: Option<u64>,
        /// What is wrong.
        problem: String,
    },
    /// A newer Caesium wrote it. It was not touched.
    #[error("{} has format {found}, this program knows formats up to {known}: use a newer caesium", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The newest this program can read.
        known: u32,
    },
    /// The events before the write-ahead log cannot be read. The engine runs without them.
    #[error(
        "the history of this store cannot be read ({problem}); the engine runs without it, `caesium salvage` reads what is left"
    )]
    HistoryDamaged {
        /// What is wrong.
        problem: String,
    },
    /// A write failed while this event was on its way: it may or may not be there after reopening.
    #[error("event {seq} is in doubt: {cause}; reopen the store to learn whether it was kept")]
    InDoubt {
        /// The event's number.
        seq: u64,
        /// What failed.
        cause: Arc<str>,
    },
    /// An earlier write failed. Nothing more is written; what is durable can be read.
    #[error(
        "the journal takes no more events since a write failed ({cause}): close the store, mend the disk, open it again"
    )]
    Poisoned {
        /// What failed.
        cause: Arc<str>,
    },
    /// The events asked for were compacted away.
    #[error("event {asked} is no longer kept; the oldest is {oldest}")]
    Compacted {
        /// The first one asked for.
        asked: u64,
        /// The oldest one retained.
        oldest: u64,
    },
    /// A subscription fell behind what is kept: the event that came next was compacted away.
    /// It goes on with [`Subscription::skip_to_oldest`](super::Subscription::skip_to_oldest).
    #[error("lagged at event {at}, which is no longer kept; the oldest is {oldest}")]
    Lagged {
        /// The event that came next.
        at: u64,
        /// The oldest one retained.
        oldest: u64,
    },
    /// Folding the events does not give what is stored.
    #[error("the events and the stored state disagree at event {seq}: {problem}")]
    Inconsistent {
        /// Where.
        seq: u64,
        /// How.
        problem: String,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// The error for a failed input or output.
pub(crate) fn io(what: &'static str, path: PathBuf, source: std::io::Error) -> JournalError {
    JournalError::Io { what: what.into(), path, source: Arc::new(source) }
}

/// The refusal of what would take the room that packing needs.
pub(crate) fn not_packed() -> JournalError {
    let problem = "the sealed segments of the log cannot be packed for want of space";
    let source = std::io::Error::new(std::io::ErrorKind::StorageFull, problem);
    JournalError::NoSpace { source: Arc::new(source) }
}

/// Whether it failed for want of disk space.
pub(crate) fn is_full(error: &JournalError) -> bool {
    let (JournalError::Io { source, .. } | JournalError::NoSpace { source }) = error else {
        return false;
    };
    source.kind() == std::io::ErrorKind::StorageFull
}

/// Refuses an event whose number is larger than any may be.
pub(crate) fn counts(seq: u64) -> Result<(), JournalError> {
    if seq <= MAX_SEQ {
        return Ok(());
    }
    let problem = "there are no larger numbers, and no store came by this one".to_owned();
    Err(JournalError::Inconsistent { seq, problem })
}
