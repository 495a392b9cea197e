//! Our own journal, as a contender.

use std::path::Path;
use std::time::Duration;

use caesium::atom::{AtomId, AtomSpec};
use caesium::journal::{Creation, Fact, Journal, JournalError, JournalOptions, Note, Ticket};
use caesium::lifecycle::{Event, StopCause, StopOrder};
use caesium::{Durability, Timestamp};

use crate::Result;
use crate::contender::Contender;

/// For what is written and not measured.
pub(crate) fn batched() -> JournalOptions {
    let mut options = JournalOptions::default();
    options.durability = Durability::Batched(Duration::from_millis(50));
    options
}

/// A journal with one atom that is asked to stop over and over: events of one size.
pub(crate) struct Events {
    pub(crate) journal: Journal,
    atom: AtomId,
    fact: Fact,
}

impl Events {
    pub(crate) fn new(dir: &Path, options: JournalOptions) -> Result<Self> {
        let dir = dir.join("caesium");
        std::fs::create_dir(&dir)?;
        Self::in_store(&dir, options)
    }

    /// The same in a store that is there.
    pub(crate) fn in_store(dir: &Path, options: JournalOptions) -> Result<Self> {
        let (journal, _) = Journal::open_dir(dir, options)?;
        let atom = AtomId::new();
        let creation = Creation {
            engine: "peers".into(),
            spec: AtomSpec::command("true").into(),
            attempt: 1,
            retry_of: None,
        };
        let ((), made) = journal.change(|draft| {
            draft.append(atom, Timestamp::from_micros(1), Fact::Created(creation)).map(drop)
        })?;
        made.wait()?;
        let order =
            StopOrder { grace: Duration::from_secs(10), force: false, cause: StopCause::Requested };
        // 83 bytes of fields and a detail: frames of about 200 bytes.
        let note = Note { detail: Some("d".repeat(80).into()), ..Note::default() };
        let fact = Fact::Happened { event: Event::StopAsked(order), note };
        Ok(Self { journal, atom, fact })
    }

    /// Puts so many events into a store that is there.
    pub(crate) fn fill(store: &Path, events: usize) -> Result<()> {
        let filled = Self::in_store(store, batched())?;
        for _ in 0..events / 1000 {
            filled.append(1000)?.wait()?;
        }
        filled.finish()
    }

    /// Ends the atom and closes the journal.
    pub(crate) fn finish(self) -> Result<()> {
        let ((), done) = self.journal.change(|draft| {
            for event in [Event::Withdrawn, Event::DeleteAsked, Event::Removed] {
                draft.append(self.atom, Timestamp::from_micros(3), event.into())?;
            }
            Ok::<_, JournalError>(())
        })?;
        done.wait()?;
        Ok(self.journal.close()?)
    }

    /// Appends as many events; to be waited for.
    pub(crate) fn append(&self, events: usize) -> Result<Ticket> {
        let ((), ticket) = self.journal.change_lazily(|draft| {
            for _ in 0..events {
                draft.append(self.atom, Timestamp::from_micros(2), self.fact.clone())?;
            }
            Ok::<_, JournalError>(())
        })?;
        Ok(ticket)
    }
}

impl Contender for Events {
    fn commit(&mut self, records: usize) -> Result<()> {
        Ok(self.append(records)?.wait()?)
    }
}
