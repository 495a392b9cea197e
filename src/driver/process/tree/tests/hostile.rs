//! Programs that do not want to end: this very test binary, executed in a role.

use std::fs;
use std::io::Write;

/// The test that plays a role, when the environment names one.
#[allow(dead_code, reason = "this file is a module of several test binaries")]
pub(super) const ENTRY: &str = "driver::process::tree::tests::hostile::play_a_role";

/// The same in a test binary of which this file is a module.
#[allow(dead_code, reason = "this file is a module of several test binaries")]
pub(super) const ENTRY_BESIDE: &str = "hostile::play_a_role";

/// Which role.
pub(super) const ROLE: &str = "CAESIUM_TEST_ROLE";

/// What a line begins with that says that the role is being played.
pub(super) const READY: &str = "hostile and ready";

/// How many lines of descent a fork storm has.
const STORM: usize = 50;

#[test]
fn play_a_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "sleeper" => {}
        "daemon" => daemon(),
        "escapee" => {
            let child = fork_pid(|| {
                leave_session();
                wait_for_ever()
            });
            // Not ready before it has gone.
            // SAFETY: it takes and gives numbers.
            while unsafe { libc::getsid(child) } != child {
                std::thread::yield_now();
            }
        }
        "deaf" => deaf(),
        "storm" => storm(),
        "stopped" => {
            fork(stop);
            ready("");
            stop();
        }
        "traced" => traced(),
        "closed" => {
            ready("");
            // SAFETY: nothing in this process needs a descriptor after that.
            unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
        }
        "nested" => nested(),
        "crowd" => crowd(),
        "hog" => hog(),
        "hog-child" => {
            let child = fork_pid(hog);
            // SAFETY: a null pointer for the status is allowed.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            ready("");
            std::process::exit(0);
        }
        "burner" => burn(),
        other => panic!("there is no role {other}"),
    }
    ready("");
    wait_for_ever()
}

/// Says that all is set up.
fn ready(what: &str) {
    // One that has closed everything cannot say it twice.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "\n{READY} {what}");
    let _ = out.flush();
}

/// Forks; the child does nothing but system calls, as the harness has threads.
fn fork_pid(child: impl FnOnce()) -> i32 {
    // SAFETY: what the children here do are system calls without allocation or locks.
    match unsafe { libc::fork() } {
        0 => {
            child();
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    }
}

fn fork(child: impl FnOnce()) {
    assert!(fork_pid(child) > 0);
}

fn wait_for_ever() -> ! {
    loop {
        // SAFETY: it takes nothing and touches no memory.
        unsafe { libc::pause() };
    }
}

fn leave_session() {
    // SAFETY: as above.
    unsafe { libc::setsid() };
}

fn stop() {
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Forks twice into a session of its own, and its parent ends before the leader does.
fn daemon() {
    let middle = fork_pid(|| {
        leave_session();
        fork_pid(|| wait_for_ever());
    });
    // SAFETY: a null pointer for the status is allowed.
    unsafe { libc::waitpid(middle, std::ptr::null_mut(), 0) };
}

/// Ignores every signal that can be ignored.
fn deaf() {
    for signal in 1..64 {
        // SAFETY: no handler is installed; what may not be ignored is refused.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Many lines of processes of which each lives for a moment and forks the next one.
fn storm() {
    // SAFETY: neither touches memory. Its orphans are reaped by the kernel at once.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    for _ in 0..STORM {
        // Under a limit it may be refused.
        fork_pid(|| {
            loop {
                let nap = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                // SAFETY: the pointer is valid for the call, and null is allowed for the rest.
                unsafe { libc::nanosleep(&raw const nap, std::ptr::null_mut()) };
                // SAFETY: parent and child go on with system calls only.
                match unsafe { libc::fork() } {
                    0 => {}
                    // Refused when it is being ended: the next try then.
                    -1 => {}
                    // SAFETY: it ends the process at once.
                    _ => unsafe { libc::_exit(0) },
                }
            }
        });
    }
}

/// A child that stands still under a tracer which never lets it go on.
fn traced() {
    let child = fork_pid(|| {
        // SAFETY: this request takes no pointers.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        stop();
    });
    // SAFETY: a null pointer for the status is allowed.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WUNTRACED) };
}

/// Makes cgroups of its own in its cgroups, and moves a child into each innermost one.
fn nested() {
    let child = fork_pid(|| wait_for_ever());
    for file in std::env::var("JOIN").unwrap().split(' ') {
        let inner = std::path::Path::new(file).with_file_name("inner").join("most");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("cgroup.procs"), child.to_string()).unwrap();
    }
}

/// As many children as it is let have, up to a bound; says how many.
fn crowd() {
    let children = (0..STORM).take_while(|_| fork_pid(|| wait_for_ever()) > 0).count();
    ready(&children.to_string());
}

/// Uses more memory than it may.
fn hog() {
    const BYTES: usize = 512 << 20;
    // SAFETY: an anonymous mapping of our own; every page that is written lies in it.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            libc::_exit(98);
        }
        for offset in (0..BYTES).step_by(4096) {
            start.cast::<u8>().add(offset).write_volatile(1);
        }
    }
}

/// Uses some CPU time in both modes.
fn burn() {
    use rustix::time::{ClockId, clock_gettime};
    // By what it has had: a busy machine gives less than the time that passes.
    while clock_gettime(ClockId::ProcessCPUTime).tv_nsec < 50_000_000 {
        let _ = fs::metadata("/proc/self/stat");
    }
}
