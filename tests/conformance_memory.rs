//! The driver in memory passes the suite that every driver has to pass.

use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::engine::conformance::{self, Fixture};
use caesium::{AtomSpec, Engine, JournaledEngine};

struct InMemory;

impl Fixture for InMemory {
    fn engine(&self) -> Box<dyn Engine> {
        Box::new(JournaledEngine::in_memory(MemoryDriver::new(World::new())).unwrap())
    }

    fn spec(&self, act: &Act) -> Option<AtomSpec> {
        Some(act.spec())
    }
}

#[test]
fn the_memory_driver_conforms() {
    conformance::run(&InMemory);
}
