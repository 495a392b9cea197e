//! The head: which parts are the history, and from which event on. Replacing it is the one
//! moment at which the history changes.

use std::io;

use super::{Head, Part};
use crate::journal::JournalError;
use crate::journal::error;
use crate::journal::frame::MAX_SEQ;
use crate::journal::storage::Storage;
use crate::time::Timestamp;

/// Its name in the history's directory.
pub(super) const NAME: &str = "head";

/// What the name of a file ends with that is not in its place yet.
const TEMPORARY: &str = ".tmp";

/// The magic of the head: the frame's, with another end.
const MAGIC: [u8; 4] = [0xCA, 0xE5, 0x1A, 0x48];

/// The version of the head, and of everything in the history that is not a frame.
///
/// - 1: the first one.
const FORMAT: u32 = 1;

const FIXED_BYTES: usize = 32;
const PART_BYTES: usize = 48;

/// More parts than any disk has room for: a longer head is damaged.
const MAX_BYTES: u64 = 64 << 20;

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) head: Head,
    /// One after another, without a gap; the first may begin before `head.first`.
    pub(super) parts: Vec<Part>,
}

impl Contents {
    /// Magic, format, first, last, chain, how many parts; each part; CRC-32C of all before it.
    fn encode(&self) -> Vec<u8> {
        let Head { first, last, chain } = self.head;
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.parts.len() * PART_BYTES + 4);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(first.to_le_bytes());
        bytes.extend(last.to_le_bytes());
        bytes.extend(chain.to_le_bytes());
        bytes.extend(u32::try_from(self.parts.len()).unwrap_or(u32::MAX).to_le_bytes());
        for part in &self.parts {
            bytes.extend(part.first.to_le_bytes());
            bytes.extend(part.last.to_le_bytes());
            bytes.extend(part.chain.to_le_bytes());
            bytes.extend(u32::from(part.folds).to_le_bytes());
            bytes.extend(part.bytes.to_le_bytes());
            bytes.extend(part.oldest.as_micros().to_le_bytes());
            bytes.extend(part.newest.as_micros().to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Without the zeros that may follow it, in a file whose room was set aside.
    fn trimmed(bytes: &[u8]) -> &[u8] {
        let count = bytes.get(FIXED_BYTES - 4..FIXED_BYTES).and_then(|count| count.try_into().ok());
        let Some(count) = count.map(u32::from_le_bytes) else { return bytes };
        let length = (count as usize).saturating_mul(PART_BYTES).saturating_add(FIXED_BYTES + 4);
        match bytes.split_at_checked(length) {
            Some((whole, rest)) if rest.iter().all(|byte| *byte == 0) => whole,
            Some(_) | None => bytes,
        }
    }

    /// In words, what is wrong with it.
    fn decode(bytes: &[u8]) -> Result<Self, Flaw> {
        let bytes = Self::trimmed(bytes);
        let short = Flaw::Damaged("is too short");
        let (told, crc) = bytes.split_last_chunk::<4>().ok_or(short)?;
        if crc32c::crc32c(told) != u32::from_le_bytes(*crc) || !told.starts_with(&MAGIC) {
            return Err(Flaw::Damaged("is damaged"));
        }
        let mut fields = Fields(&told[MAGIC.len()..]);
        let format = fields.four().ok_or(short)?;
        if format != FORMAT {
            return Err(Flaw::Newer(format));
        }
        let mut read = || {
            let (first, last) = (fields.eight()?, fields.eight()?);
            let head = Head { first, last, chain: fields.four()? };
            let count = fields.four()? as usize;
            let mut parts = Vec::new();
            for _ in 0..count {
                parts.push(Part {
                    first: fields.eight()?,
                    last: fields.eight()?,
                    chain: fields.four()?,
                    folds: fields.four()? != 0,
                    bytes: fields.eight()?,
                    oldest: Timestamp::from_micros(fields.eight()?),
                    newest: Timestamp::from_micros(fields.eight()?),
                });
            }
            fields.0.is_empty().then_some(Self { head, parts })
        };
        let contents = read().ok_or(Flaw::Damaged("has another length than it should have"))?;
        if contents.adds_up() { Ok(contents) } else { Err(Flaw::Damaged("says what cannot be")) }
    }

    fn adds_up(&self) -> bool {
        let Head { first, last, chain } = self.head;
        let follow = self.parts.windows(2).all(|two| two[0].last + 1 == two[1].first);
        let sound = self.parts.iter().all(|part| part.first <= part.last && part.first > 0);
        let (oldest, newest) = (self.parts.first(), self.parts.last());
        let ends = match (oldest, newest) {
            (Some(oldest), Some(newest)) => {
                (oldest.first..=oldest.last).contains(&first)
                    && (newest.last, newest.chain) == (last, chain)
            }
            (None, _) | (_, None) => first == last.saturating_add(1),
        };
        first > 0 && last <= MAX_SEQ && follow && sound && ends
    }
}

/// Why bytes are not a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Damaged(&'static str),
    Newer(u32),
}

/// Numbers, one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn four(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn eight(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// How far a history reached, by the bytes of its head, if they are whole.
pub(crate) fn head_of(bytes: &[u8]) -> Option<Head> {
    Contents::decode(bytes).ok().map(|contents| contents.head)
}

/// `None` when there never was one.
pub(super) fn read(storage: &dyn Storage) -> Result<Option<Contents>, JournalError> {
    let path = storage.path(NAME);
    let Some(bytes) = read_file(storage, NAME, MAX_BYTES)? else { return Ok(None) };
    match Contents::decode(&bytes) {
        Ok(contents) => Ok(Some(contents)),
        Err(Flaw::Newer(found)) => Err(JournalError::Newer { path, found, known: FORMAT }),
        Err(Flaw::Damaged(problem)) => {
            Err(JournalError::HistoryDamaged { problem: format!("{} {problem}", path.display()) })
        }
    }
}

/// Why a head was not written.
pub(super) struct Unwritten {
    pub(super) error: JournalError,
    /// It may be on disk all the same, or may be there after a power cut.
    pub(super) in_doubt: bool,
}

/// Replaces the head.
pub(super) fn write(storage: &dyn Storage, contents: &Contents) -> Result<(), Unwritten> {
    write_whole(storage, NAME, &contents.encode())
}

/// A file whose room is taken when the disk is full, so that a cut can make more.
const ROOM: &str = "room";

/// Sets room aside for a head, if there is none; what fails is tried again another time.
pub(super) fn set_room_aside(storage: &dyn Storage, bytes: u64) {
    let make = || -> io::Result<()> {
        let file = storage.create(ROOM)?;
        file.allocate(bytes)?;
        file.sync_data()?;
        storage.sync_dir()
    };
    match make() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            tracing::debug!(%error, "no room is set aside for the head of the history");
            let _ = storage.remove(ROOM);
        }
    }
}

/// Writes a head on a disk that may be full: then what was set aside becomes the head. To remove it and write another file
/// would not do: what was freed may be to be had only when the file system has written that down.
pub(super) fn write_in_need(storage: &dyn Storage, contents: &Contents) -> Result<(), Unwritten> {
    let Err(failed) = write(storage, contents) else { return Ok(()) };
    if error::is_full(&failed.error) {
        // Where there is none, what is wrong is that the disk is full.
        return write_into_room(storage, &contents.encode())
            .map_err(|_| Unwritten { in_doubt: true, ..failed });
    }
    Err(failed)
}

fn write_into_room(storage: &dyn Storage, head: &[u8]) -> io::Result<()> {
    let file = storage.open(ROOM)?;
    // To its end: an earlier try may have left something there.
    let mut bytes = head.to_vec();
    bytes.resize(usize::try_from(file.len()?).unwrap_or(0).max(head.len()), 0);
    file.write_at(&bytes, 0)?;
    file.sync_data()?;
    storage.rename(ROOM, NAME)?;
    storage.sync_dir()
}

/// Removes files that are not in their place yet, and those that `which` says so of.
pub(super) fn tidy(
    storage: &dyn Storage,
    which: impl Fn(&str) -> bool,
) -> Result<(), JournalError> {
    let names = storage.list().map_err(|e| error::io("cannot list", storage.path(""), e))?;
    for name in names.iter().filter(|name| name.ends_with(TEMPORARY) || which(name)) {
        storage
            .remove(name)
            .map_err(|source| error::io("cannot remove", storage.path(name), source))?;
    }
    Ok(())
}

/// Makes sure that there is none.
pub(super) fn remove(storage: &dyn Storage) -> Result<(), JournalError> {
    let failed = |source| error::io("cannot remove", storage.path(NAME), source);
    match storage.remove(NAME) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    storage.sync_dir().map_err(failed)
}

/// Makes durable what was read: the name of the head, or that there is none.
pub(super) fn sync(storage: &dyn Storage) -> Result<(), JournalError> {
    match storage.sync_dir() {
        // There is not even a directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(|e| error::io("cannot sync directory", storage.path(""), e)),
    }
}

/// All of a file; `None` when there is none.
pub(super) fn read_file(
    storage: &dyn Storage,
    name: &str,
    most: u64,
) -> Result<Option<Vec<u8>>, JournalError> {
    let failed = |source| error::io("cannot read", storage.path(name), source);
    let file = match storage.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let length = file.len().map_err(failed)?;
    if length > most {
        let problem = format!("{} is longer than it can be", storage.path(name).display());
        return Err(JournalError::HistoryDamaged { problem });
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file.read_at(&mut bytes, 0).map_err(failed)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Writes a file whole or not at all, durably.
pub(super) fn write_file(
    storage: &dyn Storage,
    name: &str,
    bytes: &[u8],
) -> Result<(), JournalError> {
    write_whole(storage, name, bytes).map_err(|unwritten| unwritten.error)
}

fn write_whole(storage: &dyn Storage, name: &str, bytes: &[u8]) -> Result<(), Unwritten> {
    let temporary = format!("{name}{TEMPORARY}");
    let failed = |in_doubt, source| Unwritten {
        error: error::io("cannot write", storage.path(name), source),
        in_doubt,
    };
    let write = || -> io::Result<()> {
        match storage.remove(&temporary) {
            // Of an earlier try that could not be removed.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = storage.create(&temporary)?;
        file.write_at(bytes, 0)?;
        file.sync_data()
    };
    if let Err(source) = write() {
        // On a full disk it takes room that something else needs.
        let _ = storage.remove(&temporary);
        return Err(failed(false, source));
    }
    if let Err(source) = storage.rename(&temporary, name) {
        let _ = storage.remove(&temporary);
        return Err(failed(true, source));
    }
    storage.sync_dir().map_err(|source| failed(true, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let part = |first, last, chain, folds| Part {
            first,
            last,
            chain,
            folds,
            bytes: 1 << 20,
            oldest: Timestamp::from_micros(8),
            newest: Timestamp::from_micros(9),
        };
        Contents {
            head: Head { first: 7, last: 30, chain: 3 },
            parts: vec![part(5, 10, 1, false), part(11, 29, 2, true), part(30, 30, 3, true)],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let whole = contents();
        assert_eq!(Contents::decode(&whole.encode()), Ok(whole));
        let nothing = Contents { head: Head { first: 31, last: 30, chain: 3 }, parts: Vec::new() };
        assert_eq!(Contents::decode(&nothing.encode()), Ok(nothing));
    }

    #[test]
    fn no_flipped_bit_and_no_other_length_goes_unseen() {
        let mut bytes = contents().encode();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Contents::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(Contents::decode(&bytes[..length]).is_err(), "length {length}");
        }
        // In a file with more room there are zeros after it, and nothing else.
        bytes.resize(4096, 0);
        assert_eq!(Contents::decode(&bytes), Ok(contents()));
        for at in contents().encode().len()..bytes.len() {
            bytes[at] = 1;
            assert!(Contents::decode(&bytes).is_err(), "byte {at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn a_newer_one_is_called_newer_and_what_cannot_be_is_damage() {
        let mut bytes = contents().encode();
        let sealed = |bytes: &mut Vec<u8>| {
            bytes.truncate(bytes.len() - 4);
            bytes.extend(crc32c::crc32c(bytes).to_le_bytes());
        };
        bytes[4] = 2;
        sealed(&mut bytes);
        assert_eq!(Contents::decode(&bytes), Err(Flaw::Newer(2)));
        type Break = fn(&mut Contents);
        let breaks: [Break; 6] = [
            |c| c.head.first = 11,
            |c| c.head.first = 4,
            |c| c.head.last = 31,
            |c| c.parts[1].first = 12,
            |c| c.parts.clear(),
            |c| {
                c.parts.truncate(1);
                c.parts[0].last = u64::MAX;
                c.head.last = u64::MAX;
            },
        ];
        for (number, breaks) in breaks.into_iter().enumerate() {
            let mut broken = contents();
            breaks(&mut broken);
            let verdict = Contents::decode(&broken.encode());
            assert_eq!(verdict, Err(Flaw::Damaged("says what cannot be")), "{number}");
        }
    }
}
