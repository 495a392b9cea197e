//! The journal on a disk in memory, through histories that are drawn from a seed.
//!
//! A history is some tens of operations on one store: changes, reads, rolls,
//! packing, closes, killed hosts, power cuts at any call, failing calls, full
//! disks. There are no threads: one seed is one order of everything. After
//! each opening the store must hold what a model says.
//!
//! `CAESIUM_SIM_HISTORIES` and `CAESIUM_SIM_SEED` say how many histories and
//! from which seed on, `CAESIUM_SIM_THREADS` on how many threads. A seed that
//! fails is printed with the shortest history that still fails.

#![allow(unreachable_pub, reason = "a test has no public interface")]

mod draw;
mod every;
mod found;
mod frames;
mod history;
mod world;

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use draw::Plan;
use world::{Broken, Figures, Kind, run, shown};

/// Histories of the long form.
const MANY: u64 = 1_000_000;

/// Adds a row to the table that `scripts/torture` prints: rounds, acknowledged, lost, false, refused, reported.
fn row(kind: &str, columns: [u64; 6]) {
    let Some(path) = env::var_os("CAESIUM_TORTURE_TABLE") else { return };
    let columns = columns.map(|column| column.to_string()).join(" | ");
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(format!("| {kind} | {columns} | – |\n").as_bytes()).unwrap();
}

fn told(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

/// Runs a history; a panic is a failure too.
fn outcome(plan: &Plan, lying: bool) -> Result<Figures, Broken> {
    catch_unwind(AssertUnwindSafe(|| run(plan, lying))).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        Err(Broken { kind: Kind::Other, what: format!("it panicked: {what}") })
    })
}

/// Leaves out operations as long as the history still fails in the same way.
fn shrink(mut plan: Plan, kind: Kind) -> Plan {
    let mut piece = plan.operations.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let before = plan.operations.len();
        while at < plan.operations.len() {
            let mut shorter = plan.clone();
            let end = (at + piece).min(shorter.operations.len());
            shorter.operations.drain(at..end);
            match outcome(&shorter, false) {
                Err(failure) if failure.kind == kind => plan = shorter,
                Ok(_) | Err(_) => at += piece,
            }
        }
        // Single operations are tried until none can go any more.
        if piece > 1 || plan.operations.len() == before {
            piece /= 2;
        }
    }
    plan
}

/// Says which seed fails, and how little of its history is enough.
fn report(seed: u64, failure: &Broken) -> String {
    let plan = shrink(Plan::draw(seed), failure.kind);
    let what = match outcome(&plan, false) {
        Ok(_) => "which does not fail again".to_owned(),
        Err(broken) => format!("{:?}: {}", broken.kind, broken.what),
    };
    format!(
        "seed {seed} fails, {:?}: {}\nthe shortest history: {what}\n{}",
        failure.kind,
        failure.what,
        shown(&plan)
    )
}

#[test]
fn seeds_that_found_something_pass() {
    for line in include_str!("seeds.txt").lines() {
        let seed = line.split('#').next().unwrap_or_default().trim();
        if seed.is_empty() {
            continue;
        }
        let seed = seed.parse().unwrap();
        if let Err(failure) = outcome(&Plan::draw(seed), false) {
            panic!("{}", report(seed, &failure));
        }
    }
}

#[test]
fn whatever_happens_no_promise_is_broken() {
    let few = if cfg!(debug_assertions) { 100 } else { 2000 };
    let many = env::var("CAESIUM_TORTURE").is_ok_and(|form| form == "long");
    let histories = told("CAESIUM_SIM_HISTORIES", if many { MANY } else { few });
    let first = told("CAESIUM_SIM_SEED", 1);
    let threads = told("CAESIUM_SIM_THREADS", 1);
    let begun = Instant::now();
    let results: Vec<(Figures, Vec<Kind>, Vec<String>)> = thread::scope(|scope| {
        let share = |number: u64| {
            let mut figures = Figures::default();
            let (mut found, mut failures) = (Vec::new(), Vec::new());
            for seed in (first + number..first + histories).step_by(threads as usize) {
                match outcome(&Plan::draw(seed), false) {
                    Ok(more) => figures += more,
                    Err(failure) => {
                        found.push(failure.kind);
                        failures.push(report(seed, &failure));
                    }
                }
                if failures.len() >= 3 {
                    break;
                }
            }
            (figures, found, failures)
        };
        let running: Vec<_> = (0..threads).map(|n| scope.spawn(move || share(n))).collect();
        running.into_iter().map(|share| share.join().unwrap()).collect()
    });
    let mut figures = Figures::default();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (more, kinds, failed) in results {
        figures += more;
        found.extend(kinds);
        failures.extend(failed);
    }
    println!("{histories} histories from seed {first} in {:?}\n{figures:#?}", begun.elapsed());
    let broken = |kind| found.iter().filter(|found| **found == kind).count() as u64;
    let (lost, wrong) = (broken(Kind::Lost), broken(Kind::False));
    row(
        "simulated history",
        [
            histories,
            figures.acknowledged,
            lost,
            wrong,
            broken(Kind::Refused),
            figures.reported_cuts,
        ],
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(histories < 300 || figures.reported_cuts > 0 && figures.parts > 2);
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..50 {
        let plan = Plan::draw(seed);
        let (once, twice) = (outcome(&plan, false), outcome(&plan, false));
        assert_eq!(once.ok(), twice.ok(), "seed {seed}");
    }
}

/// The control: with syncs that do nothing, what is acknowledged is not
/// durable, and the same histories must show it.
#[test]
fn acknowledging_before_it_is_durable_is_found_out() {
    let results: Vec<_> = (0..100).map(|seed| outcome(&Plan::draw(seed), true)).collect();
    let lost = results.iter().filter(|r| matches!(r, Err(b) if b.kind == Kind::Lost)).count();
    let broken = results.iter().filter(|result| result.is_err()).count();
    println!("of 100 histories {broken} broke a promise; {lost} first by losing something");
    // Of a history that broke a promise it is not counted what had been acknowledged.
    let kept = results.iter().flatten().map(|figures| figures.acknowledged).sum();
    let count =
        |kind| results.iter().filter(|r| matches!(r, Err(b) if b.kind == kind)).count() as u64;
    let (wrong, refused) = (count(Kind::False), count(Kind::Refused));
    row(
        "control: simulated history, syncs do nothing",
        [100, kept, lost as u64, wrong, refused, 0],
    );
    assert!(lost > 25 && broken > 75, "only {broken} broke a promise, {lost} by a loss");
}
