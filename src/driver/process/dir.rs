//! What an atom has on disk: `atoms/<id>/`.
//!
//! | name | what |
//! |---|---|
//! | `out`, `err` | the FIFOs that it prints to; they may stay when it has ended, for the next atom |
//! | `in` | the FIFO that it reads, until somebody ends that |
//! | `log.N` | what it printed |
//! | `prepared` | how far its run has come ([`Marker`]) |

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, mkfifoat, open};

use super::identity::Place;
use super::keeper::Forked;
use super::log::{LogWriter, remove_segments};
use super::marker::{Marker, Trace};
use super::spares::{Spare, Spares};
use super::spawn::{Failure, Streams};
use crate::atom::{AtomId, AtomSpec};
use crate::driver::{DriverError, Surroundings};
use crate::log::Stream;

/// What it prints to is called.
const FIFOS: [&str; 2] = ["out", "err"];

/// The directory of one atom.
#[derive(Debug, Clone)]
pub(super) struct AtomDir {
    atom: AtomId,
    path: PathBuf,
    /// Where it has files from, and gives them to.
    spares: Option<Arc<Spares>>,
}

/// What is set aside for an atom before it is journaled.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) dir: AtomDir,
    /// Our ends of the FIFOs, which do not block.
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    /// Where its standard input is a pipe: what keeps that from ending.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) log: LogWriter,
    /// The marker file, to be written to until it runs.
    pub(super) marker: File,
    pub(super) child: Child,
}

/// What there is of an atom that was prepared and not started.
#[derive(Debug)]
pub(super) enum Child {
    /// Its ends of its streams. It holds the FIFOs for reading too, so that nobody's death breaks the
    /// pipe; and its standard input is `/dev/null`, in a place that is then its pidfd's.
    Unborn(Streams, Option<Surroundings>),
    /// In the keeper: it sets itself up, and waits for its go.
    Waiting(Box<Forked>),
    /// In the keeper: it cannot be started.
    Failed(Failure),
}

impl Prepared {
    /// It has these of who asked for it, not those of this host.
    pub(super) fn surround(&mut self, these: Option<&Surroundings>) {
        if let Child::Unborn(_, around) = &mut self.child {
            *around = these.cloned();
        }
    }
}

impl AtomDir {
    pub(super) fn new(atoms: &Path, atom: AtomId) -> Self {
        Self { atom, path: atoms.join(atom.to_string()), spares: None }
    }

    pub(super) fn with_spares(atoms: &Path, atom: AtomId, spares: &Arc<Spares>) -> Self {
        Self { spares: Some(Arc::clone(spares)), ..Self::new(atoms, atom) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How far the atom's run has come.
    pub(super) fn marker(&self) -> Marker<'_> {
        Marker::of(&self.path)
    }

    /// Creates it with all that a start needs.
    ///
    /// # Errors
    ///
    /// When something has run out or is refused; nothing is left behind.
    pub(super) fn prepare(
        &self,
        place: Place,
        spec: &AtomSpec,
        log: LogWriter,
    ) -> Result<Prepared, DriverError> {
        let spare = match &self.spares {
            Some(spares) => {
                // An earlier atom of this name may have.
                spares.take_drained(self.atom);
                spares.take(&self.path).map_err(|error| trouble(&self.path, error))?
            }
            None => None,
        };
        if spare.is_none() {
            DirBuilder::new().mode(0o700).create(&self.path).map_err(|e| trouble(&self.path, e))?;
        }
        self.fill(place, spare, spec, log).inspect_err(|_| self.discard())
    }

    /// The same, where a keeper that died had prepared it and had not started it. Whoever looks in the midst of this still
    /// finds that it was never started.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when it was started.
    pub(super) fn prepare_anew(
        &self,
        place: Place,
        spec: &AtomSpec,
        log: LogWriter,
    ) -> Result<Prepared, DriverError> {
        if !matches!(self.marker().read().trace(), Trace::Prepared(..)) {
            return Err(trouble(&self.path, io::ErrorKind::AlreadyExists.into()));
        }
        self.remove_fifos();
        remove_segments(&self.path).map_err(|error| trouble(&self.path, error))?;
        self.fill(place, None, spec, log)
    }

    /// Takes back what `fill` made, without a descriptor: what it failed for may be the want of one.
    fn discard(&self) {
        self.remove_fifos();
        self.marker().remove();
        if fs::remove_dir(&self.path).is_err() {
            self.remove();
        }
    }

    /// `spare`: it has a marker that only has to be written, and perhaps its FIFOs.
    fn fill(
        &self,
        place: Place,
        spare: Option<Spare>,
        spec: &AtomSpec,
        log: LogWriter,
    ) -> Result<Prepared, DriverError> {
        let marker = self
            .marker()
            .create(place, spare.is_some())
            .map_err(|(path, error)| trouble(&path, error))?;
        let make = |path: &Path| {
            mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).map_err(|e| trouble(path, e.into()))
        };
        if !spare.is_some_and(|spare| spare.fifos) {
            Stream::ALL.iter().try_for_each(|stream| make(&self.fifo(*stream)))?;
        }
        let end = |stream, flags| {
            let path = self.fifo(stream);
            open(&path, flags, Mode::empty()).map_err(|e| trouble(&path, e.into()))
        };
        let (stdin, keeps_open) = if spec.get_stdin_pipe() {
            let path = self.stdin();
            let failed = |e: io::Error| trouble(&path, e);
            make(&path)?;
            // Whoever opens it for reading only waits for a writer, unless it is not to block.
            let read = open(&path, READ_END, Mode::empty()).map_err(|e| failed(e.into()))?;
            fcntl_setfl(&read, OFlags::empty()).map_err(|e| failed(e.into()))?;
            (read, Some(self.open_stdin().map_err(failed)?))
        } else {
            let null = Path::new("/dev/null");
            (File::open(null).map_err(|e| trouble(null, e))?.into(), None)
        };
        Ok(Prepared {
            dir: self.clone(),
            out: end(Stream::Stdout, READ_END)?,
            err: end(Stream::Stderr, READ_END)?,
            child: Child::Unborn(
                Streams {
                    stdout: end(Stream::Stdout, OFlags::RDWR | OFlags::CLOEXEC)?,
                    stderr: end(Stream::Stderr, OFlags::RDWR | OFlags::CLOEXEC)?,
                    stdin,
                },
                None,
            ),
            stdin: keeps_open,
            log,
            marker,
        })
    }

    fn fifo(&self, stream: Stream) -> PathBuf {
        let [out, err] = FIFOS;
        self.path.join(match stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
        })
    }

    /// Opens our end of a FIFO again, after another host held it.
    pub(super) fn open_fifo(&self, stream: Stream) -> io::Result<OwnedFd> {
        Ok(open(self.fifo(stream), READ_END, Mode::empty())?)
    }

    /// The FIFO that is its standard input, where that is a pipe.
    pub(super) fn stdin(&self) -> PathBuf {
        self.path.join("in")
    }

    /// Keeps its standard input from ending. Not found once somebody has ended that.
    pub(super) fn open_stdin(&self) -> io::Result<OwnedFd> {
        Ok(open(self.stdin(), WRITE_END, Mode::empty())?)
    }

    /// From now on nobody begins to write to its standard input.
    pub(super) fn remove_stdin(&self) {
        let _ = fs::remove_file(self.stdin());
    }

    /// Takes away what only a live atom needs.
    pub(super) fn remove_fifos(&self) {
        if let Some(spares) = &self.spares {
            spares.take_drained(self.atom);
        }
        self.remove_stdin();
        for stream in Stream::ALL {
            // A FIFO that stays does no harm: the directory goes with the atom.
            let _ = fs::remove_file(self.fifo(*stream));
        }
    }

    /// The same, for an atom that has ended. `drained`: both were read to their end, so that nobody has them open for
    /// writing and nothing is in them; another atom may have them, if this one is deleted soon. `piped`: its standard input is
    /// a FIFO as well.
    pub(super) fn put_fifos_away(&self, drained: bool, piped: bool) {
        let Some(spares) = self.spares.as_ref().filter(|_| drained) else {
            return self.remove_fifos();
        };
        if piped {
            self.remove_stdin();
        }
        if let Some(atom) = spares.drained(self.atom) {
            self.beside(atom).remove_fifos();
        }
    }

    /// The directory of another atom of this store.
    fn beside(&self, atom: AtomId) -> Self {
        Self { atom, path: self.path.with_file_name(atom.to_string()), spares: None }
    }

    /// Removes what an atom has of which nothing runs any more; keeps what another one may use.
    pub(super) fn put_away(&self) {
        let kept = self.spares.as_ref().is_some_and(|spares| {
            let fifos = spares.take_drained(self.atom);
            self.blank(fifos).is_ok_and(|fifos| spares.keep(&self.path, fifos))
        });
        if !kept {
            self.remove();
        }
    }

    /// Leaves nothing in it but a blank marker, and the FIFOs if they may stay; whether both have.
    fn blank(&self, fifos: bool) -> io::Result<bool> {
        self.marker().blank()?;
        let mut stayed = 0;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if fifos && FIFOS.iter().any(|fifo| name == *fifo) {
                stayed += 1;
            } else if !Marker::is_its_name(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        let both = stayed == FIFOS.len();
        if stayed > 0 && !both {
            self.remove_fifos();
        }
        Ok(both)
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

/// How the other end of the one that it reads is.
const WRITE_END: OFlags = OFlags::WRONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

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
    DriverError::Exhausted { what: what.into(), hint, source: Some(source) }
}
