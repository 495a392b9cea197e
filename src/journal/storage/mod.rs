//! Where segments are kept: a narrow seam, a disk behind it, and an in-memory twin.

mod disk;
mod memory;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use disk::DiskStorage;
pub(crate) use disk::read_at;
pub use memory::{Call, Crash, Failing, Keep, MemoryStorage};

/// One directory of files.
///
/// Every access of the write-ahead log to the outside goes through this trait,
/// so that the very same code runs on a disk and on [`MemoryStorage`], which
/// fails, forgets and tears when it is told to.
pub trait Storage: fmt::Debug + Send + Sync {
    /// The names of the files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Creates an empty file; one of this name must not be there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Renames a file, in place of one that may have the new name. Durable after [`Storage::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Storage::sync_dir`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// How messages name a file.
    fn path(&self, name: &str) -> PathBuf;
}

/// A file of a [`Storage`]. It can be read and written after its name is gone.
pub trait StoredFile: fmt::Debug + Send + Sync {
    /// Gives an empty file this length, zeroed, with its blocks set aside:
    /// writing within it needs no more space and no more metadata.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}
