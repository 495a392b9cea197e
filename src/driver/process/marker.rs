//! The marker file of an atom: how far its run has come, for a later life of the host.
//!
//! It is called `prepared`; one that an earlier version of this library has written is called `spawned` from just before
//! its program was executed. All of its room is set aside when it is made: nothing that is written later needs
//! free space on the disk. A blank one, all zeros, is nobody's, and waits for the next atom.
//!
//! | from byte | what |
//! |---|---|
//! | 0 | boot id (16) and inode of the pid namespace (8); zeros where it is nobody's |
//! | 24 | the handle of the run; zeros before there is one |
//! | 72 | 1: our SIGTERM is about to be sent; 2: it has reached it |
//! | 73 | 1: our SIGKILL is about to be sent, or was |
//! | 74 | 1: it has a cgroup |
//! | 75 | 1: its program is being executed; from a keeper written by the child itself, when it has its go |
//! | 80 | when it was started, in microseconds since 1970 (8) |
//! | 88 | pid (4), start time (8) and inode (8) of its reaper; zeros where it has none |
//! | 112 | how its leader ended ([`Word`]), written by whoever reaps it just before that; zeros before |
//! | 160 | how it ended: length (2), CRC-32C (4), the observation (bincode); zeros before |
//!
//! Nothing here is synced: it is for a host that is killed, not for a power cut. After that it may be blank, or say what it
//! said of an atom before this one, in an earlier boot. An ending has the id of its atom: one that can be read and is
//! this atom's is a true one in either case.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
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
    /// There is no directory, or no whole marker.
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
    /// The file, where it is open already.
    file: Option<&'a File>,
}

/// What a marker file said when it was read.
#[derive(Debug)]
pub(super) struct Facts {
    /// It is called `spawned`.
    spawned: bool,
    bytes: Vec<u8>,
}

impl<'a> Marker<'a> {
    /// The marker in an atom's directory.
    pub(super) fn of(dir: &'a Path) -> Self {
        Self { dir, file: None }
    }

    /// The same, written to by a file that is open already, if there is one.
    pub(super) fn by(self, file: Option<&'a File>) -> Self {
        Self { file, ..self }
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
    pub(super) fn create(self, place: Place, blank: bool) -> Result<File, (PathBuf, io::Error)> {
        let mut text = Vec::with_capacity(PLACE_BYTES);
        text.extend_from_slice(&place.boot);
        text.extend_from_slice(&place.pid_ns.to_le_bytes());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(!blank).truncate(!blank).mode(0o600);
        let path = if blank { self.prepared() } else { self.dir.join(NEW) };
        let create = || -> io::Result<File> {
            let file = options.open(&path)?;
            if blank {
                file.write_all_at(&text, 0)?;
                return Ok(file);
            }
            set_aside(&file)?;
            file.write_all_at(&text, 0)?;
            fs::rename(&path, self.prepared())?;
            Ok(file)
        };
        create().map_err(|error| (path.clone(), error))
    }

    /// Makes it a blank one, whose room stays set aside.
    ///
    /// # Errors
    ///
    /// `ResourceBusy` where a reaper may still write into it: that must not come into another atom's.
    pub(super) fn blank(self) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(self.prepared())?;
        let mut reaper = [0; 4];
        file.read_exact_at(&mut reaper, REAPER as u64)?;
        if reaper != [0; 4] {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        file.write_all_at(&[0; BYTES], 0)
    }

    /// Whether a file has its name.
    pub(super) fn is_its_name(name: &OsStr) -> bool {
        name == PREPARED
    }

    /// Removes it, without a descriptor.
    pub(super) fn remove(self) {
        for name in [NEW, PREPARED, SPAWNED] {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// Says that the program is about to be executed.
    pub(super) fn mark_spawned(self) -> io::Result<()> {
        self.write(&[1], EXECUTING)
    }

    /// Says that it has certainly not been.
    pub(super) fn unmark_spawned(self) {
        // Without it a reopening looks for a process, and finds none.
        let _ = self.write(&[0], EXECUTING);
    }

    /// Says which process it is and when it was started, for a host that dies before this is journaled.
    pub(super) fn record(self, identity: Identity, at: Timestamp) -> io::Result<()> {
        self.with_file(|file| {
            file.write_all_at(&at.as_micros().to_le_bytes(), STARTED_AT as u64)?;
            file.write_all_at(&identity.to_handle(), PLACE_BYTES as u64)
        })
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

    /// Writes down how its leader ended, which is about to be reaped.
    pub(super) fn record_end(self, at: Timestamp, status: WaitStatus, usage: Usage) {
        let ended = Ended::of(at, status, usage);
        if let Err(error) = self.write(&Word::Ended(ended).encode(), RECORD) {
            // Only a host that is killed now misses it: `unknown` then.
            tracing::warn!(dir = %self.dir.display(), %error, "cannot write down how an atom ended");
        }
    }

    /// The file, to be written into.
    pub(super) fn open(self) -> io::Result<File> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        // Hosts of an earlier version called it otherwise once it ran.
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

    /// Reads a marker of any bytes.
    #[cfg(feature = "test-util")]
    pub(super) fn fuzz(bytes: &[u8]) {
        let facts = Facts { spawned: false, bytes: bytes.to_vec() };
        let _ = (facts.trace(), facts.reaper(), facts.reaped(), facts.ending());
    }

    fn write(self, bytes: &[u8], at: usize) -> io::Result<()> {
        self.with_file(|file| file.write_all_at(bytes, at as u64))
    }

    fn with_file<T>(self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match self.file {
            Some(file) => work(file),
            None => work(&self.open()?),
        }
    }

    /// What it says; nothing where there is none.
    pub(super) fn read(self) -> Facts {
        // In the order in which an earlier version, which may be at work still, renames it: it is found in between.
        for (name, spawned) in [(self.prepared(), false), (self.spawned(), true)] {
            if let Ok(file) = File::open(name) {
                let mut bytes = Vec::with_capacity(BYTES);
                return match file.take(BYTES as u64).read_to_end(&mut bytes) {
                    Ok(_) => Facts { spawned, bytes },
                    Err(_) => Facts::NONE,
                };
            }
        }
        Facts::NONE
    }
}

impl Facts {
    const NONE: Self = Self { spawned: false, bytes: Vec::new() };

    /// What the file tells of the start.
    pub(super) fn trace(&self) -> Trace {
        let Some(place) = self.place() else { return Trace::Nothing };
        let handle = self.bytes.get(PLACE_BYTES..PLACE_BYTES + HANDLE_BYTES);
        let identity = handle.and_then(Identity::from_handle);
        if self.spawned || self.bytes.get(EXECUTING) == Some(&1) {
            Trace::Spawned(place, identity)
        } else {
            Trace::Prepared(place, identity)
        }
    }

    /// When it was started, if that was written down.
    pub(super) fn started_at(&self) -> Option<Timestamp> {
        let micros = u64::from_le_bytes(*self.bytes.get(STARTED_AT..)?.first_chunk()?);
        (micros != 0).then(|| Timestamp::from_micros(micros))
    }

    /// Whether that was done to it, by this host or an earlier one.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.bytes.get(mark.at()) >= Some(&mark.value())
    }

    /// Who reaps it, if somebody does.
    pub(super) fn reaper(&self) -> Option<Identity> {
        let place = self.place()?;
        let (pid, rest) = self.bytes.get(REAPER..)?.split_first_chunk()?;
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let (start_time, rest) = rest.split_first_chunk()?;
        let (start_time, inode) = (number(start_time), number(rest.first_chunk()?));
        let pid = u32::from_le_bytes(*pid);
        (pid != 0).then_some(Identity { pid, start_time, inode, place })
    }

    /// How its leader ended, if whoever reaped it has written that down.
    pub(super) fn reaped(&self) -> Option<(Timestamp, WaitStatus, Usage)> {
        match Word::decode(self.bytes.get(RECORD..)?.first_chunk()?)? {
            Word::Ended(ended) => Some(ended.told()),
            Word::Forked { .. }
            | Word::NotForked { .. }
            | Word::Left { .. }
            | Word::Counted { .. } => None,
        }
    }

    /// How it ended, if that was written down.
    pub(super) fn ending(&self) -> Option<Observation> {
        let (length, rest) = self.bytes.get(ENDING..)?.split_first_chunk()?;
        let (crc, rest) = rest.split_first_chunk()?;
        let payload = rest.get(..u16::from_le_bytes(*length).into())?;
        if payload.is_empty() || crc32c::crc32c(payload) != u32::from_le_bytes(*crc) {
            return None;
        }
        options().deserialize(payload).ok()
    }

    /// Where it was prepared: of a blank one in no boot that ever was. `None` of what is too short for one.
    fn place(&self) -> Option<Place> {
        options().deserialize(self.bytes.get(..PLACE_BYTES)?).ok()
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
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        assert_eq!(marker.read().trace(), Trace::Nothing);
        marker.create(HERE, false).unwrap();
        assert_eq!(marker.read().trace(), Trace::Prepared(HERE, None));
        assert!(!marker.read().has(Mark::Term) && !marker.read().has(Mark::Kill));
        assert_eq!(marker.read().ending(), None);
        let identity = Identity { pid: 9, start_time: 8, inode: 7, place: HERE };
        marker.record(identity, Timestamp::from_micros(7)).unwrap();
        assert_eq!(marker.read().started_at(), Some(Timestamp::from_micros(7)));
        assert_eq!(
            marker.read().trace(),
            Trace::Prepared(HERE, Some(identity)),
            "it was not executed"
        );
        marker.mark_spawned().unwrap();
        assert_eq!(marker.read().trace(), Trace::Spawned(HERE, Some(identity)));
        assert_eq!((marker.read().reaper(), marker.read().reaped()), (None, None));
        let reaper = Identity { pid: 5, start_time: 6, inode: 7, place: HERE };
        marker.record_reaper(reaper).unwrap();
        assert_eq!(marker.read().reaper(), Some(reaper));
        marker.mark(Mark::Kill);
        assert!(!marker.read().has(Mark::Term) && marker.read().has(Mark::Kill));
        let ending = lost("why");
        marker.end(&ending);
        assert_eq!(marker.read().ending(), Some(ending));
        assert_eq!(marker.read().trace(), Trace::Spawned(HERE, Some(identity)));
        marker.unmark_spawned();
        assert_eq!(marker.read().trace(), Trace::Prepared(HERE, Some(identity)));
    }

    #[test]
    fn what_an_earlier_version_has_renamed_is_read_and_written_and_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        marker.create(HERE, false).unwrap();
        fs::rename(marker.prepared(), marker.spawned()).unwrap();
        assert_eq!(marker.read().trace(), Trace::Spawned(HERE, None));
        marker.mark(Mark::Kill);
        assert!(marker.read().has(Mark::Kill));
        assert!(marker.blank().is_err());
        assert!(marker.read().has(Mark::Kill));
    }

    #[test]
    fn a_blank_one_says_nothing_and_is_for_the_next_atom() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        let file = marker.create(HERE, false).unwrap();
        let open = marker.by(Some(&file));
        open.mark_spawned().unwrap();
        open.mark(Mark::Group);
        open.end(&lost("why"));
        marker.blank().unwrap();
        let blank = marker.read();
        let nowhere = Place { boot: [0; 16], pid_ns: 0 };
        assert_eq!((blank.trace(), blank.ending()), (Trace::Prepared(nowhere, None), None));
        let identity = Identity { pid: 9, start_time: 8, inode: 7, place: HERE };
        let file = marker.create(HERE, true).unwrap();
        assert_eq!(marker.read().trace(), Trace::Prepared(HERE, None));
        // Whoever reaps has it open, and may still write into it.
        marker.by(Some(&file)).record_reaper(identity).unwrap();
        assert_eq!(marker.blank().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(marker.read().reaper(), Some(identity));
    }

    #[test]
    fn nothing_that_is_written_later_makes_it_larger() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::of(dir.path());
        marker.create(HERE, false).unwrap();
        marker.mark(Mark::Term);
        marker.end(&lost(&"x".repeat(3000)));
        assert!(marker.read().ending().is_some());
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
            assert_eq!(marker.read().ending(), None, "byte {at}");
        }
    }
}
