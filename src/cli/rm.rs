//! `caesium rm`: deletes atoms with their output; their events stay in the journal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::args::Rm;
use super::failure::{Failure, if_read};
use super::progress::Progress;
use super::store;
use crate::atom::Atom;
use crate::control::Attached;
use crate::engine::{DeleteRequest, Engine, Error, StopRequest};

/// How many are deleted at a time: what is durable of them is so with one sync.
const AT_ONCE: usize = 8;

pub(super) fn rm(store: Option<&Path>, args: &Rm) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let atoms = store::find_all(&engine, &args.ids)?;
    // Before anything is deleted.
    if let Some(atom) = atoms.iter().find(|atom| atom.state().is_live() && !args.force) {
        let (id, state) = (atom.id(), atom.state());
        engine.close()?;
        return Err(Failure::said(format!(
            "atom {id} is {state}: stop it first, or use `rm --force`; nothing was deleted"
        )));
    }
    let (deleted, all) = (Arc::new(AtomicUsize::new(0)), atoms.len());
    // Where the ids are seen, they are what says how far it is.
    let unseen = !io::stdout().is_terminal();
    let progress = unseen.then(|| {
        let deleted = Arc::clone(&deleted);
        let figures = move || Some(format!("{} of {all}", deleted.load(Ordering::Relaxed)));
        Progress::of("deleting", figures)
    });
    kill(&engine, &atoms)?;
    let outcome = delete_all(&engine, &atoms, args.force, &deleted);
    drop(progress);
    outcome?;
    engine.close()?;
    Ok(0)
}

/// Kills those that live, together, so that nobody waits for one after the other. What becomes of each shows when it is deleted.
fn kill(engine: &Attached, atoms: &[Atom]) -> Result<(), Failure> {
    let live = atoms.iter().filter(|atom| atom.state().is_live());
    let requests: Vec<_> = live.map(|atom| StopRequest::from(atom.id()).force()).collect();
    if !requests.is_empty() {
        store::persist(|| engine.stop_many(&requests))?;
    }
    Ok(())
}

/// Deletes them, several at a time, and prints their ids in the order in which they were asked for. When one cannot be
/// deleted no other one is begun.
fn delete_all(
    engine: &Attached,
    atoms: &[Atom],
    force: bool,
    deleted: &AtomicUsize,
) -> Result<(), Failure> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |results: Sender<(usize, Result<(), Error>)>| {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(atom) = atoms.get(number) else { return };
            let result = delete(engine, atom, force);
            match result {
                Ok(()) => drop(deleted.fetch_add(1, Ordering::Relaxed)),
                Err(_) => failed.store(true, Ordering::Relaxed),
            }
            // Whoever listens stays to the end.
            drop(results.send((number, result)));
        }
    };
    std::thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..AT_ONCE.min(atoms.len()) {
            let sender = sender.clone();
            scope.spawn(move || work(sender));
        }
        drop(sender);
        let told = print_in_order(atoms, results);
        failed.store(true, Ordering::Relaxed);
        told
    })
}

/// Prints the ids as they come to be next, and in the end those behind one that could not be deleted.
fn print_in_order(
    atoms: &[Atom],
    results: impl IntoIterator<Item = (usize, Result<(), Error>)>,
) -> Result<(), Failure> {
    let (mut outcome, mut later, mut printed) = (Ok(()), BTreeMap::new(), 0);
    for (number, result) in results {
        match result {
            Ok(()) => drop(later.insert(number, &atoms[number])),
            Err(error) => outcome = outcome.and(Err(error.into())),
        }
        while let Some(atom) = later.remove(&printed) {
            printed += 1;
            print(atom)?;
        }
    }
    later.into_values().try_for_each(print)?;
    outcome
}

fn print(atom: &Atom) -> Result<(), Failure> {
    if_read(writeln!(io::stdout(), "{}", atom.id()))
}

fn delete(engine: &Attached, atom: &Atom, force: bool) -> Result<(), Error> {
    let mut request = DeleteRequest::from(atom.id());
    request.force = force;
    let mut asked = false;
    store::persist(|| match engine.delete(&request) {
        // By who had the store, before it could say so.
        Err(Error::NotFound(_)) if asked => Ok(()),
        answer => {
            asked = true;
            answer
        }
    })
}
