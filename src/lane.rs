//! Work that may block, for those who must not: a few threads, started when there is something to do.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::engine::Error;
use crate::wakers::block_on;

type Job = Box<dyn FnOnce() + Send>;

/// A queue of jobs and the threads that do them: at most so many, and none before the first job.
#[derive(Debug)]
pub(crate) struct Lane {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    /// At most so many threads.
    most: usize,
    state: Mutex<State>,
    work: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    closed: bool,
}

impl Lane {
    /// Of at most `most` threads with this name.
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        let shared = Shared { name, most, state: Mutex::default(), work: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Has a job done. After the lane was closed it is dropped instead.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        if state.closed {
            return;
        }
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            drop(state);
            self.shared.work.notify_one();
            return;
        }
        if state.threads.len() < self.shared.most {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name(self.shared.name.into());
            match thread.spawn(move || shared.work()) {
                Ok(thread) => state.threads.push(thread),
                // The others do it.
                Err(_) if !state.threads.is_empty() => {}
                Err(error) => {
                    tracing::warn!(%error, "no thread can be had: who asked does the work");
                    let job = state.jobs.pop_back();
                    drop(state);
                    job.into_iter().for_each(|job| job());
                }
            }
        }
    }

    /// Ends when the jobs have that were begun; the others are dropped.
    pub(crate) fn close(&self) {
        let (jobs, threads) = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.jobs), std::mem::take(&mut state.threads))
        };
        self.shared.work.notify_all();
        drop(jobs);
        let here = std::thread::current().id();
        for thread in threads {
            // Its own last job may be what closes it.
            if thread.thread().id() != here {
                // Panics were said where they happened.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // Whoever lent something learns that it is lost; the lane goes on.
                if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(lane = self.name, "a job panicked");
                }
                state = self.state.lock();
                continue;
            }
            if state.closed {
                return;
            }
            state.idle += 1;
            self.work.wait(&mut state);
            state.idle -= 1;
        }
    }
}

/// Something that is lent to a lane, which gives it back with what came of the work.
#[derive(Debug)]
pub(crate) struct Loan<T> {
    counter: Arc<Mutex<Counter<T>>>,
}

#[derive(Debug)]
struct Counter<T> {
    back: Option<T>,
    /// It will not come: the lane was closed, or the work panicked.
    lost: bool,
    waker: Option<Waker>,
}

/// Says that nothing comes back, unless something did.
struct Debt<T>(Arc<Mutex<Counter<T>>>);

impl<T> Drop for Debt<T> {
    fn drop(&mut self) {
        let mut counter = self.0.lock();
        counter.lost = counter.back.is_none();
        let waker = counter.waker.take();
        drop(counter);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T: Send + 'static> Loan<T> {
    /// Has `work` done by the lane.
    pub(crate) fn new(lane: &Lane, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let counter = Arc::new(Mutex::new(Counter { back: None, lost: false, waker: None }));
        let debt = Debt(Arc::clone(&counter));
        lane.run(move || {
            let back = work();
            debt.0.lock().back = Some(back);
        });
        Self { counter }
    }

    /// What came back; an error when nothing will.
    pub(crate) fn poll_back(&self, context: &mut Context<'_>) -> Poll<Result<T, Lost>> {
        let mut counter = self.counter.lock();
        match counter.back.take() {
            Some(back) => Poll::Ready(Ok(back)),
            None if counter.lost => Poll::Ready(Err(Lost)),
            None => {
                counter.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for it.
    pub(crate) fn wait(&self) -> Result<T, Lost> {
        block_on(std::future::poll_fn(|context| self.poll_back(context)))
    }
}

impl<T: Send + 'static> Future for Loan<T> {
    type Output = Result<T, Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_back(context)
    }
}

/// What was lent does not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl From<Lost> for Error {
    /// Without its lanes an engine has closed.
    fn from(Lost: Lost) -> Self {
        Self::Closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn no_thread_before_the_first_job_and_no_more_than_allowed() {
        let lane = Lane::new("test", 2);
        assert_eq!(lane.shared.state.lock().threads.len(), 0);
        let loans: Vec<_> = (0..20).map(|number| Loan::new(&lane, move || number * 2)).collect();
        let doubled: Vec<_> = loans.iter().map(|loan| loan.wait().unwrap()).collect();
        assert_eq!(doubled, (0..20).map(|number| number * 2).collect::<Vec<_>>());
        assert!(lane.shared.state.lock().threads.len() <= 2);
    }

    #[test]
    fn what_a_closed_lane_does_not_do_is_lost_and_said_to_be() {
        let lane = Lane::new("test", 1);
        let ((go, gate), (begins, begun)) = (channel::<()>(), channel());
        let first = Loan::new(&lane, move || {
            begins.send(()).unwrap();
            gate.recv().is_ok()
        });
        begun.recv().unwrap();
        let second = Loan::new(&lane, || true);
        std::thread::scope(|scope| {
            scope.spawn(|| lane.close());
            assert_eq!(second.wait(), Err(Lost));
            go.send(()).unwrap();
        });
        assert_eq!(first.wait(), Ok(true));
        assert_eq!(Loan::new(&lane, || true).wait(), Err(Lost));
    }

    #[test]
    fn work_that_panics_is_lost() {
        let lane = Lane::new("test", 1);
        let loan = Loan::new(&lane, || -> bool { panic!("as the test wants it") });
        assert_eq!(loan.wait(), Err(Lost));
        assert_eq!(Loan::new(&lane, || true).wait(), Ok(true), "the lane goes on");
    }
}
