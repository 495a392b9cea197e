//! Writing a log: bounded, in segments, the newest kept.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use super::format::{
    ChunkHeader, HEADER, Kind, MAX_PAYLOAD, NO_SEGMENT, SEGMENT_HEADER, parse_segment_header, seal,
    segment_header, segment_path, segments,
};
use super::placeholder::Placeholder;
use super::shared::LogShared;
use crate::log::Stream;
use crate::time::Timestamp;

/// Into how many segments a log is cut: at most one of them is dropped at a
/// time, so that seven eighths of what was asked for are always there.
const SEGMENTS: u64 = 8;

/// The largest segment: what is read again after the host was killed. With 4 MiB, a log that is kept
/// whole took a fifth longer: ext4 without a journal is slow to make files where many were removed.
const MAX_SEGMENT: u64 = 16 << 20;

/// So many bytes at once make an atom noisy: the file of its log stays open until there are fewer.
const NOISY: usize = 64 << 10;

/// The writer of one log. It holds a descriptor only while its atom is noisy.
///
/// What the disk does not take is counted as dropped; it never harms the atom.
#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: PathBuf,
    segment_size: u64,
    /// How many segments may be there.
    allowed: u64,
    /// There is a segment that is being written: not before there is output, nor when the disk refused the last one.
    begun: bool,
    /// The file of that, while it is open.
    file: Option<File>,
    number: u64,
    length: u64,
    /// How long the file is that the segment was made of, when it was that of a dropped one:
    /// what stands between `length` and here is old.
    reused: u64,
    /// The file has blocks for a whole segment.
    reserved: bool,
    /// The oldest segment.
    first: u64,
    /// Bytes of output so far, dropped ones included.
    total: u64,
    shared: Arc<LogShared>,
    placeholder: Arc<Placeholder>,
}

impl LogWriter {
    /// Begins a log. It has no file before there is output.
    pub(crate) fn new(
        dir: &Path,
        max: u64,
        shared: Arc<LogShared>,
        placeholder: Arc<Placeholder>,
    ) -> Self {
        let least = SEGMENT_HEADER + 2 * HEADER as u64;
        let segment_size = (max / SEGMENTS).clamp(least, MAX_SEGMENT);
        Self {
            dir: dir.to_path_buf(),
            segment_size,
            allowed: (max / segment_size).max(1),
            begun: false,
            file: None,
            number: 0,
            length: 0,
            reused: 0,
            reserved: false,
            first: 0,
            total: 0,
            shared,
            placeholder,
        }
    }

    /// Goes on with a log after the host was killed: a torn chunk at its end is cut.
    pub(crate) fn reopened(mut self) -> Self {
        if let Err(error) = self.find_end() {
            tracing::warn!(path = %self.dir.display(), %error, "a log cannot be gone on with; a new part of it is begun");
        }
        self
    }

    fn find_end(&mut self) -> io::Result<()> {
        let mut numbers = segments(&self.dir)?;
        while let (Some(first), Some(last)) = (numbers.first().copied(), numbers.pop()) {
            let path = segment_path(&self.dir, last);
            let bytes = fs::read(&path)?;
            let Some(whole) = scan(&bytes) else {
                // The host was killed before it had written the header.
                fs::remove_file(&path)?;
                continue;
            };
            if whole.length < bytes.len() as u64 {
                OpenOptions::new().write(true).open(&path)?.set_len(whole.length)?;
            }
            self.begun = true;
            (self.first, self.number) = (first, last);
            (self.length, self.total) = (whole.length, whole.total);
            self.shared.publish(self.number, self.length);
            break;
        }
        Ok(())
    }

    /// How many bytes may be appended without dropping what a lossless reader
    /// needs. 0: such a reader's next move wakes the monitor.
    pub(crate) fn room(&self) -> usize {
        self.shared.room(|needed| {
            let Some(needed) = needed else { return usize::MAX };
            let headers = SEGMENT_HEADER + HEADER as u64;
            let current =
                self.segment_size.saturating_sub(self.length.max(SEGMENT_HEADER) + HEADER as u64);
            let unused = self.allowed.saturating_sub(self.number - self.first + 1);
            let unneeded = needed.saturating_sub(self.first);
            let more = (unused + unneeded) * (self.segment_size - headers);
            usize::try_from(current + more).unwrap_or(usize::MAX)
        })
    }

    /// Appends what was read: `buffer` is [`HEADER`] bytes of space, then the output.
    pub(crate) fn append(&mut self, stream: Stream, at: Timestamp, buffer: &mut [u8]) {
        let kind = Kind::Output(stream);
        let mut start = 0;
        while start + HEADER < buffer.len() {
            let rest = buffer.len() - start - HEADER;
            let part = match self.make_room() {
                Ok(room) => {
                    let part = rest.min(room).min(MAX_PAYLOAD);
                    // The header overwrites the end of the part before, which has been written.
                    let chunk = &mut buffer[start..start + HEADER + part];
                    self.write(kind, at, chunk);
                    part
                }
                Err(error) => {
                    self.refused(&error);
                    rest
                }
            };
            self.total += part as u64;
            start += part;
        }
        self.shared.publish(self.number, self.length);
        if buffer.len() < NOISY || self.placeholder.is_lent() {
            self.close_file();
        }
    }

    /// Ends the log.
    pub(crate) fn finish(mut self, at: Timestamp) {
        let mut chunk = [0; HEADER];
        if self.total == 0 && !self.begun {
            return self.shared.finish(0..0);
        }
        match self.make_room() {
            Ok(_) => self.write(Kind::End, at, &mut chunk),
            Err(error) => self.refused(&error),
        }
        self.cut_rest();
        self.close_file();
        self.shared.publish(self.number, self.length);
        // What was in the FIFOs at the end was taken although a lossless reader had to catch up:
        // there may be more than was asked for, until that reader has gone.
        let keep_from = (self.number + 1).saturating_sub(self.allowed);
        self.shared.finish(self.first..keep_from);
        remove_surplus(&self.dir, &self.shared);
    }

    fn write(&mut self, kind: Kind, at: Timestamp, chunk: &mut [u8]) {
        seal(chunk, kind, at, self.total);
        let end = self.length + chunk.len() as u64;
        // First, so that a reader of a killed host's log knows what is old at any moment.
        let (length, reused) = (self.length, self.reused);
        let written = self.file().and_then(|file| {
            let marked = if end < reused { mark_old(file, end) } else { Ok(()) };
            // A part may be written: the next chunk overwrites it. Cut it in case there is none.
            let cut = |_: &io::Error| drop(file.set_len(length));
            marked.and_then(|()| file.write_all_at(chunk, length)).inspect_err(cut)
        });
        match written {
            Ok(()) => self.length = end,
            Err(error) => self.refused(&error),
        }
    }

    /// The file of the segment that is being written.
    fn file(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let path = segment_path(&self.dir, self.number);
                self.placeholder.open(|| OpenOptions::new().write(true).open(&path))?
            }
        };
        Ok(self.file.insert(file))
    }

    /// It is opened again when there is more to write.
    fn close_file(&mut self) {
        self.file = None;
        self.placeholder.restore();
    }

    /// Cuts what is left of the segment that this one's file was before, and gives back what was reserved for it.
    fn cut_rest(&mut self) {
        let (length, reused) = (self.length, std::mem::take(&mut self.reused));
        let reserved = std::mem::take(&mut self.reserved);
        if self.begun
            && (reserved || length < reused)
            && let Err(error) = self.file().and_then(|file| file.set_len(length))
        {
            self.refused(&error);
        }
    }

    fn refused(&self, error: &io::Error) {
        tracing::warn!(path = %self.dir.display(), %error, "output of an atom cannot be kept");
    }

    /// Goes to the next segment when this one is full; says how many bytes of output it takes.
    fn make_room(&mut self) -> io::Result<usize> {
        if !self.begun || self.length + HEADER as u64 >= self.segment_size {
            self.rotate()?;
        }
        Ok(usize::try_from(self.segment_size - self.length).unwrap_or(MAX_PAYLOAD) - HEADER)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.cut_rest();
        // First, so that the next one has its room and its descriptor.
        self.file = None;
        let was_begun = std::mem::take(&mut self.begun);
        let needed = self.shared.needed().unwrap_or(u64::MAX);
        let next = if was_begun || self.length > 0 { self.number + 1 } else { self.number };
        let mut dropped = None;
        while next - self.first >= self.allowed && self.first < needed && self.first < next {
            if let Some(more) = dropped.replace(segment_path(&self.dir, self.first)) {
                let _ = fs::remove_file(more);
            }
            self.first += 1;
        }
        self.open_segment(next, dropped)
    }

    /// Begins a segment, in the file of a dropped one when there is one: to make and remove a file for every
    /// segment took two fifths of the time that a noisy atom's log takes.
    fn open_segment(&mut self, number: u64, dropped: Option<PathBuf>) -> io::Result<()> {
        let path = segment_path(&self.dir, number);
        let reused = dropped.and_then(|dropped| {
            let reused = reuse(&dropped, &path, &self.placeholder);
            if reused.is_err() {
                let _ = fs::remove_file(dropped);
            }
            reused.ok()
        });
        let (file, reused) = match reused {
            Some(reused) => reused,
            None => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                (self.placeholder.open(|| options.open(&path))?, 0)
            }
        };
        // An atom that has filled one will probably fill another. Where it cannot be done, it goes slower.
        self.reserved = reused == 0
            && number > 0
            && fallocate(&file, FallocateFlags::KEEP_SIZE, 0, self.segment_size).is_ok();
        if SEGMENT_HEADER < reused {
            mark_old(&file, SEGMENT_HEADER)?;
        }
        file.write_all_at(&segment_header(self.total), 0)?;
        (self.file, self.begun) = (Some(file), true);
        (self.number, self.length, self.reused) = (number, SEGMENT_HEADER, reused);
        self.shared.publish(number, SEGMENT_HEADER);
        Ok(())
    }
}

/// Makes the file of a dropped segment that of a new one, without a header yet; says how long it is.
///
/// Readers may have it open. They look at its header after everything that they
/// read of it, so that goes first.
fn reuse(dropped: &Path, path: &Path, placeholder: &Placeholder) -> io::Result<(File, u64)> {
    let file = placeholder.open(|| OpenOptions::new().write(true).open(dropped))?;
    file.write_all_at(&NO_SEGMENT, 0)?;
    let length = file.metadata()?.len();
    fs::rename(dropped, path)?;
    Ok((file, length))
}

/// Says that what stands from here on in a reused file is old.
fn mark_old(file: &File, from: u64) -> io::Result<()> {
    let mut mark = [0; HEADER];
    seal(&mut mark, Kind::Old, Timestamp::from_micros(0), 0);
    file.write_all_at(&mark, from)
}

/// Removes what a finished log has beyond its bound and nobody needs any more.
pub(crate) fn remove_surplus(dir: &Path, shared: &LogShared) {
    for number in shared.take_surplus() {
        let _ = fs::remove_file(segment_path(dir, number));
    }
}

/// What of a segment is whole.
struct Whole {
    /// How many bytes of the file.
    length: u64,
    /// How many bytes of output there are up to there.
    total: u64,
}

/// `None` without a whole header.
fn scan(bytes: &[u8]) -> Option<Whole> {
    let mut total = bytes.first_chunk().and_then(parse_segment_header)?;
    let mut at = SEGMENT_HEADER as usize;
    while let Some(header) = bytes[at..].first_chunk().and_then(ChunkHeader::parse) {
        let end = at + HEADER + header.length;
        let chunk = bytes.get(at..end);
        if header.kind == Kind::Old || chunk.is_none_or(|chunk| !header.matches(chunk)) {
            break;
        }
        total = header.offset + header.length as u64;
        at = end;
    }
    Some(Whole { length: at as u64, total })
}
