//! Salvages that are killed, lose power, or meet failing calls: the damaged store stays as
//! it is, what is made is whole or has no name, and the next try succeeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use caesium::journal::{Fact, Journal, JournalOptions, salvage};

use super::calls::{CALLS, Shim, copy_tree};
use super::check::{Witness, all};
use super::damage::{Files, files};
use super::disk::{Disk, fast};
use super::host::{Heard, Host, PATIENCE, command, panics};
use super::table::{Dice, Row, is_long, rounds, skip};
use super::work::{End, Orders, failed, options, say};

const SEGMENT_BYTES: u64 = 4096;

fn damaged(base: &Path) -> PathBuf {
    base.join("damaged")
}

fn into(base: &Path) -> PathBuf {
    base.join("into")
}

/// Not in a test: what the host does.
pub(super) fn run(base: &Path) {
    say("salvaging");
    match salvage(&damaged(base), &into(base)) {
        Ok(told) => {
            for problem in &told.problems {
                say(&format!("problem {problem}"));
            }
            say(&format!("salvaged {} {}", told.recovered, told.lost));
        }
        Err(error) => failed("salvage", &error),
    }
}

/// A damaged store in a place of its own, and what it had.
struct Scene {
    place: tempfile::TempDir,
    before: Files,
    witness: Witness,
}

/// A closed store with parts of a history, of which pages are gone here and there.
fn scene() -> Scene {
    let place = fast();
    let dir = damaged(place.path());
    fs::create_dir(&dir).unwrap();
    let orders = Orders {
        round: 0,
        segment_bytes: SEGMENT_BYTES,
        writers: 1,
        lives: 120,
        read_first: false,
        end: End::Close,
        keep: 0,
    };
    let mut witness = Witness::default();
    let mut host = Host::start(command(&[], &dir, &orders.text()));
    let heard = host.listen(PATIENCE, |line| {
        witness.hear(line);
        line == "done"
    });
    assert_eq!(heard, Heard::Enough);
    host.end();
    let mut harmed = 0;
    for (name, mut bytes) in files(&dir) {
        if name.ends_with("db") && bytes.len() > 16_000 && harmed % 2 == 0 {
            // Among the frames: the keys that are made ahead come before them.
            let at = bytes.len() * 7 / 10;
            bytes[at..at + 3000].fill(0);
            fs::write(dir.join(&name), &bytes).unwrap();
        }
        harmed += usize::from(name.ends_with("db"));
    }
    assert!(harmed > 2, "there are parts");
    let before = files(&dir);
    Scene { place, before, witness }
}

impl Scene {
    /// What was left must be whole or nothing; salvaging again must succeed. Gives what was lost of
    /// what could be read: nothing.
    fn check(&self, base: &Path, what: &str, row: &mut Row) {
        self.check_told(base, what, false, row);
    }

    /// The same; `partly` when it was told that a file could not be read: its events, if they were the
    /// last ones, cannot be known of.
    fn check_told(&self, base: &Path, what: &str, partly: bool, row: &mut Row) {
        assert!(files(&damaged(base)) == self.before, "{what}: the damaged store was changed");
        if into(base).exists() {
            // It has its name, so it is all there.
            self.rebuilt(&into(base), what, partly, row);
            fs::remove_dir_all(into(base)).unwrap();
        } else {
            row.refused += 1;
        }
        salvage(&damaged(base), &into(base)).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.rebuilt(&into(base), what, false, row);
        *row.salvaged.get_or_insert(0) += 1;
        let left: Vec<_> = fs::read_dir(base).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "damaged" || name == "into"), "{what}: {left:?}");
        fs::remove_dir_all(into(base)).unwrap();
        row.rounds += 1;
    }

    /// Every number is there, as it was or lost.
    fn rebuilt(&self, dir: &Path, what: &str, partly: bool, row: &mut Row) {
        let options = || options(SEGMENT_BYTES).must_exist(true);
        let opened = Journal::open_dir(dir, options());
        let (journal, _) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        journal.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        let records = all(&journal).unwrap();
        let newest = self.witness.newest();
        if !partly {
            row.lost += newest.saturating_sub(records.len() as u64);
        }
        for (record, seq) in records.iter().zip(1..=newest) {
            let lost = matches!(record.fact, Fact::Lost);
            row.wrong += u64::from(record.seq != seq || !lost && !self.witness.told(record));
            row.acknowledged += u64::from(!lost);
        }
        assert_eq!((row.lost, row.wrong), (0, 0), "{what}");
        journal.close().unwrap();
    }

    /// A host that salvages; `prepare` may make it suffer.
    fn start(&self, base: &Path, prepare: impl FnOnce(&mut Command)) -> Host {
        let mut command = command(&[], base, "salvage 0");
        prepare(&mut command);
        Host::start(command)
    }

    /// How long one takes that nobody disturbs.
    fn usual(&self, row: &mut Row) -> Duration {
        let mut host = self.start(self.place.path(), |_| {});
        host.listen(PATIENCE, |line| line == "salvaging");
        let began = Instant::now();
        assert_eq!(host.listen(PATIENCE, |line| line.starts_with("salvaged")), Heard::Enough);
        let took = began.elapsed();
        host.end();
        self.check(self.place.path(), "nothing happens", row);
        took
    }
}

#[test]
fn whenever_a_salvage_is_killed_the_next_one_succeeds() {
    let scene = scene();
    let mut row = Row::new("kill -9 while it salvages");
    let usual = scene.usual(&mut row);
    let mut dice = Dice::new(0x7361_6C76);
    for round in 0..rounds("salvage", 16, 1_000) {
        let mut host = scene.start(scene.place.path(), |_| {});
        host.listen(PATIENCE, |line| line == "salvaging");
        let moment = usual.as_micros() as u64 * 11 / 10;
        host.listen(Duration::from_micros(dice.below(moment)), |_| false);
        host.kill();
        let (_, errors) = host.end();
        assert!(panics(&errors).is_empty(), "{errors}");
        scene.check(scene.place.path(), &format!("round {round}"), &mut row);
    }
    row.print();
}

#[test]
fn whenever_the_power_is_cut_while_it_salvages_the_next_one_succeeds() {
    let scene = scene();
    let mut row = Row::new("power cut while it salvages, ext4");
    let usual = scene.usual(&mut row);
    let mut dice = Dice::new(0x7361_6C70);
    for round in 0..rounds("salvagepower", 3, 100) {
        let mut disk = match Disk::make("ext4") {
            Ok(disk) => disk,
            Err(lacking) => return skip(&format!("power cuts while it salvages: {lacking}")),
        };
        let base = disk.store();
        fs::create_dir(damaged(&base)).unwrap();
        copy_tree(&damaged(scene.place.path()), &damaged(&base));
        rustix::fs::syncfs(fs::File::open(&base).unwrap()).unwrap();
        let mut host = scene.start(&base, |_| {});
        host.listen(PATIENCE, |line| line == "salvaging");
        // Syncs take their time there.
        let moment = usual.as_micros() as u64 * 3;
        let told = host
            .listen(Duration::from_micros(dice.below(moment)), |line| line.starts_with("salvaged"));
        disk.cut();
        host.kill();
        host.end();
        disk.restart();
        let base = disk.store();
        // What was said to be done is there.
        assert!(told != Heard::Enough || into(&base).is_dir(), "round {round}: it is gone");
        scene.check(&base, &format!("round {round}"), &mut row);
        disk.unmount();
    }
    row.print();
}

/// Every call of every kind, failing once and from then on, torn, and the last one that is made.
#[test]
fn whichever_call_of_a_salvage_fails_the_next_one_succeeds() {
    let shim = match Shim::build() {
        Ok(shim) => shim,
        Err(lacking) => return skip(&format!("failing calls of a salvage: {lacking}")),
    };
    let scene = scene();
    let mut row = Row::new("each call of a salvage fails, or is its last");
    let each =
        CALLS.iter().flat_map(|call| ["once", "forever"].map(|how| ((*call).to_owned(), how)));
    let torn = ("write".to_owned(), "torn");
    let each = each.chain([torn, (CALLS.join(","), "kill")]);
    for (calls, how) in each {
        let mut nth = 1;
        loop {
            let base = scene.place.path();
            let mut hit = false;
            let mut said = Vec::new();
            let mut host = scene.start(base, |command| shim.fail(command, &calls, how, nth));
            let heard = host.listen(PATIENCE, |line| {
                hit |= line.starts_with("hit ");
                said.push(line.to_owned());
                false
            });
            let what = format!("{calls} {nth} {how}: {said:?}");
            assert_eq!(heard, Heard::Over, "{what}: it hangs");
            let (status, errors) = host.end();
            assert!(panics(&errors).is_empty(), "{what}: {errors}");
            assert!(status.success() || how == "kill" && hit, "{what}: {status} {errors}");
            assert!(said.iter().any(|line| line == "salvaging"), "{what}: it did not begin");
            let failure = said.iter().find_map(|line| line.strip_prefix("failed salvage "));
            if let Some(failure) = failure {
                let kind = failure.split(' ').next().unwrap_or_default();
                // Typed; and nothing that somebody would take for a store is left.
                let typed = ["Io", "Damaged", "HistoryDamaged", "Poisoned", "InDoubt", "NoSpace"];
                assert!(typed.contains(&kind), "{what}");
                row.reported += 1;
            }
            let unread = |line: &String| {
                line.starts_with("problem ")
                    && (line.contains("cannot be opened") || line.contains("cannot be read"))
            };
            scene.check_told(base, &what, said.iter().any(unread), &mut row);
            if !hit {
                break;
            }
            nth = if is_long() { nth + 1 } else { nth * 3 + 1 };
        }
    }
    row.print();
}

/// What the journal is like that a salvage makes: nobody has to say how it was kept.
#[test]
fn what_is_salvaged_opens_with_the_usual_options() {
    let scene = scene();
    let base = scene.place.path();
    let told = salvage(&damaged(base), &into(base)).unwrap();
    assert!(told.lost > 0 && told.recovered > told.lost, "{told:?}");
    let (journal, _) = Journal::open_dir(&into(base), JournalOptions::default()).unwrap();
    assert_eq!(all(&journal).unwrap().len() as u64, journal.recent_seq());
}
