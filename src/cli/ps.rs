//! `caesium ps`: the atoms that live, or all of them.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use super::args::Ps;
use super::failure::{Failure, complain};
use super::output::{self, Table};
use super::{status, store};
use crate::atom::Atom;
use crate::engine::{Engine, ListRequest};
use crate::lifecycle::State;
use crate::time::now;

pub(super) fn ps(store: Option<&Path>, args: &Ps) -> Result<u8, Failure> {
    let atoms = match store::open_existing(store)? {
        Ok(engine) => {
            let atoms = engine.list(&ListRequest::all())?;
            // Others may have the store while we print.
            engine.close()?;
            atoms
        }
        Err(absent) => {
            complain(&absent.problem());
            Vec::new()
        }
    };
    let shown = atoms.iter().filter(|atom| args.all || is_listed(atom));
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        for atom in shown {
            output::json_line(&mut out, &without_spec(atom)?)?;
        }
    } else {
        let mut table = Table::new(&["ID", "NAME", "STATE", "RESULT", "AGE", "COMMAND"]);
        let length = id_length(&atoms);
        for atom in shown {
            table.row(atom, cells(atom, length));
        }
        let coloured = output::colours(&io::stdout()).then_some(&["STATE", "RESULT"][..]);
        table.write(&mut out, coloured)?;
    }
    out.flush()?;
    Ok(0)
}

/// Those that live, and those that somebody has to look at.
fn is_listed(atom: &Atom) -> bool {
    atom.state().is_live() || atom.state() == State::Invalid
}

fn cells(atom: &Atom, id_length: usize) -> Vec<String> {
    let mut id = atom.id().to_string();
    id.truncate(id_length);
    vec![
        id,
        atom.name().unwrap_or("-").to_owned(),
        atom.state().to_string(),
        status::short(atom).unwrap_or_else(|| "-".to_owned()),
        output::roughly(now().saturating_since(atom.created_at())),
        output::command_line(atom.spec()),
    ]
}

/// How many characters of an id tell it from every other one, and at least its time to the millisecond.
fn id_length(atoms: &[Atom]) -> usize {
    const TIME: usize = 13;
    // In the order of their ids: the nearest relative of each is a neighbour.
    let shared = |pair: &[Atom]| {
        let (one, other) = (pair[0].id().to_string(), pair[1].id().to_string());
        one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
    };
    atoms.windows(2).map(|pair| shared(pair) + 1).max().unwrap_or_default().max(TIME)
}

fn without_spec(atom: &Atom) -> Result<Value, Failure> {
    let mut value = output::json(atom)?;
    if let Some(object) = value.as_object_mut() {
        object.shift_remove("spec");
    }
    Ok(value)
}
