//! Caesium beside what others would use for the same work, in one run.
//!
//! `cargo run --release -- [SECTION …]`, all of them when none is named. Whoever is compared takes turns with the others, so that
//! a slow moment of the machine hits all; medians are printed, and each one's ratio to the first row.

mod contender;
mod growth;
mod journal;
mod open;
mod plot;
mod programs;
mod read;
mod running;
mod table;
mod transition;
mod writers;

use std::error::Error;
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures in a directory of its own, and prints a table.
type Section = fn(&Path) -> Result<()>;

fn main() -> Result<()> {
    caesium::init();
    let sections: [(&str, Section); 10] = [
        ("append", writers::append),
        ("writers", writers::many),
        ("read", read::all),
        ("open", open::all),
        ("transition", transition::all),
        ("programs", running::many),
        ("shell", running::shell),
        ("containers", running::containers),
        ("sleeping", running::sleeping),
        ("growth", growth::all),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [child, what] = &wanted[..]
        && child == open::CHILD
    {
        return open::child(Path::new(what));
    }
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            // Not in /tmp: that may be in memory, where durable costs nothing.
            let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR"))?;
            section(dir.path())?;
        }
    }
    Ok(())
}
