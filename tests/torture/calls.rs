//! Failing calls of the real storage, sled's among them: each call of each kind in turn.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use caesium::journal::SEALED_KEPT;
use tempfile::TempDir;

use super::check::Witness;
use super::disk::{Disk, fast};
use super::host::{Heard, Host, PATIENCE, command, panics};
use super::table::{Row, is_long, rounds, skip};
use super::work::{End, Orders};

/// A library that is preloaded into hosts: see `shim.c`.
#[derive(Debug, Clone)]
pub(super) struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Builds it, once; in words what this machine lacks for it.
    pub(super) fn build() -> Result<Self, String> {
        static BUILT: OnceLock<Result<(TempDir, PathBuf), String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let library = dir.path().join("shim.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/shim.c");
            let output = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
                .args([library.as_os_str(), source.as_os_str()])
                .args(["-ldl"])
                .output()
                .map_err(|error| format!("no C compiler ({error})"))?;
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok((dir, library)) } else { Err(errors) }
        });
        match built {
            Ok((_, library)) => Ok(Self { library: library.clone() }),
            Err(error) => Err(error.clone()),
        }
    }

    fn load(&self, command: &mut Command, calls: &str, how: &str) {
        let dir = command.get_envs().find(|(key, _)| *key == super::work::DIR).unwrap().1;
        let dir = dir.unwrap().to_owned();
        command.env("LD_PRELOAD", &self.library).env("TORTURE_DIR", dir);
        command.env("TORTURE_CALLS", calls).env("TORTURE_HOW", how);
    }

    /// Lets the n-th of these calls fail, as `how` says.
    pub(super) fn fail(&self, command: &mut Command, calls: &str, how: &str, nth: u64) {
        self.load(command, calls, how);
        command.env("TORTURE_NTH", nth.to_string()).env("TORTURE_ERRNO", "5");
    }

    /// Leaves these calls out, and says that they were made.
    pub(super) fn skip(&self, command: &mut Command, calls: &str) {
        self.load(command, calls, "skip");
    }
}

/// Every call that the journal, its history or sled makes on its files.
pub(super) const CALLS: [&str; 16] = [
    "open",
    "write",
    "read",
    "fdatasync",
    "fsync",
    "sync_file_range",
    "rename",
    "unlink",
    "mkdir",
    "truncate",
    "copy",
    "list",
    "stat",
    "chmod",
    "flock",
    "lseek",
];

/// Those after which it is decided what is on the disk: tried with a power cut after them.
const DURABILITY: [&str; 4] = ["write", "fdatasync", "fsync", "sync_file_range"];

const SEGMENT_BYTES: u64 = 2048;

/// A store to begin with, and what a host does with it.
struct Scene {
    name: &'static str,
    template: Option<(TempDir, Witness)>,
    orders: Orders,
}

/// A new store, one that was closed, and one that a killed host has left.
fn scenes() -> Vec<Scene> {
    let orders = Orders {
        round: 0,
        segment_bytes: SEGMENT_BYTES,
        writers: 1,
        lives: 16,
        read_first: false,
        end: End::Close,
        keep: 0,
    };
    let left = |end: End| {
        let dir = fast();
        let mut witness = Witness::default();
        let first = Orders { end: End::Park, lives: 30, ..orders.clone() };
        let mut host = Host::start(command(&[], dir.path(), &first.text()));
        let heard = host.listen(PATIENCE, |line| {
            witness.hear(line);
            line == "parked"
        });
        assert_eq!(heard, Heard::Enough);
        packed(dir.path());
        host.kill();
        host.end();
        if end == End::Close {
            let verdict = witness.check(dir.path(), SEGMENT_BYTES);
            assert!(verdict.is_good(), "{verdict:?}");
        }
        Some((dir, witness))
    };
    let cutting = Orders { round: 2, keep: 40, ..orders.clone() };
    let again = Orders { round: 1, lives: 10, read_first: true, ..orders.clone() };
    vec![
        Scene { name: "a new store", template: None, orders: orders.clone() },
        Scene { name: "a closed store", template: left(End::Close), orders: again.clone() },
        Scene { name: "a killed host's store", template: left(End::Park), orders: again },
        Scene { name: "a store that is cut", template: left(End::Close), orders: cutting },
    ]
}

/// Waits until all is packed that will be.
pub(super) fn packed(dir: &Path) {
    let segments = || {
        let entries = std::fs::read_dir(dir.join("wal")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".seg")).count()
    };
    let patience = Instant::now() + PATIENCE;
    while !dir.join("history/head").exists() || segments() > SEALED_KEPT + 1 {
        assert!(Instant::now() < patience, "nothing is packed");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(super) fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let to = to.join(name);
        if path.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_tree(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// What a host is made to suffer.
struct Trial<'a> {
    what: String,
    under: &'a [String],
    prepare: &'a dyn Fn(&mut Command),
    /// It can strike before the host has begun, as the kernel's failures do.
    early: bool,
    /// The host itself does not survive it.
    deadly: bool,
    /// The power is cut when it has ended.
    then_cut: bool,
}

/// Runs one; gives whether the host met with what was prepared.
fn try_it(scene: &Scene, trial: &Trial<'_>, row: &mut Row) -> Result<bool, String> {
    let mut disk = if trial.then_cut { Some(Disk::make("ext4")?) } else { None };
    let temporary = fast();
    let dir = disk.as_ref().map_or_else(|| temporary.path().to_owned(), Disk::store);
    let mut witness = Witness::default();
    if let Some((template, told)) = &scene.template {
        copy_tree(template.path(), &dir);
        if trial.then_cut {
            rustix::fs::syncfs(std::fs::File::open(&dir).unwrap()).unwrap();
        }
        witness = told.clone();
        witness.acknowledged = 0;
        witness.keep = scene.orders.keep;
    }
    let mut command = command(trial.under, &dir, &scene.orders.text());
    (trial.prepare)(&mut command);
    let mut host = Host::start(command);
    let (mut hit, mut done, mut begun) = (false, false, false);
    let mut said = Vec::new();
    let heard = host.listen(PATIENCE, |line| {
        hit |= line.starts_with("hit ");
        done |= line == "done";
        begun |= line == "opening";
        if !witness.hear(line) {
            said.push(line.to_owned());
        }
        false
    });
    let what = format!("{}, {}", scene.name, trial.what);
    assert_eq!(heard, Heard::Over, "{what}: it hangs: {said:?}");
    if let Some(disk) = &disk {
        disk.cut();
    }
    let (status, errors) = host.end();
    assert!(panics(&errors).is_empty(), "{what}: {errors}");
    let killed = trial.deadly && hit;
    let (mut refused, mut reported) = (false, false);
    let early = trial.early && !begun;
    assert!(done && status.success() || killed || early, "{what}: {status} {said:?} {errors}");
    for line in &said {
        let Some(failure) = line.strip_prefix("failed ") else { continue };
        let mut words = failure.split(' ');
        let (during, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let allowed: &[&str] = match during {
            "append" => &["InDoubt", "Poisoned", "NoSpace"],
            "compact" => &["Io", "NoSpace", "HistoryDamaged", "Poisoned"],
            "open" => &["Io"],
            "close" => &["Poisoned", "Io", "HistoryDamaged"],
            _ => &["Io", "HistoryDamaged", "Poisoned"],
        };
        assert!(allowed.contains(&kind), "{what}: {line}");
        refused |= during == "open";
        reported |= during != "open";
    }
    row.refused += u64::from(refused);
    row.reported += u64::from(reported && !refused);
    if let Some(disk) = &mut disk {
        disk.restart();
        // Its name was not promised to be there.
        disk.store();
    }
    let verdict = witness.check(&dir, SEGMENT_BYTES);
    assert!(verdict.is_good(), "{what}: {verdict:?}, after {said:?}");
    row.lost += verdict.lost;
    row.wrong += verdict.wrong;
    row.acknowledged += witness.acknowledged;
    row.rounds += 1;
    if let Some(disk) = &mut disk {
        disk.unmount();
    }
    Ok(hit)
}

fn each_call(calls: &[&str], how: &str, then_cut: bool, kind: &str) {
    // In the short form ever fewer.
    let next = |nth| if is_long() { nth + 1 } else { nth * 4 + 1 };
    each_call_of(&scenes(), next, calls, how, then_cut, kind);
}

fn each_call_of(
    scenes: &[Scene],
    next: impl Fn(u64) -> u64,
    calls: &[&str],
    how: &str,
    then_cut: bool,
    kind: &str,
) {
    let shim = match Shim::build() {
        Ok(shim) => shim,
        Err(lacking) => return skip(&format!("{kind}: {lacking}")),
    };
    let mut row = Row::new(kind);
    for (number, scene) in scenes.iter().enumerate() {
        for (position, call) in calls.iter().enumerate() {
            // In the short form each call meets every other scene.
            if !is_long() && scenes.len() > 1 && (number + position) % 2 == 1 {
                continue;
            }
            let mut nth = 1;
            // What threads do differs a little from run to run: one miss is not the end.
            let mut missed = 0;
            while missed < 2 {
                let prepare = |command: &mut Command| {
                    shim.fail(command, call, how, nth);
                };
                let trial = Trial {
                    what: format!("{call} {nth} {how}"),
                    under: &[],
                    prepare: &prepare,
                    early: false,
                    deadly: how == "kill",
                    then_cut,
                };
                match try_it(scene, &trial, &mut row) {
                    Ok(hit) => missed = if hit { 0 } else { missed + 1 },
                    Err(lacking) => return skip(&format!("{kind}: {lacking}")),
                }
                nth = next(nth);
            }
        }
    }
    assert!(row.acknowledged > 0, "hosts got nowhere: {row:?}");
    row.print();
}

#[test]
fn whichever_call_fails_once_nothing_acknowledged_is_lost() {
    each_call(&CALLS, "once", false, "each call fails once");
}

#[test]
fn whichever_call_fails_from_then_on_nothing_acknowledged_is_lost() {
    each_call(&CALLS, "forever", false, "each call fails from then on");
}

/// sled takes a read that fails for the end of what it has, and cuts the rest away.
#[test]
fn whichever_read_fails_while_the_history_is_opened_it_is_there_afterwards() {
    let closed = &scenes()[1..2];
    let kind = "each read of a closed store fails once";
    let next = |nth| if is_long() { nth + 1 } else { nth + 1 + nth / 6 };
    each_call_of(closed, next, &["read"], "once", false, kind);
}

#[test]
fn whichever_write_is_torn_nothing_acknowledged_is_lost() {
    each_call(&["write"], "torn", false, "each write is torn and fails");
}

#[test]
fn whichever_call_is_the_hosts_last_nothing_acknowledged_is_lost() {
    each_call(&[&CALLS.join(",")], "kill", false, "kill -9 at each call");
}

#[test]
fn a_failed_call_is_no_ground_for_an_acknowledgement() {
    each_call(&DURABILITY, "once", true, "each call fails once, then power cut");
}

/// There are ways in sled to wait for ever. The journal waits for a minute.
#[test]
fn a_call_that_never_returns_is_given_up_on() {
    let kind = "a call of sled never returns";
    if !is_long() {
        return;
    }
    let shim = match Shim::build() {
        Ok(shim) => shim,
        Err(lacking) => return skip(&format!("{kind}: {lacking}")),
    };
    let mut row = Row::new(kind);
    for scene in &scenes() {
        for nth in [1, 9] {
            let prepare =
                |command: &mut Command| shim.fail(command, "sync_file_range", "hang", nth);
            let trial = Trial {
                what: format!("sync_file_range {nth} hangs"),
                under: &[],
                prepare: &prepare,
                early: false,
                deadly: false,
                then_cut: false,
            };
            try_it(scene, &trial, &mut row).unwrap();
        }
    }
    row.print();
}

/// The same by the kernel, which no way of making a call gets around.
#[test]
fn whichever_call_the_kernel_fails_nothing_acknowledged_is_lost() {
    let kind = "each call fails, by strace";
    if let Err(error) = Command::new("strace").arg("-V").output() {
        return skip(&format!("{kind}: {error}"));
    }
    let mut row = Row::new(kind);
    let calls = [
        "fdatasync",
        "fsync",
        "pwrite64",
        "pread64",
        "rename",
        "unlink",
        "openat",
        "getdents64",
        "statx",
        "copy_file_range",
        "ftruncate",
        "fallocate",
    ];
    // It counts for each thread by itself: so far as every thread goes.
    let all = rounds("strace", 2, 60);
    for scene in &scenes() {
        for call in calls {
            for nth in (0..all).map(|nth| if is_long() { nth + 1 } else { 1 + nth * 11 }) {
                let inject = format!("inject={call}:error=EIO:when={nth}");
                let trace = format!("trace={call}");
                let under =
                    ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
                let under = under.map(str::to_owned);
                let trial = Trial {
                    what: format!("{call} {nth} by strace"),
                    under: &under,
                    prepare: &|_| {},
                    early: true,
                    deadly: false,
                    then_cut: false,
                };
                if let Err(lacking) = try_it(scene, &trial, &mut row) {
                    return skip(&format!("{kind}: {lacking}"));
                }
            }
        }
    }
    assert!(row.acknowledged > 0, "hosts got nowhere: {row:?}");
    row.print();
}
