//! `caesium logs`: what an atom printed, its stdout to ours and its stderr to ours.

use std::collections::VecDeque;
use std::path::Path;

use super::args::Logs;
use super::failure::Failure;
use super::forward::{Sinks, say_dropped};
use super::store;
use crate::engine::{Engine, Error, LogsRequest};
use crate::log::{LogChunk, LogItem, Stream};
use crate::time::Timestamp;

pub(super) fn logs(store: Option<&Path>, args: &Logs) -> Result<u8, Failure> {
    let engine = store::open_present(store)?;
    let atom = store::persist(|| engine.find(&args.id))?;
    let mut request = LogsRequest::from(atom.id());
    request.since = args.since.map(|since| since.resolve());
    request.stream = args.stream;
    let follow = args.follow && atom.state().is_live();

    let mut printer =
        Printer { sinks: Sinks::ours()?, timestamps: args.timestamps, open: [false; 2] };
    let mut shown = Shown { engine: &engine, end: 0, dropped: 0 };
    if let Some(lines) = args.tail {
        // First what is there, to find the last lines of it; then what comes after.
        shown.tail(&request, lines, &mut printer)?;
    }
    if follow {
        shown.rest(&request.follow(), &mut printer)?;
    } else if args.tail.is_none() {
        shown.rest(&request, &mut printer)?;
    }
    let dropped = shown.dropped;
    engine.close()?;
    say_dropped(dropped);
    Ok(0)
}

/// How far a log was shown.
struct Shown<'a> {
    engine: &'a dyn Engine,
    /// The offset up to which it was.
    end: u64,
    dropped: u64,
}

impl Shown<'_> {
    /// Gives what comes after what was shown, item by item, whoever has the store.
    fn read(
        &mut self,
        request: &LogsRequest,
        mut take: impl FnMut(&mut Self, LogItem) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let request = request.clone().from_offset(self.end);
            let mut gone = false;
            for item in store::persist(|| self.engine.logs(&request))? {
                match item {
                    Ok(item) => {
                        let end = match &item {
                            LogItem::Chunk(chunk) => chunk.offset + chunk.bytes.len() as u64,
                            LogItem::Dropped { .. } => self.end,
                        };
                        take(self, item)?;
                        self.end = end;
                    }
                    Err(Error::HolderGone { .. }) => gone = true,
                    Err(error) => return Err(error.into()),
                }
            }
            if !gone {
                return Ok(());
            }
        }
    }

    /// Shows everything that was not shown yet.
    fn rest(&mut self, request: &LogsRequest, printer: &mut Printer) -> Result<(), Failure> {
        self.read(request, |shown, item| match item {
            LogItem::Dropped { bytes } => {
                shown.dropped += bytes;
                Ok(())
            }
            LogItem::Chunk(chunk) => printer.print(chunk.stream, chunk.at, &chunk.bytes),
        })
    }

    /// Shows the last lines.
    fn tail(
        &mut self,
        request: &LogsRequest,
        lines: usize,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let mut tail = Tail { most: lines, lines: VecDeque::new(), open: [None, None] };
        self.read(request, |_, item| {
            if let LogItem::Chunk(chunk) = item {
                tail.take(&chunk);
            }
            Ok(())
        })?;
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
