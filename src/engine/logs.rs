//! Reading what an atom printed.

use std::time::{Duration, Instant};

use super::Error;
use crate::driver::DriverError;
use crate::log::{LogItem, LogNext, LogSource};

/// The output of an atom: an iterator over what is kept, and, when it follows, over what comes.
pub struct Logs {
    source: Box<dyn LogSource>,
    ended: bool,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Logs {
    pub(crate) fn new(source: Box<dyn LogSource>) -> Self {
        Self { source, ended: false }
    }

    /// A log that could or could not be opened: what went wrong is what reading it gives.
    pub(crate) fn opened(source: Result<Box<dyn LogSource>, DriverError>) -> Self {
        Self::new(source.unwrap_or_else(|error| Box::new(Unopened(Some(error)))))
    }

    /// The next piece, waiting at most `timeout` for it.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] when the log cannot be read.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<LogNext, Error> {
        self.next_before(Instant::now().checked_add(timeout))
    }

    fn next_before(&mut self, deadline: Option<Instant>) -> Result<LogNext, Error> {
        if self.ended {
            return Ok(LogNext::End);
        }
        let next = self.source.next(deadline);
        self.ended = matches!(next, Ok(LogNext::End) | Err(_));
        Ok(next?)
    }

    /// All that is kept, of both streams in the order in which it was read, as one byte string.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] when the log cannot be read.
    pub fn read_to_end(self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for item in self {
            match item? {
                LogItem::Chunk(chunk) => bytes.extend_from_slice(&chunk.bytes),
                LogItem::Dropped { .. } => {}
            }
        }
        Ok(bytes)
    }
}

/// A log that could not be opened.
struct Unopened(Option<DriverError>);

impl LogSource for Unopened {
    fn next(&mut self, _deadline: Option<Instant>) -> Result<LogNext, DriverError> {
        self.0.take().map_or(Ok(LogNext::End), Err)
    }
}

impl Iterator for Logs {
    type Item = Result<LogItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_before(None) {
            Ok(LogNext::Item(item)) => Some(Ok(item)),
            Ok(LogNext::End | LogNext::TimedOut) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
