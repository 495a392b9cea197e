//! Durable appends: one writer, with groups of several sizes; and 64 writers, each of whom waits for its own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{JoinHandle, scope, spawn};
use std::time::Instant;

use caesium::journal::JournalOptions;

use crate::Result;
use crate::contender::{Contender, Fjall, Plain, Redb, Sqlite};
use crate::journal::Events;
use crate::table::{rates, repeat};

/// How many write at once.
const WRITERS: usize = 64;

fn others(dir: &Path) -> Result<Vec<(String, Box<dyn Contender>)>> {
    Ok(vec![
        ("SQLite, WAL, synchronous=FULL".into(), Box::new(Sqlite::new(dir)?)),
        ("redb".into(), Box::new(Redb::new(dir)?)),
        ("fjall, SyncData".into(), Box::new(Fjall::new(dir)?)),
    ])
}

/// One writer: an event, a hundred, a thousand in one durable step.
pub(crate) fn append(dir: &Path) -> Result<()> {
    for group in [1, 100, 1000] {
        let dir = dir.join(group.to_string());
        std::fs::create_dir(&dir)?;
        let mut contenders: Vec<(String, Box<dyn Contender>)> = vec![
            ("plain file, preallocated, fdatasync".into(), Box::new(Plain::new(&dir)?)),
            ("caesium".into(), Box::new(Events::new(&dir, JournalOptions::default())?)),
        ];
        contenders.extend(others(&dir)?);
        let title = format!("One writer, {group} events of 200 bytes in one durable step");
        rates(&title, "events", &mut contenders, |contender, turn| {
            repeat(turn, || contender.commit(group).map(|()| group))
        })?;
    }
    Ok(())
}

/// Many writers, grouped by whoever has no grouping of its own.
pub(crate) fn many(dir: &Path) -> Result<()> {
    let mut contenders: Vec<(String, Box<dyn Shared>)> =
        vec![("caesium".into(), Box::new(Events::new(dir, JournalOptions::default())?))];
    for (name, contender) in others(dir)? {
        contenders.push((format!("{name}, grouped"), Box::new(Grouped::new(contender))));
    }
    let title = format!("{WRITERS} writers, each of whom waits for each of its events");
    rates(&title, "events", &mut contenders, |shared, turn| {
        let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let began = Instant::now();
        scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        shared.append();
                        done.fetch_add(1, Ordering::Relaxed);
                        if began.elapsed() >= turn {
                            over.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        Ok(done.into_inner())
    })
}

/// What many append to at once.
trait Shared: Sync {
    /// One record, which is durable when this returns.
    fn append(&self);
}

impl Shared for Events {
    fn append(&self) {
        let ticket = Events::append(self, 1).expect("room");
        ticket.wait().expect("durable");
    }
}

/// The grouping that somebody would put before a store that has none: whatever waits is committed at once.
struct Grouped {
    queue: Option<Sender<SyncSender<()>>>,
    committer: Option<JoinHandle<()>>,
}

impl Grouped {
    fn new(mut contender: Box<dyn Contender>) -> Self {
        let (queue, waiting): (_, Receiver<SyncSender<()>>) = channel();
        let committer = spawn(move || {
            while let Ok(first) = waiting.recv() {
                let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
                contender.commit(group.len()).expect("durable");
                for one in group {
                    let _ = one.send(());
                }
            }
        });
        Self { queue: Some(queue), committer: Some(committer) }
    }
}

impl Shared for Grouped {
    fn append(&self) {
        let (done, wait) = sync_channel(1);
        self.queue.as_ref().expect("open").send(done).expect("a committer");
        wait.recv().expect("durable");
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
    }
}
