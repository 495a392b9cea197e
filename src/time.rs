//! Points in time, as the journal keeps them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
///
/// Microseconds, because that is the finest step that two events of one
/// journal can usefully be told apart by, and a `u64` of them lasts for
/// 584,000 years. `Display` and JSON are RFC 3339 in UTC.
///
/// ```
/// use caesium::Timestamp;
/// let t: Timestamp = "2026-01-02T03:04:05.000006Z".parse().unwrap();
/// assert_eq!(t.to_string(), "2026-01-02T03:04:05.000006Z");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// The last microsecond of the year 9999: RFC 3339 ends there.
const LAST: u64 = 253_402_300_799_999_999;

impl Timestamp {
    /// The given number of microseconds after the Unix epoch; what lies after
    /// the year 9999 (RFC 3339 cannot write it) is brought back to its end.
    pub const fn from_micros(micros: u64) -> Self {
        if micros > LAST { Self(LAST) } else { Self(micros) }
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This time and `duration`, at most the end of the year 9999.
    pub const fn saturating_add(self, duration: Duration) -> Self {
        let micros = duration.as_micros();
        let micros = if micros > LAST as u128 { LAST } else { micros as u64 };
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// The time from `earlier` to this one; zero when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Where a journal has the time from when it has to know how old an event is: the
/// wall clock, or what a test or a simulation says.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that says what `now` gives.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    /// The wall clock.
    fn default() -> Self {
        Self::new(now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// Reads the wall clock. The only place that does.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become the epoch.
    fn from(time: SystemTime) -> Self {
        let micros = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        Self::from_micros(micros)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_micros(time.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros((*self).into()).fmt(f)
    }
}

/// A text that is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: write 2026-01-02T03:04:05Z, with a fraction of a second if need be")]
pub struct BadTimestamp(());

impl FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339_weak(text).map(Self::from).map_err(|_| BadTimestamp(()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_microsecond_count_makes_display_fail() {
        for micros in [0, 1, LAST - 1, LAST, LAST + 1, u64::MAX] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn adding_never_overflows() {
        let end = Timestamp::from_micros(u64::MAX);
        assert_eq!(end.saturating_add(Duration::MAX), end);
        assert_eq!(Timestamp::default().saturating_since(end), Duration::ZERO);
    }
}
