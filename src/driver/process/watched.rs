//! An atom that the monitor watches.

use std::sync::Arc;
use std::time::Instant;

use super::dir::AtomDir;
use super::log::Pump;
use super::signal::Leader;
use super::stop::Ladder;
use crate::atom::{AtomId, AtomSpec};

/// An atom from its start, or its adoption, until its log is complete.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) atom: AtomId,
    pub(super) spec: Arc<AtomSpec>,
    pub(super) dir: AtomDir,
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

    /// Its leader has ended: what is left of its group is killed, before the
    /// leader is reaped and the number of the group is anybody's.
    pub(super) fn end(&mut self) {
        // A placeholder that lives for two lines; nothing is told in between.
        let phase = std::mem::replace(&mut self.phase, Phase::Lingering { until: Instant::now() });
        self.phase = match phase {
            Phase::Running(leader) => {
                leader.kill();
                Phase::Ended(leader)
            }
            other @ (Phase::Ended(_) | Phase::Lingering { .. }) => other,
        };
    }
}
