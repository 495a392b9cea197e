//! Reading a store without leaving a trace in it: nothing is written, locked or touched.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::choose::Bytes;

/// Opens a file for reading, its access time left as it is where the kernel allows that.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let untouched = rustix::fs::OFlags::NOATIME.bits().cast_signed();
        match options.clone().custom_flags(untouched).open(path) {
            // It is somebody else's: then only reading it plainly is left.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            opened => return opened,
        }
    }
    options.open(path)
}

/// What is in a directory: names, in order, and whether each is a directory itself.
fn list(dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    // With what the directory tells of it.
    let mut found: Vec<(PathBuf, Option<bool>)> = Vec::new();
    #[cfg(target_os = "linux")]
    {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        use rustix::fs::FileType::{
            BlockDevice, CharacterDevice, Directory, Fifo, RegularFile, Socket, Symlink, Unknown,
        };
        for entry in rustix::fs::Dir::new(open(dir)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                Directory => Some(true),
                RegularFile => Some(false),
                Unknown => None,
                // None of ours.
                Symlink | Fifo | Socket | CharacterDevice | BlockDevice => continue,
            };
            found.push((dir.join(OsStr::from_bytes(name)), is_dir));
        }
    }
    #[cfg(not(target_os = "linux"))]
    for entry in fs::read_dir(dir)? {
        found.push((entry?.path(), None));
    }
    found.sort();
    let kinds = found.into_iter().filter_map(|(path, told)| {
        if let Some(is_dir) = told {
            return Some((path, is_dir));
        }
        let is_dir = match fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() || about.is_file() => about.is_dir(),
            Ok(_) => return None,
            // What it is cannot be told. That it cannot be read will be.
            Err(_) => false,
        };
        Some((path, is_dir))
    });
    Ok(kinds.collect())
}

/// Whether frames are looked for in what has this name in the store: what
/// atoms have written themselves can be made to look like anything.
fn is_journal(name: &str) -> bool {
    name == "wal" || name.starts_with("history")
}

/// Every file of the journal of a store, in an order that does not change.
pub(super) fn journal_files(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for (path, is_dir) in list(store)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match (name.is_some_and(|name| is_journal(&name)), is_dir) {
            (true, true) => dirs.push(path),
            (true, false) => files.push(path),
            (false, _) => {}
        }
    }
    while let Some(dir) = dirs.pop() {
        for (path, is_dir) in list(&dir)? {
            if is_dir {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a process has the store open: asked of the kernel, since trying the lock would be to take it.
pub(super) fn is_held(store: &Path) -> bool {
    let Ok(metadata) = fs::metadata(store.join("LOCK")) else { return false };
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return false };
    let inode = format!(":{}", metadata.ino());
    locks.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.any(|field| field == "FLOCK") && fields.any(|field| field.ends_with(&inode))
    })
}

/// The unit in which what cannot be read is left out.
const BLOCK: usize = 4096;

/// Reads what can be read of a piece of a file; what cannot is zeros. Gives how
/// many bytes there are, and how many of them could not be read.
pub(super) fn read_at(file: &File, piece: &mut [u8], offset: u64) -> (usize, u64) {
    let (mut done, mut unreadable) = (0, 0);
    while done < piece.len() {
        match file.read_at(&mut piece[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                // Who does not know where it ends finds that out by reading on.
                let end = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
                let left = usize::try_from(end.saturating_sub(offset + done as u64));
                let at = usize::try_from(offset).unwrap_or(0) + done;
                let block = BLOCK - at % BLOCK;
                let block = block.min(left.unwrap_or(block)).min(piece.len() - done);
                if block == 0 {
                    break;
                }
                piece[done..done + block].fill(0);
                done += block;
                unreadable += block as u64;
            }
        }
    }
    (done, unreadable)
}

/// Some bytes of one of the files; what cannot be read of them is zeros.
pub(super) fn bytes(files: &[File], bytes: Bytes) -> Option<Vec<u8>> {
    let mut piece = vec![0; bytes.length];
    read_at(files.get(bytes.file)?, &mut piece, bytes.offset);
    Some(piece)
}
