//! Making children: by a fork, or with this process's own memory.

use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::lent::Stack;
use super::raw::{Errno, call, clone_sharing};

/// Forks this process, which may have threads; gives the child's pid and pidfd. With `into`, the directory of a cgroup of
/// version 2, the child is born there (Linux 5.7).
///
/// # Safety
///
/// `child` must not allocate, lock or panic: in a process with threads nobody gives the locks
/// back that they held. It may call [`sys`](super::sys).
pub(super) unsafe fn fork(
    into: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> io::Result<(u32, OwnedFd)> {
    made(|pidfd| {
        let pid = match into {
            Some(cgroup) => {
                let args = arguments(0, Some(cgroup), pidfd);
                let place = (&raw const args).expose_provenance();
                // SAFETY: without CLONE_VM this is fork(2): the child has a copy of everything. The arguments are
                // valid for a read of their size, and `pidfd` for a write.
                unsafe { call(libc::SYS_clone3, [place, size_of_val(&args)]) }
            }
            None => clone(libc::CLONE_PIDFD, pidfd),
        }?;
        if pid == 0 {
            child();
        }
        Ok(pid)
    })
}

/// Makes a child that has this process's memory until it executes a program or ends, and calls `child` with `lent` on
/// `stack`. What a fork does with all pages of a process, and what copies them later, is spared. All signals are at their
/// default in it, but for those that are ignored, and blocked.
///
/// # Errors
///
/// Also on a machine, a kernel or in a sandbox that cannot: it takes clone3(2) (Linux 5.7 with `into`, 5.5 without).
///
/// # Safety
///
/// As that of `raw::clone_sharing`.
pub(super) unsafe fn share<T>(
    into: Option<BorrowedFd<'_>>,
    stack: &Stack,
    child: extern "C" fn(*const T) -> !,
    lent: *const T,
) -> io::Result<(u32, OwnedFd)> {
    // include/uapi/linux/sched.h; libc's constant has 32 bits.
    const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    made(|pidfd| {
        let mut args = arguments(libc::CLONE_VM as u64 | CLEAR_SIGHAND, into, pidfd);
        (args.stack, args.stack_size) = stack.range();
        // SAFETY: as the caller says.
        unsafe { clone_sharing(&args, child, lent) }
    })
}

/// Makes a child in `into`, if there is that, and elsewhere if it cannot be there: an older kernel, a sandbox, or there are no
/// processes; then the last one says so.
pub(super) fn there_or_anywhere<T>(
    into: Option<BorrowedFd<'_>>,
    mut make: impl FnMut(Option<BorrowedFd<'_>>) -> io::Result<T>,
) -> io::Result<T> {
    let there = into.and_then(|into| make(Some(into)).ok());
    there.map_or_else(|| make(None), Ok)
}

/// Has a child made, which begins with all signals blocked: no handler of ours may run in it.
fn made(make: impl FnOnce(&mut RawFd) -> Result<usize, Errno>) -> io::Result<(u32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid for writes, and `all` is initialised before it is read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let pid = make(&mut pidfd);
    // SAFETY: the call above initialised it.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    let pid = pid.map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the kernel has made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid as u32, pidfd))
}

/// clone(2) rather than clone3: sandboxes that know no clone3 refuse it, and this does the same.
pub(super) fn clone(flags: libc::c_int, pidfd: &mut RawFd) -> Result<usize, Errno> {
    let flags = (flags | libc::SIGCHLD) as usize;
    let no_stack = 0;
    #[cfg(not(target_arch = "s390x"))]
    let (first, second) = (flags, no_stack);
    #[cfg(target_arch = "s390x")]
    let (first, second) = (no_stack, flags);
    let pidfd = ptr::from_mut(pidfd).expose_provenance();
    // SAFETY: without CLONE_VM and a stack of its own this is fork(2): the child has a copy of
    // everything. `pidfd` is valid for a write.
    unsafe { call(libc::SYS_clone, [first, second, pidfd, 0, 0]) }
}

/// The arguments of clone3(2) for a child with a pidfd, in that cgroup.
fn arguments(flags: u64, into: Option<BorrowedFd<'_>>, pidfd: &mut RawFd) -> libc::clone_args {
    // include/uapi/linux/sched.h; libc's constant has 32 bits.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: numbers, of which zero is none.
    let mut args = unsafe { MaybeUninit::<libc::clone_args>::zeroed().assume_init() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(pidfd).expose_provenance() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = into {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    args
}
