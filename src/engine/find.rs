//! Finding an atom by what a person types.

use super::Error;
use crate::atom::{Atom, AtomId};
use crate::journal::View;

/// The fewest characters of an id that are taken for one.
pub(super) const MIN_PREFIX: usize = 4;

/// How many ids an [`Error::Ambiguous`] names.
const MAX_NAMED: usize = 10;

/// Exact name first, then id, then prefix of an id.
pub(super) fn find(view: &View, text: &str) -> Result<Atom, Error> {
    if let Some(atom) = view.named(text) {
        return Ok(atom.clone());
    }
    let not_found = || Error::NotFound(text.to_owned());
    let (first, last) = range(text).ok_or_else(not_found)?;
    let mut found = view.between(first, last);
    let atom = found.next().ok_or_else(not_found)?;
    if found.next().is_some() {
        let ids = view.between(first, last).take(MAX_NAMED).map(Atom::id).collect();
        let count = view.between(first, last).count();
        return Err(Error::Ambiguous { text: text.to_owned(), ids, count });
    }
    Ok(atom.clone())
}

/// The first and the last id that begin with `text`: hexadecimal digits, hyphens where an id has them or none.
fn range(text: &str) -> Option<(AtomId, AtomId)> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let hyphens_fit = !text.contains('-')
        || AtomId::from_bytes([0; 16])
            .to_string()
            .char_indices()
            .zip(text.chars())
            .all(|((_, of_id), typed)| (of_id == '-') == (typed == '-'));
    if text.len() < MIN_PREFIX
        || digits.len() > 32
        || !hyphens_fit
        || !digits.chars().all(|c| c.is_ascii_hexdigit())
    {
        return None;
    }
    Some((format!("{digits:0<32}").parse().ok()?, format!("{digits:f<32}").parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_spans_the_ids_that_begin_with_it() {
        let id: AtomId = "0190a1b2-c3d4-7000-8000-000000000001".parse().unwrap();
        for prefix in ["0190", "0190a1b2c", "0190a1b2-c3", "0190A1B2-c3d4-7000-8000-000000000001"] {
            let (first, last) = range(prefix).unwrap_or_else(|| panic!("{prefix}"));
            assert!(first <= id && id <= last, "{prefix}");
        }
        assert!(range("0191").unwrap().0 > id);
    }

    #[test]
    fn what_cannot_begin_an_id_has_no_range() {
        for text in
            ["", "019", "nightly", "0190a1b-", "0190a1b2c-", "0190 ", "é190", &"0".repeat(33)]
        {
            assert!(range(text).is_none(), "{text:?}");
        }
    }
}
