//! The one thread that writes events.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::queue::Group;
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
/// While one group is being made durable the next one fills.
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

/// Waits for something to do.
fn next(core: &Core) -> Step {
    let mut queue = core.queue.lock();
    loop {
        if queue.failed.is_some() {
            return Step::End;
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
    let Group { file, offset, progress, bytes, records, barrier, done } = group;
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
