//! At a terminal: colours where they are wanted, and nowhere else.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use cli_harness::Place;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A new terminal: who sits at it, and what a command is given.
fn terminal() -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    (terminal.into(), OpenOptions::new().read(true).write(true).open(name).unwrap())
}

/// Runs a command with a terminal for its output; gives its status and what the terminal got.
fn at_terminal(command: Command) -> (i32, String) {
    typed_into(command, None)
}

/// The same with a terminal for its input as well, into which that is typed.
fn typed_into(mut command: Command, typed: Option<&str>) -> (i32, String) {
    let (mut terminal, end) = terminal();
    let stdin = typed.map_or_else(Stdio::null, |_| end.try_clone().unwrap().into());
    command.stdin(stdin).stdout(end.try_clone().unwrap()).stderr(end);
    let mut child = command.spawn().unwrap();
    // With it goes our own end: when the child has gone nobody has it any more.
    drop(command);
    terminal.write_all(typed.unwrap_or_default().as_bytes()).unwrap();
    let mut shown = Vec::new();
    // A terminal ends with EIO.
    let _ = terminal.read_to_end(&mut shown);
    (child.wait().unwrap().code().unwrap(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_terminal_gets_colours_unless_it_cannot_or_they_are_not_wanted() {
    let place = Place::new();
    assert_eq!(place.sh(&[], "exit 3").status, 3);
    let ps = |variables: &[(&str, &str)]| {
        let mut command = place.command(["ps", "-a"]);
        command.env("TERM", "xterm").envs(variables.iter().copied());
        let (status, shown) = at_terminal(command);
        assert_eq!(status, 0, "{shown}");
        assert_eq!(shown.lines().count(), 2, "{shown}");
        shown
    };
    assert!(ps(&[]).contains("\x1b[31mfailure (3)\x1b[0m"), "{}", ps(&[]));
    assert!(ps(&[("NO_COLOR", "")]).contains('\x1b'), "an empty NO_COLOR is none");
    for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        assert!(!ps(&variables).contains('\x1b'), "{variables:?}");
    }
}

#[test]
fn run_and_its_errors_work_at_a_terminal() {
    let place = Place::new();
    let run = |args: &[&str]| at_terminal(place.command(args));
    assert_eq!(run(&["run", "sh", "-c", "echo hi; exit 4"]), (4, "hi\r\n".into()));
    let (status, shown) = run(&["inspect", "nobody"]);
    assert_eq!((status, shown.lines().count()), (1, 1), "{shown}");
    assert_eq!(run(&["run", "--nope", "true"]).0, 125);
    assert!(run(&["--help"]).1.contains("Usage"));
}

#[test]
fn what_is_typed_is_passed_on_to_its_end_and_nobody_waits_for_more_than_is_wanted() {
    let place = Place::new();
    let run = |script: &str, typed: &str| {
        typed_into(place.command(["run", "-i", "--", "sh", "-c", script]), Some(typed))
    };
    // The terminal shows what is typed as well; ^D is its end of input.
    let (status, shown) = run("cat; exit 5", "hello\n\x04");
    assert_eq!((status, shown.matches("hello\r\n").count()), (5, 2), "{shown:?}");
    let (status, shown) = run("read line; echo got $line; exit 6", "a line\n");
    assert!(status == 6 && shown.contains("got a line"), "{status} {shown:?}");
    assert_eq!(run("exit 7", "").0, 7);
}

/// Holds the keeper up, and lets it go on in the end.
struct HeldUp(Pid);

impl HeldUp {
    fn keeper_of(place: &Place) -> Self {
        let socket = UnixStream::connect(place.store().join("keeper.sock")).unwrap();
        let keeper = rustix::net::sockopt::socket_peercred(&socket).unwrap().pid;
        kill_process(keeper, Signal::STOP).unwrap();
        Self(keeper)
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        kill_process(self.0, Signal::CONT).unwrap();
    }
}

#[test]
fn what_takes_long_says_how_far_it_is_at_a_terminal_and_nowhere_else() {
    let place = Place::new();
    for name in ["one", "two"] {
        assert_eq!(place.sh(&["--name", name], "exit 0").status, 0);
    }
    // Without a terminal: nothing, however long it takes.
    // It has the store, and is connected to the keeper: what it asks of that takes as long as it takes.
    let holder = place.begin(&[], "echo ready; exec sleep 1000");
    let held = HeldUp::keeper_of(&place);
    let mut command = place.command(["rm", "one"]);
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut seen, end) = terminal();
    let mut command = place.command(["rm", "two"]);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(end);
    let watched = command.spawn().unwrap();
    drop(command);
    let mut shown = String::new();
    let mut piece = [0; 256];
    while !shown.contains("deleting: 1s, 0 of 1") {
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&seen, PollFlags::IN)], Some(&patience)).unwrap();
        assert_eq!(ready, 1, "nothing more comes after {shown:?}");
        let bytes = seen.read(&mut piece).unwrap();
        shown.push_str(&String::from_utf8_lossy(&piece[..bytes]));
    }
    drop(held);
    let done = watched.wait_with_output().unwrap();
    assert!(done.status.success());
    let mut rest = Vec::new();
    let _ = seen.read_to_end(&mut rest);
    shown.push_str(&String::from_utf8_lossy(&rest));
    assert!(shown.starts_with("\r\x1b[Kdeleting: 0s, 0 of 1"), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K") && !shown.contains('\n'), "it leaves no trace: {shown:?}");
    let done = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert!(done.status.success());
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().status, 143);
}
