//! Frames: a length (4 bytes, little-endian), then so many bytes of bincode.

use std::io::{self, Read};

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame: a spec (1 MiB at most) and the environment of who asks, which Linux
/// limits to a quarter of the stack's limit, 2 MiB as a rule.
pub(crate) const MAX_FRAME: usize = 8 << 20;

fn options() -> impl Options {
    bincode::options().with_fixint_encoding().with_limit(MAX_FRAME as u64).reject_trailing_bytes()
}

/// Appends a message as a frame.
///
/// # Errors
///
/// `InvalidInput` when it is larger than a frame may be.
pub(crate) fn put(buffer: &mut Vec<u8>, message: &impl Serialize) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    if let Err(error) = options().serialize_into(&mut *buffer, message) {
        buffer.truncate(start);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let length = u32::try_from(buffer.len() - start - 4).unwrap_or(u32::MAX);
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Takes the next whole message out of the front of a buffer, and says how many bytes it had.
///
/// # Errors
///
/// `InvalidData` when the bytes are no such message: what follows cannot be understood either.
pub(crate) fn take<T: DeserializeOwned>(buffer: &[u8]) -> io::Result<Option<(T, usize)>> {
    let Some((length, rest)) = buffer.split_first_chunk() else { return Ok(None) };
    let length = frame_length(*length)?;
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    Ok(Some((decode(payload)?, 4 + length)))
}

/// Reads the next message, waiting for it.
///
/// # Errors
///
/// `UnexpectedEof` at the end of the stream; `InvalidData` for what is no message.
pub(crate) fn read<T: DeserializeOwned>(
    from: &mut impl Read,
    buffer: &mut Vec<u8>,
) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = frame_length(length)?;
    buffer.resize(length, 0);
    from.read_exact(buffer)?;
    decode(buffer)
}

fn frame_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
    }
    Ok(length)
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> io::Result<T> {
    options()
        .deserialize(payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
