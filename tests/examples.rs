//! The examples do what they say, as programs of their own.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use caesium::driver::process::Supervision;
use caesium::engine::DeleteRequest;
use caesium::{Engine, ListRequest, ProcessEngine};
use serde_json::{Value, json};

/// Where the examples are. A whole `cargo test` has built them; for one of this file alone they are built here.
fn example(name: &str) -> Command {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--examples"]);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        if !cfg!(feature = "cli") {
            cargo.arg("--no-default-features");
        }
        assert!(cargo.status().unwrap().success());
        profile.join("examples")
    };
    Command::new(DIR.get_or_init(build).join(name))
}

/// Where an example has its store; what still lives there is ended when the test is over.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn open(&self) -> ProcessEngine {
        let options = ProcessEngine::options().supervision(Supervision::Keeper);
        options.keeper_program(env!("CARGO_BIN_EXE_caesium")).open(self.store()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.store().exists() {
            let engine = self.open();
            for atom in engine.list(&ListRequest::all()).unwrap() {
                engine.delete(&DeleteRequest::from(atom.id()).force()).unwrap();
            }
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_example_is_short_enough_to_be_read() {
    for entry in Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        // That one is a measurement.
        assert!(lines <= 150 || path.ends_with("parallel.rs"), "{}: {lines}", path.display());
    }
}

#[test]
fn the_steps_of_a_build_run_in_order_with_retries_and_timeouts() {
    let place = Place::new();
    let file = place.0.path().join("steps");
    let run = |steps: &str| {
        std::fs::write(&file, steps).unwrap();
        example("ci_steps")
            .arg(place.store())
            .arg(&file)
            .current_dir(place.0.path())
            .output()
            .unwrap()
    };
    let flaky = "[ -e seen ] && exec echo now; touch seen; echo not yet; exit 4";
    let done = run(&format!("hello 60s 0 echo hi; echo ho >&2\nflaky 60s 3 {flaky}\n"));
    let lines: Vec<String> = said(&done).lines().map(str::to_owned).collect();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!((lines[0].as_str(), lines[1].as_str()), ("==> 1/2 hello", "hi"));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "ho\n");
    let again = "==> flaky: failure (exited, exit code 4); attempt 2 of 4 follows";
    assert_eq!(lines[3..7], ["==> 2/2 flaky", "not yet", again, "now"]);
    assert!(lines[7].starts_with("==> flaky: success"), "{lines:?}");

    let done = run("slow 100ms 1 sleep 1000\nnever 1s 0 echo never\n");
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert_eq!(said(&done).matches("terminated (deadline)").count(), 2, "{done:?}");
    assert!(!said(&done).contains("never"));
    let done = run("nonsense\n");
    assert!(done.status.code() == Some(2), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("steps:1"), "{done:?}");
}

/// The tool, and what one says to it.
struct Tool(Child, BufReader<std::process::ChildStdout>);

impl Tool {
    fn at(place: &Place) -> Self {
        let mut command = example("background_tool");
        command.arg(place.store()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self(child, answers)
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.0.stdin.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn end(mut self) {
        self.0.stdin = None;
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn an_agents_commands_are_polled_written_to_stopped_and_outlive_it() {
    let place = Place::new();
    let mut tool = Tool::at(&place);
    let command = "echo hi; read line; echo got $line; cat; exit 3";
    let start = json!({ "tool": "start", "command": command, "key": "only-once" });
    let started = tool.ask(&start);
    assert_eq!(started["state"], "running", "{started}");
    assert_eq!(tool.ask(&start)["id"], started["id"]);
    let id = &started["id"];
    let poll = |tool: &mut Tool, cursor: &Value| {
        tool.ask(&json!({ "tool": "poll", "id": id, "cursor": cursor, "wait": 60 }))
    };
    let first = poll(&mut tool, &json!(0));
    assert_eq!((&first["output"], &first["cursor"]), (&json!("hi\n"), &json!(3)), "{first}");
    let nothing = tool.ask(&json!({ "tool": "poll", "id": id, "cursor": 3 }));
    assert_eq!((&nothing["output"], &nothing["cursor"]), (&json!(""), &json!(3)), "{nothing}");
    // The next session of the agent finds it.
    tool.end();
    let mut tool = Tool::at(&place);
    let listed = tool.ask(&json!({ "tool": "list" }));
    assert_eq!(listed["commands"][0]["id"], *id, "{listed}");
    let written = tool.ask(&json!({ "tool": "write", "id": id, "text": "a line\n" }));
    assert_eq!(written, json!({ "written": 7 }));
    let second = poll(&mut tool, &first["cursor"]);
    assert_eq!((&second["output"], &second["cursor"]), (&json!("got a line\n"), &json!(14)));
    tool.ask(&json!({ "tool": "write", "id": id, "end": true }));
    let last = poll(&mut tool, &second["cursor"]);
    assert_eq!(last["output"], "", "{last}");
    assert_eq!((&last["state"], &last["exit_code"]), (&json!("stopped"), &json!(3)), "{last}");

    let second = tool.ask(&json!({ "tool": "start", "command": "exec sleep 1000" }));
    let stopped = tool.ask(&json!({ "tool": "stop", "id": second["id"] }));
    assert_eq!(stopped["result"], "terminated", "{stopped}");
    for wrong in [json!({ "tool": "poll", "id": "nobody" }), json!({ "tool": "dance" }), json!(7)] {
        assert!(tool.ask(&wrong)["error"].is_string(), "{wrong}");
    }
    tool.end();
}

/// The service, and where it listens.
struct Service(Child, String);

impl Service {
    fn at(place: &Place) -> Self {
        let mut command = example("http_service");
        command.arg(place.store()).arg("127.0.0.1:0").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().strip_prefix("listening on http://").unwrap().to_owned())
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.1,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success() || std::thread::panicking());
    }
}

#[test]
fn the_service_creates_shows_waits_stops_and_deletes() {
    let place = Place::new();
    let service = Service::at(&place);
    let new = r#"{"command": ["sh", "-c", "echo hello; exit 3"], "key": "once"}"#;
    let made = service.json("POST", "/atoms", new);
    let atom = format!("/atoms/{}", made["id"].as_str().unwrap());
    assert_eq!(service.json("POST", "/atoms", new)["id"], made["id"]);
    let waited = service.json("GET", &format!("{atom}/wait"), "");
    assert_eq!((&waited["result"], &waited["exit_code"]), (&json!("failure"), &json!(3)));
    assert_eq!(service.ask("GET", &format!("{atom}/logs"), ""), (200, "hello\n".into()));
    assert_eq!(service.json("GET", "/atoms", "").as_array().unwrap().len(), 1);

    let long = service.json("POST", "/atoms", r#"{"command": ["sleep", "1000"], "name": "long"}"#);
    let long = format!("/atoms/{}", long["id"].as_str().unwrap());
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| service.json("GET", &format!("{long}/wait"), "")))
            .collect();
        assert_eq!(service.json("POST", &format!("{long}/stop"), "")["result"], "terminated");
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap()["state"], "stopped");
        }
    });
    assert_eq!(service.ask("DELETE", &long, "").0, 204);
    assert_eq!(service.ask("GET", &long, "").0, 404);
    assert_eq!(service.ask("POST", "/atoms", r#"{"command": []}"#).0, 400);
    assert_eq!(service.ask("POST", "/atoms", r#"{"command": ["id"], "user": "root"}"#).0, 422);
}

#[test]
fn a_crash_of_the_host_takes_nothing_of_what_runs_with_it() {
    let done = example("crash_and_resume").output().unwrap();
    let text = said(&done);
    assert!(done.status.success(), "{done:?}");
    for expected in [
        "the host was killed: signal: 9",
        "its atom is running",
        "it ended: failure, exit code Some(3)",
        "event 3: exited -> stopped",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let printed = text.lines().filter_map(|line| line.strip_prefix("it printed "));
    let printed: String = printed.map(|text| text.trim_matches('"').replace("\\n", "\n")).collect();
    assert_eq!(printed, "1\n2\n3\n4\n5\n");
}

#[test]
fn a_driver_of_ones_own_has_the_same_states_and_outcomes() {
    let done = example("custom_driver").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let expected = "pause: success (exited)\npause: terminated (stopped)\ndance: startup_failure (exec_not_found)\n";
    assert_eq!(said(&done), expected);
}

#[test]
fn the_quickstart_tells_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let done = example("quickstart").current_dir(dir.path()).output().unwrap();
    let text = said(&done);
    assert!(text.contains("outcome: Some(Failure), exit code Some(3)"), "{text}");
}
