//! Histories of operations, drawn from a seed.

use std::io::ErrorKind;

use caesium::journal::storage::{Call, Crash, Failing, Keep};

/// A small generator of chances (splitmix64): the same seed gives the same history on every machine.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}

/// One step of a history. What is random in it has a seed of its own, so that
/// leaving out one operation leaves the others as they are.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Appends up to `facts` facts in one change; `give_up` refuses it at its end.
    Change { facts: u64, seed: u64, give_up: bool },
    /// The writer writes one group.
    Step,
    /// The writer writes all there is; every ticket is waited for.
    Wait,
    /// The packer packs what is sealed.
    Pack,
    /// Reads from an event on.
    Read { from: u64 },
    /// Follows from an event on.
    Subscribe { from: u64 },
    /// Takes what the subscription has.
    Poll,
    /// Verifies the whole journal.
    Verify,
    /// Drops all but the newest `keep` events.
    Compact { keep: u64 },
    /// Closes the journal, lets the machine crash or not, and opens it again.
    Close { crash: Option<Crash>, meanwhile: Option<Trouble> },
    /// Ends host or machine as they are, and opens the journal again.
    Crash { crash: Crash, meanwhile: Option<Trouble> },
    /// From now on something is wrong.
    Trouble(Trouble),
    /// So many bytes may still be allocated.
    Full { left: u64 },
    /// There is room again.
    Free,
}

/// What goes wrong, now or while the journal is opened.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The power is cut after some more calls.
    Cut { after: u64, crash: Crash },
    /// A call fails.
    Fail { call: Call, nth: u64, failing: Failing, kind: ErrorKind },
    /// Appending to the history fails; what was appended is `there` all the same.
    History { nth: u64, there: bool },
}

/// How the journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub segment_bytes: u64,
    pub batched: bool,
}

/// A history: what is done to one store, from nothing on.
#[derive(Debug, Clone)]
pub struct Plan {
    pub setting: Setting,
    pub operations: Vec<Operation>,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let setting = Setting {
            segment_bytes: chance.pick(&[1, 600, 2048, 2048, 6000, 20_000]),
            batched: chance.one_in(4),
        };
        // Some histories know no failures, so that crashes meet deep states.
        let troubles = !chance.one_in(3);
        let count = 10 + chance.below(50);
        let operations = (0..count).map(|_| operation(&mut chance, troubles)).collect();
        Self { setting, operations }
    }
}

fn operation(chance: &mut Chance, troubles: bool) -> Operation {
    match chance.below(100) {
        0..40 => Operation::Change {
            facts: chance.pick(&[1, 1, 1, 2, 3, 8, 30]),
            seed: chance.next(),
            give_up: chance.one_in(20),
        },
        40..52 => Operation::Step,
        52..62 => Operation::Wait,
        62..68 => Operation::Pack,
        68..71 => Operation::Read { from: chance.below(80) },
        71..73 => Operation::Subscribe { from: chance.below(80) },
        73..76 => Operation::Poll,
        76 => Operation::Verify,
        // Drawn beside the others, so that these stay what they were.
        77 => Operation::Compact { keep: chance.clone().below(40) },
        78..83 => Operation::Close {
            crash: chance.one_in(3).then(|| crash(chance)),
            meanwhile: meanwhile(chance, troubles),
        },
        83..91 => Operation::Crash { crash: crash(chance), meanwhile: meanwhile(chance, troubles) },
        91..98 if troubles => Operation::Trouble(trouble(chance)),
        98 if troubles => Operation::Full { left: chance.pick(&[0, 500, 5000]) },
        99 if troubles => Operation::Free,
        _ => Operation::Trouble(cut(chance)),
    }
}

fn meanwhile(chance: &mut Chance, troubles: bool) -> Option<Trouble> {
    match chance.below(6) {
        0 => Some(cut(chance)),
        1 if troubles => Some(trouble(chance)),
        _ => None,
    }
}

fn crash(chance: &mut Chance) -> Crash {
    Crash {
        seed: chance.next(),
        keep: chance.pick(&[Keep::Some, Keep::Some, Keep::Some, Keep::Nothing, Keep::All]),
        sector: chance.pick(&[512, 4096]),
    }
}

fn cut(chance: &mut Chance) -> Trouble {
    Trouble::Cut { after: chance.below(30), crash: crash(chance) }
}

fn trouble(chance: &mut Chance) -> Trouble {
    match chance.below(8) {
        0..2 => cut(chance),
        2 => Trouble::History { nth: 1 + chance.below(3), there: chance.one_in(2) },
        _ => Trouble::Fail {
            call: chance.pick(&Call::ALL),
            nth: 1 + chance.below(8),
            failing: chance.pick(&[Failing::Once, Failing::Once, Failing::Forever]),
            kind: chance.pick(&[ErrorKind::Other, ErrorKind::StorageFull]),
        },
    }
}
