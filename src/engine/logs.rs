//! Reading what an atom printed.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_core::Stream;

use super::Error;
use super::feed::{Feed, Next};
use crate::driver::DriverError;
use crate::log::{LogItem, LogNext, LogSource};

/// The output of an atom: an iterator over what is kept, and, when it follows, over what comes.
///
/// [`into_stream`](Self::into_stream) makes it one for those who must not block.
pub struct Logs {
    feed: Box<dyn Feed<Item = LogItem>>,
    ended: bool,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Logs {
    pub(crate) fn new(feed: impl Feed<Item = LogItem> + 'static) -> Self {
        Self { feed: Box::new(feed), ended: false }
    }

    /// The next piece, waiting at most `timeout` for it.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] when the log cannot be read, [`Error::HolderGone`] when who read it for us has ended.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<LogNext, Error> {
        self.next_before(Instant::now().checked_add(timeout))
    }

    fn next_before(&mut self, deadline: Option<Instant>) -> Result<LogNext, Error> {
        if self.ended {
            return Ok(LogNext::End);
        }
        let next = self.feed.next(deadline);
        self.ended = matches!(next, Ok(Next::End) | Err(_));
        Ok(match next? {
            Next::Item(item) => LogNext::Item(item),
            Next::End => LogNext::End,
            Next::TimedOut => LogNext::TimedOut,
        })
    }

    /// The rest of it for those who must not block.
    pub fn into_stream(self) -> LogStream {
        LogStream(self)
    }

    /// All that is kept, of both streams in the order in which it was read, as one byte string.
    ///
    /// # Errors
    ///
    /// As [`next_timeout`](Self::next_timeout).
    pub fn read_to_end(self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for item in self {
            match item? {
                LogItem::Chunk(chunk) => bytes.extend_from_slice(&chunk.bytes),
                LogItem::Dropped { .. } => {}
            }
        }
        Ok(bytes)
    }
}

/// A log that could not be opened.
pub(super) struct Unopened(pub(super) Option<DriverError>);

impl LogSource for Unopened {
    fn next(&mut self, _deadline: Option<Instant>) -> Result<LogNext, DriverError> {
        self.0.take().map_or(Ok(LogNext::End), Err)
    }

    fn has_more(&mut self, _waker: &Waker) -> bool {
        true
    }
}

impl Iterator for Logs {
    type Item = Result<LogItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_before(None) {
            Ok(LogNext::Item(item)) => Some(Ok(item)),
            Ok(LogNext::End | LogNext::TimedOut) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// The output of an atom as a [`Stream`], of any executor or none: polling it never blocks.
///
/// It can be dropped at any moment.
#[derive(Debug)]
#[must_use = "nothing is read before it is polled"]
pub struct LogStream(Logs);

impl Stream for LogStream {
    type Item = Result<LogItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let logs = &mut self.0;
        if logs.ended {
            return Poll::Ready(None);
        }
        let next = logs.feed.poll(context);
        logs.ended = matches!(next, Poll::Ready(Ok(None) | Err(_)));
        next.map(Result::transpose)
    }
}
