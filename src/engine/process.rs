//! The engine for processes of this machine.

use std::path::Path;

use super::{EngineOptions, Error, JournaledEngine};
use crate::driver::process::{ProcessDriver, ProcessOptions, Supervision};

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
    /// Who watches the atoms.
    #[must_use]
    pub fn supervision(mut self, supervision: Supervision) -> Self {
        self.supervision = supervision;
        self
    }

    /// Opens the store at `path`, or creates it, for processes of this machine.
    ///
    /// # Errors
    ///
    /// As [`ProcessEngine::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<ProcessEngine, Error> {
        let supervision = self.supervision;
        self.open_with(path, |home| {
            let mut options = ProcessOptions::new(home.dir);
            options.copied = home.copied;
            options.supervision = supervision;
            ProcessDriver::new(options)
        })
    }
}
