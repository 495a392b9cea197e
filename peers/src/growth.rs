//! How what we do grows: what a unit costs, where there is a thousand times as much.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use caesium::driver::process::Supervision;
use caesium::journal::{Journal, JournalOptions};
use caesium::{AtomSpec, DeleteRequest, Durability, Engine, WaitRequest};

use crate::Result;
use crate::journal::Events;
use crate::open::fill;
use crate::programs::{Ours, Runner};

/// What is measured is measured so often.
const ROUNDS: usize = 5;

/// All rows.
pub(crate) fn all(dir: &Path) -> Result<()> {
    println!("\n### What a unit costs, where there is more and more\n");
    println!("| | unit | at | | | |\n|---|---|---|---|---|---|");
    appending(dir)?;
    reading(dir)?;
    opening(dir)?;
    programs(dir)?;
    output(dir)
}

fn row(what: &str, unit: &str, cells: &[(usize, f64)]) {
    let cells: Vec<String> =
        cells.iter().map(|(size, cost)| format!("{size}: {cost:.2}")).collect();
    println!("| {what} | {unit} | {} |", cells.join(" | "));
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn timed(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work()?;
        taken.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(taken))
}

fn batched() -> JournalOptions {
    let mut options = JournalOptions::default();
    options.durability = Durability::Batched(Duration::from_millis(50));
    options
}

const HISTORIES: [usize; 4] = [1000, 10_000, 100_000, 1_000_000];

/// One durable event, in a store that has so many.
fn appending(dir: &Path) -> Result<()> {
    const TIMES: usize = 500;
    let mut cells = Vec::new();
    for history in HISTORIES {
        let store = dir.join(format!("append{history}"));
        fill(&store, 1, history)?;
        let events = Events::in_store(&store, JournalOptions::default())?;
        let micros = timed(|| (0..TIMES).try_for_each(|_| Ok(events.append(1)?.wait()?)))?;
        cells.push((history, micros / TIMES as f64));
        events.finish()?;
    }
    row("a durable event, in a store with so many", "µs", &cells);
    Ok(())
}

/// Reading all events.
fn reading(dir: &Path) -> Result<()> {
    let mut cells = Vec::new();
    for history in HISTORIES {
        let store = dir.join(format!("append{history}"));
        let (journal, _) = Journal::open_dir(&store, batched())?;
        journal.pack()?;
        let mut read = 0;
        let micros = timed(|| {
            read = 0;
            for record in journal.read(1)? {
                record?;
                read += 1;
            }
            Ok(())
        })?;
        cells.push((read, micros / read as f64));
        journal.close()?;
    }
    row("one of so many events, read in order", "µs", &cells);
    Ok(())
}

/// Opening, by the atoms that exist.
fn opening(dir: &Path) -> Result<()> {
    let mut cells = Vec::new();
    for atoms in [100, 1000, 10_000, 100_000] {
        let store = dir.join(format!("open{atoms}"));
        fill(&store, atoms, 0)?;
        let mut taken = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let (journal, _) = Journal::open_dir(&store, batched())?;
            taken.push(began.elapsed().as_secs_f64() * 1e6);
            journal.close()?;
        }
        cells.push((atoms, median(taken) / atoms as f64));
        fs::remove_dir_all(store)?;
    }
    row("an atom that runs, of so many, when a store is opened", "µs", &cells);
    Ok(())
}

/// Programs one after the other, eight at a time.
fn programs(dir: &Path) -> Result<()> {
    let mut ours = Ours::new(dir, Supervision::Keeper)?;
    ours.run(64)?;
    let mut cells = Vec::new();
    for programs in [16, 160, 1600, 16_000] {
        let began = Instant::now();
        ours.run(programs)?;
        cells.push((programs, began.elapsed().as_secs_f64() * 1e6 / programs as f64));
    }
    row("one of so many `/bin/true`, 8 at a time, through the keeper", "µs", &cells);
    Ok(())
}

/// Output of one atom.
fn output(dir: &Path) -> Result<()> {
    let ours = Ours::new(dir, Supervision::InHost)?;
    let mut cells = Vec::new();
    for mib in [1, 10, 100, 1000] {
        let micros = timed(|| {
            let spec = AtomSpec::command("head").args(["-c", &format!("{mib}M"), "/dev/zero"]);
            let atom = ours.0.create(spec.into())?;
            ours.0.wait(&WaitRequest::from(atom.id()))?;
            Ok(ours.0.delete(&DeleteRequest::from(atom.id()))?)
        })?;
        cells.push((mib, micros / 1000.0 / mib as f64));
    }
    row("a MiB of so many that an atom prints", "ms", &cells);
    Ok(())
}
