//! The cgroup of one atom, in every hierarchy in which it has one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::files;
use super::hierarchy::{Hierarchy, Kind};
use crate::atom::AtomId;
use crate::driver::kernel_file;
use crate::driver::process::fork::Join;

/// One directory of it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) hierarchy: Arc<Hierarchy>,
    pub(super) dir: PathBuf,
}

/// The cgroup of an atom. It costs no descriptor, but for the one that [`Group::emptied_fd`] opens.
#[derive(Debug)]
pub(in crate::driver::process) struct Group {
    atom: AtomId,
    nodes: Vec<Node>,
    events: OnceLock<Option<File>>,
}

impl Group {
    pub(super) fn new(atom: AtomId, nodes: Vec<Node>) -> Self {
        Self { atom, nodes, events: OnceLock::new() }
    }

    /// Whose it is.
    pub(in crate::driver::process) fn atom(&self) -> AtomId {
        self.atom
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn unified(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| matches!(node.hierarchy.kind, Kind::V2 { .. }))
    }

    /// How a child joins it: before it becomes another user, and before it executes.
    pub(in crate::driver::process) fn join(&self) -> Join {
        // `tasks` moves the thread that writes, and a child has only one. With `cgroup.procs` the kernel lets no process
        // of the machine fork or end meanwhile, and waits until none does: up to 20 ms (Linux 6.18).
        let v1 = self.nodes.iter().filter(|node| matches!(node.hierarchy.kind, Kind::V1(_)));
        Join {
            files: v1.map(|node| node.dir.join("tasks")).collect(),
            unified: self.unified().map(|node| node.dir.clone()),
        }
    }

    /// The files that any process writes `0` into to join it.
    #[cfg(test)]
    pub(in crate::driver::process) fn join_files(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|node| node.dir.join("cgroup.procs")).collect()
    }

    /// The pids in it, and in what is nested in it. Zombies are not among them.
    pub(in crate::driver::process) fn members(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for node in &self.nodes {
            pids.extend(files::members(&node.dir)?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Who is in it, by pid and name; none where that cannot be told.
    pub(in crate::driver::process) fn named_members(&self) -> Vec<(u32, String)> {
        let pids = self.members().unwrap_or_default();
        pids.into_iter().map(|pid| (pid, files::name_of(pid))).collect()
    }

    /// Whether nothing lives in it.
    pub(in crate::driver::process) fn is_empty(&self) -> io::Result<bool> {
        for node in &self.nodes {
            let empty = match &node.hierarchy.kind {
                // It also counts those whose pids cannot be seen from here.
                Kind::V2 { .. } => match kernel_file::read_text(node.dir.join("cgroup.events")) {
                    Ok(text) => files::keyed(&text, "populated") == Some(0),
                    Err(error) if files::is_gone(&error) => true,
                    Err(error) => return Err(error),
                },
                Kind::V1(_) => files::members(&node.dir)?.is_empty(),
            };
            if !empty {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Becomes ready with `POLLPRI` when the last process has left, or the first one has come.
    ///
    /// It stays open until this is dropped. Before each wait it has to be read, which
    /// [`Group::is_empty_by_fd`] does. `None` where no kernel tells. It tells of the
    /// unified hierarchy: whoever left the group only there is to be asked for by a timer.
    pub(in crate::driver::process) fn emptied_fd(&self) -> Option<BorrowedFd<'_>> {
        let opened = self.events.get_or_init(|| {
            let node = self.unified()?;
            File::open(node.dir.join("cgroup.events")).ok()
        });
        opened.as_ref().map(File::as_fd)
    }

    /// The same, if it was opened before.
    pub(in crate::driver::process) fn opened_fd(&self) -> Option<BorrowedFd<'_>> {
        self.events.get()?.as_ref().map(File::as_fd)
    }

    /// Reads what [`Group::emptied_fd`] is about, and by that arms it again: whether nothing is in it.
    pub(in crate::driver::process) fn is_empty_by_fd(&self) -> io::Result<bool> {
        let Some(fd) = self.opened_fd() else { return self.is_empty() };
        let mut text = [0; 256];
        let length = match rustix::io::pread(fd, &mut text, 0) {
            Ok(length) => length,
            Err(error) if files::is_gone(&error.into()) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let text = String::from_utf8_lossy(&text[..length]);
        Ok(files::keyed(&text, "populated") == Some(0) && self.is_empty()?)
    }

    /// Removes it, and what the atom itself has nested in it. Nothing may live in it.
    ///
    /// # Errors
    ///
    /// `EBUSY` when something does.
    pub(in crate::driver::process) fn remove(self) -> io::Result<()> {
        let mut result = Ok(());
        for node in &self.nodes {
            if let Err(error) = files::remove_tree(&node.dir) {
                let what = format!("cannot remove cgroup {}: {error}", node.dir.display());
                result = Err(io::Error::new(error.kind(), what));
            }
        }
        result
    }
}
