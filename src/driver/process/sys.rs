//! The system calls that no safe crate offers. With `fork/` and the trial of `tree/` the only unsafe code of the driver.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitIdOptions};

use crate::atom::Usage;
use crate::lifecycle::WaitStatus;

/// `PIDFD_SIGNAL_PROCESS_GROUP` of linux/pidfd.h, since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// `PIDFD_INFO_EXIT` of linux/pidfd.h, since Linux 6.15.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// The first version of `struct pidfd_info` of linux/pidfd.h; every kernel that knows the call takes its size.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    /// pid, tgid, ppid, then real, effective, saved and file-system uid and gid.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    ((3_u32 << 30) | ((size_of::<PidfdInfo>() as u32) << 16) | (0xff << 8) | 11) as libc::Ioctl;

/// Reaps the child behind `pidfd` if it has ended. `None` when it still lives.
///
/// # Errors
///
/// `ECHILD` when it is not, or is no longer, a child to be waited for.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<(WaitStatus, Usage)>> {
    wait(pidfd, 0)
}

/// As [`reap`], and it stays to be reaped.
pub(super) fn peek(pidfd: BorrowedFd<'_>) -> io::Result<Option<(WaitStatus, Usage)>> {
    wait(pidfd, libc::WNOWAIT)
}

fn wait(pidfd: BorrowedFd<'_>, options: libc::c_int) -> io::Result<Option<(WaitStatus, Usage)>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // The raw call, because libc's wrapper leaves out the resource usage.
    // SAFETY: both pointers are valid for a write of their types for the whole
    // call, and the descriptor is open for as long as it is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            info.as_mut_ptr(),
            libc::WEXITED | libc::WNOHANG | options,
            usage.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed memory is a valid value of both, and the kernel wrote nothing else than such values.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: for a SIGCHLD report, and for the zeroed one of a child that lives, these fields are the active ones.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let low = (status & 0xff) as u8;
    let status = match info.si_code {
        libc::CLD_EXITED => WaitStatus::Exited { code: low },
        code => WaitStatus::Signaled { signal: low, core_dumped: code == libc::CLD_DUMPED },
    };
    let usage = Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // Linux counts in KiB.
        max_rss: u64::try_from(usage.ru_maxrss).ok().map(|kib| kib.saturating_mul(1024)),
        ..Usage::default()
    };
    Ok(Some((status, usage)))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_usec).unwrap_or(0).saturating_mul(1000),
    )
}

/// What the kernel tells about an ending to those who did not wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExitInfo {
    /// It was reaped, and this is its status.
    Status(WaitStatus),
    /// It has not been reaped yet.
    NotYet,
    /// This kernel does not tell.
    Unsupported,
}

/// Asks a pidfd how its process ended: works for any process whose pidfd was held when it was reaped.
pub(super) fn exit_info(pidfd: BorrowedFd<'_>) -> ExitInfo {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, cgroup_id: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the request says how large the structure is, and it is valid for
    // reads and writes for the whole call.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result < 0 {
        return match io::Error::last_os_error().raw_os_error() {
            Some(libc::ESRCH) => ExitInfo::NotYet,
            _ => ExitInfo::Unsupported,
        };
    }
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return ExitInfo::NotYet;
    }
    WaitStatus::from_raw(info.exit_code).map_or(ExitInfo::NotYet, ExitInfo::Status)
}

/// Sends a signal to the process group whose id is the pid behind `pidfd`.
///
/// The descriptor stands for the number itself, so that the group that is
/// meant is the one that is hit, even when its leader has been reaped.
///
/// # Errors
///
/// `EINVAL` before Linux 6.9; `ESRCH` when nobody is left in the group.
pub(super) fn signal_group(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: no memory is passed: the siginfo pointer is null, which the call allows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal.as_raw(),
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the process behind a pidfd has ended with all its threads, reaped or not.
pub(super) fn has_ended(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(n) if n > 0)
}

/// Waits until the process behind a pidfd has ended with all its threads; whether it has.
pub(super) fn wait_ended(pidfd: impl AsFd, deadline: Instant) -> bool {
    /// Far below what this call takes on every kernel.
    const TURN: Duration = Duration::from_secs(60);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let turn = Timespec::try_from(left.min(TURN)).unwrap_or_default();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        if matches!(poll(&mut fds, Some(&turn)), Ok(n) if n > 0) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

/// Gives the kernel a millisecond, where it announces nothing.
pub(super) fn pause() {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
}

/// A descriptor that is readable when a child of this process has ended.
///
/// For the keeper alone, whose children are all its own: SIGCHLD is blocked in the thread that makes it.
#[derive(Debug)]
pub(super) struct ChildSignal(OwnedFd);

impl ChildSignal {
    /// Blocks SIGCHLD and makes the descriptor.
    ///
    /// # Errors
    ///
    /// When descriptors have run out.
    pub(super) fn new() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset makes the set a valid one, and the calls after it take a
        // valid set; a null pointer says that the old mask is not wanted.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the signals that have come.
    pub(super) fn clear(&self) {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut info).is_ok_and(|bytes| bytes > 0) {}
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A child of this process that has ended and was not reaped; it stays so.
pub(super) fn ended_child() -> Option<u32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the pointer is valid for a write of its type for the whole call.
    let result =
        unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options.bits().cast_signed()) };
    if result < 0 {
        return None;
    }
    // SAFETY: zeroed memory is a valid value, and the kernel wrote nothing else than such a value.
    let info = unsafe { info.assume_init() };
    // SAFETY: this field is the active one of a SIGCHLD report, and of the zeroed one that says that none has ended.
    let pid = unsafe { info.si_pid() };
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

/// Reaps a child that has ended.
pub(super) fn reap_child(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}

/// Goes on in a child of this process, in its own session, and ends this process.
///
/// For a process that has one thread: what others hold would stay held in the child.
///
/// # Errors
///
/// When processes have run out.
pub(super) fn detach() -> io::Result<()> {
    if fork_alone()?.is_some() {
        // SAFETY: ends the process without running what the child is going to run, or anything else.
        unsafe { libc::_exit(0) }
    }
    rustix::process::setsid()?;
    Ok(())
}

/// Forks a process that has one thread; the child's pid, `None` in the child.
///
/// # Errors
///
/// When processes have run out.
pub(super) fn fork_alone() -> io::Result<Option<u32>> {
    // SAFETY: this process has one thread, as the caller says.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid.cast_unsigned())),
    }
}
