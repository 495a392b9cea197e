//! Directories and FIFOs of atoms that are gone, kept for those that come.
//!
//! To make a file is the dearest part of what an atom has on disk, most of all on an ext4 without a journal, which
//! steps over everything that was deleted in the last half minute. A rename costs little. So a directory that is blank and
//! nobody's goes to `atoms/.spare`, in bounds, and is taken from there first; with its FIFOs, if nobody can have them any
//! more. Where anything of that fails, a file is made, or removed, as if there were none.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::atom::AtomId;

/// Where they are, among the directories of the atoms: no atom has this name.
const NAME: &str = ".spare";

/// How many directories are kept at the most, and how many atoms that have ended keep their FIFOs.
const MOST: usize = 64;

/// A directory with a blank marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spare {
    name: u64,
    /// It has its FIFOs, which are empty and which nobody has open for writing.
    pub(super) fifos: bool,
}

/// The spare files of one store. Whoever keeps them removes what an earlier one has left.
#[derive(Debug)]
pub(super) struct Spares {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spares: Vec<Spare>,
    /// Atoms that have ended and have FIFOs that are empty and that nobody has open for writing, the oldest first.
    drained: VecDeque<AtomId>,
    next: u64,
    /// The directory is ours; `None` before it was needed.
    usable: Option<bool>,
}

impl Spares {
    pub(super) fn new(atoms: &Path) -> Self {
        Self { dir: atoms.join(NAME), state: Mutex::default() }
    }

    fn path(&self, name: u64) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Puts one where it is needed; `None` when there is none.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is something in that place.
    pub(super) fn take(&self, to: &Path) -> io::Result<Option<Spare>> {
        let Some(spare) = self.state.lock().spares.pop() else { return Ok(None) };
        match renameat_with(CWD, self.path(spare.name), CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Some(spare)),
            Err(Errno::EXIST) => {
                self.state.lock().spares.push(spare);
                Err(Errno::EXIST.into())
            }
            // Another keeper of the store has removed it, or this file system cannot do that.
            Err(_) => Ok(None),
        }
    }

    /// Keeps one, with its FIFOs or without, if there are not enough; false when it stays where it is.
    pub(super) fn keep(&self, from: &Path, fifos: bool) -> bool {
        let name = {
            let mut state = self.state.lock();
            if state.spares.len() >= MOST || !self.is_usable(&mut state) {
                return false;
            }
            state.next += 1;
            state.next
        };
        if fs::rename(from, self.path(name)).is_err() {
            return false;
        }
        self.state.lock().spares.push(Spare { name, fifos });
        true
    }

    /// The FIFOs of an atom that has ended are empty, and nobody has them open for writing. Gives the atom that has to do
    /// without its own: this one, if none is kept, or the one that has kept them longest.
    pub(super) fn drained(&self, atom: AtomId) -> Option<AtomId> {
        let mut state = self.state.lock();
        if !self.is_usable(&mut state) {
            return Some(atom);
        }
        state.drained.push_back(atom);
        if state.drained.len() > MOST { state.drained.pop_front() } else { None }
    }

    /// Whether an atom has such FIFOs; it is not asked again.
    pub(super) fn take_drained(&self, atom: AtomId) -> bool {
        let mut state = self.state.lock();
        // The last are the likely ones.
        let found = state.drained.iter().rposition(|other| *other == atom);
        found.is_some_and(|at| state.drained.remove(at).is_some())
    }

    fn is_usable(&self, state: &mut State) -> bool {
        *state.usable.get_or_insert_with(|| {
            let _ = fs::remove_dir_all(&self.dir);
            DirBuilder::new().mode(0o700).create(&self.dir).is_ok()
        })
    }

    /// Removes all of them; none is kept any more. Gives the atoms that have to do without their FIFOs.
    pub(super) fn close(&self) -> impl Iterator<Item = AtomId> {
        let mut state = self.state.lock();
        if state.usable.replace(false) == Some(true) {
            // What stays is removed by whoever comes next.
            let _ = fs::remove_dir_all(&self.dir);
        }
        state.spares.clear();
        std::mem::take(&mut state.drained).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(path: &Path) -> PathBuf {
        fs::create_dir(path).unwrap();
        path.to_owned()
    }

    #[test]
    fn what_is_kept_is_taken_once() {
        let atoms = tempfile::tempdir().unwrap();
        let place = |name: &str| atoms.path().join(name);
        let spares = Spares::new(atoms.path());
        assert_eq!(spares.take(&place("a")).unwrap(), None);
        assert!(spares.keep(&dir(&place("b")), true));
        dir(&place("c"));
        let error = spares.take(&place("c")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(spares.take(&place("a")).unwrap().unwrap().fifos);
        assert!(place("a").is_dir() && !place("b").exists());
        assert_eq!(spares.take(&place("d")).unwrap(), None);
    }

    #[test]
    fn those_that_have_kept_their_fifos_longest_lose_them() {
        let atoms = tempfile::tempdir().unwrap();
        let spares = Spares::new(atoms.path());
        let ids: Vec<AtomId> = (0..MOST + 2).map(|_| AtomId::new()).collect();
        let (first, rest) = ids.split_at(MOST);
        assert!(first.iter().all(|atom| spares.drained(*atom).is_none()));
        assert!(spares.take_drained(first[5]));
        assert!(!spares.take_drained(first[5]), "it is said once");
        assert_eq!(spares.drained(rest[0]), None);
        assert_eq!(spares.drained(rest[1]), Some(first[0]));
        assert!(!spares.take_drained(first[0]));
        assert_eq!(spares.close().count(), MOST);
        assert_eq!(spares.drained(first[1]), Some(first[1]), "nothing is kept any more");
    }

    #[test]
    fn they_are_bounded_and_go_with_the_one_who_keeps_them() {
        let atoms = tempfile::tempdir().unwrap();
        let spares = Spares::new(atoms.path());
        let kept =
            (0..MOST + 10).filter(|n| spares.keep(&dir(&atoms.path().join(n.to_string())), false));
        assert_eq!(kept.count(), MOST);
        drop(spares);

        let spares = Spares::new(atoms.path());
        assert_eq!(spares.take(&atoms.path().join("a")).unwrap(), None);
        assert!(spares.keep(&dir(&atoms.path().join("b")), false));
        assert_eq!(fs::read_dir(atoms.path().join(NAME)).unwrap().count(), 1);
        assert_eq!(spares.close().count(), 0);
        assert!(!atoms.path().join(NAME).exists());
        assert!(!spares.keep(&dir(&atoms.path().join("c")), false));
    }
}
