//! How many rounds, and what came of them: one row for each kind.

use std::fs::OpenOptions;
use std::io::Write;

/// One row of the table.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) kind: String,
    pub(super) rounds: u64,
    /// Events whose acknowledgement was heard.
    pub(super) acknowledged: u64,
    /// Of these, or of what was once shown: not there after reopening.
    pub(super) lost: u64,
    /// Events that nobody appended, that are out of order, or follow a hole.
    pub(super) wrong: u64,
    /// Stores that were not opened, with a typed error.
    pub(super) refused: u64,
    /// Stores that were opened, and said what is wrong with them.
    pub(super) reported: u64,
    /// Of these two, stores that were rebuilt with everything that could be read; `None` where that was not tried.
    pub(super) salvaged: Option<u64>,
}

impl Row {
    pub(super) fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }

    /// Shows the row, and adds it to the table that `scripts/torture` prints.
    pub(super) fn print(&self) {
        let Self { kind, rounds, acknowledged, lost, wrong, refused, reported, salvaged } = self;
        let salvaged = salvaged.map_or("–".to_owned(), |salvaged| salvaged.to_string());
        let row = format!(
            "| {kind} | {rounds} | {acknowledged} | {lost} | {wrong} | {refused} | {reported} | {salvaged} |\n"
        );
        tell(&row);
        if let Some(path) = std::env::var_os("CAESIUM_TORTURE_TABLE") {
            let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(row.as_bytes()).unwrap();
        }
    }
}

/// How many rounds of a kind: its own variable, or the long or the short form.
pub(super) fn rounds(kind: &str, short: u64, long: u64) -> u64 {
    let own = std::env::var(format!("CAESIUM_TORTURE_{}", kind.to_uppercase()));
    if let Ok(own) = own {
        return own.parse().unwrap();
    }
    if is_long() { long } else { short }
}

pub(super) fn is_long() -> bool {
    std::env::var("CAESIUM_TORTURE").is_ok_and(|form| form == "long")
}

/// Says something that is seen also when the test passes.
pub(super) fn tell(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

pub(super) fn skip(what: &str) {
    tell(&format!("SKIP: {what}\n"));
}

/// Numbers that look random, from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
}
