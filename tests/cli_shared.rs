//! One store, many users: every command works while another process has the store, and goes on when that one ends.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use std::path::PathBuf;

use caesium::{AtomSpec, Engine, EngineOptions, ListRequest, OnClose, Outcome, ProcessEngine};
use cli_harness::{Done, Place, Running, alive, text};
use rustix::process::Signal;
use serde_json::json;

/// Prints a line, and ends when its gate is opened.
fn gated(place: &Place, gate: &str) -> (PathBuf, String) {
    let path = place.dir.path().join(gate);
    let script = format!("echo ready; until [ -e {0} ]; do sleep 0.02; done", path.display());
    (path, script)
}

/// Every command, with something to look at in the store.
fn every_command_works(place: &Place, holder: &str) {
    assert_eq!(place.sh(&["--name", "one"], "echo out; echo err >&2; exit 3").status, 3);
    let listed = place.ok(["ps", "-a"]);
    assert!(listed.contains("failure (3)") && listed.contains(holder), "{listed}");
    assert_eq!(place.inspect("one")["exit_code"], 3);
    let logs = place.run(["logs", "one"]);
    assert_eq!((logs.out.as_str(), logs.err.as_str()), ("out\n", "err\n"));
    assert_eq!(place.ok(["logs", "one", "--stream", "stdout", "--tail", "1"]), "out\n");
    assert_eq!(place.run(["wait", "one"]).status, 3);
    let id = place.ok(["run", "-d", "--name", "two", "--", "sleep", "1000"]);
    assert_eq!(place.inspect("two")["state"], "running");
    assert!(place.run(["rm", "two"]).refused(1).contains("stop it first"));
    assert_eq!(place.ok(["stop", "two"]), format!("{} terminated (SIGTERM)\n", id.trim()));
    assert_eq!(place.ok(["rm", "two"]), id);
    let events = place.events();
    assert!(events.iter().zip(1..).all(|(event, seq)| event["seq"] == seq));
    assert_eq!(events.last().unwrap()["event"], "removed");
    assert!(place.ok(["verify"]).starts_with(&format!("{} events", events.len())));
    assert_eq!(place.json(["stats", "--json"])[0]["recent"], events.len());
    assert!(place.ok(["compact", "--keep-events", "100000"]).starts_with("0 events dropped"));
    assert!(place.run(["inspect", "nobody"]).refused(1).contains("no atom \"nobody\""));
    assert_eq!(place.run(["run", "/nonexistent"]).status, 127);
}

#[test]
fn every_command_works_while_a_host_has_the_store() {
    let place = Place::new();
    let host = EngineOptions::new().serve(true).open(place.store()).unwrap();
    let atom = host.create(AtomSpec::command("sleep").arg("1000").name("hosts").into()).unwrap();
    every_command_works(&place, "hosts");
    // What was done is seen by the host at once.
    let mine = host.list(&ListRequest::all().name("one")).unwrap();
    assert_eq!(mine[0].result(), Some(Outcome::Failure));
    assert_eq!(place.run(["stop", "--force", "hosts"]).status, 0);
    assert_eq!(host.wait(&atom.id().into()).unwrap().result(), Some(Outcome::Killed));
}

#[test]
fn every_command_works_while_a_run_has_the_store() {
    let place = Place::new();
    let (gate, script) = gated(&place, "gate");
    let run = place.begin(&["--name", "first"], &script);
    every_command_works(&place, "first");
    std::fs::write(gate, "").unwrap();
    assert_eq!(run.end().status, 0);
}

#[test]
fn an_atom_has_the_surroundings_of_the_command_that_asked_for_it() {
    let place = Place::new();
    let _first = place.begin(&["--name", "first"], "echo ready; exec sleep 1000");
    let elsewhere = place.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("input"), "from a file\n").unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 027; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_caesium"), "run"]);
    command.args(["--secret-env", "TOKEN=hightide", "--stdin", "input", "--", "sh", "-c"]);
    command.arg("pwd; umask; echo $GIVEN ${#TOKEN}; cat; exit 9");
    command.current_dir(&elsewhere).env("CAESIUM_STORE", place.store()).env("GIVEN", "given");
    let done = Done::of(command.output().unwrap());
    let elsewhere = elsewhere.canonicalize().unwrap();
    assert_eq!(done.out, format!("{}\n0027\ngiven 8\nfrom a file\n", elsewhere.display()));
    assert_eq!((done.status, done.err.as_str()), (9, ""));
}

#[test]
fn output_and_signals_pass_through_the_holder() {
    let place = Place::new();
    let first = place.begin(&["--name", "first"], "echo ready; exec sleep 1000");
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    // The log keeps little of it; what is shown is complete all the same.
    let done = place.sh(&["--log-max", "64K"], "seq 1 200000; echo end >&2");
    assert_eq!((done.status, done.err.as_str()), (0, "end\n"));
    assert!(done.out == all, "{} of {} bytes", done.out.len(), all.len());
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.02; done";
    let mut second = place.begin(&["--grace", "1h", "--name", "second"], script);
    second.signal(Signal::TERM);
    assert_eq!(second.line(), "asked\n");
    second.signal(Signal::INT);
    assert_eq!(second.end().status, 137);
    let atom = place.inspect("second");
    assert_eq!((&atom["result"], &atom["reason"]), (&json!("killed"), &json!("stop_forced")));
    assert!(!alive(atom["pid"].as_u64().unwrap()));
    first.signal(Signal::TERM);
    assert_eq!(first.end().status, 143);
}

/// How the first command, which has the store, is made to end.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Killed,
    Polite,
}

/// A `run` that has the store, another one, and what looks on; then the first one ends.
fn outlived(ending: Ending) {
    let place = Place::new();
    let (first_gate, first_script) = gated(&place, "first");
    let mut first = place.begin(&["--name", "first"], &first_script);
    let gates = ["second", "third"].map(|name| place.dir.path().join(name));
    let [second_gate, third_gate] = &gates;
    let script = format!(
        "echo ready; echo before; until [ -e {} ]; do sleep 0.02; done; seq 1000; echo err >&2; \
         until [ -e {} ]; do sleep 0.02; done; echo after; exit 5",
        second_gate.display(),
        third_gate.display()
    );
    let mut second = place.begin(&["--name", "second"], &script);
    assert_eq!(second.line(), "before\n");
    let mut logs = Running::start(place.command(["logs", "-f", "second"]));
    assert_eq!((logs.line(), logs.line()), ("ready\n".into(), "before\n".into()));
    let mut events = Running::start(place.command(["events", "-f", "--json"]));
    let mut seqs = 0;
    let mut next_event = || {
        let event: serde_json::Value = serde_json::from_str(&events.line()).unwrap();
        seqs += 1;
        assert_eq!(event["seq"], seqs);
        event
    };
    // Created and started, of two.
    for _ in 0..4 {
        next_event();
    }
    let waits = Running::start(place.command(["wait", "second"]));
    match ending {
        Ending::Killed => {
            first.signal(Signal::KILL);
            assert_eq!(first.end().status, 128 + 9);
        }
        Ending::Polite => {
            std::fs::write(&first_gate, "").unwrap();
            assert_eq!(first.line(), "");
            assert_eq!(first.end().status, 0);
            assert_eq!(next_event()["event"], "exited");
        }
    }
    std::fs::write(second_gate, "").unwrap();
    let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(second.bytes(numbers.len())).unwrap(), numbers);
    assert_eq!(String::from_utf8(logs.bytes(numbers.len())).unwrap(), numbers);
    // Whoever comes now is served by one of those that were clients before.
    assert_eq!(place.inspect("second")["state"], "running");
    std::fs::write(third_gate, "").unwrap();
    let done = second.end();
    assert_eq!((done.out.as_str(), done.err.as_str(), done.status), ("after\n", "err\n", 5));
    let done = logs.end();
    assert_eq!((done.out.as_str(), done.err.as_str(), done.status), ("after\n", "err\n", 0));
    assert_eq!(waits.end().status, 5);
    let event = next_event();
    assert_eq!((&event["event"], &event["exit_code"]), (&json!("exited"), &json!(5)));
    events.signal(Signal::TERM);
    events.end();
    if let Ending::Killed = ending {
        // It outlived the command that showed it.
        assert_eq!(place.inspect("first")["state"], "running");
        assert_eq!(place.run(["stop", "first"]).status, 0);
    }
    place.ok(["verify"]);
}

#[test]
fn when_the_holder_is_killed_the_others_go_on_without_losing_anything() {
    outlived(Ending::Killed);
}

#[test]
fn when_the_holder_is_done_the_others_go_on_without_losing_anything() {
    outlived(Ending::Polite);
}

#[test]
fn a_host_is_served_by_a_run() {
    let place = Place::new();
    let (gate, script) = gated(&place, "gate");
    let run = place.begin(&["--name", "first"], &script);
    let host = ProcessEngine::options()
        .on_close(OnClose::Leave)
        .keeper_program(env!("CARGO_BIN_EXE_caesium"))
        .connect_or_open(place.store())
        .unwrap();
    let first = host.find("first").unwrap();
    let atom = host.create(AtomSpec::command("sh").args(["-c", "exit 4"]).into()).unwrap();
    assert_eq!(host.wait(&atom.id().into()).unwrap().exit_code(), Some(4));
    assert_eq!(text(&place.inspect("first"), "id"), first.id().to_string());
    std::fs::write(gate, "").unwrap();
    assert_eq!(run.end().status, 0);
    let ended = host.wait(&first.id().into()).or_else(|_gone| host.wait(&first.id().into()));
    assert_eq!(ended.unwrap().result(), Some(Outcome::Success));
}

#[test]
fn ten_runs_at_once_all_end_with_their_own_status() {
    let place = Place::new();
    let runs: Vec<_> = (0..10)
        .map(|number| {
            let script = format!("echo {number}; echo {number} >&2; exit {}", 100 + number);
            Running::start(place.command(["run", "--", "sh", "-c", &script]))
        })
        .collect();
    for (number, run) in runs.into_iter().enumerate() {
        let done = run.end();
        let line = format!("{number}\n");
        assert_eq!((done.out, done.err, done.status), (line.clone(), line, 100 + number as i32));
    }
    assert_eq!(place.atoms().len(), 10);
    place.ok(["verify"]);
}
