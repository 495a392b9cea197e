//! What is known of an atom: the fold of its events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AtomId, AtomSpec, LABEL, LeftBehind, Usage};
use crate::lifecycle::{Ending, Life, Outcome, Reason, State};
use crate::time::Timestamp;

/// An atom as it was when it was asked for: a value, cheap to clone, that does not change.
///
/// JSON (`serde_json::to_string(&atom)`) is a flat object with the names of the methods.
#[derive(Clone, PartialEq)]
pub struct Atom(Arc<Known>);

/// The particulars of an atom, in the order in which a snapshot has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) id: AtomId,
    /// The name of the engine that made it.
    pub(crate) engine: Arc<str>,
    #[serde(deserialize_with = "crate::atom::bytes::arc")]
    pub(crate) spec: Arc<AtomSpec>,
    pub(crate) life: Life,
    /// What a person should know beside the reason: the failing path, the signal's sender.
    pub(crate) detail: Option<Arc<str>>,
    /// What its driver needs to recognise the run in a later life of the host; only the driver reads it.
    #[serde(with = "crate::atom::bytes::shared")]
    pub(crate) handle: Option<Arc<[u8]>>,
    pub(crate) usage: Option<Arc<Usage>>,
    pub(crate) left_behind: Option<Arc<LeftBehind>>,
    /// The number of this execution, from 1.
    pub(crate) attempt: u32,
    /// The atom that this one retries.
    pub(crate) retry_of: Option<AtomId>,
    /// The atom that retries this one.
    pub(crate) replaced_by: Option<AtomId>,
    pub(crate) planned_retry: Option<PlannedRetry>,
}

/// A retry that is due and has not been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRetry {
    /// The id that the new atom will have.
    pub id: AtomId,
    /// When it will be created.
    pub due: Timestamp,
}

impl Known {
    /// Has in common with another atom what is the same, as those have that are made of one request.
    pub(crate) fn share(&mut self, other: &Self) {
        if self.engine == other.engine {
            self.engine = other.engine.clone();
        }
        if self.spec == other.spec {
            self.spec = other.spec.clone();
        }
    }
}

impl From<Known> for Atom {
    fn from(known: Known) -> Self {
        Self(Arc::new(known))
    }
}

impl Atom {
    pub(crate) fn known(&self) -> &Known {
        &self.0
    }

    /// To change it: what others hold of it stays as it was.
    pub(crate) fn known_mut(&mut self) -> &mut Known {
        Arc::make_mut(&mut self.0)
    }

    /// Its identity.
    pub fn id(&self) -> AtomId {
        self.0.id
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.0.spec.get_name()
    }

    /// The name of the engine that made it: `process`, for one.
    pub fn engine(&self) -> &str {
        &self.0.engine
    }

    /// What it was asked to be.
    pub fn spec(&self) -> &AtomSpec {
        &self.0.spec
    }

    /// Its labels: those of the spec, and [`LABEL`].
    pub fn labels(&self) -> BTreeMap<&str, &str> {
        let mut labels: BTreeMap<&str, &str> = self
            .0
            .spec
            .get_labels()
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        labels.insert(LABEL, &self.0.engine);
        labels
    }

    /// Where it is in its lifecycle.
    pub fn state(&self) -> State {
        self.0.life.state()
    }

    /// Its whole life: the state with its data.
    pub fn life(&self) -> &Life {
        &self.0.life
    }

    /// How it ended; `None` until it has.
    pub fn result(&self) -> Option<Outcome> {
        self.ending().map(|ending| ending.outcome)
    }

    /// How it ended, with everything the kernel said; `None` until it has.
    pub fn ending(&self) -> Option<Ending> {
        self.0.life.end().map(|end| end.ending)
    }

    /// The machine-readable cause of its ending, or of its being invalid.
    pub fn reason(&self) -> Option<Reason> {
        self.0.life.contradiction().or_else(|| self.ending().map(|ending| ending.reason))
    }

    /// What a person should know beside the reason.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Its exit code, if it ended with one.
    pub fn exit_code(&self) -> Option<i32> {
        self.ending()?.exit_code.map(i32::from)
    }

    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.ending()?.signal.map(i32::from)
    }

    /// Its process id, once it was started; kept after its end, when another process may have it.
    pub fn pid(&self) -> Option<u32> {
        self.0.life.run()?.pid
    }

    /// When it was created.
    pub fn created_at(&self) -> Timestamp {
        self.0.life.created_at()
    }

    /// When it was started; `None` if it never was.
    pub fn started_at(&self) -> Option<Timestamp> {
        Some(self.0.life.run()?.started_at)
    }

    /// When it stopped; `None` until it has.
    pub fn stopped_at(&self) -> Option<Timestamp> {
        Some(self.0.life.end()?.stopped_at)
    }

    /// What it used; `None` until it has ended, and where nobody could tell.
    pub fn usage(&self) -> Option<Usage> {
        self.0.usage.as_deref().copied()
    }

    /// The processes that its leader left behind; `None` when there were none, and where nobody could tell.
    pub fn left_behind(&self) -> Option<&LeftBehind> {
        self.0.left_behind.as_deref()
    }

    /// The number of this execution, from 1; more than 1 for a retry.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The atom that this one retries.
    pub fn retry_of(&self) -> Option<AtomId> {
        self.0.retry_of
    }

    /// The atom that retries this one.
    pub fn replaced_by(&self) -> Option<AtomId> {
        self.0.replaced_by
    }

    /// The retry that will be made of it.
    pub fn planned_retry(&self) -> Option<PlannedRetry> {
        self.0.planned_retry
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
