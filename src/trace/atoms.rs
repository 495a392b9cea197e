//! What atoms go through: an event for each that the journal takes.

use tracing::field::display;
use tracing::{Level, debug, enabled, error, info, warn};

use super::ATOM;
use crate::atom::{Atom, AtomId};
use crate::engine::Error;
use crate::journal::{Fact, Record};
use crate::lifecycle::{Event, StopOrder};

/// Whether anybody looks at [`journaled`].
pub(crate) fn wants_journaled() -> bool {
    enabled!(target: ATOM, Level::ERROR)
}

/// The journal has taken that; the atom is what it led to.
pub(crate) fn journaled(record: &Record, atom: &Atom) {
    let (id, seq) = (atom.id(), record.seq);
    let (reason, detail) = (atom.reason().map(display), atom.detail());
    match &record.fact {
        Fact::Created(creation) => {
            let (name, attempt) = (atom.name(), creation.attempt);
            let program = atom.spec().get_program().to_string_lossy();
            let (program, retry_of) = (&*program, creation.retry_of.map(display));
            debug!(name: "atom.created", target: ATOM, atom = %id, seq, name, program, attempt, retry_of, "an atom was created");
        }
        Fact::Happened { event, note: _ } => match event {
            Event::Started { pid } => {
                debug!(name: "atom.started", target: ATOM, atom = %id, seq, pid, "an atom was started");
            }
            Event::StartFailed { .. } => {
                debug!(name: "atom.start_failed", target: ATOM, atom = %id, seq, reason, detail, "an atom could not be started");
            }
            Event::Withdrawn => {
                debug!(name: "atom.withdrawn", target: ATOM, atom = %id, seq, detail, "an atom was not started after all");
            }
            Event::StopAsked(StopOrder { grace, force, cause }) => {
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                let cause = cause.as_str();
                debug!(name: "atom.stop_asked", target: ATOM, atom = %id, seq, cause, grace_ms, force, "an atom is to end");
            }
            Event::Exited(_) => {
                let outcome = atom.result().map(display);
                let (exit_code, signal) = (atom.exit_code(), atom.signal());
                let ran = atom.started_at().map(|started| record.at.saturating_since(started));
                let ran_ms = ran.map(|ran| u64::try_from(ran.as_millis()).unwrap_or(u64::MAX));
                debug!(name: "atom.exited", target: ATOM, atom = %id, seq, outcome, reason, exit_code, signal, ran_ms, "an atom has ended");
            }
            Event::LostSight { .. } => {
                warn!(name: "atom.lost_sight", target: ATOM, atom = %id, seq, reason, detail, "how an atom ended cannot be known");
            }
            Event::DeleteAsked => {
                debug!(name: "atom.delete_asked", target: ATOM, atom = %id, seq, "an atom is being deleted");
            }
            Event::Removed => {
                debug!(name: "atom.removed", target: ATOM, atom = %id, seq, "an atom is gone");
            }
            Event::Contradiction { .. } => {
                error!(name: "atom.contradiction", target: ATOM, atom = %id, seq, reason, detail, "an atom is invalid: the outside contradicts the journal");
            }
        },
        Fact::RetryPlanned(planned) => {
            let (retry, due) = (planned.id, planned.due);
            debug!(name: "atom.retry_planned", target: ATOM, atom = %id, seq, %retry, %due, "an atom will be tried again");
        }
        Fact::RetryDropped => {
            debug!(name: "atom.retry_dropped", target: ATOM, atom = %id, seq, "an atom will not be tried again");
        }
        // Only a salvage writes it.
        Fact::Lost => {}
    }
}

/// An atom of an earlier host runs, and is supervised again.
pub(crate) fn adopted(atom: AtomId) {
    info!(name: "atom.adopted", target: ATOM, %atom, "adopted a running atom");
}

/// A retry is due and cannot be made now.
pub(crate) fn retry_delayed(atom: AtomId, error: &Error) {
    warn!(name: "atom.retry_delayed", target: ATOM, %atom, %error, "a retry has to wait");
}
