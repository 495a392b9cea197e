//! The journal on the real thing: power cuts, killed hosts, full disks, failing calls, damage.
//!
//! The short forms run with every other test. The long forms, and the table of
//! what they found, are behind `scripts/torture`; `docs/durability.md` explains.

#![cfg(target_os = "linux")]

mod common;

mod torture {
    mod calls;
    mod check;
    mod cutting;
    mod damage;
    mod disk;
    mod full;
    mod host;
    mod kill;
    mod power_cut;
    mod salvaging;
    mod table;
    mod work;
}
