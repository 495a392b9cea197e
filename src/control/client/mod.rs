//! An engine that another process has.

mod connect;
mod feed;
mod line;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::trouble::Trouble;
use super::wire::{Form, Item, Question, Reply, Whole};
use crate::atom::{Atom, AtomId};
use crate::driver::{DriverError, Surroundings};
use crate::engine::Feed;
use crate::engine::{
    CreateRequest, DeleteRequest, Engine, Error, Events, GetRequest, ListRequest, Logs,
    LogsRequest, Next, OnClose, StdinRequest, StdinWriter, StopRequest, Subscription,
    WaitManyRequest, WaitRequest, Waiting,
};
use crate::journal::{Compacted, Retention, Stats, Verified};
use crate::trace;
use crate::wakers::{block_on, block_on_poll};
use feed::{RemoteEvents, RemoteLog};
use line::{Answer, Call, Line, Stream};

/// The engine of another process that has the store open and [serves](crate::EngineOptions::serve) it.
///
/// Every request is carried out there: atoms belong to the store, and are supervised as its holder has them
/// supervised. They get the environment, the working directory and the umask of this process. What the
/// holder answers is what a local engine answers, its errors included. When the holder ends, or closes its engine,
/// whoever waits is told [`Error::HolderGone`], and so is every later request.
///
/// Clones are handles of the same connection. [`shutdown`](Engine::shutdown) closes that connection and leaves
/// the holder alone, whatever the policy.
#[derive(Debug, Clone)]
pub struct RemoteEngine {
    line: Arc<Line>,
}

/// How many requests to create are in one message at the most, and about how many bytes they may have.
const AT_ONCE: usize = 256;
const AT_ONCE_BYTES: usize = 2 << 20;

impl RemoteEngine {
    /// Connects to the process that has the store at `path` open.
    ///
    /// # Errors
    ///
    /// [`Error::NotServed`] when there is none, or it serves nobody; [`Error::HolderBusy`] when it does not answer,
    /// or has as many clients as it may; [`Error::Incompatible`] when it is of another version.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self { line: Arc::new(connect::connect(path.as_ref())?) })
    }

    /// Whether the holder has gone, or the connection was closed: nothing more will be answered.
    pub fn is_gone(&self) -> bool {
        self.line.shared().is_gone()
    }

    fn ask(&self, question: Question) -> Result<Call, Error> {
        self.line.shared().ask(question)
    }

    fn answer(&self, question: Question) -> Result<Answer, Error> {
        block_on(self.ask(question)?)
    }

    fn atom(&self, question: Question) -> Result<Atom, Error> {
        atom(self.answer(question)?)
    }

    fn open(&self, question: Question) -> Result<Stream, Error> {
        let stream = Stream::open(self.line.shared(), question)?;
        block_on_poll(None, |context| stream.poll_opened(context)).unwrap_or(Err(Error::Closed))?;
        Ok(stream)
    }

    /// Awaits an answer that has to be asked for first.
    fn waiting<T: 'static>(
        &self,
        question: Question,
        read: impl FnOnce(Answer) -> Result<T, Error> + Send + 'static,
    ) -> Waiting<T> {
        let call = self.ask(question);
        Waiting::new(async move { read(call?.await?) })
    }
}

/// An answer that is none to the question.
fn unexpected() -> Error {
    let source =
        std::io::Error::new(std::io::ErrorKind::InvalidData, "not an answer to the question");
    DriverError::Io { what: "cannot understand the process that has the store open".into(), source }
        .into()
}

fn atom(answer: Answer) -> Result<Atom, Error> {
    let Reply::Atom(Whole(atom)) = answer.reply else { return Err(unexpected()) };
    Ok(atom)
}

fn atoms(answer: Answer) -> Result<Vec<Atom>, Error> {
    let atom = |item| match item {
        Item::Atom(Whole(atom)) => Ok(atom),
        Item::Log(_) | Item::Event(_) | Item::Outcome(_) | Item::Lagged { .. } => Err(unexpected()),
    };
    answer.items.into_iter().map(atom).collect()
}

fn outcomes(answer: Answer) -> Result<Vec<Result<Atom, Error>>, Error> {
    let outcome = |item| match item {
        Item::Outcome(result) => {
            Ok(result.map(|Whole(atom)| atom).map_err(|trouble: Trouble| trouble.into()))
        }
        Item::Log(_) | Item::Event(_) | Item::Atom(_) | Item::Lagged { .. } => Err(unexpected()),
    };
    answer.items.into_iter().map(outcome).collect()
}

/// What this process gives to the atoms that it asks for.
fn here() -> Result<Surroundings, Error> {
    Surroundings::here().map_err(|source| {
        let what = "cannot tell this process's working directory".to_owned();
        DriverError::Io { what, source }.into()
    })
}

fn form(mut request: CreateRequest) -> Result<Box<Form>, Error> {
    if request.around.is_none() {
        request.around = Some(here()?);
    }
    Ok(Box::new(Form::from(request)))
}

impl Engine for RemoteEngine {
    fn get(&self, request: &GetRequest) -> Result<Atom, Error> {
        self.atom(Question::Get(request.id))
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error> {
        let (mut request, mut listed) = (request.clone(), Vec::new());
        loop {
            let answer = self.answer(Question::List(request.clone()))?;
            let more = answer.reply == Reply::More;
            let page = atoms(answer)?;
            request.after = page.last().map(Atom::id);
            request.limit = request.limit.map(|limit| limit.saturating_sub(page.len()));
            let over = page.is_empty() || request.limit == Some(0);
            listed.extend(page);
            if over || !more {
                return Ok(listed);
            }
        }
    }

    fn create(&self, request: CreateRequest) -> Result<Atom, Error> {
        let _span = trace::create(&request).entered();
        self.atom(Question::Create { form: form(request)?, follow: None })
    }

    fn create_followed(&self, request: CreateRequest) -> Result<(Atom, Logs), Error> {
        let _span = trace::create(&request).entered();
        let form = form(request)?;
        let question = |under| Question::Create { form, follow: Some(under) };
        let (call, stream) = self.line.shared().ask_followed(question)?;
        Ok((atom(block_on(call)?)?, Logs::new(RemoteLog(stream))))
    }

    fn create_many(&self, requests: Vec<CreateRequest>) -> Result<Vec<Result<Atom, Error>>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let _span = trace::create_many(&requests).entered();
        let around = here()?;
        let mut created = Vec::with_capacity(requests.len());
        let mut left = requests.into_iter().map(Form::from).peekable();
        while left.peek().is_some() {
            let (mut forms, mut bytes) = (Vec::new(), 0);
            while let Some(form) = left.next_if(|form| {
                forms.is_empty()
                    || (forms.len() < AT_ONCE && bytes + form.weight() <= AT_ONCE_BYTES)
            }) {
                bytes += form.weight();
                forms.push(form);
            }
            let around = around.clone();
            created.extend(outcomes(self.answer(Question::CreateMany { forms, around })?)?);
        }
        Ok(created)
    }

    fn wait(&self, request: &WaitRequest) -> Result<Atom, Error> {
        let _span = trace::wait(&[request.id], true, request.timeout).entered();
        self.atom(Question::Wait { ids: vec![request.id], timeout: request.timeout })
    }

    fn wait_any(&self, request: &WaitManyRequest) -> Result<Atom, Error> {
        let _span = trace::wait(&request.ids, false, request.timeout).entered();
        let WaitManyRequest { ids, timeout } = request.clone();
        self.atom(Question::Wait { ids, timeout })
    }

    fn wait_all(&self, request: &WaitManyRequest) -> Result<Vec<Atom>, Error> {
        let _span = trace::wait(&request.ids, true, request.timeout).entered();
        let WaitManyRequest { ids, timeout } = request.clone();
        atoms(self.answer(Question::WaitAll { ids, timeout })?)
    }

    fn wait_async(&self, id: AtomId) -> Waiting<Atom> {
        self.waiting(Question::Wait { ids: vec![id], timeout: None }, atom)
    }

    fn wait_any_async(&self, ids: Vec<AtomId>) -> Waiting<Atom> {
        self.waiting(Question::Wait { ids, timeout: None }, atom)
    }

    fn wait_all_async(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>> {
        self.waiting(Question::WaitAll { ids, timeout: None }, atoms)
    }

    fn stop(&self, request: &StopRequest) -> Result<Atom, Error> {
        let _span = trace::stop(&[*request]).entered();
        self.atom(Question::Stop(*request))
    }

    fn stop_many(&self, requests: &[StopRequest]) -> Result<Vec<Result<Atom, Error>>, Error> {
        let _span = trace::stop(requests).entered();
        outcomes(self.answer(Question::StopMany(requests.to_vec()))?)
    }

    fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        let _span = trace::delete(request).entered();
        self.answer(Question::Delete(*request)).map(drop)
    }

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error> {
        Ok(Logs::new(RemoteLog(self.open(Question::Logs(request.clone()))?)))
    }

    fn stdin(&self, request: &StdinRequest) -> Result<StdinWriter, Error> {
        let Reply::Stdin(path) = self.answer(Question::Stdin(request.id))?.reply else {
            return Err(unexpected());
        };
        let path = self.line.shared().path.join(Path::new(&path.0));
        Ok(StdinWriter::new(request.id, path))
    }

    fn close_stdin(&self, request: &StdinRequest) -> Result<(), Error> {
        self.answer(Question::CloseStdin(request.id)).map(drop)
    }

    fn find(&self, text: &str) -> Result<Atom, Error> {
        self.atom(Question::Find(text.to_owned()))
    }

    fn events(&self, from: u64) -> Result<Events, Error> {
        let mut feed = RemoteEvents::over(self.open(Question::Events(from))?);
        Ok(Events::new(std::iter::from_fn(move || match feed.next(None) {
            Ok(Next::Item(record)) => Some(Ok(Arc::unwrap_or_clone(record))),
            Ok(Next::End | Next::TimedOut) => None,
            Err(error) => Some(Err(error)),
        })))
    }

    fn subscribe(&self, from: u64) -> Subscription {
        match Stream::open(self.line.shared(), Question::Subscribe(from)) {
            Ok(stream) => Subscription::new(RemoteEvents::over(stream), from),
            Err(error) => Subscription::never(error, from),
        }
    }

    fn durable_seq(&self) -> Result<u64, Error> {
        let Reply::Seq(seq) = self.answer(Question::DurableSeq)?.reply else {
            return Err(unexpected());
        };
        Ok(seq)
    }

    fn stats(&self) -> Result<Stats, Error> {
        let Reply::Stats(stats) = self.answer(Question::Stats)?.reply else {
            return Err(unexpected());
        };
        Ok(stats)
    }

    fn verify(&self) -> Result<Verified, Error> {
        let _span = trace::verify().entered();
        let Reply::Verified(verified) = self.answer(Question::Verify)?.reply else {
            return Err(unexpected());
        };
        Ok(verified)
    }

    fn compact(&self, retention: &Retention) -> Result<Compacted, Error> {
        let _span = trace::compact(retention).entered();
        let Reply::Compacted(compacted) = self.answer(Question::Compact(*retention))?.reply else {
            return Err(unexpected());
        };
        Ok(compacted)
    }

    fn shutdown(&self, policy: OnClose) -> Result<(), Error> {
        let _span = trace::shutdown(policy).entered();
        self.line.close();
        Ok(())
    }
}

/// How long a holder may take to say what it speaks.
const PATIENCE: Duration = Duration::from_secs(10);
