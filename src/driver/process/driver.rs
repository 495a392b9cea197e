//! The front: what the engine calls.

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::context::Context;
use super::dir::{AtomDir, trouble};
use super::identity::Place;
use super::keeper::{Client, Launcher, Purpose, is_served};
use super::log::LogReader;
use super::mailbox::{Mailbox, Message};
use super::monitor::Monitor;
use crate::atom::{Atom, AtomId, AtomSpec};
use crate::driver::{Command, Driver, DriverError, Observer, Surroundings};
use crate::log::{LogQuery, LogSource};

/// How many descriptors an atom costs whoever supervises it, from the moment that it is prepared until it
/// runs: both ends of two FIFOs, its marker file, and one that becomes its standard input and then its pidfd. An atom whose
/// standard input is a pipe costs one more, from then until that has ended, and its host one beside a keeper's.
///
/// They are the keeper's where there is one, and its host has none of them. The keeper needs up to seven more for
/// the instant in which it forks, and has one less once it has.
pub const FDS_PER_ATOM: usize = 6;

/// How many descriptors an atom costs whoever supervises it, while it runs: the FIFOs and its pidfd;
/// one more if it has a reaper, and one for its log while it prints 64 KiB and more at once. A stopped atom costs none.
pub const FDS_PER_RUNNING_ATOM: usize = 3;

/// How many descriptors the driver itself costs: an epoll, an eventfd, and one that is kept free for the logs. Beside a
/// keeper there are two: the socket, twice. One more is open now and then, while `/proc` is read.
pub const FDS_PER_DRIVER: usize = 3;

/// How long a keeper may take to answer.
pub const DEFAULT_KEEPER_PATIENCE: Duration = Duration::from_secs(10);

/// Who supervises the atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Supervision {
    /// The keeper: a small process of its own, one for each store, that outlives its hosts. Atoms go on when
    /// the host is killed, their output is kept, and how they end is witnessed.
    ///
    /// It is this very program if [`caesium::init`](crate::init()) was called, else the program
    /// of [`ProcessOptions::keeper_program`], else a `caesium` beside this program or on its `PATH`.
    Keeper,
    /// A thread of the host. Atoms outlive a host that is killed, and are
    /// adopted by the next one; what ended while there was none is `unknown`. Limits and users cannot be set.
    InHost,
}

impl Default for Supervision {
    /// The keeper in a program that has called [`caesium::init`](crate::init()), the host in any other.
    fn default() -> Self {
        if is_served() { Self::Keeper } else { Self::InHost }
    }
}

/// What becomes of living atoms when their host dies without closing its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDeath {
    /// They live on, and whoever opens the store next has them. The default: a crash is no reason to lose work.
    #[default]
    Survive,
    /// The keeper stops them, each with its own grace. Without a keeper nobody is there to do it.
    Stop,
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
    /// What becomes of them when this host dies.
    pub on_death: OnDeath,
    /// Whether the keeper may make cgroups, which contain an atom best and are what memory, processes and CPU are limited
    /// by; true when not set. Where it may not, or cannot, each atom has a reaper instead: a small process that it
    /// descends from, and that ends all of it.
    pub cgroups: bool,
    /// How long the keeper may take to answer before a request fails: [`DEFAULT_KEEPER_PATIENCE`] when not
    /// set, at least a millisecond. It answers in less than a millisecond as a rule; one that is stopped
    /// (SIGSTOP) does not.
    pub keeper_patience: Duration,
    /// The program to be started as the keeper: one that calls [`caesium::init`](crate::init()) first.
    pub keeper_program: Option<PathBuf>,
}

impl ProcessOptions {
    /// For atoms below `dir`, which is made if it is not there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            copied: false,
            supervision: Supervision::default(),
            on_death: OnDeath::default(),
            cgroups: true,
            keeper_patience: DEFAULT_KEEPER_PATIENCE,
            keeper_program: None,
        }
    }
}

/// The driver whose atoms are processes of this machine.
#[derive(Debug)]
pub struct ProcessDriver {
    atoms: PathBuf,
    watcher: Watcher,
}

/// Who watches.
#[derive(Debug)]
enum Watcher {
    Thread { context: Arc<Context>, thread: Mutex<Option<JoinHandle<()>>> },
    Keeper(Client),
}

impl ProcessDriver {
    /// A driver that has not begun to work yet.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, descriptors have run out, `/proc` is not
    /// there, or no program is found that can be the keeper.
    pub fn new(options: ProcessOptions) -> Result<Self, DriverError> {
        let ProcessOptions { dir, copied, supervision, on_death, cgroups, keeper_patience, .. } =
            options;
        let keeper_program = options.keeper_program;
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&dir)
            .map_err(|error| trouble(&dir, error))?;
        let watcher = match supervision {
            Supervision::InHost => {
                let mailbox = Mailbox::new().map_err(|error| trouble(&dir, error))?;
                let context = Context::new(dir.clone(), copied, Place::here()?, Arc::new(mailbox));
                Watcher::Thread { context: Arc::new(context), thread: Mutex::default() }
            }
            Supervision::Keeper => {
                let purpose = match on_death {
                    OnDeath::Survive => Purpose::Work,
                    OnDeath::Stop => Purpose::WorkAndStop,
                };
                let home = dir.parent().unwrap_or(&dir);
                // A time of zero would be none to the sockets.
                let patience = keeper_patience.max(Duration::from_millis(1));
                let launcher = Launcher::new(home, &dir, keeper_program, purpose, patience)?;
                Watcher::Keeper(Client::new(launcher, copied, cgroups))
            }
        };
        Ok(Self { atoms: dir, watcher })
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
        let live = match &self.watcher {
            Watcher::Thread { context, .. } => context.log(atom),
            Watcher::Keeper(client) => client.watch_log(atom, query.follow && query.lossless)?,
        };
        let dir = AtomDir::new(&self.atoms, atom).path().to_path_buf();
        Ok(Box::new(LogReader::new(dir, query.clone(), live)?))
    }
}

impl Driver for ProcessDriver {
    fn name(&self) -> &'static str {
        "process"
    }

    fn start(&self, observer: Observer) -> Result<(), DriverError> {
        let (context, thread) = match &self.watcher {
            Watcher::Thread { context, thread } => (context, thread),
            Watcher::Keeper(client) => return client.start(observer),
        };
        let monitor = Monitor::new(Arc::clone(context), observer)
            .map_err(|error| trouble(&self.atoms, error))?;
        *thread.lock() = Some(spawn_thread(move || monitor.run())?);
        Ok(())
    }

    fn complete(
        &self,
        spec: AtomSpec,
        around: Option<&Surroundings>,
    ) -> Result<AtomSpec, DriverError> {
        let is_absolute =
            |path: Option<&std::path::Path>| path.is_some_and(std::path::Path::is_absolute);
        let stdin_done = spec.get_stdin_file().is_none() || is_absolute(spec.get_stdin_file());
        if is_absolute(spec.get_workdir()) && stdin_done {
            return Ok(spec);
        }
        let here = match around {
            Some(around) => around.workdir().to_path_buf(),
            None => env::current_dir().map_err(|source| DriverError::Io {
                what: "cannot tell the host's working directory (name one for the atom)".to_owned(),
                source,
            })?,
        };
        let workdir = spec.get_workdir().map_or_else(|| here.clone(), |dir| here.join(dir));
        let stdin = spec.get_stdin_file().map(|path| here.join(path));
        let spec = spec.workdir(workdir);
        Ok(match stdin {
            Some(stdin) => spec.stdin_file(stdin),
            None => spec,
        })
    }

    fn prepare(
        &self,
        atom: AtomId,
        spec: &AtomSpec,
        around: Option<&Surroundings>,
    ) -> Result<(), DriverError> {
        match &self.watcher {
            Watcher::Thread { context, .. } => {
                context.prepare(atom, spec)?;
                context.with_prepared(atom, |prepared| prepared.surround(around));
                Ok(())
            }
            Watcher::Keeper(client) => client.prepare(atom, spec, around),
        }
    }

    fn release(&self, atom: AtomId) {
        match &self.watcher {
            Watcher::Thread { context, .. } => context.release(atom),
            Watcher::Keeper(client) => client.release(atom),
        }
    }

    fn send(&self, command: Command) -> Result<(), DriverError> {
        if let Command::CloseStdin { atom } = &command {
            // First of all: a keeper that dies meanwhile, or this host, leaves it to the next one, who sees it by this.
            AtomDir::new(&self.atoms, *atom).remove_stdin();
        }
        match &self.watcher {
            Watcher::Thread { context, .. } => {
                if context.mailbox.put(Message::Command(command)) {
                    Ok(())
                } else {
                    Err(DriverError::Closed)
                }
            }
            Watcher::Keeper(client) => client.send(command),
        }
    }

    fn residue(&self) -> Result<Vec<AtomId>, DriverError> {
        let dir = &self.atoms;
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

    fn stdin(&self, atom: AtomId) -> Result<PathBuf, DriverError> {
        Ok(AtomDir::new(&self.atoms, atom).stdin())
    }

    fn logs(&self, atom: &Atom, query: &LogQuery) -> Result<Box<dyn LogSource>, DriverError> {
        self.open_log(atom.id(), query)
    }

    fn close(&self) {
        match &self.watcher {
            Watcher::Thread { context, thread } => {
                // Whoever comes second waits for the first.
                let mut thread = thread.lock();
                context.mailbox.put(Message::Close);
                if let Some(Err(panic)) = thread.take().map(JoinHandle::join) {
                    tracing::error!(?panic, "the monitor of the process driver panicked");
                }
                context.close();
            }
            Watcher::Keeper(client) => client.close(),
        }
    }
}

/// Starts the one thread that a driver has.
pub(super) fn spawn_thread(
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, DriverError> {
    thread::Builder::new().name("caesium-process".to_owned()).spawn(body).map_err(|source| {
        DriverError::Exhausted {
            what: "threads".into(),
            hint: "raise RLIMIT_NPROC or the pids limit of the host's cgroup".to_owned(),
            source: Some(source),
        }
    })
}

impl Drop for ProcessDriver {
    fn drop(&mut self) {
        self.close();
    }
}
