//! What logs and subscriptions are read from: this process, or the one that holds the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::Error;
use crate::journal::{self, Fact, Near, Record};
use crate::lane::{Lane, Loan};
use crate::log::{LogItem, LogNext, LogSource};

/// What reading a feed gives.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// The next item.
    Item(T),
    /// There are no more.
    End,
    /// Nothing came before the deadline.
    TimedOut,
}

/// Items in order, to be waited for in one way or the other.
pub(crate) trait Feed: Send {
    type Item;

    /// The next item; blocks until there is one, or the deadline passes.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<Self::Item>, Error>;

    /// The next item without blocking, `None` at the end; who has to wait is woken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Self::Item>, Error>>;
}

/// The events of a subscription.
pub(crate) trait Follow: Feed<Item = Arc<Record>> {
    /// Goes on with a later event.
    fn skip_to(&mut self, next: u64);
}

/// What is read from memory and disk of this process. Reading may block, but for the disk only.
pub(crate) trait Source: Send + 'static {
    type Item: Send + 'static;

    /// The next item, waiting for it.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<Self::Item>, Error>;

    /// The next item if it is in memory, or whether there is something to read; who has to wait is woken.
    fn near(&mut self, context: &mut Context<'_>) -> Poll<Result<Found<Self::Item>, Error>>;

    /// About how many bytes an item has.
    fn weight(item: &Self::Item) -> usize;
}

/// Where the next item is.
pub(crate) enum Found<T> {
    Here(T),
    ToBeRead,
}

/// How many bytes are read ahead at one go, about, for those who do not block.
const BATCH_BYTES: usize = 256 << 10;

/// A source of this process. Who does not block has a lane read for it.
pub(crate) struct Local<S: Source> {
    /// `None` at the end.
    place: Option<Place<S>>,
    items: VecDeque<Result<S::Item, Error>>,
    lane: Arc<Lane>,
}

enum Place<S: Source> {
    Here(S),
    Away(Loan<Trip<S>>),
}

/// What comes back from the lane: the source unless it has ended, and what was read.
type Trip<S> = (Option<S>, VecDeque<Result<<S as Source>::Item, Error>>);

impl<S: Source> Local<S> {
    pub(crate) fn new(source: S, lane: Arc<Lane>) -> Self {
        Self { place: Some(Place::Here(source)), items: VecDeque::new(), lane }
    }

    /// The source, back here; `None` at the end.
    fn source(&mut self) -> Result<Option<&mut S>, Error> {
        if let Some(Place::Away(loan)) = &self.place {
            let (source, items) = loan.wait()?;
            self.items.extend(items);
            self.place = source.map(Place::Here);
        }
        Ok(match &mut self.place {
            Some(Place::Here(source)) => Some(source),
            Some(Place::Away(_)) | None => None,
        })
    }
}

/// Reads what is there.
fn read_ahead<S: Source>(mut source: S) -> Trip<S> {
    let (mut items, mut bytes) = (VecDeque::new(), 0);
    let now = Some(Instant::now());
    while bytes < BATCH_BYTES {
        match source.next(now) {
            Ok(Next::Item(item)) => {
                bytes += S::weight(&item);
                items.push_back(Ok(item));
            }
            Ok(Next::TimedOut) => break,
            Ok(Next::End) => return (None, items),
            Err(error) => {
                items.push_back(Err(error));
                break;
            }
        }
    }
    (Some(source), items)
}

impl<S: Source> Feed for Local<S> {
    type Item = S::Item;

    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<S::Item>, Error> {
        if self.items.is_empty() {
            // It may come back with items.
            self.source()?;
        }
        if let Some(item) = self.items.pop_front() {
            return item.map(Next::Item);
        }
        let Some(source) = self.source()? else { return Ok(Next::End) };
        let next = source.next(deadline);
        if matches!(next, Ok(Next::End)) {
            self.place = None;
        }
        next
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<S::Item>, Error>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Poll::Ready(item.map(Some));
            }
            match self.place.take() {
                None => return Poll::Ready(Ok(None)),
                Some(Place::Here(mut source)) => {
                    let near = source.near(context);
                    if matches!(near, Poll::Ready(Ok(Found::ToBeRead))) {
                        let loan = Loan::new(&self.lane, move || read_ahead(source));
                        self.place = Some(Place::Away(loan));
                        continue;
                    }
                    self.place = Some(Place::Here(source));
                    return near.map_ok(|found| match found {
                        Found::Here(item) => Some(item),
                        Found::ToBeRead => None,
                    });
                }
                Some(Place::Away(loan)) => match loan.poll_back(context) {
                    Poll::Ready(Ok((source, items))) => {
                        self.items = items;
                        self.place = source.map(Place::Here);
                    }
                    Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost.into())),
                    Poll::Pending => {
                        self.place = Some(Place::Away(loan));
                        return Poll::Pending;
                    }
                },
            }
        }
    }
}

impl Source for Box<dyn LogSource> {
    type Item = LogItem;

    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<LogItem>, Error> {
        Ok(match (**self).next(deadline)? {
            LogNext::Item(item) => Next::Item(item),
            LogNext::End => Next::End,
            LogNext::TimedOut => Next::TimedOut,
        })
    }

    fn near(&mut self, context: &mut Context<'_>) -> Poll<Result<Found<LogItem>, Error>> {
        if (**self).has_more(context.waker()) {
            Poll::Ready(Ok(Found::ToBeRead))
        } else {
            Poll::Pending
        }
    }

    fn weight(item: &LogItem) -> usize {
        match item {
            LogItem::Chunk(chunk) => chunk.bytes.len(),
            LogItem::Dropped { .. } => 0,
        }
    }
}

impl Source for journal::Subscription {
    type Item = Arc<Record>;

    fn next(&mut self, deadline: Option<Instant>) -> Result<Next<Arc<Record>>, Error> {
        Ok(self.next(deadline)?.map_or(Next::TimedOut, Next::Item))
    }

    fn near(&mut self, context: &mut Context<'_>) -> Poll<Result<Found<Arc<Record>>, Error>> {
        self.poll_near(context).map_err(Error::from).map_ok(|near| match near {
            Near::Event(record) => Found::Here(record),
            Near::OnDisk => Found::ToBeRead,
        })
    }

    fn weight(record: &Arc<Record>) -> usize {
        /// Beside the spec, for one that is read from disk.
        const USUAL: usize = 4 << 10;
        match &record.fact {
            Fact::Created(creation) => USUAL + creation.spec.size(),
            Fact::Happened { .. } | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => {
                USUAL
            }
        }
    }
}

impl Follow for Local<journal::Subscription> {
    fn skip_to(&mut self, next: u64) {
        self.items.clear();
        // Without its source it has ended.
        if let Ok(Some(source)) = self.source() {
            source.skip_to(next);
        }
        self.items.clear();
    }
}
