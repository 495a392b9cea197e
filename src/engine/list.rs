//! Listing atoms, a page at a time.

use super::ListRequest;
use crate::atom::Atom;
use crate::journal::Journal;

/// How many atoms are looked at before others may go on: nothing becomes visible meanwhile.
const AT_A_TIME: usize = 1024;

/// The atoms that are asked for.
pub(super) fn list(journal: &Journal, request: &ListRequest) -> Vec<Atom> {
    let limit = request.limit.unwrap_or(usize::MAX);
    let (mut found, mut after) = (Vec::new(), request.after);
    while found.len() < limit {
        let last = journal.with_view(|view| {
            let mut last = None;
            for atom in view.after(after, request.newest_first).take(AT_A_TIME) {
                last = Some(atom.id());
                if request.matches(atom) {
                    found.push(atom.clone());
                    if found.len() == limit {
                        break;
                    }
                }
            }
            last
        });
        if last.is_none() {
            break;
        }
        after = last;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::Durability;
    use crate::atom::{AtomId, AtomSpec};
    use crate::journal::{Creation, Fact, JournalError, JournalOptions};
    use crate::lifecycle::{Event, State};
    use crate::time::Timestamp;

    const MANY: u64 = 100_000;

    fn id(number: u64) -> AtomId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        bytes[6] = 0x70;
        AtomId::from_bytes(bytes)
    }

    /// A journal with many atoms: every hundredth lives, every thousandth has a name.
    fn many() -> Journal {
        // One segment for all: a snapshot of many atoms takes its time.
        let options = JournalOptions::default().durability(Durability::Memory);
        let options = options.segment_bytes(128 << 20);
        let journal = Journal::in_memory(options).unwrap();
        let at = Timestamp::default();
        for first in (0..MANY).step_by(1000) {
            let (_, ticket) = journal
                .change(|draft| {
                    for number in first..first + 1000 {
                        let spec =
                            AtomSpec::command("true").label("parity", (number % 2).to_string());
                        let spec =
                            if number % 1000 == 0 { spec.name(format!("n{number}")) } else { spec };
                        let created = Creation {
                            engine: "test".into(),
                            spec: Arc::new(spec),
                            attempt: 1,
                            retry_of: None,
                        };
                        draft.append(id(number), at, Fact::Created(created))?;
                        if number % 100 != 0 {
                            draft.append(id(number), at, Event::Withdrawn.into())?;
                        }
                    }
                    Ok::<_, JournalError>(())
                })
                .unwrap();
            ticket.wait().unwrap();
        }
        journal
    }

    fn delete(journal: &Journal, number: u64) {
        let (_, ticket) = journal
            .change(|draft| {
                draft.append(id(number), Timestamp::default(), Event::DeleteAsked.into())?;
                draft.append(id(number), Timestamp::default(), Event::Removed.into())
            })
            .unwrap();
        ticket.wait().unwrap();
    }

    /// All pages of a list; `between` happens after each.
    fn pages(
        journal: &Journal,
        request: &ListRequest,
        limit: usize,
        mut between: impl FnMut(&[Atom]),
    ) -> Vec<AtomId> {
        let (mut ids, mut request) = (Vec::new(), request.clone().limit(limit));
        loop {
            let page = list(journal, &request);
            assert!(page.len() <= limit, "no page is larger than asked for");
            ids.extend(page.iter().map(Atom::id));
            between(&page);
            match page.last() {
                Some(last) if page.len() == limit => request = request.after(last.id()),
                Some(_) | None => return ids,
            }
        }
    }

    #[test]
    fn a_hundred_thousand_atoms_come_page_by_page() {
        let journal = many();
        let all: Vec<AtomId> = (0..MANY).map(id).collect();
        assert!(pages(&journal, &ListRequest::all(), 777, |_| ()) == all);
        let newest = pages(&journal, &ListRequest::all().newest_first(), 1000, |_| ());
        assert!(newest.iter().eq(all.iter().rev()));
        let odd = pages(&journal, &ListRequest::all().label("parity", "1"), 50_000, |_| ());
        assert!(odd.iter().eq(all.iter().skip(1).step_by(2)));
        let living = ListRequest::all().state(State::Created);
        assert!(pages(&journal, &living, 10, |_| ()).iter().eq(all.iter().step_by(100)));
        let named = pages(&journal, &ListRequest::all().name("n*00"), 7, |_| ());
        assert!(named.iter().eq(all.iter().step_by(1000).skip(1)));
        let one = list(&journal, &ListRequest::all().name("n42000").limit(5));
        assert_eq!(one.iter().map(Atom::id).collect::<Vec<_>>(), [id(42_000)]);
        assert_eq!(list(&journal, &ListRequest::all().limit(0)), []);
        deletions_between_pages_move_nothing_else(&journal);
    }

    fn deletions_between_pages_move_nothing_else(journal: &Journal) {
        let mut next = 1;
        let mut deleted = BTreeSet::new();
        let listed = pages(journal, &ListRequest::all(), 1000, |page| {
            // The last of this page, which the next one begins after, and the first of the next.
            for number in [next * 1000 - 1, next * 1000 + 1] {
                if page.len() == 1000 && number < MANY && number % 100 != 0 {
                    delete(journal, number);
                    deleted.insert(id(number));
                }
            }
            next += 1;
        });
        let unique: BTreeSet<AtomId> = listed.iter().copied().collect();
        assert_eq!(unique.len(), listed.len(), "nothing twice");
        assert!(listed.is_sorted());
        for number in 0..MANY {
            let there = unique.contains(&id(number));
            assert!(there || deleted.contains(&id(number)), "{number} was skipped");
        }
    }
}
