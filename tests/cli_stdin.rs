//! `caesium run -i`: what comes in is passed on as it is, to its end, and never further than it is wanted.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use std::fs::File;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use caesium::{Engine, Outcome, ProcessEngine};
use cli_harness::{Done, Place, Running, text};
use rustix::process::Signal;

/// More than any pipe holds; no two of its kilobytes are the same.
fn much() -> Vec<u8> {
    (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn run(place: &Place, script: &str) -> Command {
    place.command(["run", "-i", "--log-max", "16M", "--", "sh", "-c", script])
}

/// Somebody who never ends to write.
struct Yes(Child);

impl Yes {
    fn into(command: &mut Command) -> Self {
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        command.stdin(yes.stdout.take().unwrap());
        Self(yes)
    }
}

impl Drop for Yes {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn begin(mut command: Command) -> (Running, ChildStdin) {
    // The harness keeps no input: this end of a pipe is the command's.
    let (read, write) = std::io::pipe().unwrap();
    command.stdin(read);
    (Running::start(command), ChildStdin::from(std::os::fd::OwnedFd::from(write)))
}

#[test]
fn an_endless_input_ends_with_who_reads_it() {
    let place = Place::new();
    let mut command = place.command(["run", "-i", "--", "head", "-1"]);
    let yes = Yes::into(&mut command);
    let done = Done::of(command.output().unwrap());
    assert_eq!((done.status, done.out.as_str(), done.err.as_str()), (0, "y\n", ""));
    drop(yes);
}

#[test]
fn a_large_file_and_a_large_pipe_come_out_as_they_went_in() {
    let (place, much) = (Place::new(), much());
    let path = place.dir.path().join("much");
    std::fs::write(&path, &much).unwrap();
    let mut command = run(&place, "cat; exit 3");
    let output = command.stdin(File::open(&path).unwrap()).output().unwrap();
    assert!(output.status.code() == Some(3) && output.stdout == much, "{:?}", output.status);
    let (mut running, mut input) = begin(run(&place, "cat; exit 4"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&much).unwrap();
            drop(input);
        });
        assert!(running.bytes(much.len()) == much);
    });
    assert_eq!(running.end().status, 4);
}

#[test]
fn an_atom_that_reads_nothing_ends_as_it_likes() {
    let place = Place::new();
    // With an input that never ends, and with one that never begins.
    let mut command = run(&place, "exit 3");
    let _yes = Yes::into(&mut command);
    assert_eq!(Done::of(command.output().unwrap()).status, 3);
    let (running, input) = begin(run(&place, "exit 4"));
    assert_eq!(running.end().status, 4);
    drop(input);
    // It goes on for a while after it has closed its input.
    let script = "exec <&-; echo ready; until [ -e go ]; do sleep 0.02; done; exit 5";
    let mut command = run(&place, script);
    let _yes = Yes::into(&mut command);
    let mut running = Running::start(command);
    assert_eq!(running.line(), "ready\n");
    place.touch("go");
    assert_eq!(running.end().status, 5);
}

#[test]
fn an_atom_that_never_reads_can_be_stopped_and_holds_up_nobody() {
    let place = Place::new();
    let mut command = run(&place, "echo ready; exec sleep 1000");
    let _yes = Yes::into(&mut command);
    let mut running = Running::start(command);
    assert_eq!(running.line(), "ready\n");
    assert_eq!(place.sh(&[], "exit 6").status, 6, "through the one that cannot pass on any more");
    running.signal(Signal::TERM);
    assert_eq!(running.end().status, 143);
}

#[test]
fn an_empty_input_is_an_end_at_once() {
    let place = Place::new();
    let done = Done::of(run(&place, "wc -c").output().unwrap());
    assert_eq!((done.status, done.out.trim(), done.err.as_str()), (0, "0", ""));
}

#[test]
fn an_input_that_cannot_be_read_is_not_taken_for_one_that_has_ended() {
    let place = Place::new();
    let mut command = run(&place, "cat; echo all of it");
    command.stdin(File::open(place.dir.path()).unwrap());
    let done = Done::of(command.output().unwrap());
    assert_eq!((done.status, done.out.as_str()), (143, ""), "{done:?}");
    assert!(done.err.contains("cannot read standard input"), "{done:?}");
}

#[test]
fn it_goes_with_no_other_input_and_not_into_the_background() {
    let place = Place::new();
    for other in [["--stdin", "/dev/null"], ["--detach", "--env=A=b"]] {
        let done = place.run([&["run", "-i"], &other[..], &["true"]].concat());
        assert_eq!(done.status, 125, "{done:?}");
    }
    assert!(!place.store().exists());
}

#[test]
fn it_comes_through_when_the_process_that_has_the_store_ends() {
    let (place, much) = (Place::new(), much());
    let (gate, half) = (place.dir.path().join("gate"), much.len() / 2);
    let script = format!("echo ready; until [ -e {} ]; do sleep 0.02; done", gate.display());
    let first = place.begin(&[], &script);
    let (mut second, mut input) = begin(run(&place, "cat; exit 5"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&much[..half]).unwrap();
            std::fs::write(&gate, "").unwrap();
            assert_eq!(first.end().status, 0);
            input.write_all(&much[half..]).unwrap();
            drop(input);
        });
        assert!(second.bytes(much.len()) == much);
    });
    let done = second.end();
    assert_eq!((done.status, done.err.as_str()), (5, ""));
}

#[test]
fn an_input_does_not_end_because_who_passed_it_on_was_killed() {
    let place = Place::new();
    let (mut running, mut input) = begin(run(&place, "echo ready; cat >copy; exit 3"));
    assert_eq!(running.line(), "ready\n");
    input.write_all(b"before ").unwrap();
    let id = text(&place.newest(), "id");
    let copy = place.dir.path().join("copy");
    let copied = || std::fs::read(&copy).unwrap_or_default();
    while copied() != b"before " {
        std::thread::yield_now();
    }
    running.signal(Signal::KILL);
    assert_eq!(running.end().status, 128 + 9);
    drop(input);
    // A host that comes later goes on.
    let options = ProcessEngine::options().keeper_program(env!("CARGO_BIN_EXE_caesium"));
    let options = options.supervision(caesium::driver::process::Supervision::Keeper);
    let engine = options.on_close(caesium::OnClose::Leave).open(place.store()).unwrap();
    let atom = engine.find(&id).unwrap();
    assert!(atom.state().is_live(), "{atom:?}");
    engine.stdin(&atom.id().into()).unwrap().write_all(b"and after").unwrap();
    engine.close_stdin(&atom.id().into()).unwrap();
    let atom = engine.wait(&atom.id().into()).unwrap();
    assert_eq!((atom.result(), atom.exit_code()), (Some(Outcome::Failure), Some(3)));
    assert_eq!(String::from_utf8(copied()).unwrap(), "before and after");
}

#[test]
fn ten_at_once_do_not_mix_up_what_they_pass_on() {
    let place = Place::new();
    let runs: Vec<_> = (0..10_u8).map(|n| (n, begin(run(&place, "cat; exit 9")))).collect();
    for (n, (running, mut input)) in runs {
        let sent = vec![b'0' + n; 100_000];
        let writer = std::thread::spawn({
            let sent = sent.clone();
            move || input.write_all(&sent).unwrap()
        });
        let done = running.end();
        writer.join().unwrap();
        assert!(done.status == 9 && done.out.as_bytes() == sent, "{n}: {}", done.status);
    }
}
