//! The history as a row of parts, each for one range of numbers, that is begun at the
//! beginning of a segment and goes as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::head::{self, Contents};
use super::shelf::{Access, OpenPart, Shelf};
use super::trouble::Trouble;
use super::{Base, Chunk, Head, HistoryState, HistoryUsage, Part};
use crate::atom::AtomId;
use crate::journal::JournalError;
use crate::journal::frame::CHAIN_START;
use crate::journal::storage::Storage;
use crate::time::Timestamp;

/// So many parts are open at a time, the one that is appended to among them. To open
/// one costs as much as to read it, and each takes a descriptor, and memory to know what is where.
const MAX_OPEN: usize = 32;

/// A part is begun where the one before has this share of all bytes: then one that
/// is partly cut away wastes no more than that.
const SHARE: u64 = 8;

/// A base is as large as the atoms that exist: larger than this no file is one.
const MAX_BASE_BYTES: u64 = 1 << 32;

/// The history of a store.
#[derive(Debug)]
pub(crate) struct Parts<S: Shelf> {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) shelf: S,
    pub(super) state: Mutex<State<S::Opened>>,
}

#[derive(Debug)]
pub(super) struct State<O> {
    /// What the head says, once it was read.
    contents: Option<Option<Contents>>,
    /// The last write of the head failed: what is on disk is either that one or `contents`.
    doubtful: bool,
    pub(super) open: Vec<Open<O>>,
    /// What is wrong with parts, and what for: one that cannot be read is not appended to either. Nothing is tried again
    /// before the store is opened anew.
    pub(super) damaged: BTreeMap<u64, (Access, String)>,
    /// Counts what is done with open parts, and how far that was when something was last appended.
    clock: u64,
    appended_at: u64,
}

#[derive(Debug)]
pub(super) struct Open<O> {
    pub(super) first: u64,
    pub(super) opened: O,
    access: Access,
    used: u64,
}

impl<O> Default for State<O> {
    fn default() -> Self {
        Self {
            contents: None,
            doubtful: false,
            open: Vec::new(),
            damaged: BTreeMap::new(),
            clock: 0,
            appended_at: 0,
        }
    }
}

/// The name of the file with what a part builds on.
pub(super) fn base_name(first: u64) -> String {
    format!("{first:020}.base")
}

/// The part whose base has this name.
pub(super) fn base_of(name: &str) -> Option<u64> {
    number(name.strip_suffix(".base")?)
}

/// The part that a name in the history's directory has to do with.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    number(name.split_once('.').map_or(name, |(digits, _)| digits))
}

/// A number as names have it: twenty digits.
pub(super) fn number(digits: &str) -> Option<u64> {
    let all = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| all && *number > 0)
}

fn damage(part: &Part, problem: &str) -> JournalError {
    let Part { first, last, .. } = part;
    JournalError::HistoryDamaged { problem: format!("events {first} to {last}: {problem}") }
}

impl<S: Shelf> Parts<S> {
    /// The history whose head is in `storage`, and whose parts are on `shelf`.
    /// Nothing is opened or made before it is needed.
    pub(super) fn new(storage: Arc<dyn Storage>, shelf: S) -> Self {
        Self { storage, shelf, state: Mutex::new(State::default()) }
    }

    /// What the head says.
    pub(super) fn load<'a>(
        &self,
        state: &'a mut State<S::Opened>,
    ) -> Result<Option<&'a Contents>, JournalError> {
        if state.contents.is_none() {
            let contents = head::read(&*self.storage)?;
            // The last host may have died before it made a name, or its absence, durable.
            state.doubtful = head::sync(&*self.storage).is_err();
            state.contents = Some(contents);
        }
        Ok(state.contents.as_ref().and_then(Option::as_ref))
    }

    /// Makes the head say something else, by one of the two ways to write it: what is set aside is for a cut, which
    /// makes room. When that fails, either may be on disk.
    pub(super) fn install(
        &self,
        state: &mut State<S::Opened>,
        contents: Contents,
        write: impl FnOnce(&dyn Storage, &Contents) -> Result<(), head::Unwritten>,
    ) -> Result<(), JournalError> {
        match write(&*self.storage, &contents) {
            Ok(()) => {
                state.contents = Some(Some(contents));
                Ok(())
            }
            Err(head::Unwritten { error, in_doubt }) => {
                state.doubtful |= in_doubt;
                Err(error)
            }
        }
    }

    /// Makes the head on disk the one that is known, if that is in doubt: what it
    /// may name must not be removed or made anew.
    pub(super) fn be_certain(&self, state: &mut State<S::Opened>) -> Result<(), JournalError> {
        if !state.doubtful {
            return Ok(());
        }
        match state.contents.clone().flatten() {
            Some(contents) => {
                head::write_in_need(&*self.storage, &contents).map_err(|failed| failed.error)?;
            }
            None => head::remove(&*self.storage)?,
        }
        state.doubtful = false;
        Ok(())
    }

    /// Finds or opens a part; gives where it is among those that are open.
    pub(super) fn open(
        &self,
        state: &mut State<S::Opened>,
        part: &Part,
        access: Access,
    ) -> Result<usize, JournalError> {
        if let Some((of, problem)) = state.damaged.get(&part.first)
            && (access == Access::Append || *of == Access::Read)
        {
            return Err(damage(part, problem));
        }
        state.clock += 1;
        if let Some(at) = state.open.iter().position(|open| open.first == part.first) {
            if access == Access::Read || state.open[at].access == Access::Append {
                state.open[at].used = state.clock;
                return Ok(at);
            }
            let copy = state.open.swap_remove(at);
            self.shut(copy);
        }
        while state.open.len() >= MAX_OPEN && self.shut_one(state, |_| true) {}
        match self.shelf.open(part, access) {
            Ok(opened) => {
                let used = state.clock;
                state.open.push(Open { first: part.first, opened, access, used });
                Ok(state.open.len() - 1)
            }
            Err(trouble) => Err(self.give_up(state, part, access, trouble)),
        }
    }

    /// Keeps a part that was just made open, to be appended to.
    pub(super) fn keep_open(&self, state: &mut State<S::Opened>, first: u64, opened: S::Opened) {
        state.clock += 1;
        let used = state.clock;
        state.open.push(Open { first, opened, access: Access::Append, used });
    }

    /// What a failure makes of a part that was open, or to be opened, for this.
    pub(super) fn give_up(
        &self,
        state: &mut State<S::Opened>,
        part: &Part,
        access: Access,
        trouble: Trouble,
    ) -> JournalError {
        match trouble {
            Trouble::Io(error) => error,
            Trouble::Damage(problem) => {
                self.forget(state, part.first);
                let error = damage(part, &problem);
                state.damaged.insert(part.first, (access, problem));
                error
            }
        }
    }

    /// Leaves an open part as it is.
    fn forget(&self, state: &mut State<S::Opened>, first: u64) {
        if let Some(at) = state.open.iter().position(|open| open.first == first) {
            state.open.swap_remove(at).opened.forget();
        }
    }

    /// Closes a part, all of which need not be proven.
    fn shut(&self, open: Open<S::Opened>) {
        if let Err(trouble) = self.shelf.close(open.first, open.opened, false) {
            tracing::warn!(?trouble, "a part of the history could not be closed");
        }
    }

    /// Closes the part among those that are only read that was not used for longest, if there is
    /// one that `which` says so of.
    fn shut_one(
        &self,
        state: &mut State<S::Opened>,
        which: impl Fn(&Open<S::Opened>) -> bool,
    ) -> bool {
        let read = state.open.iter().enumerate();
        let read = read.filter(|(_, open)| open.access == Access::Read && which(open));
        let Some((at, _)) = read.min_by_key(|(_, open)| open.used) else { return false };
        let open = state.open.swap_remove(at);
        self.shut(open);
        true
    }

    /// Closes the part that was appended to: from now on it is only read.
    fn hand_over(&self, state: &mut State<S::Opened>) -> Result<(), JournalError> {
        let Some(at) = state.open.iter().position(|open| open.access == Access::Append) else {
            return Ok(());
        };
        let open = state.open.swap_remove(at);
        self.shelf.close(open.first, open.opened, true).map_err(|trouble| match trouble {
            Trouble::Io(error) => error,
            Trouble::Damage(problem) => JournalError::HistoryDamaged { problem },
        })
    }

    /// Closes a part whose last chunks do not count: the next opening has to prove the others.
    fn take_back(&self, state: &mut State<S::Opened>, first: u64) {
        if let Some(at) = state.open.iter().position(|open| open.first == first) {
            let open = state.open.swap_remove(at);
            self.shut(open);
        }
    }

    // --- what a history does ---

    pub(super) fn settle(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        self.load(&mut state)?;
        self.be_certain(&mut state)
    }

    pub(super) fn head(&self) -> Result<Option<Head>, JournalError> {
        Ok(self.load(&mut self.state.lock())?.map(|contents| contents.head))
    }

    pub(super) fn parts(&self) -> Result<Vec<Part>, JournalError> {
        let mut state = self.state.lock();
        Ok(self.load(&mut state)?.map(|contents| contents.parts.clone()).unwrap_or_default())
    }

    pub(super) fn append(
        &self,
        chunks: &[Chunk],
        base: &mut dyn FnMut() -> Result<Base, JournalError>,
    ) -> Result<(), JournalError> {
        let Some(first) = chunks.first().map(|chunk| chunk.first) else { return Ok(()) };
        let mut state = self.state.lock();
        let state = &mut *state;
        self.be_certain(state)?;
        // What nobody has read since the last segment need not stay open.
        let before = std::mem::replace(&mut state.appended_at, state.clock);
        while self.shut_one(state, |open| open.used <= before) {}
        let contents = self.load(state)?.cloned().unwrap_or_else(|| nothing_before(first));
        let last = contents.head.last;
        if first != last + 1 {
            let problem = format!("it ends with event {last}, and {first} should follow");
            return Err(JournalError::HistoryDamaged { problem });
        }
        if let Some(part) = self.to_go_on_with(state, &contents, base)? {
            match self.go_on(state, &contents, part, chunks) {
                // What is wrong with it stays what it is. The journal goes on in another part.
                Err(error @ JournalError::HistoryDamaged { .. })
                    if state.damaged.contains_key(&part.first) =>
                {
                    tracing::warn!(%error, "the newest part of the history is damaged");
                }
                other => return other,
            }
        }
        let base = base()?;
        if base.first() != first {
            let problem = format!("what event {first} builds on is not known");
            return Err(JournalError::HistoryDamaged { problem });
        }
        self.begin(state, &contents, chunks, Some(&base))
    }

    /// Says that the history begins with this event, where that is not the first one.
    pub(super) fn begin_with(&self, first: u64) -> Result<(), JournalError> {
        if first == 1 {
            return Ok(());
        }
        self.install(&mut self.state.lock(), nothing_before(first), head::write)
    }

    /// Appends chunks that are not to be folded, as a salvage gives them.
    pub(super) fn archive(&self, chunks: &[Chunk]) -> Result<(), JournalError> {
        let Some(first) = chunks.first().map(|chunk| chunk.first) else { return Ok(()) };
        let mut state = self.state.lock();
        let state = &mut *state;
        self.be_certain(state)?;
        let contents = self.load(state)?.cloned().unwrap_or_else(|| nothing_before(first));
        match contents.parts.last().copied() {
            Some(part) if part.bytes < self.shelf.sizes().most => {
                self.go_on(state, &contents, part, chunks)
            }
            Some(_) | None => self.begin(state, &contents, chunks, None),
        }
    }

    /// The part that takes what comes now, if that is not a new one.
    fn to_go_on_with(
        &self,
        state: &State<S::Opened>,
        contents: &Contents,
        base: &mut dyn FnMut() -> Result<Base, JournalError>,
    ) -> Result<Option<Part>, JournalError> {
        let Some(part) = contents.parts.last().copied() else { return Ok(None) };
        if !part.folds || state.damaged.contains_key(&part.first) {
            return Ok(None);
        }
        let sizes = self.shelf.sizes();
        let all: u64 = contents.parts.iter().map(|part| part.bytes).sum();
        if part.bytes < (all / SHARE).clamp(sizes.least, sizes.most) {
            return Ok(Some(part));
        }
        let small = part.bytes < sizes.bases * base()?.frames().len() as u64;
        Ok(small.then_some(part))
    }

    fn go_on(
        &self,
        state: &mut State<S::Opened>,
        contents: &Contents,
        part: Part,
        chunks: &[Chunk],
    ) -> Result<(), JournalError> {
        let at = self.open(state, &part, Access::Append)?;
        if let Err(trouble) = state.open[at].opened.append(chunks) {
            // Some of it may be there. What counted before it is proven when it is opened again.
            self.forget(state, part.first);
            return Err(match trouble {
                Trouble::Io(error) => error,
                Trouble::Damage(problem) => damage(&part, &problem),
            });
        }
        let mut next = contents.clone();
        next.parts.pop();
        next.parts.push(grown(part, chunks));
        self.count(state, next, part.first)
    }

    /// Begins a part with chunks.
    fn begin(
        &self,
        state: &mut State<S::Opened>,
        contents: &Contents,
        chunks: &[Chunk],
        base: Option<&Base>,
    ) -> Result<(), JournalError> {
        if let Err(error) = self.hand_over(state) {
            tracing::warn!(%error, "a part of the history could not be handed over");
        }
        let first = chunks.first().map_or(contents.head.last + 1, |chunk| chunk.first);
        let opened = self.fill(first, base, |opened| opened.append(chunks))?;
        head::set_room_aside(&*self.storage, self.shelf.sizes().room);
        self.keep_open(state, first, opened);
        let mut next = contents.clone();
        next.parts.push(grown(begun(first, base.is_some()), chunks));
        self.count(state, next, first)
    }

    /// Makes a part and what it builds on. What is left of it when that fails goes.
    pub(super) fn fill(
        &self,
        first: u64,
        base: Option<&Base>,
        fill: impl FnOnce(&mut S::Opened) -> Result<(), Trouble>,
    ) -> Result<S::Opened, JournalError> {
        let made = self.shelf.create(first).and_then(|mut opened| {
            let filled = fill(&mut opened).and_then(|()| match base {
                Some(base) => {
                    Ok(head::write_file(&*self.storage, &base_name(first), base.frames())?)
                }
                None => Ok(()),
            });
            match filled {
                Ok(()) => Ok(opened),
                Err(trouble) => {
                    opened.forget();
                    Err(trouble)
                }
            }
        });
        made.map_err(|trouble| {
            self.remove(first);
            match trouble {
                Trouble::Io(error) => error,
                Trouble::Damage(problem) => JournalError::HistoryDamaged {
                    problem: format!("a part from event {first} on cannot be written: {problem}"),
                },
            }
        })
    }

    /// Makes what was appended to a part count.
    fn count(
        &self,
        state: &mut State<S::Opened>,
        mut next: Contents,
        first: u64,
    ) -> Result<(), JournalError> {
        if let Some(part) = next.parts.last() {
            next.head.last = part.last;
            next.head.chain = part.chain;
        }
        let counted = self.install(state, next, head::write);
        if counted.is_err() {
            self.take_back(state, first);
        }
        counted
    }

    pub(super) fn frames(&self, seq: u64, most: usize) -> Result<Option<Vec<u8>>, JournalError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(part) = self.load(state)?.and_then(|contents| part_of(contents, seq)) else {
            return Ok(None);
        };
        let at = self.open(state, &part, Access::Read)?;
        let read = |opened: &S::Opened| {
            let missing = || Trouble::Damage(format!("event {seq} is missing"));
            let mut frames = Vec::with_capacity(most);
            let mut next = opened.chunk(seq, &mut frames)?.ok_or_else(missing)?;
            while let Some(first) = next.first.filter(|first| *first <= part.last)
                && frames.len() < most
            {
                next = opened.chunk(first, &mut frames)?.ok_or_else(missing)?;
            }
            Ok(frames)
        };
        let Open { opened, access, .. } = &state.open[at];
        let (frames, access) = (read(opened), *access);
        frames.map(Some).map_err(|trouble| self.give_up(state, &part, access, trouble))
    }

    pub(super) fn of_atom(&self, atom: AtomId) -> Result<Vec<u64>, JournalError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let parts = self.load(state)?.map(|contents| contents.parts.clone()).unwrap_or_default();
        let mut found = Vec::new();
        for part in parts {
            let at = self.open(state, &part, Access::Read)?;
            let Open { opened, access, .. } = &state.open[at];
            let (firsts, access) = (opened.of_atom(atom), *access);
            let firsts = firsts.map_err(|trouble| self.give_up(state, &part, access, trouble))?;
            found.extend(firsts.into_iter().filter(|first| *first <= part.last));
        }
        Ok(found)
    }

    pub(super) fn base(&self, first: u64) -> Result<Option<Base>, JournalError> {
        let mut state = self.state.lock();
        let contents = self.load(&mut state)?;
        match contents.and_then(|contents| part_of(contents, first)) {
            Some(part) if part.first == first && part.folds => self.read_base(first).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    pub(super) fn read_base(&self, first: u64) -> Result<Base, JournalError> {
        let name = base_name(first);
        let path = self.storage.path(&name);
        let damaged = |problem: String| JournalError::HistoryDamaged {
            problem: format!("{}: {problem}", path.display()),
        };
        let bytes = head::read_file(&*self.storage, &name, MAX_BASE_BYTES)?;
        let bytes = bytes.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let base = Base::read(bytes).map_err(damaged)?;
        if base.first() == first {
            return Ok(base);
        }
        Err(damaged(format!("it is what event {} builds on", base.first())))
    }

    pub(super) fn usage(&self) -> HistoryUsage {
        let mut state = self.state.lock();
        let known = !state.damaged.is_empty();
        let told = self.load(&mut state).map(|contents| contents.map(|told| told.parts.len()));
        let (state, parts) = match told {
            Ok(Some(parts)) if !known => (HistoryState::Whole, parts),
            Ok(None) if !known => (HistoryState::Absent, 0),
            Ok(parts) => (HistoryState::Damaged, parts.unwrap_or(0)),
            Err(_) => (HistoryState::Damaged, 0),
        };
        HistoryUsage { state, parts, bytes: self.shelf.bytes().unwrap_or(0) }
    }

    pub(super) fn close(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        if let Err(error) = self.be_certain(&mut state) {
            tracing::warn!(%error, "the head of the history may be a newer one than was told");
        }
        let handed_over = self.hand_over(&mut state);
        while self.shut_one(&mut state, |_| true) {}
        *state = State::default();
        handed_over
    }
}

impl<S: Shelf> Drop for Parts<S> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the history could not be closed cleanly");
        }
    }
}

/// A history that begins with this event.
fn nothing_before(first: u64) -> Contents {
    Contents { head: Head { first, last: first - 1, chain: CHAIN_START }, parts: Vec::new() }
}

/// The part that has this event, kept or not.
pub(super) fn part_of(contents: &Contents, seq: u64) -> Option<Part> {
    let at = contents.parts.partition_point(|part| part.last < seq);
    contents.parts.get(at).copied().filter(|part| part.first <= seq)
}

/// A part of which there is nothing yet.
pub(super) fn begun(first: u64, folds: bool) -> Part {
    let (oldest, newest) = (Timestamp::from_micros(u64::MAX), Timestamp::default());
    Part { first, last: first - 1, chain: 0, folds, bytes: 0, oldest, newest }
}

/// A part with more chunks.
pub(super) fn grown(mut part: Part, chunks: &[Chunk]) -> Part {
    for chunk in chunks {
        part.last = chunk.last;
        part.chain = chunk.chain;
        part.bytes += chunk.frames.len() as u64;
        part.oldest = part.oldest.min(chunk.oldest);
        part.newest = part.newest.max(chunk.newest);
    }
    part
}
