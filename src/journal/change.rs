//! Deciding and appending under one lock.

use std::sync::Arc;
use std::time::Duration;

use super::codec;
use super::core::{Core, Decided};
use super::error::{self, JournalError};
use super::frame::{self, HEADER_BYTES, Kind, Place};
use super::options::{MAX_DETAIL_BYTES, MAX_GROUP_BYTES, MAX_HANDLE_BYTES, MAX_QUEUED_BYTES};
use super::queue::{Done, Group, Ticket};
use super::reserve::{Need, Population};
use super::view::{Before, View};
use super::wal::recover::Mend;
use super::wal::segment::{self, FIXED_ROOM};
use super::{Fact, Note, Record};
use crate::Durability;
use crate::atom::{Atom, AtomId};
use crate::lifecycle::{Event, StopOrder};
use crate::time::Timestamp;
use crate::trace;

/// A change that is being decided. Facts are appended to it; they are written
/// together once the closure returns, or not at all.
#[derive(Debug)]
pub struct Draft<'a> {
    decided: &'a mut Decided,
    entries: Vec<Entry>,
    /// The payloads of the entries, one after the other.
    payloads: Vec<u8>,
    population: Population,
    need: Need,
    kept: bool,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    /// How many bytes of the payloads are its own.
    bytes: usize,
    before: Before,
    /// What it led to, when that is traced.
    after: Option<Atom>,
}

impl Draft<'_> {
    /// The atoms as they are decided: what is queued and what this change has appended are in it.
    pub fn view(&self) -> &View {
        &self.decided.view
    }

    /// The number of the last event that was decided, by this change or before it.
    pub(crate) fn last_seq(&self) -> u64 {
        self.decided.seq + self.entries.len() as u64
    }

    /// Applies a fact and appends its record; gives the atom as it is afterwards.
    ///
    /// A detail over [`MAX_DETAIL_BYTES`] is cut.
    ///
    /// # Errors
    ///
    /// [`JournalError::Unfit`] or [`JournalError::TooLarge`]: the fact is not
    /// appended; those that were appended before it stay in the change. Also
    /// [`JournalError::Inconsistent`] in a store whose numbers were made up, and have no next one.
    pub fn append(&mut self, id: AtomId, at: Timestamp, fact: Fact) -> Result<Atom, JournalError> {
        let fact = bounded(fact)?;
        let seq = self.decided.seq + self.entries.len() as u64 + 1;
        error::counts(seq)?;
        let before = self.decided.view.before(id, &fact);
        let from = self.decided.view.get(id).map(Atom::state);
        let atom = self.decided.view.apply(id, at, &fact)?;
        let state = atom.state();
        let record = Record { seq, at, atom: id, state, fact };
        let bytes = match codec::append(&record, &mut self.payloads) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.decided.view.take_back(before);
                return Err(error);
            }
        };
        self.population.change(from, state);
        let need = match &record.fact {
            Fact::Created(_) => Need::Creating,
            Fact::Happened { .. } if !state.is_live() => Need::Ending,
            Fact::Happened { .. } | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => {
                Need::Living
            }
        };
        self.need = self.need.max(need);
        let after = trace::wants_journaled().then(|| atom.clone());
        self.entries.push(Entry { record: Arc::new(record), bytes, before, after });
        Ok(atom)
    }

    /// What of it is traced once it is taken.
    fn traced(&mut self) -> Vec<(Arc<Record>, Atom)> {
        let entries = self.entries.iter_mut();
        let traced = |entry: &mut Entry| Some((Arc::clone(&entry.record), entry.after.take()?));
        entries.filter_map(traced).collect()
    }

    /// Bytes of the frames.
    fn bytes(&self) -> u64 {
        (self.entries.len() * HEADER_BYTES + self.payloads.len()) as u64
    }
}

/// What was not kept is taken back, also when the closure panics.
impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            for entry in self.entries.drain(..).rev() {
                self.decided.view.take_back(entry.before);
            }
        }
    }
}

/// Brings a fact within the limits that the reserve is made for.
fn bounded(fact: Fact) -> Result<Fact, JournalError> {
    match fact {
        Fact::Created(_) | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => Ok(fact),
        Fact::Happened { event, note } => {
            if note.handle.as_ref().is_some_and(|handle| handle.len() > MAX_HANDLE_BYTES) {
                return Err(JournalError::TooLarge { limit: MAX_HANDLE_BYTES });
            }
            let detail = note.detail.map(|detail| match cut(&detail) {
                Some(shorter) => shorter.into(),
                None => detail,
            });
            Ok(Fact::Happened { event: writable(event), note: Note { detail, ..note } })
        }
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> Option<&str> {
    if text.len() <= MAX_DETAIL_BYTES {
        return None;
    }
    let end = (0..=MAX_DETAIL_BYTES).rev().find(|end| text.is_char_boundary(*end))?;
    Some(&text[..end])
}

/// An event whose replay is what happens now: a grace of more than 584 years
/// could not be written as it is.
fn writable(event: Event) -> Event {
    match event {
        Event::StopAsked(order) => {
            let grace = order.grace.min(Duration::from_nanos(u64::MAX));
            Event::StopAsked(StopOrder { grace, ..order })
        }
        Event::Started { .. }
        | Event::StartFailed { .. }
        | Event::Withdrawn
        | Event::Exited(_)
        | Event::LostSight { .. }
        | Event::DeleteAsked
        | Event::Removed
        | Event::Contradiction { .. } => event,
    }
}

impl Core {
    /// See [`Journal::change`](super::Journal::change).
    pub(crate) fn change<T, E: From<JournalError>>(
        &self,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<(T, Ticket), E> {
        self.change_and(None, decide)
    }

    /// See [`Journal::change_lazily`](super::Journal::change_lazily).
    pub(crate) fn change_lazily<T, E: From<JournalError>>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<(T, Ticket), E> {
        // Only with a sync for each group is there a group that one thread has to see through.
        if self.stepped || self.options.durability != Durability::Sync {
            return self.change(decide);
        }
        self.change_and(Some(self), decide)
    }

    /// Changes, and leaves it to the ticket to have it written, if there is that.
    fn change_and<T, E: From<JournalError>>(
        &self,
        leave: Option<&Arc<Self>>,
        decide: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<(T, Ticket), E> {
        let mut decided = loop {
            self.let_packer_catch_up();
            let decided = self.decided.lock();
            // Others that waited as well may have been faster.
            if !self.must_wait_for_packer() {
                break decided;
            }
        };
        if decided.closed {
            return Err(JournalError::Closed.into());
        }
        if let Some(error) = self.failed() {
            return Err(error.into());
        }
        let mut draft = Draft {
            population: decided.population,
            decided: &mut decided,
            entries: Vec::new(),
            payloads: Vec::new(),
            need: Need::Ending,
            kept: false,
        };
        let answer = decide(&mut draft)?;
        let traced = draft.traced();
        let ticket = self.commit(draft, leave)?;
        // Whoever listens may do as it likes: nothing is locked.
        drop(decided);
        traced.iter().for_each(|(record, atom)| trace::journaled(record, atom));
        Ok((answer, ticket))
    }

    /// Queues a change, and tells the writer of it; unless that is left to the ticket, and the writer has little to do.
    fn commit(
        &self,
        mut draft: Draft<'_>,
        leave: Option<&Arc<Self>>,
    ) -> Result<Ticket, JournalError> {
        if draft.entries.is_empty() {
            return Ok(Ticket::ready());
        }
        let bytes = draft.bytes();
        self.prove(draft.decided)?;
        self.admit(draft.decided, bytes, draft.population, draft.need)?;
        let mut queue = self.queue.lock();
        // One change may be larger than the limit: it waits until it is alone.
        while queue.bytes > 0 && queue.bytes + bytes as usize > MAX_QUEUED_BYTES {
            if queue.failed.is_some() {
                break;
            }
            self.wait_for_room(&mut queue);
        }
        if let Some(cause) = &queue.failed {
            return Err(JournalError::Poisoned { cause: cause.clone() });
        }
        draft.kept = true;
        let population = draft.population;
        let entries = std::mem::take(&mut draft.entries);
        let payloads = std::mem::take(&mut draft.payloads);
        let decided = &mut *draft.decided;
        decided.population = population;
        for group in mending(decided) {
            queue.bytes += group.bytes.len();
            queue.groups.push_back(group);
        }
        let open = queue
            .groups
            .back()
            .is_some_and(|group| !group.barrier && group.bytes.len() < MAX_GROUP_BYTES);
        if !open {
            queue.groups.push_back(Group {
                file: decided.segment.file.clone(),
                offset: decided.offset,
                progress: decided.segment.layout.progress,
                bytes: Vec::with_capacity(bytes as usize),
                records: Vec::with_capacity(entries.len()),
                changes: 0,
                barrier: false,
                done: Arc::new(Done::default()),
            });
        }
        let synced = queue.synced;
        let Some(group) = queue.groups.back_mut() else {
            unreachable!("a group was pushed if there was none")
        };
        let group_first = match self.options.durability {
            Durability::Sync | Durability::Memory => {
                group.records.first().map_or(decided.seq + 1, |(record, _)| record.seq)
            }
            // All that is not synced is one group, as far as a torn write goes.
            Durability::Batched(_) => synced + 1,
        };
        let mut payloads = &payloads[..];
        for entry in entries {
            let (payload, rest) = payloads.split_at(entry.bytes);
            payloads = rest;
            let seq = entry.record.seq;
            let back = u32::try_from(seq - group_first).unwrap_or(u32::MAX);
            let place = Place { kind: Kind::Event, back, seq, prev: decided.chain };
            let before = group.bytes.len();
            decided.chain = frame::encode(place, payload, &mut group.bytes);
            decided.seq = seq;
            group.records.push((entry.record, group.bytes.len() - before));
        }
        decided.offset += bytes;
        group.changes += 1;
        let done = group.done.clone();
        queue.bytes += bytes as usize;
        Ok(match leave {
            Some(core) if !queue.crowded => Ticket::untold(decided.seq, done, core),
            Some(_) | None => {
                queue.tell_writer(&self.work);
                Ticket::of(decided.seq, done)
            }
        })
    }

    /// Makes sure that there is room, in a new segment if need be.
    fn admit(
        &self,
        decided: &mut Decided,
        bytes: u64,
        population: Population,
        need: Need,
    ) -> Result<(), JournalError> {
        let free = |decided: &Decided| {
            let taken = decided.offset + decided.mend_bytes() + FIXED_ROOM + bytes;
            decided.segment.layout.end.checked_sub(taken)
        };
        if free(decided).is_some_and(|free| free >= population.full()) {
            return Ok(());
        }
        let fits = |decided: &Decided| {
            let kept = match need {
                Need::Creating => return false,
                Need::Living => population.endings(),
                Need::Ending => 0,
            };
            free(decided).is_some_and(|free| free >= kept)
        };
        if self.maintenance.lacks_space() {
            // What there may be of it is for packing what is sealed, which makes more.
            if fits(decided) {
                return Ok(());
            }
            if need == Need::Creating {
                return Err(error::not_packed());
            }
        }
        match self.roll(decided, bytes + population.full()) {
            Ok(()) => Ok(()),
            Err(JournalError::Io { .. }) if fits(decided) => Ok(()),
            Err(JournalError::Io { source, .. }) => Err(JournalError::NoSpace { source }),
            Err(error) => Err(error),
        }
    }
}

/// What has to be written before the next event, each durable before the next.
fn mending(decided: &mut Decided) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut barrier = |offset: u64, bytes: Vec<u8>| {
        groups.push(Group {
            file: decided.segment.file.clone(),
            offset,
            progress: decided.segment.layout.progress,
            bytes,
            records: Vec::new(),
            changes: 0,
            barrier: true,
            done: Arc::new(Done::default()),
        });
    };
    let mark = match decided.mend {
        Mend::Nothing => None,
        Mend::Mark { footer_crc } => Some(footer_crc),
        Mend::Zeros { bytes, then_mark } => {
            barrier(decided.offset, vec![0; bytes as usize]);
            then_mark
        }
    };
    if let Some(footer_crc) = mark {
        let mark = segment::opened(decided.seq, footer_crc);
        let bytes = mark.len() as u64;
        barrier(decided.offset, mark);
        decided.offset += bytes;
    }
    decided.mend = Mend::Nothing;
    groups
}
