//! The lifecycle has no clock, no input or output, no thread and no allocation, and its source shows it.

use std::fs;
use std::path::{Path, PathBuf};

/// What a pure module has no use for.
const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::io",
    "std::net",
    "std::os",
    "std::env",
    "std::process",
    "std::path",
    "std::thread",
    "std::sync",
    "std::collections",
    "std::rc",
    "std::cell",
    "Instant",
    "SystemTime",
    "time::now",
    "Mutex",
    "parking_lot",
    "tracing",
    "libc",
    "rustix",
    "unsafe",
    "static ",
    "thread_local",
    "println!",
    "format!",
    "vec!",
    "Vec",
    "String",
    "Box",
    "Arc",
    "Rc<",
    ".to_string(",
    ".to_owned(",
    ".collect(",
    "alloc::",
];

/// What the lifecycle may use of the crate: time as a value, and names of enums. No engine, journal or driver.
const NEIGHBOURS: &[&str] =
    &["crate::time::Timestamp", "crate::text::named", "crate::text::duration"];

fn sources() -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lifecycle");
    let mut pending = vec![dir];
    let mut sources = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                sources.push((path, text));
            }
        }
    }
    sources
}

/// The lines that are compiled into the library, with their numbers: no comments, and nothing from `#[cfg(test)]` on.
fn scanned(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
}

#[test]
fn nothing_impure_is_named_in_the_lifecycle() {
    let sources = sources();
    assert!(sources.len() >= 6, "the lifecycle is not where this test looks");
    for (path, text) in &sources {
        for (number, line) in scanned(text) {
            for word in FORBIDDEN {
                assert!(!line.contains(word), "{}:{number} names {word}", path.display());
            }
        }
    }
}

#[test]
fn the_lifecycle_knows_no_other_layer() {
    for (path, text) in sources() {
        for (number, line) in scanned(&text) {
            for (start, _) in line.match_indices("crate::") {
                let rest = &line[start..];
                assert!(
                    NEIGHBOURS.iter().any(|allowed| rest.starts_with(allowed)),
                    "{}:{number} reaches for {rest}",
                    path.display(),
                );
            }
        }
    }
}

#[test]
fn no_match_in_the_lifecycle_has_a_catch_all_arm() {
    for (path, text) in sources() {
        for (number, line) in scanned(&text) {
            let line = line.trim_start();
            assert!(
                !line.starts_with("_ =>") && !line.starts_with("_ if "),
                "{}:{number}: a new state or event would go unnoticed",
                path.display(),
            );
        }
    }
}
