//! The host's side of the socket: what the engine calls goes to the keeper, and what it sees comes back.
//!
//! When the keeper dies another one is started. It knows nothing: everything that this host
//! still has to hear of is asked for again, from what was said and heard so far.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::conversation::{Conversation, Heard, Live, Reply, surroundings};
use super::launch::Launcher;
use super::wire::{Answer, Extent, Request, Trouble};
use crate::atom::{AtomId, AtomSpec};
use crate::crash;
use crate::driver::process::driver::spawn_thread;
use crate::driver::process::log::{Author, LogShared};
use crate::driver::{Command, DriverError, Observation, Observer, Order, Surroundings};
use crate::lifecycle::Reason;
use crate::{socket, time, trace};

/// Between two keepers that could not be started.
const PAUSE: Duration = Duration::from_millis(500);

/// The way to the keeper of one store.
#[derive(Debug)]
pub(in crate::driver::process) struct Client {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    launcher: Launcher,
    /// The store is a copy: what was started before is not ours.
    copied: bool,
    observer: Mutex<Option<Arc<Observer>>>,
    state: Mutex<Conversation>,
    answered: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("launcher", &self.launcher).finish_non_exhaustive()
    }
}

impl Client {
    /// Nothing is started yet.
    pub(in crate::driver::process) fn new(launcher: Launcher, copied: bool, cgroups: bool) -> Self {
        let atoms = launcher.atoms().to_owned();
        let shared = Shared {
            launcher,
            copied,
            observer: Mutex::default(),
            state: Mutex::new(Conversation { cgroups, atoms, ..Conversation::default() }),
            answered: Condvar::new(),
        };
        Self { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// From now on `observer` is told. A keeper that is there is connected to; none is started for it.
    pub(in crate::driver::process) fn start(&self, observer: Observer) -> Result<(), DriverError> {
        *self.shared.observer.lock() = Some(Arc::new(observer));
        if self.shared.launcher.has_keeper() {
            drop(self.connected(self.shared.state.lock())?);
        }
        Ok(())
    }

    /// The conversation, once there is or was a keeper at its other end.
    fn connected<'a>(
        &'a self,
        mut state: MutexGuard<'a, Conversation>,
    ) -> Result<MutexGuard<'a, Conversation>, DriverError> {
        loop {
            if state.closed {
                return Err(DriverError::Closed);
            }
            if state.generation > 0 {
                return Ok(state);
            }
            if !state.connecting {
                break;
            }
            self.shared.answered.wait(&mut state);
        }
        state.connecting = true;
        // That may take long: nobody who only has something to say waits for it.
        let stream = MutexGuard::unlocked(&mut state, || self.shared.launcher.connect());
        state.connecting = false;
        self.shared.answered.notify_all();
        let stream = stream?;
        crash::point("host/has-connected");
        if state.closed {
            return Err(DriverError::Closed);
        }
        self.shared.begin(&mut state, stream);
        let shared = Arc::clone(&self.shared);
        *self.thread.lock() = Some(spawn_thread(move || shared.hear())?);
        Ok(state)
    }

    /// Has an atom prepared, and waits until it is.
    pub(in crate::driver::process) fn prepare(
        &self,
        atom: AtomId,
        spec: &AtomSpec,
        around: Option<&Surroundings>,
    ) -> Result<(), DriverError> {
        let order = Order { atom, spec: Arc::new(spec.clone()) };
        let around = around.cloned().map_or_else(surroundings, Ok)?;
        let mut state = self.connected(self.shared.state.lock())?;
        let id = state.prepare(order, around);
        if self.shared.copied {
            state.ours.insert(atom);
        }
        state.questions.insert(id, None);
        self.shared.flush(&mut state);
        let error = match self.reply(state, id) {
            Ok(Reply::Prepared(Ok(()))) => return Ok(()),
            Ok(Reply::Prepared(Err(trouble))) => {
                self.shared.state.lock().live.remove(&atom);
                return Err(trouble.into_error());
            }
            Ok(Reply::Lost | Reply::Watching(_)) => self.shared.launcher.gone(),
            Err(error) => error,
        };
        // It may have been prepared all the same, or may be in a while.
        self.release(atom);
        Err(error)
    }

    fn reply(
        &self,
        mut state: MutexGuard<'_, Conversation>,
        id: u64,
    ) -> Result<Reply, DriverError> {
        let deadline = Instant::now().checked_add(self.shared.launcher.patience());
        loop {
            if let Some(Some(_)) = state.questions.get(&id)
                && let Some(Some(reply)) = state.questions.remove(&id)
            {
                return Ok(reply);
            }
            if state.closed {
                state.questions.remove(&id);
                return Err(DriverError::Closed);
            }
            match deadline {
                Some(deadline) => {
                    if self.shared.answered.wait_until(&mut state, deadline).timed_out()
                        && !matches!(state.questions.get(&id), Some(Some(_)))
                    {
                        state.questions.remove(&id);
                        return Err(self.shared.launcher.silent());
                    }
                }
                None => self.shared.answered.wait(&mut state),
            }
        }
    }

    /// Gives back what was prepared.
    pub(in crate::driver::process) fn release(&self, atom: AtomId) {
        let mut state = self.shared.state.lock();
        if state.live.remove(&atom).is_some() {
            state.say(&Request::Release(atom));
            self.shared.flush(&mut state);
        }
    }

    /// Passes a command on.
    pub(in crate::driver::process) fn send(&self, command: Command) -> Result<(), DriverError> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(DriverError::Closed);
        }
        if self.shared.copied
            && let Some(told) = state.of_a_copy(&command)
        {
            drop(state);
            for observation in told {
                self.shared.tell(observation);
            }
            return Ok(());
        }
        if state.generation == 0
            && let Command::Sync { token } = command
        {
            // Nobody was asked anything.
            drop(state);
            self.shared.tell(Observation::Synced { token });
            return Ok(());
        }
        let mut state = self.connected(state)?;
        state.command(command, self.shared.copied);
        self.shared.flush(&mut state);
        Ok(())
    }

    /// How far the log of an atom has come, now and from now on; `None` when nobody writes it.
    pub(in crate::driver::process) fn watch_log(
        &self,
        atom: AtomId,
        lossless: bool,
    ) -> Result<Option<Arc<LogShared>>, DriverError> {
        let mut state = self.shared.state.lock();
        if state.generation == 0 || state.closed {
            return Ok(None);
        }
        let log = state.logs.get(&atom).and_then(Weak::upgrade);
        let log = log.unwrap_or_else(|| {
            let author = Arc::clone(&self.shared) as Arc<dyn Author>;
            let log = LogShared::new(atom, author);
            state.logs.insert(atom, Arc::downgrade(&log));
            log
        });
        state.last_id += 1;
        let id = state.last_id;
        state.questions.insert(id, None);
        state.say(&Request::WatchLog { id, atom, lossless });
        self.shared.flush(&mut state);
        match self.reply(state, id)? {
            Reply::Watching(Some(_)) => Ok(Some(log)),
            Reply::Watching(None) => Ok(None),
            Reply::Lost | Reply::Prepared(_) => Err(self.shared.launcher.gone()),
        }
    }

    /// Says goodbye.
    pub(in crate::driver::process) fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.let_go_of_stdin();
        state.say(&Request::Close);
        self.shared.flush(&mut state);
        if let Some(stream) = &state.stream {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        for log in state.logs.drain().filter_map(|(_, log)| log.upgrade()).collect::<Vec<_>>() {
            log.close();
        }
        self.shared.answered.notify_all();
        drop(state);
        let thread = self.thread.lock().take();
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            tracing::error!(?panic, "the thread that hears the keeper panicked");
        }
    }
}

impl Shared {
    fn tell(&self, observation: Observation) {
        let observer = self.observer.lock().clone();
        if let Some(observer) = observer {
            observer(observation);
        }
    }

    /// Sends what is to be sent. A connection that has ended shows itself to the thread that reads.
    fn flush(&self, state: &mut Conversation) {
        let output = std::mem::take(&mut state.output);
        if let Some(stream) = &mut state.stream
            && let Err(error) = stream.write_all(&output)
        {
            tracing::warn!(%error, "cannot tell the keeper something");
            // A part of a frame may be on its way: nothing can follow it. Whoever hears begins anew.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Says all that the keeper at the other end of a new connection may not know.
    fn begin(&self, state: &mut Conversation, stream: UnixStream) {
        // One that is stopped takes nothing: then nobody waits for it for ever.
        let _ = stream.set_write_timeout(Some(self.launcher.patience()));
        state.stream = Some(stream);
        state.generation += 1;
        state.output.clear();
        state.say_everything_again(self.copied);
        self.answered.notify_all();
        self.flush(state);
    }

    /// Hears the keeper, and its successors.
    fn hear(&self) {
        loop {
            let stream = {
                let state = self.state.lock();
                if state.closed && state.stream.is_none() {
                    return;
                }
                state.stream.as_ref().map(UnixStream::try_clone)
            };
            match stream {
                Some(Ok(stream)) => self.converse(stream),
                Some(Err(error)) => {
                    tracing::error!(%error, "cannot hear the keeper");
                    let mut state = self.state.lock();
                    state.closed = true;
                    self.answered.notify_all();
                    return;
                }
                None => {
                    self.succeed();
                    continue;
                }
            }
            let mut state = self.state.lock();
            state.stream = None;
            if state.closed {
                return;
            }
            trace::keeper_died();
        }
    }

    /// Has the next keeper take the place of the one that died.
    fn succeed(&self) {
        let stream = self.launcher.connect();
        let mut state = self.state.lock();
        match stream {
            _ if state.closed => {}
            Ok(stream) => self.begin(&mut state, stream),
            Err(error) => {
                trace::keeper_missing(&error);
                state.lose();
                self.answered.notify_all();
                self.answered.wait_for(&mut state, PAUSE);
            }
        }
    }

    fn converse(&self, stream: UnixStream) {
        let mut stream = io::BufReader::with_capacity(64 << 10, stream);
        let mut buffer = Vec::new();
        loop {
            match socket::read(&mut stream, &mut buffer) {
                Ok(answer) => self.answer(answer),
                Err(error) => {
                    tracing::debug!(%error, "the keeper has gone");
                    return;
                }
            }
        }
    }

    fn answer(&self, answer: Answer) {
        match answer {
            Answer::Observed(observation) => {
                let heard = self.state.lock().heard(&observation);
                match heard {
                    Heard::News => self.tell(observation),
                    Heard::Known => {}
                    Heard::TryAgain => self.flush(&mut self.state.lock()),
                }
            }
            Answer::Prepared { id, result } => self.prepared(id, result),
            Answer::Watching { id, atom, extent } => {
                // Nobody writes it any more: it is complete as it is.
                self.log_grew(atom, extent);
                self.state.lock().answer(id, Reply::Watching(extent));
                self.answered.notify_all();
            }
            Answer::LogGrew(atom, extent) => self.log_grew(atom, Some(extent)),
        }
    }

    fn log_grew(&self, atom: AtomId, extent: Option<Extent>) {
        let mut state = self.state.lock();
        let log = state.logs.get(&atom).map(Weak::upgrade);
        if extent.is_none_or(|extent| extent.complete) {
            state.logs.remove(&atom);
        }
        match (log, extent) {
            (Some(Some(log)), extent) => {
                drop(state);
                match extent {
                    Some(extent) => log.advance(extent),
                    None => log.complete(),
                }
            }
            (Some(None), _) => {
                state.logs.remove(&atom);
                state.say(&Request::UnwatchLog(atom));
                self.flush(&mut state);
            }
            (None, _) => {}
        }
    }

    fn prepared(&self, id: u64, result: Result<(), Trouble>) {
        let mut state = self.state.lock();
        if state.questions.contains_key(&id) {
            state.answer(id, Reply::Prepared(result));
            self.answered.notify_all();
            return;
        }
        // Prepared anew after a keeper's death, or ordered without having been prepared.
        let Err(trouble) = result else { return };
        let is_it = |live: &Live| live.preparation.as_ref().is_some_and(|(of, _)| *of == id);
        let Some(atom) = state.live.iter().find(|(_, live)| is_it(live)).map(|(atom, _)| *atom)
        else {
            return;
        };
        let live = state.live.remove(&atom);
        drop(state);
        if live.is_some_and(|live| live.ordered) {
            let detail = trouble.into_error().to_string();
            let reason = Reason::ExecFailed;
            self.tell(Observation::StartFailed { atom, at: time::now(), reason, detail });
        }
    }
}

impl Author for Shared {
    fn resume(&self, _atom: AtomId) {}

    fn needed(&self, atom: AtomId, segment: Option<u64>) {
        let mut state = self.state.lock();
        state.say(&Request::NeedLog(atom, segment));
        self.flush(&mut state);
    }
}
