//! A process to try cgroups with.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::driver::process::fork::{Idle, idle};

/// A child that does nothing until it is killed, or until this process is gone.
#[derive(Debug)]
pub(super) struct Subject(Idle);

impl Subject {
    /// Starts it where an atom's child would be: born in a cgroup of version 2, and written by itself into the files of
    /// others. A process that is moved by another one holds up every fork of the machine, and that takes milliseconds.
    pub(super) fn start(into: Option<BorrowedFd<'_>>, joins: &[CString]) -> io::Result<Self> {
        idle(into, joins).map(Self)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Whether something else than its own [`Drop`] has killed it.
    pub(super) fn was_killed(&self) -> bool {
        matches!(self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT), Some(status)
            if status.terminating_signal() == Some(libc::SIGKILL))
    }

    fn wait(&self, options: WaitIdOptions) -> Option<WaitIdStatus> {
        loop {
            match waitid(WaitId::PidFd(self.0.pidfd.as_fd()), options) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.ok().flatten(),
            }
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        self.wait(WaitIdOptions::EXITED);
    }
}
