//! Retention: cutting the oldest events off, and keeping the atoms.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::error::JournalError;
use super::frame::CHAIN_START;
use super::history::Base;
use super::read::Records;
use super::view::View;
use crate::time::{Timestamp, now};

/// Which events are kept: those that both limits keep. Atoms that exist are
/// never forgotten, however old the events are that made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retention {
    /// How old an event may become; `None` for any age.
    #[serde(with = "crate::text::optional_duration")]
    pub max_age: Option<Duration>,
    /// How many of the newest events are kept; `None` for all.
    pub max_events: Option<u64>,
}

impl Retention {
    /// Everything is kept: the default.
    pub const EVERYTHING: Self = Self { max_age: None, max_events: None };
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compacted {
    /// Events that were dropped.
    pub dropped: u64,
    /// The number of the oldest event that is kept; the next one's when none is.
    pub oldest: u64,
    /// Bytes on disk before.
    pub before: u64,
    /// Bytes on disk after.
    pub after: u64,
}

/// With a [`Retention`] set, the journal compacts itself once this share of
/// its events, in percent, need not be kept any more. While that runs there
/// are two generations: the larger the share, the more room is wasted before,
/// and the smaller, the more often what stays is written again.
pub const COMPACT_AT_PERCENT: u64 = 33;

impl Core {
    /// The number of the oldest event that is kept.
    pub(crate) fn oldest_seq(&self) -> Result<u64, JournalError> {
        let known = self.oldest.load(Ordering::Acquire);
        if known > 0 {
            return Ok(known);
        }
        let in_log = self.catalog.lock().oldest().unwrap_or(1);
        let oldest = match self.history.head() {
            Ok(Some(head)) => head.first,
            // Nothing was packed, or what was cannot be asked: the log has all of it.
            Ok(None) | Err(_) if in_log == 1 => 1,
            Ok(None) => {
                let problem = format!("the log begins with event {in_log}, and there is none");
                return Err(JournalError::HistoryDamaged { problem });
            }
            Err(error) => return Err(error),
        };
        self.oldest.store(oldest, Ordering::Release);
        Ok(oldest)
    }

    /// See [`Journal::compact`](super::Journal::compact).
    pub(crate) fn compact(
        self: &Arc<Self>,
        retention: &Retention,
    ) -> Result<Compacted, JournalError> {
        if self.decided.lock().closed {
            return Err(JournalError::Closed);
        }
        let oldest = self.oldest_seq()?;
        let before = self.stats()?.bytes;
        let cut = self.first_to_keep(retention, oldest)?;
        if cut <= oldest {
            return Ok(Compacted { dropped: 0, oldest, before, after: before });
        }
        self.seal_before(cut)?;
        self.pack()?;
        self.cut(cut)?;
        let after = self.stats()?.bytes;
        Ok(Compacted { dropped: cut - oldest, oldest: cut, before, after })
    }

    /// Compacts when [`COMPACT_AT_PERCENT`] of the events are over the limits.
    /// What is still in the write-ahead log only stays there.
    pub(crate) fn compact_if_worth_it(self: &Arc<Self>) -> Result<(), JournalError> {
        let retention = self.options.retention;
        if retention == Retention::EVERYTHING {
            return Ok(());
        }
        let Some(head) = self.history.head()? else { return Ok(()) };
        let (oldest, recent) = (self.oldest_seq()?, self.visible.lock().seq);
        let share = ((recent + 1 - oldest) * COMPACT_AT_PERCENT).div_ceil(100).max(1);
        let over_count = retention
            .max_events
            .is_some_and(|most| (recent + 1).saturating_sub(most).saturating_sub(oldest) >= share);
        let over_age = match retention.max_age {
            // The last of them has to be over it: cheaper than to ask each.
            Some(age) if !over_count && oldest + share <= head.last => {
                let last = Records::new(self.clone(), oldest + share - 1, recent)?.next_event()?;
                last.is_some_and(|last| last.record.at < before_now(age))
            }
            Some(_) | None => false,
        };
        if !over_count && !over_age {
            return Ok(());
        }
        let cut = self.first_to_keep(&retention, oldest)?.min(head.last + 1);
        if cut <= oldest {
            return Ok(());
        }
        self.cut(cut)?;
        tracing::info!(dropped = cut - oldest, oldest = cut, "the journal was compacted");
        Ok(())
    }

    /// The first event that the retention keeps. Never drops one that is younger than
    /// the limit, whatever clocks did: it stops before the first of these.
    fn first_to_keep(
        self: &Arc<Self>,
        retention: &Retention,
        oldest: u64,
    ) -> Result<u64, JournalError> {
        let recent = self.visible.lock().seq;
        let by_count =
            retention.max_events.map_or(oldest, |most| (recent + 1).saturating_sub(most));
        let from = by_count.max(oldest);
        let Some(age) = retention.max_age else { return Ok(from) };
        let youngest = before_now(age);
        let mut first = from;
        if first <= recent {
            let mut records = Records::new(self.clone(), from, recent)?;
            while let Some(event) = records.next_event()? {
                if event.record.at >= youngest {
                    break;
                }
                first = event.header.seq + 1;
            }
        }
        Ok(first)
    }

    /// Makes sure that everything before `cut` is in sealed segments.
    fn seal_before(&self, cut: u64) -> Result<(), JournalError> {
        let mut decided = self.decided.lock();
        if decided.closed {
            return Err(JournalError::Closed);
        }
        if cut <= decided.segment.first {
            return Ok(());
        }
        let needed = decided.population.full();
        self.roll(&mut decided, needed)
    }

    /// Cuts the history before the event `cut`, all before which was packed.
    fn cut(self: &Arc<Self>, cut: u64) -> Result<(), JournalError> {
        let _stay = self.maintenance.segments_stay.lock();
        if self.oldest_seq()? >= cut {
            // Another compaction was faster.
            return Ok(());
        }
        let base = self.base_of(cut)?;
        let going_on = || !self.maintenance.stopping();
        let done = self.history.cut(cut, &base, &going_on);
        // When it failed, it may be done all the same: then the history is asked again.
        self.oldest.store(if done.is_ok() { cut } else { 0 }, Ordering::Release);
        done
    }

    /// Folds the events before `cut`, from what the oldest of them builds on.
    fn base_of(self: &Arc<Self>, cut: u64) -> Result<Base, JournalError> {
        let damaged = |problem: String| JournalError::HistoryDamaged { problem };
        let (mut view, mut chain, mut first) = match self.history.base()? {
            // What is before the base is an archive, of which nothing is folded.
            Some(base) if base.first() >= cut => return Ok(base),
            Some(base) => (base.view().map_err(damaged)?, base.chain(), base.first()),
            None => (View::default(), CHAIN_START, self.oldest_seq()?),
        };
        let mut records = Records::new(self.clone(), first, cut - 1)?;
        while let Some(event) = records.next_event()? {
            if self.maintenance.stopping() {
                return Err(JournalError::Closed);
            }
            let record = &event.record;
            let inconsistent = |problem| JournalError::Inconsistent { seq: record.seq, problem };
            if event.header.prev != chain {
                return Err(inconsistent("it does not follow the event before it".to_owned()));
            }
            let atom = view
                .apply(record.atom, record.at, &record.fact)
                .map_err(|unfit| inconsistent(unfit.to_string()))?;
            if atom.state() != record.state {
                return Err(inconsistent("it leads to another state".to_owned()));
            }
            (chain, first) = (event.header.crc, record.seq + 1);
        }
        if first != cut {
            return Err(damaged(format!("event {first} is missing")));
        }
        Base::new(cut, chain, &view)
    }
}

fn before_now(age: Duration) -> Timestamp {
    let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(now().as_micros().saturating_sub(age))
}
