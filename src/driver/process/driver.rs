//! The front: what the engine calls.

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::context::Context;
use super::dir::trouble;
use super::identity::Place;
use super::log::LogReader;
use super::mailbox::{Mailbox, Message};
use super::monitor::Monitor;
use crate::atom::{Atom, AtomId, AtomSpec};
use crate::driver::{Command, Driver, DriverError, Observer};
use crate::log::{LogQuery, LogSource};

/// How many descriptors an atom costs from the moment that it is prepared until it runs:
/// both ends of two FIFOs, its log, and one that becomes its standard input and then its pidfd.
pub const FDS_PER_ATOM: usize = 6;

/// How many descriptors an atom costs while it runs: the FIFOs, its log, its pidfd.
/// A stopped atom costs none.
pub const FDS_PER_RUNNING_ATOM: usize = 4;

/// How many descriptors the driver itself costs: an epoll and an eventfd.
/// One more is open now and then, while `/proc` is read.
pub const FDS_PER_DRIVER: usize = 2;

/// Who supervises the atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Supervision {
    /// A thread of the host. Atoms outlive a host that is killed, and are
    /// adopted by the next one; what ended while there was none is `unknown`.
    #[default]
    InHost,
}

/// How a [`ProcessDriver`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// Where every atom has a directory: `atoms` of the store.
    pub dir: PathBuf,
    /// The store is a copy of another: nothing is signalled, and of everything that ran sight is lost.
    pub copied: bool,
    /// Who supervises the atoms.
    pub supervision: Supervision,
}

impl ProcessOptions {
    /// For atoms below `dir`, which is made if it is not there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), copied: false, supervision: Supervision::default() }
    }
}

/// The driver whose atoms are processes of this machine.
#[derive(Debug)]
pub struct ProcessDriver {
    context: Arc<Context>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ProcessDriver {
    /// A driver that has not begun to work yet.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, descriptors have run out, or `/proc` is not there.
    pub fn new(options: ProcessOptions) -> Result<Self, DriverError> {
        let ProcessOptions { dir, copied, supervision } = options;
        match supervision {
            Supervision::InHost => {}
        }
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&dir)
            .map_err(|error| trouble(&dir, error))?;
        let place = Place::here()?;
        let mailbox = Mailbox::new().map_err(|error| trouble(&dir, error))?;
        let context = Context::new(dir, copied, place, Arc::new(mailbox));
        Ok(Self { context: Arc::new(context), thread: Mutex::default() })
    }

    /// Opens what an atom printed, by its id.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn open_log(
        &self,
        atom: AtomId,
        query: &LogQuery,
    ) -> Result<Box<dyn LogSource>, DriverError> {
        let live = self.context.log(atom);
        let dir = self.context.dir(atom).path().to_path_buf();
        Ok(Box::new(LogReader::new(dir, query.clone(), live)?))
    }
}

impl Driver for ProcessDriver {
    fn name(&self) -> &'static str {
        "process"
    }

    fn start(&self, observer: Observer) -> Result<(), DriverError> {
        let path = &self.context.atoms;
        let monitor = Monitor::new(Arc::clone(&self.context), observer)
            .map_err(|error| trouble(path, error))?;
        let thread = thread::Builder::new()
            .name("caesium-process".to_owned())
            .spawn(move || monitor.run())
            .map_err(|source| DriverError::Exhausted {
                what: "threads",
                hint: "raise RLIMIT_NPROC or the pids limit of the host's cgroup".to_owned(),
                source: Some(source),
            })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    fn complete(&self, spec: AtomSpec) -> Result<AtomSpec, DriverError> {
        let is_absolute =
            |path: Option<&std::path::Path>| path.is_some_and(std::path::Path::is_absolute);
        let stdin_done = spec.get_stdin_file().is_none() || is_absolute(spec.get_stdin_file());
        if is_absolute(spec.get_workdir()) && stdin_done {
            return Ok(spec);
        }
        let here = env::current_dir().map_err(|source| DriverError::Io {
            what: "cannot tell the host's working directory (name one for the atom)".to_owned(),
            source,
        })?;
        let workdir = spec.get_workdir().map_or_else(|| here.clone(), |dir| here.join(dir));
        let stdin = spec.get_stdin_file().map(|path| here.join(path));
        let spec = spec.workdir(workdir);
        Ok(match stdin {
            Some(stdin) => spec.stdin_file(stdin),
            None => spec,
        })
    }

    fn prepare(&self, atom: AtomId, spec: &AtomSpec) -> Result<(), DriverError> {
        self.context.prepare(atom, spec)
    }

    fn release(&self, atom: AtomId) {
        if let Some(prepared) = self.context.take_prepared(atom) {
            let dir = prepared.dir.clone();
            drop(prepared);
            self.context.forget_log(atom);
            dir.remove();
        }
    }

    fn send(&self, command: Command) -> Result<(), DriverError> {
        if self.context.mailbox.put(Message::Command(command)) {
            Ok(())
        } else {
            Err(DriverError::Closed)
        }
    }

    fn residue(&self) -> Result<Vec<AtomId>, DriverError> {
        let dir = &self.context.atoms;
        let names = || -> std::io::Result<Vec<AtomId>> {
            let mut atoms = Vec::new();
            for entry in dir.read_dir()? {
                // Whatever has another name is not ours to judge.
                atoms.extend(
                    entry?.file_name().to_str().and_then(|name| name.parse::<AtomId>().ok()),
                );
            }
            Ok(atoms)
        };
        names()
            .map_err(|source| DriverError::Io { what: format!("read {}", dir.display()), source })
    }

    fn logs(&self, atom: &Atom, query: &LogQuery) -> Result<Box<dyn LogSource>, DriverError> {
        self.open_log(atom.id(), query)
    }

    fn close(&self) {
        // Whoever comes second waits for the first.
        let mut thread = self.thread.lock();
        self.context.mailbox.put(Message::Close);
        if let Some(Err(panic)) = thread.take().map(JoinHandle::join) {
            tracing::error!(?panic, "the monitor of the process driver panicked");
        }
        self.context.close();
    }
}

impl Drop for ProcessDriver {
    fn drop(&mut self) {
        self.close();
    }
}
