//! A driver without processes: a scripted world in memory, for tests of engines and of hosts.

mod act;
#[cfg(target_os = "linux")]
mod pipe;
mod world;

pub use act::Act;
pub use world::World;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Command, Driver, DriverError, Observation, Observer, Surroundings};
use crate::atom::{Atom, AtomId, AtomSpec};
use crate::log::{LogQuery, LogSource};
use world::Hand;

/// A driver whose programs are [`Act`]s in a [`World`] that outlives it, as processes outlive their host.
///
/// ```
/// use caesium::driver::memory::{Act, MemoryDriver, World};
/// use caesium::{Engine, JournaledEngine, Outcome};
///
/// let engine = JournaledEngine::in_memory(MemoryDriver::new(World::new()))?;
/// let atom = engine.create(Act::Exit(3).spec().into())?;
/// let atom = engine.wait(&atom.id().into())?;
/// assert_eq!((atom.result(), atom.exit_code()), (Some(Outcome::Failure), Some(3)));
/// # Ok::<(), caesium::Error>(())
/// ```
#[derive(Debug)]
pub struct MemoryDriver {
    world: World,
    inbox: Sender<Input>,
    worker: Mutex<Worker>,
}

#[derive(Debug)]
enum Worker {
    New(Receiver<Input>),
    Running(JoinHandle<()>),
    Closed,
}

/// What the driver's thread is told.
#[derive(Debug)]
pub(super) enum Input {
    Command(Command),
    /// The world changed: something may have ended, or starts go on.
    Look,
    Close,
}

impl MemoryDriver {
    /// A driver for what happens in `world`.
    pub fn new(world: World) -> Self {
        let (inbox, receiver) = channel();
        Self { world, inbox, worker: Mutex::new(Worker::New(receiver)) }
    }
}

impl Driver for MemoryDriver {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn start(&self, observer: Observer) -> Result<(), DriverError> {
        let mut worker = self.worker.lock();
        let receiver = match std::mem::replace(&mut *worker, Worker::Closed) {
            Worker::New(receiver) => receiver,
            Worker::Running(_) | Worker::Closed => return Err(DriverError::Closed),
        };
        self.world.attach(self.inbox.clone());
        let hand = Hand::new(self.world.clone());
        let thread = std::thread::Builder::new()
            .name("caesium-memory".into())
            .spawn(move || work(hand, &receiver, &observer))
            .map_err(|source| DriverError::Io { what: "start a thread".into(), source })?;
        *worker = Worker::Running(thread);
        Ok(())
    }

    fn prepare(
        &self,
        atom: AtomId,
        spec: &AtomSpec,
        _around: Option<&Surroundings>,
    ) -> Result<(), DriverError> {
        self.world.prepare(atom, spec)
    }

    fn release(&self, atom: AtomId) {
        self.world.remove(atom);
    }

    fn residue(&self) -> Result<Vec<AtomId>, DriverError> {
        Ok(self.world.residents())
    }

    fn send(&self, command: Command) -> Result<(), DriverError> {
        if let Command::CloseStdin { atom } = &command {
            self.world.close_stdin(*atom);
        }
        self.inbox.send(Input::Command(command)).map_err(|_| DriverError::Closed)
    }

    fn logs(&self, atom: &Atom, query: &LogQuery) -> Result<Box<dyn LogSource>, DriverError> {
        Ok(self.world.log(atom.id(), query.clone()))
    }

    #[cfg(target_os = "linux")]
    fn stdin(&self, atom: AtomId) -> Result<std::path::PathBuf, DriverError> {
        self.world.stdin(atom)
    }

    fn close(&self) {
        let worker = std::mem::replace(&mut *self.worker.lock(), Worker::Closed);
        if let Worker::Running(thread) = worker {
            // The thread has gone already when it panicked; either way it is over.
            let _ = self.inbox.send(Input::Close);
            let _ = thread.join();
        }
    }
}

impl Drop for MemoryDriver {
    fn drop(&mut self) {
        self.close();
    }
}

/// The driver's thread: one input after the other, and what is due in between.
fn work(mut hand: Hand, inbox: &Receiver<Input>, observer: &Observer) {
    loop {
        let input = match hand.next_due() {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let mut report = |observation: Observation| observer(observation);
        match input {
            Ok(Input::Command(command)) => hand.obey(command, &mut report),
            Ok(Input::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Input::Close) | Err(RecvTimeoutError::Disconnected) => return,
        }
        hand.carry_on(&mut report);
    }
}

/// Far enough to never come, near enough to add to an [`Instant`].
const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
