//! Which of several frames of one number is the one that was durable last.

use std::collections::{BTreeMap, BTreeSet};

/// A frame that was found.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) crc: u32,
    pub(super) prev: u32,
    pub(super) place: Place,
}

/// Where a frame is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File { file: usize, offset: u64, length: usize },
    Memory(Vec<u8>),
}

/// How many numbers may be missing between what is known to be linked and a frame that is
/// linked to nothing: such a frame may be made up, and what it says of its number too.
const MAX_GAP: u64 = 1 << 20;

/// How far the chain is followed to tell two frames apart.
const FOLLOWED: usize = 64;

/// All frames of events, by number.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    by_seq: BTreeMap<u64, Vec<Candidate>>,
    /// What other frames say is the checksum of an event.
    anchors: BTreeMap<u64, BTreeSet<u32>>,
    trusted: u64,
}

impl Candidates {
    pub(super) fn add(&mut self, seq: u64, candidate: Candidate) {
        let same = self.by_seq.entry(seq).or_default();
        if !same.iter().any(|other| other.crc == candidate.crc) {
            same.push(candidate);
        }
    }

    pub(super) fn anchor(&mut self, seq: u64, chain: u32) {
        self.anchors.entry(seq).or_default().insert(chain);
    }

    pub(super) fn has(&self, seq: u64, crc: u32) -> bool {
        self.at(seq).iter().any(|candidate| candidate.crc == crc)
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.by_seq.keys().next().copied()
    }

    fn at(&self, seq: u64) -> &[Candidate] {
        self.by_seq.get(&seq).map_or(&[], Vec::as_slice)
    }

    fn is_anchored(&self, seq: u64, crc: u32) -> bool {
        self.anchors.get(&seq).is_some_and(|chains| chains.contains(&crc))
    }

    /// The header of a segment says that there are events up to this one.
    pub(super) fn trust(&mut self, seq: u64) {
        self.trusted = self.trusted.max(seq);
    }

    /// Keeps one frame for each number from `first` on; gives the last number. There are
    /// no more events than `most`, beyond those before `first` or before a segment.
    pub(super) fn settle(&mut self, first: u64, most: u64) -> u64 {
        self.by_seq = self.by_seq.split_off(&first);
        let end = first.max(self.trusted).saturating_add(most).saturating_add(MAX_GAP);
        drop(self.by_seq.split_off(&end));
        let linked = self.by_seq.iter().rev().find(|(seq, candidates)| {
            candidates.iter().any(|one| {
                self.at(*seq - 1).iter().any(|before| before.crc == one.prev)
                    || self.is_anchored(*seq - 1, one.prev)
                    || self.is_anchored(**seq, one.crc)
            })
        });
        let linked = linked.map_or(first - 1, |(seq, _)| *seq).max(self.trusted);
        let near = linked.saturating_add(MAX_GAP).min(end);
        let told = self.anchors.range(..near).next_back().map_or(0, |(seq, _)| *seq);
        drop(self.by_seq.split_off(&near));
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
        self.by_seq.keys().next_back().copied().unwrap_or(0).max(linked).max(told)
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
            let frame = match &candidates.first()?.place {
                Place::Memory(frame) => frame.as_slice(),
                Place::File { offset, length, .. } => {
                    let offset = usize::try_from(*offset).ok()?;
                    bytes.get(offset..offset + length)?
                }
            };
            let payload = frame.get(crate::journal::frame::HEADER_BYTES..)?;
            Some((*seq, crate::journal::codec::decode(payload).ok()?))
        });
        records.collect()
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
        Candidate { crc, prev, place: Place::Memory(Vec::new()) }
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
        assert_eq!(candidates.settle(1, 100), 3);
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
        assert_eq!(candidates.settle(1, 100), 2);
        assert_eq!(candidates.get(2).unwrap().crc, 21);
    }
}
