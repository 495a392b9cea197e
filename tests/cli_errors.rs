//! What cannot be done is said in one line, with what to do instead; and nothing is changed.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod cli_harness;

use cli_harness::Place;

#[test]
fn what_cannot_be_understood_is_said_in_one_line() {
    let place = Place::new();
    let cases: [(&[&str], i32, &str); 25] = [
        (&["nope"], 2, "'nope'"),
        (&["--nope"], 2, "--nope"),
        (&["ps", "--nope"], 2, "see `caesium ps --help`"),
        (&["inspect"], 2, "<ID>"),
        (&["logs", "x123", "--tail", "-1"], 2, "-1"),
        (&["logs", "x123", "--since", "yesterday"], 2, "10m for ten minutes ago"),
        (&["logs", "x123", "--stream", "stdin"], 2, "stdout, stderr"),
        (&["stop", "x123", "--grace", "soon"], 2, "300ms"),
        (&["events", "--since", "first"], 2, "'first'"),
        (&["lifecycle", "--format", "png"], 2, "table, mermaid, dot"),
        (&["rm"], 2, "<ID>"),
        (&["wait"], 125, "<ID>"),
        (&["run"], 125, "<PROGRAM>"),
        (&["run", "--nope", "true"], 125, "see `caesium run --help`"),
        (&["--store", "x", "run", "--nope", "true"], 125, "--nope"),
        (&["run", "--env", "novalue", "true"], 125, "K=V"),
        (&["run", "--env", "=x", "true"], 125, "K=V"),
        (&["run", "--memory", "1T", "true"], 125, "K, M or G"),
        (&["run", "--pids", "many", "true"], 125, "'many'"),
        (&["run", "--cpus", "half", "true"], 125, "'half'"),
        (&["run", "--rlimit", "files=1", "true"], 125, "nofile"),
        (&["run", "--umask", "u=rwx", "true"], 125, "022"),
        (&["run", "--leftovers", "eat", "true"], 125, "kill, keep"),
        (&["run", "--nice", "very", "true"], 125, "'very'"),
        (&["run", "--timeout", "10", "true"], 125, "300ms"),
    ];
    for (args, status, said) in cases {
        let done = place.run(args);
        assert!(done.refused(status).contains(said), "{args:?}: {done:?}");
    }
    assert!(!place.store().exists());
}

#[test]
fn a_spec_that_cannot_be_run_is_refused_before_anything_is_made() {
    let place = Place::new();
    for (options, said) in [
        (&["--name", " x"][..], "name"),
        (&["--label", "cloud.caesium=x"], "label"),
        (&["--log-max", "1K"], "log_max"),
        (&["--timeout", "0s"], "timeout"),
        (&["--cpus", "0"], "cpus"),
        (&["--memory", "0"], "memory"),
        (&["--nice", "-21"], "nice"),
        (&["--oom-score-adj", "1001"], "oom_score_adj"),
        (&["--umask", "1000"], "umask"),
        (&["--group", ""], "group"),
        (&["--env", "A=1", "--secret-env", "A=2"], "both"),
    ] {
        let done = place.sh(options, "exit 0");
        assert!(done.refused(125).contains(said), "{options:?}: {done:?}");
    }
    assert!(!place.store().exists());
}

#[test]
fn an_atom_that_is_not_there_changes_nothing() {
    let place = Place::new();
    place.sh(&["--name", "one"], "exit 0");
    let before = place.events();
    for args in [
        &["inspect", "nobody"][..],
        &["logs", "nobody"],
        &["stop", "one", "nobody"],
        &["rm", "one", "nobody"],
    ] {
        let done = place.run(args);
        assert_eq!(done.refused(1), "no atom \"nobody\": `caesium ps -a` lists what there is");
    }
    place.run(["wait", "nobody"]).refused(125);
    assert_eq!(place.events(), before);
}

#[test]
fn without_a_command_the_help_is_shown() {
    let place = Place::new();
    let done = place.run([""; 0]);
    assert_eq!((done.status, done.out.as_str()), (2, ""));
    assert!(done.err.contains("Usage: caesium"), "{done:?}");
    let help = place.ok(["--help"]);
    assert!(help.contains("Usage: caesium"), "{help}");
    assert!(place.ok(["--version"]).starts_with("caesium 0.1.0"));
}
