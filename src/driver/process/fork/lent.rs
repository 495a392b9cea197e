//! What a child is lent that shares this process's memory: it stays as it is until the child is done with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use super::child::{self, Setup};
use super::clone;
use super::report::REPORT_BYTES;

/// Bytes of a stack, of which a child uses a page or two.
const STACK_BYTES: usize = 64 << 10;

/// Of these the lowest are never there: who needs more than a stack has gets a signal instead of writing elsewhere.
const GUARD_BYTES: usize = 4 << 10;

/// How many stacks are kept for the next children.
const SPARE: usize = 16;

static SPARES: Mutex<Vec<Stack>> = Mutex::new(Vec::new());

/// What children have that were given up: it is theirs until they have gone.
static LATE: Mutex<Vec<Arc<Held>>> = Mutex::new(Vec::new());

/// A stack for a child.
#[derive(Debug)]
pub(super) struct Stack {
    lowest: usize,
}

impl Stack {
    fn new() -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::STACK | MapFlags::NORESERVE;
        // SAFETY: a new mapping, of nothing that is there.
        let lowest = unsafe { mmap_anonymous(ptr::null_mut(), STACK_BYTES, protection, flags) }?;
        let stack = Self { lowest: lowest.expose_provenance() };
        // SAFETY: nobody has used it yet.
        unsafe { mprotect(lowest, GUARD_BYTES, MprotectFlags::empty()) }?;
        Ok(stack)
    }

    /// One that nobody uses.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub(super) fn take() -> io::Result<Self> {
        sweep();
        let spare = SPARES.lock().pop();
        spare.map_or_else(Self::new, Ok)
    }

    /// For the next one. Nobody may use it any more.
    fn give_back(self) {
        let mut spares = SPARES.lock();
        if spares.len() < SPARE {
            spares.push(self);
        }
    }

    /// Where it begins, its lowest address, and how many bytes it has, as clone3(2) wants it.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.lowest as u64, STACK_BYTES as u64)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it is this one's own mapping, and nobody uses it any more.
        let _ = unsafe { munmap(ptr::with_exposed_provenance_mut(self.lowest), STACK_BYTES) };
    }
}

/// What a child is lent, and our end of its socket. By that the kernel says when the child is done: its own end is
/// closed when it executes its program, after that has a memory of its own, and when it ends, after it has given up what it had.
#[derive(Debug)]
pub(super) struct Lent {
    held: Arc<Held>,
    /// There is no child, or it is done.
    over: bool,
}

#[derive(Debug)]
struct Held {
    channel: OwnedFd,
    setup: Setup,
    /// Where it shares this process's memory.
    stack: Option<Stack>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(stack) = self.stack.take() {
            stack.give_back();
        }
    }
}

impl Held {
    fn receive(&self) -> Result<Option<[u8; REPORT_BYTES]>, Errno> {
        loop {
            let mut bytes = [0; REPORT_BYTES];
            match recv(&self.channel, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(None),
                Ok((_, _)) => return Ok(Some(bytes)),
                // It died with our go unread; told once, before what it had sent.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the child is done. What it has to say is of no interest any more.
    fn is_over(&self) -> bool {
        loop {
            match self.receive() {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(error) => return error != Errno::AGAIN,
            }
        }
    }
}

impl Lent {
    pub(super) fn new(channel: OwnedFd, setup: Setup) -> Self {
        Self { held: Arc::new(Held { channel, setup, stack: None }), over: true }
    }

    pub(super) fn channel(&self) -> BorrowedFd<'_> {
        self.held.channel.as_fd()
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.held.setup
    }

    /// Makes a child that uses it: with this process's memory if it may, in `into` if there is that, and by a fork alone if
    /// neither can be.
    ///
    /// # Errors
    ///
    /// When processes or memory have run out.
    pub(super) fn make_child(
        &mut self,
        into: Option<BorrowedFd<'_>>,
    ) -> io::Result<(u32, OwnedFd)> {
        if let Some(child) = self.share(into) {
            return Ok(child);
        }
        clone::there_or_anywhere(into, |into| self.fork(into))
    }

    fn share(&mut self, into: Option<BorrowedFd<'_>>) -> Option<(u32, OwnedFd)> {
        let held = Arc::get_mut(&mut self.held).filter(|held| held.setup.plan.may_share)?;
        held.stack = Some(Stack::take().ok()?);
        held.setup.begins(true, into.is_some());
        let stack = held.stack.as_ref()?;
        // SAFETY: the stack is nobody else's. It and the setup stay until the child is done: `Drop` sees to that.
        // `child::enter` makes system calls, past the library.
        let child = unsafe { clone::share(into, stack, child::enter, &raw const held.setup) }.ok();
        match child {
            Some(_) => self.over = false,
            None => drop(held.stack.take().map(Stack::give_back)),
        }
        child
    }

    fn fork(&mut self, into: Option<BorrowedFd<'_>>) -> io::Result<(u32, OwnedFd)> {
        if let Some(held) = Arc::get_mut(&mut self.held) {
            held.setup.begins(false, into.is_some());
        }
        let setup = &self.held.setup;
        // SAFETY: `run` makes system calls, on what was prepared, and nothing else.
        unsafe { clone::fork(into, || child::run(setup)) }
    }

    /// What the child has said; `None` once it is done.
    ///
    /// # Errors
    ///
    /// `AGAIN` when there is nothing yet.
    pub(super) fn receive(&mut self) -> Result<Option<[u8; REPORT_BYTES]>, Errno> {
        let received = self.held.receive();
        self.over |= received == Ok(None);
        received
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.over || self.held.stack.is_none() {
            return;
        }
        // As if our end were closed: without a go it ends.
        let _ = shutdown(&self.held.channel, Shutdown::Write);
        if !self.held.is_over() {
            LATE.lock().push(Arc::clone(&self.held));
        }
    }
}

/// Gives back what those have left that are done by now. Every new child does.
pub(super) fn sweep() {
    LATE.lock().retain(|held| !held.is_over());
}
