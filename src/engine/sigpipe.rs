//! Writing to a pipe in a process that may not ignore SIGPIPE.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Writes without the SIGPIPE that would end a host which does not ignore it.
pub(super) fn write_quietly(pipe: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    let blocked = Blocked::new();
    let written = rustix::io::write(pipe, bytes);
    if written == Err(Errno::PIPE) {
        blocked.take();
    }
    written
}

/// SIGPIPE, blocked on this thread.
struct Blocked {
    before: libc::sigset_t,
    pipe: libc::sigset_t,
    /// One was pending before: that is the host's.
    was_pending: bool,
}

impl Blocked {
    fn new() -> Self {
        let [mut pipe, mut before, mut pending] = [MaybeUninit::<libc::sigset_t>::uninit(); 3];
        // SAFETY: each set is filled in by the call that is given it for that, before it is read.
        unsafe {
            libc::sigemptyset(pipe.as_mut_ptr());
            libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
            libc::sigemptyset(pending.as_mut_ptr());
            libc::sigpending(pending.as_mut_ptr());
            libc::sigemptyset(before.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, pipe.as_ptr(), before.as_mut_ptr());
            let was_pending = libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1;
            Self { before: before.assume_init(), pipe: pipe.assume_init(), was_pending }
        }
    }

    /// Takes the signal that came of our write.
    fn take(&self) {
        if !self.was_pending {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: both are whole, and nothing is written but what is not asked for.
            while unsafe { libc::sigtimedwait(&raw const self.pipe, std::ptr::null_mut(), &now) }
                < 0
                && io::Error::last_os_error().kind() == ErrorKind::Interrupted
            {}
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: it is the mask that this thread had.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }
}
