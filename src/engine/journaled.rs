//! The engine for every driver.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Condvar, Mutex};

use super::core::Core;
use super::create::Chosen;
use super::served::Served;
use super::steward::Steward;
use super::wait::Waiting;
use super::{
    Conduct, CreateRequest, DeleteRequest, Engine, Error, Events, GetRequest, ListRequest, Logs,
    LogsRequest, OnClose, StopRequest, Subscription, WaitManyRequest, WaitRequest,
};
#[cfg(target_os = "linux")]
use super::{StdinRequest, StdinWriter};
use crate::Durability;
use crate::atom::{Atom, AtomId};
#[cfg(target_os = "linux")]
use crate::control::Server;
use crate::driver::Driver;
#[cfg(target_os = "linux")]
use crate::driver::DriverError;
use crate::journal::{Compacted, Journal, JournalOptions, Recovery, Retention, Stats, Verified};
use crate::lane::Lane;
use crate::store::Store;
use crate::trace;
use crate::wakers::block_on;

/// An engine that journals everything, over any [`Driver`].
///
/// Clones are handles of the same engine. It is closed by [`close`](Self::close) or
/// [`shutdown`](Engine::shutdown) of any of them, or by `Drop` of the last, which cannot report. What
/// becomes of living atoms then is [`OnClose`].
///
/// A process that was forked from a host has no engine: its handles do nothing when they are dropped, and
/// must not be used.
#[derive(Debug)]
pub struct JournaledEngine<D: Driver> {
    inner: Arc<Inner<D>>,
}

impl<D: Driver> Clone for JournaledEngine<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
struct Inner<D: Driver> {
    /// Serves others.
    #[cfg(target_os = "linux")]
    server: Mutex<Option<Server>>,
    core: Arc<Core<D>>,
    life: Mutex<Life>,
    closed: Condvar,
    recovery: Recovery,
    on_close: OnClose,
    /// Held to the end: the lock on the directory goes with it.
    store: Mutex<Option<Store>>,
    /// The process that has the threads.
    pid: u32,
}

#[derive(Debug)]
enum Life {
    Open(Steward),
    Closing,
    Closed,
}

impl<D: Driver> JournaledEngine<D> {
    /// An engine without a store: nothing is written, and nothing outlives it. For tests.
    ///
    /// # Errors
    ///
    /// When the driver does not start.
    pub fn in_memory(driver: D) -> Result<Self, Error> {
        let options =
            JournalOptions { durability: Durability::Memory, ..JournalOptions::default() };
        let journal = Journal::in_memory(options)?;
        Self::assemble(journal, Recovery::empty(), driver, Conduct::default(), None)
    }

    /// Puts an engine together, and brings it to terms with what is outside.
    pub(super) fn assemble(
        journal: Journal,
        recovery: Recovery,
        driver: D,
        conduct: Conduct,
        store: Option<Store>,
    ) -> Result<Self, Error> {
        let Conduct { on_close, policies, serve } = conduct;
        let reads = Arc::new(Lane::new("caesium-reads", READERS));
        let closing = AtomicBool::new(false);
        let chosen = Chosen::default();
        let core = Arc::new(Core { journal, driver, reads, chosen, closing, policies });
        let steward = Steward::start(core.clone())?;
        steward.reconcile()?;
        let mut store = store;
        if let Some(store) = &mut store {
            store.bind()?;
        }
        #[cfg(target_os = "linux")]
        let server = match &store {
            Some(store) if serve => {
                let started = Server::start(store.path(), Arc::clone(&core) as Arc<dyn Served>);
                Some(started.map_err(|source| DriverError::Io {
                    what: format!("cannot serve {}", store.path().display()),
                    source,
                })?)
            }
            Some(_) | None => None,
        };
        #[cfg(not(target_os = "linux"))]
        let _ = serve;
        let inner = Inner {
            #[cfg(target_os = "linux")]
            server: Mutex::new(server),
            core,
            life: Mutex::new(Life::Open(steward)),
            closed: Condvar::new(),
            recovery,
            on_close,
            store: Mutex::new(store),
            pid: std::process::id(),
        };
        let engine = Self { inner: Arc::new(inner) };
        trace::opened(engine.inner.store.lock().as_ref().map(Store::path), engine.recovery());
        Ok(engine)
    }

    /// What opening the store found.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// See [`Journal::verified_so_far`].
    #[cfg(feature = "cli")]
    pub(crate) fn verified_so_far(&self) -> u64 {
        self.inner.core.journal.verified_so_far()
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.inner.core.driver
    }

    /// Closes the engine, for all of its handles, as it was opened to be closed: see [`OnClose`].
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Engine::shutdown).
    pub fn close(self) -> Result<(), Error> {
        self.inner.shutdown(self.inner.on_close)
    }
}

/// How many threads read from disk for those who must not block. None before somebody needs one.
const READERS: usize = 2;

impl<D: Driver> Inner<D> {
    fn shutdown(&self, policy: OnClose) -> Result<(), Error> {
        let steward = {
            let mut life = self.life.lock();
            match std::mem::replace(&mut *life, Life::Closing) {
                Life::Open(steward) => steward,
                Life::Closing => {
                    drop(life);
                    return self.join_shutdown(policy);
                }
                Life::Closed => {
                    *life = Life::Closed;
                    return Ok(());
                }
            }
        };
        let _span = trace::shutdown(policy).entered();
        let over = Over(self);
        let living = self.core.admit_no_more();
        let stopped = match policy {
            OnClose::Stop => self.stop_all(&living, false),
            OnClose::Kill => self.stop_all(&living, true),
            OnClose::Leave => Ok(()),
        };
        #[cfg(target_os = "linux")]
        if let Some(server) = self.server.lock().take() {
            server.close();
        }
        // No observation may come after the steward has gone: the driver ends first.
        self.core.driver.close();
        steward.join();
        let closed = self.core.journal.close();
        self.core.reads.close();
        *self.store.lock() = None;
        drop(over);
        let result = stopped.and(closed.map_err(Error::from));
        trace::closed(policy, result.as_ref().err());
        result
    }

    /// Somebody else closes it already: this waits for that, and can only make it harsher.
    fn join_shutdown(&self, policy: OnClose) -> Result<(), Error> {
        let asked = match policy {
            OnClose::Kill => {
                let living = self.core.journal.with_view(|view| {
                    let living = view.atoms().filter(|atom| atom.state().is_live());
                    living.map(Atom::id).collect::<Vec<_>>()
                });
                self.ask_all(&living, true)
            }
            OnClose::Stop | OnClose::Leave => Ok(()),
        };
        let mut life = self.life.lock();
        while !matches!(*life, Life::Closed) {
            self.closed.wait(&mut life);
        }
        match asked {
            // It was faster.
            Err(Error::Closed) => Ok(()),
            asked => asked,
        }
    }

    fn ask_all(&self, living: &[AtomId], force: bool) -> Result<(), Error> {
        let request = |atom: &AtomId| StopRequest { force, ..StopRequest::from(atom) };
        let requests: Vec<_> = living.iter().map(request).collect();
        for asked in self.core.ask_to_stop(&requests)? {
            match asked {
                Ok(()) | Err(Error::NotFound(_) | Error::Rejected { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    fn stop_all(&self, living: &[AtomId], force: bool) -> Result<(), Error> {
        self.ask_all(living, force)?;
        for atom in living {
            match block_on(self.core.wait(*atom)) {
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

/// Says that the engine is closed, whatever became of closing it.
struct Over<'a, D: Driver>(&'a Inner<D>);

impl<D: Driver> Drop for Over<'_, D> {
    fn drop(&mut self) {
        *self.0.life.lock() = Life::Closed;
        self.0.closed.notify_all();
    }
}

impl<D: Driver> Drop for Inner<D> {
    fn drop(&mut self) {
        if std::process::id() != self.pid {
            // Forked from the host: the threads are not here, locks may be held for ever, and the
            // lock on the store is the host's. All of that is left as it is.
            std::mem::forget(Arc::clone(&self.core));
            std::mem::forget(std::mem::replace(self.life.get_mut(), Life::Closed));
            std::mem::forget(self.store.get_mut().take());
            #[cfg(target_os = "linux")]
            std::mem::forget(self.server.get_mut().take());
            return;
        }
        if let Err(error) = self.shutdown(self.on_close) {
            tracing::warn!(%error, "the engine was closed with an error");
        }
    }
}

impl<D: Driver> Engine for JournaledEngine<D> {
    fn get(&self, request: &GetRequest) -> Result<Atom, Error> {
        self.inner.core.get(request)
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<Atom>, Error> {
        self.inner.core.list(request)
    }

    fn create(&self, request: CreateRequest) -> Result<Atom, Error> {
        let _span = trace::create(&request).entered();
        let (created, _unfollowed) = self.inner.core.create(request, false)?;
        block_on(created)
    }

    fn create_followed(&self, request: CreateRequest) -> Result<(Atom, Logs), Error> {
        let _span = trace::create(&request).entered();
        let (created, logs) = self.inner.core.create(request, true)?;
        let atom = block_on(created)?;
        logs.map(|logs| (atom, logs)).ok_or(Error::Closed)
    }

    fn create_many(&self, requests: Vec<CreateRequest>) -> Result<Vec<Result<Atom, Error>>, Error> {
        let _span = trace::create_many(&requests).entered();
        block_on(self.inner.core.create_many(requests))
    }

    fn wait(&self, request: &WaitRequest) -> Result<Atom, Error> {
        let _span = trace::wait(&[request.id], true, request.timeout).entered();
        self.inner.core.wait_for(self.inner.core.wait(request.id), &[request.id], request.timeout)
    }

    fn wait_any(&self, request: &WaitManyRequest) -> Result<Atom, Error> {
        let _span = trace::wait(&request.ids, false, request.timeout).entered();
        let first = self.inner.core.wait_any(request.ids.clone());
        self.inner.core.wait_for(first, &request.ids, request.timeout)
    }

    fn wait_all(&self, request: &WaitManyRequest) -> Result<Vec<Atom>, Error> {
        let _span = trace::wait(&request.ids, true, request.timeout).entered();
        let all = self.inner.core.wait_all(request.ids.clone());
        self.inner.core.wait_for(all, &request.ids, request.timeout)
    }

    fn wait_any_async(&self, ids: Vec<AtomId>) -> Waiting<Atom> {
        self.inner.core.wait_any(ids)
    }

    fn wait_all_async(&self, ids: Vec<AtomId>) -> Waiting<Vec<Atom>> {
        self.inner.core.wait_all(ids)
    }

    fn wait_async(&self, id: AtomId) -> Waiting<Atom> {
        self.inner.core.wait(id)
    }

    fn stop(&self, request: &StopRequest) -> Result<Atom, Error> {
        let _span = trace::stop(&[*request]).entered();
        block_on(self.inner.core.stop(request)?)
    }

    fn stop_many(&self, requests: &[StopRequest]) -> Result<Vec<Result<Atom, Error>>, Error> {
        let _span = trace::stop(requests).entered();
        block_on(self.inner.core.stop_many(requests)?)
    }

    fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        let _span = trace::delete(request).entered();
        let core = &self.inner.core;
        if request.force && core.get(&request.id.into())?.state().is_live() {
            block_on(core.stop(&StopRequest::from(request.id).force())?)?;
        }
        block_on(core.delete(request.id)?)
    }

    fn logs(&self, request: &LogsRequest) -> Result<Logs, Error> {
        self.inner.core.logs(request)
    }

    #[cfg(target_os = "linux")]
    fn stdin(&self, request: &StdinRequest) -> Result<StdinWriter, Error> {
        let path = block_on(self.inner.core.stdin(request.id)?)?;
        Ok(StdinWriter::new(request.id, path))
    }

    #[cfg(target_os = "linux")]
    fn close_stdin(&self, request: &StdinRequest) -> Result<(), Error> {
        block_on(self.inner.core.stdin(request.id)?)?;
        self.inner.core.close_stdin(request.id)
    }

    fn find(&self, text: &str) -> Result<Atom, Error> {
        self.inner.core.find(text)
    }

    fn events(&self, from: u64) -> Result<Events, Error> {
        self.inner.core.events(from)
    }

    fn subscribe(&self, from: u64) -> Subscription {
        self.inner.core.subscribe(from)
    }

    fn durable_seq(&self) -> Result<u64, Error> {
        Ok(self.inner.core.durable_seq())
    }

    fn stats(&self) -> Result<Stats, Error> {
        self.inner.core.stats()
    }

    fn verify(&self) -> Result<Verified, Error> {
        let _span = trace::verify().entered();
        self.inner.core.verify()
    }

    fn compact(&self, retention: &Retention) -> Result<Compacted, Error> {
        let _span = trace::compact(retention).entered();
        self.inner.core.compact(retention)
    }

    fn shutdown(&self, policy: OnClose) -> Result<(), Error> {
        self.inner.shutdown(policy)
    }
}
