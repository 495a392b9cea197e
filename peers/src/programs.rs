//! What runs programs, as a contender: ours, the bare calls, and what people use.
//!
//! Programs of others are found in `$PATH`; `peers/install` puts them there, by package name. Who is not there is skipped, and said.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use caesium::driver::process::Supervision;
use caesium::{AtomSpec, DeleteRequest, Engine, ListRequest, OnClose, ProcessEngine, WaitRequest};

use crate::Result;

/// What is executed.
pub(crate) const PROGRAM: &str = "/bin/true";

/// How many run at a time.
pub(crate) const WIDTH: usize = 8;

/// Runs programs.
pub(crate) trait Runner {
    /// Runs so many to their end, [`WIDTH`] at a time, their output kept somewhere.
    fn run(&mut self, programs: usize) -> Result<()>;
}

/// Does something so many times on [`WIDTH`] threads.
fn in_parallel(times: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WIDTH)
            .map(|worker| {
                let own = times / WIDTH + usize::from(worker < times % WIDTH);
                let work = &work;
                scope.spawn(move || (0..own).find_map(|_| work().err().map(|e| e.to_string())))
            })
            .collect();
        workers.into_iter().find_map(|worker| worker.join().expect("no panic"))
    });
    failed.map_or(Ok(()), |problem| Err(problem.into()))
}

pub(crate) fn checked(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {problem}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program of others is there.
pub(crate) fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&paths).any(|dir| dir.join(program).is_file());
    if !there {
        println!("SKIP {program}: it is not in $PATH (see peers/install)");
    }
    there
}

/// `std::process::Command`, output to a file. Nothing is remembered.
pub(crate) struct Bare(pub(crate) PathBuf);

impl Runner for Bare {
    fn run(&mut self, programs: usize) -> Result<()> {
        in_parallel(programs, || {
            let output = tempfile::NamedTempFile::new_in(&self.0)?;
            let file: File = output.reopen()?;
            let mut command = Command::new(PROGRAM);
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            match command.spawn()?.wait()?.success() {
                true => Ok(()),
                false => Err("it failed".into()),
            }
        })
    }
}

/// Ours: create, wait, delete, each durable.
pub(crate) struct Ours(pub(crate) ProcessEngine);

impl Ours {
    pub(crate) fn new(dir: &Path, supervision: Supervision) -> Result<Self> {
        let engine = ProcessEngine::options().supervision(supervision).on_close(OnClose::Stop);
        Ok(Self(engine.open(dir.join(format!("{supervision:?}")))?))
    }
}

impl Runner for Ours {
    fn run(&mut self, programs: usize) -> Result<()> {
        in_parallel(programs, || {
            let atom = self.0.create(AtomSpec::command(PROGRAM).into())?;
            self.0.wait(&WaitRequest::from(atom.id()))?;
            Ok(self.0.delete(&DeleteRequest::from(atom.id()))?)
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for atom in self.0.list(&ListRequest::all()).into_iter().flatten() {
            let _ = self.0.delete(&DeleteRequest::from(atom.id()).force());
        }
    }
}

/// task-spooler: a queue in memory, and a file for each output.
pub(crate) struct TaskSpooler(PathBuf);

impl TaskSpooler {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("tsp");
        fs::create_dir(&dir)?;
        let tsp = Self(dir);
        checked(tsp.command().args(["-S", &WIDTH.to_string()]))?;
        Ok(tsp)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("tsp");
        command.env("TS_SOCKET", self.0.join("socket")).env("TMPDIR", &self.0);
        command
    }
}

impl Runner for TaskSpooler {
    fn run(&mut self, programs: usize) -> Result<()> {
        in_parallel(programs, || checked(self.command().arg(PROGRAM)).map(drop))?;
        // One runs for each place: when those that were added now have all ended, nothing is left.
        let last = checked(self.command().arg("true"))?;
        checked(self.command().args(["-w", &last]))?;
        while checked(&mut self.command())?.contains("running") {}
        checked(self.command().arg("-C")).map(drop)
    }
}

impl Drop for TaskSpooler {
    fn drop(&mut self) {
        let _ = checked(self.command().arg("-K"));
    }
}

/// pueue: a daemon with a state file, and a client for each task.
pub(crate) struct Pueue {
    config: PathBuf,
    daemon: Child,
}

impl Pueue {
    pub(crate) fn new(dir: &Path, width: usize) -> Result<Self> {
        let dir = dir.join("pueue");
        fs::create_dir(&dir)?;
        let config = dir.join("pueue.yml");
        let at = dir.display();
        fs::write(
            &config,
            format!(
                "shared:\n  pueue_directory: {at}\n  runtime_directory: {at}\n  use_unix_socket: true\ndaemon: {{}}\nclient: {{}}\n"
            ),
        )?;
        let mut command = Command::new("pueued");
        command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut pueue = Self { config, daemon: command.spawn()? };
        let mut tries = 0;
        while let Err(error) = checked(pueue.command().arg("status")) {
            tries += 1;
            if tries > 100 || pueue.daemon.try_wait()?.is_some() {
                return Err(error);
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        checked(pueue.command().args(["parallel", &width.to_string()]))?;
        Ok(pueue)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("pueue");
        command.arg("-c").arg(&self.config);
        command
    }
}

impl Runner for Pueue {
    fn run(&mut self, programs: usize) -> Result<()> {
        in_parallel(programs, || checked(self.command().args(["add", "--", PROGRAM])).map(drop))?;
        checked(self.command().args(["wait", "--quiet"]))?;
        checked(self.command().arg("clean")).map(drop)
    }
}

impl Drop for Pueue {
    fn drop(&mut self) {
        let _ = checked(self.command().args(["kill", "--all"]));
        let _ = checked(self.command().arg("shutdown"));
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// podman: a container for each program, of an image that holds nothing but a static busybox.
///
/// Storage, state and locks are in a directory of their own. Outside of it are only cgroups, until this is dropped, and what podman
/// and runc have in one place for all: a cache in `/var/lib/containers`, and `/run/runc`, empty again.
pub(crate) struct Podman {
    dir: PathBuf,
    cgroup: String,
}

impl Podman {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("podman");
        let files = dir.join("files");
        fs::create_dir_all(files.join("bin"))?;
        fs::copy("/bin/busybox", files.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", files.join("bin/true"))?;
        let image = dir.join("image.tar");
        checked(Command::new("tar").arg("-C").arg(&files).arg("-cf").arg(&image).arg("."))?;
        // Locks in shared memory would be one set for all of the machine, and be freed when a new directory is first used.
        fs::write(
            dir.join("containers.conf"),
            "[containers]\nlog_driver = \"k8s-file\"\n[engine]\nevents_logger = \"file\"\nlock_type = \"file\"\n",
        )?;
        let podman = Self { dir, cgroup: format!("caesium-peers-{}", std::process::id()) };
        checked(podman.command().arg("import").arg(&image).arg("caesium-peers"))?;
        podman.run()?;
        Ok(podman)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf")).env("TMPDIR", &self.dir);
        for (option, place) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.dir.join(place));
        }
        // As any machine can: some have no overlay file system, some no systemd.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        command
    }

    /// Runs one, to its end. It gets no network and no filter of system calls; its limits are set because podman's own are higher than
    /// what may be set everywhere.
    pub(crate) fn run(&self) -> Result<()> {
        let mut command = self.command();
        command.args(["run", "--rm", "--runtime", "runc", "--network", "none"]);
        command.args(["--security-opt", "seccomp=unconfined", "--cgroup-parent"]);
        command.arg(format!("/{}", self.cgroup));
        command.args(["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1000:1000"]);
        checked(command.args(["caesium-peers", PROGRAM])).map(drop)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = checked(self.command().args(["rm", "--all", "--force", "--time", "0"]));
        // Nobody else removes the cgroup above the containers': one for each hierarchy, or one in the only hierarchy.
        let root = Path::new("/sys/fs/cgroup");
        for hierarchy in directories(root).into_iter().chain([root.to_owned()]) {
            let cgroup = hierarchy.join(&self.cgroup);
            for cgroup in directories(&cgroup).into_iter().chain([cgroup]) {
                // The monitor of the last container may still be about to end.
                let mut tries = 0;
                while tries < 100 && fs::remove_dir(&cgroup).is_err() && cgroup.is_dir() {
                    tries += 1;
                    std::thread::park_timeout(std::time::Duration::from_millis(10));
                }
            }
        }
    }
}

/// The directories in a directory.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// Proportional set size of a process, in KiB.
pub(crate) fn pss(pid: u32) -> io::Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
