//! A million events, read in order.

use std::path::Path;

use crate::Result;
use crate::contender::{Contender, Redb, Sqlite};
use crate::journal::{Events, batched};
use crate::table::rates;

const EVENTS: usize = 1_000_000;

/// Who is read from.
enum Reader {
    Caesium(Events),
    Sqlite(Sqlite),
    Redb(Redb),
}

/// All of them, in order.
pub(crate) fn all(dir: &Path) -> Result<()> {
    // How they came there is not measured.
    let journal = Events::new(dir, batched())?;
    let (mut sqlite, mut redb) = (Sqlite::new(dir)?, Redb::new(dir)?);
    for _ in 0..EVENTS / 1000 {
        journal.append(1000)?.wait()?;
    }
    journal.journal.pack()?;
    sqlite.commit(EVENTS)?;
    redb.commit(EVENTS)?;
    let mut readers = [
        ("SQLite, rows as blobs".to_owned(), Reader::Sqlite(sqlite)),
        ("redb, values as bytes".to_owned(), Reader::Redb(redb)),
        ("caesium, decoded and checked".to_owned(), Reader::Caesium(journal)),
    ];
    let title = format!("{EVENTS} events of 200 bytes, read in order");
    rates(&title, "events", &mut readers, |reader, _| {
        match reader {
            Reader::Caesium(events) => {
                let mut read = 0;
                for record in events.journal.read(1)? {
                    record?;
                    read += 1;
                }
                return Ok(read);
            }
            Reader::Sqlite(sqlite) => sqlite.read()?,
            Reader::Redb(redb) => redb.read()?,
        };
        Ok(EVENTS as u64)
    })
}
