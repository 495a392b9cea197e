//! What atoms print: chunks of output, and how to ask for them.

use std::task::Waker;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::driver::DriverError;
use crate::text::named;
use crate::time::Timestamp;

/// Where output was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

named!(Stream, "stream", {
    Stdout => "stdout",
    Stderr => "stderr",
});

/// A piece of output, as it was read: not a line, not a whole character necessarily.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChunk {
    /// When it was read.
    pub at: Timestamp,
    /// Where it was written to.
    pub stream: Stream,
    /// How many bytes of output, of both streams, came before it.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogQuery {
    /// Only chunks read at or after this time.
    pub since: Option<Timestamp>,
    /// Only this stream.
    pub stream: Option<Stream>,
    /// Go on with what is printed from now on, until the atom has stopped.
    pub follow: bool,
    /// While this reader follows, nothing that it has not read is dropped: an
    /// atom that prints faster than its log is read is held up when the log is
    /// full. For one who shows the output of an atom as it runs.
    pub lossless: bool,
    /// Only output from this offset on: how many bytes of both streams are known already.
    pub from: u64,
}

/// What reading a log gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    /// Output.
    Chunk(LogChunk),
    /// Output that is no longer there: the log was full, or its disk was.
    Dropped {
        /// How many bytes.
        bytes: u64,
    },
}

/// A log that is being read.
pub trait LogSource: Send {
    /// The next piece.
    ///
    /// Where the query says `follow` it waits for more, until the atom's log is
    /// complete or `deadline` has passed ([`LogNext::TimedOut`]).
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    fn next(&mut self, deadline: Option<Instant>) -> Result<LogNext, DriverError>;

    /// Whether [`next`](Self::next) has something to give, be it the end or an error, so that it does not
    /// wait for more to be printed. If not, `waker` is woken once it may have. Does not block.
    fn has_more(&mut self, waker: &Waker) -> bool;
}

/// What [`LogSource::next`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNext {
    /// A piece.
    Item(LogItem),
    /// The log is complete and read to its end.
    End,
    /// Nothing came before the deadline.
    TimedOut,
}
