//! Who runs on this machine, as far as it belongs to a store.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process is there and is no zombie.
pub(super) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The keeper of a store, by the lock that it holds. What it has forked and what executes nothing yet looks the same
/// in lists of processes, and is not to be taken for it.
pub(super) fn keepers(atoms: &Path) -> Vec<u32> {
    let Ok(lock) = std::fs::metadata(atoms.with_file_name("keeper.lock")) else {
        return Vec::new();
    };
    let inode = format!(":{}", lock.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    // 1: POSIX ADVISORY WRITE 4711 fe:00:131090 0 EOF
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1) == Some(&"POSIX") && words.get(5)?.ends_with(&inode);
        is_it.then(|| words[4].parse().ok())?
    };
    locks.lines().filter_map(holder).filter(|pid| lives(*pid)).collect()
}

/// The atoms' ids that are in the environment of what lives, with the pids, as far as these processes were started in this store.
pub(super) fn atoms_alive(witness: &Path) -> Vec<(String, u32)> {
    let ours = format!("WITNESS={}", witness.display());
    let mut found = Vec::new();
    for pid in all().filter(|pid| lives(*pid)) {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let entries: Vec<&[u8]> = environ.split(|byte| *byte == 0).collect();
        if !entries.contains(&ours.as_bytes()) {
            continue;
        }
        let atom = entries.iter().find_map(|entry| entry.strip_prefix(b"CAESIUM_ATOM="));
        if let Some(atom) = atom {
            found.push((String::from_utf8_lossy(atom).into_owned(), pid));
        }
    }
    found
}

/// The cgroups of a store, and of its atoms.
pub(super) fn cgroups(atoms: &Path) -> Vec<PathBuf> {
    let about = std::fs::metadata(atoms).unwrap();
    let name = format!("caesium-{:x}-{:x}", about.dev(), about.ino());
    let (mut found, mut next) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(dir) = next.pop() {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.path().iter().any(|part| part == name.as_str()) {
                found.push(entry.path());
            }
            next.push(entry.path());
        }
    }
    found
}

/// Sends a signal to a process that a test has started, if it is still there.
pub(super) fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

/// Waits for something that has to come.
pub(super) fn until<T>(what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = so() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
