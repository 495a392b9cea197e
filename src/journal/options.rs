//! How a journal is kept.

use super::compact::Retention;
use crate::Durability;
use crate::time::Clock;

/// How a journal is kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JournalOptions {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// The most bytes of events in one segment; a segment has room for its
    /// snapshot and for the endings of the atoms in it beyond that.
    pub segment_bytes: u64,
    /// How many bytes of events a part of the history has at the least before another one is begun. A part
    /// goes as a whole, so this much may be kept longer than it has to be; the more there is, the larger
    /// parts become, up to 32 times this.
    pub part_bytes: u64,
    /// There must be a journal already: an empty directory is then an error, not a
    /// new journal. For stores that say elsewhere that one was made in them.
    pub must_exist: bool,
    /// Which events are kept. The journal compacts itself, off the writers' path: see
    /// [`COMPACT_AT_PERCENT`](super::COMPACT_AT_PERCENT).
    pub retention: Retention,
    /// By which the age of events is told.
    pub clock: Clock,
}

/// The default of [`JournalOptions::segment_bytes`]: 4 MiB, which a disk zeroes
/// in some ten milliseconds and a reopening reads in less.
pub const SEGMENT_BYTES: u64 = 4 << 20;

/// The default of [`JournalOptions::part_bytes`]: 2 MiB, of which the sled around it takes little.
pub const PART_BYTES: u64 = 2 << 20;

/// The first segment of a store has this room at the most, so that creating one is cheap.
pub(crate) const FIRST_SEGMENT_BYTES: u64 = 256 << 10;

/// Events wait in memory until the writer takes them; at this many bytes those who append wait too.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;

/// A group takes no further events once it has this many bytes.
pub const MAX_GROUP_BYTES: usize = 256 << 10;

/// How many of the newest events are kept in memory for subscribers, at the most.
pub const MAX_RECENT_EVENTS: usize = 1024;

/// How many bytes of the newest events are kept in memory for subscribers, at the most.
pub const MAX_RECENT_BYTES: usize = 1 << 20;

/// How many bytes of detail an event may have. What is longer is cut.
pub const MAX_DETAIL_BYTES: usize = 512;

/// How many bytes of handle an event may have. What is longer is refused.
pub const MAX_HANDLE_BYTES: usize = 1024;

/// Sealed segments that stay in the write-ahead log, packed into the history or not.
pub const SEALED_KEPT: usize = 2;

/// Sealed segments that may wait to be packed, beyond those that stay. With more,
/// a change waits until one is packed, so that neither the log nor the disk it takes grows
/// without bound when events come faster than they are packed. A history that cannot be
/// written is not waited for: segments stay then, and `stats` tells of them.
pub const SEALED_WAITING: usize = 4;

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            segment_bytes: SEGMENT_BYTES,
            part_bytes: PART_BYTES,
            must_exist: false,
            retention: Retention::EVERYTHING,
            clock: Clock::default(),
        }
    }
}

impl JournalOptions {
    /// The same, with another durability.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The same, with another size of segments.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The same, with another size of the history's parts.
    #[must_use]
    pub fn part_bytes(mut self, bytes: u64) -> Self {
        self.part_bytes = bytes;
        self
    }

    /// The same, with a limit on what is kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// The same, with the time from somewhere else.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same, for a journal that must or need not be there.
    #[must_use]
    pub fn must_exist(mut self, must_exist: bool) -> Self {
        self.must_exist = must_exist;
        self
    }
}
