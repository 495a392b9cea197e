//! What a child tells: how far it came, and what stood in the way.

use std::ffi::CString;
use std::io;

use super::super::program::classify;
use super::super::spawn::Failure;
use super::plan::Names;
use crate::lifecycle::Reason;

/// What a child does before it executes its program, in the order in which it does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    /// A session of its own.
    Session,
    /// The place for the socket.
    Channel,
    /// Writing itself into a cgroup; the index says which.
    Join,
    /// `oom_score_adj`.
    OomScore,
    /// Standard input, output and error.
    Streams,
    /// A resource limit; the index says which.
    Rlimit,
    /// The nice value.
    Nice,
    /// Closing what is not its own.
    Descriptors,
    /// `PR_SET_NO_NEW_PRIVS`.
    Privileges,
    /// Other groups.
    Groups,
    /// Its group.
    Gid,
    /// Its user.
    Uid,
    /// It could become root again.
    WayBack,
    /// The working directory.
    Workdir,
    /// The file for standard input.
    Stdin,
    /// The file for standard input is a directory.
    StdinIsDirectory,
    /// All of the above is done. No failure.
    Ready,
    /// The execution.
    Exec,
}

impl Step {
    const ALL: [Self; 18] = [
        Self::Session,
        Self::Channel,
        Self::Join,
        Self::OomScore,
        Self::Streams,
        Self::Rlimit,
        Self::Nice,
        Self::Descriptors,
        Self::Privileges,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::WayBack,
        Self::Workdir,
        Self::Stdin,
        Self::StdinIsDirectory,
        Self::Ready,
        Self::Exec,
    ];
}

/// Bytes of a report.
pub(super) const REPORT_BYTES: usize = 8;

/// A report of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) step: Step,
    pub(super) index: u16,
    pub(super) errno: i32,
}

impl Report {
    /// As it goes over the socket. Called in the child: it allocates nothing.
    pub(super) const fn encode(self) -> [u8; REPORT_BYTES] {
        let index = self.index.to_ne_bytes();
        let errno = self.errno.to_ne_bytes();
        [self.step as u8, 0, index[0], index[1], errno[0], errno[1], errno[2], errno[3]]
    }

    /// Reads it.
    pub(super) fn decode(bytes: [u8; REPORT_BYTES]) -> Option<Self> {
        let [step, _, i0, i1, e0, e1, e2, e3] = bytes;
        Some(Self {
            step: *Step::ALL.get(usize::from(step))?,
            index: u16::from_ne_bytes([i0, i1]),
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
        })
    }

    /// What stood in the way, in words. `joins` are the files that it was to write itself into.
    pub(super) fn failure(self, names: &Names, joins: &[CString]) -> Failure {
        let error = io::Error::from_raw_os_error(self.errno);
        let index = usize::from(self.index);
        let failed = |what: &str| {
            Failure::new(Reason::ExecFailed, format!("{}: {what}: {error}", names.program.shown))
        };
        let unsupported = |what: String, hint: &str| {
            Failure::new(Reason::LimitUnsupported, format!("{what} cannot be set: {error}{hint}"))
        };
        let privileged = " (that needs a privilege)";
        match self.step {
            Step::Session => failed("no session of its own"),
            Step::Channel => failed("no place for its socket"),
            Step::Streams => failed("its standard streams cannot be put in place"),
            Step::Descriptors => failed("descriptors of others cannot be closed"),
            Step::Ready => failed("it ended while it waited"),
            Step::Join => {
                let file =
                    joins.get(index).map_or("a cgroup".into(), |file| file.to_string_lossy());
                Failure::new(
                    Reason::LimitUnsupported,
                    format!("it cannot be put into its cgroup ({file}): {error}"),
                )
            }
            Step::OomScore => {
                let value = names.oom_score_adj.unwrap_or_default();
                unsupported(format!("oom_score_adj {value}"), privileged)
            }
            Step::Nice => {
                unsupported(format!("nice {}", names.nice.unwrap_or_default()), privileged)
            }
            Step::Rlimit => match names.rlimits.get(index) {
                Some((resource, value)) => unsupported(
                    format!("rlimit {resource} {value}"),
                    " (above the hard limit that we have, it needs a privilege)",
                ),
                None => unsupported("an rlimit".to_owned(), ""),
            },
            Step::Privileges => unsupported("no_new_privs".to_owned(), ""),
            Step::Groups | Step::Gid | Step::Uid => Failure::new(
                Reason::BadUser,
                format!(
                    "it cannot become {}: {error} (that needs root, or CAP_SETUID and CAP_SETGID)",
                    names.user
                ),
            ),
            Step::WayBack => Failure::new(
                Reason::BadUser,
                format!("{} could become root again; it was not started", names.user),
            ),
            Step::Workdir => Failure::new(
                Reason::BadWorkdir,
                format!("working directory {}: {error}", names.workdir.display()),
            ),
            Step::Stdin | Step::StdinIsDirectory => {
                let path = names.stdin.as_deref().unwrap_or(&names.workdir).display();
                let why = if self.step == Step::StdinIsDirectory {
                    "is a directory".to_owned()
                } else {
                    error.to_string()
                };
                Failure::new(Reason::BadStdin, format!("standard input {path}: {why}"))
            }
            Step::Exec => classify(&names.program, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_read_as_it_was_written() {
        for step in Step::ALL {
            let report = Report { step, index: 515, errno: -7 };
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([Step::ALL.len() as u8, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
