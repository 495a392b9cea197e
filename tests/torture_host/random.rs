//! Kills at any moment, under a load of creates, stops, forced stops, deletes and retries.

use std::time::Duration;

use rustix::process::Signal;

use super::check::check;
use super::host::{Host, Place, acknowledged};
use super::processes::{PATIENCE, keepers, signal};
use super::table::{Dice, rounds};
use super::tally::Tally;

/// Rounds with one store: each one opens what the one before has left.
const ROUNDS_OF_A_STORE: u64 = 25;

/// Hears so many acknowledgements, and then a little more, to no particular moment.
fn listen(host: &Host, acknowledgements: u64, dice: &mut Dice, lines: &mut Vec<String>) {
    let mut left = acknowledgements;
    while left > 0 {
        let Some(line) = host.hear(PATIENCE) else { return };
        left -= u64::from(acknowledged(&line).is_some());
        lines.push(line);
    }
    while let Some(line) = host.hear(Duration::from_micros(dice.below(2_000))) {
        lines.push(line);
        if dice.below(4) == 0 {
            return;
        }
    }
}

/// Kills `all` times at random; every round has one kill of the host, and of its keeper as drawn.
fn at_random(name: &str, seed: u64, cgroups: bool, all: u64) {
    let mut dice = Dice::new(seed);
    let mut sum = Tally::new(name);
    let mut place = Place::new(cgroups);
    let mut unseen = false;
    let mut round = 0;
    while sum.kills < all {
        if round % ROUNDS_OF_A_STORE == 0 {
            place = Place::new(cgroups);
            unseen = false;
        }
        let mut host = Host::start("busy", &place, &[]);
        let mut lines = Vec::new();
        // How many keepers are killed while the host lives; and whether one is killed with it.
        let alone = if dice.below(2) == 0 { 0 } else { 1 + dice.below(3) };
        let together = dice.below(3) == 0;
        unseen |= alone > 0 || together;
        for _ in 0..alone {
            listen(&host, 1, &mut dice, &mut lines);
            for keeper in keepers(&place.atoms()) {
                signal(keeper, Signal::KILL);
                sum.kills += 1;
            }
        }
        listen(&host, round % 17, &mut dice, &mut lines);
        assert!(host.lives(), "round {round}: the host ended by itself: {lines:?}");
        if together {
            for keeper in keepers(&place.atoms()) {
                signal(keeper, Signal::KILL);
                sum.kills += 1;
            }
        }
        lines.extend(host.kill());
        sum.kills += 1;
        let said: Vec<_> = lines.iter().filter_map(|line| acknowledged(line)).collect();
        check(&place, &said, unseen, &mut sum);
        assert!(sum.is_good(), "round {round} of seed {seed}: {sum:#?}");
        round += 1;
    }
    sum.print();
}

#[test]
fn kills_at_random_leave_nothing_lost_doubled_orphaned_or_made_up() {
    at_random("at random, cgroups", 0x6865_6C6C, true, rounds("host", 40, 6_000));
}

#[test]
fn kills_at_random_without_cgroups_leave_nothing_lost_doubled_orphaned_or_made_up() {
    at_random("at random, reapers", 0x6F68_6F68, false, rounds("host_reapers", 30, 5_000));
}
