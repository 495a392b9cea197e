//! What an atom can be asked to be: ranges, and how a spec is written.

use caesium::AtomSpec;
use caesium::atom::Leftovers;

fn spec() -> AtomSpec {
    AtomSpec::command("true")
}

#[test]
fn what_is_asked_for_can_be_read_back() {
    let asked = spec()
        .nice(-3)
        .oom_score_adj(-7)
        .umask(0o27)
        .no_new_privs(true)
        .group("staff")
        .leftovers(Leftovers::Keep)
        .key("request 7");
    assert_eq!(asked.validate(), Ok(()));
    assert_eq!((asked.get_nice(), asked.get_oom_score_adj()), (Some(-3), Some(-7)));
    assert_eq!((asked.get_umask(), asked.get_no_new_privs()), (Some(0o27), true));
    assert_eq!((asked.get_group(), asked.get_key()), (Some("staff"), Some("request 7")));
    assert_eq!(asked.get_leftovers(), Leftovers::Keep);
    let default = spec();
    assert_eq!((default.get_nice(), default.get_oom_score_adj()), (None, None));
    assert_eq!((default.get_umask(), default.get_no_new_privs()), (None, false));
    assert_eq!((default.get_group(), default.get_key()), (None, None));
    assert_eq!(default.get_leftovers(), Leftovers::Kill);
}

#[test]
fn values_at_the_ends_of_their_ranges_are_taken_and_those_beyond_refused() {
    for taken in [
        spec().nice(-20),
        spec().nice(19),
        spec().oom_score_adj(-1000),
        spec().oom_score_adj(1000),
        spec().umask(0),
        spec().umask(0o777),
        spec().key("k".repeat(255)),
    ] {
        assert_eq!(taken.validate(), Ok(()), "{taken:?}");
    }
    for (refused, field) in [
        (spec().nice(-21), "nice"),
        (spec().nice(20), "nice"),
        (spec().oom_score_adj(-1001), "oom_score_adj"),
        (spec().oom_score_adj(1001), "oom_score_adj"),
        (spec().umask(0o1000), "umask"),
        (spec().user(""), "user"),
        (spec().user("a\0b"), "user"),
        (spec().group(""), "group"),
        (spec().group("a\0b"), "group"),
        (spec().key(""), "key"),
        (spec().key("k".repeat(256)), "key"),
        (spec().key(" k"), "key"),
        (spec().key("k\n"), "key"),
        (spec().stdin_file(""), "stdin"),
    ] {
        assert_eq!(refused.validate().unwrap_err().field(), field, "{refused:?}");
    }
}

#[test]
fn json_shows_the_names_and_an_octal_umask() {
    let asked = spec().umask(0o27).leftovers(Leftovers::Keep).nice(-3).stdin_file("/in");
    let json = serde_json::to_value(&asked).unwrap();
    assert_eq!(json["umask"], "0027");
    assert_eq!(json["leftovers"], "keep");
    assert_eq!(json["nice"], -3);
    assert_eq!(json["stdin"]["file"], "/in");
    assert_eq!(serde_json::from_value::<AtomSpec>(json).unwrap(), asked);
    let json = serde_json::to_value(spec()).unwrap();
    assert_eq!(
        (&json["umask"], &json["key"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert_eq!((json["leftovers"].as_str(), json["stdin"].as_str()), (Some("kill"), Some("null")));
}

#[test]
fn the_last_word_about_standard_input_counts() {
    let asked = spec().stdin_file("/in").stdin_pipe();
    assert!(asked.get_stdin_pipe() && asked.get_stdin_file().is_none());
    assert_eq!(asked.validate(), Ok(()));
    let asked = asked.stdin_file("/dev/null");
    assert!(!asked.get_stdin_pipe() && asked.get_stdin_file().is_some());
}
