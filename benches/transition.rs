//! What a decision costs: every state × event through the table, beside a `match` written by hand.

mod by_hand;

use std::hint::black_box;
use std::time::Duration;

use by_hand::by_hand;
use caesium::Timestamp;
use caesium::lifecycle::{
    Ending, Event, EventKind, Evidence, Life, Reason, State, StopCause, StopOrder, WaitStatus,
    next, transition,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn event(kind: EventKind) -> Event {
    match kind {
        EventKind::Started => Event::Started { pid: Some(42) },
        EventKind::StartFailed => Event::StartFailed { reason: Reason::ExecNotFound },
        EventKind::Withdrawn => Event::Withdrawn,
        EventKind::StopAsked => Event::StopAsked(StopOrder {
            grace: Duration::from_secs(10),
            force: false,
            cause: StopCause::Requested,
        }),
        EventKind::Exited => {
            Event::Exited(Ending::observed(WaitStatus::Exited { code: 0 }, Evidence::default()))
        }
        EventKind::LostSight => Event::LostSight { reason: Reason::ExitUnobserved },
        EventKind::DeleteAsked => Event::DeleteAsked,
        EventKind::Removed => Event::Removed,
        EventKind::Contradiction => Event::Contradiction { reason: Reason::UnexpectedProcess },
    }
}

/// A life in the state.
fn life(state: State) -> Life {
    use EventKind as E;
    let way: &[EventKind] = match state {
        State::Created => &[],
        State::Running => &[E::Started],
        State::Stopping => &[E::Started, E::StopAsked],
        State::Stopped => &[E::Started, E::Exited],
        State::Deleting => &[E::Started, E::Exited, E::DeleteAsked],
        State::Deleted => &[E::Started, E::Exited, E::DeleteAsked, E::Removed],
        State::Invalid => &[E::Started, E::Contradiction],
    };
    way.iter().fold(Life::created(Timestamp::from_micros(1)), |life, kind| {
        transition(&life, &event(*kind), Timestamp::from_micros(2)).expect("a way that is allowed")
    })
}

fn cells() -> Vec<(State, EventKind)> {
    let row = |state| EventKind::ALL.iter().map(move |event| (state, *event));
    State::ALL.iter().flat_map(|state| row(*state)).collect()
}

fn transitions(c: &mut Criterion) {
    let cells = cells();
    for (state, event) in &cells {
        assert_eq!(by_hand(*state, *event), next(*state, *event), "{state} × {event}");
    }
    let mut group = c.benchmark_group("transition");
    group.throughput(Throughput::Elements(cells.len() as u64));
    group.bench_function("by hand, the state alone", |b| {
        b.iter(|| {
            for (state, event) in &cells {
                black_box(by_hand(black_box(*state), black_box(*event)));
            }
        });
    });
    group.bench_function("next, the state alone", |b| {
        b.iter(|| {
            for (state, event) in &cells {
                black_box(next(black_box(*state), black_box(*event)));
            }
        });
    });
    let steps: Vec<(Life, Event)> =
        cells.iter().map(|(state, kind)| (life(*state), event(*kind))).collect();
    let at = Timestamp::from_micros(3);
    group.bench_function("transition, the whole life", |b| {
        b.iter(|| {
            for (life, event) in &steps {
                let _ = black_box(transition(black_box(life), black_box(event), black_box(at)));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, transitions);
criterion_main!(benches);
