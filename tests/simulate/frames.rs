//! Reads a segment as `docs/journal-format.md` describes it, without the journal's code.

/// What a segment holds, as far as its frames follow one another whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    /// Where the last whole frame ends.
    pub end: usize,
    /// The number of the last event.
    pub seq: u64,
    /// Bytes from `end` to the last one that is not zero.
    pub rest: usize,
    /// An event that is said to have been written, and is not there.
    pub missing: bool,
}

const HEADER: usize = 36;

pub fn walk(bytes: &[u8]) -> Walked {
    // The header's `back`: bytes at the end that are not for frames, the last 512 of them for the progress.
    let tail = word(bytes, 12) as usize;
    let (frames, progress) = (&bytes[..bytes.len() - tail], &bytes[bytes.len() - tail.min(512)..]);
    let used = frames.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (mut end, mut seq, mut kind) = (0, 0, 0);
    while let Some((frame, length)) = frame(&frames[end..]) {
        (seq, kind) = (frame, frames[end + 5]);
        end += length;
    }
    let written = frame(progress).map(|_| u64::from_le_bytes(eight(progress, HEADER)));
    let closed = kind == 5;
    let missing = !closed && used <= end && written > Some(seq);
    Walked { end, seq, rest: used.saturating_sub(end), missing }
}

fn eight(bytes: &[u8], at: usize) -> [u8; 8] {
    bytes[at..at + 8].try_into().expect("eight bytes")
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn frame(bytes: &[u8]) -> Option<(u64, usize)> {
    let header = bytes.get(..HEADER)?;
    if header[..4] != [0xCA, 0xE5, 0x1A, 0x6D] || crc32c::crc32c(&header[..32]) != word(header, 32)
    {
        return None;
    }
    let length = HEADER + word(header, 8) as usize;
    if crc32c::crc32c(bytes.get(HEADER..length)?) != word(header, 28) {
        return None;
    }
    Some((u64::from_le_bytes(eight(header, 16)), length))
}
