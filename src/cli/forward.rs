//! Passing on what an atom prints: its bytes as they are, to our own streams.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::failure::{Failure, complain};
use crate::engine::{Error, Logs};
use crate::log::{LogItem, Stream};

/// One of our own streams, unbuffered: what is there is shown, not only whole lines.
#[derive(Debug)]
pub(super) struct Sink(File);

impl Sink {
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    pub(super) fn stderr() -> io::Result<Self> {
        Ok(Self(io::stderr().as_fd().try_clone_to_owned()?.into()))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                // Somebody who shares it with us has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the two streams of an atom go, until nobody reads one any more.
#[derive(Debug)]
pub(super) struct Sinks {
    stdout: Option<Sink>,
    stderr: Option<Sink>,
}

impl Sinks {
    pub(super) fn ours() -> Result<Self, Failure> {
        Ok(Self { stdout: Some(Sink::stdout()?), stderr: Some(Sink::stderr()?) })
    }

    fn of(&mut self, stream: Stream) -> &mut Option<Sink> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Nobody reads either of them.
    fn gone(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Writes everything, unless the stream has failed before.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let sink = self.of(stream);
        let Some(file) = sink else { return Ok(()) };
        let written = file.write_all(bytes);
        if written.is_err() {
            *sink = None;
        }
        written
    }
}

/// Shows what an atom prints until it has stopped and everything was shown.
///
/// `again` opens the output anew, from an offset on, when who read it for us has ended. `unread` is called, once, when a
/// stream of ours cannot be written to any more.
pub(super) fn forward(
    mut logs: Logs,
    again: impl Fn(u64) -> Result<Logs, Error>,
    unread: impl FnOnce(),
) -> Result<(), Failure> {
    let mut sinks = Sinks::ours()?;
    // That the other stream fails as well is no second wish that the atom should end.
    let mut unread = Some(unread);
    let (mut dropped, mut shown) = (0, 0);
    let mut trouble = Ok(());
    while let Some(item) = logs.next() {
        match item {
            Err(Error::HolderGone { .. }) => logs = again(shown)?,
            Err(error) => return Err(error.into()),
            Ok(LogItem::Dropped { bytes }) => dropped += bytes,
            Ok(LogItem::Chunk(chunk)) => {
                shown = chunk.offset + chunk.bytes.len() as u64;
                let Err(error) = sinks.write(chunk.stream, &chunk.bytes) else { continue };
                if error.kind() != ErrorKind::BrokenPipe {
                    let problem = format!("cannot write to {}: {error}", chunk.stream);
                    trouble = Err(Failure::said(problem));
                }
                if let Some(unread) = unread.take() {
                    unread();
                }
                if sinks.gone() {
                    break;
                }
            }
        }
    }
    say_dropped(dropped);
    trouble
}

/// Says that something is missing in what was shown.
pub(super) fn say_dropped(bytes: u64) {
    if bytes > 0 {
        complain(&format!(
            "{bytes} bytes of output are missing: the log did not keep them (--log-max sets its size)"
        ));
    }
}
