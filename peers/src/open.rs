//! Opening a store with many atoms and a long history, beside reading as many rows from SQLite.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use caesium::Timestamp;
use caesium::atom::{AtomId, AtomSpec};
use caesium::journal::{Creation, Fact, Journal, JournalError, JournalOptions};
use caesium::lifecycle::Event;
use rusqlite::Connection;

use crate::Result;
use crate::journal::{Events, batched};

const ATOMS: usize = 10_000;
const HISTORY: usize = 1_000_000;
const ROUNDS: usize = 31;

/// The section that is a process of its own: it opens what it is told to, and says how long that took and its peak of memory.
pub(crate) const CHILD: &str = "open-child";

/// Opens each by turns, in a process of its own.
pub(crate) fn all(dir: &Path) -> Result<()> {
    let [short, long, each, sqlite] =
        ["short", "long", "each", "sqlite"].map(|name| dir.join(name));
    fill(&short, ATOMS, Specs::OneForAll, 0)?;
    fill(&long, ATOMS, Specs::OneForAll, HISTORY)?;
    fill(&each, ATOMS, Specs::OneForEach, 0)?;
    rows(&sqlite)?;
    let ways = [
        (format!("SQLite, {ATOMS} rows read"), &sqlite),
        (format!("caesium, {ATOMS} atoms that run"), &short),
        ("caesium, each asked for with other arguments".to_owned(), &each),
        (format!("caesium, the same and {HISTORY} events of history"), &long),
    ];
    let mut figures = vec![Vec::new(); ways.len()];
    for round in 0..=ROUNDS {
        for ((_, what), figures) in ways.iter().zip(&mut figures) {
            let output = Command::new(std::env::current_exe()?).arg(CHILD).arg(what).output()?;
            let text = String::from_utf8(output.stdout)?;
            let mut numbers = text.split_whitespace().map(str::parse::<f64>);
            let (Some(millis), Some(mib)) = (numbers.next(), numbers.next()) else {
                return Err(String::from_utf8_lossy(&output.stderr).into());
            };
            // The first one warms up.
            if round > 0 {
                figures.push((millis?, mib?));
            }
        }
    }
    println!("\n### Opening, each in a process of its own\n");
    println!(
        "| | ms, median of {ROUNDS} | to the first | peak of memory, MiB |\n|---|---|---|---|"
    );
    let mut first = None;
    for ((name, _), mut figures) in ways.into_iter().zip(figures) {
        figures.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (millis, mib) = figures[ROUNDS / 2];
        let ratio = millis / *first.get_or_insert(millis);
        println!("| {name} | {millis:.1} | {ratio:.1} | {mib:.1} |");
    }
    Ok(())
}

/// See [`CHILD`].
pub(crate) fn child(what: &Path) -> Result<()> {
    let began = Instant::now();
    let took = if what.is_dir() {
        let (journal, _) = Journal::open_dir(what, JournalOptions::default())?;
        let atoms = journal.with_view(|view| view.atoms().count());
        let took = began.elapsed();
        assert!(atoms >= ATOMS, "{atoms} atoms");
        journal.close()?;
        took
    } else {
        let connection = Connection::open(what)?;
        let mut statement = connection.prepare("SELECT id, state, spec FROM atoms")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, [u8; 16]>(0)?, (row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?)))
        };
        let atoms =
            statement.query_map([], row)?.collect::<std::result::Result<HashMap<_, _>, _>>()?;
        let took = began.elapsed();
        assert_eq!(atoms.len(), ATOMS);
        took
    };
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    println!("{} {}", took.as_secs_f64() * 1000.0, kib / 1024.0);
    Ok(())
}

/// What the atoms of a store are asked for with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Specs {
    OneForAll,
    OneForEach,
}

/// A store with atoms that run, and that many events of another one that has come and gone.
pub(crate) fn fill(dir: &Path, atoms: usize, specs: Specs, history: usize) -> Result<()> {
    std::fs::create_dir(dir)?;
    let (journal, _) = Journal::open_dir(dir, batched())?;
    let spec = Arc::new(AtomSpec::command("true").arg("an argument"));
    for from in (0..atoms).step_by(200) {
        let ((), made) = journal.change(|draft| {
            for number in from..atoms.min(from + 200) {
                let spec = match specs {
                    Specs::OneForAll => Arc::clone(&spec),
                    Specs::OneForEach => {
                        Arc::new(AtomSpec::command("true").arg(format!("argument {number:05}")))
                    }
                };
                let creation =
                    Creation { engine: "peers".into(), spec, attempt: 1, retry_of: None };
                let (atom, at) = (AtomId::new(), Timestamp::from_micros(1));
                draft.append(atom, at, Fact::Created(creation))?;
                draft.append(atom, at, Event::Started { pid: Some(4711) }.into())?;
            }
            Ok::<_, JournalError>(())
        })?;
        made.wait()?;
    }
    journal.close()?;
    if history > 0 {
        Events::fill(dir, history)?;
    }
    Ok(())
}

fn rows(path: &Path) -> Result<()> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection
        .execute_batch("CREATE TABLE atoms (id BLOB PRIMARY KEY, state INTEGER, spec BLOB)")?;
    let transaction = connection.transaction()?;
    for _ in 0..ATOMS {
        let row = (AtomId::new().to_bytes(), 1, [0xA5_u8; 150]);
        transaction.execute("INSERT INTO atoms VALUES (?1, ?2, ?3)", row)?;
    }
    Ok(transaction.commit()?)
}
