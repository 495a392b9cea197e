//! How what we do grows: what a unit costs, where there is a thousand times as much.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use caesium::driver::process::Supervision;
use caesium::journal::{Journal, JournalOptions};
use caesium::{AtomSpec, DeleteRequest, Engine, WaitRequest};

use crate::Result;
use crate::journal::{Events, batched};
use crate::open::{Specs, fill};
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

/// A row: what a unit costs at each of these sizes, as `cost` gives it with the size that it found.
fn row(
    what: &str,
    unit: &str,
    sizes: [usize; 4],
    mut cost: impl FnMut(usize) -> Result<(usize, f64)>,
) -> Result<()> {
    let cell = |size| cost(size).map(|(size, cost)| format!("{size}: {cost:.2}"));
    let cells: Vec<String> = sizes.into_iter().map(cell).collect::<Result<_>>()?;
    println!("| {what} | {unit} | {} |", cells.join(" | "));
    Ok(())
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

const HISTORIES: [usize; 4] = [1000, 10_000, 100_000, 1_000_000];

/// One durable event, in a store that has so many.
fn appending(dir: &Path) -> Result<()> {
    const TIMES: usize = 500;
    row("a durable event, in a store with so many", "µs", HISTORIES, |history| {
        let store = store_with(dir, history);
        fill(&store, 1, Specs::OneForAll, history)?;
        let events = Events::in_store(&store, JournalOptions::default())?;
        let micros = timed(|| (0..TIMES).try_for_each(|_| Ok(events.append(1)?.wait()?)))?;
        events.finish()?;
        Ok((history, micros / TIMES as f64))
    })
}

/// Reading all events of the stores that were appended to.
fn reading(dir: &Path) -> Result<()> {
    row("one of so many events, read in order", "µs", HISTORIES, |history| {
        let (journal, _) = Journal::open_dir(&store_with(dir, history), batched())?;
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
        journal.close()?;
        Ok((read, micros / read as f64))
    })
}

fn store_with(dir: &Path, history: usize) -> PathBuf {
    dir.join(format!("history{history}"))
}

/// Opening, by the atoms that exist.
fn opening(dir: &Path) -> Result<()> {
    let sizes = [100, 1000, 10_000, 100_000];
    row("an atom that runs, of so many, when a store is opened", "µs", sizes, |atoms| {
        let store = dir.join(format!("open{atoms}"));
        fill(&store, atoms, Specs::OneForEach, 0)?;
        let mut taken = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let (journal, _) = Journal::open_dir(&store, batched())?;
            taken.push(began.elapsed().as_secs_f64() * 1e6);
            journal.close()?;
        }
        fs::remove_dir_all(store)?;
        Ok((atoms, median(taken) / atoms as f64))
    })
}

/// Programs one after the other, eight at a time.
fn programs(dir: &Path) -> Result<()> {
    let mut ours = Ours::new(dir, Supervision::Keeper)?;
    ours.run(64)?;
    let sizes = [16, 160, 1600, 16_000];
    row("one of so many `/bin/true`, 8 at a time, through the keeper", "µs", sizes, |programs| {
        let began = Instant::now();
        ours.run(programs)?;
        Ok((programs, began.elapsed().as_secs_f64() * 1e6 / programs as f64))
    })
}

/// Output of one atom.
fn output(dir: &Path) -> Result<()> {
    let ours = Ours::new(dir, Supervision::InHost)?;
    row("a MiB of so many that an atom prints", "ms", [1, 10, 100, 1000], |mib| {
        let micros = timed(|| {
            let spec = AtomSpec::command("head").args(["-c", &format!("{mib}M"), "/dev/zero"]);
            let atom = ours.0.create(spec.into())?;
            ours.0.wait(&WaitRequest::from(atom.id()))?;
            Ok(ours.0.delete(&DeleteRequest::from(atom.id()))?)
        })?;
        Ok((mib, micros / 1000.0 / mib as f64))
    })
}
