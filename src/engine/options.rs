//! How an engine is opened.

use std::path::Path;
use std::time::Duration;

use super::{Error, JournaledEngine};
use crate::Durability;
#[cfg(target_os = "linux")]
use crate::driver::process::{OnDeath, Supervision};
use crate::driver::{Driver, DriverError};
use crate::journal::{Journal, JournalOptions, Retention};
use crate::store::Store;
use crate::trace;

/// What becomes of living atoms when their engine is closed.
///
/// It says nothing of a host that is killed: its atoms live on, and the next one that opens the store adopts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnClose {
    /// They are stopped, each with its own grace, and closing waits for that. The default:
    /// nobody would watch them, and how they end would not be known.
    #[default]
    Stop,
    /// They live on. The next engine that opens the store adopts them; what ends
    /// in between is witnessed by the keeper; without one it is `unknown`, unless the kernel still knows.
    Leave,
    /// They are killed at once, and closing waits for that.
    Kill,
}

/// What an engine does by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conduct {
    pub(super) on_close: OnClose,
    pub(super) policies: bool,
    pub(super) serve: bool,
}

impl Default for Conduct {
    fn default() -> Self {
        Self { on_close: OnClose::default(), policies: true, serve: false }
    }
}

/// How an engine is opened: begin with the default, change what you need, then open.
///
/// ```no_run
/// use caesium::{Durability, EngineOptions};
/// use std::time::Duration;
///
/// let engine = EngineOptions::new()
///     .durability(Durability::Batched(Duration::from_millis(20)))
///     .lock_wait(Duration::ZERO)
///     .open("state")?;
/// # Ok::<(), caesium::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EngineOptions {
    journal: JournalOptions,
    conduct: Conduct,
    lock_wait: Duration,
    /// `None`: as it is opened.
    serve: Option<bool>,
    #[cfg(target_os = "linux")]
    pub(super) process: ProcessChoice,
}

/// What is chosen for processes of this machine.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Default)]
pub(super) struct ProcessChoice {
    /// `None`: as the program is made.
    pub(super) supervision: Option<Supervision>,
    pub(super) on_death: OnDeath,
    /// `None`: as the driver has it.
    pub(super) cgroups: Option<bool>,
    pub(super) keeper_program: Option<std::path::PathBuf>,
    /// `None`: the driver's own default.
    pub(super) keeper_patience: Option<Duration>,
}

/// How long opening waits for another process to close the store, unless told otherwise.
pub const DEFAULT_LOCK_WAIT: Duration = Duration::from_secs(2);

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            journal: JournalOptions::default(),
            conduct: Conduct::default(),
            lock_wait: DEFAULT_LOCK_WAIT,
            serve: None,
            #[cfg(target_os = "linux")]
            process: ProcessChoice::default(),
        }
    }
}

/// Where a driver may keep what belongs to its atoms.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DriverHome<'a> {
    /// A directory that is the driver's alone.
    pub dir: &'a Path,
    /// The store was copied or restored from elsewhere: what the journal says was started is not ours to signal.
    pub copied: bool,
}

impl EngineOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much an acknowledgement promises.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.journal.durability = durability;
        self
    }

    /// The largest segment of the write-ahead log, in bytes, without its snapshot.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.journal.segment_bytes = bytes;
        self
    }

    /// Which events the journal keeps; everything, unless told otherwise.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.journal.retention = retention;
        self
    }

    /// What becomes of living atoms when the engine is closed.
    #[must_use]
    pub fn on_close(mut self, on_close: OnClose) -> Self {
        self.conduct.on_close = on_close;
        self
    }

    /// Whether the atoms' own policies are carried out: retries that are due, and what
    /// becomes of invalid atoms. They are unless this says otherwise; what was
    /// not done waits for an engine that does it. For one that only looks at
    /// a store, or is gone before a retry would have ended.
    #[must_use]
    pub fn policies(mut self, carry_out: bool) -> Self {
        self.conduct.policies = carry_out;
        self
    }

    /// Whether other processes of the same user, and of root, may use the store through this one, as
    /// [`RemoteEngine`](crate::RemoteEngine) and the `caesium` command do. Off for who opens a store, since it
    /// costs a thread (and up to five more while much is asked for), three descriptors, one for each client and one
    /// for each log that a client reads; on for who [connects or opens](crate::connect_or_open()). At most 128
    /// clients are served at once, with at most 256 logs.
    #[must_use]
    pub fn serve(mut self, serve: bool) -> Self {
        self.serve = Some(serve);
        self
    }

    /// How long opening waits for another process to close the store.
    #[must_use]
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Opens the store at `path`, or creates it, with a driver of your own.
    ///
    /// # Errors
    ///
    /// The directory cannot be a store, another process has it open, it is damaged, or the driver does not start.
    pub fn open_with<D: Driver>(
        self,
        path: impl AsRef<Path>,
        driver: impl FnOnce(DriverHome<'_>) -> Result<D, DriverError>,
    ) -> Result<JournaledEngine<D>, Error> {
        let _span = trace::open(path.as_ref()).entered();
        let serve = self.serve.unwrap_or(false);
        let otherwise = || Ok(None::<std::convert::Infallible>);
        match Store::open_or(path.as_ref(), self.lock_wait, otherwise)? {
            Ok(store) => self.assemble(store, serve, driver),
            Err(never) => match never {},
        }
    }

    /// The same, for a store that others may have. While one has it, `connect` is tried, too, which gives `None`
    /// when that one serves nobody.
    #[cfg(target_os = "linux")]
    pub(super) fn open_with_or<D: Driver, T>(
        self,
        path: &Path,
        driver: impl FnOnce(DriverHome<'_>) -> Result<D, DriverError>,
        connect: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<Result<JournaledEngine<D>, T>, Error> {
        let _span = trace::open(path).entered();
        let serve = self.serve.unwrap_or(true);
        match Store::open_or(path, self.lock_wait, connect)? {
            Ok(store) => self.assemble(store, serve, driver).map(Ok),
            Err(connected) => Ok(Err(connected)),
        }
    }

    fn assemble<D: Driver>(
        self,
        store: Store,
        serve: bool,
        driver: impl FnOnce(DriverHome<'_>) -> Result<D, DriverError>,
    ) -> Result<JournaledEngine<D>, Error> {
        let mut journal = self.journal;
        journal.must_exist = store.existed();
        if journal.must_exist && journal.durability == Durability::Memory {
            // Atoms that it knows would be strangers to a journal that begins with nothing.
            return Err(Error::StoreRefused {
                path: store.path().to_owned(),
                problem: "it is there already: Durability::Memory writes nothing, and needs a new directory".into(),
            });
        }
        let (journal, recovery) = Journal::open_dir(store.path(), journal)?;
        let driver = driver(DriverHome { dir: &store.atoms_dir(), copied: store.copied() })?;
        let conduct = Conduct { serve, ..self.conduct };
        JournaledEngine::assemble(journal, recovery, driver, conduct, Some(store))
    }
}
