//! A whole store, log and history, with any of its files harmed in any way.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::super::frame::{HEADER_BYTES, MAGIC};
use super::super::storage::MemoryStorage;
use super::super::{
    Creation, Fact, Journal, JournalError, JournalOptions, MemoryHistory, Record, Recovery,
};
use crate::atom::{AtomId, AtomSpec};
use crate::lifecycle::{Event, Reason};
use crate::time::Timestamp;

/// Files by their names, those of the history with its directory before them.
type Files = BTreeMap<String, Vec<u8>>;

const HISTORY: &str = "history/";

/// A store as its host left it, and what it holds.
struct Template {
    files: Files,
    records: Vec<Record>,
}

/// One that was closed, and one whose host was killed.
fn templates() -> &'static [Template; 2] {
    static MADE: OnceLock<[Template; 2]> = OnceLock::new();
    MADE.get_or_init(|| [make(true), make(false)])
}

fn make(closed: bool) -> Template {
    let disk = MemoryStorage::new();
    let (journal, _) = open(&disk).expect("a new store opens");
    for number in 0..24 {
        for step in 0..if number % 8 == 7 { 2 } else { 5 } {
            append(&journal, number, step).expect("memory does not fail");
        }
        journal.pack().expect("memory does not fail");
    }
    let records = journal.read(1).and_then(Iterator::collect).expect("what was written is read");
    if closed {
        journal.close().expect("memory does not fail");
    }
    let files = files(&disk);
    let count = |end: &str| files.keys().filter(|name| name.ends_with(end)).count();
    assert!(count(".seg") == 3 && count(".part") > 1 && count("head") == 1, "{:?}", files.keys());
    Template { files, records }
}

fn open(disk: &MemoryStorage) -> Result<(Journal, Recovery), JournalError> {
    let options = JournalOptions::default().segment_bytes(1 << 10);
    let options = options.must_exist(!disk.names().is_empty());
    Journal::open_stepped(Arc::new(disk.clone()), Arc::new(MemoryHistory::on(disk)), options)
}

/// A step in the life of an atom, durable.
fn append(journal: &Journal, number: u8, step: u8) -> Result<(), JournalError> {
    let creation = Creation {
        engine: "fuzz".into(),
        spec: Arc::new(AtomSpec::command("true").arg("x".repeat(usize::from(number) * 7))),
        attempt: 1,
        retry_of: None,
    };
    let fact = match step {
        0 => Fact::Created(creation),
        1 => Event::Started { pid: Some(7) }.into(),
        2 => Event::LostSight { reason: Reason::ExitUnobserved }.into(),
        3 => Event::DeleteAsked.into(),
        _ => Event::Removed.into(),
    };
    let at = Timestamp::from_micros(1000);
    let id = AtomId::from_bytes([number + 1; 16]);
    let (_, ticket) = journal.change(|draft| draft.append(id, at, fact).map(|_| ()))?;
    while journal.step() {}
    ticket.wait()
}

fn files(disk: &MemoryStorage) -> Files {
    let history = disk.dir("history");
    let log = disk.names().into_iter().filter(|name| !name.contains('/'));
    let log = log.filter_map(|name| Some((name.clone(), disk.contents(&name)?)));
    let packed = history.names().into_iter();
    log.chain(
        packed.filter_map(|name| Some((format!("{HISTORY}{name}"), history.contents(&name)?))),
    )
    .collect()
}

fn disk_of(files: &Files) -> MemoryStorage {
    let disk = MemoryStorage::new();
    let history = disk.dir("history");
    for (name, bytes) in files {
        match name.strip_prefix(HISTORY) {
            Some(name) => history.put(name, bytes.clone()),
            None => disk.put(name, bytes.clone()),
        }
    }
    disk
}

/// What the bytes do to the files.
struct Harm {
    /// How much was done.
    strokes: usize,
    /// More than a page of a file was harmed by one of them.
    wide: bool,
    /// Checksums were made to hold again: what is read can be anything.
    forged: bool,
}

/// Bytes of one stroke: what, the file, where (2), how long (2), another file, where in that (2), a value.
const STROKE: usize = 10;

/// What is lost together, mostly.
const PAGE: usize = 4096;

/// More strokes than these are no more use.
const MOST: usize = 12;

fn harm(files: &mut Files, strokes: &[u8]) -> Harm {
    let mut harm = Harm { strokes: 0, wide: false, forged: false };
    for stroke in strokes.chunks_exact(STROKE).take(MOST) {
        harm.strokes += 1;
        let names: Vec<String> = files.keys().cloned().collect();
        if names.is_empty() {
            break;
        }
        let name = &names[usize::from(stroke[1]) % names.len()];
        let other = &names[usize::from(stroke[6]) % names.len()];
        let place = |bytes: &[u8], at: usize| {
            let at = u16::from_le_bytes([stroke[at], stroke[at + 1]]);
            usize::from(at) % bytes.len().max(1)
        };
        let from = files[other].clone();
        let mut bytes = files.remove(name).unwrap_or_default();
        let at = place(&bytes, 2);
        let length = usize::from(u16::from_le_bytes([stroke[4], stroke[5]]));
        let end = bytes.len().min(at + length);
        let value = stroke[9];
        harm.wide |= stroke[0] % 10 < 4 && at / PAGE != end.saturating_sub(1).max(at) / PAGE;
        match stroke[0] % 10 {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value % 8)),
            1 => bytes[at..end].fill(0),
            2 => bytes[at..end].fill(value),
            3 => {
                // A piece of another file, or of this one.
                let source = place(&from, 7);
                let length = (end - at).min(from.len() - source);
                bytes[at..at + length].copy_from_slice(&from[source..source + length]);
            }
            4 => bytes.truncate(at),
            5 => bytes.extend(std::iter::repeat_n(value, length)),
            6 => continue,
            7 => {
                files.insert(format!("{:020}.seg", 1 + u64::from(value)), bytes.clone());
            }
            8 => {
                let page = at / PAGE * PAGE;
                let end = bytes.len().min(page + PAGE);
                bytes[page..end].fill(0);
            }
            _ => {
                harm.forged = true;
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
                forge(&mut bytes, length % 2 == 0);
            }
        }
        files.insert(name.clone(), bytes);
    }
    harm
}

/// Makes the checksums of all frames hold, and their chain too if told to.
fn forge(bytes: &mut [u8], chain: bool) {
    let (mut at, mut last) = (0, None);
    while let Some(header) = bytes.get(at..at + HEADER_BYTES) {
        if header[..4] != MAGIC {
            at += 1;
            continue;
        }
        let word = |from: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&header[from..from + 4]);
            u32::from_le_bytes(word)
        };
        let length = word(8) as usize;
        let Some(payload) = bytes.get(at + HEADER_BYTES..at + HEADER_BYTES + length) else {
            at += 1;
            continue;
        };
        let crc = crc32c::crc32c(payload).to_le_bytes();
        // Events and footers follow the last event, the first of them what the header says.
        let (kind, prev) = (header[5], word(24));
        bytes[at + 28..at + 32].copy_from_slice(&crc);
        if let (true, 4 | 5, Some(last)) = (chain, kind, last) {
            bytes[at + 24..at + 28].copy_from_slice(&u32::to_le_bytes(last));
        }
        let crc = crc32c::crc32c(&bytes[at..at + 32]);
        bytes[at + 32..at + 36].copy_from_slice(&crc.to_le_bytes());
        match kind {
            1 => last = Some(prev),
            4 => last = Some(crc),
            _ => {}
        }
        at += HEADER_BYTES + length;
    }
}

/// Any harm to a store: it is refused with a typed error and left as it is, or opens. What is read of it is what was
/// written, unless checksums were forged; and it goes on.
pub fn store(bytes: &[u8]) {
    let Some((which, strokes)) = bytes.split_first() else { return };
    let which = usize::from(which % 2);
    let template = &templates()[which];
    let mut harmed = template.files.clone();
    let harm = harm(&mut harmed, strokes);
    let disk = disk_of(&harmed);
    let (journal, recovery) = match open(&disk) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(
                matches!(
                    error,
                    JournalError::Damaged { .. }
                        | JournalError::Newer { .. }
                        | JournalError::HistoryDamaged { .. }
                        | JournalError::Inconsistent { .. }
                ),
                "{error:?}"
            );
            assert_eq!(files(&disk), harmed, "what is refused is not touched");
            assert!(harm.strokes > 0, "{error}");
            return;
        }
    };
    let written = template.records.len() as u64;
    if harm.strokes <= 1 && !harm.wide && !harm.forged {
        // One harm is never passed over: at the most the last group of an unclean end goes, and is reported.
        assert!(recovery.events + u64::from(which == 1 && recovery.cut.is_some()) >= written);
    }
    let mut whole = true;
    match journal.oldest_seq().and_then(|oldest| journal.read(oldest)) {
        Err(_) => whole = false,
        Ok(records) => {
            for record in records {
                match record {
                    Ok(record) if harm.forged => assert!(record.seq > 0),
                    Ok(record) => {
                        assert_eq!(template.records.get(record.seq as usize - 1), Some(&record));
                    }
                    Err(_) => whole = false,
                }
            }
        }
    }
    let verified = journal.verify();
    assert!(whole || verified.is_err() || harm.forged, "verify passes what cannot be read");
    let goes_on = (0..5).try_for_each(|step| append(&journal, 200, step));
    // Numbers come to an end, and so does what was forged to be there.
    assert!(goes_on.is_ok() || harm.forged, "{goes_on:?}");
    let _ = journal.pack();
    let last = journal.recent_seq();
    if journal.close().is_err() || goes_on.is_err() {
        return;
    }
    drop(journal);
    let (_, again) = open(&disk).expect("what was closed opens");
    assert_eq!((again.events, again.clean), (last, true));
}

/// One harm of each kind, to either store.
pub fn store_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let stroke = |which: u8, kind: u8, file: u8, at: u16, length: u16| {
        let ([a, b], [c, d]) = (at.to_le_bytes(), length.to_le_bytes());
        vec![which, kind, file, a, b, c, d, 3, 40, 0, 5]
    };
    vec![
        ("whole", vec![0]),
        ("flipped", stroke(0, 0, 1, 700, 1)),
        ("zeroed", stroke(1, 1, 2, 300, 900)),
        ("filled", stroke(0, 2, 0, 60, 20)),
        ("copied", stroke(1, 3, 2, 500, 300)),
        ("truncated", stroke(0, 4, 2, 2000, 0)),
        ("longer", stroke(1, 5, 1, 0, 100)),
        ("removed", stroke(1, 6, 1, 0, 0)),
        ("doubled", stroke(0, 7, 1, 0, 0)),
        ("page", stroke(1, 8, 2, 100, 0)),
        ("forged", stroke(0, 9, 2, 450, 0)),
        ("forged-end", stroke(1, 9, 1, 4097, 1)),
    ]
}
