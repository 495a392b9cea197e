//! The files of a part in sled: the checksums of a clean hand-over, and copies.
//!
//! `N` is sled's directory, `N.sum` its checksums, `N.new` a copy that has to prove itself, `N.old` what is kept until that has taken its place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::trouble::Trouble;
use crate::journal::error::{self, JournalError};
use crate::journal::open::sync_dir;

/// The same path with something after it.
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

/// Tries a part; and where it is damaged what it was before it was last opened, if that is still
/// beside it: a host may have died, or failed to put it back, after sled had spoilt the files.
pub(super) fn first_that<T>(
    dir: &Path,
    mut attempt: impl FnMut(&Path) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    match attempt(dir) {
        Err(Trouble::Damage(problem)) if was_set_aside(dir) => {
            match attempt(&beside(dir, ".old")) {
                Err(Trouble::Damage(_)) => Err(Trouble::Damage(problem)),
                other => other,
            }
        }
        other => other,
    }
}

/// Copies the files of a part to where sled may do to them what it likes.
pub(super) fn copy_for_proof(from: &Path, dir: &Path) -> Result<PathBuf, JournalError> {
    let copy = beside(dir, ".new");
    copy_tree(from, &copy)?;
    Ok(copy)
}

/// The name of the part that a name belongs to, and what the name is beyond it.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

/// Removes a part, and everything beside it but what it builds on. The directory goes last: what
/// is beside it means nothing without it.
pub(super) fn remove_part(dir: &Path) -> Result<(), JournalError> {
    remove_copies(dir)?;
    remove_old(dir)?;
    let sums = beside(dir, ".sum");
    match fs::remove_file(&sums) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("cannot remove", &sums)(error)),
    }
    remove_tree(dir)
}

/// Removes what interrupted openings of a part have left.
pub(super) fn tidy(dir: &Path) -> Result<(), JournalError> {
    if beside(dir, ".sum").exists() && dir.exists() {
        // It was handed over after that was kept, or not opened since.
        remove_old(dir)?;
    }
    remove_copies(dir)
}

/// Removes what is only there while a part is open.
pub(super) fn remove_copies(dir: &Path) -> Result<(), JournalError> {
    remove_tree(&beside(dir, ".new"))?;
    // The one that readers had once.
    remove_tree(&beside(dir, ".read"))
}

/// Copies all files. What is left of the copy when that fails goes, above all on a full disk.
fn copy_tree(dir: &Path, copy: &Path) -> Result<(), JournalError> {
    remove_tree(copy)?;
    let copied = copy_files(dir, copy);
    if copied.is_err() {
        let _ = remove_tree(copy);
    }
    copied
}

fn copy_files(dir: &Path, copy: &Path) -> Result<(), JournalError> {
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
    copy_tree(dir, &beside(dir, ".old"))
}

/// Whether there is something that was kept.
pub(super) fn was_set_aside(dir: &Path) -> bool {
    beside(dir, ".old").is_dir()
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

/// Takes up an exchange that was interrupted between its two renames: the original goes back.
pub(super) fn finish_exchange(dir: &Path) -> Result<(), JournalError> {
    let old = beside(dir, ".old");
    if dir.exists() || !old.exists() {
        return Ok(());
    }
    fs::rename(&old, dir).map_err(io("cannot rename", &old))?;
    sync_parent(dir)
}

/// The name of the parent's entry must be durable too.
fn sync_parent(path: &Path) -> Result<(), JournalError> {
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}
