//! `caesium stats`: how large the journal is, and how it fares.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::args::Stats;
use super::failure::Failure;
use super::{output, store};
use crate::engine::Engine;
use crate::journal;

pub(super) fn stats(store: Option<&Path>, args: &Stats) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let stats = store::persist(|| engine.stats())?;
    engine.close()?;
    let mut out = io::stdout().lock();
    if args.json {
        output::json_line(&mut out, &stats)?;
    } else {
        for (name, value) in lines(&stats) {
            writeln!(out, "{name:<20}{value}")?;
        }
    }
    Ok(0)
}

fn lines(stats: &journal::Stats) -> Vec<(&'static str, String)> {
    let range = match stats.events {
        0 => "0".to_owned(),
        events => format!("{events} ({} to {})", stats.oldest, stats.recent),
    };
    let micros = |micros| humantime::format_duration(Duration::from_micros(micros)).to_string();
    let lags: Vec<String> = stats.lags.iter().map(ToString::to_string).collect();
    vec![
        ("events", range),
        ("durable up to", stats.durable.to_string()),
        ("in doubt", stats.in_doubt.to_string()),
        ("atoms", stats.atoms.to_string()),
        ("segments", stats.segments.to_string()),
        ("waited to be packed", stats.waited.to_string()),
        ("bytes on disk", format!("{} ({} unused)", stats.bytes, stats.unused)),
        (
            "history",
            format!("{}, {} bytes in {} parts", stats.history, stats.history_bytes, stats.parts),
        ),
        (
            "groups",
            format!("{} (events: p50 {}, max {})", stats.groups, stats.group_p50, stats.group_max),
        ),
        (
            "syncs",
            format!(
                "{} (p50 {}, p99 {})",
                stats.syncs,
                micros(stats.sync_p50_micros),
                micros(stats.sync_p99_micros)
            ),
        ),
        ("subscribers behind", if lags.is_empty() { "-".to_owned() } else { lags.join(" ") }),
    ]
}
