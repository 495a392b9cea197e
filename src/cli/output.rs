//! What is printed: tables, colours, and text that a terminal cannot be tricked by.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::failure::Failure;
use crate::atom::{Atom, AtomSpec};
use crate::lifecycle::{Outcome, State};

/// Whether to write colours to `stream`: only to a terminal that has them, and not with `NO_COLOR`.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// The JSON of a value, its fields in the order in which they are declared.
pub(super) fn json(value: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure::said(format!("cannot write this as JSON: {error}")))
}

/// One JSON object on one line.
pub(super) fn json_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    Ok(writeln!(out, "{}", json(value)?)?)
}

/// The text with control characters escaped, so that it stays on its line and a terminal does not obey it.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// A command as a shell would read it.
pub(super) fn command_line(spec: &AtomSpec) -> String {
    let mut line = quoted(spec.get_program());
    for arg in spec.get_args() {
        line.push(' ');
        line.push_str(&quoted(arg));
    }
    line
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else if text.contains(char::is_control) {
        format!("$'{}'", printable(&text.replace('\\', "\\\\").replace('\'', "\\'")))
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A duration as its largest unit: `5s`, `3m`, `2h`, `12d`.
pub(super) fn roughly(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        172_800.. => format!("{}d", seconds / 86400),
    }
}

/// The colour of a state or outcome.
fn colour(atom: &Atom) -> &'static str {
    match atom.state() {
        State::Invalid => "31;1",
        State::Created | State::Running => "36",
        State::Stopping | State::Deleting => "33",
        State::Deleted => "2",
        State::Stopped => match atom.result() {
            Some(Outcome::Success) => "32",
            Some(_) | None => "31",
        },
    }
}

/// A table of aligned columns.
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<(Vec<String>, &'static str)>,
}

impl Table {
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// A row of the atom's.
    pub(super) fn row(&mut self, atom: &Atom, cells: Vec<String>) {
        self.rows.push((cells, colour(atom)));
    }

    /// Writes it; the cells under `coloured` have their rows' colours.
    pub(super) fn write(&self, out: &mut impl Write, coloured: Option<&[&str]>) -> io::Result<()> {
        let widths: Vec<usize> = self
            .header
            .iter()
            .enumerate()
            .map(|(column, title)| {
                let cells = self.rows.iter().map(|(cells, _)| cells[column].chars().count());
                cells.chain([title.len()]).max().unwrap_or_default()
            })
            .collect();
        let header: Vec<String> = self.header.iter().map(ToString::to_string).collect();
        let rows = std::iter::once((&header, "")).chain(self.rows.iter().map(|(r, c)| (r, *c)));
        for (cells, colour) in rows {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate() {
                let last = column + 1 == cells.len();
                let padding = if last { 0 } else { widths[column] - cell.chars().count() + 2 };
                let painted = !colour.is_empty()
                    && coloured.is_some_and(|titles| titles.contains(&self.header[column]));
                if painted {
                    let _ = write!(line, "\x1b[{colour}m{cell}\x1b[0m{:padding$}", "");
                } else {
                    let _ = write!(line, "{cell}{:padding$}", "");
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_can_leave_its_line_or_command_a_terminal() {
        assert_eq!(printable("a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        let spec = AtomSpec::command("sh").args(["-c", "echo 'hi'", "", "a\nb", "x=1"]);
        assert_eq!(command_line(&spec), r#"sh -c 'echo '\''hi'\''' '' $'a\nb' x=1"#);
    }

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in
            [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (864_000, "10d")]
        {
            assert_eq!(roughly(Duration::from_secs(seconds)), text);
        }
    }
}
