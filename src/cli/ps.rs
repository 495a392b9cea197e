//! `caesium ps`: the atoms that live, or all of them.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::Value;

use super::args::Ps;
use super::failure::{Failure, complain};
use super::output::{self, Table};
use super::{status, store};
use crate::atom::Atom;
use crate::engine::{Engine, Error, ListRequest};
use crate::lifecycle::State;
use crate::time::now;

/// How many atoms are asked for at once.
const PAGE: usize = 500;

pub(super) fn ps(store: Option<&Path>, args: &Ps) -> Result<u8, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut table = Table::new(&["ID", "NAME", "STATE", "RESULT", "AGE", "COMMAND"]);
    let coloured = output::colours(&io::stdout()).then_some(&["STATE", "RESULT"][..]);
    match store::open_existing(store)? {
        Ok(engine) => {
            let mut ids = IdLength::default();
            for page in (Pages { engine: &engine, request: request(args), left: args.limit }) {
                let page = page?;
                if args.json {
                    for atom in &page {
                        output::json_line(&mut out, &without_spec(atom)?)?;
                    }
                } else if args.quiet {
                    for atom in &page {
                        writeln!(out, "{}", atom.id())?;
                    }
                } else {
                    let length = ids.of(&page);
                    for atom in &page {
                        table.row(atom, cells(atom, length));
                    }
                    table.write(&mut out, coloured)?;
                }
            }
            engine.close()?;
        }
        Err(absent) => complain(&absent.problem()),
    }
    if !args.json && !args.quiet {
        // Its header, if there was nothing to write beneath it.
        table.write(&mut out, coloured)?;
    }
    out.flush()?;
    Ok(0)
}

/// What is asked for: unless told otherwise, those that live, and those that somebody has to look at.
fn request(args: &Ps) -> ListRequest {
    let mut request = ListRequest::all();
    request.states = args.state.clone();
    request.outcomes = args.result.clone();
    request.labels = args.label.clone();
    request.name = args.name.clone();
    request.since = args.since.map(|since| since.resolve());
    request.before = args.before.map(|before| before.resolve());
    request.after = args.after;
    request.newest_first = args.newest;
    if !args.all && request.states.is_empty() && request.outcomes.is_empty() {
        let shown = |state: &State| state.is_live() || *state == State::Invalid;
        request.states = State::ALL.iter().copied().filter(shown).collect();
    }
    request
}

/// A list, page by page.
struct Pages<'a> {
    engine: &'a dyn Engine,
    request: ListRequest,
    left: Option<usize>,
}

impl Iterator for Pages<'_> {
    type Item = Result<Vec<Atom>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        if limit == 0 {
            return None;
        }
        self.request.limit = Some(limit);
        let page = match store::persist(|| self.engine.list(&self.request)) {
            Ok(page) => page,
            Err(error) => {
                self.left = Some(0);
                return Some(Err(error));
            }
        };
        self.left = match self.left {
            _ if page.len() < limit => Some(0),
            left => left.map(|left| left - page.len()),
        };
        self.request.after = page.last().map(Atom::id);
        (!page.is_empty()).then_some(Ok(page))
    }
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

/// How many characters of an id tell it from every other one that is shown, and at least its time to the millisecond.
#[derive(Default)]
struct IdLength {
    length: usize,
    last: Option<String>,
}

impl IdLength {
    fn of(&mut self, page: &[Atom]) -> usize {
        const TIME: usize = 13;
        self.length = self.length.max(TIME);
        for atom in page {
            // In the order of their ids: the nearest relative of each is a neighbour.
            let id = atom.id().to_string();
            if let Some(last) = &self.last {
                let shared = id.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
                self.length = self.length.max(shared + 1);
            }
            self.last = Some(id);
        }
        self.length
    }
}

fn without_spec(atom: &Atom) -> Result<Value, Failure> {
    let mut value = output::json(atom)?;
    if let Some(object) = value.as_object_mut() {
        object.shift_remove("spec");
    }
    Ok(value)
}
