//! The files around sled: its head, the checksums of a clean hand-over, and the copy that proves itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Head;
use super::sled::sync_parent;
use crate::journal::error::{self, JournalError};
use crate::journal::open::sync_dir;

/// `<store>/history` with something after it.
fn beside(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| error::io(what, path, source)
}

/// Writes a file whole or not at all, durably.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let temporary = beside(path, ".tmp");
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    if let Err(source) = write() {
        // On a full disk it takes room that something else needs.
        let _ = fs::remove_file(&temporary);
        return Err(io("cannot write", path)(source));
    }
    sync_parent(path)
}

/// `<store>/history.head`: how far the history must reach.
#[derive(Debug)]
pub(super) struct HeadFile {
    path: PathBuf,
}

/// The magic of the head: the frame's, with another end.
const HEAD_MAGIC: [u8; 4] = [0xCA, 0xE5, 0x1A, 0x48];
const HEAD_FORMAT: u32 = 1;
const HEAD_BYTES: usize = 32;

/// Magic, format, first, last, chain, CRC-32C of all before it.
pub(super) fn encode_head(head: Head) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..4].copy_from_slice(&HEAD_MAGIC);
    bytes[4..8].copy_from_slice(&HEAD_FORMAT.to_le_bytes());
    bytes[8..16].copy_from_slice(&head.first.to_le_bytes());
    bytes[16..24].copy_from_slice(&head.last.to_le_bytes());
    bytes[24..28].copy_from_slice(&head.chain.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_head(bytes: &[u8]) -> Option<Head> {
    let bytes: &[u8; HEAD_BYTES] = bytes.try_into().ok()?;
    let (head, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(head) != u32::from_le_bytes(*crc) || head[..4] != HEAD_MAGIC {
        return None;
    }
    if head[4..8] != HEAD_FORMAT.to_le_bytes() {
        return None;
    }
    Some(Head {
        first: u64::from_le_bytes(*head[8..].first_chunk()?),
        last: u64::from_le_bytes(*head[16..].first_chunk()?),
        chain: u32::from_le_bytes(*head[24..].first_chunk()?),
    })
}

impl HeadFile {
    pub(super) fn beside(dir: &Path) -> Self {
        Self { path: beside(dir, ".head") }
    }

    /// `None` when there never was one.
    pub(super) fn read(&self) -> Result<Option<Head>, JournalError> {
        match fs::read(&self.path) {
            Ok(bytes) => match decode_head(&bytes) {
                Some(head) => Ok(Some(head)),
                None => Err(JournalError::HistoryDamaged {
                    problem: format!("{} is damaged", self.path.display()),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("cannot read", &self.path)(error)),
        }
    }

    pub(super) fn write(&self, head: Head) -> Result<(), JournalError> {
        write_atomically(&self.path, &encode_head(head))
    }
}

/// All files under a directory, by their path in it.
fn walk(dir: &Path) -> io::Result<BTreeMap<OsString, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else if let Ok(relative) = path.strip_prefix(dir) {
                files.insert(relative.as_os_str().to_owned(), path);
            }
        }
    }
    Ok(files)
}

/// The bytes that the files under a directory take on disk; 0 where there is none.
pub(super) fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let files = match walk(dir) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for path in files.values() {
        match fs::metadata(path) {
            Ok(metadata) => bytes += metadata.blocks() * 512,
            // sled removes files while it works.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// One line per file, and a last one with the checksum of the lines.
fn sums(dir: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut piece = vec![0; 256 << 10];
    for (name, path) in walk(dir)? {
        let mut file = File::open(path)?;
        let (mut crc, mut bytes) = (0, 0_u64);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    crc = crc32c::crc32c_append(crc, &piece[..read]);
                    bytes += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        text.push_str(&format!("{crc:08x} {bytes} {}\n", name.to_string_lossy()));
    }
    text.push_str(&format!("{:08x} sums 1\n", crc32c::crc32c(text.as_bytes())));
    Ok(text)
}

/// Whether every file is as it was handed over, and none is missing or new.
pub(super) fn sums_match(dir: &Path) -> Result<bool, JournalError> {
    let path = beside(dir, ".sum");
    let told = match fs::read_to_string(&path) {
        Ok(told) => told,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
        Err(error) => return Err(io("cannot read", &path)(error)),
    };
    Ok(told == sums(dir).map_err(io("cannot read history", dir))?)
}

/// Keeps the checksums of all files, which nobody may change any more.
pub(super) fn write_sums(dir: &Path) -> Result<(), JournalError> {
    let text = sums(dir).map_err(io("cannot read history", dir))?;
    write_atomically(&beside(dir, ".sum"), text.as_bytes())
}

/// The files are about to change.
pub(super) fn forget_sums(dir: &Path) -> Result<(), JournalError> {
    let path = beside(dir, ".sum");
    match fs::remove_file(&path) {
        Ok(()) => sync_parent(&path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("cannot remove", &path)(error)),
    }
}

/// A kill while sled opens leaves one of these, and then no open succeeds.
pub(super) fn remove_unfinished_snapshots(dir: &Path) -> Result<(), JournalError> {
    for (name, path) in walk(dir).map_err(io("cannot read history", dir))? {
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(io("cannot remove", &path))?;
        }
    }
    Ok(())
}

pub(super) fn remove_tree(dir: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("cannot remove", dir)(error)),
    }
}

/// Makes every file and every name under a directory durable, and its own name:
/// sled does this for none of them.
pub(super) fn sync_tree(dir: &Path) -> Result<(), JournalError> {
    let files = walk(dir).map_err(io("cannot read history", dir))?;
    let mut dirs = vec![dir.to_owned()];
    for path in files.values() {
        let file = File::open(path).map_err(io("cannot open", path))?;
        file.sync_all().map_err(io("cannot sync", path))?;
        dirs.extend(path.parent().map(Path::to_owned));
    }
    let blobs = dir.join("blobs");
    if blobs.is_dir() {
        dirs.push(blobs);
    }
    dirs.sort();
    dirs.dedup();
    for dir in &dirs {
        sync_dir(dir)?;
    }
    sync_parent(dir)
}

/// Copies the files to where sled may do to them what it likes.
pub(super) fn copy_for_proof(dir: &Path) -> Result<PathBuf, JournalError> {
    let copy = beside(dir, ".new");
    remove_tree(&copy)?;
    let make = |path: &Path| {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
            .map_err(io("cannot create", path))
    };
    make(&copy)?;
    for (name, from) in walk(dir).map_err(io("cannot read history", dir))? {
        let to = copy.join(name);
        if let Some(parent) = to.parent() {
            make(parent)?;
        }
        fs::copy(&from, &to).map_err(io("cannot copy to", &to))?;
    }
    Ok(copy)
}

/// Puts the proven copy in place of the original.
pub(super) fn exchange(dir: &Path, copy: &Path) -> Result<(), JournalError> {
    let old = beside(dir, ".old");
    remove_tree(&old)?;
    fs::rename(dir, &old).map_err(io("cannot rename", dir))?;
    fs::rename(copy, dir).map_err(io("cannot rename", copy))?;
    sync_parent(dir)?;
    remove_tree(&old)
}

/// Takes up an exchange that was interrupted: between its two renames the original goes back.
pub(super) fn finish_exchange(dir: &Path) -> Result<(), JournalError> {
    let old = beside(dir, ".old");
    if !old.exists() {
        return Ok(());
    }
    if dir.exists() {
        return remove_tree(&old);
    }
    fs::rename(&old, dir).map_err(io("cannot rename", &old))?;
    sync_parent(dir)
}
