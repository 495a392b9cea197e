//! The marker file of an atom: how far its run has come, for a later life of the host.
//!
//! It is called `prepared` until just before the program is executed, and `spawned` from then on. All of
//! its room is set aside when it is made: nothing that is written later needs free space on the disk.
//!
//! | from byte | what |
//! |---|---|
//! | 0 | boot id (16) and inode of the pid namespace (8) |
//! | 24 | the handle of the run; zeros before there is one |
//! | 72 | 1: our SIGTERM is about to be sent; 2: it has reached it |
//! | 73 | 1: our SIGKILL is about to be sent, or was |
//! | 74 | 1: it has a cgroup |
//! | 75 | 1: its child has its go, and executes its program; written by the child itself |
//! | 80 | when it was started, in microseconds since 1970 (8) |
//! | 88 | pid (4), start time (8) and inode (8) of its reaper; zeros where it has none |
//! | 112 | how its leader ended ([`Word`]), written by whoever reaps it just before that; zeros before |
//! | 160 | how it ended: length (2), CRC-32C (4), the observation (bincode); zeros before |
//!
//! Nothing here is synced: it is for a host that is killed, not for a power cut. An ending
//! that can be read is a true one in either case.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bincode::Options;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::fork::{Ended, Word};
use super::identity::{HANDLE_BYTES, Identity, Place};
use crate::atom::Usage;
use crate::driver::Observation;
use crate::lifecycle::WaitStatus;
use crate::time::Timestamp;

const PREPARED: &str = "prepared";
const SPAWNED: &str = "spawned";

/// What it is called while it is made.
const NEW: &str = "new";

/// The size of the file: one block of every usual file system.
const BYTES: usize = 4096;

/// Boot id and inode of the pid namespace.
const PLACE_BYTES: usize = 16 + 8;

/// Where the child says that it executes its program.
pub(super) const EXECUTING: usize = 75;

/// Where the time of the start is.
const STARTED_AT: usize = 80;

/// Where the identity of its reaper is.
const REAPER: usize = 88;

/// Where whoever reaps the leader writes how it ended.
pub(super) const RECORD: usize = 112;

/// Where the ending begins.
const ENDING: usize = 160;

/// Length and checksum before it.
const ENDING_HEADER: usize = 2 + 4;

/// What we did to an atom, kept for a later host: it tells a stop that worked from an ending by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Our SIGTERM is about to be sent, or was.
    AboutToTerm,
    /// Our SIGTERM has reached it.
    Term,
    /// Our SIGKILL is about to be sent, or was.
    Kill,
    /// It has a cgroup.
    Group,
}

impl Mark {
    const fn at(self) -> usize {
        match self {
            Self::AboutToTerm | Self::Term => 72,
            Self::Kill => 73,
            Self::Group => 74,
        }
    }

    /// The least that is there when this is so.
    const fn value(self) -> u8 {
        match self {
            Self::Term => 2,
            Self::AboutToTerm | Self::Kill | Self::Group => 1,
        }
    }
}

/// What the marker file tells of a start that was not journaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    /// There is no directory, or no marker that can be read.
    Nothing,
    /// The program was not executed, and will not be, unless the child that waits for it has got its go just now:
    /// the identity says who that is, if one was released.
    Prepared(Place, Option<Identity>),
    /// It was about to be executed; and the identity, when it got that far.
    Spawned(Place, Option<Identity>),
}

/// The marker file of one atom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marker<'a> {
    dir: &'a Path,
}

impl<'a> Marker<'a> {
    /// The marker in an atom's directory.
    pub(super) fn of(dir: &'a Path) -> Self {
        Self { dir }
    }

    fn prepared(self) -> PathBuf {
        self.dir.join(PREPARED)
    }

    fn spawned(self) -> PathBuf {
        self.dir.join(SPAWNED)
    }

    /// Makes the file, in the place of one that is called `prepared` if there is one; of a `blank` one, if there is.
    ///
    /// # Errors
    ///
    /// With the path, when there is no room for it.
    pub(super) fn create(self, place: Place, blank: bool) -> Result<(), (PathBuf, io::Error)> {
        let path = self.dir.join(NEW);
        let create = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(!blank).truncate(!blank).mode(0o600);
            let mut file = options.open(&path)?;
            if !blank {
                set_aside(&file)?;
            }
            let mut text = Vec::with_capacity(PLACE_BYTES);
            text.extend_from_slice(&place.boot);
            text.extend_from_slice(&place.pid_ns.to_le_bytes());
            file.write_all(&text)?;
            fs::rename(&path, self.prepared())
        };
        create().map_err(|error| (path.clone(), error))
    }

    /// Makes it a file of zeros that is called as one is that is being made: its room stays set aside.
    pub(super) fn blank(self) -> io::Result<()> {
        let file = self.open()?;
        let new = self.dir.join(NEW);
        fs::rename(self.prepared(), &new).or_else(|_| fs::rename(self.spawned(), &new))?;
        file.write_all_at(&[0; BYTES], 0)
    }

    /// Whether a file has the name of one that is being made.
    pub(super) fn is_new(name: &OsStr) -> bool {
        name == NEW
    }

    /// Removes it, without a descriptor.
    pub(super) fn remove(self) {
        for name in [NEW, PREPARED, SPAWNED] {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// Says that the program is about to be executed. A rename: it needs no room on the disk.
    pub(super) fn mark_spawned(self) -> io::Result<()> {
        fs::rename(self.prepared(), self.spawned())
    }

    /// Says that it has certainly not been.
    pub(super) fn unmark_spawned(self) {
        // Without it a reopening looks for a process, and finds none.
        let _ = fs::rename(self.spawned(), self.prepared());
    }

    /// Says which process it is and when it was started, for a host that dies before this is journaled.
    pub(super) fn record(self, identity: Identity, at: Timestamp) -> io::Result<()> {
        let file = self.open()?;
        file.write_all_at(&at.as_micros().to_le_bytes(), STARTED_AT as u64)?;
        file.write_all_at(&identity.to_handle(), PLACE_BYTES as u64)
    }

    /// When it was started, if that was written down.
    pub(super) fn started_at(self) -> Option<Timestamp> {
        let (_, bytes) = self.read()?;
        let micros = u64::from_le_bytes(*bytes.get(STARTED_AT..)?.first_chunk()?);
        (micros != 0).then(|| Timestamp::from_micros(micros))
    }

    /// Says who reaps it.
    pub(super) fn record_reaper(self, reaper: Identity) -> io::Result<()> {
        let Identity { pid, start_time, inode, place: _ } = reaper;
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&pid.to_le_bytes());
        bytes[4..12].copy_from_slice(&start_time.to_le_bytes());
        bytes[12..].copy_from_slice(&inode.to_le_bytes());
        self.write(&bytes, REAPER)
    }

    /// Who reaps it, if somebody does.
    pub(super) fn reaper(self) -> Option<Identity> {
        reaper_of(&self.read()?.1)
    }

    /// Writes down how its leader ended, which is about to be reaped.
    pub(super) fn record_end(self, at: Timestamp, status: WaitStatus, usage: Usage) {
        let ended = Ended::of(at, status, usage);
        if let Err(error) = self.write(&Word::Ended(ended).encode(), RECORD) {
            // Only a host that is killed now misses it: `unknown` then.
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write down how an atom ended");
        }
    }

    /// How its leader ended, if whoever reaped it has written that down.
    pub(super) fn reaped(self) -> Option<(Timestamp, WaitStatus, Usage)> {
        reaped_of(&self.read()?.1)
    }

    /// The file, for a child and its reaper to write into.
    pub(super) fn open(self) -> io::Result<File> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        // A keeper never calls it otherwise.
        match open(self.prepared()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => open(self.spawned()),
            result => result,
        }
    }

    /// Writes down what is done to it.
    pub(super) fn mark(self, mark: Mark) {
        if let Err(error) = self.write(&[mark.value()], mark.at()) {
            // Only a host that is killed now misses it, and then calls a stop a plain exit.
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write down a signal that was sent");
        }
    }

    /// Takes it back.
    pub(super) fn unmark(self, mark: Mark) {
        // Whoever finds it still there looks once more, and finds nothing.
        let _ = self.write(&[0], mark.at());
    }

    /// Whether that was done to it, by this host or an earlier one.
    pub(super) fn has(self, mark: Mark) -> bool {
        self.read().is_some_and(|(_, bytes)| bytes.get(mark.at()) >= Some(&mark.value()))
    }

    /// Writes down how it ended. Only the first ending counts.
    pub(super) fn end(self, ending: &Observation) {
        let write = || -> io::Result<()> {
            let payload = options().serialize(ending).map_err(io::Error::other)?;
            let length = u16::try_from(payload.len()).map_err(io::Error::other)?;
            let mut bytes = Vec::with_capacity(ENDING_HEADER + payload.len());
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
            bytes.extend_from_slice(&payload);
            self.write(&bytes, ENDING)
        };
        if let Err(error) = write() {
            // Only a host that is killed before this is journaled misses it: `unknown` then.
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write down how an atom ended");
        }
    }

    /// How it ended, if that was written down.
    pub(super) fn ending(self) -> Option<Observation> {
        ending_of(&self.read()?.1)
    }

    /// What the file tells of the start.
    pub(super) fn trace(self) -> Trace {
        self.read().map_or(Trace::Nothing, |(spawned, bytes)| trace_of(spawned, &bytes))
    }

    /// Reads a marker of any bytes.
    #[cfg(feature = "test-util")]
    pub(super) fn fuzz(bytes: &[u8]) {
        let _ = (trace_of(false, bytes), reaper_of(bytes), reaped_of(bytes), ending_of(bytes));
    }

    fn write(self, bytes: &[u8], at: usize) -> io::Result<()> {
        self.open()?.write_all_at(bytes, at as u64)
    }

    /// The file, and whether it is called `spawned`.
    fn read(self) -> Option<(bool, Vec<u8>)> {
        // In the order in which it is called so: one that is renamed in between is found.
        for (name, spawned) in [(self.prepared(), false), (self.spawned(), true)] {
            if let Ok(file) = File::open(name) {
                let mut bytes = Vec::with_capacity(BYTES);
                file.take(BYTES as u64).read_to_end(&mut bytes).ok()?;
                return Some((spawned, bytes));
            }
        }
        None
    }
}

/// Gives a new marker its room.
fn set_aside(file: &File) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, BYTES as u64) {
        // What cannot be set aside is filled: that takes the room as well.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.write_all_at(&[0; BYTES], 0),
        result => Ok(result?),
    }
}

fn place_of(bytes: &[u8]) -> Option<Place> {
    options().deserialize(bytes.get(..PLACE_BYTES)?).ok()
}

fn trace_of(spawned: bool, bytes: &[u8]) -> Trace {
    let Some(place) = place_of(bytes) else { return Trace::Nothing };
    let handle = bytes.get(PLACE_BYTES..PLACE_BYTES + HANDLE_BYTES);
    let identity = handle.and_then(Identity::from_handle);
    if spawned || bytes.get(EXECUTING) == Some(&1) {
        Trace::Spawned(place, identity)
    } else {
        Trace::Prepared(place, identity)
    }
}

fn reaper_of(bytes: &[u8]) -> Option<Identity> {
    let place = place_of(bytes)?;
    let (pid, rest) = bytes.get(REAPER..)?.split_first_chunk()?;
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (start_time, rest) = rest.split_first_chunk()?;
    let (start_time, inode) = (number(start_time), number(rest.first_chunk()?));
    let pid = u32::from_le_bytes(*pid);
    (pid != 0).then_some(Identity { pid, start_time, inode, place })
}

fn reaped_of(bytes: &[u8]) -> Option<(Timestamp, WaitStatus, Usage)> {
    match Word::decode(bytes.get(RECORD..)?.first_chunk()?)? {
        Word::Ended(ended) => Some(ended.told()),
        Word::Forked { .. } | Word::NotForked { .. } | Word::Left { .. } | Word::Counted { .. } => {
            None
        }
    }
}

fn ending_of(bytes: &[u8]) -> Option<Observation> {
    let (length, rest) = bytes.get(ENDING..)?.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let payload = rest.get(..u16::from_le_bytes(*length).into())?;
    if payload.is_empty() || crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    options().deserialize(payload).ok()
}

fn options() -> impl Options {
    bincode::options()
        .with_fixint_encoding()
        .with_limit((BYTES - ENDING - ENDING_HEADER) as u64)
        .reject_trailing_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atom::AtomId;
    use crate::lifecycle::Reason;
    use crate::time;

    const HERE: Place = Place { boot: *b"0123456789abcdef", pid_ns: 17 };

    fn lost(detail: &str) -> Observation {
        Observation::LostSight {
            atom: AtomId::new(),
            at: time::now(),
            reason: Reason::ExitUnobserved,
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_whatever_the_file_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        assert_eq!(marker.trace(), Trace::Nothing);
        marker.create(HERE, false).unwrap();
        assert_eq!(marker.trace(), Trace::Prepared(HERE, None));
        assert!(!marker.has(Mark::Term) && !marker.has(Mark::Kill));
        assert_eq!(marker.ending(), None);
        let identity = Identity { pid: 9, start_time: 8, inode: 7, place: HERE };
        marker.record(identity, Timestamp::from_micros(7)).unwrap();
        assert_eq!(marker.started_at(), Some(Timestamp::from_micros(7)));
        assert_eq!(marker.trace(), Trace::Prepared(HERE, Some(identity)), "it was not executed");
        marker.mark_spawned().unwrap();
        assert_eq!(marker.trace(), Trace::Spawned(HERE, Some(identity)));
        assert_eq!((marker.reaper(), marker.reaped()), (None, None));
        let reaper = Identity { pid: 5, start_time: 6, inode: 7, place: HERE };
        marker.record_reaper(reaper).unwrap();
        assert_eq!(marker.reaper(), Some(reaper));
        marker.mark(Mark::Kill);
        assert!(!marker.has(Mark::Term) && marker.has(Mark::Kill));
        let ending = lost("why");
        marker.end(&ending);
        assert_eq!(marker.ending(), Some(ending));
        assert_eq!(marker.trace(), Trace::Spawned(HERE, Some(identity)));
        marker.unmark_spawned();
        assert_eq!(marker.trace(), Trace::Prepared(HERE, Some(identity)));
    }

    #[test]
    fn nothing_that_is_written_later_makes_it_larger() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        marker.create(HERE, false).unwrap();
        marker.mark(Mark::Term);
        marker.end(&lost(&"x".repeat(3000)));
        assert!(marker.ending().is_some());
        marker.end(&lost(&"x".repeat(5000)));
        let length = fs::metadata(dir.path().join(PREPARED)).unwrap().len();
        assert_eq!(length, BYTES as u64);
    }

    #[test]
    fn a_damaged_ending_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        marker.create(HERE, false).unwrap();
        marker.end(&lost("why"));
        let path = dir.path().join(PREPARED);
        let whole = fs::read(&path).unwrap();
        let end = ENDING
            + ENDING_HEADER
            + usize::from(u16::from_le_bytes([whole[ENDING], whole[ENDING + 1]]));
        for at in ENDING..end {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            assert_eq!(marker.ending(), None, "byte {at}");
        }
    }
}
