//! The system calls that a child may make: each allocates nothing, takes no lock, and goes past the C library (on x86-64, where a
//! child may share its parent's memory), which would write into that.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
use libc::{SYS_setgroups, SYS_setresgid, SYS_setresuid};
// Those without a suffix take 16 bits here.
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use libc::{
    SYS_setgroups32 as SYS_setgroups, SYS_setresgid32 as SYS_setresgid,
    SYS_setresuid32 as SYS_setresuid,
};

pub(super) use super::raw::Errno;
use super::raw::call;

/// The largest signal number.
const SIGNALS: i32 = 64;

/// A set of signals as the kernel has it: bit `n - 1` is signal `n`.
type SignalSet = u64;

/// A number as an argument of a call.
const fn arg(number: i32) -> usize {
    number as usize
}

/// A string as an argument of a call.
fn string(text: &CStr) -> usize {
    text.as_ptr().expose_provenance()
}

/// Bytes that a call reads, and how many.
fn bytes(bytes: &[u8]) -> [usize; 2] {
    [bytes.as_ptr().expose_provenance(), bytes.len()]
}

/// Ends this process.
pub(super) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: it takes a number and does not return.
        let _ = unsafe { call(libc::SYS_exit_group, [arg(status)]) };
    }
}

/// Sets a signal to its default. What cannot be set (SIGKILL, SIGSTOP) is there already.
pub(super) fn default_action(signal: i32) {
    set_action(signal, libc::SIG_DFL);
}

/// Sets what a signal does: its default, or nothing.
fn set_action(signal: i32, handler: libc::sighandler_t) {
    // As the kernel has it, at least: the handler first (not so on MIPS), then flags, restorer and mask in one order or another.
    let action: [usize; 8] = [handler, 0, 0, 0, 0, 0, 0, 0];
    let new = action.as_ptr().expose_provenance();
    // SAFETY: the action is no function, and larger than every machine's; the old one is not asked for.
    let _ = unsafe { call(libc::SYS_rt_sigaction, [arg(signal), new, 0, size_of::<SignalSet>()]) };
}

/// The signals that this process ignores.
pub(in crate::driver::process) fn ignored_signals() -> SignalSet {
    (1..=SIGNALS).filter(|signal| is_ignored(*signal)).fold(0, |set, signal| set | bit(signal))
}

fn is_ignored(signal: i32) -> bool {
    let mut action = [0_usize; 8];
    let old = action.as_mut_ptr().expose_provenance();
    // SAFETY: the place is larger than every machine's action; no new one is set.
    let asked =
        unsafe { call(libc::SYS_rt_sigaction, [arg(signal), 0, old, size_of::<SignalSet>()]) };
    asked.is_ok() && action[0] == libc::SIG_IGN
}

const fn bit(signal: i32) -> SignalSet {
    1 << (signal - 1)
}

/// A session of its own.
pub(super) fn setsid() -> Result<(), Errno> {
    // SAFETY: no arguments.
    unsafe { call(libc::SYS_setsid, []) }.map(drop)
}

/// Sets every signal of `which` to its default, but for those of `ignored`, which do nothing from here on.
pub(super) fn reset_signals(which: SignalSet, ignored: SignalSet) {
    for signal in 1..=SIGNALS {
        if ignored & bit(signal) != 0 {
            set_action(signal, libc::SIG_IGN);
        } else if which & bit(signal) != 0 {
            default_action(signal);
        }
    }
}

/// Blocks no signal.
pub(super) fn unblock_signals() {
    let none: SignalSet = 0;
    let set = (&raw const none).expose_provenance();
    // SAFETY: the set is valid for a read of its size; the old one is not asked for.
    let _ = unsafe {
        let args = [arg(libc::SIG_SETMASK), set, 0, size_of::<SignalSet>()];
        call(libc::SYS_rt_sigprocmask, args)
    };
}

/// Takes one signal that waits to be delivered and would dump the core; whether there was one.
pub(super) fn take_core_signal() -> bool {
    // signal(7).
    const DUMP: [i32; 10] = [
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGQUIT,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ];
    let set: SignalSet = DUMP.iter().fold(0, |set, signal| set | bit(*signal));
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let (set, time) =
        ((&raw const set).expose_provenance(), (&raw const at_once).expose_provenance());
    // SAFETY: set and time are valid for reads; what is known of the signal is not asked for.
    let taken = unsafe { call(libc::SYS_rt_sigtimedwait, [set, 0, time, size_of::<SignalSet>()]) };
    taken.is_ok()
}

/// Ends this process as if somebody had killed it.
pub(super) fn kill_self() -> ! {
    // SAFETY: numbers; the process is this one.
    let _ = unsafe {
        let own = call(libc::SYS_getpid, []).unwrap_or_default();
        call(libc::SYS_kill, [own, arg(libc::SIGKILL)])
    };
    exit(1)
}

/// Makes `to` a copy of `from` that an execution leaves open. They must differ.
pub(super) fn dup2(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: numbers. Whatever `to` was is given up by this process, which owns nothing else.
    unsafe { call(libc::SYS_dup3, [arg(from), arg(to), 0]) }.map(drop)
}

/// As [`dup2`], closed by an execution.
pub(super) fn dup3(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: as above.
    unsafe { call(libc::SYS_dup3, [arg(from), arg(to), arg(libc::O_CLOEXEC)]) }.map(drop)
}

/// A copy of a descriptor that is `least` or more, closed by an execution.
pub(super) fn duplicate_above(fd: RawFd, least: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: numbers.
    let copy = unsafe { call(libc::SYS_fcntl, [arg(fd), arg(libc::F_DUPFD_CLOEXEC), arg(least)]) };
    copy.map(|fd| fd as RawFd)
}

/// Closes one descriptor.
pub(super) fn close(fd: RawFd) {
    // SAFETY: a number; called in a child, in which nothing owns descriptors.
    let _ = unsafe { call(libc::SYS_close, [arg(fd)]) };
}

/// Closes all descriptors from `first` on. `highest` is the highest one there is, for kernels
/// that cannot do it in one call (it came with Linux 5.9, and sandboxes may refuse it).
pub(super) fn close_from(first: RawFd, highest: RawFd) {
    if close_range(first as u32).is_err() {
        for fd in first..=highest {
            close(fd);
        }
    }
}

fn close_range(first: u32) -> Result<(), Errno> {
    // SAFETY: numbers; called in a child, or for a range in which there is nothing.
    unsafe { call(libc::SYS_close_range, [first as usize, u32::MAX as usize, 0]) }.map(drop)
}

/// Whether [`close_from`] has to be told the highest descriptor.
pub(super) fn needs_highest() -> bool {
    close_range(u32::MAX).is_err()
}

fn open(file: &CStr, flags: i32) -> Result<RawFd, Errno> {
    // SAFETY: the path ends with NUL; nothing is created, so that there is no mode.
    let opened =
        unsafe { call(libc::SYS_openat, [arg(libc::AT_FDCWD), string(file), arg(flags), 0]) };
    opened.map(|fd| fd as RawFd)
}

/// Writes the whole text into a file that is there.
pub(super) fn write_file(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let fd = open(path, libc::O_WRONLY | libc::O_CLOEXEC)?;
    let [at, length] = bytes(text);
    // SAFETY: the bytes are valid for a read of their length.
    let written = unsafe { call(libc::SYS_write, [arg(fd), at, length]) };
    close(fd);
    written.map(drop)
}

/// Writes bytes into a file at a place. What cannot be written is told by the kernel to whoever holds the
/// leader's pidfd.
pub(super) fn write_at(fd: RawFd, text: &[u8], place: usize) {
    #[cfg(target_pointer_width = "64")]
    {
        let [at, length] = bytes(text);
        // SAFETY: the bytes are valid for a read of their length.
        let _ = unsafe { call(libc::SYS_pwrite64, [arg(fd), at, length, place]) };
    }
    // Which registers have a place of 64 bits is different everywhere.
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: the bytes are valid for a read of their length.
    unsafe {
        libc::pwrite(fd, text.as_ptr().cast(), text.len(), place as libc::off_t);
    }
}

/// Opens a file as standard input, which must be closed: it is then the lowest free descriptor.
/// Whether it is a directory.
pub(super) fn open_stdin(path: &CStr) -> Result<bool, Errno> {
    // Without blocking: a FIFO without a writer would hold up every atom.
    let fd = open(path, libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK)?;
    // SAFETY: a descriptor and numbers.
    unsafe { call(libc::SYS_fcntl, [arg(fd), arg(libc::F_SETFL), 0]) }?;
    // The same on every machine, as stat(2) is not.
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let place = stat.as_mut_ptr().expose_provenance();
    let (empty, flags) = (string(c""), arg(libc::AT_EMPTY_PATH));
    // SAFETY: the path ends with NUL, and `stat` is valid for a write.
    unsafe { call(libc::SYS_statx, [arg(fd), empty, flags, libc::STATX_TYPE as usize, place]) }?;
    // SAFETY: zeros are a valid value, and the call has written nothing else than one.
    let mode = u32::from(unsafe { stat.assume_init() }.stx_mode);
    Ok(mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Sets a resource limit, soft and hard alike.
pub(super) fn set_rlimit(resource: i32, value: u64) -> Result<(), Errno> {
    set_rlimits(resource, value, value)
}

/// Sets a resource limit, the soft and the hard one.
pub(super) fn set_rlimits(resource: i32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let new = (&raw const limit).expose_provenance();
    // SAFETY: 0 is this process; the limit is valid for a read, and the old one is not asked for.
    unsafe { call(libc::SYS_prlimit64, [0, arg(resource), new, 0]) }.map(drop)
}

/// Sets the bits that new files do not get.
pub(super) fn umask(mask: u32) {
    // SAFETY: a number; it cannot fail.
    let _ = unsafe { call(libc::SYS_umask, [mask as usize]) };
}

/// Sets the nice value.
pub(super) fn nice(value: i32) -> Result<(), Errno> {
    // SAFETY: numbers; 0 is this process.
    unsafe { call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, arg(value)]) }.map(drop)
}

/// No execution may give privileges from now on.
pub(super) fn no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Sets an attribute of this process that is a number.
pub(super) fn prctl(option: i32, value: usize) -> Result<(), Errno> {
    // SAFETY: the options that are used take a number and zeros.
    unsafe { call(libc::SYS_prctl, [arg(option), value, 0, 0, 0]) }.map(drop)
}

/// The other groups.
pub(super) fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // This process alone, here and below: the library would have all threads of the forking one do the same.
    let list = groups.as_ptr().expose_provenance();
    // SAFETY: the list is valid for a read of its length.
    unsafe { call(SYS_setgroups, [groups.len(), list]) }.map(drop)
}

/// The group: real, effective and saved.
pub(super) fn set_gid(gid: u32) -> Result<(), Errno> {
    // SAFETY: three numbers.
    unsafe { call(SYS_setresgid, [gid as usize; 3]) }.map(drop)
}

/// The user: real, effective and saved.
pub(super) fn set_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: three numbers.
    unsafe { call(SYS_setresuid, [uid as usize; 3]) }.map(drop)
}

/// The working directory.
pub(super) fn chdir(dir: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with NUL.
    unsafe { call(libc::SYS_chdir, [string(dir)]) }.map(drop)
}

/// Strings as execve(2) takes them: with a list of their addresses, then null.
#[derive(Debug)]
pub(super) struct Strings {
    /// What the addresses are of. They stay where they are.
    #[expect(dead_code, reason = "owned, to be pointed to")]
    strings: Vec<CString>,
    addresses: Vec<usize>,
}

impl From<Vec<CString>> for Strings {
    fn from(strings: Vec<CString>) -> Self {
        let addresses = strings.iter().map(|text| string(text)).chain([0]).collect();
        Self { strings, addresses }
    }
}

/// Executes a program; gives why it could not be.
pub(super) fn execute(program: &CStr, argv: &Strings, envp: &Strings) -> Errno {
    let list = |strings: &Strings| strings.addresses.as_ptr().expose_provenance();
    // SAFETY: all three end as they have to, and live as long as the borrow.
    let executed = unsafe { call(libc::SYS_execve, [string(program), list(argv), list(envp)]) };
    executed.err().unwrap_or(libc::EIO)
}

/// Sends a packet; whoever is not there to take it is no signal.
pub(super) fn send(fd: RawFd, packet: &[u8]) -> Result<(), Errno> {
    send_with(fd, packet, libc::MSG_NOSIGNAL)
}

/// As [`send`], unless it would have to wait.
pub(super) fn send_now(fd: RawFd, packet: &[u8]) -> Result<(), Errno> {
    send_with(fd, packet, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
}

fn send_with(fd: RawFd, packet: &[u8], flags: i32) -> Result<(), Errno> {
    let [at, length] = bytes(packet);
    // SAFETY: the bytes are valid for a read of their length; nobody is addressed.
    unsafe { call(libc::SYS_sendto, [arg(fd), at, length, arg(flags), 0, 0]) }.map(drop)
}

/// Waits for one byte; whether it came, or the other side has gone.
pub(super) fn receive_byte(fd: RawFd) -> bool {
    let mut byte = [0_u8; 1];
    let place = byte.as_mut_ptr().expose_provenance();
    loop {
        // SAFETY: the buffer is valid for a write of its length; nobody's address is asked for.
        match unsafe { call(libc::SYS_recvfrom, [arg(fd), place, 1, 0, 0, 0]) } {
            Ok(received) => return received == 1,
            Err(libc::EINTR) => {}
            Err(_) => return false,
        }
    }
}
