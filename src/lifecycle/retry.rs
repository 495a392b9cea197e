//! Whether an atom that failed is tried again, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ending, Life, OutcomeSet, Reason, State, StopCause};
use crate::text::named;

/// What becomes of an atom that turned [`State::Invalid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnInvalid {
    /// It stays until somebody looks at it. The default: evidence is not thrown away unasked.
    #[default]
    Keep,
    /// Whatever still runs under it is ended, and it is deleted.
    Delete,
    /// It is deleted, and a new atom takes its place, as the retry policy allows.
    Retry,
}

named!(OnInvalid, "policy for invalid atoms", {
    Keep => "keep",
    Delete => "delete",
    Retry => "retry",
});

/// How often, how soon and after which outcomes an atom is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Executions in all, the first one included: 1 is no retry.
    pub max_attempts: u32,
    /// How long to wait before each retry.
    pub backoff: Backoff,
    /// The outcomes after which to try again.
    pub on: OutcomeSet,
}

impl Default for RetryPolicy {
    /// No retry.
    fn default() -> Self {
        Self { max_attempts: 1, backoff: Backoff::default(), on: OutcomeSet::FAILURES }
    }
}

/// Exponential backoff with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the first retry.
    #[serde(with = "crate::text::duration")]
    pub initial: Duration,
    /// How much longer each one is than the one before, at least 1.0.
    pub factor: f64,
    /// The longest.
    #[serde(with = "crate::text::duration")]
    pub max: Duration,
    /// The share of the delay, 0.0–1.0, that chance may take away, so that
    /// atoms which failed together do not come back together.
    pub jitter: f64,
}

impl Default for Backoff {
    /// One second, doubled each time, at most five minutes, a tenth of jitter.
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(300),
            jitter: 0.1,
        }
    }
}

impl Backoff {
    /// The delay before the retry that follows attempt number `attempt` (from 1).
    ///
    /// `chance` is any number; the same one gives the same delay.
    pub fn delay(&self, attempt: u32, chance: u64) -> Duration {
        let longest = self.max.as_secs_f64();
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        // `min` also turns the infinity of a large exponent, and a NaN, into the longest delay.
        let bounded = grown.min(longest);
        let share = (chance >> 11) as f64 / (1u64 << 53) as f64;
        Duration::try_from_secs_f64(bounded * (1.0 - self.jitter.clamp(0.0, 1.0) * share))
            .unwrap_or(self.max)
    }
}

/// What follows from an ending or a contradiction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the atom stays as it is.
    Keep,
    /// The atom is deleted.
    Delete,
    /// A new atom takes its place after the delay.
    Retry {
        /// From the ending to the new atom.
        after: Duration,
    },
}

/// Decides what becomes of an atom, from its life alone: pure, so that deciding again decides the same.
///
/// `attempt` is the number of this execution, from 1. A requested stop is never retried;
/// nor is a first execution that was withdrawn: whoever asked for it was told that
/// nothing was created, and may have asked again.
pub fn decide(
    life: &Life,
    policy: &RetryPolicy,
    on_invalid: OnInvalid,
    attempt: u32,
    chance: u64,
) -> Verdict {
    let requested = matches!(life.stop(), Some(stop) if stop.cause == StopCause::Requested);
    let again = || {
        if requested || attempt >= policy.max_attempts {
            None
        } else {
            Some(Verdict::Retry { after: policy.backoff.delay(attempt, chance) })
        }
    };
    let unacknowledged = |ending: Ending| attempt == 1 && ending.reason == Reason::NeverStarted;
    match life.state() {
        State::Stopped => match life.end() {
            Some(end) if unacknowledged(end.ending) => Verdict::Keep,
            Some(end) if policy.on.contains(end.ending.outcome) => again().unwrap_or(Verdict::Keep),
            Some(_) | None => Verdict::Keep,
        },
        State::Invalid => match on_invalid {
            OnInvalid::Keep => Verdict::Keep,
            OnInvalid::Delete => Verdict::Delete,
            OnInvalid::Retry => again().unwrap_or(Verdict::Keep),
        },
        State::Created | State::Running | State::Stopping | State::Deleting | State::Deleted => {
            Verdict::Keep
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_stay_there() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let seconds: Vec<u64> = (1..=10).map(|n| backoff.delay(n, 0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(backoff.delay(u32::MAX, 0), Duration::from_secs(300));
    }

    #[test]
    fn jitter_only_shortens_and_by_no_more_than_its_share() {
        let backoff = Backoff { jitter: 0.5, ..Backoff::default() };
        assert_eq!(backoff.delay(1, 0), Duration::from_secs(1));
        let shortest = backoff.delay(1, u64::MAX);
        assert!(shortest >= Duration::from_millis(500) && shortest < Duration::from_millis(501));
    }

    #[test]
    fn nonsense_numbers_do_not_panic() {
        for factor in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
            for jitter in [f64::NAN, f64::INFINITY, -1.0, 7.0] {
                let backoff = Backoff { factor, jitter, ..Backoff::default() };
                assert!(backoff.delay(40, u64::MAX) <= backoff.max);
            }
        }
    }
}
