//! `caesium verify`: reads the whole store, and says whether everything fits together.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use super::progress::Progress;
use super::store;
use crate::engine::Engine;

pub(super) fn verify(store: Option<&Path>) -> Result<u8, Failure> {
    let engine = Arc::new(store::open_present(store)?);
    let events = engine.stats().map(|stats| stats.events).unwrap_or_default();
    let progress = Progress::of("verifying", {
        let engine = Arc::clone(&engine);
        move || Some(format!("{} of {events} events", engine.verified_so_far()?.min(events)))
    });
    let verified = store::persist(|| engine.verify());
    drop(progress);
    let verified = verified?;
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
