//! `caesium rm`: deletes atoms with their output; their events stay in the journal.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::args::Rm;
use super::failure::{Failure, if_read};
use super::progress::Progress;
use super::store;
use crate::engine::{DeleteRequest, Engine, Error};

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
    for atom in &atoms {
        let mut request = DeleteRequest::from(atom.id());
        request.force = args.force;
        let mut asked = false;
        store::persist(|| match engine.delete(&request) {
            // By who had the store, before it could say so.
            Err(Error::NotFound(_)) if asked => Ok(()),
            answer => {
                asked = true;
                answer
            }
        })?;
        deleted.fetch_add(1, Ordering::Relaxed);
        if_read(writeln!(io::stdout(), "{}", atom.id()))?;
    }
    drop(progress);
    engine.close()?;
    Ok(0)
}
