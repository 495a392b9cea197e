//! The monitor in the keeper: what it does for the host at the other end of the socket.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;

use rustix::event::epoll;

use super::execute::Reserve;
use super::link::{Line, Link};
use super::wire::{Hello, Preparation, Request};
use crate::atom::AtomId;
use crate::crash;
use crate::driver::process::dir::trouble;
use crate::driver::process::mailbox::Message;
use crate::driver::process::monitor::{CONNECTION, Monitor};
use crate::driver::process::sys::{self, ChildSignal};
use crate::driver::{Command, DriverError, Observation, Order, Remembered};
use crate::lifecycle::StopCause;
use crate::time;

impl Monitor {
    /// Lets the next host in. The last one has gone: only one can have the store.
    pub(in crate::driver::process) fn accept(&mut self) {
        while let Some((stream, hello)) = self.link.as_mut().and_then(|link| link.accept()) {
            self.connect(stream, Some(hello));
            // What it has said already was read, and nothing else may come before it is answered.
            self.converse();
        }
    }

    /// Goes on with this host.
    pub(super) fn connect(&mut self, stream: UnixStream, hello: Option<Hello>) {
        // What the one before had ordered counts, down to the last byte that it sent.
        self.converse();
        if self.link.as_mut().is_some_and(|link| link.is_connected()) {
            self.disconnected(false);
        }
        let Some(link) = self.link.as_mut() else { return };
        if let Err(error) = link.connect(stream, hello) {
            tracing::warn!(%error, "cannot listen to a host");
            return;
        }
        let data = epoll::EventData::new_u64(CONNECTION);
        let added = match self.link.as_ref().and_then(Link::stream) {
            Some(fd) => epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN),
            None => Ok(()),
        };
        if let Err(error) = added {
            tracing::error!(%error, "cannot listen to a host");
            self.disconnected(false);
        }
    }

    /// Does what the host asks for.
    pub(in crate::driver::process) fn converse(&mut self) {
        let mut requests = Vec::new();
        let Some(link) = self.link.as_mut() else { return };
        let line = link.listen(&mut requests);
        let messages = requests.into_iter().filter_map(|request| self.message(request)).collect();
        self.handle(messages);
        match line {
            Line::Open => {}
            Line::Ended { stop } => self.disconnected(stop),
            Line::Leave => {
                tracing::info!("leaving the atoms to another keeper");
                self.closing = true;
            }
        }
    }

    /// What can be done at once is done; the rest is a message like those of a host of its own.
    fn message(&mut self, request: Request) -> Option<Message> {
        match request {
            Request::Command(command) => {
                match &command {
                    Command::Look(Remembered { order: Order { atom, .. }, .. })
                    | Command::Start(Order { atom, .. })
                    | Command::Stop { atom, .. }
                    | Command::Remove { atom, .. } => self.link.as_mut()?.know(*atom),
                    Command::Sync { .. } | Command::CloseStdin { .. } => {}
                }
                return Some(Message::Command(command));
            }
            Request::Start(atom) => {
                let link = self.link.as_mut()?;
                let order = link.take_order(atom);
                link.know(atom);
                if order.is_none() {
                    tracing::debug!(%atom, "ordered to start what was not prepared");
                }
                return order.map(|order| Message::Command(Command::Start(order)));
            }
            Request::Prepare { id, order } => self.prepare(id, order),
            Request::Release(atom) => self.release(atom),
            // Not before what was asked before it: a log may only be there once its atom was looked for.
            Request::WatchLog { id, atom, lossless } => {
                return Some(Message::WatchLog { id, atom, lossless });
            }
            Request::NeedLog(atom, segment) => {
                let dir = self.context.dir(atom);
                self.link.as_mut()?.need(atom, segment, dir.path());
            }
            Request::UnwatchLog(atom) => {
                let dir = self.context.dir(atom);
                self.link.as_mut()?.unwatch(atom, dir.path());
            }
            Request::Forget(atom) => {
                self.context.dir(atom).remove();
                self.link.as_mut()?.observed(Observation::Removed { atom, at: time::now() });
            }
            Request::Close => {}
        }
        None
    }

    fn prepare(&mut self, id: u64, preparation: Preparation) {
        let Preparation { mut order, secrets, around, cgroups } = preparation;
        let atom = order.atom;
        if !secrets.is_empty() {
            let mut spec = (*order.spec).clone();
            for (key, value) in secrets {
                spec = spec.secret_env(key, value.0);
            }
            order.spec = spec.into();
        }
        let dir = self.context.dir(atom);
        let mut result = self.context.prepare(atom, &order.spec);
        if let Err(DriverError::Io { source, .. }) = &result
            && source.kind() == ErrorKind::AlreadyExists
        {
            // By a keeper that died.
            result = self.context.prepare_anew(atom, &order.spec);
        }
        let reserve = result.and_then(|()| {
            Reserve::new(self.atoms_at_hand()).map_err(|error| {
                self.context.release(atom);
                trouble(dir.path(), error)
            })
        });
        let Some(link) = self.link.as_mut() else { return };
        let (reserve, result) = match reserve {
            Ok(reserve) => (Some(reserve), Ok(())),
            Err(error) => (None, Err(error)),
        };
        crash::point("keeper/has-set-aside");
        link.answer_prepare(id, result, dir.path());
        if let Some(reserve) = reserve {
            link.prepared(order.clone());
            // While the child is forked and sets itself up, the host has its journal sync.
            // A host that has gone shows at the end of the turn.
            let _ = self.flush_link();
            drop(reserve);
            crash::point("keeper/has-answered");
            self.fork_prepared(&order, &around, cgroups);
            crash::point("keeper/has-forked");
        }
    }

    /// Begins to tell of a log.
    pub(in crate::driver::process) fn watch_log(&mut self, id: u64, atom: AtomId, lossless: bool) {
        let log = self.context.log(atom);
        if let Some(link) = self.link.as_mut() {
            link.watch(id, atom, lossless, log);
        }
    }

    fn release(&mut self, atom: AtomId) {
        if let Some(link) = self.link.as_mut() {
            link.take_order(atom);
        }
        if let Some(prepared) = self.context.take_prepared(atom) {
            self.abandon(prepared).remove();
            self.context.forget_log(atom);
        }
    }

    /// The host has gone: what it prepared and did not order to start will never run.
    fn disconnected(&mut self, stop: bool) {
        self.told.take();
        let Some(link) = self.link.as_mut() else { return };
        let prepared = link.disconnect(&self.context);
        for atom in prepared {
            if let Some(prepared) = self.context.take_prepared(atom) {
                self.abandon(prepared).remove_fifos();
            }
            self.context.forget_log(atom);
        }
        if stop {
            tracing::info!("the host died, and its atoms are stopped as it wished");
            for (serial, grace) in self.running() {
                self.stop_watched(serial, StopCause::Requested, grace, false);
            }
        }
    }

    /// Reaps what has ended: leaders by their pidfds, and what their trees left to the keeper, the subreaper.
    pub(in crate::driver::process) fn reap_orphans(&mut self) {
        self.children.as_ref().map(ChildSignal::clear);
        while let Some(pid) = sys::ended_child() {
            match self.serial_of_pid(pid) {
                Some(serial) => {
                    self.leader_event(serial);
                    // Its tracer has to let go of it first; it is reaped when its pidfd says so.
                    if sys::ended_child() == Some(pid) {
                        break;
                    }
                }
                None => {
                    // What it has told is heard before its number is anybody's.
                    if let Some(serial) = self.serial_of_reaper(pid) {
                        self.reaper_event(serial);
                    }
                    sys::reap_child(pid);
                }
            }
        }
    }

    /// The end of a turn: what there is to tell is told, and nobody stays without a reason.
    pub(in crate::driver::process) fn end_turn(&mut self) {
        let Some(link) = self.link.as_mut() else { return };
        for observation in self.told.take() {
            match &observation {
                Observation::Exited { atom, .. }
                | Observation::StartFailed { atom, .. }
                | Observation::NeverStarted { atom, .. }
                | Observation::LostSight { atom, .. }
                | Observation::Removed { atom, .. } => link.forget(*atom),
                Observation::Started { .. }
                | Observation::StopBegan { .. }
                | Observation::Contradiction { .. }
                | Observation::Seen { .. }
                | Observation::Synced { .. } => {}
            }
            link.observed(observation);
        }
        if let Err(error) = self.flush_link() {
            tracing::debug!(%error, "a host has gone");
            let stop = self.link.as_ref().is_some_and(Link::stops);
            self.disconnected(stop);
        }
        if self.link.as_mut().is_some_and(|link| !link.is_connected()) && self.is_idle() {
            self.closing = true;
        }
    }

    /// Sends what is to be sent, as far as there is room for it.
    fn flush_link(&mut self) -> io::Result<()> {
        let awaits_room = self.link.as_mut().map_or(Ok(None), Link::flush)?;
        if let Some(awaits_room) = awaits_room {
            self.await_room(awaits_room);
        }
        Ok(())
    }

    fn await_room(&mut self, awaits: bool) {
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, awaits);
        let data = epoll::EventData::new_u64(CONNECTION);
        let Some(fd) = self.link.as_ref().and_then(Link::stream) else { return };
        if let Err(error) = epoll::modify(&self.epoll, fd, data, flags) {
            tracing::error!(%error, "cannot wait for a host to read");
        }
    }
}
