//! The host that is killed: this very test binary, executed again in a role.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use caesium::driver::process::Supervision;
use caesium::lifecycle::{Backoff, Outcome, OutcomeSet};
use caesium::{
    AtomId, AtomSpec, DeleteRequest, Engine, Error, GetRequest, OnClose, ProcessEngine,
    RetryPolicy, StopRequest, WaitRequest,
};
use rustix::process::Signal;

use super::processes::{PATIENCE, atoms_alive, keepers, signal, until};

const ROLE: &str = "CAESIUM_TEST_HOST_ROLE";
const DIR: &str = "CAESIUM_TEST_HOST_DIR";
const CGROUPS: &str = "CAESIUM_TEST_HOST_CGROUPS";

/// Where a host's things are.
#[derive(Debug)]
pub(super) struct Place {
    dir: tempfile::TempDir,
    /// Whether atoms are in cgroups, or have reapers.
    cgroups: bool,
}

/// A test that fails leaves nothing behind either.
impl Drop for Place {
    fn drop(&mut self) {
        let atoms = atoms_alive(&self.witness()).into_iter().map(|(_, pid)| pid);
        for pid in keepers(&self.atoms()).into_iter().chain(atoms) {
            signal(pid, Signal::KILL);
        }
    }
}

impl Place {
    pub(super) fn new(cgroups: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("witness")).unwrap();
        Self { dir, cgroups }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where each atom writes down what becomes of it, in a file with its id as its name.
    pub(super) fn witness(&self) -> PathBuf {
        self.path().join("witness")
    }

    pub(super) fn atoms(&self) -> PathBuf {
        self.path().join("store/atoms")
    }

    pub(super) fn open(&self) -> Result<ProcessEngine, Error> {
        open(self.path(), self.cgroups)
    }

    /// An atom that ends by itself at once, and is a witness as all are.
    pub(super) fn short_life(&self) -> AtomSpec {
        Kind::Exits(0).spec(&self.witness())
    }

    /// What the atom has written.
    pub(super) fn said_by(&self, atom: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.witness().join(atom)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn open(dir: &Path, cgroups: bool) -> Result<ProcessEngine, Error> {
    ProcessEngine::options()
        .on_close(OnClose::Leave)
        .supervision(Supervision::Keeper)
        .keeper_program(env!("CARGO_BIN_EXE_caesium"))
        .cgroups(cgroups)
        .open(dir.join("store"))
}

/// A line that a host has said: what was acknowledged, and of which atom.
pub(super) type Said = (String, AtomId);

/// A host that lives.
pub(super) struct Host {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Host {
    fn drop(&mut self) {
        // One that was killed is not there any more, which is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Host {
    pub(super) fn start(role: &str, place: &Place, env: &[(&str, String)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "torture_host::host::as_host", "--nocapture"]);
        command.args(["--test-threads=1"]).env(ROLE, role).env(DIR, place.path());
        command.env(CGROUPS, place.cgroups.to_string()).env("RUST_BACKTRACE", "0");
        command.envs(env.iter().map(|(key, value)| (*key, value)));
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that says something, if it comes in time.
    pub(super) fn hear(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    /// Kills it, and gives what it had said until then.
    pub(super) fn kill(mut self) -> Vec<String> {
        // It may have ended by itself, which the reader of its lines judges.
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    /// Whether it lives.
    pub(super) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// What was acknowledged by a line.
pub(super) fn acknowledged(line: &str) -> Option<Said> {
    let (word, id) = line.split_once(' ')?;
    Some((word.to_owned(), id.parse().ok()?))
}

/// Not a test: what this binary does when a test executes it as a host.
#[test]
fn as_host() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let cgroups = std::env::var(CGROUPS).unwrap() == "true";
    let engine = open(&dir, cgroups).unwrap();
    let work = Work { engine: &engine, witness: dir.join("witness") };
    match role.as_str() {
        "scenario" => work.scenario(),
        "busy" => work.busy(),
        other => panic!("no role {other}"),
    }
    say("done");
    loop {
        std::thread::park();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// What an atom does; each writes down when it begins, and with what it is about to end.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Exits(u8),
    /// SIGTERM ends it.
    Sleeps,
    /// It exits with 5 on SIGTERM.
    Obeys,
    /// Nothing but SIGKILL ends it.
    Deaf,
    /// It leaves somebody behind who has left the session.
    Leaves,
}

impl Kind {
    fn spec(self, witness: &Path) -> AtomSpec {
        let spec = AtomSpec::command("sh").args(["-c", &self.script()]);
        spec.env("WITNESS", witness).grace(Duration::from_millis(50))
    }

    fn script(self) -> String {
        const START: &str = r#"echo "start $$" >> "$WITNESS/$CAESIUM_ATOM";"#;
        const END: &str = r#">> "$WITNESS/$CAESIUM_ATOM";"#;
        match self {
            Self::Exits(code) => format!("{START} echo end {code} {END} exit {code}"),
            Self::Sleeps => format!("{START} exec sleep 1000"),
            Self::Obeys => format!(
                "trap 'echo end 5 {END} exit 5' TERM; {START} sleep 1000 & wait; echo end 6 {END} exit 6"
            ),
            Self::Deaf => format!("trap '' TERM; {START} sleep 1000 & wait"),
            Self::Leaves => format!("{START} setsid sleep 1000 & echo end 0 {END} exit 0"),
        }
    }
}

struct Work<'a> {
    engine: &'a ProcessEngine,
    witness: PathBuf,
}

impl Work<'_> {
    fn spec(&self, kind: Kind) -> AtomSpec {
        kind.spec(&self.witness)
    }

    /// Creates one; `None` when that was not acknowledged, as the keeper was killed just then.
    fn create(&self, spec: AtomSpec) -> Option<AtomId> {
        match self.engine.create(spec.into()) {
            Ok(atom) => {
                say(&format!("created {}", atom.id()));
                Some(atom.id())
            }
            Err(Error::Driver(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn wait(&self, id: AtomId) {
        self.engine.wait(&WaitRequest::from(id).timeout(PATIENCE)).unwrap();
        say(&format!("ended {id}"));
    }

    fn stop(&self, request: &StopRequest) {
        self.engine.stop(request).unwrap();
        say(&format!("stopped {}", request.id));
    }

    fn delete(&self, id: AtomId) {
        self.engine.delete(&DeleteRequest::from(id)).unwrap();
        say(&format!("deleted {id}"));
    }

    /// A whole life of each kind, one after the other, so that every named point is passed.
    fn scenario(&self) {
        if let Some(id) = self.create(self.spec(Kind::Exits(0))) {
            self.wait(id);
            self.delete(id);
        }
        let again = RetryPolicy {
            max_attempts: 2,
            backoff: Backoff { initial: Duration::from_millis(1), ..Backoff::default() },
            on: [Outcome::Failure].into_iter().collect::<OutcomeSet>(),
        };
        if let Some(id) = self.create(self.spec(Kind::Exits(3)).retry(again)) {
            self.wait(id);
            // Its ending may be one that is not tried again, when the keeper was killed.
            let atom = self.engine.get(&GetRequest::from(id)).unwrap();
            if atom.result() == Some(Outcome::Failure) {
                let next = until("a retry", || {
                    self.engine.get(&GetRequest::from(id)).unwrap().replaced_by()
                });
                self.wait(next);
            }
        }
        for kind in [Kind::Sleeps, Kind::Obeys, Kind::Deaf] {
            if let Some(id) = self.create(self.spec(kind)) {
                self.stop(&StopRequest::from(id));
                self.delete(id);
            }
        }
        if let Some(id) = self.create(self.spec(Kind::Sleeps)) {
            self.stop(&StopRequest::from(id).force());
        }
        if let Some(id) = self.create(self.spec(Kind::Leaves)) {
            self.wait(id);
        }
        self.create(self.spec(Kind::Sleeps));
    }

    /// Creates, waits, stops and deletes without end.
    fn busy(&self) {
        const KINDS: [Kind; 7] = [
            Kind::Exits(0),
            Kind::Sleeps,
            Kind::Exits(3),
            Kind::Obeys,
            Kind::Leaves,
            Kind::Deaf,
            Kind::Exits(7),
        ];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0.. {
                        let kind = KINDS[(2 * thread + round) % KINDS.len()];
                        let mut spec = self.spec(kind);
                        if round % 5 == 1 {
                            spec = spec.retry(RetryPolicy {
                                max_attempts: 2,
                                backoff: Backoff {
                                    initial: Duration::from_millis(1),
                                    ..Backoff::default()
                                },
                                on: OutcomeSet::FAILURES,
                            });
                        }
                        let Some(id) = self.create(spec) else { continue };
                        match (kind, round % 3) {
                            // Some go on while others come.
                            (Kind::Sleeps | Kind::Obeys | Kind::Deaf, 0) if round % 7 > 0 => {}
                            (Kind::Sleeps | Kind::Obeys | Kind::Deaf, 1) => {
                                self.stop(&StopRequest::from(id).force());
                            }
                            (Kind::Sleeps | Kind::Obeys | Kind::Deaf, _) => {
                                self.stop(&StopRequest::from(id));
                            }
                            (Kind::Exits(_) | Kind::Leaves, 0) => self.wait(id),
                            (Kind::Exits(_) | Kind::Leaves, _) => {
                                self.stop(&StopRequest::from(id));
                            }
                        }
                        if round % 4 == 3
                            && self.engine.get(&GetRequest::from(id)).unwrap().result().is_some()
                        {
                            self.delete(id);
                        }
                    }
                });
            }
        });
    }
}
