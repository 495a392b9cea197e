//! Whether an atom is tried again, and when: a pure decision.

use std::time::Duration;

use caesium::Timestamp;
use caesium::lifecycle::{
    Backoff, Ending, Event, Evidence, Life, OnInvalid, Outcome, OutcomeSet, Reason, RetryPolicy,
    StopCause, StopOrder, Verdict, WaitStatus, decide, transition,
};
use proptest::prelude::*;

const ANY_CHANCE: u64 = 0x1234_5678_9abc_def0;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn life(events: &[Event]) -> Life {
    events.iter().fold(Life::created(at(1)), |life, event| transition(&life, event, at(2)).unwrap())
}

const STARTED: Event = Event::Started { pid: Some(42) };

fn exited(status: WaitStatus) -> Event {
    Event::Exited(Ending::observed(status, Evidence::default()))
}

fn stop(cause: StopCause) -> Event {
    Event::StopAsked(StopOrder { grace: Duration::ZERO, force: false, cause })
}

/// A life that ended with the outcome.
fn ended(outcome: Outcome) -> Life {
    let signal = |signal| exited(WaitStatus::Signaled { signal, core_dumped: false });
    let events: &[Event] = match outcome {
        Outcome::Success => &[STARTED, exited(WaitStatus::Exited { code: 0 })],
        Outcome::Failure => &[STARTED, exited(WaitStatus::Exited { code: 1 })],
        Outcome::StartupFailure => &[Event::StartFailed { reason: Reason::ExecNotFound }],
        Outcome::ResourceFailure => &[STARTED, signal(24)],
        Outcome::Killed => &[STARTED, signal(9)],
        Outcome::Terminated => &[STARTED, signal(15)],
        Outcome::Unknown => &[STARTED, Event::LostSight { reason: Reason::ExitUnobserved }],
    };
    let life = life(events);
    assert_eq!(life.end().unwrap().ending.outcome, outcome);
    life
}

fn policy(max_attempts: u32) -> RetryPolicy {
    RetryPolicy { max_attempts, ..RetryPolicy::default() }
}

fn verdict(life: &Life, policy: &RetryPolicy, attempt: u32) -> Verdict {
    decide(life, policy, OnInvalid::Keep, attempt, ANY_CHANCE)
}

fn retries(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Retry { .. })
}

#[test]
fn the_default_is_no_retry() {
    for outcome in Outcome::ALL {
        assert_eq!(verdict(&ended(*outcome), &RetryPolicy::default(), 1), Verdict::Keep);
    }
}

#[test]
fn by_default_every_outcome_but_success_is_tried_again() {
    for outcome in Outcome::ALL {
        let again = retries(verdict(&ended(*outcome), &policy(3), 1));
        assert_eq!(again, *outcome != Outcome::Success, "{outcome}");
    }
}

#[test]
fn only_the_outcomes_of_the_policy_are_tried_again() {
    for chosen in Outcome::ALL {
        let policy = RetryPolicy { on: [*chosen].into_iter().collect(), ..policy(3) };
        for outcome in Outcome::ALL {
            assert_eq!(retries(verdict(&ended(*outcome), &policy, 1)), outcome == chosen);
        }
    }
    let never = RetryPolicy { on: OutcomeSet::default(), ..policy(3) };
    for outcome in Outcome::ALL {
        assert_eq!(verdict(&ended(*outcome), &never, 1), Verdict::Keep);
    }
}

#[test]
fn there_are_as_many_executions_as_the_policy_says() {
    for max_attempts in 0..6 {
        for attempt in 1..8 {
            let again = retries(verdict(&ended(Outcome::Failure), &policy(max_attempts), attempt));
            assert_eq!(again, attempt < max_attempts, "attempt {attempt} of {max_attempts}");
        }
    }
}

#[test]
fn a_requested_stop_is_never_tried_again() {
    let endings = [
        exited(WaitStatus::Exited { code: 1 }),
        exited(WaitStatus::Signaled { signal: 9, core_dumped: false }),
        Event::LostSight { reason: Reason::ExitUnobserved },
    ];
    for ending in endings {
        let requested = life(&[STARTED, stop(StopCause::Requested), ending]);
        assert_eq!(verdict(&requested, &policy(9), 1), Verdict::Keep);
        let deadline = life(&[STARTED, stop(StopCause::Deadline), ending]);
        assert!(retries(verdict(&deadline, &policy(9), 1)), "a deadline's stop is not a request");
        let both = life(&[STARTED, stop(StopCause::Deadline), stop(StopCause::Requested), ending]);
        assert_eq!(verdict(&both, &policy(9), 1), Verdict::Keep);
    }
}

#[test]
fn what_was_never_acknowledged_is_not_tried_again_but_a_withdrawn_retry_is() {
    let withdrawn = life(&[Event::Withdrawn]);
    assert_eq!(verdict(&withdrawn, &policy(9), 1), Verdict::Keep);
    assert!(retries(verdict(&withdrawn, &policy(9), 2)));
}

#[test]
fn an_invalid_atom_follows_its_own_policy() {
    let invalid = life(&[STARTED, Event::Contradiction { reason: Reason::IdentityMismatch }]);
    let decided = |on_invalid, attempt| decide(&invalid, &policy(2), on_invalid, attempt, 0);
    assert_eq!(decided(OnInvalid::Keep, 1), Verdict::Keep);
    assert_eq!(decided(OnInvalid::Delete, 1), Verdict::Delete);
    assert!(retries(decided(OnInvalid::Retry, 1)));
    assert_eq!(decided(OnInvalid::Retry, 2), Verdict::Keep, "the attempts are used up");
    let stopped = life(&[
        STARTED,
        stop(StopCause::Requested),
        Event::Contradiction { reason: Reason::IdentityMismatch },
    ]);
    assert_eq!(decide(&stopped, &policy(9), OnInvalid::Retry, 1, 0), Verdict::Keep);
}

#[test]
fn what_has_not_ended_and_what_is_being_deleted_is_left_alone() {
    let failed = Event::StartFailed { reason: Reason::ExecNotFound };
    for events in [
        vec![],
        vec![STARTED],
        vec![STARTED, stop(StopCause::Deadline)],
        vec![failed, Event::DeleteAsked],
        vec![failed, Event::DeleteAsked, Event::Removed],
    ] {
        for on_invalid in OnInvalid::ALL {
            assert_eq!(decide(&life(&events), &policy(9), *on_invalid, 1, 0), Verdict::Keep);
        }
    }
}

#[test]
fn the_delay_is_the_backoffs() {
    let backoff = Backoff {
        initial: Duration::from_millis(100),
        factor: 3.0,
        max: Duration::from_secs(2),
        jitter: 0.0,
    };
    let policy = RetryPolicy { backoff, ..policy(9) };
    for (attempt, millis) in [(1, 100), (2, 300), (3, 900), (4, 2000), (5, 2000)] {
        assert_eq!(
            verdict(&ended(Outcome::Failure), &policy, attempt),
            Verdict::Retry { after: Duration::from_millis(millis) },
        );
    }
}

proptest! {
    #[test]
    fn any_backoff_stays_within_its_bounds_and_deciding_again_decides_the_same(
        initial in 0..u64::MAX, longest in 0..u64::MAX, factor: f64, jitter: f64,
        attempt in 1..u32::MAX, chance: u64,
    ) {
        let backoff = Backoff {
            initial: Duration::from_nanos(initial),
            factor,
            max: Duration::from_nanos(longest),
            jitter,
        };
        let policy = RetryPolicy { backoff, ..policy(u32::MAX) };
        let life = ended(Outcome::Failure);
        let first = decide(&life, &policy, OnInvalid::Keep, attempt, chance);
        prop_assert_eq!(first, decide(&life, &policy, OnInvalid::Keep, attempt, chance));
        let Verdict::Retry { after } = first else { panic!("{first:?}") };
        // Seconds are kept as floating point: the last nanoseconds of centuries are not exact.
        let bound = backoff.max.as_secs_f64() * (1.0 + 1e-9);
        prop_assert!(after.as_secs_f64() <= bound, "{:?} of {:?}", after, backoff);
    }

    #[test]
    fn more_jitter_is_never_later(jitter in 0.0..1.0f64, attempt in 1..20u32, chance: u64) {
        let delay = |jitter| Backoff { jitter, ..Backoff::default() }.delay(attempt, chance);
        let (without, with) = (delay(0.0), delay(jitter));
        prop_assert!(with <= without);
        prop_assert!(with.as_secs_f64() + 1e-6 >= without.as_secs_f64() * (1.0 - jitter));
    }
}
