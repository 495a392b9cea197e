//! What a journal can say of itself without reading what it holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::error::{self, JournalError};
use super::history::HistoryState;
use super::storage::StoredFile;
use super::wal::segment;

/// What a journal says of itself. Nothing is read for it but lengths and the ends of segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Events that are kept.
    pub events: u64,
    /// The number of the oldest one that is kept; as far as the segments go, when the history cannot tell.
    pub oldest: u64,
    /// The number of the newest acknowledged one; 0 before the first.
    pub recent: u64,
    /// The number of the last one known to be on disk.
    pub durable: u64,
    /// Atoms that exist.
    pub atoms: usize,
    /// Segments of the write-ahead log.
    pub segments: usize,
    /// Bytes on disk: segments and history.
    pub bytes: u64,
    /// Of these, bytes of segments that nothing was written to yet, or ever will be.
    pub unused: u64,
    /// Of these, bytes of the history.
    pub history_bytes: u64,
    /// Parts of the history.
    pub parts: usize,
    /// What is known of the history. It is not opened for this.
    pub history: HistoryState,
    /// Groups of events that were written since the journal was opened.
    pub groups: u64,
    /// The median of events in one group, to a quarter of its size.
    pub group_p50: u64,
    /// The most events in one group.
    pub group_max: u64,
    /// Syncs of the write-ahead log since the journal was opened.
    pub syncs: u64,
    /// The median time of a sync in microseconds, to a quarter of it.
    pub sync_p50_micros: u64,
    /// What one sync of a hundred exceeds, in microseconds, to a quarter of it.
    pub sync_p99_micros: u64,
    /// Changes that had to wait for sealed segments to be packed, since the journal was opened:
    /// events come faster than the history takes them.
    pub waited: u64,
    /// Events that may or may not be there after reopening; 0 unless a write has failed.
    pub in_doubt: u64,
    /// For each subscription, by how many events it is behind.
    pub lags: Vec<u64>,
}

/// Counts of values in buckets that are a quarter of a power of two wide: of
/// fixed size, and never further off than a quarter.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: [u32; Self::BUCKETS],
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; Self::BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Values up to 2^32: more than an hour in microseconds. What is larger goes into the last one.
    const BUCKETS: usize = 32 * 4;

    fn bucket(value: u64) -> usize {
        let Some(power) = value.checked_ilog2().filter(|power| *power >= 2) else {
            return value as usize;
        };
        let quarter = (value >> (power - 2)) & 3;
        ((power as usize - 1) * 4 + quarter as usize).min(Self::BUCKETS - 1)
    }

    /// The largest value that goes into a bucket.
    fn ceiling(bucket: usize) -> u64 {
        if bucket < 4 {
            return bucket as u64;
        }
        let (power, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
        ((4 + quarter + 1) << (power - 2)) - 1
    }

    pub(crate) fn add(&mut self, value: u64) {
        let count = &mut self.counts[Self::bucket(value)];
        *count = count.saturating_add(1);
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value that this share (in percent) of all values do not exceed; 0 when there are none.
    fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Self::ceiling(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// What the writer measures, and who follows it.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    groups: Mutex<Histogram>,
    syncs: Mutex<Histogram>,
    positions: Mutex<Vec<Weak<AtomicU64>>>,
    /// Events that verifying has gone through, since the journal was opened.
    pub(crate) verified: AtomicU64,
}

impl Measured {
    /// So many events were written in one go.
    pub(crate) fn group(&self, events: usize) {
        if events > 0 {
            self.groups.lock().add(events as u64);
        }
    }

    /// A sync took so long.
    pub(crate) fn sync(&self, took: Duration) {
        self.syncs.lock().add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Somebody follows, from this number on; it is theirs to move.
    pub(crate) fn follow(&self, next: u64) -> Arc<AtomicU64> {
        let position = Arc::new(AtomicU64::new(next));
        let mut positions = self.positions.lock();
        positions.retain(|position| position.strong_count() > 0);
        positions.push(Arc::downgrade(&position));
        position
    }

    fn lags(&self, recent: u64) -> Vec<u64> {
        let positions = self.positions.lock();
        let alive = positions.iter().filter_map(Weak::upgrade);
        alive.map(|next| (recent + 1).saturating_sub(next.load(Ordering::Relaxed))).collect()
    }
}

impl Core {
    /// See [`Journal::stats`](super::Journal::stats).
    pub(crate) fn stats(&self) -> Result<Stats, JournalError> {
        let decided = self.failed().map(|_| self.decided.lock().seq);
        let (recent, atoms) = {
            let seen = self.visible.lock();
            (seen.seq, seen.view.len())
        };
        let durable = self.queue.lock().synced;
        let (firsts, in_log) = {
            let catalog = self.catalog.lock();
            (catalog.firsts(), catalog.oldest().unwrap_or(1))
        };
        let (mut bytes, mut unused, mut segments) = (0, 0, 0);
        for first in firsts {
            let name = segment::name(first);
            let failed = |e| error::io("cannot read segment", self.storage.path(&name), e);
            let file = match self.storage.open(&name) {
                Ok(file) => file,
                // It was packed and removed in the meantime.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let length = file.len().map_err(failed)?;
            bytes += length;
            unused += length - written(&*file, length).map_err(failed)?;
            segments += 1;
        }
        let oldest = self.oldest_seq().unwrap_or(in_log);
        let usage = self.history.usage();
        let (groups, syncs) = (self.measured.groups.lock(), self.measured.syncs.lock());
        Ok(Stats {
            events: (recent + 1).saturating_sub(oldest),
            oldest,
            recent,
            durable,
            atoms,
            segments,
            bytes: bytes + usage.bytes,
            unused,
            history_bytes: usage.bytes,
            parts: usage.parts,
            history: usage.state,
            groups: groups.total,
            group_p50: groups.percentile(50),
            group_max: groups.max,
            syncs: syncs.total,
            sync_p50_micros: syncs.percentile(50),
            sync_p99_micros: syncs.percentile(99),
            waited: self.maintenance.waited(),
            in_doubt: decided.map_or(0, |decided| decided.saturating_sub(recent)),
            lags: self.measured.lags(recent),
        })
    }
}

/// Where the last byte of a file is that is not zero: read from its end.
fn written(file: &dyn StoredFile, length: u64) -> std::io::Result<u64> {
    let mut piece = vec![0; 64 << 10];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let wanted = &mut piece[..(end - start) as usize];
        let read = file.read_at(wanted, start)?;
        let used = segment::used(&wanted[..read]);
        if used > 0 {
            return Ok(start + used as u64);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_never_further_off_than_a_quarter() {
        for value in (0..2000).chain([4095, 4096, 65_535, 1 << 20, (1 << 31) + 7]) {
            let ceiling = Histogram::ceiling(Histogram::bucket(value));
            assert!(ceiling >= value && ceiling <= value + value / 4, "{value}: {ceiling}");
        }
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), 0);
        for value in 1..=100 {
            histogram.add(value);
        }
        assert!((50..=63).contains(&histogram.percentile(50)));
        assert_eq!((histogram.percentile(100), histogram.max), (100, 100));
        histogram.add(u64::MAX);
        assert_eq!(histogram.percentile(50), Histogram::ceiling(Histogram::bucket(51)));
    }
}
