//! What can be seen from outside: the `tracing` events and spans whose names and fields stay as they are.
//!
//! They are the table in `docs/tracing.md`, which the tests hold to what is here. Whatever else is traced, from
//! where it happens, is for people to read and may change.

mod atoms;
mod parts;
mod spans;
#[cfg(test)]
mod tests;

pub(crate) use atoms::{adopted, journaled, retry_delayed, wants_journaled};
#[cfg(target_os = "linux")]
pub(crate) use parts::{
    client_came, client_gone, client_refused, holder_gone, keeper_died, keeper_missing, serving,
};
pub(crate) use parts::{closed, compacted, failed, opened, torn};
pub(crate) use spans::{compact, create, create_many, delete, open, shutdown, stop, verify, wait};

/// What atoms go through.
const ATOM: &str = "caesium::atom";
/// Opening and closing a store, and what is asked of an engine.
const ENGINE: &str = "caesium::engine";
/// What is written.
const JOURNAL: &str = "caesium::journal";
/// A store that several processes use.
#[cfg(target_os = "linux")]
const CONTROL: &str = "caesium::control";
/// The process that the atoms of a store are children of.
#[cfg(target_os = "linux")]
const KEEPER: &str = "caesium::keeper";
