//! What the keeper says, when nobody is there to hear it: a line for each event, in `keeper.log` of its store.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::time;

/// The environment variable that says what is written down: `error`, `warn` (the default), `info`, `debug` or `trace`.
const LEVEL: &str = "CAESIUM_KEEPER_LOG";

/// How large the file may become; it is emptied then.
const MAX_BYTES: u64 = 1 << 20;

/// Writes to standard error, which is the file.
struct KeeperLog {
    level: Level,
    written: AtomicU64,
}

/// From here on what is traced is written to standard error.
pub(super) fn begin() {
    let level = std::env::var(LEVEL).ok().and_then(|text| text.parse().ok());
    let log = KeeperLog { level: level.unwrap_or(Level::WARN), written: AtomicU64::new(0) };
    // Whoever has one already keeps it.
    let _ = tracing::subscriber::set_global_default(log);
}

impl Subscriber for KeeperLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = format!("{} {:>5} ", time::now(), event.metadata().level());
        event.record(&mut Fields(&mut line));
        line.push('\n');
        let written = self.written.fetch_add(line.len() as u64, Ordering::Relaxed);
        if written > MAX_BYTES {
            self.written.store(0, Ordering::Relaxed);
            let file = rustix::stdio::stderr();
            let _ = rustix::fs::ftruncate(file, 0);
            let _ = rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0));
        }
        // On a full disk, say: then there is nobody to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, then each field with its name.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}
