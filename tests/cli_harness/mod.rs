//! What the tests of the command line share: a store of their own, and the command.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A directory with a store in it; what still lives there is ended when the test is over.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The command, with nothing of the surroundings that could change what it does.
    pub fn command<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caesium"));
        command.args(args).current_dir(self.dir.path()).env("CAESIUM_STORE", self.store());
        for name in ["CAESIUM_LOG", "XDG_STATE_HOME", "NO_COLOR"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    /// Makes an empty file beside the store: a sign for an atom that waits for it.
    pub fn touch(&self, name: &str) {
        std::fs::write(self.dir.path().join(name), "").unwrap();
    }

    /// Runs it, and it succeeds without a word on stderr; gives its stdout.
    pub fn ok<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> String {
        let done = self.run(args);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{}", done.out);
        done.out
    }

    /// `sh -c SCRIPT` with options of `run` before it.
    pub fn sh(&self, options: &[&str], script: &str) -> Done {
        self.run([&["run"], options, &["--", "sh", "-c", script]].concat())
    }

    pub fn json<I: IntoIterator<Item: AsRef<OsStr>>>(&self, args: I) -> Vec<Value> {
        let lines = self.ok(args);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn inspect(&self, id: &str) -> Value {
        self.json(["inspect", "--json", id]).remove(0)
    }

    /// All atoms, the oldest first.
    pub fn atoms(&self) -> Vec<Value> {
        self.json(["ps", "-a", "--json"])
    }

    /// The atom that was created last.
    pub fn newest(&self) -> Value {
        let id = text(self.atoms().last().unwrap(), "id");
        self.inspect(&id)
    }

    pub fn events(&self) -> Vec<Value> {
        self.json(["events", "--json"])
    }

    /// Begins a `run` of `sh -c SCRIPT` that says `ready`, and returns when it has.
    pub fn begin(&self, options: &[&str], script: &str) -> Running {
        let args = [&["run"], options, &["--", "sh", "-c", script]].concat();
        let mut running = Running::start(self.command(args));
        assert_eq!(running.line(), "ready\n");
        running
    }

    /// An atom that lives and whose `run` was killed; its name is given.
    pub fn orphan(&self, name: &str, script: &str) {
        let run = self.begin(&["--name", name], script);
        run.signal(Signal::KILL);
        assert_eq!(run.end().status, 128 + 9);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.store().exists() {
            return;
        }
        let listed = self.run(["ps", "-a", "--json"]);
        for line in listed.out.lines() {
            let Ok(atom) = serde_json::from_str::<Value>(line) else { continue };
            if !["stopped", "deleting"].contains(&text(&atom, "state").as_str()) {
                self.run(["rm", "--force", &text(&atom, "id")]);
            }
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    /// As a shell would say it.
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signal = output.status.signal().map(|signal| 128 + signal);
        Self {
            status: output.status.code().or(signal).unwrap(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It failed with this status and one line on stderr; gives the line.
    #[track_caller]
    pub fn refused(&self, status: i32) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        let line = self.err.strip_suffix('\n').unwrap_or_else(|| panic!("{self:?}"));
        assert!(!line.contains('\n'), "more than one line: {self:?}");
        line.strip_prefix("caesium: ").unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// A command that has not ended.
pub struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its stdout.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// The next line of its stderr.
    pub fn err_line(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).unwrap();
        line
    }

    /// The next bytes of its stdout.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.out.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Nobody reads its stdout any more. Waits for its end.
    pub fn end_unread(self) -> Done {
        let Self { mut child, out, err } = self;
        drop(out);
        child.stderr = Some(err.into_inner());
        Done::of(child.wait_with_output().unwrap())
    }

    /// Waits for its end; gives what was not read yet.
    pub fn end(self) -> Done {
        let Self { mut child, mut out, mut err } = self;
        let errors = std::thread::spawn(move || {
            let mut rest = Vec::new();
            err.read_to_end(&mut rest).unwrap();
            rest
        });
        let mut stdout = Vec::new();
        out.read_to_end(&mut stdout).unwrap();
        let (stderr, status) = (errors.join().unwrap(), child.wait().unwrap());
        Done::of(Output { status, stdout, stderr })
    }
}

pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}")).to_owned()
}

/// Whether a process lives.
pub fn alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
