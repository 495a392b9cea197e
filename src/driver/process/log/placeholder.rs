//! A descriptor that is kept free for the logs, all of which one thread writes.

use std::fs::File;
use std::io;

use parking_lot::Mutex;

/// What keeps one descriptor free: a log whose file is only open while it is written needs no other.
#[derive(Debug)]
pub(crate) struct Placeholder(Mutex<Option<File>>);

impl Placeholder {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(hold()))
    }

    /// Opens a file, with the descriptor that is kept where there is no other.
    pub(super) fn open(&self, open: impl Fn() -> io::Result<File>) -> io::Result<File> {
        match open() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                if self.0.lock().take().is_none() {
                    return Err(error);
                }
                open()
            }
            result => result,
        }
    }

    /// Whether it was given away: then it is to be given back at once.
    pub(super) fn is_lent(&self) -> bool {
        self.0.lock().is_none()
    }

    /// Keeps one free again, if there is one.
    pub(super) fn restore(&self) {
        let mut held = self.0.lock();
        if held.is_none() {
            *held = hold();
        }
    }
}

fn hold() -> Option<File> {
    File::open("/dev/null").ok()
}
