//! SIGKILL at any moment: during creation, opening, writing, sealing, packing and closing.

use std::time::Duration;

use super::check::Witness;
use super::disk::fast;
use super::host::{Host, command, panics};
use super::table::{Dice, Row, rounds};
use super::work::{ENDLESS, End, Orders};

/// Rounds with one store: it grows, and every round opens it.
const ROUNDS_OF_A_STORE: u64 = 20;

#[test]
fn whenever_the_host_is_killed_what_it_acknowledged_is_there() {
    let mut row = Row::new("kill -9");
    let all = rounds("kill", 40, 5_000);
    let mut dice = Dice::new(0x6B69_6C6C);
    let mut dir = fast();
    let mut witness = Witness::default();
    let mut keep = 0;
    for round in 0..all {
        if round % ROUNDS_OF_A_STORE == 0 {
            // On the disk now and then, where syncs take their time.
            let on_disk = round / ROUNDS_OF_A_STORE % 5 == 1;
            dir = if on_disk { tempfile::tempdir().unwrap() } else { fast() };
            row.acknowledged += witness.acknowledged;
            witness = Witness::default();
            keep = [0, 0, 50][(round / ROUNDS_OF_A_STORE % 3) as usize];
            witness.keep = keep;
        }
        let endless = dice.below(2) == 0;
        let segment_bytes = 1 << (11 + dice.below(4));
        let orders = Orders {
            round,
            segment_bytes,
            writers: 1 + dice.below(4),
            lives: if endless { ENDLESS } else { dice.below(12) },
            read_first: dice.below(4) == 0,
            end: End::Close,
            keep,
        };
        let mut host = Host::start(command(&[], dir.path(), &orders.text()));
        // After so many words, and then a little later.
        let mut words = match dice.below(4) {
            0 => 1,
            1 => 2,
            _ => 2 + dice.below(40),
        };
        let newest = witness.newest();
        let mut short = None;
        let mut hear = |line: &str, witness: &mut Witness| {
            if let Some(events) = line.strip_prefix("opened ") {
                let events: u64 = events.parse().unwrap();
                short = (events < newest).then_some(events).or(short);
            }
            assert!(!line.starts_with("failed"), "round {round}: {line}");
            witness.hear(line)
        };
        host.listen(super::host::PATIENCE, |line| {
            let ours = line == "opening"
                || hear(line, &mut witness)
                || line.starts_with("opened")
                || line == "compacting";
            let closing = line == "closing";
            words = words.saturating_sub(u64::from(ours));
            words == 0 || closing
        });
        host.listen(Duration::from_micros(dice.below(4_000)), |line| {
            hear(line, &mut witness);
            false
        });
        host.kill();
        host.listen(super::host::PATIENCE, |line| {
            hear(line, &mut witness);
            false
        });
        assert_eq!(short, None, "round {round}: events were there, and are not any more");
        let (_, errors) = host.end();
        assert!(panics(&errors).is_empty(), "round {round}: {errors}");
        row.rounds += 1;
        // The next host finds what this one left, mostly; now and then we look.
        if dice.below(4) == 0 || (round + 1) % ROUNDS_OF_A_STORE == 0 || round + 1 == all {
            let verdict = witness.check(dir.path(), segment_bytes);
            verdict.count(&mut row);
            assert!(verdict.is_good(), "round {round}: {verdict:?}");
        }
    }
    row.acknowledged += witness.acknowledged;
    row.print();
}
