//! A kill at every named point of create, stop, delete, retry, reconcile and of the keeper's own start.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use caesium::fuzzing::POINTS;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::process::Signal;

use super::check::check;
use super::host::{Host, Place, acknowledged};
use super::processes::{PATIENCE, keepers, signal, until};
use super::table::is_long;
use super::tally::Tally;

/// Who is killed when the point is reached.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Host,
    Keeper,
    Both,
}

/// The FIFO that a stopped process says its pid into.
struct Told {
    path: PathBuf,
    file: File,
}

impl Told {
    fn new(place: &Place) -> Self {
        let path = place.path().join("told");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        // For both, so that it opens at once and never ends.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(&path, flags, Mode::empty()).unwrap().into();
        Self { path, file }
    }

    /// The pid of who has stopped, if somebody has.
    fn hear(&self) -> Option<u32> {
        let mut line = String::new();
        BufReader::new(&self.file).read_line(&mut line).ok()?;
        line.trim().parse().ok()
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Goes through the scenario up to the point, kills, and checks what is left.
fn kill_at(point: &str, victim: Victim, cgroups: bool, tally: &mut Tally) {
    let place = Place::new(cgroups);
    let told = Told::new(&place);
    let path = told.path.to_str().unwrap().to_owned();
    let env = [("CAESIUM_CRASH_POINT", point.to_owned()), ("CAESIUM_CRASH_TOLD", path)];
    let host = Host::start("scenario", &place, &env);
    let mut lines = Vec::new();
    let stopped = until(&format!("{point} is reached"), || {
        while let Some(line) = host.hear(Duration::ZERO) {
            assert_ne!(line, "done", "{point} was never reached");
            lines.push(line);
        }
        told.hear()
    });
    until("it has stopped", || is_stopped(stopped).then_some(()));
    // Whoever passes here next is not stopped.
    std::fs::remove_file(&told.path).unwrap();
    let keeper = || match stopped {
        pid if pid == host.pid() => keepers(&place.atoms()),
        pid => vec![pid],
    };
    if victim != Victim::Host {
        for keeper in keeper() {
            signal(keeper, Signal::KILL);
            tally.kills += 1;
        }
    }
    match victim {
        Victim::Host | Victim::Both => {
            lines.extend(host.kill());
            tally.kills += 1;
            signal(stopped, Signal::CONT);
        }
        Victim::Keeper => {
            // The host goes on, and has another keeper.
            signal(stopped, Signal::CONT);
            loop {
                let line = host
                    .hear(PATIENCE)
                    .unwrap_or_else(|| panic!("{point}: the host hangs, or died"));
                if line == "done" {
                    break;
                }
                lines.push(line);
            }
            lines.extend(host.kill());
            tally.kills += 1;
        }
    }
    let said: Vec<_> = lines.iter().filter_map(|line| acknowledged(line)).collect();
    check(&place, &said, victim != Victim::Host, tally);
    assert!(tally.is_good(), "{point}, {victim:?} killed, cgroups: {cgroups}: {tally:#?}");
}

fn at_every_point(cgroups: bool) {
    let victims = [Victim::Host, Victim::Keeper, Victim::Both];
    let with = if cgroups { "cgroups" } else { "reapers" };
    let mut sums = victims.map(|victim| {
        Tally::new(format!("each point, {}, {with}", format!("{victim:?}").to_lowercase()))
    });
    // A reaper writes that down itself.
    let passed = |point: &&&str| cgroups || **point != "keeper/has-written-the-status";
    for (number, point) in POINTS.iter().filter(passed).enumerate() {
        for (place, victim) in victims.into_iter().enumerate() {
            // In the short form each point has one victim.
            if is_long() || (number + usize::from(cgroups)) % victims.len() == place {
                kill_at(point, victim, cgroups, &mut sums[place]);
            }
        }
    }
    for sum in sums {
        sum.print();
    }
}

#[test]
fn a_kill_at_any_point_leaves_nothing_lost_doubled_orphaned_or_made_up() {
    at_every_point(true);
}

#[test]
fn a_kill_at_any_point_without_cgroups_leaves_nothing_lost_doubled_orphaned_or_made_up() {
    at_every_point(false);
}
