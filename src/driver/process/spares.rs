//! FIFOs and directories of atoms that are gone, kept for those that come.
//!
//! To make a file is the dearest part of what an atom has on disk, most of all on an ext4 without a journal, which
//! steps over everything that was deleted in the last half minute. A rename costs little. So what is blank and
//! nobody's goes to `atoms/.spare`, in bounds, and is taken from there first. Where anything of that fails, a
//! file is made, or removed, as if there were none.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Where they are, among the directories of the atoms: no atom has this name.
const NAME: &str = ".spare";

/// How many of each kind are kept at the most.
const MOST: usize = 64;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A FIFO that is empty, and that nobody has open for writing.
    Fifo,
    /// A directory with a marker that is all zeros, called as one is that is being made.
    Dir,
}

/// The spare files of one store. Whoever keeps them removes what an earlier one has left.
#[derive(Debug)]
pub(super) struct Spares {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Their names.
    fifos: Vec<u64>,
    dirs: Vec<u64>,
    next: u64,
    /// The directory is ours; `None` before it was needed.
    usable: Option<bool>,
}

impl State {
    fn of(&mut self, kind: Kind) -> &mut Vec<u64> {
        match kind {
            Kind::Fifo => &mut self.fifos,
            Kind::Dir => &mut self.dirs,
        }
    }
}

impl Spares {
    pub(super) fn new(atoms: &Path) -> Self {
        Self { dir: atoms.join(NAME), state: Mutex::default() }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// Puts one where it is needed; false when there is none.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is something in that place.
    pub(super) fn take(&self, kind: Kind, to: &Path) -> io::Result<bool> {
        let Some(number) = self.state.lock().of(kind).pop() else { return Ok(false) };
        match renameat_with(CWD, self.path(number), CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                self.state.lock().of(kind).push(number);
                Err(Errno::EXIST.into())
            }
            // Another keeper of the store has removed it, or this file system cannot do that.
            Err(_) => Ok(false),
        }
    }

    /// Keeps one, if there are not enough; false when it stays where it is.
    pub(super) fn keep(&self, kind: Kind, from: &Path) -> bool {
        let number = {
            let mut state = self.state.lock();
            if state.of(kind).len() >= MOST || !self.is_usable(&mut state) {
                return false;
            }
            state.next += 1;
            state.next
        };
        if fs::rename(from, self.path(number)).is_err() {
            return false;
        }
        self.state.lock().of(kind).push(number);
        true
    }

    fn is_usable(&self, state: &mut State) -> bool {
        *state.usable.get_or_insert_with(|| {
            let _ = fs::remove_dir_all(&self.dir);
            DirBuilder::new().mode(0o700).create(&self.dir).is_ok()
        })
    }

    /// Removes all of them; none is kept any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.usable.replace(false) == Some(true) {
            // What stays is removed by whoever comes next.
            let _ = fs::remove_dir_all(&self.dir);
        }
        (state.fifos, state.dirs) = (Vec::new(), Vec::new());
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
        assert!(!spares.take(Kind::Dir, &place("a")).unwrap());
        assert!(spares.keep(Kind::Dir, &dir(&place("b"))));
        assert!(!spares.take(Kind::Fifo, &place("a")).unwrap(), "that is another kind");
        dir(&place("c"));
        let error = spares.take(Kind::Dir, &place("c")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(spares.take(Kind::Dir, &place("a")).unwrap());
        assert!(place("a").is_dir() && !place("b").exists());
        assert!(!spares.take(Kind::Dir, &place("d")).unwrap());
    }

    #[test]
    fn they_are_bounded_and_go_with_the_one_who_keeps_them() {
        let atoms = tempfile::tempdir().unwrap();
        let spares = Spares::new(atoms.path());
        let kept = (0..MOST + 10)
            .filter(|n| spares.keep(Kind::Dir, &dir(&atoms.path().join(n.to_string()))));
        assert_eq!(kept.count(), MOST);
        drop(spares);

        let spares = Spares::new(atoms.path());
        assert!(!spares.take(Kind::Dir, &atoms.path().join("a")).unwrap());
        assert!(spares.keep(Kind::Dir, &dir(&atoms.path().join("b"))));
        assert_eq!(fs::read_dir(atoms.path().join(NAME)).unwrap().count(), 1);
        spares.close();
        assert!(!atoms.path().join(NAME).exists());
        assert!(!spares.keep(Kind::Dir, &dir(&atoms.path().join("c"))));
    }
}
