//! The holder's side of the control socket.

mod client;
mod mailbox;
mod poller;
mod task;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::SOCKET;
use crate::atom::Bytes;
use crate::engine::Served;
use crate::{socket, trace};
use mailbox::Mailbox;
use poller::Poller;
use task::{House, Lanes};

/// A server without a thread or a socket of its own: it hears one client after the other, to its end.
#[cfg(feature = "test-util")]
pub(super) struct Session {
    house: House,
    mailbox: Arc<Mailbox>,
}

#[cfg(feature = "test-util")]
impl Session {
    pub(super) fn new(engine: Arc<dyn Served>) -> Self {
        let house = House::new(Bytes::default(), engine, Arc::new(Lanes::new()));
        Self { house, mailbox: Arc::new(Mailbox::new().expect("an eventfd")) }
    }

    /// Hears a client that has said all that it will say, and reads nothing before this returns.
    pub(super) fn run(&self, stream: std::os::unix::net::UnixStream) {
        /// More turns than any number of messages takes that fits into a socket.
        const TURNS: usize = 10_000;
        let mut client = client::Client::new(0, stream).expect("a client");
        for _ in 0..TURNS {
            if client.listen().is_err() {
                return;
            }
            let late = std::time::Instant::now();
            for woken in self.mailbox.take().unwrap_or_default() {
                client.wake(woken.id);
            }
            let timed = client.time_out(late);
            if timed.is_err() || client.go_on(&self.house, &self.mailbox).is_err() {
                return;
            }
        }
    }
}

/// Serves a store, on one thread, until it is closed. What may block is done by at most three more,
/// which are started when there is something to do.
#[derive(Debug)]
pub(crate) struct Server {
    socket: PathBuf,
    mailbox: Arc<Mailbox>,
    lanes: Arc<Lanes>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on the socket in the store.
    pub(crate) fn start(store: &Path, engine: Arc<dyn Served>) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::new()?);
        let lanes = Arc::new(Lanes::new());
        let path = Bytes(store.as_os_str().to_owned());
        let house = House::new(path, engine, Arc::clone(&lanes));
        let listener = socket::bind(store, SOCKET)?;
        let poller = Poller::new(house, listener, Arc::clone(&mailbox))?;
        let thread = std::thread::Builder::new()
            .name("caesium-control".into())
            .spawn(move || poller.run())?;
        trace::serving(store);
        Ok(Self { socket: store.join(SOCKET), mailbox, lanes, thread: Some(thread) })
    }

    /// Serves nobody any more: what is under way is finished, and its answers find nobody.
    pub(crate) fn close(mut self) {
        // First the name: who comes from here on finds that nobody serves.
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the control socket was gone already");
        }
        self.mailbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the control socket panicked");
        }
        self.lanes.close();
    }
}
