//! Byte strings of the operating system, as JSON text and as journal bytes; and those that must not be shown.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte string of the operating system: text in JSON (what is not UTF-8 is
/// shown with replacement characters), its exact bytes in the journal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Bytes(pub(crate) OsString);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Bytes {
    pub(crate) fn as_os_str(&self) -> &OsStr {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.0.to_string_lossy())
        } else {
            // The same bytes as a list of numbers, at once.
            serializer.serialize_bytes(self.0.as_bytes())
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer).map(|text| Self(text.into()))
        } else {
            deserializer.deserialize_byte_buf(Whole).map(|bytes| Self(OsString::from_vec(bytes)))
        }
    }
}

/// Takes bytes as they come.
struct Whole;

impl Visitor<'_> for Whole {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}

/// Bytes that are shared, and may not be there: a list of numbers in JSON, in the journal at once.
pub(crate) mod shared {
    use std::fmt;
    use std::sync::Arc;

    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Shared = Option<Arc<[u8]>>;

    struct AtOnce<T>(T);

    impl Serialize for AtOnce<&[u8]> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }

    impl<'de> Deserialize<'de> for AtOnce<Arc<[u8]>> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_bytes(Kept).map(Self)
        }
    }

    /// Shares bytes as they come.
    struct Kept;

    impl Visitor<'_> for Kept {
        type Value = Arc<[u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Arc<[u8]>, E> {
            Ok(bytes.into())
        }
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &Shared, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            return bytes.serialize(s);
        }
        bytes.as_deref().map(AtOnce).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Shared, D::Error> {
        if d.is_human_readable() {
            return Shared::deserialize(d);
        }
        let bytes: Option<AtOnce<Arc<[u8]>>> = Option::deserialize(d)?;
        Ok(bytes.map(|bytes| bytes.0))
    }
}

/// A text that is shared, and may not be there: read without a copy between.
pub(crate) mod text {
    use std::fmt;
    use std::sync::Arc;

    use serde::de::{Error, Visitor};
    use serde::{Deserialize, Deserializer};

    struct Text(Arc<str>);

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Kept).map(Self)
        }
    }

    struct Kept;

    impl Visitor<'_> for Kept {
        type Value = Arc<str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Arc<str>, E> {
            Ok(text.into())
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Arc<str>>, D::Error> {
        let text: Option<Text> = Option::deserialize(d)?;
        Ok(text.map(|text| text.0))
    }
}

/// A value that is shared: read without a box between.
pub(crate) fn arc<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Arc<T>, D::Error> {
    T::deserialize(d).map(Arc::new)
}

/// What is shown in place of a hidden value.
pub(crate) const HIDDEN: &str = "***";

/// The value of an environment variable: kept in the journal, shown as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Hidden(pub(crate) Bytes);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(HIDDEN)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::deserialize(deserializer).map(Self)
    }
}

/// A value that is never written: known to the host that was given it, and to nobody after it.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Secret(pub(crate) Option<OsString>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(HIDDEN)
        } else {
            serializer.serialize_unit()
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?;
        } else {
            <()>::deserialize(deserializer)?;
        }
        Ok(Self(None))
    }
}
