//! Writing events: by one thread, or by those who wait for them while it has nothing to do.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::queue::{Done, Group};
use super::storage::StoredFile;
use super::wal::segment;
use crate::Durability;

enum Step {
    Write(Group),
    Sync(Arc<dyn StoredFile>),
    End,
}

/// Writes group after group until the journal closes or a write fails.
///
/// While one group is being made durable the next one fills, so that a busy journal has one thread that goes on and on.
pub(crate) fn run(core: &Core) {
    while take(core, next(core)) {}
}

/// Takes a step; false when there are no more.
fn take(core: &Core, step: Step) -> bool {
    let result = match step {
        Step::Write(group) => write(core, group),
        Step::Sync(file) => sync(core, &*file),
        Step::End => return false,
    };
    if let Err(cause) = &result {
        core.poison(cause);
    }
    result.is_ok()
}

/// Takes the next step there is without waiting for one, for a journal without
/// threads: what is due to be synced at some time is due when nothing is left to write.
pub(crate) fn step(core: &Core) -> bool {
    let step = {
        let mut queue = core.queue.lock();
        match (queue.failed.is_none(), queue.groups.pop_front()) {
            (false, _) => Step::End,
            (true, Some(group)) => {
                queue.busy = true;
                Step::Write(group)
            }
            (true, None) => match &queue.due {
                Some((_, file)) => Step::Sync(file.clone()),
                None => Step::End,
            },
        }
    };
    take(core, step)
}

/// Writes what is queued on this thread, unless somebody is writing: who does goes on with it, or tells the writer.
pub(crate) fn write_here(core: &Core) {
    let group = {
        let mut queue = core.queue.lock();
        match queue.groups.len() {
            0 => return,
            _ if queue.busy || queue.failed.is_some() => return,
            1 => {}
            _ => return queue.tell_writer(&core.work),
        }
        queue.busy = true;
        queue.groups.pop_front()
    };
    let Some(group) = group else { return };
    let mut turn = Turn { core, done: Arc::clone(&group.done), finished: false };
    take(core, Step::Write(group));
    turn.finished = true;
}

/// The turn of one who writes and is not the writer.
struct Turn<'a> {
    core: &'a Core,
    done: Arc<Done>,
    /// It did not panic.
    finished: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Somebody's waker panicked. Nobody may wait for ever for what this thread was to do.
            self.done.set(Err(self.core.poison("a thread panicked while it wrote")));
            self.core.queue.lock().busy = false;
            self.core.room.notify_all();
        }
        let queue = self.core.queue.lock();
        if queue.closing || !queue.groups.is_empty() {
            queue.tell_writer(&self.core.work);
        }
    }
}

/// Waits for something to do.
fn next(core: &Core) -> Step {
    let mut queue = core.queue.lock();
    loop {
        if queue.failed.is_some() {
            return Step::End;
        }
        if queue.busy {
            // One who waits for an event is writing, and tells when it is done.
            core.work.wait(&mut queue);
            continue;
        }
        let late = queue.due.as_ref().is_some_and(|(due, _)| *due <= Instant::now());
        if !late && let Some(group) = queue.groups.pop_front() {
            queue.busy = true;
            return Step::Write(group);
        }
        match (&queue.due, queue.closing) {
            (Some((_, file)), closing) if late || closing => return Step::Sync(file.clone()),
            (Some((due, _)), _) => {
                let due = *due;
                core.work.wait_until(&mut queue, due);
            }
            (None, true) => return Step::End,
            (None, false) => core.work.wait(&mut queue),
        }
    }
}

fn write(core: &Core, group: Group) -> Result<(), String> {
    let Group { file, offset, progress, bytes, records, changes, barrier, done } = group;
    let events = records.len();
    let last = records.last().map(|(record, _)| record.seq);
    let durable = core.queue.lock().synced;
    let progressed = |at| {
        // After what it tells of: a host killed between the two has told of nothing.
        file.write_at(&segment::progress(durable, last.unwrap_or(durable)), at)
    };
    let written = file
        .write_at(&bytes, offset)
        .and_then(|()| progress.map_or(Ok(()), progressed))
        .map_err(|error| format!("a write failed: {error}"))
        .and_then(|()| match core.options.durability {
            Durability::Batched(_) if !barrier => Ok(false),
            Durability::Sync | Durability::Batched(_) | Durability::Memory => {
                timed_sync(core, &*file)?;
                Ok(true)
            }
        })
        .and_then(|synced| {
            // Whoever sees an event finds it durable.
            if let (true, Some(last)) = (synced, last) {
                core.queue.lock().synced = last;
            }
            match core.visible.publish(records) {
                Ok(()) => Ok(synced),
                // Our own invariant: what was decided by the same function must fit again.
                Err(unfit) => Err(format!("an event that was accepted does not fit: {unfit}")),
            }
        });
    let synced = match written {
        Ok(synced) => synced,
        Err(cause) => {
            // Readers must not see the journal alive when they learn of the doubt.
            let cause = core.poison(&cause);
            done.set(Err(cause));
            core.queue.lock().busy = false;
            core.room.notify_all();
            return Ok(());
        }
    };
    core.measured.group(events);
    let mut queue = core.queue.lock();
    queue.busy = false;
    queue.crowded = changes > 1 || !queue.groups.is_empty();
    queue.bytes = queue.bytes.saturating_sub(bytes.len());
    match core.options.durability {
        Durability::Batched(interval) if !synced => {
            queue.due.get_or_insert_with(|| (Instant::now() + interval, file));
        }
        Durability::Sync | Durability::Batched(_) | Durability::Memory => {
            queue.due = None;
        }
    }
    drop(queue);
    core.room.notify_all();
    // Last: whoever was waiting finds everything as it will be.
    done.set(Ok(()));
    Ok(())
}

/// Syncs what batched durability has left unsynced.
fn sync(core: &Core, file: &dyn StoredFile) -> Result<(), String> {
    let written = core.visible.lock().seq;
    timed_sync(core, file)?;
    let mut queue = core.queue.lock();
    queue.due = None;
    queue.synced = queue.synced.max(written);
    Ok(())
}

/// Makes a file durable, and measures how long that takes.
fn timed_sync(core: &Core, file: &dyn StoredFile) -> Result<(), String> {
    let began = Instant::now();
    file.sync_data().map_err(|error| format!("a sync failed: {error}"))?;
    core.measured.sync(began.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::atom::{AtomId, AtomSpec};
    use crate::journal::storage::MemoryStorage;
    use crate::journal::{
        Creation, Draft, Fact, Journal, JournalError, JournalOptions, MemoryHistory, Ticket, open,
    };
    use crate::time::Timestamp;
    use crate::wakers::tests::Panics;

    fn create(draft: &mut Draft<'_>, number: u8) -> Result<(), JournalError> {
        let creation = Creation {
            engine: "test".into(),
            spec: Arc::new(AtomSpec::command("true")),
            attempt: 1,
            retry_of: None,
        };
        let atom = AtomId::from_bytes([number; 16]);
        draft.append(atom, Timestamp::default(), Fact::Created(creation)).map(drop)
    }

    /// Whoever writes runs the wakers of others. What one of them does must not leave the rest waiting.
    #[test]
    fn a_waker_that_panics_leaves_nobody_waiting() {
        let (storage, history) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryHistory::new()));
        let (core, _) = open::open(storage, history, JournalOptions::default()).unwrap();
        let core = Arc::new(core);
        let queue = |number| core.change_lazily(|draft| create(draft, number));
        let (first, second) = (queue(1).unwrap().1, queue(2).unwrap().1);
        let waker = Waker::from(Arc::new(Panics));
        assert!(core.visible.poll_event(1, &mut None, &waker).is_pending());
        let writes = std::thread::scope(|scope| scope.spawn(|| first.wait()).join());
        assert!(writes.is_err(), "it panicked");
        assert!(matches!(second.wait(), Err(JournalError::InDoubt { .. })));
        assert!(matches!(queue(3), Err(JournalError::Poisoned { .. })));
        core.drain().unwrap_err();
    }

    /// Waits for its ticket when it is dropped, as an engine does for what it stops.
    struct WaitsAtItsEnd(Option<Ticket>);

    impl Drop for WaitsAtItsEnd {
        fn drop(&mut self) {
            self.0.take().unwrap().wait().unwrap();
        }
    }

    #[test]
    fn whoever_writes_while_it_unwinds_harms_nobody() {
        let journal = Journal::open(
            Arc::new(MemoryStorage::new()),
            Arc::new(MemoryHistory::new()),
            JournalOptions::default(),
        );
        let (journal, _) = journal.unwrap();
        let queue = |number| journal.change_lazily(|draft| create(draft, number)).unwrap().1;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _waits = WaitsAtItsEnd(Some(queue(1)));
            panic!("as the test wants it");
        }));
        assert!(panicked.is_err());
        queue(2).wait().unwrap();
        journal.close().unwrap();
    }
}
