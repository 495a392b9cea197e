//! Failing calls of the real storage, sled's among them: each call of each kind in turn.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// A library that is preloaded into hosts: see `shim.c`.
#[derive(Debug, Clone)]
pub(super) struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Builds it, once; in words what this machine lacks for it.
    pub(super) fn build() -> Result<Self, String> {
        static BUILT: OnceLock<Result<(TempDir, PathBuf), String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let library = dir.path().join("shim.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/shim.c");
            let output = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
                .args([library.as_os_str(), source.as_os_str()])
                .args(["-ldl"])
                .output()
                .map_err(|error| format!("no C compiler ({error})"))?;
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok((dir, library)) } else { Err(errors) }
        });
        match built {
            Ok((_, library)) => Ok(Self { library: library.clone() }),
            Err(error) => Err(error.clone()),
        }
    }

    fn load(&self, command: &mut Command, calls: &str, how: &str) {
        let dir = command.get_envs().find(|(key, _)| *key == super::work::DIR).unwrap().1;
        let dir = dir.unwrap().to_owned();
        command.env("LD_PRELOAD", &self.library).env("TORTURE_DIR", dir);
        command.env("TORTURE_CALLS", calls).env("TORTURE_HOW", how);
    }

    /// Leaves these calls out, and says that they were made.
    pub(super) fn skip(&self, command: &mut Command, calls: &str) {
        self.load(command, calls, "skip");
    }
}
