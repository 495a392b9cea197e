//! Everything between a child's beginning and its execution, for a process that may be forked: the keeper.
//!
//! ```text
//!  Plan::new ──▶ fork ──▶ child: set up ──▶ ready ──▶ waits ──▶ exec
//!  (allocates)     │                 │                  ▲         │
//!                  ▼                 ▼                  │         ▼
//!               Waiting ◀──────── a step failed    go() │     EOF: executed
//! ```
//!
//! Where that is safe the child has the keeper's memory until it executes, not a copy of it (`lent`, docs/decisions/0014).
//!
//! Where no cgroup can be made, the child is forked by a reaper in between (`reaper`), which ends
//! and reaps whatever descends from it.
//!
//! A plan has all that a child needs, so that the child allocates nothing and calls nothing but
//! the kernel. One socket goes between the two: reports come up, the go comes down, and whoever
//! dies is an end of file to the other.

mod child;
mod clone;
mod idle;
mod lent;
mod memory;
mod plan;
mod raw;
mod reaper;
mod reaping;
mod report;
mod sys;
#[cfg(test)]
mod tests;
mod user;
mod wait;
mod waiting;
mod word;

pub(super) use idle::{Idle, idle};
pub(super) use plan::Plan;
pub(super) use reaping::{Heard, Reaping, fork_under_reaper};
pub(super) use sys::ignored_signals;
pub(super) use wait::{
    Woken, block_signals, close_from, each_child, lists_children, wait_for_child, wait_for_term,
};
pub(super) use waiting::{Join, Waiting, fork};
pub(super) use word::{Ended, Word};
