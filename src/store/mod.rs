//! The directory that a store lives in: ours alone, one process at a time.
//!
//! ```text
//! LOCK FORMAT wal/ history/ atoms/
//! ```

mod directory;
mod format;
mod lock;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::Error;
use format::Format;
use lock::Lock;

/// An open store: while this value lives, no other process has it.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    format: Format,
    origin: Origin,
    _lock: Lock,
}

/// What the directory was when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Empty, or its creation as a store was cut short.
    New,
    /// The store that was made or last bound here.
    Here,
    /// A copy of a store: the directory is another one than the store was bound to.
    Elsewhere,
}

impl Store {
    /// Opens the store at `path`, or creates it; waits at most `wait` for another process to close it. While another
    /// one has it, `connect` is tried as well.
    ///
    /// # Errors
    ///
    /// [`Error::StoreRefused`] for a directory that cannot be a store: it was not touched.
    /// [`Error::StoreLocked`] when it is still held. What `connect` gives.
    pub(crate) fn open_or<T>(
        path: &Path,
        wait: Duration,
        connect: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<Result<Self, T>, Error> {
        // Absolute, so that nothing depends on the working directory from here on.
        let path = std::path::absolute(path)
            .map_err(|e| refused(path, format!("its path cannot be made absolute: {e}")))?;
        // Without a `/` or `/.` at its end, which would make the kernel follow a symbolic link.
        let path: PathBuf = path.components().collect();
        directory::create_or_check(&path)?;
        let lock = match lock::take(&path, wait, connect)? {
            Ok(lock) => lock,
            Err(connected) => return Ok(Err(connected)),
        };
        let here = directory::identity(&path)?;
        let (format, origin) = match Format::read(&path)? {
            None => (Format::new(here), Origin::New),
            Some(format) if format.place == here => (format, Origin::Here),
            Some(format) => (format, Origin::Elsewhere),
        };
        directory::make_private(&path.join(ATOMS))?;
        Ok(Ok(Self { path, format, origin, _lock: lock }))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the driver keeps what belongs to atoms.
    pub(crate) fn atoms_dir(&self) -> PathBuf {
        self.path.join(ATOMS)
    }

    /// There has been a store here before: then there must be a journal.
    pub(crate) fn existed(&self) -> bool {
        self.origin != Origin::New
    }

    /// This is a copy: nothing of what its journal calls live was started from here.
    pub(crate) fn copied(&self) -> bool {
        self.origin == Origin::Elsewhere
    }

    /// From now on there is a store, and it belongs here: the journal is there,
    /// and nothing in it is live that the original of a copy started.
    pub(crate) fn bind(&mut self) -> Result<(), Error> {
        match self.origin {
            Origin::Here => return Ok(()),
            Origin::New => {}
            Origin::Elsewhere => self.format = self.format.at(directory::identity(&self.path)?),
        }
        self.format.write(&self.path)?;
        self.origin = Origin::Here;
        Ok(())
    }
}

/// Makes the directory `path` a store that is a copy of the one at `original`:
/// nothing of what its journal calls live was started from it.
pub(crate) fn mark_as_copy(path: &Path, original: &Path) -> Result<(), Error> {
    Format::new(directory::identity(original)?).write(path)
}

/// The directory of what belongs to atoms.
const ATOMS: &str = "atoms";

/// What an interrupted creation leaves, beside the lock: no store yet, and no stranger.
const BEGINNINGS: [&str; 4] = [ATOMS, "wal", "history", format::TEMPORARY];

fn refused(path: &Path, problem: impl Into<String>) -> Error {
    Error::StoreRefused { path: path.to_owned(), problem: problem.into() }
}
