//! How much of what an atom prints `caesium run` shows, and how much of it is kept: all, and what fits.

#![cfg(all(target_os = "linux", feature = "cli"))]

mod cli_harness;

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cli_harness::{Place, text};
use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_getpipe_size;
use rustix::process::{Pid, Signal, kill_process};

/// FNV-1a, as far as it has come: order and completeness of a stream, without keeping it.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    hash: u64,
    bytes: u64,
}

impl Sum {
    fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, bytes: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.bytes += bytes.len() as u64;
    }
}

/// So many lines that are all different have a hundred megabytes.
const LINES: u64 = 12_700_000;

#[test]
fn a_hundred_megabytes_come_through_complete_and_in_order() {
    let place = Place::new();
    let last = LINES.to_string();
    let mut command = place.command(["run", "--", "seq", "1", &last]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut seen = Sum::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match out.read(&mut buffer).unwrap() {
            0 => break,
            bytes => seen.add(&buffer[..bytes]),
        }
    }
    assert!(child.wait().unwrap().success());
    let mut expected = Sum::new();
    for number in 1..=LINES {
        expected.add(format!("{number}\n").as_bytes());
    }
    assert!(expected.bytes > 100_000_000);
    assert_eq!(seen, expected);
    // The log is bounded: its newest part is there, and how much is missing before it is said.
    let kept = place.run(["logs", &text(&place.newest(), "id")]);
    assert!(kept.out.ends_with(&format!("\n{last}\n")));
    let length = kept.out.len() as u64;
    assert!((12 << 20) < length && length <= (16 << 20), "{length}");
    let missing = format!("caesium: {} bytes", expected.bytes - length);
    assert!(kept.err.starts_with(&missing), "{}", kept.err);
}

/// Nothing waits for anything here: what it prints before its start is even journaled is shown, too.
#[test]
fn an_atom_that_prints_at_once_more_than_its_log_holds_is_shown_whole() {
    let place = Place::new();
    let all: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let args = ["run", "--log-max", "4K", "--name", "n", "--", "seq", "1", "20000"];
    let done = place.run(args);
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert!(done.out == all, "{} of {} bytes", done.out.len(), all.len());
    let kept = place.run(["logs", "n"]);
    assert!(kept.out.len() <= 4096, "{}", kept.out.len());
    assert!(!kept.out.is_empty() && all.ends_with(&kept.out));
}

/// The pipe is full, and whoever should read it does nothing: a third signal does not wait for that.
#[test]
fn a_third_signal_gives_up_what_nobody_reads() {
    let place = Place::new();
    let mut command =
        place.command(["run", "--grace", "1h", "--", "sh", "-c", "trap '' TERM; yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let pid = Pid::from_child(&child);
    let capacity = fcntl_getpipe_size(&out).unwrap() as u64;
    until("a full pipe", || ioctl_fionread(&out).unwrap() == capacity);
    // Again and again: a signal that is pending already does not count twice.
    let mut ended = None;
    until("its end", || {
        kill_process(pid, Signal::INT).unwrap();
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(137));
    let atom = place.newest();
    assert_eq!((text(&atom, "state"), text(&atom, "result")), ("stopped".into(), "killed".into()));
}

/// That both streams are closed is one reason to stop it, not two: it has its grace.
#[test]
fn an_atom_whose_output_nobody_reads_is_asked_to_end_once() {
    let place = Place::new();
    let script =
        "trap 'echo err >&2; sleep 0.5; exit 7' TERM; while :; do echo out; sleep 0.01; done";
    let mut command = place.command(["run", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(text(&place.newest(), "reason"), "stopped");
}

/// Waits until it is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} has not come to be");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
