//! A file system of our own in a file, whose power can be cut.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

#[derive(Debug)]
pub(super) struct Disk {
    dir: TempDir,
    /// The file below; every cut leaves one of its own.
    image: PathBuf,
    kind: &'static str,
    mounted: bool,
    cuts: u32,
}

/// Where files are fast: nothing in these tests rests on the disk below.
pub(super) fn fast() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Disk {
    /// A new file system of `kind`, mounted; in words what this machine lacks for it.
    pub(super) fn make(kind: &'static str) -> Result<Self, String> {
        let dir = fast();
        let image = dir.path().join("image");
        let (bytes, options): (u64, &[&str]) = match kind {
            "ext4" => (64 << 20, &["-q", "-m", "0"]),
            _ => (320 << 20, &["-q"]),
        };
        if kind != "tmpfs" {
            File::create(&image).unwrap().set_len(bytes).unwrap();
            let mut arguments: Vec<&std::ffi::OsStr> = options.iter().map(AsRef::as_ref).collect();
            arguments.push(image.as_os_str());
            run(&format!("mkfs.{kind}"), &arguments)?;
        }
        std::fs::create_dir(dir.path().join("mount")).unwrap();
        let mut disk = Self { dir, image, kind, mounted: false, cuts: 0 };
        disk.mount()?;
        Ok(disk)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// Where a store goes on it; made if need be.
    pub(super) fn store(&self) -> PathBuf {
        let store = self.path().join("store");
        if !store.is_dir() {
            std::fs::create_dir(&store).unwrap();
        }
        store
    }

    pub(super) fn mount(&mut self) -> Result<(), String> {
        let mount = self.path();
        // Nothing that was not asked for is written in the background while a round lasts.
        let options = match self.kind {
            "ext4" => "loop,commit=600",
            "tmpfs" => "size=64M",
            _ => "loop",
        };
        let kind = self.kind.as_ref();
        let options = ["-t".as_ref(), kind, "-o".as_ref(), options.as_ref()];
        run("mount", &[&options[..], &[self.image.as_os_str(), mount.as_os_str()]].concat())?;
        self.mounted = true;
        Ok(())
    }

    pub(super) fn unmount(&mut self) {
        let patience = Instant::now() + Duration::from_secs(30);
        while let Err(error) = run("umount", &[self.path().as_os_str()]) {
            assert!(Instant::now() < patience, "{error}");
            // A host that was just killed may still be letting go.
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.mounted = false;
    }

    /// From now on nothing reaches the disk, what is still in memory included.
    pub(super) fn cut(&self) {
        /// `EXT4_IOC_SHUTDOWN`, which is xfs's `XFS_IOC_GOINGDOWN` as well.
        const SHUTDOWN: libc::c_ulong = 0x8004_587D;
        /// Not even the file system's own journal is flushed.
        const NO_FLUSH: u32 = 2;
        let how = NO_FLUSH;
        let root = File::open(self.path()).unwrap();
        // SAFETY: the descriptor is open, and this request reads one u32, which outlives the call.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// The power is back.
    pub(super) fn restart(&mut self) {
        self.unmount();
        // What is on the disk goes elsewhere: somebody who made a mount namespace
        // meanwhile has the dead file system still mounted, and what is mounted
        // once more is the same one.
        self.cuts += 1;
        let next = self.image.with_extension(format!("{}", self.cuts));
        std::fs::copy(&self.image, &next).unwrap();
        std::fs::remove_file(&self.image).unwrap();
        self.image = next;
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && run("umount", &[self.path().as_os_str()]).is_err() {
            // Somebody still has it: it goes with the last one.
            let _ = run("umount", &["-l".as_ref(), self.path().as_os_str()]);
        }
    }
}
