//! `caesium compact`: drops the events that nobody wants to keep.

use std::io::{self, Write};
use std::path::Path;

use super::args::Compact;
use super::failure::{Failure, complain};
use super::progress::Progress;
use super::{output, store};
use crate::engine::Engine;
use crate::journal::Retention;

pub(super) fn compact(store: Option<&Path>, args: &Compact) -> Result<u8, Failure> {
    let retention = Retention { max_age: args.keep_age, max_events: args.keep_events };
    if retention == Retention::EVERYTHING {
        complain("every event is kept: say what is to stay with --keep-events or --keep-age");
    }
    let engine = store::open_present(store)?;
    let progress = Progress::of("compacting", || None);
    let compacted = store::persist(|| engine.compact(&retention));
    drop(progress);
    let compacted = compacted?;
    engine.close()?;
    let mut out = io::stdout().lock();
    if args.json {
        output::json_line(&mut out, &compacted)?;
    } else {
        writeln!(
            out,
            "{} events dropped, the oldest is {}: {} bytes before, {} after",
            compacted.dropped, compacted.oldest, compacted.before, compacted.after,
        )?;
    }
    Ok(0)
}
