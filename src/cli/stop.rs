//! `caesium stop`: ends atoms, and returns when nothing of them runs.

use std::path::Path;
use std::thread;

use super::args::Stop;
use super::failure::Failure;
use super::store;
use super::wait::print_endings;
use crate::atom::Atom;
use crate::engine::{Engine, Error, StopRequest};

pub(super) fn stop(store: Option<&Path>, args: &Stop) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let atoms = store::find_all(&engine, &args.ids)?;
    let stop = |atom: &Atom| {
        let mut request = StopRequest::from(atom.id());
        request.force = args.force;
        request.grace = args.grace;
        engine.stop(&request)
    };
    // Together, so that their graces do not add up.
    let stopped: Vec<Result<Atom, Error>> = thread::scope(|scope| {
        let stops: Vec<_> = atoms.iter().map(|atom| scope.spawn(|| stop(atom))).collect();
        stops.into_iter().map(|stop| stop.join().unwrap_or(Err(Error::Closed))).collect()
    });
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
