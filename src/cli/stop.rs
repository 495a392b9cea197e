//! `caesium stop`: ends atoms, and returns when nothing of them runs.

use std::path::Path;

use super::args::Stop;
use super::failure::Failure;
use super::store;
use super::wait::print_endings;
use crate::atom::Atom;
use crate::engine::{Engine, Error, StopRequest};

pub(super) fn stop(store: Option<&Path>, args: &Stop) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let atoms = store::find_all(&engine, &args.ids)?;
    let request = |atom: &Atom| {
        let mut request = StopRequest::from(atom.id());
        request.force = args.force;
        request.grace = args.grace;
        request
    };
    let requests: Vec<_> = atoms.iter().map(request).collect();
    // Together, so that their graces do not add up.
    let stopped = store::persist(|| {
        let mut stopped = engine.stop_many(&requests)?;
        match stopped.iter().position(|one| matches!(one, Err(Error::HolderGone { .. }))) {
            Some(gone) => stopped.swap_remove(gone).map(|_| Vec::new()),
            None => Ok(stopped),
        }
    })?;
    engine.close()?;
    let mut failed = Ok(0);
    let mut ended = Vec::new();
    for result in stopped {
        match result {
            Ok(atom) => ended.push(atom),
            Err(error) => failed = Err(Failure::from(error)),
        }
    }
    print_endings(&ended)?;
    failed
}
