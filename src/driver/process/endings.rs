//! Endings: from the kernel's word that a leader has ended to the last byte of its output.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::clearing::{Remains, Then, discard};
use super::dir::AtomDir;
use super::exit::Ended;
use super::leftovers::leave_nothing_marked;
use super::monitor::Monitor;
use super::signal::Leader;
use super::timers::TimerKind;
use super::tree::Group;
use super::watched::{Phase, Watched};
use crate::atom::AtomId;
use crate::crash;
use crate::driver::Observation;
use crate::lifecycle::{Reason, StopCause};
use crate::time;

/// How long output is read after an atom's end when somebody whom we could not kill still holds it open.
const LINGER: Duration = Duration::from_millis(500);

/// After what time to look for what a reaper writes just before it reaps.
const RECORDED: Duration = Duration::from_millis(1);

/// How long a status is waited for that the kernel gives once the process was reaped by another parent.
const PATIENCE: Duration = Duration::from_secs(10);

impl Monitor {
    /// Something happened to a leader.
    pub(super) fn leader_event(&mut self, serial: u64) {
        // Whether its program was executed comes first.
        self.execution(serial);
        let Some(watched) = self.watched_mut(serial) else { return };
        if watched.leader().is_none_or(|leader| !leader.has_ended()) {
            return;
        }
        crash::point("keeper/has-seen-an-end");
        watched.end(time::now());
        self.told(serial);
    }

    /// A reaper has told something, or has ended.
    pub(super) fn reaper_event(&mut self, serial: u64) {
        let Some(watched) = self.watched_mut(serial) else { return };
        let Some(reaper) = &mut watched.reaper else { return };
        reaper.hear();
        let gone = reaper.gone;
        let clearing = matches!(watched.phase, Phase::Clearing(..));
        if gone {
            self.deafen_reaper(serial);
        }
        if clearing && gone {
            self.tell_ending(serial);
        } else {
            self.told(serial);
        }
    }

    /// Goes on with an ending, if it is known now how it was.
    pub(super) fn told(&mut self, serial: u64) {
        let Some(watched) = self.watched(serial) else { return };
        let Phase::Ended(leader, past) = &watched.phase else { return };
        let past = *past;
        let (ended, pause) = how_it_ended(watched, leader);
        let waited = past.seen.elapsed();
        if ended == Ended::Pending && waited < PATIENCE {
            let pause = pause.map_or(PATIENCE - waited, |pause| pause.max(waited));
            return self.arm(Instant::now().checked_add(pause), serial, TimerKind::Patience);
        }
        let _ = epoll::delete(&self.epoll, leader.pidfd());
        crash::point("keeper/has-reaped");
        let Some(watched) = self.watched_mut(serial) else { return };
        watched.phase = Phase::Clearing(ended, past);
        // It is told when nothing of it runs any more.
        if let Some(group) = watched.take_occupied_group() {
            let dir = watched.dir.clone();
            return self.clear(Remains::Group(group), dir, Then::Ending(serial));
        }
        let kills = watched.kills_leftovers();
        match &watched.reaper {
            // It ends when it has ended all others.
            Some(reaper) if kills && !reaper.gone => reaper.kill(),
            Some(_) | None => self.tell_ending(serial),
        }
    }

    /// Tells how an atom ended.
    pub(super) fn tell_ending(&mut self, serial: u64) {
        // Before it is told, so that who waits for the end sees everything that the leader wrote.
        self.drain(serial);
        let until = Instant::now() + LINGER;
        let Some(watched) = self.watched_mut(serial) else { return };
        let Phase::Clearing(ended, past) = watched.phase else { return };
        watched.phase = Phase::Lingering { until };
        let kills = watched.kills_leftovers();
        if let Some(reaper) = &watched.reaper {
            watched.left = reaper.left(kills);
            if kills && reaper.was_killed(&watched.dir) {
                leave_nothing_marked(watched.atom);
            }
        }
        let (atom, at) = (watched.atom, past.at);
        let observation = match ended {
            Ended::Known(status, usage) => {
                let (evidence, usage) = watched.account(status, usage, past);
                tracing::debug!(%atom, ?status, "an atom ended");
                let (usage, left_behind) = (Some(usage), watched.left.take().map(Arc::new));
                Observation::Exited { atom, at, status, evidence, usage, left_behind }
            }
            Ended::Pending | Ended::Unknowable => {
                tracing::warn!(%atom, "an atom ended, and nobody tells how");
                let detail =
                    "its parent reaped it, and this kernel does not tell others".to_owned();
                Observation::LostSight { atom, at, reason: Reason::ExitUnobserved, detail }
            }
        };
        crash::point("keeper/has-cleared");
        let (dir, removing) = (watched.dir.clone(), watched.removing);
        let (group, file) = (watched.take_empty_group(), watched.marker_file.take());
        if !removing {
            self.emit_ending(dir.marker().by(file.as_ref()), observation);
        }
        match group {
            Some(group) => self.untidy.push(Untidy::Group(group, dir, file)),
            // Before it is told that nothing is left.
            None => drop(file),
        }
        self.arm(Some(until), serial, TimerKind::Linger);
        self.complete_if_dry(serial);
    }

    /// Its output may have been held open long enough.
    pub(super) fn end_lingering(&mut self, serial: u64, now: Instant) {
        if let Some(Watched { phase: Phase::Lingering { until }, .. }) = self.watched(serial)
            && *until <= now
        {
            self.drain(serial);
            self.complete(serial);
        }
    }

    pub(super) fn complete_if_dry(&mut self, serial: u64) {
        let Some(watched) = self.watched(serial) else { return };
        let told = matches!(watched.phase, Phase::Lingering { .. });
        let dry = watched.pump.as_ref().is_none_or(super::log::Pump::is_dry);
        if told && (dry || watched.removing) {
            self.complete(serial);
        }
    }

    /// Lets go of an atom whose ending was told.
    fn complete(&mut self, serial: u64) {
        let Some(mut watched) = self.unwatch(serial) else { return };
        let drained = watched.pump.as_ref().is_some_and(super::log::Pump::has_seen_both_ends);
        if let Some(pump) = watched.pump.take() {
            pump.finish();
        }
        self.context.forget_log(watched.atom);
        if watched.removing {
            self.removed(watched.atom);
        } else {
            let piped = watched.spec.get_stdin_pipe();
            self.untidy.push(Untidy::Fifos { dir: watched.dir, drained, piped });
        }
    }

    /// Puts away what could wait until the endings of this turn were told.
    pub(super) fn tidy_up(&mut self) {
        if self.untidy.is_empty() {
            return;
        }
        // Whoever was told may have its place behind this thread, on the same processor.
        std::thread::yield_now();
        self.tidy_up_now();
    }

    /// The same, at once.
    pub(super) fn tidy_up_now(&mut self) {
        for what in self.untidy.drain(..) {
            match what {
                Untidy::Group(group, dir, file) => discard(group, dir.marker().by(file.as_ref())),
                Untidy::Fifos { dir, drained, piped } => dir.put_fifos_away(drained, piped),
            }
        }
    }

    // ---- removal

    /// Ends what still runs under an atom, and removes what belongs to it.
    pub(super) fn remove(&mut self, atom: AtomId, handle: Option<&[u8]>) {
        self.withdrawn.remove(&atom);
        if let Some(prepared) = self.context.take_prepared(atom) {
            self.abandon(prepared);
        }
        let serial = match self.serial_of(atom) {
            Some(serial) => Some(serial),
            None => self.hold_for_removal(atom, handle),
        };
        let Some(serial) = serial else {
            self.context.forget_log(atom);
            return self.removed(atom);
        };
        let Some(watched) = self.watched_mut(serial) else { return };
        watched.removing = true;
        self.stop_watched(serial, StopCause::Requested, Duration::ZERO, true);
        // Answered when it has ended; at once when it had.
        self.complete_if_dry(serial);
    }

    /// Nothing of it is watched: what was left in its cgroup is ended, and then all is gone.
    fn removed(&mut self, atom: AtomId) {
        // What is to be put away need not be looked for.
        self.tidy_up_now();
        let dir = self.context.dir(atom);
        let marker = dir.marker().read();
        match self.group_of(atom, &marker) {
            Some(group) => self.clear(Remains::Group(group), dir, Then::Removed(atom)),
            None => match self.reaper_of(atom, &marker) {
                Some(reaper) => {
                    self.clear(Remains::Reaper(atom, reaper), dir, Then::Removed(atom));
                }
                None => self.gone(atom, &dir),
            },
        }
    }
}

/// What an atom that has ended does not need any more. Nobody waits for it to go.
#[derive(Debug)]
pub(super) enum Untidy {
    /// Its cgroup, in which nothing runs, and its marker file.
    Group(Group, AtomDir, Option<File>),
    /// Its FIFOs, whether both it prints to were read to their end, and whether it has one that it reads.
    Fifos { dir: AtomDir, drained: bool, piped: bool },
}

/// How an atom ended, as far as anybody tells; and after what time to ask again, where nobody will say that there is an answer.
pub(super) fn how_it_ended(watched: &Watched, leader: &Leader) -> (Ended, Option<Duration>) {
    let marker = watched.marker();
    let Some(reaper) = &watched.reaper else { return (leader.ended(marker), None) };
    let recorded = || marker.read().reaped();
    if let Some((_, status, usage)) = reaper.ended.or_else(recorded) {
        // Whom it leaves alone is counted just after.
        let counted = reaper.gone || reaper.is_adopted() || reaper.has_counted();
        let known = counted || watched.kills_leftovers();
        let ended = if known { Ended::Known(status, Some(usage)) } else { Ended::Pending };
        return (ended, None);
    }
    if reaper.gone {
        // Somebody has killed it: its children are ours now, or are reaped by others.
        return (leader.ended(marker), None);
    }
    (Ended::Pending, reaper.is_adopted().then_some(RECORDED))
}
