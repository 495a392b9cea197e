//! The journal: every event, durable first in a write-ahead log, kept in sled.
//!
//! An event is *appended* (queued), then *written*, then *durable*; only then
//! is it acknowledged and visible. [`Journal::change`] decides and appends,
//! its [`Ticket`] waits for the acknowledgement, [`Journal::with_view`] and
//! [`Journal::wait_until`] read what is acknowledged, [`Journal::read`] and
//! [`Journal::subscribe`] give the events in order.
//!
//! `docs/journal-format.md` describes the bytes.

mod carve;
mod catalog;
mod change;
mod codec;
mod compact;
mod core;
mod error;
mod frame;
#[cfg(feature = "test-util")]
pub(crate) mod fuzzing;
mod handle;
mod history;
mod maintain;
mod open;
mod options;
mod queue;
mod read;
mod record;
mod reserve;
mod roll;
mod salvage;
mod stats;
pub mod storage;
mod subscribe;
mod verify;
mod view;
mod visible;
mod wal;
mod watch;
mod writer;

pub use change::Draft;
pub use compact::{COMPACT_AT_PERCENT, Compacted, Retention};
pub use error::JournalError;
pub use handle::Journal;
pub use history::{
    Base, CHUNK_BYTES, Chunk, Head, History, HistoryState, HistoryUsage, MemoryHistory, Part,
    SledHistory,
};
pub use open::Recovery;
pub use options::{
    JournalOptions, MAX_DETAIL_BYTES, MAX_GROUP_BYTES, MAX_HANDLE_BYTES, MAX_QUEUED_BYTES,
    MAX_RECENT_BYTES, MAX_RECENT_EVENTS, PART_BYTES, SEALED_KEPT, SEALED_WAITING, SEGMENT_BYTES,
};
pub use queue::Ticket;
pub use read::Records;
pub use record::{Creation, Fact, Note, Record};
pub use reserve::{DELETION_RESERVE, ENDING_RESERVE, LIVE_RESERVE};
pub use salvage::{MAX_LOST, Salvaged, salvage};
pub use stats::Stats;
pub(crate) use subscribe::Near;
pub use subscribe::Subscription;
pub use verify::Verified;
pub use view::{Unfit, View};
pub use wal::recover::Cut;
pub(crate) use watch::AtomWatch;
