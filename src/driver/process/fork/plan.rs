//! What a child needs, computed before the fork.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::super::program::{Program, resolve};
use super::super::spawn::{Failure, MARKER};
use super::raw;
use super::sys::Strings;
use super::user::{Credentials, credentials};
use crate::atom::{AtomId, AtomSpec, Resource};
use crate::driver::Surroundings;
use crate::lifecycle::Reason;

/// What a child's report is told in words with.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) program: Program,
    pub(super) workdir: PathBuf,
    pub(super) stdin: Option<PathBuf>,
    pub(super) rlimits: Vec<(Resource, u64)>,
    pub(super) nice: Option<i32>,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) user: String,
}

/// What a child needs: nothing is allocated or looked up after the fork.
#[derive(Debug)]
pub(in crate::driver::process) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Strings,
    pub(super) envp: Strings,
    pub(super) workdir: CString,
    pub(super) stdin: Option<CString>,
    pub(super) rlimits: Vec<(i32, u64)>,
    pub(super) nice: Option<i32>,
    pub(super) umask: Option<u32>,
    /// As text, as the kernel wants it.
    pub(super) oom_score_adj: Option<CString>,
    pub(super) no_new_privs: bool,
    pub(super) credentials: Option<Credentials>,
    /// The soft limit of descriptors, and the hard one that goes with it.
    pub(super) nofile: Option<(u64, u64)>,
    /// Bit `n - 1`: signal `n` stays ignored.
    pub(super) ignored: u64,
    /// What is ignored here, in the same form, where that is known.
    pub(super) inherited: Option<u64>,
    /// The child may have our memory until it executes its program. Not one that becomes another user, whom the kernel then
    /// protects from us and us from him; nor one whose memory is limited, or that is to be the first to die for want of it:
    /// who is killed for that takes all with it who share its memory.
    pub(super) may_share: bool,
    pub(super) names: Names,
}

impl Plan {
    /// The plan for an atom.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the atom cannot be executed as it was asked for. What only the child
    /// can find out, with its own rights, is not known yet.
    pub(in crate::driver::process) fn new(
        atom: AtomId,
        spec: &AtomSpec,
        around: &Surroundings,
    ) -> Result<Self, Failure> {
        let credentials = credentials(spec)?;
        let host = around.workdir();
        let workdir = spec.get_workdir().map_or_else(|| host.to_path_buf(), |dir| host.join(dir));
        let stdin = spec.get_stdin_file().map(|path| workdir.join(path));
        let program = resolve(spec, &workdir, around.get("PATH"))?;
        let argv = [spec.get_program()].into_iter().chain(spec.get_args());
        let argv = argv.map(|arg| c_string(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let limits = spec.get_limits();
        let umask = spec.get_umask().or(around.umask());
        let limited = limits.memory.is_some() || !limits.rlimits.is_empty();
        Ok(Self {
            may_share: raw::CAN_SHARE
                && !limited
                && credentials.is_none()
                && spec.get_oom_score_adj().is_none(),
            program: c_string(program.path.as_os_str().as_bytes())?,
            argv: Strings::from(argv),
            envp: environment(atom, spec, around)?.into(),
            workdir: c_string(workdir.as_os_str().as_bytes())?,
            stdin: stdin.as_ref().map(|path| c_string(path.as_os_str().as_bytes())).transpose()?,
            rlimits: limits.rlimits.iter().map(|(what, value)| (number(*what), *value)).collect(),
            nice: spec.get_nice(),
            umask,
            oom_score_adj: spec
                .get_oom_score_adj()
                .map(|value| c_string(value.to_string().as_bytes()))
                .transpose()?,
            no_new_privs: spec.get_no_new_privs(),
            names: Names {
                program,
                workdir,
                stdin,
                rlimits: limits.rlimits.clone(),
                nice: spec.get_nice(),
                oom_score_adj: spec.get_oom_score_adj(),
                user: describe(spec, credentials.as_ref()),
            },
            credentials,
            nofile: None,
            ignored: 0,
            inherited: None,
        })
    }

    /// Gives the atom a soft limit of descriptors other than ours, who needs more of them.
    pub(in crate::driver::process) fn with_soft_nofile(
        mut self,
        limits: Option<(u64, u64)>,
    ) -> Self {
        self.nofile = limits;
        self
    }

    /// Tells what is ignored here, by [`ignored_signals`](super::ignored_signals): a child need not look for more.
    pub(in crate::driver::process) fn with_inherited(mut self, ignored: u64) -> Self {
        self.inherited = Some(ignored);
        self
    }

    /// Leaves a signal ignored in the atom, as `nohup` does; every other one is reset.
    #[allow(dead_code, reason = "only its tests use it until stops wait without blocking")]
    pub(in crate::driver::process) fn ignoring(mut self, signal: i32) -> Self {
        self.ignored |= 1 << (signal - 1);
        self
    }
}

fn describe(spec: &AtomSpec, credentials: Option<&Credentials>) -> String {
    let Some(Credentials { uid, gid, .. }) = credentials else { return "our own user".to_owned() };
    match (spec.get_user(), spec.get_group()) {
        (Some(user), Some(group)) => format!("user {user} (uid {uid}), group {group} (gid {gid})"),
        (Some(user), None) => format!("user {user} (uid {uid}, gid {gid})"),
        (None, group) => format!("group {} (gid {gid})", group.unwrap_or_default()),
    }
}

fn environment(
    atom: AtomId,
    spec: &AtomSpec,
    around: &Surroundings,
) -> Result<Vec<CString>, Failure> {
    let mut all: BTreeMap<&OsStr, &OsStr> = BTreeMap::new();
    if !spec.get_env_clear() {
        all.extend(around.env());
    }
    all.extend(spec.get_env().map(|(key, value)| (OsStr::new(key), value)));
    let atom = OsString::from(atom.to_string());
    all.insert(OsStr::new(MARKER), &atom);
    let entry = |(key, value): (&OsStr, &OsStr)| {
        let mut entry = key.to_owned().into_vec();
        entry.push(b'=');
        entry.extend_from_slice(value.as_bytes());
        c_string(&entry)
    };
    all.into_iter().map(entry).collect()
}

/// A specification was checked; what a host sends was not.
fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| {
        Failure::new(Reason::ExecFailed, "an argument, a path or a variable contains NUL")
    })
}

/// The kernel's number of a resource.
fn number(resource: Resource) -> i32 {
    let number = match resource {
        Resource::As => libc::RLIMIT_AS,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Fsize => libc::RLIMIT_FSIZE,
        Resource::Memlock => libc::RLIMIT_MEMLOCK,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::Nofile => libc::RLIMIT_NOFILE,
        Resource::Nproc => libc::RLIMIT_NPROC,
        Resource::Rtprio => libc::RLIMIT_RTPRIO,
        Resource::Rttime => libc::RLIMIT_RTTIME,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING,
        Resource::Stack => libc::RLIMIT_STACK,
    };
    number as i32
}
