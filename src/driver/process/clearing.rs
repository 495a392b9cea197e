//! Ending what is left in a cgroup, without holding up the other atoms.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::dir::AtomDir;
use super::marker::Mark;
use super::monitor::Monitor;
use super::timers::TimerKind;
use super::tree::Group;
use crate::atom::AtomId;
use crate::driver::Observation;
use crate::time;

/// Between two looks, where no kernel tells that the last one has gone: it doubles from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// After how long it is said that what was killed does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup that is being emptied.
#[derive(Debug)]
pub(super) struct Clearing {
    group: Group,
    dir: AtomDir,
    then: Then,
    began: Instant,
    pause: Duration,
    complained: bool,
}

/// What follows when nothing is left in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The end of the atom with this serial number is told.
    Ending(u64),
    /// Its directory goes too, and that is told.
    Removed(AtomId),
    /// Nothing.
    Nothing,
}

impl Clearing {
    /// Kills what is there; whether nothing is.
    fn attempt(&mut self) -> bool {
        if self.group.is_empty_by_fd().unwrap_or(false) {
            return true;
        }
        if let Err(error) = self.group.kill() {
            self.complain(Some(&error));
        }
        if self.group.is_empty_by_fd().unwrap_or(false) {
            return true;
        }
        if self.began.elapsed() > PATIENCE {
            self.complain(None);
        }
        false
    }

    fn complain(&mut self, error: Option<&io::Error>) {
        let atom = self.group.atom();
        if !std::mem::replace(&mut self.complained, true) {
            let members = self.group.named_members();
            tracing::error!(%atom, ?error, ?members, "what was killed does not end");
        }
    }
}

impl Monitor {
    /// Ends whatever is in a cgroup, and does what follows.
    pub(super) fn clear(&mut self, group: Group, dir: AtomDir, then: Then) {
        let (began, pause) = (Instant::now(), PAUSES.0);
        let mut clearing = Clearing { group, dir, then, began, pause, complained: false };
        if clearing.attempt() {
            return self.cleared(clearing);
        }
        let serial = self.next_serial();
        // Without a descriptor for that the timer alone does it.
        if let Some(fd) = clearing.group.emptied_fd() {
            let data = Self::event_of_clearing(serial);
            // Just opened, it is ready at once: what changed since the attempt is not missed.
            let _ = epoll::add(&self.epoll, fd, data, epoll::EventFlags::PRI);
        }
        self.clearing.insert(serial, clearing);
        self.arm(Instant::now().checked_add(pause), serial, TimerKind::Clear);
    }

    /// Looks again, as its time has come or the kernel has told of a change.
    pub(super) fn go_on_clearing(&mut self, serial: u64, timer: bool) {
        let Some(clearing) = self.clearing.get_mut(&serial) else { return };
        if clearing.attempt() {
            if let Some(clearing) = self.clearing.remove(&serial) {
                self.cleared(clearing);
            }
        } else if timer {
            clearing.pause = (2 * clearing.pause).min(PAUSES.1);
            let next = Instant::now().checked_add(clearing.pause);
            self.arm(next, serial, TimerKind::Clear);
        }
    }

    fn cleared(&mut self, clearing: Clearing) {
        let Clearing { group, dir, then, .. } = clearing;
        if let Some(fd) = group.opened_fd() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        match then {
            Then::Ending(serial) => match self.watched_mut(serial) {
                Some(watched) => {
                    watched.group = Some(group);
                    self.tell_ending(serial);
                }
                None => discard(group, &dir),
            },
            Then::Removed(atom) => {
                discard(group, &dir);
                self.gone(atom, &dir);
            }
            Then::Nothing => discard(group, &dir),
        }
    }

    /// Nothing of an atom runs any more: what it has on disk goes.
    pub(super) fn gone(&self, atom: AtomId, dir: &AtomDir) {
        dir.remove();
        self.emit(Observation::Removed { atom, at: time::now() });
    }
}

/// Removes a cgroup that nobody is in.
pub(super) fn discard(group: Group, dir: &AtomDir) {
    let atom = group.atom();
    match group.remove() {
        Ok(()) => dir.marker().unmark(Mark::Group),
        Err(error) => tracing::warn!(%atom, %error, "the cgroup of an atom stays"),
    }
}
