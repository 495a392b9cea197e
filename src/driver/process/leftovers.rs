//! What is left of an atom's group when its leader is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process_group,
};

use super::identity::{Identity, ProcStat, all_pids, environment, has_entry, read_environment};
use super::spawn::marker_entry;
use super::sys;
use crate::atom::AtomId;

/// How long what was killed is waited for. Only what the kernel holds up takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// By what one member of the group is known: its pid, and when it was started.
type Member = (u32, u64);

/// Kills what is left of the group whose leader had this identity and has ended, and
/// waits until nothing of it lives.
///
/// The identity has to be of this boot and this pid namespace.
///
/// # Errors
///
/// When it could not be looked for, or does not end.
pub(super) fn end_leftovers(atom: AtomId, leader: Identity) -> io::Result<()> {
    let Some(group) = leader.pid() else { return Ok(()) };
    let entry = marker_entry(atom);
    let deadline = Instant::now() + PATIENCE;
    let mut killed: Vec<Member> = Vec::new();
    loop {
        // Most often nobody is left, and not every process has to be looked at.
        if test_kill_process_group(group) == Err(Errno::SRCH) {
            return Ok(());
        }
        let mut fresh = false;
        for member in members(leader, &entry)? {
            if !killed.contains(&member) && kill(member, leader, &entry)? {
                tracing::debug!(%atom, pid = member.0, "killed what an atom left behind");
                killed.push(member);
                fresh = true;
            }
        }
        // One that ends shows no environment any more: it is still waited for.
        for member in &killed {
            let Some(pidfd) = hold(*member)? else { continue };
            if !sys::wait_ended(&pidfd, deadline) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("process {} of its group was killed and does not end", member.0),
                ));
            }
        }
        // What was forked before its parent was killed is found in the next round.
        if !fresh {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its group has new members faster than they can be killed",
            ));
        }
    }
}

/// Kills what was started as this atom and lives, wherever it has gone: for an atom whose reaper was killed.
/// A process that has another environment than it was started with is not found.
pub(super) fn leave_nothing_marked(atom: AtomId) {
    let deadline = Instant::now() + PATIENCE;
    let unclear_until = Instant::now() + EXECUTING;
    loop {
        match kill_marked(atom, deadline) {
            Ok(Marked::None) => return,
            Ok(Marked::Unclear) if Instant::now() >= unclear_until => return,
            Ok(Marked::Unclear) => sys::pause(),
            Ok(Marked::Killed) if Instant::now() < deadline => {}
            Ok(Marked::Killed) => {
                tracing::error!(%atom, "what an atom left behind comes faster than it can be killed");
                return;
            }
            Err(error) => {
                tracing::error!(%atom, %error, "something that an atom left behind may still run");
                return;
            }
        }
    }
}

/// How long a child of ours may be about to execute a program, when its environment cannot be read.
const EXECUTING: Duration = Duration::from_millis(100);

/// Whether there was somebody with an atom's marker.
enum Marked {
    None,
    /// Somebody who descends from us shows no environment, as one does in the midst of an execution.
    Unclear,
    Killed,
}

fn kill_marked(atom: AtomId, deadline: Instant) -> io::Result<Marked> {
    let entry = marker_entry(atom);
    let mut marked = Marked::None;
    for pid in all_pids()? {
        let Some(stat) = known(ProcStat::read(pid))? else { continue };
        if stat.is_zombie() {
            continue;
        }
        let Some(environment) = known(environment(pid))? else { continue };
        if environment.is_empty() && stat.parent == std::process::id() {
            if matches!(marked, Marked::None) {
                marked = Marked::Unclear;
            }
            continue;
        }
        if !has_entry(&environment, &entry) {
            continue;
        }
        let Some(pidfd) = hold((pid, stat.start_time))? else { continue };
        tracing::debug!(%atom, pid, "killed what an atom left behind");
        // Whoever has gone since needs no signal.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        sys::wait_ended(&pidfd, deadline);
        marked = Marked::Killed;
    }
    Ok(marked)
}

/// The members of the group, as far as they were started as the atom.
fn members(leader: Identity, entry: &[u8]) -> io::Result<Vec<Member>> {
    let mut members = Vec::new();
    // A number that was given to another process, or to a thread, says that the
    // group was empty before: who is in it now has nothing to do with the atom.
    match known(ProcStat::read(leader.pid))? {
        Some(stat) if stat.start_time != leader.start_time => return Ok(members),
        Some(_) | None => {}
    }
    for pid in all_pids()? {
        let Some(stat) = known(ProcStat::read(pid))? else { continue };
        if pid != leader.pid
            && is_of_group(&stat, leader)
            && !stat.is_zombie()
            && known(read_environment(pid, entry))? == Some(true)
        {
            members.push((pid, stat.start_time));
        }
    }
    Ok(members)
}

fn is_of_group(stat: &ProcStat, leader: Identity) -> bool {
    stat.group == leader.pid && stat.start_time >= leader.start_time
}

/// Kills a member; false when it has gone, or is none any more.
fn kill(member: Member, leader: Identity, entry: &[u8]) -> io::Result<bool> {
    let Some(pidfd) = hold(member)? else { return Ok(false) };
    // What was true before the pidfd was held has to be true of what it stands for.
    let (pid, start_time) = member;
    let is_member = known(read_environment(pid, entry))? == Some(true)
        && known(ProcStat::read(pid))?
            .is_some_and(|stat| stat.start_time == start_time && is_of_group(&stat, leader));
    if !is_member {
        return Ok(false);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes hold of the very process, if it is still there: alive, or a zombie.
fn hold((pid, start_time): Member) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = Pid::from_raw(pid.cast_signed()) else { return Ok(None) };
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // EINVAL: the number is that of a thread now.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let same = known(ProcStat::read(pid))?.is_some_and(|stat| stat.start_time == start_time);
    Ok(same.then_some(pidfd))
}

/// What was read of a process; `None` when it is gone or hidden from us. That we
/// ran out of something tells nothing of it.
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
