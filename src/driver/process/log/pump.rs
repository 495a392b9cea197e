//! From the FIFOs into the log.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

use super::{HEADER, LogWriter, MAX_PAYLOAD};
use crate::log::Stream;
use crate::time;

/// The most that is read of one FIFO in one turn of the monitor's loop, so
/// that a noisy atom does not starve the others.
const TURN_BYTES: usize = 1 << 20;

/// What a FIFO of a noisy atom is enlarged to: the most that an ordinary user may (fs.pipe-max-size).
/// Only once it was found full: what all pipes of a user may hold together is limited too.
const NOISY_PIPE: usize = 1 << 20;

/// No pipe holds less: a page, of any architecture that Linux runs on.
const LEAST_PIPE: usize = 4096;

/// The FIFOs of one atom and the log that they are read into.
#[derive(Debug)]
pub(crate) struct Pump {
    out: Option<Source>,
    err: Option<Source>,
    /// Which of them were read to their end.
    out_ended: bool,
    err_ended: bool,
    log: LogWriter,
}

#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    enlarged: bool,
}

/// How a turn of reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// There is nothing now, or there is more and it is others' turn.
    Waiting,
    /// Nobody has it open for writing any more.
    Ended,
    /// A lossless reader has to catch up first.
    HeldUp,
}

impl Pump {
    pub(crate) fn new(out: Option<OwnedFd>, err: Option<OwnedFd>, log: LogWriter) -> Self {
        let source = |fd| Source { fd, enlarged: false };
        Self { out: out.map(source), err: err.map(source), out_ended: false, err_ended: false, log }
    }

    fn source(&mut self, stream: Stream) -> &mut Option<Source> {
        match stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        }
    }

    /// Our end of a FIFO, as long as it may still give something.
    pub(crate) fn fd(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        let source = match stream {
            Stream::Stdout => &self.out,
            Stream::Stderr => &self.err,
        };
        source.as_ref().map(|source| source.fd.as_fd())
    }

    /// Whether both FIFOs have ended.
    pub(crate) fn is_dry(&self) -> bool {
        self.out.is_none() && self.err.is_none()
    }

    /// Whether both FIFOs were read until nobody had them open for writing, and nothing was in them.
    pub(crate) fn has_seen_both_ends(&self) -> bool {
        self.out_ended && self.err_ended
    }

    /// Closes our end of a FIFO.
    pub(crate) fn close(&mut self, stream: Stream) {
        *self.source(stream) = None;
    }

    /// Reads what there is, within the bounds of one turn.
    pub(crate) fn turn(&mut self, stream: Stream, buffer: &mut [u8]) -> Turn {
        let mut left = TURN_BYTES;
        while left > 0 {
            let room = self.log.room();
            if room == 0 {
                return Turn::HeldUp;
            }
            match self.read(stream, room.min(left), buffer) {
                Read::Some(bytes) => left -= bytes,
                Read::Nothing => return Turn::Waiting,
                Read::End => return Turn::Ended,
            }
        }
        Turn::Waiting
    }

    /// Reads everything that was in the FIFO when its writer ended, whoever has to catch up.
    pub(crate) fn drain(&mut self, stream: Stream, buffer: &mut [u8]) -> Turn {
        // What came later, of somebody who still writes, is not waited for. Mostly there is nothing any more.
        let mut left = None;
        loop {
            match self.read(stream, left.unwrap_or(MAX_PAYLOAD), buffer) {
                Read::Some(bytes) => {
                    let held = || self.fd(stream).and_then(|fd| fcntl_getpipe_size(fd).ok());
                    let before = left.unwrap_or_else(|| held().unwrap_or(NOISY_PIPE));
                    match before.saturating_sub(bytes) {
                        0 => return Turn::Waiting,
                        rest => left = Some(rest),
                    }
                }
                Read::Nothing => return Turn::Waiting,
                Read::End => return Turn::Ended,
            }
        }
    }

    fn read(&mut self, stream: Stream, most: usize, buffer: &mut [u8]) -> Read {
        let Some(source) = self.source(stream) else { return Read::End };
        let end = HEADER + most.min(MAX_PAYLOAD).min(buffer.len() - HEADER);
        match rustix::io::read(&source.fd, &mut buffer[HEADER..end]) {
            Ok(0) => {
                match stream {
                    Stream::Stdout => self.out_ended = true,
                    Stream::Stderr => self.err_ended = true,
                }
                Read::End
            }
            Ok(bytes) => {
                if bytes >= LEAST_PIPE
                    && !source.enlarged
                    && fcntl_getpipe_size(&source.fd).is_ok_and(|size| bytes >= size)
                {
                    source.enlarged = true;
                    // Refused when the user's pipes have all they may: it works without, slower.
                    let _ = fcntl_setpipe_size(&source.fd, NOISY_PIPE);
                }
                self.log.append(stream, time::now(), &mut buffer[..HEADER + bytes]);
                Read::Some(bytes)
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(error) => {
                tracing::error!(%error, "cannot read what an atom prints");
                Read::End
            }
        }
    }

    /// Completes the log.
    pub(crate) fn finish(self) {
        self.log.finish(time::now());
    }
}

enum Read {
    Some(usize),
    Nothing,
    End,
}
