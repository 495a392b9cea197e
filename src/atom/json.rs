//! The JSON of an atom: flat, with the names that scripts rely on.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Atom, AtomId, AtomSpec, LeftBehind, PlannedRetry, Usage};
use crate::lifecycle::{Outcome, Reason, State};
use crate::time::Timestamp;

#[derive(Serialize)]
struct Flat<'a> {
    id: AtomId,
    name: Option<&'a str>,
    engine: &'a str,
    state: State,
    result: Option<Outcome>,
    reason: Option<Reason>,
    detail: Option<&'a str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    core_dumped: bool,
    oom_kills: u32,
    pid: Option<u32>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    stopped_at: Option<Timestamp>,
    labels: BTreeMap<&'a str, &'a str>,
    usage: Option<Usage>,
    left_behind: Option<&'a LeftBehind>,
    attempt: u32,
    retry_of: Option<AtomId>,
    replaced_by: Option<AtomId>,
    planned_retry: Option<PlannedRetry>,
    spec: &'a AtomSpec,
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ending = self.ending();
        Flat {
            id: self.id(),
            name: self.name(),
            engine: self.engine(),
            state: self.state(),
            result: self.result(),
            reason: self.reason(),
            detail: self.detail(),
            exit_code: self.exit_code(),
            signal: self.signal(),
            core_dumped: ending.is_some_and(|ending| ending.core_dumped),
            oom_kills: ending.map_or(0, |ending| ending.oom_kills),
            pid: self.pid(),
            created_at: self.created_at(),
            started_at: self.started_at(),
            stopped_at: self.stopped_at(),
            labels: self.labels(),
            usage: self.usage(),
            left_behind: self.left_behind(),
            attempt: self.attempt(),
            retry_of: self.retry_of(),
            replaced_by: self.replaced_by(),
            planned_retry: self.planned_retry(),
            spec: self.spec(),
        }
        .serialize(serializer)
    }
}
