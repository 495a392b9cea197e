//! `caesium salvage`: rebuilds a store from whatever can be read of a damaged one.

use std::io::{self, Write};
use std::path::Path;

use super::args::Salvage;
use super::failure::{Failure, complain};
use super::progress::Progress;
use super::{output, store};
use crate::journal::salvage as rebuild;

pub(super) fn salvage(store: Option<&Path>, args: &Salvage) -> Result<u8, Failure> {
    let damaged = store::path(store)?;
    let progress = Progress::of("salvaging", || None);
    let salvaged = rebuild(&damaged, &args.into);
    drop(progress);
    let salvaged = salvaged?;
    if salvaged.held {
        complain(
            "a process has the damaged store open: what it writes from now on is not salvaged",
        );
    }
    for problem in &salvaged.problems {
        complain(problem);
    }
    let mut out = io::stdout().lock();
    if args.json {
        output::json_line(&mut out, &salvaged)?;
        return Ok(0);
    }
    writeln!(
        out,
        "{} events recovered, {} lost; {} atoms, {} of them invalid: the store is {}",
        salvaged.recovered,
        salvaged.lost,
        salvaged.atoms,
        salvaged.invalid.len(),
        args.into.display(),
    )?;
    for (from, to) in &salvaged.gaps {
        writeln!(out, "lost: events {from} to {to}")?;
    }
    for atom in &salvaged.invalid {
        writeln!(out, "invalid: atom {atom}")?;
    }
    Ok(0)
}
