//! What an atom is asked to be.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bytes::{Bytes, Hidden, Secret};
use super::{LABEL, Limits};
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
    stdin: Option<Bytes>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    #[serde(with = "crate::text::optional_duration")]
    timeout: Option<Duration>,
    #[serde(with = "crate::text::duration")]
    grace: Duration,
    log_max: u64,
    limits: Limits,
    user: Option<String>,
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
            stdin: None,
            name: None,
            labels: BTreeMap::new(),
            timeout: None,
            grace: DEFAULT_GRACE,
            log_max: DEFAULT_LOG_MAX,
            limits: Limits::default(),
            user: None,
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
        self.stdin = Some(Bytes(path.into().into_os_string()));
        self
    }

    /// Gives it a name, by which it can be found. One atom at a time has it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
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

    /// Runs it as another user: a name or a number.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
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
        for (field, path) in [("workdir", &self.workdir), ("stdin", &self.stdin)] {
            if let Some(path) = path {
                check(!path.0.is_empty(), field, "is empty")?;
                no_nul(field, &path.0)?;
            }
        }
        if let Some(name) = &self.name {
            check_name("name", name)?;
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
        check(self.user.as_deref() != Some(""), "user", "is empty")?;
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

    /// Bytes of everything of variable length.
    fn size(&self) -> usize {
        let text = |value: &Option<Bytes>| value.as_ref().map_or(0, |value| value.0.len());
        self.program.0.len()
            + self.args.iter().map(|arg| arg.0.len() + 8).sum::<usize>()
            + self.get_env().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
            + self.labels.iter().map(|(key, value)| key.len() + value.len() + 16).sum::<usize>()
            + text(&self.workdir)
            + text(&self.stdin)
            + self.limits.rlimits.len() * 16
            + self.user.as_ref().map_or(0, String::len)
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

    /// The file that standard input comes from.
    pub fn get_stdin_file(&self) -> Option<&Path> {
        self.stdin.as_ref().map(|path| Path::new(path.as_os_str()))
    }

    /// Its name.
    pub fn get_name(&self) -> Option<&str> {
        self.name.as_deref()
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

    /// How many bytes of its output are kept.
    pub fn get_log_max(&self) -> u64 {
        self.log_max
    }

    /// Its limits.
    pub fn get_limits(&self) -> &Limits {
        &self.limits
    }

    /// The user it runs as, if another than the host's.
    pub fn get_user(&self) -> Option<&str> {
        self.user.as_deref()
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
    field: &'static str,
    problem: String,
}

impl SpecError {
    fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// The field that is wrong.
    pub fn field(&self) -> &str {
        self.field
    }
}
