//! The keeper: a small process for each store that watches its atoms and outlives its hosts.

mod client;
mod conversation;
mod daemon;
mod execute;
#[cfg(feature = "test-util")]
pub(super) mod fuzzing;
mod guard;
mod launch;
mod link;
mod log;
mod serve;
mod wire;

pub(super) use client::Client;
pub(crate) use daemon::serve_if_asked;
pub(super) use execute::{Forked, dissolve};
pub(super) use guard::{Guards, is_guard};
pub(crate) use launch::can_serve;
pub(super) use launch::{Launcher, is_served};
pub(super) use link::Link;
pub(super) use wire::{Extent, Purpose};
