//! The keeper's side of the socket: one host at a time, nothing that blocks.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::wire::{Answer, Extent, Hello, Purpose, Request, Trouble};
use crate::atom::AtomId;
use crate::driver::process::context::Context;
use crate::driver::process::log::{LogShared, remove_surplus};
use crate::driver::{DriverError, Observation, Order};
use crate::socket;

/// How long a host may take to say what it wants: it says so at once.
const GREETING: Duration = Duration::from_millis(200);

/// How much is read in one turn, so that a talkative host does not starve the atoms.
const TURN_BYTES: usize = 4 << 20;

/// What a host may leave unread before it is given up; it asks for everything again when it comes back.
const MAX_UNREAD: usize = 64 << 20;

/// The way to the hosts.
#[derive(Debug)]
pub(in crate::driver::process) struct Link {
    listener: UnixListener,
    connection: Option<Connection>,
    /// What was prepared and not ordered to start.
    orders: HashMap<AtomId, Order>,
    /// The atoms that this host has started or asked for. Of others it is told nothing:
    /// it will ask, and the answer is then told once.
    known: HashSet<AtomId>,
    watches: HashMap<AtomId, Watch>,
}

/// One host.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// Whether it has said what it wants.
    greeted: bool,
    stop_on_death: bool,
    /// It has said goodbye.
    goodbye: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of that was sent.
    sent: usize,
    /// Epoll was asked to tell when there is room.
    awaits_room: bool,
}

/// A log that the host reads.
#[derive(Debug)]
struct Watch {
    log: Arc<LogShared>,
    /// Our number among the log's readers that nothing may be dropped for.
    reader: Option<u64>,
    told: Extent,
}

/// What came of listening to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It is there.
    Open,
    /// It has gone.
    Ended {
        /// The atoms are to be stopped, because it did not say goodbye.
        stop: bool,
    },
    /// It wants this keeper to leave to another one.
    Leave,
}

impl Link {
    /// Over a socket that listens, which does not block.
    pub(super) fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            connection: None,
            orders: HashMap::new(),
            known: HashSet::new(),
            watches: HashMap::new(),
        }
    }

    pub(in crate::driver::process) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(|connection| connection.stream.as_fd())
    }

    /// A host that waits to be let in; others than our own user are sent away.
    pub(super) fn accept(&self) -> Option<(UnixStream, Hello)> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => {
                tracing::warn!(%error, "cannot let a host in");
                return None;
            }
        };
        if let Err(why) = socket::check_peer(&stream) {
            tracing::warn!(why, "a process was sent away");
            return None;
        }
        greeted(stream)
    }

    /// Goes on with this host.
    pub(super) fn connect(&mut self, stream: UnixStream, hello: Option<Hello>) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.connection = Some(Connection {
            stream,
            greeted: false,
            stop_on_death: false,
            goodbye: false,
            input: hello.map(|hello| hello.to_bytes().to_vec()).unwrap_or_default(),
            output: Vec::new(),
            sent: 0,
            awaits_room: false,
        });
        Ok(())
    }

    /// Lets go of the host and of all that was there for it alone; gives the atoms that were prepared for it.
    pub(super) fn disconnect(&mut self, context: &Context) -> Vec<AtomId> {
        self.connection = None;
        self.known.clear();
        for atom in self.watches.keys().copied().collect::<Vec<_>>() {
            self.unwatch(atom, context.dir(atom).path());
        }
        self.orders.drain().map(|(atom, _)| atom).collect()
    }

    /// Whether a host is there.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Reads what the host asks for.
    pub(super) fn listen(&mut self, requests: &mut Vec<Request>) -> Line {
        let Some(connection) = &mut self.connection else { return Line::Open };
        let ended = match connection.read() {
            Ok(ended) => ended,
            Err(error) => {
                tracing::debug!(%error, "a host has gone");
                true
            }
        };
        match connection.parse(requests) {
            Ok(Some(Purpose::Leave)) => return Line::Leave,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a host that cannot be understood was given up");
                return Line::Ended { stop: connection.stops() };
            }
        }
        connection.goodbye |= requests.last() == Some(&Request::Close);
        if ended { Line::Ended { stop: connection.stops() } } else { Line::Open }
    }

    /// Whether the atoms are to be stopped when the host goes now.
    pub(super) fn stops(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::stops)
    }

    // ---- what is prepared

    pub(super) fn prepared(&mut self, order: Order) {
        self.orders.insert(order.atom, order);
    }

    pub(super) fn take_order(&mut self, atom: AtomId) -> Option<Order> {
        self.orders.remove(&atom)
    }

    // ---- answers

    /// From now on the host is told of this atom.
    pub(super) fn know(&mut self, atom: AtomId) {
        if self.is_connected() {
            self.known.insert(atom);
        }
    }

    /// Whether the host is to be told of this atom.
    pub(in crate::driver::process) fn knows(&self, atom: AtomId) -> bool {
        self.known.contains(&atom)
    }

    /// Nothing more will happen to this atom.
    pub(super) fn forget(&mut self, atom: AtomId) {
        self.known.remove(&atom);
    }

    pub(super) fn answer_prepare(&mut self, id: u64, result: Result<(), DriverError>, path: &Path) {
        let result = result.map_err(|error| Trouble::of(&error, path));
        self.say(&Answer::Prepared { id, result });
    }

    pub(super) fn observed(&mut self, observation: Observation) {
        self.say(&Answer::Observed(observation));
    }

    fn say(&mut self, answer: &impl Serialize) {
        let Some(connection) = &mut self.connection else { return };
        if let Err(error) = socket::put(&mut connection.output, answer) {
            tracing::error!(%error, "something cannot be told to a host");
        }
    }

    // ---- logs

    /// Begins to tell of a log.
    pub(super) fn watch(
        &mut self,
        id: u64,
        atom: AtomId,
        lossless: bool,
        log: Option<Arc<LogShared>>,
    ) {
        let extent = log.map(|log| {
            let watch = self.watches.entry(atom).or_insert_with(|| Watch {
                log,
                reader: None,
                told: Extent::default(),
            });
            if lossless && watch.reader.is_none() {
                watch.reader = Some(watch.log.enter(0));
            }
            watch.told = watch.log.extent();
            watch.told
        });
        self.say(&Answer::Watching { id, atom, extent });
    }

    /// The host needs nothing before this segment.
    pub(super) fn need(&mut self, atom: AtomId, segment: Option<u64>, dir: &Path) {
        let Some(watch) = self.watches.get_mut(&atom) else { return };
        let Some(reader) = watch.reader else { return };
        watch.log.moved(reader, segment);
        if segment.is_none() {
            watch.reader = None;
        }
        remove_surplus(dir, &watch.log);
    }

    /// Tells no more of a log.
    pub(super) fn unwatch(&mut self, atom: AtomId, dir: &Path) {
        let Some(watch) = self.watches.remove(&atom) else { return };
        if let Some(reader) = watch.reader {
            watch.log.moved(reader, None);
            remove_surplus(dir, &watch.log);
        }
    }

    /// Sends what is to be sent; `Some` when epoll is to be asked anew, with whether to tell of room.
    ///
    /// # Errors
    ///
    /// When the host has gone, or does not read.
    pub(super) fn flush(&mut self) -> io::Result<Option<bool>> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        connection.send()?;
        if connection.output.is_empty() {
            self.tell_logs();
        }
        let Some(connection) = &mut self.connection else { return Ok(None) };
        connection.send()?;
        let awaits_room = !connection.output.is_empty();
        let changed = connection.awaits_room != awaits_room;
        connection.awaits_room = awaits_room;
        Ok(changed.then_some(awaits_room))
    }

    /// What has grown is told when what was told before has been taken: once for many chunks.
    fn tell_logs(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        for (atom, watch) in &mut self.watches {
            let extent = watch.log.extent();
            if extent != watch.told {
                watch.told = extent;
                // It is small, and fits.
                let _ = socket::put(&mut connection.output, &Answer::LogGrew(*atom, extent));
            }
        }
        self.watches.retain(|_, watch| !watch.told.complete || watch.reader.is_some());
    }
}

/// A host that has said what it wants, and can be understood. Nobody else takes the place of the one that is there.
fn greeted(mut stream: UnixStream) -> Option<(UnixStream, Hello)> {
    let mut bytes = [0; Hello::BYTES];
    let read = stream.set_read_timeout(Some(GREETING)).and_then(|()| stream.read_exact(&mut bytes));
    let hello = read.ok().and_then(|()| Hello::from_bytes(&bytes));
    let Some(hello) = hello else {
        tracing::warn!("something that is no host was sent away");
        return None;
    };
    let ours = Hello::new(Purpose::Work);
    if hello.purpose != Purpose::Leave && ours.common(hello).is_none() {
        // It reads that from our hello, and comes again to make us leave.
        let _ = stream.write_all(&ours.to_bytes());
        return None;
    }
    Some((stream, hello))
}

impl Connection {
    fn stops(&self) -> bool {
        self.stop_on_death && !self.goodbye
    }

    /// Reads what there is; true at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 << 10];
        let mut total = 0;
        while total < TURN_BYTES {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(bytes) => {
                    self.input.extend_from_slice(&chunk[..bytes]);
                    total += bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Takes what is whole; says what the host wants when it has just greeted.
    fn parse(&mut self, requests: &mut Vec<Request>) -> io::Result<Option<Purpose>> {
        let mut at = 0;
        let mut purpose = None;
        if !self.greeted {
            let Some(hello) = self.input.first_chunk() else { return Ok(None) };
            let hello = Hello::from_bytes(hello).ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidData, "not a host of this crate")
            })?;
            at = Hello::BYTES;
            let ours = Hello::new(Purpose::Work);
            self.output.extend_from_slice(&ours.to_bytes());
            if hello.purpose != Purpose::Leave && ours.common(hello).is_none() {
                // It has read that from our hello too, and comes again to make us leave.
                self.send()?;
                return Err(io::Error::new(ErrorKind::Unsupported, "a host of another protocol"));
            }
            self.greeted = true;
            self.stop_on_death = hello.purpose == Purpose::WorkAndStop;
            purpose = Some(hello.purpose);
        }
        while let Some((request, bytes)) = socket::take(&self.input[at..])? {
            requests.push(request);
            at += bytes;
        }
        self.input.drain(..at);
        if self.input.is_empty() && self.input.capacity() > 64 << 10 {
            self.input = Vec::new();
        }
        Ok(purpose)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.output.len() - self.sent > MAX_UNREAD {
                        return Err(io::Error::new(ErrorKind::TimedOut, "the host does not read"));
                    }
                    // What was sent goes when it is the larger part.
                    if self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.output.shrink_to(64 << 10);
        self.sent = 0;
        Ok(())
    }
}
