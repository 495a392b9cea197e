//! What became of the atoms, as far as what can be read tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::atom::{Atom, AtomId, AtomSpec, Known};
use crate::journal::view::{View, born, note_down};
use crate::journal::{Creation, Fact, Record};
use crate::lifecycle::{Life, State, transition};

/// The atoms at one moment, as a segment or a base has them.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) atoms: Vec<Known>,
    /// None of them is missing.
    pub(super) complete: bool,
}

/// The atoms that exist, and those among them whose life does not add up.
#[derive(Debug, Default)]
pub(super) struct Lives {
    atoms: BTreeMap<AtomId, Known>,
    broken: BTreeSet<AtomId>,
}

/// The engine and the program of an atom of which only later events can be read.
const UNKNOWN: &str = "unknown";

impl Lives {
    /// What is known at this moment, whatever the events before it were.
    pub(super) fn snapshot(&mut self, snapshot: Snapshot) {
        if snapshot.complete {
            self.atoms.clear();
            self.broken.clear();
        }
        for known in snapshot.atoms {
            self.broken.remove(&known.id);
            self.atoms.insert(known.id, known);
        }
    }

    /// Applies an event that could be read.
    pub(super) fn event(&mut self, record: &Record) {
        let id = record.atom;
        match &record.fact {
            Fact::Lost => {}
            Fact::Created(creation) => self.create(record, creation),
            // Its removal is the end, whatever was before it.
            Fact::Happened { .. } if record.state == State::Deleted => {
                self.atoms.remove(&id);
                self.broken.remove(&id);
            }
            Fact::Happened { event, note } => {
                let Some(known) = self.atoms.get_mut(&id) else { return self.unheard_of(record) };
                match transition(&known.life, event, record.at) {
                    Ok(life) if life.state() == record.state => note_down(known, life, note),
                    Ok(_) | Err(_) => drop(self.broken.insert(id)),
                }
            }
            Fact::RetryPlanned(planned) => match self.atoms.get_mut(&id) {
                Some(known) => known.planned_retry = Some(*planned),
                None => self.unheard_of(record),
            },
            Fact::RetryDropped => match self.atoms.get_mut(&id) {
                Some(known) => known.planned_retry = None,
                None => self.unheard_of(record),
            },
        }
    }

    fn create(&mut self, record: &Record, creation: &Creation) {
        if let Some(replaced) = creation.retry_of.and_then(|of| self.atoms.get_mut(&of)) {
            replaced.planned_retry = None;
            replaced.replaced_by = Some(record.atom);
        }
        // Who had its name must have been deleted, or been replaced by it.
        let name = creation.spec.get_name();
        let before = self.atoms.values().filter(|known| {
            name.is_some()
                && known.spec.get_name() == name
                && known.replaced_by.is_none()
                && Some(known.id) != creation.retry_of
        });
        self.broken.extend(before.map(|known| known.id));
        if self.atoms.insert(record.atom, born(record.atom, record.at, creation)).is_some() {
            self.broken.insert(record.atom);
        }
    }

    /// It exists, and what it was asked to be was lost.
    fn unheard_of(&mut self, record: &Record) {
        let creation = Creation {
            engine: UNKNOWN.into(),
            spec: Arc::new(AtomSpec::command(UNKNOWN)),
            attempt: 1,
            retry_of: None,
        };
        let known =
            Known { life: Life::created(record.at), ..born(record.atom, record.at, &creation) };
        self.atoms.insert(record.atom, known);
        self.broken.insert(record.atom);
    }

    /// The atoms, and those that are to be called invalid.
    pub(super) fn end(self) -> (View, Vec<AtomId>) {
        let mut view = View::default();
        for known in self.atoms.into_values() {
            view.restore(known);
        }
        let can_be = |id: &AtomId| {
            view.get(*id).map(Atom::state).is_some_and(|state| state != State::Invalid)
        };
        let broken = self.broken.into_iter().filter(can_be).collect();
        (view, broken)
    }
}
