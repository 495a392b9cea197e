//! Errors on their way from the holder to a client, where they are the same again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::atom::{AtomId, Bytes, SpecError};
use crate::driver::DriverError;
use crate::engine::Error;
use crate::journal::{JournalError, Unfit};
use crate::lifecycle::{EventKind, Rejection, State, allowed_events};

/// An [`Error`] as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trouble {
    NotFound(String),
    Ambiguous { text: String, ids: Vec<AtomId>, count: u64 },
    InvalidSpec { field: String, problem: String },
    NameInUse { name: String, by: AtomId },
    KeyInUse { key: String, by: AtomId },
    IdInUse(AtomId),
    Rejected { id: AtomId, refusal: Refusal },
    TimedOut { id: AtomId, state: State, waited: Duration },
    StoreLocked { path: Bytes, holder: String },
    StoreRefused { path: Bytes, problem: String },
    InDoubt(JournalTrouble),
    Journal(JournalTrouble),
    Exhausted { what: String, hint: String, source: Option<Os> },
    Io { what: String, source: Os },
    DriverClosed,
    NothingToWaitFor,
    Closed,
    HolderGone { path: Bytes },
    HolderBusy { path: Bytes },
    NotServed { path: Bytes },
    RequestTooLarge { limit: u64 },
    Incompatible { path: Bytes, oldest: u16, newest: u16 },
    NoStdinPipe(AtomId),
    StdinFull(AtomId),
    StdinClosed(AtomId),
}

/// A [`JournalError`] as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum JournalTrouble {
    Rejected(Refusal),
    NoSuchAtom(AtomId),
    IdInUse(AtomId),
    NameInUse { name: String, by: AtomId },
    KeyInUse { key: String, by: AtomId },
    Io { what: String, path: Bytes, source: Os },
    NoSpace { source: Os },
    TooLarge { limit: u64 },
    Damaged { path: Bytes, offset: u64, seq: Option<u64>, problem: String },
    Newer { path: Bytes, found: u32, known: u32 },
    HistoryDamaged { problem: String },
    InDoubt { seq: u64, cause: String },
    Poisoned { cause: String },
    Compacted { asked: u64, oldest: u64 },
    Lagged { at: u64, oldest: u64 },
    Inconsistent { seq: u64, problem: String },
    Closed,
}

/// A [`Rejection`] as bytes: what would have been allowed follows from the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    state: State,
    event: EventKind,
}

impl From<Rejection> for Refusal {
    fn from(Rejection { state, event, allowed: _ }: Rejection) -> Self {
        Self { state, event }
    }
}

impl From<Refusal> for Rejection {
    fn from(Refusal { state, event }: Refusal) -> Self {
        Self { state, event, allowed: allowed_events(state) }
    }
}

/// What the system said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Os {
    /// By its number.
    Number(i32),
    /// In words, with the place of its kind among [`KINDS`].
    Words(u8, String),
}

/// The kinds of errors that are made without the system's number.
const KINDS: [io::ErrorKind; 8] = [
    io::ErrorKind::Other,
    io::ErrorKind::NotFound,
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::InvalidData,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::TimedOut,
    io::ErrorKind::BrokenPipe,
];

impl From<&io::Error> for Os {
    fn from(error: &io::Error) -> Self {
        if let Some(number) = error.raw_os_error() {
            return Self::Number(number);
        }
        let kind = KINDS.iter().position(|kind| *kind == error.kind()).unwrap_or_default();
        Self::Words(kind as u8, error.to_string())
    }
}

impl From<Os> for io::Error {
    fn from(os: Os) -> Self {
        match os {
            Os::Number(number) => Self::from_raw_os_error(number),
            Os::Words(kind, text) => {
                let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(io::ErrorKind::Other);
                Self::new(kind, text)
            }
        }
    }
}

fn bytes(path: PathBuf) -> Bytes {
    Bytes(path.into_os_string())
}

fn path(bytes: Bytes) -> PathBuf {
    bytes.0.into()
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(text) => Self::NotFound(text),
            Error::Ambiguous { text, ids, count } => {
                Self::Ambiguous { text, ids, count: count as u64 }
            }
            Error::InvalidSpec(error) => Self::InvalidSpec {
                field: error.field().to_owned(),
                problem: error.problem().to_owned(),
            },
            Error::NameInUse { name, by } => Self::NameInUse { name, by },
            Error::KeyInUse { key, by } => Self::KeyInUse { key, by },
            Error::IdInUse(id) => Self::IdInUse(id),
            Error::Rejected { id, rejection } => Self::Rejected { id, refusal: rejection.into() },
            Error::TimedOut { id, state, waited } => Self::TimedOut { id, state, waited },
            Error::StoreLocked { path, holder } => Self::StoreLocked { path: bytes(path), holder },
            Error::StoreRefused { path, problem } => {
                Self::StoreRefused { path: bytes(path), problem }
            }
            Error::InDoubt(error) => Self::InDoubt(error.into()),
            Error::Journal(error) => Self::Journal(error.into()),
            Error::Driver(DriverError::Exhausted { what, hint, source }) => Self::Exhausted {
                what: what.into_owned(),
                hint,
                source: source.as_ref().map(Os::from),
            },
            Error::Driver(DriverError::Io { what, source }) => {
                Self::Io { what, source: (&source).into() }
            }
            Error::Driver(DriverError::Closed) => Self::DriverClosed,
            Error::NothingToWaitFor => Self::NothingToWaitFor,
            Error::NoStdinPipe(id) => Self::NoStdinPipe(id),
            Error::StdinFull(id) => Self::StdinFull(id),
            Error::StdinClosed(id) => Self::StdinClosed(id),
            Error::Closed => Self::Closed,
            Error::HolderGone { path } => Self::HolderGone { path: bytes(path) },
            Error::HolderBusy { path } => Self::HolderBusy { path: bytes(path) },
            Error::NotServed { path } => Self::NotServed { path: bytes(path) },
            Error::RequestTooLarge { limit } => Self::RequestTooLarge { limit: limit as u64 },
            Error::Incompatible { path, oldest, newest } => {
                Self::Incompatible { path: bytes(path), oldest, newest }
            }
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotFound(text) => Self::NotFound(text),
            Trouble::Ambiguous { text, ids, count } => {
                Self::Ambiguous { text, ids, count: usize::try_from(count).unwrap_or(usize::MAX) }
            }
            Trouble::InvalidSpec { field, problem } => SpecError::new(field, problem).into(),
            Trouble::NameInUse { name, by } => Self::NameInUse { name, by },
            Trouble::KeyInUse { key, by } => Self::KeyInUse { key, by },
            Trouble::IdInUse(id) => Self::IdInUse(id),
            Trouble::Rejected { id, refusal } => Self::Rejected { id, rejection: refusal.into() },
            Trouble::TimedOut { id, state, waited } => Self::TimedOut { id, state, waited },
            Trouble::StoreLocked { path: of, holder } => {
                Self::StoreLocked { path: path(of), holder }
            }
            Trouble::StoreRefused { path: of, problem } => {
                Self::StoreRefused { path: path(of), problem }
            }
            Trouble::InDoubt(trouble) => Self::InDoubt(trouble.into()),
            Trouble::Journal(trouble) => Self::Journal(trouble.into()),
            Trouble::Exhausted { what, hint, source } => Self::Driver(DriverError::Exhausted {
                what: what.into(),
                hint,
                source: source.map(io::Error::from),
            }),
            Trouble::Io { what, source } => {
                Self::Driver(DriverError::Io { what, source: source.into() })
            }
            Trouble::DriverClosed => Self::Driver(DriverError::Closed),
            Trouble::NothingToWaitFor => Self::NothingToWaitFor,
            Trouble::NoStdinPipe(id) => Self::NoStdinPipe(id),
            Trouble::StdinFull(id) => Self::StdinFull(id),
            Trouble::StdinClosed(id) => Self::StdinClosed(id),
            Trouble::Closed => Self::Closed,
            Trouble::HolderGone { path: of } => Self::HolderGone { path: path(of) },
            Trouble::HolderBusy { path: of } => Self::HolderBusy { path: path(of) },
            Trouble::NotServed { path: of } => Self::NotServed { path: path(of) },
            Trouble::RequestTooLarge { limit } => {
                Self::RequestTooLarge { limit: usize::try_from(limit).unwrap_or(usize::MAX) }
            }
            Trouble::Incompatible { path: of, oldest, newest } => {
                Self::Incompatible { path: path(of), oldest, newest }
            }
        }
    }
}

impl From<JournalError> for JournalTrouble {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Unfit(Unfit::Rejected(rejection)) => Self::Rejected(rejection.into()),
            JournalError::Unfit(Unfit::NoSuchAtom(id)) => Self::NoSuchAtom(id),
            JournalError::Unfit(Unfit::IdInUse(id)) => Self::IdInUse(id),
            JournalError::Unfit(Unfit::NameInUse { name, by }) => Self::NameInUse { name, by },
            JournalError::Unfit(Unfit::KeyInUse { key, by }) => Self::KeyInUse { key, by },
            JournalError::Io { what, path, source } => {
                Self::Io { what: what.into_owned(), path: bytes(path), source: (&*source).into() }
            }
            JournalError::NoSpace { source } => Self::NoSpace { source: (&*source).into() },
            JournalError::TooLarge { limit } => Self::TooLarge { limit: limit as u64 },
            JournalError::Damaged { path, offset, seq, problem } => {
                Self::Damaged { path: bytes(path), offset, seq, problem }
            }
            JournalError::Newer { path, found, known } => {
                Self::Newer { path: bytes(path), found, known }
            }
            JournalError::HistoryDamaged { problem } => Self::HistoryDamaged { problem },
            JournalError::InDoubt { seq, cause } => {
                Self::InDoubt { seq, cause: cause.as_ref().into() }
            }
            JournalError::Poisoned { cause } => Self::Poisoned { cause: cause.as_ref().into() },
            JournalError::Compacted { asked, oldest } => Self::Compacted { asked, oldest },
            JournalError::Lagged { at, oldest } => Self::Lagged { at, oldest },
            JournalError::Inconsistent { seq, problem } => Self::Inconsistent { seq, problem },
            JournalError::Closed => Self::Closed,
        }
    }
}

impl From<JournalTrouble> for JournalError {
    fn from(trouble: JournalTrouble) -> Self {
        match trouble {
            JournalTrouble::Rejected(refusal) => Unfit::Rejected(refusal.into()).into(),
            JournalTrouble::NoSuchAtom(id) => Unfit::NoSuchAtom(id).into(),
            JournalTrouble::IdInUse(id) => Unfit::IdInUse(id).into(),
            JournalTrouble::NameInUse { name, by } => Unfit::NameInUse { name, by }.into(),
            JournalTrouble::KeyInUse { key, by } => Unfit::KeyInUse { key, by }.into(),
            JournalTrouble::Io { what, path: of, source } => {
                Self::Io { what: what.into(), path: path(of), source: Arc::new(source.into()) }
            }
            JournalTrouble::NoSpace { source } => Self::NoSpace { source: Arc::new(source.into()) },
            JournalTrouble::TooLarge { limit } => {
                Self::TooLarge { limit: usize::try_from(limit).unwrap_or(usize::MAX) }
            }
            JournalTrouble::Damaged { path: of, offset, seq, problem } => {
                Self::Damaged { path: path(of), offset, seq, problem }
            }
            JournalTrouble::Newer { path: of, found, known } => {
                Self::Newer { path: path(of), found, known }
            }
            JournalTrouble::HistoryDamaged { problem } => Self::HistoryDamaged { problem },
            JournalTrouble::InDoubt { seq, cause } => Self::InDoubt { seq, cause: cause.into() },
            JournalTrouble::Poisoned { cause } => Self::Poisoned { cause: cause.into() },
            JournalTrouble::Compacted { asked, oldest } => Self::Compacted { asked, oldest },
            JournalTrouble::Lagged { at, oldest } => Self::Lagged { at, oldest },
            JournalTrouble::Inconsistent { seq, problem } => Self::Inconsistent { seq, problem },
            JournalTrouble::Closed => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    fn journal_errors() -> Vec<JournalError> {
        let id = AtomId::from_bytes([7; 16]);
        let rejection = Rejection {
            state: State::Stopped,
            event: EventKind::Exited,
            allowed: allowed_events(State::Stopped),
        };
        vec![
            Unfit::Rejected(rejection).into(),
            Unfit::NoSuchAtom(id).into(),
            Unfit::IdInUse(id).into(),
            Unfit::NameInUse { name: "n".into(), by: id }.into(),
            Unfit::KeyInUse { key: "k".into(), by: id }.into(),
            JournalError::Io {
                what: "cannot open".into(),
                path: "/x".into(),
                source: os(13).into(),
            },
            JournalError::NoSpace { source: os(28).into() },
            JournalError::TooLarge { limit: 7 },
            JournalError::Damaged {
                path: "/x".into(),
                offset: 3,
                seq: Some(4),
                problem: "p".into(),
            },
            JournalError::Newer { path: "/x".into(), found: 9, known: 1 },
            JournalError::HistoryDamaged { problem: "p".into() },
            JournalError::InDoubt { seq: 3, cause: "c".into() },
            JournalError::Poisoned { cause: "c".into() },
            JournalError::Compacted { asked: 1, oldest: 9 },
            JournalError::Lagged { at: 1, oldest: 9 },
            JournalError::Inconsistent { seq: 3, problem: "p".into() },
            JournalError::Closed,
        ]
    }

    fn errors() -> Vec<Error> {
        let id = AtomId::from_bytes([7; 16]);
        let rejection = Rejection {
            state: State::Running,
            event: EventKind::DeleteAsked,
            allowed: allowed_events(State::Running),
        };
        let mut errors = vec![
            Error::NotFound("x".into()),
            Error::Ambiguous { text: "01".into(), ids: vec![id], count: 12 },
            SpecError::new("name", "is bad").into(),
            Error::NameInUse { name: "n".into(), by: id },
            Error::KeyInUse { key: "k".into(), by: id },
            Error::IdInUse(id),
            Error::Rejected { id, rejection },
            Error::TimedOut { id, state: State::Running, waited: Duration::from_millis(3) },
            Error::StoreLocked { path: "/x".into(), holder: "h".into() },
            Error::StoreRefused { path: "/x".into(), problem: "p".into() },
            Error::InDoubt(JournalError::InDoubt { seq: 1, cause: "c".into() }),
            Error::Driver(DriverError::Exhausted {
                what: "descriptors".into(),
                hint: "raise it".into(),
                source: Some(os(24)),
            }),
            Error::Driver(DriverError::Io { what: "read".into(), source: os(5) }),
            Error::Driver(DriverError::Io {
                what: "read".into(),
                source: io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"),
            }),
            Error::Driver(DriverError::Closed),
            Error::NothingToWaitFor,
            Error::NoStdinPipe(id),
            Error::StdinFull(id),
            Error::StdinClosed(id),
            Error::Closed,
            Error::HolderGone { path: "/x".into() },
            Error::HolderBusy { path: "/x".into() },
            Error::NotServed { path: "/x".into() },
            Error::RequestTooLarge { limit: 9 },
            Error::Incompatible { path: "/x".into(), oldest: 2, newest: 3 },
        ];
        errors.extend(journal_errors().into_iter().map(Error::Journal));
        errors
    }

    #[test]
    fn every_error_arrives_as_it_was_sent() {
        for (sent, same) in errors().into_iter().zip(errors()) {
            let trouble = Trouble::from(sent);
            let mut bytes = Vec::new();
            crate::socket::put(&mut bytes, &trouble).unwrap();
            let (received, _) = crate::socket::take::<Trouble>(&bytes).unwrap().unwrap();
            let received = Error::from(received);
            assert_eq!(received.to_string(), same.to_string());
            // An error of a kind and a text is made anew: its insides look the same.
            assert_eq!(format!("{received:?}"), format!("{same:?}"));
        }
    }
}
