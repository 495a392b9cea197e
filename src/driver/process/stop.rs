//! The stop ladder: SIGTERM, grace, SIGKILL.

use std::time::{Duration, Instant};

use crate::lifecycle::{Evidence, StopCause};

/// A stop that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ladder {
    /// Who wants it to end. A request during a deadline's stop makes it a requested one.
    pub(super) cause: StopCause,
    /// When the grace is over; `None` for one that never is.
    pub(super) kill_at: Option<Instant>,
    /// Our SIGTERM reached it alive.
    pub(super) term_reached: bool,
    /// SIGKILL was sent.
    pub(super) kill_sent: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send SIGTERM, and wait for the grace.
    Terminate,
    /// Wait, until an earlier time now.
    Wait,
    /// Send SIGKILL.
    Kill,
}

impl Ladder {
    /// Begins a stop, or tightens the one that is under way.
    pub(super) fn ask(
        ladder: &mut Option<Self>,
        cause: StopCause,
        grace: Duration,
        force: bool,
        now: Instant,
    ) -> Step {
        let kill_at = now.checked_add(grace);
        match ladder {
            None => {
                let begun = Self { cause, kill_at, term_reached: false, kill_sent: force };
                *ladder = Some(begun);
                if force { Step::Kill } else { Step::Terminate }
            }
            Some(ladder) => {
                ladder.kill_at = match (ladder.kill_at, kill_at) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                ladder.cause = match (ladder.cause, cause) {
                    (StopCause::Deadline, StopCause::Deadline) => StopCause::Deadline,
                    (StopCause::Requested, StopCause::Requested | StopCause::Deadline)
                    | (StopCause::Deadline, StopCause::Requested) => StopCause::Requested,
                };
                if force && !ladder.kill_sent {
                    ladder.kill_sent = true;
                    Step::Kill
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// Whether the grace is over and the kill is still to be made; it counts as made then.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = !self.kill_sent && self.kill_at.is_some_and(|at| at <= now);
        self.kill_sent |= due;
        due
    }

    /// Whether a stop with this grace from now on would be stricter.
    pub(super) fn is_tightened_by(&self, grace: Duration, now: Instant) -> bool {
        match (self.kill_at, now.checked_add(grace)) {
            (Some(mine), Some(other)) => other < mine,
            (None, Some(_)) => true,
            (Some(_) | None, None) => false,
        }
    }

    /// How much of the grace is left.
    pub(super) fn grace_left(&self) -> Duration {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        self.kill_at.map_or(Duration::MAX, left)
    }

    /// What we did.
    pub(super) fn evidence(ladder: Option<Self>) -> Evidence {
        ladder.map_or_else(Evidence::default, |ladder| Evidence {
            term_reached: ladder.term_reached,
            kill_sent: ladder.kill_sent,
            cause: Some(ladder.cause),
            ..Evidence::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_only_ever_gets_stricter() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut ladder = None;
        let mut ask = |cause, grace, force| Ladder::ask(&mut ladder, cause, grace, force, now);
        assert_eq!(ask(StopCause::Deadline, 5 * second, false), Step::Terminate);
        assert_eq!(ask(StopCause::Requested, 9 * second, false), Step::Wait);
        assert_eq!(ask(StopCause::Requested, 2 * second, false), Step::Wait);
        assert_eq!(ask(StopCause::Deadline, 9 * second, true), Step::Kill);
        assert_eq!(ask(StopCause::Deadline, 9 * second, true), Step::Wait);
        let ladder = ladder.unwrap();
        assert_eq!(ladder.kill_at, now.checked_add(2 * second));
        assert_eq!(ladder.cause, StopCause::Requested);
        assert!(Ladder::evidence(Some(ladder)).kill_sent);
    }

    #[test]
    fn the_kill_is_due_once() {
        let now = Instant::now();
        let mut ladder = None;
        Ladder::ask(&mut ladder, StopCause::Requested, Duration::ZERO, false, now);
        let mut ladder = ladder.unwrap();
        assert!(ladder.is_due(now));
        assert!(!ladder.is_due(now));
    }

    #[test]
    fn an_endless_grace_is_never_over() {
        let now = Instant::now();
        let mut ladder = None;
        Ladder::ask(&mut ladder, StopCause::Requested, Duration::MAX, false, now);
        assert!(ladder.unwrap().is_tightened_by(Duration::from_secs(1), now));
        assert!(!ladder.unwrap().is_due(now + Duration::from_secs(1 << 30)));
    }
}
