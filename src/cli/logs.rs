//! `caesium logs`: what an atom printed, its stdout to ours and its stderr to ours.

use std::collections::VecDeque;
use std::path::Path;

use super::args::Logs;
use super::failure::Failure;
use super::forward::{Sinks, say_dropped};
use super::store;
use crate::engine::{self, Engine, LogsRequest};
use crate::log::{LogChunk, LogItem, Stream};
use crate::time::Timestamp;

pub(super) fn logs(store: Option<&Path>, args: &Logs) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let atom = engine.find(&args.id)?;
    let mut request = LogsRequest::from(atom.id());
    request.since = args.since.map(|since| since.resolve());
    request.stream = args.stream;
    let follow = args.follow && atom.state().is_live();

    let mut printer =
        Printer { sinks: Sinks::ours()?, timestamps: args.timestamps, open: [false; 2] };
    let mut shown = Shown::default();
    let pending = match (args.tail, follow) {
        (Some(lines), true) => {
            // First what is there, to find the last lines of it; then what comes after.
            shown.tail(engine.logs(&request)?, lines, &mut printer)?;
            Some(engine.logs(&request.follow())?)
        }
        (None, true) => Some(engine.logs(&request.follow())?),
        (tail, false) => {
            let kept = engine.logs(&request)?;
            // A slow reader of ours does not keep others from the store.
            engine.close()?;
            match tail {
                Some(lines) => shown.tail(kept, lines, &mut printer)?,
                None => shown.all(kept, &mut printer)?,
            }
            return finish(&shown);
        }
    };
    if let Some(coming) = pending {
        shown.all(coming, &mut printer)?;
    }
    engine.close()?;
    finish(&shown)
}

fn finish(shown: &Shown) -> Result<u8, Failure> {
    say_dropped(shown.dropped);
    Ok(0)
}

/// How far a log was shown.
#[derive(Debug, Default)]
struct Shown {
    /// The offset up to which it was.
    end: u64,
    dropped: u64,
}

impl Shown {
    /// Shows everything that was not shown yet.
    fn all(&mut self, logs: engine::Logs, printer: &mut Printer) -> Result<(), Failure> {
        for item in logs {
            match item? {
                LogItem::Dropped { bytes } => {
                    // After a tail, what was dropped before it is not missed.
                    if self.end == 0 {
                        self.dropped += bytes;
                    }
                }
                LogItem::Chunk(chunk) if chunk.offset < self.end => {}
                LogItem::Chunk(chunk) => printer.print(chunk.stream, chunk.at, &chunk.bytes)?,
            }
        }
        Ok(())
    }

    /// Shows the last lines.
    fn tail(
        &mut self,
        logs: engine::Logs,
        lines: usize,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let mut tail = Tail { most: lines, lines: VecDeque::new(), open: [None, None] };
        for item in logs {
            match item? {
                LogItem::Dropped { .. } => {}
                LogItem::Chunk(chunk) => {
                    self.end = chunk.offset + chunk.bytes.len() as u64;
                    tail.take(&chunk);
                }
            }
        }
        for line in tail.finish() {
            printer.print(line.stream, line.at, &line.bytes)?;
        }
        Ok(())
    }
}

/// A line, in the order in which it was finished.
#[derive(Debug)]
struct Line {
    stream: Stream,
    at: Timestamp,
    bytes: Vec<u8>,
}

/// The last lines of a log, of both streams together.
#[derive(Debug)]
struct Tail {
    most: usize,
    lines: VecDeque<Line>,
    /// Of each stream, the line that has no end yet.
    open: [Option<Line>; 2],
}

impl Tail {
    fn take(&mut self, chunk: &LogChunk) {
        for bytes in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[chunk.stream as usize];
            let new = || Line { stream: chunk.stream, at: chunk.at, bytes: Vec::new() };
            open.get_or_insert_with(new).bytes.extend_from_slice(bytes);
            if bytes.ends_with(b"\n") {
                let line = open.take();
                self.push(line);
            }
        }
    }

    fn push(&mut self, line: Option<Line>) {
        self.lines.extend(line);
        while self.lines.len() > self.most {
            self.lines.pop_front();
        }
    }

    fn finish(mut self) -> VecDeque<Line> {
        for line in std::mem::take(&mut self.open) {
            self.push(line);
        }
        self.lines
    }
}

/// Writes output, with the time before each line if that is wanted.
#[derive(Debug)]
struct Printer {
    sinks: Sinks,
    timestamps: bool,
    /// Of each stream, whether the last line that was written has no end yet.
    open: [bool; 2],
}

impl Printer {
    fn print(&mut self, stream: Stream, at: Timestamp, bytes: &[u8]) -> Result<(), Failure> {
        if !self.timestamps {
            return Ok(self.sinks.write(stream, bytes)?);
        }
        let open = &mut self.open[stream as usize];
        let mut text = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*open {
                text.extend_from_slice(format!("{at} ").as_bytes());
            }
            text.extend_from_slice(line);
            *open = !line.ends_with(b"\n");
        }
        Ok(self.sinks.write(stream, &text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(most: usize, chunks: &[(Stream, &str)]) -> Vec<String> {
        let mut tail = Tail { most, lines: VecDeque::new(), open: [None, None] };
        for (stream, text) in chunks {
            tail.take(&LogChunk {
                at: Timestamp::default(),
                stream: *stream,
                offset: 0,
                bytes: text.as_bytes().to_vec(),
            });
        }
        tail.finish().into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect()
    }

    #[test]
    fn the_tail_is_whole_lines_wherever_the_chunks_were_cut() {
        use Stream::{Stderr, Stdout};
        let chunks = [(Stdout, "a\nb"), (Stderr, "x"), (Stdout, "b\nc\nd"), (Stderr, "y\n")];
        assert_eq!(tail(9, &chunks), ["a\n", "bb\n", "c\n", "xy\n", "d"]);
        assert_eq!(tail(2, &chunks), ["xy\n", "d"]);
        assert_eq!(tail(0, &chunks), [""; 0]);
    }
}
