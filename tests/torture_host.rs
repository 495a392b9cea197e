//! Hosts and keepers that are killed in the midst of their work: nothing is lost, nothing runs twice, nothing
//! runs that the journal does not know, and no outcome is made up.
//!
//! The short forms run with every other test. The long forms, and the table of what they found, are behind
//! `scripts/torture-host`; `docs/supervision.md` explains.

#![cfg(target_os = "linux")]

mod torture_host {
    mod check;
    mod host;
    mod points;
    mod processes;
    mod random;
    #[path = "../torture/table.rs"]
    #[allow(dead_code, reason = "the rows of the journal's torture are others")]
    mod table;
    mod tally;
}
