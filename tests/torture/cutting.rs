//! The moment of a cut: hosts are killed, and lose power, while they compact.
//!
//! The other kills and cuts meet this too, now and then; here each of them does.

use std::time::Duration;

use super::check::Witness;
use super::disk::{Disk, fast};
use super::host::{Heard, Host, PATIENCE, command, panics};
use super::table::{Dice, Row, rounds, skip};
use super::work::{ENDLESS, End, Orders};

/// How many events a cut leaves.
const KEEP: u64 = 50;

/// Rounds with one store: it grows, and every round opens it.
const ROUNDS_OF_A_STORE: u64 = 20;

/// A host that writes and cuts without end.
fn orders(round: u64, dice: &mut Dice) -> Orders {
    Orders {
        round,
        segment_bytes: 1 << (11 + dice.below(3)),
        writers: 1 + dice.below(3),
        lives: ENDLESS,
        read_first: dice.below(6) == 0,
        end: End::Close,
        keep: KEEP,
    }
}

/// Listens until the host is in one of its first cuts, and then a little longer. A cut
/// takes some milliseconds, most of them waiting for the disk.
fn until_it_cuts(host: &mut Host, witness: &mut Witness, dice: &mut Dice) {
    let mut cuts = 1 + dice.below(5);
    host.listen(PATIENCE, |line| {
        witness.hear(line);
        assert!(!line.starts_with("failed"), "{line}");
        cuts -= u64::from(line == "compacting");
        cuts == 0
    });
    host.listen(Duration::from_micros(dice.below(12_000)), |line| {
        witness.hear(line);
        // It is over: the next moment is as good.
        line.starts_with("oldest")
    });
}

#[test]
fn whenever_a_host_is_killed_while_it_cuts_what_it_keeps_is_there() {
    let mut row = Row::new("kill -9 while it compacts");
    let all = rounds("cut", 24, 1_000);
    let mut dice = Dice::new(0x6375_7474);
    let mut dir = fast();
    let mut witness = Witness::default();
    for round in 0..all {
        if round % ROUNDS_OF_A_STORE == 0 {
            let on_disk = round / ROUNDS_OF_A_STORE % 5 == 1;
            dir = if on_disk { tempfile::tempdir().unwrap() } else { fast() };
            row.acknowledged += witness.acknowledged;
            witness = Witness::of_cuts(KEEP);
        }
        let orders = orders(round, &mut dice);
        let mut host = Host::start(command(&[], dir.path(), &orders.text()));
        until_it_cuts(&mut host, &mut witness, &mut dice);
        host.kill();
        host.listen(PATIENCE, |line| {
            witness.hear(line);
            false
        });
        let (_, errors) = host.end();
        assert!(panics(&errors).is_empty(), "round {round}: {errors}");
        row.rounds += 1;
        // Half of them are left to the next host as they are.
        if dice.below(2) == 0 || (round + 1) % ROUNDS_OF_A_STORE == 0 || round + 1 == all {
            let verdict = witness.check(dir.path(), orders.segment_bytes);
            verdict.count(&mut row);
            assert!(verdict.is_good(), "round {round}: {verdict:?}");
        }
    }
    row.acknowledged += witness.acknowledged;
    row.print();
}

#[test]
fn whenever_the_power_is_cut_while_a_host_cuts_what_it_keeps_is_there() {
    let mut row = Row::new("power cut while it compacts, ext4");
    let all = rounds("cutpower", 4, 100);
    let mut dice = Dice::new(0x6375_7470);
    let mut round = 0;
    while round < all {
        let mut disk = match Disk::make("ext4") {
            Ok(disk) => disk,
            Err(lacking) => return skip(&format!("power cuts while it compacts: {lacking}")),
        };
        let mut witness = Witness::of_cuts(KEEP);
        for _ in 0..6.min(all - round) {
            let orders = orders(round, &mut dice);
            let mut host = Host::start(command(&[], &disk.store(), &orders.text()));
            until_it_cuts(&mut host, &mut witness, &mut dice);
            disk.cut();
            // What it calls acknowledged, or cut away, until it notices counts as well.
            let mut heard = Heard::Enough;
            while heard == Heard::Enough {
                heard = host.listen(Duration::from_millis(300), |line| {
                    witness.hear(line);
                    line.starts_with("failed append")
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
            let verdict = witness.check(&disk.store(), orders.segment_bytes);
            verdict.count(&mut row);
            row.rounds += 1;
            round += 1;
            assert!(verdict.is_good(), "round {round}: {verdict:?}");
        }
        row.acknowledged += witness.acknowledged;
        disk.unmount();
    }
    row.print();
}
