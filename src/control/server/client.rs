//! One client: what it asks, what is being answered, and what it has not read yet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::hello::Hello;
use super::super::trouble::Trouble;
use super::super::wire::{BATCH, Item, Question, Reply, Request, Response, WINDOW};
use super::mailbox::{Mailbox, TaskId};
use super::task::{Answer, Answering, House, Items, Patience};
use crate::engine::Error;
use crate::socket::Pipe;

/// How much is read at one go.
const READ: usize = 64 << 10;

/// With so much unread, nothing more is heard of the client or put out for it: it has to catch up first.
const MAX_UNREAD: usize = 1 << 20;

/// How many questions of one client may be open.
const MAX_OPEN: usize = 1024;

/// How often a client goes on before it is the others' turn.
const ROUNDS: usize = 16;

/// How long a client may take to say what it speaks: it says so at once.
const GREETING: Duration = Duration::from_secs(2);

/// Stands for the greeting in the place of a question's number.
const GREETS: u64 = u64::MAX;

/// A client.
pub(super) struct Client {
    token: u64,
    pipe: Pipe,
    /// It has said what it speaks.
    greeted: bool,
    tasks: HashMap<u64, Task>,
    /// The tasks that may have something to tell, in the order in which they had.
    ready: VecDeque<u64>,
    /// When who waits is to be told to give up.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Nothing more comes from it: it goes when it has read what was put out.
    gone: bool,
}

/// A question that is open.
struct Task {
    work: Work,
    waker: Waker,
    /// It is among those that may have something to tell.
    queued: bool,
    deadline: Option<Instant>,
    /// That has passed.
    late: bool,
}

enum Work {
    Answering(Answering, Option<Patience>),
    /// Items to be told, and then the answer.
    Telling(Box<dyn Iterator<Item = Item> + Send>, Option<Result<Reply, Trouble>>),
    /// A stream, and how many more bytes of it may be sent.
    Streaming(Box<dyn Items>, u64),
}

impl Client {
    pub(super) fn new(token: u64, stream: UnixStream) -> io::Result<Self> {
        let greeting = Instant::now() + GREETING;
        Ok(Self {
            token,
            pipe: Pipe::new(stream)?,
            greeted: false,
            tasks: HashMap::new(),
            ready: VecDeque::new(),
            deadlines: BTreeSet::from([(greeting, GREETS)]),
            gone: false,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Whether it is to be listened to, and whether it is to be told of room.
    pub(super) fn interest(&self) -> (bool, bool) {
        (!self.gone && self.pipe.unsent() < MAX_UNREAD, self.pipe.unsent() > 0)
    }

    /// When something of it is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes in what it says.
    ///
    /// # Errors
    ///
    /// It is to be let go.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        self.gone |= self.pipe.fill(READ)?;
        Ok(())
    }

    /// A task may have something to tell.
    pub(super) fn wake(&mut self, id: u64) {
        if let Some(task) = self.tasks.get_mut(&id)
            && !task.queued
        {
            task.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Does what it asks for and tells what there is to tell, as far as it reads; true when there is
    /// more to do, and it is the others' turn.
    ///
    /// # Errors
    ///
    /// It is to be let go.
    pub(super) fn go_on(&mut self, house: &House, mailbox: &Arc<Mailbox>) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            let heard = self.hear(house, mailbox)?;
            // Each that is ready goes on once: what has much to tell lets the others go before it tells more.
            for _ in 0..self.ready.len() {
                if self.pipe.unsent() >= MAX_UNREAD {
                    break;
                }
                let Some(id) = self.ready.pop_front() else { break };
                self.step(id, house, mailbox)?;
            }
            self.pipe.flush()?;
            if self.pipe.unsent() > 0 {
                return Ok(false);
            }
            if !heard && self.ready.is_empty() {
                if self.gone {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes what it has asked; true when there may be more.
    fn hear(&mut self, house: &House, mailbox: &Arc<Mailbox>) -> io::Result<bool> {
        if !self.greeted {
            let Some(hello) = self.pipe.take_bytes() else { return Ok(false) };
            let hello = Hello::from_bytes(&hello).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "not a client of this crate")
            })?;
            self.pipe.put_bytes(&Hello::OURS.to_bytes());
            // At once: what comes next may be understood by nobody.
            self.pipe.flush()?;
            self.greeted = true;
            self.deadlines.retain(|(_, id)| *id != GREETS);
            if Hello::OURS.common(hello).is_none() {
                // It reads that from our hello, too.
                self.gone = true;
            }
        }
        for _ in 0..MAX_OPEN / 4 {
            if self.pipe.unsent() >= MAX_UNREAD {
                return Ok(false);
            }
            let Some((request, _)) = self.pipe.take()? else { return Ok(false) };
            match request {
                Request::Ask { id, question } => self.ask(id, question, house, mailbox)?,
                Request::Cancel { id } => self.forget(id),
                Request::Credit { id, bytes } => {
                    if let Some(Task { work: Work::Streaming(_, credit), .. }) =
                        self.tasks.get_mut(&id)
                    {
                        *credit = credit.saturating_add(bytes).min(WINDOW);
                        self.wake(id);
                    }
                }
            }
        }
        Ok(true)
    }

    fn ask(
        &mut self,
        id: u64,
        question: Question,
        house: &House,
        mailbox: &Arc<Mailbox>,
    ) -> io::Result<()> {
        if self.tasks.contains_key(&id) || id == GREETS {
            let problem = "a number that is no new question's";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let work = if self.tasks.len() < MAX_OPEN {
            let (answering, patience) = house.answer(question);
            Work::Answering(answering, patience)
        } else {
            Work::failed(Trouble::HolderBusy { path: house.path.clone() })
        };
        self.insert(id, work, mailbox);
        Ok(())
    }

    fn insert(&mut self, id: u64, work: Work, mailbox: &Arc<Mailbox>) {
        let waker = mailbox.waker(TaskId { client: self.token, id });
        let task = Task { work, waker, queued: false, deadline: None, late: false };
        self.tasks.insert(id, task);
        self.wake(id);
    }

    fn forget(&mut self, id: u64) {
        if let Some(Task { deadline: Some(deadline), .. }) = self.tasks.remove(&id) {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Tells whose time is over.
    ///
    /// # Errors
    ///
    /// It has not said what it speaks, and is to be let go.
    pub(super) fn time_out(&mut self, now: Instant) -> io::Result<()> {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            if id == GREETS {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if let Some(task) = self.tasks.get_mut(&id) {
                task.late = true;
                self.wake(id);
            }
        }
        Ok(())
    }

    /// Lets one task go on.
    fn step(&mut self, id: u64, house: &House, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        let Some(task) = self.tasks.get_mut(&id) else { return Ok(()) };
        task.queued = false;
        let mut context = Context::from_waker(&task.waker);
        match &mut task.work {
            Work::Answering(answering, patience) => match answering.as_mut().poll(&mut context) {
                Poll::Ready(answer) => self.answered(id, answer, mailbox),
                Poll::Pending => {
                    let Some(Patience { ids, timeout }) = patience else { return Ok(()) };
                    if task.late {
                        let error = house.engine.timed_out(ids, *timeout);
                        return self.end(id, Err(error.into()));
                    }
                    if task.deadline.is_none() {
                        // A time too long to add up is no limit.
                        task.deadline = Instant::now().checked_add(*timeout);
                        self.deadlines.extend(task.deadline.map(|deadline| (deadline, id)));
                    }
                    Ok(())
                }
            },
            Work::Telling(items, reply) => {
                let (batch, then) = gather(|| Poll::Ready(items.next().map(Ok)));
                let reply = match then {
                    Then::End => reply.take(),
                    Then::More | Then::Idle | Then::Failed(_) => None,
                };
                self.put_items(id, batch)?;
                match reply {
                    Some(result) => self.end(id, result),
                    None => {
                        self.wake(id);
                        Ok(())
                    }
                }
            }
            Work::Streaming(_, 0) => Ok(()),
            Work::Streaming(items, credit) => {
                let (batch, then) = gather(|| items.poll(&mut context));
                let before = *credit;
                let bytes = self.put_items(id, batch)?;
                if let Some(Task { work: Work::Streaming(_, credit), .. }) = self.tasks.get_mut(&id)
                {
                    *credit = before.saturating_sub(bytes as u64);
                }
                match then {
                    Then::More => {
                        self.wake(id);
                        Ok(())
                    }
                    Then::Idle => Ok(()),
                    Then::End => self.end(id, Ok(Reply::Done)),
                    Then::Failed(error) => self.end(id, Err(error.into())),
                }
            }
        }
    }

    /// What is to be told is known.
    fn answered(
        &mut self,
        id: u64,
        answer: Result<Answer, Error>,
        mailbox: &Arc<Mailbox>,
    ) -> io::Result<()> {
        match answer {
            Err(error) => self.end(id, Err(error.into())),
            Ok(Answer::Short(result)) => self.end(id, result),
            Ok(Answer::Long(items, reply)) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    task.work = Work::Telling(items, Some(Ok(reply)));
                }
                self.wake(id);
                Ok(())
            }
            Ok(Answer::Stream(items)) => {
                self.forget(id);
                self.stream(id, items, mailbox)
            }
            Ok(Answer::Both { reply, under, items }) => {
                if reply.is_ok() && !self.tasks.contains_key(&under) {
                    self.stream(under, items, mailbox)?;
                }
                self.end(id, reply)
            }
        }
    }

    /// Begins to send a stream.
    fn stream(&mut self, id: u64, items: Box<dyn Items>, mailbox: &Arc<Mailbox>) -> io::Result<()> {
        self.pipe.put(&Response::Opened { id })?;
        self.insert(id, Work::Streaming(items, WINDOW), mailbox);
        Ok(())
    }

    fn put_items(&mut self, id: u64, items: Vec<Item>) -> io::Result<usize> {
        if items.is_empty() { Ok(0) } else { self.pipe.put(&Response::Items { id, items }) }
    }

    fn end(&mut self, id: u64, result: Result<Reply, Trouble>) -> io::Result<()> {
        self.forget(id);
        self.pipe.put(&Response::Reply { id, result })?;
        Ok(())
    }
}

impl Work {
    fn failed(trouble: Trouble) -> Self {
        Self::Telling(Box::new(std::iter::empty()), Some(Err(trouble)))
    }
}

/// What comes after the items that were gathered.
enum Then {
    More,
    Idle,
    End,
    Failed(Error),
}

/// Items for one frame.
fn gather(mut next: impl FnMut() -> Poll<Option<Result<Item, Error>>>) -> (Vec<Item>, Then) {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH {
        match next() {
            Poll::Ready(Some(Ok(item))) => {
                bytes += item.weight();
                items.push(item);
            }
            Poll::Ready(Some(Err(error))) => return (items, Then::Failed(error)),
            Poll::Ready(None) => return (items, Then::End),
            Poll::Pending => return (items, Then::Idle),
        }
    }
    (items, Then::More)
}
