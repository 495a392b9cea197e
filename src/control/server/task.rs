//! What becomes of a question: a future that is awaited, or a stream that is read.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::super::trouble::Trouble;
use super::super::wire::{Form, Item, Question, Reply, Whole};
use crate::atom::{Atom, AtomId, Bytes};
use crate::driver::Surroundings;
use crate::engine::{
    DeleteRequest, Error, EventStream, Events, ListRequest, LogStream, Served, StopRequest,
};
use crate::journal::{JournalError, Record};
use crate::lane::{Lane, Loan};

/// Where work is done that may block.
#[derive(Debug)]
pub(super) struct Lanes {
    /// What changes atoms: waits for the disk, and for the driver.
    pub(super) changes: Lane,
    /// What may take minutes.
    pub(super) long: Lane,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { changes: Lane::new("caesium-changes", 2), long: Lane::new("caesium-long", 1) }
    }

    pub(super) fn close(&self) {
        self.changes.close();
        self.long.close();
    }
}

/// What is at work for the clients.
#[derive(Clone)]
pub(super) struct House {
    /// The store.
    pub(super) path: Bytes,
    pub(super) engine: Arc<dyn Served>,
    pub(super) lanes: Arc<Lanes>,
    /// As many as there are logs that are read.
    logs: Arc<()>,
}

/// How many logs may be read for clients at once: each costs a descriptor.
const MAX_LOGS: usize = 256;

/// What is told when a question was answered.
pub(super) enum Answer {
    Short(Result<Reply, Trouble>),
    /// Items, then a short one. They are put into frames as the client takes them.
    Long(Box<dyn Iterator<Item = Item> + Send>, Reply),
    /// A stream, under the number of the question.
    Stream(Box<dyn Items>),
    /// A short one, and a stream under another number.
    Both {
        reply: Result<Reply, Trouble>,
        under: u64,
        items: Box<dyn Items>,
    },
}

/// A stream of items.
pub(super) trait Items: Send {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item, Error>>>;
}

/// A question that is being answered.
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

/// How long a client wants to wait for an answer, and for which atoms.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) ids: Vec<AtomId>,
    pub(super) timeout: Duration,
}

impl House {
    pub(super) fn new(path: Bytes, engine: Arc<dyn Served>, lanes: Arc<Lanes>) -> Self {
        Self { path, engine, lanes, logs: Arc::default() }
    }

    /// A place among the logs that are read, if there is one.
    fn place(&self) -> Option<Arc<()>> {
        let place = Arc::clone(&self.logs);
        // Of the others, one belongs to the house itself.
        (Arc::strong_count(&place) <= MAX_LOGS + 1).then_some(place)
    }

    fn busy(&self) -> Answering {
        ready(Answer::Short(Err(Trouble::HolderBusy { path: self.path.clone() })))
    }

    /// Begins to answer.
    pub(super) fn answer(&self, question: Question) -> (Answering, Option<Patience>) {
        let mut patience = None;
        let engine = Arc::clone(&self.engine);
        let atom = |atom: Result<Atom, Error>| {
            Answer::Short(atom.map(|atom| Reply::Atom(Whole(atom))).map_err(Trouble::from))
        };
        let answering: Answering = match question {
            Question::Get(of) => ready(atom(engine.get(&of.into()))),
            Question::Find(text) => ready(atom(engine.find(&text))),
            Question::List(request) => {
                let listed = Loan::new(engine.reads(), {
                    let engine = Arc::clone(&engine);
                    move || page(&*engine, request)
                });
                Box::pin(async move {
                    let (atoms, more) = listed.await??;
                    let items = atoms.into_iter().map(|atom| Item::Atom(Whole(atom)));
                    Ok(Answer::Long(Box::new(items), if more { Reply::More } else { Reply::Done }))
                })
            }
            Question::Create { form, follow } => self.create(*form, follow),
            Question::CreateMany { forms, around } => self.create_many(forms, &around),
            Question::Wait { ids, timeout } => {
                patience = timeout.map(|timeout| Patience { ids: ids.clone(), timeout });
                let waiting = match &ids[..] {
                    [one] => engine.wait(*one),
                    _ => engine.wait_any(ids),
                };
                Box::pin(async move { Ok(atom(waiting.await)) })
            }
            Question::WaitAll { ids, timeout } => {
                patience = timeout.map(|timeout| Patience { ids: ids.clone(), timeout });
                let waiting = engine.wait_all(ids);
                Box::pin(async move {
                    let items = waiting.await?.into_iter().map(|atom| Item::Atom(Whole(atom)));
                    Ok(Answer::Long(Box::new(items), Reply::Done))
                })
            }
            Question::Stop(request) => {
                let stopping = self.change(move |engine| engine.stop(&request));
                Box::pin(async move { Ok(atom(stopping.await??.await)) })
            }
            Question::StopMany(requests) => {
                let stopping = self.change(move |engine| engine.stop_many(&requests));
                Box::pin(async move { Ok(outcomes(stopping.await??.await?)) })
            }
            Question::Delete(request) => self.delete(request),
            Question::Logs(request) => {
                let Some(place) = self.place() else { return (self.busy(), None) };
                let opened = Loan::new(engine.reads(), {
                    let engine = Arc::clone(&engine);
                    move || engine.logs(&request)
                });
                Box::pin(async move {
                    let stream = opened.await??.into_stream();
                    Ok(Answer::Stream(Box::new(Log { stream, _place: place })))
                })
            }
            Question::Events(from) => {
                let opened = Loan::new(engine.reads(), {
                    let engine = Arc::clone(&engine);
                    move || engine.events(from)
                });
                Box::pin(async move {
                    let items = Box::new(Reading { engine, place: Place::Here(opened.await??) });
                    Ok(Answer::Stream(items))
                })
            }
            Question::Subscribe(from) => {
                let items = Box::new(engine.subscribe(from).into_stream());
                ready(Answer::Stream(items))
            }
            Question::Stdin(of) => self.stdin(of),
            Question::CloseStdin(of) => self.close_stdin(of),
            Question::DurableSeq => ready(Answer::Short(Ok(Reply::Seq(engine.durable_seq())))),
            Question::Stats => {
                let stats = Loan::new(engine.reads(), {
                    let engine = Arc::clone(&engine);
                    move || engine.stats()
                });
                Box::pin(async move { Ok(Answer::Short(Ok(Reply::Stats(stats.await??)))) })
            }
            Question::Verify => {
                let verified = Loan::new(&self.lanes.long, move || engine.verify());
                Box::pin(async move { Ok(Answer::Short(Ok(Reply::Verified(verified.await??)))) })
            }
            Question::Compact(retention) => {
                let compacted = Loan::new(&self.lanes.long, move || engine.compact(&retention));
                Box::pin(async move { Ok(Answer::Short(Ok(Reply::Compacted(compacted.await??)))) })
            }
        };
        (answering, patience)
    }

    /// Has something done that may block.
    fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&dyn Served) -> T + Send + 'static,
    ) -> Loan<T> {
        let engine = Arc::clone(&self.engine);
        Loan::new(&self.lanes.changes, move || change(&*engine))
    }

    fn create(&self, form: Form, follow: Option<u64>) -> Answering {
        let Some(place) = self.place() else { return self.busy() };
        let request = form.into_request(None);
        let created = self.change(move |engine| engine.create(request, follow.is_some()));
        Box::pin(async move {
            let (settled, logs) = created.await??;
            let reply = settled.await.map(|atom| Reply::Atom(Whole(atom))).map_err(Trouble::from);
            Ok(match (follow, logs) {
                (Some(under), Some(logs)) => {
                    let items = Box::new(Log { stream: logs.into_stream(), _place: place });
                    Answer::Both { reply, under, items }
                }
                (_, _) => Answer::Short(reply),
            })
        })
    }

    fn create_many(&self, forms: Vec<Form>, around: &Surroundings) -> Answering {
        let requests: Vec<_> =
            forms.into_iter().map(|form| form.into_request(Some(around))).collect();
        let created = self.change(move |engine| engine.create_many(requests));
        Box::pin(async move { Ok(outcomes(created.await?.await?)) })
    }

    fn stdin(&self, id: AtomId) -> Answering {
        let path = self.engine.stdin(id);
        let store = self.path.clone();
        Box::pin(async move {
            let path = path?.await?;
            // The client may know the store by another path.
            let path = path.strip_prefix(Path::new(&store.0)).unwrap_or(&path);
            Ok(Answer::Short(Ok(Reply::Stdin(Bytes(path.into())))))
        })
    }

    fn close_stdin(&self, id: AtomId) -> Answering {
        let (settled, house) = (self.engine.stdin(id), self.clone());
        Box::pin(async move {
            settled?.await?;
            house.change(move |engine| engine.close_stdin(id)).await??;
            Ok(Answer::Short(Ok(Reply::Done)))
        })
    }

    fn delete(&self, request: DeleteRequest) -> Answering {
        let house = self.clone();
        Box::pin(async move {
            let DeleteRequest { id, force, .. } = request;
            if force && house.engine.get(&id.into())?.state().is_live() {
                let stop = StopRequest::from(id).force();
                house.change(move |engine| engine.stop(&stop)).await??.await?;
            }
            house.change(move |engine| engine.delete(id)).await??.await?;
            Ok(Answer::Short(Ok(Reply::Done)))
        })
    }
}

fn ready(answer: Answer) -> Answering {
    Box::pin(std::future::ready(Ok(answer)))
}

fn outcomes(results: Vec<Result<Atom, Error>>) -> Answer {
    let items =
        results.into_iter().map(|result| Item::Outcome(result.map(Whole).map_err(Trouble::from)));
    Answer::Long(Box::new(items), Reply::Done)
}

/// The most atoms of one answer, and about how many bytes they may have.
const PAGE: usize = 1000;
const PAGE_BYTES: usize = 1 << 20;

/// A part of a list that is of moderate size, and whether there may be more.
fn page(engine: &dyn Served, mut request: ListRequest) -> Result<(Vec<Atom>, bool), Error> {
    let wanted = request.limit.unwrap_or(usize::MAX);
    request.limit = Some(wanted.min(PAGE));
    let mut atoms = engine.list(&request)?;
    let full = atoms.len() == PAGE && wanted > PAGE;
    let mut bytes = 0;
    let too_much = atoms.iter().position(|atom| {
        bytes += 512 + atom.spec().size();
        bytes > PAGE_BYTES
    });
    // One at least, however large it is.
    let cut = too_much.map(|position| position.max(1)).filter(|few| *few < atoms.len());
    if let Some(few) = cut {
        atoms.truncate(few);
    }
    Ok((atoms, full || cut.is_some()))
}

/// A log, and its place among those that are read.
struct Log {
    stream: LogStream,
    _place: Arc<()>,
}

impl Items for Log {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item, Error>>> {
        Pin::new(&mut self.stream).poll_next(context).map(|item| Some(item?.map(Item::Log)))
    }
}

impl Items for EventStream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item, Error>>> {
        let event = Pin::new(self).poll_next(context);
        event.map(|event| {
            Some(match event? {
                Ok(event) => Ok(Item::Event(Arc::unwrap_or_clone(event))),
                // It goes on after this.
                Err(Error::Journal(JournalError::Lagged { at, oldest })) => {
                    Ok(Item::Lagged { at, oldest })
                }
                Err(error) => Err(error),
            })
        })
    }
}

/// Events that are read from disk, some at a time.
struct Reading {
    engine: Arc<dyn Served>,
    place: Place,
}

enum Place {
    Here(Events),
    Away(Loan<(Events, Vec<Result<Record, Error>>)>),
    Read(Events, std::vec::IntoIter<Result<Record, Error>>),
    Gone,
}

/// How many events are read at a time.
const EVENTS: usize = 64;

impl Items for Reading {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Item, Error>>> {
        loop {
            match std::mem::replace(&mut self.place, Place::Gone) {
                Place::Here(mut events) => {
                    self.place = Place::Away(Loan::new(self.engine.reads(), move || {
                        let read = events.by_ref().take(EVENTS).collect();
                        (events, read)
                    }));
                }
                Place::Away(loan) => match loan.poll_back(context) {
                    Poll::Pending => {
                        self.place = Place::Away(loan);
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(lost)) => return Poll::Ready(Some(Err(lost.into()))),
                    Poll::Ready(Ok((_, read))) if read.is_empty() => return Poll::Ready(None),
                    Poll::Ready(Ok((events, read))) => {
                        self.place = Place::Read(events, read.into_iter());
                    }
                },
                Place::Read(events, mut read) => match read.next() {
                    None => self.place = Place::Here(events),
                    Some(event) => {
                        self.place = Place::Read(events, read);
                        return Poll::Ready(Some(event.map(Item::Event)));
                    }
                },
                Place::Gone => return Poll::Ready(None),
            }
        }
    }
}
