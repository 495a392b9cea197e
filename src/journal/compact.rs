//! Retention: cutting the oldest events off, and keeping the atoms.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::Core;
use super::error::{self, JournalError};
use super::history::{self, Part};
use super::read::Records;
use crate::time::Timestamp;

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

/// With a [`Retention`] set, the journal compacts itself: parts of the history of which nothing
/// need be kept go as soon as there are any, and a part is written again, without
/// what need not be kept, once this share of all bytes, in percent, would be wasted in it.
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
            Ok(None) if in_log == 1 => 1,
            Ok(None) => {
                let problem = format!("the log begins with event {in_log}, and there is none");
                return Err(JournalError::HistoryDamaged { problem });
            }
            // What was cut from it cannot be known any more, and the log has all of it.
            Err(JournalError::HistoryDamaged { .. }) if in_log == 1 => return Ok(1),
            Err(error) => return Err(error),
        };
        self.oldest.store(oldest, Ordering::Release);
        Ok(oldest)
    }

    /// The same, for who has found that an event is gone: the history knows of a cut a moment before
    /// it is noted here.
    pub(crate) fn oldest_after_cut(&self) -> Result<u64, JournalError> {
        let known = self.oldest_seq()?;
        let Some(head) = self.history.head()? else { return Ok(known) };
        // No cut is taken back: what it says will be noted.
        self.oldest.fetch_max(head.first, Ordering::AcqRel);
        Ok(known.max(head.first))
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
        let mut full = false;
        let mut cut = self.first_to_keep(retention, oldest)?;
        if cut <= oldest {
            // A cut that failed may be done all the same: what is said now has to stay true.
            self.history.settle()?;
            return Ok(Compacted { dropped: 0, oldest, before, after: before });
        }
        match self.seal_before(cut).and_then(|()| self.pack()) {
            Ok(()) => {}
            // What is packed can go, and makes room for the rest.
            Err(error)
                if error::is_full(&error)
                    && self.history.head()?.is_some_and(|head| head.last >= oldest) =>
            {
                full = true;
                cut = cut.min(self.history.head()?.map_or(oldest, |head| head.last + 1));
            }
            Err(error) => return Err(error),
        }
        self.cut(cut)?;
        if full {
            // Before anything else takes the room.
            self.pack_and_tell();
        }
        let after = self.stats()?.bytes;
        Ok(Compacted { dropped: cut - oldest, oldest: cut, before, after })
    }

    /// Lets go of what is over the limits, where that takes little: see [`COMPACT_AT_PERCENT`].
    /// What is still in the write-ahead log only stays there.
    pub(crate) fn compact_if_worth_it(self: &Arc<Self>) -> Result<(), JournalError> {
        let retention = self.options.retention;
        if retention == Retention::EVERYTHING {
            return Ok(());
        }
        let (oldest, parts) = (self.oldest_seq()?, self.history.parts()?);
        let youngest = retention.max_age.map(|age| self.before_now(age));
        let over_count = self.over_count(&retention);
        let over = |part: &&Part| {
            part.last < over_count || youngest.is_some_and(|youngest| part.newest < youngest)
        };
        let gone = parts.iter().take_while(over).count();
        let mut cut = match (gone.checked_sub(1), parts.get(gone)) {
            (Some(last), _) => parts[last].last + 1,
            (None, _) => oldest,
        };
        // Which of the events in the next part are over the limits is only looked up when most must be.
        if let Some(part) = parts.get(gone)
            && self.may_be_wasted(part, over_count, youngest, &parts[gone..])
            && self.maintenance.worth_a_look(part, youngest)
        {
            let first = self.first_to_keep(&retention, cut)?.min(part.last + 1);
            if is_waste(history::wasted(part, first), &parts[gone..]) {
                cut = first;
            } else {
                // Its events did not come evenly. Not every seal is to open it once more.
                self.maintenance.looked_at(part, youngest);
            }
        }
        if cut <= oldest {
            return Ok(());
        }
        self.cut(cut)
    }

    /// Whether so much of a part seems to be over the limits that it should be written again.
    fn may_be_wasted(
        &self,
        part: &Part,
        over_count: u64,
        youngest: Option<Timestamp>,
        kept: &[Part],
    ) -> bool {
        let mut wasted = history::wasted(part, over_count);
        if let Some(youngest) = youngest {
            // As if events came evenly, from the end of the part before it.
            let (from, to) = (part.oldest.as_micros(), part.newest.as_micros());
            let gone = youngest.as_micros().saturating_sub(from).min(to.saturating_sub(from));
            let share = u128::from(part.bytes) * u128::from(gone) / u128::from((to - from).max(1));
            wasted = wasted.max(u64::try_from(share).unwrap_or(0));
        }
        is_waste(wasted, kept)
    }

    /// The first event that a limit on their number keeps.
    fn over_count(&self, retention: &Retention) -> u64 {
        let recent = self.visible.lock().seq;
        retention.max_events.map_or(0, |most| (recent + 1).saturating_sub(most))
    }

    /// The first event that the retention keeps. Never drops one that is younger than
    /// the limit, whatever clocks did: it stops before the first of these.
    fn first_to_keep(
        self: &Arc<Self>,
        retention: &Retention,
        oldest: u64,
    ) -> Result<u64, JournalError> {
        let recent = self.visible.lock().seq;
        let mut first = self.over_count(retention).max(oldest);
        let Some(age) = retention.max_age else { return Ok(first) };
        let youngest = self.before_now(age);
        // Parts that are over the limit as a whole need not be read.
        for part in self.history.parts()? {
            if part.first <= first && first <= part.last && part.newest < youngest {
                first = part.last + 1;
            }
        }
        if first <= recent {
            let mut records = Records::new(self.clone(), first, recent)?;
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
        let stay = self.maintenance.segments_stay.lock();
        let oldest = self.oldest_seq()?;
        if oldest >= cut {
            // Another compaction was faster.
            return Ok(());
        }
        let going_on = || !self.maintenance.stopping();
        let done = self.history.cut(cut, &going_on);
        // When it failed, it may be done all the same: then the history is asked again.
        self.oldest.store(if done.is_ok() { cut } else { 0 }, Ordering::Release);
        drop(stay);
        if done.is_ok() {
            crate::trace::compacted(cut - oldest, cut);
        }
        done
    }

    /// The time that was so long ago.
    fn before_now(&self, age: Duration) -> Timestamp {
        let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Timestamp::from_micros(self.options.clock.now().as_micros().saturating_sub(age))
    }
}

/// Whether so many bytes of these parts are too much to be wasted.
fn is_waste(wasted: u64, parts: &[Part]) -> bool {
    let all: u64 = parts.iter().map(|part| part.bytes).sum();
    wasted > 0 && wasted * 100 >= all * COMPACT_AT_PERCENT
}
