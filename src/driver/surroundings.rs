//! What an atom has from who asked for it, beside its spec.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::kernel_file;
use crate::atom::Bytes;

/// What an atom has from who asked for it, beside its spec: environment, working directory and umask of that process.
///
/// A value, cheap to clone. The values of the environment are not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings(Arc<Parts>);

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    env: Vec<(Bytes, Bytes)>,
    workdir: Bytes,
    umask: Option<u32>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&OsStr> = self.env().map(|(name, _)| name).collect();
        let mut parts = f.debug_struct("Surroundings");
        parts.field("env", &names).field("workdir", &self.workdir()).field("umask", &self.umask());
        parts.finish()
    }
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    ///
    /// When its working directory has gone.
    pub fn here() -> io::Result<Self> {
        let status = kernel_file::read_text("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
        Ok(Self::new(env::vars_os(), env::current_dir()?, umask))
    }

    /// An environment, a working directory, and the bits of an umask; that of whoever starts
    /// the atom when it is `None`, and wherever a host supervises by itself.
    pub fn new(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        workdir: impl Into<PathBuf>,
        umask: Option<u32>,
    ) -> Self {
        let env = env.into_iter().map(|(key, value)| (Bytes(key), Bytes(value))).collect();
        let workdir = Bytes(workdir.into().into_os_string());
        Self(Arc::new(Parts { env, workdir, umask }))
    }

    pub(crate) fn env(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The value of one variable.
    pub(crate) fn get(&self, key: &str) -> Option<&OsStr> {
        self.env().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    pub(crate) fn workdir(&self) -> &Path {
        Path::new(self.0.workdir.as_os_str())
    }

    pub(crate) fn umask(&self) -> Option<u32> {
        self.0.umask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let env = vec![("TOKEN".into(), "hightide".into())];
        let around = Surroundings::new(env, "/srv", Some(0o22));
        let shown = format!("{around:?}");
        assert!(
            shown.contains("TOKEN") && shown.contains("/srv") && !shown.contains("hightide"),
            "{shown}"
        );
    }
}
