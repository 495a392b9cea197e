//! What holds after any sequence of events, in any order and with any clock.

use std::time::Duration;

use caesium::Timestamp;
use caesium::lifecycle::{
    Ending, Event, Evidence, Life, Reason, State, StopCause, StopOrder, WaitStatus, allowed_events,
    next, transition,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn reason() -> impl Strategy<Value = Reason> {
    prop::sample::select(Reason::ALL)
}

fn order() -> impl Strategy<Value = StopOrder> {
    let grace = prop_oneof![
        Just(Duration::ZERO),
        (0..10_000_000u64).prop_map(Duration::from_micros),
        Just(Duration::MAX),
    ];
    (grace, any::<bool>(), prop::sample::select(StopCause::ALL))
        .prop_map(|(grace, force, cause)| StopOrder { grace, force, cause })
}

fn ending() -> impl Strategy<Value = Ending> {
    let status = prop_oneof![
        any::<u8>().prop_map(|code| WaitStatus::Exited { code }),
        (1..=64u8, any::<bool>())
            .prop_map(|(signal, core_dumped)| WaitStatus::Signaled { signal, core_dumped }),
    ];
    let evidence = (
        any::<bool>(),
        any::<bool>(),
        option::of(prop::sample::select(StopCause::ALL)),
        any::<bool>(),
        any::<u32>(),
    );
    (status, evidence).prop_map(
        |(status, (term_reached, kill_sent, cause, oom_killed, oom_kills))| {
            Ending::observed(
                status,
                Evidence { term_reached, kill_sent, cause, oom_killed, oom_kills },
            )
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => option::of(any::<u32>()).prop_map(|pid| Event::Started { pid }),
        1 => reason().prop_map(|reason| Event::StartFailed { reason }),
        1 => Just(Event::Withdrawn),
        3 => order().prop_map(Event::StopAsked),
        2 => ending().prop_map(Event::Exited),
        1 => reason().prop_map(|reason| Event::LostSight { reason }),
        2 => Just(Event::DeleteAsked),
        2 => Just(Event::Removed),
        1 => reason().prop_map(|reason| Event::Contradiction { reason }),
    ]
}

/// Any time: early and late ones, also out of order.
fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![0..100u64, any::<u64>()].prop_map(Timestamp::from_micros)
}

type Step = (Event, Timestamp);

fn steps() -> impl Strategy<Value = (Timestamp, Vec<Step>)> {
    (time(), vec((event(), time()), 0..24))
}

/// What has to hold of every life, whatever happened to it.
fn check_life(life: &Life) -> Result<(), TestCaseError> {
    let state = life.state();
    let live = matches!(state, State::Created | State::Running | State::Stopping);
    prop_assert_eq!(state.is_live(), live);
    if live {
        prop_assert!(life.end().is_none(), "an outcome before the end: {:?}", life);
    }
    if state == State::Stopped {
        prop_assert!(life.end().is_some(), "stopped without an outcome: {:?}", life);
    }
    prop_assert_eq!(life.contradiction().is_some(), state == State::Invalid);
    if state == State::Running {
        prop_assert!(life.run().is_some() && life.stop().is_none());
    }
    if state == State::Stopping {
        prop_assert!(life.stop().is_some());
    }
    // created ≤ started ≤ stopped ≤ latest, as far as there is each.
    let times = [
        Some(life.created_at()),
        life.run().map(|run| run.started_at),
        life.end().map(|end| end.stopped_at),
        Some(life.latest()),
    ];
    prop_assert!(times.iter().flatten().is_sorted(), "times go backwards: {:?}", life);
    if let Some(stop) = life.stop() {
        prop_assert!(life.created_at() <= stop.asked_at && stop.asked_at <= life.latest());
        prop_assert!(stop.asked_at <= stop.kill_at);
    }
    Ok(())
}

/// What one accepted event may not take away.
fn check_step(before: &Life, after: &Life, event: &Event) -> Result<(), TestCaseError> {
    prop_assert_eq!(next(before.state(), event.kind()), Some(after.state()));
    prop_assert_eq!(before.created_at(), after.created_at());
    prop_assert!(before.latest() <= after.latest());
    if let Some(end) = before.end() {
        prop_assert_eq!(after.end(), Some(end), "an ending is never rewritten");
        prop_assert_eq!(before.run(), after.run(), "what has ended does not run again");
    }
    if let (Some(run), false) = (before.run(), matches!(event, Event::Started { .. })) {
        prop_assert_eq!(after.run(), Some(run), "pid and start time are kept");
    }
    if let Some(stop) = before.stop() {
        let kept = after.stop().unwrap();
        prop_assert_eq!(kept.asked_at, stop.asked_at);
        prop_assert!(kept.kill_at <= stop.kill_at && kept.force >= stop.force);
        prop_assert!(stop.cause == StopCause::Deadline || kept.cause == StopCause::Requested);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_sequence_of_events_keeps_the_invariants((birth, steps) in steps()) {
        let mut life = Life::created(birth);
        check_life(&life)?;
        for (event, at) in &steps {
            let before = life;
            match transition(&life, event, *at) {
                Ok(after) => {
                    check_step(&before, &after, event)?;
                    life = after;
                }
                Err(rejection) => {
                    prop_assert_eq!(rejection.state, before.state());
                    prop_assert_eq!(rejection.event, event.kind());
                    prop_assert_eq!(rejection.allowed, allowed_events(before.state()));
                    prop_assert!(!rejection.allowed.contains(event.kind()));
                    prop_assert_eq!(life, before);
                }
            }
            check_life(&life)?;
        }
    }

    #[test]
    fn what_was_rejected_leaves_no_trace((birth, steps) in steps()) {
        let mut life = Life::created(birth);
        let mut accepted: Vec<Step> = Vec::new();
        for (event, at) in steps {
            if let Ok(after) = transition(&life, &event, at) {
                life = after;
                accepted.push((event, at));
            }
        }
        let replayed = accepted.iter().try_fold(Life::created(birth), |life, (event, at)| {
            transition(&life, event, *at)
        });
        prop_assert_eq!(replayed, Ok(life));
    }

    #[test]
    fn replaying_with_the_times_that_were_kept_gives_the_same_life((birth, steps) in steps()) {
        let mut life = Life::created(birth);
        let mut kept: Vec<Step> = Vec::new();
        for (event, at) in steps {
            if let Ok(after) = transition(&life, &event, at) {
                life = after;
                kept.push((event, after.latest()));
            }
        }
        let replayed = kept.iter().try_fold(Life::created(birth), |life, (event, at)| {
            transition(&life, event, *at)
        });
        prop_assert_eq!(replayed, Ok(life));
    }

    #[test]
    fn nothing_leads_out_of_deleted((birth, steps) in steps()) {
        let mut life = Life::created(birth);
        let mut deleted = None;
        for (event, at) in &steps {
            if let Ok(after) = transition(&life, event, *at) {
                prop_assert!(deleted.is_none(), "{:?} after the end of all", event);
                life = after;
            }
            if life.state() == State::Deleted {
                deleted.get_or_insert(life);
            }
        }
        prop_assert!(deleted.is_none_or(|deleted| deleted == life));
    }

    #[test]
    fn what_the_driver_reports_after_the_end_changes_nothing(
        (birth, steps) in steps(), late in vec((event(), time()), 1..6),
    ) {
        let mut life = Life::created(birth);
        for (event, at) in &steps {
            life = transition(&life, event, *at).unwrap_or(life);
        }
        prop_assume!(life.end().is_some());
        let end = life.end();
        for (event, at) in &late {
            life = transition(&life, event, *at).unwrap_or(life);
        }
        prop_assert_eq!(life.end(), end);
    }

    #[test]
    fn a_life_survives_being_written_and_read((birth, steps) in steps()) {
        let mut life = Life::created(birth);
        for (event, at) in &steps {
            life = transition(&life, event, *at).unwrap_or(life);
            let text = serde_json::to_string(&life).unwrap();
            prop_assert_eq!(serde_json::from_str::<Life>(&text).unwrap(), life);
        }
    }
}
