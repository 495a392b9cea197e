//! What is asked of an engine, from beginning to end: a span for each call that blocks.

use std::path::Path;
use std::time::Duration;

use tracing::field::display;
use tracing::{Span, debug_span};

use super::ENGINE;
use crate::atom::AtomId;
use crate::engine::{CreateRequest, DeleteRequest, OnClose, StopRequest};
use crate::journal::Retention;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Opening a store: recovery, the driver, reconciliation.
pub(crate) fn open(store: &Path) -> Span {
    debug_span!(target: ENGINE, "engine.open", store = %store.display())
}

/// Creating an atom.
pub(crate) fn create(request: &CreateRequest) -> Span {
    let (name, key, id) =
        (request.spec.get_name(), request.spec.get_key(), request.id.map(display));
    debug_span!(target: ENGINE, "engine.create", name, key, id)
}

/// Creating several.
pub(crate) fn create_many(requests: &[CreateRequest]) -> Span {
    debug_span!(target: ENGINE, "engine.create_many", count = requests.len())
}

/// Waiting until atoms have stopped: for one of them, or for all.
pub(crate) fn wait(atoms: &[AtomId], all: bool, timeout: Option<Duration>) -> Span {
    let (atom, count) = (atoms.first().map(display), atoms.len());
    let timeout_ms = timeout.map(millis);
    debug_span!(target: ENGINE, "engine.wait", atom, count, all, timeout_ms)
}

/// Stopping atoms.
pub(crate) fn stop(requests: &[StopRequest]) -> Span {
    let (atom, count) = (requests.first().map(|request| display(request.id)), requests.len());
    debug_span!(target: ENGINE, "engine.stop", atom, count)
}

/// Deleting an atom.
pub(crate) fn delete(request: &DeleteRequest) -> Span {
    debug_span!(target: ENGINE, "engine.delete", atom = %request.id, force = request.force)
}

/// Reading the whole store.
pub(crate) fn verify() -> Span {
    debug_span!(target: ENGINE, "engine.verify")
}

/// Dropping the oldest events.
pub(crate) fn compact(retention: &Retention) -> Span {
    let (keep_events, keep_ms) = (retention.max_events, retention.max_age.map(millis));
    debug_span!(target: ENGINE, "engine.compact", keep_events, keep_ms)
}

/// Closing the engine.
pub(crate) fn shutdown(policy: OnClose) -> Span {
    debug_span!(target: ENGINE, "engine.shutdown", ?policy)
}
