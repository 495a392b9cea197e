//! The host's way to its store's keeper: found, or started.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::daemon::{KEEPER, NAME, SOCKET};
use super::wire::{Hello, Purpose};
use crate::crash;
use crate::driver::DriverError;
use crate::socket::short_path;

/// Between two tries, while one keeper leaves and another one comes.
const PAUSE: Duration = Duration::from_millis(2);

/// Whether [`caesium::init`](crate::init()) was called: then this program can be a keeper.
static CAN_SERVE: AtomicBool = AtomicBool::new(false);

/// Notes that this program can be a keeper.
pub(crate) fn can_serve() {
    CAN_SERVE.store(true, Ordering::Relaxed);
}

/// Whether this program can be a keeper.
pub(in crate::driver::process) fn is_served() -> bool {
    CAN_SERVE.load(Ordering::Relaxed)
}

/// How to come to a keeper.
#[derive(Debug)]
pub(in crate::driver::process) struct Launcher {
    /// Where its socket is.
    home: PathBuf,
    atoms: PathBuf,
    program: PathBuf,
    purpose: Purpose,
    patience: Duration,
}

impl Launcher {
    /// Finds the program to start; nothing is started yet.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(in crate::driver::process) fn new(
        home: &Path,
        atoms: &Path,
        given: Option<PathBuf>,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<Self, DriverError> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| DriverError::Io {
                what: format!("cannot tell where {} is", path.display()),
                source,
            })
        };
        let program = match given {
            Some(given) => absolute(&given)?,
            None => find_program()?,
        };
        Ok(Self { home: absolute(home)?, atoms: absolute(atoms)?, program, purpose, patience })
    }

    /// Where each atom has a directory.
    pub(super) fn atoms(&self) -> &Path {
        &self.atoms
    }

    /// How long a keeper may take to answer.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// There was a keeper, and there is none.
    pub(super) fn gone(&self) -> DriverError {
        let source =
            io::Error::new(ErrorKind::BrokenPipe, "it died, and no other one could be started");
        DriverError::Io { what: self.shown(), source }
    }

    /// There is a keeper that does not answer.
    pub(super) fn silent(&self) -> DriverError {
        DriverError::Io { what: self.shown(), source: io::Error::new(ErrorKind::TimedOut, SILENT) }
    }

    fn shown(&self) -> String {
        format!(
            "the keeper of {} (program {}; what it says is in keeper.log there)",
            self.home.display(),
            self.program.display()
        )
    }

    /// Whether a keeper seems to be there, without asking it.
    pub(super) fn has_keeper(&self) -> bool {
        self.home.join(SOCKET).exists()
    }

    /// A connection to the keeper, which is started when there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not answer.
    pub(super) fn connect(&self) -> Result<UnixStream, DriverError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let error = match self.try_connect() {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let passing = matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            );
            if !passing || Instant::now() >= deadline {
                return Err(DriverError::Io { what: self.shown(), source: error });
            }
            pause();
        }
    }

    fn try_connect(&self) -> io::Result<UnixStream> {
        let mut stream = match self.find() {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
            {
                self.start()?
            }
            Err(error) => return Err(error),
        };
        let theirs = greet(&mut stream, self.purpose, self.patience)?;
        if Hello::new(self.purpose).common(theirs).is_some() {
            return Ok(stream);
        }
        tracing::info!(
            newest = theirs.newest,
            "the keeper speaks another protocol; it leaves the atoms to one of this version"
        );
        let mut stream = self.find()?;
        greet(&mut stream, Purpose::Leave, self.patience)?;
        // Until it has gone.
        let _ = stream.read(&mut [0]);
        Err(ErrorKind::UnexpectedEof.into())
    }

    fn find(&self) -> io::Result<UnixStream> {
        let dir = File::open(&self.home)?;
        UnixStream::connect(short_path(&dir, SOCKET))
    }

    /// Starts a keeper, by posix_spawn: with an absolute path and no changed
    /// identity, std does not fork.
    fn start(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(&self.program)
            .arg0(NAME)
            .arg(&self.atoms)
            .env(KEEPER, &self.home)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot start {}: {error}", self.program.display()),
                )
            })?;
        // It goes on in a child of its own and ends at once. ECHILD: the host ignores SIGCHLD, or has reaped it.
        let _ = child.wait();
        crash::point("host/keeper-is-spawned");
        Ok(ours)
    }
}

/// One keeper is leaving and has let go of us, or a new one found it still there: nobody tells when that is over.
#[expect(clippy::disallowed_methods, reason = "bounded, and only while one keeper follows another")]
fn pause() {
    thread::sleep(PAUSE);
}

const SILENT: &str =
    "it does not answer (is it stopped? ending it with SIGKILL leaves its atoms alone)";

/// Says what is wanted, and hears what the keeper speaks.
fn greet(stream: &mut UnixStream, purpose: Purpose, patience: Duration) -> io::Result<Hello> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&Hello::new(purpose).to_bytes())?;
    let mut theirs = [0; Hello::BYTES];
    stream.read_exact(&mut theirs).map_err(|error| {
        if error.kind() != ErrorKind::WouldBlock {
            return error;
        }
        io::Error::new(ErrorKind::TimedOut, SILENT)
    })?;
    stream.set_read_timeout(None)?;
    Hello::from_bytes(&theirs)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "what answers is no keeper"))
}

/// This very program if it called `init`, else a `caesium` beside it or on the PATH.
fn find_program() -> Result<PathBuf, DriverError> {
    if is_served() {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    let here = env::current_exe().ok();
    let beside = here.as_deref().and_then(Path::parent);
    // Cargo puts tests and examples one directory below the programs.
    let above = beside
        .filter(|dir| {
            dir.file_name().is_some_and(|name| name == OsStr::new("deps") || name == "examples")
        })
        .and_then(Path::parent);
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|dir| dir.is_absolute());
    beside
        .into_iter()
        .chain(above)
        .map(Path::to_path_buf)
        .chain(on_path)
        .map(|dir| dir.join("caesium"))
        .find(|program| program.is_file())
        .ok_or_else(|| DriverError::Io {
            what: "no program to be the keeper: call caesium::init() first in main, install \
                   `caesium` beside this program or on its PATH, or choose Supervision::InHost"
                .to_owned(),
            source: ErrorKind::NotFound.into(),
        })
}
