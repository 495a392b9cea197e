//! A full disk: 64 MB, and ballast in what the store leaves.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use caesium::journal::{Journal, JournalError, Retention};

use super::check::Witness;
use super::disk::Disk;
use super::host::{Heard, Host, PATIENCE, command, panics};
use super::table::{Row, rounds, skip};
use super::work::{acknowledge, append, failed, live, options, say};

const SEGMENT_BYTES: u64 = 64 << 10;
/// Atoms that run when the disk becomes full.
const RUNNING: std::ops::Range<u64> = 2..60;
/// Lives before that, and after.
const LIVES: u64 = 60;

/// What a host does, by turns.
mod phase {
    pub(super) const FILL_AND_CLOSE: u64 = 0;
    pub(super) const FILL_AND_PARK: u64 = 1;
    pub(super) const REOPEN: u64 = 2;
    pub(super) const GO_ON: u64 = 3;
    pub(super) const REFUSED: u64 = 4;
    pub(super) const COMPACT: u64 = 5;
}

/// What a history that is to be compacted may take, and how many events a cut leaves of it.
const HISTORY_BYTES: u64 = 6 << 20;
const KEPT: u64 = 500;

/// A number for each event: those that run are in the first thousand.
fn lives(phase: u64) -> std::ops::Range<u64> {
    let base = (phase + 1) * 1_000_000;
    base..base + LIVES
}

/// Not in a test: what the host does.
pub(super) fn fill(dir: &Path, phase: u64) {
    let (journal, _) = match Journal::open_dir(dir, options(SEGMENT_BYTES)) {
        Ok(opened) => opened,
        Err(error) => return failed("open", &error),
    };
    match phase {
        phase::FILL_AND_CLOSE | phase::FILL_AND_PARK => {
            for number in lives(phase) {
                live(&journal, number).unwrap();
            }
            for number in RUNNING {
                step(&journal, number, 0);
                step(&journal, number, 1);
            }
            ballast(dir, 0);
            refuse(&journal, 10_000_000);
            // Those that run can still be seen to end.
            for number in RUNNING {
                step(&journal, number, 2);
            }
            if phase == phase::FILL_AND_PARK {
                say("parked");
                loop {
                    std::thread::park();
                }
            }
        }
        phase::REOPEN => {
            // Nor is there room now, and those that have ended can be deleted.
            refuse(&journal, 20_000_000);
            for number in RUNNING {
                step(&journal, number, 3);
                step(&journal, number, 4);
            }
            if let Err(error) = journal.verify() {
                failed("verify", &error);
            }
        }
        phase::GO_ON => {
            for number in lives(phase) {
                live(&journal, number).unwrap();
            }
            journal.verify().unwrap();
        }
        phase::COMPACT => {
            // The history takes all that others have left.
            ballast(dir, HISTORY_BYTES);
            let mut number = (phase + 1) * 1_000_000;
            loop {
                match live(&journal, number) {
                    Ok(()) => number += 1,
                    Err(JournalError::NoSpace { .. }) => break,
                    Err(error) => panic!("{error}\n{}", room(dir)),
                }
            }
            ballast(dir, 0);
            refuse(&journal, 30_000_000);
            let keep = Retention { max_events: Some(KEPT), ..Retention::EVERYTHING };
            let compacted = journal.compact(&keep).unwrap();
            say(&format!("oldest {}", compacted.oldest));
            assert!(compacted.dropped > 0, "{compacted:?}");
            // What that has freed is enough to go on, as soon as the file system gives it to others.
            let deadline = Instant::now() + PATIENCE / 4;
            for number in 40_000_000..40_000_000 + LIVES {
                while let Err(error) = live(&journal, number) {
                    let full = matches!(error, JournalError::NoSpace { .. });
                    assert!(full && Instant::now() < deadline, "{error}\n{}", room(dir));
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            }
            journal.compact(&keep).unwrap();
            journal.verify().unwrap_or_else(|error| panic!("{error}\n{}", room(dir)));
        }
        other => panic!("no phase {other}"),
    }
    journal.close().unwrap();
    say("closed");
}

fn step(journal: &Journal, number: u64, nth: u64) {
    acknowledge(append(journal, number, nth..nth + 1).unwrap(), number, nth, 1).unwrap();
}

/// Creates until there is no room, which must be said as such, and leave nothing.
fn refuse(journal: &Journal, from: u64) {
    for number in from.. {
        let before = journal.with_view(|view| view.len());
        match append(journal, number, 0..1) {
            Ok(ticket) => acknowledge(ticket, number, 0, 1).unwrap(),
            Err(JournalError::NoSpace { source }) => {
                assert_eq!(source.kind(), ErrorKind::StorageFull, "{source}");
                assert_eq!(journal.with_view(|view| view.len()), before);
                return say(&format!("refused {number}"));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What takes how much of the disk.
fn room(dir: &Path) -> String {
    let mut room = String::new();
    for words in [["df", "-k"], ["du", "-ak"]] {
        let output = Command::new(words[0]).args(&words[1..]).arg(dir).output().unwrap();
        room.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    room
}

/// Fills the file system to the last byte, and then leaves so much.
fn ballast(dir: &Path, leave: u64) {
    let path = dir.with_file_name("ballast");
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    for piece in [1 << 20, 4096, 1] {
        let piece = vec![7; piece];
        loop {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        // What was only promised in memory until now is given blocks, or is not.
        let _ = file.sync_all();
    }
    if leave > 0 {
        file.set_len(file.metadata().unwrap().len() - leave).unwrap();
        file.sync_all().unwrap();
    }
}

fn host(disk: &Disk, phase: u64, witness: &mut Witness) -> Vec<String> {
    let mut host = Host::start(command(&[], &disk.store(), &format!("full {phase}")));
    let mut said = Vec::new();
    let heard = host.listen(PATIENCE, |line| {
        if !witness.hear(line) {
            said.push(line.to_owned());
        }
        line == "parked"
    });
    assert_ne!(heard, Heard::Late, "it hangs: {said:?}");
    if phase == phase::FILL_AND_PARK {
        host.kill();
    }
    let (status, errors) = host.end();
    assert!(status.success() || phase == phase::FILL_AND_PARK, "{phase}: {said:?} {errors}");
    assert!(panics(&errors).is_empty(), "{errors}");
    said
}

fn has(said: &[String], beginning: &str) -> bool {
    said.iter().any(|line| line.starts_with(beginning))
}

#[test]
fn on_a_full_disk_atoms_are_refused_and_endings_are_not_and_space_freed_is_enough() {
    for kind in ["tmpfs", "ext4"] {
        let mut row = Row::new(format!("full disk, {kind}, 64 MB"));
        for round in 0..rounds("full", 2, 20) {
            let disk = match Disk::make(kind) {
                Ok(disk) => disk,
                Err(lacking) => {
                    skip(&format!("a full {kind}: {lacking}"));
                    break;
                }
            };
            let mut witness = Witness::default();
            let free = || fs::remove_file(disk.path().join("ballast")).unwrap();
            if round % 4 == 3 {
                // Full before there is a store.
                ballast(&disk.store(), 0);
                let said = host(&disk, phase::REFUSED, &mut witness);
                assert!(has(&said, "failed open Io"), "{said:?}");
                row.refused += 1;
                free();
            }
            let filled = host(&disk, round % 2, &mut witness);
            assert!(has(&filled, "refused"), "{filled:?}");
            // A host finds the disk full from its first moment to its last.
            let reopened = host(&disk, phase::REOPEN, &mut witness);
            assert!(has(&reopened, "refused") && has(&reopened, "closed"), "{reopened:?}");
            row.reported += u64::from(has(&reopened, "failed verify"));
            free();
            let went_on = host(&disk, phase::GO_ON, &mut witness);
            assert!(has(&went_on, "closed"), "{went_on:?}");
            let verdict = witness.check(&disk.store(), SEGMENT_BYTES);
            verdict.count(&mut row);
            assert!(verdict.is_good(), "{kind}, round {round}: {verdict:?}");
            row.acknowledged += witness.acknowledged;
            row.rounds += 1;
        }
        if row.rounds > 0 {
            row.print();
        }
    }
}

#[test]
fn a_full_disk_is_made_room_on_by_compacting() {
    for kind in ["tmpfs", "ext4"] {
        let mut row = Row::new(format!("full disk that is compacted, {kind}, 64 MB"));
        for round in 0..rounds("compactfull", 1, 20) {
            let disk = match Disk::make(kind) {
                Ok(disk) => disk,
                Err(lacking) => {
                    skip(&format!("a full {kind} that is compacted: {lacking}"));
                    break;
                }
            };
            let mut witness = Witness::of_cuts(KEPT);
            let said = host(&disk, phase::COMPACT, &mut witness);
            assert!(has(&said, "refused") && has(&said, "closed"), "{said:?}");
            let verdict = witness.check(&disk.store(), SEGMENT_BYTES);
            verdict.count(&mut row);
            assert!(verdict.is_good(), "{kind}, round {round}: {verdict:?}");
            row.acknowledged += witness.acknowledged;
            row.rounds += 1;
        }
        if row.rounds > 0 {
            row.print();
        }
    }
}
