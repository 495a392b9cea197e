//! What a crash of the host takes with it: nothing of what runs.
//!
//! `cargo run --example crash_and_resume` starts this very program as a host, which starts an atom and is killed with SIGKILL in
//! the midst of it. Then it opens the same store, finds the atom running, and sees how it ends.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use caesium::engine::LogsRequest;
use caesium::{AtomId, AtomSpec, Engine, LogItem, ProcessEngine};

/// Counts, some time between two numbers, and exits with 3.
const COUNT: &str = "for n in 1 2 3 4 5; do echo $n; sleep 0.2; done; exit 3";

fn main() -> Result<(), Box<dyn Error>> {
    caesium::init();
    match std::env::args().nth(1) {
        Some(store) => host(Path::new(&store)),
        None => watch_it_crash(),
    }
}

/// The host: starts an atom, says which, and waits for its end, which it does not live to see.
fn host(store: &Path) -> Result<(), Box<dyn Error>> {
    let engine = ProcessEngine::open(store)?;
    // With this key nobody starts it twice, whoever crashes when: asking again gives the same atom.
    let spec = AtomSpec::command("sh").args(["-c", COUNT]).key("the-count");
    let atom = engine.create(spec.into())?;
    println!("{}", atom.id());
    engine.wait(&atom.id().into())?;
    Ok(())
}

fn watch_it_crash() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("state");
    let mut host =
        Command::new(std::env::current_exe()?).arg(&store).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(host.stdout.take().ok_or("it has no output")?).read_line(&mut line)?;
    let id: AtomId = line.trim().parse()?;
    host.kill()?;
    println!("the host was killed: {}", host.wait()?);

    let engine = ProcessEngine::open(&store)?;
    let atom = engine.get(&id.into())?;
    println!("its atom is {}, with pid {}", atom.state(), atom.pid().unwrap_or_default());
    // The first line of output was printed while the first host lived, the last one long after.
    for item in engine.logs(&LogsRequest::from(id).follow())? {
        if let LogItem::Chunk(chunk) = item? {
            println!("it printed {:?}", String::from_utf8_lossy(&chunk.bytes));
        }
    }
    let atom = engine.wait(&id.into())?;
    let outcome = atom.result().ok_or("it has stopped")?;
    println!("it ended: {outcome}, exit code {:?}", atom.exit_code());
    for event in engine.events(1)? {
        let event = event?;
        println!("event {}: {} -> {}", event.seq, event.event_name(), event.state);
    }
    engine.close()?;
    Ok(())
}
