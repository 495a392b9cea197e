//! A disk in memory that fails, forgets and tears when it is told to.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Storage, StoredFile};

/// A kind of call to a [`Storage`] or one of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Storage::list`]
    List,
    /// [`Storage::open`]
    Open,
    /// [`Storage::create`]
    Create,
    /// [`Storage::rename`]
    Rename,
    /// [`Storage::remove`]
    Remove,
    /// [`Storage::sync_dir`]
    SyncDir,
    /// [`StoredFile::allocate`]
    Allocate,
    /// [`StoredFile::read_at`]
    Read,
    /// [`StoredFile::write_at`]
    Write,
    /// [`StoredFile::sync_data`]
    Sync,
    /// [`StoredFile::len`]
    Len,
}

impl Call {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::List,
        Self::Open,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Allocate,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Len,
    ];
}

/// For how long a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// That one call.
    Once,
    /// That one, and every one of its kind after it.
    Forever,
}

/// What becomes, in a crash, of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of it is there, and no safer than before: the host was killed, the
    /// machine lived on, and a power cut can still take it.
    All,
    /// Nothing of it is there.
    Nothing,
    /// Each sector and each name by chance: lost, reordered and torn writes.
    Some,
}

/// A crash: what is kept of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Decides every chance; the same seed gives the same disk.
    pub seed: u64,
    /// What is kept.
    pub keep: Keep,
    /// The unit that the disk writes whole or not at all: 512 or 4096 bytes.
    pub sector: u64,
}

/// A directory in memory, with what a crash would leave of it.
///
/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
    /// What the names of the directory begin with: nothing, or its own name and a slash.
    dir: String,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// What was done to the names and not synced, in order: name, and what it stood for before.
    unsynced: Vec<Vec<(String, Option<usize>)>>,
    capacity: Option<u64>,
    calls: HashMap<Call, u64>,
    faults: Vec<Fault>,
    /// Calls of every kind, and the last one before the power goes.
    all_calls: u64,
    powered_until: Option<u64>,
    /// Syncs do nothing and say that they did.
    lying: bool,
}

#[derive(Debug, Default, Clone)]
struct Inode {
    /// What is read: the page cache.
    bytes: Vec<u8>,
    /// What is on the disk.
    durable: Vec<u8>,
    /// What was written and not synced, in order.
    unsynced: Vec<(u64, Written)>,
}

/// What was written: zeros need no copy.
#[derive(Debug, Clone)]
enum Written {
    Bytes(Vec<u8>),
    Zeros(usize),
}

impl Written {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(length) => *length,
        }
    }

    /// Puts some of it where it belongs.
    fn put(&self, into: &mut Vec<u8>, offset: u64, some: std::ops::Range<usize>) {
        let at = offset as usize + some.start;
        let end = at + some.len();
        if into.len() < end {
            into.resize(end, 0);
        }
        match self {
            Self::Bytes(bytes) => into[at..end].copy_from_slice(&bytes[some]),
            Self::Zeros(_) => into[at..end].fill(0),
        }
    }
}

#[derive(Debug)]
struct Fault {
    call: Call,
    at: u64,
    failing: Failing,
    kind: io::ErrorKind,
}

impl MemoryStorage {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory in this one: of the same disk, and with the same power and the same faults.
    pub fn dir(&self, name: &str) -> Self {
        Self { disk: self.disk.clone(), dir: format!("{}{name}/", self.dir) }
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.dir)
    }

    /// Makes the `nth` call of a kind from now on fail: 1 is the next one.
    ///
    /// A write that fails has written the first half. A sync that fails has
    /// taken some of what was written to the disk and forgets the rest, as
    /// Linux does: it is still read, and no later sync makes it durable.
    pub fn fail(&self, call: Call, nth: u64, failing: Failing, kind: io::ErrorKind) {
        let mut disk = self.disk.lock();
        let at = disk.calls.get(&call).copied().unwrap_or(0) + nth;
        disk.faults.push(Fault { call, at, failing, kind });
    }

    /// Lets every call succeed again.
    pub fn heal(&self) {
        self.disk.lock().faults.clear();
    }

    /// Cuts the power after this many more calls of any kind: those that come
    /// later fail and change nothing. What a cut leaves is what [`MemoryStorage::crash`] gives.
    pub fn cut_power_after(&self, calls: u64) {
        let mut disk = self.disk.lock();
        disk.powered_until = Some(disk.all_calls + calls);
    }

    /// Whether a call failed because the power was cut.
    pub fn is_off(&self) -> bool {
        self.disk.lock().is_off()
    }

    /// Makes every sync from now on do nothing and say that it did: for
    /// controls, which show that a test can fail.
    pub fn lie(&self) {
        self.disk.lock().lying = true;
    }

    /// How many calls of a kind there were.
    pub fn calls(&self, call: Call) -> u64 {
        self.disk.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many bytes all files may have together: no limit until set.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity = bytes;
    }

    /// The bytes of a file, if there is one.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        Some(disk.inodes[*disk.names.get(&self.full(name))?].bytes.clone())
    }

    /// The names of the files. Unlike [`Storage::list`] it is no call, and never fails.
    pub fn names(&self) -> Vec<String> {
        self.disk.lock().list(&self.dir)
    }

    /// How many bytes all files have together.
    pub fn used(&self) -> u64 {
        self.disk.lock().used()
    }

    /// Puts a file there, durable, in place of one that may be there: how tests damage a store.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        disk.inodes.push(Inode { durable: bytes.clone(), bytes, unsynced: Vec::new() });
        let inode = disk.inodes.len() - 1;
        disk.names.insert(self.full(name), inode);
    }

    /// What a crash at this moment leaves: another disk. All of it is durable,
    /// but for [`Keep::All`], where it is as durable as it was.
    pub fn crash(&self, crash: Crash) -> Self {
        let disk = self.disk.lock();
        let mut names = disk.names.clone();
        let mut inodes = Vec::new();
        let mut unsynced = Vec::new();
        if crash.keep == Keep::All {
            inodes.clone_from(&disk.inodes);
            unsynced.clone_from(&disk.unsynced);
        } else {
            let mut chance = Chance(crash.seed);
            let mut kept = || crash.keep == Keep::Some && chance.next() & 1 == 0;
            for operation in disk.unsynced.iter().rev() {
                if !kept() {
                    for (name, before) in operation.iter().rev() {
                        match before {
                            Some(inode) => names.insert(name.clone(), *inode),
                            None => names.remove(name),
                        };
                    }
                }
            }
            inodes.resize_with(disk.inodes.len(), Inode::default);
            for inode in names.values() {
                let mut bytes = disk.inodes[*inode].durable.clone();
                for (offset, written) in &disk.inodes[*inode].unsynced {
                    put_sectors(&mut bytes, *offset, written, crash.sector, &mut kept);
                }
                inodes[*inode] = Inode { durable: bytes.clone(), bytes, unsynced: Vec::new() };
            }
        }
        let disk = Disk {
            inodes,
            names,
            unsynced,
            capacity: disk.capacity,
            lying: disk.lying,
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(disk)), dir: self.dir.clone() }
    }
}

/// Writes those sectors that `kept` says yes to. A hole reads as zeros.
fn put_sectors(
    bytes: &mut Vec<u8>,
    offset: u64,
    written: &Written,
    sector: u64,
    mut kept: impl FnMut() -> bool,
) {
    let mut at = 0;
    while at < written.len() {
        let position = offset + at as u64;
        let sector_end = (position / sector + 1) * sector;
        let end = written.len().min(at + (sector_end - position) as usize);
        if kept() {
            written.put(bytes, offset, at..end);
        }
        at = end;
    }
}

impl Disk {
    fn is_off(&self) -> bool {
        self.powered_until.is_some_and(|last| self.all_calls > last)
    }

    fn call(&mut self, call: Call) -> io::Result<()> {
        self.all_calls += 1;
        if self.is_off() {
            return Err(io::Error::other("the power is gone"));
        }
        let count = self.calls.entry(call).or_insert(0);
        *count += 1;
        let count = *count;
        let failed = self.faults.iter().find(|fault| {
            fault.call == call
                && match fault.failing {
                    Failing::Once => count == fault.at,
                    Failing::Forever => count >= fault.at,
                }
        });
        match failed {
            Some(fault) => Err(io::Error::new(fault.kind, format!("injected into {call:?}"))),
            None => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].bytes.len() as u64).sum()
    }

    fn set(&mut self, changes: Vec<(String, Option<usize>)>) {
        let mut operation = Vec::new();
        for (name, inode) in changes {
            let before = match inode {
                Some(inode) => self.names.insert(name.clone(), inode),
                None => self.names.remove(&name),
            };
            operation.push((name, before));
        }
        self.unsynced.push(operation);
    }

    /// The names in a directory, without those of directories in it.
    fn list(&self, dir: &str) -> Vec<String> {
        let all = self.names.range(dir.to_owned()..).map(|(name, _)| name.strip_prefix(dir));
        let ours = all.map_while(|name| name).filter(|name| !name.contains('/'));
        ours.map(str::to_owned).collect()
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no file {name}")))
    }

    fn write(&mut self, inode: usize, written: Written, offset: u64) {
        let inode = &mut self.inodes[inode];
        written.put(&mut inode.bytes, offset, 0..written.len());
        inode.unsynced.push((offset, written));
    }
}

impl Storage for MemoryStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut disk = self.disk.lock();
        disk.call(Call::List)?;
        Ok(disk.list(&self.dir))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut disk = self.disk.lock();
        disk.call(Call::Open)?;
        let inode = disk.find(&self.full(name))?;
        Ok(Arc::new(MemoryFile { disk: self.disk.clone(), inode }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let name = self.full(name);
        let mut disk = self.disk.lock();
        disk.call(Call::Create)?;
        if disk.names.contains_key(&name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is {name}")));
        }
        disk.inodes.push(Inode::default());
        let inode = disk.inodes.len() - 1;
        disk.set(vec![(name, Some(inode))]);
        Ok(Arc::new(MemoryFile { disk: self.disk.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.full(from), self.full(to));
        let mut disk = self.disk.lock();
        disk.call(Call::Rename)?;
        let inode = disk.find(&from)?;
        disk.set(vec![(from, None), (to, Some(inode))]);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let name = self.full(name);
        let mut disk = self.disk.lock();
        disk.call(Call::Remove)?;
        disk.find(&name)?;
        disk.set(vec![(name, None)]);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Call::SyncDir)?;
        if !disk.lying {
            let ours = |name: &String| {
                name.strip_prefix(&self.dir).is_some_and(|name| !name.contains('/'))
            };
            // No operation has to do with more than one directory.
            disk.unsynced.retain(|operation| !operation.iter().any(|(name, _)| ours(name)));
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(&self.dir).join(name)
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

impl StoredFile for MemoryFile {
    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.call(Call::Allocate)?;
        if disk.capacity.is_some_and(|capacity| disk.used() + len > capacity) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk is full"));
        }
        disk.write(self.inode, Written::Zeros(len as usize), 0);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        disk.call(Call::Read)?;
        let bytes = &disk.inodes[self.inode].bytes;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buf.len());
        buf[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if let Err(error) = disk.call(Call::Write) {
            if !disk.is_off() {
                let half = bytes[..bytes.len() / 2].to_vec();
                disk.write(self.inode, Written::Bytes(half), offset);
            }
            return Err(error);
        }
        disk.write(self.inode, Written::Bytes(bytes.to_vec()), offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let called = disk.call(Call::Sync);
        if disk.is_off() || disk.lying {
            return called;
        }
        let mut chance = Chance(disk.all_calls);
        let inode = &mut disk.inodes[self.inode];
        for (offset, written) in std::mem::take(&mut inode.unsynced) {
            match called {
                Ok(()) => written.put(&mut inode.durable, offset, 0..written.len()),
                Err(_) => put_sectors(&mut inode.durable, offset, &written, 512, || {
                    chance.next() & 1 == 0
                }),
            }
        }
        called
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        disk.call(Call::Len)?;
        Ok(disk.inodes[self.inode].bytes.len() as u64)
    }
}

/// A small generator of chances (splitmix64): reproducible, and no dependency.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
