//! Passing our own standard input on to an atom.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use super::failure::{Failure, complain};
use super::store;
use crate::atom::AtomId;
use crate::control::Attached;
use crate::engine::{Engine, Error, StdinRequest, StopRequest};

/// As much as a pipe holds as a rule.
const CHUNK: usize = 64 << 10;

/// Begins to. The thread ends with the input, with the atom, or with this process: it may be reading when the atom
/// ends, and nobody waits for what it reads then.
pub(super) fn begin(engine: &Arc<Attached>, atom: AtomId) -> Result<(), Failure> {
    let input: File = io::stdin().as_fd().try_clone_to_owned().map_err(Failure::from)?.into();
    let engine = Arc::clone(engine);
    let work = move || {
        if let Err(problem) = pass_on(&engine, atom, input) {
            // It must not take what it has got for all there was.
            complain(&format!("{problem}; it is stopped"));
            let _ = store::persist(|| engine.stop(&StopRequest::from(atom)));
        }
    };
    let thread = thread::Builder::new().name("caesium-input".into()).spawn(work);
    thread.map(drop).map_err(|error| Failure::said(format!("cannot start a thread: {error}")))
}

/// Until the input ends, or nobody wants it.
fn pass_on(engine: &Attached, atom: AtomId, mut input: File) -> Result<(), String> {
    let request = StdinRequest::from(atom);
    let cannot = |error: &dyn std::fmt::Display| format!("cannot pass its input on: {error}");
    let mut stdin = match store::persist(|| engine.stdin(&request)) {
        Ok(stdin) => stdin,
        Err(Error::NotFound(_) | Error::Closed) => return Ok(()),
        Err(error) => return Err(cannot(&error)),
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        let bytes = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // The terminal has gone.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => return Err(format!("cannot read standard input: {error}")),
        };
        match stdin.write_all(&buffer[..bytes]) {
            Ok(()) => {}
            // It wants no more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(cannot(&error)),
        }
    }
    match store::persist(|| engine.close_stdin(&request)) {
        // It may have ended, and have been deleted, meanwhile.
        Ok(()) | Err(Error::NotFound(_) | Error::Closed) => Ok(()),
        Err(error) => Err(cannot(&error)),
    }
}
