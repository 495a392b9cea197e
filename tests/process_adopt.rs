//! What a later host finds of the atoms of an earlier one: adopted, ended, or honestly unknown.

#![cfg(target_os = "linux")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one kind of observation")]

mod process_harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caesium::driver::process::ProcessOptions;
use caesium::driver::{Command, Driver, Handle, Observation, Remembered, Sighting};
use caesium::lifecycle::{Reason, Stop, StopCause, WaitStatus};
use caesium::{AtomId, AtomSpec, Outcome, State, Timestamp};
use process_harness::{
    PATIENCE, World, exists, following, lives, read_until, remembered, sh, wait_gone, wall,
};

const LONG: Duration = Duration::from_secs(3600);

/// Says to this binary that it is to be a host: its store's directory, and the script of its atom.
const HOST: &str = "CAESIUM_TEST_HOST";
const SCRIPT: &str = "CAESIUM_TEST_SCRIPT";

/// Not a test: the host that the tests below start and kill. Started without [`HOST`] it does nothing.
#[test]
fn as_host() {
    let Some(atoms) = std::env::var_os(HOST) else { return };
    let world = World::at(atoms);
    let script = std::env::var(SCRIPT).unwrap();
    let mut out = std::io::stdout();
    if script.is_empty() {
        let (atom, _) = world.prepare(sh("true"));
        writeln!(out, "\nHOST {atom} 0 00 0").unwrap();
    } else {
        let atom = world.start(sh(&script));
        let (pid, handle, at) = world.started(atom);
        read_until(&mut *world.log(atom, following()), "ready\n");
        let handle: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "\nHOST {atom} {pid} {handle} {}", at.as_micros()).unwrap();
    }
    out.flush().unwrap();
    // Until it is killed.
    loop {
        std::thread::park();
    }
}

/// A host that was killed, and what it knew of its atom.
struct Dead {
    dir: tempfile::TempDir,
    atom: AtomId,
    pid: u32,
    handle: Handle,
    at: Timestamp,
    spec: AtomSpec,
}

impl Dead {
    /// Runs `script`, which prints `ready`, in a host and kills the host with SIGKILL. `GATE` is a FIFO's path.
    fn host(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("gate"), rustix::fs::Mode::RWXU)
            .unwrap();
        let script = script.replace("GATE", dir.path().join("gate").to_str().unwrap());
        let mut host: Child = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_host", "--nocapture", "--test-threads=1"])
            .env(HOST, dir.path().join("atoms"))
            .env(SCRIPT, &script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = BufReader::new(host.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .find(|line| line.starts_with("HOST "))
            .expect("the host says what it started");
        host.kill().unwrap();
        host.wait().unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let handle: Vec<u8> = (0..words[3].len() / 2)
            .map(|i| u8::from_str_radix(&words[3][2 * i..2 * i + 2], 16).unwrap())
            .collect();
        Self {
            dir,
            atom: words[1].parse().unwrap(),
            pid: words[2].parse().unwrap(),
            handle: handle.into(),
            at: Timestamp::from_micros(words[4].parse().unwrap()),
            spec: sh(&script),
        }
    }

    fn atoms(&self) -> PathBuf {
        self.dir.path().join("atoms")
    }

    fn open_gate(&self) {
        fs::write(self.dir.path().join("gate"), "\n").unwrap();
    }

    fn running(&self) -> Remembered {
        Remembered {
            handle: Some(Arc::clone(&self.handle)),
            started_at: Some(self.at),
            ..remembered(self.atom, &self.spec, State::Running)
        }
    }

    /// The host died after the spawn, and before its journal had it.
    fn created(&self) -> Remembered {
        remembered(self.atom, &self.spec, State::Created)
    }

    fn marker(&self) -> PathBuf {
        self.atoms().join(self.atom.to_string()).join("prepared")
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // Whatever a test that failed left: by the driver's own identity check.
        if self.pid != 0 {
            World::at(self.atoms()).remove(self.atom, Some(Arc::clone(&self.handle)));
        }
    }
}

/// The reason of a lost atom.
fn lost(world: &World, wanted: AtomId) -> Reason {
    world.expect("lost sight", |o| match o {
        Observation::LostSight { atom, reason, .. } if *atom == wanted => Some(*reason),
        Observation::Exited { atom, status, .. } if *atom == wanted => {
            panic!("a status was made up: {status:?}")
        }
        _ => None,
    })
}

/// The exit of an adopted atom: by whatever this kernel tells, and never another one.
fn expect_status(world: &World, wanted: AtomId, status: WaitStatus) -> bool {
    let got = world.expect("an ending", |o| match o {
        Observation::Exited { atom, status, .. } if *atom == wanted => Some(Ok(*status)),
        Observation::LostSight { atom, reason, .. } if *atom == wanted => Some(Err(*reason)),
        _ => None,
    });
    match got {
        Ok(got) => assert_eq!(got, status),
        Err(reason) => {
            assert_eq!(reason, Reason::ExitUnobserved);
            eprintln!("SKIP: this kernel does not tell how an adopted process ended");
        }
    }
    got.is_ok()
}

#[test]
fn what_outlives_its_host_is_adopted_with_its_log_and_its_true_exit() {
    let dead = Dead::host("echo ready; read x < GATE; echo after; echo err >&2; exit 9");
    let world = World::at(dead.atoms());
    assert_eq!(world.look(dead.running()), Sighting::Adopted);
    assert_eq!(world.look(dead.running()), Sighting::Adopted, "asked again");
    assert!(lives(dead.pid));
    let mut log = world.log(dead.atom, following());
    assert_eq!(read_until(&mut *log, "ready\n"), "ready\n");
    dead.open_gate();
    expect_status(&world, dead.atom, WaitStatus::Exited { code: 9 });
    let output = world.follow(dead.atom);
    assert_eq!(output.text(), "ready\nafter\nerr\n");
    assert_eq!(output.dropped, 0);
    let mut offset = 0;
    for chunk in &output.chunks {
        assert_eq!(chunk.offset, offset, "the log is unbroken");
        offset += chunk.bytes.len() as u64;
    }
}

#[test]
fn what_was_adopted_can_be_stopped_with_its_whole_group() {
    let dead = Dead::host("trap '' TERM; sleep 1000 & echo $!; echo ready; wait; sleep 1000");
    let world = World::at(dead.atoms());
    assert_eq!(world.look(dead.running()), Sighting::Adopted);
    world.stop(dead.atom, Duration::from_millis(50), false);
    let status = WaitStatus::Signaled { signal: 9, core_dumped: false };
    if expect_status(&world, dead.atom, status) {
        let evidence = world.exit(dead.atom).evidence;
        assert!(evidence.term_reached && evidence.kill_sent);
        assert_eq!(evidence.cause, Some(StopCause::Requested));
    }
    let output = world.follow(dead.atom).text();
    wait_gone(output.lines().next().unwrap().parse().unwrap());
}

#[test]
fn what_printed_while_there_was_no_host_lost_nothing() {
    // More than a pipe holds: it waits until somebody reads again.
    let dead = Dead::host("echo ready; read x < GATE; seq 200000; echo done");
    dead.open_gate();
    let world = World::at(dead.atoms());
    assert_eq!(world.look(dead.running()), Sighting::Adopted);
    let output = world.follow(dead.atom);
    assert_eq!(output.dropped, 0);
    let text = output.text();
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(text == format!("ready\n{expected}done\n"), "{} bytes", text.len());
    expect_status(&world, dead.atom, WaitStatus::Exited { code: 0 });
}

#[test]
fn what_ended_while_nobody_watched_has_its_true_status_or_none() {
    let dead = Dead::host("echo ready; read x < GATE; exit 9");
    dead.open_gate();
    wait_gone(dead.pid);
    let world = World::at(dead.atoms());
    world.look(dead.running());
    // As long as it is a zombie its status can be read.
    expect_status(&world, dead.atom, WaitStatus::Exited { code: 9 });
    assert_eq!(world.output(dead.atom).text(), "ready\n");
}

#[test]
fn an_ending_that_was_witnessed_is_told_again_until_the_journal_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let atoms = dir.path().join("atoms");
    let world = World::at(&atoms);
    let spec = sh("exit 7");
    let atom = world.start(spec.clone());
    let (pid, handle, at) = world.started(atom);
    let exit = world.exit(atom);
    let missing = world.start(AtomSpec::command("/nonexistent"));
    world.expect("a failed start", |o| {
        matches!(o, Observation::StartFailed { atom, .. } if *atom == missing).then_some(())
    });
    drop(world);
    for state in [State::Created, State::Running, State::Stopping] {
        let world = World::at(&atoms);
        let known = (state != State::Created).then(|| Arc::clone(&handle));
        let remembered = Remembered { handle: known, ..remembered(atom, &spec, state) };
        assert_eq!(world.look(remembered), Sighting::Changed);
        let again = world.exit(atom);
        assert_eq!((again.status, again.usage), (exit.status, exit.usage));
        if state == State::Created {
            assert_eq!(world.started(atom), (pid, Arc::clone(&handle), at));
        }
    }
    let world = World::at(&atoms);
    world.look(remembered(missing, &AtomSpec::command("/nonexistent"), State::Created));
    let reason = world.expect("a failed start", |o| match o {
        Observation::StartFailed { atom, reason, .. } if *atom == missing => Some(*reason),
        Observation::Started { atom, .. } if *atom == missing => panic!("it never ran"),
        _ => None,
    });
    assert_eq!(reason, Reason::ExecNotFound);
}

/// A host that was killed, whose atom has ended unseen and was reaped, and the child that it left in its group.
fn left_behind() -> (Dead, u32) {
    let dead = Dead::host("sleep 1000 & echo $!; echo ready; read x < GATE; exit 9");
    let text = World::at(dead.atoms()).output(dead.atom).text();
    let child = text.lines().next().unwrap().parse().unwrap();
    dead.open_gate();
    // Its zombie still tells how it ended; that is another test.
    let deadline = Instant::now() + PATIENCE;
    while exists(Path::new(&format!("/proc/{}", dead.pid))) {
        assert!(Instant::now() < deadline, "nobody reaps {}", dead.pid);
        std::thread::yield_now();
    }
    assert!(lives(child), "it is left");
    (dead, child)
}

#[test]
fn what_an_atom_left_that_ended_unseen_is_ended_before_sight_is_lost() {
    for recorded in [true, false] {
        let (dead, child) = left_behind();
        let world = World::at(dead.atoms());
        let known = if recorded { dead.running() } else { dead.created() };
        assert_eq!(world.look(known), Sighting::Changed);
        assert_eq!(lost(&world, dead.atom), Reason::ExitUnobserved);
        assert!(!lives(child), "it was told before nothing was left; recorded: {recorded}");
    }
}

#[test]
fn removing_ends_what_an_atom_left_that_ended_unseen() {
    let (dead, child) = left_behind();
    // Nothing of it is ours in a copy, and nothing in another boot, namespace, or life of the pid.
    let mut options = ProcessOptions::new(dead.atoms());
    options.copied = true;
    let copy = World::with(options);
    copy.look(dead.running());
    assert_eq!(lost(&copy, dead.atom), Reason::StoreCopied);
    for position in [21, 37] {
        let handle = Some(tampered(&dead.handle, position));
        World::at(dead.atoms()).look(Remembered { handle, ..dead.running() });
    }
    // Of another atom's group nothing is touched either.
    World::new().remove(AtomId::new(), Some(Arc::clone(&dead.handle)));
    assert!(lives(child));
    let world = World::at(dead.atoms());
    world.remove(dead.atom, Some(Arc::clone(&dead.handle)));
    assert!(!lives(child), "it was told before nothing was left");
}

#[test]
fn a_start_that_was_not_journaled_is_found() {
    for recorded in [true, false] {
        let dead = Dead::host("(sleep 1000 &) ; echo ready; read x < GATE; exit 9");
        if !recorded {
            // The host died in between: the marker says no more than that a start was tried.
            let marker = fs::OpenOptions::new().write(true).open(dead.marker()).unwrap();
            marker.write_all_at(&[0; 48], 24).unwrap();
            marker.write_all_at(&[0; 8], 80).unwrap();
        }
        let world = World::at(dead.atoms());
        assert_eq!(world.look(dead.created()), Sighting::Changed);
        let (pid, handle, at) = world.started(dead.atom);
        assert_eq!((pid, &handle), (dead.pid, &dead.handle), "recorded: {recorded}");
        let skew = at.saturating_since(dead.at).max(dead.at.saturating_since(at));
        assert!(skew < Duration::from_secs(5), "it was started {skew:?} off");
        dead.open_gate();
        expect_status(&world, dead.atom, WaitStatus::Exited { code: 9 });
    }
}

#[test]
fn a_start_that_was_tried_and_left_nothing_is_unknown() {
    let dead = Dead::host("echo ready; read x < GATE; exit 9");
    let world = World::at(dead.atoms());
    world.remove(dead.atom, Some(Arc::clone(&dead.handle)));
    wait_gone(dead.pid);
    // Only the marker is there: as it is written, and as an earlier version called it.
    for renamed in [false, true] {
        let (other, spec) = world.prepare(sh("true"));
        let dir = world.dir(other);
        if renamed {
            fs::rename(dir.join("prepared"), dir.join("spawned")).unwrap();
        } else {
            let marker = fs::OpenOptions::new().write(true).open(dir.join("prepared")).unwrap();
            marker.write_all_at(&[1], 75).unwrap();
        }
        world.look(remembered(other, &spec, State::Created));
        assert_eq!(lost(&world, other), Reason::ExitUnobserved);
    }
}

#[test]
fn a_marker_of_an_earlier_atom_tells_nothing_of_this_one() {
    let world = World::new();
    let ended = world.start(sh("true"));
    world.exit(ended);
    let (other, spec) = world.prepare(sh("true"));
    // Files are used again, and nothing orders what is written into them: this is what a power cut can leave.
    let mut marker = fs::read(world.dir(ended).join("prepared")).unwrap();
    // An earlier boot's: the one that it was prepared in, and that of its handle.
    for boot in [0, 24 + 21] {
        marker[boot] ^= 1;
    }
    fs::write(world.dir(other).join("prepared"), marker).unwrap();
    world.look(remembered(other, &spec, State::Created));
    assert_eq!(lost(&world, other), Reason::HostRebooted);
}

#[test]
fn what_was_prepared_and_not_started_is_certain_never_to_have_run() {
    let dead = Dead::host("");
    let world = World::at(dead.atoms());
    assert_eq!(world.look(dead.created()), Sighting::Changed);
    world.expect("never started", |o| {
        matches!(o, Observation::NeverStarted { atom, .. } if *atom == dead.atom).then_some(())
    });
}

/// The handle with some of its bytes changed: 1–4 pid, 5–12 start time, 13–20 inode of the pidfd,
/// 21–36 boot, 37–44 pid namespace.
fn tampered(handle: &Handle, position: usize) -> Handle {
    let mut bytes = handle.to_vec();
    bytes[position] ^= 1;
    bytes.into()
}

#[test]
fn nothing_is_signalled_that_is_of_another_boot_namespace_or_start() {
    let dead = Dead::host("echo ready; read x < GATE; exit 9");
    for (position, reason) in [
        (5, Reason::ExitUnobserved),
        (13, Reason::ExitUnobserved),
        (21, Reason::HostRebooted),
        (37, Reason::NamespaceChanged),
        (0, Reason::ExitUnobserved),
    ] {
        if position == 13 && dead.handle[13..21] == [0; 8] {
            println!("SKIP: this kernel has one inode for all pidfds (Linux 6.9)");
            continue;
        }
        let world = World::at(dead.atoms());
        let handle = Some(tampered(&dead.handle, position));
        let known = Remembered { handle: handle.clone(), ..dead.running() };
        assert_eq!(world.look(known.clone()), Sighting::Changed);
        assert_eq!(lost(&world, dead.atom), reason);
        world.stop(dead.atom, Duration::ZERO, true);
        let stopped = Remembered { state: State::Stopped, ..known };
        let again = World::at(dead.atoms());
        assert_eq!(again.look(stopped), Sighting::AsRemembered);
        world.sync(1);
        assert!(lives(dead.pid), "byte {position}");
    }
    // Of the same kind, but it removes the directory: last.
    let world = World::at(dead.atoms());
    world.remove(dead.atom, Some(tampered(&dead.handle, 5)));
    assert!(lives(dead.pid), "a recycled pid is not signalled");
    let bystander = World::new();
    bystander.remove(dead.atom, Some(Arc::clone(&dead.handle)));
    wait_gone(dead.pid);
}

#[test]
fn a_copied_store_touches_nothing() {
    let dead = Dead::host("echo ready; read x < GATE; exit 9");
    let mut options = ProcessOptions::new(dead.atoms());
    options.copied = true;
    let world = World::with(options);
    for known in [dead.running(), dead.created()] {
        let world = World::with({
            let mut options = ProcessOptions::new(dead.atoms());
            options.copied = true;
            options
        });
        assert_eq!(world.look(known), Sighting::Changed);
        assert_eq!(lost(&world, dead.atom), Reason::StoreCopied);
    }
    let stopped = Remembered { state: State::Stopped, ..dead.running() };
    assert_eq!(world.look(stopped), Sighting::AsRemembered);
    world.remove(dead.atom, Some(Arc::clone(&dead.handle)));
    assert!(lives(dead.pid));
}

#[test]
fn a_live_process_of_a_stopped_atom_is_a_contradiction_and_removing_ends_it() {
    let dead = Dead::host("sleep 1000 & echo $!; echo ready; wait");
    for state in [State::Stopped, State::Invalid] {
        let world = World::at(dead.atoms());
        let known = Remembered { state, ..dead.running() };
        assert_eq!(world.look(known), Sighting::Changed);
        let reason = world.expect("a contradiction", |o| match o {
            Observation::Contradiction { atom, reason, .. } if *atom == dead.atom => Some(*reason),
            _ => None,
        });
        assert_eq!(reason, Reason::UnexpectedProcess);
    }
    let world = World::at(dead.atoms());
    let child = world.output(dead.atom).text().lines().next().unwrap().parse().unwrap();
    world.remove(dead.atom, Some(Arc::clone(&dead.handle)));
    wait_gone(dead.pid);
    wait_gone(child);
    assert!(!exists(&world.dir(dead.atom)));
}

/// As a journal would have it after a stop was asked for.
fn stopping(dead: &Dead, kill_in: Duration, force: bool, cause: StopCause) -> Remembered {
    let now = wall();
    let kill_at = now.saturating_add(kill_in);
    let stop = Stop { asked_at: now, kill_at, force, cause };
    Remembered { state: State::Stopping, stop: Some(stop), ..dead.running() }
}

#[test]
fn a_stop_that_was_under_way_is_carried_out() {
    let deaf = "trap '' TERM; echo ready; sleep 1000; sleep 1000";
    let killed = WaitStatus::Signaled { signal: 9, core_dumped: false };
    for (kill_in, force) in
        [(Duration::ZERO, false), (Duration::from_millis(50), false), (LONG, true)]
    {
        let dead = Dead::host(deaf);
        let world = World::at(dead.atoms());
        world.look(stopping(&dead, kill_in, force, StopCause::Deadline));
        if expect_status(&world, dead.atom, killed) {
            assert_eq!(world.exit(dead.atom).ending().reason, Reason::Deadline);
        }
    }
    let dead = Dead::host("trap 'exit 5' TERM; echo ready; sleep 1000 & wait");
    let world = World::at(dead.atoms());
    world.look(stopping(&dead, LONG, false, StopCause::Requested));
    if expect_status(&world, dead.atom, WaitStatus::Exited { code: 5 }) {
        assert_eq!(world.exit(dead.atom).ending().outcome, Outcome::Terminated);
    }
}

#[test]
fn a_sigterm_of_the_earlier_host_counts_and_is_not_sent_twice() {
    let dead =
        Dead::host("trap 'echo term' TERM; sleep 1000 & echo ready; wait; read x < GATE; exit 5");
    {
        let world = World::at(dead.atoms());
        assert_eq!(world.look(dead.running()), Sighting::Adopted);
        world.stop(dead.atom, LONG, false);
        read_until(&mut *world.log(dead.atom, following()), "term\n");
        world.driver.close();
    }
    let world = World::at(dead.atoms());
    world.look(stopping(&dead, LONG, false, StopCause::Requested));
    dead.open_gate();
    if expect_status(&world, dead.atom, WaitStatus::Exited { code: 5 }) {
        assert_eq!(world.exit(dead.atom).ending().outcome, Outcome::Terminated);
    }
    assert_eq!(world.follow(dead.atom).text(), "ready\nterm\n");
}

#[test]
fn a_deadline_that_passed_meanwhile_is_kept() {
    let dead = Dead::host("echo ready; exec sleep 1000");
    let world = World::at(dead.atoms());
    let mut known = dead.running();
    let spec = dead.spec.clone().timeout(Duration::from_millis(1)).grace(LONG);
    known.order.spec = Arc::new(spec);
    assert_eq!(world.look(known), Sighting::Adopted);
    world.expect("a stop by deadline", |o| {
        matches!(o, Observation::StopBegan { atom, .. } if *atom == dead.atom).then_some(())
    });
    let status = WaitStatus::Signaled { signal: 15, core_dumped: false };
    if expect_status(&world, dead.atom, status) {
        assert_eq!(world.exit(dead.atom).ending().reason, Reason::Deadline);
    }
}

#[test]
fn a_chunk_that_the_kill_tore_is_cut() {
    let dead = Dead::host("echo ready; read x < GATE; echo after");
    let log = |dead: &Dead| newest_log(&dead.atoms().join(dead.atom.to_string()));
    let whole = fs::read(log(&dead)).unwrap();
    let torn = [whole.clone(), whole[24..whole.len() - 3].to_vec()].concat();
    fs::write(log(&dead), torn).unwrap();
    let world = World::at(dead.atoms());
    assert_eq!(world.look(dead.running()), Sighting::Adopted);
    dead.open_gate();
    let output = world.follow(dead.atom);
    assert_eq!((output.text().as_str(), output.dropped), ("ready\nafter\n", 0));
}

fn newest_log(dir: &Path) -> PathBuf {
    let logs = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    logs.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log."))
        .max()
        .unwrap()
}

#[test]
fn commands_after_closing_are_refused() {
    let world = World::new();
    world.driver.close();
    world.driver.close();
    assert!(world.driver.send(Command::Sync { token: 1 }).is_err());
}
