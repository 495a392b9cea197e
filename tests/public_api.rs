//! The public API is what `tests/public-api.txt` says it is, names no type of a part that may be replaced, and loses
//! nothing that the last release had without a version that says so.
//!
//! A change shows in the difference of that file; `CAESIUM_BLESS=1 cargo test --test public_api` writes it anew.

#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use public_api::{Builder, Error};

/// The crates whose types may be seen: the standard library's, and traits that stand for no part of ours.
const SEEN: &[&str] = &["alloc", "caesium", "core", "futures_core", "serde", "serde_core", "std"];

/// What rustdoc knows, of all features; `None` if this toolchain writes it in another format than is understood.
fn api() -> Option<&'static str> {
    static API: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        // JSON is not stable yet. Only rustdoc is to know: build scripts look at the variable as well.
        let dir = target.join("public-api");
        fs::create_dir_all(&dir).unwrap();
        let rustdoc = dir.join("rustdoc");
        if !rustdoc.exists() {
            let script = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";
            fs::write(&rustdoc, script).unwrap();
            fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("RUSTDOC", &rustdoc);
        cargo.args(["rustdoc", "--quiet", "--locked", "--lib", "--all-features", "--target-dir"]);
        cargo.arg(target).args(["--", "-Zunstable-options", "--output-format", "json"]);
        assert!(cargo.args(["--cap-lints", "allow"]).status().unwrap().success());
        match Builder::from_rustdoc_json(target.join("doc/caesium.json"))
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .omit_auto_derived_impls(true)
            .build()
        {
            Ok(api) => Some(api.to_string()),
            Err(Error::SerdeJsonError(error)) => {
                println!("SKIP: this toolchain describes the API in another format: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    };
    API.get_or_init(read).as_deref()
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public-api.txt")
}

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn the_api_changes_only_where_somebody_looks() {
    let Some(api) = api() else { return };
    if std::env::var_os("CAESIUM_BLESS").is_some() {
        fs::write(kept(), api).unwrap();
    }
    let kept = fs::read_to_string(kept()).unwrap();
    let (before, now) = (lines(&kept), lines(api));
    let gone: Vec<_> = before.difference(&now).collect();
    let new: Vec<_> = now.difference(&before).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "the public API has changed; if that is meant, CAESIUM_BLESS=1 writes it down. Gone: {gone:#?}, new: {new:#?}"
    );
}

#[test]
fn no_type_of_a_part_that_may_be_replaced_is_seen() {
    let Some(api) = api() else { return };
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for line in api.lines() {
        for (at, _) in line.match_indices("::") {
            // The first name of each path.
            let before = &line[..at];
            let name = &before[before.rfind(|c| !is_word(c)).map_or(0, |end| end + 1)..];
            let inner = before[..before.len() - name.len()].ends_with("::");
            let is_type = name.starts_with(char::is_uppercase) || name.is_empty();
            assert!(inner || is_type || SEEN.contains(&name), "{name} is of another crate: {line}");
        }
    }
}

/// Whether a version may lack what an earlier one had: a new major one may, and before 1.0 a new minor one.
fn may_break(before: &str, now: &str) -> bool {
    let numbers = |version: &str| {
        let mut parts = version.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    let ((major, minor), (new_major, new_minor)) = (numbers(before), numbers(now));
    new_major > major || (major == 0 && new_major == 0 && new_minor > minor)
}

/// What a program that was written for the old one may miss in the new one.
fn missed<'a>(before: &'a str, now: &str) -> Vec<&'a str> {
    let now = lines(now);
    lines(before).into_iter().filter(|line| !now.contains(line)).collect()
}

#[test]
fn what_may_be_missed_takes_a_version_that_says_so() {
    let cases = [
        ("0.1.0", "0.1.9", false),
        ("0.1.0", "0.2.0", true),
        ("0.9.0", "1.0.0", true),
        ("1.2.0", "1.3.0", false),
        ("1.2.0", "2.0.0", true),
        ("1.0.0-rc.1", "1.0.0", false),
    ];
    for (before, now, may) in cases {
        assert_eq!(may_break(before, now), may, "{before} to {now}");
    }
    assert_eq!(missed("pub fn a()\npub fn b()", "pub fn b()\npub fn c()"), ["pub fn a()"]);
    assert_eq!(missed("pub fn a(u8)", "pub fn a(u16)"), ["pub fn a(u8)"], "another signature");
    assert!(missed("pub fn b()", "pub fn a()\npub fn b()").is_empty(), "more is no loss");
}

/// By the written API of both, so that it takes no time. It does not see what is more: a method that a trait
/// demands of those who implement it, a variant of an enum that may be matched wholly.
#[test]
fn nothing_that_the_last_release_had_is_missed() {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        let done = git.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let Some(tag) = git(&["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]) else {
        println!("SKIP: there is no release yet, or no git to ask");
        return;
    };
    let tag = tag.trim();
    let Some(before) = git(&["show", &format!("{tag}:tests/public-api.txt")]) else {
        println!("SKIP: release {tag} has not written down its API");
        return;
    };
    let now = fs::read_to_string(kept()).unwrap();
    let missed = missed(&before, &now);
    let (before, now) = (tag.trim_start_matches('v'), env!("CARGO_PKG_VERSION"));
    assert!(
        missed.is_empty() || may_break(before, now),
        "{now} lacks what {before} had, and its version does not say so: {missed:#?}"
    );
}
