//! `events`, `verify`, `lifecycle`, `completions`, `man`.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use caesium::lifecycle::Drawing;
use cli_harness::{Done, Place, Running, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[test]
fn events_tell_the_whole_life_in_order() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 3");
    let id = text(&place.inspect("one"), "id");
    place.ok(["rm", "one"]);
    let events = place.events();
    let told: Vec<(u64, String, String)> = events
        .iter()
        .map(|e| (e["seq"].as_u64().unwrap(), text(e, "event"), text(e, "state")))
        .collect();
    let expected = [
        (1, "created", "created"),
        (2, "started", "running"),
        (3, "exited", "stopped"),
        (4, "delete_asked", "deleting"),
        (5, "removed", "deleted"),
    ];
    assert_eq!(told, expected.map(|(seq, event, state)| (seq, event.into(), state.into())));
    assert!(events.iter().all(|event| text(event, "atom") == id));
    assert!(events.windows(2).all(|pair| text(&pair[0], "at") <= text(&pair[1], "at")));
    assert_eq!(events[0]["spec"]["program"], "sh");
    assert_eq!((&events[2]["exit_code"], &events[2]["result"]), (&json!(3), &json!("failure")));

    let from_3 = place.json(["events", "--json", "--since", "3"]);
    assert_eq!(from_3, events[2..]);
    assert_eq!(place.ok(["events", "--since", "99"]), "");
    let human = place.ok(["events"]);
    assert_eq!(human.lines().count(), 5);
    assert!(human.lines().nth(2).unwrap().contains("exited"), "{human}");
}

#[test]
fn events_can_be_followed() {
    let place = Place::new();
    place.orphan("one", "echo ready; exec sleep 1000");
    let pid = place.inspect("one")["pid"].as_i64().unwrap();
    let mut events = Running::start(place.command(["events", "-f", "--json"]));
    let mut next = || serde_json::from_str::<Value>(&events.line()).unwrap();
    assert_eq!(next()["event"], "created");
    assert_eq!(next()["event"], "started");
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    let ended = next();
    assert_eq!((&ended["seq"], &ended["state"]), (&json!(3), &json!("stopped")));
    events.signal(Signal::TERM);
    assert_eq!(events.end().status, 143);
    place.ok(["verify"]);
}

#[test]
fn verify_counts_what_it_has_read() {
    let place = Place::new();
    for code in [0, 1, 2] {
        place.sh(&[], &format!("exit {code}"));
    }
    let verified = place.ok(["verify"]);
    assert!(verified.starts_with("9 events (1 to 9), 3 atoms: "), "{verified}");
}

#[test]
fn the_state_machine_is_the_librarys_own() {
    let place = Place::new();
    assert_eq!(place.ok(["lifecycle"]), Drawing::Table.draw().to_string());
    for drawing in Drawing::ALL {
        let drawn = place.ok(["lifecycle", "--format", drawing.as_str()]);
        assert_eq!(drawn, drawing.draw().to_string());
    }
    assert!(!place.store().exists());
}

#[test]
fn shells_and_man_know_every_command() {
    let place = Place::new();
    let help = place.ok(["--help"]);
    let commands = [
        "run",
        "ps",
        "inspect",
        "logs",
        "wait",
        "stop",
        "rm",
        "events",
        "verify",
        "lifecycle",
        "completions",
        "man",
    ];
    let man = place.ok(["man"]);
    assert!(man.starts_with(".ie"), "{}", &man[..80]);
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
        assert!(man.contains(&format!(".SH \"{}\"", command.to_uppercase())), "{command}");
        for shell in ["bash", "zsh", "fish"] {
            assert!(place.ok(["completions", shell]).contains(command), "{shell} {command}");
        }
    }
    assert!(man.contains("secret\\-env"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    place.sh(&[], "seq 1 100000");
    let id = text(&place.newest(), "id");
    for args in [&["lifecycle"][..], &["ps", "-a"], &["events"], &["logs", &id], &["man"]] {
        let mut command = place.command(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = Done::of(command.stdout(writer).output().unwrap());
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{args:?}");
    }
}
