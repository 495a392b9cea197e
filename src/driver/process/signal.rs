//! Signals to an atom: never on a bare pid.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::identity::{Identity, Place, ProcStat, all_pids, has_environment};
use super::spawn::marker_entry;
use super::sys;
use crate::atom::AtomId;

/// The first process of an atom, held by its pidfd.
#[derive(Debug)]
pub(super) struct Leader {
    atom: AtomId,
    pidfd: OwnedFd,
    identity: Identity,
    /// Whether it is a child of this process that only we reap: its pid is not given
    /// to another one as long as we have not reaped it.
    ours: bool,
}

impl Leader {
    /// Takes hold of a child that was just spawned and that nobody has waited for.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended and the kernel reaped it at once, because SIGCHLD is ignored here.
    pub(super) fn spawned(atom: AtomId, pid: u32, place: Place) -> io::Result<Self> {
        let unknown = Identity { pid, start_time: 0, inode: 0, place };
        let raw = unknown.pid().ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        let stat = ProcStat::read(pid).map_err(gone)?;
        if stat.parent != std::process::id() || stat.group != pid {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let identity = Identity::of(pid, &stat, pidfd.as_fd(), place);
        Ok(Self { atom, pidfd, identity, ours: true })
    }

    /// The child that was forked here, has this identity and leads a session of its own.
    pub(super) fn forked(atom: AtomId, identity: Identity, pidfd: OwnedFd) -> Self {
        Self { atom, pidfd, identity, ours: true }
    }

    /// Takes hold of the very process that has this identity, if it is there: alive, or a zombie.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it is gone, or when its pid belongs to another process now.
    pub(super) fn find(atom: AtomId, identity: Identity) -> io::Result<Self> {
        let raw = identity.pid().ok_or(io::Error::from_raw_os_error(libc::ESRCH))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| {
            // EINVAL: the number is that of a thread now.
            gone(
                if error == rustix::io::Errno::INVAL { rustix::io::Errno::SRCH } else { error }
                    .into(),
            )
        })?;
        // After the pidfd is held: what has the start time now is what the pidfd stands for.
        let stat = ProcStat::read(identity.pid).map_err(gone)?;
        if !identity.is(&stat, pidfd.as_fd()) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        let identity = Identity::of(identity.pid, &stat, pidfd.as_fd(), identity.place);
        Ok(Self { atom, pidfd, identity, ours: false })
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it has ended, all its threads included.
    pub(super) fn has_ended(&self) -> bool {
        sys::has_ended(self.pidfd())
    }

    /// Asks the whole group to end; true when that reached a living leader.
    ///
    /// What is stopped is made to go on, so that it can follow.
    pub(super) fn terminate(&self) -> bool {
        if self.has_ended() {
            return false;
        }
        let reached = self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        reached
    }

    /// Kills the whole group.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Kills what is left of the group of a leader that has ended.
    pub(super) fn kill_rest(&self) {
        // Nothing, if nobody is left in it.
        let _ = self.signal_group(Signal::KILL);
    }

    /// Sends a signal to the group, and to the leader if it has left it; whether the leader got it.
    fn signal(&self, signal: Signal) -> bool {
        let inside = self.stat().is_some_and(|stat| stat.group == self.identity.pid);
        let group = self.signal_group(signal);
        if inside && group.is_ok() {
            return true;
        }
        pidfd_send_signal(&self.pidfd, signal).is_ok()
    }

    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match sys::signal_group(self.pidfd(), signal) {
            // Before Linux 6.9.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            result => return result,
        }
        match self.identity.pid() {
            // The leader is unreaped, so that the number of the group is still its own.
            Some(pid) if self.ours => Ok(kill_process_group(pid, signal)?),
            Some(_) | None => self.signal_members(signal),
        }
    }

    /// Before Linux 6.9, for a group whose number may be reused: one member after the other.
    ///
    /// Repeated, as one that was not seen may have been forked meanwhile.
    fn signal_members(&self, signal: Signal) -> io::Result<()> {
        const ROUNDS: usize = 8;
        let entry = marker_entry(self.atom);
        let mut seen = Vec::new();
        for _ in 0..ROUNDS {
            let before = seen.len();
            for pid in all_pids()? {
                let Ok(stat) = ProcStat::read(pid) else { continue };
                let known = (pid, stat.start_time);
                if stat.group != self.identity.pid || seen.contains(&known) || stat.is_zombie() {
                    continue;
                }
                let Some(raw) = rustix::process::Pid::from_raw(pid.cast_signed()) else { continue };
                let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else { continue };
                let is_member = has_environment(pid, &entry)
                    && ProcStat::read(pid).is_ok_and(|again| {
                        (again.start_time, again.group) == (stat.start_time, stat.group)
                    });
                if is_member && pidfd_send_signal(&pidfd, signal).is_ok() {
                    seen.push(known);
                }
            }
            if seen.len() == before {
                break;
            }
        }
        if seen.is_empty() { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
    }
}

fn gone(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        io::Error::from_raw_os_error(libc::ESRCH)
    } else {
        error
    }
}
