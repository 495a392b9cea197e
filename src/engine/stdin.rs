//! Writing to the pipe that an atom reads.

use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::Error;
use super::sigpipe::write_quietly;
use crate::atom::AtomId;
use crate::driver::DriverError;

/// The way into the pipe that an atom reads as its standard input; see [`Engine::stdin`](super::Engine::stdin).
///
/// What is written goes into the kernel's pipe (64 KiB as a rule) and nowhere else: no engine and no keeper holds any of
/// it, nor waits for an atom that does not read. It can be cloned, used from any thread, and outlives its engine.
/// What several write at once is not mixed up within 4,096 bytes.
///
/// It is also a [`Write`], which waits for as long as the pipe is full. `write_all` and
/// [`copy`](std::io::copy) end with [`BrokenPipe`](ErrorKind::BrokenPipe) when nobody reads any more.
///
/// ```
/// use std::io::Write;
///
/// use caesium::{AtomSpec, Engine, ProcessEngine};
///
/// # let directory = tempfile::tempdir().unwrap();
/// let engine = ProcessEngine::open(directory.path().join("state"))?;
/// let atom = engine.create(AtomSpec::command("rev").stdin_pipe().into())?;
/// engine.stdin(&atom.id().into())?.write_all(b"olleh\n").expect("it reads");
/// engine.close_stdin(&atom.id().into())?;
/// engine.wait(&atom.id().into())?;
/// assert_eq!(engine.logs(&atom.id().into())?.read_to_end()?, b"hello\n");
/// # Ok::<(), caesium::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StdinWriter {
    id: AtomId,
    path: PathBuf,
}

impl StdinWriter {
    pub(crate) fn new(id: AtomId, path: PathBuf) -> Self {
        Self { id, path }
    }

    /// The atom.
    pub fn id(&self) -> AtomId {
        self.id
    }

    /// Writes what there is room for, and says how many bytes that were: some of them at least, if there are any.
    /// Never waits.
    ///
    /// # Errors
    ///
    /// [`Error::StdinFull`], [`Error::StdinClosed`]: nothing was written. [`Error::Driver`] when descriptors ran out.
    pub fn try_write(&self, bytes: &[u8]) -> Result<usize, Error> {
        self.write_before(bytes, Some(Instant::now()))
    }

    /// The same; while there is no room at all it waits, at most `timeout`.
    ///
    /// # Errors
    ///
    /// As [`try_write`](Self::try_write).
    pub fn write_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<usize, Error> {
        self.write_before(bytes, Instant::now().checked_add(timeout))
    }

    /// A descriptor to write to, which does not block: for those who have an executor that waits for it, as
    /// `tokio::net::unix::pipe::Sender::from_owned_fd` does. While it is open the atom does not read the end of its
    /// input, whoever has ended that.
    ///
    /// # Errors
    ///
    /// [`Error::StdinClosed`]; [`Error::Driver`] when descriptors ran out.
    pub fn open(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        open(&self.path, flags, Mode::empty()).map_err(|errno| self.error(errno))
    }

    fn write_before(&self, bytes: &[u8], deadline: Option<Instant>) -> Result<usize, Error> {
        // Of its own for each: when nobody writes, nothing but its driver keeps the pipe from ending.
        let pipe = self.open()?;
        loop {
            match write_quietly(&pipe, bytes) {
                Err(Errno::AGAIN) => self.wait(&pipe, deadline)?,
                Err(Errno::INTR) => {}
                written => return written.map_err(|errno| self.error(errno)),
            }
        }
    }

    fn wait(&self, pipe: &OwnedFd, deadline: Option<Instant>) -> Result<(), Error> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(Error::StdinFull(self.id));
        }
        // A timeout that is too long to be written down is none.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(pipe, PollFlags::OUT)], left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(self.error(errno)),
        }
    }

    fn error(&self, errno: Errno) -> Error {
        match errno {
            // It was ended, it has gone, or it has closed its end.
            Errno::NOENT | Errno::NXIO | Errno::PIPE => Error::StdinClosed(self.id),
            errno => {
                let what = format!("cannot write to {}", self.path.display());
                DriverError::Io { what, source: errno.into() }.into()
            }
        }
    }
}

impl Write for StdinWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_before(bytes, None).map_err(|error| {
            let closed = matches!(error, Error::StdinClosed(_));
            io::Error::new(if closed { ErrorKind::BrokenPipe } else { ErrorKind::Other }, error)
        })
    }

    /// Does nothing: what was written is in the pipe.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
