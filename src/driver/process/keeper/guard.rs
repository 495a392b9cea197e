//! The guard: the keeper's parent, which does nothing as long as the keeper lives.
//!
//! When the keeper is killed, its children become the guard's, and so do their endings: init would reap
//! them at once, and how they ended would be known to nobody. The guard leaves them as they are, zombies whose
//! status the next keeper can read, until that says that it has read them, or has not come. So long it also holds the
//! atoms' FIFOs open, so that what they print is not lost with the last one who had them open.
//!
//! Each keeper writes down who its guard is, in `keeper.guards` of its store; the next one reads it.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{
    PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal,
    set_child_subreaper, setrlimit,
};

use crate::driver::kernel_file;
use crate::driver::process::fork::{
    Woken, block_signals, close_from, each_child, lists_children, wait_for_child, wait_for_term,
};
use crate::driver::process::identity::{Identity, Place, ProcStat};
use crate::driver::process::sys;

/// Its name in lists of processes.
const NAME: &str = "caesium-guard";

/// How long the next keeper has time to learn how an atom ended: enough for a host that is started again by itself.
/// A zombie costs a pid, and some kilobytes.
const HELD: Duration = Duration::from_secs(60);

/// The same for what ends when that is there: it is told at once, and reads it then.
const HELD_WHILE_WATCHED: Duration = Duration::from_secs(2);

/// Where guards are written down.
const FILE: &str = "keeper.guards";

/// How many endings are kept for it.
const MOST_HELD: usize = 1024;

/// How many times as long as a look at its children the guard waits before the next one.
const LOOKING: u32 = 10;

/// Goes on in a child of this process, which stays behind as its guard.
///
/// To be called while the process has one thread. Where the kernel does not list a process's children there is no guard.
///
/// # Errors
///
/// When processes have run out.
pub(super) fn leave_behind(atoms: &Path) -> io::Result<()> {
    if !lists_children() {
        return Ok(());
    }
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let Some(keeper) = sys::fork_alone()? else {
        rustix::process::setsid()?;
        return Ok(());
    };
    // Nothing of the host may stay open here. Whatever fails leaves a guard that is of less use.
    let _ = let_go();
    block_signals();
    guard(keeper, atoms);
    std::process::exit(0);
}

fn let_go() -> io::Result<()> {
    let _ = rustix::thread::set_name(c"caesium-guard");
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    close_from(3);
    // Two for each atom, should it come to that.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    std::env::set_current_dir("/")
}

/// Whether a process is a guard.
pub(in crate::driver::process) fn is_guard(pid: u32) -> bool {
    kernel_file::read_text(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == NAME)
}

/// Stays as long as there are children.
fn guard(keeper: u32, atoms: &Path) {
    let mut held: HashMap<u32, Instant> = HashMap::new();
    let mut limit = HELD;
    let mut pipes: Option<Pipes> = None;
    let mut keeper = Some(keeper);
    loop {
        let looked = Instant::now();
        let mut left = 0_usize;
        let mut seen = Vec::new();
        each_child(|pid| seen.push(pid));
        for pid in &seen {
            let Ok(stat) = ProcStat::read(*pid) else { continue };
            if !stat.is_zombie() {
                left += 1;
                continue;
            }
            if keeper.take_if(|keeper| keeper == pid).is_some() {
                pipes = Some(Pipes::open(atoms));
                sys::reap_child(*pid);
                continue;
            }
            // Atoms lead a session. How anybody else ended is nobody's business; nor is it how their reapers did, or
            // who was never executed.
            let is_atom = stat.session == *pid && !is_ours(*pid);
            let since = *held.entry(*pid).or_insert_with(Instant::now);
            if is_atom && since.elapsed() < limit && held.len() <= MOST_HELD {
                left += 1;
            } else {
                sys::reap_child(*pid);
                held.remove(pid);
            }
        }
        held.retain(|pid, _| seen.contains(pid));
        pipes.take_if(|pipes| pipes.since.elapsed() >= HELD);
        if left == 0 && pipes.as_ref().is_none_or(Pipes::is_empty) {
            return;
        }
        let next = held.values().min().map(|since| limit.saturating_sub(since.elapsed()));
        let pipes_next = pipes.as_ref().map(|pipes| HELD.saturating_sub(pipes.since.elapsed()));
        let next = next.into_iter().chain(pipes_next).min();
        let looking = looked.elapsed();
        let term = match wait_for_child(next) {
            Woken::ByTerm => true,
            // When thousands end, one look is for many of them.
            Woken::ByChild => wait_for_term(LOOKING * looking),
        };
        if term {
            // What is there was read.
            held.drain().for_each(|(pid, _)| sys::reap_child(pid));
            limit = HELD_WHILE_WATCHED;
            pipes = None;
        }
    }
}

/// The FIFOs of the atoms, held open.
struct Pipes {
    since: Instant,
    held: Vec<OwnedFd>,
}

impl Pipes {
    /// Opens all that there are: an atom that ends takes what it has printed with it otherwise.
    fn open(atoms: &Path) -> Self {
        let dirs = fs::read_dir(atoms).into_iter().flatten().flatten();
        let fifos = dirs.flat_map(|dir| ["out", "err"].map(|name| dir.path().join(name)));
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let held = fifos.filter_map(|path| open(path, flags, Mode::empty()).ok()).collect();
        Self { since: Instant::now(), held }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// The guards of earlier keepers of this store, and the note of who this one's is.
#[derive(Debug)]
pub(in crate::driver::process) struct Guards {
    earlier: Vec<Identity>,
}

impl Guards {
    /// Reads who was a guard here, and writes down who is one now. For a keeper that has the lock.
    pub(super) fn succeed(home: &Path, place: Place) -> Self {
        let path = home.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let identity = |line: &str| {
            let (pid, start_time) = line.split_once(' ')?;
            let (pid, start_time) = (pid.parse().ok()?, start_time.parse().ok()?);
            Some(Identity { pid, start_time, inode: 0, place })
        };
        let earlier: Vec<_> = text.lines().filter_map(identity).filter(is_there).collect();
        let parent =
            rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        let ours = parent.filter(|pid| is_guard(*pid)).and_then(|pid| {
            let start_time = ProcStat::read(pid).ok()?.start_time;
            Some(Identity { pid, start_time, inode: 0, place })
        });
        let lines = earlier.iter().chain(&ours);
        let lines: String =
            lines.map(|guard| format!("{} {}\n", guard.pid, guard.start_time)).collect();
        // Without it the next keeper finds endings all the same; only their zombies stay longer.
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(lines.as_bytes())) {
            tracing::warn!(path = %path.display(), %error, "cannot write down who the keeper's guard is");
        }
        Self { earlier }
    }

    /// Every ending that was there has been read.
    pub(in crate::driver::process) fn release(&mut self) {
        for guard in self.earlier.drain(..) {
            let pidfd = guard.pid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // After the pidfd is held: what is a guard now is what it stands for.
            if let Some(pidfd) = pidfd.filter(|_| is_there(&guard)) {
                let _ = pidfd_send_signal(&pidfd, Signal::TERM);
            }
        }
    }
}

/// Whether a process is called as those are that execute nothing.
fn is_ours(pid: u32) -> bool {
    kernel_file::read_text(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.starts_with("caesium-"))
}

fn is_there(guard: &Identity) -> bool {
    ProcStat::read(guard.pid).is_ok_and(|stat| stat.start_time == guard.start_time)
        && is_guard(guard.pid)
}
