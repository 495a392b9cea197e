//! Runs the steps of a build, one after the other, with a timeout and retries for each; the first that fails
//! for good ends it.
//!
//! `cargo run --example ci_steps STORE FILE`, where each line of the file is `NAME TIMEOUT RETRIES COMMAND…`:
//!
//! ```text
//! format  30s  0  cargo fmt --check
//! test    10m  2  cargo test
//! ```

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use caesium::engine::{LogsRequest, Subscription};
use caesium::journal::Fact;
use caesium::lifecycle::Backoff;
use caesium::{
    Atom, AtomId, AtomSpec, Engine, Error, LogItem, Logs, OnClose, Outcome, ProcessEngine,
    RetryPolicy, Stream,
};

struct Step {
    name: String,
    spec: AtomSpec,
}

fn main() -> ExitCode {
    caesium::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [store, file] = &args[..] else {
        eprintln!("usage: ci_steps STORE FILE");
        return ExitCode::from(2);
    };
    match steps(file).and_then(|steps| run(store, steps).map_err(|error| error.to_string())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("ci_steps: {problem}");
            ExitCode::from(2)
        }
    }
}

fn steps(file: &str) -> Result<Vec<Step>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            step(line)
                .ok_or_else(|| format!("{file}:{}: not NAME TIMEOUT RETRIES COMMAND", number + 1))
        })
        .collect()
}

fn step(line: &str) -> Option<Step> {
    let (name, rest) = line.trim().split_once(char::is_whitespace)?;
    let (timeout, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (retries, command) = rest.trim_start().split_once(char::is_whitespace)?;
    let backoff = Backoff { initial: Duration::from_millis(100), ..Backoff::default() };
    let retry = RetryPolicy {
        max_attempts: 1 + retries.parse::<u32>().ok()?,
        backoff,
        ..RetryPolicy::default()
    };
    let spec = AtomSpec::command("sh")
        .args(["-c", command.trim()])
        .timeout(humantime::parse_duration(timeout).ok()?)
        .grace(Duration::from_secs(2))
        .retry(retry);
    Some(Step { name: name.to_owned(), spec })
}

/// Whether every step succeeded.
fn run(store: &str, steps: Vec<Step>) -> Result<bool, Error> {
    let engine = ProcessEngine::options().on_close(OnClose::Kill).open(store)?;
    let all = steps.len();
    for (number, Step { name, spec }) in (1..).zip(steps) {
        println!("==> {number}/{all} {name}");
        let atom = attempt_all(&engine, &name, spec)?;
        let ran = atom.usage().map(|usage| usage.wall).unwrap_or_default();
        println!("==> {name}: {} after {:.1} s", ending(&atom), ran.as_secs_f64());
        if atom.result() != Some(Outcome::Success) {
            engine.close()?;
            return Ok(false);
        }
    }
    engine.close()?;
    Ok(true)
}

/// Runs a step until it succeeds or is not tried again; gives its last attempt. The engine retries by itself, also
/// when this program was killed and is started anew: here it is only watched.
fn attempt_all(engine: &ProcessEngine, name: &str, spec: AtomSpec) -> Result<Atom, Error> {
    let attempts = spec.get_retry().max_attempts;
    // From before the first event of it.
    let mut journal = engine.subscribe(engine.durable_seq()? + 1);
    let (atom, logs) = engine.create_followed(spec.into())?;
    let mut id = atom.id();
    show(logs)?;
    loop {
        let atom = engine.wait(&id.into())?;
        if atom.result() == Some(Outcome::Success) || atom.attempt() >= attempts {
            return Ok(atom);
        }
        println!(
            "==> {name}: {}; attempt {} of {attempts} follows",
            ending(&atom),
            atom.attempt() + 1
        );
        id = retry_of(&mut journal, id)?;
        show(engine.logs(&LogsRequest::from(id).follow().lossless())?)?;
    }
}

/// The atom that takes the place of another one, as soon as it is there.
fn retry_of(journal: &mut Subscription, id: AtomId) -> Result<AtomId, Error> {
    loop {
        let event = journal.next(None)?.ok_or(Error::Closed)?;
        if matches!(&event.fact, Fact::Created(creation) if creation.retry_of == Some(id)) {
            return Ok(event.atom);
        }
    }
}

fn show(logs: Logs) -> Result<(), Error> {
    for item in logs {
        // Whoever reads this may go away: the steps go on.
        let _ = match item? {
            LogItem::Chunk(chunk) if chunk.stream == Stream::Stderr => {
                io::stderr().write_all(&chunk.bytes)
            }
            LogItem::Chunk(chunk) => io::stdout().write_all(&chunk.bytes),
            LogItem::Dropped { bytes } => writeln!(io::stderr(), "({bytes} bytes were dropped)"),
        };
    }
    Ok(())
}

fn ending(atom: &Atom) -> String {
    let reason = atom.reason().map(|reason| reason.to_string()).unwrap_or_default();
    match (atom.result(), atom.exit_code()) {
        (Some(outcome), Some(code)) => format!("{outcome} ({reason}, exit code {code})"),
        (Some(outcome), None) => format!("{outcome} ({reason})"),
        (None, _) => atom.state().to_string(),
    }
}
