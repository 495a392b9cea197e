//! The fork itself, and the system calls that a child may make after it. With `wait` the only unsafe code here.
//!
//! Everything but [`fork`] may be called between fork and exec: it is one system call, allocates
//! nothing, takes no lock, and goes past libc's bookkeeping of threads where there is one.

use std::convert::Infallible;
use std::ffi::{CStr, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
use libc::{SYS_setgroups, SYS_setresgid, SYS_setresuid};
// Those without a suffix take 16 bits here.
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use libc::{
    SYS_setgroups32 as SYS_setgroups, SYS_setresgid32 as SYS_setresgid,
    SYS_setresuid32 as SYS_setresuid,
};

/// The number of an error.
pub(super) type Errno = i32;

/// The largest signal number.
const SIGNALS: i32 = 64;

fn errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub(super) fn check(result: impl Into<i64>) -> Result<i64, Errno> {
    let result = result.into();
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// Forks this process, which may have threads; gives the child's pid and pidfd. With `into`, the directory of a cgroup of
/// version 2, the child is born there (Linux 5.7).
///
/// # Safety
///
/// `child` must not allocate, lock or panic: in a process with threads nobody gives the locks
/// back that they held. It may call this module.
pub(super) unsafe fn fork(
    into: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> io::Result<(u32, OwnedFd)> {
    let mut pidfd: libc::c_int = -1;
    // No handler of ours may run in the child before it has reset them all.
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are valid for writes, and `all` is initialised before it is read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let cloned = match into {
        Some(cgroup) => clone_into(cgroup, &mut pidfd),
        None => clone(libc::CLONE_PIDFD, &mut pidfd),
    };
    if cloned == Ok(0) {
        child();
    }
    // SAFETY: the call above initialised it.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    let pid = cloned.map_err(io::Error::from_raw_os_error)?;
    // SAFETY: the kernel has made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid as u32, pidfd))
}

/// clone(2) rather than clone3: sandboxes that know no clone3 refuse it, and this does the same.
pub(super) fn clone(flags: libc::c_int, pidfd: &mut libc::c_int) -> Result<i32, Errno> {
    let flags = (flags | libc::SIGCHLD) as libc::c_ulong;
    let no_stack: libc::c_ulong = 0;
    #[cfg(not(target_arch = "s390x"))]
    let (first, second) = (flags, no_stack);
    #[cfg(target_arch = "s390x")]
    let (first, second) = (no_stack, flags);
    let pidfd: *mut libc::c_int = pidfd;
    // SAFETY: without CLONE_VM and a stack of its own this is fork(2): the child has a copy of
    // everything. `pidfd` is valid for a write.
    let pid = unsafe { libc::syscall(libc::SYS_clone, first, second, pidfd, 0_usize, 0_usize) };
    check(pid).map(|pid| pid as i32)
}

/// As [`clone`] with a pidfd, in this cgroup.
fn clone_into(cgroup: BorrowedFd<'_>, pidfd: &mut libc::c_int) -> Result<i32, Errno> {
    // include/uapi/linux/sched.h; libc's constant has 32 bits.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let pidfd: *mut libc::c_int = pidfd;
    // SAFETY: numbers, of which zero is none.
    let mut args = unsafe { MaybeUninit::<libc::clone_args>::zeroed().assume_init() };
    args.flags = libc::CLONE_PIDFD as u64 | INTO_CGROUP;
    args.pidfd = pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.as_raw_fd() as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: as in `clone`; the arguments are valid for a read of their size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) };
    check(pid).map(|pid| pid as i32)
}

/// Ends this process without any of the library's clean-up.
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(status) }
}

/// Sets a signal to its default. What cannot be set (SIGKILL, SIGSTOP) is there already.
pub(super) fn default_action(signal: i32) {
    /// As the kernel has it, at least: handler, flags, restorer and mask, in one order or another.
    const DEFAULT: [u64; 8] = [0; 8];
    /// Bytes of the kernel's set of signals.
    const SET_BYTES: usize = SIGNALS as usize / 8;
    let none: *mut u64 = ptr::null_mut();
    // The raw call, because the library keeps two signals to itself, and somebody may have had them ignored.
    // SAFETY: an action of zeros is the default one, and the buffer is larger than every
    // machine's; the old action is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, SET_BYTES) };
}

/// A session of its own.
pub(super) fn setsid() -> Result<(), Errno> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Every signal at its default but for those of `ignored` (bit `n - 1` is signal `n`), and none blocked.
pub(super) fn reset_signals(ignored: u64) {
    for signal in 1..=SIGNALS {
        if ignored & (1 << (signal - 1)) != 0 {
            // SAFETY: it is no function.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        } else {
            default_action(signal);
        }
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is valid for a write, and initialised before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Makes `to` a copy of `from` that an execution leaves open. They must differ.
pub(super) fn dup2(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: two numbers. Whatever `to` was is given up by this process, which owns nothing else.
    check(unsafe { libc::dup2(from, to) }).map(drop)
}

/// As [`dup2`], closed by an execution.
pub(super) fn dup3(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: as above.
    check(unsafe { libc::dup3(from, to, libc::O_CLOEXEC) }).map(drop)
}

/// Closes one descriptor.
pub(super) fn close(fd: RawFd) {
    // SAFETY: a number; called in a child, in which nothing owns descriptors.
    unsafe { libc::close(fd) };
}

/// Closes all descriptors from `first` on. `highest` is the highest one there is, for kernels
/// that cannot do it in one call (it came with Linux 5.9, and sandboxes may refuse it).
pub(super) fn close_from(first: RawFd, highest: RawFd) {
    if close_range(first as libc::c_uint).is_err() {
        for fd in first..=highest {
            close(fd);
        }
    }
}

fn close_range(first: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: three numbers; called in a child, or for a range in which there is nothing.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// Whether [`close_from`] has to be told the highest descriptor.
pub(super) fn needs_highest() -> bool {
    close_range(libc::c_uint::MAX).is_err()
}

/// Writes the whole text into a file that is there.
pub(super) fn write_file(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    // SAFETY: the path ends with NUL.
    let fd =
        check(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })? as RawFd;
    // SAFETY: the bytes are valid for a read of their length.
    let written = check(unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) } as i64);
    close(fd);
    written.map(drop)
}

/// Opens a file as standard input, which must be closed: it is then the lowest free descriptor.
/// Whether it is a directory.
pub(super) fn open_stdin(path: &CStr) -> Result<bool, Errno> {
    // Without blocking: a FIFO without a writer would hold up every atom.
    let flags = libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK;
    // SAFETY: the path ends with NUL.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags) })? as RawFd;
    // SAFETY: a descriptor and numbers.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, 0) })?;
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is valid for a write.
    check(unsafe { libc::fstat(fd, stat.as_mut_ptr()) })?;
    // SAFETY: the successful call has filled it.
    Ok(unsafe { stat.assume_init() }.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Sets a resource limit, soft and hard alike.
pub(super) fn set_rlimit(resource: i32, value: u64) -> Result<(), Errno> {
    set_rlimits(resource, value, value)
}

/// Sets a resource limit, the soft and the hard one.
pub(super) fn set_rlimits(resource: i32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is valid for a read.
    check(unsafe { libc::setrlimit64(resource as _, &raw const limit) }).map(drop)
}

/// Sets the bits that new files do not get.
pub(super) fn umask(mask: u32) {
    // SAFETY: a number; it cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
}

/// Sets the nice value.
pub(super) fn nice(value: i32) -> Result<(), Errno> {
    // SAFETY: three numbers; 0 is this process.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) }).map(drop)
}

/// No execution may give privileges from now on.
pub(super) fn no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Sets an attribute of this process that is a number.
pub(super) fn prctl(option: libc::c_int, value: libc::c_ulong) -> Result<(), Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options that are used take a number and zeros.
    check(unsafe { libc::prctl(option, value, zero, zero, zero) }).map(drop)
}

/// The other groups.
pub(super) fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // The raw calls here and below: the library would have all threads of the forking process do the same.
    // SAFETY: the list is valid for a read of its length.
    check(unsafe { libc::syscall(SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// The group: real, effective and saved.
pub(super) fn set_gid(gid: u32) -> Result<(), Errno> {
    // SAFETY: three numbers.
    check(unsafe { libc::syscall(SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// The user: real, effective and saved.
pub(super) fn set_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: three numbers.
    check(unsafe { libc::syscall(SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// The working directory.
pub(super) fn chdir(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with NUL.
    check(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// A list of strings as execve(2) takes it: their addresses, then null.
#[derive(Debug)]
pub(super) struct Pointers<'a> {
    pointers: Vec<*const c_char>,
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> Pointers<'a> {
    /// The list of `strings`. To be made before the fork: it allocates.
    pub(super) fn new(strings: impl Iterator<Item = &'a CStr>) -> Self {
        let pointers = strings.map(CStr::as_ptr).chain([ptr::null()]).collect();
        Self { pointers, strings: std::marker::PhantomData }
    }
}

/// Executes a program; gives why it could not be.
pub(super) fn execute(program: &CStr, argv: &Pointers<'_>, envp: &Pointers<'_>) -> Errno {
    // SAFETY: all three end as they have to, and live as long as the borrow.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    errno()
}

/// Sends a packet; whoever is not there to take it is no signal.
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the bytes are valid for a read of their length.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    check(sent as i64).map(drop)
}

/// As [`send`], unless it would have to wait.
pub(super) fn send_now(fd: RawFd, bytes: &[u8]) -> Result<(), Errno> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the bytes are valid for a read of their length.
    check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) } as i64).map(drop)
}

/// Waits for one byte; whether it came, or the other side has gone.
pub(super) fn receive_byte(fd: RawFd) -> bool {
    let mut byte = [0_u8; 1];
    loop {
        // SAFETY: the buffer is valid for a write of its length.
        match check(unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), 1, 0) } as i64) {
            Ok(received) => return received == 1,
            Err(libc::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// The highest descriptor that is open, as far as can be told.
pub(super) fn highest_fd() -> RawFd {
    let listed = std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| {
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
    });
    listed.unwrap_or_else(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(1 << 20)
    })
}

/// A descriptor above 2, so that putting others into the places 0 to 2 does not hit it.
pub(super) fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(io::Error::from)
}
