//! An atom that the monitor watches.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dir::AtomDir;
use super::exit::Ended;
use super::fork::Waiting;
use super::identity::Identity;
use super::log::Pump;
use super::marker::Marker;
use super::reaper::Reaper;
use super::signal::Leader;
use super::stop::Ladder;
use super::tree::{Group, GroupUsage, leader_oom_killed};
use crate::atom::{AtomId, AtomSpec, LeftBehind, Leftovers, Usage};
use crate::lifecycle::{Evidence, WaitStatus};
use crate::time::Timestamp;

/// An atom from its start, or its adoption, until its log is complete.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) atom: AtomId,
    pub(super) spec: Arc<AtomSpec>,
    pub(super) dir: AtomDir,
    /// Its marker file, from its end until all of that was written down.
    pub(super) marker_file: Option<File>,
    /// The cgroup that it is in, where there is one.
    pub(super) group: Option<Group>,
    /// Where there is none: whom it descends from.
    pub(super) reaper: Option<Reaper>,
    pub(super) phase: Phase,
    /// When its program was executed.
    pub(super) began: Instant,
    /// `None` where its log cannot be had.
    pub(super) pump: Option<Pump>,
    /// Where its standard input is a pipe, and nobody has ended that: what keeps it from ending.
    pub(super) stdin: Option<OwnedFd>,
    /// While its program is still being executed, nothing of it was carried out.
    pub(super) ladder: Option<Ladder>,
    /// Nothing was in its cgroup when its leader had ended, so that nothing will be.
    pub(super) emptied: bool,
    /// What its leader has left behind.
    pub(super) left: Option<LeftBehind>,
    /// It is being removed: its ending is no news.
    pub(super) removing: bool,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its leader has its go, and is about to execute its program.
    Starting(Box<Starting>),
    /// Its leader lives.
    Running(Leader),
    /// Its leader has ended and its group was killed; how it ended is still to be learnt.
    Ended(Leader, Past),
    /// How it ended is known; what its leader left behind is being ended.
    Clearing(Ended, Past),
    /// Everything was told; somebody still holds its output open.
    Lingering {
        /// Until when that is read.
        until: Instant,
    },
}

/// A leader on its way to its program.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) waiting: Waiting,
    pub(super) identity: Identity,
}

/// When it ended, and how long it had run by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) at: Timestamp,
    pub(super) wall: Duration,
    /// When it was seen to have ended, for what is waited for from then on.
    pub(super) seen: Instant,
}

impl Past {
    /// It has just been seen to have ended.
    pub(super) fn now(at: Timestamp, began: Instant) -> Self {
        Self { at, wall: began.elapsed(), seen: Instant::now() }
    }
}

impl Watched {
    /// One that begins in this phase, with nothing that happened to it yet.
    pub(super) fn new(
        atom: AtomId,
        spec: Arc<AtomSpec>,
        dir: AtomDir,
        group: Option<Group>,
        phase: Phase,
        pump: Option<Pump>,
    ) -> Self {
        Self {
            atom,
            spec,
            dir,
            marker_file: None,
            group,
            reaper: None,
            phase,
            began: Instant::now(),
            pump,
            stdin: None,
            ladder: None,
            emptied: false,
            left: None,
            removing: false,
        }
    }

    /// Its marker.
    pub(super) fn marker(&self) -> Marker<'_> {
        self.dir.marker().by(self.marker_file.as_ref())
    }

    /// The leader, as long as its ending is not known.
    pub(super) fn leader(&self) -> Option<&Leader> {
        match &self.phase {
            Phase::Running(leader) | Phase::Ended(leader, _) => Some(leader),
            Phase::Starting(_) | Phase::Clearing(..) | Phase::Lingering { .. } => None,
        }
    }

    /// What says that its leader has ended.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Starting(starting) => Some(starting.waiting.pidfd.as_fd()),
            Phase::Running(_)
            | Phase::Ended(..)
            | Phase::Clearing(..)
            | Phase::Lingering { .. } => self.leader().map(Leader::pidfd),
        }
    }

    /// The pid of its leader, as long as that was not reaped.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.phase {
            Phase::Starting(starting) => Some(starting.waiting.pid),
            Phase::Running(_)
            | Phase::Ended(..)
            | Phase::Clearing(..)
            | Phase::Lingering { .. } => self.leader().map(|leader| leader.identity().pid),
        }
    }

    /// What says that its program was executed, or not.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Starting(starting) => Some(starting.waiting.channel()),
            Phase::Running(_)
            | Phase::Ended(..)
            | Phase::Clearing(..)
            | Phase::Lingering { .. } => None,
        }
    }

    /// Whether what is left of it is to be ended with its leader.
    pub(super) fn kills_leftovers(&self) -> bool {
        let stopped = self.ladder.is_some() || self.removing;
        self.spec.get_leftovers() == Leftovers::Kill || stopped
    }

    /// Its leader has ended: what is left of its process group is killed, unless it is to be kept, before
    /// the leader is reaped and the number of the group is anybody's. What is left in its cgroup is noted.
    pub(super) fn end(&mut self, at: Timestamp) {
        if !matches!(self.phase, Phase::Running(_)) {
            return;
        }
        let kill = self.kills_leftovers();
        // A placeholder for two lines; nothing is told in between.
        let phase = std::mem::replace(&mut self.phase, Phase::Lingering { until: Instant::now() });
        let Phase::Running(leader) = phase else { return };
        self.emptied = self.group.as_ref().is_some_and(|group| group.is_empty().unwrap_or(false));
        if !self.emptied
            && let Some(left) = self.group.as_ref().map(Group::named_members)
            && !left.is_empty()
        {
            self.left = Some(LeftBehind::new(kill, left));
        }
        if kill {
            leader.kill_rest();
        }
        self.stdin = None;
        // Without it each thing that is written opens it.
        self.marker_file = self.dir.marker().open().ok();
        self.phase = Phase::Ended(leader, Past::now(at, self.began));
    }

    /// Takes its cgroup out, if something may be in it that is to be ended.
    pub(super) fn take_occupied_group(&mut self) -> Option<Group> {
        if self.emptied || !self.kills_leftovers() {
            return None;
        }
        self.group.take_if(|group| !group.is_empty().unwrap_or(false))
    }

    /// Takes its cgroup out if nobody is in it; whoever was left there in keeping with its policy keeps it.
    pub(super) fn take_empty_group(&mut self) -> Option<Group> {
        let emptied = self.emptied;
        self.group.take().filter(|group| emptied || group.is_empty().unwrap_or(false))
    }

    /// What its cgroup tells of its end, beside what the kernel reported.
    pub(super) fn account(
        &self,
        status: WaitStatus,
        usage: Option<Usage>,
        past: Past,
    ) -> (Evidence, Usage) {
        let mut evidence = Ladder::evidence(self.ladder);
        let mut usage = usage.unwrap_or_default();
        usage.wall = past.wall;
        let Some(group) = &self.group else { return (evidence, usage) };
        let oom = group.oom();
        evidence.oom_kills = oom.kills.unwrap_or(0);
        evidence.oom_killed = leader_oom_killed(status, evidence.kill_sent, oom);
        let GroupUsage { user, system, peak_memory, read_bytes, written_bytes } = group.usage();
        // The group counts all; the kernel's report only those that were waited for.
        usage.user = user.unwrap_or_default().max(usage.user);
        usage.system = system.unwrap_or_default().max(usage.system);
        usage.peak_memory = peak_memory;
        usage.read_bytes = read_bytes;
        usage.written_bytes = written_bytes;
        (evidence, usage)
    }
}
