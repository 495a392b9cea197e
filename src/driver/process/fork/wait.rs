//! Waiting for children, naming and killing them, for a reaper: as everything after a fork it
//! allocates nothing, takes no lock, and makes one system call at a time.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use super::clone;
use super::sys::{self, Errno};
use super::waiting;
use super::word::{COMM, Ended};

/// Whether the kernel lists the children of a process: `CONFIG_PROC_CHILDREN`, which distributions have.
pub(in crate::driver::process) fn lists_children() -> bool {
    std::path::Path::new("/proc/thread-self/children").exists()
}

/// What is known of the children.
pub(super) enum Child {
    /// This one has ended, and was not reaped.
    Ended(u32, Ended),
    /// There are some, and none has ended.
    Lives,
    /// There are none.
    None,
}

/// What somebody was woken by who waits for children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver::process) enum Woken {
    /// A child has ended, or the time is over.
    ByChild,
    /// SIGTERM.
    ByTerm,
}

/// Whatever descends from this process becomes its child when its parent ends.
pub(super) fn become_subreaper() -> Result<(), Errno> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// What this process is called in lists of processes.
pub(super) fn set_name(name: &CStr) {
    // SAFETY: the name ends with NUL, and the kernel copies at most 16 bytes of it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// The end of a child is told, whatever whoever forked us had set.
pub(super) fn default_child_signal() {
    sys::default_action(libc::SIGCHLD);
}

/// Forks; 0 in the child.
pub(super) fn fork() -> Result<u32, Errno> {
    let mut unused = -1;
    clone::clone(0, &mut unused).map(|pid| pid as u32)
}

/// A child that has ended; it stays to be reaped.
pub(super) fn ended_child() -> Child {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // The raw call, because libc's wrapper leaves out the resource usage.
    // SAFETY: both pointers are valid for a write of their types.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_ALL,
            0,
            info.as_mut_ptr(),
            options,
            usage.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Child::None;
    }
    // SAFETY: zeroed memory is a valid value of both, and the kernel wrote nothing else than such values.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: for a SIGCHLD report, and for the zeroed one of children that live, these fields are the active ones.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid <= 0 {
        return Child::Lives;
    }
    let micros = |time: libc::timeval| {
        (time.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(time.tv_usec as u64)
    };
    let ended = Ended {
        code: info.si_code as u8,
        status: status as u8,
        at: now(),
        user: micros(usage.ru_utime),
        system: micros(usage.ru_stime),
        max_rss: usage.ru_maxrss as u64,
    };
    Child::Ended(pid as u32, ended)
}

/// Microseconds since 1970.
fn now() -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for a write of its type, and zeros are a valid value should the call fail.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, now.as_mut_ptr());
        now.assume_init()
    };
    (now.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(now.tv_nsec as u64 / 1000)
}

/// Reaps a child that has ended.
pub(super) fn reap(pid: u32) {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let none: *mut libc::rusage = ptr::null_mut();
    let options = libc::WEXITED | libc::WNOHANG;
    // SAFETY: the pointer is valid for a write of its type, and null says that the usage is not wanted.
    unsafe { libc::syscall(libc::SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), options, none) };
}

/// Kills a child. Only this process reaps it, so that the number is its own.
pub(super) fn kill(pid: u32) {
    // SAFETY: two numbers; never 0 or less, which would be a group.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}

/// Waits until a child has ended, or somebody wants an end; at most so many milliseconds.
pub(super) fn signal(millis: Option<u64>) -> Woken {
    wait_for(&[libc::SIGCHLD, libc::SIGTERM], millis)
}

/// Waits for one of these signals, which have to be blocked; at most so many milliseconds.
fn wait_for(signals: &[libc::c_int], millis: Option<u64>) -> Woken {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call makes the set a valid one, the others take a valid set.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        set.assume_init()
    };
    let time = millis.map(|millis| libc::timespec {
        tv_sec: (millis / 1000) as libc::time_t,
        tv_nsec: (millis % 1000 * 1_000_000) as _,
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the set is valid for a read, and so is the time, or null.
    match unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), time) } {
        libc::SIGTERM => Woken::ByTerm,
        _ => Woken::ByChild,
    }
}

/// Waits until a child has ended, at most so long; for ever without a time. SIGCHLD has to be blocked.
pub(in crate::driver::process) fn wait_for_child(time: Option<Duration>) -> Woken {
    signal(time.map(millis_of))
}

/// Waits for SIGTERM, which has to be blocked, for at most so long; whether it came.
pub(in crate::driver::process) fn wait_for_term(time: Duration) -> bool {
    wait_for(&[libc::SIGTERM], Some(millis_of(time))) == Woken::ByTerm
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// No signal that can be blocked is delivered to this process from here on.
pub(in crate::driver::process) fn block_signals() {
    default_child_signal();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialised before it is read; a null pointer says that the old one is not wanted.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut());
    }
}

/// Closes all descriptors from `first` on.
pub(in crate::driver::process) fn close_from(first: RawFd) {
    sys::close_from(first, waiting::highest());
}

/// Calls this for every child that is listed. One that ends meanwhile may hide another one.
pub(in crate::driver::process) fn each_child(mut call: impl FnMut(u32)) {
    let path = c"/proc/thread-self/children";
    // SAFETY: the path ends with NUL.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return;
    }
    let mut number = 0_u32;
    let mut bytes = [0_u8; 1024];
    loop {
        // SAFETY: the buffer is valid for a write of its length.
        let read = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
        let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else { break };
        for byte in bytes.iter().take(read) {
            match byte {
                b'0'..=b'9' => {
                    number = number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
                }
                _ => {
                    if number != 0 {
                        call(number);
                    }
                    number = 0;
                }
            }
        }
    }
    sys::close(fd);
}

/// What a process is called; what is not filled of the name stays as it is.
pub(super) fn name_of(pid: u32, name: &mut [u8; COMM]) {
    const PREFIX: &[u8] = b"/proc/";
    const SUFFIX: &[u8] = b"/comm\0";
    let mut path = [0_u8; 32];
    let mut digits = [0_u8; 10];
    let (mut rest, mut count) = (pid, 0);
    while count == 0 || rest > 0 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let digits = digits[..count].iter().rev();
    let text = PREFIX.iter().chain(digits).chain(SUFFIX);
    for (place, byte) in path.iter_mut().zip(text) {
        *place = *byte;
    }
    // SAFETY: the path ends with NUL, as it is shorter than its place.
    let fd = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return;
    }
    let mut bytes = [0_u8; COMM + 1];
    // SAFETY: the buffer is valid for a write of its length.
    let read = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    sys::close(fd);
    let read = usize::try_from(read).unwrap_or(0);
    for (place, byte) in name.iter_mut().zip(bytes.iter().take(read)) {
        if *byte != b'\n' {
            *place = *byte;
        }
    }
}

/// How much of a file is mapped: what a marker file has.
const PAGE: usize = 4096;

/// Maps the first page of a file, shared with it; null where that cannot be, as on some network file systems.
pub(super) fn map_page(fd: RawFd) -> *mut u8 {
    // SAFETY: a new mapping, of nothing that is there.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    if page == libc::MAP_FAILED { ptr::null_mut() } else { page.cast() }
}

/// Writes a byte of a page that [`map_page`] has mapped.
pub(super) fn put(page: *mut u8, at: usize, value: u8) {
    if at < PAGE {
        // SAFETY: the page is mapped for writing to the end of this process or its execution, and `at` lies in it.
        unsafe { page.add(at).write_volatile(value) };
    }
}
