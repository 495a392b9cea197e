//! One end of a connection that does not block: what came in, and what is to go out.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame;

/// A buffer that has grown beyond this is given back when it is empty.
const KEPT: usize = 64 << 10;

/// A connection, with buffers for both ways.
#[derive(Debug)]
pub(crate) struct Pipe {
    stream: UnixStream,
    input: Vec<u8>,
    /// How much of the input was taken.
    taken: usize,
    output: Vec<u8>,
    /// How much of the output was sent.
    sent: usize,
}

impl Pipe {
    /// Over a stream that is made not to block.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), taken: 0, output: Vec::new(), sent: 0 })
    }

    /// Reads what there is, at most `most` bytes; true at the end of the stream.
    pub(crate) fn fill(&mut self, most: usize) -> io::Result<bool> {
        self.input.drain(..self.taken);
        self.taken = 0;
        if self.input.is_empty() && self.input.capacity() > KEPT {
            self.input = Vec::new();
        }
        let mut chunk = [0; 16 << 10];
        let mut total = 0;
        while total < most {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(true),
                Ok(bytes) => {
                    self.input.extend_from_slice(&chunk[..bytes]);
                    total += bytes;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The next bytes of a fixed number, once they have come.
    pub(crate) fn take_bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.input[self.taken..].first_chunk()?;
        self.taken += N;
        Some(bytes)
    }

    /// The next message, once it is whole, and how many bytes it had.
    ///
    /// # Errors
    ///
    /// `InvalidData` for what is no message: what follows cannot be understood either.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, usize)>> {
        let message = frame::take(&self.input[self.taken..])?;
        if let Some((_, bytes)) = &message {
            self.taken += bytes;
        }
        Ok(message)
    }

    /// Adds bytes to what is to go out.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Adds a message to what is to go out; gives how many bytes it has.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is larger than a frame may be.
    pub(crate) fn put(&mut self, message: &impl Serialize) -> io::Result<usize> {
        let before = self.output.len();
        frame::put(&mut self.output, message)?;
        Ok(self.output.len() - before)
    }

    /// Sends as much as the other side takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            // A host may have left SIGPIPE as it is: a peer that has gone is an error, and not our end.
            match send(&self.stream, &self.output[self.sent..], SendFlags::NOSIGNAL) {
                Ok(bytes) => self.sent += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // What was sent goes when it is the larger part.
                    if self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.output.shrink_to(KEPT);
        self.sent = 0;
        Ok(())
    }

    /// How many bytes the other side has not taken.
    pub(crate) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
