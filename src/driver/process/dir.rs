//! What an atom has on disk: `atoms/<id>/`.
//!
//! | name | what |
//! |---|---|
//! | `out`, `err` | the FIFOs that it prints to |
//! | `log.N` | what it printed |
//! | `prepared` | boot and pid namespace; called `spawned` from just before its start |
//! | `spawned` | the same, and after that the handle of the run |
//! | `term` | our SIGTERM has reached it |
//! | `kill` | it was sent our SIGKILL |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bincode::Options;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};

use super::identity::{Identity, Place};
use super::log::{LogShared, LogWriter};
use crate::atom::AtomId;
use crate::driver::DriverError;
use crate::log::Stream;

const PREPARED: &str = "prepared";
const SPAWNED: &str = "spawned";

/// What we did to an atom, kept for a later host: it tells a stop that worked from an ending by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Our SIGTERM has reached it.
    Term,
    /// It was sent our SIGKILL.
    Kill,
}

impl Mark {
    const fn name(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Kill => "kill",
        }
    }
}

/// Boot id and inode of the pid namespace, which begin the marker file.
const PLACE_BYTES: usize = 16 + 8;

/// The directory of one atom.
#[derive(Debug, Clone)]
pub(super) struct AtomDir {
    path: PathBuf,
}

/// What the marker file tells of a start that was not journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    /// There is no directory, or no marker that can be read.
    Nothing,
    /// The start was not begun.
    Prepared(Place),
    /// The start was begun; and the identity, when it got that far.
    Spawned(Place, Option<Identity>),
}

/// What is set aside for an atom before it is journaled.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) dir: AtomDir,
    /// Our ends of the FIFOs, which do not block.
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    /// The atom's ends. It holds them for reading too, so that nobody's death breaks the pipe.
    pub(super) child_out: OwnedFd,
    pub(super) child_err: OwnedFd,
    /// `/dev/null`: the atom's standard input, and a place kept for its pidfd.
    pub(super) slot: OwnedFd,
    pub(super) log: LogWriter,
}

impl AtomDir {
    pub(super) fn new(atoms: &Path, atom: AtomId) -> Self {
        Self { path: atoms.join(atom.to_string()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates it with all that a start needs.
    ///
    /// # Errors
    ///
    /// When something has run out or is refused; nothing is left behind.
    pub(super) fn prepare(
        &self,
        place: Place,
        log_max: u64,
        shared: Arc<LogShared>,
    ) -> Result<Prepared, DriverError> {
        DirBuilder::new().mode(0o700).create(&self.path).map_err(|e| trouble(&self.path, e))?;
        self.fill(place, log_max, shared).inspect_err(|_| self.discard())
    }

    /// Takes back what `fill` made, without a descriptor: what it failed for may be the want of one.
    fn discard(&self) {
        for stream in Stream::ALL {
            let _ = fs::remove_file(self.fifo(*stream));
        }
        let _ = fs::remove_file(self.path.join(PREPARED));
        if fs::remove_dir(&self.path).is_err() {
            self.remove();
        }
    }

    fn fill(
        &self,
        place: Place,
        log_max: u64,
        shared: Arc<LogShared>,
    ) -> Result<Prepared, DriverError> {
        let marker = self.path.join(PREPARED);
        let mut text = Vec::with_capacity(PLACE_BYTES);
        text.extend_from_slice(&place.boot);
        text.extend_from_slice(&place.pid_ns.to_le_bytes());
        private()
            .write(true)
            .create_new(true)
            .open(&marker)
            .and_then(|mut file| file.write_all(&text))
            .map_err(|e| trouble(&marker, e))?;
        for stream in Stream::ALL {
            let path = self.fifo(*stream);
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).map_err(|e| trouble(&path, e.into()))?;
        }
        let end = |stream, flags| {
            let path = self.fifo(stream);
            open(&path, flags, Mode::empty()).map_err(|e| trouble(&path, e.into()))
        };
        let null = Path::new("/dev/null");
        Ok(Prepared {
            dir: self.clone(),
            out: end(Stream::Stdout, READ_END)?,
            err: end(Stream::Stderr, READ_END)?,
            child_out: end(Stream::Stdout, OFlags::RDWR | OFlags::CLOEXEC)?,
            child_err: end(Stream::Stderr, OFlags::RDWR | OFlags::CLOEXEC)?,
            slot: File::open(null).map_err(|e| trouble(null, e))?.into(),
            log: LogWriter::create(&self.path, log_max, shared)
                .map_err(|e| trouble(&self.path, e))?,
        })
    }

    fn fifo(&self, stream: Stream) -> PathBuf {
        self.path.join(match stream {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
        })
    }

    /// Opens our end of a FIFO again, after another host held it.
    pub(super) fn open_fifo(&self, stream: Stream) -> io::Result<OwnedFd> {
        Ok(open(self.fifo(stream), READ_END, Mode::empty())?)
    }

    /// Takes away what only a live atom needs.
    pub(super) fn remove_fifos(&self) {
        for stream in Stream::ALL {
            // A FIFO that stays does no harm: the directory goes with the atom.
            let _ = fs::remove_file(self.fifo(*stream));
        }
    }

    /// Says that a start is about to be tried. A rename: it needs no room on the disk.
    pub(super) fn mark_spawned(&self) -> io::Result<()> {
        fs::rename(self.path.join(PREPARED), self.path.join(SPAWNED))
    }

    /// Says that the start has certainly failed.
    pub(super) fn unmark_spawned(&self) {
        // Without it a reopening looks for a process, and finds none.
        let _ = fs::rename(self.path.join(SPAWNED), self.path.join(PREPARED));
    }

    /// Says which process it is, for a host that dies before this is journaled.
    pub(super) fn record(&self, identity: Identity) -> io::Result<()> {
        private().append(true).open(self.path.join(SPAWNED))?.write_all(&identity.to_handle())
    }

    /// Writes down what was just done to it.
    pub(super) fn mark(&self, mark: Mark) {
        let path = self.path.join(mark.name());
        let made = private().write(true).create(true).truncate(false).open(&path);
        if let Err(error) = made {
            // Only a host that is killed now misses it, and then calls a stop a plain exit.
            tracing::warn!(path = %path.display(), %error, "cannot write down a signal that was sent");
        }
    }

    /// Whether that was done to it, by this host or an earlier one.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.path.join(mark.name()).exists()
    }

    /// What the marker file tells.
    pub(super) fn trace(&self) -> Trace {
        if let Some((place, rest)) = read_marker(&self.path.join(SPAWNED)) {
            return Trace::Spawned(place, Identity::from_handle(&rest));
        }
        match read_marker(&self.path.join(PREPARED)) {
            Some((place, _)) => Trace::Prepared(place),
            None => Trace::Nothing,
        }
    }

    /// Removes it with everything in it.
    pub(super) fn remove(&self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "cannot remove an atom's directory");
            }
        }
    }
}

/// How our end of a FIFO is opened.
const READ_END: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn read_marker(path: &Path) -> Option<(Place, Vec<u8>)> {
    let bytes = fs::read(path).ok()?;
    let place = bytes.get(..PLACE_BYTES)?;
    let place = bincode::options().with_fixint_encoding().deserialize(place).ok()?;
    Some((place, bytes[PLACE_BYTES..].to_vec()))
}

/// Names what has run out, and what to do about it.
pub(super) fn trouble(path: &Path, source: io::Error) -> DriverError {
    let (what, hint) = match source.raw_os_error() {
        Some(libc::EMFILE) => (
            "descriptors of this process",
            "raise RLIMIT_NOFILE (ulimit -n), or run fewer atoms at a time",
        ),
        Some(libc::ENFILE) => ("descriptors of the whole system", "raise the sysctl fs.file-max"),
        Some(libc::ENOSPC) => ("disk space", "free blocks or inodes on the store's file system"),
        Some(libc::EDQUOT) => ("the disk quota", "raise the quota of the store's owner"),
        Some(libc::ENOMEM) => ("memory", "free some, or run fewer atoms at a time"),
        _ => return DriverError::Io { what: format!("cannot prepare {}", path.display()), source },
    };
    let hint = format!("{hint}; needed for {}", path.display());
    DriverError::Exhausted { what, hint, source: Some(source) }
}
