//! Forking an atom under a reaper, and hearing what that tells.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::spawn::{Failure, Streams};
use super::clone;
use super::plan::Plan;
use super::reaper::{self, Duty};
use super::waiting::{Join, Prepared, Waiting, no_fork, pair};
use super::word::{WORD_BYTES, Word};

/// How long a reaper may take to fork the leader: it does nothing before that.
const PATIENCE: Duration = Duration::from_secs(10);

/// As [`fork`], under a reaper of its own, which is the child that is forked here. `marker` is the
/// atom's marker file, into which the reaper writes at `record_at` how the leader ended. Gives the leader, and the
/// reaper with its pidfd.
///
/// # Errors
///
/// As [`fork`].
pub(in crate::driver::process) fn fork_under_reaper(
    plan: &Arc<Plan>,
    streams: Streams,
    marker: BorrowedFd<'_>,
    executing_at: usize,
    record_at: usize,
    kill: bool,
) -> Result<(Waiting, Reaping, OwnedFd), Failure> {
    let prepared = Prepared::new(plan, streams, &Join::default(), marker, executing_at)?;
    let (ours, theirs) = pair().map_err(no_fork)?;
    let duty = Duty { setup: prepared.lent.setup(), channel: theirs.as_raw_fd(), record_at, kill };
    // SAFETY: `reaper::run` makes system calls, on what was prepared above, and nothing else.
    let (pid, pidfd) = unsafe { clone::fork(None, || reaper::run(&duty)) }.map_err(no_fork)?;
    drop(theirs);
    let reaping = Reaping { pid, channel: ours };
    let deadline = Instant::now() + PATIENCE;
    let leader = loop {
        match reaping.hear() {
            Heard::Word(Word::Forked { pid }) => break pid,
            Heard::Word(Word::NotForked { errno }) => {
                return Err(no_fork(io::Error::from_raw_os_error(errno)));
            }
            Heard::Nothing if Instant::now() < deadline => reaping.wait(deadline),
            Heard::Word(Word::Ended(_) | Word::Left { .. } | Word::Counted { .. })
            | Heard::Nothing
            | Heard::End => {
                return Err(no_fork(io::Error::other("its reaper does not answer")));
            }
        }
    };
    let raw = Pid::from_raw(leader.cast_signed())
        .ok_or_else(|| no_fork(io::ErrorKind::InvalidData.into()))?;
    // Its reaper does not reap it before it is told to.
    let held = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| no_fork(error.into()))?;
    Ok((prepared.waiting(leader, held), reaping, pidfd))
}

/// The keeper's end of the way to a reaper, which is a child of the keeper.
#[derive(Debug)]
pub(in crate::driver::process) struct Reaping {
    /// The reaper's pid.
    pub(in crate::driver::process) pid: u32,
    channel: OwnedFd,
}

/// What a reaper has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver::process) enum Heard {
    /// This.
    Word(Word),
    /// Nothing now.
    Nothing,
    /// It has ended.
    End,
}

impl Reaping {
    /// Lets it reap. To be called when the leader is known by more than its pid.
    pub(in crate::driver::process) fn go_on(&self) {
        // One that has ended shows when it is heard.
        let _ = send(&self.channel, &[1], SendFlags::NOSIGNAL);
    }

    /// Becomes readable when there is something to hear.
    pub(in crate::driver::process) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// What it has told, without waiting.
    pub(in crate::driver::process) fn hear(&self) -> Heard {
        loop {
            let mut bytes = [0; WORD_BYTES];
            match recv(&self.channel, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Heard::End,
                Ok((_, _)) => match Word::decode(&bytes) {
                    Some(word) => return Heard::Word(word),
                    None => return Heard::End,
                },
                Err(rustix::io::Errno::AGAIN) => return Heard::Nothing,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Heard::End,
            }
        }
    }

    fn wait(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        // Whatever it says, the reaper is asked next.
        let _ = poll(&mut [PollFd::new(&self.channel, PollFlags::IN)], Some(&left));
    }
}
