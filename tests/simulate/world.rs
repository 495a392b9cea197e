//! One store, what is done to it, and what a reference model says must come of it.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caesium::atom::{AtomId, AtomSpec, PlannedRetry};
use caesium::journal::storage::{Call, Crash, Keep, MemoryStorage};
use caesium::journal::{
    Creation, Fact, History, Journal, JournalError, JournalOptions, Note, Retention, Subscription,
    Ticket, View,
};
use caesium::lifecycle::{
    Ending, Event, Evidence, Reason, State, StopCause, StopOrder, WaitStatus,
};
use caesium::{Durability, Timestamp};

use super::draw::{Chance, Operation, Plan, Setting, Trouble};
use super::frames::walk;
use super::history::Packed;

/// In which way a promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was acknowledged is gone.
    Lost,
    /// What was never appended, or in another way, is there.
    False,
    /// The store does not open.
    Refused,
    /// Anything else.
    Other,
}

#[derive(Debug)]
pub struct Broken {
    pub kind: Kind,
    pub what: String,
}

fn broken<T>(kind: Kind, what: impl fmt::Display) -> Result<T, Broken> {
    Err(Broken { kind, what: what.to_string() })
}

/// What happened in some histories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub operations: u64,
    pub opened: u64,
    pub power_cuts: u64,
    pub kills: u64,
    pub failures: u64,
    pub appended: u64,
    pub acknowledged: u64,
    pub in_doubt_kept: u64,
    pub in_doubt_gone: u64,
    pub reported_cuts: u64,
    pub packed: u64,
    pub compacted: u64,
    /// Subscribers that were told that they lag.
    pub lagged: u64,
    /// Parts that the history had at the most.
    pub parts: u64,
    /// Stands for everything that was seen: the same seed gives the same.
    pub trace: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.opened += other.opened;
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.failures += other.failures;
        self.appended += other.appended;
        self.acknowledged += other.acknowledged;
        self.in_doubt_kept += other.in_doubt_kept;
        self.in_doubt_gone += other.in_doubt_gone;
        self.reported_cuts += other.reported_cuts;
        self.packed += other.packed;
        self.compacted += other.compacted;
        self.lagged += other.lagged;
        self.parts = self.parts.max(other.parts);
        self.trace = self.trace.rotate_left(5) ^ other.trace;
    }
}

/// An event that was appended.
#[derive(Debug, Clone)]
struct Sent {
    atom: AtomId,
    at: Timestamp,
    fact: Fact,
}

/// More atoms than these are not made at a time.
const ATOMS: usize = 12;

pub struct World {
    disk: MemoryStorage,
    history: Packed,
    setting: Setting,
    journal: Option<Journal>,
    /// What was appended, by its number.
    sent: Vec<Sent>,
    /// So many of it must be there at the next opening.
    floor: u64,
    /// So many of it must be there even if the power is cut: less, with batched durability.
    durable: u64,
    /// The first one that compaction has left.
    oldest: u64,
    /// Or one from here to there, if a compaction has failed since the last opening: on
    /// a full disk it lets go of less than it was told.
    doubtful_oldest: Option<(u64, u64)>,
    tickets: Vec<Ticket>,
    subscription: Option<(Subscription, u64)>,
    /// What the next cut of the power leaves, and whether there will be one.
    cut: Crash,
    cut_comes: bool,
    /// Something was told to fail since the last opening on a healthy disk.
    troubled: bool,
    /// The storage's own reads may fail.
    reads_fail: bool,
    full: bool,
    /// The faults that were put in: a kind, and how many calls of it there must have been.
    faults: Vec<(Call, u64)>,
    atoms: u64,
    pub figures: Figures,
}

/// Runs a history to its end. After the last operation the journal is closed,
/// the power is cut, and everything must still be there.
pub fn run(plan: &Plan, lying: bool) -> Result<Figures, Broken> {
    let mut world = World::new(plan.setting, lying)?;
    for (index, operation) in plan.operations.iter().enumerate() {
        world.operate(operation).map_err(|broken| Broken {
            what: format!("operation {}: {}", index + 1, broken.what),
            ..broken
        })?;
    }
    let cut = Crash { seed: 0, keep: Keep::Nothing, sector: 512 };
    world.free();
    world
        .operate(&Operation::Crash { crash: Crash { keep: Keep::All, ..cut }, meanwhile: None })?;
    world.operate(&Operation::Change { facts: 4, seed: 7, give_up: false })?;
    world.operate(&Operation::Close { crash: Some(cut), meanwhile: None })?;
    world.operate(&Operation::Pack)?;
    world.operate(&Operation::Verify)?;
    world.operate(&Operation::Read { from: 1 })?;
    world.figures.operations = plan.operations.len() as u64;
    world.figures.acknowledged = world.floor;
    Ok(world.figures)
}

impl World {
    fn new(setting: Setting, lying: bool) -> Result<Self, Broken> {
        let disk = MemoryStorage::new();
        if lying {
            disk.lie();
        }
        let mut world = Self {
            history: Packed::new(disk.clone()),
            disk,
            setting,
            journal: None,
            sent: Vec::new(),
            floor: 0,
            durable: 0,
            oldest: 1,
            doubtful_oldest: None,
            tickets: Vec::new(),
            subscription: None,
            cut: Crash { seed: 0, keep: Keep::Nothing, sector: 512 },
            cut_comes: false,
            troubled: false,
            reads_fail: false,
            full: false,
            faults: Vec::new(),
            atoms: 0,
            figures: Figures::default(),
        };
        world.open(None)?;
        Ok(world)
    }

    fn operate(&mut self, operation: &Operation) -> Result<(), Broken> {
        match operation {
            Operation::Change { facts, seed, give_up } => self.change(*facts, *seed, *give_up)?,
            Operation::Step => {
                self.journal().step();
            }
            Operation::Wait => self.wait()?,
            Operation::Pack => self.pack()?,
            Operation::Read { from } => self.read(*from)?,
            Operation::Subscribe { from } => {
                let recent = self.journal().recent_seq();
                let from = (*from).min(recent + 1).max(self.oldest);
                self.subscription = Some((self.journal().subscribe(from), from));
            }
            Operation::Poll => self.poll()?,
            Operation::Verify => self.verify()?,
            Operation::Compact { keep } => self.compact(*keep)?,
            Operation::Close { crash, meanwhile } => {
                self.close()?;
                if !self.disk.is_off() {
                    self.reopen(*crash, *meanwhile)?;
                }
            }
            Operation::Crash { crash, meanwhile } => {
                if !self.disk.is_off() {
                    self.promise(crash.keep);
                    self.reopen(Some(*crash), *meanwhile)?;
                }
            }
            Operation::Trouble(trouble) => self.trouble(*trouble),
            Operation::Full { left } => {
                self.troubled = true;
                self.full = true;
                self.disk.set_capacity(Some(self.disk.used() + left));
            }
            Operation::Free => self.free(),
        }
        if self.disk.is_off() {
            self.promise(self.cut.keep);
            self.reopen(Some(self.cut), None)?;
        }
        Ok(())
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("it is open between operations")
    }

    /// What is acknowledged now must be there after a crash.
    fn promise(&mut self, keep: Keep) {
        let journal = self.journal();
        let (recent, synced) = (journal.recent_seq(), journal.durable_seq());
        self.durable = self.durable.max(if self.setting.batched { synced } else { recent });
        self.floor = match keep {
            Keep::All => self.floor.max(recent),
            Keep::Nothing | Keep::Some => self.durable,
        };
    }

    fn free(&mut self) {
        self.full = false;
        self.disk.set_capacity(None);
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.troubled = true;
        match trouble {
            Trouble::Cut { after, crash } => {
                self.cut = crash;
                self.cut_comes = true;
                self.disk.cut_power_after(after);
            }
            Trouble::Fail { call, nth, failing, kind } => {
                self.faults.push((call, self.disk.calls(call) + nth));
                self.reads_fail |= matches!(call, Call::Open | Call::Read | Call::Len | Call::List);
                self.disk.fail(call, nth, failing, kind);
            }
            Trouble::History { nth, there } => self.history.fail(nth, there),
        }
    }

    /// Takes all faults away, and counts those that came to be.
    fn heal(&mut self) {
        let fired = self.faults.drain(..).filter(|(call, at)| self.disk.calls(*call) >= *at);
        self.figures.failures += fired.count() as u64 + self.history.failures();
        self.disk.heal();
        self.history.heal();
        self.troubled = self.full || self.cut_comes;
        self.reads_fail = false;
    }

    /// Whether reading may fail now.
    fn unreadable(&self) -> bool {
        self.reads_fail || self.disk.is_off()
    }

    fn saw(&mut self, what: u64) {
        self.figures.trace = Chance::new(self.figures.trace ^ what).next();
    }

    // --- changing ---

    fn change(&mut self, facts: u64, seed: u64, give_up: bool) -> Result<(), Broken> {
        let journal = self.journal().clone();
        let mut chance = Chance::new(seed);
        let mut atoms = self.atoms;
        let mut appended = Vec::new();
        let mut endings_only = true;
        let result = journal.change(|draft| {
            for _ in 0..facts {
                let (atom, fact) = draw_fact(&mut chance, draft.view(), &mut atoms);
                let at = Timestamp::from_micros(1_700_000_000_000_000 + chance.below(1000));
                match draft.append(atom, at, fact.clone()) {
                    Ok(known) => {
                        let ending = matches!(fact, Fact::Happened { .. });
                        endings_only &= ending && !known.state().is_live();
                        appended.push(Sent { atom, at, fact });
                    }
                    Err(JournalError::Unfit(_)) => {}
                    Err(other) => return Err(other),
                }
            }
            match give_up {
                // Any error of the caller's own.
                true => Err(JournalError::TooLarge { limit: 0 }),
                false => Ok(()),
            }
        });
        self.atoms = atoms;
        match result {
            Ok(((), ticket)) => {
                self.figures.appended += appended.len() as u64;
                let nothing = appended.is_empty();
                self.sent.extend(appended);
                let last = self.sent.len() as u64;
                if ticket.seq() != (!nothing).then_some(last) {
                    let what = format!("the ticket is of {:?}, not {last}", ticket.seq());
                    return broken(Kind::Other, what);
                }
                self.tickets.push(ticket);
            }
            Err(JournalError::TooLarge { limit: 0 }) if give_up => {}
            Err(JournalError::Poisoned { .. }) if self.troubled => {}
            Err(JournalError::NoSpace { .. }) if self.troubled => {
                if endings_only {
                    return broken(Kind::Other, "there was no room for an ending");
                }
            }
            Err(error) => return broken(Kind::Other, format!("a change was refused: {error}")),
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Broken> {
        while self.journal().step() {}
        let recent = self.journal().recent_seq();
        let mut doubt = false;
        for ticket in std::mem::take(&mut self.tickets) {
            let seq = ticket.seq().unwrap_or(0);
            match ticket.wait() {
                Ok(()) if seq == 0 || (seq <= recent && !doubt) => {}
                Ok(()) => {
                    return broken(Kind::Other, format!("{seq} is acknowledged after a doubt"));
                }
                Err(JournalError::InDoubt { seq: told, .. }) if self.troubled && told == seq => {
                    doubt = true;
                }
                Err(error) => return broken(Kind::Other, format!("a ticket says: {error}")),
            }
        }
        if !doubt && !self.troubled && recent != self.sent.len() as u64 {
            return broken(Kind::Other, "not everything is visible");
        }
        Ok(())
    }

    fn pack(&mut self) -> Result<(), Broken> {
        match self.journal().pack() {
            Ok(()) => {
                self.figures.packed += 1;
                let parts = self.history.parts().map_or(0, |parts| parts.len() as u64);
                self.figures.parts = self.figures.parts.max(parts);
            }
            Err(_) if self.troubled => {}
            Err(error) => return broken(Kind::Other, format!("packing failed: {error}")),
        }
        Ok(())
    }

    fn compact(&mut self, keep: u64) -> Result<(), Broken> {
        let retention = Retention { max_events: Some(keep), ..Retention::EVERYTHING };
        let recent = self.journal().recent_seq();
        let wanted = self.oldest.max((recent + 1).saturating_sub(keep));
        let compacted = self.journal().compact(&retention);
        match compacted {
            Ok(compacted) if compacted.oldest == wanted => {
                self.figures.compacted += compacted.dropped;
                self.oldest = wanted;
                self.doubtful_oldest = None;
            }
            // On a full disk what is packed goes, and the rest stays.
            Ok(compacted) if self.troubled && (self.oldest..wanted).contains(&compacted.oldest) => {
                self.figures.compacted += compacted.dropped;
                self.oldest = compacted.oldest;
                self.doubtful_oldest = None;
            }
            Ok(compacted) => {
                return broken(Kind::Other, format!("{} is kept, not {wanted}", compacted.oldest));
            }
            // A power cut or a failure: either all of it or nothing happened.
            Err(_) if self.troubled => {
                let (from, to) = self.doubtful_oldest.unwrap_or((self.oldest, wanted));
                self.doubtful_oldest = Some((from, to.max(wanted)));
            }
            Err(error) => return broken(Kind::Other, format!("compacting failed: {error}")),
        }
        self.settle_oldest()
    }

    /// Learns what became of a compaction that failed.
    fn settle_oldest(&mut self) -> Result<(), Broken> {
        if self.disk.is_off() {
            // The history cannot say; the log alone may know of older ones.
            return Ok(());
        }
        match self.journal().oldest_seq() {
            Ok(oldest) if oldest == self.oldest => {}
            // It may be another one again, until it is known to be durable.
            Ok(oldest)
                if self.doubtful_oldest.is_some_and(|(from, to)| (from..=to).contains(&oldest)) =>
            {
                self.oldest = oldest;
            }
            Ok(oldest) => {
                let what = format!("the oldest is {oldest} and should be {}", self.oldest);
                return broken(Kind::Lost, what);
            }
            // It is asked again.
            Err(_) if self.unreadable() => return Ok(()),
            Err(error) => return broken(Kind::Other, format!("no oldest event: {error}")),
        }
        Ok(())
    }

    // --- reading ---

    fn read(&mut self, from: u64) -> Result<(), Broken> {
        let recent = self.journal().recent_seq();
        if from.max(1) < self.oldest {
            match self.journal().read(from) {
                Err(JournalError::Compacted { oldest, .. }) if oldest == self.oldest => {}
                Ok(_) | Err(_) if self.unreadable() => {}
                Ok(_) => return broken(Kind::False, format!("{from} can be read, and is gone")),
                Err(error) => return broken(Kind::Other, format!("reading {from}: {error}")),
            }
        }
        let mut next = from.max(self.oldest);
        let records = match self.journal().read(next) {
            Ok(records) => records,
            Err(_) if self.unreadable() => return Ok(()),
            Err(error) => return broken(Kind::Other, format!("cannot read from {from}: {error}")),
        };
        for record in records {
            match record {
                Ok(record) => {
                    self.is_sent(next, record.seq, record.atom, record.at, &record.fact)?;
                }
                Err(_) if self.unreadable() => return Ok(()),
                Err(error) => return broken(Kind::Other, format!("cannot read {next}: {error}")),
            }
            next += 1;
        }
        if next <= recent {
            return broken(Kind::Other, format!("reading ends before {next} of {recent}"));
        }
        self.saw(next);
        Ok(())
    }

    fn is_sent(
        &self,
        expected: u64,
        seq: u64,
        atom: AtomId,
        at: Timestamp,
        fact: &Fact,
    ) -> Result<(), Broken> {
        let Some(sent) = self.sent.get(expected as usize - 1) else {
            return broken(Kind::False, format!("event {seq} was never appended"));
        };
        if seq != expected || sent.atom != atom || sent.at != at || sent.fact != *fact {
            let what = format!("event {seq} is not what was appended as {expected}");
            return broken(Kind::False, what);
        }
        Ok(())
    }

    fn poll(&mut self) -> Result<(), Broken> {
        let Some((mut subscription, mut next)) = self.subscription.take() else { return Ok(()) };
        let recent = self.journal().recent_seq();
        loop {
            match subscription.next(Some(Instant::now())) {
                Ok(Some(record)) => {
                    self.is_sent(next, record.seq, record.atom, record.at, &record.fact)?;
                    next += 1;
                }
                Ok(None) | Err(JournalError::Poisoned { .. }) => break,
                // What came next was cut away.
                Err(JournalError::Lagged { at, oldest })
                    if at == next && oldest == self.oldest && next < oldest =>
                {
                    match subscription.skip_to_oldest() {
                        Ok(missed) if next + missed == oldest => next = oldest,
                        skipped => {
                            return broken(
                                Kind::Other,
                                format!("it skips from {next}: {skipped:?}"),
                            );
                        }
                    }
                    self.figures.lagged += 1;
                }
                Err(_) if self.unreadable() => return Ok(()),
                Err(error) => return broken(Kind::Other, format!("a subscriber sees: {error}")),
            }
        }
        if next != recent + 1 {
            return broken(Kind::Other, format!("a subscriber ends before {next} of {recent}"));
        }
        self.saw(next);
        self.subscription = Some((subscription, next));
        Ok(())
    }

    fn verify(&mut self) -> Result<(), Broken> {
        match self.journal().verify() {
            Ok(verified) => self.saw(verified.events ^ verified.bytes),
            Err(_) if self.unreadable() => {}
            Err(error) => return broken(Kind::Other, format!("verifying failed: {error}")),
        }
        Ok(())
    }

    // --- ending and opening ---

    fn close(&mut self) -> Result<(), Broken> {
        let closed = self.journal().close();
        if !self.disk.is_off() {
            match closed {
                Ok(()) => {
                    self.floor = self.sent.len() as u64;
                    self.durable = self.floor;
                }
                Err(_) if self.troubled => self.promise(Keep::Nothing),
                Err(error) => return broken(Kind::Other, format!("closing failed: {error}")),
            }
        }
        let recent = self.journal().recent_seq();
        for ticket in std::mem::take(&mut self.tickets) {
            let seq = ticket.seq().unwrap_or(0);
            match ticket.wait() {
                Ok(()) if seq <= recent => {}
                Err(JournalError::InDoubt { .. }) if self.troubled => {}
                other => return broken(Kind::Other, format!("closed, a ticket says: {other:?}")),
            }
        }
        Ok(())
    }

    /// Lets the machine crash, or not, and opens the journal again; again if the power goes meanwhile.
    fn reopen(&mut self, crash: Option<Crash>, trouble: Option<Trouble>) -> Result<(), Broken> {
        self.tickets.clear();
        self.subscription = None;
        let old = self.journal.take();
        if let Some(crash) = crash {
            self.crash(crash);
        }
        // The old one writes to the disk as it was: nobody looks at that any more.
        drop(old);
        self.open(trouble)
    }

    fn crash(&mut self, crash: Crash) {
        match crash.keep {
            Keep::All => self.figures.kills += 1,
            Keep::Nothing | Keep::Some => self.figures.power_cuts += 1,
        }
        self.cut_comes = false;
        self.heal();
        self.disk = self.disk.crash(crash);
        self.history = Packed::new(self.disk.clone());
    }

    fn open(&mut self, trouble: Option<Trouble>) -> Result<(), Broken> {
        if let Some(trouble) = trouble {
            self.trouble(trouble);
        }
        let durability = match self.setting.batched {
            true => Durability::Batched(Duration::from_secs(3600)),
            false => Durability::Sync,
        };
        let options = JournalOptions::default()
            .durability(durability)
            .segment_bytes(self.setting.segment_bytes);
        loop {
            let names = self.disk.names();
            let newest = names.iter().filter(|name| name.ends_with(".seg")).max();
            let found = newest.and_then(|name| self.disk.contents(name));
            let storage = Arc::new(self.disk.clone());
            let history = Arc::new(self.history.clone());
            self.figures.opened += 1;
            let (journal, recovery) = match Journal::open_stepped(storage, history, options.clone())
            {
                Ok(opened) => opened,
                Err(_) if self.disk.is_off() => {
                    if self.cut.keep != Keep::All {
                        self.floor = self.durable;
                    }
                    self.crash(self.cut);
                    continue;
                }
                Err(JournalError::Io { .. }) if !self.faults.is_empty() => {
                    self.heal();
                    continue;
                }
                Err(JournalError::Io { .. }) if self.full && self.sent.is_empty() => {
                    self.free();
                    continue;
                }
                Err(error) => return broken(Kind::Refused, error),
            };
            self.journal = Some(journal);
            let events = recovery.events;
            let known = self.sent.len() as u64;
            self.saw(events);
            if events < self.floor {
                let what = format!("{} were acknowledged, {events} are there", self.floor);
                return broken(Kind::Lost, what);
            }
            if events > known {
                return broken(Kind::False, format!("{known} were appended, {events} are there"));
            }
            self.figures.in_doubt_kept += events - self.floor;
            self.figures.in_doubt_gone += known - events;
            self.sent.truncate(events as usize);
            self.floor = events;
            self.durable = events;
            let walked = found.map(|bytes| walk(&bytes));
            let reported =
                recovery.cut.as_ref().map(|cut| (cut.offset as usize, cut.bytes as usize));
            self.figures.reported_cuts += u64::from(reported.is_some());
            let left_out = walked.filter(|walked| walked.rest > 0 || walked.missing);
            if reported != left_out.as_ref().map(|walked| (walked.end, walked.rest)) {
                let what = format!("left out: {left_out:?}, reported: {reported:?}");
                return broken(Kind::Other, what);
            }
            let folded = self.folded()?;
            if recovery.atoms != folded.len() {
                return broken(Kind::Other, "the recovery counts other atoms");
            }
            if !self.journal().with_view(|view| *view == folded) {
                return broken(Kind::Other, "the view is not what the events give");
            }
            self.settle_oldest()?;
            if !self.troubled {
                // Whoever shows it has made it durable, where that was possible.
                self.doubtful_oldest = None;
            }
            self.read(self.oldest)?;
            return self.verify();
        }
    }

    fn folded(&self) -> Result<View, Broken> {
        let mut view = View::default();
        for (index, sent) in self.sent.iter().enumerate() {
            if let Err(unfit) = view.apply(sent.atom, sent.at, &sent.fact) {
                return broken(Kind::Other, format!("event {} does not fit: {unfit}", index + 1));
            }
        }
        Ok(view)
    }
}

fn atom_id(number: u64) -> AtomId {
    let mut bytes = [0; 16];
    bytes[6] = 0x70;
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    AtomId::from_bytes(bytes)
}

/// A fact that may fit: sizes from a few bytes to more than a segment.
fn draw_fact(chance: &mut Chance, view: &View, atoms: &mut u64) -> (AtomId, Fact) {
    let which = chance.next();
    let any = view.atoms().nth((which % view.len().max(1) as u64) as usize);
    match any {
        Some(atom) if view.len() >= ATOMS || !chance.one_in(3) => {
            (atom.id(), happening(chance, atom.state()))
        }
        any => {
            *atoms += 1;
            let length = match chance.below(40) {
                0 if chance.one_in(8) => 40_000,
                0..2 => 3000,
                2..7 => 700,
                _ => chance.below(50),
            };
            let mut spec = AtomSpec::command("true").arg("x".repeat(length as usize));
            if chance.one_in(3) {
                spec = spec.name(format!("name {}", chance.below(4)));
            }
            let ended = any.filter(|atom| atom.state() == State::Stopped);
            let creation = Creation {
                engine: "simulated".into(),
                spec: Arc::new(spec),
                attempt: 1,
                retry_of: ended.map(|atom| atom.id()),
            };
            (atom_id(*atoms), Fact::Created(creation))
        }
    }
}

fn happening(chance: &mut Chance, state: State) -> Fact {
    let reason = Reason::ExitUnobserved;
    let order = StopOrder {
        grace: Duration::from_millis(chance.below(9)),
        force: chance.one_in(2),
        cause: StopCause::Requested,
    };
    let exited = Ending::observed(WaitStatus::Exited { code: 3 }, Evidence::default());
    let planned = PlannedRetry { id: atom_id(0), due: Timestamp::from_micros(5) };
    let fitting: &[Event] = match state {
        State::Created => &[Event::Started { pid: Some(7) }, Event::Withdrawn],
        State::Running => &[Event::StopAsked(order), Event::Exited(exited)],
        State::Stopping => &[Event::StopAsked(order), Event::LostSight { reason }],
        State::Stopped | State::Invalid => &[Event::DeleteAsked],
        State::Deleting | State::Deleted => &[Event::Removed],
    };
    let event = match chance.below(12) {
        // Not everything that is tried is allowed.
        0 => Event::Removed,
        1 => Event::Contradiction { reason },
        2 => return Fact::RetryPlanned(planned),
        3 => return Fact::RetryDropped,
        _ => chance.pick(fitting),
    };
    let mut note = Note::default();
    // The reserve counts on short notes where something comes after the end.
    let late = matches!(event, Event::DeleteAsked | Event::Removed | Event::Contradiction { .. });
    if chance.one_in(4) && !late {
        note.detail = Some("d".repeat(chance.below(512) as usize).into());
    }
    if matches!(event, Event::Started { .. }) {
        note.handle = Some(vec![1; chance.below(1024) as usize].into());
    }
    Fact::Happened { event, note }
}

/// What a plan does, in one line each, for people.
pub fn shown(plan: &Plan) -> String {
    let mut text = format!("{:?}\n", plan.setting);
    for operation in &plan.operations {
        text.push_str(&format!("  {operation:?}\n"));
    }
    text
}
