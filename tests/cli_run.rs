//! `caesium run`: streams, exit statuses, options, signals.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;
mod signals;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use cli_harness::{Done, Place, Running, alive, text};
use rustix::process::Signal;
use serde_json::json;
use signals::is_ignored;

/// The fields that scripts may rely on.
const FIELDS: [&str; 14] = [
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
    "spec",
];

#[test]
fn both_streams_arrive_and_the_status_is_the_atoms_own() {
    let place = Place::new();
    let done = place.sh(&[], "echo out; echo err >&2; exit 3");
    assert_eq!((done.out.as_str(), done.err.as_str(), done.status), ("out\n", "err\n", 3));
}

#[test]
fn every_kind_of_ending_has_its_status_outcome_and_reason() {
    let place = Place::new();
    let cases = [
        ("exit 0", 0, "success", "exited", json!(0), json!(null)),
        ("exit 3", 3, "failure", "exited", json!(3), json!(null)),
        ("exit 126", 126, "failure", "exited", json!(126), json!(null)),
        ("exit 127", 127, "failure", "exited", json!(127), json!(null)),
        ("exit 137", 137, "failure", "exited", json!(137), json!(null)),
        ("exit 255", 255, "failure", "exited", json!(255), json!(null)),
        ("kill -KILL $$", 137, "killed", "signal", json!(null), json!(9)),
        ("kill -TERM $$", 143, "terminated", "signal", json!(null), json!(15)),
        ("ulimit -c 0; kill -SEGV $$", 139, "failure", "crashed", json!(null), json!(11)),
        ("kill -HUP $$", 129, "unknown", "signal", json!(null), json!(1)),
        (
            "ulimit -c 0; kill -XCPU $$",
            152,
            "resource_failure",
            "cpu_limit",
            json!(null),
            json!(24),
        ),
    ];
    for (script, status, result, reason, code, signal) in &cases {
        let done = place.sh(&[], script);
        assert_eq!((done.status, done.out.as_str()), (*status, ""), "{script}: {done:?}");
        let atom = place.newest();
        for field in FIELDS {
            assert!(atom.get(field).is_some(), "{script}: no {field} in {atom}");
        }
        assert_eq!(atom["state"], "stopped");
        assert_eq!(
            (&atom["result"], &atom["reason"]),
            (&json!(result), &json!(reason)),
            "{script}"
        );
        assert_eq!((&atom["exit_code"], &atom["signal"]), (code, signal), "{script}");
        assert_eq!(atom["labels"]["cloud.caesium"], "process");
        assert!(atom["pid"].as_u64().is_some());
        assert!(text(&atom, "stopped_at") >= text(&atom, "started_at"));
    }
    let seqs: Vec<u64> = place.events().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=3 * cases.len() as u64).collect::<Vec<_>>());
    let verified = place.ok(["verify"]);
    assert!(verified.starts_with(&format!("{} events", seqs.len())), "{verified}");
}

#[test]
fn what_cannot_be_started_says_why_in_one_line() {
    let place = Place::new();
    let garbage = place.dir.path().join("garbage");
    std::fs::write(&garbage, b"\0neither a script nor a binary").unwrap();
    std::fs::set_permissions(&garbage, PermissionsExt::from_mode(0o755)).unwrap();
    let garbage = garbage.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["/nonexistent"], 127, "exec_not_found"),
        (&["no-such-program-anywhere"], 127, "exec_not_found"),
        (&["/etc/passwd"], 126, "exec_permission"),
        (&["/etc"], 126, "exec_permission"),
        (&[garbage], 126, "exec_failed"),
        (&["--workdir", "/nonexistent", "true"], 125, "bad_workdir"),
        (&["--stdin", "/nonexistent", "true"], 125, "bad_stdin"),
        (&["--user", "no-such-user-here", "true"], 125, "bad_user"),
    ];
    for (args, status, reason) in cases {
        let done = place.run([&["run"], args].concat());
        let line = done.refused(status);
        assert!(line.contains("was not started") && line.contains(reason), "{line}");
        let atom = place.newest();
        assert_eq!(atom["result"], "startup_failure");
        assert_eq!(atom["reason"], reason);
        assert_eq!((&atom["pid"], &atom["started_at"]), (&json!(null), &json!(null)));
    }
}

#[test]
fn what_was_asked_for_is_shown_whether_it_could_be_had_or_not() {
    let place = Place::new();
    let options = ["--nice", "-5", "--oom-score-adj", "-10", "--umask", "27", "--group", "0"];
    let args =
        [&["run", "--no-new-privs", "--leftovers", "keep"], &options[..], &["true"]].concat();
    place.run(args);
    let spec = place.newest()["spec"].clone();
    assert_eq!((&spec["nice"], &spec["oom_score_adj"]), (&json!(-5), &json!(-10)));
    assert_eq!((&spec["umask"], &spec["group"]), (&json!("0027"), &json!("0")));
    assert_eq!((&spec["no_new_privs"], &spec["leftovers"]), (&json!(true), &json!("keep")));
}

#[test]
fn bytes_pass_through_as_they_are() {
    let place = Place::new();
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.extend(b"\r\n\0 no end of line");
    let bytes = bytes.repeat(1000);
    std::fs::write(place.dir.path().join("bytes"), &bytes).unwrap();
    let output = place.command(["run", "sh", "-c", "cat bytes; cat bytes >&2"]).output().unwrap();
    assert!(output.stdout == bytes, "stdout differs");
    assert!(output.stderr == bytes, "stderr differs");
}

#[test]
fn arguments_and_values_that_are_not_utf_8_survive() {
    let place = Place::new();
    let odd = OsStr::from_bytes(b"a\xff\xfe z");
    let mut env = b"ODD=".to_vec();
    env.extend(odd.as_bytes());
    let output = place
        .command(["run", "--env"])
        .arg(OsStr::from_bytes(&env))
        .args(["--", "sh", "-c", "printf '%s|%s' \"$1\" \"$ODD\"", "sh"])
        .arg(odd)
        .output()
        .unwrap();
    assert_eq!(output.stdout, [odd.as_bytes(), b"|", odd.as_bytes()].concat());
}

#[test]
fn output_is_shown_while_it_runs_and_before_the_line_ends() {
    let place = Place::new();
    let script = "echo ready; printf partial; exec sleep 1000";
    let mut run = place.begin(&[], script);
    assert_eq!(run.bytes(7), b"partial");
    run.signal(Signal::TERM);
    assert_eq!(run.end().status, 143);
}

#[test]
fn output_larger_than_its_log_is_shown_complete_and_the_log_keeps_the_newest() {
    let place = Place::new();
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    let script = "echo ready; until [ -e go ]; do sleep 0.02; done; seq 1 200000";
    let run = place.begin(&["--log-max", "64K", "--name", "big"], script);
    // It is shown: from here on nothing is dropped before it was.
    place.touch("go");
    let done = run.end();
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    assert!(done.out == all, "{} of {} bytes", done.out.len(), all.len());
    let kept = place.run(["logs", "big"]);
    assert!(!kept.out.is_empty() && all.ends_with(&kept.out));
    let missing = "ready\n".len() + all.len() - kept.out.len();
    assert_eq!(
        kept.err,
        format!(
            "caesium: {missing} bytes of output are missing: the log did not keep them (--log-max sets its size)\n"
        )
    );
}

#[test]
fn the_options_reach_the_program() {
    let place = Place::new();
    std::fs::create_dir(place.dir.path().join("work")).unwrap();
    std::fs::write(place.dir.path().join("input"), "from a file").unwrap();
    let script = "pwd; echo $ONE-$TWO-${HOME-none}; cat";
    let options = [
        "--workdir",
        "work",
        "--stdin",
        "input",
        "--env",
        "ONE=1",
        "--env",
        "TWO=2=2",
        "--env-clear",
        "--name",
        "odd job",
        "--label",
        "team=blue",
        "--grace",
        "3s",
        "--timeout",
        "1h 30m",
        "--log-max",
        "1M",
    ];
    let done = place.sh(&options, script);
    let work = place.dir.path().canonicalize().unwrap().join("work");
    assert_eq!(done.out, format!("{}\n1-2=2-none\nfrom a file", work.display()));
    let atom = place.inspect("odd job");
    assert_eq!(atom["labels"], json!({ "team": "blue", "cloud.caesium": "process" }));
    assert_eq!(atom["spec"]["grace"], "3s");
    assert_eq!(atom["spec"]["timeout"], "1h 30m");
    assert_eq!(atom["spec"]["log_max"], 1 << 20);
}

#[test]
fn stdin_is_null_unless_a_file_is_named() {
    let place = Place::new();
    let mut command = place.command(["run", "cat"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The command may be gone before this is written.
    let _ = child.stdin.take().unwrap().write_all(b"not for the atom");
    assert_eq!(Done::of(child.wait_with_output().unwrap()).out, "");
}

#[test]
fn a_request_with_a_key_runs_once_and_is_shown_every_time() {
    let place = Place::new();
    let first = place.sh(&["--key", "once"], "echo $CAESIUM_ATOM; exit 3");
    assert_eq!(first.status, 3);
    let again = place.sh(&["--key", "once"], "echo $CAESIUM_ATOM; exit 3");
    assert_eq!((again.out, again.status), (first.out.clone(), 3));
    let other = place.sh(&["--key", "once"], "exit 4");
    let line = other.refused(125);
    assert!(line.contains("\"once\"") && line.contains(first.out.trim()), "{line}");
    assert_eq!(place.atoms().len(), 1);
}

#[test]
fn options_after_the_program_are_the_programs() {
    let place = Place::new();
    assert_eq!(place.ok(["run", "echo", "-n", "--name", "x", "--", "-d"]), "--name x -- -d");
    assert_eq!(place.newest()["name"], json!(null));
}

#[test]
fn the_timeout_ends_it() {
    let place = Place::new();
    let done = place.sh(&["--timeout", "100ms"], "exec sleep 1000");
    assert_eq!(done.refused(143), "sh was terminated: its timeout of 100ms was over");
    let atom = place.newest();
    assert_eq!((&atom["result"], &atom["reason"]), (&json!("terminated"), &json!("deadline")));
}

#[test]
fn a_signal_to_us_stops_the_atom() {
    let place = Place::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if is_ignored(signal) {
            // As under nohup: what is started with it ignored leaves it so.
            eprintln!("SKIP: {signal:?} is ignored here");
            continue;
        }
        let mut run = place.begin(&[], "echo ready; exec sleep 1000");
        run.signal(signal);
        assert_eq!(run.line(), "");
        let done = run.end();
        assert_eq!((done.status, done.err.as_str()), (143, ""), "{signal:?}");
        let atom = place.newest();
        assert_eq!((&atom["result"], &atom["reason"]), (&json!("terminated"), &json!("stopped")));
        assert!(!alive(atom["pid"].as_u64().unwrap()));
    }
}

#[test]
fn what_it_prints_while_it_is_stopped_is_shown() {
    let place = Place::new();
    let script = "trap 'echo bye; exit 7' TERM; echo ready; sleep 1000 & wait";
    let run = place.begin(&[], script);
    run.signal(Signal::TERM);
    let done = run.end();
    assert_eq!((done.out.as_str(), done.status), ("bye\n", 7));
    assert_eq!(place.newest()["result"], "terminated");
}

#[test]
fn a_second_signal_forces() {
    let place = Place::new();
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.02; done";
    let mut run = place.begin(&["--grace", "1h"], script);
    run.signal(Signal::TERM);
    assert_eq!(run.line(), "asked\n");
    run.signal(Signal::INT);
    let done = run.end();
    // The shell may tell of its child's end; we have nothing to say of what was asked for.
    assert!(done.status == 137 && !done.err.contains("caesium"), "{done:?}");
    let atom = place.newest();
    assert_eq!((&atom["result"], &atom["reason"]), (&json!("killed"), &json!("stop_forced")));
}

#[test]
fn a_hangup_that_was_ignored_stays_ignored() {
    let place = Place::new();
    let binary = env!("CARGO_BIN_EXE_caesium");
    let script = "trap 'echo asked; exit 7' TERM; echo ready; sleep 1000 & wait";
    let mut command = place.command([""; 0]);
    let mut wrapped = std::process::Command::new("sh");
    wrapped
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh", binary, "run", "--grace", "1h"])
        .args(["--", "sh", "-c", script])
        .env("CAESIUM_STORE", place.store());
    std::mem::swap(&mut command, &mut wrapped);
    let mut run = Running::start(command);
    assert_eq!(run.line(), "ready\n");
    run.signal(Signal::HUP);
    run.signal(Signal::TERM);
    let done = run.end();
    // As a first signal: a second one would have forced.
    assert_eq!((done.out.as_str(), done.status), ("asked\n", 7));
}

#[test]
fn when_nobody_reads_our_output_the_atom_is_stopped() {
    let place = Place::new();
    let run = place.begin(&[], "echo ready; exec yes");
    let done = run.end_unread();
    assert_eq!((done.status, done.err.as_str()), (143, ""));
    assert_eq!(place.newest()["reason"], "stopped");
}

#[test]
fn output_that_cannot_be_written_is_our_own_failure() {
    let place = Place::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = place.command(["run", "yes"]).stdout(full).output().unwrap();
    let line = Done::of(output);
    assert!(line.refused(125).starts_with("cannot write to stdout"), "{line:?}");
    assert_eq!(place.newest()["state"], "stopped");
}

#[test]
fn what_was_detached_lives_on_and_its_true_end_is_known() {
    let place = Place::new();
    let gate = place.dir.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let script = format!("read x < {}; echo late; exit 9", gate.display());
    let id = place.ok(["run", "-d", "--", "sh", "-c", &script]);
    let id = id.trim();
    assert_eq!(place.inspect(id)["state"], "running");
    std::fs::write(&gate, "\n").unwrap();
    assert_eq!(place.run(["wait", id]).status, 9);
    let atom = place.inspect(id);
    assert_eq!((&atom["result"], &atom["exit_code"]), (&json!("failure"), &json!(9)));
    assert_eq!(place.ok(["logs", id]), "late\n");
    let failed = place.run(["run", "--detach", "/nonexistent"]);
    assert_eq!(failed.status, 127, "{failed:?}");
    assert!(failed.err.contains("exec_not_found"), "{failed:?}");
}

#[test]
fn what_ended_while_no_host_was_there_was_witnessed() {
    let place = Place::new();
    let gate = place.dir.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let done = place.dir.path().join("done");
    rustix::fs::mkfifoat(rustix::fs::CWD, &done, rustix::fs::Mode::RWXU).unwrap();
    let script =
        format!("read x < {}; exec 3>{}; echo last; exit 6", gate.display(), done.display());
    let id = place.ok(["run", "-d", "--", "sh", "-c", &script]);
    std::fs::write(&gate, "\n").unwrap();
    // Its end of this pipe goes when it ends: nobody has the store open then.
    std::io::Read::read_to_end(&mut std::fs::File::open(&done).unwrap(), &mut Vec::new()).unwrap();
    let id = id.trim();
    assert_eq!(place.run(["wait", id]).status, 6);
    assert_eq!(place.inspect(id)["reason"], "exited");
    assert_eq!(place.ok(["logs", id]), "last\n");
}

#[test]
fn a_descendant_that_left_the_session_ends_with_its_atom() {
    let place = Place::new();
    let gate = place.dir.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
    let script = format!(
        "setsid sh -c 'echo $$; echo > {0}; exec sleep 1000' & read x < {0}; exit 4",
        gate.display()
    );
    let done = place.run(["run", "--", "sh", "-c", &script]);
    assert_eq!(done.status, 4);
    assert!(!cli_harness::alive(done.out.trim().parse().unwrap()), "it lives");
    assert_eq!(place.newest()["left_behind"]["count"], 1);
}

#[test]
fn limits_and_users_are_set_by_the_keeper() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: only root may become another user");
        return;
    }
    let place = Place::new();
    let args = ["--user", "65534", "--rlimit", "nofile=50", "--umask", "077", "--nice", "5"];
    let script = ["--", "sh", "-c", "id -u; ulimit -n; umask; nice"];
    let shown = place.ok([&["run"], &args[..], &script[..]].concat());
    assert_eq!(shown, "65534\n50\n0077\n5\n");
}

#[test]
fn running_out_of_memory_is_proven_by_the_atoms_own_counter() {
    let place = Place::new();
    let hog = ["run", "--memory", "16M", "--", "sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"];
    let done = place.run(hog);
    let atom = place.newest();
    if atom["reason"] == "limit_unsupported" {
        eprintln!("SKIP: no cgroup with a memory controller can be made here");
        return;
    }
    assert_eq!(done.status, 137, "{done:?}");
    assert_eq!(
        (&atom["result"], &atom["reason"]),
        (&json!("resource_failure"), &json!("oom_killed"))
    );
    assert_eq!(atom["oom_kills"], 1);
}

#[test]
fn a_keeper_that_is_killed_takes_neither_output_nor_ending_with_it() {
    let place = Place::new();
    let gates = ["one", "two"].map(|name| place.dir.path().join(name));
    for gate in &gates {
        rustix::fs::mkfifoat(rustix::fs::CWD, gate, rustix::fs::Mode::RWXU).unwrap();
    }
    let [one, two] = gates;
    let script = format!(
        "echo ready; cut -d' ' -f4 /proc/$$/stat; read x < {}; echo again; read x < {}; seq 1000; exit 5",
        one.display(),
        two.display()
    );
    let mut run = place.begin(&[], &script);
    let keeper = rustix::process::Pid::from_raw(run.line().trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    std::fs::write(&one, "\n").unwrap();
    // It waits in the pipe until the next keeper reads it.
    assert_eq!(run.line(), "again\n");
    std::fs::write(&two, "\n").unwrap();
    let done = run.end();
    let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    assert!(done.out == numbers, "{done:?}");
    // The next keeper is not its parent: this kernel tells it all the same, or it is unknown.
    let atom = place.newest();
    match atom["result"].as_str().unwrap() {
        "failure" => assert_eq!((done.status, &atom["exit_code"]), (5, &json!(5))),
        other => {
            assert_eq!((other, &atom["reason"]), ("unknown", &json!("exit_unobserved")));
            eprintln!("SKIP: this kernel does not tell how an adopted process ended");
        }
    }
}
