//! What an atom's leader leaves behind.

use serde::{Deserialize, Serialize};

use crate::text::named;

/// What becomes of an atom's processes that remain when its leader has exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Leftovers {
    /// They are killed. The default: an atom that has stopped has nothing that runs.
    #[default]
    Kill,
    /// They are left alone, unwatched: for a program that puts itself into the background.
    Keep,
}

named!(Leftovers, "policy for leftover processes", {
    Kill => "kill",
    Keep => "keep",
});

/// How many of the processes that a leader left behind are named, at the most.
pub const MAX_NAMED_LEFTOVERS: usize = 8;

/// Processes that remained when an atom's leader had gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftBehind {
    /// How many there were, those included that they forked while they were being ended.
    pub count: u32,
    /// Whether they were killed. Otherwise they were kept, as [`Leftovers::Keep`] asks for.
    pub killed: bool,
    /// Who they were, as far as that could be read; at most [`MAX_NAMED_LEFTOVERS`].
    pub processes: Vec<LeftProcess>,
}

/// A process that remained when an atom's leader had gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftProcess {
    /// Its pid then, when another process may have it now.
    pub pid: u32,
    /// What it was called: `/proc/PID/comm`, at most 15 bytes; what is no text in it is replaced.
    pub name: String,
}

impl LeftBehind {
    /// What was left; whoever is beyond [`MAX_NAMED_LEFTOVERS`] is only counted.
    pub fn new(killed: bool, processes: impl IntoIterator<Item = (u32, String)>) -> Self {
        let mut left = Self { count: 0, killed, processes: Vec::new() };
        for (pid, name) in processes {
            left.add(pid, name);
        }
        left
    }

    /// Counts one more.
    pub fn add(&mut self, pid: u32, name: String) {
        self.count = self.count.saturating_add(1);
        if self.processes.len() < MAX_NAMED_LEFTOVERS {
            let end = (0..=MAX_NAME.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
            let name = name[..end.unwrap_or(0)].to_owned();
            self.processes.push(LeftProcess { pid, name });
        }
    }
}

/// The longest name, in bytes: 15 of the kernel's, each of which may have to be replaced by three.
const MAX_NAME: usize = 45;
