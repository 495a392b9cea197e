//! The monitor's timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// How many timers an atom may have on average before dead ones are looked for; and how many there may be anyway.
const PER_ATOM: usize = 4;
const SPARE: usize = 64;

/// Something that is to be done for an atom at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub(super) at: Instant,
    /// Of which atom.
    pub(super) serial: u64,
    pub(super) kind: TimerKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKind {
    /// The grace is over.
    Kill,
    /// The atom has run as long as it may.
    Deadline,
    /// Its output was held open long enough.
    Linger,
    /// Its status was waited for long enough.
    Patience,
    /// Its program ought to have been executed.
    Execution,
    /// A cgroup that is being emptied is to be looked at again.
    Clear,
}

/// Timers, the next one first.
///
/// That an atom is gone, or has come so far that a timer of it means nothing any more, is not told: such a timer is dead,
/// and stays until it is the next one, or until there are many more timers than atoms.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    /// Sets a timer. There are `atoms` atoms; `lives` tells whether a timer means something.
    pub(super) fn push(&mut self, timer: Timer, atoms: usize, lives: impl Fn(&Timer) -> bool) {
        self.heap.push(Reverse(timer));
        if self.heap.len() > atoms.saturating_mul(PER_ATOM).saturating_add(SPARE) {
            self.heap.retain(|Reverse(timer)| lives(timer));
            self.heap.shrink_to(2 * self.heap.len());
        }
    }

    /// When the next timer is due that means something.
    pub(super) fn next(&mut self, lives: impl Fn(&Timer) -> bool) -> Option<Instant> {
        while let Some(Reverse(timer)) = self.heap.peek() {
            if lives(timer) {
                return Some(timer.at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes the next timer if it is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let Reverse(timer) = self.heap.peek().copied()?;
        if timer.at > now {
            return None;
        }
        self.heap.pop();
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_of_atoms_that_are_gone_do_not_pile_up() {
        let (now, day) = (Instant::now(), Duration::from_secs(24 * 3600));
        let mut timers = Timers::default();
        // The first atom lives on; of all others each one is gone when the next one comes.
        for serial in 1..=10_000 {
            let timer = Timer { at: now + day, serial, kind: TimerKind::Deadline };
            timers.push(timer, 2, |other| other.serial == 1 || other.serial == serial);
            assert!(timers.heap.len() <= 2 * PER_ATOM + SPARE, "{}", timers.heap.len());
        }
        assert_eq!(timers.next(|timer| timer.serial == 1), Some(now + day));
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.pop_due(now + day).map(|timer| timer.serial), Some(1));
    }

    #[test]
    fn what_means_nothing_any_more_is_not_waited_for() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut timers = Timers::default();
        for (at, kind) in [(second, TimerKind::Execution), (2 * second, TimerKind::Deadline)] {
            timers.push(Timer { at: now + at, serial: 1, kind }, 1, |_| true);
        }
        let executed = |timer: &Timer| timer.kind != TimerKind::Execution;
        assert_eq!(timers.next(executed), Some(now + 2 * second));
    }

    #[test]
    fn what_lives_keeps_its_timers_and_their_order() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        // All of one atom, and more than there may be.
        for seconds in (1..=200).rev() {
            let timer = Timer { at: after(seconds), serial: 7, kind: TimerKind::Kill };
            timers.push(timer, 1, |timer| timer.serial == 7);
        }
        for seconds in 1..=200 {
            assert_eq!(timers.next(|_| true), Some(after(seconds)));
            assert_eq!(timers.pop_due(after(200)).map(|timer| timer.at), Some(after(seconds)));
        }
        assert_eq!(timers.next(|_| true), None);
    }
}
