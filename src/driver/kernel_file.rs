//! Reading the small files of `/proc` and of cgroups, which do not say how large they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any of them has but one of a cgroup with millions of members.
const USUAL: usize = 4096;

/// Far beyond what is read here; a file that never ends ends there.
const MOST: u64 = 64 << 20;

/// As [`std::fs::read`], which asks for the size, is told none, and begins with 32 bytes: seven reads instead of two.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same, as text.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_usual_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for size in [0, 1, USUAL - 1, USUAL, USUAL + 1, 10 * USUAL] {
            let text = "x".repeat(size);
            std::fs::write(&path, &text).unwrap();
            assert_eq!(read_text(&path).unwrap(), text);
        }
        assert!(read_text("/proc/self/status").unwrap().contains("Umask:"));
        assert!(read(dir.path().join("none")).is_err());
    }
}
