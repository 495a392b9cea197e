//! Creating atoms: once for each request, several with one commit.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::logs::Unopened;
use super::wait::{Until, Waiting, has_settled, in_doubt};
use super::{CreateRequest, Error, Logs, LogsRequest};
use crate::atom::{Atom, AtomId, SpecError};
use crate::crash;
use crate::driver::{Command, Driver, DriverError, Order, Surroundings};
use crate::journal::{Creation, Draft, Fact, JournalError, View};
use crate::time::now;
use crate::wakers::block_on;

/// The most atoms of one commit: what is set aside for them waits until the last of them is.
const AT_ONCE: usize = 256;

/// An atom that is to be created.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) order: Order,
    /// What it has of who asks; `None` when that is this host.
    pub(super) around: Option<Surroundings>,
    /// With a reader that is there before it starts.
    pub(super) followed: bool,
    pub(super) attempt: u32,
    pub(super) retry_of: Option<AtomId>,
}

/// An atom that was asked for, and is journaled.
#[derive(Debug)]
pub(super) enum Created {
    /// Now, by the event of this number; it was sent on its way.
    Now { id: AtomId, seq: u64, logs: Option<Logs> },
    /// Before, by the same request.
    Before(AtomId),
}

/// The ids that callers chose and that are being created: each once at a time.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    ids: Mutex<HashSet<AtomId>>,
    changed: Condvar,
}

/// Some of [`Chosen`], as long as this is there.
struct Hold<'a> {
    chosen: &'a Chosen,
    ids: HashSet<AtomId>,
}

impl Chosen {
    /// Waits until nobody else has one of them.
    fn hold(&self, ids: HashSet<AtomId>) -> Hold<'_> {
        let mut held = self.ids.lock();
        while !held.is_disjoint(&ids) {
            self.changed.wait(&mut held);
        }
        held.extend(&ids);
        Hold { chosen: self, ids }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.chosen.ids.lock().retain(|id| !self.ids.contains(id));
        self.chosen.changed.notify_all();
    }
}

impl<D: Driver> Core<D> {
    /// Checks what is asked for, and fills in what it leaves open.
    pub(super) fn wanted(&self, request: CreateRequest, followed: bool) -> Result<Wanted, Error> {
        let CreateRequest { spec, id, around } = request;
        spec.validate()?;
        if id.is_some_and(|id| !id.is_proper()) {
            return Err(
                SpecError::new("id", "is no UUID of version 7: make one with AtomId::new").into()
            );
        }
        let spec = self.driver.complete(spec, around.as_ref())?;
        spec.validate()?;
        let order = Order { atom: id.unwrap_or_else(AtomId::new), spec: Arc::new(spec) };
        Ok(Wanted { order, around, followed, attempt: 1, retry_of: None })
    }

    /// Creates one: see [`Core::create_all`].
    pub(super) fn create_one(&self, wanted: Wanted) -> Result<Created, Error> {
        self.create_all(vec![wanted]).pop().unwrap_or(Err(Error::Closed))
    }

    /// Sets everything aside, journals the atoms, and sends them on their way; gives for each what came of it.
    pub(super) fn create_all(&self, wanted: Vec<Wanted>) -> Vec<Result<Created, Error>> {
        let _hold = self.chosen.hold(wanted.iter().map(|wanted| wanted.order.atom).collect());
        let mut results = Vec::with_capacity(wanted.len());
        let mut left = wanted.into_iter().peekable();
        while left.peek().is_some() {
            let begun = results.len();
            let scarce = self.create_some(&mut left, &mut results);
            if scarce && left.peek().is_some() {
                // Once these run they need less than to start.
                for created in &results[begun..] {
                    if let Ok(Created::Now { id, .. }) = created {
                        drop(block_on(Until::new(&self.journal, *id, has_settled(*id))));
                    }
                }
            }
        }
        results
    }

    /// As many as one commit takes; says whether there would have been more, if more could be set aside.
    fn create_some(
        &self,
        left: &mut std::iter::Peekable<impl Iterator<Item = Wanted>>,
        results: &mut Vec<Result<Created, Error>>,
    ) -> bool {
        /// What became of one so far: it is set aside, or it is decided.
        enum Step {
            Ready(Box<Wanted>),
            Done(Result<Created, Error>),
        }
        let (mut steps, mut ready, mut scarce) = (Vec::new(), 0, false);
        let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
        while ready < AT_ONCE
            && let Some(wanted) = left.peek()
        {
            let Order { atom, spec } = &wanted.order;
            if !ids.insert(*atom) || spec.get_key().is_some_and(|key| !keys.insert(key.to_owned()))
            {
                // The same request again: it is known once the first is journaled.
                break;
            }
            // Before anything is set aside: the common mistake, and the cheap check. The journal checks again.
            let step = match self.known(wanted) {
                Ok(None) => match self.driver.prepare(*atom, spec, wanted.around.as_ref()) {
                    Ok(()) => {
                        crash::point("host/has-prepared");
                        None
                    }
                    Err(DriverError::Exhausted { .. }) if ready > 0 => {
                        scarce = true;
                        break;
                    }
                    Err(error) => Some(Err(error.into())),
                },
                Ok(Some(id)) => Some(Ok(Created::Before(id))),
                Err(error) => Some(Err(error)),
            };
            let Some(wanted) = left.next() else { break };
            steps.push(match step {
                None => {
                    ready += 1;
                    Step::Ready(Box::new(wanted))
                }
                Some(done) => Step::Done(done),
            });
        }
        let prepared = steps.iter().filter_map(|step| match step {
            Step::Ready(wanted) => Some(&**wanted),
            Step::Done(_) => None,
        });
        let mut admitted = self.admit(&prepared.collect::<Vec<_>>()).into_iter();
        results.extend(steps.into_iter().map(|step| match step {
            Step::Done(done) => done,
            Step::Ready(wanted) => match admitted.next().unwrap_or(Err(Error::Closed)) {
                Ok((atom, seq)) => self.send_off(*wanted, &atom, seq),
                Err(error) => {
                    self.driver.release(wanted.order.atom);
                    // Somebody was faster, perhaps with the same.
                    match (error, self.known(&wanted)) {
                        (Error::KeyInUse { .. }, Ok(Some(id))) => Ok(Created::Before(id)),
                        (error, _) => Err(error),
                    }
                }
            },
        }));
        scarce
    }

    /// The atom that was made of the same request before.
    fn known(&self, wanted: &Wanted) -> Result<Option<AtomId>, Error> {
        let ((known, seq), _nothing_written) = self
            .journal
            .change(|draft| Ok::<_, Error>((known(draft.view(), wanted)?, draft.last_seq())))?;
        if known.is_some() {
            self.journal.wait_for(seq)?;
        }
        Ok(known)
    }

    /// Journals them, and returns when they are durable; gives each with the number of its event.
    fn admit(&self, wanted: &[&Wanted]) -> Vec<Result<(Atom, u64), Error>> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let admitted = self.journal.change_lazily(|draft| {
            if self.closing.load(Ordering::Relaxed) {
                return Err(JournalError::Closed);
            }
            Ok(wanted.iter().map(|wanted| self.append(draft, wanted)).collect::<Vec<_>>())
        });
        let durable = admitted.and_then(|(appended, ticket)| {
            crash::point("host/has-queued-created");
            ticket.wait()?;
            crash::point("host/created-is-durable");
            Ok(appended)
        });
        durable.unwrap_or_else(|error| wanted.iter().map(|_| Err(error.clone().into())).collect())
    }

    fn append(&self, draft: &mut Draft<'_>, wanted: &Wanted) -> Result<(Atom, u64), Error> {
        let Wanted { order, attempt, retry_of, .. } = wanted;
        let creation = Creation {
            engine: self.driver.name().into(),
            spec: order.spec.clone(),
            attempt: *attempt,
            retry_of: *retry_of,
        };
        let atom = draft.append(order.atom, now(), Fact::Created(creation))?;
        Ok((atom, draft.last_seq()))
    }

    fn send_off(&self, wanted: Wanted, atom: &Atom, seq: u64) -> Result<Created, Error> {
        let id = atom.id();
        let logs = wanted.followed.then(|| {
            let query = LogsRequest::from(id).follow().lossless().query();
            let source = self.driver.logs(atom, &query);
            self.open_logs(source.unwrap_or_else(|error| Box::new(Unopened(Some(error)))))
        });
        match self.driver.send(Command::Start(wanted.order)) {
            Ok(()) => {
                crash::point("host/has-sent-start");
                Ok(Created::Now { id, seq, logs })
            }
            Err(error) => Err(in_doubt(seq, &error.to_string())),
        }
    }

    /// Becomes ready when an atom that was created runs, or has stopped.
    pub(super) fn settled(&self, created: &Created) -> Waiting<Atom> {
        let (id, seq) = match created {
            Created::Now { id, seq, .. } => (*id, Some(*seq)),
            Created::Before(id) => (*id, None),
        };
        let settled = Until::new(&self.journal, id, has_settled(id));
        Waiting::new(async move {
            settled.await.map_err(|error| match seq {
                // It is journaled, and nobody will tell whether it was started.
                Some(seq) if !matches!(error, Error::NotFound(_)) => {
                    in_doubt(seq, &error.to_string())
                }
                Some(_) | None => error,
            })
        })
    }
}

/// The atom that was made of the same request before.
fn known(view: &View, wanted: &Wanted) -> Result<Option<AtomId>, Error> {
    let Wanted { order: Order { atom, spec }, retry_of, .. } = wanted;
    if retry_of.is_none() {
        if let Some(before) = view.get(*atom) {
            return match before.spec().asks_for_the_same(spec) {
                true => Ok(Some(before.id())),
                false => Err(Error::IdInUse(*atom)),
            };
        }
        if let Some(key) = spec.get_key()
            && let Some(before) = view.keyed(key)
        {
            return match before.spec().asks_for_the_same(spec) {
                true => Ok(Some(before.id())),
                false => Err(Error::KeyInUse { key: key.to_owned(), by: before.id() }),
            };
        }
    }
    match spec.get_name().and_then(|name| view.named(name)) {
        Some(other) if Some(other.id()) != *retry_of => Err(Error::NameInUse {
            name: spec.get_name().unwrap_or_default().to_owned(),
            by: other.id(),
        }),
        Some(_) | None => Ok(None),
    }
}
