//! Damage to whole stores: what opening, reading and going on make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use caesium::journal::{Fact, Journal, JournalError, Record, salvage};

use super::calls::{copy_tree, packed};
use super::check::Witness;
use super::disk::fast;
use super::host::{Heard, Host, PATIENCE, command, panics};
use super::table::{Dice, Row, rounds, tell};
use super::work::{End, Orders, live, options, say};

const SEGMENT_BYTES: u64 = 4096;
const PAGE: usize = 4096;
/// Events of one life: no group of the hosts here has more.
const GROUP: u64 = 5;

/// The stores that are damaged: name, lives, and how the host ended.
const TEMPLATES: [(&str, u64, End); 5] = [
    ("clean", 120, End::Close),
    ("unclean", 121, End::Park),
    ("small", 4, End::Close),
    ("small-unclean", 5, End::Park),
    ("one-segment-unclean", 1, End::Park),
];

/// The files of a store, by their path in it.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(super) fn files(dir: &Path) -> Files {
    let mut found = Files::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

fn make_templates(base: &Path) {
    for (name, lives, end) in TEMPLATES {
        let dir = base.join(name);
        fs::create_dir(&dir).unwrap();
        let orders = Orders {
            round: 0,
            segment_bytes: SEGMENT_BYTES,
            writers: 1,
            lives,
            read_first: false,
            end,
            keep: 0,
        };
        let mut host = Host::start(command(&[], &dir, &orders.text()));
        let mut told = String::new();
        let heard = host.listen(PATIENCE, |line| {
            told += &format!("{line}\n");
            line == "parked" || line == "done"
        });
        assert_eq!(heard, Heard::Enough, "{told}");
        if end == End::Park {
            if lives > 100 {
                packed(&dir);
            }
            host.kill();
        }
        host.end();
        fs::write(base.join(format!("{name}.told")), told).unwrap();
    }
}

#[test]
fn whatever_is_damaged_nothing_is_lost_in_silence() {
    let base = fast();
    make_templates(base.path());
    let mut row = Row::new("damage");
    let all = rounds("damage", 60, 5_000);
    let mut intact = 0;
    let batch = 50;
    let mut findings = Vec::new();
    for from in (0..all).step_by(batch) {
        let until = all.min(from + batch as u64);
        let mut host = Host::start(command(&[], base.path(), &format!("damage {from} {until}")));
        let mut judged = from;
        let heard = host.listen(PATIENCE * 4, |line| {
            let Some(verdict) = line.strip_prefix("judged ") else { return line == "done" };
            judged += 1;
            let mut words = verdict.split(' ');
            let (what, events) = (words.next().unwrap(), words.next().unwrap());
            row.acknowledged += events.parse::<u64>().unwrap();
            row.rounds += 1;
            let salvaged = words.next().is_some_and(|word| word == "salvaged");
            if salvaged {
                // How many stores were rebuilt that could not be used as they were.
                let harmed = what == "refused" || what == "reported";
                *row.salvaged.get_or_insert(0) += u64::from(harmed);
            }
            match what {
                "intact" => intact += 1,
                "refused" => row.refused += 1,
                "cut" | "reported" => row.reported += 1,
                "shortened" => {
                    row.lost += 1;
                    findings.push(verdict.to_owned());
                }
                _ => findings.push(verdict.to_owned()),
            }
            false
        });
        if heard != Heard::Enough {
            findings.push(format!("store {judged}: the host ended or hangs"));
            host.kill();
        }
        let (status, errors) = host.end();
        assert!(status.success() || heard != Heard::Enough, "{errors}");
        findings.extend(panics(&errors).iter().map(|panic| (*panic).to_owned()));
    }
    row.print();
    tell(&format!("damage: {intact} of them intact\n"));
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Not in a test: judges stores, each damaged as its number says.
pub(super) fn judge_all(base: &Path, from: u64, until: u64) {
    for number in from..until {
        let mut dice = Dice::new(number);
        let (name, _, end) = TEMPLATES[match dice.below(10) {
            0..=3 => 0,
            4..=7 => 1,
            8 => 2 + dice.below(2) as usize,
            _ => 4,
        }];
        let mut witness = Witness::default();
        for line in fs::read_to_string(base.join(format!("{name}.told"))).unwrap().lines() {
            witness.hear(line);
        }
        let events = witness.acknowledged;
        let dir = fast();
        copy_tree(&base.join(name), dir.path());
        let what = damage(dir.path(), &mut dice);
        let stand = Stand {
            dir: dir.path(),
            witness: &witness,
            unclean: end == End::Park,
            witness_files: &files(&base.join(name)),
        };
        // First, because it must not write to it, and others may.
        let salvaged = catch_unwind(AssertUnwindSafe(|| stand.salvage(&what)));
        let salvaged = salvaged.unwrap_or_else(|_| Err("it panics".to_owned()));
        let verdict = catch_unwind(AssertUnwindSafe(|| stand.judge(&what, number)));
        let verdict = verdict.unwrap_or_else(|_| Err("it panics".to_owned()));
        let verdict = verdict.and_then(|verdict| match salvaged {
            Ok(salvaged) => Ok(format!("{verdict} {events} {salvaged}")),
            Err(problem) => Err(format!("salvage: {problem}")),
        });
        match verdict {
            Ok(verdict) => say(&format!("judged {verdict}")),
            Err(problem) => {
                let problem = problem.replace('\n', " ");
                say(&format!(
                    "judged finding {events} store {number}, {name}: {what:?}: {problem}"
                ));
            }
        }
    }
}

/// What was done to a store.
#[derive(Debug)]
struct Damage {
    #[allow(dead_code, reason = "it is shown")]
    how: String,
    /// The files that are not as they were.
    touched: BTreeSet<PathBuf>,
}

fn damage(dir: &Path, dice: &mut Dice) -> Damage {
    let before = files(dir);
    let names: Vec<&PathBuf> = before.keys().collect();
    let wal: Vec<&PathBuf> = names.iter().copied().filter(|name| name.starts_with("wal")).collect();
    let db: Vec<&PathBuf> = names.iter().copied().filter(|name| name.ends_with("db")).collect();
    let among = match dice.below(10) {
        0..=4 => &wal,
        5..=6 if !db.is_empty() => &db,
        _ => &names,
    };
    let name = among[dice.below(among.len() as u64) as usize];
    let path = dir.join(name);
    let mut bytes = before[name].clone();
    let how = match dice.below(13) {
        0..=2 if !bytes.is_empty() => {
            let count = 1 + dice.below(3);
            let places: Vec<usize> = (0..count).map(|_| used(&bytes, dice)).collect();
            for place in &places {
                bytes[*place] ^= 1 << dice.below(8);
            }
            fs::write(&path, &bytes).unwrap();
            format!("bits flipped in {name:?} at {places:?}")
        }
        3 if !bytes.is_empty() => {
            let page = used(&bytes, dice) / PAGE * PAGE;
            let end = bytes.len().min(page + PAGE);
            bytes[page..end].fill(0);
            fs::write(&path, &bytes).unwrap();
            format!("page at {page} of {name:?} zeroed")
        }
        4 if !bytes.is_empty() => {
            let page = used(&bytes, dice) / PAGE * PAGE;
            let end = bytes.len().min(page + PAGE);
            bytes[page..end].iter_mut().for_each(|byte| *byte = dice.roll() as u8);
            fs::write(&path, &bytes).unwrap();
            format!("page at {page} of {name:?} made noise")
        }
        5 if bytes.len() > PAGE => {
            let [one, two] = [used(&bytes, dice), used(&bytes, dice)].map(|at| at / PAGE * PAGE);
            let length = PAGE.min(bytes.len() - one.max(two));
            let [left, right] = [one, two].map(|at| bytes[at..at + length].to_vec());
            bytes[one..one + length].copy_from_slice(&right);
            bytes[two..two + length].copy_from_slice(&left);
            fs::write(&path, &bytes).unwrap();
            format!("pages at {one} and {two} of {name:?} swapped")
        }
        6 if !bytes.is_empty() => {
            let other = names[dice.below(names.len() as u64) as usize];
            let mut others = before[other].clone();
            let page =
                dice.below((bytes.len().min(others.len()) / PAGE) as u64 + 1) as usize * PAGE;
            let end = bytes.len().min(others.len()).min(page + PAGE);
            if page < end {
                bytes[page..end].swap_with_slice(&mut others[page..end]);
                fs::write(dir.join(other), &others).unwrap();
                fs::write(&path, &bytes).unwrap();
            }
            format!("page at {page} of {name:?} and {other:?} exchanged")
        }
        7..=8 if !bytes.is_empty() => {
            let length = match dice.below(2) {
                0 => dice.below(bytes.len() as u64) as usize,
                _ => used(&bytes, dice),
            };
            fs::write(&path, &bytes[..length]).unwrap();
            format!("{name:?} truncated to {length}")
        }
        9 => {
            fs::write(&path, b"").unwrap();
            format!("{name:?} emptied")
        }
        10 => {
            fs::remove_file(&path).unwrap();
            format!("{name:?} removed")
        }
        11 => {
            let other = names[dice.below(names.len() as u64) as usize];
            fs::write(dir.join(other), &bytes).unwrap();
            format!("{name:?} put in the place of {other:?}")
        }
        _ => {
            let from = wal[dice.below(wal.len() as u64) as usize];
            let first = 1 + dice.below(900);
            let copy = PathBuf::from(format!("wal/{first:020}.seg"));
            fs::write(dir.join(&copy), &before[from]).unwrap();
            format!("{from:?} doubled as {copy:?}")
        }
    };
    let after = files(dir);
    let mut touched: BTreeSet<PathBuf> = after
        .iter()
        .filter(|(name, bytes)| before.get(*name) != Some(bytes))
        .map(|(name, _)| name.clone())
        .collect();
    touched.extend(before.keys().filter(|name| !after.contains_key(*name)).cloned());
    Damage { how, touched }
}

/// Without its checksums a part is proven on a copy, which may then take its place.
fn is_sums(name: &Path) -> bool {
    name.extension().is_some_and(|end| end == "sum")
}

/// What must be left as it was with a damaged file: all of the part that it is of, or all of the history.
fn files_of(name: &Path) -> Option<String> {
    let mut names = name.iter().map(|name| name.to_string_lossy());
    let (dir, of) = (names.next()?, names.next()?);
    let whole = names.next().is_some() || of == "head";
    (dir == "history" && whole)
        .then(|| if of == "head" { dir.into() } else { format!("{dir}/{of}") })
}

/// A place in the bytes; one that is not zero, if that is found soon.
fn used(bytes: &[u8], dice: &mut Dice) -> usize {
    let mut at = 0;
    for _ in 0..200 {
        at = dice.below(bytes.len() as u64) as usize;
        if bytes[at] != 0 {
            break;
        }
    }
    at
}

struct Stand<'a> {
    dir: &'a Path,
    witness: &'a Witness,
    unclean: bool,
    /// The files as they were.
    witness_files: &'a Files,
}

impl Stand<'_> {
    fn open(&self) -> Result<(Journal, caesium::journal::Recovery), JournalError> {
        // As an engine opens a directory that is a store.
        Journal::open_dir(self.dir, options(SEGMENT_BYTES).must_exist(true))
    }

    /// Rebuilds it elsewhere: every event is as it was, or is told to be lost.
    fn salvage(&self, damage: &Damage) -> Result<&'static str, String> {
        let before = files(self.dir);
        let place = fast();
        let into = place.path().join("into");
        let told = match salvage(self.dir, &into) {
            Ok(told) => told,
            Err(error @ JournalError::Damaged { .. }) => {
                // There must be nothing to salvage: the only file with frames was harmed.
                let whole = before.keys().any(|name| {
                    name.extension().is_some_and(|end| end == "seg")
                        && !damage.touched.contains(name)
                });
                return if whole { Err(error.to_string()) } else { Ok("nothing") };
            }
            Err(error) => return Err(error.to_string()),
        };
        self.unchanged(&before, |_| true)?;
        let cannot = |error: JournalError| format!("what it made: {error}");
        let (journal, _) = Journal::open_dir(&into, options(SEGMENT_BYTES)).map_err(cannot)?;
        journal.verify().map_err(cannot)?;
        let mut lost = 0;
        let newest = self.witness.newest();
        for record in super::check::all(&journal).map_err(cannot)? {
            let seq = record.seq;
            if matches!(record.fact, Fact::Lost) {
                lost += 1;
            } else if seq <= told.last && !self.witness.told(&record) {
                return Err(format!("{seq} is not what was written: {record:?}"));
            }
        }
        journal.close().map_err(cannot)?;
        if lost != told.lost {
            return Err(format!("{lost} events are lost, and it says {told:?}"));
        }
        // Only a newest segment can be gone, or end early, without a trace.
        let last = self.newest_segment();
        if told.last < newest && last.is_none_or(|name| !damage.touched.contains(&name)) {
            return Err(format!("it ends early: {told:?}"));
        }
        if told.first > 1 {
            return Err(format!("its beginning is missing: {told:?}"));
        }
        Ok("salvaged")
    }

    fn newest_segment(&self) -> Option<PathBuf> {
        self.witness_files.keys().rfind(|name| name.to_string_lossy().ends_with(".seg")).cloned()
    }

    fn judge(&self, damage: &Damage, number: u64) -> Result<&'static str, String> {
        let before = files(self.dir);
        let newest = self.witness.newest();
        let (journal, recovery) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                self.names_a_file(&error)?;
                self.unchanged(&before, |_| true)?;
                return Ok("refused");
            }
        };
        let there = journal.recent_seq();
        let mut verdict = "intact";
        if there > newest {
            return Err(format!("{there} events, and {newest} were written"));
        }
        let missing = newest - there;
        if recovery.cut.is_some() {
            verdict = "cut";
            if !self.unclean || missing > GROUP {
                return Err(format!("{missing} events were cut: {recovery:?}"));
            }
        } else if missing > 0 {
            return Err(format!("{missing} events are gone in silence"));
        }
        if let Some(problem) = self.reading(&journal, there)? {
            // Two files can have been harmed, and each is told of.
            if verdict != "intact" && damage.touched.len() < 2 {
                return Err(format!("{verdict}, and {problem}"));
            }
            verdict = "reported";
        }
        self.go_on(journal, number, there)?;
        if verdict == "reported" {
            // Reading changes nothing, and who appends does so to a part that is whole.
            // A part that was being begun when the host was killed is of no head, and is begun anew.
            let counts = |name: &Path| {
                !name.starts_with("history")
                    || self.witness_files.contains_key(Path::new("history/head"))
            };
            let touched = damage.touched.iter().filter(|name| counts(name));
            let harmed: Vec<String> = touched.filter_map(|name| files_of(name)).collect();
            let torn = recovery.cut.map(|cut| cut.file);
            self.unchanged(&before, |name| {
                let packed = name.starts_with("wal") && !self.dir.join(name).exists();
                let torn = torn.as_deref() == Some(&*self.dir.join(name));
                let harmed = harmed.iter().any(|part| name.starts_with(part));
                before.contains_key(name)
                    && !packed
                    && !torn
                    && (harmed || damage.touched.contains(name) && !is_sums(name) && counts(name))
            })?;
            let went = |name: &PathBuf| before.contains_key(name) && !self.dir.join(name).exists();
            if damage.touched.iter().all(went) {
                // A segment that is gone now was in the history all the time.
                let (journal, _) = self.open().map_err(|error| error.to_string())?;
                let records = super::check::all(&journal);
                let mut records = records.map_err(|error| format!("what went is lost: {error}"))?;
                records.truncate(there as usize);
                let compared = self.witness.compare(1, &records);
                if !compared.is_good() {
                    return Err(format!("what went was not the same: {compared:?}"));
                }
            }
        }
        Ok(verdict)
    }

    /// Reads it all, in every way; gives what was reported.
    fn reading(&self, journal: &Journal, there: u64) -> Result<Option<String>, String> {
        let mut records: Vec<Record> = Vec::new();
        let mut error = None;
        match journal.read(1) {
            Err(refused) => error = Some(refused),
            Ok(read) => {
                for record in read {
                    match record {
                        Ok(record) => records.push(record),
                        Err(broken) => error = Some(broken),
                    }
                }
            }
        }
        let mut witness = self.witness.clone();
        witness.forget_after(records.len() as u64);
        let compared = witness.compare(1, &records);
        if !compared.is_good() {
            return Err(format!("it reads what is not so: {compared:?}"));
        }
        if error.is_none() && records.len() as u64 != there {
            return Err(format!("{} of {there} events were read", records.len()));
        }
        let verified = journal.verify();
        let allowed = |error: &JournalError| {
            matches!(
                error,
                JournalError::HistoryDamaged { .. }
                    | JournalError::Damaged { .. }
                    | JournalError::Newer { .. }
                    | JournalError::Inconsistent { .. }
                    | JournalError::Io { .. }
            )
        };
        for error in error.iter().chain(verified.as_ref().err()) {
            if !allowed(error) {
                return Err(format!("it is called {error:?}"));
            }
        }
        if error.is_some() && verified.is_ok() {
            // A harmed segment may have gone meanwhile, whose events were in the history already.
            let records = super::check::all(journal)
                .map_err(|again| format!("verify does not find {error:?} {again:?}"))?;
            let compared = self.witness.compare(1, &records);
            if !compared.is_good() {
                return Err(format!("verify does not find {error:?}: {compared:?}"));
            }
        }
        // The newest event is in the log, whatever became of the history.
        if there > 0 {
            let last = journal.read(there).map(|mut read| read.next());
            if !matches!(&last, Ok(Some(Ok(record))) if record.seq == there) {
                return Err(format!("the newest event cannot be read: {last:?}"));
            }
        }
        Ok(error.or(verified.err()).map(|error| error.to_string()))
    }

    /// The store is used as if nothing were: that must be possible, and stay.
    fn go_on(&self, journal: Journal, number: u64, there: u64) -> Result<(), String> {
        let base = (number + 1) << 32;
        for life in base + 2..base + 30 {
            live(&journal, life).map_err(|error| format!("it does not go on: {error}"))?;
        }
        let newest = journal.recent_seq();
        journal.close().map_err(|error| format!("it does not close: {error}"))?;
        drop(journal);
        let (journal, recovery) =
            self.open().map_err(|error| format!("it does not open again: {error}"))?;
        if recovery.events != newest || !recovery.clean {
            return Err(format!("{newest} events were there: {recovery:?}"));
        }
        let mut next = there + 1;
        let read = journal.read(next).map_err(|error| format!("new events: {error}"))?;
        for record in read {
            let record = record.map_err(|error| format!("new events: {error}"))?;
            if record.seq != next {
                return Err(format!("{} instead of {next}", record.seq));
            }
            next += 1;
        }
        if next != newest + 1 {
            return Err(format!("new events end with {next}"));
        }
        journal.close().map_err(|error| format!("it does not close again: {error}"))
    }

    fn names_a_file(&self, error: &JournalError) -> Result<(), String> {
        let (JournalError::Damaged { path, .. }
        | JournalError::Newer { path, .. }
        | JournalError::Io { path, .. }) = error
        else {
            return Err(format!("it is refused with {error:?}"));
        };
        if path.starts_with(self.dir.join("wal")) || path.starts_with(self.dir.join("history")) {
            return Ok(());
        }
        Err(format!("no file of the store is named: {error:?}"))
    }

    /// The files that `which` says so of are byte for byte what they were.
    fn unchanged(&self, before: &Files, which: impl Fn(&Path) -> bool) -> Result<(), String> {
        let after = files(self.dir);
        let names: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        for name in names {
            let end = name.iter().nth(1).map(|name| name.to_string_lossy());
            if end.is_some_and(|end| end.ends_with(".new") || end.ends_with(".read")) {
                return Err("a copy of a part of the history was left".to_owned());
            }
            if which(name) && before.get(name) != after.get(name) {
                let sizes = [before.get(name), after.get(name)].map(|bytes| bytes.map(Vec::len));
                return Err(format!("{name:?} was changed: {sizes:?}"));
            }
        }
        Ok(())
    }
}
