//! Stopping: what a host asks for, and what an atom's own deadline does.

use std::time::{Duration, Instant};

use super::marker::{Mark, Marker};
use super::monitor::Monitor;
use super::signal::Leader;
use super::stop::{Ladder, Step};
use super::timers::TimerKind;
use super::watched::Phase;
use crate::atom::AtomId;
use crate::crash;
use crate::driver::Observation;
use crate::lifecycle::StopCause;
use crate::time;

impl Monitor {
    pub(super) fn stop(&mut self, atom: AtomId, grace: Duration, force: bool) {
        match self.serial_of(atom) {
            Some(serial) => self.stop_watched(serial, StopCause::Requested, grace, force),
            None => self.withdraw(atom),
        }
    }

    /// Gives up an atom that was prepared and not started.
    pub(super) fn withdraw(&mut self, atom: AtomId) {
        if let Some(prepared) = self.context.take_prepared(atom) {
            self.abandon(prepared).remove_fifos();
            self.context.forget_log(atom);
            self.withdrawn.insert(atom);
            let detail = "it was stopped before it was started".to_owned();
            self.emit(Observation::NeverStarted { atom, at: time::now(), detail });
        }
    }

    pub(super) fn stop_watched(
        &mut self,
        serial: u64,
        cause: StopCause,
        grace: Duration,
        force: bool,
    ) {
        let Some(watched) = self.watched_mut(serial) else { return };
        let leader = match &watched.phase {
            Phase::Running(leader) => Some(leader),
            // Asked for, and carried out when its program was executed.
            Phase::Starting(_) => None,
            Phase::Ended(..) | Phase::Clearing(..) | Phase::Lingering { .. } => return,
        };
        let step = Ladder::ask(&mut watched.ladder, cause, grace, force, Instant::now());
        let Some(leader) = leader else { return };
        match step {
            Step::Terminate => {
                let reached = terminate(leader, watched.dir.marker());
                tracing::debug!(atom = %watched.atom, reached, ?grace, "asked an atom to end");
                if let Some(ladder) = &mut watched.ladder {
                    ladder.term_reached = reached;
                }
            }
            Step::Wait => {}
            Step::Kill => {
                tracing::debug!(atom = %watched.atom, "killing an atom");
                kill(leader, watched.dir.marker());
            }
        }
        let kill_at = watched.ladder.filter(|ladder| !ladder.kill_sent).and_then(|l| l.kill_at);
        self.arm(kill_at, serial, TimerKind::Kill);
    }

    /// Sets the timer of an atom's deadline.
    pub(super) fn arm_deadline(&mut self, serial: u64, at: Option<Instant>) {
        self.arm(at, serial, TimerKind::Deadline);
    }

    /// The grace of a stop may be over.
    pub(super) fn grace_over(&mut self, serial: u64, now: Instant) {
        let Some(watched) = self.watched_mut(serial) else { return };
        if let Phase::Running(leader) = &watched.phase
            && watched.ladder.as_mut().is_some_and(|ladder| ladder.is_due(now))
        {
            tracing::debug!(atom = %watched.atom, "the grace is over, killing an atom");
            kill(leader, watched.dir.marker());
        }
    }

    /// It has run as long as it may.
    pub(super) fn deadline(&mut self, serial: u64, now: Instant) {
        let Some(watched) = self.watched(serial) else { return };
        let grace = watched.spec.get_grace();
        // A stop that is already stricter goes on as it is.
        if watched.ladder.is_some_and(|ladder| !ladder.is_tightened_by(grace, now)) {
            return;
        }
        // It may have ended by itself just before.
        if watched.leader().is_none_or(Leader::has_ended) {
            return;
        }
        let (atom, cause) = (watched.atom, StopCause::Deadline);
        if !watched.removing {
            self.emit(Observation::StopBegan { atom, at: time::now(), cause, grace });
        }
        self.stop_watched(serial, cause, grace, false);
    }
}

/// Asks a leader to end, unless that was done before; whether that has reached it alive.
///
/// What is about to be done is written down first: if we are killed in between, whoever comes next takes an
/// ending that follows for one that was asked for, and asks what lives once more.
fn terminate(leader: &Leader, marker: Marker<'_>) -> bool {
    if marker.read().has(Mark::Term) {
        return true;
    }
    if leader.has_ended() {
        return false;
    }
    marker.mark(Mark::AboutToTerm);
    let reached = leader.terminate();
    crash::point("keeper/has-sent-term");
    if reached {
        marker.mark(Mark::Term);
    } else {
        marker.unmark(Mark::AboutToTerm);
    }
    reached
}

/// Kills a leader, which is written down first as well.
fn kill(leader: &Leader, marker: Marker<'_>) {
    marker.mark(Mark::Kill);
    leader.kill();
    crash::point("keeper/has-sent-kill");
}
