//! Starting a process: posix_spawn and nothing else, so that the host is never forked.
//!
//! std takes that path as long as there is no `pre_exec`, no user, and an
//! absolute path to the program (with a bare name, a changed `PATH` or an
//! emptied environment would make it fork).

use std::env;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fcntl_setfl, open};

use super::program::{classify, resolve};
use crate::atom::{AtomId, AtomSpec, Leftovers};
use crate::driver::Surroundings;
use crate::lifecycle::Reason;

/// The environment variable that every process of an atom is started with: its atom's id.
///
/// By it a process is found again whose host died before it could write down the pid.
pub const MARKER: &str = "CAESIUM_ATOM";

/// Where a bare program name is looked up when the atom has no `PATH`: what most shells assume then.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The marker as it stands in an environment.
pub(super) fn marker_entry(atom: AtomId) -> Vec<u8> {
    format!("{MARKER}={atom}").into_bytes()
}

/// Why a program was not executed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The atom's ends of its streams.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Starts the program; gives a child that nobody has waited for.
///
/// `around` is what it has of who asked for it, if that is not this host. The umask is this host's all the
/// same. `about_to` is called when everything else has been checked.
///
/// # Errors
///
/// [`Failure`] when it certainly was not executed.
pub(super) fn spawn(
    atom: AtomId,
    spec: &AtomSpec,
    around: Option<Surroundings>,
    streams: Streams,
    about_to: impl FnOnce() -> io::Result<()>,
) -> Result<Child, Failure> {
    check_limits(spec)?;
    check_user(spec)?;
    let workdir = workdir(spec)?;
    let stdin = match spec.get_stdin_file() {
        None => streams.stdin,
        Some(path) => {
            // It keeps the place of the one descriptor that this needs.
            drop(streams.stdin);
            open_stdin(&workdir.join(path))?
        }
    };
    let host_path = match &around {
        Some(around) => around.get("PATH").map(ToOwned::to_owned),
        None => env::var_os("PATH"),
    };
    let program = resolve(spec, &workdir, host_path.as_deref())?;
    let mut command = Command::new(&program.path);
    command
        .arg0(spec.get_program())
        .args(spec.get_args())
        .current_dir(&workdir)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(streams.stdout))
        .stderr(Stdio::from(streams.stderr))
        .process_group(0);
    match &around {
        None if !spec.get_env_clear() => {}
        Some(around) if !spec.get_env_clear() => {
            command.env_clear().envs(around.env());
        }
        Some(_) | None => {
            command.env_clear();
        }
    }
    command.envs(spec.get_env()).env(MARKER, atom.to_string());
    about_to().map_err(|error| {
        Failure::new(Reason::ExecFailed, format!("cannot write down that it starts: {error}"))
    })?;
    command.spawn().map_err(|error| match check_workdir(&workdir) {
        // It may have gone since it was checked; posix_spawn does not tell which path it means.
        Err(failure) => failure,
        Ok(()) => classify(&program, &error),
    })
}

fn check_limits(spec: &AtomSpec) -> Result<(), Failure> {
    let limits = spec.get_limits();
    let asked = [
        ("memory", limits.memory.is_some()),
        ("pids", limits.pids.is_some()),
        ("cpus", limits.cpus.is_some()),
        ("rlimits", !limits.rlimits.is_empty()),
        ("nice", spec.get_nice().is_some()),
        ("oom_score_adj", spec.get_oom_score_adj().is_some()),
        ("group", spec.get_group().is_some()),
        ("umask", spec.get_umask().is_some()),
        ("no_new_privs", spec.get_no_new_privs()),
        ("leftovers=keep", spec.get_leftovers() == Leftovers::Keep),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(Failure::new(
            Reason::LimitUnsupported,
            format!(
                "{name} cannot be had from a host that supervises by itself: that needs the keeper"
            ),
        )),
        None => Ok(()),
    }
}

fn check_user(spec: &AtomSpec) -> Result<(), Failure> {
    let Some(user) = spec.get_user() else { return Ok(()) };
    let ours = rustix::process::geteuid().as_raw();
    let uid = match user.parse::<u32>() {
        Ok(uid) => Some(uid),
        Err(_) => uid_of(user),
    };
    match uid {
        Some(uid) if uid == ours => Ok(()),
        Some(uid) => Err(Failure::new(
            Reason::BadUser,
            format!(
                "user {user} (uid {uid}) is not the host's own (uid {ours}): to become another one needs the keeper"
            ),
        )),
        None => {
            Err(Failure::new(Reason::BadUser, format!("there is no user {user} in /etc/passwd")))
        }
    }
}

/// The uid of a user of this machine. Of users of a directory service only the number is understood.
fn uid_of(name: &str) -> Option<u32> {
    let passwd = fs::read(Path::new("/etc/passwd")).ok()?;
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        if fields.next()? != name.as_bytes() {
            return None;
        }
        std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
    })
}

/// The working directory, as an absolute path, checked.
fn workdir(spec: &AtomSpec) -> Result<PathBuf, Failure> {
    let host = || {
        env::current_dir().map_err(|error| {
            Failure::new(Reason::BadWorkdir, format!("the host's own working directory: {error}"))
        })
    };
    let dir = match spec.get_workdir() {
        Some(dir) if dir.is_absolute() => dir.to_path_buf(),
        Some(dir) => host()?.join(dir),
        None => host()?,
    };
    check_workdir(&dir)?;
    Ok(dir)
}

fn check_workdir(dir: &Path) -> Result<(), Failure> {
    let bad = |why: &dyn std::fmt::Display| {
        Failure::new(Reason::BadWorkdir, format!("working directory {}: {why}", dir.display()))
    };
    let kind = fs::metadata(dir).map_err(|error| bad(&error))?;
    if !kind.is_dir() {
        return Err(bad(&"not a directory"));
    }
    accessat(CWD, dir, Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| bad(&error))
}

fn open_stdin(path: &Path) -> Result<OwnedFd, Failure> {
    let bad = |why: &dyn std::fmt::Display| {
        Failure::new(Reason::BadStdin, format!("standard input {}: {why}", path.display()))
    };
    // Without blocking: a FIFO without a writer would hold up every atom.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file: fs::File = open(path, flags, Mode::empty()).map_err(|error| bad(&error))?.into();
    if file.metadata().map_err(|error| bad(&error))?.is_dir() {
        return Err(bad(&"is a directory"));
    }
    fcntl_setfl(&file, OFlags::empty()).map_err(|error| bad(&error))?;
    Ok(file.into())
}
