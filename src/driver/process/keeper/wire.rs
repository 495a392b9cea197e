//! What host and keeper say to each other.
//!
//! A [`Hello`] of fixed bytes that no version changes, then a stream of [frames](crate::socket).

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::atom::{AtomId, Bytes};
use crate::driver::process::dir::trouble;
use crate::driver::{Command, DriverError, Observation, Order, Surroundings};

/// The protocol that this version speaks.
pub(super) const PROTOCOL: u16 = 1;

/// The first bytes of both sides.
const MAGIC: [u8; 8] = *b"CAESIUMK";

/// How a connection begins: each side says what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    /// What the host wants of the keeper.
    pub(super) purpose: Purpose,
    /// The oldest protocol that is understood.
    pub(super) oldest: u16,
    /// The newest.
    pub(super) newest: u16,
}

/// What a host wants of the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::driver::process) enum Purpose {
    /// To work with it. The atoms outlive this host.
    Work,
    /// The same; when this connection ends without a goodbye, the atoms are stopped.
    WorkAndStop,
    /// That it leaves, and leaves the atoms to another keeper.
    Leave,
}

impl Hello {
    /// The size of one, in bytes.
    pub(super) const BYTES: usize = 16;

    /// What this version says.
    pub(super) fn new(purpose: Purpose) -> Self {
        let (oldest, newest) = spoken();
        Self { purpose, oldest, newest }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = match self.purpose {
            Purpose::Work => 1,
            Purpose::Leave => 2,
            Purpose::WorkAndStop => 3,
        };
        bytes[10..12].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.newest.to_le_bytes());
        bytes
    }

    /// `None` for what is no hello.
    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        if bytes[..8] != MAGIC {
            return None;
        }
        let purpose = match bytes[8] {
            1 => Purpose::Work,
            2 => Purpose::Leave,
            3 => Purpose::WorkAndStop,
            _ => return None,
        };
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Some(Self { purpose, oldest: number(10), newest: number(12) })
    }

    /// The protocol that both sides speak, if there is one.
    pub(super) fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// The oldest and the newest protocol that this version speaks.
#[cfg(not(feature = "test-util"))]
const fn spoken() -> (u16, u16) {
    (PROTOCOL, PROTOCOL)
}

/// The same; a test may have this process be of another version: `CAESIUM_TEST_PROTOCOL`, a number.
#[cfg(feature = "test-util")]
fn spoken() -> (u16, u16) {
    let other = std::env::var("CAESIUM_TEST_PROTOCOL").ok().and_then(|text| text.parse().ok());
    let protocol = other.unwrap_or(PROTOCOL);
    (protocol, protocol)
}

/// What a host asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::driver::process) enum Request {
    /// To set aside what an atom needs. Answered by [`Answer::Prepared`].
    Prepare {
        /// Told back.
        id: u64,
        /// What is to be prepared.
        order: Preparation,
    },
    /// To give that back.
    Release(AtomId),
    /// To start what was prepared.
    Start(AtomId),
    /// Anything else that an engine commands.
    Command(Command),
    /// To tell how far the log of an atom has come, now and from now on. Answered by [`Answer::Watching`].
    WatchLog {
        /// Told back.
        id: u64,
        /// Whose log.
        atom: AtomId,
        /// Nothing may be dropped that the host has not read.
        lossless: bool,
    },
    /// The oldest segment of a log that the host still needs.
    NeedLog(AtomId, Option<u64>),
    /// To tell no more of a log.
    UnwatchLog(AtomId),
    /// To remove what belongs to an atom that another store started: nothing is looked for, nothing signalled.
    /// Answered by [`Observation::Removed`].
    Forget(AtomId),
    /// Goodbye: the host closes, and what lives is to go on.
    Close,
}

/// All that an atom is started with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::driver::process) struct Preparation {
    /// The atom and its spec, which travels without the values of secrets.
    pub(in crate::driver::process) order: Order,
    /// Those values. They are in the memory of both, and nowhere else.
    pub(in crate::driver::process) secrets: Vec<(String, Bytes)>,
    /// The host's own environment, working directory and umask.
    pub(in crate::driver::process) around: Surroundings,
    /// Whether it may be put into a cgroup.
    pub(in crate::driver::process) cgroups: bool,
}

/// What a keeper answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To [`Request::Prepare`].
    Prepared {
        /// Of which question.
        id: u64,
        /// What came of it.
        result: Result<(), Trouble>,
    },
    /// Something happened.
    Observed(Observation),
    /// To [`Request::WatchLog`]; `None` when that log is complete.
    Watching {
        /// Of which question.
        id: u64,
        /// Whose log.
        atom: AtomId,
        /// How far it is.
        extent: Option<Extent>,
    },
    /// A watched log has come further.
    LogGrew(AtomId, Extent),
}

/// How far a log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::driver::process) struct Extent {
    /// The segment that is being written.
    pub(in crate::driver::process) segment: u64,
    /// How many bytes of it are whole chunks.
    pub(in crate::driver::process) written: u64,
    /// Nothing more will come.
    pub(in crate::driver::process) complete: bool,
}

/// A [`DriverError`] on its way from the keeper to its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trouble {
    /// What the system said, if it said something.
    errno: Option<i32>,
    /// On what.
    path: Bytes,
    /// For what the system did not say.
    text: String,
}

impl Trouble {
    /// Takes what can be told of an error.
    pub(super) fn of(error: &DriverError, path: &Path) -> Self {
        let (source, text) = match error {
            DriverError::Exhausted { source, .. } => (source.as_ref(), String::new()),
            DriverError::Io { source, what } => (Some(source), what.clone()),
            DriverError::Closed => (None, error.to_string()),
        };
        let errno = source.and_then(io::Error::raw_os_error);
        Self { errno, path: Bytes(path.into()), text }
    }

    /// The error again.
    pub(super) fn into_error(self) -> DriverError {
        let path = Path::new(self.path.as_os_str());
        let Some(errno) = self.errno else {
            return DriverError::Io {
                what: format!("cannot prepare {}", path.display()),
                source: io::Error::other(self.text),
            };
        };
        let mut error = trouble(path, io::Error::from_raw_os_error(errno));
        if let DriverError::Io { what, .. } = &mut error
            && !self.text.is_empty()
        {
            *what = self.text;
        }
        error
    }
}
