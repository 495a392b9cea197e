//! One history in which everything occurs, with a failure or an end at every
//! call of every kind: while events are written, segments change, are packed
//! and compacted, and while the store is closed and opened.

use std::io::ErrorKind;

use caesium::journal::storage::{Call, Crash, Failing, Keep};

use super::draw::{Operation, Plan, Setting, Trouble};
use super::world::{Figures, run, shown};

const POWER: Crash = Crash { seed: 0, keep: Keep::Nothing, sector: 512 };

fn change(facts: u64, seed: u64) -> Operation {
    Operation::Change { facts, seed, give_up: false }
}

/// The history, with the trouble at its beginning or while it is opened again.
fn history(batched: bool, early: Option<Trouble>, at_opening: Option<Trouble>) -> Figures {
    let mut operations: Vec<_> = (10..14).map(|seed| change(3, seed)).collect();
    operations.extend(early.map(Operation::Trouble));
    operations.extend([
        change(3, 4),
        Operation::Wait,
        change(3, 2),
        Operation::Pack,
        change(3, 6),
        Operation::Compact { keep: 5 },
        Operation::Subscribe { from: 1 },
        change(1, 5),
        Operation::Wait,
        Operation::Poll,
        Operation::Close { crash: None, meanwhile: at_opening },
        change(3, 9),
        Operation::Crash { crash: POWER, meanwhile: None },
    ]);
    let plan = Plan { setting: Setting { segment_bytes: 1, batched }, operations };
    run(&plan, false).unwrap_or_else(|broken| {
        panic!("{:?}: {}\n{}", broken.kind, broken.what, shown(&plan));
    })
}

/// Both, or one of them where the compiler did not optimise.
fn durabilities() -> impl Iterator<Item = bool> {
    [false, true].into_iter().take(if cfg!(debug_assertions) { 1 } else { 2 })
}

#[test]
fn whichever_call_fails_once_or_from_then_on() {
    for call in Call::ALL {
        for failing in [Failing::Once, Failing::Forever] {
            for batched in durabilities() {
                let fail = |nth| Some(Trouble::Fail { call, nth, failing, kind: ErrorKind::Other });
                let early = (1..).find(|nth| history(batched, fail(*nth), None).failures == 0);
                let late = (1..).find(|nth| history(batched, None, fail(*nth)).failures == 0);
                println!("{call:?} {failing:?} batched {batched}: {early:?} and {late:?} calls");
            }
        }
    }
}

#[test]
fn whichever_call_is_the_last_before_host_or_power_is_gone() {
    for keep in [Keep::All, Keep::Nothing, Keep::Some] {
        for batched in durabilities() {
            let cut =
                |after| Trouble::Cut { after, crash: Crash { keep, seed: after, sector: 512 } };
            // Three crashes are there in any case.
            let same = |figures: Figures| figures.power_cuts + figures.kills == 3;
            let early = (0..).find(|after| same(history(batched, Some(cut(*after)), None)));
            let late = (0..).find(|after| same(history(batched, None, Some(cut(*after)))));
            println!("{keep:?}, batched {batched}: {early:?} and {late:?} calls");
            assert!(early > Some(50) && late > Some(20), "the history has more calls than that");
        }
    }
}

#[test]
fn the_history_has_several_parts() {
    let figures = history(false, None, None);
    assert!(figures.parts > 1 && figures.compacted > 0, "{figures:?}");
}
