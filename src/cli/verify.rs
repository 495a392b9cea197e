//! `caesium verify`: reads the whole store, and says whether everything fits together.

use std::io::{self, Write};
use std::path::Path;

use super::failure::Failure;
use super::store;
use crate::engine::Engine;

pub(super) fn verify(store: Option<&Path>) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let verified = store::persist(|| engine.verify())?;
    engine.close()?;
    let range = match verified.events {
        0 => String::new(),
        events => format!(" ({} to {})", verified.oldest, verified.oldest + events - 1),
    };
    writeln!(
        io::stdout(),
        "{} events{range}, {} atoms: every frame is whole, and the events give the stored states",
        verified.events,
        verified.atoms,
    )?;
    Ok(0)
}
