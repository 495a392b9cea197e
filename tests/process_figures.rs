//! Figures, each beside its baseline in the same run. Not asserted: machines differ.
//!
//! `cargo test --release --test process_figures -- --ignored --nocapture --test-threads=1`

#![cfg(target_os = "linux")]

mod process_harness;

use std::fs::File;
use std::process::{Command as Program, Stdio};
use std::time::Instant;

use caesium::AtomSpec;
use caesium::driver::{Command, Order};
use process_harness::{World, sh};

#[test]
#[ignore = "a measurement"]
fn log_throughput_beside_cat_into_a_file() {
    const BYTES: u64 = 4 << 30;
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let began = Instant::now();
        let mut head = Program::new("head")
            .args(["-c", &BYTES.to_string(), "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A bounded log writes over what it has dropped; so that both write as much, cat has a file system's cache.
        let cat = Program::new("cat")
            .stdin(head.stdout.take().unwrap())
            .stdout(File::create(dir.path().join("cat")).unwrap())
            .status();
        assert!(cat.unwrap().success());
        head.wait().unwrap();
        let cat = began.elapsed();
        std::fs::remove_file(dir.path().join("cat")).unwrap();
        for max in [16 << 20, 8 << 30] {
            let world = World::at(dir.path().join("atoms"));
            let spec = AtomSpec::command("head")
                .args(["-c".to_owned(), BYTES.to_string(), "/dev/zero".to_owned()])
                .log_max(max);
            let began = Instant::now();
            let atom = world.start(spec);
            world.exit(atom);
            let ours = began.elapsed();
            world.remove(atom, None);
            let rate = |time: std::time::Duration| BYTES as f64 / time.as_secs_f64() / 1e6;
            println!(
                "round {round}: cat {:.0} MB/s, log of {} MiB {:.0} MB/s, ratio {:.2}",
                rate(cat),
                max >> 20,
                rate(ours),
                cat.as_secs_f64() / ours.as_secs_f64()
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn spawn_rate_beside_bare_commands() {
    const ATOMS: usize = 1000;
    for round in 0..3 {
        let began = Instant::now();
        for _ in 0..ATOMS {
            Program::new("/bin/true").stdin(Stdio::null()).status().unwrap();
        }
        let bare = began.elapsed();
        let world = World::new();
        let began = Instant::now();
        let mut atoms = Vec::new();
        for _ in 0..ATOMS {
            let (atom, spec) = world.prepare(AtomSpec::command("/bin/true"));
            world.send(Command::Start(Order { atom, spec }));
            world.exit(atom);
            atoms.push(atom);
        }
        let one = began.elapsed();
        for atom in atoms {
            world.send(Command::Remove { atom, handle: None });
        }
        world.sync(1);
        let world = World::new();
        let began = Instant::now();
        let mut flight = std::collections::VecDeque::new();
        for _ in 0..ATOMS {
            if flight.len() == 8 {
                world.exit(flight.pop_front().unwrap());
            }
            flight.push_back(world.start(AtomSpec::command("/bin/true")));
        }
        for atom in flight {
            world.exit(atom);
        }
        let eight = began.elapsed();
        let rate = |time: std::time::Duration| ATOMS as f64 / time.as_secs_f64();
        println!(
            "round {round}: bare {:.0}/s, driver {:.0}/s ({:.2}), 8 in flight {:.0}/s",
            rate(bare),
            rate(one),
            rate(one) / rate(bare),
            rate(eight)
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn time_to_adopt_a_thousand() {
    use caesium::State;
    use caesium::driver::{Driver, Remembered, Sighting};
    const ATOMS: usize = 1000;
    let first = World::new();
    let spec = sh("exec sleep 1000");
    let atoms: Vec<_> = (0..ATOMS).map(|_| first.start(spec.clone())).collect();
    let known: Vec<_> = atoms
        .iter()
        .map(|atom| {
            let (_, handle, at) = first.started(*atom);
            Remembered {
                handle: Some(handle),
                started_at: Some(at),
                ..process_harness::remembered(*atom, &spec, State::Running)
            }
        })
        .collect();
    first.driver.close();
    let second = World::at(&first.atoms);
    let began = Instant::now();
    for one in &known {
        second.send(Command::Look(one.clone()));
    }
    second.sync(1);
    println!("{ATOMS} live atoms adopted in {:?}", began.elapsed());
    for one in known {
        assert_eq!(second.look(one.clone()), Sighting::Adopted);
        second.send(Command::Remove { atom: one.order.atom, handle: one.handle });
    }
    for atom in atoms {
        second.removed(atom);
    }
}
