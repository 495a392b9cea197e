//! Opening: the newest segment alone gives the atoms that exist and the place to go on.
//!
//! Nothing is written here. What has to be written before the next event can
//! be is handed over as a [`Mend`].

use std::ops::Range;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::{io, thread};

use super::create::Segment;
use super::preface::{self, Preface};
use super::segment::{self, FOOTER_BYTES, Footer, Layout, SEGMENT_HEADER_BYTES, Spot};
use crate::journal::codec;
use crate::journal::frame::{self, Flaw, HEADER_BYTES, Header, Kind, MAGIC};
use crate::journal::storage::{Storage, StoredFile};
use crate::journal::{JournalError, Record, View, error};

/// The unit that a disk writes whole or not at all, at the least.
const SECTOR: usize = 512;

/// The end of a journal that was not closed, where it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment.
    pub file: PathBuf,
    /// Where its readable part ends.
    pub offset: u64,
    /// How many bytes, from there to the last one that is not zero, are left out; none
    /// when the last write is not there at all.
    pub bytes: u64,
    /// What is wrong with them.
    pub why: String,
}

/// What must be written before the next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mend {
    /// Nothing.
    Nothing,
    /// A mark: the segment was closed, its footer has this checksum.
    Mark { footer_crc: u32 },
    /// Zeros, so many: there is a torn write. Then a mark, if it was one of a mark.
    Zeros { bytes: u64, then_mark: Option<u32> },
}

/// What the newest segment tells.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) view: View,
    pub(crate) segment: Segment,
    /// The number of the last event, and its checksum.
    pub(crate) seq: u64,
    pub(crate) chain: u32,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    pub(crate) mend: Mend,
    pub(crate) cut: Option<Cut>,
    pub(crate) clean: bool,
    /// Where the last group begins, or the footer after it, and its bytes:
    /// nothing proves that they were synced. A footer proves the events before it.
    pub(crate) unproven: Option<(u64, Vec<u8>)>,
}

/// Reads the newest segment.
///
/// # Errors
///
/// [`JournalError::Damaged`], [`JournalError::Newer`], [`JournalError::Io`].
pub(crate) fn recover(storage: &dyn Storage, first: u64) -> Result<Recovered, JournalError> {
    let name = segment::name(first);
    let path = storage.path(&name);
    let file =
        storage.open(&name).map_err(|e| error::io("cannot open segment", path.clone(), e))?;
    let len = file.len().map_err(|e| error::io("cannot read segment", path.clone(), e))?;
    let too_large = || Spot { path: path.clone(), offset: 0, seq: None }.damaged("too large");
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| too_large())?];
    let (preface, data) =
        read_in(&*file, &mut bytes, |beginning| Preface::read(beginning, len, path.clone(), first))
            .map_err(|e| error::io("cannot read segment", path.clone(), e))?;
    let preface = preface?;
    if data.read < bytes.len() {
        let spot = Spot { path, offset: data.read as u64, seq: None };
        return Err(spot.damaged(format!("the file has {} bytes, not {len}", data.read)));
    }
    let mut scan = Scan::new(preface, &bytes);
    scan.know_zeros(&data.places);
    scan.events()?;
    scan.must_be_newest()?;
    let segment = Segment { name, file, first, layout: scan.layout, start: scan.start as u64 };
    Ok(Recovered {
        view: scan.view,
        segment,
        seq: scan.seq,
        chain: scan.chain,
        offset: scan.offset as u64,
        mend: scan.mend,
        cut: scan.cut,
        clean: scan.clean,
        unproven: scan.group.map(|group| (group as u64, bytes[group..scan.offset].to_vec())),
    })
}

/// How much is read at a time.
const PIECE: usize = 128 << 10;

/// What comes after a snapshot is read on a thread of its own if it has as many bytes.
const APART: usize = 4 << 20;

/// How far a file was read, and where it has bytes that are not zeros.
#[derive(Debug)]
struct Data {
    read: usize,
    places: Vec<Range<usize>>,
}

/// Reads a segment into `bytes`, which are zeros, and its preface from them. To decode that takes about as long as reading
/// what comes after it, where that is long: then both are done at once.
fn read_in<T>(
    file: &dyn StoredFile,
    bytes: &mut [u8],
    preface: impl FnOnce(&[u8]) -> T,
) -> io::Result<(T, Data)> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut header, 0)?;
    let told = preface::told_bytes(&header[..read]).unwrap_or(bytes.len());
    let (beginning, rest) = bytes.split_at_mut(told.min(bytes.len()));
    let (after, apart) = (beginning.len(), rest.len() >= APART);
    let mut read_rest = || read_data(file, rest, after);
    let read_beginning = || {
        let data = read_data(file, beginning, 0)?;
        Ok::<_, io::Error>((preface(beginning), data))
    };
    let (begun, more) = thread::scope(|scope| {
        let thread = thread::Builder::new().name("caesium-open".to_owned());
        let reading = apart.then(|| thread.spawn_scoped(scope, &mut read_rest).ok()).flatten();
        let begun = read_beginning();
        (begun, reading.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))))
    });
    let (preface, mut data) = begun?;
    // Where there is no thread to be had, one after the other.
    let more = more.unwrap_or_else(read_rest)?;
    if data.read == after {
        data.read += more.read;
        data.places.extend(more.places);
    }
    Ok((preface, data))
}

/// Reads as much as there is from an offset on. Most of a segment with many atoms is zeros: those are compared, and
/// not copied, so that they take no memory.
fn read_data(file: &dyn StoredFile, bytes: &mut [u8], offset: usize) -> io::Result<Data> {
    let mut piece = vec![0; PIECE.min(bytes.len())];
    let mut data = Data { read: 0, places: Vec::new() };
    while data.read < bytes.len() {
        let wanted = piece.len().min(bytes.len() - data.read);
        let at = offset + data.read;
        let read = file.read_at(&mut piece[..wanted], at as u64)?;
        let found = &piece[..read];
        if !segment::is_zero(found) {
            bytes[data.read..data.read + read].copy_from_slice(found);
            data.places.push(at..at + read);
        }
        data.read += read;
        if read < wanted {
            break;
        }
    }
    Ok(data)
}

/// One pass over the bytes of a segment.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    /// What is for frames.
    bytes: &'a [u8],
    /// From here on they are zeros, as far as that is known.
    zeros_from: usize,
    path: PathBuf,
    first: u64,
    layout: Layout,
    /// An event that was durable, and the last one that was written since.
    progress: Option<(u64, u64)>,
    pub(crate) start: usize,
    pub(crate) offset: usize,
    pub(crate) seq: u64,
    pub(crate) chain: u32,
    pub(crate) view: View,
    footer: Option<(u32, Footer)>,
    mend: Mend,
    /// Where the last group of events begins, or the footer after it, and its first event.
    group: Option<usize>,
    group_first: u64,
    pub(crate) cut: Option<Cut>,
    pub(crate) clean: bool,
    /// What is torn is the footer that tells of a successor.
    successor_torn: bool,
}

impl<'a> Scan<'a> {
    /// Reads header and snapshot of a segment.
    pub(crate) fn preface(
        bytes: &'a [u8],
        path: PathBuf,
        first: u64,
    ) -> Result<Self, JournalError> {
        let preface = Preface::read(bytes, bytes.len() as u64, path, first)?;
        Ok(Self::new(preface, bytes))
    }

    /// Goes on after what was read of a segment that has these bytes.
    fn new(preface: Preface, bytes: &'a [u8]) -> Self {
        let Preface { path, first, layout, end, chain, view } = preface;
        let at = |offset: u64| usize::try_from(offset).ok();
        let progress = layout.progress.and_then(at).and_then(|at| bytes.get(at..));
        let progress = progress.and_then(segment::read_progress);
        let bytes = bytes.get(..at(layout.end).unwrap_or(usize::MAX)).unwrap_or(bytes);
        Self {
            bytes,
            zeros_from: bytes.len(),
            path,
            first,
            layout,
            progress,
            start: end,
            offset: end,
            seq: first - 1,
            chain,
            view,
            footer: None,
            mend: Mend::Nothing,
            group: None,
            group_first: 0,
            cut: None,
            clean: false,
            successor_torn: false,
        }
    }

    /// Tells where the bytes are that are not zeros.
    fn know_zeros(&mut self, data: &[Range<usize>]) {
        let end = |data: &Range<usize>| {
            let bytes = self.bytes.get(data.start..data.end.min(self.bytes.len()))?;
            let used = segment::used(bytes);
            (used > 0).then_some(data.start + used)
        };
        self.zeros_from = data.iter().rev().find_map(end).unwrap_or(0);
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// What of the rest is not known to be zeros.
    fn written(&self) -> &'a [u8] {
        &self.bytes[self.offset..self.zeros_from.max(self.offset)]
    }

    fn here(&self) -> Spot {
        Spot { path: self.path.clone(), offset: self.offset as u64, seq: Some(self.seq + 1) }
    }

    /// Reads the events up to where the segment ends: cleanly, openly, or torn.
    pub(crate) fn events(&mut self) -> Result<(), JournalError> {
        loop {
            match frame::decode(self.rest()) {
                Ok((header, payload)) => self.frame(header, payload)?,
                Err(flaw) if segment::is_zero(self.written()) => {
                    // Flaws of zeros need no telling apart.
                    let _ = flaw;
                    break;
                }
                Err(Flaw::Newer(found)) => return Err(self.here().flawed(Flaw::Newer(found))),
                Err(flaw) => {
                    self.torn(flaw)?;
                    break;
                }
            }
        }
        self.progress()?;
        self.clean = self.footer.is_some() && self.cut.is_none();
        if let (true, Some((footer_crc, _))) = (self.clean, self.footer) {
            self.mend = Mend::Mark { footer_crc };
        }
        Ok(())
    }

    /// What is said to have been written is there, or it is said that it is not.
    fn progress(&mut self) -> Result<(), JournalError> {
        let Some((durable, last)) = self.progress else { return Ok(()) };
        if durable > self.seq {
            return Err(self.here().damaged(format!("event {durable} was durable, and is gone")));
        }
        if last > self.seq && self.footer.is_none() && self.cut.is_none() {
            self.cut = Some(Cut {
                file: self.path.clone(),
                offset: self.offset as u64,
                bytes: 0,
                why: format!(
                    "the last write before an unclean end, up to event {last}, is not there"
                ),
            });
            // Nothing is to be cleared, but what was said is to be said anew.
            self.mend = Mend::Zeros { bytes: 0, then_mark: None };
        }
        Ok(())
    }

    /// The newest segment must not have had a successor.
    fn must_be_newest(&self) -> Result<(), JournalError> {
        match self.footer {
            Some((_, Footer { next, .. })) if next != 0 => {
                let next = segment::name(next);
                Err(self.here().damaged(format!("segment {next} should follow, and is gone")))
            }
            // It is written once the successor's name is durable.
            Some(_) if self.successor_torn && !self.opened_torn() => {
                Err(self.here().damaged("the segment that should follow is gone"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether what is torn can also be a mark: both begin alike.
    fn opened_torn(&self) -> bool {
        match self.mend {
            Mend::Zeros { bytes, then_mark: Some(footer_crc) } => {
                let mark = segment::opened(self.seq, footer_crc);
                bytes as usize <= mark.len() && is_torn(&mark, self.rest(), self.offset)
            }
            Mend::Nothing | Mend::Mark { .. } | Mend::Zeros { .. } => false,
        }
    }

    /// A sealed segment must end with a seal, just before the event `next`.
    pub(crate) fn must_be_sealed(&self, next: u64) -> Result<(), JournalError> {
        let ends = self.clean || self.successor_torn;
        let told = self.footer.filter(|_| ends).map(|(_, footer)| footer.next);
        match told {
            // The seal is written before the next segment gets its name, and completed after.
            Some(told) if self.seq + 1 == next && (told == next || told == 0) => Ok(()),
            Some(_) | None => Err(self.here().damaged("the segment is not sealed where it ends")),
        }
    }

    /// Applies a frame that is whole. What does not follow then is no torn write: it is damage.
    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), JournalError> {
        let in_order = match header.kind {
            Kind::Event => self.footer.is_none() && header.seq == self.seq + 1,
            Kind::Footer => header.seq == self.seq,
            Kind::Opened => self.footer.is_some() && header.seq == self.seq,
            Kind::Header | Kind::Atom | Kind::SnapshotEnd | Kind::Piece | Kind::Progress => false,
        };
        let prev = match header.kind {
            Kind::Opened => self.footer.map_or(self.chain, |(footer_crc, _)| footer_crc),
            Kind::Event
            | Kind::Footer
            | Kind::Header
            | Kind::Atom
            | Kind::SnapshotEnd
            | Kind::Piece
            | Kind::Progress => self.chain,
        };
        if !in_order || header.prev != prev {
            let problem = format!("the frame of event {} does not follow", header.seq);
            return Err(self.here().damaged(problem));
        }
        match header.kind {
            Kind::Event => {
                let record: Record = segment::payload(payload, || self.here())?;
                if record.seq != header.seq {
                    return Err(self.here().damaged("the record has another number"));
                }
                let atom = self
                    .view
                    .apply(record.atom, record.at, &record.fact)
                    .map_err(|unfit| self.here().damaged(format!("it cannot be: {unfit}")))?;
                if atom.state() != record.state {
                    return Err(self.here().damaged("the event leads to another state"));
                }
                self.seq = header.seq;
                self.chain = header.crc;
                if self.group.is_none() || header.group_first() > self.group_first {
                    self.group = Some(self.offset);
                    self.group_first = header.group_first().max(self.first);
                }
            }
            Kind::Footer => {
                let footer: Footer = segment::payload(payload, || self.here())?;
                if footer.events != self.seq + 1 - self.first {
                    return Err(self.here().damaged("the footer counts other events"));
                }
                self.footer = Some((header.crc, footer));
                self.group = Some(self.offset);
            }
            Kind::Opened => {
                self.footer = None;
                self.group = Some(self.offset);
                self.group_first = self.seq + 1;
            }
            // Refused above.
            Kind::Header | Kind::Atom | Kind::SnapshotEnd | Kind::Piece | Kind::Progress => {}
        }
        self.offset += header.frame_bytes();
        Ok(())
    }

    /// Decides about bytes that are no frame: the torn last write of an unclean end, or damage.
    fn torn(&mut self, flaw: Flaw) -> Result<(), JournalError> {
        let rest = self.rest();
        let used = segment::used(self.written());
        let mut then_mark = None;
        if let Some((footer_crc, _)) = self.footer {
            // After a footer nothing is written before the mark is durable, so
            // only a piece of that mark can be here; or of the footer that
            // tells of the segment that follows.
            let mark = segment::opened(self.seq, footer_crc);
            let told = Footer { events: self.seq + 1 - self.first, next: self.seq + 1 };
            let (told, _) = segment::footer(self.seq, self.chain, told);
            if used <= told.len() && is_torn(&told, rest, self.offset) {
                self.successor_torn = true;
            } else if used > mark.len() || !is_torn(&mark, rest, self.offset) {
                return Err(self.here().damaged("the segment was closed, and changed after that"));
            }
            then_mark = Some(footer_crc);
        } else {
            let missing = self.seq + 1;
            if self.progress.is_some_and(|(durable, _)| durable >= missing) {
                let problem = format!("{}, and it was durable", flaw.problem());
                return Err(self.here().damaged(problem));
            }
            if let Some(problem) = self.later_group(rest) {
                return Err(self.here().damaged(format!("{}, and {problem}", flaw.problem())));
            }
            let events = self.seq + 1 - self.first;
            let (expected, _) = segment::footer(self.seq, self.chain, Footer { events, next: 0 });
            if resembles(&expected, rest)
                && used <= FOOTER_BYTES
                && !is_torn(&expected, rest, self.offset)
            {
                return Err(self.here().damaged("the footer is damaged"));
            }
        }
        self.cut = Some(Cut {
            file: self.path.clone(),
            offset: self.offset as u64,
            bytes: used as u64,
            why: format!("the last write before an unclean end is torn: {}", flaw.problem()),
        });
        self.mend = Mend::Zeros { bytes: used as u64, then_mark };
        Ok(())
    }

    /// Whether something follows that was only written after what should be here was durable.
    fn later_group(&self, rest: &[u8]) -> Option<String> {
        let missing = self.seq + 1;
        let mut at = 1;
        while let Some(found) = find(&rest[at..], &MAGIC) {
            at += found;
            if let Ok((header, _)) = frame::decode(&rest[at..]) {
                let later = match header.kind {
                    Kind::Event => header.group_first() > missing,
                    Kind::Footer | Kind::Opened => header.seq >= self.seq,
                    // It is not where it belongs, and tells all the same.
                    Kind::Progress => header.seq >= missing,
                    Kind::Header | Kind::Atom | Kind::SnapshotEnd | Kind::Piece => false,
                };
                if later {
                    return Some(format!("later frames (event {}) are there", header.seq));
                }
            }
            at += 1;
        }
        None
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// Whether `actual` can be what a torn write of `expected` at `offset` left. A write that
/// failed may have ended anywhere, and each sector of it be lost then; but where it ended
/// within the first sector, nothing of the second was ever written.
fn is_torn(expected: &[u8], actual: &[u8], offset: usize) -> bool {
    let Some(actual) = actual.get(..expected.len()) else { return false };
    let border = (SECTOR - offset % SECTOR).min(expected.len());
    let is_zero = segment::is_zero;
    let is_beginning = |expected: &[u8], actual: &[u8]| {
        let same = expected.iter().zip(actual).take_while(|(left, right)| left == right).count();
        is_zero(&actual[same..])
    };
    let (first, second) = actual.split_at(border);
    let whole = first == &expected[..border];
    is_beginning(&expected[..border], first)
        && is_beginning(&expected[border..], second)
        && (whole || is_zero(first) || is_zero(second))
}

/// Whether most bytes are what they should be.
fn resembles(expected: &[u8], actual: &[u8]) -> bool {
    let same = expected.iter().zip(actual).filter(|(left, right)| left == right).count();
    same >= expected.len() - HEADER_BYTES / 4
}

/// The atoms that a snapshot has, as their bytes: how two views are compared.
///
/// Secrets are known to the live view and never written, so values cannot be compared.
pub(crate) fn view_bytes(view: &View) -> Result<Vec<Vec<u8>>, JournalError> {
    view.atoms().map(|atom| codec::encode(atom.known())).collect()
}
