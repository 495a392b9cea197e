//! Opening a journal.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::catalog::Catalog;
use super::core::{Core, Decided};
use super::error::{self, JournalError};
use super::frame::CHAIN_START;
use super::history::{History, SledHistory};
use super::maintain::Maintenance;
use super::options::{FIRST_SEGMENT_BYTES, JournalOptions};
use super::queue::Queue;
use super::read::Readers;
use super::reserve::Population;
use super::stats::Measured;
use super::storage::{DiskStorage, Storage};
use super::view::View;
use super::visible::Visible;
use super::wal::create::Prepared;
use super::wal::recover::{self, Cut, Mend, Recovered};
use super::wal::segment::{self, TEMPORARY};
use crate::atom::Atom;

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The number of the last event.
    pub events: u64,
    /// How many atoms exist.
    pub atoms: usize,
    /// What was left out, if the end was not clean and its last write torn.
    pub cut: Option<Cut>,
    /// Whether the journal was closed, or is new.
    pub clean: bool,
}

impl Recovery {
    pub(crate) fn empty() -> Self {
        Self { events: 0, atoms: 0, cut: None, clean: true }
    }
}

/// Where the segments are, and where the history is.
type Stores = (Arc<dyn Storage>, Arc<dyn History>);

/// The storage and the history of a store.
pub(crate) fn stores(dir: &Path, options: &JournalOptions) -> Result<Stores, JournalError> {
    let wal = dir.join("wal");
    if !options.must_exist && !wal.exists() {
        make_dir(&wal)?;
    }
    let storage = Arc::new(DiskStorage::new(wal));
    let history = Arc::new(SledHistory::with_parts(dir, options.part_bytes));
    Ok((storage, history))
}

/// Makes a directory of ours, and its name durable.
pub(crate) fn make_dir(dir: &Path) -> Result<(), JournalError> {
    let failed = |what| {
        let dir = dir.to_owned();
        move |source| error::io(what, dir, source)
    };
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(failed("cannot create directory"))?;
    // The parent has a name too, which may be as new as this one.
    for above in dir.ancestors().skip(1).take(2).filter(|above| !above.as_os_str().is_empty()) {
        sync_dir(above)?;
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    fs::File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|source| error::io("cannot sync directory", dir.to_owned(), source))
}

/// Starts a thread of the journal.
pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, JournalError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| error::io("cannot start thread", PathBuf::from(name), source))
}

/// Opens what is there, or makes the first segment.
pub(crate) fn open(
    storage: Arc<dyn Storage>,
    history: Arc<dyn History>,
    options: JournalOptions,
) -> Result<(Core, Recovery), JournalError> {
    let failed = |what| {
        let path = storage.path("");
        move |source| error::io(what, path, source)
    };
    let names = storage.list().map_err(failed("cannot list"))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment::first_of(name)).collect();
    firsts.sort_unstable();
    let mut recovered = match firsts.last() {
        Some(newest) => recover::recover(&*storage, *newest)?,
        None => {
            let lost = match history.head() {
                // What cannot be read today may be as it was.
                Err(error @ JournalError::Io { .. }) => return Err(error),
                Err(_) | Ok(Some(_)) => true,
                Ok(None) => options.must_exist,
            };
            if lost {
                let spot = segment::Spot { path: storage.path(""), offset: 0, seq: None };
                return Err(spot.damaged("the segments of the write-ahead log are gone"));
            }
            firsts.push(1);
            create(&*storage, &options)?
        }
    };
    // From here on the store is known to be sound, and may be written to.
    if !recovered.clean {
        // These events were found, and nobody knows that they are on disk: the
        // last host may have died between a write and its sync, or after a
        // sync that failed and left the pages clean. What is shown must stay.
        // So must the name of the segment: the host may have died before it
        // made that durable, and all that is appended now hangs on it.
        let file = &recovered.segment.file;
        let (at, mut bytes) = recovered.unproven.take().unwrap_or((recovered.offset, Vec::new()));
        // Behind them the disk may have what a failed sync did not zero, and
        // what would look like damage behind a footer.
        let rest = recovered.segment.layout.end - recovered.offset;
        match &mut recovered.mend {
            // A torn write stays as it is until the next change.
            Mend::Zeros { bytes, .. } => *bytes = rest,
            Mend::Nothing | Mend::Mark { .. } => bytes.resize(bytes.len() + rest as usize, 0),
        }
        file.write_at(&bytes, at)
            .and_then(|()| file.sync_data())
            .and_then(|()| storage.sync_dir())
            .map_err(failed("cannot make the last events durable in"))?;
    }
    for name in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
        if firsts.len() > 1 || name.as_str() != segment::name(1) {
            // Of a roll that was interrupted. A failure leaves it to the next open.
            let _ = storage.remove(name);
        }
    }
    if let Err(error) = history.tidy() {
        // It is in nobody's way but the disk's.
        tracing::warn!(%error, "what an interrupted compaction has left could not be removed");
    }
    let recovery = Recovery {
        events: recovered.seq,
        atoms: recovered.view.len(),
        cut: recovered.cut.clone(),
        clean: recovered.clean,
    };
    if let Some(cut) = &recovery.cut {
        crate::trace::torn(cut);
    }
    let mut catalog = Catalog::new(firsts);
    catalog.add(recovered.segment.first, recovered.segment.file.clone());
    let Recovered { view, segment, seq, chain, offset, mend, unproven, .. } = recovered;
    let core = Core {
        options,
        storage,
        history,
        queue: Mutex::new(Queue { synced: seq, ..Queue::default() }),
        work: Condvar::new(),
        room: Condvar::new(),
        visible: Visible::new(view.clone(), seq),
        catalog: Mutex::new(catalog),
        maintenance: Maintenance::default(),
        measured: Measured::default(),
        readers: Readers::default(),
        stepped: false,
        oldest: AtomicU64::new(0),
        decided: Mutex::new(Decided {
            population: Population::count(view.atoms().map(Atom::state)),
            view,
            seq,
            chain,
            segment,
            offset,
            mend,
            unproven,
            closed: false,
        }),
    };
    Ok((core, recovery))
}

/// Makes the first segment of a new journal.
fn create(storage: &dyn Storage, options: &JournalOptions) -> Result<Recovered, JournalError> {
    let room = options.segment_bytes.min(FIRST_SEGMENT_BYTES);
    let prepared = Prepared::write(storage, 1, CHAIN_START, &[], room)?;
    let segment = prepared.install(storage)?;
    storage
        .sync_dir()
        .map_err(|source| error::io("cannot sync directory", storage.path(""), source))?;
    Ok(Recovered {
        view: View::default(),
        seq: 0,
        chain: CHAIN_START,
        offset: segment.start,
        mend: Mend::Nothing,
        cut: None,
        clean: true,
        unproven: None,
        segment,
    })
}
