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
}

const HEADER: usize = 36;

pub fn walk(bytes: &[u8]) -> Walked {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (mut end, mut seq) = (0, 0);
    while let Some((frame, length)) = frame(&bytes[end..]) {
        seq = frame;
        end += length;
    }
    Walked { end, seq, rest: used.saturating_sub(end) }
}

fn frame(bytes: &[u8]) -> Option<(u64, usize)> {
    let header = bytes.get(..HEADER)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if header[..4] != [0xCA, 0xE5, 0x1A, 0x6D] || crc32c::crc32c(&header[..32]) != word(32) {
        return None;
    }
    let length = HEADER + word(8) as usize;
    if crc32c::crc32c(bytes.get(HEADER..length)?) != word(28) {
        return None;
    }
    Some((u64::from_le_bytes(header[16..24].try_into().expect("eight bytes")), length))
}
