//! Reading and following the journal through an engine.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_core::Stream;

use super::Error;
#[cfg(target_os = "linux")]
use super::feed::Feed;
use super::feed::{Follow, Next};
use crate::journal::{JournalError, Record};

/// The events that there were when they were asked for, the oldest first.
///
/// After an error there are no more.
pub struct Events(Option<Box<dyn Iterator<Item = Result<Record, Error>> + Send>>);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("ended", &self.0.is_none()).finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn new(
        records: impl Iterator<Item = Result<Record, Error>> + Send + 'static,
    ) -> Self {
        Self(Some(Box::new(records)))
    }
}

impl Iterator for Events {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.as_mut()?.next();
        if !matches!(next, Some(Ok(_))) {
            self.0 = None;
        }
        next
    }
}

/// One who follows the journal: what was, then what comes, without a gap.
///
/// It has no queue that could fill: who reads slowly holds up nobody, and reads from disk
/// what is no longer in memory. Only what is compacted away before it was read is missed,
/// and that is said: [`JournalError::Lagged`].
///
/// [`into_stream`](Self::into_stream) makes it one for those who must not block.
pub struct Subscription {
    feed: Box<dyn Follow>,
    next: u64,
    /// Where it goes on after an event that is no longer kept.
    oldest: Option<u64>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn new(feed: impl Follow + 'static, from: u64) -> Self {
        Self { feed: Box::new(feed), next: from.max(1), oldest: None }
    }

    /// One that cannot be: what stands in the way is told by the first that is read.
    #[cfg(target_os = "linux")]
    pub(crate) fn never(error: Error, from: u64) -> Self {
        Self::new(Failed(Some(error)), from)
    }

    /// The number of the event that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next event; blocks until there is one. `None` when the deadline passes before.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], or [`JournalError::Poisoned`], once every acknowledged event was given and no
    /// more will come; [`JournalError::Lagged`] when the event is no longer kept;
    /// [`Error::HolderGone`]; or what reading gives.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Arc<Record>>, Error> {
        let next = self.feed.next(deadline).map(|next| match next {
            Next::Item(record) => Some(Some(record)),
            Next::TimedOut => Some(None),
            Next::End => None,
        });
        match next {
            Ok(None) => Err(Error::Closed),
            Ok(Some(record)) => {
                self.given(record.as_ref());
                Ok(record)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn given(&mut self, record: Option<&Arc<Record>>) {
        if let Some(record) = record {
            self.next = record.seq + 1;
        }
    }

    fn failed(&mut self, error: Error) -> Error {
        if let Error::Journal(JournalError::Lagged { oldest, .. }) = &error {
            self.oldest = Some(*oldest);
        }
        error
    }

    /// The same for those who must not block.
    pub fn into_stream(self) -> EventStream {
        EventStream(Some(self))
    }

    /// After [`JournalError::Lagged`]: goes on with the oldest event that is kept, and gives how many
    /// were missed. At any other time it does nothing.
    pub fn skip_to_oldest(&mut self) -> u64 {
        let Some(oldest) = self.oldest.take() else { return 0 };
        let missed = oldest.saturating_sub(self.next);
        self.next += missed;
        self.feed.skip_to(self.next);
        missed
    }
}

/// The events of a subscription that could not be had.
#[cfg(target_os = "linux")]
struct Failed(Option<Error>);

#[cfg(target_os = "linux")]
impl Feed for Failed {
    type Item = Arc<Record>;

    fn next(&mut self, _deadline: Option<Instant>) -> Result<Next<Arc<Record>>, Error> {
        self.0.take().map_or(Ok(Next::End), Err)
    }

    fn poll(&mut self, _context: &mut Context<'_>) -> Poll<Result<Option<Arc<Record>>, Error>> {
        Poll::Ready(self.0.take().map_or(Ok(None), Err))
    }
}

#[cfg(target_os = "linux")]
impl Follow for Failed {
    fn skip_to(&mut self, _next: u64) {}
}

/// The events of a [`Subscription`] as a [`Stream`], of any executor or none: polling it never blocks.
///
/// After [`JournalError::Lagged`] it goes on with the oldest event that is kept, after any other error it
/// ends. It can be dropped at any moment.
#[derive(Debug)]
#[must_use = "nothing is read before it is polled"]
pub struct EventStream(Option<Subscription>);

impl Stream for EventStream {
    type Item = Result<Arc<Record>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(subscription) = &mut self.0 else { return Poll::Ready(None) };
        subscription.skip_to_oldest();
        let event = match ready!(subscription.feed.poll(context)) {
            Ok(record) => {
                subscription.given(record.as_ref());
                record.map(Ok)
            }
            Err(error) => Some(Err(subscription.failed(error))),
        };
        let goes_on = matches!(event, Some(Ok(_))) || subscription.oldest.is_some();
        if !goes_on {
            self.0 = None;
        }
        Poll::Ready(event)
    }
}
