//! Where a host and its keeper are in their conversation: what was said, and what is still to be heard.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::wire::{Extent, Preparation, Request, Trouble};
use crate::atom::{AtomId, AtomSpec, Bytes};
use crate::driver::process::dir::AtomDir;
use crate::driver::process::log::LogShared;
use crate::driver::{Command, DriverError, Observation, Order, Remembered, Sighting, Surroundings};
use crate::lifecycle::{Reason, State, Stop, StopCause};
use crate::{socket, time};

/// Where the two are in their conversation.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Counts the connections.
    pub(super) generation: u64,
    pub(super) stream: Option<UnixStream>,
    /// Somebody is about to bring about the first connection.
    pub(super) connecting: bool,
    /// Frames on their way out.
    pub(super) output: Vec<u8>,
    pub(super) closed: bool,
    pub(super) last_id: u64,
    /// Questions that somebody waits for, with the answers that have come.
    pub(super) questions: HashMap<u64, Option<Reply>>,
    pub(super) live: HashMap<AtomId, Live>,
    /// Commands that are answered once, and were not yet.
    pub(super) unanswered: Vec<Command>,
    /// Atoms that were asked for again for our own sake: the answer is nobody else's business.
    pub(super) repeated: HashSet<AtomId>,
    pub(super) logs: HashMap<AtomId, Weak<LogShared>>,
    /// In a copied store: the atoms that were prepared in this life of the host. The others' processes
    /// belong to the original.
    pub(super) ours: HashSet<AtomId>,
    /// Whether atoms may be put into cgroups.
    pub(super) cgroups: bool,
    /// Where each atom has a directory.
    pub(super) atoms: PathBuf,
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Reply {
    Prepared(Result<(), Trouble>),
    Watching(Option<Extent>),
    /// The keeper died before it answered.
    Lost,
}

/// What this host knows of an atom that it has to hear more of.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) remembered: Remembered,
    /// With what it is started, until it is known to have been.
    pub(super) preparation: Option<(u64, Preparation)>,
    /// It was ordered to start, or was there before us.
    pub(super) ordered: bool,
    /// Where its standard input is a pipe: what keeps that from ending with the keeper.
    stdin: Option<OwnedFd>,
}

impl Live {
    fn keep_stdin_open(&mut self, atoms: &Path) {
        let Order { atom, spec } = &self.remembered.order;
        if spec.get_stdin_pipe() && self.stdin.is_none() {
            // Not there when it was ended.
            self.stdin = AtomDir::new(atoms, *atom).open_stdin().ok();
        }
    }
}

/// What is to be done with what was heard.
pub(super) enum Heard {
    News,
    Known,
    /// There is something to be said to the keeper.
    TryAgain,
}

impl Conversation {
    pub(super) fn say(&mut self, request: &Request) {
        if self.stream.is_some()
            && let Err(error) = socket::put(&mut self.output, request)
        {
            tracing::error!(%error, "something cannot be told to the keeper");
        }
    }

    pub(super) fn answer(&mut self, id: u64, reply: Reply) {
        if let Some(question) = self.questions.get_mut(&id) {
            *question = Some(reply);
        }
    }

    /// Nobody will answer.
    pub(super) fn lose(&mut self) {
        for question in self.questions.values_mut().filter(|question| question.is_none()) {
            *question = Some(Reply::Lost);
        }
    }

    pub(super) fn prepare(&mut self, order: Order, around: Surroundings) -> u64 {
        let cgroups = self.cgroups;
        self.last_id += 1;
        let id = self.last_id;
        let atom = order.atom;
        let secrets = order
            .spec
            .get_secrets()
            .map(|(key, value)| (key.to_owned(), Bytes(value.to_owned())))
            .collect();
        let preparation = Preparation { order: order.clone(), secrets, around, cgroups };
        self.say(&Request::Prepare { id, order: preparation.clone() });
        let remembered =
            Remembered { order, state: State::Created, handle: None, started_at: None, stop: None };
        let preparation = Some((id, preparation));
        let live = Live { remembered, preparation, ordered: false, stdin: None };
        self.live.insert(atom, live);
        id
    }

    pub(super) fn command(&mut self, command: Command, copied: bool) {
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
                let (remembered, ordered) = (remembered.clone(), true);
                let mut live = Live { remembered, preparation: None, ordered, stdin: None };
                if !copied {
                    live.keep_stdin_open(&self.atoms);
                }
                self.live.insert(live.remembered.order.atom, live);
                self.unanswered.push(command.clone());
            }
            Command::Remove { atom, .. } => {
                self.unanswered.push(command.clone());
                if copied && !self.ours.contains(atom) {
                    return self.say(&Request::Forget(*atom));
                }
            }
            Command::Sync { .. } => self.unanswered.push(command.clone()),
            Command::CloseStdin { atom } => {
                if let Some(live) = self.live.get_mut(atom) {
                    live.stdin = None;
                }
            }
        }
        self.say(&Request::Command(command));
    }

    /// This host keeps no atom's standard input from ending any more.
    pub(super) fn let_go_of_stdin(&mut self) {
        self.live.values_mut().for_each(|live| live.stdin = None);
    }

    /// In a copied store: what is told of an atom that the original started, without asking anybody.
    pub(super) fn of_a_copy(&mut self, command: &Command) -> Option<Vec<Observation>> {
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
            | Command::Sync { .. }
            | Command::CloseStdin { .. } => None,
        }
    }

    /// Takes note of what happened.
    pub(super) fn heard(&mut self, observation: &Observation) -> Heard {
        match observation {
            Observation::Started { atom, at, handle, .. } => {
                if let Some(live) = self.live.get_mut(atom) {
                    live.preparation = None;
                    live.remembered.state = State::Running;
                    live.remembered.handle = Some(Arc::clone(handle));
                    live.remembered.started_at = Some(*at);
                    live.keep_stdin_open(&self.atoms);
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
    pub(super) fn say_everything_again(&mut self, copied: bool) {
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
                | Command::Sync { .. }
                | Command::CloseStdin { .. } => None,
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
            | Command::Sync { .. }
            | Command::CloseStdin { .. } => Request::Command(command.clone()),
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

fn with_secrets(order: &Order, secrets: &[(String, Bytes)]) -> Arc<AtomSpec> {
    let mut spec = (*order.spec).clone();
    for (key, value) in secrets {
        spec = spec.secret_env(key.clone(), value.0.clone());
    }
    Arc::new(spec)
}

/// What this host gives to its atoms.
pub(super) fn surroundings() -> Result<Surroundings, DriverError> {
    Surroundings::here().map_err(|source| DriverError::Io {
        what: "cannot tell the host's working directory (name one for the atom)".to_owned(),
        source,
    })
}
