//! One process at a time: an advisory lock on the file `LOCK`, which also says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::refused;
use crate::engine::Error;
use crate::time::now;

/// Its name.
pub(super) const FILE: &str = "LOCK";

/// The lock, held.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Lets go at once. Closing the file alone would not, while a process that
    /// was forked a moment ago still has it open until its exec.
    fn drop(&mut self) {
        // What cannot be released goes with the last one who has the file open.
        let _ = self.0.unlock();
    }
}

/// Takes the lock, waiting at most `wait` for it; it is released when the file is closed, also by the end of the process.
/// While another process has it, `connect` is tried, too: what that gives is given instead of the lock.
pub(super) fn take<T>(
    store: &Path,
    wait: Duration,
    mut connect: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Result<Lock, T>, Error> {
    let path = store.join(FILE);
    let cannot =
        |error: io::Error| refused(store, format!("its file {FILE} cannot be locked: {error}"));
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&path)
        .map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Most who come second are served: nothing is to be waited for then.
            if let Some(connected) = connect()? {
                return Ok(Err(connected));
            }
            match wait_for(store, &file, wait, &mut connect) {
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(connected))) => return Ok(Err(connected)),
                Ok(None) => {
                    let holder = holder(file);
                    return Err(Error::StoreLocked { path: store.to_owned(), holder });
                }
                Err(Failed::Io(error)) => return Err(cannot(error)),
                Err(Failed::Connect(error)) => return Err(error),
            }
        }
        Err(TryLockError::Error(error)) => return Err(cannot(error)),
    }
    let lock = Lock(file);
    // Only for people: who it is. Nothing depends on it, so nothing is made durable.
    let line = format!("{} {} since {}\n", std::process::id(), name(), now());
    let file = &lock.0;
    file.set_len(0).and_then(|()| file.write_all_at(line.as_bytes(), 0)).map_err(cannot)?;
    Ok(Ok(lock))
}

/// Why waiting ended with nothing.
enum Failed {
    Io(io::Error),
    Connect(Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Failed {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// The kernel tells of the close of a file just before it releases its locks: how
/// often, and after how long each time, to look again after such a notice.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the lock is ours, or there is a connection, at most `wait`.
///
/// flock(2) has no timeout. So this waits, in poll(2), for the kernel's notice
/// that somebody closed the file, which is also what the end of a process does; and
/// that something was given its name in the store, as a socket is when somebody listens.
fn wait_for<T>(
    store: &Path,
    file: &File,
    wait: Duration,
    connect: &mut impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<Result<(), T>>, Failed> {
    let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&notices, store.join(FILE), WatchFlags::CLOSE_WRITE)?;
    inotify::add_watch(&notices, store, WatchFlags::MOVED_TO)?;
    let deadline = Instant::now().checked_add(wait);
    let mut looks = 0;
    loop {
        // After the watch was set: what is released from here on is noticed.
        match file.try_lock() {
            Ok(()) => return Ok(Some(Ok(()))),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if let Some(connected) = connect().map_err(Failed::Connect)? {
            return Ok(Some(Err(connected)));
        }
        let left =
            deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(None);
        }
        let pause = if looks > 0 { left.min(PAUSE) } else { left };
        // A time too long for the kernel is no limit.
        let timeout = Timespec::try_from(pause).ok();
        let ready = match poll(&mut [PollFd::new(&notices, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        looks = if ready > 0 { LOOKS } else { looks.saturating_sub(1) };
        let mut unread = [0; 1024];
        while rustix::io::read(&notices, &mut unread).is_ok_and(|bytes| bytes > 0) {}
    }
}

/// What this process calls itself: the program and its first argument.
fn name() -> String {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let program =
        Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let command = args.next().map(|arg| format!(" {}", arg.display())).unwrap_or_default();
    let name: String =
        format!("{program}{command}").chars().filter(|c| !c.is_control()).take(64).collect();
    format!("({name})")
}

fn holder(mut file: File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        Ok(_) | Err(_) => "another process".to_owned(),
    }
}
