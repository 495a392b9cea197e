//! The file `FORMAT`: what the store is, and where it belongs.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use uuid::Uuid;

use super::{directory, refused};
use crate::engine::Error;
use crate::journal::JournalError;

/// Its name.
pub(super) const FILE: &str = "FORMAT";
/// Its name while it is being written.
pub(super) const TEMPORARY: &str = "FORMAT.tmp";

/// The newest layout of a store that this program knows.
///
/// - 1: the first one.
const KNOWN: u32 = 1;

/// Where a directory is, as the kernel knows it. A copy is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    store: Uuid,
    pub(super) place: Place,
}

impl Format {
    /// Of a store that is new.
    pub(super) fn new(place: Place) -> Self {
        Self { store: Uuid::now_v7(), place }
    }

    /// The same store at another place.
    pub(super) fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// Reads it; `None` where there is none yet.
    pub(super) fn read(store: &Path) -> Result<Option<Self>, Error> {
        let path = store.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(refused(store, format!("its file {FILE} cannot be read: {error}")));
            }
        };
        let damaged = |problem: &str| JournalError::Damaged {
            path: path.clone(),
            offset: 0,
            seq: None,
            problem: problem.into(),
        };
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
                .ok_or_else(|| damaged(&format!("it has no line {key:?}")))
        };
        let number = |key: &str| {
            field(key)?.parse().map_err(|_| damaged(&format!("its line {key:?} has no number")))
        };
        let found = u32::try_from(number("format")?).unwrap_or(u32::MAX);
        if found > KNOWN {
            return Err(JournalError::Newer { path: path.clone(), found, known: KNOWN }.into());
        }
        let id = field("store")?.parse().map_err(|_| damaged("its line \"store\" has no id"))?;
        let place = Place { device: number("device")?, inode: number("inode")? };
        let format = Self { store: id, place };
        if found == 0 || format.text() != text {
            return Err(damaged("it is not what was written").into());
        }
        Ok(Some(format))
    }

    fn text(&self) -> String {
        let Self { store, place: Place { device, inode } } = self;
        let lines = format!(
            "caesium store\nformat {KNOWN}\nstore {store}\ndevice {device}\ninode {inode}\n"
        );
        let crc = crc32c::crc32c(lines.as_bytes());
        format!("{lines}crc32c {crc:08x}\n")
    }

    /// Writes it, whole or not at all, and makes it durable.
    pub(super) fn write(&self, store: &Path) -> Result<(), Error> {
        let write = || -> io::Result<()> {
            let temporary = store.join(TEMPORARY);
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, store.join(FILE))?;
            directory::sync(store)
        };
        write()
            .map_err(|error| refused(store, format!("its file {FILE} cannot be written: {error}")))
    }
}
