//! What wakes the server's thread: tasks that may go on, and the wish that it ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

/// A task: of which client, and by which number the client calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskId {
    pub(super) client: u64,
    pub(super) id: u64,
}

/// The way to the server's thread.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    woken: Vec<TaskId>,
    closing: bool,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), wake })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let quiet = state.woken.is_empty() && !state.closing;
        change(&mut state);
        drop(state);
        if quiet {
            // The counter cannot overflow: it is read whenever the letters are taken.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// Has the thread end.
    pub(super) fn close(&self) {
        self.change(|state| state.closing = true);
    }

    /// The tasks that were woken, each once; `None` when the thread is to end.
    pub(super) fn take(&self) -> Option<Vec<TaskId>> {
        let mut counter = [0; 8];
        // Before the state: what comes after this wakes again. EAGAIN only says that nothing came.
        let _ = rustix::io::read(&self.wake, &mut counter);
        let mut state = self.state.lock();
        if state.closing {
            return None;
        }
        let mut woken = std::mem::take(&mut state.woken);
        woken.sort_unstable();
        woken.dedup();
        Some(woken)
    }

    /// What wakes one task.
    pub(super) fn waker(self: &Arc<Self>, task: TaskId) -> Waker {
        Waker::from(Arc::new(OfTask { task, mailbox: Arc::clone(self) }))
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

struct OfTask {
    task: TaskId,
    mailbox: Arc<Mailbox>,
}

impl Wake for OfTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.change(|state| state.woken.push(self.task));
    }
}
