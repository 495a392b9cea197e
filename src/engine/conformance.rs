//! What every engine has to do, whatever its driver: one suite for all of them.
//!
//! A back end passes when [`run`] returns. Each case is also there by itself,
//! by [`cases`], for test harnesses that want to name them.
//!
//! ```
//! use caesium::driver::memory::{Act, MemoryDriver, World};
//! use caesium::engine::conformance::{self, Fixture};
//! use caesium::{AtomSpec, Engine, JournaledEngine};
//!
//! struct InMemory;
//!
//! impl Fixture for InMemory {
//!     fn engine(&self) -> Box<dyn Engine> {
//!         Box::new(JournaledEngine::in_memory(MemoryDriver::new(World::new())).unwrap())
//!     }
//!
//!     fn spec(&self, act: &Act) -> Option<AtomSpec> {
//!         Some(act.spec())
//!     }
//! }
//!
//! conformance::run(&InMemory);
//! ```

mod batch;
mod crowd;
mod endings;
mod find;
mod journal;
mod requests;
mod retry;
#[cfg(target_os = "linux")]
mod stdin;
mod stops;
mod waits;

use std::time::{Duration, Instant};

use super::{Engine, ListRequest};
use crate::atom::{Atom, AtomSpec};
use crate::driver::memory::Act;
use crate::lifecycle::State;

/// What is to be tested.
pub trait Fixture: Sync {
    /// An engine on a store of its own, with nothing in it.
    fn engine(&self) -> Box<dyn Engine>;

    /// A spec that does what the act says, with a grace of some tenths of a second.
    ///
    /// `None` where the back end has nothing like it; what needs it is skipped, and said to be.
    fn spec(&self, act: &Act) -> Option<AtomSpec>;

    /// Returns when a running atom behaves as its act says: a shell that is to
    /// ignore SIGTERM has said so to the kernel. At once, unless the fixture knows better.
    fn ready(&self, engine: &dyn Engine, atom: &Atom) {
        let _ = (engine, atom);
    }
}

/// A case: its name, and what panics when the engine fails it.
pub type Case = (&'static str, fn(&dyn Fixture));

/// All cases.
pub fn cases() -> Vec<Case> {
    [
        endings::CASES,
        stops::CASES,
        requests::CASES,
        find::CASES,
        retry::CASES,
        crowd::CASES,
        waits::CASES,
        batch::CASES,
        journal::CASES,
        #[cfg(target_os = "linux")]
        stdin::CASES,
    ]
    .concat()
}

/// Runs all cases, one after the other.
///
/// # Panics
///
/// When the engine fails one.
pub fn run(fixture: &dyn Fixture) {
    for (name, case) in cases() {
        println!("conformance: {name}");
        case(fixture);
    }
}

/// How long a case waits for what must happen, before it calls it a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A grace that no test lives to see the end of.
const LONG: Duration = Duration::from_secs(3600);

/// The fixture's spec for an act; says so when there is none.
fn spec(fixture: &dyn Fixture, act: &Act) -> Option<AtomSpec> {
    let spec = fixture.spec(act);
    if spec.is_none() {
        println!("SKIP: this back end has nothing like {act:?}");
    }
    spec
}

/// Creates an atom; whatever comes of it is told by the engine.
fn create(engine: &dyn Engine, spec: AtomSpec) -> Atom {
    engine.create(spec.into()).expect("an atom can be created")
}

/// Creates an atom, and returns when it behaves as its act says.
fn begin(fixture: &dyn Fixture, engine: &dyn Engine, spec: AtomSpec) -> Atom {
    let atom = create(engine, spec);
    assert_eq!(atom.state(), State::Running, "{atom:#?}");
    fixture.ready(engine, &atom);
    atom
}

/// Waits for an atom's end.
fn ended(engine: &dyn Engine, atom: &Atom) -> Atom {
    let request = super::WaitRequest::from(atom.id()).timeout(PATIENCE);
    engine.wait(&request).expect("the atom ends")
}

/// Asks again and again, with a pause, until the list shows what it should: for
/// what the engine does by itself, and tells nobody about.
fn until(engine: &dyn Engine, what: &str, shows: impl Fn(&[Atom]) -> bool) -> Vec<Atom> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let atoms = engine.list(&ListRequest::all()).expect("atoms can be listed");
        if shows(&atoms) {
            return atoms;
        }
        assert!(Instant::now() < patience, "never seen: {what}; there is {atoms:#?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
