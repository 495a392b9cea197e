//! What the suite needs to know of processes: acts as programs, and who supervises them.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its part")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use caesium::atom::Limits;
use caesium::driver::memory::Act;
use caesium::driver::process::Supervision;
use caesium::engine::LogsRequest;
use caesium::engine::conformance::Fixture;
use caesium::lifecycle::Reason;
use caesium::log::LogItem;
use caesium::{Atom, AtomSpec, Engine, EngineOptions, ProcessEngine};

pub struct Processes {
    pub dir: tempfile::TempDir,
    by: By,
}

/// Who supervises, and what contains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum By {
    Host,
    KeeperWithCgroups,
    KeeperWithReapers,
}

impl Processes {
    pub fn new(by: By) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), by }
    }

    pub fn options(&self) -> EngineOptions {
        let keeper = || {
            let options = ProcessEngine::options().supervision(Supervision::Keeper);
            options.keeper_program(env!("CARGO_BIN_EXE_caesium"))
        };
        match self.by {
            By::Host => ProcessEngine::options().supervision(Supervision::InHost),
            By::KeeperWithCgroups => keeper(),
            By::KeeperWithReapers => keeper().cgroups(false),
        }
    }

    /// Where there is no store yet.
    pub fn store(&self) -> PathBuf {
        tempfile::tempdir_in(self.dir.path()).unwrap().keep().join("store")
    }

    /// A file that may be executed, and that the kernel cannot make sense of.
    fn garbage(&self) -> PathBuf {
        let path = self.dir.path().join("garbage");
        if !path.exists() {
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(b"\0neither a script nor a binary").unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }
}

fn sh(script: &str) -> AtomSpec {
    AtomSpec::command("sh").args(["-c", script])
}

impl Fixture for Processes {
    fn engine(&self) -> Box<dyn Engine> {
        Box::new(self.options().open(self.store()).unwrap())
    }

    fn spec(&self, act: &Act) -> Option<AtomSpec> {
        let spec = match act {
            Act::Exit(code) => sh(&format!("exit {code}")),
            // No core files in the working directory of whoever runs the tests.
            Act::Signal(signal) => sh(&format!("ulimit -c 0; kill -{signal} $$; sleep 100")),
            Act::Linger => AtomSpec::command("sleep").arg("1000"),
            Act::IgnoreTerm => sh("trap '' TERM; echo ready; while :; do sleep 1000; done"),
            Act::ExitOnTerm(code) => {
                sh(&format!("trap 'exit {code}' TERM; echo ready; sleep 1000 & wait"))
            }
            Act::Print { out, err } => {
                sh("printf %s \"$1\"; printf %s \"$2\" >&2").args(["sh", out, err])
            }
            Act::Cat => AtomSpec::command("cat").stdin_pipe(),
            Act::FailToStart(Reason::ExecNotFound) => AtomSpec::command("/nonexistent/program"),
            Act::FailToStart(Reason::ExecPermission) => AtomSpec::command("/etc/passwd"),
            Act::FailToStart(Reason::ExecFailed) => AtomSpec::command(self.garbage()),
            Act::FailToStart(Reason::BadWorkdir) => sh("exit 0").workdir("/nonexistent"),
            Act::FailToStart(Reason::BadStdin) => sh("exit 0").stdin_file("/nonexistent"),
            Act::FailToStart(Reason::BadUser) => sh("exit 0").user("no-such-user-here"),
            // The keeper sets it.
            Act::FailToStart(Reason::LimitUnsupported) if self.by == By::KeeperWithCgroups => {
                return None;
            }
            Act::FailToStart(Reason::LimitUnsupported) => {
                sh("exit 0").limits(Limits { memory: Some(1 << 30), ..Limits::default() })
            }
            // What the kernel does not refuse in this way, and acts that are not known here yet.
            Act::FailToStart(_) | _ => return None,
        };
        Some(spec.grace(Duration::from_millis(200)))
    }

    fn ready(&self, engine: &dyn Engine, atom: &Atom) {
        if atom.spec().get_args().any(|arg| arg.to_string_lossy().contains("echo ready")) {
            let first = engine.logs(&LogsRequest::from(atom.id()).follow()).unwrap().next();
            assert!(matches!(first, Some(Ok(LogItem::Chunk(_)))), "{first:?}");
        }
    }
}
