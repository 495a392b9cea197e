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

/// A table of aligned columns, written piece by piece.
pub(super) struct Table {
    header: Option<Vec<String>>,
    titles: Vec<&'static str>,
    widths: Vec<usize>,
    rows: Vec<(Vec<String>, &'static str)>,
}

impl Table {
    pub(super) fn new(titles: &[&'static str]) -> Self {
        Self {
            header: Some(titles.iter().map(ToString::to_string).collect()),
            titles: titles.to_vec(),
            widths: titles.iter().map(|title| title.len()).collect(),
            rows: Vec::new(),
        }
    }

    /// A row of the atom's.
    pub(super) fn row(&mut self, atom: &Atom, cells: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push((cells, colour(atom)));
    }

    /// Writes what was not written yet, the header first; the cells under `coloured` have their rows' colours.
    /// What comes later is never narrower.
    pub(super) fn write(
        &mut self,
        out: &mut impl Write,
        coloured: Option<&[&str]>,
    ) -> io::Result<()> {
        let header = self.header.take().map(|header| (header, ""));
        let rows = std::mem::take(&mut self.rows);
        for (cells, colour) in header.into_iter().chain(rows) {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate() {
                let last = column + 1 == cells.len();
                let padding = if last { 0 } else { self.widths[column] - cell.chars().count() + 2 };
                let painted = !colour.is_empty()
                    && coloured.is_some_and(|titles| titles.contains(&self.titles[column]));
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
