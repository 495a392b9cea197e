//! The files around sled: its head, the checksums of a clean hand-over, and the copy that proves itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::sled::sync_parent;
use super::{Base, Head};
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

/// The directory of a generation: `<store>/history`, and after the first cut `<store>/history.1`.
pub(super) fn generation(dir: &Path, number: u64) -> PathBuf {
    match number {
        0 => dir.to_owned(),
        number => beside(dir, &format!(".{number}")),
    }
}

/// Which generation a name beside the history belongs to; `None` for what belongs to none.
fn generation_of(dir: &Path, name: &OsStr) -> Option<u64> {
    let rest = name.to_str()?.strip_prefix(dir.file_name()?.to_str()?)?;
    let mut parts = rest.split('.').skip(1).peekable();
    let number = parts.peek().and_then(|part| part.parse().ok()).filter(|number| *number > 0);
    if number.is_some() {
        parts.next();
    }
    let suffix: Vec<&str> = parts.collect();
    let ours = match suffix[..] {
        [] => rest.is_empty() || rest.starts_with('.'),
        ["sum" | "base" | "new" | "old"] | ["sum" | "base", "tmp"] => true,
        [..] => false,
    };
    ours.then(|| number.unwrap_or(0))
}

/// Removes everything of other generations than this one.
pub(super) fn remove_other_generations(dir: &Path, current: u64) -> Result<(), JournalError> {
    let Some(store) = dir.parent() else { return Ok(()) };
    let cannot = || io("cannot read store", store);
    for entry in fs::read_dir(store).map_err(cannot())? {
        let entry = entry.map_err(cannot())?;
        if generation_of(dir, &entry.file_name()).is_none_or(|number| number == current) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(cannot())?.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).map_err(io("cannot remove", &path))?;
        }
    }
    Ok(())
}

/// Writes what the first event of a generation builds on.
pub(super) fn write_base(dir: &Path, base: &Base) -> Result<(), JournalError> {
    write_atomically(&beside(dir, ".base"), base.frames())
}

/// Reads what the first event of a generation builds on; in words what is wrong with it.
pub(super) fn read_base(dir: &Path) -> Result<Base, String> {
    let path = beside(dir, ".base");
    let bytes = fs::read(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    Base::read(bytes).map_err(|problem| format!("{}: {problem}", path.display()))
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

/// The head of a history that was cut.
const CUT_FORMAT: u32 = 2;
const CUT_BYTES: usize = 48;

/// What the head says: it alone decides which generation is the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) head: Head,
    pub(super) generation: u64,
    /// The event that builds on the base; 0 where there is none.
    pub(super) base: u64,
}

impl Installed {
    /// As long as nothing was cut the head is that of a history which cannot be.
    fn encode(self) -> Vec<u8> {
        if self.generation == 0 && self.base == 0 {
            return encode_head(self.head).to_vec();
        }
        let mut bytes = encode_head(self.head)[..28].to_vec();
        bytes[4..8].copy_from_slice(&CUT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.base.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// In words, what is wrong with it.
    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (told, crc) = bytes.split_last_chunk::<4>().ok_or("is too short")?;
        if crc32c::crc32c(told) != u32::from_le_bytes(*crc) || !told.starts_with(&HEAD_MAGIC) {
            return Err("is damaged");
        }
        let number = |at: usize| {
            let number = told.get(at..).and_then(|rest| rest.first_chunk());
            number.map(|number| u64::from_le_bytes(*number)).ok_or("is too short")
        };
        let short = |at: usize| {
            let number = told.get(at..).and_then(|rest| rest.first_chunk());
            number.map(|number| u32::from_le_bytes(*number)).ok_or("is too short")
        };
        let head = Head { first: number(8)?, last: number(16)?, chain: short(24)? };
        match (short(4)?, bytes.len()) {
            (HEAD_FORMAT, HEAD_BYTES) => Ok(Self { head, generation: 0, base: 0 }),
            (CUT_FORMAT, CUT_BYTES) => {
                Ok(Self { head, generation: number(28)?, base: number(36)? })
            }
            (HEAD_FORMAT | CUT_FORMAT, _) => Err("has another length than it should have"),
            (_, _) => Err("has a format that this program does not know: use a newer caesium"),
        }
    }
}

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

/// How far a history reached, by the bytes of its head, if they are whole.
pub(crate) fn head_of(bytes: &[u8]) -> Option<Head> {
    Installed::decode(bytes).ok().map(|installed| installed.head)
}

impl HeadFile {
    pub(super) fn beside(dir: &Path) -> Self {
        Self { path: beside(dir, ".head") }
    }

    /// `None` when there never was one.
    pub(super) fn read(&self) -> Result<Option<Installed>, JournalError> {
        match fs::read(&self.path) {
            Ok(bytes) => Installed::decode(&bytes).map(Some).map_err(|problem| {
                let problem = format!("{} {problem}", self.path.display());
                JournalError::HistoryDamaged { problem }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("cannot read", &self.path)(error)),
        }
    }

    pub(super) fn write(&self, installed: Installed) -> Result<(), JournalError> {
        write_atomically(&self.path, &installed.encode())
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

/// Takes the rights away that sled's files have from the umask: a store is its owner's alone.
pub(super) fn make_private(dir: &Path) -> Result<(), JournalError> {
    let entries = fs::read_dir(dir).map_err(io("cannot read", dir))?;
    for entry in entries {
        let path = entry.map_err(io("cannot read", dir))?.path();
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(io("cannot change the mode of", &path))?;
    }
    Ok(())
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
    copy_tree(dir, &copy)?;
    Ok(copy)
}

fn copy_tree(dir: &Path, copy: &Path) -> Result<(), JournalError> {
    remove_tree(copy)?;
    let make = |path: &Path| {
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
            .map_err(io("cannot create", path))
    };
    make(copy)?;
    for (name, from) in walk(dir).map_err(io("cannot read history", dir))? {
        let to = copy.join(name);
        if let Some(parent) = to.parent() {
            make(parent)?;
        }
        fs::copy(&from, &to).map_err(io("cannot copy to", &to))?;
    }
    Ok(())
}

/// Keeps a copy of what was proven until sled has opened it. It need not be
/// durable: after a crash the files themselves are judged.
pub(super) fn set_aside(dir: &Path) -> Result<(), JournalError> {
    let old = beside(dir, ".old");
    match copy_tree(dir, &old) {
        // Without room for two there must be a way to read the one.
        Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            remove_tree(&old)
        }
        other => other,
    }
}

/// Puts what was proven back in place, if it was kept.
pub(super) fn restore(dir: &Path) -> Result<(), JournalError> {
    let old = beside(dir, ".old");
    if !old.exists() {
        return Ok(());
    }
    // A copy is as good as the files only once it is as durable.
    sync_tree(&old)?;
    let spoilt = beside(dir, ".new");
    remove_tree(&spoilt)?;
    fs::rename(dir, &spoilt).map_err(io("cannot rename", dir))?;
    fs::rename(&old, dir).map_err(io("cannot rename", &old))?;
    sync_parent(dir)?;
    remove_tree(&spoilt)
}

/// Removes what was kept.
pub(super) fn remove_old(dir: &Path) -> Result<(), JournalError> {
    remove_tree(&beside(dir, ".old"))
}

/// Puts the proven copy in place of the original, which is kept beside it.
pub(super) fn exchange(dir: &Path, copy: &Path) -> Result<(), JournalError> {
    let old = beside(dir, ".old");
    remove_tree(&old)?;
    fs::rename(dir, &old).map_err(io("cannot rename", dir))?;
    fs::rename(copy, dir).map_err(io("cannot rename", copy))?;
    sync_parent(dir)
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
