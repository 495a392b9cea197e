//! Finding the program of an atom, and saying why it cannot be executed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::spawn::{DEFAULT_PATH, Failure};
use crate::atom::AtomSpec;
use crate::lifecycle::Reason;

/// A program that was found.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Its absolute path.
    pub(super) path: PathBuf,
    /// How it may be named in what is kept and shown.
    pub(super) shown: String,
}

/// The absolute path of the program, looked up in `host_path` unless the atom has a `PATH` of its own.
pub(super) fn resolve(
    spec: &AtomSpec,
    workdir: &Path,
    host_path: Option<&OsStr>,
) -> Result<Program, Failure> {
    let program = spec.get_program();
    if program.as_bytes().contains(&b'/') {
        // An absolute path replaces the directory.
        let path = workdir.join(program);
        let shown = path.display().to_string();
        return Ok(Program { path, shown });
    }
    let search = search_path(spec, host_path);
    let mut refused = None;
    for dir in search.value().as_bytes().split(|byte| *byte == b':') {
        let path = workdir.join(OsStr::from_bytes(dir)).join(program);
        let Ok(kind) = fs::metadata(&path) else { continue };
        let shown = search.show(program, &path);
        if kind.is_file() && accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS).is_ok() {
            return Ok(Program { path, shown });
        }
        refused.get_or_insert(shown);
    }
    match refused {
        Some(shown) => {
            Err(Failure::new(Reason::ExecPermission, format!("{shown} is not an executable file")))
        }
        None => Err(Failure::new(
            Reason::ExecNotFound,
            match &search {
                SearchPath::Given(_) => {
                    format!("no {} {IN_GIVEN_PATH}", program.display())
                }
                SearchPath::Known(path) => {
                    format!("no {} in PATH ({})", program.display(), path.display())
                }
            },
        )),
    }
}

/// Said instead of a `PATH` that is the atom's own.
const IN_GIVEN_PATH: &str = "in the PATH that the atom was given";

/// The `PATH` that an atom will have.
enum SearchPath<'a> {
    /// From its specification. Values from there may be secrets: neither it nor a
    /// part of it is ever told to anybody.
    Given(&'a OsStr),
    /// The host's own, or the default.
    Known(&'a OsStr),
}

impl SearchPath<'_> {
    fn value(&self) -> &OsStr {
        match self {
            Self::Given(path) | Self::Known(path) => path,
        }
    }

    /// How a program that was found at `path` may be named.
    fn show(&self, program: &OsStr, path: &Path) -> String {
        match self {
            Self::Given(_) => format!("{} {IN_GIVEN_PATH}", program.display()),
            Self::Known(_) => path.display().to_string(),
        }
    }
}

fn search_path<'a>(spec: &'a AtomSpec, host_path: Option<&'a OsStr>) -> SearchPath<'a> {
    if let Some((_, given)) = spec.get_env().find(|(key, _)| *key == "PATH") {
        return SearchPath::Given(given);
    }
    let inherited = host_path.filter(|_| !spec.get_env_clear());
    SearchPath::Known(inherited.unwrap_or(OsStr::new(DEFAULT_PATH)))
}

/// What stood in the way, from the error of executing it.
pub(super) fn classify(program: &Program, error: &io::Error) -> Failure {
    let Program { path: program, shown } = program;
    match error.raw_os_error() {
        Some(libc::ENOENT) if program.exists() => Failure::new(
            Reason::ExecNotFound,
            format!("{shown} is there, its interpreter{} is not", interpreter(program)),
        ),
        Some(libc::ENOENT | libc::ENOTDIR) => {
            Failure::new(Reason::ExecNotFound, format!("{shown}: {error}"))
        }
        Some(libc::EACCES | libc::EPERM) if program.is_dir() => {
            Failure::new(Reason::ExecPermission, format!("{shown} is a directory"))
        }
        Some(libc::EACCES | libc::EPERM) => {
            Failure::new(Reason::ExecPermission, format!("{shown}: {error}"))
        }
        Some(libc::ENOEXEC) => Failure::new(
            Reason::ExecFailed,
            format!(
                "{shown} is neither a program of this machine nor a script that begins with #!"
            ),
        ),
        Some(libc::E2BIG) => Failure::new(
            Reason::ExecFailed,
            format!("{shown}: arguments and environment are too large: {error}"),
        ),
        Some(libc::EAGAIN | libc::ENOMEM) => Failure::new(
            Reason::ExecFailed,
            format!("{shown}: processes or memory have run out: {error}"),
        ),
        _ => Failure::new(Reason::ExecFailed, format!("{shown}: {error}")),
    }
}

/// The interpreter that a script names, with a space before it.
fn interpreter(program: &Path) -> String {
    use std::io::Read;
    // Linux reads no more of the first line than this.
    let mut head = Vec::new();
    let read = fs::File::open(program).and_then(|file| file.take(256).read_to_end(&mut head));
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match (read, line.strip_prefix(b"#!")) {
        (Ok(_), Some(line)) => {
            let line = String::from_utf8_lossy(line);
            format!(" {}", line.trim())
        }
        (Ok(_), None) | (Err(_), _) => String::new(),
    }
}
