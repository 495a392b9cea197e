//! Reading a log, of an atom that lives or of one that has ended.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::format::{
    ChunkHeader, HEADER, Kind, NO_SEGMENT, SEGMENT_HEADER, parse_segment_header, segment_path,
    segments,
};
use super::shared::LogShared;
use super::writer::remove_surplus;
use crate::driver::DriverError;
use crate::log::{LogChunk, LogItem, LogNext, LogQuery, LogSource};

/// How much of a segment is read ahead.
const WINDOW: usize = 64 << 10;

/// A reader of one log.
#[derive(Debug)]
pub(crate) struct LogReader {
    dir: PathBuf,
    query: LogQuery,
    /// The log's writer, while there is one.
    live: Option<Arc<LogShared>>,
    /// Our number among the readers that nothing may be dropped for.
    lossless: Option<u64>,
    /// Where a reader that does not follow ends.
    limit: Option<(u64, u64)>,
    segment: Option<Segment>,
    /// The offset that the next chunk has if nothing was dropped.
    expected: u64,
    /// Dropped bytes that were not told yet.
    dropped: u64,
    /// A chunk that was read and waits until the drop before it was told.
    held: Option<LogChunk>,
    /// How far the log was when nothing more was found in it.
    seen: Option<(u64, u64)>,
    /// Our number among the readers that are woken.
    key: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    /// Where the next chunk begins.
    at: u64,
    /// What is read ahead, and where in the file it begins.
    window: Vec<u8>,
    window_at: u64,
    /// What its header was when it was opened.
    header: [u8; SEGMENT_HEADER as usize],
    /// The file was read since it was last seen to be still this segment's.
    has_read: bool,
    /// It is damaged or another one by now: nothing more of it can be read.
    over: bool,
}

/// How far the log can be read at this moment.
#[derive(Debug, Clone, Copy)]
struct Bound {
    segment: u64,
    written: u64,
    /// Nothing more will come.
    last: bool,
    /// Whether more may come, but nobody will tell.
    closed: bool,
}

/// What is at a place of a segment.
enum Found {
    Chunk(ChunkHeader, Vec<u8>),
    /// Nothing yet, or nothing more.
    Nothing,
    /// The segment was dropped, and its file has become another one.
    Dropped,
    /// Something that is no chunk, with this many bytes after it.
    Damage(u64),
}

impl LogReader {
    pub(crate) fn new(
        dir: PathBuf,
        query: LogQuery,
        live: Option<Arc<LogShared>>,
    ) -> Result<Self, DriverError> {
        let mut lossless = None;
        let mut limit = None;
        if let Some(live) = &live {
            if query.follow && query.lossless {
                // Before looking for the first segment: from here on it stays.
                lossless = Some(live.enter(0));
            }
            if !query.follow {
                let state = live.lock();
                limit = Some((state.segment, state.written));
            }
        }
        let expected = query.from;
        let mut reader = Self {
            dir,
            query,
            live,
            lossless,
            limit,
            segment: None,
            expected,
            dropped: 0,
            held: None,
            seen: None,
            key: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    fn bound(&self) -> Bound {
        if let Some((segment, written)) = self.limit {
            return Bound { segment, written, last: true, closed: false };
        }
        match &self.live {
            Some(live) => {
                let state = live.lock();
                Bound {
                    segment: state.segment,
                    written: state.written,
                    last: state.complete,
                    closed: state.closed,
                }
            }
            None => Bound { segment: u64::MAX, written: u64::MAX, last: true, closed: false },
        }
    }

    /// Goes to the next segment that is there; false when there is none.
    fn advance(&mut self) -> Result<bool, DriverError> {
        let bound = self.bound();
        let mut wanted = match &self.segment {
            Some(segment) => segment.number + 1,
            None => self.first()?,
        };
        loop {
            let is_begun = bound.written >= SEGMENT_HEADER;
            if wanted > bound.segment || (wanted == bound.segment && !is_begun) {
                return Ok(false);
            }
            let path = segment_path(&self.dir, wanted);
            match open(&path) {
                Ok(Some((file, header))) => {
                    self.enter(wanted, file, header);
                    return Ok(true);
                }
                Ok(None) => {
                    // Dropped meanwhile: the oldest that is left.
                    let listed = segments(&self.dir).map_err(|error| self.trouble(error))?;
                    match listed.into_iter().find(|number| *number > wanted) {
                        Some(number) => wanted = number,
                        None => return Ok(false),
                    }
                }
                Err(error) => {
                    return Err(DriverError::Io {
                        what: format!("cannot open {}", path.display()),
                        source: error,
                    });
                }
            }
        }
    }

    /// The segment to begin with: the oldest, or the one with the first byte that is wanted.
    fn first(&self) -> Result<u64, DriverError> {
        let listed = segments(&self.dir).map_err(|error| self.trouble(error))?;
        let oldest = listed.first().copied().unwrap_or(0);
        if self.query.from == 0 {
            return Ok(oldest);
        }
        let begins_before = |number: &u64| {
            let header =
                File::open(segment_path(&self.dir, *number)).and_then(|file| header_of(&file));
            header
                .ok()
                .and_then(|header| parse_segment_header(&header))
                .is_some_and(|offset| offset <= self.query.from)
        };
        Ok(listed.iter().rev().copied().find(begins_before).unwrap_or(oldest))
    }

    fn enter(&mut self, number: u64, file: File, header: [u8; SEGMENT_HEADER as usize]) {
        if let (Some(live), Some(reader)) = (&self.live, self.lossless) {
            live.moved(reader, Some(number));
        }
        if let Some(offset) = parse_segment_header(&header) {
            self.missing_up_to(offset);
        }
        self.segment = Some(Segment {
            number,
            file,
            at: SEGMENT_HEADER,
            window: Vec::new(),
            window_at: 0,
            header,
            has_read: false,
            over: false,
        });
    }

    fn missing_up_to(&mut self, offset: u64) {
        self.dropped += offset.saturating_sub(self.expected);
        self.expected = self.expected.max(offset);
    }

    fn trouble(&self, source: io::Error) -> DriverError {
        DriverError::Io { what: format!("cannot read the log in {}", self.dir.display()), source }
    }

    /// The next piece that is there; `None` when there is none now.
    fn read(&mut self) -> Result<Option<LogItem>, DriverError> {
        loop {
            if let Some(chunk) = self.held.take() {
                if self.dropped > 0 {
                    self.held = Some(chunk);
                    return Ok(Some(LogItem::Dropped { bytes: std::mem::take(&mut self.dropped) }));
                }
                return Ok(Some(LogItem::Chunk(chunk)));
            }
            let bound = self.bound();
            let Some(segment) = &mut self.segment else {
                if self.advance()? {
                    continue;
                }
                return Ok(None);
            };
            let finished = segment.number < bound.segment;
            let end = if finished { u64::MAX } else { bound.written };
            let found = segment.next(end).map_err(|source| DriverError::Io {
                what: format!("cannot read the log in {}", self.dir.display()),
                source,
            })?;
            match found {
                Found::Chunk(header, bytes) => self.take(header, bytes),
                // How much that was is told by the offset of what comes next.
                Found::Dropped => {}
                Found::Damage(lost) => {
                    tracing::warn!(path = %self.dir.display(), "a damaged chunk in a log");
                    if !self.advance()? && bound.last {
                        self.dropped += lost;
                    }
                }
                Found::Nothing => {
                    if (finished || bound.last) && self.advance()? {
                        continue;
                    }
                    if bound.last && self.dropped > 0 {
                        let bytes = std::mem::take(&mut self.dropped);
                        return Ok(Some(LogItem::Dropped { bytes }));
                    }
                    return Ok(None);
                }
            }
        }
    }

    fn take(&mut self, header: ChunkHeader, mut bytes: Vec<u8>) {
        self.missing_up_to(header.offset);
        self.expected = self.expected.max(header.offset + header.length as u64);
        let stream = match header.kind {
            Kind::Output(stream) => stream,
            Kind::End | Kind::Old => return,
        };
        let unwanted = self.query.from.saturating_sub(header.offset);
        if unwanted >= header.length as u64 {
            return;
        }
        bytes.drain(..unwanted as usize);
        let offset = header.offset + unwanted;
        if self.query.since.is_some_and(|since| header.at < since) {
            // What was dropped before this is older still.
            self.dropped = 0;
            return;
        }
        if self.query.stream.is_none_or(|wanted| wanted == stream) {
            self.held = Some(LogChunk { at: header.at, stream, offset, bytes });
        }
    }
}

impl LogSource for LogReader {
    fn next(&mut self, deadline: Option<Instant>) -> Result<LogNext, DriverError> {
        loop {
            // Before reading: what comes in between is not missed.
            let bound = self.bound();
            self.seen = None;
            if let Some(item) = self.read()? {
                return Ok(LogNext::Item(item));
            }
            if bound.last {
                return Ok(LogNext::End);
            }
            let Some(live) = &self.live else { return Ok(LogNext::End) };
            if bound.closed {
                return Err(DriverError::Closed);
            }
            self.seen = Some((bound.segment, bound.written));
            if !live.wait_beyond((bound.segment, bound.written), deadline) {
                return Ok(LogNext::TimedOut);
            }
        }
    }

    fn has_more(&mut self, waker: &Waker) -> bool {
        match (&self.live, self.seen) {
            (Some(live), Some(seen)) => live.has_more(seen, &mut self.key, waker),
            (Some(_) | None, _) => true,
        }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if let (Some(live), Some(key)) = (&self.live, self.key) {
            live.unwatch(key);
        }
        if let (Some(live), Some(reader)) = (&self.live, self.lossless) {
            live.moved(reader, None);
            remove_surplus(&self.dir, live);
        }
    }
}

/// Opens a segment and reads its header; `None` when it has been dropped.
fn open(path: &Path) -> io::Result<Option<(File, [u8; SEGMENT_HEADER as usize])>> {
    let gone = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return gone(error),
    };
    let header = header_of(&file)?;
    // Still under that name after its header was read: the header is that of this segment.
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.ino() == file.metadata()?.ino()).then_some((file, header))),
        Err(error) => gone(error),
    }
}

/// The header of a segment's file; none when the host was killed before it had written it.
fn header_of(file: &File) -> io::Result<[u8; SEGMENT_HEADER as usize]> {
    let mut header = NO_SEGMENT;
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(header),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(NO_SEGMENT),
        Err(error) => Err(error),
    }
}

impl Segment {
    fn next(&mut self, end: u64) -> io::Result<Found> {
        if self.over || self.at >= end {
            return Ok(Found::Nothing);
        }
        let found = self.look(end)?;
        if std::mem::take(&mut self.has_read) && !self.is_still_itself()? {
            self.over = true;
            return Ok(Found::Dropped);
        }
        Ok(found)
    }

    fn look(&mut self, end: u64) -> io::Result<Found> {
        if parse_segment_header(&self.header).is_none() || !self.fill(HEADER, end)? {
            return self.torn();
        }
        let start = self.offset();
        let Some(header) = self.window[start..].first_chunk().and_then(ChunkHeader::parse) else {
            return self.torn();
        };
        if !self.fill(HEADER + header.length, end)? {
            return self.torn();
        }
        let start = self.offset();
        let chunk = &self.window[start..start + HEADER + header.length];
        if !header.matches(chunk) {
            return self.torn();
        }
        if header.kind == Kind::Old {
            return Ok(Found::Nothing);
        }
        let bytes = chunk[HEADER..].to_vec();
        self.at += (HEADER + header.length) as u64;
        Ok(Found::Chunk(header, bytes))
    }

    /// Whether the file is not another segment's by now: its writer changes the header first.
    fn is_still_itself(&self) -> io::Result<bool> {
        Ok(header_of(&self.file)? == self.header)
    }

    fn offset(&self) -> usize {
        usize::try_from(self.at - self.window_at).expect("the window holds the next chunk's start")
    }

    /// The file ends here, or what follows is no chunk.
    fn torn(&mut self) -> io::Result<Found> {
        let left = self.file.metadata()?.len().saturating_sub(self.at);
        if left == 0 {
            return Ok(Found::Nothing);
        }
        self.over = true;
        Ok(Found::Damage(left.saturating_sub(HEADER as u64).max(1)))
    }

    /// Has `wanted` bytes from the next chunk's start in the window; false when there are not as many.
    fn fill(&mut self, wanted: usize, end: u64) -> io::Result<bool> {
        let have = (self.window_at + self.window.len() as u64).saturating_sub(self.at);
        if have >= wanted as u64 && self.at >= self.window_at {
            return Ok(true);
        }
        let most = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(wanted.max(WINDOW));
        if most < wanted {
            return Ok(false);
        }
        self.has_read = true;
        self.window.resize(most, 0);
        self.window_at = self.at;
        let mut filled = 0;
        while filled < most {
            match self.file.read_at(&mut self.window[filled..], self.at + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.window.truncate(filled);
        Ok(filled >= wanted)
    }
}
