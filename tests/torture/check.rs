//! What was heard, and whether it is there.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use caesium::journal::{Journal, JournalError, Record};

use super::table::Row;
use super::work::{number, options, step_of};

/// What a store must have: which step of which atom has which number.
#[derive(Debug, Default, Clone)]
pub(super) struct Witness {
    events: BTreeMap<u64, (u64, u64)>,
    pub(super) acknowledged: u64,
    /// How many events hosts keep when they cut; 0 where they never cut.
    pub(super) keep: u64,
    /// The oldest event, as a host that had cut the history said.
    oldest: u64,
}

/// What is wrong with a store.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) lost: u64,
    pub(super) wrong: u64,
    /// The end of the last host's writes was cut and reported.
    pub(super) cut: bool,
    pub(super) refused: bool,
    pub(super) problem: Option<String>,
}

impl Verdict {
    pub(super) fn count(&self, row: &mut Row) {
        row.lost += self.lost;
        row.wrong += self.wrong;
        row.refused += u64::from(self.refused);
        row.reported += u64::from(self.cut);
    }

    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.wrong == 0 && self.problem.is_none()
    }
}

impl Witness {
    /// One of hosts that cut, and keep so many events.
    pub(super) fn of_cuts(keep: u64) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Hears a line of a host; true when it is an acknowledgement.
    pub(super) fn hear(&mut self, line: &str) -> bool {
        if let Some(oldest) = line.strip_prefix("oldest ") {
            self.oldest = oldest.parse().unwrap();
        }
        let Some(rest) = line.strip_prefix("ack ") else { return false };
        let fields: Vec<u64> = rest.split(' ').map_while(|field| field.parse().ok()).collect();
        let [seq, count, number, last] = fields[..] else { panic!("{line:?}") };
        for back in 0..count {
            self.events.insert(seq - back, (number, last - back));
        }
        self.acknowledged += count;
        true
    }

    /// The number of the newest event that must be there.
    pub(super) fn newest(&self) -> u64 {
        self.events.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Whether this record was acknowledged as it is.
    pub(super) fn told(&self, record: &Record) -> bool {
        let told = self.events.get(&record.seq);
        step_of(record).is_some_and(|step| told == Some(&(number(record.atom), step)))
    }

    /// From now on only events up to this one must be there.
    pub(super) fn forget_after(&mut self, seq: u64) {
        self.events.split_off(&(seq + 1));
    }

    /// Compares what is there with what must be there: events from the first
    /// that is kept.
    pub(super) fn compare(&self, first: u64, records: &[Record]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut lives: HashMap<u64, u64> = HashMap::new();
        for (record, seq) in records.iter().zip(first..) {
            let life = lives.entry(number(record.atom));
            let step = step_of(record);
            // Of an atom whose first steps were cut away any may be the next.
            let next = *life.or_insert(if first == 1 { 0 } else { step.unwrap_or(0) });
            if record.seq != seq || step != Some(next) {
                verdict.wrong += 1;
                verdict.problem.get_or_insert_with(|| format!("at {seq}, step {next}: {record:?}"));
            }
            lives.insert(number(record.atom), next + 1);
            if self.events.get(&seq).is_some_and(|told| *told != (number(record.atom), next)) {
                verdict.lost += 1;
                verdict.problem.get_or_insert_with(|| format!("{seq} is another one: {record:?}"));
            }
        }
        let newest = first - 1 + records.len() as u64;
        verdict.lost += self.events.range(newest + 1..).count() as u64;
        if verdict.lost > 0 {
            let told = self.newest();
            verdict.problem.get_or_insert_with(|| format!("events up to {newest} of {told}"));
        }
        if first < self.oldest {
            verdict.wrong += 1;
            let oldest = self.oldest;
            verdict
                .problem
                .get_or_insert_with(|| format!("cut to {oldest}, and begins with {first}"));
        }
        // What a host was told to keep is kept.
        if first > 1 && first + self.keep > newest + 1 {
            verdict.lost += first + self.keep - newest - 1;
            verdict.problem.get_or_insert_with(|| format!("only {first} to {newest} are left"));
        }
        verdict
    }

    /// What is shown once must stay.
    fn learn(&mut self, records: &[Record]) {
        for record in records {
            if let Some(step) = step_of(record) {
                self.events.insert(record.seq, (number(record.atom), step));
            }
        }
    }

    /// Opens the store, compares all of it, verifies and closes.
    pub(super) fn check(&mut self, dir: &Path, segment_bytes: u64) -> Verdict {
        let (journal, recovery) = match Journal::open_dir(dir, options(segment_bytes)) {
            Ok(opened) => opened,
            Err(error) => {
                return Verdict {
                    lost: self.events.len() as u64,
                    refused: true,
                    problem: Some(format!("it does not open: {error}")),
                    ..Verdict::default()
                };
            }
        };
        let mut verdict = match all(&journal) {
            Ok(records) => {
                let first = records.first().map_or(1, |record| record.seq);
                let verdict = self.compare(first, &records);
                self.learn(&records);
                verdict
            }
            Err(error) => Verdict {
                lost: self.events.len() as u64,
                problem: Some(format!("it cannot be read: {error}")),
                ..Verdict::default()
            },
        };
        verdict.cut = recovery.cut.is_some();
        let verified = journal.verify().map(|_| ());
        for (what, result) in [("verify", verified), ("close", journal.close())] {
            if let Err(error) = result {
                verdict.problem.get_or_insert_with(|| format!("{what}: {error}"));
            }
        }
        verdict
    }
}

pub(super) fn all(journal: &Journal) -> Result<Vec<Record>, JournalError> {
    journal.read(journal.oldest_seq()?)?.collect()
}
