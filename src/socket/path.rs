//! Sockets in directories whose paths are too long for a socket's address (107 bytes).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The socket by a path that is never too long, as long as its directory is open.
pub(crate) fn short_path(dir: &File, socket: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{socket}", dir.as_raw_fd()))
}

/// Listens on a socket of this name that does not block and is its owner's alone, in place of one that was left behind.
///
/// Whoever finds the name can connect: it appears when somebody listens, by a rename.
pub(crate) fn bind(home: &Path, socket: &str) -> io::Result<UnixListener> {
    let dir = File::open(home)?;
    let temporary = short_path(&dir, &format!("{socket}.tmp"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
    fs::rename(&temporary, short_path(&dir, socket))?;
    Ok(listener)
}
