//! Waiting: for the first of several, for all, without blocking; and for an engine that is closed.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;

use super::{Case, Fixture, begin, create, ended, spec, until};
use crate::atom::AtomId;
use crate::driver::memory::Act;
use crate::engine::{Error, LogsRequest, OnClose, StopRequest, WaitManyRequest, WaitRequest};
use crate::lifecycle::{Outcome, State};
use crate::log::LogItem;
use crate::wakers::block_on;

pub(super) const CASES: &[Case] = &[
    ("the first of several that stops ends the waiting for any", any),
    ("all of several are waited for, and given in the order asked", all),
    ("waiting for several has a deadline, and needs at least one", limits),
    ("who must not block waits as well, and may give up", without_blocking),
    ("who must not block reads the same output", log_streams),
    ("output can be read on from where a reader stopped", from_offset),
    ("a closed engine changes nothing, and whoever waits is told", closed),
];

fn any(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(linger) = spec(fixture, &Act::Linger) else { return };
    let atoms: Vec<_> = (0..3).map(|_| begin(fixture, &*engine, linger.clone())).collect();
    let ids: WaitManyRequest = atoms.iter().map(crate::Atom::id).collect();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| engine.wait_any(&ids).unwrap());
        let stopped = engine.stop(&StopRequest::from(atoms[1].id())).unwrap();
        assert_eq!(first.join().unwrap(), stopped);
        assert_eq!(engine.wait_any(&ids).unwrap(), stopped, "one that has stopped is at once");
    });
    for atom in [&atoms[0], &atoms[2]] {
        engine.stop(&StopRequest::from(atom.id()).force()).unwrap();
    }
}

fn all(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let (Some(linger), Some(exit)) = (spec(fixture, &Act::Linger), spec(fixture, &Act::Exit(3)))
    else {
        return;
    };
    let slow = begin(fixture, &*engine, linger);
    let quick = create(&*engine, exit);
    // The same one twice is fine.
    let ids = WaitManyRequest::from(vec![slow.id(), quick.id(), slow.id()]);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| engine.wait_all(&ids).unwrap());
        let quick = ended(&*engine, &quick);
        assert!(!waits.is_finished());
        let slow = engine.stop(&StopRequest::from(slow.id())).unwrap();
        assert_eq!(waits.join().unwrap(), [slow.clone(), quick, slow]);
    });
}

fn limits(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let nothing = WaitManyRequest::default();
    assert_eq!(engine.wait_all(&nothing).unwrap(), []);
    assert!(matches!(engine.wait_any(&nothing), Err(Error::NothingToWaitFor)));
    let (Some(linger), Some(exit)) = (spec(fixture, &Act::Linger), spec(fixture, &Act::Exit(3)))
    else {
        return;
    };
    let quick = ended(&*engine, &create(&*engine, exit));
    let slow = create(&*engine, linger);
    let unknown = AtomId::new();
    let with_unknown = WaitManyRequest::from(vec![slow.id(), unknown]);
    for result in
        [engine.wait_all(&with_unknown).map(drop), engine.wait_any(&with_unknown).map(drop)]
    {
        assert!(
            matches!(&result, Err(Error::NotFound(id)) if *id == unknown.to_string()),
            "{result:?}"
        );
    }
    for timeout in [Duration::ZERO, Duration::from_millis(20)] {
        let both = WaitManyRequest::from(vec![quick.id(), slow.id()]).timeout(timeout);
        match engine.wait_all(&both) {
            Err(Error::TimedOut { id, state, waited }) => {
                assert_eq!((id, state, waited), (slow.id(), State::Running, timeout));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(engine.wait_any(&both).unwrap(), quick);
        let one = WaitManyRequest::from(vec![slow.id()]).timeout(timeout);
        assert!(matches!(engine.wait_any(&one), Err(Error::TimedOut { .. })));
    }
    engine.stop(&StopRequest::from(slow.id()).force()).unwrap();
}

fn without_blocking(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(linger) = spec(fixture, &Act::Linger) else { return };
    let [first, second] = [(); 2].map(|()| begin(fixture, &*engine, linger.clone()));
    let mut context = Context::from_waker(Waker::noop());
    let mut given_up = Box::pin(engine.wait_async(first.id()));
    assert!(given_up.as_mut().poll(&mut context).is_pending());
    drop(given_up);
    let mut never_polled = engine.wait_async(first.id());
    std::thread::scope(|scope| {
        let waits = [
            scope.spawn(|| block_on(engine.wait_async(first.id()))),
            scope.spawn(|| block_on(engine.wait_any_async(vec![first.id(), second.id()]))),
        ];
        let both = scope.spawn(|| block_on(engine.wait_all_async(vec![second.id(), first.id()])));
        let first = engine.stop(&StopRequest::from(first.id())).unwrap();
        for wait in waits {
            assert_eq!(wait.join().unwrap().unwrap(), first);
        }
        let second = engine.stop(&StopRequest::from(second.id())).unwrap();
        assert_eq!(both.join().unwrap().unwrap(), [second, first.clone()]);
        assert_eq!(block_on(&mut never_polled).unwrap(), first);
    });
    let unknown = block_on(engine.wait_async(AtomId::new()));
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

fn log_streams(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let act = Act::Print { out: "to out\n".into(), err: String::new() };
    let (Some(print), Some(linger)) = (spec(fixture, &act), spec(fixture, &Act::Linger)) else {
        return;
    };
    let read = |request: LogsRequest| {
        let mut stream = engine.logs(&request).unwrap().into_stream();
        let mut bytes = Vec::new();
        while let Some(item) = block_on(std::future::poll_fn(|cx| pin!(&mut stream).poll_next(cx)))
        {
            match item.unwrap() {
                LogItem::Chunk(chunk) => bytes.extend(chunk.bytes),
                LogItem::Dropped { bytes } => panic!("{bytes} bytes were dropped"),
            }
        }
        bytes
    };
    let atom = ended(&*engine, &create(&*engine, print));
    assert_eq!(read(LogsRequest::from(atom.id())), b"to out\n");
    assert_eq!(read(LogsRequest::from(atom.id()).follow()), b"to out\n");
    let silent = begin(fixture, &*engine, linger);
    let mut stream = engine.logs(&LogsRequest::from(silent.id()).follow()).unwrap().into_stream();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| read(LogsRequest::from(silent.id()).follow()));
        engine.stop(&StopRequest::from(silent.id())).unwrap();
        assert_eq!(follower.join().unwrap(), b"");
    });
    let end = block_on(std::future::poll_fn(|cx| pin!(&mut stream).poll_next(cx)));
    assert!(end.is_none(), "{end:?}");
}

fn from_offset(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let act = Act::Print { out: "0123456789".into(), err: "abcdef".into() };
    let Some(print) = spec(fixture, &act) else { return };
    let atom = ended(&*engine, &create(&*engine, print));
    let read = |request: LogsRequest| engine.logs(&request).unwrap().read_to_end().unwrap();
    let whole = read(LogsRequest::from(atom.id()));
    assert_eq!(whole.len(), 16);
    for from in 0..=18 {
        let rest = whole.get(from..).unwrap_or_default();
        for request in [LogsRequest::from(atom.id()), LogsRequest::from(atom.id()).follow()] {
            assert_eq!(read(request.from_offset(from as u64)), rest, "from {from}");
        }
    }
    let mut logs = engine.logs(&LogsRequest::from(atom.id()).from_offset(3)).unwrap();
    match logs.next() {
        Some(Ok(LogItem::Chunk(chunk))) => assert_eq!(chunk.offset, 3),
        other => panic!("{other:?}"),
    }
}

fn closed(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(linger) = spec(fixture, &Act::Linger) else { return };
    let atom = begin(fixture, &*engine, linger.clone());
    let mut subscription = engine.subscribe(1);
    let mut polled = Box::pin(engine.wait_async(atom.id()));
    assert!(matches!(polled.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| engine.wait(&WaitRequest::from(atom.id())));
        until(&*engine, "the atom", |atoms| atoms[0].state() == State::Running);
        engine.shutdown(OnClose::Kill).unwrap();
        // The kill may be told before the close.
        match waits.join().unwrap() {
            Ok(atom) => assert_eq!(atom.result(), Some(Outcome::Killed)),
            Err(Error::Closed) => {}
            other => panic!("{other:?}"),
        }
    });
    match block_on(polled) {
        Ok(atom) => assert_eq!(atom.result(), Some(Outcome::Killed)),
        Err(Error::Closed) => {}
        other => panic!("{other:?}"),
    }
    let refused = engine.create(linger.into());
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    while let Ok(event) = subscription.next(None) {
        assert!(event.is_some(), "without a deadline there is an event or an error");
    }
    engine.shutdown(OnClose::Stop).unwrap();
}
