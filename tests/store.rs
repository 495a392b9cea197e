//! The directory that a store lives in: what is refused, who may have it, and what a copy knows.
//!
//! Some tests need another process with the store open: this very binary, executed
//! again as [`helper`].

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caesium::driver::memory::{Act, MemoryDriver, World};
use caesium::driver::{self, Driver, DriverError, Observation, Observer, Sighting, Surroundings};
use caesium::engine::{DeleteRequest, GetRequest, ListRequest};
use caesium::journal::JournalError;
use caesium::lifecycle::Reason;
use caesium::log::{LogQuery, LogSource};
use caesium::{
    Atom, AtomId, AtomSpec, Durability, Engine, EngineOptions, Error, JournaledEngine, OnClose,
    Outcome, State, Timestamp,
};
use tempfile::TempDir;

type MemoryEngine = JournaledEngine<MemoryDriver>;

const PATIENCE: Duration = Duration::from_secs(60);

/// At once: for a store that another process has open, and will not close.
fn options() -> EngineOptions {
    EngineOptions::new().lock_wait(Duration::ZERO).on_close(OnClose::Leave)
}

fn open(path: &Path) -> Result<MemoryEngine, Error> {
    options().open_with(path, |_| Ok(MemoryDriver::new(World::new())))
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Everything below a path, with contents; but for the lock, which says who looked last.
fn contents(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            pending.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            found.insert(path, None);
        } else if metadata.is_file() && !path.ends_with("LOCK") {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// The path is refused with these words, and what is there is as it was.
fn assert_refused(path: &Path, words: &str) {
    let look = |path: &Path| (contents(path), path.symlink_metadata().unwrap().mode());
    let before = look(path);
    let error = open(path).unwrap_err();
    let Error::StoreRefused { path: named, problem } = &error else { panic!("{error:?}") };
    assert_eq!(named, path);
    assert!(problem.contains(words), "{problem:?}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    assert_eq!(look(path), before, "it was touched");
}

/// A closed store with one atom that has ended.
fn store(path: &Path) -> AtomId {
    let engine = open(path).unwrap();
    let atom = engine.create(Act::Exit(3).spec().into()).unwrap();
    let atom = engine.wait(&atom.id().into()).unwrap();
    engine.close().unwrap();
    atom.id()
}

mod what_is_refused {
    use super::*;

    #[test]
    fn a_symbolic_link_to_a_directory() {
        let dir = temp();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        store(&target);
        symlink(&target, &link).unwrap();
        assert_refused(&link, "symbolic link");
        // The kernel would follow these two to the target.
        for spelling in ["link/", "link/."] {
            let error = open(&dir.path().join(spelling)).unwrap_err();
            assert!(error.to_string().contains("symbolic link"), "{spelling}: {error}");
        }
    }

    #[test]
    fn a_symbolic_link_to_nowhere() {
        let dir = temp();
        let link = dir.path().join("link");
        symlink(dir.path().join("nowhere"), &link).unwrap();
        assert_refused(&link, "symbolic link");
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn a_store_by_an_engine_that_would_not_write_to_it() {
        let dir = temp();
        let path = dir.path().join("store");
        let id = store(&path);
        let before = contents(&path);
        let refused = options()
            .durability(Durability::Memory)
            .open_with(&path, |_| Ok(MemoryDriver::new(World::new())))
            .unwrap_err();
        assert!(refused.to_string().contains("Durability::Memory"), "{refused}");
        assert_eq!(contents(&path), before);
        assert_eq!(open(&path).unwrap().get(&id.into()).unwrap().exit_code(), Some(3));
    }

    #[test]
    fn a_file() {
        let dir = temp();
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert_refused(&file, "not a directory");
        let below = open(&file.join("store")).unwrap_err();
        assert!(matches!(below, Error::StoreRefused { .. }), "{below:?}");
    }

    #[test]
    fn a_directory_that_others_may_enter() {
        let dir = temp();
        for mode in [0o755, 0o750, 0o711, 0o701, 0o777, 0o1777] {
            let path = dir.path().join(format!("{mode:o}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_refused(&path, &format!("mode is {mode:04o}"));
        }
    }

    #[test]
    fn a_store_that_others_may_enter_by_now() {
        let dir = temp();
        let path = dir.path().join("store");
        store(&path);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert_refused(&path, "mode is 0755");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        open(&path).unwrap().close().unwrap();
    }

    #[test]
    fn a_directory_of_another_user() {
        let dir = temp();
        let path = dir.path().join("theirs");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_err() {
            println!("SKIP: only root can give a directory away");
            return;
        }
        assert_refused(&path, "belongs to user 65534");
    }

    #[test]
    fn a_directory_with_something_else_in_it() {
        for stranger in ["precious", "wal.old", ".hidden", "format"] {
            let dir = temp();
            let path = dir.path().join("full");
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            fs::write(path.join(stranger), "precious").unwrap();
            assert_refused(&path, stranger);
        }
    }
}

mod what_is_created {
    use super::*;

    #[test]
    fn missing_directories_above_the_store_are_private_too() {
        let dir = temp();
        let path = dir.path().join("a/b/store");
        open(&path).unwrap().close().unwrap();
        for made in ["a", "a/b", "a/b/store"] {
            let mode = dir.path().join(made).metadata().unwrap().mode();
            assert_eq!(mode & 0o7777, 0o700, "{made}");
        }
    }

    #[test]
    fn an_empty_directory_of_our_own_becomes_a_store() {
        let dir = temp();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        open(dir.path()).unwrap().close().unwrap();
        open(dir.path()).unwrap().close().unwrap();
    }

    #[test]
    fn everything_is_private_whatever_the_umask() {
        for umask in ["000", "002", "022", "077"] {
            let dir = temp();
            let path = dir.path().join("store");
            let mut sh = Command::new("sh");
            sh.args(["-c", "umask \"$1\"; shift; exec \"$@\"", "sh", umask]);
            sh.arg(std::env::current_exe().unwrap());
            let mut helper = Helper::spawn(sh, "fill", &path);
            helper.ready();
            check_modes(&path);
            helper.release();
            check_modes(&path);
        }
    }

    fn check_modes(path: &Path) {
        let metadata = path.symlink_metadata().unwrap();
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, expected, "{}", path.display());
        if metadata.is_dir() {
            for entry in path.read_dir().unwrap() {
                check_modes(&entry.unwrap().path());
            }
        }
    }

    #[test]
    fn a_creation_that_was_cut_short_is_finished() {
        let beginnings: &[(&str, &[&str], &[&str])] = &[
            ("only the lock", &[], &["LOCK"]),
            ("only the journal's directory", &["wal"], &[]),
            ("lock and directories", &["wal", "atoms"], &["LOCK"]),
            ("half a format file", &["wal", "atoms"], &["LOCK", "FORMAT.tmp"]),
        ];
        for (what, dirs, files) in beginnings {
            let dir = temp();
            fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
            for name in *dirs {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::set_permissions(dir.path().join(name), Permissions::from_mode(0o700)).unwrap();
            }
            for name in *files {
                fs::write(dir.path().join(name), "").unwrap();
            }
            let id = store(dir.path());
            let engine = open(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(engine.get(&GetRequest::from(id)).unwrap().exit_code(), Some(3), "{what}");
        }
    }

    #[test]
    fn a_store_may_lie_deep() {
        // Socket paths end at 107 bytes, names at 255, paths at 4095.
        for depth in [1, 5, 14] {
            let dir = temp();
            let mut path = dir.path().to_owned();
            for _ in 0..depth {
                path.push("d".repeat(250));
            }
            path.push("store");
            let id = store(&path);
            let engine = open(&path).unwrap();
            assert_eq!(engine.get(&GetRequest::from(id)).unwrap().state(), State::Stopped);
        }
    }
}

mod who_may_have_it {
    use super::*;

    fn holder(error: &Error) -> &str {
        let Error::StoreLocked { holder, .. } = error else { panic!("{error:?}") };
        holder
    }

    #[test]
    fn a_store_that_another_process_holds_is_locked_and_the_process_named() {
        let dir = temp();
        let path = dir.path().join("store");
        let mut helper = Helper::start("hold", &path);
        helper.ready();
        let error = open(&path).unwrap_err();
        assert!(holder(&error).contains(&format!("process {} ", helper.child.id())), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        helper.release();
        open(&path).unwrap().close().unwrap();
    }

    #[test]
    fn the_lock_goes_with_a_process_that_is_killed() {
        let dir = temp();
        let path = dir.path().join("store");
        let mut helper = Helper::start("hold", &path);
        helper.ready();
        assert!(matches!(open(&path), Err(Error::StoreLocked { .. })));
        helper.child.kill().unwrap();
        helper.child.wait().unwrap();
        open(&path).unwrap().close().unwrap();
    }

    #[test]
    fn one_process_cannot_open_it_twice_either() {
        let dir = temp();
        let path = dir.path().join("store");
        let first = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(holder(&error).contains(&std::process::id().to_string()), "{error}");
        first.close().unwrap();
        open(&path).unwrap().close().unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn opening_waits_for_it_and_gets_it_when_it_is_released() {
        let dir = temp();
        let path = dir.path().join("store");
        let mut helper = Helper::start("fill", &path);
        helper.ready();
        let lock = path.join("LOCK").metadata().unwrap().ino();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| {
                let options = options().lock_wait(PATIENCE);
                options.open_with(&path, |_| Ok(MemoryDriver::new(World::new())))
            });
            until("nobody waits for the lock", || watches(lock));
            assert!(!opening.is_finished(), "it is held");
            helper.release();
            let engine = opening.join().unwrap().unwrap();
            assert_eq!(engine.list(&ListRequest::all()).unwrap().len(), 1, "what the other left");
        });
    }

    /// Whether this process watches the file with this inode number.
    fn watches(inode: u64) -> bool {
        let mark = format!("ino:{inode:x} ");
        let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        infos.into_iter().any(|info| {
            // Descriptors come and go while this looks.
            let text = fs::read_to_string(info.path()).unwrap_or_default();
            text.lines().any(|line| line.starts_with("inotify ") && line.contains(&mark))
        })
    }

    fn until(otherwise: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "{otherwise}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

mod what_a_copy_knows {
    use super::*;

    /// A driver for stores that may be copies: what the original started is not looked
    /// for, and every command is noted.
    struct Careful {
        inner: MemoryDriver,
        copied: bool,
        observer: Mutex<Option<Arc<Observer>>>,
        commands: Arc<Mutex<Vec<driver::Command>>>,
    }

    impl Driver for Careful {
        fn name(&self) -> &'static str {
            self.inner.name()
        }

        fn start(&self, observer: Observer) -> Result<(), DriverError> {
            let observer = Arc::new(observer);
            *self.observer.lock().unwrap() = Some(observer.clone());
            self.inner.start(Box::new(move |observation| observer(observation)))
        }

        fn prepare(
            &self,
            atom: AtomId,
            spec: &AtomSpec,
            around: Option<&Surroundings>,
        ) -> Result<(), DriverError> {
            self.inner.prepare(atom, spec, around)
        }

        fn release(&self, atom: AtomId) {
            self.inner.release(atom);
        }

        fn send(&self, command: driver::Command) -> Result<(), DriverError> {
            self.commands.lock().unwrap().push(command.clone());
            let driver::Command::Look(remembered) = &command else {
                return self.inner.send(command);
            };
            if !self.copied || !remembered.state.is_live() {
                return self.inner.send(command);
            }
            let (atom, reason) = (remembered.order.atom, Reason::StoreCopied);
            let (at, detail) = (Timestamp::default(), "started by the original".into());
            let observer = self.observer.lock().unwrap().clone().unwrap();
            observer(Observation::LostSight { atom, at, reason, detail });
            observer(Observation::Seen { atom, sighting: Sighting::Changed });
            Ok(())
        }

        fn logs(&self, atom: &Atom, query: &LogQuery) -> Result<Box<dyn LogSource>, DriverError> {
            self.inner.logs(atom, query)
        }

        fn close(&self) {
            self.inner.close();
        }
    }

    /// An engine in `world`, whether the store said that it was a copy, and what the driver was told.
    struct Opened {
        engine: JournaledEngine<Careful>,
        copied: bool,
        commands: Arc<Mutex<Vec<driver::Command>>>,
    }

    fn open_in(path: &Path, world: &World) -> Opened {
        let commands = Arc::new(Mutex::new(Vec::new()));
        let mut copied = false;
        let engine = options()
            .open_with(path, |home| {
                copied = home.copied;
                Ok(Careful {
                    inner: MemoryDriver::new(world.clone()),
                    copied,
                    observer: Mutex::new(None),
                    commands: commands.clone(),
                })
            })
            .unwrap();
        Opened { engine, copied, commands }
    }

    fn copy(from: &Path, to: &Path) {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    }

    #[test]
    fn what_the_original_started_is_unknown_to_a_copy_and_never_signalled() {
        let dir = temp();
        let (path, copied) = (dir.path().join("store"), dir.path().join("copy"));
        let world = World::new();
        let original = open_in(&path, &world);
        assert!(!original.copied);
        let running = original.engine.create(Act::Linger.spec().into()).unwrap();
        let ended = original.engine.create(Act::Exit(3).spec().into()).unwrap();
        let ended = original.engine.wait(&ended.id().into()).unwrap();
        original.engine.close().unwrap();
        copy(&path, &copied);

        let elsewhere = open_in(&copied, &world);
        assert!(elsewhere.copied);
        let atom = elsewhere.engine.get(&running.id().into()).unwrap();
        assert_eq!(
            (atom.state(), atom.result(), atom.reason()),
            (State::Stopped, Some(Outcome::Unknown), Some(Reason::StoreCopied)),
        );
        assert_eq!(elsewhere.engine.get(&ended.id().into()).unwrap(), ended);
        assert_eq!(world.living(), [running.id()], "the original's atom was touched");
        let commands = elsewhere.commands.lock().unwrap().clone();
        let quiet = |command: &driver::Command| {
            matches!(command, driver::Command::Look(_) | driver::Command::Sync { .. })
        };
        assert!(commands.iter().all(quiet), "{commands:#?}");
        elsewhere.engine.close().unwrap();

        let original = open_in(&path, &world);
        assert!(!original.copied);
        assert_eq!(original.engine.get(&running.id().into()).unwrap(), running);
    }

    #[test]
    fn a_copy_that_was_opened_is_a_store_of_its_own() {
        let dir = temp();
        let (path, copied) = (dir.path().join("store"), dir.path().join("copy"));
        let id = store(&path);
        copy(&path, &copied);
        let world = World::new();
        let first = open_in(&copied, &world);
        assert!(first.copied);
        let own = first.engine.create(Act::Linger.spec().into()).unwrap();
        first.engine.close().unwrap();
        let second = open_in(&copied, &world);
        assert!(!second.copied, "it belongs here now");
        assert_eq!(second.engine.get(&own.id().into()).unwrap(), own, "its own atom is adopted");
        second.engine.delete(&DeleteRequest::from(own.id()).force()).unwrap();
        second.engine.close().unwrap();
        let engine = open(&path).unwrap();
        let atoms: Vec<AtomId> =
            engine.list(&ListRequest::all()).unwrap().iter().map(Atom::id).collect();
        assert_eq!(atoms, [id], "the original knows nothing of what happened to the copy");
    }

    #[test]
    fn a_store_that_was_moved_is_the_same_store() {
        let dir = temp();
        let (path, moved) = (dir.path().join("store"), dir.path().join("moved"));
        store(&path);
        fs::rename(&path, &moved).unwrap();
        assert!(!open_in(&moved, &World::new()).copied);
    }
}

mod what_is_damaged_or_too_new {
    use super::*;

    /// Opening fails with the error that this is, and changes nothing.
    fn fails(path: &Path, expected: impl Fn(&Error) -> bool) {
        let before = contents(path);
        let error = open(path).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(contents(path), before, "it was written to");
    }

    #[test]
    fn a_newer_format_is_refused_and_untouched() {
        let dir = temp();
        let path = dir.path().join("store");
        store(&path);
        let format = path.join("FORMAT");
        let text = fs::read_to_string(&format).unwrap();
        for (newer, number) in [("format 2", 2), ("format 4000000000", 4_000_000_000)] {
            fs::write(&format, text.replace("format 1", newer)).unwrap();
            fails(&path, |error| {
                let message = error.to_string();
                assert!(message.contains(&number.to_string()), "{message}");
                matches!(error, Error::Journal(JournalError::Newer { found, known: 1, .. })
                    if *found == number)
            });
        }
        fs::write(&format, text).unwrap();
        open(&path).unwrap().close().unwrap();
    }

    #[test]
    fn a_damaged_format_file_is_refused_wherever_it_is_damaged() {
        let dir = temp();
        let path = dir.path().join("store");
        store(&path);
        let format = path.join("FORMAT");
        let bytes = fs::read(&format).unwrap();
        let damaged = |error: &Error| {
            matches!(
                error,
                Error::Journal(JournalError::Damaged { .. } | JournalError::Newer { .. })
                    | Error::StoreRefused { .. }
            )
        };
        for position in 0..bytes.len() {
            for bit in [0x01, 0x80] {
                let mut flipped = bytes.clone();
                flipped[position] ^= bit;
                fs::write(&format, &flipped).unwrap();
                fails(&path, damaged);
            }
            fs::write(&format, &bytes[..position]).unwrap();
            fails(&path, damaged);
        }
        fs::write(&format, [&bytes[..], b"\n"].concat()).unwrap();
        fails(&path, damaged);
        fs::write(&format, bytes).unwrap();
        open(&path).unwrap().close().unwrap();
    }

    #[test]
    fn a_store_whose_journal_is_gone_is_not_begun_anew() {
        let dir = temp();
        let path = dir.path().join("store");
        store(&path);
        fs::rename(path.join("wal"), dir.path().join("taken-away")).unwrap();
        fails(&path, |error| matches!(error, Error::Journal(_)));
        fs::create_dir(path.join("wal")).unwrap();
        fails(&path, |error| matches!(error, Error::Journal(_)));
    }
}

const ROLE: &str = "CAESIUM_TEST_STORE_ROLE";
const STORE: &str = "CAESIUM_TEST_STORE_PATH";
const READY: &str = "the store is open";

/// Not a test: what this binary does when a test executes it as another process. It ends when its input does.
#[test]
fn helper() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let engine = open(Path::new(&std::env::var_os(STORE).unwrap())).unwrap();
    match role.as_str() {
        "hold" => {}
        "fill" => {
            engine.create(Act::Exit(0).spec().into()).unwrap();
        }
        other => panic!("no role {other}"),
    }
    println!("\n{READY}");
    std::io::stdin().lines().for_each(drop);
    engine.close().unwrap();
}

struct Helper {
    child: Child,
    input: Option<ChildStdin>,
}

impl Helper {
    fn start(role: &str, store: &Path) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), role, store)
    }

    fn spawn(mut command: Command, role: &str, store: &Path) -> Self {
        command.args(["--exact", "helper", "--nocapture"]).env(ROLE, role).env(STORE, store);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        Self { child, input }
    }

    /// Waits until it has the store open.
    fn ready(&mut self) {
        let output = BufReader::new(self.child.stdout.as_mut().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        assert!(lines.any(|line| line == READY), "the helper did not open the store");
    }

    /// Lets it close the store and end.
    fn release(&mut self) {
        self.input = None;
        // What it still prints has to go somewhere.
        std::io::copy(self.child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Ended already, but for a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
