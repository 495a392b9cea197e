//! From one segment to the next, and the footer of a clean close.

use super::core::{Core, Decided};
use super::error::{self, JournalError};
use super::options::{FIRST_SEGMENT_BYTES, JournalOptions};
use super::wal::create::Prepared;
use super::wal::recover::Mend;
use super::wal::segment::{self, FOOTER_BYTES, Footer};
use crate::atom::Atom;

/// A journal is closed with at most one of so many parts of a full segment to be read by the next opening.
const READ_AGAIN: u64 = 8;

/// The room for events in the segment after one that had `before` bytes.
fn room(options: &JournalOptions, needed: u64, before: u64) -> u64 {
    needed.max(options.segment_bytes.min(before.saturating_mul(2)))
}

/// Says that all that was decided is durable.
fn progress(decided: &Decided) -> std::io::Result<()> {
    let told = segment::progress(decided.seq, decided.seq);
    let at = decided.segment.layout.progress;
    at.map_or(Ok(()), |at| decided.segment.file.write_at(&told, at))
}

impl Core {
    /// Goes on in a new segment that has room for `needed` bytes of events.
    ///
    /// The old segment is sealed before the new one gets its name, and told
    /// after that that it has a successor: so a segment that is missing is noticed.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] when nothing was promised: the old segment goes on.
    /// [`JournalError::Poisoned`] when a write to it, or making the names durable, failed.
    /// [`JournalError::Inconsistent`] when there is no number for the next event.
    pub(crate) fn roll(&self, decided: &mut Decided, needed: u64) -> Result<(), JournalError> {
        let room = room(&self.options, needed, decided.segment.layout.end);
        self.go_on_with(decided, room)
    }

    /// What a close does to the log. Nothing may be under way.
    ///
    /// # Errors
    ///
    /// [`JournalError::Poisoned`].
    pub(crate) fn end_log(&self, decided: &mut Decided) -> Result<(), JournalError> {
        self.spare_reading(decided)?;
        // Closing and opening again and again must not eat what endings
        // need on a full disk: the next open merely looks closer.
        if !decided.may_close() {
            return Ok(());
        }
        match self.seal(decided, 0) {
            // No room for a footer: nothing is lost, the next open merely looks closer.
            Err(JournalError::Io { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins a new segment if the next opening had to read many events otherwise. Where it cannot be made, the old one does.
    ///
    /// # Errors
    ///
    /// [`JournalError::Poisoned`].
    fn spare_reading(&self, decided: &mut Decided) -> Result<(), JournalError> {
        let many = self.options.segment_bytes / READ_AGAIN;
        let needed = decided.population.full();
        // To write what the atoms need is not to take longer than what was written since their snapshot.
        let few = decided.offset - decided.segment.start <= many.max(needed);
        // Where nothing was written since a clean close nothing is; and what packing needs is not taken.
        let untouched = matches!(decided.mend, Mend::Mark { .. });
        if few || untouched || self.maintenance.lacks_space() {
            return Ok(());
        }
        // So that the next change need not begin another one.
        let room = needed + self.options.segment_bytes.min(FIRST_SEGMENT_BYTES);
        match self.go_on_with(decided, room) {
            Err(error @ JournalError::Poisoned { .. }) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the next opening reads what was written in this one");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Goes on in a new segment with so much room for events.
    fn go_on_with(&self, decided: &mut Decided, room: u64) -> Result<(), JournalError> {
        error::counts(decided.seq + 1)?;
        self.drain()?;
        self.prove(decided)?;
        // With nothing under way, what is visible is all that is decided and kept.
        let (atoms, seq): (Vec<Atom>, u64) = {
            let seen = self.visible.lock();
            (seen.view.atoms().cloned().collect(), seen.seq)
        };
        debug_assert_eq!(seq, decided.seq, "the view a snapshot is made of must be complete");
        let first = decided.seq + 1;
        let prepared = Prepared::write(&*self.storage, first, decided.chain, &atoms, room)?;
        self.seal(decided, 0)?;
        let segment = prepared.install(&*self.storage)?;
        if let Err(source) = self.storage.sync_dir() {
            let cause = self.poison(&format!("syncing the directory failed: {source}"));
            return Err(JournalError::Poisoned { cause });
        }
        self.seal(decided, first)?;
        self.catalog.lock().add(first, segment.file.clone());
        decided.offset = segment.start;
        decided.segment = segment;
        decided.mend = Mend::Nothing;
        self.maintenance.look_for_work(self);
        Ok(())
    }

    /// Writes the footer that was found at opening once more, and makes it durable.
    ///
    /// Its sync may have failed and left the page clean, so that it was read
    /// and is not on disk. What is written behind it must not come there before it.
    pub(crate) fn prove(&self, decided: &mut Decided) -> Result<(), JournalError> {
        let Some((offset, bytes)) = decided.unproven.take() else { return Ok(()) };
        let file = &decided.segment.file;
        file.write_at(&bytes, offset).and_then(|()| file.sync_data()).map_err(|error| {
            let cause = self.poison(&format!("writing the last footer again failed: {error}"));
            JournalError::Poisoned { cause }
        })
    }

    /// Writes a footer and makes it durable. Nothing may be under way.
    pub(crate) fn seal(&self, decided: &mut Decided, next: u64) -> Result<(), JournalError> {
        let path = || self.storage.path(&decided.segment.name);
        let due = self.queue.lock().due.take();
        if let Some(Err(error)) = due.map(|(_, file)| file.sync_data()) {
            // A footer that is there says that the events before it are durable.
            let cause = self.poison(&format!("a sync failed: {error}"));
            return Err(JournalError::Poisoned { cause });
        }
        if let Mend::Zeros { bytes, then_mark } = decided.mend {
            // A torn write must be gone before anything is said to be clean.
            let file = &decided.segment.file;
            let zeroed = file
                .write_at(&vec![0; bytes as usize], decided.offset)
                .and_then(|()| progress(decided))
                .and_then(|()| file.sync_data());
            if let Err(error) = zeroed {
                let cause = self.poison(&format!("clearing a torn write failed: {error}"));
                return Err(JournalError::Poisoned { cause });
            }
            decided.mend = match then_mark {
                Some(footer_crc) => Mend::Mark { footer_crc },
                None => Mend::Nothing,
            };
        }
        match decided.mend {
            // It ends with a footer already.
            Mend::Mark { .. } if next == 0 => return Ok(()),
            Mend::Mark { .. } | Mend::Nothing | Mend::Zeros { .. } => {}
        }
        if decided.offset + FOOTER_BYTES as u64 > decided.segment.layout.end {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(error::io("no room for the footer of", path(), full));
        }
        let events = decided.seq + 1 - decided.segment.first;
        let footer = Footer { events, next };
        let (bytes, footer_crc) = segment::footer(decided.seq, decided.chain, footer);
        let file = &decided.segment.file;
        // All is durable: whoever wipes out the footer does not make the last events doubtful.
        let sealed = file
            .write_at(&bytes, decided.offset)
            .and_then(|()| progress(decided))
            .and_then(|()| file.sync_data());
        if let Err(error) = sealed {
            let cause = self.poison(&format!("sealing a segment failed: {error}"));
            return Err(JournalError::Poisoned { cause });
        }
        decided.offset += bytes.len() as u64;
        decided.mend = Mend::Mark { footer_crc };
        let mut queue = self.queue.lock();
        queue.due = None;
        queue.synced = decided.seq;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_double_up_to_their_limit_and_beyond_it_when_they_must() {
        let options = JournalOptions::default().segment_bytes(1000);
        assert_eq!(room(&options, 10, 100), 200);
        assert_eq!(room(&options, 10, 600), 1000);
        assert_eq!(room(&options, 5000, 600), 5000);
    }
}
