//! The transition table as text: Markdown, Mermaid, DOT.

use std::fmt;

use super::{EventKind, State, next, transitions};
use crate::text::named;

/// A way to draw the transition table; `Display` draws it.
///
/// ```
/// use caesium::lifecycle::Drawing;
/// assert!(Drawing::Mermaid.draw().to_string().contains("created --> running: started"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drawing {
    /// A Markdown table: states down, events across.
    Table,
    /// A Mermaid state diagram.
    Mermaid,
    /// A Graphviz digraph.
    Dot,
}

named!(Drawing, "drawing", {
    Table => "table",
    Mermaid => "mermaid",
    Dot => "dot",
});

impl Drawing {
    /// The drawing, to be displayed.
    pub fn draw(self) -> impl fmt::Display {
        Drawn(self)
    }
}

struct Drawn(Drawing);

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Drawing::Table => table(f),
            Drawing::Mermaid => mermaid(f),
            Drawing::Dot => dot(f),
        }
    }
}

fn table(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "| {:<14}", "from \\ event")?;
    for event in EventKind::ALL {
        write!(f, " | {event}")?;
    }
    write!(f, " |\n|{:-<16}", "")?;
    for event in EventKind::ALL {
        write!(f, "|{:-<1$}", "", event.as_str().len() + 2)?;
    }
    writeln!(f, "|")?;
    for state in State::ALL {
        write!(f, "| {state:<14}")?;
        for event in EventKind::ALL {
            let to = next(*state, *event).map_or("–", State::as_str);
            write!(f, " | {to:<width$}", width = event.as_str().len())?;
        }
        writeln!(f, " |")?;
    }
    Ok(())
}

fn mermaid(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "stateDiagram-v2\n    [*] --> {}", State::Created)?;
    for (from, event, to) in transitions() {
        writeln!(f, "    {from} --> {to}: {event}")?;
    }
    writeln!(f, "    {} --> [*]", State::Deleted)
}

fn dot(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "digraph lifecycle {{\n    rankdir=LR;\n    node [shape=box, style=rounded];")?;
    for (from, event, to) in transitions() {
        writeln!(f, "    {from} -> {to} [label=\"{event}\"];")?;
    }
    writeln!(f, "}}")
}
