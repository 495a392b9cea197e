//! Frames: what every byte of a segment and of the packed history belongs to.
//!
//! `docs/journal-format.md` has the same table, byte by byte. All numbers are little-endian.

/// The four bytes every frame begins with. The first has more than one bit
/// set, so that one flipped bit in a zeroed area never looks like its beginning.
pub(crate) const MAGIC: [u8; 4] = [0xCA, 0xE5, 0x1A, 0x6D];

/// The version of the frame and of everything in it.
///
/// - 1: the first one.
pub(crate) const FORMAT: u8 = 1;

/// Bytes of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = 36;

/// The longest payload: the largest spec, and room for everything around it.
pub(crate) const MAX_PAYLOAD: usize = crate::atom::MAX_SPEC_BYTES + (64 << 10);

/// The `prev` of the first event of a store, and of the header of a segment.
pub(crate) const CHAIN_START: u32 = 0;

/// The largest number of an event: enough for two thousand years of a million a second, and far
/// from where counting on would overflow.
pub(crate) const MAX_SEQ: u64 = (1 << 56) - 1;

const AT_VERSION: usize = 4;
const AT_KIND: usize = 5;
const AT_FLAGS: usize = 6;
const AT_LEN: usize = 8;
const AT_BACK: usize = 12;
const AT_SEQ: usize = 16;
const AT_PREV: usize = 24;
const AT_PAYLOAD_CRC: usize = 28;
const AT_HEADER_CRC: usize = 32;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The beginning of a segment.
    Header,
    /// One atom of the snapshot.
    Atom,
    /// The end of the snapshot.
    SnapshotEnd,
    /// A record.
    Event,
    /// Everything before it is durable: a clean close, or the seal of a full segment.
    Footer,
    /// A cleanly closed segment is written again after this mark.
    Opened,
    /// A piece of the frame of an event, in the history: `seq` is the event's number, `prev` the
    /// checksum of its frame, `back` the number of the piece, from 0.
    Piece,
    /// How far the log has come, in a place of its own: `seq` was durable before the last write.
    Progress,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Header,
        Self::Atom,
        Self::SnapshotEnd,
        Self::Event,
        Self::Footer,
        Self::Opened,
        Self::Piece,
        Self::Progress,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Atom => 2,
            Self::SnapshotEnd => 3,
            Self::Event => 4,
            Self::Footer => 5,
            Self::Opened => 6,
            Self::Piece => 7,
            Self::Progress => 8,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// What it holds.
    pub(crate) kind: Kind,
    /// Bytes of the payload.
    pub(crate) len: u32,
    /// How many sequence numbers lie between the first one that was written
    /// without a sync in between and this one: 0 for the first of its group. In the header of a
    /// segment, how many bytes at the end of the file are not for frames.
    pub(crate) back: u32,
    /// The number of the event, or of the last one before a frame that is none.
    pub(crate) seq: u64,
    /// The `crc` of the frame before it in its chain.
    pub(crate) prev: u32,
    /// The checksum of the payload.
    pub(crate) payload_crc: u32,
    /// The checksum of the header, `payload_crc` included: it stands for the whole frame.
    pub(crate) crc: u32,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.len as usize
    }

    /// The first sequence number that was written in one go with this one.
    pub(crate) fn group_first(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.back))
    }
}

/// What distinguishes a frame from the next of its kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) back: u32,
    pub(crate) seq: u64,
    pub(crate) prev: u32,
}

/// Appends a frame to `out`; gives its checksum, the next one's `prev`.
///
/// The payload must not be longer than [`MAX_PAYLOAD`]: the callers have checked.
pub(crate) fn encode(place: Place, payload: &[u8], out: &mut Vec<u8>) -> u32 {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[AT_VERSION] = FORMAT;
    header[AT_KIND] = place.kind.code();
    put(&mut header, AT_LEN, (payload.len() as u32).to_le_bytes());
    put(&mut header, AT_BACK, place.back.to_le_bytes());
    put(&mut header, AT_SEQ, place.seq.to_le_bytes());
    put(&mut header, AT_PREV, place.prev.to_le_bytes());
    put(&mut header, AT_PAYLOAD_CRC, crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&header[..AT_HEADER_CRC]);
    put(&mut header, AT_HEADER_CRC, crc.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    crc
}

fn put<const N: usize>(header: &mut [u8; HEADER_BYTES], at: usize, bytes: [u8; N]) {
    header[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// There are fewer bytes than a header has.
    Short,
    /// They do not begin like a frame.
    NoFrame,
    /// They begin like one, but the checksum of the header is wrong.
    HeaderCrc,
    /// A newer program wrote it.
    Newer(u8),
    /// The header is whole and says what no format knows.
    Unknown,
    /// The header is whole, the payload is not.
    Payload(Header),
}

impl Flaw {
    /// What is wrong, in words.
    pub(crate) fn problem(self) -> &'static str {
        match self {
            Self::Short => "the file ends within a frame",
            Self::NoFrame => "there is no frame where one should begin",
            Self::HeaderCrc => "the checksum of a frame's header is wrong",
            Self::Newer(_) => "a newer format",
            Self::Unknown => "a frame that says what no format knows",
            Self::Payload(_) => "the checksum of a frame's payload is wrong",
        }
    }
}

/// Reads the header at the beginning of `bytes`. The length it gives has been
/// checked by its checksum and against [`MAX_PAYLOAD`], not against what is there.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<Header, Flaw> {
    if bytes.len() < HEADER_BYTES {
        return Err(Flaw::Short);
    }
    if bytes[..4] != MAGIC {
        return Err(Flaw::NoFrame);
    }
    let crc = u32::from_le_bytes(get(bytes, AT_HEADER_CRC));
    if crc32c::crc32c(&bytes[..AT_HEADER_CRC]) != crc {
        return Err(Flaw::HeaderCrc);
    }
    match bytes[AT_VERSION] {
        FORMAT => {}
        0 => return Err(Flaw::Unknown),
        newer => return Err(Flaw::Newer(newer)),
    }
    let kind = Kind::from_code(bytes[AT_KIND]).ok_or(Flaw::Unknown)?;
    let len = u32::from_le_bytes(get(bytes, AT_LEN));
    let seq = u64::from_le_bytes(get(bytes, AT_SEQ));
    let flags = u16::from_le_bytes(get(bytes, AT_FLAGS));
    if flags != 0 || len as usize > MAX_PAYLOAD || seq > MAX_SEQ {
        return Err(Flaw::Unknown);
    }
    Ok(Header {
        kind,
        len,
        back: u32::from_le_bytes(get(bytes, AT_BACK)),
        seq,
        prev: u32::from_le_bytes(get(bytes, AT_PREV)),
        payload_crc: u32::from_le_bytes(get(bytes, AT_PAYLOAD_CRC)),
        crc,
    })
}

/// Reads the frame at the beginning of `bytes`.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Header, &[u8]), Flaw> {
    let header = decode_header(bytes)?;
    Ok((header, payload(&header, bytes)?))
}

/// The payload of the frame that `bytes` begins with, whose header this is.
pub(crate) fn payload<'a>(header: &Header, bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
    match bytes.get(HEADER_BYTES..header.frame_bytes()) {
        Some(payload) if crc32c::crc32c(payload) == header.payload_crc => Ok(payload),
        Some(_) | None => Err(Flaw::Payload(*header)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_frame_are_these() {
        let mut out = Vec::new();
        let place = Place { kind: Kind::Event, back: 2, seq: 0x0102, prev: 0xA0B0_C0D0 };
        let crc = encode(place, b"abc", &mut out);
        assert_eq!(
            out[..28],
            [
                0xCA, 0xE5, 0x1A, 0x6D, 1, 4, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0,
                0xD0, 0xC0, 0xB0, 0xA0,
            ]
        );
        // The CRC-32C of "abc", and of the 32 bytes before the last field.
        assert_eq!(out[28..32], 0x364B_3FB7_u32.to_le_bytes());
        assert_eq!(out[32..36], crc.to_le_bytes());
        assert_eq!(out[36..], *b"abc");
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let mut out = Vec::new();
        encode(Place { kind: Kind::Event, back: 0, seq: 7, prev: 9 }, b"payload", &mut out);
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&out).is_err(), "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(decode(&out).is_ok());
    }
}
