//! A host that may be killed: this binary, executed again.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::work::{DIR, ORDERS};

/// How long anything may take: sled's own watchdog in the journal is a minute.
pub(super) const PATIENCE: Duration = Duration::from_secs(150);

pub(super) struct Host {
    child: Child,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

/// Why listening has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Enough,
    Late,
    /// The host has closed its mouth.
    Over,
}

/// The command that makes a host, under something else perhaps.
pub(super) fn command(under: &[String], dir: &Path, orders: &str) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match under.split_first() {
        None => Command::new(exe),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(exe);
            command
        }
    };
    command.args(["--exact", "torture::work::host", "--nocapture"]);
    command.env(ORDERS, orders).env(DIR, dir).env("RUST_BACKTRACE", "0");
    command
}

impl Host {
    pub(super) fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok).filter(|line| !line.is_empty()) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read is shown, whatever came after it.
            let _ = err.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// Listens until `enough` says so of a line, or the time is over.
    pub(super) fn listen(
        &mut self,
        patience: Duration,
        mut enough: impl FnMut(&str) -> bool,
    ) -> Heard {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if enough(&line) => return Heard::Enough,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Heard::Late,
                Err(RecvTimeoutError::Disconnected) => return Heard::Over,
            }
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits for its end, after its last line; gives how it ended and what it said of errors.
    pub(super) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let errors = self.errors.take().map(|errors| errors.join().unwrap());
        (status, errors.unwrap_or_default())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It has ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The panics in what a host said, but for those of sled, which are caught.
pub(super) fn panics(errors: &str) -> Vec<&str> {
    errors.lines().filter(|line| line.contains("panicked at") && !line.contains("sled-")).collect()
}
