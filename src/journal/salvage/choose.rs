//! Which of several frames of one number is the one that was durable last.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::frame::HEADER_BYTES;

/// A frame that was found.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) crc: u32,
    pub(super) prev: u32,
    pub(super) place: Place,
}

/// Some bytes of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// Where a frame is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Whole(Bytes),
    /// In frames that are its pieces.
    Pieces(Vec<Bytes>),
}

impl Place {
    /// The bytes of the frame; `read` gives those of a file.
    pub(super) fn frame(&self, read: impl Fn(Bytes) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        match self {
            Self::Whole(bytes) => read(*bytes),
            Self::Pieces(pieces) => {
                let mut frame = Vec::new();
                for piece in pieces {
                    frame.extend_from_slice(read(*piece)?.get(HEADER_BYTES..)?);
                }
                Some(frame)
            }
        }
    }
}

/// How many numbers may be missing between what is known to be linked and a frame that is
/// linked to nothing: such a frame may be made up, and what it says of its number too.
const MAX_GAP: u64 = 1 << 20;

/// The most events that a salvaged store says to be lost, each in some 75 bytes. A number that
/// is further from the others is left out, so that a few bytes that were made up, or are of
/// another store, do not fill a disk.
pub const MAX_LOST: u64 = 1 << 22;

/// The most different frames of one number that are told apart. Two is what a crash can leave.
const MAX_CANDIDATES: usize = 16;

/// How far the chain is followed to tell two frames apart.
const FOLLOWED: usize = 64;

/// All frames of events, by number.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    by_seq: BTreeMap<u64, Vec<Candidate>>,
    /// What other frames say is the checksum of an event.
    anchors: BTreeMap<u64, BTreeSet<u32>>,
    /// The last events before segments, as their headers tell.
    told: BTreeSet<u64>,
    /// Events before the first one, which were cut away and are still there.
    before: BTreeMap<u64, Vec<Candidate>>,
}

/// Which events the new store has.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) first: u64,
    /// One less than the first when there are none.
    pub(super) last: u64,
    /// What was left out, in words.
    pub(super) problems: Vec<String>,
}

/// Numbers of which something is known, without one missing in between.
#[derive(Debug, Clone, Copy)]
struct Run {
    from: u64,
    to: u64,
    /// How many events of it can be read.
    events: u64,
}

impl Candidates {
    pub(super) fn add(&mut self, seq: u64, candidate: Candidate) {
        let same = self.by_seq.entry(seq).or_default();
        let known = same.iter().any(|other| other.crc == candidate.crc);
        if !known && same.len() < MAX_CANDIDATES {
            same.push(candidate);
        }
    }

    pub(super) fn anchor(&mut self, seq: u64, chain: u32) {
        let chains = self.anchors.entry(seq).or_default();
        if chains.len() < MAX_CANDIDATES {
            chains.insert(chain);
        }
    }

    pub(super) fn has(&self, seq: u64, crc: u32) -> bool {
        self.at(seq).iter().any(|candidate| candidate.crc == crc)
    }

    fn at(&self, seq: u64) -> &[Candidate] {
        self.by_seq.get(&seq).map_or(&[], Vec::as_slice)
    }

    fn is_anchored(&self, seq: u64, crc: u32) -> bool {
        self.anchors.get(&seq).is_some_and(|chains| chains.contains(&crc))
    }

    /// The header of a segment says that there are events up to this one.
    pub(super) fn tell(&mut self, seq: u64) {
        self.told.insert(seq);
    }

    /// Whether a store can begin with this event: something of it, or the end of what was
    /// before it, is there.
    pub(super) fn can_begin_with(&self, first: u64) -> bool {
        self.by_seq.range(first..).next().is_some()
            || self.told.range(first.saturating_sub(1)..).next().is_some()
    }

    /// Keeps one frame for each number from `first` on, as far as numbers can be believed.
    pub(super) fn settle(&mut self, first: u64) -> Settled {
        let kept = self.by_seq.split_off(&first);
        self.before = std::mem::replace(&mut self.by_seq, kept);
        self.leave_out_the_unlinked(first);
        let mut settled = self.leave_out_the_far(first);
        self.by_seq = self.by_seq.split_off(&settled.first);
        let beyond = self.by_seq.split_off(&(settled.last + 1));
        drop(beyond);
        let disputed: Vec<u64> = self
            .by_seq
            .iter()
            .filter(|(_, candidates)| candidates.len() > 1)
            .map(|(seq, _)| *seq)
            .collect();
        for seq in disputed {
            let best = self.at(seq).iter().max_by_key(|one| self.support(seq, one)).cloned();
            self.by_seq.insert(seq, best.into_iter().collect());
        }
        settled.last = settled.last.max(settled.first - 1);
        settled
    }

    /// Leaves out frames far beyond those that the chain, or another frame, speaks for.
    fn leave_out_the_unlinked(&mut self, first: u64) {
        let linked = self.by_seq.iter().rev().find(|(seq, candidates)| {
            candidates.iter().any(|one| {
                self.at(*seq - 1).iter().any(|before| before.crc == one.prev)
                    || self.is_anchored(*seq - 1, one.prev)
                    || self.is_anchored(**seq, one.crc)
            })
        });
        let linked = linked.map_or(first - 1, |(seq, _)| *seq);
        let told = self.told.last().copied().unwrap_or(0);
        drop(self.by_seq.split_off(&linked.max(told).saturating_add(MAX_GAP)));
    }

    /// Decides how far from where most can be read the numbers are believed.
    fn leave_out_the_far(&self, first: u64) -> Settled {
        let mut settled = Settled { first, last: first - 1, problems: Vec::new() };
        let runs = self.runs(first);
        let most = runs.iter().enumerate().max_by_key(|(at, run)| (run.events, *at));
        let Some((most, _)) = most else { return settled };
        let mut left = MAX_LOST;
        let mut afford = |missing: u64| {
            let enough = missing <= left;
            left = left.saturating_sub(if enough { missing } else { 0 });
            enough
        };
        let (mut from, mut to) = (most, most);
        while let Some(next) = runs.get(to + 1)
            && afford(next.from - runs[to].to - 1)
        {
            to += 1;
        }
        while let Some(before) = from.checked_sub(1)
            && afford(runs[from].from - runs[before].to - 1)
        {
            from -= 1;
        }
        if from > 0 || !afford(runs[from].from - first) {
            settled.first = runs[from].from;
            settled.problems.push(format!(
                "of the events from {first} to {} too many are missing: the new store begins with {}",
                settled.first - 1,
                settled.first
            ));
        }
        settled.last = runs[to].to;
        if let Some(next) = runs.get(to + 1) {
            let events: u64 = runs[to + 1..].iter().map(|run| run.events).sum();
            settled.problems.push(format!(
                "{events} events say that they are number {} and later, too far from event {} to be believed: they are left out",
                next.from, settled.last
            ));
        }
        settled
    }

    /// What is known, from one number on.
    fn runs(&self, first: u64) -> Vec<Run> {
        let end = self.by_seq.last_key_value().map_or(0, |(seq, _)| *seq);
        let end = end.max(self.told.last().copied().unwrap_or(0)).saturating_add(MAX_GAP);
        // A footer tells as well, as long as it is near.
        let known = self.told.iter().chain(self.anchors.range(..end).map(|(seq, _)| seq));
        let mut numbers: BTreeSet<u64> = known.copied().filter(|seq| *seq >= first).collect();
        numbers.extend(self.by_seq.keys());
        let mut runs: Vec<Run> = Vec::new();
        for seq in numbers {
            let events = u64::from(self.by_seq.contains_key(&seq));
            match runs.last_mut() {
                Some(run) if run.to + 1 == seq => {
                    run.to = seq;
                    run.events += events;
                }
                Some(_) | None => runs.push(Run { from: seq, to: seq, events }),
            }
        }
        runs
    }

    /// How much speaks for a frame: what names it, and how long the chain through it is.
    fn support(&self, seq: u64, one: &Candidate) -> (bool, usize) {
        let (mut anchored, mut links) = (self.is_anchored(seq, one.crc), 0);
        let (mut at, mut crc) = (seq, one.crc);
        while let Some(next) = self.at(at + 1).iter().find(|next| next.prev == crc) {
            (at, crc, links) = (at + 1, next.crc, links + 1);
            anchored |= self.is_anchored(at, crc);
            if links >= FOLLOWED {
                break;
            }
        }
        let (mut at, mut prev) = (seq, one.prev);
        while let Some(before) = self.at(at.saturating_sub(1)).iter().find(|b| b.crc == prev) {
            (at, prev, links) = (at - 1, before.prev, links + 1);
            if links >= 2 * FOLLOWED {
                break;
            }
        }
        (anchored, links)
    }

    /// The records that were found in these bytes, in order.
    #[cfg(feature = "test-util")]
    pub(super) fn settled(&self, bytes: &[u8]) -> Vec<(u64, crate::journal::Record)> {
        let records = self.by_seq.iter().filter_map(|(seq, candidates)| {
            let frame = candidates.first()?.place.frame(|Bytes { offset, length, .. }| {
                let offset = usize::try_from(offset).ok()?;
                Some(bytes.get(offset..offset + length)?.to_vec())
            })?;
            let payload = frame.get(HEADER_BYTES..)?;
            Some((*seq, crate::journal::codec::decode(payload).ok()?))
        });
        records.collect()
    }

    /// The frames of events from this one on that were cut away, once settled.
    pub(super) fn before(&self, from: u64) -> impl Iterator<Item = &Candidate> {
        self.before.range(from..).filter_map(|(_, candidates)| candidates.first())
    }

    /// The frame of a number, once settled.
    pub(super) fn get(&self, seq: u64) -> Option<&Candidate> {
        self.at(seq).first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(crc: u32, prev: u32) -> Candidate {
        Candidate { crc, prev, place: Place::Pieces(Vec::new()) }
    }

    #[test]
    fn the_chain_decides_between_two_frames_of_one_number() {
        let mut candidates = Candidates::default();
        candidates.add(1, candidate(10, 0));
        candidates.add(2, candidate(66, 9));
        candidates.add(2, candidate(20, 10));
        candidates.add(3, candidate(30, 20));
        // Made up: linked to nothing, and far away.
        candidates.add(u64::MAX - 7, candidate(1, 2));
        assert_eq!(candidates.settle(1).last, 3);
        assert_eq!(candidates.get(2).unwrap().crc, 20);
        assert!(candidates.get(4).is_none());
    }

    #[test]
    fn what_a_snapshot_names_counts_more_than_a_longer_chain() {
        let mut candidates = Candidates::default();
        candidates.add(1, candidate(10, 0));
        candidates.add(2, candidate(20, 10));
        candidates.add(2, candidate(21, 11));
        candidates.anchor(2, 21);
        assert_eq!(candidates.settle(1).last, 2);
        assert_eq!(candidates.get(2).unwrap().crc, 21);
    }
    /// Linked events from one number to another.
    fn linked(candidates: &mut Candidates, from: u64, to: u64) {
        for seq in from..=to {
            candidates.add(seq, candidate(seq as u32 + 10, (seq - 1) as u32 + 10));
        }
    }

    #[test]
    fn a_number_that_is_too_far_from_the_others_is_left_out_and_told() {
        for far in [1 << 24, 1 << 40, 1 << 55] {
            let mut candidates = Candidates::default();
            linked(&mut candidates, 1, 100);
            // A header, and a chain of events behind it.
            candidates.tell(far);
            linked(&mut candidates, far + 1, far + 3);
            let settled = candidates.settle(1);
            assert_eq!((settled.first, settled.last), (1, 100));
            assert_eq!(settled.problems.len(), 1, "{settled:?}");
            assert!(candidates.get(far + 1).is_none());
        }
    }

    #[test]
    fn where_most_can_be_read_is_where_the_store_is() {
        let far = 1 << 30;
        let mut candidates = Candidates::default();
        linked(&mut candidates, 1, 3);
        candidates.tell(far);
        linked(&mut candidates, far + 1, far + 100);
        let settled = candidates.settle(1);
        assert_eq!((settled.first, settled.last), (far, far + 100));
        assert_eq!(settled.problems.len(), 1, "{settled:?}");
    }

    #[test]
    fn no_more_events_are_lost_than_the_limit_wherever_they_are_missing() {
        let mut candidates = Candidates::default();
        linked(&mut candidates, 1, 50);
        // One event in every million is enough to ask for a million lost ones.
        for number in 1..200 {
            linked(&mut candidates, number << 20, (number << 20) + 1);
        }
        let settled = candidates.settle(1);
        assert_eq!(settled.first, 1);
        assert!(settled.last > 1 << 20 && settled.last <= MAX_LOST + 60, "{settled:?}");
        let mut candidates = Candidates::default();
        candidates.tell(MAX_LOST);
        assert_eq!(candidates.settle(1).last, MAX_LOST);
        let mut candidates = Candidates::default();
        candidates.tell(MAX_LOST + 2);
        let settled = candidates.settle(1);
        assert_eq!((settled.first, settled.last), (MAX_LOST + 2, MAX_LOST + 2));
    }

    #[test]
    fn a_store_begins_where_something_is() {
        let mut candidates = Candidates::default();
        linked(&mut candidates, 5, 9);
        assert!(candidates.can_begin_with(9) && !candidates.can_begin_with(10));
        candidates.tell(9);
        // All before the newest segment was cut away.
        assert!(candidates.can_begin_with(10) && !candidates.can_begin_with(11));
    }
}
