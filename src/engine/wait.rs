//! Waiting for atoms without blocking.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

use super::Error;
use crate::atom::{Atom, AtomId};
use crate::journal::{AtomWatch, Journal, JournalError};
use crate::lifecycle::State;

/// A future that an engine keeps: of any executor or none, woken when there is something to tell.
///
/// It can be dropped at any moment: that ends the waiting, and nothing else. It outlives its engine,
/// and then gives [`Error::Closed`].
#[must_use = "nothing waits before it is polled"]
pub struct Waiting<T>(Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>);

impl<T> std::fmt::Debug for Waiting<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl<T> Waiting<T> {
    pub(crate) fn new(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl<T> Future for Waiting<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Waits until `done` says so of one atom.
pub(super) struct Until<F> {
    watch: AtomWatch,
    done: F,
}

impl<F> Until<F> {
    pub(super) fn new(journal: &Journal, atom: AtomId, done: F) -> Self {
        Self { watch: journal.watch(atom), done }
    }
}

impl<T, F> Future for Until<F>
where
    F: FnMut(Option<&Atom>) -> Option<Result<T, Error>> + Unpin,
{
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { watch, done } = &mut *self;
        watch.poll(context, done).map(|answer| answer.map_err(Error::from)?)
    }
}

/// Waits for many atoms at once: for the first that stops, or for all of them.
pub(super) struct UntilMany {
    watches: Vec<Option<AtomWatch>>,
    ids: Vec<AtomId>,
    stopped: Vec<Option<Atom>>,
    left: usize,
    any: bool,
    woken: Arc<Woken>,
}

/// Which of them is to be looked at.
struct Woken {
    state: Mutex<(Vec<usize>, Option<Waker>)>,
}

struct One {
    position: usize,
    woken: Arc<Woken>,
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut state = self.woken.state.lock();
            state.0.push(self.position);
            state.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl UntilMany {
    pub(super) fn new(journal: &Journal, ids: Vec<AtomId>, any: bool) -> Self {
        let woken = Woken { state: Mutex::new(((0..ids.len()).collect(), None)) };
        Self {
            watches: ids.iter().map(|id| Some(journal.watch(*id))).collect(),
            stopped: vec![None; ids.len()],
            left: ids.len(),
            ids,
            any,
            woken: Arc::new(woken),
        }
    }
}

impl Future for UntilMany {
    /// In the order in which they were asked for.
    type Output = Result<Vec<Atom>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if this.left == 0 {
                return Poll::Ready(Ok(this.stopped.drain(..).flatten().collect()));
            }
            let position = {
                let mut state = this.woken.state.lock();
                let Some(position) = state.0.pop() else {
                    state.1 = Some(context.waker().clone());
                    return Poll::Pending;
                };
                position
            };
            let Some(watch) = &mut this.watches[position] else { continue };
            let waker = Waker::from(Arc::new(One { position, woken: Arc::clone(&this.woken) }));
            let done = has_stopped(this.ids[position]);
            match watch.poll(&mut Context::from_waker(&waker), done) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(Ok(atom))) if this.any => return Poll::Ready(Ok(vec![atom])),
                Poll::Ready(Ok(Ok(atom))) => {
                    this.stopped[position] = Some(atom);
                    this.watches[position] = None;
                    this.left -= 1;
                }
            }
        }
    }
}

/// Whether an atom has ended, or nobody can tell any more.
pub(super) fn has_stopped(id: AtomId) -> impl FnMut(Option<&Atom>) -> Option<Result<Atom, Error>> {
    move |atom| match atom {
        None => Some(Err(Error::NotFound(id.to_string()))),
        Some(atom) => match atom.state() {
            State::Stopped | State::Deleting | State::Deleted | State::Invalid => {
                Some(Ok(atom.clone()))
            }
            State::Created | State::Running | State::Stopping => None,
        },
    }
}

/// Whether an atom that was created runs, or has stopped.
pub(super) fn has_settled(id: AtomId) -> impl FnMut(Option<&Atom>) -> Option<Result<Atom, Error>> {
    move |atom| match atom {
        None => Some(Err(Error::NotFound(id.to_string()))),
        Some(atom) => {
            let pending = match atom.state() {
                State::Created => true,
                State::Stopping => atom.started_at().is_none(),
                State::Running
                | State::Stopped
                | State::Deleting
                | State::Deleted
                | State::Invalid => false,
            };
            (!pending).then(|| Ok(atom.clone()))
        }
    }
}

/// What becomes of an atom that is journaled when nobody will tell whether it was started.
pub(super) fn in_doubt(seq: u64, cause: &str) -> Error {
    Error::InDoubt(JournalError::InDoubt { seq, cause: cause.into() })
}
