//! A reaper: the process between the keeper and an atom that no cgroup contains.
//!
//! It is the atom's subreaper: whatever descends from the atom becomes its child when its own
//! parent has ended, whichever session it is in. So it can end all of it, child by child, and it ends
//! itself when nothing is left. It is nobody else's: the escapees of two atoms are never mixed up.
//!
//! It is a fork of the keeper that executes nothing: it allocates nothing, and calls nothing but the kernel.

use std::convert::Infallible;
use std::os::fd::RawFd;

use super::child::{self, Setup};
use super::memory;
use super::sys::{self, Errno};
use super::wait::{self, Child};
use super::word::{COMM, Word};

/// How many of those who are left are named.
const NAMED: u32 = crate::atom::MAX_NAMED_LEFTOVERS as u32;

/// Where its descriptors are once everything else is closed.
const CHANNEL: RawFd = 3;
const MARKER: RawFd = 4;

/// Between two rounds of killing in which nobody has ended, in milliseconds: it doubles from the first to the last.
const PAUSES: (u64, u64) = (1, 100);

/// All that it works with.
pub(super) struct Duty<'a> {
    /// The leader's.
    pub(super) setup: &'a Setup,
    /// Its end of the socket to the keeper; above 2.
    pub(super) channel: RawFd,
    /// Where in that the leader's end is written.
    pub(super) record_at: usize,
    /// What is left when the leader has ended is killed.
    pub(super) kill: bool,
}

/// Forks the leader, and stays until nothing of it is left.
pub(super) fn run(duty: &Duty<'_>) -> Infallible {
    match begin(duty) {
        Ok(leader) => {
            let forked = Word::Forked { pid: leader };
            let _ = sys::send(CHANNEL, &forked.encode());
            // Not before the keeper holds the leader, or has gone: until then its pid is its own.
            sys::receive_byte(CHANNEL);
            let record_at = duty.record_at;
            let mut work = Work { leader, kill: duty.kill, ending: false, counted: 0 };
            // SAFETY: what was prepared for the leader is on the heap, and is not looked at again.
            unsafe { memory::forget_heap() };
            work.run(record_at);
            sys::exit(0)
        }
        Err(errno) => {
            let _ = sys::send(duty.channel, &Word::NotForked { errno }.encode());
            sys::exit(1)
        }
    }
}

fn begin(duty: &Duty<'_>) -> Result<u32, Errno> {
    // Out of the way of signals to the keeper's group, and of those that are meant for the atom.
    sys::setsid()?;
    wait::become_subreaper()?;
    wait::set_name(c"caesium-reaper");
    wait::default_child_signal();
    let leader = wait::fork()?;
    if leader == 0 {
        child::run(duty.setup);
    }
    // Both may stand where the other one is to be.
    let channel = sys::duplicate_above(duty.channel, MARKER + 1)?;
    let marker = sys::duplicate_above(duty.setup.marker, MARKER + 1)?;
    sys::dup3(channel, CHANNEL)?;
    sys::dup3(marker, MARKER)?;
    sys::close_from(MARKER + 1, duty.setup.highest.max(channel).max(marker));
    Ok(leader)
}

struct Work {
    leader: u32,
    kill: bool,
    /// Everything that is left is being killed.
    ending: bool,
    counted: u32,
}

impl Work {
    /// Reaps until there is nobody left.
    fn run(&mut self, record_at: usize) {
        let mut pause = PAUSES.0;
        let mut reaped = 0_u32;
        loop {
            match wait::ended_child() {
                Child::Ended(pid, ended) => {
                    reaped = reaped.saturating_add(1);
                    if pid == self.leader {
                        // Before it is reaped: whoever sees that it is gone finds how it ended.
                        let word = Word::Ended(ended).encode();
                        sys::write_at(MARKER, &word, record_at);
                        let _ = sys::send(CHANNEL, &word);
                        wait::reap(pid);
                        self.leader = 0;
                        self.ending |= self.kill;
                        if !self.ending {
                            self.count_kept();
                        }
                        continue;
                    }
                    if self.ending && self.leader == 0 {
                        self.count(pid);
                    }
                    wait::reap(pid);
                }
                Child::Lives if self.ending => {
                    // Those that are found now may fork before they die: until nobody is left.
                    wait::each_child(wait::kill);
                    if reaped > 0 {
                        (reaped, pause) = (0, PAUSES.0);
                    } else {
                        wait::signal(Some(pause));
                        pause = (2 * pause).min(PAUSES.1);
                    }
                }
                Child::Lives => self.ending |= wait::signal(None) == wait::Woken::ByTerm,
                Child::None => break,
            }
        }
        if self.ending {
            let _ = sys::send_now(CHANNEL, &Word::Counted { count: self.counted }.encode());
        }
    }

    /// Counts one that was left and has been killed.
    fn count(&mut self, pid: u32) {
        if self.counted < NAMED {
            let mut name = [0; COMM];
            wait::name_of(pid, &mut name);
            let _ = sys::send_now(CHANNEL, &Word::Left { pid, name }.encode());
        }
        self.counted = self.counted.saturating_add(1);
    }

    /// Counts those that are left and are to be kept.
    fn count_kept(&self) {
        let mut count = 0_u32;
        wait::each_child(|pid| {
            if count < NAMED {
                let mut name = [0; COMM];
                wait::name_of(pid, &mut name);
                let _ = sys::send_now(CHANNEL, &Word::Left { pid, name }.encode());
            }
            count = count.saturating_add(1);
        });
        let _ = sys::send_now(CHANNEL, &Word::Counted { count }.encode());
    }
}
