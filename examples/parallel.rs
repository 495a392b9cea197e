//! Many short programs through the journal, a few at a time, beside bare `std::process::Command`.
//!
//! `cargo run --release --example parallel [ATOMS] [AT_A_TIME]`, by default 1,000 and 8.
//! Both ways take turns in rounds of the same size, so that a slow moment of the machine
//! hits both; what is printed are the medians.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caesium::{AtomSpec, Engine, Error, ListRequest, Outcome, ProcessEngine};

const PROGRAM: &str = "/bin/true";
const ROUNDS: usize = 10;

fn main() -> ExitCode {
    caesium::init();
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let (atoms, width) = match (numbers.next().unwrap_or(Ok(1000)), numbers.next().unwrap_or(Ok(8)))
    {
        (Ok(atoms), Ok(width)) if atoms > 0 && width > 0 => (atoms, width),
        _ => {
            eprintln!("usage: parallel [ATOMS] [AT_A_TIME]");
            return ExitCode::FAILURE;
        }
    };
    match measure(atoms, width) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("parallel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(atoms: usize, width: usize) -> Result<bool, Box<dyn std::error::Error>> {
    // In the package's target directory, not in /tmp: that may be in memory, where durable costs nothing.
    let dir = tempfile::tempdir_in("target").or_else(|_| tempfile::tempdir_in("."))?;
    let before = Count::take()?;
    let engine = ProcessEngine::open(dir.path().join("store"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS.min(atoms) {
        // The first rounds take what does not divide.
        let size = atoms / ROUNDS.min(atoms) + usize::from(round < atoms % ROUNDS.min(atoms));
        theirs.push(timed(size, width, |_| bare(dir.path()))?);
        ours.push(timed(size, width, |_| durable(&engine))?);
    }
    let listed = engine.list(&ListRequest::all())?;
    let successes = listed.iter().filter(|atom| atom.result() == Some(Outcome::Success)).count();
    engine.close()?;
    let after = Count::take()?;

    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!("{atoms} × {PROGRAM}, {width} at a time, {} rounds each", ROUNDS.min(atoms));
    println!(
        "caesium, durable:  {ours:8.0} per second   ({successes} of {} success)",
        listed.len()
    );
    println!("bare Command:      {theirs:8.0} per second");
    println!("caesium / bare:    {:8.2}", ours / theirs);
    println!("before:            {before}");
    println!("after:             {after}");
    Ok(successes == atoms && listed.len() == atoms && before == after)
}

/// How many per second.
fn timed<E: Send>(
    size: usize,
    width: usize,
    run: impl Fn(usize) -> Result<(), E> + Sync,
) -> Result<f64, E> {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..width)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= size {
                            return Ok(());
                        }
                        run(number)?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })?;
    Ok(size as f64 / began.elapsed().max(Duration::from_nanos(1)).as_secs_f64())
}

/// One atom: journaled, started, captured, watched, journaled.
fn durable(engine: &ProcessEngine) -> Result<(), Error> {
    let atom = engine.create(AtomSpec::command(PROGRAM).into())?;
    engine.wait(&atom.id().into())?;
    Ok(())
}

/// The least that does the same: spawn with output to a file, and wait. Nothing is remembered.
fn bare(dir: &Path) -> io::Result<()> {
    let output = tempfile::Builder::new().prefix("out").tempfile_in(dir)?;
    let file: File = output.reopen()?;
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = command.spawn()?.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{PROGRAM}: {status}"))) }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// What a host must not lose.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    zombies: usize,
    descriptors: usize,
    threads: usize,
}

impl Count {
    fn take() -> io::Result<Self> {
        let descriptors = fs::read_dir("/proc/self/fd")?.count();
        let threads = fs::read_dir("/proc/self/task")?.count();
        let me = std::process::id().to_string();
        let zombies = fs::read_dir("/proc")?
            .filter_map(|process| fs::read_to_string(process.ok()?.path().join("stat")).ok())
            .filter(|stat| {
                let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                let mut fields = after_name.split(' ');
                fields.next() == Some("Z") && fields.next() == Some(&me)
            })
            .count();
        Ok(Self { zombies, descriptors, threads })
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { zombies, descriptors, threads } = self;
        write!(f, "{zombies} zombies, {descriptors} descriptors, {threads} threads")
    }
}
