//! The way into the monitor: a queue, and an eventfd that wakes its epoll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use super::log::Author;
use crate::atom::AtomId;
use crate::driver::Command;

/// What the monitor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// To do something.
    Command(Command),
    /// A log that was held up has room again.
    Resume(AtomId),
    /// In the keeper: to tell how far a log is, once what was asked before is done.
    WatchLog {
        /// Told back.
        id: u64,
        /// Whose log.
        atom: AtomId,
        /// Nothing may be dropped that was not read.
        lossless: bool,
    },
    /// To end.
    Close,
}

/// The queue. Bounded by what the engine has under way; the monitor takes all of it at once.
#[derive(Debug)]
pub(super) struct Mailbox {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<Message>,
    closed: bool,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { queue: Mutex::default(), wake })
    }

    /// Puts a message in; false when nobody will read it any more.
    pub(super) fn put(&self, message: Message) -> bool {
        let mut queue = self.queue.lock();
        if queue.closed {
            return false;
        }
        queue.closed = matches!(message, Message::Close);
        let wake = queue.messages.is_empty();
        queue.messages.push(message);
        drop(queue);
        if wake {
            // The counter cannot overflow: it is read whenever the queue is taken.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        true
    }

    /// Takes no more messages, and lets go of those that nobody has taken.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.messages.clear();
    }

    /// Takes everything that has come.
    pub(super) fn take(&self) -> Vec<Message> {
        let mut counter = [0; 8];
        // Before the queue: a message that comes after this wakes again. EAGAIN only says that nothing came.
        let _ = rustix::io::read(&self.wake, &mut counter);
        std::mem::take(&mut self.queue.lock().messages)
    }
}

impl Author for Mailbox {
    fn resume(&self, atom: AtomId) {
        // A driver that has closed holds nobody up.
        let _ = self.put(Message::Resume(atom));
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
