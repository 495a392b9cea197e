//! Letting the oldest events go, and what is left over.

use std::collections::BTreeSet;

use super::head::{self, Contents};
use super::parts::{Parts, State, base_name, base_of, begun, grown};
use super::shelf::{Access, OpenPart, Shelf};
use super::trouble::Trouble;
use super::{Base, Packing, Part};
use crate::journal::JournalError;
use crate::journal::compact::COMPACT_AT_PERCENT;
use crate::journal::read::packed;
use crate::journal::view::View;

/// How much of a part that is written again is in memory at a time.
const PIECE: usize = 1 << 20;

impl<S: Shelf> Parts<S> {
    /// Parts of which nothing is kept go. The one that the cut goes through stays as it is,
    /// unless what it has before the cut is too much to be wasted: then it is written again.
    pub(super) fn cut(&self, first: u64, going_on: &dyn Fn() -> bool) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        self.be_certain(state)?;
        let Some(contents) = self.load(state)?.cloned() else {
            return Err(JournalError::HistoryDamaged { problem: "there is none".into() });
        };
        if first <= contents.head.first {
            return Ok(());
        }
        if first > contents.head.last + 1 {
            let problem = format!("it ends with event {}, before {first}", contents.head.last);
            return Err(JournalError::HistoryDamaged { problem });
        }
        let mut next = contents.clone();
        next.head.first = first;
        next.parts.retain(|part| part.last >= first);
        let rewritten = self.shorten(state, &mut next, going_on);
        if let Err(error) = self.install(state, next.clone(), head::write_in_need) {
            // Either head may be on disk now, so everything stays until that is certain.
            if let Some((part, opened)) = rewritten
                && let Err(trouble) = self.shelf.close(part.first, opened, false)
            {
                tracing::warn!(?trouble, "a part that does not count could not be closed");
            }
            return Err(error);
        }
        if let Some((part, opened)) = rewritten {
            self.take_in(state, &next, part, opened);
        }
        for part in contents.parts.iter().filter(|part| !next.parts.contains(part)) {
            if let Some(at) = state.open.iter().position(|open| open.first == part.first) {
                // It is removed in a moment: nothing of it has to be handed over.
                let open = state.open.swap_remove(at);
                if let Err(trouble) = self.shelf.close(open.first, open.opened, false) {
                    tracing::warn!(?trouble, "what was cut could not be closed");
                }
            }
            state.damaged.remove(&part.first);
            self.remove(part.first);
        }
        // Some file systems give the room to others only once they have written down that it is free.
        if let Err(error) = self.storage.sync_dir() {
            tracing::debug!(%error, "what was cut may take room a moment longer");
        }
        head::set_room_aside(&*self.storage, self.shelf.sizes().room);
        Ok(())
    }

    /// Writes the part that the cut goes through again, from there on, if that is worth it.
    /// It need not be: when that fails the part stays as it is.
    fn shorten(
        &self,
        state: &mut State<S::Opened>,
        next: &mut Contents,
        going_on: &dyn Fn() -> bool,
    ) -> Option<(Part, S::Opened)> {
        let (first, part) = (next.head.first, *next.parts.first()?);
        let all: u64 = next.parts.iter().map(|part| part.bytes).sum();
        let wasted = wasted(&part, first);
        if wasted < self.shelf.sizes().waste || wasted * 100 < all * COMPACT_AT_PERCENT {
            return None;
        }
        match self.write_again(state, &part, first, going_on) {
            Ok((shorter, opened)) => {
                next.parts[0] = shorter;
                Some((shorter, opened))
            }
            Err(error) => {
                tracing::warn!(%error, "what was cut from a part still takes room");
                None
            }
        }
    }

    /// Writes a part again from one of its events on.
    fn write_again(
        &self,
        state: &mut State<S::Opened>,
        part: &Part,
        first: u64,
        going_on: &dyn Fn() -> bool,
    ) -> Result<(Part, S::Opened), JournalError> {
        let at = self.open(state, part, Access::Read)?;
        let source = &state.open[at].opened;
        let damaged = |problem: String| JournalError::HistoryDamaged { problem };
        let mut fold = match part.folds {
            true => Some(self.read_base(part.first)?.view().map_err(damaged)?),
            false => None,
        };
        let mut shorter = begun(first, part.folds);
        let mut base = None;
        let opened = self.fill(first, None, |target| {
            let (mut seq, mut chain) = (part.first, None);
            let (mut packing, mut frames) = (Packing::default(), Vec::new());
            while seq <= part.last {
                if !going_on() {
                    return Err(JournalError::Closed.into());
                }
                let missing = || Trouble::Damage(format!("event {seq} is missing"));
                frames.clear();
                source.chunk(seq, &mut frames)?.ok_or_else(missing)?;
                let mut offset = 0;
                loop {
                    let start = offset;
                    let Some(event) = packed(&frames, &mut offset)? else { break };
                    let (number, prev) = (event.header.seq, event.header.prev);
                    if number < seq {
                        continue;
                    }
                    if number > seq || chain.is_some_and(|chain| chain != prev) {
                        let problem = format!("event {seq} does not follow the one before it");
                        return Err(Trouble::Damage(problem));
                    }
                    if seq == first
                        && let Some(view) = &fold
                    {
                        base = Some(Base::new(first, prev, view)?);
                    }
                    (seq, chain) = (seq + 1, Some(event.header.crc));
                    if number >= first {
                        packing.add(&event, &frames[start..offset]);
                    } else if let Some(view) = &mut fold {
                        applied(view, &event.record)?;
                    }
                }
                if packing.bytes() >= PIECE || seq > part.last {
                    let chunks = std::mem::take(&mut packing).finish();
                    target.append(&chunks)?;
                    shorter = grown(shorter, &chunks);
                }
            }
            match (&base, chain == Some(part.chain)) {
                (_, false) => Err(Trouble::Damage("it does not end as it should".to_owned())),
                (Some(base), true) => {
                    Ok(head::write_file(&*self.storage, &base_name(first), base.frames())?)
                }
                (None, true) => Ok(()),
            }
        })?;
        Ok((shorter, opened))
    }

    /// What was written again takes the place of what it was.
    fn take_in(
        &self,
        state: &mut State<S::Opened>,
        next: &Contents,
        part: Part,
        opened: S::Opened,
    ) {
        if next.parts.len() == 1 && part.folds {
            self.keep_open(state, part.first, opened);
        } else if let Err(trouble) = self.shelf.close(part.first, opened, true) {
            tracing::warn!(?trouble, "a part of the history could not be handed over");
        }
    }

    /// Removes a part that does not count, as far as that succeeds: the next open does the rest.
    pub(super) fn remove(&self, first: u64) {
        if let Err(error) = self.shelf.remove(first) {
            tracing::warn!(%error, "a part that does not count takes room");
        }
        // There need not be one.
        let _ = self.storage.remove(&base_name(first));
    }

    /// Removes what does not count. Only beside a whole head whose parts are all there is anything
    /// known not to be needed.
    pub(super) fn tidy(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Ok(Some(contents)) = self.load(state).map(|contents| contents.cloned()) else {
            return Ok(());
        };
        self.be_certain(state)?;
        let counts: BTreeSet<u64> = contents.parts.iter().map(|part| part.first).collect();
        if !counts.iter().all(|first| self.shelf.has(*first)) {
            return Ok(());
        }
        for first in self.shelf.list()? {
            if counts.contains(&first) {
                self.shelf.tidy(first)?;
            } else {
                self.remove(first);
            }
        }
        head::tidy(&*self.storage, |name| {
            base_of(name).is_some_and(|first| !counts.contains(&first))
        })
    }
}

/// About how many bytes of a part are of events before `first`.
pub(crate) fn wasted(part: &Part, first: u64) -> u64 {
    let events = part.last + 1 - part.first;
    let gone = first.saturating_sub(part.first).min(events);
    u64::try_from(u128::from(part.bytes) * u128::from(gone) / u128::from(events)).unwrap_or(0)
}

fn applied(view: &mut View, record: &crate::journal::Record) -> Result<(), Trouble> {
    let seq = record.seq;
    match view.apply(record.atom, record.at, &record.fact) {
        Ok(atom) if atom.state() == record.state => Ok(()),
        Ok(_) => Err(Trouble::Damage(format!("event {seq} leads to another state"))),
        Err(unfit) => Err(Trouble::Damage(format!("event {seq}: {unfit}"))),
    }
}
