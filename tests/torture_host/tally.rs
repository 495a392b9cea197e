//! What came of the kills: one row for each kind.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;

use super::table::tell;

/// One row of the table.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) kind: String,
    /// SIGKILLs of hosts and keepers.
    pub(super) kills: u64,
    /// Atoms whose creation was acknowledged.
    pub(super) atoms: u64,
    /// Of these: the journal does not know them, or has taken back what it has said of them.
    pub(super) lost: Vec<String>,
    /// Atoms that ran twice.
    pub(super) doubled: Vec<String>,
    /// Processes that ran for no atom of the journal, or for one that had ended.
    pub(super) orphaned: Vec<String>,
    /// Endings that are not what the process itself has witnessed.
    pub(super) wrong: Vec<String>,
    /// Endings that nobody knows, by their reason.
    pub(super) unknown: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }

    pub(super) fn is_good(&self) -> bool {
        self.lost.is_empty()
            && self.doubled.is_empty()
            && self.orphaned.is_empty()
            && self.wrong.is_empty()
    }

    /// Shows the row, and adds it to the table that `scripts/torture-host` prints.
    pub(super) fn print(&self) {
        let unknown: Vec<_> =
            self.unknown.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let unknown = if unknown.is_empty() { "0".to_owned() } else { unknown.join(", ") };
        let row = format!(
            "| {} | {} | {} | {} | {} | {} | {} | {unknown} |\n",
            self.kind,
            self.kills,
            self.atoms,
            self.lost.len(),
            self.doubled.len(),
            self.orphaned.len(),
            self.wrong.len(),
        );
        tell(&row);
        if let Some(path) = std::env::var_os("CAESIUM_TORTURE_TABLE") {
            let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(row.as_bytes()).unwrap();
        }
    }
}
