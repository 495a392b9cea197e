//! A child that is set up and waits.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::super::spawn::{Failure, Streams};
use super::child::Setup;
use super::lent::Lent;
use super::plan::Plan;
use super::report::{Report, Step};
use super::sys;
use crate::lifecycle::Reason;

/// A child that sets itself up, and then waits for [`go`](Self::go).
///
/// Dropped before that, it ends without having executed anything. Its parent has to wait for
/// it in any case, also for one that has reported a failure. It costs two descriptors.
#[derive(Debug)]
pub(in crate::driver::process) struct Waiting {
    /// Its pid.
    pub(in crate::driver::process) pid: u32,
    /// Itself.
    pub(in crate::driver::process) pidfd: OwnedFd,
    lent: Lent,
    ready: bool,
    told: bool,
}

impl Waiting {
    /// Lets it execute its program, as soon as it is set up.
    ///
    /// # Errors
    ///
    /// When it has gone; its report says more.
    pub(in crate::driver::process) fn go(&mut self) -> io::Result<()> {
        send(self.lent.channel(), &[1], SendFlags::NOSIGNAL)?;
        self.told = true;
        Ok(())
    }

    /// Its pidfd, once nothing more is asked of it.
    pub(in crate::driver::process) fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }

    /// Whether it has our memory until it executes its program.
    #[cfg(test)]
    pub(super) fn shares(&self) -> bool {
        self.lent.setup().shares
    }

    /// Becomes readable when there is something to report.
    pub(in crate::driver::process) fn channel(&self) -> BorrowedFd<'_> {
        self.lent.channel()
    }

    /// What became of it, without waiting. `None`: nothing yet. To be asked until there is an answer.
    ///
    /// `Ok` after the program was executed. A child that somebody kills between its go and the
    /// execution cannot be told from one that was killed just after; its status says so.
    pub(in crate::driver::process) fn report(&mut self) -> Option<Result<(), Failure>> {
        loop {
            let bytes = match self.lent.receive() {
                Ok(bytes) => bytes,
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(_) => None,
            };
            let Some(bytes) = bytes else {
                return Some(if self.ready && self.told { Ok(()) } else { Err(self.vanished()) });
            };
            let Setup { plan, joins, .. } = self.lent.setup();
            match Report::decode(bytes) {
                Some(report) if report.step == Step::Ready => self.ready = true,
                Some(report) => return Some(Err(report.failure(&plan.names, joins))),
                None => return Some(Err(self.vanished())),
            }
        }
    }

    fn vanished(&self) -> Failure {
        let shown = &self.lent.setup().plan.names.program.shown;
        Failure::new(
            Reason::ExecFailed,
            format!("{shown}: it ended while it was set up, before it was executed"),
        )
    }
}

/// The cgroups that a child is to be in.
#[derive(Debug, Default)]
pub(in crate::driver::process) struct Join {
    /// Files that it writes itself into, in order, before it gives up any right.
    pub(in crate::driver::process) files: Vec<PathBuf>,
    /// A cgroup of version 2. It is born there: a process that moves holds up every fork of the machine, and
    /// that takes milliseconds. Where that is refused it writes itself into `cgroup.procs`.
    pub(in crate::driver::process) unified: Option<PathBuf>,
}

impl Join {
    /// All that it may have to write itself into, what it may be born in last.
    fn all(&self) -> impl Iterator<Item = PathBuf> {
        let unified = self.unified.iter().map(|dir| dir.join("cgroup.procs"));
        self.files.iter().cloned().chain(unified)
    }
}

/// Makes a child for `plan`, which joins its cgroups. `marker` is the atom's marker file, open for reading and writing: in its
/// byte `executing_at` the child says that it has its go and executes the program.
///
/// # Errors
///
/// [`Failure`] when processes, memory or descriptors have run out.
pub(in crate::driver::process) fn fork(
    plan: &Arc<Plan>,
    streams: Streams,
    join: &Join,
    marker: BorrowedFd<'_>,
    executing_at: usize,
) -> Result<Waiting, Failure> {
    let mut prepared = Prepared::new(plan, streams, join, marker, executing_at)?;
    let dir = join.unified.as_ref().and_then(|dir| File::open(dir).ok());
    let into = dir.as_ref().map(AsFd::as_fd);
    let (pid, pidfd) = prepared.lent.make_child(into).map_err(no_fork)?;
    Ok(prepared.waiting(pid, pidfd))
}

/// What was opened and built for a child before it is made.
pub(super) struct Prepared {
    pub(super) lent: Lent,
    /// The child's, which it knows by their numbers: they stay until it is there.
    _childs: [OwnedFd; 4],
    _marker: Option<OwnedFd>,
}

impl Prepared {
    pub(super) fn new(
        plan: &Arc<Plan>,
        streams: Streams,
        join: &Join,
        marker: BorrowedFd<'_>,
        executing_at: usize,
    ) -> Result<Self, Failure> {
        let no = |error: io::Error| {
            Failure::new(
                Reason::ExecFailed,
                format!("{}: no descriptor for its start: {error}", plan.names.program.shown),
            )
        };
        let (ours, theirs) = pair().map_err(no)?;
        let Streams { stdin, stdout, stderr } = streams;
        let [stdin, stdout, stderr] = [
            above_stdio(stdin).map_err(no)?,
            above_stdio(stdout).map_err(no)?,
            above_stdio(stderr).map_err(no)?,
        ];
        // Duplicated, it is above 2.
        let own_marker = match marker.as_raw_fd() {
            0..=2 => Some(marker.try_clone_to_owned().map_err(no)?),
            _ => None,
        };
        let marker = own_marker.as_ref().map_or(marker, AsFd::as_fd);
        let joins = join.all().map(|path| CString::new(path.into_os_string().into_vec()));
        let setup = Setup {
            plan: Arc::clone(plan),
            streams: [&stdin, &stdout, &stderr].map(AsRawFd::as_raw_fd),
            channel: theirs.as_raw_fd(),
            joins: joins.collect::<Result<_, _>>().map_err(|error| no(error.into()))?,
            marker: marker.as_raw_fd(),
            executing_at,
            highest: highest(),
            shares: false,
            born: false,
        };
        let _childs = [stdin, stdout, stderr, theirs];
        Ok(Self { lent: Lent::new(ours, setup), _childs, _marker: own_marker })
    }

    pub(super) fn waiting(self, pid: u32, pidfd: OwnedFd) -> Waiting {
        Waiting { pid, pidfd, lent: self.lent, ready: false, told: false }
    }
}

/// A pair of sockets for packets, both above the standard streams.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((above_stdio(one)?, above_stdio(other)?))
}

/// The highest descriptor that is open, as far as can be told, where `close_from` has to be told.
pub(super) fn highest() -> RawFd {
    static NEEDED: OnceLock<bool> = OnceLock::new();
    if !NEEDED.get_or_init(sys::needs_highest) {
        return 0;
    }
    let listed = std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| {
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
    });
    listed.unwrap_or_else(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.and_then(|limit| RawFd::try_from(limit).ok()).unwrap_or(1 << 20)
    })
}

/// A descriptor above 2, so that putting others into the places 0 to 2 does not hit it.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, 3).map_err(io::Error::from)
}

pub(super) fn no_fork(error: io::Error) -> Failure {
    Failure::new(
        Reason::ExecFailed,
        format!(
            "no process for it: {error} (raise RLIMIT_NPROC, the pids limit of our cgroup, or memory)"
        ),
    )
}
