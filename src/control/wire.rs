//! What a client and the holder of a store say to each other.
//!
//! A [`Hello`](super::hello::Hello) of each side, then streams of [frames](crate::socket). New variants go to the
//! end; what an older side would not understand takes a new protocol.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::trouble::Trouble;
use crate::atom::{Atom, AtomId, AtomSpec, Bytes, Known};
use crate::driver::Surroundings;
use crate::engine::{CreateRequest, DeleteRequest, ListRequest, LogsRequest, StopRequest};
use crate::journal::{Compacted, Fact, Record, Retention, Stats, Verified};
use crate::log::LogItem;

/// How many bytes of a stream may be on their way to a client before it has read some.
pub(super) const WINDOW: u64 = 1 << 20;

/// About how many bytes of items are put into one frame, at the most.
pub(super) const BATCH: usize = 128 << 10;

/// From a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    /// A question, by a number that was not used before.
    Ask { id: u64, question: Question },
    /// What was asked is not wanted any more. There is no answer.
    Cancel { id: u64 },
    /// So many bytes of a stream were read: as many more may be sent.
    Credit { id: u64, bytes: u64 },
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Question {
    /// For [`Reply::Atom`].
    Get(AtomId),
    /// For [`Reply::Atom`].
    Find(String),
    /// For [`Item::Atom`]s.
    List(ListRequest),
    /// For [`Reply::Atom`]; with `follow`, what it prints comes under that number, as for [`Question::Logs`].
    Create { form: Box<Form>, follow: Option<u64> },
    /// For [`Item::Outcome`]s.
    CreateMany { forms: Vec<Form>, around: Surroundings },
    /// For [`Reply::Atom`].
    Wait { ids: Vec<AtomId>, timeout: Option<Duration> },
    /// For [`Item::Atom`]s.
    WaitAll { ids: Vec<AtomId>, timeout: Option<Duration> },
    /// For [`Reply::Atom`].
    Stop(StopRequest),
    /// For [`Item::Outcome`]s.
    StopMany(Vec<StopRequest>),
    /// For [`Reply::Done`].
    Delete(DeleteRequest),
    /// A stream of [`Item::Log`].
    Logs(LogsRequest),
    /// A stream of [`Item::Event`], up to the newest one.
    Events(u64),
    /// A stream of [`Item::Event`] without an end.
    Subscribe(u64),
    /// For [`Reply::Seq`].
    DurableSeq,
    /// For [`Reply::Stats`].
    Stats,
    /// For [`Reply::Verified`].
    Verify,
    /// For [`Reply::Compacted`].
    Compact(Retention),
    /// For [`Reply::Stdin`].
    Stdin(AtomId),
    /// For [`Reply::Done`].
    CloseStdin(AtomId),
}

/// A request to create, with all that a spec does not say on paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Form {
    spec: AtomSpec,
    secrets: Vec<(String, Bytes)>,
    id: Option<AtomId>,
    /// `None`: that of the batch, or what the spec leaves open is left open.
    around: Option<Surroundings>,
}

impl From<CreateRequest> for Form {
    fn from(request: CreateRequest) -> Self {
        let secrets = request.spec.get_secrets();
        let secrets = secrets.map(|(key, value)| (key.to_owned(), Bytes(value.to_owned())));
        let CreateRequest { id, around, .. } = request;
        Self { secrets: secrets.collect(), spec: request.spec, id, around }
    }
}

impl Form {
    /// The request again, with the surroundings of the batch where it has none.
    pub(super) fn into_request(self, around: Option<&Surroundings>) -> CreateRequest {
        let Self { mut spec, secrets, id, around: own } = self;
        for (key, value) in secrets {
            spec = spec.secret_env(key, value.0);
        }
        let mut request = CreateRequest::from(spec);
        request.id = id;
        request.around = own.or_else(|| around.cloned());
        request
    }

    /// About how many bytes it has, without surroundings.
    pub(super) fn weight(&self) -> usize {
        256 + self.spec.size()
    }
}

/// From the holder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Response {
    /// A stream was opened: its items follow.
    Opened { id: u64 },
    /// Items of a stream, or of an answer that is long.
    Items { id: u64, items: Vec<Item> },
    /// The answer, or the end of a stream.
    Reply { id: u64, result: Result<Reply, Trouble> },
}

/// A part of something long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Item {
    Log(LogItem),
    Event(Record),
    Atom(Whole),
    Outcome(Result<Whole, Trouble>),
    /// The next event is no longer kept: the stream goes on with the oldest that is.
    Lagged {
        at: u64,
        oldest: u64,
    },
}

impl Item {
    /// About how many bytes it has.
    pub(super) fn weight(&self) -> usize {
        /// Of what is small.
        const USUAL: usize = 512;
        let atom = |Whole(atom): &Whole| USUAL + atom.spec().size();
        match self {
            Self::Log(LogItem::Chunk(chunk)) => 64 + chunk.bytes.len(),
            Self::Log(LogItem::Dropped { .. }) | Self::Lagged { .. } => 64,
            Self::Event(record) => match &record.fact {
                Fact::Created(creation) => USUAL + creation.spec.size(),
                Fact::Happened { .. } | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => {
                    USUAL
                }
            },
            Self::Atom(whole) | Self::Outcome(Ok(whole)) => atom(whole),
            Self::Outcome(Err(_)) => USUAL,
        }
    }
}

/// A short answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It was done; or the items were all there are.
    Done,
    /// There may be more: it was cut short to be of moderate size.
    More,
    Atom(Whole),
    Seq(u64),
    Stats(Stats),
    Verified(Verified),
    Compacted(Compacted),
    /// A FIFO to be written to; relative to the store if it is in there.
    Stdin(Bytes),
}

/// An atom with everything that is known of it, as a snapshot has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Whole(pub(super) Atom);

impl Serialize for Whole {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.known().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Known::deserialize(deserializer).map(|known| Self(known.into()))
    }
}
