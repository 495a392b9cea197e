//! What the simulation has found, each as the shortest story, told for every
//! call and not only for the one that was drawn.

use std::io::ErrorKind;

use caesium::journal::storage::{Call, Crash, Failing, Keep};

use super::draw::{Operation, Plan, Setting, Trouble};
use super::world::{run, shown};

const POWER: Crash = Crash { seed: 0, keep: Keep::Nothing, sector: 512 };
const KILL: Crash = Crash { keep: Keep::All, ..POWER };

fn torn(seed: u64) -> Crash {
    Crash { seed, keep: Keep::Some, sector: 512 }
}

fn change(facts: u64, seed: u64) -> Operation {
    Operation::Change { facts, seed, give_up: false }
}

fn crash(crash: Crash) -> Operation {
    Operation::Crash { crash, meanwhile: None }
}

fn close(crash: Option<Crash>) -> Operation {
    Operation::Close { crash, meanwhile: None }
}

fn fail(call: Call, nth: u64, failing: Failing) -> Operation {
    Operation::Trouble(Trouble::Fail { call, nth, failing, kind: ErrorKind::Other })
}

/// So many, or a part of them where the compiler did not optimise.
fn up_to(many: u64) -> std::ops::Range<u64> {
    0..if cfg!(debug_assertions) { many.div_ceil(5) } else { many }
}

fn holds(segment_bytes: u64, operations: Vec<Operation>) {
    for batched in [false, true] {
        let setting = Setting { segment_bytes, batched };
        let plan = Plan { setting, operations: operations.clone() };
        if let Err(broken) = run(&plan, false) {
            panic!("{:?}: {}\n{}", broken.kind, broken.what, shown(&plan));
        }
    }
}

/// A host was killed in a roll, after it had renamed the new segment and before
/// it had synced the directory. The next host found the segment, appended to it
/// and acknowledged; then a power cut took the name, and with it every one of
/// these events. (Seed 830 of the first simulation.)
#[test]
fn a_host_is_killed_at_any_call_and_the_power_goes_later() {
    for after in 0..60 {
        let cut = Trouble::Cut { after, crash: KILL };
        let work = [change(30, after), Operation::Wait, change(8, after + 1), Operation::Wait];
        let mut operations = vec![change(4, 3), Operation::Trouble(cut)];
        operations.extend(work.clone());
        operations.extend(work);
        operations.push(crash(POWER));
        holds(2048, operations);
    }
}

/// The sync of a footer failed. The footer was read all the same by the next
/// host of the same boot, which took the segment for cleanly closed, went on
/// behind the footer or rolled; the power cut that came then had never seen the
/// footer, nor, with batched durability, the events before it. (Seed 41.)
#[test]
fn any_sync_fails_and_the_power_goes_later() {
    for nth in 1..30 {
        for seed in up_to(4) {
            let operations = vec![
                change(3, seed),
                fail(Call::Sync, nth, Failing::Once),
                change(1, seed + 9),
                Operation::Wait,
                change(8, seed + 1),
                close(None),
                change(30, seed + 2),
                Operation::Wait,
                close(Some(POWER)),
            ];
            holds(2048, operations);
        }
    }
}

/// After a torn write the host zeroed what was torn; the sync of that failed.
/// The next host of the same boot read zeros, went on and closed cleanly. After
/// a power cut the torn bytes were back, behind a footer, and the store was
/// refused as damaged. (Seed 7265.)
#[test]
fn the_sync_of_zeros_over_a_torn_write_fails() {
    for seed in up_to(60) {
        for nth in 1..4 {
            let operations = vec![
                change(8, seed),
                Operation::Wait,
                change(8, seed + 1),
                Operation::Trouble(Trouble::Cut { after: 1, crash: torn(seed) }),
                Operation::Wait,
                fail(Call::Sync, nth, Failing::Once),
                change(1, seed + 2),
                Operation::Wait,
                crash(KILL),
                change(1, seed + 3),
                close(Some(POWER)),
            ];
            holds(20_000, operations);
        }
    }
}

/// The write of the footer that tells of a successor failed half-way, across
/// the border of two sectors, and the power cut after it kept only the later
/// sector of that half: verifying took that for damage. (Seed 53987.)
#[test]
fn half_a_footer_is_torn_as_well() {
    for seed in up_to(150) {
        let operations = vec![
            change(3, seed),
            fail(Call::Write, 4, Failing::Forever),
            change(30, seed + 1),
            close(Some(torn(seed))),
        ];
        holds(2048, operations);
    }
}

/// The packer removed a segment, and the directory's sync failed. It tried
/// again and removed the next one; a power cut brought back the first and not
/// the second, and the log had a gap. (Seed 142487.)
#[test]
fn a_removed_segment_comes_back() {
    for seed in up_to(60) {
        let mut operations: Vec<_> = (0..7).map(|number| change(8, seed + number)).collect();
        let failing = if seed % 2 == 0 { Failing::Once } else { Failing::Forever };
        operations.extend([
            fail(Call::SyncDir, 1 + seed % 3, failing),
            Operation::Pack,
            Operation::Pack,
            crash(torn(seed)),
        ]);
        holds(1, operations);
    }
}

/// Each clean close writes a footer, and what is written after it a mark. On a
/// full disk they ate, close by close, the room that is kept for endings, until
/// an ending was refused. (Seed 89949.)
#[test]
fn closing_and_opening_leaves_room_for_endings() {
    for seed in up_to(40) {
        let mut operations = vec![change(8, seed), close(None), Operation::Full { left: 5000 }];
        for number in 0..4 {
            operations.push(change(1, seed * 12 + number));
            operations.push(close(None));
        }
        operations.push(change(1, seed * 12 + 5));
        operations.push(change(1, seed * 12 + 6));
        holds(2048, operations);
    }
    let closed = |seed| [change(1, seed), close(None)];
    let mut operations = vec![change(8, 3998497955482594744), close(None)];
    operations.push(Operation::Full { left: 5000 });
    operations.extend(closed(9605716267813628823));
    operations.extend(closed(853629346576529045));
    operations.extend([change(1, 5066077313539497398), change(1, 4378475110463931701)]);
    holds(2048, operations);
}

/// A host was killed in a cut, after it had renamed the new head of the history and before it had
/// synced the directory. The next host saw the new head, and removed the parts that only the old one
/// named; then a power cut brought the old head back. (Found by `every.rs`.)
#[test]
fn a_host_is_killed_at_any_call_of_a_cut_and_the_power_goes_later() {
    for after in up_to(120) {
        let mut operations: Vec<_> = (0..5).map(|number| change(30, number)).collect();
        let cut = Trouble::Cut { after, crash: KILL };
        operations.extend([Operation::Wait, Operation::Pack, Operation::Trouble(cut)]);
        operations.extend([Operation::Compact { keep: 9 }, change(8, after), Operation::Wait]);
        operations.extend([Operation::Pack, crash(POWER), Operation::Verify]);
        holds(2048, operations);
    }
}

/// The first head of a history was renamed, and could not be made durable; taking it back could not
/// either. The next host saw no head, and removed the part that it had named to begin anew; a power
/// cut brought the head back, and not the part. (Seed 782.)
#[test]
fn the_head_of_a_history_cannot_be_made_durable() {
    for nth in 1..12 {
        for seed in up_to(30) {
            let operations = vec![
                change(30, seed),
                change(30, seed + 1),
                change(30, seed + 2),
                fail(Call::SyncDir, nth, Failing::Forever),
                Operation::Pack,
                close(None),
                Operation::Pack,
                change(3, seed + 3),
                Operation::Pack,
                crash(torn(seed)),
                Operation::Verify,
            ];
            holds(600, operations);
        }
    }
}

/// The head of a history could not be read; the journal took it that nothing had been
/// cut, and showed events again that it had let go. (Seed 3847.)
#[test]
fn the_head_of_a_history_cannot_be_read() {
    for nth in 1..14 {
        for call in [Call::Open, Call::Read, Call::Len] {
            let trouble =
                Trouble::Fail { call, nth, failing: Failing::Forever, kind: ErrorKind::Other };
            let operations = vec![
                change(30, nth),
                Operation::Wait,
                Operation::Compact { keep: 18 },
                Operation::Crash { crash: POWER, meanwhile: Some(trouble) },
                Operation::Read { from: 1 },
                close(None),
                Operation::Read { from: 1 },
            ];
            // All of it is still in the log.
            holds(20_000, operations);
        }
    }
}

/// A cut failed when its head had its name already. The next one had nothing to do, and said that
/// the old events were kept; they were gone after the host was killed. (Seed 20091639.)
#[test]
fn a_cut_that_has_failed_is_done_or_not_once_the_next_one_says_so() {
    for nth in 1..12 {
        for failing in [Failing::Once, Failing::Forever] {
            let operations = vec![
                change(30, 1),
                Operation::Wait,
                Operation::Pack,
                change(8, 2),
                Operation::Wait,
                fail(Call::SyncDir, nth, failing),
                Operation::Compact { keep: 12 },
                Operation::Compact { keep: 60 },
                crash(KILL),
                Operation::Compact { keep: 60 },
                crash(POWER),
            ];
            holds(600, operations);
        }
    }
}
