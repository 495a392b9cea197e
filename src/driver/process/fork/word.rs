//! What a reaper tells: packets of one size, that need no memory to be made.

use std::time::Duration;

use crate::atom::Usage;
use crate::lifecycle::WaitStatus;
use crate::time::Timestamp;

/// Bytes of a packet.
pub(super) const WORD_BYTES: usize = 40;

/// The longest name of a process, in bytes: `TASK_COMM_LEN` without its NUL.
pub(super) const COMM: usize = 15;

/// What a reaper tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver::process) enum Word {
    /// It has forked the leader.
    Forked {
        /// The leader's pid.
        pid: u32,
    },
    /// It could not.
    NotForked {
        /// Why not.
        errno: i32,
    },
    /// The leader has ended.
    Ended(Ended),
    /// Somebody was left when the leader had ended.
    Left {
        /// Who.
        pid: u32,
        /// What it was called; NUL after the name.
        name: [u8; COMM],
    },
    /// How many there were.
    Counted {
        /// That many.
        count: u32,
    },
}

/// How a leader ended, as its parent was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver::process) struct Ended {
    /// `si_code` of waitid(2): `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`.
    pub(super) code: u8,
    /// `si_status`: the exit code, or the signal.
    pub(super) status: u8,
    /// When that was seen, in microseconds since 1970.
    pub(super) at: u64,
    /// CPU time in user mode, in microseconds.
    pub(super) user: u64,
    /// CPU time in the kernel, in microseconds.
    pub(super) system: u64,
    /// The largest resident set, in KiB.
    pub(super) max_rss: u64,
}

impl Ended {
    /// As a parent that was told this would say it.
    pub(in crate::driver::process) fn of(at: Timestamp, status: WaitStatus, usage: Usage) -> Self {
        let (code, status) = match status {
            WaitStatus::Exited { code } => (libc::CLD_EXITED, code),
            WaitStatus::Signaled { signal, core_dumped: false } => (libc::CLD_KILLED, signal),
            WaitStatus::Signaled { signal, core_dumped: true } => (libc::CLD_DUMPED, signal),
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            code: code as u8,
            status,
            at: at.as_micros(),
            user: micros(usage.user),
            system: micros(usage.system),
            max_rss: usage.max_rss.unwrap_or_default() / 1024,
        }
    }

    /// In the lifecycle's words: when, and how.
    pub(in crate::driver::process) fn told(self) -> (Timestamp, WaitStatus, Usage) {
        let status = match i32::from(self.code) {
            libc::CLD_EXITED => WaitStatus::Exited { code: self.status },
            code => {
                WaitStatus::Signaled { signal: self.status, core_dumped: code == libc::CLD_DUMPED }
            }
        };
        let usage = Usage {
            user: Duration::from_micros(self.user),
            system: Duration::from_micros(self.system),
            max_rss: Some(self.max_rss.saturating_mul(1024)),
            ..Usage::default()
        };
        (Timestamp::from_micros(self.at), status, usage)
    }
}

impl Word {
    /// As it is sent, and as the marker file has it.
    pub(in crate::driver::process) fn encode(self) -> [u8; WORD_BYTES] {
        let mut bytes = [0; WORD_BYTES];
        match self {
            Self::Forked { pid } => {
                bytes[0] = 1;
                bytes[4..8].copy_from_slice(&pid.to_le_bytes());
            }
            Self::NotForked { errno } => {
                bytes[0] = 2;
                bytes[4..8].copy_from_slice(&errno.to_le_bytes());
            }
            Self::Ended(Ended { code, status, at, user, system, max_rss }) => {
                bytes[..3].copy_from_slice(&[3, code, status]);
                bytes[8..16].copy_from_slice(&user.to_le_bytes());
                bytes[16..24].copy_from_slice(&system.to_le_bytes());
                bytes[24..32].copy_from_slice(&max_rss.to_le_bytes());
                bytes[32..].copy_from_slice(&at.to_le_bytes());
            }
            Self::Left { pid, name } => {
                bytes[0] = 4;
                bytes[4..8].copy_from_slice(&pid.to_le_bytes());
                bytes[8..8 + COMM].copy_from_slice(&name);
            }
            Self::Counted { count } => {
                bytes[0] = 5;
                bytes[4..8].copy_from_slice(&count.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads it; `None` for what is no such packet.
    pub(in crate::driver::process) fn decode(bytes: &[u8; WORD_BYTES]) -> Option<Self> {
        let four = || [bytes[4], bytes[5], bytes[6], bytes[7]];
        let eight = |at: usize| -> u64 {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        Some(match bytes[0] {
            1 => Self::Forked { pid: u32::from_le_bytes(four()) },
            2 => Self::NotForked { errno: i32::from_le_bytes(four()) },
            3 => Self::Ended(Ended {
                code: bytes[1],
                status: bytes[2],
                user: eight(8),
                system: eight(16),
                max_rss: eight(24),
                at: eight(32),
            }),
            4 => {
                let mut name = [0; COMM];
                name.copy_from_slice(&bytes[8..8 + COMM]);
                Self::Left { pid: u32::from_le_bytes(four()), name }
            }
            5 => Self::Counted { count: u32::from_le_bytes(four()) },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let ended = Ended { code: 2, status: 9, at: 7, user: 1, system: u64::MAX, max_rss: 3 };
        for word in [
            Word::Forked { pid: 17 },
            Word::NotForked { errno: -11 },
            Word::Ended(ended),
            Word::Left { pid: u32::MAX, name: *b"fifteen bytes!!" },
            Word::Counted { count: 3 },
        ] {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        assert_eq!(Word::decode(&[0; WORD_BYTES]), None);
        assert_eq!(Word::decode(&[255; WORD_BYTES]), None);
    }
}
