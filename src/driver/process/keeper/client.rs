//! The host's side of the socket: what the engine calls goes to the keeper, and what it sees comes back.
//!
//! When the keeper dies another one is started. It knows nothing: everything that this host
//! still has to hear of is asked for again, from what was said and heard so far.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use std::os::unix::net::UnixStream;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::launch::Launcher;
use super::wire::{self, Answer, Extent, Preparation, Request, Trouble};
use crate::atom::{AtomId, AtomSpec, Bytes};
use crate::driver::process::driver::spawn_thread;
use crate::driver::process::fork::Surroundings;
use crate::driver::process::log::{Author, LogShared};
use crate::driver::{Command, DriverError, Observation, Observer, Order, Remembered, Sighting};
use crate::lifecycle::{Reason, State, Stop, StopCause};
use crate::time;

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

/// Where the two are in their conversation.
#[derive(Debug, Default)]
struct Conversation {
    /// Counts the connections.
    generation: u64,
    stream: Option<UnixStream>,
    /// Frames on their way out.
    output: Vec<u8>,
    closed: bool,
    last_id: u64,
    /// Questions that somebody waits for, with the answers that have come.
    questions: HashMap<u64, Option<Reply>>,
    live: HashMap<AtomId, Live>,
    /// Commands that are answered once, and were not yet.
    unanswered: Vec<Command>,
    /// Atoms that were asked for again for our own sake: the answer is nobody else's business.
    repeated: HashSet<AtomId>,
    logs: HashMap<AtomId, Weak<LogShared>>,
    /// In a copied store: the atoms that were prepared in this life of the host. The others' processes
    /// belong to the original.
    ours: HashSet<AtomId>,
}

#[derive(Debug)]
enum Reply {
    Prepared(Result<(), Trouble>),
    Watching(Option<Extent>),
    /// The keeper died before it answered.
    Lost,
}

/// What this host knows of an atom that it has to hear more of.
#[derive(Debug)]
struct Live {
    remembered: Remembered,
    /// With what it is started, until it is known to have been.
    preparation: Option<(u64, Preparation)>,
    /// It was ordered to start, or was there before us.
    ordered: bool,
}

impl Client {
    /// Nothing is started yet.
    pub(in crate::driver::process) fn new(launcher: Launcher, copied: bool) -> Self {
        let shared = Shared {
            launcher,
            copied,
            observer: Mutex::default(),
            state: Mutex::default(),
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

    /// The conversation, with a keeper at its other end.
    fn connected<'a>(
        &'a self,
        mut state: MutexGuard<'a, Conversation>,
    ) -> Result<MutexGuard<'a, Conversation>, DriverError> {
        if state.closed {
            return Err(DriverError::Closed);
        }
        if state.stream.is_none() && state.generation == 0 {
            self.shared.reconnect(&mut state)?;
            let shared = Arc::clone(&self.shared);
            let thread = spawn_thread(move || shared.hear())?;
            *self.thread.lock() = Some(thread);
        }
        Ok(state)
    }

    /// Has an atom prepared, and waits until it is.
    pub(in crate::driver::process) fn prepare(
        &self,
        atom: AtomId,
        spec: &AtomSpec,
    ) -> Result<(), DriverError> {
        let order = Order { atom, spec: Arc::new(spec.clone()) };
        let around = surroundings()?;
        let mut state = self.connected(self.shared.state.lock())?;
        let id = state.prepare(order, around);
        if self.shared.copied {
            state.ours.insert(atom);
        }
        state.questions.insert(id, None);
        self.shared.flush(&mut state);
        match self.reply(state, id)? {
            Reply::Prepared(Ok(())) => Ok(()),
            Reply::Prepared(Err(trouble)) => {
                self.shared.state.lock().live.remove(&atom);
                Err(trouble.into_error())
            }
            Reply::Lost | Reply::Watching(_) => Err(self.gone()),
        }
    }

    fn reply(
        &self,
        mut state: MutexGuard<'_, Conversation>,
        id: u64,
    ) -> Result<Reply, DriverError> {
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
            self.shared.answered.wait(&mut state);
        }
    }

    fn gone(&self) -> DriverError {
        DriverError::Io {
            what: "the keeper died, and no other one could be started".to_owned(),
            source: io::ErrorKind::BrokenPipe.into(),
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
            Reply::Lost | Reply::Prepared(_) => Err(self.gone()),
        }
    }

    /// Says goodbye.
    pub(in crate::driver::process) fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
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
            tracing::debug!(%error, "cannot tell the keeper");
        }
    }

    /// Connects, and says all that the keeper at the other end may not know.
    fn reconnect(&self, state: &mut Conversation) -> Result<(), DriverError> {
        state.stream = None;
        let stream = self.launcher.connect()?;
        state.stream = Some(stream);
        state.generation += 1;
        state.output.clear();
        state.say_everything_again(self.copied);
        self.flush(state);
        Ok(())
    }

    /// Hears the keeper, and its successors.
    fn hear(&self) {
        loop {
            let stream = {
                let mut state = self.state.lock();
                let stream = state.stream.as_ref().map(UnixStream::try_clone);
                match stream {
                    Some(Ok(stream)) => stream,
                    Some(Err(error)) => {
                        tracing::error!(%error, "cannot hear the keeper");
                        state.closed = true;
                        self.answered.notify_all();
                        return;
                    }
                    None if state.closed => return,
                    None => match self.reconnect(&mut state) {
                        Ok(()) => continue,
                        Err(error) => {
                            tracing::error!(%error, "the keeper died, and no other one can be started; the atoms live on");
                            state.lose();
                            self.answered.notify_all();
                            self.answered.wait_for(&mut state, PAUSE);
                            continue;
                        }
                    },
                }
            };
            self.converse(stream);
            let mut state = self.state.lock();
            state.stream = None;
            if state.closed {
                return;
            }
            tracing::warn!("the keeper died; another one is started");
        }
    }

    fn converse(&self, stream: UnixStream) {
        let mut stream = io::BufReader::with_capacity(64 << 10, stream);
        let mut buffer = Vec::new();
        loop {
            match wire::read(&mut stream, &mut buffer) {
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

/// What is to be done with what was heard.
enum Heard {
    News,
    Known,
    /// There is something to be said to the keeper.
    TryAgain,
}

impl Conversation {
    fn say(&mut self, request: &Request) {
        if self.stream.is_some()
            && let Err(error) = wire::put(&mut self.output, request)
        {
            tracing::error!(%error, "something cannot be told to the keeper");
        }
    }

    fn answer(&mut self, id: u64, reply: Reply) {
        if let Some(question) = self.questions.get_mut(&id) {
            *question = Some(reply);
        }
    }

    /// Nobody will answer.
    fn lose(&mut self) {
        for question in self.questions.values_mut().filter(|question| question.is_none()) {
            *question = Some(Reply::Lost);
        }
    }

    fn prepare(&mut self, order: Order, around: Surroundings) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let atom = order.atom;
        let secrets = order
            .spec
            .get_secrets()
            .map(|(key, value)| (key.to_owned(), Bytes(value.to_owned())))
            .collect();
        let preparation = Preparation { order: order.clone(), secrets, around };
        self.say(&Request::Prepare { id, order: preparation.clone() });
        let remembered =
            Remembered { order, state: State::Created, handle: None, started_at: None, stop: None };
        let live = Live { remembered, preparation: Some((id, preparation)), ordered: false };
        self.live.insert(atom, live);
        id
    }

    fn command(&mut self, command: Command, copied: bool) {
        match &command {
            Command::Start(order) => {
                let atom = order.atom;
                if !self.live.contains_key(&atom) {
                    // A retry is not prepared by its host; without surroundings it fails to start and says why.
                    match surroundings() {
                        Ok(around) => self.prepare(order.clone(), around),
                        Err(error) => return tracing::error!(%atom, %error, "cannot start an atom"),
                    };
                }
                if let Some(live) = self.live.get_mut(&atom) {
                    live.ordered = true;
                    // The engine's own copy of the spec.
                    live.remembered.order = order.clone();
                }
                return self.say(&Request::Start(atom));
            }
            Command::Stop { atom, grace, force } => {
                if let Some(live) = self.live.get_mut(atom) {
                    let asked_at = time::now();
                    let kill_at = asked_at.saturating_add(*grace);
                    let cause = StopCause::Requested;
                    let asked = Stop { asked_at, kill_at, force: *force, cause };
                    let stop = live.remembered.stop.get_or_insert(asked);
                    stop.cause = StopCause::Requested;
                    stop.kill_at = stop.kill_at.min(kill_at);
                    stop.force |= *force;
                }
            }
            Command::Look(remembered) => {
                let live =
                    Live { remembered: remembered.clone(), preparation: None, ordered: true };
                self.live.insert(remembered.order.atom, live);
                self.unanswered.push(command.clone());
            }
            Command::Remove { atom, .. } => {
                self.unanswered.push(command.clone());
                if copied && !self.ours.contains(atom) {
                    return self.say(&Request::Forget(*atom));
                }
            }
            Command::Sync { .. } => self.unanswered.push(command.clone()),
        }
        self.say(&Request::Command(command));
    }

    /// In a copied store: what is told of an atom that the original started, without asking anybody.
    fn of_a_copy(&mut self, command: &Command) -> Option<Vec<Observation>> {
        match command {
            Command::Look(remembered) => {
                let atom = remembered.order.atom;
                Some(match remembered.state {
                    State::Created | State::Running | State::Stopping => vec![
                        Observation::LostSight {
                            atom,
                            at: time::now(),
                            reason: Reason::StoreCopied,
                            detail: "the store is a copy: what the original started is not ours"
                                .to_owned(),
                        },
                        Observation::Seen { atom, sighting: Sighting::Changed },
                    ],
                    State::Stopped | State::Invalid | State::Deleting | State::Deleted => {
                        vec![Observation::Seen { atom, sighting: Sighting::AsRemembered }]
                    }
                })
            }
            Command::Start(_)
            | Command::Stop { .. }
            | Command::Remove { .. }
            | Command::Sync { .. } => None,
        }
    }

    /// Takes note of what happened.
    fn heard(&mut self, observation: &Observation) -> Heard {
        match observation {
            Observation::Started { atom, at, handle, .. } => {
                if let Some(live) = self.live.get_mut(atom) {
                    live.preparation = None;
                    live.remembered.state = State::Running;
                    live.remembered.handle = Some(Arc::clone(handle));
                    live.remembered.started_at = Some(*at);
                }
            }
            Observation::NeverStarted { atom, .. } => {
                // A keeper died before it could start it: the next one can.
                if let Some(Live {
                    remembered, preparation: Some((_, preparation)), ordered, ..
                }) = self.live.get(atom)
                    && remembered.stop.is_none()
                    && *ordered
                    && self.repeated.contains(atom)
                {
                    let order = Order {
                        atom: *atom,
                        spec: with_secrets(&preparation.order, &preparation.secrets),
                    };
                    let around = preparation.around.clone();
                    self.prepare(order.clone(), around);
                    self.command(Command::Start(order), false);
                    return Heard::TryAgain;
                }
                self.live.remove(atom);
            }
            Observation::StartFailed { atom, .. }
            | Observation::Exited { atom, .. }
            | Observation::LostSight { atom, .. } => {
                self.live.remove(atom);
            }
            Observation::StopBegan { atom, at, cause, grace } => {
                if let Some(live) = self.live.get_mut(atom) {
                    let kill_at = at.saturating_add(*grace);
                    let began = Stop { asked_at: *at, kill_at, force: false, cause: *cause };
                    live.remembered.stop.get_or_insert(began);
                }
            }
            Observation::Contradiction { .. } => {}
            Observation::Seen { atom, sighting } => {
                if *sighting == Sighting::AsRemembered {
                    self.live.remove(atom);
                }
                if self.repeated.remove(atom) {
                    return Heard::Known;
                }
                self.unanswered.retain(|c| !matches!(c, Command::Look(r) if r.order.atom == *atom));
            }
            Observation::Removed { atom, .. } => {
                self.live.remove(atom);
                self.unanswered
                    .retain(|c| !matches!(c, Command::Remove { atom: of, .. } if of == atom));
            }
            Observation::Synced { token } => {
                self.unanswered
                    .retain(|c| !matches!(c, Command::Sync { token: of } if of == token));
            }
        }
        Heard::News
    }

    /// To a keeper that was just started, or that another host had.
    fn say_everything_again(&mut self, copied: bool) {
        self.repeated.clear();
        let mut requests = Vec::new();
        let mut asked_again = HashSet::new();
        let asked: HashSet<AtomId> = self
            .unanswered
            .iter()
            .filter_map(|command| match command {
                Command::Look(remembered) => Some(remembered.order.atom),
                Command::Start(_)
                | Command::Stop { .. }
                | Command::Remove { .. }
                | Command::Sync { .. } => None,
            })
            .collect();
        for (atom, live) in &self.live {
            if !live.ordered {
                if let Some((id, preparation)) = &live.preparation {
                    asked_again.insert(*id);
                    requests.push(Request::Prepare { id: *id, order: preparation.clone() });
                }
            } else if !asked.contains(atom) {
                self.repeated.insert(*atom);
                requests.push(Request::Command(Command::Look(live.remembered.clone())));
            }
        }
        requests.extend(self.unanswered.iter().map(|command| match command {
            Command::Remove { atom, .. } if copied && !self.ours.contains(atom) => {
                Request::Forget(*atom)
            }
            Command::Start(_)
            | Command::Stop { .. }
            | Command::Look(_)
            | Command::Remove { .. }
            | Command::Sync { .. } => Request::Command(command.clone()),
        }));
        for (atom, log) in &self.logs {
            if let Some(log) = log.upgrade() {
                // An answer to nobody's question.
                let lossless = log.has_lossless();
                requests.push(Request::WatchLog { id: 0, atom: *atom, lossless });
            }
        }
        for request in &requests {
            self.say(request);
        }
        // Those who wait for something else are told that it will not come.
        for (id, question) in &mut self.questions {
            if question.is_none() && !asked_again.contains(id) {
                *question = Some(Reply::Lost);
            }
        }
    }
}

/// What this host gives to its atoms.
fn surroundings() -> Result<Surroundings, DriverError> {
    Surroundings::here().map_err(|source| DriverError::Io {
        what: "cannot tell the host's working directory (name one for the atom)".to_owned(),
        source,
    })
}

fn with_secrets(order: &Order, secrets: &[(String, Bytes)]) -> Arc<AtomSpec> {
    let mut spec = (*order.spec).clone();
    for (key, value) in secrets {
        spec = spec.secret_env(key.clone(), value.0.clone());
    }
    Arc::new(spec)
}
