//! The program of the README.

use caesium::{AtomSpec, Engine, ProcessEngine};

fn main() -> Result<(), caesium::Error> {
    caesium::init();
    let engine = ProcessEngine::open("target/quickstart")?;
    let atom = engine.create(AtomSpec::command("sh").args(["-c", "echo hello; exit 3"]).into())?;
    let atom = engine.wait(&atom.id().into())?;
    let output = engine.logs(&atom.id().into())?.read_to_end()?;
    println!("output: {:?}", String::from_utf8_lossy(&output));
    println!("outcome: {:?}, exit code {:?}", atom.result(), atom.exit_code());
    for event in engine.events(1)?.flatten().filter(|event| event.atom == atom.id()) {
        println!("event {}: {} -> {}", event.seq, event.event_name(), event.state);
    }
    engine.close()
}
