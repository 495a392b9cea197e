//! A store, whoever has it open: this process, or another one that serves it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::RemoteEngine;
use crate::atom::{Atom, AtomId};
use crate::engine::{
    CreateRequest, DeleteRequest, Engine, EngineOptions, Error, Events, GetRequest, ListRequest,
    Logs, LogsRequest, OnClose, ProcessEngine, StdinRequest, StdinWriter, StopRequest,
    Subscription, WaitManyRequest, WaitRequest, Waiting,
};
#[cfg(feature = "cli")]
use crate::journal::Cut;
use crate::journal::{Compacted, Retention, Stats, Verified};

/// The store at `path`: opened, or created, or served by the process that has it open. Either way it
/// is the same engine. If this process opens it, it serves it to others.
///
/// When a holder ends, whoever waits for it is told [`Error::HolderGone`]; the next request opens the store,
/// or connects to the next holder.
///
/// # Errors
///
/// As [`ProcessEngine::open`], and as [`RemoteEngine::connect`], but for [`Error::NotServed`]: a holder
/// that serves nobody is waited for, and is [`Error::StoreLocked`] when it stays.
///
/// ```no_run
/// use caesium::{AtomSpec, Engine, ListRequest};
///
/// let engine = caesium::connect_or_open("state")?;
/// let atom = engine.create(AtomSpec::command("make").into())?;
/// println!("{} atoms", engine.list(&ListRequest::all())?.len());
/// # Ok::<(), caesium::Error>(())
/// ```
pub fn connect_or_open(path: impl AsRef<Path>) -> Result<Arc<dyn Engine>, Error> {
    EngineOptions::new().connect_or_open(path)
}

impl EngineOptions {
    /// As [`connect_or_open`](crate::connect_or_open()), with these options if this process opens the store. It
    /// serves others unless they say otherwise.
    ///
    /// # Errors
    ///
    /// As [`connect_or_open`](crate::connect_or_open()).
    pub fn connect_or_open(self, path: impl AsRef<Path>) -> Result<Arc<dyn Engine>, Error> {
        Ok(Arc::new(Attached::new(path.as_ref(), self)?))
    }
}

/// A store, opened or connected to; again, when its holder has gone.
#[derive(Debug)]
pub(crate) struct Attached {
    path: PathBuf,
    options: EngineOptions,
    current: Mutex<Current>,
}

/// Who has it.
#[derive(Debug, Clone)]
enum Current {
    Here(ProcessEngine),
    There(RemoteEngine),
    Closed,
}

impl Attached {
    pub(crate) fn new(path: &Path, options: EngineOptions) -> Result<Self, Error> {
        // Absolute, so that nothing depends on the working directory from here on.
        let path = std::path::absolute(path).map_err(|error| Error::StoreRefused {
            path: path.to_owned(),
            problem: format!("its path cannot be made absolute: {error}"),
        })?;
        let current = Mutex::new(attach(&path, &options)?);
        Ok(Self { path, options, current })
    }

    /// Has the engine of the moment do something.
    fn with<T>(&self, request: impl FnOnce(&dyn Engine) -> Result<T, Error>) -> Result<T, Error> {
        let current = {
            let mut current = self.current.lock();
            if let Current::There(engine) = &*current
                && engine.is_gone()
            {
                *current = attach(&self.path, &self.options)?;
            }
            current.clone()
        };
        match &current {
            Current::Here(engine) => request(engine),
            Current::There(engine) => request(engine),
            Current::Closed => Err(Error::Closed),
        }
    }

    fn waiting<T: Send + 'static>(
        &self,
        request: impl FnOnce(&dyn Engine) -> Waiting<T>,
    ) -> Waiting<T> {
        let waiting = self.with(|engine| Ok(request(engine)));
        waiting.unwrap_or_else(|error| Waiting::new(std::future::ready(Err(error))))
    }
}

fn attach(path: &Path, options: &EngineOptions) -> Result<Current, Error> {
    options.clone().open_or(path, || RemoteEngine::connect(path)).map(|opened| match opened {
        Ok(engine) => Current::Here(engine),
        Err(remote) => Current::There(remote),
    })
}

/// What the command line asks beside.
#[cfg(feature = "cli")]
impl Attached {
    /// What opening the store had to leave out, if this process opened it.
    pub(crate) fn cut(&self) -> Option<Cut> {
        match &*self.current.lock() {
            Current::Here(engine) => engine.recovery().cut.clone(),
            Current::There(_) | Current::Closed => None,
        }
    }

    /// Whether this process has it open.
    pub(crate) fn is_here(&self) -> bool {
        matches!(&*self.current.lock(), Current::Here(_))
    }

    /// How many events verifying has gone through, if this process does it.
    pub(crate) fn verified_so_far(&self) -> Option<u64> {
        match &*self.current.lock() {
            Current::Here(engine) => Some(engine.verified_so_far()),
            Current::There(_) | Current::Closed => None,
        }
    }

    /// Lets go of the store; what lives in it lives on.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.shutdown(OnClose::Leave)
    }
}

impl Engine for Attached {
    fn get(&self, request: &GetRequest) -> Result<Atom, Error> {
        self.with(|engine| engine.get(request))
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error> {
        self.with(|engine| engine.list(request))
    }

    fn create(&self, request: CreateRequest) -> Result<Atom, Error> {
        self.with(|engine| engine.create(request))
    }

    fn create_followed(&self, request: CreateRequest) -> Result<(Atom, Logs), Error> {
        self.with(|engine| engine.create_followed(request))
    }

    fn create_many(&self, requests: Vec<CreateRequest>) -> Result<Vec<Result<Atom, Error>>, Error> {
        self.with(|engine| engine.create_many(requests))
    }

    fn wait(&self, request: &WaitRequest) -> Result<Atom, Error> {
        self.with(|engine| engine.wait(request))
    }

    fn wait_any(&self, request: &WaitManyRequest) -> Result<Atom, Error> {
        self.with(|engine| engine.wait_any(request))
    }

    fn wait_all(&self, request: &WaitManyRequest) -> Result<Vec<Atom>, Error> {
        self.with(|engine| engine.wait_all(request))
    }

    fn wait_async(&self, id: AtomId) -> Waiting<Atom> {
        self.waiting(|engine| engine.wait_async(id))
    }

    fn wait_any_async(&self, ids: Vec<AtomId>) -> Waiting<Atom> {
        self.waiting(|engine| engine.wait_any_async(ids))
    }

    fn wait_all_async(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>> {
        self.waiting(|engine| engine.wait_all_async(ids))
    }

    fn stop(&self, request: &StopRequest) -> Result<Atom, Error> {
        self.with(|engine| engine.stop(request))
    }

    fn stop_many(&self, requests: &[StopRequest]) -> Result<Vec<Result<Atom, Error>>, Error> {
        self.with(|engine| engine.stop_many(requests))
    }

    fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        self.with(|engine| engine.delete(request))
    }

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error> {
        self.with(|engine| engine.logs(request))
    }

    fn stdin(&self, request: &StdinRequest) -> Result<StdinWriter, Error> {
        self.with(|engine| engine.stdin(request))
    }

    fn close_stdin(&self, request: &StdinRequest) -> Result<(), Error> {
        self.with(|engine| engine.close_stdin(request))
    }

    fn find(&self, text: &str) -> Result<Atom, Error> {
        self.with(|engine| engine.find(text))
    }

    fn events(&self, from: u64) -> Result<Events, Error> {
        self.with(|engine| engine.events(from))
    }

    fn subscribe(&self, from: u64) -> Subscription {
        let subscription = self.with(|engine| Ok(engine.subscribe(from)));
        subscription.unwrap_or_else(|error| Subscription::never(error, from))
    }

    fn durable_seq(&self) -> Result<u64, Error> {
        self.with(|engine| engine.durable_seq())
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.with(|engine| engine.stats())
    }

    fn verify(&self) -> Result<Verified, Error> {
        self.with(|engine| engine.verify())
    }

    fn compact(&self, retention: &Retention) -> Result<Compacted, Error> {
        self.with(|engine| engine.compact(retention))
    }

    fn shutdown(&self, policy: OnClose) -> Result<(), Error> {
        match std::mem::replace(&mut *self.current.lock(), Current::Closed) {
            Current::Here(engine) => engine.shutdown(policy),
            Current::There(engine) => engine.shutdown(policy),
            Current::Closed => Ok(()),
        }
    }
}
