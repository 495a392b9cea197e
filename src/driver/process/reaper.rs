//! The reaper of an atom that no cgroup contains, as its keeper sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::dir::AtomDir;
use super::fork::{Heard, Reaping, Word};
use super::identity::{Identity, ProcStat};
use super::sys;
use crate::atom::{LeftBehind, Usage};
use crate::lifecycle::WaitStatus;
use crate::time::Timestamp;

/// The process that an atom descends from, and that ends all of it when it is told to.
///
/// It costs a descriptor. It ends when nothing is left that it has to reap.
#[derive(Debug)]
pub(super) struct Reaper {
    way: Way,
    /// How the leader ended, once that was told.
    pub(super) ended: Option<(Timestamp, WaitStatus, Usage)>,
    left: Vec<(u32, String)>,
    counted: Option<u32>,
    /// It has ended: whatever it was there for has as well, unless somebody has killed it.
    pub(super) gone: bool,
}

/// How it is reached.
#[derive(Debug)]
enum Way {
    /// A child of this keeper.
    Child(Reaping),
    /// Of an earlier keeper.
    Adopted(OwnedFd),
}

impl Reaper {
    /// A child of this keeper.
    pub(super) fn forked(reaping: Reaping) -> Self {
        Self::by(Way::Child(reaping))
    }

    fn by(way: Way) -> Self {
        Self { way, ended: None, left: Vec::new(), counted: None, gone: false }
    }

    /// The one that has this identity, if it lives.
    ///
    /// # Errors
    ///
    /// When descriptors have run out.
    pub(super) fn find(identity: Identity) -> io::Result<Option<Self>> {
        let Some(pid) = identity.pid() else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // After the pidfd is held: what has the start time now is what the pidfd stands for.
        let same = ProcStat::read(identity.pid)
            .is_ok_and(|stat| identity.is(&stat, pidfd.as_fd()) && !stat.is_zombie());
        Ok(same.then(|| Self::by(Way::Adopted(pidfd))))
    }

    /// Its pid, if it is a child of this keeper.
    pub(super) fn child_pid(&self) -> Option<u32> {
        match &self.way {
            Way::Child(reaping) => Some(reaping.pid),
            Way::Adopted(_) => None,
        }
    }

    /// Whether an earlier keeper forked it: then it tells nothing but its own end.
    pub(super) fn is_adopted(&self) -> bool {
        matches!(self.way, Way::Adopted(_))
    }

    /// Becomes readable when there is something to hear.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Child(reaping) => reaping.channel(),
            Way::Adopted(pidfd) => pidfd.as_fd(),
        }
    }

    /// Hears what it has told.
    pub(super) fn hear(&mut self) {
        match &self.way {
            Way::Child(reaping) => loop {
                match reaping.hear() {
                    Heard::Word(Word::Ended(ended)) => self.ended = Some(ended.told()),
                    Heard::Word(Word::Left { pid, name }) => {
                        let name = String::from_utf8_lossy(&name);
                        self.left.push((pid, name.trim_end_matches('\0').to_owned()));
                    }
                    Heard::Word(Word::Counted { count }) => self.counted = Some(count),
                    Heard::Word(Word::Forked { .. } | Word::NotForked { .. }) => {}
                    Heard::Nothing => return,
                    Heard::End => {
                        self.gone = true;
                        return;
                    }
                }
            },
            Way::Adopted(pidfd) => self.gone = sys::has_ended(pidfd),
        }
    }

    /// Has it end whatever is left.
    pub(super) fn kill(&self) {
        if self.gone {
            return;
        }
        let sent = match &self.way {
            // It is not reaped before its end was heard, so that the number is its own.
            Way::Child(reaping) => match Pid::from_raw(reaping.pid.cast_signed()) {
                Some(pid) => kill_process(pid, Signal::TERM),
                None => Ok(()),
            },
            Way::Adopted(pidfd) => pidfd_send_signal(pidfd, Signal::TERM),
        };
        if let Err(error) = sent {
            // It ended a moment ago.
            tracing::debug!(%error, "a reaper cannot be told to end its atom");
        }
    }

    /// Whether it has said how many were left.
    pub(super) fn has_counted(&self) -> bool {
        self.counted.is_some()
    }

    /// Whether it has ended before its work was done.
    pub(super) fn was_killed(&self, dir: &AtomDir) -> bool {
        self.gone
            && match &self.way {
                Way::Child(_) => self.counted.is_none(),
                Way::Adopted(_) => dir.marker().read().reaped().is_none(),
            }
    }

    /// Whom the leader left behind; `None` when that was nobody, or is not known.
    pub(super) fn left(&self, killed: bool) -> Option<LeftBehind> {
        let count = self.counted.unwrap_or_default().max(self.left.len() as u32);
        if count == 0 {
            return None;
        }
        let mut left = LeftBehind::new(killed, self.left.iter().cloned());
        left.count = count;
        Some(left)
    }
}
