//! What makes a directory fit to be a store.

use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::format::Place;
use super::{format, refused};
use crate::engine::Error;

/// The permissions of a store: its owner's alone.
const MODE: u32 = 0o700;

/// Creates the directory, and the missing ones above it; or checks the one that is there.
pub(super) fn create_or_check(path: &Path) -> Result<(), Error> {
    match path.symlink_metadata() {
        Ok(metadata) => return check(path, &metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(refused(path, format!("it cannot be looked at: {error}"))),
    }
    let parent = path.parent().ok_or_else(|| refused(path, "it is no directory"))?;
    let cannot = |error: io::Error| refused(path, format!("it cannot be created: {error}"));
    DirBuilder::new().recursive(true).mode(MODE).create(parent).map_err(cannot)?;
    match DirBuilder::new().mode(MODE).create(path) {
        // Its name must be as durable as what will be promised in it.
        Ok(()) => sync(parent).map_err(cannot),
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            check(path, &path.symlink_metadata().map_err(cannot)?)
        }
        Err(error) => Err(cannot(error)),
    }
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    if metadata.is_symlink() {
        return Err(refused(path, "it is a symbolic link: name the directory that it points to"));
    }
    if !metadata.is_dir() {
        return Err(refused(path, "it is not a directory: choose another path"));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        let problem = format!(
            "it belongs to user {}, and you are user {user}: choose a directory of your own",
            metadata.uid()
        );
        return Err(refused(path, problem));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o777 != MODE {
        let problem = format!(
            "its mode is {mode:04o}, and others must have no access: `chmod 700` it, or choose another directory"
        );
        return Err(refused(path, problem));
    }
    let strangers =
        strangers(path).map_err(|error| refused(path, format!("it cannot be read: {error}")))?;
    if let Some(stranger) = strangers {
        let problem = format!(
            "it is not empty and no store ({stranger:?} is in it): choose an empty or a new directory"
        );
        return Err(refused(path, problem));
    }
    Ok(())
}

/// Something in a directory that is no store; `None` for a store, an empty
/// directory, and one whose creation as a store was cut short.
fn strangers(path: &Path) -> io::Result<Option<std::ffi::OsString>> {
    let is_store = || path.join(format::FILE).symlink_metadata().is_ok();
    if is_store() {
        return Ok(None);
    }
    for entry in path.read_dir()? {
        let name = entry?.file_name();
        if name != super::lock::FILE && !super::BEGINNINGS.iter().any(|known| name == *known) {
            // Unless somebody has made a store of it at this moment.
            return Ok((!is_store()).then_some(name));
        }
    }
    Ok(None)
}

/// Makes a directory inside the store.
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(MODE).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(refused(path, format!("it cannot be created: {error}"))),
    }
}

/// Where the directory is, as the kernel knows it.
pub(super) fn identity(path: &Path) -> Result<Place, Error> {
    let metadata = path
        .metadata()
        .map_err(|error| refused(path, format!("it cannot be looked at: {error}")))?;
    Ok(Place { device: metadata.dev(), inode: metadata.ino() })
}

/// Makes the names in a directory durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
