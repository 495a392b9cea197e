//! `docs/lifecycle.md` shows the table and the diagram that the code draws.
//!
//! After a change of the table: `CAESIUM_BLESS=1 cargo test --test lifecycle_docs`.

use std::fs;
use std::path::Path;

use caesium::lifecycle::{Drawing, EventKind, State, transitions};

const PAGE: &str = "docs/lifecycle.md";

/// The page with what lies between the marks of `drawing` replaced by what the code draws.
fn redrawn(page: &str, drawing: Drawing) -> String {
    let (begin, end) = (format!("<!-- begin {drawing} -->\n"), format!("<!-- end {drawing} -->"));
    let drawn = drawing.draw().to_string();
    let inside = match drawing {
        Drawing::Table => drawn,
        Drawing::Mermaid | Drawing::Dot => format!("```{drawing}\n{drawn}```\n"),
    };
    let (before, rest) = page.split_once(&begin).expect("the page has lost a mark");
    let (_, after) = rest.split_once(&end).expect("the page has lost a mark");
    format!("{before}{begin}{inside}{end}{after}")
}

#[test]
fn the_page_shows_what_the_code_draws() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let fresh = redrawn(&redrawn(&page, Drawing::Table), Drawing::Mermaid);
    if std::env::var_os("CAESIUM_BLESS").is_some() {
        fs::write(&path, &fresh).unwrap();
        return;
    }
    assert!(
        page == fresh,
        "{PAGE} does not show the table of the code: CAESIUM_BLESS=1 cargo test --test lifecycle_docs"
    );
}

#[test]
fn every_drawing_shows_every_transition_and_no_other() {
    let mermaid = Drawing::Mermaid.draw().to_string();
    let dot = Drawing::Dot.draw().to_string();
    for (from, event, to) in transitions() {
        assert!(mermaid.contains(&format!("\n    {from} --> {to}: {event}\n")));
        assert!(dot.contains(&format!("\n    {from} -> {to} [label=\"{event}\"];\n")));
    }
    let count = transitions().count();
    // One arrow more into the first state, and one out of the last.
    assert_eq!(mermaid.matches("-->").count(), count + 2);
    assert_eq!(dot.matches("->").count(), count);
}

#[test]
fn the_drawn_table_has_the_cells_of_the_code() {
    let drawn = Drawing::Table.draw().to_string();
    let rows: Vec<Vec<&str>> = drawn
        .lines()
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), State::ALL.len() + 2);
    assert!(rows.iter().all(|row| row.len() == EventKind::ALL.len() + 1));
    for (row, state) in rows[2..].iter().zip(State::ALL) {
        assert_eq!(row[0], state.as_str());
        for (cell, event) in row[1..].iter().zip(EventKind::ALL) {
            let to = transitions().find(|t| (t.0, t.1) == (*state, *event)).map(|t| t.2);
            assert_eq!(*cell, to.map_or("–", State::as_str), "{state} × {event}");
        }
    }
}
