//! The process driver passes the suite that every driver has to pass.

#![cfg(target_os = "linux")]

mod conformance_harness;

use caesium::engine::conformance;
use conformance_harness::{By, Processes};

#[test]
fn the_process_driver_conforms() {
    conformance::run(&Processes::new(By::Host));
}

#[test]
fn the_keeper_conforms() {
    conformance::run(&Processes::new(By::KeeperWithCgroups));
}

#[test]
fn the_keeper_conforms_without_cgroups() {
    conformance::run(&Processes::new(By::KeeperWithReapers));
}
