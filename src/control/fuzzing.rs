//! What the fuzz target of the control socket and the replay of its corpus call.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hello::Hello;
use super::server::Session;
use super::wire::{Form, Question, Request, Response};
use crate::atom::{Atom, AtomId, AtomSpec};
use crate::driver::Surroundings;
use crate::engine::{
    CreateRequest, DeleteRequest, Error, Events, GetRequest, LabelSelector, ListRequest, Logs,
    LogsRequest, Served, StopRequest, Subscription, Waiting,
};
use crate::journal::{Compacted, JournalError, Retention, Stats, Verified};
use crate::lane::Lane;
use crate::log::Stream;
use crate::socket;
use crate::time::Timestamp;

/// Any bytes, as they may come from a client, or from a holder: reading them never panics, and what can be
/// read can be written; and a server that is told them goes on or sends the client away.
pub fn control(bytes: &[u8]) {
    read::<Request>(bytes);
    read::<Response>(bytes);
    if let Some(hello) = bytes.first_chunk().and_then(Hello::from_bytes) {
        assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
    }
    converse(bytes);
}

fn read<T: DeserializeOwned + Serialize>(mut bytes: &[u8]) {
    while let Ok(Some((message, length))) = socket::take::<T>(bytes) {
        // Not the same bytes necessarily: a map may have come in another order, or with a key twice.
        let (mut again, mut twice) = (Vec::new(), Vec::new());
        socket::put(&mut again, &message).expect("what was read can be written");
        let same = socket::take::<T>(&again).expect("and read").expect("it is whole").0;
        socket::put(&mut twice, &same).expect("it was written before");
        assert_eq!(again, twice, "what is written is what is read");
        bytes = &bytes[length..];
    }
}

/// What a test leaves in a socket at the most, so that nobody has to read while it writes.
const MOST: usize = 64 << 10;

/// Tells a server that serves an empty engine all of it, and reads what it answers.
fn converse(bytes: &[u8]) {
    static SESSION: OnceLock<Session> = OnceLock::new();
    let (theirs, mut ours) = UnixStream::pair().expect("a pair of sockets");
    let said = &bytes[..bytes.len().min(MOST)];
    ours.write_all(said).expect("it fits");
    ours.shutdown(std::net::Shutdown::Write).expect("it is open");
    SESSION.get_or_init(|| Session::new(Arc::new(Empty(Lane::new("fuzz", 1))))).run(theirs);
    let mut answered = Vec::new();
    ours.read_to_end(&mut answered).expect("it was closed");
    assert!(answered.is_empty() || answered.starts_with(&Hello::OURS.to_bytes()));
}

/// Seeds of [`control`]: whole conversations, and pieces of one.
pub fn control_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let id = AtomId::from_bytes([0x70; 16]);
    let spec = AtomSpec::command("sh").args(["-c", "exit 3"]).env("A", "b").secret_env("S", "t");
    let around = Surroundings::new([("PATH".into(), "/bin".into())], "/tmp", Some(0o22));
    let form = || Form::from(CreateRequest::from(spec.clone()).id(id).around(around.clone()));
    let list = ListRequest::all()
        .select(LabelSelector::absent("team"))
        .name("n*")
        .since(Timestamp::from_micros(7))
        .after(id)
        .limit(3);
    let logs = LogsRequest::from(id).follow().lossless().stream(Stream::Stderr).from_offset(9);
    let timeout = Some(Duration::from_millis(1));
    let questions = [
        Question::Get(id),
        Question::Find("7070".into()),
        Question::List(list),
        Question::Create { form: Box::new(form()), follow: Some(99) },
        Question::CreateMany { forms: vec![form(), form()], around: around.clone() },
        Question::Wait { ids: vec![id], timeout },
        Question::WaitAll { ids: vec![id, id], timeout: None },
        Question::Stop(StopRequest::from(id).grace(Duration::from_secs(1))),
        Question::StopMany(vec![StopRequest::from(id).force()]),
        Question::Delete(DeleteRequest::from(id).force()),
        Question::Logs(logs),
        Question::Events(3),
        Question::Subscribe(4),
        Question::DurableSeq,
        Question::Stats,
        Question::Verify,
        Question::Compact(Retention { max_age: timeout, max_events: Some(4) }),
        Question::Stdin(id),
        Question::CloseStdin(id),
    ];
    let mut client = Hello::OURS.to_bytes().to_vec();
    for (number, question) in (1..).zip(questions) {
        let request = Request::Ask { id: number, question };
        socket::put(&mut client, &request).expect("it is small");
    }
    for request in [Request::Credit { id: 12, bytes: 1 << 20 }, Request::Cancel { id: 13 }] {
        socket::put(&mut client, &request).expect("it is small");
    }
    let cut = client[..client.len() / 2].to_vec();
    let mut long = client.clone();
    // A frame that says to be of four gigabytes.
    long[16..20].fill(0xff);
    let without_hello = client[16..].to_vec();
    let newer = b"CAESIUMC\0\0\x02\0\x09\0\0\0".to_vec();
    vec![
        ("client", client),
        ("cut", cut),
        ("long", long),
        ("without-hello", without_hello),
        ("newer", newer),
    ]
}

/// An engine without an atom.
struct Empty(Lane);

fn none<T>(id: AtomId) -> Result<T, Error> {
    Err(Error::NotFound(id.to_string()))
}

fn never<T: Send + 'static>(id: AtomId) -> Waiting<T> {
    Waiting::new(std::future::ready(none(id)))
}

impl Served for Empty {
    fn reads(&self) -> &Lane {
        &self.0
    }

    fn get(&self, request: &GetRequest) -> Result<Atom, Error> {
        none(request.id)
    }

    fn find(&self, text: &str) -> Result<Atom, Error> {
        Err(Error::NotFound(text.to_owned()))
    }

    fn list(&self, _request: &ListRequest) -> Result<Vec<Atom>, Error> {
        Ok(Vec::new())
    }

    fn create(
        &self,
        request: CreateRequest,
        _followed: bool,
    ) -> Result<(Waiting<Atom>, Option<Logs>), Error> {
        request.spec.validate()?;
        Err(Error::Closed)
    }

    fn create_many(&self, requests: Vec<CreateRequest>) -> Waiting<Vec<Result<Atom, Error>>> {
        let results = requests.into_iter().map(|request| {
            request.spec.validate()?;
            Err(Error::Closed)
        });
        Waiting::new(std::future::ready(Ok(results.collect())))
    }

    fn stop(&self, request: &StopRequest) -> Result<Waiting<Atom>, Error> {
        none(request.id)
    }

    fn stop_many(
        &self,
        requests: &[StopRequest],
    ) -> Result<Waiting<Vec<Result<Atom, Error>>>, Error> {
        let results = requests.iter().map(|request| none(request.id)).collect();
        Ok(Waiting::new(std::future::ready(Ok(results))))
    }

    fn delete(&self, id: AtomId) -> Result<Waiting<()>, Error> {
        none(id)
    }

    fn wait(&self, id: AtomId) -> Waiting<Atom> {
        never(id)
    }

    fn timed_out(&self, _ids: &[AtomId], _waited: Duration) -> Error {
        Error::NothingToWaitFor
    }

    fn wait_any(&self, ids: Vec<AtomId>) -> Waiting<Atom> {
        ids.first().map_or_else(
            || Waiting::new(std::future::ready(Err(Error::NothingToWaitFor))),
            |id| never(*id),
        )
    }

    fn wait_all(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>> {
        // For ever, so that somebody is given up.
        if ids.len() == 2 { Waiting::new(std::future::pending()) } else { self.none_of(&ids) }
    }

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error> {
        none(request.id)
    }

    fn stdin(&self, id: AtomId) -> Result<Waiting<PathBuf>, Error> {
        none(id)
    }

    fn close_stdin(&self, id: AtomId) -> Result<(), Error> {
        none(id)
    }

    fn events(&self, from: u64) -> Result<Events, Error> {
        Err(JournalError::Compacted { asked: from, oldest: 1 }.into())
    }

    fn subscribe(&self, from: u64) -> Subscription {
        Subscription::never(Error::Closed, from)
    }

    fn durable_seq(&self) -> u64 {
        0
    }

    fn stats(&self) -> Result<Stats, Error> {
        Err(Error::Closed)
    }

    fn verify(&self) -> Result<Verified, Error> {
        Err(Error::Closed)
    }

    fn compact(&self, _retention: &Retention) -> Result<Compacted, Error> {
        Err(Error::Closed)
    }
}

impl Empty {
    fn none_of(&self, ids: &[AtomId]) -> Waiting<Vec<Atom>> {
        ids.first()
            .map_or_else(|| Waiting::new(std::future::ready(Ok(Vec::new()))), |id| never(*id))
    }
}
