//! `caesium wait`: until all have stopped.

use std::io::{self, Write};
use std::path::Path;

use super::args::Wait;
use super::failure::{Failure, if_read};
use super::{status, store};
use crate::atom::Atom;
use crate::engine::{Engine, WaitRequest};

pub(super) fn wait(store: Option<&Path>, args: &Wait) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let mut atoms = store::find_all(&engine, &args.ids)?;
    for atom in &mut atoms {
        *atom = store::persist(|| engine.wait(&WaitRequest::from(atom.id())))?;
    }
    engine.close()?;
    print_endings(&atoms)?;
    Ok(atoms.last().map_or(status::OWN_FAILURE, status::of))
}

/// A line for each atom: its id, and how it ended.
pub(super) fn print_endings(atoms: &[Atom]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for atom in atoms {
        let ending = status::short(atom).unwrap_or_else(|| atom.state().to_string());
        if_read(writeln!(out, "{} {ending}", atom.id()))?;
    }
    Ok(())
}
