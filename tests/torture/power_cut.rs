//! Power cuts: a file system of our own is shut down while a host writes to it.

use std::time::Duration;

use super::check::{Verdict, Witness};
use super::disk::Disk;
use super::host::{Heard, Host, PATIENCE, command, panics};
use super::table::{Dice, Row, rounds, skip};
use super::work::{ENDLESS, End, Orders};

/// Rounds on one file system: the first creates the store.
const ROUNDS_OF_A_DISK: u64 = 6;

#[test]
fn whenever_the_power_is_cut_what_was_acknowledged_is_there() {
    for (kind, rounds) in [("ext4", rounds("power", 6, 300)), ("xfs", rounds("xfs", 2, 60))] {
        let mut row = Row::new(format!("power cut, {kind}"));
        let honest = &mut |_: &mut std::process::Command| {};
        if let Err(lacking) = cut(kind, rounds, honest, &mut row, &mut |round, verdict| {
            assert!(verdict.is_good(), "{kind}, round {round}: {verdict:?}");
        }) {
            skip(&format!("power cuts on {kind}: {lacking}"));
            continue;
        }
        row.print();
    }
}

/// The same with syncs left out must lose something, or these tests see nothing.
#[test]
fn without_syncs_the_same_power_cuts_lose_what_was_acknowledged() {
    for leaves_out in ["fdatasync", "fdatasync,fsync"] {
        let mut row = Row::new(format!("control: power cut, ext4, no {leaves_out}"));
        let shim = match super::calls::Shim::build() {
            Ok(shim) => shim,
            Err(lacking) => return skip(&format!("power cuts without syncs: {lacking}")),
        };
        let forgetful = &mut |command: &mut std::process::Command| shim.skip(command, leaves_out);
        let all = rounds("control", 4, 60);
        if let Err(lacking) = cut("ext4", all, forgetful, &mut row, &mut |_, _| {}) {
            return skip(&format!("power cuts without syncs: {lacking}"));
        }
        row.print();
        assert!(row.lost > 0, "leaving out {leaves_out} was not noticed: {row:?}");
    }
}

/// Cuts the power so many times; `judge` gets what came of each.
fn cut(
    kind: &'static str,
    rounds: u64,
    prepare: &mut dyn FnMut(&mut std::process::Command),
    row: &mut Row,
    judge: &mut dyn FnMut(u64, &Verdict),
) -> Result<(), String> {
    let mut dice = Dice::new(0x706F_7765);
    let mut round = 0;
    while round < rounds {
        let mut disk = Disk::make(kind)?;
        let mut witness = Witness::default();
        // Every third store is cut while it is written to.
        witness.keep = [0, 0, 60][(round / ROUNDS_OF_A_DISK % 3) as usize];
        for _ in 0..ROUNDS_OF_A_DISK.min(rounds - round) {
            let segment_bytes = 1 << (12 + dice.below(5));
            let orders = Orders {
                round,
                segment_bytes,
                writers: 1 + dice.below(6),
                lives: if dice.below(8) == 0 { dice.below(60) } else { ENDLESS },
                read_first: dice.below(3) == 0,
                end: End::Close,
                keep: witness.keep,
            };
            let store = disk.store();
            let mut command = command(&[], &store, &orders.text());
            prepare(&mut command);
            let mut host = Host::start(command);
            // Early, while the store is made or opened, or somewhere in the midst of it.
            let mut words = if dice.below(4) == 0 { dice.below(4) } else { dice.below(400) };
            host.listen(PATIENCE, |line| {
                let said = witness.hear(line) || line.starts_with("open") || line == "compacting";
                words = words.saturating_sub(u64::from(said));
                words == 0 || line == "closing"
            });
            let a_little = Duration::from_micros(dice.below(20_000));
            host.listen(a_little, |line| {
                witness.hear(line);
                false
            });
            disk.cut();
            // What it calls acknowledged now counts as well.
            let mut heard = Heard::Enough;
            while heard == Heard::Enough {
                heard = host.listen(Duration::from_millis(300), |line| {
                    witness.hear(line);
                    line.starts_with("failed append") || line.starts_with("clos")
                });
            }
            host.kill();
            host.listen(PATIENCE, |line| {
                witness.hear(line);
                false
            });
            let (_, errors) = host.end();
            assert!(panics(&errors).is_empty(), "round {round}: {errors}");
            disk.restart();
            let verdict = witness.check(&disk.store(), segment_bytes);
            verdict.count(row);
            row.rounds += 1;
            round += 1;
            judge(round, &verdict);
            if !verdict.is_good() {
                // Nothing more can be learnt from this one.
                break;
            }
        }
        row.acknowledged += witness.acknowledged;
        disk.unmount();
    }
    Ok(())
}
