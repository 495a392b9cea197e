//! How a process ends, or does not start: contract section 3.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

pub(crate) mod process_harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use caesium::atom::{Leftovers, Limits, Resource};
use caesium::driver::process::Supervision;
use caesium::driver::{Command, Driver, Observation, Order, Surroundings};
use caesium::lifecycle::{Reason, WaitStatus};
use caesium::{AtomId, AtomSpec, Outcome};
use process_harness::{World, sh, supervision};

#[test]
fn it_starts_prints_ends_and_is_removed() {
    let world = World::new();
    let atom = world.start(sh("echo out; echo err >&2; exit 3"));
    let (pid, handle, _) = world.started(atom);
    assert!(pid > 0);
    let exit = world.exit(atom);
    assert_eq!(exit.status, WaitStatus::Exited { code: 3 });
    assert_eq!(exit.ending().outcome, Outcome::Failure);
    assert!(exit.usage.unwrap().max_rss.unwrap() > 0);
    let output = world.output(atom);
    assert_eq!(output.of(caesium::log::Stream::Stdout), "out\n");
    assert_eq!(output.of(caesium::log::Stream::Stderr), "err\n");
    assert_eq!(output.dropped, 0);
    world.remove(atom, Some(handle));
    assert!(!process_harness::exists(&world.dir(atom)));
}

#[test]
fn every_kernel_report_is_passed_on_as_it_is() {
    let world = World::new();
    let exit = |script: &str| {
        let ending = world.exit(world.start(sh(script))).ending();
        (ending.outcome, ending.reason, ending.exit_code, ending.signal)
    };
    for code in [1, 2, 126, 127, 137, 143, 255] {
        let got = exit(&format!("exit {code}"));
        assert_eq!(got, (Outcome::Failure, Reason::Exited, Some(code), None));
    }
    assert_eq!(exit("exit 0"), (Outcome::Success, Reason::Exited, Some(0), None));
    for (signal, outcome, reason) in [
        (9, Outcome::Killed, Reason::Signal),
        (15, Outcome::Terminated, Reason::Signal),
        (24, Outcome::ResourceFailure, Reason::CpuLimit),
        (25, Outcome::ResourceFailure, Reason::FileSizeLimit),
        (11, Outcome::Failure, Reason::Crashed),
        (7, Outcome::Failure, Reason::Crashed),
        (8, Outcome::Failure, Reason::Crashed),
        (4, Outcome::Failure, Reason::Crashed),
        (6, Outcome::Failure, Reason::Crashed),
        (5, Outcome::Failure, Reason::Crashed),
        (31, Outcome::Failure, Reason::Crashed),
        (1, Outcome::Unknown, Reason::Signal),
        (2, Outcome::Unknown, Reason::Signal),
        (34, Outcome::Unknown, Reason::Signal),
    ] {
        let got = exit(&format!("ulimit -c 0; kill -{signal} $$"));
        assert_eq!(got, (outcome, reason, None, Some(signal)), "signal {signal}");
    }
}

/// A start that fails: the reason, and what the detail must name.
fn fails(world: &World, spec: AtomSpec) -> (Reason, String) {
    let wanted = world.start(spec);
    let failed = world.expect("start failed", |o| match o {
        Observation::StartFailed { atom, reason, detail, .. } if *atom == wanted => {
            Some((*reason, detail.clone()))
        }
        Observation::Started { atom, .. } if *atom == wanted => panic!("it was started"),
        _ => None,
    });
    assert_eq!(world.follow(wanted).bytes(), b"", "its log is complete");
    world.remove(wanted, None);
    failed
}

#[test]
fn each_way_not_to_start_has_its_reason() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str, mode| {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        path(name)
    };
    let plain = write("plain", "#!/bin/sh\n", 0o644);
    let orphan = write("orphan", "#!/no/such/interpreter -x\n", 0o755);
    let garbage = write("garbage", "\x01\x02 no program", 0o755);
    let missing = path("missing");

    let check = |spec: AtomSpec, reason: Reason, named: &str| {
        let (got, detail) = fails(&world, spec);
        assert_eq!(got, reason, "{detail}");
        assert!(
            detail.to_lowercase().contains(&named.to_lowercase()),
            "{detail:?} does not name {named:?}"
        );
    };
    let command = |program: &std::path::Path| AtomSpec::command(program);
    check(command(&missing), Reason::ExecNotFound, "missing");
    check(AtomSpec::command("no-such-program-anywhere"), Reason::ExecNotFound, "PATH");
    check(command(&plain.join("below")), Reason::ExecNotFound, "below");
    check(command(&orphan), Reason::ExecNotFound, "/no/such/interpreter");
    check(command(&plain), Reason::ExecPermission, "plain");
    check(command(dir.path()), Reason::ExecPermission, "directory");
    check(
        AtomSpec::command("plain").env("PATH", dir.path()),
        Reason::ExecPermission,
        "not an executable file",
    );
    check(command(&garbage), Reason::ExecFailed, "garbage");
    check(sh("true").workdir(&missing), Reason::BadWorkdir, "missing");
    check(sh("true").workdir(&plain), Reason::BadWorkdir, "not a directory");
    check(sh("true").stdin_file(&missing), Reason::BadStdin, "missing");
    check(sh("true").stdin_file(dir.path()), Reason::BadStdin, "directory");
    // With 128 KiB, a single string is more than the kernel takes.
    check(AtomSpec::command("true").arg("x".repeat(200_000)), Reason::ExecFailed, "too large");
    check(sh("true").user("no-such-user-here"), Reason::BadUser, "no-such-user-here");
    if supervision() == Supervision::Keeper {
        return;
    }
    // What a host cannot do by itself.
    check(sh("true").user("4294967294"), Reason::BadUser, "keeper");
    for limits in [
        Limits { memory: Some(1 << 30), ..Limits::default() },
        Limits { pids: Some(10), ..Limits::default() },
        Limits { cpus: Some(0.5), ..Limits::default() },
        Limits { rlimits: vec![(Resource::Nofile, 100)], ..Limits::default() },
    ] {
        check(sh("true").limits(limits), Reason::LimitUnsupported, "keeper");
    }
    for asked in [
        sh("true").nice(1),
        sh("true").oom_score_adj(1),
        sh("true").umask(0o77),
        sh("true").no_new_privs(true),
        sh("true").group("0"),
        sh("true").leftovers(Leftovers::Keep),
    ] {
        check(asked, Reason::LimitUnsupported, "keeper");
    }
}

#[test]
fn a_path_that_the_atom_was_given_is_told_to_nobody() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    for (name, text, mode) in [
        ("plain", "#!/bin/sh\n", 0o644),
        ("orphan", "#!/no/such/interpreter\n", 0o755),
        ("garbage", "\x01\x02 no program", 0o755),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let value = dir.path().to_str().unwrap();
    for (name, reason) in [
        ("missing", Reason::ExecNotFound),
        ("plain", Reason::ExecPermission),
        ("orphan", Reason::ExecNotFound),
        ("garbage", Reason::ExecFailed),
    ] {
        let spec = AtomSpec::command(name);
        for spec in [spec.clone().env("PATH", value), spec.secret_env("PATH", value)] {
            let (got, detail) = fails(&world, spec);
            assert_eq!(got, reason, "{detail}");
            assert!(!detail.contains(value), "{detail:?} tells it");
            let named = format!("{name} in the PATH that the atom was given");
            assert!(detail.contains(&named), "{detail:?} does not say {named:?}");
        }
    }
}

#[test]
fn what_root_may_enter_and_others_may_not_is_refused_to_others() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIP: root may enter every directory");
        return;
    }
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o000)).unwrap();
    let (reason, _) = fails(&world, sh("true").workdir(dir.path()));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(reason, Reason::BadWorkdir);
}

#[test]
fn the_program_is_found_where_the_atom_would_look() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("greet");
    fs::write(&script, "#!/bin/sh\necho \"hello from $PWD as $0\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let real = dir.path().canonicalize().unwrap();
    let output = |spec| world.follow(world.start(spec)).text();

    let in_path = AtomSpec::command("greet").env("PATH", &real).workdir("/");
    assert_eq!(output(in_path), format!("hello from / as {}/greet\n", real.display()));
    let in_workdir = AtomSpec::command("./greet").workdir(&real);
    assert!(output(in_workdir).starts_with(&format!("hello from {}", real.display())));
    let relative_path = AtomSpec::command("greet").env("PATH", ".").workdir(&real);
    assert!(output(relative_path).starts_with("hello"));
    let without_path = sh("echo ok").env_clear(true);
    assert_eq!(output(without_path), "ok\n");
}

#[test]
fn it_gets_the_environment_the_input_and_the_marker() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), "from a file").unwrap();
    let script = "echo \"$A $B ${HOME-none}\"; cat; echo \" $CAESIUM_ATOM\"";
    let spec = sh(script)
        .env_clear(true)
        .env("A", "1")
        .secret_env("B", "2")
        .env("PATH", "/usr/bin:/bin")
        .stdin_file(dir.path().join("in"));
    let atom = world.start(spec);
    assert_eq!(world.follow(atom).text(), format!("1 2 none\nfrom a file {atom}\n"));
    let atom = world.start(sh("cat; echo end"));
    assert_eq!(world.follow(atom).text(), "end\n");
}

#[test]
fn it_has_the_surroundings_of_who_asked_for_it() {
    let world = World::new();
    let dir = world.atoms.parent().unwrap().join("elsewhere");
    fs::create_dir(&dir).unwrap();
    let tool = dir.join("tool");
    fs::write(&tool, "#!/bin/sh\necho $GIVEN-${HOME-none}; pwd; cat; umask\n").unwrap();
    fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(dir.join("input"), "from a file\n").unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.display());
    let env = [("GIVEN".into(), "given".into()), ("PATH".into(), path.into())];
    let around = Surroundings::new(env, &dir, Some(0o27));
    // Found in their PATH; its input is named as they see it.
    let spec = AtomSpec::command("tool").stdin_file("input");
    let spec = world.driver.complete(spec, Some(&around)).unwrap();
    let atom = AtomId::new();
    world.driver.prepare(atom, &spec, Some(&around)).unwrap();
    world.send(Command::Start(Order { atom, spec: spec.into() }));
    let printed = world.follow(atom).text();
    let umask = printed.lines().last().unwrap();
    assert_eq!(
        printed,
        format!("given-none\n{}\nfrom a file\n{umask}\n", dir.canonicalize().unwrap().display())
    );
    if supervision() == Supervision::Keeper {
        assert_eq!(umask, "0027");
    }
    world.remove(atom, None);
}

#[test]
fn its_own_user_may_be_named() {
    let world = World::new();
    let uid = rustix::process::geteuid().as_raw();
    let atom = world.start(sh("true").user(uid.to_string()));
    assert_eq!(world.exit(atom).ending().outcome, Outcome::Success);
}

#[test]
fn what_is_stopped_before_its_start_never_runs() {
    let world = World::new();
    let witness = world.atoms.join("ran");
    let (atom, spec) = world.prepare(AtomSpec::command("touch").arg(&witness));
    world.stop(atom, Duration::ZERO, false);
    world.send(Command::Start(Order { atom, spec }));
    world.sync(1);
    let answers: Vec<_> =
        world.seen().into_iter().filter(|o| !matches!(o, Observation::Synced { .. })).collect();
    assert!(matches!(answers[..], [Observation::NeverStarted { .. }]), "{answers:?}");
    assert!(!process_harness::exists(&witness));
    world.remove(atom, None);
}

#[test]
fn what_was_prepared_and_not_journaled_leaves_nothing() {
    let world = World::new();
    let (atom, _) = world.prepare(sh("true"));
    assert!(process_harness::exists(&world.dir(atom)));
    world.driver.release(atom);
    world.sync(1);
    assert!(!process_harness::exists(&world.dir(atom)));
    world.remove(atom, None);
}

#[test]
fn two_hundred_at_once_all_end_with_their_own_code() {
    let world = World::new();
    let atoms: Vec<_> =
        (0..200_u32).map(|i| (world.start(sh(&format!("exit {}", i % 256))), i % 256)).collect();
    for (atom, code) in atoms {
        assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: code as u8 });
    }
}

#[test]
fn the_end_does_not_wait_for_a_grandchild_that_holds_the_output() {
    let world = World::new();
    // Simulates a daemon that leaves its group and keeps the output open.
    let gate = world.atoms.join("gate");
    let script = format!(
        "mkfifo {0}; setsid sh -c 'echo $$; echo > {0}; exec sleep 1000' & read x < {0}; exit 7",
        gate.display()
    );
    let atom = world.start(sh(&script));
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 7 });
    let output = world.follow(atom).text();
    let pid = rustix::process::Pid::from_raw(output.trim().parse().unwrap()).unwrap();
    // Who can contain a whole tree has ended it.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
