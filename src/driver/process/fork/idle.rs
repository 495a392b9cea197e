//! A child that executes nothing: to try cgroups with.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clone;
use super::sys;
use super::waiting::pair;

/// How long it may take to join what it is to join.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child that does nothing until it is killed, or until whoever made it is gone.
#[derive(Debug)]
pub(in crate::driver::process) struct Idle {
    pub(in crate::driver::process) pid: u32,
    pub(in crate::driver::process) pidfd: OwnedFd,
    /// Its end tells the child to go.
    _alive: OwnedFd,
}

/// Forks a child that does nothing but to write itself into these files, as far as it may. It is born in `into`, the
/// directory of a cgroup of version 2, if there is that and it can be. Returns when it has joined what it could.
///
/// # Errors
///
/// When there are no processes or descriptors.
pub(in crate::driver::process) fn idle(
    into: Option<BorrowedFd<'_>>,
    joins: &[CString],
) -> io::Result<Idle> {
    let (ours, theirs) = pair()?;
    let (ours_raw, theirs_raw) = (ours.as_raw_fd(), theirs.as_raw_fd());
    let child = || {
        // Or it would never see that the other end has gone.
        sys::close(ours_raw);
        for file in joins {
            // 0 is whoever writes it. Who made it sees whether it has joined.
            let _ = sys::write_file(file, b"0");
        }
        let _ = sys::send(theirs_raw, &[1]);
        sys::receive_byte(theirs_raw);
        sys::exit(0)
    };
    // SAFETY: `child` makes system calls, on what was prepared above, and nothing else.
    let (pid, pidfd) = clone::there_or_anywhere(into, |into| unsafe { clone::fork(into, child) })?;
    drop(theirs);
    let idle = Idle { pid, pidfd, _alive: ours };
    let patience = Timespec::try_from(PATIENCE).ok();
    // One that has not said so by now has not joined either.
    let _ = poll(&mut [PollFd::new(&idle._alive, PollFlags::IN)], patience.as_ref());
    Ok(idle)
}
