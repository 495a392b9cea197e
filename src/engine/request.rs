//! What hosts ask of an engine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::select::{LabelSelector, fits};
use crate::atom::{Atom, AtomId, AtomSpec};
use crate::driver::Surroundings;
use crate::lifecycle::{Outcome, State};
use crate::log::LogQuery;
use crate::time::Timestamp;

/// Asks for one atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetRequest {
    /// Which one.
    pub id: AtomId,
}

/// Asks for the atoms that fit: all, unless narrowed.
///
/// They come in the order of their ids, which is that of their creation (an id that a caller chose
/// counts from when it was made). To have many of them page by page, set a [limit](Self::limit), and
/// ask again [after](Self::after) the last one of the page before, until a page is not full. What is deleted
/// or created meanwhile moves nothing else.
///
/// ```
/// use caesium::{AtomId, Engine, Error, ListRequest};
///
/// /// All ids, by pages of at most 500 atoms.
/// fn ids(engine: &dyn Engine) -> Result<Vec<AtomId>, Error> {
///     let mut ids = Vec::new();
///     let mut request = ListRequest::all().limit(500);
///     loop {
///         let page = engine.list(&request)?;
///         ids.extend(page.iter().map(|atom| atom.id()));
///         match page.last() {
///             Some(last) if page.len() == 500 => request = request.after(last.id()),
///             _ => return Ok(ids),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ListRequest {
    /// Created at or after this time.
    pub since: Option<Timestamp>,
    /// Created before this time.
    pub before: Option<Timestamp>,
    /// In one of these states; in any when empty.
    pub states: Vec<State>,
    /// With one of these outcomes; with any or none when empty.
    pub outcomes: Vec<Outcome>,
    /// With labels that fit all of these.
    pub labels: Vec<LabelSelector>,
    /// With a name that fits this pattern: `*` stands for any characters, `?` for any one.
    pub name: Option<String>,
    /// After this one in the order of the list, whether it still exists or not.
    pub after: Option<AtomId>,
    /// The newest first.
    pub newest_first: bool,
    /// At most this many.
    pub limit: Option<usize>,
}

/// Asks for a new atom.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CreateRequest {
    /// What it is asked to be. With a [key](AtomSpec::key), asking again gives the atom that was made first.
    pub spec: AtomSpec,
    /// The id that it is to have, as another way to ask once only; a new one when `None`.
    pub id: Option<AtomId>,
    /// What it has of who asks, beside the spec; that of this process when `None`.
    pub around: Option<Surroundings>,
}

impl CreateRequest {
    /// Chooses the id, a [new](AtomId::new) one: asking again with it and the same spec gives the atom that
    /// was made first, as long as that exists. Who asks knows the id whatever becomes of the answer.
    #[must_use]
    pub fn id(mut self, id: AtomId) -> Self {
        self.id = Some(id);
        self
    }

    /// Asks for somebody else: what the spec leaves open is not that of this process.
    #[must_use]
    pub fn around(mut self, around: Surroundings) -> Self {
        self.around = Some(around);
        self
    }
}

/// Waits until an atom has stopped, or turned invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitRequest {
    /// Which one.
    pub id: AtomId,
    /// Give up after this long; never when `None`.
    pub timeout: Option<Duration>,
}

/// Waits for several atoms at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WaitManyRequest {
    /// Which ones.
    pub ids: Vec<AtomId>,
    /// Give up after this long; never when `None`.
    #[serde(with = "crate::text::optional_duration")]
    pub timeout: Option<Duration>,
}

/// Asks an atom to end, and waits until it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StopRequest {
    /// Which one.
    pub id: AtomId,
    /// Kill at once.
    pub force: bool,
    /// Between SIGTERM and SIGKILL; the spec's own when `None`.
    #[serde(with = "crate::text::optional_duration")]
    pub grace: Option<Duration>,
}

/// Deletes an atom that has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeleteRequest {
    /// Which one.
    pub id: AtomId,
    /// A running one too: it is killed first.
    pub force: bool,
}

/// Names the atom whose standard input is to be written to, or to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StdinRequest {
    /// Which one.
    pub id: AtomId,
}

/// Reads what an atom printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogsRequest {
    /// Which one.
    pub id: AtomId,
    /// Only what was read at or after this time.
    pub since: Option<Timestamp>,
    /// Go on with what it prints from now on, until it has stopped.
    pub follow: bool,
    /// Only this stream.
    pub stream: Option<crate::log::Stream>,
    /// Drop nothing while this reader follows: see [`LogQuery::lossless`].
    pub lossless: bool,
    /// Only output from this offset on: see [`LogsRequest::from_offset`].
    pub from: u64,
}

impl LogsRequest {
    pub(crate) fn query(&self) -> LogQuery {
        LogQuery {
            since: self.since,
            stream: self.stream,
            follow: self.follow,
            lossless: self.lossless,
            from: self.from,
        }
    }
}

impl ListRequest {
    /// All atoms.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only those created at or after `time`.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        self.since = Some(time);
        self
    }

    /// Only those created before `time`.
    #[must_use]
    pub fn before(mut self, time: Timestamp) -> Self {
        self.before = Some(time);
        self
    }

    /// Also those in `state`; the first call excludes all others.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Also those with `outcome`; the first call excludes all others.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcomes.push(outcome);
        self
    }

    /// Only those with this label and value.
    #[must_use]
    pub fn label(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.select(LabelSelector::equals(key, value))
    }

    /// Only those whose labels fit.
    #[must_use]
    pub fn select(mut self, selector: LabelSelector) -> Self {
        self.labels.push(selector);
        self
    }

    /// Only those with a name that fits: `*` stands for any characters, `?` for any one.
    #[must_use]
    pub fn name(mut self, pattern: impl Into<String>) -> Self {
        self.name = Some(pattern.into());
        self
    }

    /// Only those that come after this one: the next page.
    #[must_use]
    pub fn after(mut self, id: AtomId) -> Self {
        self.after = Some(id);
        self
    }

    /// The newest first.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Whether the atom fits; limit and place in the list aside.
    pub fn matches(&self, atom: &Atom) -> bool {
        let created = atom.created_at();
        self.since.is_none_or(|since| created >= since)
            && self.before.is_none_or(|before| created < before)
            && (self.states.is_empty() || self.states.contains(&atom.state()))
            && (self.outcomes.is_empty()
                || atom.result().is_some_and(|outcome| self.outcomes.contains(&outcome)))
            && self
                .name
                .as_deref()
                .is_none_or(|pattern| atom.name().is_some_and(|name| fits(pattern, name)))
            && (self.labels.is_empty() || {
                let labels = atom.labels();
                self.labels.iter().all(|selector| selector.matches(&labels))
            })
    }

    /// At most `count`.
    #[must_use]
    pub fn limit(mut self, count: usize) -> Self {
        self.limit = Some(count);
        self
    }
}

impl From<AtomSpec> for CreateRequest {
    fn from(spec: AtomSpec) -> Self {
        Self { spec, id: None, around: None }
    }
}

impl WaitRequest {
    /// Gives up after this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl WaitManyRequest {
    /// Gives up after this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl<I: Into<AtomId>> FromIterator<I> for WaitManyRequest {
    fn from_iter<T: IntoIterator<Item = I>>(ids: T) -> Self {
        Self { ids: ids.into_iter().map(Into::into).collect(), timeout: None }
    }
}

impl From<Vec<AtomId>> for WaitManyRequest {
    fn from(ids: Vec<AtomId>) -> Self {
        Self { ids, timeout: None }
    }
}

impl StopRequest {
    /// Kills at once.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Sets the time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }
}

impl DeleteRequest {
    /// Deletes a running atom too, by killing it first.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}

impl LogsRequest {
    /// Goes on with what is printed from now on.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Only what was read at or after `time`.
    #[must_use]
    pub fn since(mut self, time: Timestamp) -> Self {
        self.since = Some(time);
        self
    }

    /// Only what was printed after the first `bytes` bytes of both streams together: goes on where a reader
    /// has stopped, at the end of the last [chunk](crate::LogChunk) that it was given.
    #[must_use]
    pub fn from_offset(mut self, bytes: u64) -> Self {
        self.from = bytes;
        self
    }

    /// Only this stream.
    #[must_use]
    pub fn stream(mut self, stream: crate::log::Stream) -> Self {
        self.stream = Some(stream);
        self
    }

    /// Drops nothing while this reader follows.
    #[must_use]
    pub fn lossless(mut self) -> Self {
        self.lossless = true;
        self
    }
}

macro_rules! from_id {
    ($($request:ident { $($field:ident: $value:expr),* }),+ $(,)?) => {$(
        impl From<AtomId> for $request {
            fn from(id: AtomId) -> Self {
                Self { id, $($field: $value),* }
            }
        }

        impl From<&AtomId> for $request {
            fn from(id: &AtomId) -> Self {
                Self::from(*id)
            }
        }
    )+};
}

from_id! {
    GetRequest {},
    StdinRequest {},
    WaitRequest { timeout: None },
    StopRequest { force: false, grace: None },
    DeleteRequest { force: false },
    LogsRequest { since: None, follow: false, stream: None, lossless: false, from: 0 },
}
