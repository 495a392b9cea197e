//! Where cgroups can be made for a store, and making them.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::files;
use super::group::{Group, Node};
use super::hierarchy::{Controller, Hierarchy, Kind};
use super::limit;
use super::store_group::{LEAF, StoreGroup};
use super::trial::Subject;
use crate::atom::{AtomId, Limits};
use crate::driver::process::spawn::Failure;
use crate::lifecycle::Reason;

/// The hierarchies in which cgroups can be made for a store: found out by trying.
///
/// An atom always gets one in the hierarchy that contains it best (v2; else v1's
/// freezer and pids) and in v1's memory, whose counter is the evidence of an OOM
/// kill. A limited atom gets one in all of them, so that it is also measured. Where v2 is there,
/// the others are tried when the first limited atom comes: that takes milliseconds.
#[derive(Debug)]
pub(in crate::driver::process) struct Cgroups {
    /// Those that can be used for every atom.
    stores: Vec<StoreGroup>,
    /// What else there is, of which nothing is known.
    others: Vec<StoreGroup>,
    /// Those of them that can be used, once they were tried.
    limited: OnceLock<Vec<StoreGroup>>,
    store_dir: String,
}

impl Cgroups {
    /// Looks for them, below this process's own cgroup in each hierarchy.
    ///
    /// Makes one in each, has a child join it, and kills the child. Whatever
    /// refuses any of that is not used. Nothing of it is left. `store_name` has to
    /// be one that no other store has, and a part of a file name.
    ///
    /// This process is forked, here and when the first limited atom comes: to be called where that is cheap and safe.
    pub(in crate::driver::process) fn find(store_name: &str) -> Self {
        let is_unified = |hierarchy: &Hierarchy| matches!(hierarchy.kind, Kind::V2 { .. });
        let (for_all, mut others): (Vec<_>, Vec<_>) = mounted()
            .into_iter()
            .partition(|hierarchy| is_unified(hierarchy) || hierarchy.binds(Controller::Memory));
        let store_dir = store_dir(store_name);
        let usable = |hierarchies| {
            usable(hierarchies, &store_dir).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot try which cgroups can be used");
                Vec::new()
            })
        };
        let mut stores = usable(for_all);
        if !stores.iter().any(|store| is_unified(&store.hierarchy)) {
            // All that there are, then.
            stores.extend(usable(std::mem::take(&mut others)));
        }
        Self::with(stores, others, store_dir)
    }

    /// Where they would be, of which nothing is known: for what an earlier keeper has left.
    pub(in crate::driver::process) fn untried(store_name: &str) -> Self {
        Self::with(Vec::new(), mounted(), store_dir(store_name))
    }

    fn with(stores: Vec<StoreGroup>, others: Vec<Hierarchy>, store_dir: String) -> Self {
        let others = others.into_iter().map(|mut hierarchy| {
            hierarchy.settle(&store_dir, LEAF);
            StoreGroup::new(hierarchy, &store_dir)
        });
        Self { stores, others: others.collect(), limited: OnceLock::new(), store_dir }
    }

    /// Whether an atom's processes can be told from others, and ended together.
    pub(in crate::driver::process) fn can_contain(&self) -> bool {
        !self.stores.is_empty()
    }

    /// Makes the cgroup of an atom, with its limits set, in every hierarchy that it needs.
    ///
    /// # Errors
    ///
    /// When a limit that was asked for cannot be set, or no cgroup can be made. Nothing is left behind then.
    pub(in crate::driver::process) fn create(
        &self,
        atom: AtomId,
        limits: &Limits,
    ) -> Result<Group, Failure> {
        let asked = limit::asked(limits)?;
        let others = match asked.first() {
            Some(limit) => self.limited().map_err(|error| {
                limit.failure(&format!("which cgroups can be used could not be tried: {error}"))
            })?,
            None => &[],
        };
        let stores: Vec<&StoreGroup> = others.iter().chain(&self.stores).collect();
        // What each limit is set in, found before anything is made.
        let mut providers = Vec::new();
        for limit in &asked {
            let provider = stores.iter().find(|store| store.hierarchy.binds(limit.controller));
            let store = provider.ok_or_else(|| {
                limit.failure(
                    "there is no cgroup with this controller that may be written to here; \
                     run the host as root, or in a cgroup that is delegated to it",
                )
            })?;
            providers.push(store);
        }
        let name = atom.to_string();
        let mut nodes = Vec::new();
        let made = self.make_nodes(&name, &stores, !asked.is_empty(), &mut nodes).and_then(|()| {
            for (limit, store) in asked.iter().zip(providers) {
                store.enable(limit.controller).map_err(|why| limit.failure(&why))?;
                limit.set(&store.dir.join(&name), &store.hierarchy.kind)?;
            }
            Ok(())
        });
        let group = Group::new(atom, nodes);
        match made {
            Ok(()) => Ok(group),
            Err(failure) => {
                if let Err(error) = group.remove() {
                    tracing::warn!(%atom, %error, "a cgroup that was not needed is left behind");
                }
                self.remove_store_group();
                Err(failure)
            }
        }
    }

    /// Those that only a limited atom is in. What cannot be tried now may be another time.
    fn limited(&self) -> io::Result<&[StoreGroup]> {
        if let Some(tried) = self.limited.get() {
            return Ok(tried);
        }
        let others = self.others.iter().map(|store| Hierarchy::clone(&store.hierarchy));
        let tried = usable(others.collect(), &self.store_dir)?;
        Ok(self.limited.get_or_init(|| tried))
    }

    /// All that there are, tried or not: where an earlier keeper may have made some.
    fn everywhere(&self) -> impl Iterator<Item = &StoreGroup> {
        self.others.iter().chain(&self.stores)
    }

    fn make_nodes(
        &self,
        name: &str,
        stores: &[&StoreGroup],
        limited: bool,
        nodes: &mut Vec<Node>,
    ) -> Result<(), Failure> {
        for store in stores {
            let contains = self.contains_with(store);
            if !contains && !limited && !store.hierarchy.binds(Controller::Memory) {
                continue;
            }
            match store.make_dir(name) {
                Ok(dir) => nodes.push(Node { hierarchy: Arc::clone(&store.hierarchy), dir }),
                // Whoever needs it for a limit hears of it when the limit is set.
                Err(error) if !contains => {
                    tracing::warn!(cgroup = %store.dir.display(), %error, "cannot make a cgroup");
                }
                Err(error) => {
                    let dir = store.dir.join(name);
                    return Err(Failure::new(
                        Reason::ExecFailed,
                        format!("cannot make its cgroup {}: {error}", dir.display()),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether this is one of those that an atom is contained with.
    fn contains_with(&self, store: &StoreGroup) -> bool {
        let rank = |store: &StoreGroup| match &store.hierarchy.kind {
            Kind::V2 { .. } => 2,
            Kind::V1(controllers)
                if controllers.contains(&Controller::Freezer)
                    || controllers.contains(&Controller::Pids) =>
            {
                1
            }
            Kind::V1(_) => 0,
        };
        let best = self.stores.iter().map(rank).max();
        best == Some(rank(store))
    }

    /// The cgroup of an atom that an earlier keeper made, wherever that one ran.
    pub(in crate::driver::process) fn reopen(&self, atom: AtomId) -> Option<Group> {
        let name = atom.to_string();
        let mut nodes: Vec<Node> = Vec::new();
        for store in self.everywhere() {
            let hierarchy = &store.hierarchy;
            // A hierarchy may be mounted at several places.
            if nodes.iter().all(|other| !other.hierarchy.is_of_kind(&hierarchy.kind))
                && let Some(dir) = store.find(&name)
            {
                nodes.push(Node { hierarchy: Arc::clone(hierarchy), dir });
            }
        }
        (!nodes.is_empty()).then(|| Group::new(atom, nodes))
    }

    /// Removes all that nothing lives in: those of atoms that were not watched any more when their keeper was killed, and the
    /// store's own.
    pub(in crate::driver::process) fn sweep(&self) {
        for store in self.everywhere() {
            store.sweep();
            store.remove();
        }
    }

    /// The atoms of this store that have a cgroup, needed or not.
    #[cfg(test)]
    pub(in crate::driver::process) fn leftover_groups(&self) -> Vec<AtomId> {
        let mut atoms: Vec<_> = self.everywhere().flat_map(StoreGroup::atoms).collect();
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    /// Removes the store's own cgroups, as far as no atom has one in them.
    pub(in crate::driver::process) fn remove_store_group(&self) {
        for store in self.everywhere() {
            store.remove();
        }
    }

    #[cfg(test)]
    pub(super) fn stores_mut(&mut self) -> &mut [StoreGroup] {
        &mut self.stores
    }

    /// Only those hierarchies, and as a kernel without `cgroup.kill` has them if `kill` is false.
    #[cfg(test)]
    pub(super) fn only(
        store_name: &str,
        kill: bool,
        wanted: impl Fn(&Kind) -> bool,
    ) -> Option<Self> {
        let found = Self::find(store_name);
        let all = found.limited().unwrap_or_default().iter().chain(&found.stores);
        let wanted = all.filter(|store| wanted(&store.hierarchy.kind));
        let stores = wanted.map(|store| {
            let mut hierarchy = (*store.hierarchy).clone();
            match &mut hierarchy.kind {
                Kind::V2 { kill: has } => *has = *has && kill,
                Kind::V1(_) => {}
            }
            StoreGroup::new(hierarchy, &found.store_dir)
        });
        let stores: Vec<_> = stores.collect();
        (!stores.is_empty()).then(|| Self::with(stores, Vec::new(), store_dir(store_name)))
    }
}

/// The cgroup that the trial is made in.
const TRIAL: &str = "trial";

/// The name of a store's own cgroup.
fn store_dir(store_name: &str) -> String {
    format!("caesium-{store_name}")
}

/// The hierarchies that are mounted here.
fn mounted() -> Vec<Hierarchy> {
    Hierarchy::mounted().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot find out which cgroups there are");
        Vec::new()
    })
}

/// Those in which cgroups can be made for a store.
///
/// # Errors
///
/// When there is no process to try them with.
fn usable(hierarchies: Vec<Hierarchy>, store_dir: &str) -> io::Result<Vec<StoreGroup>> {
    let mut ours = Hierarchy::ours(hierarchies);
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    // The one that the child is killed in comes last.
    ours.sort_by_key(|hierarchy| matches!(hierarchy.kind, Kind::V2 { .. }));
    let tried: Vec<(Hierarchy, io::Result<PathBuf>)> = ours
        .into_iter()
        .map(|mut hierarchy| {
            hierarchy.settle(store_dir, LEAF);
            let made = StoreGroup::new(hierarchy.clone(), store_dir).make_dir(TRIAL);
            (hierarchy, made)
        })
        .collect();
    let stores: Vec<PathBuf> =
        tried.iter().map(|(hierarchy, _)| hierarchy.base.join(store_dir)).collect();
    let usable = try_all(tried, store_dir);
    for store in stores {
        if let Err(error) = files::remove_tree(&store.join(TRIAL)) {
            tracing::warn!(cgroup = %store.display(), %error, "a trial is left behind");
        }
        // Not when atoms are in it.
        drop(fs::remove_dir(&store));
    }
    usable
}

/// Tries them out, with one child in all of them.
fn try_all(
    tried: Vec<(Hierarchy, io::Result<PathBuf>)>,
    store_dir: &str,
) -> io::Result<Vec<StoreGroup>> {
    let (into, joins) = places(&tried);
    let subject = Subject::start(into.as_ref().map(AsFd::as_fd), &joins)?;
    let mut usable = Vec::new();
    for (hierarchy, made) in tried {
        let store = hierarchy.base.join(store_dir);
        match made.and_then(|dir| try_out(hierarchy, &dir, store_dir, &subject)) {
            Ok(store) => usable.push(store),
            Err(error) => {
                tracing::debug!(cgroup = %store.display(), %error, "no cgroup can be made here");
            }
        }
    }
    Ok(usable)
}

/// Where a child is born, and what it writes itself into, to be in all of them.
fn places(tried: &[(Hierarchy, io::Result<PathBuf>)]) -> (Option<File>, Vec<CString>) {
    let (mut into, mut joins) = (None, Vec::new());
    for (hierarchy, made) in tried {
        let Ok(dir) = made else { continue };
        match hierarchy.kind {
            Kind::V2 { .. } => into = File::open(dir).ok(),
            Kind::V1(_) => {
                joins.extend(CString::new(dir.join("tasks").into_os_string().into_vec()));
            }
        }
    }
    (into, joins)
}

/// Tries a hierarchy out with a child that should be in it.
fn try_out(
    mut hierarchy: Hierarchy,
    dir: &Path,
    store_dir: &str,
    subject: &Subject,
) -> io::Result<StoreGroup> {
    let pid = subject.pid();
    if files::members(dir)? != [pid] {
        // It could not be born there: an older kernel, or a sandbox.
        files::write(&dir.join("cgroup.procs"), &pid.to_string())?;
    }
    if files::members(dir)? != [pid] {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a process that joined it is not listed in it",
        ));
    }
    if let Kind::V2 { kill } = &mut hierarchy.kind {
        *kill = files::write(&dir.join("cgroup.kill"), "1").is_ok() && subject.was_killed();
    }
    Ok(StoreGroup::new(hierarchy, store_dir))
}
