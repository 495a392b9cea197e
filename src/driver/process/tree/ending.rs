//! Ending everything in a cgroup, and waiting for it.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::files;
use super::group::Group;
use super::hierarchy::{Controller, Kind};
use crate::driver::kernel_file;
use crate::driver::process::identity::ProcStat;
use crate::driver::process::sys;

/// How long one kill may take. Only where nothing holds a fork storm up is it ever used.
const PATIENCE: Duration = Duration::from_secs(5);

/// Members by pid and start time.
type Seen = HashSet<(u32, u64)>;

impl Group {
    /// Kills everything in it, and whatever it forks meanwhile. To be waited for after that.
    ///
    /// # Errors
    ///
    /// When members could not be found or signalled, or came faster than they could be killed.
    pub(in crate::driver::process) fn kill(&self) -> io::Result<()> {
        let unified = self.unified();
        if let Some(node) = unified
            && node.hierarchy.kind == (Kind::V2 { kill: true })
        {
            files::or_gone(files::write(&node.dir.join("cgroup.kill"), "1"))?;
            if self.nodes().len() == 1 {
                return Ok(());
            }
        } else {
            self.freeze();
        }
        // Those too that have moved themselves away in one hierarchy.
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Seen::new();
        let killed = self.signal_rounds(Signal::KILL, &mut seen, deadline);
        // Whatever happened: a frozen process does not die of it in v1.
        self.thaw()?;
        killed?;
        self.signal_rounds(Signal::KILL, &mut seen, deadline)
    }

    /// Sends a signal to each member once, forked meanwhile or not; to how many.
    ///
    /// # Errors
    ///
    /// When they could not be found or signalled, or came faster than they could be.
    #[allow(dead_code, reason = "only its tests use it until stops wait without blocking")]
    pub(in crate::driver::process) fn signal(&self, signal: Signal) -> io::Result<usize> {
        let mut seen = Seen::new();
        self.signal_rounds(signal, &mut seen, Instant::now() + PATIENCE)?;
        Ok(seen.len())
    }

    /// Waits until nothing lives in it; whether that is so.
    pub(in crate::driver::process) fn wait_empty(&self, deadline: Instant) -> bool {
        loop {
            if self.is_empty().unwrap_or(false) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            let members = self.members().unwrap_or_default();
            let held = members.into_iter().find_map(|pid| hold(pid).ok().flatten());
            let Some(member) = held else {
                sys::pause();
                continue;
            };
            // Its end, or that it is none of them any more.
            let left = deadline.saturating_duration_since(Instant::now());
            let turn = Timespec::try_from(left.min(Duration::from_millis(50))).unwrap_or_default();
            let mut fds = [PollFd::new(&member, PollFlags::IN)];
            if matches!(poll(&mut fds, Some(&turn)), Ok(n) if n > 0) {
                // A dead one may be listed a moment longer.
                sys::pause();
            }
        }
    }

    /// Signals whoever was not seen yet, until there is nobody new.
    fn signal_rounds(&self, signal: Signal, seen: &mut Seen, deadline: Instant) -> io::Result<()> {
        let mut refused = None;
        loop {
            let mut fresh = false;
            for pid in self.members()? {
                let Some(pidfd) = hold(pid)? else { continue };
                // After the pidfd is held: whoever is in the group now under this
                // number is who is hit, or nobody.
                let Some(stat) = known(ProcStat::read(pid))? else { continue };
                if !self.has(pid)? || stat.is_zombie() || seen.contains(&(pid, stat.start_time)) {
                    continue;
                }
                match pidfd_send_signal(&pidfd, signal) {
                    Ok(()) => {
                        seen.insert((pid, stat.start_time));
                        fresh = true;
                    }
                    Err(Errno::SRCH) => {}
                    // The others are to have it all the same.
                    Err(error) => refused = Some((pid, io::Error::from(error))),
                }
            }
            if !fresh {
                break;
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "its cgroup has new members faster than they can be signalled",
                ));
            }
        }
        match refused {
            None => Ok(()),
            Some((pid, error)) => {
                let what = format!("cannot signal process {pid} of its cgroup: {error}");
                Err(io::Error::new(error.kind(), what))
            }
        }
    }

    /// Whether the process that has this pid is in it, in any hierarchy.
    fn has(&self, pid: u32) -> io::Result<bool> {
        let text =
            known(kernel_file::read_text(format!("/proc/{pid}/cgroup")))?.unwrap_or_default();
        Ok(self.nodes().iter().any(|node| node.hierarchy.contains(&node.dir, &text)))
    }

    /// Holds up everything in it, as far as it can be: an error leaves it to the rounds.
    fn freeze(&self) {
        for node in self.nodes() {
            match &node.hierarchy.kind {
                Kind::V2 { .. } => {
                    let _ = files::write(&node.dir.join("cgroup.freeze"), "1");
                    no_more(&node.dir);
                }
                Kind::V1(controllers) => {
                    if controllers.contains(&Controller::Pids) {
                        no_more(&node.dir);
                    }
                    if controllers.contains(&Controller::Freezer) {
                        let _ = files::write(&node.dir.join("freezer.state"), "FROZEN");
                    }
                }
            }
        }
    }

    /// Lets go what was frozen, by us or by the atom itself.
    fn thaw(&self) -> io::Result<()> {
        let mut result = Ok(());
        for node in self.nodes() {
            let (file, text) = match &node.hierarchy.kind {
                // A kill reaches what is frozen here.
                Kind::V2 { kill: true } => continue,
                Kind::V2 { kill: false } => ("cgroup.freeze", "0"),
                Kind::V1(controllers) if controllers.contains(&Controller::Freezer) => {
                    ("freezer.state", "THAWED")
                }
                Kind::V1(_) => continue,
            };
            // The outermost first: what is nested stays frozen with it.
            let thawed = files::nested(&node.dir).and_then(|dirs| {
                let mut outermost_first = dirs.iter().rev();
                outermost_first
                    .try_for_each(|dir| files::or_gone(files::write(&dir.join(file), text)))
            });
            result = result.and(files::or_gone(thawed));
        }
        result
    }
}

/// Lets nothing be forked in it any more, if its kernel counts processes.
fn no_more(dir: &Path) {
    let _ = files::write(&dir.join("pids.max"), "0");
}

/// Takes hold of whatever process has this number, if one has.
fn hold(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // EINVAL: the number is that of a thread now.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What was read of a process; `None` when it is gone. That we ran out of something
/// tells nothing of it.
fn known<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) =>
        {
            Err(error)
        }
        Err(_) => Ok(None),
    }
}
