//! What makes records durable, one way or another.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use redb::ReadableTable as _;
use rusqlite::Connection;

use crate::Result;

/// As many bytes as the frame of a common event has.
pub(crate) const RECORD_BYTES: usize = 200;

/// Something that makes records durable, all of a group at once.
pub(crate) trait Contender: Send {
    /// They are on disk when this returns.
    fn commit(&mut self, records: usize) -> Result<()>;
}

const RECORD: [u8; RECORD_BYTES] = [0xA5; RECORD_BYTES];

/// A preallocated file that is written round and round: what the disk can do.
pub(crate) struct Plain {
    file: File,
    at: u64,
}

const PLAIN_BYTES: usize = 16 << 20;

impl Plain {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("plain");
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all_at(&vec![0; PLAIN_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }
}

impl Contender for Plain {
    fn commit(&mut self, records: usize) -> Result<()> {
        let bytes = RECORD.repeat(records);
        if self.at + bytes.len() as u64 > PLAIN_BYTES as u64 {
            self.at = 0;
        }
        self.file.write_all_at(&bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(self.file.sync_data()?)
    }
}

/// SQLite with a write-ahead log, synced at each commit.
pub(crate) struct Sqlite(Connection);

impl Sqlite {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch("CREATE TABLE events (seq INTEGER PRIMARY KEY, bytes BLOB)")?;
        Ok(Self(connection))
    }

    /// All rows in order; how many bytes.
    pub(crate) fn read(&self) -> Result<u64> {
        let mut statement = self.0.prepare_cached("SELECT seq, bytes FROM events ORDER BY seq")?;
        let mut rows = statement.query([])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            bytes += row.get_ref(1)?.as_blob()?.len() as u64;
        }
        Ok(bytes)
    }
}

impl Contender for Sqlite {
    fn commit(&mut self, records: usize) -> Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO events (bytes) VALUES (?1)")?;
            for _ in 0..records {
                insert.execute([&RECORD[..]])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

/// redb with its default durability: on disk at each commit.
pub(crate) struct Redb {
    database: redb::Database,
    next: u64,
}

const EVENTS: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("events");

impl Redb {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        Ok(Self { database: redb::Database::create(dir.join("redb"))?, next: 0 })
    }

    /// All records in order; how many bytes.
    pub(crate) fn read(&self) -> Result<u64> {
        let transaction = redb::ReadableDatabase::begin_read(&self.database)?;
        let table = transaction.open_table(EVENTS)?;
        let mut bytes = 0;
        for record in table.iter()? {
            bytes += record?.1.value().len() as u64;
        }
        Ok(bytes)
    }
}

impl Contender for Redb {
    fn commit(&mut self, records: usize) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(EVENTS)?;
            for _ in 0..records {
                table.insert(self.next, &RECORD[..])?;
                self.next += 1;
            }
        }
        Ok(transaction.commit()?)
    }
}

/// fjall, which syncs when it is told to.
pub(crate) struct Fjall {
    database: fjall::Database,
    events: fjall::Keyspace,
    next: u64,
}

impl Fjall {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let database = fjall::Database::builder(dir.join("fjall")).open()?;
        let events = database.keyspace("events", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { database, events, next: 0 })
    }
}

impl Contender for Fjall {
    fn commit(&mut self, records: usize) -> Result<()> {
        let mut batch = self.database.batch();
        for _ in 0..records {
            batch.insert(&self.events, self.next.to_be_bytes(), RECORD);
            self.next += 1;
        }
        batch.commit()?;
        Ok(self.database.persist(fjall::PersistMode::SyncData)?)
    }
}
