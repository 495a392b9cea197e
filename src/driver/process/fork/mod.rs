//! Everything between fork and exec, for a process that may be forked: the keeper.
//!
//! ```text
//!  Plan::new ──▶ fork ──▶ child: set up ──▶ ready ──▶ waits ──▶ exec
//!  (allocates)     │                 │                  ▲         │
//!                  ▼                 ▼                  │         ▼
//!               Waiting ◀──────── a step failed    go() │     EOF: executed
//! ```
//!
//! A plan has all that a child needs, so that the child allocates nothing and calls nothing but
//! the kernel. One socket goes between the two: reports come up, the go comes down, and whoever
//! dies is an end of file to the other.

mod child;
mod plan;
mod report;
mod sys;
#[cfg(test)]
mod tests;
mod user;
mod waiting;

pub(super) use plan::{Plan, Surroundings};
pub(super) use waiting::{Waiting, fork};
