//! The server's one thread: lets clients in, hears them, and lets their tasks go on.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::super::hello::Hello;
use super::client::Client;
use super::mailbox::{Mailbox, TaskId};
use super::task::House;
use crate::{socket, trace};

const MAILBOX: u64 = 0;
const LISTENER: u64 = 1;

/// How many clients there may be at once: each costs a descriptor.
const MAX_CLIENTS: usize = 128;

/// There is something to read, or nothing more will come.
const SPEAKS: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::HUP).union(epoll::EventFlags::ERR);

/// Without descriptors nobody can be let in: after this time it is tried again.
const SCARCE: Duration = Duration::from_millis(100);

/// A client that is there, and what it is listened to for.
struct Seat {
    client: Client,
    interest: (bool, bool),
}

pub(super) struct Poller {
    house: House,
    listener: UnixListener,
    mailbox: Arc<Mailbox>,
    epoll: std::os::fd::OwnedFd,
    seats: HashMap<u64, Seat>,
    last: u64,
    /// When the listener is listened to again.
    deaf_until: Option<Instant>,
}

impl Poller {
    pub(super) fn new(
        house: House,
        listener: UnixListener,
        mailbox: Arc<Mailbox>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&epoll, &mailbox, data(MAILBOX), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &listener, data(LISTENER), epoll::EventFlags::IN)?;
        Ok(Self {
            house,
            listener,
            mailbox,
            epoll,
            seats: HashMap::new(),
            last: LISTENER,
            deaf_until: None,
        })
    }

    /// Serves until it is told to end.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        // The clients that have something to do.
        let mut busy = BTreeSet::new();
        loop {
            let timeout = if busy.is_empty() { self.timeout() } else { Some(Timespec::default()) };
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the control socket is given up");
                    return;
                }
            }
            for epoll::Event { flags, data } in events.drain(..) {
                match data.u64() {
                    MAILBOX => {
                        let Some(woken) = self.mailbox.take() else { return };
                        for TaskId { client, id } in woken {
                            if let Some(seat) = self.seats.get_mut(&client) {
                                seat.client.wake(id);
                                busy.insert(client);
                            }
                        }
                    }
                    LISTENER => self.let_in(),
                    token => {
                        if flags.intersects(SPEAKS) {
                            self.listen(token);
                        }
                        busy.insert(token);
                    }
                }
            }
            busy.extend(self.time_out());
            for token in std::mem::take(&mut busy) {
                if self.go_on(token) {
                    busy.insert(token);
                }
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let deadlines = self.seats.values().filter_map(|seat| seat.client.deadline());
        let next = deadlines.chain(self.deaf_until).min()?;
        // A time too long for the kernel is no limit.
        Timespec::try_from(next.saturating_duration_since(Instant::now())).ok()
    }

    /// Gives the clients of whom something is over.
    fn time_out(&mut self) -> Vec<u64> {
        let now = Instant::now();
        if self.deaf_until.is_some_and(|until| until <= now) {
            self.deaf_until = None;
            self.hear(true);
        }
        let late = |seat: &Seat| seat.client.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<u64> =
            self.seats.iter().filter(|(_, seat)| late(seat)).map(|(token, _)| *token).collect();
        for token in &late {
            let Some(seat) = self.seats.get_mut(token) else { continue };
            if let Err(error) = seat.client.time_out(now) {
                self.let_go(*token, &error);
            }
        }
        late
    }

    /// Listens for clients, or not.
    fn hear(&self, hear: bool) {
        let flags = if hear { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(LISTENER);
        if let Err(error) = epoll::modify(&self.epoll, &self.listener, data, flags) {
            tracing::error!(%error, "cannot listen for clients");
        }
    }

    fn let_in(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be let in");
                    self.deaf_until = Instant::now().checked_add(SCARCE);
                    return self.hear(false);
                }
            };
            if let Err(why) = socket::check_peer(&stream) {
                trace::client_refused(why);
                continue;
            }
            if self.seats.len() >= MAX_CLIENTS {
                trace::client_refused(format_args!("{MAX_CLIENTS} are served already"));
                let full = Hello { full: true, ..Hello::OURS };
                // It fits into the socket. Whoever does not read it learns nothing.
                let _ = send(&stream, &full.to_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
                continue;
            }
            self.last += 1;
            let token = self.last;
            trace::client_came(token, &stream);
            let client = match Client::new(token, stream) {
                Ok(client) => client,
                Err(error) => {
                    tracing::warn!(%error, "a client cannot be let in");
                    continue;
                }
            };
            let data = epoll::EventData::new_u64(token);
            if let Err(error) = epoll::add(&self.epoll, client.fd(), data, epoll::EventFlags::IN) {
                tracing::warn!(%error, "a client cannot be let in");
                continue;
            }
            self.seats.insert(token, Seat { client, interest: (true, false) });
        }
    }

    fn listen(&mut self, token: u64) {
        let Some(seat) = self.seats.get_mut(&token) else { return };
        if let Err(error) = seat.client.listen() {
            self.let_go(token, &error);
        }
    }

    /// Lets a client go on; true when it has more to do.
    fn go_on(&mut self, token: u64) -> bool {
        let Some(seat) = self.seats.get_mut(&token) else { return false };
        let more = match seat.client.go_on(&self.house, &self.mailbox) {
            Ok(more) => more,
            Err(error) => {
                self.let_go(token, &error);
                return false;
            }
        };
        let interest = seat.client.interest();
        if interest != seat.interest {
            seat.interest = interest;
            let mut flags = epoll::EventFlags::empty();
            flags.set(epoll::EventFlags::IN, interest.0);
            flags.set(epoll::EventFlags::OUT, interest.1);
            let data = epoll::EventData::new_u64(token);
            if let Err(error) = epoll::modify(&self.epoll, seat.client.fd(), data, flags) {
                self.let_go(token, &error.into());
                return false;
            }
        }
        more
    }

    fn let_go(&mut self, token: u64, why: &io::Error) {
        if why.kind() == ErrorKind::InvalidData {
            trace::client_refused(format_args!("it cannot be understood: {why}"));
        }
        trace::client_gone(token, why);
        // Its descriptor leaves the epoll when it is closed. Its deadlines find nobody.
        self.seats.remove(&token);
    }
}
