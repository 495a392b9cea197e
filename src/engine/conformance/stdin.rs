//! Standard input by a pipe: what is written is read, and nobody waits for who does not read.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use super::{Case, Fixture, PATIENCE, begin, create, ended, spec};
use crate::atom::AtomId;
use crate::driver::memory::Act;
use crate::engine::{
    DeleteRequest, Engine, Error, LogsRequest, StdinRequest, StdinWriter, StopRequest,
};
use crate::lifecycle::{Outcome, Reason};

pub(super) const CASES: &[Case] = &[
    ("what is written is read, and then the end", read_to_the_end),
    ("a reader that does not read holds nobody up", never_read),
    ("an atom that has ended reads no more", ended_before),
    ("an atom without a pipe cannot be written to", no_pipe),
];

/// More than any pipe holds.
const MUCH: usize = 3 << 20;

fn read_to_the_end(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Cat) else { return };
    let atom = begin(fixture, &*engine, spec.clone());
    let logs = engine.logs(&LogsRequest::from(atom.id()).follow().lossless()).unwrap();
    let input: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stdin = engine.stdin(&atom.id().into()).unwrap();
            assert_eq!(stdin.id(), atom.id());
            stdin.write_all(&input[..7]).unwrap();
            // One that goes does not end it.
            drop(stdin);
            let mut stdin = engine.stdin(&atom.id().into()).unwrap();
            stdin.write_all(&input[7..]).unwrap();
            engine.close_stdin(&atom.id().into()).unwrap();
            closed(&stdin);
        });
        let output = logs.read_to_end().unwrap();
        assert_eq!(output.len(), input.len());
        assert!(output == input, "not what was written");
    });
    let atom = ended(&*engine, &atom);
    assert_eq!((atom.result(), atom.reason()), (Some(Outcome::Success), Some(Reason::Exited)));
    // Another one, with nothing but an end; twice, which is once.
    let empty = create(&*engine, spec);
    engine.close_stdin(&empty.id().into()).unwrap();
    engine.close_stdin(&empty.id().into()).unwrap();
    assert_eq!(ended(&*engine, &empty).result(), Some(Outcome::Success));
}

fn never_read(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    let atom = begin(fixture, &*engine, spec.stdin_pipe());
    let stdin = engine.stdin(&atom.id().into()).unwrap();
    let much = vec![7; MUCH];
    let some = stdin.try_write(&much).unwrap();
    assert!((1..MUCH).contains(&some), "a part of it: {some}");
    let full = |result: Result<usize, Error>| {
        assert!(matches!(result, Err(Error::StdinFull(id)) if id == atom.id()), "{result:?}");
    };
    full(stdin.try_write(&much));
    full(stdin.write_timeout(&much, Duration::from_millis(20)));
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| engine.stdin(&atom.id().into()).unwrap().write_all(&much));
        // The engine goes about its business meanwhile.
        if let Some(other) = super::spec(fixture, &Act::Exit(0)) {
            let other = ended(&*engine, &create(&*engine, other));
            engine.delete(&DeleteRequest::from(other.id())).unwrap();
        }
        engine.close_stdin(&atom.id().into()).unwrap();
        closed(&stdin);
        engine.stop(&StopRequest::from(atom.id())).unwrap();
        let error = patient.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "whoever waited is told: {error}");
    });
}

fn ended_before(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(0)) else { return };
    let atom = ended(&*engine, &create(&*engine, spec.stdin_pipe()));
    let stdin = engine.stdin(&atom.id().into()).unwrap();
    eventually_closed(&stdin);
    engine.close_stdin(&atom.id().into()).unwrap();
    engine.delete(&DeleteRequest::from(atom.id())).unwrap();
    closed(&stdin);
    refused(&*engine, atom.id(), |error| matches!(error, Error::NotFound(_)));
}

fn no_pipe(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Linger) else { return };
    let atom = begin(fixture, &*engine, spec);
    refused(&*engine, atom.id(), |error| matches!(error, Error::NoStdinPipe(_)));
}

fn refused(engine: &dyn Engine, id: AtomId, is_it: impl Fn(&Error) -> bool) {
    let request = StdinRequest::from(id);
    let errors = [engine.stdin(&request).err(), engine.close_stdin(&request).err()];
    assert!(errors.iter().flatten().filter(|error| is_it(error)).count() == 2, "{errors:?}");
}

fn closed(stdin: &StdinWriter) {
    let result = stdin.try_write(b"more");
    assert!(matches!(result, Err(Error::StdinClosed(_))), "{result:?}");
}

/// What its last process had open is closed a moment after that has ended.
fn eventually_closed(stdin: &StdinWriter) {
    let patience = Instant::now() + PATIENCE;
    while !matches!(stdin.try_write(b"more"), Err(Error::StdinClosed(_))) {
        assert!(Instant::now() < patience, "it can still be written to");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
