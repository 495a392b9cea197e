//! The engine for processes of this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::ProcessChoice;
use super::{DriverHome, EngineOptions, Error, JournaledEngine};
use crate::control::RemoteEngine;
use crate::driver::DriverError;
use crate::driver::process::{OnDeath, ProcessDriver, ProcessOptions, Supervision};

/// The engine for processes of this machine.
pub type ProcessEngine = JournaledEngine<ProcessDriver>;

impl ProcessEngine {
    /// Opens the store at `path`, or creates it, and brings it to terms with what still runs.
    ///
    /// # Errors
    ///
    /// [`Error::StoreRefused`] for a directory that cannot be a store, [`Error::StoreLocked`] while another
    /// process has it open, [`Error::Journal`] when it is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        EngineOptions::new().open(path)
    }

    /// Opens with other than the default options.
    pub fn options() -> EngineOptions {
        EngineOptions::new()
    }
}

impl EngineOptions {
    /// Who watches the atoms: the keeper in a program that has called [`caesium::init`](crate::init()),
    /// a thread of the host in any other, unless this says which. Neither ever takes the other's place.
    #[must_use]
    pub fn supervision(mut self, supervision: Supervision) -> Self {
        self.process.supervision = Some(supervision);
        self
    }

    /// What becomes of living atoms when this host dies without closing. It takes a keeper to stop them then.
    #[must_use]
    pub fn on_death(mut self, on_death: OnDeath) -> Self {
        self.process.on_death = on_death;
        self
    }

    /// The program to be started as the keeper, for a host that cannot call
    /// [`caesium::init`](crate::init()) first: the `caesium` command, for one.
    #[must_use]
    pub fn keeper_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.process.keeper_program = Some(program.into());
        self
    }

    /// Whether the keeper may make cgroups: see [`ProcessOptions::cgroups`]. True when not set.
    #[must_use]
    pub fn cgroups(mut self, allowed: bool) -> Self {
        self.process.cgroups = Some(allowed);
        self
    }

    /// How long the keeper may take to answer before a request fails:
    /// [`DEFAULT_KEEPER_PATIENCE`](crate::driver::process::DEFAULT_KEEPER_PATIENCE) when not set.
    #[must_use]
    pub fn keeper_patience(mut self, patience: Duration) -> Self {
        self.process.keeper_patience = Some(patience);
        self
    }

    /// Opens the store at `path`, or creates it, for processes of this machine.
    ///
    /// # Errors
    ///
    /// As [`ProcessEngine::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<ProcessEngine, Error> {
        let chosen = self.process.clone();
        self.open_with(path, |home| chosen.driver(home))
    }

    /// Opens the store, or has `connect` connect to the process that has it open.
    pub(crate) fn open_or(
        self,
        path: &Path,
        connect: impl Fn() -> Result<RemoteEngine, Error>,
    ) -> Result<Result<ProcessEngine, RemoteEngine>, Error> {
        let chosen = self.process.clone();
        self.open_with_or(
            path,
            |home| chosen.driver(home),
            || match connect() {
                Ok(engine) => Ok(Some(engine)),
                // Nobody is there yet, or it is about to close: then the lock is to be had in a moment.
                Err(Error::NotServed { .. } | Error::HolderGone { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        )
    }
}

impl ProcessChoice {
    fn driver(self, home: DriverHome<'_>) -> Result<ProcessDriver, DriverError> {
        let mut options = ProcessOptions::new(home.dir);
        options.copied = home.copied;
        if let Some(supervision) = self.supervision {
            options.supervision = supervision;
        }
        options.on_death = self.on_death;
        options.keeper_program = self.keeper_program;
        if let Some(allowed) = self.cgroups {
            options.cgroups = allowed;
        }
        if let Some(patience) = self.keeper_patience {
            options.keeper_patience = patience;
        }
        ProcessDriver::new(options)
    }
}
