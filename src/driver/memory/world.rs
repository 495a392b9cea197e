//! The world in memory: what runs in it, and the hand of a driver in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Act, Input, NEVER};
use crate::atom::{AtomId, AtomSpec, Usage};
use crate::driver::{Command, DriverError, Handle, Observation, Order, Remembered, Sighting};
use crate::lifecycle::{Evidence, Reason, State, StopCause, WaitStatus};
use crate::log::{LogChunk, LogItem, LogNext, LogQuery, LogSource, Stream};
use crate::time::now;
use crate::wakers::{Wakers, wake};

/// Where the acts of a [`MemoryDriver`](super::MemoryDriver) take place. It outlives
/// drivers, so that a test can take the host away and come back. Clones are the same world.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    #[cfg(target_os = "linux")]
    pipes: super::pipe::Pipes,
    facts: Mutex<Facts>,
    printed: Condvar,
}

#[derive(Debug, Default)]
struct Facts {
    /// Readers of logs that do not block.
    readers: Wakers,
    boot: u64,
    last_pid: u32,
    places: HashMap<AtomId, Place>,
    starts_held: bool,
    room: Option<usize>,
    contradicted: Vec<AtomId>,
    driver: Option<Sender<Input>>,
}

/// What there is of one atom: set aside, and perhaps run.
#[derive(Debug, Default)]
struct Place {
    process: Option<Process>,
    #[cfg(target_os = "linux")]
    stdin: Option<super::pipe::Pipe>,
    output: Vec<LogChunk>,
}

#[derive(Debug, Clone)]
struct Process {
    pid: u32,
    boot: u64,
    act: Act,
    end: Option<WaitStatus>,
    /// Some driver has seen how it ended.
    reaped: bool,
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends what runs under an atom, as if by itself.
    pub fn end(&self, atom: AtomId, status: WaitStatus) {
        self.change(|facts| facts.end(atom, status));
    }

    /// From now on starts wait, until they are let go.
    pub fn hold_starts(&self, hold: bool) {
        self.change(|facts| facts.starts_held = hold);
    }

    /// From now on only so many more atoms can be set aside; `None`: any number.
    pub fn room_for(&self, atoms: Option<usize>) {
        self.change(|facts| facts.room = atoms);
    }

    /// The machine is switched off and on: everything that ran is gone, unseen.
    pub fn reboot(&self) {
        self.change(|facts| {
            facts.boot += 1;
            for place in facts.places.values_mut() {
                place.process = None;
                place.close_stdin();
            }
        });
    }

    /// Shows the driver what cannot be: another process under the atom's identity.
    pub fn contradict(&self, atom: AtomId) {
        self.change(|facts| facts.contradicted.push(atom));
    }

    /// The atoms under which something lives, in no order.
    pub fn living(&self) -> Vec<AtomId> {
        let facts = self.0.facts.lock();
        let lives =
            |place: &Place| place.process.as_ref().is_some_and(|process| process.end.is_none());
        facts.places.iter().filter(|(_, place)| lives(place)).map(|(id, _)| *id).collect()
    }

    /// How many atoms have something set aside for them.
    pub fn places(&self) -> usize {
        self.0.facts.lock().places.len()
    }

    pub(super) fn residents(&self) -> Vec<AtomId> {
        self.0.facts.lock().places.keys().copied().collect()
    }

    fn change<T>(&self, f: impl FnOnce(&mut Facts) -> T) -> T {
        let mut facts = self.0.facts.lock();
        let result = f(&mut facts);
        if let Some(driver) = &facts.driver {
            // A driver that has closed does not look any more.
            let _ = driver.send(Input::Look);
        }
        self.printed(facts);
        result
    }

    pub(super) fn attach(&self, driver: Sender<Input>) {
        self.0.facts.lock().driver = Some(driver);
    }

    pub(super) fn prepare(&self, atom: AtomId, spec: &AtomSpec) -> Result<(), DriverError> {
        let mut facts = self.0.facts.lock();
        if let Some(room) = &mut facts.room {
            *room = room.checked_sub(1).ok_or_else(|| DriverError::Exhausted {
                what: "room in the world".into(),
                hint: "let the test make some".into(),
                source: None,
            })?;
        }
        let place = Place::default();
        #[cfg(target_os = "linux")]
        let place = match spec.get_stdin_pipe() {
            true => Place { stdin: Some(self.0.pipes.make(atom)?), ..place },
            false => place,
        };
        #[cfg(not(target_os = "linux"))]
        let _ = spec;
        facts.places.insert(atom, place);
        Ok(())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn stdin(&self, atom: AtomId) -> Result<std::path::PathBuf, DriverError> {
        self.0.pipes.path(atom)
    }

    pub(super) fn close_stdin(&self, atom: AtomId) {
        if let Some(place) = self.0.facts.lock().places.get_mut(&atom) {
            place.close_stdin();
        }
    }

    /// An atom prints something by itself.
    #[cfg(target_os = "linux")]
    pub(super) fn print(&self, atom: AtomId, bytes: &[u8]) {
        self.change(|facts| {
            if let Some(place) = facts.places.get_mut(&atom) {
                place.print(Stream::Stdout, bytes);
            }
        });
    }

    pub(super) fn remove(&self, atom: AtomId) {
        let mut facts = self.0.facts.lock();
        facts.places.remove(&atom);
        self.printed(facts);
    }

    /// Something may have been printed, or ended.
    fn printed(&self, mut facts: MutexGuard<'_, Facts>) {
        let woken = facts.readers.take();
        drop(facts);
        self.0.printed.notify_all();
        wake(woken);
    }

    pub(super) fn log(&self, atom: AtomId, query: LogQuery) -> Box<dyn LogSource> {
        Box::new(Reader { world: self.clone(), atom, query, next: 0, key: None })
    }
}

impl Facts {
    fn end(&mut self, atom: AtomId, status: WaitStatus) {
        if let Some(process) = self.places.get_mut(&atom).and_then(|place| place.process.as_mut()) {
            process.end.get_or_insert(status);
        }
    }

    fn process(&self, atom: AtomId) -> Option<&Process> {
        self.places.get(&atom)?.process.as_ref()
    }
}

/// What a driver has in hand: the atoms it watches and what is due. It forgets; the world does not.
#[derive(Debug)]
pub(super) struct Hand {
    world: World,
    watched: HashMap<AtomId, Watch>,
    held: Vec<Order>,
    /// Stopped before their start was carried out.
    withdrawn: Vec<AtomId>,
}

#[derive(Debug)]
struct Watch {
    deadline: Option<Instant>,
    grace: Duration,
    stop: Option<Ladder>,
}

#[derive(Debug, Clone, Copy)]
struct Ladder {
    kill_at: Instant,
    evidence: Evidence,
}

impl Hand {
    pub(super) fn new(world: World) -> Self {
        Self { world, watched: HashMap::new(), held: Vec::new(), withdrawn: Vec::new() }
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |watch: &Watch| match watch.stop {
            Some(ladder) if ladder.evidence.kill_sent => None,
            Some(ladder) => Some(ladder.kill_at),
            None => watch.deadline,
        };
        self.watched.values().filter_map(due).min()
    }

    pub(super) fn obey(&mut self, command: Command, report: &mut dyn FnMut(Observation)) {
        match command {
            Command::Start(order) => self.held.push(order),
            Command::Stop { atom, grace, force } => {
                self.stop(atom, grace, force, StopCause::Requested)
            }
            Command::Look(remembered) => {
                let atom = remembered.order.atom;
                let sighting = self.look(remembered, report);
                report(Observation::Seen { atom, sighting });
            }
            Command::Remove { atom, handle: _ } => {
                self.watched.remove(&atom);
                self.world.remove(atom);
                report(Observation::Removed { atom, at: now() });
            }
            // Was done at once.
            Command::CloseStdin { atom: _ } => {}
            Command::Sync { token } => {
                self.carry_on(report);
                report(Observation::Synced { token });
            }
        }
    }

    /// Does what is due, and tells what has happened.
    pub(super) fn carry_on(&mut self, report: &mut dyn FnMut(Observation)) {
        self.start_held(report);
        self.advance(report);
        let world = self.world.clone();
        let mut facts = world.0.facts.lock();
        for atom in std::mem::take(&mut facts.contradicted) {
            let (reason, detail) = (Reason::IdentityMismatch, "as the test wanted it".into());
            report(Observation::Contradiction { atom, at: now(), reason, detail });
            self.watched.remove(&atom);
        }
        self.watched.retain(|atom, watch| {
            let place = facts.places.get_mut(atom);
            let Some(place) = place.filter(|place| place.process.is_some()) else {
                let detail = "the world was restarted".into();
                report(Observation::LostSight {
                    atom: *atom,
                    at: now(),
                    reason: Reason::ExitUnobserved,
                    detail,
                });
                return false;
            };
            let process = place.process.as_mut();
            let Some((process, status)) = process.and_then(|p| p.end.map(|end| (p, end))) else {
                return true;
            };
            process.reaped = true;
            place.close_stdin();
            let evidence = watch.stop.map_or_else(Evidence::default, |ladder| ladder.evidence);
            let usage = Some(Usage::default());
            let (at, left_behind) = (now(), None);
            report(Observation::Exited { atom: *atom, at, status, evidence, usage, left_behind });
            false
        });
        world.printed(facts);
    }

    fn start_held(&mut self, report: &mut dyn FnMut(Observation)) {
        let held = self.world.0.facts.lock().starts_held;
        for order in std::mem::take(&mut self.held) {
            if let Some(position) = self.withdrawn.iter().position(|atom| *atom == order.atom) {
                self.withdrawn.swap_remove(position);
                let detail = "stopped before it was started".into();
                report(Observation::NeverStarted { atom: order.atom, at: now(), detail });
            } else if held {
                self.held.push(order);
            } else {
                self.start(&order, report);
            }
        }
    }

    fn start(&mut self, order: &Order, report: &mut dyn FnMut(Observation)) {
        let (atom, at) = (order.atom, now());
        let act = match Act::read(&order.spec) {
            Some(Act::FailToStart(reason)) => {
                let detail = "as it was told to".into();
                return report(Observation::StartFailed { atom, at, reason, detail });
            }
            None => {
                let detail = format!("{}: no such act", order.spec.get_program().display());
                let reason = Reason::ExecNotFound;
                return report(Observation::StartFailed { atom, at, reason, detail });
            }
            Some(act) => act,
        };
        let mut facts = self.world.0.facts.lock();
        facts.last_pid += 1;
        let (pid, boot) = (facts.last_pid, facts.boot);
        let place = facts.places.entry(atom).or_default();
        if let Act::Print { out, err } = &act {
            place.print(Stream::Stdout, out.as_bytes());
            place.print(Stream::Stderr, err.as_bytes());
        }
        #[cfg(target_os = "linux")]
        if let (Act::Cat, Some(pipe)) = (&act, &mut place.stdin) {
            pipe.cat(self.world.clone(), atom);
        }
        let end = act.own_end();
        place.process = Some(Process { pid, boot, act, end, reaped: false });
        drop(facts);
        let deadline =
            order.spec.get_timeout().and_then(|timeout| Instant::now().checked_add(timeout));
        self.watched.insert(atom, Watch { deadline, grace: order.spec.get_grace(), stop: None });
        report(Observation::Started { atom, at, pid: Some(pid), handle: handle(boot, pid) });
    }

    fn stop(&mut self, atom: AtomId, grace: Duration, force: bool, cause: StopCause) {
        let Some(watch) = self.watched.get_mut(&atom) else {
            if self.held.iter().any(|order| order.atom == atom)
                || self.world.0.facts.lock().process(atom).is_none()
            {
                self.withdrawn.push(atom);
            }
            return;
        };
        let now = Instant::now();
        let kill_at = if force { now } else { now + grace.min(NEVER) };
        let ladder = watch.stop.get_or_insert(Ladder { kill_at, evidence: Evidence::default() });
        ladder.kill_at = ladder.kill_at.min(kill_at);
        if ladder.evidence.cause != Some(StopCause::Requested) {
            ladder.evidence.cause = Some(cause);
        }
        let mut facts = self.world.0.facts.lock();
        let Some(process) = facts.process(atom).filter(|process| process.end.is_none()) else {
            return;
        };
        if !force && !ladder.evidence.term_reached {
            ladder.evidence.term_reached = true;
            if let Some(status) = process.act.end_on_term() {
                facts.end(atom, status);
            }
        }
    }

    /// Deadlines that have passed, and graces that are over.
    fn advance(&mut self, report: &mut dyn FnMut(Observation)) {
        let now = Instant::now();
        let late: Vec<(AtomId, Duration)> = self
            .watched
            .iter()
            .filter(|(_, watch)| {
                watch.stop.is_none() && watch.deadline.is_some_and(|deadline| deadline <= now)
            })
            .map(|(atom, watch)| (*atom, watch.grace))
            .collect();
        for (atom, grace) in late {
            if self.world.0.facts.lock().process(atom).is_none_or(|process| process.end.is_some()) {
                continue;
            }
            let (at, cause) = (crate::time::now(), StopCause::Deadline);
            report(Observation::StopBegan { atom, at, cause, grace });
            self.stop(atom, grace, false, cause);
        }
        for (atom, watch) in &mut self.watched {
            let Some(ladder) = &mut watch.stop else { continue };
            let mut facts = self.world.0.facts.lock();
            let lives = facts.process(*atom).is_some_and(|process| process.end.is_none());
            if lives && ladder.kill_at <= now && !ladder.evidence.kill_sent {
                ladder.evidence.kill_sent = true;
                facts.end(*atom, WaitStatus::Signaled { signal: 9, core_dumped: false });
            }
        }
    }

    fn look(&mut self, remembered: Remembered, report: &mut dyn FnMut(Observation)) -> Sighting {
        let (atom, at) = (remembered.order.atom, now());
        let facts = self.world.0.facts.lock();
        let boot = facts.boot;
        let process = facts.process(atom).cloned();
        drop(facts);
        let lives = process.as_ref().is_some_and(|process| process.end.is_none());
        match remembered.state {
            State::Stopped | State::Deleting | State::Deleted | State::Invalid => {
                if !lives {
                    return Sighting::AsRemembered;
                }
                let (reason, detail) =
                    (Reason::UnexpectedProcess, "it lives, and should not".into());
                report(Observation::Contradiction { atom, at, reason, detail });
                return Sighting::Changed;
            }
            State::Created | State::Running | State::Stopping => {}
        }
        let Some(process) = process else {
            report(match &remembered.handle {
                None => Observation::NeverStarted {
                    atom,
                    at,
                    detail: "its host died before the start".into(),
                },
                Some(known) if boot_of(known) == Some(boot) => Observation::LostSight {
                    atom,
                    at,
                    reason: Reason::ExitUnobserved,
                    detail: "it is gone".into(),
                },
                Some(_) => {
                    let reason = Reason::HostRebooted;
                    Observation::LostSight {
                        atom,
                        at,
                        reason,
                        detail: "it ran before the reboot".into(),
                    }
                }
            });
            return Sighting::Changed;
        };
        let deadline = remembered.order.spec.get_timeout().map(|timeout| {
            let ran = remembered
                .started_at
                .map_or(Duration::ZERO, |started| at.saturating_since(started));
            Instant::now() + timeout.saturating_sub(ran).min(NEVER)
        });
        let grace = remembered.order.spec.get_grace();
        self.watched.insert(atom, Watch { deadline, grace, stop: None });
        let found = remembered.handle.is_none();
        if found {
            let (pid, handle) = (Some(process.pid), handle(process.boot, process.pid));
            report(Observation::Started { atom, at, pid, handle });
        }
        if let Some(stop) = remembered.stop {
            self.stop(atom, stop.kill_at.saturating_since(at), stop.force, stop.cause);
        }
        if process.end.is_some() && !process.reaped {
            self.carry_on(report);
            return Sighting::Changed;
        }
        if process.reaped {
            self.watched.remove(&atom);
            let (reason, detail) = (Reason::ExitUnobserved, "another host saw it end".into());
            report(Observation::LostSight { atom, at, reason, detail });
            return Sighting::Changed;
        }
        if found { Sighting::Changed } else { Sighting::Adopted }
    }
}

fn handle(boot: u64, pid: u32) -> Handle {
    let mut bytes = boot.to_be_bytes().to_vec();
    bytes.extend(pid.to_be_bytes());
    bytes.into()
}

fn boot_of(handle: &Handle) -> Option<u64> {
    Some(u64::from_be_bytes(handle.get(..8)?.try_into().ok()?))
}

impl Place {
    /// Nobody reads or writes it any more; or nobody writes it, while it is read.
    fn close_stdin(&mut self) {
        #[cfg(target_os = "linux")]
        drop(self.stdin.take());
    }

    fn print(&mut self, stream: Stream, bytes: &[u8]) {
        if !bytes.is_empty() {
            let offset =
                self.output.last().map_or(0, |chunk| chunk.offset + chunk.bytes.len() as u64);
            self.output.push(LogChunk { at: now(), stream, offset, bytes: bytes.to_vec() });
        }
    }
}

#[derive(Debug)]
struct Reader {
    world: World,
    atom: AtomId,
    query: LogQuery,
    next: usize,
    key: Option<u64>,
}

impl Reader {
    /// What there is now; `None` when more may come.
    fn read(&mut self, facts: &Facts) -> Option<LogNext> {
        let Some(place) = facts.places.get(&self.atom) else { return Some(LogNext::End) };
        while let Some(chunk) = place.output.get(self.next) {
            self.next += 1;
            if let Some(chunk) = wanted(&self.query, chunk) {
                return Some(LogNext::Item(LogItem::Chunk(chunk)));
            }
        }
        let goes_on = place.process.as_ref().is_none_or(|process| process.end.is_none());
        (!(self.query.follow && goes_on)).then_some(LogNext::End)
    }
}

impl LogSource for Reader {
    fn next(&mut self, deadline: Option<Instant>) -> Result<LogNext, DriverError> {
        let world = self.world.clone();
        let mut facts = world.0.facts.lock();
        loop {
            if let Some(next) = self.read(&facts) {
                return Ok(next);
            }
            match deadline {
                None => world.0.printed.wait(&mut facts),
                Some(deadline) => {
                    if world.0.printed.wait_until(&mut facts, deadline).timed_out() {
                        return Ok(LogNext::TimedOut);
                    }
                }
            }
        }
    }

    fn has_more(&mut self, waker: &Waker) -> bool {
        let world = self.world.clone();
        let mut facts = world.0.facts.lock();
        let before = self.next;
        let more = self.read(&facts).is_some();
        self.next = before;
        if !more {
            facts.readers.add(&mut self.key, waker);
        }
        more
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.world.0.facts.lock().readers.remove(key);
        }
    }
}

/// What of a chunk is wanted.
fn wanted(query: &LogQuery, chunk: &LogChunk) -> Option<LogChunk> {
    let fits = query.stream.is_none_or(|stream| stream == chunk.stream)
        && query.since.is_none_or(|since| since <= chunk.at);
    let unwanted = usize::try_from(query.from.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
    let bytes = chunk.bytes.get(unwanted..).filter(|bytes| fits && !bytes.is_empty())?.to_vec();
    Some(LogChunk { offset: chunk.offset + unwanted as u64, bytes, ..*chunk })
}
