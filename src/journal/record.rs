//! What the journal keeps: one record per fact.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::atom::{AtomId, AtomSpec, LeftBehind, PlannedRetry, Usage};
use crate::lifecycle::{Event, State};
use crate::time::Timestamp;

/// One entry of the journal: a fact about one atom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number: contiguous, from 1.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The atom it is about.
    pub atom: AtomId,
    /// The state it led to.
    pub state: State,
    /// What happened.
    pub fact: Fact,
}

impl Record {
    /// The name of the fact, as `caesium events` prints it: `created`,
    /// `retry_planned`, `retry_dropped`, `lost`, or the name of the lifecycle event.
    pub fn event_name(&self) -> &'static str {
        match &self.fact {
            Fact::Created(_) => "created",
            Fact::Happened { event, .. } => event.kind().as_str(),
            Fact::RetryPlanned(_) => "retry_planned",
            Fact::RetryDropped => "retry_dropped",
            Fact::Lost => "lost",
        }
    }
}

/// What happened.
///
/// The order of the variants is their position in the journal: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// The atom came to be.
    Created(Creation),
    /// An event of its lifecycle.
    Happened {
        /// The event.
        event: Event,
        /// What is known beside it.
        note: Note,
    },
    /// It will be tried again.
    RetryPlanned(PlannedRetry),
    /// It will not be tried again after all.
    RetryDropped,
    /// What was here could not be read when the journal was salvaged. It is about
    /// no atom that is known: those of the record and its state mean nothing.
    Lost,
}

impl From<Event> for Fact {
    fn from(event: Event) -> Self {
        Self::Happened { event, note: Note::default() }
    }
}

/// What an atom is created of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Creation {
    /// The name of the engine that makes it.
    pub engine: Arc<str>,
    /// What it is asked to be.
    #[serde(deserialize_with = "crate::atom::bytes::arc")]
    pub spec: Arc<AtomSpec>,
    /// The number of this execution, from 1.
    pub attempt: u32,
    /// The atom that this one retries; its name passes to this one.
    pub retry_of: Option<AtomId>,
}

/// What is known beside an event. The lifecycle does not look at it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Note {
    /// What a person should know.
    #[serde(deserialize_with = "crate::atom::bytes::text::deserialize")]
    pub detail: Option<Arc<str>>,
    /// What the driver needs to recognise the run later.
    #[serde(with = "crate::atom::bytes::shared")]
    pub handle: Option<Arc<[u8]>>,
    /// What the atom used.
    pub usage: Option<Arc<Usage>>,
    /// What its leader left behind.
    pub left_behind: Option<Arc<LeftBehind>>,
}
