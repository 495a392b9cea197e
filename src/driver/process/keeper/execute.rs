//! How the keeper starts an atom: in a cgroup of its own, from a child that waits for its go.
//!
//! ```text
//!  prepared ──▶ answered ──▶ forked: sets itself up ─ ─ ─ ─ waits ──▶ go ──▶ executed
//!                  │                                         ▲
//!                  └─▶ the host's journal syncs ──▶ Start ───┘
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, pidfd_send_signal};

use crate::atom::{AtomId, Leftovers};
use crate::crash;
use crate::driver::process::clearing::{Remains, Then, discard};
use crate::driver::process::dir::{AtomDir, Child, Prepared};
use crate::driver::process::fork::{
    Plan, Waiting, fork, fork_under_reaper, ignored_signals, lists_children,
};
use crate::driver::process::identity::{Identity, Place, ProcStat};
use crate::driver::process::log::Pump;
use crate::driver::process::marker::{EXECUTING, Facts, Mark, Marker, RECORD};
use crate::driver::process::monitor::Monitor;
use crate::driver::process::reaper::Reaper;
use crate::driver::process::signal::Leader;
use crate::driver::process::spawn::{Failure, Streams};
use crate::driver::process::sys;
use crate::driver::process::timers::TimerKind;
use crate::driver::process::tree::{Cgroups, Group};
use crate::driver::process::watched::{Phase, Starting, Watched};
use crate::driver::{Observation, Order, Surroundings};
use crate::lifecycle::Reason;
use crate::time;

/// How long an execution may take: what it waits for is a disk, or a file server.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the members of a cgroup may take to end once they were killed, where that is waited for.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How many descriptors a fork needs beside those that were there before: both ends of its socket, and a
/// pidfd; with a reaper those of another socket, and another pidfd; and one to read who it is.
const FOR_FORK: usize = 7;

/// A child that was forked for an atom and waits for its go.
#[derive(Debug)]
pub(in crate::driver::process) struct Forked {
    waiting: Waiting,
    identity: Identity,
    group: Option<Group>,
    reaper: Option<Reaper>,
}

/// More descriptors than an atom has at any time, and more than a keeper has for everything else.
const PER_ATOM: u64 = 8;
const OF_KEEPER: u64 = 256;

/// Descriptors that are kept free for a fork.
pub(super) struct Reserve(#[expect(dead_code, reason = "held, to be dropped")] Vec<OwnedFd>);

impl Reserve {
    /// Sets them aside; none where so few atoms are there that they cannot run out.
    ///
    /// # Errors
    ///
    /// When there are not as many.
    pub(super) fn new(atoms: usize) -> io::Result<Self> {
        let limit = getrlimit(Resource::Nofile).current;
        let used = PER_ATOM.saturating_mul(atoms as u64) + OF_KEEPER;
        if limit.is_none_or(|limit| used < limit) {
            return Ok(Self(Vec::new()));
        }
        let one = |_| rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3);
        Ok(Self((0..FOR_FORK).map(one).collect::<Result<_, _>>()?))
    }
}

impl Monitor {
    /// Forks the child of an atom that was just prepared.
    pub(super) fn fork_prepared(&mut self, order: &Order, around: &Surroundings, cgroups: bool) {
        let Some(mut prepared) = self.context.take_prepared(order.atom) else { return };
        prepared.child = match prepared.child {
            Child::Unborn(streams, _) => {
                let (dir, file) = (&prepared.dir, &prepared.marker);
                match self.fork_child(order, around, streams, dir, file, cgroups) {
                    Ok(forked) => Child::Waiting(Box::new(forked)),
                    Err(failure) => Child::Failed(failure),
                }
            }
            forked @ (Child::Waiting(_) | Child::Failed(_)) => forked,
        };
        self.context.keep_prepared(order.atom, prepared);
    }

    fn fork_child(
        &mut self,
        order: &Order,
        around: &Surroundings,
        streams: Streams,
        dir: &AtomDir,
        file: &File,
        cgroups: bool,
    ) -> Result<Forked, Failure> {
        let plan = Plan::new(order.atom, &order.spec, around)?
            .with_soft_nofile(self.soft_nofile)
            .with_inherited(*self.ignored.get_or_insert_with(ignored_signals));
        let plan = Arc::new(plan);
        let marker = dir.marker().by(Some(file));
        let group = self.contain(order, marker, cgroups)?;
        let place = self.context.place;
        let identified = match &group {
            None if self.can_reap() => fork_reaped(&plan, order, streams, file, marker, place),
            group => {
                let join = group.as_ref().map(Group::join).unwrap_or_default();
                fork(&plan, streams, &join, file.as_fd(), EXECUTING).and_then(|waiting| {
                    let identity = identify(waiting.pid, &waiting.pidfd, place)?;
                    Ok((waiting, identity, None))
                })
            }
        };
        match identified {
            Ok((waiting, identity, reaper)) => Ok(Forked { waiting, identity, group, reaper }),
            Err(failure) => {
                if let Some(group) = group {
                    self.clear(Remains::Group(group), dir.clone(), Then::Nothing);
                }
                Err(failure)
            }
        }
    }

    /// Whether what no cgroup contains can have a reaper.
    fn can_reap(&mut self) -> bool {
        *self.can_reap.get_or_insert_with(|| {
            let can = lists_children();
            if !can {
                tracing::warn!("neither cgroups nor /proc/PID/children: what leaves its session is not contained");
            }
            can
        })
    }

    /// Lets an atom execute its program; what comes of it is told later.
    pub(in crate::driver::process) fn let_go(
        &mut self,
        order: &Order,
        dir: AtomDir,
        marker: &File,
        pump: Pump,
        stdin: Option<OwnedFd>,
        forked: Forked,
    ) {
        let atom = order.atom;
        let Forked { waiting, identity, group, reaper } = forked;
        let phase = Phase::Starting(Box::new(Starting { waiting, identity }));
        let mut watched = Watched::new(atom, order.spec.clone(), dir, group, phase, Some(pump));
        (watched.stdin, watched.reaper) = (stdin, reaper);
        // First: what cannot be watched does not get its go.
        let serial = match self.watch(watched) {
            Ok(serial) => serial,
            Err((watched, error)) => {
                let detail = format!("it cannot be watched, and was not let go on: {error}");
                return self.not_executed(*watched, Failure::new(Reason::ExecFailed, detail));
            }
        };
        let released = match self.watched_mut(serial) {
            Some(Watched { phase: Phase::Starting(starting), dir, .. }) => {
                match starting.waiting.report() {
                    Some(Err(failure)) => Err(failure),
                    // What it could be told of before its go is a failure only.
                    Some(Ok(())) | None => release(starting, dir.marker().by(Some(marker))),
                }
            }
            Some(_) | None => return,
        };
        match released {
            Ok(()) => self.arm(Instant::now().checked_add(PATIENCE), serial, TimerKind::Execution),
            Err(failure) => {
                if let Some(watched) = self.unwatch(serial) {
                    self.not_executed(watched, failure);
                }
            }
        }
    }

    /// Asks whether a program was executed.
    pub(in crate::driver::process) fn execution(&mut self, serial: u64) {
        let Some(Watched { phase: Phase::Starting(starting), .. }) = self.watched_mut(serial)
        else {
            return;
        };
        match starting.waiting.report() {
            None => {}
            Some(Ok(())) => self.executed(serial),
            Some(Err(failure)) => {
                if let Some(watched) = self.unwatch(serial) {
                    self.not_executed(watched, failure);
                }
            }
        }
    }

    /// It takes too long, unless it was executed long ago.
    pub(in crate::driver::process) fn end_execution(&mut self, serial: u64) {
        let starts = self.watched(serial).is_some_and(|w| matches!(w.phase, Phase::Starting(_)));
        if starts && let Some(watched) = self.unwatch(serial) {
            let detail = format!("it was not executed within {} s", PATIENCE.as_secs());
            self.not_executed(watched, Failure::new(Reason::ExecFailed, detail));
        }
    }

    fn executed(&mut self, serial: u64) {
        self.stop_listening_for_execution(serial);
        let Some(watched) = self.watched_mut(serial) else { return };
        // A placeholder for three lines; nothing is told in between.
        let until = Instant::now();
        let phase = std::mem::replace(&mut watched.phase, Phase::Lingering { until });
        let Phase::Starting(starting) = phase else { return };
        let Starting { waiting, identity } = *starting;
        let atom = watched.atom;
        watched.phase = Phase::Running(Leader::forked(atom, identity, waiting.into_pidfd()));
        watched.began = Instant::now();
        let deadline = watched.spec.get_timeout();
        let deadline = deadline.and_then(|after| watched.began.checked_add(after));
        let asked = watched.ladder.take();
        tracing::debug!(%atom, pid = identity.pid, "started an atom");
        crash::point("keeper/knows-the-execution");
        let (at, pid, handle) = (time::now(), Some(identity.pid), identity.to_handle());
        self.emit(Observation::Started { atom, at, pid, handle });
        self.arm_deadline(serial, deadline);
        if let Some(asked) = asked {
            self.stop_watched(serial, asked.cause, asked.grace_left(), asked.kill_sent);
        }
        // That it has ended may have been told before.
        self.leader_event(serial);
    }

    /// Its program was not executed: nothing of it is left.
    fn not_executed(&mut self, watched: Watched, failure: Failure) {
        let Watched { atom, dir, group, phase, pump, removing, .. } = watched;
        if let Phase::Starting(starting) = &phase {
            // It ends by itself, unless somebody holds it up. It is reaped as any child.
            let _ = pidfd_send_signal(&starting.waiting.pidfd, rustix::process::Signal::KILL);
        }
        if let Some(pump) = pump {
            self.give_up(atom, &dir, pump);
        }
        match (group, removing) {
            (Some(group), true) => self.clear(Remains::Group(group), dir, Then::Removed(atom)),
            (None, true) => self.gone(atom, &dir),
            (group, false) => {
                if let Some(group) = group {
                    self.clear(Remains::Group(group), dir.clone(), Then::Nothing);
                }
                self.start_failed(atom, dir.marker(), failure);
            }
        }
    }

    /// Gives up what was set aside for an atom that will not be started.
    pub(in crate::driver::process) fn abandon(&mut self, prepared: Prepared) -> AtomDir {
        let Prepared { dir, child, log, .. } = prepared;
        log.finish(time::now());
        if let Child::Waiting(forked) = child {
            // Its go never comes: it ends by itself, and is reaped as any child.
            let Forked { waiting, group, .. } = *forked;
            drop(waiting);
            if let Some(group) = group {
                self.clear(Remains::Group(group), dir.clone(), Then::Nothing);
            }
        }
        dir
    }

    /// The cgroup of an atom that is to be started; none where none can be made and no limit needs one.
    fn contain(
        &mut self,
        order: &Order,
        marker: Marker<'_>,
        allowed: bool,
    ) -> Result<Option<Group>, Failure> {
        let limits = order.spec.get_limits();
        let needed = limits.memory.is_some() || limits.pids.is_some() || limits.cpus.is_some();
        if !allowed && needed {
            let detail = "memory, pids and cpus are limited by cgroups, and the host does without";
            return Err(Failure::new(Reason::LimitUnsupported, detail));
        }
        if !allowed {
            return Ok(None);
        }
        let cgroups = self.cgroups();
        if !needed && !cgroups.can_contain() {
            return Ok(None);
        }
        // Before there is one: what a keeper that dies now leaves behind is looked for.
        marker.mark(Mark::Group);
        let failure = match cgroups.create(order.atom, limits) {
            Ok(group) => return Ok(Some(group)),
            Err(failure) => failure,
        };
        marker.unmark(Mark::Group);
        if needed {
            return Err(failure);
        }
        tracing::warn!(atom = %order.atom, detail = failure.detail, "an atom is not contained");
        Ok(None)
    }

    /// Where cgroups can be made; found out when it is first asked for.
    fn cgroups(&mut self) -> &Cgroups {
        self.cgroups.get_or_insert_with(|| Cgroups::find(&self.store_name))
    }

    /// The cgroup of an atom that an earlier keeper started.
    pub(in crate::driver::process) fn group_of(
        &mut self,
        atom: AtomId,
        marker: &Facts,
    ) -> Option<Group> {
        if self.link.is_none() || !marker.has(Mark::Group) {
            return None;
        }
        self.cgroups().reopen(atom)
    }

    /// The reaper of an atom that an earlier keeper started, or that was let go of, if it lives.
    pub(in crate::driver::process) fn reaper_of(
        &self,
        atom: AtomId,
        marker: &Facts,
    ) -> Option<Reaper> {
        let identity = marker.reaper()?;
        if self.link.is_none() || self.context.copied || identity.place != self.context.place {
            return None;
        }
        Reaper::find(identity).unwrap_or_else(|error| {
            tracing::error!(%atom, %error, "cannot look for the reaper of an atom");
            None
        })
    }

    /// Ends whatever is left of an atom that is not watched: in its cgroup, or under its reaper.
    pub(in crate::driver::process) fn end_group(&mut self, atom: AtomId) {
        let dir = self.context.dir(atom);
        let marker = dir.marker().read();
        if let Some(mut reaper) = self.reaper_of(atom, &marker) {
            reaper.kill();
            let deadline = Instant::now() + END_PATIENCE;
            if !sys::wait_ended(reaper.fd(), deadline) {
                tracing::error!(%atom, "what was killed does not end");
            }
            reaper.hear();
        }
        if let Some(group) = self.group_of(atom, &marker) {
            if let Err(error) = group.kill() {
                tracing::error!(%atom, %error, "something of an atom may still run");
            }
            dissolve(group, &dir);
        }
    }

    /// The keeper leaves: what of the cgroups nobody needs goes with it.
    pub(in crate::driver::process) fn leave_cgroups(&mut self) {
        if self.link.is_none() {
            return;
        }
        // Those too that a keeper which was killed has left, although this one needed none.
        let cgroups = self.cgroups.take().unwrap_or_else(|| Cgroups::untried(&self.store_name));
        cgroups.sweep();
    }
}

/// Forks an atom under a reaper of its own.
fn fork_reaped(
    plan: &Arc<Plan>,
    order: &Order,
    streams: Streams,
    file: &File,
    marker: Marker<'_>,
    place: Place,
) -> Result<(Waiting, Identity, Option<Reaper>), Failure> {
    let no = |what: &str, error: io::Error| {
        Failure::new(Reason::ExecFailed, format!("cannot {what}: {error}"))
    };
    let kill = order.spec.get_leftovers() == Leftovers::Kill;
    // Before there is one: whatever becomes of this, another atom does not get the file.
    let somebody = Identity { pid: u32::MAX, start_time: 0, inode: 0, place };
    marker.record_reaper(somebody).map_err(|error| no("write down that it is reaped", error))?;
    let (waiting, reaping, pidfd) =
        fork_under_reaper(plan, streams, file.as_fd(), EXECUTING, RECORD, kill)?;
    let identity = identify(waiting.pid, &waiting.pidfd, place)?;
    let reaper = identify(reaping.pid, &pidfd, place)?;
    marker.record_reaper(reaper).map_err(|error| no("write down who reaps it", error))?;
    reaping.go_on();
    Ok((waiting, identity, Some(Reaper::forked(reaping))))
}

/// The identity of a child that was not reaped.
fn identify(pid: u32, pidfd: &OwnedFd, place: Place) -> Result<Identity, Failure> {
    let stat = ProcStat::read(pid).map_err(|error| {
        Failure::new(Reason::ExecFailed, format!("its /proc entry cannot be read: {error}"))
    })?;
    Ok(Identity::of(pid, &stat, pidfd.as_fd(), place))
}

/// Waits until nothing that was killed lives in a cgroup, and removes it. It stays when something does.
pub(in crate::driver::process) fn dissolve(group: Group, dir: &AtomDir) {
    if group.wait_empty(Instant::now() + END_PATIENCE) {
        discard(group, dir.marker());
    } else {
        let atom: AtomId = group.atom();
        tracing::error!(%atom, "what was killed does not end");
    }
}

/// Writes down which process it is, and lets it go on.
fn release(starting: &mut Starting, marker: Marker<'_>) -> Result<(), Failure> {
    let Starting { waiting, identity } = starting;
    marker.record(*identity, time::now()).map_err(|error| {
        Failure::new(Reason::ExecFailed, format!("cannot write down its pid: {error}"))
    })?;
    crash::point("keeper/has-written-the-pid");
    if waiting.go().is_err() {
        // It has ended before; its report says why.
        tracing::debug!(pid = waiting.pid, "a child ended while it was set up");
    }
    crash::point("keeper/has-given-the-go");
    Ok(())
}
