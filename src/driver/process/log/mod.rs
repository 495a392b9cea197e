//! What atoms print: from the FIFOs into bounded files, and from there to readers.
//!
//! An atom's log is a row of segment files `log.0`, `log.1` …, each a header
//! and chunks ([`format`]). The newest are kept, up to the spec's `log_max`.

mod format;
mod placeholder;
mod pump;
mod reader;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

pub(super) use format::{HEADER, MAX_PAYLOAD, remove_segments};
pub(super) use placeholder::Placeholder;
pub(super) use pump::{Pump, Turn};
pub(super) use reader::LogReader;
pub(super) use shared::{Author, LogShared};
pub(super) use writer::{LogWriter, remove_surplus};
