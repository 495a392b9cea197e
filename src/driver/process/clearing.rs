//! Ending what is left of an atom, without holding up the others.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::dir::AtomDir;
use super::marker::{Mark, Marker};
use super::monitor::Monitor;
use super::reaper::Reaper;
use super::timers::TimerKind;
use super::tree::Group;
use crate::atom::AtomId;
use crate::crash;
use crate::driver::Observation;
use crate::time;

/// Between two looks, where no kernel tells that the last one has gone: it doubles from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(200));

/// After how long it is said that what was killed does not end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is left of an atom, as far as it can be ended together.
#[derive(Debug)]
pub(super) enum Remains {
    /// What is in its cgroup.
    Group(Group),
    /// What descends from its reaper.
    Reaper(AtomId, Reaper),
}

impl Remains {
    fn atom(&self) -> AtomId {
        match self {
            Self::Group(group) => group.atom(),
            Self::Reaper(atom, _) => *atom,
        }
    }

    fn is_empty(&mut self) -> bool {
        match self {
            Self::Group(group) => group.is_empty_by_fd().unwrap_or(false),
            Self::Reaper(_, reaper) => {
                reaper.hear();
                reaper.gone
            }
        }
    }

    fn kill(&self) -> io::Result<()> {
        match self {
            Self::Group(group) => group.kill(),
            Self::Reaper(_, reaper) => {
                reaper.kill();
                Ok(())
            }
        }
    }

    /// What tells of a change; `None` where nothing does.
    fn watch(&self) -> Option<(BorrowedFd<'_>, epoll::EventFlags)> {
        match self {
            Self::Group(group) => Some((group.emptied_fd()?, epoll::EventFlags::PRI)),
            Self::Reaper(_, reaper) => Some((reaper.fd(), epoll::EventFlags::IN)),
        }
    }

    /// The same, if it was asked for before.
    fn watched(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Group(group) => group.opened_fd(),
            Self::Reaper(_, reaper) => Some(reaper.fd()),
        }
    }

    /// Nobody is in it any more: what is there of it goes.
    fn discard(self, dir: &AtomDir) {
        match self {
            Self::Group(group) => discard(group, dir.marker()),
            Self::Reaper(..) => {}
        }
    }
}

/// The remains of an atom that are being ended.
#[derive(Debug)]
pub(super) struct Clearing {
    remains: Remains,
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
        if self.remains.is_empty() {
            return true;
        }
        if let Err(error) = self.remains.kill() {
            self.complain(Some(&error));
        }
        if self.remains.is_empty() {
            return true;
        }
        if self.began.elapsed() > PATIENCE {
            self.complain(None);
        }
        false
    }

    fn complain(&mut self, error: Option<&io::Error>) {
        let atom = self.remains.atom();
        if !std::mem::replace(&mut self.complained, true) {
            let members = match &self.remains {
                Remains::Group(group) => group.named_members(),
                Remains::Reaper(..) => Vec::new(),
            };
            tracing::error!(%atom, ?error, ?members, "what was killed does not end");
        }
    }
}

impl Monitor {
    /// Ends whatever is left of an atom, and does what follows.
    pub(super) fn clear(&mut self, remains: Remains, dir: AtomDir, then: Then) {
        let (began, pause) = (Instant::now(), PAUSES.0);
        let mut clearing = Clearing { remains, dir, then, began, pause, complained: false };
        if clearing.attempt() {
            return self.cleared(clearing);
        }
        let serial = self.next_serial();
        // Without a descriptor for that the timer alone does it.
        if let Some((fd, flags)) = clearing.remains.watch() {
            let data = Self::event_of_clearing(serial);
            // Just opened, it is ready at once: what changed since the attempt is not missed.
            let _ = epoll::add(&self.epoll, fd, data, flags);
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
        let Clearing { remains, dir, then, .. } = clearing;
        if let Some(fd) = remains.watched() {
            let _ = epoll::delete(&self.epoll, fd);
        }
        match then {
            Then::Ending(serial) => match (self.watched_mut(serial), remains) {
                (Some(watched), Remains::Group(group)) => {
                    watched.group = Some(group);
                    self.tell_ending(serial);
                }
                (Some(_) | None, remains) => remains.discard(&dir),
            },
            Then::Removed(atom) => {
                remains.discard(&dir);
                self.gone(atom, &dir);
            }
            Then::Nothing => remains.discard(&dir),
        }
    }

    /// Nothing of an atom runs any more: what it has on disk goes.
    pub(super) fn gone(&mut self, atom: AtomId, dir: &AtomDir) {
        // Another atom may have its files next: nobody writes into them any more for this one.
        self.tidy_up_now();
        dir.put_away();
        crash::point("keeper/has-removed");
        self.emit(Observation::Removed { atom, at: time::now() });
    }
}

/// Removes a cgroup that nobody is in.
pub(super) fn discard(group: Group, marker: Marker<'_>) {
    let atom = group.atom();
    match group.remove() {
        Ok(()) => marker.unmark(Mark::Group),
        Err(error) => tracing::warn!(%atom, %error, "the cgroup of an atom stays"),
    }
}
