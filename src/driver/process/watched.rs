//! An atom that the monitor watches.

use std::sync::Arc;
use std::time::Instant;

use super::dir::AtomDir;
use super::keeper::dissolve;
use super::log::Pump;
use super::signal::Leader;
use super::stop::Ladder;
use super::tree::{Group, GroupUsage, leader_oom_killed};
use crate::atom::{AtomId, AtomSpec, Leftovers, Usage};
use crate::lifecycle::{Evidence, WaitStatus};

/// An atom from its start, or its adoption, until its log is complete.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) atom: AtomId,
    pub(super) spec: Arc<AtomSpec>,
    pub(super) dir: AtomDir,
    /// The cgroup that it is in, where there is one.
    pub(super) group: Option<Group>,
    /// How many processes were killed after its leader had ended.
    pub(super) killed_leftovers: u32,
    pub(super) phase: Phase,
    /// `None` where its log cannot be had.
    pub(super) pump: Option<Pump>,
    pub(super) ladder: Option<Ladder>,
    /// It is being removed: its ending is no news.
    pub(super) removing: bool,
}

/// Where it is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its leader lives.
    Running(Leader),
    /// Its leader has ended and its group was killed; how it ended is still to be learnt.
    Ended(Leader),
    /// Everything was told; somebody still holds its output open.
    Lingering {
        /// Until when that is read.
        until: Instant,
    },
}

impl Watched {
    /// The leader, as long as its ending was not told.
    pub(super) fn leader(&self) -> Option<&Leader> {
        match &self.phase {
            Phase::Running(leader) | Phase::Ended(leader) => Some(leader),
            Phase::Lingering { .. } => None,
        }
    }

    /// Its leader has ended: what is left of its tree is killed, unless it is to be kept, before the
    /// leader is reaped and the number of the group is anybody's.
    pub(super) fn end(&mut self) {
        // A placeholder that lives for two lines; nothing is told in between.
        let stopped = self.ladder.is_some() || self.removing;
        let phase = std::mem::replace(&mut self.phase, Phase::Lingering { until: Instant::now() });
        self.phase = match phase {
            Phase::Running(leader) => {
                if self.spec.get_leftovers() == Leftovers::Kill || stopped {
                    let left = self.group.as_ref().and_then(|group| group.members().ok());
                    self.killed_leftovers = left.map_or(0, |left| left.len() as u32);
                    leader.kill();
                    if self.killed_leftovers > 0
                        && let Some(group) = &self.group
                        && let Err(error) = group.kill()
                    {
                        tracing::error!(atom = %self.atom, %error, "something that an atom left behind may still run");
                    }
                }
                Phase::Ended(leader)
            }
            other @ (Phase::Ended(_) | Phase::Lingering { .. }) => other,
        };
    }

    /// What its cgroup tells of its end, beside what the kernel reported; then the cgroup goes, if nothing is kept in it.
    pub(super) fn account(
        &mut self,
        status: WaitStatus,
        usage: Option<Usage>,
    ) -> (Evidence, Option<Usage>) {
        let mut evidence = Ladder::evidence(self.ladder);
        let Some(group) = self.group.take() else { return (evidence, usage) };
        let oom = group.oom();
        evidence.oom_kills = oom.kills.unwrap_or(0);
        evidence.oom_killed = leader_oom_killed(status, evidence.kill_sent, oom);
        let mut usage = usage.unwrap_or_default();
        let GroupUsage { user, system, peak_memory, read_bytes, written_bytes } = group.usage();
        // The group counts all; the kernel's report only those that were waited for.
        usage.user = user.unwrap_or_default().max(usage.user);
        usage.system = system.unwrap_or_default().max(usage.system);
        usage.peak_memory = peak_memory;
        usage.read_bytes = read_bytes;
        usage.written_bytes = written_bytes;
        usage.killed_leftovers = self.killed_leftovers;
        let kept = self.spec.get_leftovers() == Leftovers::Keep
            && self.ladder.is_none()
            && !self.removing
            && !group.is_empty().unwrap_or(false);
        if !kept {
            dissolve(group, &self.dir);
        }
        (evidence, Some(usage))
    }
}
