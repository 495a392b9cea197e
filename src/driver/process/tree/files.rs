//! Reading and writing the small files that a cgroup is made of.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::driver::kernel_file;
use crate::driver::process::sys::pause;

/// How long a cgroup that has just been emptied may be busy still.
const SETTLING: Duration = Duration::from_millis(200);

/// Writes `text` with one write(2), as the kernel wants it.
pub(super) fn write(file: &Path, text: &str) -> io::Result<()> {
    // Never created: what is not there is a file that this kernel does not have.
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

/// Whether two results differ in nothing but that the thing was there.
pub(super) fn or_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Whether an error says that the cgroup is not there, or went while its file was open.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The words of a file such as `cgroup.controllers`.
pub(super) fn words(file: &Path) -> io::Result<Vec<String>> {
    Ok(fs::read_to_string(file)?.split_ascii_whitespace().map(str::to_owned).collect())
}

/// The number behind `key` in a file of lines `key number`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A file that holds one number.
pub(super) fn number(file: &Path) -> Option<u64> {
    kernel_file::read_text(file).ok()?.trim().parse().ok()
}

/// The directory and all that are nested in it, the innermost first.
pub(super) fn nested(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_path_buf()];
    let mut next = 0;
    while next < found.len() {
        // Two links: its name and its own dot. Every directory in it would be one more.
        if fs::metadata(&found[next]).is_ok_and(|about| about.nlink() == 2) {
            next += 1;
            continue;
        }
        let entries = match fs::read_dir(&found[next]) {
            Ok(entries) => entries,
            Err(error) if next > 0 && is_gone(&error) => {
                next += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        next += 1;
    }
    found.reverse();
    Ok(found)
}

/// The pids in a cgroup and all that are nested in it; none when it is gone.
///
/// The kernel lists no process of which nothing but a zombie is left. One of a pid
/// namespace that ours does not contain is listed as 0, and left out.
pub(super) fn members(dir: &Path) -> io::Result<Vec<u32>> {
    let dirs = match nested(dir) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut pids = Vec::new();
    for dir in dirs {
        match kernel_file::read_text(dir.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            // A threaded one, whose processes the one above it lists.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    pids.retain(|pid| *pid != 0);
    Ok(pids)
}

/// What a process is called; `?` when it has gone.
pub(super) fn name_of(pid: u32) -> String {
    let comm = kernel_file::read(format!("/proc/{pid}/comm")).unwrap_or_else(|_| b"?".to_vec());
    String::from_utf8_lossy(&comm).trim_end().to_owned()
}

/// Removes a cgroup and what is nested in it; no error when it is not there.
///
/// # Errors
///
/// `EBUSY` when something lives in it.
pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    if or_gone(fs::remove_dir(dir)).is_ok() {
        return Ok(());
    }
    let deadline = Instant::now() + SETTLING;
    loop {
        let removed = nested(dir)
            .and_then(|dirs| dirs.iter().try_for_each(|dir| or_gone(fs::remove_dir(dir))));
        match or_gone(removed) {
            // What has just died may count a moment longer.
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY)
                    && members(dir)?.is_empty()
                    && Instant::now() < deadline =>
            {
                pause();
            }
            other => return other,
        }
    }
}
