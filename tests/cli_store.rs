//! Which store, who may have it, and what is never done to it.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use caesium::{AtomSpec, Engine, EngineOptions};
use cli_harness::{Done, Place};

#[test]
fn the_store_is_the_first_of_option_variable_and_state_directory() {
    let place = Place::new();
    let at = |name: &str| place.dir.path().join(name);
    let run = |args: &[&str], variables: &[(&str, PathBuf)]| {
        let mut command = place.command(args.iter().chain(&["run", "true"]));
        command.env_remove("CAESIUM_STORE").env("HOME", at("home"));
        let done = Done::of(command.envs(variables.iter().cloned()).output().unwrap());
        assert_eq!(done.status, 0, "{done:?}");
    };
    let is_store = |path: PathBuf| path.join("FORMAT").exists();
    run(&[], &[]);
    assert!(is_store(at("home/.local/state/caesium")));
    // A relative path is none, by the XDG specification; an empty one is none either.
    run(&[], &[("XDG_STATE_HOME", "relative".into()), ("CAESIUM_STORE", "".into())]);
    assert!(!at("relative").exists());
    run(&[], &[("XDG_STATE_HOME", at("xdg"))]);
    assert!(is_store(at("xdg/caesium")));
    run(&[], &[("XDG_STATE_HOME", at("xdg2")), ("CAESIUM_STORE", at("variable"))]);
    assert!(is_store(at("variable")));
    run(&["--store", "option"], &[("CAESIUM_STORE", at("variable2"))]);
    assert!(is_store(at("option")));
    for name in ["xdg2", "variable2"] {
        assert!(!at(name).exists(), "{name}");
    }
}

#[test]
fn everything_in_it_is_its_owners_alone() {
    let place = Place::new();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_caesium")]);
    command.args(["run", "sh", "-c", "echo x"]).env("CAESIUM_STORE", place.store());
    assert!(command.output().unwrap().status.success());
    place.ok(["verify"]);
    let mut dirs = vec![place.store()];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
        for entry in dir.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                dirs.push(entry);
            } else {
                assert_eq!(mode(&entry), 0o600, "{}", entry.display());
                files += 1;
            }
        }
    }
    assert!(files > 3);
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn looking_for_a_store_does_not_make_one() {
    let place = Place::new();
    for args in [&["inspect", "x123"][..], &["logs", "x123"], &["stop", "x123"], &["rm", "x123"]] {
        assert!(place.run(args).refused(1).starts_with("there is no store at"), "{args:?}");
    }
    place.run(["wait", "x123"]).refused(125);
    place.run(["verify"]).refused(1);
    place.run(["events", "-f"]).refused(1);
    for (args, out) in [
        (&["ps"][..], "ID  NAME  STATE  RESULT  AGE  COMMAND\n"),
        (&["ps", "--json"], ""),
        (&["events"], ""),
    ] {
        let done = place.run(args);
        assert_eq!((done.status, done.out.as_str()), (0, out));
        assert!(done.err.starts_with("caesium: there is no store at"), "{done:?}");
    }
    assert!(!place.store().exists());
    // An empty directory is no store either, and stays empty.
    std::fs::create_dir(place.store()).unwrap();
    assert_eq!(place.run(["ps"]).status, 0);
    assert_eq!(place.store().read_dir().unwrap().count(), 0);
}

#[test]
fn what_cannot_be_a_store_is_refused_and_left_alone() {
    let place = Place::new();
    let dir = place.dir.path();
    std::fs::create_dir(dir.join("open")).unwrap();
    std::fs::set_permissions(dir.join("open"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(dir.join("full")).unwrap();
    std::fs::set_permissions(dir.join("full"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::write(dir.join("full/letter"), "").unwrap();
    std::fs::write(dir.join("file"), "").unwrap();
    std::os::unix::fs::symlink(dir.join("full"), dir.join("link")).unwrap();
    std::os::unix::fs::symlink(dir.join("nowhere"), dir.join("dangling")).unwrap();
    for (name, hint) in [
        ("open", "chmod 700"),
        ("full", "choose an empty or a new directory"),
        ("file", "choose another path"),
        ("link", "name the directory that it points to"),
        ("dangling", "symbolic link"),
    ] {
        for (args, status) in [(["ps", "-a"], 1), (["run", "true"], 125)] {
            let before = snapshot(dir);
            let done = place.run([&["--store", name], &args[..]].concat());
            // An empty directory has nothing to list, whoever may read it.
            if (name, args[0]) != ("open", "ps") {
                assert!(done.refused(status).contains(hint), "{name}: {done:?}");
            }
            assert_eq!(snapshot(dir), before, "{name}");
        }
    }
}

#[test]
fn who_holds_the_store_for_itself_is_named() {
    let place = Place::new();
    let host = EngineOptions::new().open(place.store()).unwrap();
    let holder = format!("process {} (cli_store", std::process::id());
    for (args, status) in [(&["ps"][..], 1), (&["run", "true"], 125)] {
        let done = place.run(args);
        let line = done.refused(status);
        assert!(line.contains(&holder) && line.contains("try again"), "{line}");
    }
    host.close().unwrap();
    assert_eq!(place.atoms().len(), 0, "nothing was created");
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    let place = Place::new();
    place.sh(&[], "exit 3");
    let segment = place.store().join("wal").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    // Somewhere in the spec of the atom that was created.
    let at = bytes.windows(6).position(|window| window == b"exit 3").unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(&segment, &bytes).unwrap();
    let before = snapshot(&place.store());
    for (args, status) in
        [(&["ps"][..], 1), (&["verify"], 1), (&["events"], 1), (&["run", "true"], 125)]
    {
        let done = place.run(args);
        let line = done.refused(status);
        assert!(line.contains("damaged at byte") && line.contains("salvage"), "{line}");
        assert!(line.contains(&*segment.to_string_lossy()), "{line}");
    }
    assert_eq!(snapshot(&place.store()), before);
}

#[test]
fn a_damaged_history_is_said_in_one_line_and_stops_nothing_else() {
    let place = Place::new();
    let engine = EngineOptions::new().segment_bytes(4096).open(place.store()).unwrap();
    for _ in 0..40 {
        let atom = engine.create(AtomSpec::command("true").into()).unwrap();
        engine.wait(&atom.id().into()).unwrap();
    }
    engine.close().unwrap();
    let history = place.store().join("history");
    assert_eq!(place.events().len(), 120);
    let db = snapshot(&history).into_keys().find(|path| path.ends_with("db")).unwrap();
    let mut bytes = std::fs::read(&db).unwrap();
    for byte in bytes.iter_mut().filter(|byte| **byte != 0) {
        *byte ^= 0x55;
    }
    std::fs::write(&db, &bytes).unwrap();
    for args in [["events"], ["verify"]] {
        let done = place.run(args);
        assert!(done.refused(1).contains("history"), "{done:?}");
    }
    assert_eq!(place.run(["run", "sh", "-c", "exit 3"]).status, 3);
    assert_eq!(place.atoms().len(), 41);
}

/// Every path below, with what is in it. Who held the lock last does not count.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path.clone());
                found.insert(path, Vec::new());
            } else if entry.file_name() != "LOCK" {
                let fifo = entry.file_type().unwrap().is_fifo();
                assert!(!fifo, "{path:?}: whoever reads it waits for ever");
                let bytes = std::fs::read(&path).unwrap_or_default();
                found.insert(path, bytes);
            }
        }
    }
    found
}
