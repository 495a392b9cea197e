//! Giving back the memory that a reaper has from its keeper and never looks at.
//!
//! A fork shares all pages, and has its own copy of each that the keeper writes to later: a thousand reapers
//! would have a thousand old states of the keeper's heap.

use std::ptr;

use super::sys;

/// Lets go of every page of anonymous memory but those of the stack and of thread-local storage. What is read
/// there later is zero: nothing may be that lives in it, on the heap above all.
///
/// # Safety
///
/// The caller must not use anything on the heap from here on.
pub(super) unsafe fn forget_heap() {
    let here = 0_u8;
    // SAFETY: it takes nothing, and gives the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() } as usize;
    let kept = [ptr::from_ref(&here) as usize, errno];
    // SAFETY: the path ends with NUL.
    let fd = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return;
    }
    let mut bytes = [0_u8; 2048];
    let mut line = Line::default();
    loop {
        // SAFETY: the buffer is valid for a write of its length.
        let read = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
        let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else { break };
        for byte in bytes.iter().take(read) {
            if *byte != b'\n' {
                line.take(*byte);
                continue;
            }
            let Line { start, end, .. } = line;
            if line.is_anonymous() && kept.iter().all(|kept| !(start..end).contains(kept)) {
                // SAFETY: a mapping of this process, in which nothing is that is used again, as the caller says.
                unsafe { libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED) };
            }
            line = Line::default();
        }
    }
    sys::close(fd);
}

/// A line of `/proc/PID/maps`, read byte by byte: `start-end rw-p offset device inode   path`.
#[derive(Debug, Default, Clone, Copy)]
struct Line {
    start: usize,
    end: usize,
    field: u8,
    in_end: bool,
    after_space: bool,
    /// Writable, and private.
    ours: bool,
    inode: usize,
}

impl Line {
    fn take(&mut self, byte: u8) {
        if byte == b' ' {
            self.field += u8::from(!self.after_space);
            self.after_space = true;
            return;
        }
        self.after_space = false;
        let digit = (byte as char).to_digit(16).map(|digit| digit as usize);
        match (self.field, digit) {
            (0, None) => self.in_end = true,
            (0, Some(digit)) if self.in_end => self.end = self.end << 4 | digit,
            (0, Some(digit)) => self.start = self.start << 4 | digit,
            (1, _) => self.ours |= byte == b'w',
            (4, Some(digit)) => self.inode |= digit,
            _ => {}
        }
    }

    fn is_anonymous(self) -> bool {
        self.ours && self.inode == 0 && self.end > self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_told_from_files_and_from_what_is_read_only() {
        let read = |text: &str| {
            let mut line = Line::default();
            text.bytes().for_each(|byte| line.take(byte));
            line
        };
        let heap =
            read("55d0a1c2f000-55d0a1c50000 rw-p 00000000 00:00 0                          [heap]");
        assert_eq!((heap.start, heap.end), (0x55d0_a1c2_f000, 0x55d0_a1c5_0000));
        assert!(heap.is_anonymous());
        assert!(read("7f0000000000-7f0000021000 rw-p 00000000 00:00 0 ").is_anonymous());
        assert!(!read("7f0000000000-7f0000021000 r--p 00000000 00:00 0 ").is_anonymous());
        assert!(
            !read("55d0a0000000-55d0a0001000 rw-p 0001e000 fe:00 1835019   /bin/x").is_anonymous()
        );
    }

    #[test]
    fn a_child_gives_back_what_it_does_not_use() {
        const BYTES: usize = 64 << 20;
        let large = vec![1_u8; BYTES];
        // SAFETY: the child uses its stack and makes system calls.
        let child = || unsafe {
            forget_heap();
            let path = c"/proc/self/statm";
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY);
            let mut text = [0_u8; 128];
            let read = libc::read(fd, text.as_mut_ptr().cast(), text.len());
            let mut words = text[..read.max(0) as usize].split(|byte| *byte == b' ');
            let pages = words.nth(1).unwrap_or_default();
            let pages = pages.iter().fold(0_usize, |sum, byte| 10 * sum + usize::from(byte - b'0'));
            sys::exit(i32::from(pages * 4096 > BYTES))
        };
        // SAFETY: as above.
        let (_, pidfd) = unsafe { super::super::clone::fork(None, child) }.unwrap();
        assert_eq!(
            super::super::tests::status(&pidfd),
            crate::lifecycle::WaitStatus::Exited { code: 0 }
        );
        assert!(large.iter().all(|byte| *byte == 1), "its parent has it still");
    }
}
