//! A child that is set up and waits.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

use super::super::spawn::{Failure, Streams};
use super::child::{Setup, run};
use super::plan::{Names, Plan};
use super::report::{REPORT_BYTES, Report, Step};
use super::sys::{self, Pointers};
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
    channel: OwnedFd,
    names: Arc<Names>,
    joins: Vec<CString>,
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
        send(&self.channel, &[1], SendFlags::NOSIGNAL)?;
        self.told = true;
        Ok(())
    }

    /// Its pidfd, once nothing more is asked of it.
    pub(in crate::driver::process) fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }

    /// Becomes readable when there is something to report.
    pub(in crate::driver::process) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// What became of it, without waiting. `None`: nothing yet. To be asked until there is an answer.
    ///
    /// `Ok` after the program was executed. A child that somebody kills between its go and the
    /// execution cannot be told from one that was killed just after; its status says so.
    pub(in crate::driver::process) fn report(&mut self) -> Option<Result<(), Failure>> {
        loop {
            let mut bytes = [0; REPORT_BYTES];
            let received = match recv(&self.channel, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((received, _)) => received,
                Err(rustix::io::Errno::AGAIN) => return None,
                // It died with our go unread; told once, before what it had sent.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => continue,
                Err(_) => 0,
            };
            if received == 0 {
                return Some(if self.ready && self.told { Ok(()) } else { Err(self.vanished()) });
            }
            match Report::decode(bytes) {
                Some(report) if report.step == Step::Ready => self.ready = true,
                Some(report) => return Some(Err(report.failure(&self.names, &self.joins))),
                None => return Some(Err(self.vanished())),
            }
        }
    }

    fn vanished(&self) -> Failure {
        let shown = &self.names.program.shown;
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

/// Forks a child for `plan`, which joins its cgroups. `marker` is the atom's marker file, open for reading and writing: in its
/// byte `executing_at` the child says that it has its go and executes the program.
///
/// # Errors
///
/// [`Failure`] when processes, memory or descriptors have run out.
pub(in crate::driver::process) fn fork(
    plan: &Plan,
    streams: Streams,
    join: &Join,
    marker: OwnedFd,
    executing_at: usize,
) -> Result<Waiting, Failure> {
    let prepared = Prepared::new(plan, streams, join, marker, executing_at)?;
    let born = join.unified.as_ref().and_then(|dir| {
        let dir = File::open(dir).ok()?;
        let setup = prepared.setup(plan, true);
        // SAFETY: `run` makes system calls, on what was prepared above, and nothing else.
        unsafe { sys::fork(Some(dir.as_fd()), || run(&setup)) }.ok()
    });
    let (pid, pidfd) = match born {
        Some(child) => child,
        // An older kernel, a sandbox, or there are no processes: then this says so.
        None => {
            let setup = prepared.setup(plan, false);
            // SAFETY: as above.
            unsafe { sys::fork(None, || run(&setup)) }.map_err(no_fork)?
        }
    };
    Ok(prepared.waiting(plan, pid, pidfd))
}

/// What was opened and built for a child before the fork.
pub(super) struct Prepared {
    streams: [OwnedFd; 3],
    ours: OwnedFd,
    theirs: OwnedFd,
    joins: Vec<CString>,
    pub(super) marker: OwnedFd,
    executing_at: usize,
    pub(super) highest: i32,
}

impl Prepared {
    pub(super) fn new(
        plan: &Plan,
        streams: Streams,
        join: &Join,
        marker: OwnedFd,
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
        let joins = join.all().map(|path| CString::new(path.into_os_string().into_vec()));
        Ok(Self {
            streams: [
                sys::above_stdio(stdin).map_err(no)?,
                sys::above_stdio(stdout).map_err(no)?,
                sys::above_stdio(stderr).map_err(no)?,
            ],
            ours,
            theirs,
            joins: joins.collect::<Result<_, _>>().map_err(|error| no(error.into()))?,
            marker: sys::above_stdio(marker).map_err(no)?,
            executing_at,
            highest: if sys::needs_highest() { sys::highest_fd() } else { 0 },
        })
    }

    /// For a child that is `born` in the last of what it is to join, or is not.
    pub(super) fn setup<'a>(&'a self, plan: &'a Plan, born: bool) -> Setup<'a> {
        let joins = self.joins.len() - usize::from(born);
        Setup {
            plan,
            argv: Pointers::new(plan.argv.iter().map(CString::as_c_str)),
            envp: Pointers::new(plan.envp.iter().map(CString::as_c_str)),
            streams: [0, 1, 2].map(|index: usize| self.streams[index].as_raw_fd()),
            channel: self.theirs.as_raw_fd(),
            joins: &self.joins[..joins],
            marker: self.marker.as_raw_fd(),
            executing_at: self.executing_at,
            highest: self.highest,
        }
    }

    pub(super) fn waiting(self, plan: &Plan, pid: u32, pidfd: OwnedFd) -> Waiting {
        Waiting {
            pid,
            pidfd,
            channel: self.ours,
            names: Arc::clone(&plan.names),
            joins: self.joins,
            ready: false,
            told: false,
        }
    }
}

/// A pair of sockets for packets, both above the standard streams.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((sys::above_stdio(one)?, sys::above_stdio(other)?))
}

pub(super) fn no_fork(error: io::Error) -> Failure {
    Failure::new(
        Reason::ExecFailed,
        format!(
            "no process for it: {error} (raise RLIMIT_NPROC, the pids limit of our cgroup, or memory)"
        ),
    )
}
