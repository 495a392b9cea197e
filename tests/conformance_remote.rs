//! An engine that another one serves passes the suite as well: whether its driver starts
//! processes or acts in memory, through the socket it is the same.

#![cfg(target_os = "linux")]

mod conformance_harness;

use std::sync::Mutex;

use caesium::driver::Driver;
use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::driver::process::ProcessDriver;
use caesium::engine::conformance::{self, Fixture};
use caesium::{Atom, AtomSpec, Durability, Engine, EngineOptions, JournaledEngine, RemoteEngine};
use conformance_harness::{By, Processes};

/// Engines on stores of their own, each served by one that stays here.
struct Served<D: Driver> {
    processes: Processes,
    holders: Mutex<Vec<JournaledEngine<D>>>,
}

impl<D: Driver> Served<D> {
    fn new(by: By) -> Self {
        Self { processes: Processes::new(by), holders: Mutex::default() }
    }
}

impl Fixture for Served<MemoryDriver> {
    fn engine(&self) -> Box<dyn Engine> {
        let store = self.processes.store();
        let options = EngineOptions::new().serve(true).durability(Durability::Memory);
        let holder = options.open_with(&store, |_| Ok(MemoryDriver::new(World::new())));
        self.holders.lock().unwrap().push(holder.unwrap());
        Box::new(RemoteEngine::connect(&store).unwrap())
    }

    fn spec(&self, act: &Act) -> Option<AtomSpec> {
        Some(act.spec())
    }
}

impl Fixture for Served<ProcessDriver> {
    fn engine(&self) -> Box<dyn Engine> {
        let store = self.processes.store();
        let holder = self.processes.options().serve(true).open(&store).unwrap();
        self.holders.lock().unwrap().push(holder);
        Box::new(RemoteEngine::connect(&store).unwrap())
    }

    fn spec(&self, act: &Act) -> Option<AtomSpec> {
        self.processes.spec(act)
    }

    fn ready(&self, engine: &dyn Engine, atom: &Atom) {
        self.processes.ready(engine, atom);
    }
}

#[test]
fn the_memory_driver_conforms_through_the_socket() {
    conformance::run(&Served::<MemoryDriver>::new(By::Host));
}

#[test]
fn the_process_driver_conforms_through_the_socket() {
    conformance::run(&Served::<ProcessDriver>::new(By::Host));
}

#[test]
fn the_keeper_conforms_through_the_socket() {
    conformance::run(&Served::<ProcessDriver>::new(By::KeeperWithCgroups));
}
