//! Which atoms are wanted: selectors for labels, patterns for names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the labels of an atom must be. As text: `key=value`, `key!=value`, `key`, `!key`.
///
/// ```
/// use caesium::LabelSelector;
///
/// let selector: LabelSelector = "team!=blue".parse()?;
/// assert_eq!(selector, LabelSelector::differs("team", "blue"));
/// assert_eq!(selector.to_string(), "team!=blue");
/// # Ok::<(), caesium::engine::BadSelector>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LabelSelector {
    key: String,
    wants: Wants,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wants {
    Value(String),
    AnotherValue(String),
    Presence,
    Absence,
}

impl LabelSelector {
    /// Atoms with this label and this value.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), wants: Wants::Value(value.into()) }
    }

    /// Atoms without this label, or with another value of it.
    pub fn differs(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), wants: Wants::AnotherValue(value.into()) }
    }

    /// Atoms with this label, whatever its value.
    pub fn present(key: impl Into<String>) -> Self {
        Self { key: key.into(), wants: Wants::Presence }
    }

    /// Atoms without this label.
    pub fn absent(key: impl Into<String>) -> Self {
        Self { key: key.into(), wants: Wants::Absence }
    }

    pub(super) fn matches(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let found = labels.get(&*self.key).copied();
        match &self.wants {
            Wants::Value(value) => found == Some(value),
            Wants::AnotherValue(value) => found != Some(value),
            Wants::Presence => found.is_some(),
            Wants::Absence => found.is_none(),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.wants {
            Wants::Value(value) => write!(f, "{key}={value}"),
            Wants::AnotherValue(value) => write!(f, "{key}!={value}"),
            Wants::Presence => write!(f, "{key}"),
            Wants::Absence => write!(f, "!{key}"),
        }
    }
}

/// A text that is no selector for labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a label selector is KEY=VALUE, KEY!=VALUE, KEY or !KEY")]
pub struct BadSelector(());

impl From<LabelSelector> for String {
    fn from(selector: LabelSelector) -> Self {
        selector.to_string()
    }
}

impl TryFrom<String> for LabelSelector {
    type Error = BadSelector;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for LabelSelector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let selector = match (text.split_once('='), text.strip_prefix('!')) {
            (Some((before, value)), _) => match before.strip_suffix('!') {
                Some(key) => Self::differs(key, value),
                None => Self::equals(before, value),
            },
            (None, Some(key)) => Self::absent(key),
            (None, None) => Self::present(text),
        };
        if selector.key.is_empty() || selector.key.starts_with('!') {
            return Err(BadSelector(()));
        }
        Ok(selector)
    }
}

/// Whether a name fits a pattern, in which `*` stands for any characters and `?` for any one.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last star, and how far the name was when it took no more.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_written_as_they_are_read() {
        for text in ["a=b", "a!=b", "a", "!a", "a=", "a=b=c", "a!=b!=c", "a.b/c=d e"] {
            let selector: LabelSelector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
        }
        assert_eq!("a=b=c".parse(), Ok(LabelSelector::equals("a", "b=c")));
        for text in ["", "=", "=b", "!", "!=b", "!a=b", "!!a"] {
            assert!(text.parse::<LabelSelector>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_selector_looks_at_one_label() {
        let labels = BTreeMap::from([("team", "blue"), ("empty", "")]);
        for (text, fits) in [
            ("team=blue", true),
            ("team=red", false),
            ("team!=blue", false),
            ("team!=red", true),
            ("other!=red", true),
            ("other=", false),
            ("empty=", true),
            ("team", true),
            ("other", false),
            ("!team", false),
            ("!other", true),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().matches(&labels), fits, "{text}");
        }
    }

    #[test]
    fn a_star_is_any_characters_and_a_question_mark_one() {
        for (pattern, name) in [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("night*", "nightly"),
            ("*ly", "nightly"),
            ("n*g*y", "nightly"),
            ("?ightl?", "nightly"),
            ("**a**", "banana"),
            ("b*na", "banana"),
            ("?", "é"),
            ("a*b*c", "aXbYbZc"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("?", ""),
            ("night", "nightly"),
            ("*x", "nightly"),
            ("??", "é"),
            ("a*b", "abc"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_does_not_take_for_ever() {
        // Tried in every way, it would.
        assert!(!fits(&"a*".repeat(100), &"ab".repeat(99)));
    }
}
