//! What the values of options mean.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::atom::{HIDDEN, Leftovers, Resource};
use crate::lifecycle::{Drawing, Outcome, State};
use crate::log::Stream;
use crate::time::{Timestamp, now};

/// A number of bytes: `4096`, `64K`, `512M`, `2G`, or `64KiB` and so on; the letters are powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let short = text.strip_suffix("iB").filter(|short| short.ends_with(char::is_alphabetic));
    let short = short.unwrap_or(text);
    let (number, shift) = match short.char_indices().last() {
        Some((end, 'k' | 'K')) => (&short[..end], 10),
        Some((end, 'm' | 'M')) => (&short[..end], 20),
        Some((end, 'g' | 'G')) => (&short[..end], 30),
        Some(_) | None => (short, 0),
    };
    whole(number)
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a size is a number with an optional K, M or G, as in 64K or 64KiB".into())
}

/// Digits only: `parse` would also take a sign.
fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A duration: `300ms`, `10s`, `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a duration is like 300ms, 10s or \"1h 30m\""))
}

/// A point in time, or a time ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    /// The point in time, as seen from now.
    pub(super) fn resolve(self) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => {
                let micros = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
                Timestamp::from_micros(now().as_micros().saturating_sub(micros))
            }
        }
    }
}

pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(time) = Timestamp::from_str(text) {
        return Ok(Moment::At(time));
    }
    humantime::parse_duration(text).map(Moment::Ago).map_err(|_| {
        "a time is like 2026-01-02T03:04:05Z (UTC), or like 10m for ten minutes ago".into()
    })
}

/// `KEY=VALUE`, the value of any bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyValue;

impl TypedValueParser for KeyValue {
    type Value = (String, OsString);

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let bytes = value.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0);
        let key = equals.and_then(|at| String::from_utf8(bytes[..at].to_vec()).ok());
        let (Some(at), Some(key)) = (equals, key) else {
            let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
            if let Some(arg) = arg {
                error.insert(ContextKind::InvalidArg, ContextValue::String(arg.to_string()));
            }
            // Not what was typed: it may be a secret that only lacks its name.
            let shown = HIDDEN.to_owned();
            error.insert(ContextKind::InvalidValue, ContextValue::String(shown));
            return Err(error);
        };
        Ok((key, OsString::from_vec(bytes[at + 1..].to_vec())))
    }
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("a label is KEY=VALUE".into()),
    }
}

pub(super) fn rlimit(text: &str) -> Result<(Resource, u64), String> {
    let names = || Resource::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ");
    let (name, number) =
        text.split_once('=').ok_or("a resource limit is NAME=N, like nofile=1024")?;
    let resource =
        name.to_lowercase().parse().map_err(|error| format!("{error}: there are {}", names()))?;
    let limit = match number {
        "unlimited" => u64::MAX,
        number => whole(number).ok_or("the limit is a number, or unlimited")?,
    };
    Ok((resource, limit))
}

/// Permission bits: `022`, `77`. Their range is the specification's to check.
pub(super) fn octal(text: &str) -> Result<u32, String> {
    let bits = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(text, 8));
    bits.and_then(Result::ok).ok_or_else(|| "an umask is an octal number, like 022".into())
}

/// A parser for one of the library's own names, which completions know too.
fn named<T>(names: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = crate::text::UnknownName> + Clone + Send + Sync + 'static,
{
    let names: Vec<PossibleValue> = names.into_iter().map(PossibleValue::new).collect();
    clap::builder::PossibleValuesParser::new(names).try_map(|name| name.parse())
}

pub(super) fn leftovers() -> impl TypedValueParser<Value = Leftovers> {
    named(Leftovers::ALL.iter().map(|leftovers| leftovers.as_str()))
}

pub(super) fn state() -> impl TypedValueParser<Value = State> {
    named(State::ALL.iter().map(|state| state.as_str()))
}

pub(super) fn outcome() -> impl TypedValueParser<Value = Outcome> {
    named(Outcome::ALL.iter().map(|outcome| outcome.as_str()))
}

pub(super) fn stream() -> impl TypedValueParser<Value = Stream> {
    named(Stream::ALL.iter().map(|stream| stream.as_str()))
}

pub(super) fn drawing() -> impl TypedValueParser<Value = Drawing> {
    named(Drawing::ALL.iter().map(|drawing| drawing.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_umask_is_octal() {
        for (text, bits) in [("0", 0), ("22", 0o22), ("0077", 0o77), ("777", 0o777)] {
            assert_eq!(octal(text), Ok(bits), "{text}");
        }
        for text in ["", "8", "-1", "+7", "0o22", "u=rwx", "777777777777"] {
            assert!(octal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("1m", 1 << 20),
            ("2G", 2 << 30),
            ("16MiB", 16 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "1T", "-1", "+1", "1.5G", "1 K", "99999999999G", "1KB", "4iB", "iB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_points_in_time_or_times_ago() {
        let point = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(moment("2026-01-02T03:04:05Z"), Ok(Moment::At(point)));
        assert_eq!(moment("1h 30m"), Ok(Moment::Ago(Duration::from_secs(5400))));
        assert!(moment("yesterday").is_err());
        assert_eq!(Moment::Ago(Duration::MAX).resolve(), Timestamp::default());
    }

    #[test]
    fn resource_limits_have_the_names_of_ulimit() {
        assert_eq!(rlimit("nofile=1024"), Ok((Resource::Nofile, 1024)));
        assert_eq!(rlimit("CORE=unlimited"), Ok((Resource::Core, u64::MAX)));
        for text in ["nofile", "nofile=", "nofile=-1", "nofiles=1"] {
            assert!(rlimit(text).is_err(), "{text}");
        }
    }
}
