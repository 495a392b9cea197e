//! Every cell of the transition table, against the table of the contract written out.

use std::time::Duration;

use caesium::lifecycle::{
    Ending, Event, EventKind, Evidence, Life, Outcome, Reason, Rejection, State, StopCause,
    StopOrder, WaitStatus, allowed_events, can, next, transition, transitions,
};
use caesium::{LABEL, Timestamp};

/// The contract's table, word for word but for the remarks in brackets.
const CONTRACT: &str = "
| from \\ event | started | start failed | withdrawn | stop asked | exited | lost sight | delete asked | removed | contradiction |
|---|---|---|---|---|---|---|---|---|---|
| created  | running | stopped | stopped | stopping | – | stopped | – | – | invalid |
| running  | – | – | – | stopping | stopped | stopped | – | – | invalid |
| stopping | stopping | stopped | stopped | stopping | stopped | stopped | – | – | invalid |
| stopped  | – | – | – | – | – | – | deleting | – | invalid |
| deleting | – | – | – | – | – | – | – | deleted | invalid |
| deleted  | – | – | – | – | – | – | – | – | – |
| invalid  | – | – | – | – | – | – | deleting | – | – |
";

/// The cells of [`CONTRACT`].
fn cells() -> Vec<(State, EventKind, Option<State>)> {
    let mut rows = CONTRACT.trim().lines().map(|line| {
        let line = line.trim_start_matches('|').trim_end_matches('|');
        line.split('|').map(str::trim).collect::<Vec<&str>>()
    });
    let header = rows.next().unwrap();
    let events: Vec<EventKind> =
        header[1..].iter().map(|name| name.replace(' ', "_").parse().unwrap()).collect();
    let mut cells = Vec::new();
    for row in rows.skip(1) {
        let state = row[0].parse().unwrap();
        assert_eq!(row.len(), header.len());
        for (event, to) in events.iter().zip(&row[1..]) {
            cells.push((state, *event, (*to != "–").then(|| to.parse().unwrap())));
        }
    }
    cells
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// Some event of the kind.
fn event(kind: EventKind) -> Event {
    match kind {
        EventKind::Started => Event::Started { pid: Some(42) },
        EventKind::StartFailed => Event::StartFailed { reason: Reason::ExecNotFound },
        EventKind::Withdrawn => Event::Withdrawn,
        EventKind::StopAsked => Event::StopAsked(order(10)),
        EventKind::Exited => {
            Event::Exited(Ending::observed(WaitStatus::Exited { code: 3 }, Evidence::default()))
        }
        EventKind::LostSight => Event::LostSight { reason: Reason::ExitUnobserved },
        EventKind::DeleteAsked => Event::DeleteAsked,
        EventKind::Removed => Event::Removed,
        EventKind::Contradiction => Event::Contradiction { reason: Reason::UnexpectedProcess },
    }
}

fn order(seconds: u64) -> StopOrder {
    StopOrder { grace: Duration::from_secs(seconds), force: false, cause: StopCause::Requested }
}

/// A life after these events, one per microsecond.
fn after(events: &[EventKind]) -> Life {
    events.iter().zip(2..).fold(Life::created(at(1)), |life, (kind, time)| {
        transition(&life, &event(*kind), at(time)).unwrap()
    })
}

/// Lives in the state, by every way there that differs in what is known of the atom.
fn lives(state: State) -> Vec<Life> {
    use EventKind as E;
    let ways: &[&[EventKind]] = match state {
        State::Created => &[&[]],
        State::Running => &[&[E::Started]],
        State::Stopping => &[&[E::StopAsked], &[E::Started, E::StopAsked]],
        State::Stopped => &[
            &[E::StartFailed],
            &[E::Withdrawn],
            &[E::LostSight],
            &[E::StopAsked, E::Withdrawn],
            &[E::Started, E::Exited],
            &[E::Started, E::LostSight],
            &[E::Started, E::StopAsked, E::Exited],
        ],
        State::Deleting => &[
            &[E::Withdrawn, E::DeleteAsked],
            &[E::Started, E::Exited, E::DeleteAsked],
            &[E::Contradiction, E::DeleteAsked],
        ],
        State::Deleted => &[
            &[E::Withdrawn, E::DeleteAsked, E::Removed],
            &[E::Contradiction, E::DeleteAsked, E::Removed],
        ],
        State::Invalid => &[
            &[E::Contradiction],
            &[E::Started, E::Contradiction],
            &[E::Started, E::Exited, E::Contradiction],
            &[E::StartFailed, E::DeleteAsked, E::Contradiction],
        ],
    };
    let lives: Vec<Life> = ways.iter().map(|way| after(way)).collect();
    assert!(lives.iter().all(|life| life.state() == state));
    lives
}

#[test]
fn the_contract_has_a_cell_for_every_state_and_event() {
    let cells = cells();
    assert_eq!(cells.len(), State::ALL.len() * EventKind::ALL.len());
    for state in State::ALL {
        for event in EventKind::ALL {
            assert_eq!(cells.iter().filter(|cell| (cell.0, cell.1) == (*state, *event)).count(), 1);
        }
    }
}

#[test]
fn every_cell_is_as_the_contract_says() {
    for (from, kind, to) in cells() {
        assert_eq!(next(from, kind), to, "{from} × {kind}");
        assert_eq!(can(from, kind), to.is_some(), "{from} × {kind}");
        assert_eq!(allowed_events(from).contains(kind), to.is_some(), "{from} × {kind}");
        assert_eq!(transitions().find(|t| (t.0, t.1) == (from, kind)).map(|t| t.2), to);
        for life in lives(from) {
            let result = transition(&life, &event(kind), at(100));
            assert_eq!(result.ok().map(|life| life.state()), to, "{from} × {kind}");
        }
    }
}

#[test]
fn a_rejection_says_state_event_and_what_would_be_allowed() {
    for (from, kind, to) in cells() {
        if to.is_some() {
            continue;
        }
        let allowed: Vec<EventKind> = cells()
            .iter()
            .filter(|cell| cell.0 == from && cell.2.is_some())
            .map(|cell| cell.1)
            .collect();
        for life in lives(from) {
            let before = life;
            let rejection: Rejection = transition(&life, &event(kind), at(100)).unwrap_err();
            assert_eq!((rejection.state, rejection.event), (from, kind));
            assert_eq!(rejection.allowed.iter().collect::<Vec<_>>(), allowed);
            assert_eq!(life, before);
            let names: Vec<&str> = allowed.iter().map(|kind| kind.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            assert_eq!(
                rejection.to_string(),
                format!("event {kind} is not allowed in state {from} (allowed: {names})"),
            );
        }
    }
}

#[test]
fn the_names_are_those_of_the_contract() {
    let states: Vec<&str> = State::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(
        states,
        ["created", "running", "stopping", "stopped", "deleting", "deleted", "invalid"]
    );
    let outcomes: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    assert_eq!(
        outcomes,
        [
            "success",
            "failure",
            "startup_failure",
            "resource_failure",
            "killed",
            "terminated",
            "unknown"
        ]
    );
    assert_eq!(LABEL, "cloud.caesium");
    for outcome in Outcome::ALL {
        assert_eq!(outcome.is_failure(), *outcome != Outcome::Success);
    }
}

#[test]
fn a_name_is_the_same_in_display_parsing_and_json() {
    fn check<T>(all: &[T], name: impl Fn(T) -> &'static str)
    where
        T: Copy
            + PartialEq
            + std::fmt::Debug
            + std::fmt::Display
            + std::str::FromStr<Err: std::fmt::Display>
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        for value in all {
            let text = name(*value);
            assert_eq!(value.to_string(), text);
            assert_eq!(text.parse().ok(), Some(*value));
            assert_eq!(serde_json::to_string(value).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<T>(&format!("{text:?}")).unwrap(), *value);
            assert!(text.to_uppercase().parse::<T>().is_err());
        }
    }
    check(State::ALL, State::as_str);
    check(Outcome::ALL, Outcome::as_str);
    check(EventKind::ALL, EventKind::as_str);
    check(Reason::ALL, Reason::as_str);
    check(StopCause::ALL, StopCause::as_str);
}

#[test]
fn a_start_that_arrives_during_a_stop_is_kept() {
    let life = after(&[EventKind::StopAsked]);
    let stop = life.stop().unwrap();
    let life = transition(&life, &Event::Started { pid: Some(7) }, at(50)).unwrap();
    assert_eq!(life.state(), State::Stopping);
    let run = life.run().unwrap();
    assert_eq!((run.pid, run.started_at), (Some(7), at(50)));
    assert_eq!(life.stop(), Some(stop), "the stop goes on as it was asked for");
}

#[test]
fn a_second_stop_can_only_make_it_stricter() {
    let life = after(&[EventKind::Started]);
    let asked = |life: &Life, order: StopOrder, time| {
        transition(life, &Event::StopAsked(order), at(time)).unwrap()
    };
    let first = asked(&life, order(10), 1_000);
    assert_eq!(first.stop().unwrap().kill_at, at(10_001_000));
    let longer = asked(&first, order(3600), 2_000);
    assert_eq!(longer.stop(), first.stop(), "a longer grace changes nothing");
    let shorter = asked(&first, order(1), 2_000);
    assert_eq!(shorter.stop().unwrap().kill_at, at(1_002_000));
    let forced = asked(&shorter, StopOrder { force: true, ..order(60) }, 3_000);
    let stop = forced.stop().unwrap();
    assert_eq!((stop.force, stop.kill_at, stop.asked_at), (true, at(3_000), at(1_000)));
    let later = asked(&forced, order(60), 4_000);
    assert_eq!(later.stop(), forced.stop(), "what is forced stays forced");
}

#[test]
fn a_request_during_a_deadlines_stop_makes_it_a_requested_one() {
    let deadline = StopOrder { cause: StopCause::Deadline, ..order(5) };
    for (first, second, cause) in [
        (deadline, deadline, StopCause::Deadline),
        (deadline, order(60), StopCause::Requested),
        (order(5), deadline, StopCause::Requested),
    ] {
        let life = after(&[EventKind::Started]);
        let life = transition(&life, &Event::StopAsked(first), at(10)).unwrap();
        let life = transition(&life, &Event::StopAsked(second), at(11)).unwrap();
        assert_eq!(life.stop().unwrap().cause, cause);
    }
}

#[test]
fn what_never_ran_is_a_startup_failure_or_terminated() {
    let ending = |events: &[EventKind]| {
        let ending = after(events).end().unwrap().ending;
        assert_eq!((ending.exit_code, ending.signal), (None, None));
        (ending.outcome, ending.reason)
    };
    use EventKind::{LostSight, StartFailed, StopAsked, Withdrawn};
    assert_eq!(ending(&[StartFailed]), (Outcome::StartupFailure, Reason::ExecNotFound));
    assert_eq!(ending(&[StopAsked, StartFailed]), (Outcome::StartupFailure, Reason::ExecNotFound));
    assert_eq!(ending(&[Withdrawn]), (Outcome::StartupFailure, Reason::NeverStarted));
    assert_eq!(ending(&[StopAsked, Withdrawn]), (Outcome::Terminated, Reason::NeverStarted));
    assert_eq!(ending(&[LostSight]), (Outcome::Unknown, Reason::ExitUnobserved));
    assert_eq!(ending(&[StopAsked, LostSight]), (Outcome::Unknown, Reason::ExitUnobserved));
}

#[test]
fn only_an_invalid_atom_has_a_contradiction() {
    for state in State::ALL {
        for life in lives(*state) {
            let expected = (*state == State::Invalid).then_some(Reason::UnexpectedProcess);
            assert_eq!(life.contradiction(), expected, "{state}");
        }
    }
}
