//! Finding out what became of atoms that an earlier life of the host started.

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::clearing::discard;
use super::dir::AtomDir;
use super::endings::how_it_ended;
use super::exit::Ended;
use super::identity::{Identity, Place, ProcStat, all_pids, has_environment};
use super::keeper::dissolve;
use super::leftovers::end_leftovers;
use super::log::Pump;
use super::marker::{Facts, Mark, Trace};
use super::monitor::Monitor;
use super::signal::Leader;
use super::spawn::marker_entry;
use super::stop::Ladder;
use super::sys;
use super::watched::{Past, Phase, Watched};
use crate::atom::{AtomId, AtomSpec};
use crate::driver::{Observation, Order, Remembered, Sighting};
use crate::lifecycle::{Reason, State, StopCause};
use crate::log::Stream;
use crate::time::{self, Timestamp};
use std::sync::Arc;

/// How long a child may take that has got its go, or sees that it never comes.
const RELEASED: Duration = Duration::from_secs(1);

/// Where the process of an atom is.
#[derive(Debug)]
enum Whereabouts {
    /// Held: alive, or ended and not reaped yet.
    There(Leader),
    /// Certain never to have been.
    Never,
    /// It was here and is not any more; what it left behind in its group may be.
    Left(Identity),
    /// Not to be found, or not to be looked for.
    Gone(Reason, String),
    /// It could not be found out.
    Unclear(io::Error),
}

impl Monitor {
    /// Answers [`Command::Look`](crate::driver::Command::Look).
    pub(super) fn look(&mut self, remembered: &Remembered) {
        let atom = remembered.order.atom;
        let sighting = match remembered.state {
            State::Created | State::Running | State::Stopping => {
                let ending = self.context.dir(atom).marker().read().ending();
                // After a power cut a file that was used again may be as it was for the atom before.
                let own = ending.filter(|ending| ending.atom() == Some(atom));
                match (own, self.serial_of(atom)) {
                    (Some(ending), _) => self.tell_again(remembered, ending),
                    (None, Some(serial)) => self.look_at(serial, remembered),
                    (None, None) => self.look_for(remembered),
                }
            }
            State::Stopped | State::Invalid => self.look_again(remembered),
            State::Deleting | State::Deleted => Sighting::AsRemembered,
        };
        self.emit(Observation::Seen { atom, sighting });
    }

    /// Tells an ending that was witnessed, and that the journal does not have.
    fn tell_again(&mut self, remembered: &Remembered, ending: Observation) -> Sighting {
        let atom = remembered.order.atom;
        let dir = self.context.dir(atom);
        if remembered.handle.is_none() {
            self.tell_start(atom, &dir);
        }
        self.emit(ending);
        if !self.is_watched(atom) {
            dir.remove_fifos();
        }
        Sighting::Changed
    }

    /// Tells a start that the journal does not have; false when none was written down.
    fn tell_start(&self, atom: AtomId, dir: &AtomDir) -> bool {
        let marker = dir.marker().read();
        let (Trace::Spawned(_, Some(identity)), Some(at)) = (marker.trace(), marker.started_at())
        else {
            return false;
        };
        let (pid, handle) = (Some(identity.pid), identity.to_handle());
        self.emit(Observation::Started { atom, at, pid, handle });
        true
    }

    /// Looks at what is watched already: the host that ordered it is not the one that asks.
    fn look_at(&mut self, serial: u64, remembered: &Remembered) -> Sighting {
        let atom = remembered.order.atom;
        let mut sighting = Sighting::Adopted;
        let dir = self.context.dir(atom);
        let starting =
            self.watched(serial).is_some_and(|watched| matches!(watched.phase, Phase::Starting(_)));
        // Of one that is just being executed that is told in a moment.
        if !starting && remembered.handle.is_none() && self.tell_start(atom, &dir) {
            sighting = Sighting::Changed;
        }
        if !dir.stdin().exists()
            && let Some(watched) = self.watched_mut(serial)
        {
            // The host before had begun to end it.
            watched.stdin = None;
        }
        let now = time::now();
        match remembered.stop {
            Some(stop) => {
                let grace = stop.kill_at.saturating_since(now);
                self.stop_watched(serial, stop.cause, grace, stop.force);
            }
            None => {
                let ladder = self.watched_mut(serial).and_then(|watched| watched.ladder);
                if let Some(ladder) = ladder {
                    let (cause, grace) = (ladder.cause, ladder.grace_left());
                    self.emit(Observation::StopBegan { atom, at: now, cause, grace });
                    sighting = Sighting::Changed;
                }
            }
        }
        sighting
    }

    /// Looks for what, by the journal, may still live.
    fn look_for(&mut self, remembered: &Remembered) -> Sighting {
        let atom = remembered.order.atom;
        let at = time::now();
        match self.whereabouts(atom, remembered.handle.as_deref()) {
            Whereabouts::There(leader) => self.take_over(remembered, leader),
            Whereabouts::Never => {
                let detail = "its host died before it was started".to_owned();
                self.emit(Observation::NeverStarted { atom, at, detail });
                Sighting::Changed
            }
            Whereabouts::Left(identity) => match end_leftovers(atom, identity) {
                Ok(()) if self.was_reaped(remembered) => Sighting::Changed,
                Ok(()) => {
                    self.read_on(&remembered.order);
                    self.lost(atom, Reason::ExitUnobserved, GONE_UNSEEN.to_owned())
                }
                Err(error) => self.unclear(atom, &error),
            },
            Whereabouts::Gone(reason, detail) => self.lost(atom, reason, detail),
            Whereabouts::Unclear(error) => self.unclear(atom, &error),
        }
    }

    /// Tells how it ended while there was neither host nor keeper, if whoever reaped it has written that down.
    fn was_reaped(&mut self, remembered: &Remembered) -> bool {
        let order = &remembered.order;
        let dir = self.context.dir(order.atom);
        let marker = dir.marker().read();
        let Some((at, status, usage)) = marker.reaped() else { return false };
        if remembered.handle.is_none() {
            self.tell_start(order.atom, &dir);
        }
        let pump = self.reopen_log(order.atom, &dir, order.spec.get_log_max());
        let ladder = ladder(remembered, &marker, &order.spec);
        let began = remembered.started_at.or_else(|| marker.started_at());
        let wall = began.map(|began| at.saturating_since(began)).unwrap_or_default();
        let ended = Ended::Known(status, Some(usage));
        let phase = Phase::Clearing(ended, Past { at, wall, seen: Instant::now() });
        let group = self.group_of(order.atom, &marker);
        let mut watched =
            Watched::new(order.atom, Arc::clone(&order.spec), dir, group, phase, pump);
        watched.ladder = ladder;
        self.ended_meanwhile(watched, ended);
        true
    }

    /// Reads what it has printed last, if somebody has kept its pipes.
    fn read_on(&mut self, order: &Order) {
        let dir = self.context.dir(order.atom);
        if let Some(mut pump) = self.reopen_log(order.atom, &dir, order.spec.get_log_max()) {
            self.drain_pump(&mut pump);
            pump.finish();
        }
        self.context.forget_log(order.atom);
        dir.remove_fifos();
    }

    fn lost(&mut self, atom: AtomId, reason: Reason, detail: String) -> Sighting {
        self.end_group(atom);
        tracing::debug!(%atom, %reason, %detail, "an atom was lost sight of");
        self.emit(Observation::LostSight { atom, at: time::now(), reason, detail });
        Sighting::Changed
    }

    /// Checks that nothing lives of what, by the journal, does not.
    fn look_again(&mut self, remembered: &Remembered) -> Sighting {
        let atom = remembered.order.atom;
        if let Some(serial) = self.serial_of(atom)
            && self.watched_mut(serial).is_some_and(|w| matches!(w.phase, Phase::Lingering { .. }))
        {
            return Sighting::AsRemembered;
        }
        match self.whereabouts(atom, remembered.handle.as_deref()) {
            Whereabouts::There(leader) if !leader.has_ended() => {
                let pid = leader.identity().pid;
                let detail = format!("its process {pid} lives");
                let reason = Reason::UnexpectedProcess;
                self.emit(Observation::Contradiction { atom, at: time::now(), reason, detail });
                Sighting::Changed
            }
            Whereabouts::There(_)
            | Whereabouts::Never
            | Whereabouts::Left(_)
            | Whereabouts::Gone(..) => Sighting::AsRemembered,
            Whereabouts::Unclear(error) => self.unclear(atom, &error),
        }
    }

    /// What cannot be looked at is neither taken for dead nor forgotten.
    fn unclear(&self, atom: AtomId, error: &io::Error) -> Sighting {
        tracing::error!(%atom, %error, "it cannot be found out whether an atom lives");
        let detail = format!(
            "it cannot be found out whether its process lives: {error} (is RLIMIT_NOFILE large enough?)"
        );
        let reason = Reason::UndefinedState;
        self.emit(Observation::Contradiction { atom, at: time::now(), reason, detail });
        Sighting::Changed
    }

    fn whereabouts(&self, atom: AtomId, handle: Option<&[u8]>) -> Whereabouts {
        if self.context.copied {
            return Whereabouts::Gone(
                Reason::StoreCopied,
                "the store is a copy: what the original started is not ours".to_owned(),
            );
        }
        let identity = match handle {
            Some(handle) => match Identity::from_handle(handle) {
                Some(identity) => identity,
                None => {
                    return Whereabouts::Gone(
                        Reason::ExitUnobserved,
                        "its handle is damaged, or of a later version".to_owned(),
                    );
                }
            },
            None => match self.context.dir(atom).marker().read().trace() {
                Trace::Nothing => return self.untraced(atom),
                Trace::Prepared(place, released) => {
                    // In this boot the marker would be there; a power cut may have taken it.
                    return match self.elsewhere(place) {
                        Some(Whereabouts::Gone(Reason::HostRebooted, detail)) => {
                            Whereabouts::Gone(Reason::HostRebooted, detail)
                        }
                        Some(_) => Whereabouts::Never,
                        None => match released {
                            Some(identity) => self.released(atom, identity),
                            None => Whereabouts::Never,
                        },
                    };
                }
                Trace::Spawned(place, None) => {
                    return self.elsewhere(place).unwrap_or_else(|| self.search(atom));
                }
                Trace::Spawned(_, Some(identity)) => identity,
            },
        };
        if let Some(elsewhere) = self.elsewhere(identity.place) {
            return elsewhere;
        }
        match Leader::find(atom, identity) {
            Ok(leader) => Whereabouts::There(leader),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Whereabouts::Left(identity),
            Err(error) => Whereabouts::Unclear(error),
        }
    }

    /// Of a child that its keeper was about to let go when it died: whether it got its go shows in a moment, as it
    /// executes its program or ends.
    fn released(&self, atom: AtomId, identity: Identity) -> Whereabouts {
        let dir = self.context.dir(atom);
        let executes = || matches!(dir.marker().read().trace(), Trace::Spawned(..));
        let leader = match Leader::find(atom, identity) {
            Ok(leader) => leader,
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Whereabouts::Unclear(error);
            }
            // It has gone: by now it has said all that it had to say.
            Err(_) if executes() => return Whereabouts::Left(identity),
            Err(_) => return Whereabouts::Never,
        };
        let deadline = Instant::now() + RELEASED;
        while !executes() {
            if leader.has_ended() {
                // It may have said so last of all.
                return if executes() { Whereabouts::There(leader) } else { Whereabouts::Never };
            }
            if Instant::now() >= deadline {
                // Somebody holds it up: it will not get further.
                leader.kill();
                sys::wait_ended(leader.pidfd(), Instant::now() + RELEASED);
            }
            sys::pause();
        }
        Whereabouts::There(leader)
    }

    /// Why pids of `place` mean nothing here, if they do not.
    fn elsewhere(&self, place: Place) -> Option<Whereabouts> {
        let here = self.context.place;
        if place.boot != here.boot {
            let detail = "the machine was booted since".to_owned();
            return Some(Whereabouts::Gone(Reason::HostRebooted, detail));
        }
        if place.pid_ns != here.pid_ns {
            let detail = format!(
                "it was started in the pid namespace {}, this is {}: pids mean something else here",
                place.pid_ns, here.pid_ns
            );
            return Some(Whereabouts::Gone(Reason::NamespaceChanged, detail));
        }
        None
    }

    /// Without a directory, or a marker in it: after a power cut it may be gone although the atom was journaled.
    fn untraced(&self, atom: AtomId) -> Whereabouts {
        let found = self.search(atom);
        match (found, booted_at()) {
            (Whereabouts::Gone(..), Some(booted)) if created_at(atom) < booted => {
                Whereabouts::Gone(Reason::HostRebooted, "the machine was booted since".to_owned())
            }
            (found, _) => found,
        }
    }

    /// Looks through all processes for the one that was started as this atom.
    fn search(&self, atom: AtomId) -> Whereabouts {
        let entry = marker_entry(atom);
        let pids = match all_pids() {
            Ok(pids) => pids,
            Err(error) => return Whereabouts::Unclear(error),
        };
        // Its children have the marker too; they lead no group, or were started later.
        let first = pids
            .into_iter()
            .filter_map(|pid| Some((ProcStat::read(pid).ok()?, pid)))
            .filter(|(stat, pid)| stat.group == *pid && has_environment(*pid, &entry))
            .min_by_key(|(stat, _)| stat.start_time);
        let Some((stat, pid)) = first else { return gone_unseen() };
        let (start_time, place) = (stat.start_time, self.context.place);
        let identity = Identity { pid, start_time, inode: 0, place };
        match Leader::find(atom, identity) {
            Ok(leader) if has_environment(pid, &entry) || leader.has_ended() => {
                Whereabouts::There(leader)
            }
            Ok(_) => gone_unseen(),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Whereabouts::Left(identity),
            Err(error) => Whereabouts::Unclear(error),
        }
    }

    /// Watches again what was found.
    fn take_over(&mut self, remembered: &Remembered, leader: Leader) -> Sighting {
        let order = &remembered.order;
        let (atom, identity) = (order.atom, leader.identity());
        let dir = self.context.dir(atom);
        let marker = dir.marker().read();
        let began = remembered
            .started_at
            .or_else(|| marker.started_at())
            .unwrap_or_else(|| started_at(identity));
        let mut sighting = Sighting::Adopted;
        if remembered.handle.is_none() {
            let handle = identity.to_handle();
            self.emit(Observation::Started { atom, at: began, pid: Some(identity.pid), handle });
            sighting = Sighting::Changed;
        }
        let pump = self.reopen_log(atom, &dir, order.spec.get_log_max());
        let ladder = ladder(remembered, &marker, &order.spec);
        let (group, phase) = (self.group_of(atom, &marker), Phase::Running(leader));
        let mut watched = Watched::new(atom, Arc::clone(&order.spec), dir, group, phase, pump);
        watched.ladder = ladder;
        if order.spec.get_stdin_pipe() {
            // Not there when it was ended, and refused when nobody reads it any more.
            watched.stdin = watched.dir.open_stdin().ok();
        }
        watched.reaper = self.reaper_of(atom, &marker);
        watched.began = watched.began.checked_sub(age(identity)).unwrap_or(watched.began);
        if watched.leader().is_some_and(Leader::has_ended) {
            watched.end(time::now());
            let ended = watched.leader().map(|leader| how_it_ended(&watched, leader).0);
            if let Some(ended @ (Ended::Known(..) | Ended::Unknowable)) = ended {
                if let Err(error) = end_leftovers(atom, identity) {
                    self.context.forget_log(atom);
                    return self.unclear(atom, &error);
                }
                self.ended_meanwhile(watched, ended);
                return Sighting::Changed;
            }
        }
        tracing::debug!(%atom, pid = identity.pid, "adopted an atom");
        match self.watch(watched) {
            Ok(serial) => {
                self.go_on(serial, remembered, began);
                sighting
            }
            Err((watched, error)) => {
                self.context.forget_log(watched.atom);
                self.unclear(atom, &error)
            }
        }
    }

    fn ended_meanwhile(&mut self, mut watched: Watched, ended: Ended) {
        let (atom, at) = (watched.atom, time::now());
        let past = match watched.phase {
            Phase::Ended(_, past) | Phase::Clearing(_, past) => past,
            Phase::Starting(_) | Phase::Running(_) | Phase::Lingering { .. } => {
                Past::now(at, watched.began)
            }
        };
        if let Some(mut pump) = watched.pump.take() {
            self.drain_pump(&mut pump);
            pump.finish();
        }
        self.context.forget_log(atom);
        watched.dir.remove_fifos();
        let ending = match ended {
            Ended::Known(status, usage) => {
                let (evidence, usage) = watched.account(status, usage, past);
                let (at, usage) = (past.at, Some(usage));
                let left_behind = watched.left.take().map(Arc::new);
                Observation::Exited { atom, at, status, evidence, usage, left_behind }
            }
            Ended::Pending | Ended::Unknowable => Observation::LostSight {
                atom,
                at,
                reason: Reason::ExitUnobserved,
                detail: "it has ended, and nobody tells how".to_owned(),
            },
        };
        if let Some(group) = watched.take_occupied_group() {
            dissolve(group, &watched.dir);
        }
        if let Some(group) = watched.take_empty_group() {
            discard(group, watched.marker());
        }
        if watched.kills_leftovers() {
            self.end_group(atom);
        }
        self.emit_ending(watched.marker(), ending);
    }

    fn reopen_log(&self, atom: AtomId, dir: &AtomDir, log_max: u64) -> Option<Pump> {
        let log = self.context.write_log(dir, atom, log_max);
        let open = |stream| {
            dir.open_fifo(stream)
                .inspect_err(|error| {
                    tracing::error!(%atom, %error, "cannot read on what an atom prints to {stream}");
                })
                .ok()
        };
        let (out, err) = (open(Stream::Stdout), open(Stream::Stderr));
        if out.is_none() && err.is_none() {
            self.context.forget_log(atom);
            return None;
        }
        Some(Pump::new(out, err, log.reopened()))
    }

    /// Goes on with the stop that was under way, and with the deadline.
    fn go_on(&mut self, serial: u64, remembered: &Remembered, began: Timestamp) {
        let now = time::now();
        let from_now = |at: Timestamp| Instant::now().checked_add(at.saturating_since(now));
        if let Some(watched) = self.watched_mut(serial) {
            // What is left of the ladder is asked for anew, with its own time.
            let before = watched.ladder.take();
            if let (Some(stop), Some(before)) = (remembered.stop, before) {
                let grace = stop.kill_at.saturating_since(now);
                // What was about to be killed is killed once more.
                self.stop_watched(serial, stop.cause, grace, stop.force || before.kill_sent);
                if let Some(ladder) = self.watched_mut(serial).and_then(|w| w.ladder.as_mut()) {
                    ladder.term_reached |= before.term_reached;
                }
            }
        }
        let timeout = remembered.order.spec.get_timeout();
        let deadline = timeout.and_then(|timeout| from_now(began.saturating_add(timeout)));
        self.arm_deadline(serial, deadline);
    }

    /// Holds what still lives under an atom that is to be removed.
    pub(super) fn hold_for_removal(&mut self, atom: AtomId, handle: Option<&[u8]>) -> Option<u64> {
        if self.context.copied {
            return None;
        }
        let leader = match self.whereabouts(atom, handle) {
            Whereabouts::There(leader) if !leader.has_ended() => leader,
            Whereabouts::There(leader) => {
                leave_nothing(atom, leader.identity());
                return None;
            }
            Whereabouts::Left(identity) => {
                leave_nothing(atom, identity);
                return None;
            }
            Whereabouts::Never | Whereabouts::Gone(..) | Whereabouts::Unclear(_) => return None,
        };
        let (spec, dir) = (Arc::new(AtomSpec::command("")), self.context.dir(atom));
        let marker = dir.marker().read();
        let (group, phase) = (self.group_of(atom, &marker), Phase::Running(leader));
        let mut watched = Watched::new(atom, spec, dir, group, phase, None);
        watched.removing = true;
        watched.reaper = self.reaper_of(atom, &marker);
        match self.watch(watched) {
            Ok(serial) => Some(serial),
            Err((watched, error)) => {
                // It is killed all the same; only that it has ended is not waited for.
                tracing::error!(%atom, %error, "cannot watch what is being removed");
                if let Some(leader) = watched.leader() {
                    leader.kill();
                }
                None
            }
        }
    }
}

/// As [`end_leftovers`], where nobody can be told that it failed but whoever reads what is logged.
pub(super) fn leave_nothing(atom: AtomId, leader: Identity) {
    if let Err(error) = end_leftovers(atom, leader) {
        tracing::error!(%atom, %error, "something that an atom left behind may still run");
    }
}

/// What was done to it by the host before.
fn ladder(remembered: &Remembered, marker: &Facts, spec: &AtomSpec) -> Option<Ladder> {
    let (term_reached, kill_sent) = (marker.has(Mark::AboutToTerm), marker.has(Mark::Kill));
    let cause = match remembered.stop {
        Some(stop) => stop.cause,
        // Its deadline's stop was begun and not journaled.
        None if (term_reached || kill_sent) && spec.get_timeout().is_some() => StopCause::Deadline,
        None => return None,
    };
    Some(Ladder { cause, kill_at: None, term_reached, kill_sent })
}

const GONE_UNSEEN: &str = "it ended while no host was watching, and the kernel has forgotten how";

fn gone_unseen() -> Whereabouts {
    Whereabouts::Gone(Reason::ExitUnobserved, GONE_UNSEEN.to_owned())
}

/// How long the machine has been up.
fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// When the machine was booted, by today's clock.
fn booted_at() -> Option<Timestamp> {
    let micros = u64::try_from(uptime().as_micros()).ok()?;
    Some(Timestamp::from_micros(time::now().as_micros().checked_sub(micros)?))
}

/// When an atom was created: its id, a UUID of version 7, begins with the milliseconds.
fn created_at(atom: AtomId) -> Timestamp {
    let bytes = atom.to_bytes();
    let millis = bytes[..6].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Timestamp::from_micros(millis.saturating_mul(1000))
}

/// How old a process is, to a hundredth of a second.
fn age(identity: Identity) -> Duration {
    // USER_HZ, the unit of /proc: 100 on every architecture but the long-gone Alpha and Itanium.
    const MILLIS_PER_TICK: u64 = 10;
    let after_boot = Duration::from_millis(identity.start_time.saturating_mul(MILLIS_PER_TICK));
    uptime().saturating_sub(after_boot)
}

/// When a process was started, to a hundredth of a second.
fn started_at(identity: Identity) -> Timestamp {
    let micros = u64::try_from(age(identity).as_micros()).unwrap_or(0);
    Timestamp::from_micros(time::now().as_micros().saturating_sub(micros))
}
