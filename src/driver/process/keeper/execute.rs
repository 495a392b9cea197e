//! How the keeper starts an atom: in a cgroup of its own, from a child that waits for its go.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::atom::AtomId;
use crate::driver::Order;
use crate::driver::process::dir::AtomDir;
use crate::driver::process::fork::{Plan, Surroundings, Waiting, fork};
use crate::driver::process::identity::Identity;
use crate::driver::process::marker::Mark;
use crate::driver::process::monitor::Monitor;
use crate::driver::process::signal::Leader;
use crate::driver::process::spawn::{Failure, Streams};
use crate::driver::process::tree::{Cgroups, Group};
use crate::lifecycle::Reason;
use crate::time;

/// How long an execution may take: what it waits for is a disk, or a file server.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the members of a cgroup may take to end once they were killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// An atom that was executed.
pub(in crate::driver::process) struct Executed {
    pub(in crate::driver::process) pid: u32,
    pub(in crate::driver::process) leader: io::Result<Leader>,
    pub(in crate::driver::process) group: Option<Group>,
}

impl Monitor {
    /// Executes a prepared atom with what its host has given it.
    pub(in crate::driver::process) fn execute(
        &mut self,
        order: &Order,
        around: &Surroundings,
        streams: Streams,
        dir: &AtomDir,
    ) -> Result<Executed, Failure> {
        let atom = order.atom;
        let plan = Plan::new(atom, &order.spec, around)?.with_soft_nofile(self.soft_nofile);
        let group = self.contain(order, dir)?;
        let files = group.as_ref().map(Group::join_files).unwrap_or_default();
        let join: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
        let place = self.context.place;
        let executed = fork(&plan, streams, &join).and_then(|mut waiting| {
            let leader = Leader::forked(atom, waiting.pid, &waiting.pidfd, place);
            match release(&mut waiting, leader.as_ref().ok(), dir) {
                Ok(()) => Ok((waiting.pid, leader)),
                Err(failure) => {
                    reap(waiting);
                    Err(failure)
                }
            }
        });
        match executed {
            Ok((pid, leader)) => Ok(Executed { pid, leader, group }),
            Err(failure) => {
                if let Some(group) = group {
                    dissolve(group, dir);
                }
                Err(failure)
            }
        }
    }

    /// The cgroup of an atom that is to be started; none where none can be made and no limit needs one.
    fn contain(&mut self, order: &Order, dir: &AtomDir) -> Result<Option<Group>, Failure> {
        let limits = order.spec.get_limits();
        let needed = limits.memory.is_some() || limits.pids.is_some() || limits.cpus.is_some();
        let cgroups = self.cgroups();
        if !needed && !cgroups.can_contain() {
            return Ok(None);
        }
        match cgroups.create(order.atom, limits) {
            Ok(group) => {
                dir.marker().mark(Mark::Group);
                Ok(Some(group))
            }
            Err(failure) if needed => Err(failure),
            Err(failure) => {
                tracing::warn!(atom = %order.atom, detail = failure.detail, "an atom is not contained");
                Ok(None)
            }
        }
    }

    /// Where cgroups can be made; found out when it is first asked for.
    fn cgroups(&mut self) -> &Cgroups {
        let atoms = &self.context.atoms;
        self.cgroups.get_or_insert_with(|| {
            let stat = rustix::fs::stat(atoms);
            let name = stat.map(|stat| format!("{:x}-{:x}", stat.st_dev, stat.st_ino));
            Cgroups::find(&name.unwrap_or_else(|_| "unknown".to_owned()))
        })
    }

    /// The cgroup of an atom that an earlier keeper started.
    pub(in crate::driver::process) fn group_of(&mut self, atom: AtomId) -> Option<Group> {
        if self.link.is_none() || !self.context.dir(atom).marker().has(Mark::Group) {
            return None;
        }
        self.cgroups().reopen(atom)
    }

    /// Ends whatever is left in the cgroup of an atom that is not watched, and removes it.
    pub(in crate::driver::process) fn end_group(&mut self, atom: AtomId) {
        let dir = self.context.dir(atom);
        if let Some(group) = self.group_of(atom) {
            if let Err(error) = group.kill() {
                tracing::error!(%atom, %error, "something of an atom may still run");
            }
            dissolve(group, &dir);
        }
    }

    /// The keeper leaves: what of the cgroups nobody needs goes with it.
    pub(in crate::driver::process) fn leave_cgroups(&self) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove_store_group();
        }
    }
}

/// Waits until nothing that was killed lives in a cgroup, and removes it. It stays when something does.
pub(in crate::driver::process) fn dissolve(group: Group, dir: &AtomDir) {
    let atom = group.atom();
    if !group.wait_empty(Instant::now() + END_PATIENCE) {
        tracing::error!(%atom, "what was killed does not end");
        return;
    }
    match group.remove() {
        Ok(()) => dir.marker().unmark(Mark::Group),
        Err(error) => tracing::warn!(%atom, %error, "the cgroup of an atom stays"),
    }
}

/// Writes down which process it is, lets it go on, and waits until it has been executed.
fn release(waiting: &mut Waiting, leader: Option<&Leader>, dir: &AtomDir) -> Result<(), Failure> {
    let no = |what: &str, error: io::Error| {
        Failure::new(Reason::ExecFailed, format!("cannot {what}: {error}"))
    };
    let identity = leader.map(Leader::identity);
    if let Some(identity @ Identity { .. }) = identity {
        dir.marker().record(identity, time::now()).map_err(|e| no("write down its pid", e))?;
    }
    dir.marker().mark_spawned().map_err(|error| no("write down that it starts", error))?;
    if waiting.go().is_err() {
        // It has ended before; its report says why.
        tracing::debug!(pid = waiting.pid, "a child ended while it was set up");
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(report) = waiting.report() {
            return report;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let detail = format!("it was not executed within {} s", PATIENCE.as_secs());
            return Err(Failure::new(Reason::ExecFailed, detail));
        }
        wait_readable(waiting.channel(), left);
    }
}

fn wait_readable(fd: BorrowedFd<'_>, left: Duration) {
    let timeout = Timespec::try_from(left).unwrap_or_default();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    // Whatever it says, the report is asked for next.
    let _ = poll(&mut fds, Some(&timeout));
}

/// Ends and reaps a child that was not executed.
fn reap(waiting: Waiting) {
    let _ = pidfd_send_signal(&waiting.pidfd, rustix::process::Signal::KILL);
    let _ = waitid(WaitId::PidFd(waiting.pidfd.as_fd()), WaitIdOptions::EXITED);
}
