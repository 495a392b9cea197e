//! The history in sled, which is never trusted further than it was proven.
//!
//! sled does not sync what it flushes, can panic on damaged files, and changes
//! them when it opens them. So: our own fdatasync after every flush; a head
//! beside it that says how far it must reach; a checksum of its files from one
//! clean hand-over to the next; and a copy to open when that does not match.

use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::files::{self, HeadFile, Installed};
use super::{Base, CHUNK_BYTES, Chunk, Head, History, HistoryState, HistoryUsage, Packing};
use crate::atom::AtomId;
use crate::journal::error::{self, JournalError};
use crate::journal::open::sync_dir;
use crate::journal::read::packed;
use crate::journal::wal::reader::ReadEvent;

/// Fixed when the store is made. A value over a quarter of it would become a
/// blob, which sled never syncs; a larger one makes opening slower.
const SEGMENT_BYTES: usize = 2 << 20;

/// sled's default is a gigabyte.
const CACHE_BYTES: u64 = 16 << 20;

/// Frames that are flushed between two fdatasyncs: what can be torn or
/// reordered must stay far below one of sled's segments.
const SYNC_BYTES: usize = 128 << 10;

/// For how long sled's file lock, which can outlive its process, is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// How long a flush or a close may take: there are ways in sled to wait for ever.
const WATCHDOG: Duration = Duration::from_secs(60);

/// The history of a store, in `<store>/history`, and after a cut in `<store>/history.1` and so on.
#[derive(Debug)]
pub struct SledHistory {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nobody has needed it yet.
    Closed,
    Open(Opened),
    /// What is wrong; nothing is tried again before the store is opened anew.
    Damaged(String),
}

#[derive(Debug)]
struct Opened {
    // Its `Drop` panics when a sync fails, so it is dropped where that is caught, or never.
    db: ManuallyDrop<sled::Db>,
    atoms: ManuallyDrop<sled::Tree>,
    /// Our own descriptor of sled's file: the one that is synced.
    file: File,
    head: Option<Head>,
    /// The directory of this generation.
    dir: PathBuf,
    generation: u64,
    /// The event that builds on the base; 0 where there is none.
    base: u64,
}

/// What can go wrong here: with the disk, or with what is on it.
enum Trouble {
    Io(JournalError),
    Damage(String),
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::HistoryDamaged { problem } => Self::Damage(problem),
            JournalError::Unfit(_)
            | JournalError::Io { .. }
            | JournalError::NoSpace { .. }
            | JournalError::TooLarge { .. }
            | JournalError::Damaged { .. }
            | JournalError::Newer { .. }
            | JournalError::InDoubt { .. }
            | JournalError::Poisoned { .. }
            | JournalError::Lagged { .. }
            | JournalError::Inconsistent { .. }
            | JournalError::Closed
            | JournalError::Compacted { .. } => Self::Io(error),
        }
    }
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        Self::Damage(format!("sled: {error}"))
    }
}

impl SledHistory {
    /// The history of the store in `store`. Nothing is opened or made before it is needed.
    pub fn new(store: &Path) -> Self {
        Self { dir: store.join("history"), state: Mutex::new(State::Closed) }
    }

    fn head_file(&self) -> HeadFile {
        HeadFile::beside(&self.dir)
    }

    /// Runs `work` on the open history; opens, and if `create` makes it, first.
    fn with<T>(
        &self,
        create: bool,
        work: impl FnOnce(&mut Opened) -> Result<T, Trouble>,
    ) -> Result<Option<T>, JournalError> {
        let mut state = self.state.lock();
        if let State::Closed = *state {
            match caught(|| self.open(create)) {
                Ok(Some(opened)) => *state = State::Open(opened),
                Ok(None) => return Ok(None),
                Err(trouble) => return Err(give_up(&mut state, trouble)),
            }
        }
        let result = match &mut *state {
            State::Open(opened) => caught(|| work(opened)),
            State::Damaged(problem) => Err(Trouble::Damage(problem.clone())),
            State::Closed => return Ok(None),
        };
        result.map(Some).map_err(|trouble| give_up(&mut state, trouble))
    }

    fn open(&self, create: bool) -> Result<Option<Opened>, Trouble> {
        let installed = self.head_file().read()?;
        let Some(Installed { head, generation, base }) = installed else {
            files::finish_exchange(&self.dir)?;
            if !create {
                return Ok(None);
            }
            // Without a head nothing was ever promised to be in there: it is
            // what an interrupted creation has left.
            files::remove_tree(&self.dir)?;
            crate::journal::open::make_dir(&self.dir)?;
            let opened = open_files(&self.dir)?;
            files::sync_tree(&self.dir)?;
            return Ok(Some(opened));
        };
        let dir = files::generation(&self.dir, generation);
        files::finish_exchange(&dir)?;
        if !dir.is_dir() {
            return Err(Trouble::Damage(format!("{} is gone", dir.display())));
        }
        if !files::sums_match(&dir)? {
            // The last host did not hand it over. sled gets a copy, and the
            // original stays as it is until the copy has proven itself.
            let copy = files::copy_for_proof(&dir)?;
            let proven = caught(|| {
                let opened = open_files(&copy)?;
                cut_beyond(&opened.db, head)?;
                prove(&opened, head)?;
                shut(opened)?;
                files::sync_tree(&copy)?;
                Ok(())
            });
            if let Err(trouble) = proven {
                // It is as large as the history, and of no use to anybody.
                let _ = files::remove_tree(&copy);
                return Err(trouble);
            }
            files::exchange(&dir, &copy)?;
        } else {
            files::set_aside(&dir)?;
        }
        // From here on sled changes the files, and takes a read that fails for
        // damage that it may cut away: so what was proven stays until it is open.
        let opened = caught(|| {
            files::forget_sums(&dir)?;
            let opened = open_files(&dir)?;
            let last = last_of(&opened)?;
            // After a cut of everything there is nothing.
            let told = (head.last >= head.first).then_some((head.last, head.chain));
            if last != told {
                let found = last.map_or(0, |(seq, _)| seq);
                let problem = format!("it ends with event {found}, and should with {}", head.last);
                discard(opened);
                return Err(Trouble::Damage(problem));
            }
            Ok(opened)
        });
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(trouble) => {
                files::restore(&dir)?;
                return Err(trouble);
            }
        };
        if let Err(error) = files::remove_old(&dir) {
            tracing::warn!(%error, "what the history was before it was opened takes room");
        }
        opened.head = Some(head);
        opened.generation = generation;
        opened.base = base;
        Ok(Some(opened))
    }

    /// What the head says, from memory or from its file.
    fn installed(&self) -> Result<Option<Installed>, JournalError> {
        if let State::Open(Opened { head: Some(head), generation, base, .. }) = &*self.state.lock()
        {
            return Ok(Some(Installed { head: *head, generation: *generation, base: *base }));
        }
        self.head_file().read()
    }

    /// Writes a generation from the event `first` on and makes it durable,
    /// beside the one that is there; `source` gives its events in order.
    fn build(
        &self,
        generation: u64,
        first: u64,
        base: &Base,
        source: &mut dyn FnMut() -> Result<Option<ReadEvent>, JournalError>,
    ) -> Result<Opened, Trouble> {
        let dir = files::generation(&self.dir, generation);
        // What an interrupted cut has left.
        files::remove_tree(&dir)?;
        crate::journal::open::make_dir(&dir)?;
        let mut opened = open_files(&dir)?;
        opened.generation = generation;
        opened.base = base.first();
        let mut head = Head { first, last: first - 1, chain: base.chain() };
        let mut packing = Packing::default();
        loop {
            let event = source()?;
            if let Some(event) = event {
                head = Head { last: event.header.seq, chain: event.header.crc, ..head };
                packing.add(event);
                if packing.bytes() < SYNC_BYTES {
                    continue;
                }
                opened.insert(&std::mem::take(&mut packing).finish(), first)?;
            } else {
                opened.insert(&packing.finish(), first)?;
                break;
            }
        }
        prove(&opened, head)?;
        let last = last_of(&opened)?;
        if last != (head.last >= head.first).then_some((head.last, head.chain)) {
            return Err(Trouble::Damage("what was written is not what is read".into()));
        }
        opened.head = Some(head);
        opened.sync()?;
        files::write_base(&dir, base)?;
        files::sync_tree(&dir)?;
        Ok(opened)
    }

    /// Builds a generation and puts it in the place of the one that is there.
    /// The head is what decides: until it is replaced, everything is as it was.
    pub(crate) fn replace(
        &self,
        generation: u64,
        first: u64,
        base: &Base,
        source: &mut dyn FnMut() -> Result<Option<ReadEvent>, JournalError>,
    ) -> Result<(), JournalError> {
        let mut opened =
            caught(|| self.build(generation, first, base, source)).map_err(|trouble| {
                // What is left of it is in nobody's way: the next open removes it.
                let _ = files::remove_tree(&files::generation(&self.dir, generation));
                match trouble {
                    Trouble::Io(error) => error,
                    // The history itself is as it was.
                    Trouble::Damage(problem) => {
                        let source = io::Error::other(problem);
                        error::io("cannot write a new generation of", self.dir.clone(), source)
                    }
                }
            })?;
        let Some(head) = opened.head else {
            return Err(JournalError::HistoryDamaged { problem: "it has no head".into() });
        };
        let mut state = self.state.lock();
        if let Err(error) =
            self.head_file().write(Installed { head, generation, base: base.first() })
        {
            // Either head may be on disk now, so both generations stay until the next open.
            opened.head = None;
            discard(opened);
            return Err(error);
        }
        let before = std::mem::replace(&mut *state, State::Open(opened));
        drop(state);
        if let State::Open(before) = before
            && let Err(Trouble::Damage(problem)) = caught(|| shut(before))
        {
            tracing::warn!(problem, "the generation before the cut could not be closed");
        }
        if let Err(error) = files::remove_other_generations(&self.dir, generation) {
            tracing::warn!(%error, "what was before the cut is removed at the next open");
        }
        Ok(())
    }
}

fn give_up(state: &mut State, trouble: Trouble) -> JournalError {
    match trouble {
        Trouble::Io(error) => error,
        Trouble::Damage(problem) => {
            if let State::Open(opened) = std::mem::replace(state, State::Damaged(problem.clone())) {
                discard(opened);
            }
            JournalError::HistoryDamaged { problem }
        }
    }
}

/// sled panics on damage more often than it returns an error.
fn caught<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Trouble::Damage(format!("sled panicked: {}", said(&*panic)))))
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Leaves sled's handles as they are: dropping them could panic or write.
fn discard(opened: Opened) {
    let Opened { db, atoms, file, head: _, dir: _, generation: _, base: _ } = opened;
    // `ManuallyDrop` drops nothing by itself.
    let _ = (db, atoms);
    drop(file);
}

/// Runs what sled may never return from; gives up on it after [`WATCHDOG`].
fn watched<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, sled::Error> + Send + 'static,
) -> Result<T, Trouble> {
    let (done, result) = mpsc::channel();
    crate::journal::open::spawn("caesium-history", move || {
        // Nobody listens any more when it took too long.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    })?;
    match result.recv_timeout(WATCHDOG) {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(panic)) => Err(Trouble::Damage(format!("sled panicked: {}", said(&*panic)))),
        Err(_) => Err(Trouble::Damage(format!("sled did not {what} in {WATCHDOG:?}"))),
    }
}

/// Lets sled open the files in `dir`. They must be proven, or a copy.
fn open_files(dir: &Path) -> Result<Opened, Trouble> {
    files::remove_unfinished_snapshots(dir)?;
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let patience = Instant::now() + LOCK_PATIENCE;
    let db = loop {
        match config.open() {
            Ok(db) => break ManuallyDrop::new(db),
            Err(sled::Error::Io(error)) if Instant::now() < patience && is_lock(&error) => {
                thread::park_timeout(Duration::from_millis(10));
            }
            Err(sled::Error::Io(source)) => {
                return Err(error::io("cannot open history", dir.to_owned(), source).into());
            }
            Err(error) => return Err(error.into()),
        }
    };
    let atoms = ManuallyDrop::new(db.open_tree("atoms")?);
    files::make_private(dir)?;
    let path = dir.join("db");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| error::io("cannot open", path, source))?;
    Ok(Opened { db, atoms, file, head: None, dir: dir.to_owned(), generation: 0, base: 0 })
}

fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("lock")
}

/// Closes sled and waits until it has written what it had.
fn shut(opened: Opened) -> Result<(), Trouble> {
    let Opened { db, atoms, file, head: _, dir: _, generation: _, base: _ } = opened;
    watched("close", move || {
        drop(ManuallyDrop::into_inner(atoms));
        drop(ManuallyDrop::into_inner(db));
        Ok(())
    })?;
    file.sync_all().map_err(|source| error::io("cannot sync history", PathBuf::new(), source))?;
    Ok(())
}

/// A key: the number of the chunk's first event, and which part of its bytes.
fn key(first: u64, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Sorts after every chunk: the first byte of a sequence number never gets that far.
const HEAD_KEY: &[u8] = b"head";

fn first_of(key: &[u8]) -> Result<u64, Trouble> {
    let first = key.first_chunk::<8>().filter(|_| key.len() == 12);
    first.map(|first| u64::from_be_bytes(*first)).ok_or_else(|| Trouble::Damage("a bad key".into()))
}

/// The frames of the chunk that would have the event with this number.
fn chunk_at(db: &sled::Db, seq: u64) -> Result<Option<Vec<u8>>, Trouble> {
    let Some(found) = db.range(..=key(seq, u32::MAX).as_slice()).next_back() else {
        return Ok(None);
    };
    let first = first_of(&found?.0)?;
    let mut frames = Vec::new();
    for part in db.range(key(first, 0).as_slice()..=key(first, u32::MAX).as_slice()) {
        frames.extend_from_slice(&part?.1);
    }
    Ok(Some(frames))
}

/// Removes what an interrupted packing has left after the head: it is still in
/// the write-ahead log, and may be here in part.
fn cut_beyond(db: &sled::Db, head: Head) -> Result<(), Trouble> {
    for entry in db.range(key(head.last + 1, 0).as_slice()..HEAD_KEY) {
        let (key, _) = entry?;
        db.remove(key)?;
    }
    Ok(())
}

/// The last event that sled has, and its checksum.
fn last_of(opened: &Opened) -> Result<Option<(u64, u32)>, Trouble> {
    let Some(frames) = chunk_at(&opened.db, u64::MAX >> 8)? else { return Ok(None) };
    let mut offset = 0;
    let mut last = None;
    while let Some(event) = packed(&frames, &mut offset)? {
        last = Some((event.header.seq, event.header.crc));
    }
    Ok(last)
}

/// Reads everything: the frames must be whole, follow one another, reach the
/// head and pass through it, and the index must know each of them.
fn prove(opened: &Opened, head: Head) -> Result<(), Trouble> {
    let damage = |problem: String| Err(Trouble::Damage(problem));
    let mut next = head.first;
    let mut chain = None;
    while let Some(frames) = chunk_at(&opened.db, next)? {
        let mut offset = 0;
        let before = next;
        while let Some(event) = packed(&frames, &mut offset)? {
            let header = event.header;
            if header.seq != next || chain.is_some_and(|chain| chain != header.prev) {
                // The chunk that is found for the number after the last one is the last one again.
                break;
            }
            if header.seq == head.last && header.crc != head.chain {
                return damage(format!("event {} is not the one that was packed", header.seq));
            }
            if !opened.atoms.contains_key(index_key(event.record.atom, header.seq))? {
                return damage(format!("the index does not know event {}", header.seq));
            }
            chain = Some(header.crc);
            next += 1;
        }
        if next == before {
            break;
        }
    }
    if next <= head.last {
        return damage(format!("event {next} is missing or does not follow"));
    }
    Ok(())
}

fn index_key(atom: AtomId, seq: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&atom.to_bytes());
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

impl Opened {
    /// Inserts chunks of not much more than [`SYNC_BYTES`] and makes them durable.
    fn insert(&mut self, chunks: &[Chunk], first: u64) -> Result<(), Trouble> {
        let Some(last) = chunks.last() else { return Ok(()) };
        let mut index = sled::Batch::default();
        for (atom, seq) in chunks.iter().flat_map(|chunk| &chunk.atoms) {
            index.insert(index_key(*atom, *seq).as_slice(), &[] as &[u8]);
        }
        // First the index: frames that it does not know would be damage, the reverse is not.
        self.atoms.apply_batch(index)?;
        let head = Head { first, last: last.last, chain: last.chain };
        let mut pending = 0;
        for chunk in chunks {
            for (part, bytes) in chunk.frames.chunks(CHUNK_BYTES).enumerate() {
                let part = u32::try_from(part).unwrap_or(u32::MAX);
                self.db.insert(key(chunk.first, part).as_slice(), bytes)?;
                pending += bytes.len();
                if pending >= SYNC_BYTES {
                    self.sync()?;
                    pending = 0;
                }
            }
        }
        self.db.insert(HEAD_KEY, files::encode_head(head).as_slice())?;
        self.sync()
    }

    fn sync(&self) -> Result<(), Trouble> {
        let db = sled::Db::clone(&self.db);
        watched("flush", move || db.flush())?;
        // A failed sync is final: what was flushed may be gone, and a second one would not tell.
        self.file.sync_data().map_err(|error| Trouble::Damage(format!("its sync failed: {error}")))
    }
}

impl History for SledHistory {
    fn head(&self) -> Result<Option<Head>, JournalError> {
        Ok(self.installed()?.map(|installed| installed.head))
    }

    fn append(&self, chunks: &[Chunk]) -> Result<(), JournalError> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Ok(()) };
        let head_file = self.head_file();
        let appended = self.with(true, |opened| {
            let oldest = opened.head.map_or(first.first, |head| head.first);
            let mut rest = chunks;
            while !rest.is_empty() {
                let mut bytes = 0;
                let count = rest
                    .iter()
                    .take_while(|chunk| {
                        let fits = bytes == 0 || bytes + chunk.frames.len() <= SYNC_BYTES;
                        bytes += chunk.frames.len();
                        fits
                    })
                    .count();
                let (now, later) = rest.split_at(count);
                opened.insert(now, oldest)?;
                rest = later;
            }
            // Only now: whatever this says must be there.
            let head = Head { first: oldest, last: last.last, chain: last.chain };
            let (generation, base) = (opened.generation, opened.base);
            // Failing, it may or may not be the one on disk. Only a copy, cut
            // at the one that is, can tell: so it must not be handed over.
            head_file
                .write(Installed { head, generation, base })
                .map_err(|error| Trouble::Damage(error.to_string()))?;
            opened.head = Some(head);
            Ok(())
        })?;
        appended.ok_or_else(|| JournalError::HistoryDamaged {
            problem: "it was closed while it was written".to_owned(),
        })
    }

    fn frames(&self, seq: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let found = self.with(false, |opened| {
            if opened.head.is_none_or(|head| seq < head.first || seq > head.last) {
                return Ok(None);
            }
            chunk_at(&opened.db, seq)
        })?;
        Ok(found.flatten())
    }

    fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        let found = self.with(false, |opened| {
            let last = opened.head.map_or(0, |head| head.last);
            let mut seqs = Vec::new();
            for entry in opened.atoms.scan_prefix(atom.to_bytes()) {
                let (key, _) = entry?;
                let seq = key.get(16..).and_then(|seq| seq.first_chunk::<8>());
                let seq = seq.ok_or_else(|| Trouble::Damage("a bad key in the index".into()))?;
                seqs.push(u64::from_be_bytes(*seq));
            }
            // The index is written first, so it may know of what was never packed.
            seqs.retain(|seq| *seq <= last);
            Ok(seqs)
        })?;
        Ok(found.unwrap_or_default())
    }

    fn base(&self) -> Result<Option<Base>, JournalError> {
        let Some(Installed { generation, base, .. }) = self.installed()?.filter(|i| i.base > 0)
        else {
            return Ok(None);
        };
        let damaged = |problem| JournalError::HistoryDamaged { problem };
        let found = files::read_base(&files::generation(&self.dir, generation)).map_err(damaged)?;
        if found.first() != base {
            let problem = format!("it builds on what was before {base}, and that is not there");
            return Err(damaged(problem));
        }
        Ok(Some(found))
    }

    fn cut(
        &self,
        first: u64,
        base: &Base,
        going_on: &dyn Fn() -> bool,
    ) -> Result<(), JournalError> {
        let Some(Installed { head, generation, .. }) = self.installed()? else {
            return Err(JournalError::HistoryDamaged { problem: "there is none".into() });
        };
        let (mut next, mut frames, mut offset) = (first, Vec::new(), 0);
        let mut chain = (first == base.first()).then_some(base.chain());
        self.replace(generation + 1, first, base, &mut || {
            loop {
                if !going_on() {
                    return Err(JournalError::Closed);
                }
                if next > head.last {
                    return Ok(None);
                }
                let Some(event) = packed(&frames, &mut offset)? else {
                    let Some(more) = self.frames(next)? else {
                        let problem = format!("event {next} is missing");
                        return Err(JournalError::HistoryDamaged { problem });
                    };
                    (frames, offset) = (more, 0);
                    continue;
                };
                if event.header.seq < next {
                    continue;
                }
                if event.header.seq > next || chain.is_some_and(|chain| chain != event.header.prev)
                {
                    let problem = format!("event {next} does not follow the one before it");
                    return Err(JournalError::HistoryDamaged { problem });
                }
                (next, chain) = (next + 1, Some(event.header.crc));
                return Ok(Some(event));
            }
        })
    }

    fn tidy(&self) -> Result<(), JournalError> {
        // Only the generation that a whole head names is the history, and only
        // beside it is anything else known not to be needed.
        match self.head_file().read() {
            Ok(Some(told)) if files::generation(&self.dir, told.generation).is_dir() => {
                files::remove_other_generations(&self.dir, told.generation)
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn usage(&self) -> HistoryUsage {
        let damaged = matches!(*self.state.lock(), State::Damaged(_));
        let generation = self.installed().ok().flatten().map_or(0, |told| told.generation);
        let bytes = files::disk_bytes(&files::generation(&self.dir, generation));
        let (bytes, state) = match (bytes, self.head_file().read()) {
            (Ok(bytes), Ok(Some(_))) if !damaged => (bytes, HistoryState::Whole),
            (Ok(bytes), Ok(None)) if !damaged => (bytes, HistoryState::Absent),
            (bytes, _) => (bytes.unwrap_or(0), HistoryState::Damaged),
        };
        HistoryUsage { state, bytes }
    }

    fn close(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Closed => Ok(()),
            State::Damaged(problem) => {
                // It was reported to whoever asked. The store itself closes.
                *state = State::Damaged(problem);
                Ok(())
            }
            State::Open(opened) => {
                let dir = opened.dir.clone();
                let handed_over = caught(|| {
                    shut(opened)?;
                    files::sync_tree(&dir)?;
                    if let Err(error) = files::write_sums(&dir) {
                        // On a full disk, say. Nothing is lost: the next opening proves a copy.
                        tracing::warn!(%error, "the history has no checksums");
                    }
                    Ok(())
                });
                handed_over.map_err(|trouble| give_up(&mut state, trouble))
            }
        }
    }
}

impl Drop for SledHistory {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the history could not be closed cleanly");
        }
    }
}

/// The name of the parent's entry must be durable too.
pub(super) fn sync_parent(path: &Path) -> Result<(), JournalError> {
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}
