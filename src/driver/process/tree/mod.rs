//! One cgroup per atom: to end its whole tree, to limit it, and to account for it.
//!
//! ```text
//!  Cgroups::find   which hierarchies can be used here, by trying
//!     └ create ──▶ Group     <own cgroup>/caesium-<store>/<atom>, in each of them
//!                    │ join         where the child is born, and what it writes itself into before it executes
//!                    │ kill · signal · wait_empty · emptied_fd
//!                    │ oom · usage
//!                    └ remove
//! ```
//!
//! To be called by the keeper only: [`Cgroups::find`] forks.

mod account;
mod cgroups;
mod ending;
mod files;
mod group;
mod hierarchy;
mod limit;
mod store_group;
mod trial;

#[cfg(test)]
mod tests;

#[allow(unused_imports, reason = "the keeper is what calls them")]
pub(in crate::driver::process) use account::{GroupUsage, Oom, leader_oom_killed};
#[allow(unused_imports, reason = "the keeper is what calls them")]
pub(in crate::driver::process) use cgroups::Cgroups;
#[allow(unused_imports, reason = "the keeper is what calls them")]
pub(in crate::driver::process) use group::Group;
