//! The cgroup of a store in one hierarchy: what its atoms' cgroups are made in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::process::getppid;

use super::files;
use super::hierarchy::{Controller, Hierarchy, Kind};
use crate::atom::AtomId;
use crate::driver::process::keeper::is_guard;

/// Where the keeper goes when its own cgroup has to be free of processes.
pub(super) const LEAF: &str = "keeper";

/// More directories than this are not searched for groups of an earlier keeper.
const SEARCHED: usize = 50_000;

/// A hierarchy, and the place of the store in it.
#[derive(Debug)]
pub(super) struct StoreGroup {
    pub(super) hierarchy: Arc<Hierarchy>,
    /// `caesium-<store>`.
    pub(super) dir: PathBuf,
    /// The same of keepers that ran elsewhere, once they were looked for.
    elsewhere: OnceLock<Vec<PathBuf>>,
}

impl StoreGroup {
    pub(super) fn new(hierarchy: Hierarchy, name: &str) -> Self {
        let dir = hierarchy.base.join(name);
        Self { hierarchy: Arc::new(hierarchy), dir, elsewhere: OnceLock::new() }
    }

    /// Makes it, if it is not there.
    pub(super) fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.dir) {
            Ok(()) => {
                if matches!(self.hierarchy.kind, Kind::V2 { .. }) {
                    // What an atom is measured with, where that costs nobody anything.
                    for controller in [Controller::Memory, Controller::Pids, Controller::Io] {
                        let _ = self.switch_on(controller);
                    }
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory in it, and itself if it is not there.
    pub(super) fn make_dir(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.dir.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                fs::create_dir(&dir)?;
            }
            // The one of a start that was interrupted, if nobody is in it.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && files::members(&dir)?.is_empty() => {}
            other => other?,
        }
        Ok(dir)
    }

    /// Lets the cgroups below have a controller.
    ///
    /// # Errors
    ///
    /// What stands in the way, as the end of a sentence.
    pub(super) fn enable(&self, controller: Controller) -> Result<(), String> {
        match &self.hierarchy.kind {
            Kind::V1(_) => return Ok(()),
            Kind::V2 { .. } => {}
        }
        let shown = self.hierarchy.base.display();
        let error = match self.switch_on(controller) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(format!("in cgroup {shown}: {error}"));
        }
        // A cgroup that is not the root has either processes or controllers for those below it.
        self.step_aside()
            .and_then(|()| self.switch_on(controller))
            .map_err(|error| {
                format!(
                    "cgroup {shown} holds other processes, so that what is below it cannot have controllers ({error}); \
                     run the host in a cgroup of its own, as with systemd-run -p Delegate=yes -p DelegateSubgroup=host"
                )
            })
    }

    fn switch_on(&self, controller: Controller) -> io::Result<()> {
        let name = controller.v2().ok_or(io::ErrorKind::Unsupported)?;
        for dir in [&self.hierarchy.base, &self.dir] {
            let file = dir.join("cgroup.subtree_control");
            if files::words(&file)?.iter().any(|word| word == name) {
                continue;
            }
            // The kernel refuses memory then, but not pids or cpu: it would make the
            // cgroup a threaded one, and what is below it unfit for processes.
            if has_inner_processes(dir)? {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            files::write(&file, &format!("+{name}"))?;
        }
        Ok(())
    }

    /// Leaves the base for a leaf below, if nobody is in it whom we may not take along:
    /// ourselves, and the host that started us where all is delegated to it.
    fn step_aside(&self) -> io::Result<()> {
        let us = std::process::id();
        let host = getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        let base = &self.hierarchy.base;
        let inside: Vec<u32> = fs::read_to_string(base.join("cgroup.procs"))?
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect();
        // Our parent is our guard, or whoever started us.
        let may_go = |pid: &u32| {
            *pid == us
                || (Some(*pid) == host && (is_guard(*pid) || super::hierarchy::is_delegated(base)))
        };
        if inside.is_empty() || !inside.iter().all(may_go) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let leaf = self.dir.join(LEAF);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        for pid in inside {
            files::write(&leaf.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Takes back [`StoreGroup::step_aside`], so that the leaf can go.
    fn step_back(&self) -> io::Result<()> {
        let leaf = self.dir.join(LEAF);
        if !leaf.is_dir() {
            return Ok(());
        }
        let base = &self.hierarchy.base;
        for dir in [&self.dir, base] {
            let file = dir.join("cgroup.subtree_control");
            for name in files::words(&file)? {
                files::write(&file, &format!("-{name}"))?;
            }
        }
        for pid in files::members(&leaf)? {
            files::write(&base.join("cgroup.procs"), &pid.to_string())?;
        }
        fs::remove_dir(&leaf)
    }

    /// Where the cgroup of an atom is, if there is one.
    pub(super) fn find(&self, atom: &str) -> Option<PathBuf> {
        let here = self.dir.join(atom);
        if here.is_dir() {
            return Some(here);
        }
        self.elsewhere().iter().map(|dir| dir.join(atom)).find(|dir| dir.is_dir())
    }

    /// The atoms that have a cgroup here.
    #[cfg(test)]
    pub(super) fn atoms(&self) -> Vec<AtomId> {
        let dirs = std::iter::once(&self.dir).chain(self.elsewhere());
        dirs.flat_map(|dir| atoms_in(dir)).collect()
    }

    /// Removes the cgroups of atoms in which nothing lives.
    pub(super) fn sweep(&self) {
        for atom in atoms_in(&self.dir) {
            // Refused where something was left to live.
            let _ = files::remove_tree(&self.dir.join(atom.to_string()));
        }
    }

    /// Removes it, if no atom has a cgroup in it.
    pub(super) fn remove(&self) {
        if atoms_in(&self.dir).is_empty() {
            // Whatever fails here leaves an empty cgroup, which the next keeper uses.
            let _ = self.step_back();
            let _ = fs::remove_dir(&self.dir);
        }
        for dir in self.elsewhere.get().into_iter().flatten() {
            // Refused when something is in it.
            let _ = fs::remove_dir(dir);
        }
    }

    /// The store's directories that earlier keepers made under other cgroups: each one
    /// runs where the host ran that started it.
    fn elsewhere(&self) -> &[PathBuf] {
        self.elsewhere.get_or_init(|| {
            let mut found = Vec::new();
            let Some(name) = self.dir.file_name() else { return found };
            let mut next: Vec<PathBuf> = vec![self.hierarchy.mount.clone()];
            let mut seen = 0;
            while let Some(dir) = next.pop() {
                for sub in subdirectories(&dir) {
                    seen += 1;
                    if sub.file_name() != Some(name) {
                        next.push(sub);
                    } else if sub != self.dir {
                        found.push(sub);
                    }
                }
                if seen > SEARCHED {
                    tracing::warn!(
                        hierarchy = %self.hierarchy.mount.display(),
                        "too many cgroups to search for those of an earlier keeper"
                    );
                    break;
                }
            }
            found
        })
    }
}

/// Whether processes are in it that keep controllers from what is below it. Only the root may have both.
fn has_inner_processes(dir: &Path) -> io::Result<bool> {
    let is_root = !dir.join("cgroup.type").exists();
    Ok(!is_root && !fs::read_to_string(dir.join("cgroup.procs"))?.is_empty())
}

/// The atoms that have a cgroup in this one.
fn atoms_in(dir: &Path) -> Vec<AtomId> {
    let named = |dir: PathBuf| dir.file_name()?.to_str()?.parse().ok();
    subdirectories(dir).into_iter().filter_map(named).collect()
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
