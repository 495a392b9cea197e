//! How a command fails: one line on stderr, and a status.

use std::io;
use std::process::ExitCode;

use super::output::printable;
use crate::engine::Error;
use crate::journal::JournalError;

/// Why a command ends before it has done what it was asked to.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something that a person should read.
    Said(String),
    /// Nobody reads our output any more, which is their right.
    Unread,
}

impl Failure {
    pub(super) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// Says what is to be said, and gives the status.
    pub(super) fn report(self, status: u8) -> ExitCode {
        match self {
            Self::Said(text) => {
                complain(&text);
                ExitCode::from(status)
            }
            Self::Unread => ExitCode::SUCCESS,
        }
    }
}

/// Writes a line to stderr. When nobody reads that either, nothing is left to do.
pub(super) fn complain(text: &str) {
    use io::Write;
    let line = format!("caesium: {}\n", printable(text));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Said(error.to_string())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Error::from(error).into()
    }
}

/// A failed write to our own stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Unread
        } else {
            Self::Said(format!("cannot write to standard output: {error}"))
        }
    }
}

/// For a command whose work is done, whether somebody reads what it says of it or not.
pub(super) fn if_read(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
