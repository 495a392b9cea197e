//! The line to a holder: questions go out on it, answers come in, and one thread hears them.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::super::wire::{Item, Question, Reply, Request, Response, WINDOW};
use crate::driver::DriverError;
use crate::engine::Error;
use crate::socket::{MAX_FRAME, Pipe};
use crate::trace;
use crate::wakers::wake;

/// How much is read at one go.
const READ: usize = 256 << 10;

/// The line, for all handles of a remote engine.
#[derive(Debug)]
pub(super) struct Line {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that has the thread.
    pid: u32,
}

/// What the thread and those who ask share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The store.
    pub(super) path: PathBuf,
    state: Mutex<State>,
    /// Wakes the thread.
    bell: OwnedFd,
}

#[derive(Debug)]
struct State {
    /// `None`: nobody hears any more.
    pipe: Option<Pipe>,
    /// It was closed by this side.
    closed: bool,
    last: u64,
    slots: HashMap<u64, Slot>,
}

/// Where an answer is put.
#[derive(Debug, Default)]
struct Slot {
    opened: bool,
    batches: VecDeque<Batch>,
    reply: Option<Result<Reply, Error>>,
    waker: Option<Waker>,
}

/// Items that came in one frame, and how many bytes that had.
#[derive(Debug)]
struct Batch {
    items: VecDeque<Item>,
    bytes: u64,
}

impl Line {
    /// Over a connection whose sides have greeted each other.
    pub(super) fn new(path: PathBuf, stream: UnixStream) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Of its own, so that nobody closes it while it is waited for.
        let heard = stream.try_clone()?;
        let state =
            State { pipe: Some(Pipe::new(stream)?), closed: false, last: 0, slots: HashMap::new() };
        let shared = Arc::new(Shared { path, state: Mutex::new(state), bell });
        let hears = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("caesium-remote".into())
            .spawn(move || hears.hear(&heard))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)), pid: std::process::id() })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Closes it: who still waits is told.
    pub(super) fn close(&self) {
        self.shared.end(true);
        self.shared.ring();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears a holder panicked");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A process that was forked from this one has no such thread.
        if std::process::id() == self.pid {
            self.close();
        } else {
            std::mem::forget(self.thread.get_mut().take());
        }
    }
}

impl Shared {
    /// Whether nobody hears any more at the other end.
    pub(super) fn is_gone(&self) -> bool {
        self.state.lock().pipe.is_none()
    }

    fn gone(&self, closed: bool) -> Error {
        if closed { Error::Closed } else { Error::HolderGone { path: self.path.clone() } }
    }

    fn ring(&self) {
        // The counter cannot overflow: it is read whenever the thread wakes.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Asks; the answer is awaited by what this gives.
    pub(super) fn ask(self: &Arc<Self>, question: Question) -> Result<Call, Error> {
        let mut state = self.state.lock();
        let id = state.slot();
        let call = Call { shared: Arc::clone(self), id };
        self.say(state, &Request::Ask { id, question })?;
        Ok(call)
    }

    /// Asks for something that comes with a stream, under a number of its own.
    pub(super) fn ask_followed(
        self: &Arc<Self>,
        question: impl FnOnce(u64) -> Question,
    ) -> Result<(Call, Stream), Error> {
        let mut state = self.state.lock();
        let (id, under) = (state.slot(), state.slot());
        let call = Call { shared: Arc::clone(self), id };
        let stream = Stream::new(Arc::clone(self), under);
        self.say(state, &Request::Ask { id, question: question(under) })?;
        Ok((call, stream))
    }

    fn say(&self, mut state: MutexGuard<'_, State>, request: &Request) -> Result<(), Error> {
        let Some(pipe) = &mut state.pipe else { return Err(self.gone(state.closed)) };
        if pipe.put(request).is_err() {
            return Err(Error::RequestTooLarge { limit: MAX_FRAME });
        }
        // What cannot be sent shows itself to the thread, which hears that there is nobody.
        let failed = pipe.flush().is_err();
        let unsent = pipe.unsent() > 0;
        drop(state);
        if failed || unsent {
            self.ring();
        }
        Ok(())
    }

    /// Nobody waits for this any more.
    fn cancel(&self, id: u64) {
        let mut state = self.state.lock();
        if state.slots.remove(&id).is_some_and(|slot| slot.reply.is_none()) {
            // What nobody hears need not be said.
            let _ = self.say(state, &Request::Cancel { id });
        }
    }

    /// Hears the holder until it has gone, or the line is closed.
    fn hear(&self, stream: &UnixStream) {
        let error = loop {
            match self.listen(stream) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break error,
            }
        };
        trace::holder_gone(&error);
        self.end(false);
    }

    /// Waits for something to hear, and hears it; false when the line was closed.
    fn listen(&self, stream: &UnixStream) -> io::Result<bool> {
        let unsent = match &self.state.lock().pipe {
            Some(pipe) => pipe.unsent() > 0,
            None => return Ok(false),
        };
        loop {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, unsent);
            let mut fds = [PollFd::new(stream, flags), PollFd::new(&self.bell, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        let mut woken = Vec::new();
        let mut state = self.state.lock();
        let State { pipe, slots, .. } = &mut *state;
        let Some(pipe) = pipe else { return Ok(false) };
        pipe.flush()?;
        let end = pipe.fill(READ)?;
        while let Some((response, bytes)) = pipe.take()? {
            let (Response::Opened { id } | Response::Items { id, .. } | Response::Reply { id, .. }) =
                &response;
            let Some(slot) = slots.get_mut(id) else { continue };
            match response {
                Response::Opened { .. } => slot.opened = true,
                Response::Items { items, .. } => {
                    slot.batches.push_back(Batch { items: items.into(), bytes: bytes as u64 });
                }
                Response::Reply { result, .. } => {
                    slot.reply = Some(result.map_err(|trouble| self.translated(trouble.into())));
                }
            }
            woken.extend(slot.waker.take());
        }
        drop(state);
        wake(woken);
        if end { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(true) }
    }

    /// An engine that was closed is, seen from here, a holder that has gone.
    fn translated(&self, error: Error) -> Error {
        if matches!(error, Error::Closed | Error::Driver(DriverError::Closed)) {
            return self.gone(false);
        }
        error
    }

    /// Nothing more will come.
    fn end(&self, closed: bool) {
        let mut state = self.state.lock();
        state.pipe = None;
        state.closed |= closed;
        let mut woken = Vec::new();
        for slot in state.slots.values_mut() {
            slot.reply.get_or_insert_with(|| Err(self.gone(closed)));
            woken.extend(slot.waker.take());
        }
        drop(state);
        wake(woken);
    }
}

impl State {
    fn slot(&mut self) -> u64 {
        self.last += 1;
        self.slots.insert(self.last, Slot::default());
        self.last
    }
}

/// What came of a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) items: Vec<Item>,
}

/// A question that was asked. Dropping it takes it back.
#[derive(Debug)]
pub(super) struct Call {
    shared: Arc<Shared>,
    id: u64,
}

impl Future for Call {
    type Output = Result<Answer, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.state.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return Poll::Ready(Err(self.shared.gone(false)));
        };
        if slot.reply.is_none() {
            slot.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let slot = state.slots.remove(&self.id).unwrap_or_default();
        let items = slot.batches.into_iter().flat_map(|batch| batch.items).collect();
        let reply = slot.reply.unwrap_or_else(|| Err(self.shared.gone(false)));
        Poll::Ready(reply.map(|reply| Answer { reply, items }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.cancel(self.id);
    }
}

/// A stream of items that comes as it is read. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<Shared>,
    id: u64,
    /// What has come and was taken from the slot.
    batch: Batch,
    /// Bytes that were read and for which no more were asked yet.
    read: u64,
}

impl Stream {
    fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id, batch: Batch { items: VecDeque::new(), bytes: 0 }, read: 0 }
    }

    /// Asks for one.
    pub(super) fn open(shared: &Arc<Shared>, question: Question) -> Result<Self, Error> {
        let mut state = shared.state.lock();
        let id = state.slot();
        let stream = Self::new(Arc::clone(shared), id);
        shared.say(state, &Request::Ask { id, question })?;
        Ok(stream)
    }

    /// Ready when the holder has opened it, or said why not.
    pub(super) fn poll_opened(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.shared.state.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else {
            return Poll::Ready(Err(self.shared.gone(false)));
        };
        if slot.opened {
            return Poll::Ready(Ok(()));
        }
        match slot.reply.take() {
            Some(reply) => Poll::Ready(reply.map(drop)),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next item; `None` at the end.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Item>, Error>> {
        loop {
            if let Some(item) = self.batch.items.pop_front() {
                return Poll::Ready(Ok(Some(item)));
            }
            self.read += std::mem::take(&mut self.batch.bytes);
            if self.read >= WINDOW / 4 {
                let (id, bytes) = (self.id, std::mem::take(&mut self.read));
                // What nobody hears shows itself by the end of the line.
                let _ = self.shared.say(self.shared.state.lock(), &Request::Credit { id, bytes });
            }
            let mut state = self.shared.state.lock();
            let Some(slot) = state.slots.get_mut(&self.id) else {
                return Poll::Ready(Err(self.shared.gone(false)));
            };
            if let Some(batch) = slot.batches.pop_front() {
                self.batch = batch;
                continue;
            }
            match &slot.reply {
                Some(Ok(_)) => return Poll::Ready(Ok(None)),
                Some(Err(_)) => {
                    let error = slot.reply.replace(Err(self.shared.gone(false)));
                    return Poll::Ready(error.unwrap_or(Ok(Reply::Done)).map(|_| None));
                }
                None => {}
            }
            slot.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.cancel(self.id);
    }
}
