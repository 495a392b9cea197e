//! `ps`, `inspect`, `logs`, `wait`, `stop`, `rm`: and how atoms are named.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use caesium::Engine;
use caesium::driver::memory::{Act, MemoryDriver, World};
use cli_harness::{Place, Running, alive, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

const PATIENT: &str = "echo ready; exec sleep 1000";

#[test]
fn ps_shows_what_lives_and_with_a_also_what_has_stopped() {
    let place = Place::new();
    assert_eq!(place.sh(&["--name", "done"], "exit 3").status, 3);
    place.orphan("living", PATIENT);
    let living = place.ok(["ps"]);
    let lines: Vec<Vec<&str>> = living.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "NAME", "STATE", "RESULT", "AGE", "COMMAND"]);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1][1..4], ["living", "running", "-"]);
    assert!(living.ends_with("sh -c 'echo ready; exec sleep 1000'\n"), "{living}");
    let all = place.ok(["ps", "-a"]);
    assert!(all.lines().any(|line| line.contains("failure (3)")), "{all}");
    assert_eq!(all.lines().count(), 3);
    // What the table calls an id is one.
    for line in all.lines().skip(1) {
        place.inspect(line.split_whitespace().next().unwrap());
    }
    assert!(!all.contains('\x1b'), "no colours into a pipe");
}

#[test]
fn ps_as_json_has_every_field() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 0");
    let atoms = place.atoms();
    let fields = [
        "id",
        "name",
        "engine",
        "state",
        "result",
        "reason",
        "exit_code",
        "signal",
        "pid",
        "created_at",
        "started_at",
        "stopped_at",
        "labels",
    ];
    for field in fields {
        assert!(atoms[0].get(field).is_some(), "{field} in {}", atoms[0]);
    }
    for time in ["created_at", "started_at", "stopped_at"] {
        let time = text(&atoms[0], time);
        assert!(time.ends_with('Z') && time.parse::<caesium::Timestamp>().is_ok(), "{time}");
    }
    assert_eq!(text(&atoms[0], "id").parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
}

#[test]
fn ps_narrows_by_state_result_label_name_and_time_and_pages() {
    let place = Place::new();
    place.sh(&["--name", "build-1", "--label", "team=blue"], "exit 0");
    place.sh(&["--name", "build-2", "--label", "team=red"], "exit 3");
    place.sh(&["--name", "test-1", "--label", "team=blue", "--label", "slow=yes"], "exit 3");
    place.orphan("living", PATIENT);
    let names = |args: &[&str]| -> Vec<String> {
        let atoms = place.json([&["ps", "--json"], args].concat());
        atoms.iter().map(|atom| text(atom, "name")).collect()
    };
    assert_eq!(names(&[]), ["living"]);
    assert_eq!(names(&["-a"]), ["build-1", "build-2", "test-1", "living"]);
    assert_eq!(names(&["--state", "stopped"]), ["build-1", "build-2", "test-1"]);
    assert_eq!(names(&["--state", "stopped", "--state", "running"]).len(), 4);
    assert_eq!(names(&["--result", "failure"]), ["build-2", "test-1"]);
    assert_eq!(names(&["-a", "--label", "team=blue"]), ["build-1", "test-1"]);
    assert_eq!(names(&["-a", "--label", "team!=blue"]), ["build-2", "living"]);
    assert_eq!(names(&["-a", "--label", "team", "--label", "!slow"]), ["build-1", "build-2"]);
    assert_eq!(names(&["-a", "--name", "build-*"]), ["build-1", "build-2"]);
    assert_eq!(names(&["-a", "--newest", "--limit", "2"]), ["living", "test-1"]);
    assert_eq!(names(&["-a", "--since", "1h"]).len(), 4);
    assert_eq!(names(&["-a", "--before", "1h"]).len(), 0);
    let first = place.json(["ps", "-a", "--json", "--limit", "1"]);
    assert_eq!(
        names(&["-a", "--limit", "2", "--after", &text(&first[0], "id")]),
        ["build-2", "test-1"]
    );
    let table = place.ok(["ps", "--state", "created"]);
    assert_eq!(table, "ID  NAME  STATE  RESULT  AGE  COMMAND\n");
    for (args, hint) in [
        (["--state", "sleeping"], "possible values: created, running"),
        (["--result", "bad"], "possible values: success, failure"),
        (["--label", "=x"], "a label selector is"),
        (["--after", "x"], "not an atom id"),
    ] {
        let done = place.run([&["ps"], &args[..]].concat());
        assert!(done.refused(2).contains(hint), "{done:?}");
    }
}

#[test]
fn ps_pages_through_many() {
    let place = Place::new();
    let engine = caesium::EngineOptions::new()
        .open_with(place.store(), |_| Ok(MemoryDriver::new(World::new())))
        .unwrap();
    let spec = Act::Exit(0).spec();
    let created = engine.create_many(vec![spec.into(); 1201]).unwrap();
    let ids: Vec<String> = created.into_iter().map(|atom| atom.unwrap().id().to_string()).collect();
    engine.close().unwrap();
    let listed = place.atoms();
    assert!(listed.iter().map(|atom| text(atom, "id")).eq(ids.iter().cloned()));
    let table = place.ok(["ps", "-a"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 1 + ids.len());
    assert!(lines[1..].iter().zip(&ids).all(|(line, id)| {
        let shown = line.split(' ').next().unwrap();
        shown.len() >= 13 && id.starts_with(shown)
    }));
    assert_eq!(place.json(["ps", "-a", "--json", "--limit", "700"]).len(), 700);
}

#[test]
fn an_atom_is_found_by_name_by_id_and_by_the_beginning_of_its_id() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 1");
    let id = text(&place.inspect("one"), "id");
    let hex = id.replace('-', "");
    for typed in [&id, &id[..18], &id[..4], &hex, &hex[..9], &id.to_uppercase()] {
        assert_eq!(text(&place.inspect(typed), "id"), id, "{typed}");
    }
    // Now the first characters, which are the time, are those of two.
    place.sh(&[], "exit 2");
    let ambiguous = place.run(["inspect", &id[..4]]);
    let line = ambiguous.refused(1);
    assert!(line.contains(&id) && line.contains("2 ids"), "{line}");
    assert!(place.run(["inspect", &id[..3]]).refused(1).contains("no atom"));
    // A name comes before an id.
    place.sh(&["--name", &id[..4]], "exit 3");
    assert_eq!(place.inspect(&id[..4])["exit_code"], 3);
}

#[test]
fn a_name_belongs_to_one_atom_until_that_is_removed() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 1");
    let id = text(&place.inspect("one"), "id");
    let taken = place.sh(&["--name", "one"], "exit 2");
    assert!(taken.refused(125).contains(&id), "{taken:?}");
    assert_eq!(place.atoms().len(), 1);
    assert_eq!(place.ok(["rm", "one"]), format!("{id}\n"));
    assert_eq!(place.sh(&["--name", "one"], "exit 2").status, 2);
    assert_ne!(text(&place.inspect("one"), "id"), id);
}

#[test]
fn values_of_the_environment_are_hidden_and_secret_ones_are_nowhere() {
    let place = Place::new();
    let options = ["--name", "env", "--env", "OPEN=lowtide", "--secret-env", "KEY=hightide"];
    // Neither printed nor named in the command: both are kept.
    let done = place.sh(&options, "test ${#OPEN} = 7 && test ${#KEY} = 8");
    assert_eq!(done.status, 0);
    for args in [&["inspect", "env"][..], &["inspect", "env", "--json"], &["events", "--json"]] {
        let shown = place.ok(args);
        assert!(
            shown.contains("OPEN") && shown.contains("KEY") && shown.contains("***"),
            "{shown}"
        );
        assert!(!shown.contains("tide"), "{shown}");
    }
    let shown = place.json(["inspect", "env", "--json", "--show-env"]).remove(0);
    assert_eq!(shown["spec"]["env"]["OPEN"], "lowtide");
    assert_eq!(shown["spec"]["secret_env"]["KEY"], "***");
    assert!(place.ok(["inspect", "env", "--show-env"]).contains("OPEN=lowtide"));
    let grep = |word| {
        let mut grep = std::process::Command::new("grep");
        grep.args(["-rqa", word]).arg(place.store()).status().unwrap().success()
    };
    assert!(grep("lowtide"), "the test can see what is on disk");
    assert!(!grep("hightide"));
}

#[test]
fn logs_go_to_the_streams_they_came_from() {
    let place = Place::new();
    let script = "echo ready; until [ -e 1 ]; do sleep 0.02; done; echo err >&2; \
                  until [ -e 2 ]; do sleep 0.02; done; printf end";
    // One after the other, so that the order is known.
    let mut run = place.begin(&["--name", "one"], script);
    place.touch("1");
    assert_eq!(run.err_line(), "err\n");
    place.touch("2");
    assert_eq!((run.end().out.as_str(), place.atoms().len()), ("end", 1));
    let both = place.run(["logs", "one"]);
    assert_eq!((both.out.as_str(), both.err.as_str(), both.status), ("ready\nend", "err\n", 0));
    assert_eq!(place.ok(["logs", "one", "--stream", "stdout"]), "ready\nend");
    let err = place.run(["logs", "one", "--stream", "stderr"]);
    assert_eq!((err.out.as_str(), err.err.as_str()), ("", "err\n"));
    let tail = place.run(["logs", "one", "--tail", "2"]);
    assert_eq!((tail.out.as_str(), tail.err.as_str()), ("end", "err\n"));
    assert_eq!(place.ok(["logs", "-f", "one", "--stream", "stdout", "--tail", "1"]), "end");
    assert_eq!(place.ok(["logs", "one", "--tail", "0"]), "");
    let stamped = place.ok(["logs", "one", "--stream", "stdout", "--timestamps"]);
    for (line, text) in stamped.lines().zip(["ready", "end"]) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<caesium::Timestamp>().is_ok() && rest == text, "{stamped}");
    }
    let end = stamped.lines().last().unwrap().split_once(' ').unwrap().0;
    assert_eq!(place.ok(["logs", "one", "--since", end]), "end");
    assert_eq!(place.ok(["logs", "one", "--stream", "stdout", "--since", "1h"]), "ready\nend");
    assert_eq!(place.ok(["logs", "one", "--since", "2999-01-01T00:00:00Z"]), "");
}

#[test]
fn logs_follow_until_it_has_stopped() {
    let place = Place::new();
    let script = "echo ready; echo two; until [ -e go ]; do sleep 0.02; done; echo three";
    place.orphan("one", script);
    let mut logs = Running::start(place.command(["logs", "-f", "one", "--tail", "1"]));
    assert_eq!(logs.line(), "two\n");
    place.touch("go");
    let done = logs.end();
    assert_eq!((done.out.as_str(), done.err.as_str(), done.status), ("three\n", "", 0));
}

#[test]
fn wait_ends_with_the_status_of_the_last() {
    let place = Place::new();
    for (name, code) in [("one", 1), ("two", 2), ("five", 5)] {
        assert_eq!(place.sh(&["--name", name], &format!("exit {code}")).status, code);
    }
    let done = place.run(["wait", "five", "one", "two"]);
    assert_eq!((done.status, done.err.as_str()), (2, ""));
    let endings: Vec<&str> = done.out.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(endings, ["failure (5)", "failure (1)", "failure (2)"]);
    place.run(["run", "--name", "none", "/nonexistent"]);
    assert_eq!(place.run(["wait", "none"]).status, 127);
    place.run(["wait", "one", "nobody"]).refused(125);
}

#[test]
fn wait_waits_for_an_atom_that_outlived_its_run() {
    let place = Place::new();
    place.orphan("one", "echo ready; until [ -e go ]; do sleep 0.02; done; exit 5");
    let wait = Running::start(place.command(["wait", "one"]));
    place.touch("go");
    let done = wait.end();
    if done.status == 125 {
        println!(
            "SKIP: this kernel does not tell the exit status of an adopted process (Linux 6.15)"
        );
        assert_eq!(place.inspect("one")["result"], "unknown");
    } else {
        assert_eq!(done.status, 5);
        assert_eq!(place.inspect("one")["result"], "failure");
    }
}

#[test]
fn looking_does_not_end_what_lives_and_stop_does() {
    let place = Place::new();
    place.orphan("one", PATIENT);
    place.orphan("two", PATIENT);
    let pids: Vec<u64> =
        ["one", "two"].map(|name| place.inspect(name)["pid"].as_u64().unwrap()).into();
    for args in [&["ps"][..], &["logs", "one"], &["events"], &["verify"], &["inspect", "one"]] {
        place.ok(args);
        assert!(pids.iter().all(|pid| alive(*pid)), "{args:?}");
    }
    assert_eq!(place.sh(&[], "exit 4").status, 4);
    assert!(pids.iter().all(|pid| alive(*pid)), "another atom's run");
    let stopped = place.ok(["stop", "one", "two"]);
    assert_eq!(stopped.lines().count(), 2);
    assert!(!pids.iter().any(|pid| alive(*pid)));
    for name in ["one", "two"] {
        assert_eq!(place.inspect(name)["state"], "stopped");
    }
}

#[test]
fn to_stop_what_has_stopped_succeeds_and_writes_nothing() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 3");
    let before = place.events();
    place.ok(["stop", "one"]);
    place.ok(["stop", "one", "--force"]);
    assert_eq!(place.events(), before);
}

#[test]
fn the_grace_of_a_stop_can_be_shorter_or_none() {
    let place = Place::new();
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    for option in [&["--grace", "50ms"][..], &["--force"]] {
        place.orphan("one", stubborn);
        let pid = place.inspect("one")["pid"].as_u64().unwrap();
        place.ok([&["stop", "one"], option].concat());
        assert!(!alive(pid));
        let atom = place.inspect("one");
        if atom["result"] != "unknown" {
            assert_eq!(
                (&atom["result"], &atom["reason"]),
                (&json!("killed"), &json!("stop_forced"))
            );
        }
        place.ok(["rm", "one"]);
    }
}

#[test]
fn rm_takes_a_living_atom_only_by_force() {
    let place = Place::new();
    place.sh(&["--name", "done"], "exit 0");
    place.orphan("living", PATIENT);
    let pid = place.inspect("living")["pid"].as_u64().unwrap();
    let before = place.events();
    let refused = place.run(["rm", "done", "living"]);
    assert!(refused.refused(1).contains("rm --force"), "{refused:?}");
    assert_eq!(place.events(), before, "nothing was deleted");
    place.ok(["rm", "--force", "done", "living"]);
    assert!(!alive(pid));
    assert_eq!(place.atoms().len(), 0);
    assert_eq!(place.events().last().unwrap()["state"], "deleted");
    assert_eq!(std::fs::read_dir(place.store().join("atoms")).unwrap().count(), 0);
}

#[test]
fn many_are_deleted_together_and_named_in_the_order_that_was_asked_for() {
    let place = Place::new();
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let start = |name: &String| {
        let program: &[&str] = if name.ends_with('1') { &["sleep", "1000"] } else { &["true"] };
        let id = place.ok([&["run", "--detach", "--name", name, "--"], program].concat());
        id.trim().to_owned()
    };
    let mut ids: Vec<String> = names.iter().map(start).collect();
    for name in names.iter().filter(|name| !name.ends_with('1')) {
        place.ok(["wait", name]);
    }
    assert_eq!(place.ok(["ps", "-aq"]).lines().collect::<Vec<_>>(), ids);
    assert_eq!(place.ok(["ps", "--quiet"]).lines().count(), 2, "those that live");
    ids.reverse();
    let asked = [&["rm", "--force"], &ids.iter().map(String::as_str).collect::<Vec<_>>()[..]];
    let told = place.ok(asked.concat());
    assert_eq!(told.lines().collect::<Vec<_>>(), ids);
    assert_eq!(place.atoms().len(), 0);
    assert_eq!(place.ok(["ps", "-aq"]), "", "no header");
    assert_eq!(std::fs::read_dir(place.store().join("atoms")).unwrap().count(), 0);
}

#[test]
fn what_a_terminal_would_obey_is_escaped() {
    let place = Place::new();
    place.ok(["run", "true", "a\x1b[2Jb\nc"]);
    for args in [&["ps", "-a"][..], &["events"]] {
        let shown = place.ok(args);
        assert!(!shown.contains('\x1b') && shown.contains("\\u{1b}"), "{shown}");
    }
    let human = place.ok(["inspect", &text(&place.newest(), "id")]);
    assert!(!human.contains('\x1b'), "{human}");
}

#[test]
fn an_atom_that_is_killed_from_outside_is_seen_to_end() {
    let place = Place::new();
    let mut run = place.begin(&["--name", "one"], "echo ready; echo $$; exec sleep 1000");
    let pid = run.line().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let done = run.end();
    assert_eq!(done.refused(137), "sh was killed by SIGKILL, which caesium did not send");
    assert_eq!(place.inspect("one")["reason"], "signal");
}

#[test]
fn a_closed_pipe_changes_neither_what_is_done_nor_the_status() {
    let place = Place::new();
    for name in ["one", "two", "three"] {
        place.run(["run", "--name", name, "--", "sh", "-c", "exit 3"]);
    }
    // A pipe that nobody reads any more.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let deaf = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_caesium"));
        command.env("CAESIUM_STORE", place.store()).args(args);
        command.stdout(writer.try_clone().unwrap()).status().unwrap().code()
    };
    assert_eq!(deaf(&["wait", "one"]), Some(3));
    assert_eq!(deaf(&["stop", "one", "two"]), Some(0));
    assert_eq!(deaf(&["rm", "one", "two", "three"]), Some(0));
    assert_eq!(place.atoms().len(), 0);
}
