//! The monitor: one thread, one epoll, all atoms.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::clearing::Clearing;
use super::context::Context;
use super::endings::Untidy;
use super::keeper::{Guards, Link};
use super::log::{HEADER, MAX_PAYLOAD, Turn};
use super::mailbox::Message;
use super::marker::Marker;
use super::sys::ChildSignal;
use super::timers::{Timer, TimerKind, Timers};
use super::tree::Cgroups;
use super::watched::{Phase, Watched};
use crate::atom::AtomId;
use crate::crash;
use crate::driver::{Command, Observation, Observer};
use crate::log::Stream;

/// The event of the mailbox. Atoms have serial numbers from 1.
const MAILBOX: u64 = 0;

/// Of the socket that hosts connect to.
pub(super) const LISTENER: u64 = 1;

/// Of the host that is connected.
pub(super) const CONNECTION: u64 = 2;

/// A child of the keeper has ended.
pub(super) const CHILD: u64 = 3;

/// Watches atoms. Knows nothing of engines and journals: commands in, observations out.
pub(super) struct Monitor {
    pub(super) context: Arc<Context>,
    /// Who is told what happens; in the keeper nobody directly.
    observer: Option<Observer>,
    /// In the keeper: the way to the host.
    pub(super) link: Option<Link>,
    /// In the keeper: what happened in this turn.
    pub(super) told: RefCell<Vec<Observation>>,
    pub(super) epoll: OwnedFd,
    /// In the keeper: where cgroups can be made, once that was asked.
    pub(super) cgroups: Option<Cgroups>,
    /// In the keeper: what the store is called among cgroups.
    pub(super) store_name: String,
    /// In the keeper: the limits of descriptors that atoms get, when they are others than our own.
    pub(super) soft_nofile: Option<(u64, u64)>,
    /// The signals that this process ignores; found out when it is first asked for.
    pub(super) ignored: Option<u64>,
    /// In the keeper: whether what no cgroup contains can have a reaper, once that was asked.
    pub(super) can_reap: Option<bool>,
    /// In the keeper: who has the endings that came between two keepers.
    pub(super) guards: Option<Guards>,
    /// In the keeper: says that a child has ended.
    pub(super) children: Option<ChildSignal>,
    atoms: HashMap<u64, Watched>,
    /// Cgroups that are being emptied; their serial numbers are of the same row as the atoms'.
    pub(super) clearing: HashMap<u64, Clearing>,
    by_id: HashMap<AtomId, u64>,
    last_serial: u64,
    timers: Timers,
    /// Atoms that were stopped before the order to start them came.
    pub(super) withdrawn: HashSet<AtomId>,
    pub(super) buffer: Vec<u8>,
    /// What of this turn's endings is to be put away.
    pub(super) untidy: Vec<Untidy>,
    pub(super) closing: bool,
}

/// What an event is about: the low three bits of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Its leader has ended; or, of a cgroup that is being emptied, that somebody has left it.
    Pidfd,
    Output(Stream),
    /// Its program was executed, or not.
    Execution,
    /// Its reaper has something to tell.
    Reaper,
}

impl Source {
    const fn bits(self) -> u64 {
        match self {
            Self::Pidfd => 0,
            Self::Output(Stream::Stdout) => 1,
            Self::Output(Stream::Stderr) => 2,
            Self::Execution => 3,
            Self::Reaper => 4,
        }
    }

    const fn of(data: u64) -> Self {
        match data & 7 {
            1 => Self::Output(Stream::Stdout),
            2 => Self::Output(Stream::Stderr),
            3 => Self::Execution,
            4 => Self::Reaper,
            _ => Self::Pidfd,
        }
    }
}

/// Closes everything when the monitor ends, be it by a panic: nobody is to wait for it in vain.
struct Closing(Arc<Context>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.mailbox.close();
        self.0.close();
    }
}

/// The longest time that epoll is asked to wait: beyond it rustix needs
/// epoll_pwait2, which Linux has since 5.11. To wake early does no harm.
const MAX_WAIT: Duration = Duration::from_millis(i32::MAX as u64);

/// Whether there is still something to be done when a timer is due.
fn means_something(
    timer: &Timer,
    atoms: &HashMap<u64, Watched>,
    clearing: &HashMap<u64, Clearing>,
) -> bool {
    let watched = atoms.get(&timer.serial);
    match timer.kind {
        TimerKind::Clear => clearing.contains_key(&timer.serial),
        TimerKind::Execution => watched.is_some_and(|w| matches!(w.phase, Phase::Starting(_))),
        TimerKind::Kill | TimerKind::Deadline | TimerKind::Linger | TimerKind::Patience => {
            watched.is_some()
        }
    }
}

/// How long epoll is asked to wait when the next timer is due after `left`.
fn wait_for(left: Duration) -> Timespec {
    let left = left.min(MAX_WAIT);
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
        tv_nsec: left.subsec_nanos().into(),
    }
}

impl Monitor {
    /// In a host: it tells `observer`.
    pub(super) fn new(context: Arc<Context>, observer: Observer) -> io::Result<Self> {
        Self::with(context, Some(observer), None)
    }

    /// In the keeper: it tells whoever is connected.
    pub(super) fn keeper(context: Arc<Context>, link: Link) -> io::Result<Self> {
        let stat = rustix::fs::stat(&context.atoms);
        let name = stat.map(|stat| format!("{:x}-{:x}", stat.st_dev, stat.st_ino));
        let mut monitor = Self::with(context, None, Some(link))?;
        monitor.store_name = name.unwrap_or_else(|_| "unknown".to_owned());
        let children = ChildSignal::new()?;
        let data = epoll::EventData::new_u64(CHILD);
        epoll::add(&monitor.epoll, &children, data, epoll::EventFlags::IN)?;
        monitor.children = Some(children);
        Ok(monitor)
    }

    fn with(
        context: Arc<Context>,
        observer: Option<Observer>,
        link: Option<Link>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let listen = |fd: BorrowedFd<'_>, data| {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
        };
        listen(context.mailbox.as_fd(), MAILBOX)?;
        if let Some(link) = &link {
            listen(link.listener(), LISTENER)?;
        }
        Ok(Self {
            context,
            observer,
            link,
            told: RefCell::default(),
            epoll,
            cgroups: None,
            store_name: String::new(),
            can_reap: None,
            guards: None,
            soft_nofile: None,
            ignored: None,
            children: None,
            atoms: HashMap::new(),
            clearing: HashMap::new(),
            by_id: HashMap::new(),
            last_serial: 0,
            timers: Timers::default(),
            withdrawn: HashSet::new(),
            buffer: vec![0; HEADER + MAX_PAYLOAD],
            untidy: Vec::new(),
            closing: false,
        })
    }

    /// Works until it is told to close.
    pub(super) fn run(mut self) {
        let _closing = Closing(Arc::clone(&self.context));
        let mut events = Vec::with_capacity(64);
        while !self.closing {
            events.clear();
            let timeout = self.timeout();
            let space = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, space, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Only a descriptor that is no epoll, or memory that is not ours, gives another error.
                Err(error) => panic!("cannot wait for events: {error}"),
            }
            for event in &events {
                self.event(event.data.u64());
            }
            self.fire_timers();
            self.end_turn();
            self.tidy_up();
        }
        self.leave_cgroups();
    }

    /// How many atoms have descriptors here.
    pub(super) fn atoms_at_hand(&self) -> usize {
        self.atoms.len() + self.clearing.len() + self.context.prepared_count()
    }

    pub(super) fn emit(&self, observation: Observation) {
        if let Some(observer) = &self.observer {
            observer(observation);
        } else if let Some(link) = &self.link
            && observation.atom().is_none_or(|atom| link.knows(atom))
        {
            self.told.borrow_mut().push(observation);
        }
    }

    /// Tells how an atom ended, and writes it down for a later host before.
    pub(super) fn emit_ending(&self, marker: Marker<'_>, ending: Observation) {
        marker.end(&ending);
        crash::point("keeper/has-written-an-ending");
        self.emit(ending);
    }

    fn event(&mut self, data: u64) {
        match data {
            MAILBOX => {
                let messages = self.context.mailbox.take();
                return self.handle(messages);
            }
            LISTENER => return self.accept(),
            CONNECTION => return self.converse(),
            CHILD => return self.reap_orphans(),
            _ => {}
        }
        // An atom that went earlier in this turn is not found, and nothing is done.
        let serial = data >> 3;
        match Source::of(data) {
            Source::Pidfd if self.clearing.contains_key(&serial) => {
                self.go_on_clearing(serial, false);
            }
            Source::Pidfd => self.leader_event(serial),
            Source::Execution => self.execution(serial),
            Source::Reaper => self.reaper_event(serial),
            Source::Output(stream) => self.output_event(serial, stream),
        }
    }

    /// Does what it is told.
    pub(super) fn handle(&mut self, messages: Vec<Message>) {
        let mut to_stop: HashMap<AtomId, usize> = HashMap::new();
        for message in &messages {
            if let Message::Command(Command::Stop { atom, .. }) = message {
                *to_stop.entry(*atom).or_default() += 1;
            }
        }
        for message in messages {
            match message {
                Message::Command(Command::Start(order)) => {
                    // Its stop is already there: it is certain never to run.
                    let stopped = to_stop.get(&order.atom).is_some_and(|stops| *stops > 0);
                    if stopped {
                        self.withdraw(order.atom);
                    }
                    self.start(&order);
                }
                Message::Command(Command::Stop { atom, grace, force }) => {
                    if let Some(stops) = to_stop.get_mut(&atom) {
                        *stops -= 1;
                    }
                    self.stop(atom, grace, force);
                }
                Message::Command(Command::Look(remembered)) => self.look(&remembered),
                Message::Command(Command::Remove { atom, handle }) => {
                    self.remove(atom, handle.as_deref());
                }
                Message::Command(Command::Sync { token }) => {
                    // A host has asked for all that it knows of.
                    if let Some(guards) = &mut self.guards {
                        guards.release();
                    }
                    self.emit(Observation::Synced { token });
                }
                Message::Command(Command::CloseStdin { atom }) => self.close_stdin(atom),
                Message::Resume(atom) => self.resume(atom),
                Message::WatchLog { id, atom, lossless } => self.watch_log(id, atom, lossless),
                Message::Close => self.closing = true,
            }
        }
    }

    // ---- watching

    /// Takes an atom under watch.
    ///
    /// # Errors
    ///
    /// When the kernel will not watch another descriptor; the atom is given back.
    pub(super) fn watch(&mut self, watched: Watched) -> Result<u64, (Box<Watched>, io::Error)> {
        let serial = self.next_serial();
        let listening = sources(&watched).try_for_each(|(source, fd)| {
            let mut flags = epoll::EventFlags::IN;
            // Edge-triggered: the second event, that it was reaped by another parent, is not missed for the first.
            flags.set(epoll::EventFlags::ET, source == Source::Pidfd);
            self.listen(serial, source, fd, flags)
        });
        if let Err(error) = listening {
            self.deafen(&watched);
            return Err((Box::new(watched), error));
        }
        self.by_id.insert(watched.atom, serial);
        self.atoms.insert(serial, watched);
        Ok(serial)
    }

    /// Lets go of an atom.
    pub(super) fn unwatch(&mut self, serial: u64) -> Option<Watched> {
        let watched = self.atoms.remove(&serial)?;
        self.deafen(&watched);
        self.by_id.remove(&watched.atom);
        Some(watched)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// What an event of a cgroup is known by that is being emptied.
    pub(super) fn event_of_clearing(serial: u64) -> epoll::EventData {
        epoll::EventData::new_u64(serial << 3 | Source::Pidfd.bits())
    }

    /// Its reaper has ended: nothing more is heard of it.
    pub(super) fn deafen_reaper(&self, serial: u64) {
        let reaper = self.atoms.get(&serial).and_then(|watched| watched.reaper.as_ref());
        if let Some(reaper) = reaper {
            let _ = epoll::delete(&self.epoll, reaper.fd());
        }
    }

    /// Its program was executed, or was not: nothing more is heard of that.
    pub(super) fn stop_listening_for_execution(&self, serial: u64) {
        if let Some(fd) = self.atoms.get(&serial).and_then(Watched::channel) {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    fn listen(
        &self,
        serial: u64,
        source: Source,
        fd: BorrowedFd<'_>,
        flags: epoll::EventFlags,
    ) -> io::Result<()> {
        let data = epoll::EventData::new_u64(serial << 3 | source.bits());
        Ok(epoll::add(&self.epoll, fd, data, flags)?)
    }

    /// Listens to nothing of it any more. To be done before a descriptor is
    /// closed: somebody who forked the host may still have it open, and then
    /// closing alone would leave its events with us for ever.
    fn deafen(&self, watched: &Watched) {
        for (_, fd) in sources(watched) {
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    pub(super) fn is_watched(&self, atom: AtomId) -> bool {
        self.by_id.contains_key(&atom)
    }

    /// Whether there is nothing to watch.
    pub(super) fn is_idle(&self) -> bool {
        self.atoms.is_empty() && self.clearing.is_empty()
    }

    /// What runs, with the grace that it was given.
    pub(super) fn running(&self) -> Vec<(u64, Duration)> {
        let running = |(serial, watched): (&u64, &Watched)| {
            let runs = matches!(watched.phase, Phase::Starting(_) | Phase::Running(_));
            runs.then(|| (*serial, watched.spec.get_grace()))
        };
        self.atoms.iter().filter_map(running).collect()
    }

    /// Which atom's leader a child of this process is.
    pub(super) fn serial_of_pid(&self, pid: u32) -> Option<u64> {
        let mut atoms = self.atoms.iter();
        atoms.find(|(_, watched)| watched.pid() == Some(pid)).map(|(serial, _)| *serial)
    }

    /// Whose reaper a child of this process is.
    pub(super) fn serial_of_reaper(&self, pid: u32) -> Option<u64> {
        let is_it = |watched: &Watched| {
            watched.reaper.as_ref().is_some_and(|reaper| reaper.child_pid() == Some(pid))
        };
        self.atoms.iter().find(|(_, watched)| is_it(watched)).map(|(serial, _)| *serial)
    }

    pub(super) fn watched(&self, serial: u64) -> Option<&Watched> {
        self.atoms.get(&serial)
    }

    pub(super) fn serial_of(&self, atom: AtomId) -> Option<u64> {
        self.by_id.get(&atom).copied()
    }

    pub(super) fn watched_mut(&mut self, serial: u64) -> Option<&mut Watched> {
        self.atoms.get_mut(&serial)
    }

    // ---- input and output

    /// The atom reads to the end of what was written.
    fn close_stdin(&mut self, atom: AtomId) {
        self.context.with_prepared(atom, |prepared| prepared.stdin = None);
        if let Some(watched) = self.serial_of(atom).and_then(|serial| self.watched_mut(serial)) {
            watched.stdin = None;
        }
    }

    fn output_event(&mut self, serial: u64, stream: Stream) {
        let Some(watched) = self.atoms.get_mut(&serial) else { return };
        let Some(pump) = &mut watched.pump else { return };
        match pump.turn(stream, &mut self.buffer) {
            Turn::Waiting => {}
            Turn::HeldUp => {
                if let Some(fd) = pump.fd(stream) {
                    let _ = epoll::delete(&self.epoll, fd);
                }
            }
            Turn::Ended => {
                self.end_stream(serial, stream);
                self.complete_if_dry(serial);
            }
        }
    }

    fn end_stream(&mut self, serial: u64, stream: Stream) {
        let pump = self.atoms.get_mut(&serial).and_then(|watched| watched.pump.as_mut());
        if let Some(pump) = pump {
            if let Some(fd) = pump.fd(stream) {
                let _ = epoll::delete(&self.epoll, fd);
            }
            pump.close(stream);
        }
    }

    /// A lossless reader has moved: output is read again.
    fn resume(&mut self, atom: AtomId) {
        let Some(serial) = self.by_id.get(&atom).copied() else { return };
        let pump = self.atoms.get(&serial).and_then(|watched| watched.pump.as_ref());
        for stream in Stream::ALL {
            if let Some(fd) = pump.and_then(|pump| pump.fd(*stream)) {
                // EEXIST: this one was not held up.
                let _ = self.listen(serial, Source::Output(*stream), fd, epoll::EventFlags::IN);
            }
        }
    }

    /// Reads what was there when the leader ended.
    pub(super) fn drain(&mut self, serial: u64) {
        for stream in Stream::ALL {
            let pump = self.atoms.get_mut(&serial).and_then(|watched| watched.pump.as_mut());
            if pump.is_some_and(|pump| pump.drain(*stream, &mut self.buffer) == Turn::Ended) {
                self.end_stream(serial, *stream);
            }
        }
    }

    /// As [`drain`](Self::drain), of what is not watched.
    pub(super) fn drain_pump(&mut self, pump: &mut super::log::Pump) {
        for stream in Stream::ALL {
            pump.drain(*stream, &mut self.buffer);
        }
    }

    // ---- timers

    pub(super) fn arm(&mut self, at: Option<Instant>, serial: u64, kind: TimerKind) {
        if let Some(at) = at {
            let (atoms, clearing) = (&self.atoms, &self.clearing);
            let there = atoms.len() + clearing.len();
            let timer = Timer { at, serial, kind };
            self.timers.push(timer, there, |timer| means_something(timer, atoms, clearing));
        }
    }

    /// Until the next timer that still means something; for ever when there is none.
    fn timeout(&mut self) -> Option<Timespec> {
        let (atoms, clearing) = (&self.atoms, &self.clearing);
        let next = self.timers.next(|timer| means_something(timer, atoms, clearing))?;
        Some(wait_for(next.saturating_duration_since(Instant::now())))
    }

    fn fire_timers(&mut self) {
        let now = Instant::now();
        while let Some(Timer { serial, kind, .. }) = self.timers.pop_due(now) {
            match kind {
                TimerKind::Kill => self.grace_over(serial, now),
                TimerKind::Deadline => self.deadline(serial, now),
                TimerKind::Linger => self.end_lingering(serial, now),
                TimerKind::Patience => self.told(serial),
                TimerKind::Execution => self.end_execution(serial),
                TimerKind::Clear => self.go_on_clearing(serial, true),
            }
        }
    }
}

/// What is listened to of an atom.
fn sources(watched: &Watched) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
    let output =
        |stream: &Stream| Some((Source::Output(*stream), watched.pump.as_ref()?.fd(*stream)?));
    let pidfd = watched.pidfd().map(|fd| (Source::Pidfd, fd));
    let execution = watched.channel().map(|fd| (Source::Execution, fd));
    let reaper = watched.reaper.as_ref().filter(|reaper| !reaper.gone);
    let reaper = reaper.map(|reaper| (Source::Reaper, reaper.fd()));
    pidfd.into_iter().chain(execution).chain(reaper).chain(Stream::ALL.iter().filter_map(output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::process::identity::Place;
    use crate::driver::process::mailbox::Mailbox;

    #[test]
    fn epoll_is_never_asked_to_wait_longer_than_the_oldest_call_can() {
        for left in [MAX_WAIT, MAX_WAIT + Duration::from_nanos(1), Duration::MAX] {
            let Timespec { tv_sec, tv_nsec } = wait_for(left);
            assert_eq!((tv_sec, tv_nsec), (2_147_483, 647_000_000));
        }
        let Timespec { tv_sec, tv_nsec } = wait_for(Duration::new(3, 5));
        assert_eq!((tv_sec, tv_nsec), (3, 5));
    }

    #[test]
    fn a_monitor_that_panics_takes_no_more_commands() {
        let dir = tempfile::tempdir().unwrap();
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let place = Place { boot: [0; 16], pid_ns: 0 };
        let context = Context::new(dir.path().to_path_buf(), false, place, Arc::clone(&mailbox));
        let observer: Observer = Box::new(|_| panic!("the observer of this test panics"));
        let monitor = Monitor::new(Arc::new(context), observer).unwrap();
        assert!(mailbox.put(Message::Command(Command::Sync { token: 1 })));
        let thread = std::thread::spawn(move || monitor.run());
        assert!(thread.join().is_err());
        assert!(!mailbox.put(Message::Command(Command::Sync { token: 2 })));
    }
}
