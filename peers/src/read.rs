//! A million events, read in order.

use std::path::Path;
use std::time::Instant;

use caesium::journal::Journal;

use crate::Result;
use crate::contender::{Contender, Redb, Sqlite};
use crate::journal::{Events, batched};
use crate::table::rates;

const EVENTS: usize = 1_000_000;

/// Who is read from.
enum Reader {
    Caesium(Journal),
    Sqlite(Sqlite),
    Redb(Redb),
}

/// All of them, in order.
pub(crate) fn all(dir: &Path) -> Result<()> {
    // How they came there is not measured.
    let store = dir.join("caesium");
    std::fs::create_dir(&store)?;
    Events::fill(&store, EVENTS)?;
    let (mut sqlite, mut redb) = (Sqlite::new(dir)?, Redb::new(dir)?);
    sqlite.commit(EVENTS)?;
    redb.commit(EVENTS)?;
    let (journal, _) = Journal::open_dir(&store, batched())?;
    // Nor how what was sealed last is packed.
    journal.pack()?;
    let began = Instant::now();
    let read = all_of(&journal)?;
    let rate = read as f64 / began.elapsed().as_secs_f64();
    println!(
        "\nThe first time, for which the parts of the history are searched: {rate:.0} events per second of ours."
    );
    let mut readers = [
        ("SQLite, rows as blobs".to_owned(), Reader::Sqlite(sqlite)),
        ("redb, values as bytes".to_owned(), Reader::Redb(redb)),
        ("caesium, decoded and checked".to_owned(), Reader::Caesium(journal)),
    ];
    let title = format!("{EVENTS} events of 200 bytes, read in order");
    rates(&title, "events", &mut readers, |reader, _| {
        match reader {
            Reader::Caesium(journal) => return all_of(journal),
            Reader::Sqlite(sqlite) => sqlite.read()?,
            Reader::Redb(redb) => redb.read()?,
        };
        Ok(EVENTS as u64)
    })
}

fn all_of(journal: &Journal) -> Result<u64> {
    let mut read = 0;
    for record in journal.read(1)? {
        record?;
        read += 1;
    }
    Ok(read)
}
