//! By what a process is recognised: more than its pid.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::OnceLock;

use bincode::Options;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::driver::kernel_file;
use crate::driver::{DriverError, Handle};

/// The version of a handle's bytes, its first byte.
///
/// 1: pid, start time, inode of the pidfd, boot id, inode of the pid namespace.
const VERSION: u8 = 1;

/// The size of a handle: version, pid, start time, inode of the pidfd, boot id, inode of the pid namespace.
pub(super) const HANDLE_BYTES: usize = 1 + 4 + 8 + 8 + 16 + 8;

/// The boot and the pid namespace that pids have a meaning in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// `/proc/sys/kernel/random/boot_id`.
    pub(super) boot: [u8; 16],
    /// The inode of `/proc/self/ns/pid`.
    pub(super) pid_ns: u64,
}

impl Place {
    /// Where this process is.
    pub(super) fn here() -> Result<Self, DriverError> {
        const BOOT: &str = "/proc/sys/kernel/random/boot_id";
        let io = |path: &str, source| DriverError::Io {
            what: format!("cannot read {path} (is /proc mounted?)"),
            source,
        };
        let text = fs::read_to_string(BOOT).map_err(|error| io(BOOT, error))?;
        let boot = uuid::Uuid::try_parse(text.trim())
            .map_err(|error| io(BOOT, io::Error::new(io::ErrorKind::InvalidData, error)))?
            .into_bytes();
        let pid_ns = rustix::fs::stat("/proc/self/ns/pid")
            .map_err(|error| io("/proc/self/ns/pid", error.into()))?
            .st_ino;
        Ok(Self { boot, pid_ns })
    }
}

/// The identity of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The number, which means nothing without the rest.
    pub(super) pid: u32,
    /// When it was started, in clock ticks after the boot; 0 when that could not be learnt.
    pub(super) start_time: u64,
    /// What tells it from every other process of this boot: the inode of its pidfd, which pidfs never gives twice
    /// (Linux 6.9); 0 where that is not told. A tick is long enough for a pid to be used again.
    pub(super) inode: u64,
    /// Where its pid has a meaning.
    pub(super) place: Place,
}

impl Identity {
    /// The identity of the process that a pidfd stands for, of which `/proc` says this.
    pub(super) fn of(pid: u32, stat: &ProcStat, pidfd: BorrowedFd<'_>, place: Place) -> Self {
        Self { pid, start_time: stat.start_time, inode: inode(pidfd), place }
    }

    /// Whether a process that has its pid now is the very one: what `/proc` says of it, read after the pidfd was held.
    pub(super) fn is(self, stat: &ProcStat, pidfd: BorrowedFd<'_>) -> bool {
        let inode = inode(pidfd);
        stat.start_time == self.start_time && (self.inode == 0 || inode == 0 || self.inode == inode)
    }

    /// The bytes that are kept in the journal.
    pub(super) fn to_handle(self) -> Handle {
        let mut bytes = vec![VERSION];
        // Fixed-size fields into a Vec: there is nothing that could fail.
        options().serialize_into(&mut bytes, &self).expect("an identity has a fixed, small size");
        bytes.into()
    }

    /// Reads a handle; `None` when it is damaged, or of a later version.
    pub(super) fn from_handle(handle: &[u8]) -> Option<Self> {
        let (version, rest) = handle.split_first()?;
        if *version != VERSION {
            return None;
        }
        options().deserialize(rest).ok()
    }

    /// The pid for system calls. Only to be used where something else proves whose it is.
    pub(super) fn pid(self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?)
    }
}

/// The inode of a pidfd; 0 where it means nothing.
fn inode(pidfd: BorrowedFd<'_>) -> u64 {
    /// `PID_FS_MAGIC` of linux/magic.h. Before it there was one inode for all.
    const PID_FS: u32 = 0x5049_4446;
    static IS_TOLD: OnceLock<bool> = OnceLock::new();
    let is_told = || rustix::fs::fstatfs(pidfd).is_ok_and(|fs| fs.f_type as u32 == PID_FS);
    if !*IS_TOLD.get_or_init(is_told) {
        return 0;
    }
    rustix::fs::fstat(pidfd).map_or(0, |stat| stat.st_ino)
}

fn options() -> impl Options {
    bincode::options()
        .with_fixint_encoding()
        .with_limit(HANDLE_BYTES as u64)
        .reject_trailing_bytes()
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcStat {
    /// `R`, `S`, `Z` …
    pub(super) state: u8,
    /// Its parent.
    pub(super) parent: u32,
    /// Its process group.
    pub(super) group: u32,
    /// Its session.
    pub(super) session: u32,
    /// When it was started, in clock ticks after the boot.
    pub(super) start_time: u64,
    /// Its wait status once it is a zombie; 0 for those who may not know.
    pub(super) exit_code: i32,
}

impl ProcStat {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such process.
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let text = kernel_file::read(format!("/proc/{pid}/stat")).map_err(|error| {
            // A process that goes while its file is open makes the read fail with ESRCH.
            if error.raw_os_error() == Some(libc::ESRCH) {
                io::ErrorKind::NotFound.into()
            } else {
                error
            }
        })?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has another form")
        })
    }

    /// Field 2 is the program's name in parentheses and may hold anything, parentheses included.
    fn parse(text: &[u8]) -> Option<Self> {
        let rest = &text[text.iter().rposition(|byte| *byte == b')')? + 1..];
        let rest = std::str::from_utf8(rest).ok()?;
        // Numbered as in proc_pid_stat(5), which counts from 1: this starts with field 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            start_time: field(22)?.parse().ok()?,
            exit_code: field(52)?.parse().ok()?,
        })
    }

    /// Whether it has ended and was not waited for yet.
    pub(super) fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Whether the kernel shows us the protected fields of a process, such as its exit code.
///
/// Reading this link needs the very permission that field 52 of
/// `/proc/PID/stat` needs, which is silently 0 without it.
pub(super) fn may_inspect(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/ns/user")).is_ok()
}

/// Whether a process was given `entry` (`NAME=value`) in its environment when it was executed.
pub(super) fn has_environment(pid: u32, entry: &[u8]) -> bool {
    read_environment(pid, entry).unwrap_or(false)
}

/// As [`has_environment`].
///
/// # Errors
///
/// When it cannot be told: it is gone, it is another user's, or descriptors have run out.
pub(super) fn read_environment(pid: u32, entry: &[u8]) -> io::Result<bool> {
    Ok(has_entry(&environment(pid)?, entry))
}

/// The environment that a process was executed with; empty while it is being executed.
///
/// # Errors
///
/// As [`read_environment`].
pub(super) fn environment(pid: u32) -> io::Result<Vec<u8>> {
    kernel_file::read(format!("/proc/{pid}/environ"))
}

/// Whether an environment has `entry` in it.
pub(super) fn has_entry(environment: &[u8], entry: &[u8]) -> bool {
    environment.split(|byte| *byte == 0).any(|one| one == entry)
}

/// The pids of all processes that can be seen.
pub(super) fn all_pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(Path::new("/proc"))? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_what_was_put_into_it_and_nothing_else_is_taken_for_one() {
        let place = Place { boot: *b"0123456789abcdef", pid_ns: 4026531836 };
        let identity = Identity { pid: 17, start_time: 99, inode: 5, place };
        let handle = identity.to_handle();
        assert_eq!(Identity::from_handle(&handle), Some(identity));
        for cut in 0..handle.len() {
            assert_eq!(Identity::from_handle(&handle[..cut]), None);
        }
        let mut longer = handle.to_vec();
        longer.push(0);
        assert_eq!(Identity::from_handle(&longer), None);
        let mut later = handle.to_vec();
        later[0] = VERSION + 1;
        assert_eq!(Identity::from_handle(&later), None);
    }

    #[test]
    fn a_program_named_to_confuse_is_read_right() {
        let mut text = b"17 (a) Z 1 (b) R ".to_vec();
        text.truncate(0);
        text.extend_from_slice(b"17 (x) S 99 (y)) Z 5 17");
        for number in 6..=52 {
            text.extend_from_slice(format!(" {number}").as_bytes());
        }
        let stat = ProcStat::parse(&text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.group), (b'Z', 5, 17));
        assert_eq!((stat.start_time, stat.exit_code), (22, 52));
    }

    #[test]
    fn this_process_can_be_identified() {
        let stat = ProcStat::read(std::process::id()).unwrap();
        assert!(stat.start_time > 0);
        assert!(!stat.is_zombie());
        assert!(may_inspect(std::process::id()));
        Place::here().unwrap();
    }
}
