//! How a connection begins: each side says what it speaks, in bytes that no version changes.

/// The protocol that this version speaks.
pub(crate) const PROTOCOL: u16 = 1;

/// The first bytes of both sides.
const MAGIC: [u8; 8] = *b"CAESIUMC";

/// What a side says first: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hello {
    /// The oldest protocol that is understood.
    pub(super) oldest: u16,
    /// The newest.
    pub(super) newest: u16,
    /// A holder that has as many clients as it may have: it says so and closes.
    pub(super) full: bool,
}

impl Hello {
    /// The size of one, in bytes.
    pub(super) const BYTES: usize = 16;

    /// What this version says.
    pub(super) const OURS: Self = Self { oldest: PROTOCOL, newest: PROTOCOL, full: false };

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = u8::from(self.full);
        bytes[10..12].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.newest.to_le_bytes());
        bytes
    }

    /// `None` for what is no hello.
    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let full = match bytes[8] {
            0 => false,
            1 => true,
            _ => return None,
        };
        (bytes[..8] == MAGIC).then_some(Self { oldest: number(10), newest: number(12), full })
    }

    /// The protocol that both sides speak, if there is one.
    pub(super) fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_sixteen_bytes_that_do_not_change() {
        let bytes = Hello { oldest: 1, newest: 0x0203, full: true }.to_bytes();
        assert_eq!(&bytes, b"CAESIUMC\x01\x00\x01\x00\x03\x02\x00\x00");
        assert_eq!(Hello::from_bytes(&bytes).unwrap().newest, 0x0203);
        assert_eq!(Hello::from_bytes(b"GET / HTTP/1.1\r\n"), None);
    }

    #[test]
    fn the_newest_common_protocol_is_spoken() {
        let hello = |oldest, newest| Hello { oldest, newest, full: false };
        assert_eq!(hello(1, 3).common(hello(2, 5)), Some(3));
        assert_eq!(hello(1, 1).common(hello(2, 5)), None);
        assert_eq!(hello(4, 9).common(hello(1, 3)), None);
    }
}
