//! What a decision costs: all states × all events, in machines with the same table.

use std::hint::black_box;
use std::path::Path;

use by_hand::by_hand;
use caesium::lifecycle::{EventKind, State, next};
use rust_fsm::StateMachineImpl as _;
use statig::blocking::IntoStateMachineExt as _;

use crate::Result;
use crate::table::{rates, repeat};

#[path = "../../benches/by_hand/mod.rs"]
mod by_hand;

mod by_smlang {
    use smlang::statemachine;

    statemachine! {
        derive_states: [Debug, Clone, Copy],
        derive_events: [Debug, Clone, Copy],
        transitions: {
            *Created + Started = Running,
            Created + StartFailed = Stopped,
            Created + Withdrawn = Stopped,
            Created + LostSight = Stopped,
            Created + StopAsked = Stopping,
            Created + Contradiction = Invalid,
            Running + StopAsked = Stopping,
            Running + Exited = Stopped,
            Running + LostSight = Stopped,
            Running + Contradiction = Invalid,
            Stopping + StopAsked = Stopping,
            Stopping + Started = Stopping,
            Stopping + StartFailed = Stopped,
            Stopping + Withdrawn = Stopped,
            Stopping + Exited = Stopped,
            Stopping + LostSight = Stopped,
            Stopping + Contradiction = Invalid,
            Stopped + DeleteAsked = Deleting,
            Stopped + Contradiction = Invalid,
            Deleting + Removed = Deleted,
            Deleting + Contradiction = Invalid,
            Invalid + DeleteAsked = Deleting,
        }
    }

    pub(super) struct Nothing;
    impl StateMachineContext for Nothing {}
}

mod by_rust_fsm {
    use rust_fsm::state_machine;

    state_machine! {
        #[derive(Debug, Clone, Copy)]
        #[repr(C)]
        pub(super) fsm(Created)

        Created => {
            Started => Running,
            StartFailed => Stopped,
            Withdrawn => Stopped,
            LostSight => Stopped,
            StopAsked => Stopping,
            Contradiction => Invalid,
        },
        Running => {
            StopAsked => Stopping,
            Exited => Stopped,
            LostSight => Stopped,
            Contradiction => Invalid,
        },
        Stopping => {
            StopAsked => Stopping,
            Started => Stopping,
            StartFailed => Stopped,
            Withdrawn => Stopped,
            Exited => Stopped,
            LostSight => Stopped,
            Contradiction => Invalid,
        },
        Stopped => {
            DeleteAsked => Deleting,
            Contradiction => Invalid,
        },
        Deleting => {
            Removed => Deleted,
            Contradiction => Invalid,
        },
        Invalid(DeleteAsked) => Deleting,
    }
}

/// By hand what statig's attribute makes of one function for each state: that one has to be told where to begin.
mod by_statig {
    use statig::Outcome::{self, Super, Transition};
    use statig::blocking;

    #[derive(Clone, Copy)]
    pub(super) enum State {
        Created,
        Running,
        Stopping,
        Stopped,
        Deleting,
        Deleted,
        Invalid,
    }

    #[derive(Clone, Copy)]
    pub(super) enum Event {
        Started,
        StartFailed,
        Withdrawn,
        StopAsked,
        Exited,
        LostSight,
        DeleteAsked,
        Removed,
        Contradiction,
    }

    /// Whether there was a transition: statig does not say it, and one may lead to the state where it began.
    #[derive(Default)]
    pub(super) struct Machine {
        pub(super) moved: bool,
    }

    impl blocking::IntoStateMachine for Machine {
        type Event<'evt> = Event;
        type Context<'ctx> = ();
        type State = State;
        type Superstate<'sub> = ();

        fn initial() -> State {
            State::Created
        }

        fn after_transition(&mut self, _: &State, _: &State, (): &mut ()) {
            self.moved = true;
        }
    }

    impl blocking::State<Machine> for State {
        fn call_handler(&mut self, _: &mut Machine, event: &Event, (): &mut ()) -> Outcome<Self> {
            match self {
                Self::Created => match event {
                    Event::Started => Transition(Self::Running),
                    Event::StartFailed => Transition(Self::Stopped),
                    Event::Withdrawn => Transition(Self::Stopped),
                    Event::LostSight => Transition(Self::Stopped),
                    Event::StopAsked => Transition(Self::Stopping),
                    Event::Contradiction => Transition(Self::Invalid),
                    _ => Super,
                },
                Self::Running => match event {
                    Event::StopAsked => Transition(Self::Stopping),
                    Event::Exited => Transition(Self::Stopped),
                    Event::LostSight => Transition(Self::Stopped),
                    Event::Contradiction => Transition(Self::Invalid),
                    _ => Super,
                },
                Self::Stopping => match event {
                    Event::StopAsked => Transition(Self::Stopping),
                    Event::Started => Transition(Self::Stopping),
                    Event::StartFailed => Transition(Self::Stopped),
                    Event::Withdrawn => Transition(Self::Stopped),
                    Event::Exited => Transition(Self::Stopped),
                    Event::LostSight => Transition(Self::Stopped),
                    Event::Contradiction => Transition(Self::Invalid),
                    _ => Super,
                },
                Self::Stopped => match event {
                    Event::DeleteAsked => Transition(Self::Deleting),
                    Event::Contradiction => Transition(Self::Invalid),
                    _ => Super,
                },
                Self::Deleting => match event {
                    Event::Removed => Transition(Self::Deleted),
                    Event::Contradiction => Transition(Self::Invalid),
                    _ => Super,
                },
                Self::Deleted => Super,
                Self::Invalid => match event {
                    Event::DeleteAsked => Transition(Self::Deleting),
                    _ => Super,
                },
            }
        }
    }
}

/// The states and the events of another machine, in the order of ours.
macro_rules! named_as_ours {
    ($states:path, $events:path) => {{
        use $events as E;
        use $states as S;
        let states = State::ALL.iter().map(|state| match state {
            State::Created => S::Created,
            State::Running => S::Running,
            State::Stopping => S::Stopping,
            State::Stopped => S::Stopped,
            State::Deleting => S::Deleting,
            State::Deleted => S::Deleted,
            State::Invalid => S::Invalid,
        });
        let events = EventKind::ALL.iter().map(|event| match event {
            EventKind::Started => E::Started,
            EventKind::StartFailed => E::StartFailed,
            EventKind::Withdrawn => E::Withdrawn,
            EventKind::StopAsked => E::StopAsked,
            EventKind::Exited => E::Exited,
            EventKind::LostSight => E::LostSight,
            EventKind::DeleteAsked => E::DeleteAsked,
            EventKind::Removed => E::Removed,
            EventKind::Contradiction => E::Contradiction,
        });
        (states.collect::<Vec<_>>(), events.collect::<Vec<_>>())
    }};
}

/// Decides every cell once; gives how many are allowed.
type Table = Box<dyn Fn() -> usize>;

fn cells<S: Copy + 'static, E: Copy + 'static>(
    (states, events): (Vec<S>, Vec<E>),
    is_allowed: impl Fn(S, E) -> bool + 'static,
) -> Table {
    Box::new(move || {
        let mut allowed = 0;
        for state in &states {
            for event in &events {
                allowed += usize::from(is_allowed(black_box(*state), black_box(*event)));
            }
        }
        allowed
    })
}

/// All of them.
pub(crate) fn all(_: &Path) -> Result<()> {
    let ours = || (State::ALL.to_vec(), EventKind::ALL.to_vec());
    let mut tables: Vec<(String, Table)> = vec![
        ("a match by hand".into(), cells(ours(), |s, e| black_box(by_hand(s, e)).is_some())),
        ("caesium".into(), cells(ours(), |s, e| black_box(next(s, e)).is_some())),
        (
            "smlang".into(),
            cells(named_as_ours!(by_smlang::States, by_smlang::Events), |state, event| {
                let machine = by_smlang::StateMachine::new_with_state(by_smlang::Nothing, state);
                let mut machine = machine;
                black_box(machine.process_event(event)).is_ok()
            }),
        ),
        (
            "rust-fsm".into(),
            cells(named_as_ours!(by_rust_fsm::fsm::State, by_rust_fsm::fsm::Input), |s, e| {
                black_box(by_rust_fsm::fsm::Impl::transition(&s, &e)).is_some()
            }),
        ),
        (
            "statig".into(),
            cells(named_as_ours!(by_statig::State, by_statig::Event), |state, event| {
                let mut machine = by_statig::Machine::default().uninitialized_state_machine();
                // Before it is started, it may be put anywhere.
                *machine.state_mut() = state;
                let mut machine = machine.init();
                machine.handle(&event);
                black_box((*machine.state(), machine.moved)).1
            }),
        ),
    ];
    let allowed: Vec<usize> = tables.iter().map(|(_, table)| table()).collect();
    assert!(allowed.iter().all(|some| *some == allowed[0]), "not the same table: {allowed:?}");
    rates("Decisions, all states × all events", "decisions", &mut tables, |table, turn| {
        repeat(turn / 4, || {
            for _ in 0..1000 {
                black_box(table());
            }
            Ok(1000 * State::ALL.len() * EventKind::ALL.len())
        })
    })
}
