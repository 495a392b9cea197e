//! The fold of all records: the atoms that exist.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::record::{Creation, Fact, Note};
use crate::atom::{Atom, AtomId, Known, PlannedRetry};
use crate::lifecycle::{Life, Rejection, State, transition};
use crate::time::Timestamp;

/// The atoms that exist, and who has which name and key.
///
/// [`View::apply`] is the one way in: for what happens now, for what the
/// writer made durable, and for what is replayed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    atoms: BTreeMap<AtomId, Atom>,
    names: HashMap<Arc<str>, AtomId>,
    /// The first of the atoms with a key: the others retry it.
    keys: HashMap<Arc<str>, AtomId>,
}

/// The parts of a view that one fact can change, as they were before it.
#[derive(Debug)]
pub(crate) struct Before {
    atom: (AtomId, Option<Atom>),
    retried: Option<(AtomId, Option<Atom>)>,
    names: Vec<(Arc<str>, Option<AtomId>)>,
    keys: Vec<(Arc<str>, Option<AtomId>)>,
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
    /// Another atom was created with the key.
    #[error("the key {key:?} is in use by atom {by}")]
    KeyInUse {
        /// The key.
        key: String,
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
                let atom = self.atoms.get_mut(&id).ok_or(Unfit::NoSuchAtom(id))?;
                let life = transition(atom.life(), event, at)?;
                note_down(atom.known_mut(), life, note);
                let atom = atom.clone();
                if atom.state() == State::Deleted {
                    self.forget(&atom);
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
        atom.known_mut().planned_retry = planned_retry;
        Ok(atom.clone())
    }

    fn create(&mut self, id: AtomId, at: Timestamp, creation: &Creation) -> Result<Atom, Unfit> {
        if self.atoms.contains_key(&id) {
            return Err(Unfit::IdInUse(id));
        }
        if let Some(key) = creation.spec.get_key()
            && let Some(first) = self.keyed(key)
        {
            let retried = creation.retry_of.and_then(|of| self.atoms.get(&of));
            if retried.is_none_or(|retried| retried.spec().get_key() != Some(key)) {
                return Err(Unfit::KeyInUse { key: key.to_owned(), by: first.id() });
            }
        }
        if let Some(name) = creation.spec.get_name() {
            match self.names.get(name) {
                Some(by) if Some(*by) != creation.retry_of => {
                    return Err(Unfit::NameInUse { name: name.to_owned(), by: *by });
                }
                Some(_) | None => self.names.insert(name.into(), id),
            };
        }
        if let Some(key) = creation.spec.get_key() {
            self.keys.entry(key.into()).or_insert(id);
        }
        if let Some(replaced) = creation.retry_of.and_then(|of| self.atoms.get_mut(&of)) {
            if let Some(name) = replaced.name() {
                // Its name passes on, whether the new atom uses it or not: a snapshot could not tell.
                if self.names.get(name) == Some(&replaced.id()) {
                    self.names.remove(name);
                }
            }
            let known = replaced.known_mut();
            (known.planned_retry, known.replaced_by) = (None, Some(id));
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
        if let Some(key) = atom.spec().get_key()
            && self.keys.get(key) == Some(&atom.id())
        {
            // It passes to the first of those that retry it, if one does.
            let retries = atom.replaced_by().into_iter().flat_map(|_| self.atoms.values());
            let retries = retries.filter(|other| other.spec().get_key() == Some(key));
            match retries.min_by_key(|other| other.attempt()).map(Atom::id) {
                Some(next) => self.keys.insert(key.into(), next),
                None => self.keys.remove(key),
            };
        }
    }

    /// What [`View::apply`] of this fact could change, as it is now.
    pub(crate) fn before(&self, id: AtomId, fact: &Fact) -> Before {
        let (retry_of, asked) = match fact {
            Fact::Created(creation) => (creation.retry_of, Some(&*creation.spec)),
            Fact::Happened { .. } | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => {
                (None, None)
            }
        };
        let was = |id| (id, self.atoms.get(&id).cloned());
        let (atom, retried) = (was(id), retry_of.map(was));
        let known = [Some(&atom), retried.as_ref()].into_iter().flatten();
        let known = known.filter_map(|(_, atom)| atom.as_ref()).map(Atom::spec);
        let specs = asked.into_iter().chain(known);
        let who = |known: &HashMap<Arc<str>, AtomId>, text: &str| {
            (Arc::from(text), known.get(text).copied())
        };
        let names = specs.clone().filter_map(|spec| spec.get_name());
        let keys = specs.filter_map(|spec| spec.get_key());
        Before {
            names: names.map(|name| who(&self.names, name)).collect(),
            keys: keys.map(|key| who(&self.keys, key)).collect(),
            atom,
            retried,
        }
    }

    /// Takes back what was applied since `before` was asked for.
    pub(crate) fn take_back(&mut self, before: Before) {
        for (id, atom) in [Some(before.atom), before.retried].into_iter().flatten() {
            match atom {
                Some(atom) => self.atoms.insert(id, atom),
                None => self.atoms.remove(&id),
            };
        }
        for (known, before) in [(&mut self.names, before.names), (&mut self.keys, before.keys)] {
            for (text, by) in before {
                match by {
                    Some(id) => known.insert(text, id),
                    None => known.remove(&text),
                };
            }
        }
    }

    /// Puts back an atom from a snapshot.
    pub(crate) fn restore(&mut self, mut known: Known) {
        if let Some((_, before)) = self.atoms.last_key_value() {
            known.share(before.known());
        }
        let atom = Atom::from(known);
        if let (Some(name), None) = (atom.name(), atom.replaced_by()) {
            self.names.insert(name.into(), atom.id());
        }
        if let Some(key) = atom.spec().get_key() {
            let known = self.keyed(key).map(Atom::attempt);
            if known.is_none_or(|attempt| atom.attempt() < attempt) {
                self.keys.insert(key.into(), atom.id());
            }
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

    /// The atom that was created with this key: the first one, if it was retried.
    pub fn keyed(&self, key: &str) -> Option<&Atom> {
        self.keys.get(key).and_then(|id| self.atoms.get(id))
    }

    /// The atoms with ids from `first` to `last`, both included.
    pub fn between(&self, first: AtomId, last: AtomId) -> impl Iterator<Item = &Atom> {
        self.atoms.range(first..=last).map(|(_, atom)| atom)
    }

    /// The atoms after one, which need not exist, or all; by their ids, ascending or descending.
    pub(crate) fn after(
        &self,
        id: Option<AtomId>,
        descending: bool,
    ) -> impl Iterator<Item = &Atom> {
        let before = id.filter(|_| descending).map_or(Bound::Unbounded, Bound::Excluded);
        let after = id.filter(|_| !descending).map_or(Bound::Unbounded, Bound::Excluded);
        let mut atoms = self.atoms.range((after, before)).map(|(_, atom)| atom);
        std::iter::from_fn(move || if descending { atoms.next_back() } else { atoms.next() })
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

/// What an event makes of what is known of an atom.
pub(crate) fn note_down(known: &mut Known, life: Life, note: &Note) {
    let Note { detail, handle, usage, left_behind } = note;
    known.life = life;
    note_if_told(&mut known.detail, detail);
    note_if_told(&mut known.handle, handle);
    note_if_told(&mut known.usage, usage);
    note_if_told(&mut known.left_behind, left_behind);
}

fn note_if_told<T: ?Sized>(known: &mut Option<Arc<T>>, told: &Option<Arc<T>>) {
    if told.is_some() {
        known.clone_from(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atom::AtomSpec;

    #[test]
    fn atoms_that_are_read_again_have_in_common_what_is_the_same() {
        let mut view = View::default();
        for arg in ["a", "a", "b"] {
            let spec = AtomSpec::command("true").arg(arg).into();
            let creation = Creation { engine: "test".into(), spec, attempt: 1, retry_of: None };
            view.restore(born(AtomId::new(), Timestamp::from_micros(1), &creation));
        }
        let known: Vec<&Known> = view.atoms().map(Atom::known).collect();
        assert!(known.iter().all(|other| Arc::ptr_eq(&other.engine, &known[0].engine)));
        assert!(Arc::ptr_eq(&known[0].spec, &known[1].spec));
        assert_ne!(known[1].spec, known[2].spec);
    }
}
