//! The identity of an atom.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// The identity of an atom: a UUID of version 7 (RFC 9562), so that ids sort by creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AtomId(Uuid);

impl AtomId {
    /// A new id, later than every id this process made before.
    #[expect(
        clippy::new_without_default,
        reason = "an id is never a default: each call gives another one"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Whether it is a UUID of version 7, as every id should be that is new.
    pub(crate) fn is_proper(self) -> bool {
        self.0.get_version_num() == 7 && self.0.get_variant() == uuid::Variant::RFC4122
    }

    /// The id with these bytes, in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The bytes, in network order.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for AtomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for AtomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that is not an atom's id: 32 hexadecimal digits, with or without hyphens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an atom id: {0}")]
pub struct BadAtomId(String);

impl FromStr for AtomId {
    type Err = BadAtomId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self).map_err(|error| BadAtomId(error.to_string()))
    }
}

impl From<&AtomId> for AtomId {
    fn from(id: &AtomId) -> Self {
        *id
    }
}

impl Serialize for AtomId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            // Sixteen bytes, eight at a time; serde's own form of a UUID adds a length.
            halves(self.to_bytes()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for AtomId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            let (first, last) = <(u64, u64)>::deserialize(deserializer)?;
            let whole = u128::from(first) | u128::from(last) << 64;
            Ok(Self::from_bytes(whole.to_le_bytes()))
        }
    }
}

/// Two numbers that bincode writes as these bytes: its integers are little-endian, and of fixed length as the journal asks.
fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_le_bytes(bytes);
    (whole as u64, (whole >> 64) as u64)
}
