//! Pipes into the world in memory. They are the kernel's: who writes opens them by their paths.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, mkfifoat, open};

use super::World;
use crate::atom::AtomId;
use crate::driver::DriverError;

/// Where they lie; goes with the world.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    dir: OnceLock<PathBuf>,
}

/// The standard input of an atom.
#[derive(Debug)]
pub(super) struct Pipe {
    path: PathBuf,
    /// The atom's end, until somebody reads it.
    read: Option<OwnedFd>,
    /// What keeps it from ending.
    _write: OwnedFd,
}

impl Pipes {
    fn dir(&self) -> io::Result<&Path> {
        if let Some(dir) = self.dir.get() {
            return Ok(dir);
        }
        let dir = std::env::temp_dir().join(format!("caesium-memory-{}", AtomId::new()));
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(self.dir.get_or_init(|| dir))
    }

    pub(super) fn path(&self, atom: AtomId) -> Result<PathBuf, DriverError> {
        Ok(self.dir().map_err(failed)?.join(atom.to_string()))
    }

    /// Called by one at a time.
    pub(super) fn make(&self, atom: AtomId) -> Result<Pipe, DriverError> {
        let path = self.path(atom)?;
        let make = || {
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
            let end = |access: OFlags| {
                open(&path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            };
            let (read, write) = (end(OFlags::RDONLY)?, end(OFlags::WRONLY)?);
            fcntl_setfl(&read, OFlags::empty())?;
            Ok::<_, rustix::io::Errno>((read, write))
        };
        let (read, _write) = make().map_err(|errno| failed(errno.into()))?;
        Ok(Pipe { path, read: Some(read), _write })
    }
}

fn failed(source: io::Error) -> DriverError {
    DriverError::Io { what: "cannot make a pipe".into(), source }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.get() {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

impl Pipe {
    /// Has what is written printed by the atom, which exits with 0 at the end.
    pub(super) fn cat(&mut self, world: World, atom: AtomId) {
        let Some(read) = self.read.take() else { return };
        let cat = move || {
            let (mut input, mut buffer) = (File::from(read), [0; 4096]);
            while let Ok(bytes @ 1..) = input.read(&mut buffer) {
                world.print(atom, &buffer[..bytes]);
            }
            world.end(atom, crate::lifecycle::WaitStatus::Exited { code: 0 });
        };
        // One that cannot be started reads nothing.
        let _ = std::thread::Builder::new().name("caesium-cat".into()).spawn(cat);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
