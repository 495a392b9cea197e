//! What the front and the monitor share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::dir::{AtomDir, Prepared};
use super::identity::Place;
use super::log::{LogShared, LogWriter, Placeholder};
use super::mailbox::Mailbox;
use super::spares::Spares;
use crate::atom::{AtomId, AtomSpec};
use crate::driver::DriverError;

/// What the front and the monitor share.
#[derive(Debug)]
pub(super) struct Context {
    /// One directory per atom is in here.
    pub(super) atoms: PathBuf,
    /// The store is a copy: nothing that runs is its own.
    pub(super) copied: bool,
    pub(super) place: Place,
    pub(super) mailbox: Arc<Mailbox>,
    spares: Arc<Spares>,
    placeholder: Arc<Placeholder>,
    /// What was set aside for atoms that were not started yet.
    prepared: Mutex<HashMap<AtomId, Prepared>>,
    /// The logs that are being written.
    logs: Mutex<HashMap<AtomId, Arc<LogShared>>>,
}

impl Context {
    pub(super) fn new(atoms: PathBuf, copied: bool, place: Place, mailbox: Arc<Mailbox>) -> Self {
        let spares = Arc::new(Spares::new(&atoms));
        let (prepared, logs) = (Mutex::default(), Mutex::default());
        let placeholder = Arc::new(Placeholder::new());
        Self { atoms, copied, place, mailbox, spares, placeholder, prepared, logs }
    }

    pub(super) fn dir(&self, atom: AtomId) -> AtomDir {
        AtomDir::with_spares(&self.atoms, atom, &self.spares)
    }

    /// Sets aside what an atom needs.
    pub(super) fn prepare(&self, atom: AtomId, spec: &AtomSpec) -> Result<(), DriverError> {
        self.prepare_with(atom, spec, AtomDir::prepare)
    }

    /// The same, in the place of what a keeper that died had set aside for it.
    pub(super) fn prepare_anew(&self, atom: AtomId, spec: &AtomSpec) -> Result<(), DriverError> {
        self.prepare_with(atom, spec, AtomDir::prepare_anew)
    }

    fn prepare_with(
        &self,
        atom: AtomId,
        spec: &AtomSpec,
        prepare: impl FnOnce(&AtomDir, Place, &AtomSpec, LogWriter) -> Result<Prepared, DriverError>,
    ) -> Result<(), DriverError> {
        let dir = self.dir(atom);
        let log = self.write_log(&dir, atom, spec.get_log_max());
        match prepare(&dir, self.place, spec, log) {
            Ok(prepared) => {
                self.keep_prepared(atom, prepared);
                Ok(())
            }
            Err(error) => {
                self.forget_log(atom);
                Err(error)
            }
        }
    }

    /// How many have something set aside.
    pub(super) fn prepared_count(&self) -> usize {
        self.prepared.lock().len()
    }

    /// Sets it aside again.
    pub(super) fn keep_prepared(&self, atom: AtomId, prepared: Prepared) {
        self.prepared.lock().insert(atom, prepared);
    }

    /// Changes what was set aside.
    pub(super) fn with_prepared(&self, atom: AtomId, change: impl FnOnce(&mut Prepared)) {
        if let Some(prepared) = self.prepared.lock().get_mut(&atom) {
            change(prepared);
        }
    }

    /// Takes what was set aside.
    pub(super) fn take_prepared(&self, atom: AtomId) -> Option<Prepared> {
        self.prepared.lock().remove(&atom)
    }

    /// Gives back what was set aside and is not wanted after all.
    pub(super) fn release(&self, atom: AtomId) {
        if let Some(prepared) = self.take_prepared(atom) {
            let dir = prepared.dir.clone();
            drop(prepared);
            self.forget_log(atom);
            dir.remove();
        }
    }

    /// Begins to write a log, and registers it.
    pub(super) fn write_log(&self, dir: &AtomDir, atom: AtomId, max: u64) -> LogWriter {
        let shared = LogShared::new(atom, Arc::clone(&self.mailbox) as _);
        self.logs.lock().insert(atom, Arc::clone(&shared));
        LogWriter::new(dir.path(), max, shared, Arc::clone(&self.placeholder))
    }

    /// The log of an atom, if it is being written.
    pub(super) fn log(&self, atom: AtomId) -> Option<Arc<LogShared>> {
        self.logs.lock().get(&atom).cloned()
    }

    /// Says that a log is no longer written; readers that have it see that it is complete.
    pub(super) fn forget_log(&self, atom: AtomId) {
        if let Some(log) = self.logs.lock().remove(&atom) {
            log.complete();
        }
    }

    /// Lets go of everything.
    pub(super) fn close(&self) {
        self.prepared.lock().clear();
        for atom in self.spares.close() {
            AtomDir::new(&self.atoms, atom).remove_fifos();
        }
        for (_, log) in self.logs.lock().drain() {
            log.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(atoms: &tempfile::TempDir) -> Context {
        let place = Place::here().unwrap();
        let mailbox = Arc::new(Mailbox::new().unwrap());
        Context::new(atoms.path().to_owned(), false, place, mailbox)
    }

    /// An atom that was prepared, and has ended.
    fn ended(context: &Context) -> AtomDir {
        let atom = AtomId::new();
        context.prepare(atom, &AtomSpec::command("true")).unwrap();
        drop(context.take_prepared(atom));
        context.forget_log(atom);
        let dir = context.dir(atom);
        dir.put_fifos_away(true, false);
        dir
    }

    #[test]
    fn the_next_atom_has_the_files_of_one_that_is_gone() {
        let atoms = tempfile::tempdir().unwrap();
        let context = context(&atoms);
        let dir = ended(&context);
        assert!(dir.path().join("out").exists());
        dir.put_away();
        assert!(!dir.path().exists());
        let next = ended(&context);
        assert!(next.path().join("out").exists() && next.path().join("err").exists());
        context.close();
        assert!(!next.path().join("out").exists(), "who kept them takes them away");
    }

    #[test]
    fn files_that_were_removed_meanwhile_are_not_counted_upon() {
        let atoms = tempfile::tempdir().unwrap();
        let context = context(&atoms);
        let dir = ended(&context);
        // As for whom another host asks again.
        dir.remove_fifos();
        dir.put_away();
        ended(&context).put_away();
        // And by somebody else.
        let dir = ended(&context);
        std::fs::remove_file(dir.path().join("err")).unwrap();
        dir.put_away();
        ended(&context);
    }
}
