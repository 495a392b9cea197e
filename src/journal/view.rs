//! The fold of all records: the atoms that exist.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::record::{Creation, Fact, Note};
use crate::atom::{Atom, AtomId, Known, PlannedRetry};
use crate::lifecycle::{Life, Rejection, State, transition};
use crate::time::Timestamp;

/// The atoms that exist, and who has which name.
///
/// [`View::apply`] is the one way in: for what happens now, for what the
/// writer made durable, and for what is replayed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    atoms: BTreeMap<AtomId, Atom>,
    names: HashMap<Arc<str>, AtomId>,
}

/// The parts of a view that one fact can change, as they were before it.
#[derive(Debug)]
pub(crate) struct Before {
    atoms: Vec<(AtomId, Option<Atom>)>,
    names: Vec<(Arc<str>, Option<AtomId>)>,
}

/// Why a fact does not fit what is known. Nothing was changed or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The lifecycle does not allow it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// There is no such atom.
    #[error("there is no atom {0}")]
    NoSuchAtom(AtomId),
    /// There is already an atom with this id.
    #[error("there is already an atom {0}")]
    IdInUse(AtomId),
    /// Another atom has the name.
    #[error("the name {name:?} is in use by atom {by}")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        by: AtomId,
    },
}

impl View {
    /// Applies one fact; gives the atom as it is afterwards.
    ///
    /// An atom that was deleted is no longer in the view.
    ///
    /// # Errors
    ///
    /// [`Unfit`] when the fact does not fit; nothing is changed then.
    pub fn apply(&mut self, id: AtomId, at: Timestamp, fact: &Fact) -> Result<Atom, Unfit> {
        match fact {
            Fact::Created(creation) => self.create(id, at, creation),
            Fact::Happened { event, note } => {
                let atom = self.atoms.get(&id).ok_or(Unfit::NoSuchAtom(id))?;
                let life = transition(atom.life(), event, at)?;
                let atom = Atom::from(noted(atom.known(), life, note));
                if atom.state() == State::Deleted {
                    self.forget(&atom);
                } else {
                    self.atoms.insert(id, atom.clone());
                }
                Ok(atom)
            }
            Fact::RetryPlanned(planned) => self.plan_retry(id, Some(*planned)),
            Fact::RetryDropped => self.plan_retry(id, None),
            // It is only in what a salvage has kept, which is not folded.
            Fact::Lost => Err(Unfit::NoSuchAtom(id)),
        }
    }

    fn plan_retry(
        &mut self,
        id: AtomId,
        planned_retry: Option<PlannedRetry>,
    ) -> Result<Atom, Unfit> {
        let atom = self.atoms.get_mut(&id).ok_or(Unfit::NoSuchAtom(id))?;
        *atom = Atom::from(Known { planned_retry, ..atom.known().clone() });
        Ok(atom.clone())
    }

    fn create(&mut self, id: AtomId, at: Timestamp, creation: &Creation) -> Result<Atom, Unfit> {
        if self.atoms.contains_key(&id) {
            return Err(Unfit::IdInUse(id));
        }
        if let Some(name) = creation.spec.get_name() {
            match self.names.get(name) {
                Some(by) if Some(*by) != creation.retry_of => {
                    return Err(Unfit::NameInUse { name: name.to_owned(), by: *by });
                }
                Some(_) | None => self.names.insert(name.into(), id),
            };
        }
        if let Some(replaced) = creation.retry_of.and_then(|of| self.atoms.get_mut(&of)) {
            let known = replaced.known().clone();
            if let Some(name) = replaced.name() {
                // Its name passes on, whether the new atom uses it or not: a snapshot could not tell.
                if self.names.get(name) == Some(&replaced.id()) {
                    self.names.remove(name);
                }
            }
            *replaced = Atom::from(Known { planned_retry: None, replaced_by: Some(id), ..known });
        }
        let atom = Atom::from(born(id, at, creation));
        self.atoms.insert(id, atom.clone());
        Ok(atom)
    }

    fn forget(&mut self, atom: &Atom) {
        self.atoms.remove(&atom.id());
        if let Some(name) = atom.name() {
            // After a retry the name belongs to the newer atom.
            if self.names.get(name) == Some(&atom.id()) {
                self.names.remove(name);
            }
        }
    }

    /// What [`View::apply`] of this fact could change, as it is now.
    pub(crate) fn before(&self, id: AtomId, fact: &Fact) -> Before {
        let mut ids = vec![id];
        let mut names: Vec<Arc<str>> = Vec::new();
        if let Fact::Created(creation) = fact {
            ids.extend(creation.retry_of);
            names.extend(creation.spec.get_name().map(Arc::from));
        }
        let named = ids.iter().filter_map(|id| self.atoms.get(id)?.name());
        names.extend(named.map(Arc::from));
        Before {
            atoms: ids.into_iter().map(|id| (id, self.atoms.get(&id).cloned())).collect(),
            names: names
                .into_iter()
                .map(|name| {
                    let by = self.names.get(&name).copied();
                    (name, by)
                })
                .collect(),
        }
    }

    /// Takes back what was applied since `before` was asked for.
    pub(crate) fn take_back(&mut self, before: Before) {
        for (id, atom) in before.atoms {
            match atom {
                Some(atom) => self.atoms.insert(id, atom),
                None => self.atoms.remove(&id),
            };
        }
        for (name, by) in before.names {
            match by {
                Some(id) => self.names.insert(name, id),
                None => self.names.remove(&name),
            };
        }
    }

    /// Puts back an atom from a snapshot.
    pub(crate) fn restore(&mut self, known: Known) {
        let atom = Atom::from(known);
        if let (Some(name), None) = (atom.name(), atom.replaced_by()) {
            self.names.insert(name.into(), atom.id());
        }
        self.atoms.insert(atom.id(), atom);
    }

    /// The atom with this id.
    pub fn get(&self, id: AtomId) -> Option<&Atom> {
        self.atoms.get(&id)
    }

    /// The atom that has this name now.
    pub fn named(&self, name: &str) -> Option<&Atom> {
        self.names.get(name).and_then(|id| self.atoms.get(id))
    }

    /// The atoms with ids from `first` to `last`, both included.
    pub fn between(&self, first: AtomId, last: AtomId) -> impl Iterator<Item = &Atom> {
        self.atoms.range(first..=last).map(|(_, atom)| atom)
    }

    /// All atoms, in the order of their ids.
    pub fn atoms(&self) -> impl ExactSizeIterator<Item = &Atom> {
        self.atoms.values()
    }

    /// How many atoms exist.
    pub fn len(&self) -> usize {
        self.atoms.len()
    }

    /// Whether no atom exists.
    pub fn is_empty(&self) -> bool {
        self.atoms.is_empty()
    }
}

/// An atom that has just come to be.
pub(crate) fn born(id: AtomId, at: Timestamp, creation: &Creation) -> Known {
    Known {
        id,
        engine: creation.engine.clone(),
        spec: creation.spec.clone(),
        life: Life::created(at),
        detail: None,
        handle: None,
        usage: None,
        left_behind: None,
        attempt: creation.attempt,
        retry_of: creation.retry_of,
        replaced_by: None,
        planned_retry: None,
    }
}

/// What is known of an atom after an event.
pub(crate) fn noted(known: &Known, life: Life, note: &Note) -> Known {
    Known {
        life,
        detail: note.detail.clone().or_else(|| known.detail.clone()),
        handle: note.handle.clone().or_else(|| known.handle.clone()),
        usage: note.usage.or(known.usage),
        left_behind: note.left_behind.clone().or_else(|| known.left_behind.clone()),
        ..known.clone()
    }
}
