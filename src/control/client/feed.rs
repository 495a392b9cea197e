//! Logs and events that the holder reads for us.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::super::wire::Item;
use super::line::Stream;
use crate::engine::{Error, Feed, Follow, Next};
use crate::journal::{JournalError, Record};
use crate::log::LogItem;
use crate::wakers::block_on_poll;

/// The blocking way to read what can be polled.
fn next<F: Feed>(feed: &mut F, deadline: Option<Instant>) -> Result<Next<F::Item>, Error> {
    match block_on_poll(deadline, |context| feed.poll(context)).transpose()? {
        Some(Some(item)) => Ok(Next::Item(item)),
        Some(None) => Ok(Next::End),
        None => Ok(Next::TimedOut),
    }
}

/// What an atom printed.
pub(super) struct RemoteLog(pub(super) Stream);

impl Feed for RemoteLog {
    type Item = LogItem;

    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<LogItem>, Error> {
        next(self, deadline)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<LogItem>, Error>> {
        loop {
            return match std::task::ready!(self.0.poll(context))? {
                None => Poll::Ready(Ok(None)),
                Some(Item::Log(item)) => Poll::Ready(Ok(Some(item))),
                // None of these is part of a log.
                Some(Item::Event(_) | Item::Atom(_) | Item::Outcome(_) | Item::Lagged { .. }) => {
                    continue;
                }
            };
        }
    }
}

/// Events: those that are there, or those that come as well.
pub(super) struct RemoteEvents {
    stream: Stream,
    /// The event that came next is no longer kept, and nobody has said yet to go on.
    lagged: Option<(u64, u64)>,
}

impl RemoteEvents {
    /// Over a stream of events.
    pub(super) fn over(stream: Stream) -> Self {
        Self { stream, lagged: None }
    }
}

impl Feed for RemoteEvents {
    type Item = Arc<Record>;

    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<Arc<Record>>, Error> {
        next(self, deadline)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Arc<Record>>, Error>> {
        loop {
            if let Some((at, oldest)) = self.lagged {
                return Poll::Ready(Err(JournalError::Lagged { at, oldest }.into()));
            }
            return match std::task::ready!(self.stream.poll(context))? {
                None => Poll::Ready(Ok(None)),
                Some(Item::Event(record)) => Poll::Ready(Ok(Some(Arc::new(record)))),
                Some(Item::Lagged { at, oldest }) => {
                    self.lagged = Some((at, oldest));
                    continue;
                }
                // None of these is an event.
                Some(Item::Log(_) | Item::Atom(_) | Item::Outcome(_)) => continue,
            };
        }
    }
}

impl Follow for RemoteEvents {
    fn skip_to(&mut self, _next: u64) {
        // The holder has gone on with the oldest that it keeps.
        self.lagged = None;
    }
}
