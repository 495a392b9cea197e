//! `caesium inspect`: one atom, whole.

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use super::args::Inspect;
use super::failure::Failure;
use super::output::{self, printable};
use super::store;
use crate::atom::Atom;
use crate::engine::Engine;

pub(super) fn inspect(store: Option<&Path>, args: &Inspect) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let atom = store::persist(|| engine.find(&args.id))?;
    engine.close()?;
    let mut value = output::json(&atom)?;
    if args.show_env {
        show_env(&atom, &mut value);
    }
    let mut out = io::stdout().lock();
    if args.json {
        output::json_line(&mut out, &value)?;
    } else {
        out.write_all(human(&atom, &value).as_bytes())?;
    }
    Ok(0)
}

/// Puts the values in the places of the asterisks; those of secrets are not known.
fn show_env(atom: &Atom, value: &mut Value) {
    let Some(shown) = value.pointer_mut("/spec/env").and_then(Value::as_object_mut) else { return };
    for (key, value) in atom.spec().get_open_env() {
        shown.insert(key.to_owned(), value.to_string_lossy().into());
    }
}

/// A line for everything that is known and was asked for.
fn human(atom: &Atom, value: &Value) -> String {
    let mut text = String::new();
    let mut say = |key: &str, value: &str| {
        text.push_str(&format!("{:<15} {}\n", format!("{key}:"), printable(value)));
    };
    let Some(fields) = value.as_object() else { return text };
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("spec", Value::Object(spec)) => {
                say("command", &output::command_line(atom.spec()));
                let rest = spec.iter().filter(|(key, _)| *key != "program" && *key != "args");
                // Name and labels were said as the atom's own.
                for (key, value) in rest.filter(|(key, _)| *key != "name" && *key != "labels") {
                    if let Some(shown) = plain(value) {
                        say(key, &shown);
                    }
                }
            }
            (key, value) => {
                if let Some(shown) = plain(value) {
                    say(key, &shown);
                }
            }
        }
    }
    text
}

/// A value in words; `None` for what is not there.
fn plain(value: &Value) -> Option<String> {
    let list = |parts: Vec<String>| (!parts.is_empty()).then(|| parts.join(", "));
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some("yes".into()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => list(values.iter().filter_map(plain).collect()),
        Value::Object(fields) => list(
            fields
                .iter()
                .filter_map(|(key, value)| {
                    let value = plain(value)?;
                    Some(if value.contains(", ") {
                        format!("{key} ({value})")
                    } else {
                        format!("{key}={value}")
                    })
                })
                .collect(),
        ),
    }
}
