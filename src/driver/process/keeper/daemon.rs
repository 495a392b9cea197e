//! Becoming the keeper of a store.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Resource, Rlimit, getrlimit, set_child_subreaper, setrlimit};

use super::guard::{self, Guards};
use super::link::Link;
use super::log;
use crate::crash;
use crate::driver::process::context::Context;
use crate::driver::process::identity::Place;
use crate::driver::process::mailbox::Mailbox;
use crate::driver::process::monitor::Monitor;
use crate::driver::process::sys;
use crate::socket::bind;

/// The environment variable that makes a program with [`caesium::init`](crate::init()) a keeper:
/// the directory that the keeper belongs to. Set for that one process alone.
pub(super) const KEEPER: &str = "CAESIUM_KEEPER";

/// The first argument of a keeper: its name in lists of processes.
pub(super) const NAME: &str = "caesium-keeper";

/// The socket in the keeper's directory.
pub(super) const SOCKET: &str = "keeper.sock";

/// Locked by the keeper as long as it lives. A lock of POSIX: a forked child does not have it.
const LOCK: &str = "keeper.lock";

/// What a keeper says that nobody is there to hear.
const LOG: &str = "keeper.log";

/// Serves as the keeper of a store and does not come back, if this process was started to do that.
///
/// To be called while the process has one thread.
pub(crate) fn serve_if_asked() {
    let Some(home) = env::var_os(KEEPER) else { return };
    let Some(atoms) = env::args_os().nth(1) else { return };
    if env::args_os().next().as_deref() != Some(OsStr::new(NAME)) {
        return;
    }
    let status = match serve(home, atoms) {
        Ok(()) => 0,
        // Another keeper is there: the host will find it.
        Err(error) if error.kind() == ErrorKind::AddrInUse => 0,
        Err(error) => {
            eprintln!("caesium-keeper: {error}");
            1
        }
    };
    std::process::exit(status);
}

fn serve(home: OsString, atoms: OsString) -> io::Result<()> {
    let (home, atoms) = (PathBuf::from(home), PathBuf::from(atoms));
    sys::detach()?;
    guard::leave_behind(&atoms)?;
    crash::point("keeper/is-alone");
    // Held to the end.
    let _lock = lock(&home)?;
    crash::point("keeper/has-the-lock");
    let host: OwnedFd = rustix::io::dup(rustix::stdio::stdin())?;
    rustix::io::fcntl_setfd(&host, rustix::io::FdFlags::CLOEXEC)?;
    let listener = bind(&home, SOCKET)?;
    crash::point("keeper/listens");
    forget_surroundings(&home)?;
    log::begin();
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let before = raise_descriptors();
    let place = Place::here().map_err(io::Error::other)?;
    let context = Context::new(atoms, false, place, Arc::new(Mailbox::new()?));
    let mut monitor = Monitor::keeper(Arc::new(context), Link::new(listener))?;
    monitor.soft_nofile = before;
    monitor.guards = Some(Guards::succeed(&home, place));
    monitor.connect(UnixStream::from(host), None);
    monitor.run();
    // Before the lock goes: whoever is next makes its own.
    let _ = fs::remove_file(home.join(SOCKET));
    Ok(())
}

/// Takes the place of the one keeper of this directory.
fn lock(home: &Path) -> io::Result<File> {
    let path = home.join(LOCK);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::from(ErrorKind::AddrInUse))?;
    Ok(file)
}

/// Lets go of the host's terminal, streams and directory.
fn forget_surroundings(home: &Path) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let log = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(home.join(LOG))
        .or_else(|_| null.try_clone())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&log)?;
    env::set_current_dir("/")?;
    // Only its name in lists of processes.
    let _ = rustix::thread::set_name(c"caesium-keeper");
    Ok(())
}

/// Every running atom costs the keeper three, or four: as many as it may have.
/// Gives what its atoms are to have: what it was.
fn raise_descriptors() -> Option<(u64, u64)> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What cannot be had shows when an atom is prepared.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    current.zip(maximum)
}
