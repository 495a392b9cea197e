//! What an atom is asked to be.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes::{Bytes, Hidden, Secret};
use super::{LABEL, Leftovers, Limits, Stdin};
use crate::lifecycle::{OnInvalid, RetryPolicy};

/// What an atom is asked to be: a program and how to run it.
///
/// Built with [`AtomSpec::command`] and the methods that follow; checked as a
/// whole when an atom is created of it, and never again after that.
///
/// ```
/// use caesium::AtomSpec;
/// use std::time::Duration;
///
/// let spec = AtomSpec::command("make")
///     .args(["-j2", "all"])
///     .workdir("/srv/build")
///     .env("CI", "1")
///     .name("nightly")
///     .timeout(Duration::from_secs(3600));
/// assert_eq!(spec.validate(), Ok(()));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtomSpec {
    program: Bytes,
    args: Vec<Bytes>,
    env: BTreeMap<String, Hidden>,
    secret_env: BTreeMap<String, Secret>,
    env_clear: bool,
    workdir: Option<Bytes>,
    stdin: Stdin,
    name: Option<String>,
    key: Option<String>,
    labels: BTreeMap<String, String>,
    #[serde(with = "crate::text::optional_duration")]
    timeout: Option<Duration>,
    #[serde(with = "crate::text::duration")]
    grace: Duration,
    leftovers: Leftovers,
    log_max: u64,
    limits: Limits,
    nice: Option<i32>,
    oom_score_adj: Option<i32>,
    user: Option<String>,
    group: Option<String>,
    #[serde(with = "crate::text::optional_octal")]
    umask: Option<u32>,
    no_new_privs: bool,
    on_invalid: OnInvalid,
    retry: RetryPolicy,
}

/// How long a stop waits between SIGTERM and SIGKILL unless told otherwise: docker stop's ten seconds.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// How many bytes of output are kept of an atom unless told otherwise: 16 MiB.
pub const DEFAULT_LOG_MAX: u64 = 16 << 20;

/// The most bytes that program, arguments, environment and labels may have
/// together. Half of what Linux grants an execve (`ARG_MAX`, 2 MiB with the
/// usual stack limit), so that a spec that is accepted can also be executed.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// The longest name or label key, in bytes: what a file name may have.
pub const MAX_NAME_BYTES: usize = 255;

/// The smallest log that can be asked for, in bytes.
pub const MIN_LOG_MAX: u64 = 4096;

impl AtomSpec {
    /// A spec that runs `program`: a path, or a name that is looked up in the atom's `PATH`.
    pub fn command(program: impl Into<OsString>) -> Self {
        Self {
            program: Bytes(program.into()),
            args: Vec::new(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            env_clear: false,
            workdir: None,
            stdin: Stdin::Null,
            name: None,
            key: None,
            labels: BTreeMap::new(),
            timeout: None,
            grace: DEFAULT_GRACE,
            leftovers: Leftovers::default(),
            log_max: DEFAULT_LOG_MAX,
            limits: Limits::default(),
            nice: None,
            oom_score_adj: None,
            user: None,
            group: None,
            umask: None,
            no_new_privs: false,
            on_invalid: OnInvalid::default(),
            retry: RetryPolicy::default(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(Bytes(arg.into()));
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| Bytes(arg.into())));
        self
    }

    /// Sets an environment variable. Its value is journaled, and shown as `***`.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.insert(key.into(), Hidden(Bytes(value.into())));
        self
    }

    /// Sets an environment variable whose value is never written to disk.
    ///
    /// A retry by another host than this one cannot have it and is withdrawn.
    #[must_use]
    pub fn secret_env(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.secret_env.insert(key.into(), Secret(Some(value.into())));
        self
    }

    /// Starts from an empty environment instead of the host's.
    #[must_use]
    pub fn env_clear(mut self, clear: bool) -> Self {
        self.env_clear = clear;
        self
    }

    /// Sets the working directory; the host's own when not set.
    #[must_use]
    pub fn workdir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.workdir = Some(Bytes(dir.into().into_os_string()));
        self
    }

    /// Reads standard input from a file; from `/dev/null` when not set.
    #[must_use]
    pub fn stdin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdin = Stdin::File(Bytes(path.into().into_os_string()));
        self
    }

    /// Reads standard input from a pipe that [`Engine::stdin`](crate::Engine::stdin) writes to, until
    /// [`Engine::close_stdin`](crate::Engine::close_stdin) ends it. Nothing else does as long as a host or a keeper is
    /// there; each retry has an empty pipe of its own.
    #[must_use]
    pub fn stdin_pipe(mut self) -> Self {
        self.stdin = Stdin::Pipe;
        self
    }

    /// Gives it a name, by which it can be found. One atom at a time has it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Names the request itself: an engine creates one atom of it, however often it is asked to, across crashes
    /// too, for as long as that atom exists. Formed like a name.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Puts a label on it.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Stops it when it has run this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long it may take to end after SIGTERM; [`DEFAULT_GRACE`] when not set.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What becomes of processes that are left when its leader has exited by itself; they are
    /// killed when not set. A stop ends them all in any case.
    #[must_use]
    pub fn leftovers(mut self, leftovers: Leftovers) -> Self {
        self.leftovers = leftovers;
        self
    }

    /// How many bytes of output are kept, the newest; [`DEFAULT_LOG_MAX`] when not set.
    #[must_use]
    pub fn log_max(mut self, bytes: u64) -> Self {
        self.log_max = bytes;
        self
    }

    /// Limits what it may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets its nice value, −20 (favoured) to 19 (yields to everything); see nice(2). The
    /// host's own when not set. To go below that needs a privilege.
    #[must_use]
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }

    /// Sets how readily the kernel kills it when memory runs out, −1000 (never) to 1000 (first);
    /// see `oom_score_adj` in proc(5). The host's own when not set. To go below that needs a privilege.
    #[must_use]
    pub fn oom_score_adj(mut self, adjustment: i32) -> Self {
        self.oom_score_adj = Some(adjustment);
        self
    }

    /// Runs it as another user: a name or a number. It has that user's groups.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Runs it in this group, a name or a number, instead of its user's own.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets the permission bits, 0 to 0o777, that files which it makes do not get; see umask(2).
    /// The host's own when not set.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Whether no program that it executes may give it more privileges than it has, set-user-ID
    /// ones included; see `PR_SET_NO_NEW_PRIVS` in prctl(2). Off when not set.
    #[must_use]
    pub fn no_new_privs(mut self, on: bool) -> Self {
        self.no_new_privs = on;
        self
    }

    /// What becomes of it when it turns invalid.
    #[must_use]
    pub fn on_invalid(mut self, policy: OnInvalid) -> Self {
        self.on_invalid = policy;
        self
    }

    /// Whether it is tried again.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        // A jitter of -0.0 is none, as 0.0 is, and is to have the same bytes.
        self.retry.backoff.jitter += 0.0;
        self
    }

    /// Checks the whole spec.
    ///
    /// # Errors
    ///
    /// [`SpecError`] names the field, what is wrong with it and what is allowed.
    pub fn validate(&self) -> Result<(), SpecError> {
        check(!self.program.0.is_empty(), "program", "is empty")?;
        no_nul("program", self.get_program())?;
        for arg in self.get_args() {
            no_nul("args", arg)?;
        }
        for key in self.env.keys().chain(self.secret_env.keys()) {
            check(
                !key.is_empty() && !key.contains(['=', '\0']),
                "env",
                "has a name that is empty or contains '=' or NUL",
            )?;
        }
        for (_, value) in self.get_env() {
            no_nul("env", value)?;
        }
        if let Some(key) = self.env.keys().find(|key| self.secret_env.contains_key(*key)) {
            return Err(SpecError::new("env", format!("has {key} both as a secret and openly")));
        }
        for (field, path) in [("workdir", self.get_workdir()), ("stdin", self.get_stdin_file())] {
            if let Some(path) = path {
                check(!path.as_os_str().is_empty(), field, "is empty")?;
                no_nul(field, path.as_os_str())?;
            }
        }
        for (field, name) in [("name", &self.name), ("key", &self.key)] {
            if let Some(name) = name {
                check_name(field, name)?;
            }
        }
        for (key, value) in &self.labels {
            check_name("labels", key)?;
            check(key != LABEL, "labels", "may not set the label that every atom has")?;
            check(!value.contains('\0'), "labels", "contains NUL")?;
        }
        check(self.timeout != Some(Duration::ZERO), "timeout", "is zero")?;
        check(self.log_max >= MIN_LOG_MAX, "log_max", "is below 4096 bytes")?;
        check(self.limits.memory != Some(0), "memory", "is zero")?;
        check(self.limits.pids != Some(0), "pids", "is zero")?;
        if let Some(cpus) = self.limits.cpus {
            check(cpus.is_finite() && cpus > 0.0, "cpus", "is not a number above zero")?;
        }
        self.check_attributes()?;
        check(
            self.retry.max_attempts >= 1,
            "retry",
            "has no attempt at all (max_attempts counts the first one)",
        )?;
        check(
            self.retry.backoff.factor.is_finite() && self.retry.backoff.factor >= 1.0,
            "retry",
            "has a factor below 1",
        )?;
        check(
            (0.0..=1.0).contains(&self.retry.backoff.jitter),
            "retry",
            "has a jitter outside 0–1",
        )?;
        let size = self.size();
        if size > MAX_SPEC_BYTES {
            return Err(SpecError::new(
                "spec",
                format!("has {size} bytes, at most {MAX_SPEC_BYTES} are allowed"),
            ));
        }
        Ok(())
    }

    /// Checks what its processes are given beside limits.
    fn check_attributes(&self) -> Result<(), SpecError> {
        let within =
            |value: Option<i32>, low, high| value.is_none_or(|value| (low..=high).contains(&value));
        check(within(self.nice, -20, 19), "nice", "is outside -20 to 19")?;
        check(
            within(self.oom_score_adj, -1000, 1000),
            "oom_score_adj",
            "is outside -1000 to 1000",
        )?;
        check(
            self.umask.is_none_or(|mask| mask <= 0o777),
            "umask",
            "has other bits than permissions: 0 to 777 (octal) is allowed",
        )?;
        for (field, name) in [("user", &self.user), ("group", &self.group)] {
            if let Some(name) = name {
                check(!name.is_empty(), field, "is empty")?;
                no_nul(field, OsStr::new(name))?;
            }
        }
        Ok(())
    }

    /// Whether both ask for the same; the values of secrets aside, which are not kept.
    pub(crate) fn asks_for_the_same(&self, other: &Self) -> bool {
        if self.secret_env.is_empty() && other.secret_env.is_empty() {
            return self == other;
        }
        let without_values = |spec: &Self| {
            let secret_env =
                spec.secret_env.keys().map(|key| (key.clone(), Secret::default())).collect();
            Self { secret_env, ..spec.clone() }
        };
        without_values(self) == without_values(other)
    }

    /// Bytes of everything of variable length.
    pub(crate) fn size(&self) -> usize {
        let path = |path: Option<&Path>| path.map_or(0, |path| path.as_os_str().len());
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.program.0.len()
            + self.args.iter().map(|arg| arg.0.len() + 8).sum::<usize>()
            + self.get_env().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
            + self.labels.iter().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
            + path(self.get_workdir())
            + path(self.get_stdin_file())
            + self.limits.rlimits.len() * 16
            + text(&self.user)
            + text(&self.group)
    }

    /// The program, as it was asked for.
    pub fn get_program(&self) -> &OsStr {
        self.program.as_os_str()
    }

    /// The arguments, without the program.
    pub fn get_args(&self) -> impl ExactSizeIterator<Item = &OsStr> {
        self.args.iter().map(Bytes::as_os_str)
    }

    /// The variables that are set beside the inherited ones, secret ones included as far as they are known here.
    ///
    /// This is the one way to the values themselves; everything that prints a spec prints `***`.
    pub fn get_env(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        let open = self.env.iter().map(|(key, value)| (key.as_str(), value.0.as_os_str()));
        open.chain(self.get_secrets())
    }

    /// The secret variables whose values this host knows.
    pub(crate) fn get_secrets(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.secret_env.iter().filter_map(|(key, value)| Some((key.as_str(), value.0.as_deref()?)))
    }

    /// The variables that are not secret: what `--show-env` may show.
    pub fn get_open_env(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.env.iter().map(|(key, value)| (key.as_str(), value.0.as_os_str()))
    }

    /// The first secret whose value this host does not know.
    pub fn missing_secret(&self) -> Option<&str> {
        self.secret_env.iter().find(|(_, value)| value.0.is_none()).map(|(key, _)| key.as_str())
    }

    /// Whether it starts from an empty environment.
    pub fn get_env_clear(&self) -> bool {
        self.env_clear
    }

    /// The working directory that was asked for.
    pub fn get_workdir(&self) -> Option<&Path> {
        self.workdir.as_ref().map(|dir| Path::new(dir.as_os_str()))
    }

    /// The file that standard input comes from, if it comes from one.
    pub fn get_stdin_file(&self) -> Option<&Path> {
        match &self.stdin {
            Stdin::File(path) => Some(Path::new(path.as_os_str())),
            Stdin::Null | Stdin::Pipe => None,
        }
    }

    /// Whether standard input is a pipe.
    pub fn get_stdin_pipe(&self) -> bool {
        self.stdin == Stdin::Pipe
    }

    /// Its name.
    pub fn get_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What its caller named the request.
    pub fn get_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The labels that were asked for; an atom also has [`LABEL`](super::LABEL).
    pub fn get_labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Its deadline, counted from its start.
    pub fn get_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How long it may take to end after SIGTERM.
    pub fn get_grace(&self) -> Duration {
        self.grace
    }

    /// What becomes of processes that its leader leaves behind.
    pub fn get_leftovers(&self) -> Leftovers {
        self.leftovers
    }

    /// How many bytes of its output are kept.
    pub fn get_log_max(&self) -> u64 {
        self.log_max
    }

    /// Its limits.
    pub fn get_limits(&self) -> &Limits {
        &self.limits
    }

    /// Its nice value, if another than the host's.
    pub fn get_nice(&self) -> Option<i32> {
        self.nice
    }

    /// How readily it is killed for want of memory, if otherwise than the host.
    pub fn get_oom_score_adj(&self) -> Option<i32> {
        self.oom_score_adj
    }

    /// The user it runs as, if another than the host's.
    pub fn get_user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The group it runs in, if another than its user's.
    pub fn get_group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Its umask, if another than the host's.
    pub fn get_umask(&self) -> Option<u32> {
        self.umask
    }

    /// Whether it can gain no privileges.
    pub fn get_no_new_privs(&self) -> bool {
        self.no_new_privs
    }

    /// What becomes of it when it turns invalid.
    pub fn get_on_invalid(&self) -> OnInvalid {
        self.on_invalid
    }

    /// Whether it is tried again.
    pub fn get_retry(&self) -> &RetryPolicy {
        &self.retry
    }
}

fn check(holds: bool, field: &'static str, problem: &str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { Err(SpecError::new(field, problem)) }
}

fn no_nul(field: &'static str, text: &OsStr) -> Result<(), SpecError> {
    check(!text.as_bytes().contains(&0), field, "contains NUL")
}

fn check_name(field: &'static str, name: &str) -> Result<(), SpecError> {
    check(
        !name.is_empty()
            && name.len() <= MAX_NAME_BYTES
            && !name.contains(char::is_control)
            && name.trim() == name,
        field,
        "must have 1 to 255 bytes, no control characters and no space around it",
    )
}

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct SpecError {
    field: Cow<'static, str>,
    problem: String,
}

impl SpecError {
    pub(crate) fn new(field: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    /// The field that is wrong.
    pub fn field(&self) -> &str {
        &self.field
    }
}
