//! A process to try cgroups with.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};

/// A child that does nothing until it is killed, or until this process is gone.
#[derive(Debug)]
pub(super) struct Subject {
    pid: Pid,
    /// Its end tells the child to go.
    _alive: OwnedFd,
}

impl Subject {
    pub(super) fn start() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (read_raw, write_raw) = (read.as_raw_fd(), write.as_raw_fd());
        // SAFETY: the child calls nothing but close, read and _exit, which are
        // async-signal-safe, on descriptors and a buffer of its own copy.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let mut byte = 0_u8;
            // SAFETY: as above; the buffer is valid for the one byte that is read.
            unsafe {
                libc::close(write_raw);
                libc::read(read_raw, (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
        }
        let pid = match pid {
            -1 => return Err(io::Error::last_os_error()),
            pid => Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?,
        };
        Ok(Self { pid, _alive: write })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Whether something else than its own [`Drop`] has killed it.
    pub(super) fn was_killed(&self) -> bool {
        matches!(self.wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT), Some(status)
            if status.terminating_signal() == Some(libc::SIGKILL))
    }

    fn wait(&self, options: WaitIdOptions) -> Option<WaitIdStatus> {
        loop {
            match waitid(WaitId::Pid(self.pid), options) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.ok().flatten(),
            }
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // A child that nobody has waited for: the number is its own.
        if let Ok(pidfd) = pidfd_open(self.pid, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        self.wait(WaitIdOptions::EXITED);
    }
}
