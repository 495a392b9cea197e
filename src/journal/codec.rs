//! Payloads: bincode with fixed integers, a limit, and nothing after the end.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::JournalError;
use super::frame::MAX_PAYLOAD;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MAX_PAYLOAD as u64)
        .reject_trailing_bytes()
}

/// The bytes of a payload.
///
/// # Errors
///
/// [`JournalError::TooLarge`]; nothing else can go wrong with our own types.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, JournalError> {
    options().serialize(value).map_err(|_| JournalError::TooLarge { limit: MAX_PAYLOAD })
}

/// Appends the bytes of a payload; gives how many they are.
///
/// # Errors
///
/// The same, and nothing is appended.
pub(crate) fn append<T: Serialize>(value: &T, to: &mut Vec<u8>) -> Result<usize, JournalError> {
    let before = to.len();
    // With a limit all would be gone through twice, to know the length before.
    let appended = options().with_no_limit().serialize_into(&mut *to, value);
    match to.len() - before {
        bytes if appended.is_ok() && bytes <= MAX_PAYLOAD => Ok(bytes),
        _ => {
            to.truncate(before);
            Err(JournalError::TooLarge { limit: MAX_PAYLOAD })
        }
    }
}

/// The same of what a payload begins with, whatever follows.
pub(crate) fn decode_beginning<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    let decoded = options().allow_trailing_bytes().deserialize(payload);
    decoded.map_err(|error| format!("a payload cannot be read: {error}"))
}

/// The value of a payload whose checksum has been found right.
///
/// # Errors
///
/// In words, what is wrong.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    if payload.len() > MAX_PAYLOAD {
        return Err(format!("a payload has more than {MAX_PAYLOAD} bytes"));
    }
    // The limit once, instead of at every field. (A map of the error would copy the value once more.)
    match options().with_no_limit().deserialize(payload) {
        Ok(value) => Ok(value),
        Err(error) => Err(format!("a payload cannot be read: {error}")),
    }
}
