//! Children as they are set up, seen from inside them. Those that need root say `SKIP` without it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::spawn::{Failure, Streams};
use super::super::sys::{reap, wait_ended};
use super::{Join, Plan, Waiting, fork};
use crate::atom::{AtomId, AtomSpec, Limits, Resource};
use crate::driver::Surroundings;
use crate::lifecycle::{Reason, WaitStatus};

/// Ends a test that hangs; nothing is measured by it.
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: this needs root");
    }
    root
}

pub(super) fn around() -> Surroundings {
    let env = vec![
        (OsString::from("PATH"), OsString::from("/usr/local/bin:/usr/bin:/bin")),
        (OsString::from("INHERITED"), OsString::from("yes")),
    ];
    Surroundings::new(env, PathBuf::from("/"), Some(0o22))
}

pub(super) fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

/// Streams that lead nowhere.
fn silent() -> Streams {
    Streams { stdin: null(), stdout: null(), stderr: null() }
}

/// A file as large as a marker.
pub(super) fn marker() -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    file.into()
}

/// Streams of which the second and third can be read.
pub(super) fn captured() -> (Streams, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let streams = Streams { stdin: null(), stdout: write.try_clone().unwrap(), stderr: write };
    (streams, read.into())
}

pub(super) fn sh(script: &str) -> AtomSpec {
    AtomSpec::command("sh").args(["-c", script])
}

pub(super) fn plan(spec: &AtomSpec) -> Result<Arc<Plan>, Failure> {
    spec.validate().unwrap();
    let plan = Plan::new(AtomId::new(), spec, &around())?;
    Ok(plan.with_inherited(super::ignored_signals()).into())
}

/// The answer of a child.
pub(super) fn report(waiting: &mut Waiting) -> Result<(), Failure> {
    loop {
        if let Some(report) = waiting.report() {
            return report;
        }
        readable(waiting.channel());
    }
}

pub(super) fn readable(fd: impl AsFd) {
    let timeout = Timespec::try_from(LONG).unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    assert!(poll(&mut fds, Some(&timeout)).unwrap() > 0, "nothing came");
}

pub(super) fn status(pidfd: &OwnedFd) -> WaitStatus {
    assert!(wait_ended(pidfd, Instant::now() + LONG), "it did not end");
    reap(pidfd.as_fd()).unwrap().unwrap().0
}

/// Gives it up, but for its pidfd.
fn let_go(waiting: Waiting) -> OwnedFd {
    let Waiting { pidfd, .. } = waiting;
    pidfd
}

struct Ran {
    report: Result<(), Failure>,
    output: String,
    status: WaitStatus,
}

fn run_plan(plan: &Arc<Plan>, join: &Join) -> Ran {
    let (streams, mut read) = captured();
    let mut waiting = fork(plan, streams, join, marker().as_fd(), 67).unwrap();
    // It may already have failed, and gone.
    let _ = waiting.go();
    let report = report(&mut waiting);
    let mut output = String::new();
    read.read_to_string(&mut output).unwrap();
    Ran { report, output, status: status(&waiting.pidfd) }
}

/// What a script prints in an atom that was asked for like this.
fn says(spec: &AtomSpec) -> String {
    let ran = run_plan(&plan(spec).unwrap(), &Join::default());
    assert!(ran.report.is_ok(), "{:?}", ran.report);
    assert_eq!(ran.status, WaitStatus::Exited { code: 0 }, "{}", ran.output);
    ran.output.trim_end().to_owned()
}

fn fails(spec: &AtomSpec, reason: Reason, said: &str) {
    let failure = match plan(spec) {
        Err(failure) => failure,
        Ok(plan) => {
            let ran = run_plan(&plan, &Join::default());
            assert_eq!(ran.output, "", "{spec:?}");
            assert_eq!(ran.status, WaitStatus::Exited { code: 127 });
            ran.report.unwrap_err()
        }
    };
    assert_eq!(failure.reason, reason, "{spec:?}: {failure:?}");
    assert!(failure.detail.contains(said), "{spec:?}: {failure:?}");
}

#[test]
fn it_has_a_session_three_descriptors_and_the_environment_of_its_host() {
    let script = "set -- $(cat /proc/$$/stat); echo $6 = $$; ls /proc/$$/fd; env | sort";
    let said = says(&sh(script).env("OWN", "1").secret_env("SECRET", "2"));
    let mut lines = said.lines();
    let (session, pid) = lines.next().unwrap().split_once(" = ").unwrap();
    assert_eq!(session, pid);
    assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), ["0", "1", "2"]);
    let env: Vec<&str> = lines.collect();
    for entry in ["INHERITED=yes", "OWN=1", "SECRET=2"] {
        assert!(env.contains(&entry), "{env:?}");
    }
    assert!(env.iter().any(|entry| entry.starts_with("CAESIUM_ATOM=")), "{env:?}");
    assert!(!env.iter().any(|entry| entry.starts_with("CARGO")), "{env:?}");
    let said = says(&AtomSpec::command("/usr/bin/env").env_clear(true).env("OWN", "1"));
    let env: Vec<&str> = said.lines().collect();
    assert_eq!(env.len(), 2, "{env:?}");
}

#[test]
fn every_signal_is_as_a_new_program_expects_it() {
    let grep = AtomSpec::command("grep").args(["-E", "Sig(Blk|Ign)", "/proc/self/status"]);
    let masks = |plan: &Arc<Plan>| -> Vec<u64> {
        let ran = run_plan(plan, &Join::default());
        let hex = ran.output.lines().map(|line| line.split_whitespace().nth(1).unwrap());
        hex.map(|mask| u64::from_str_radix(mask, 16).unwrap()).collect()
    };
    // Rust's runtime ignores SIGPIPE, which the child would inherit.
    assert_eq!(masks(&plan(&grep).unwrap()), [0, 0]);
    let nohup = Arc::into_inner(plan(&grep).unwrap()).unwrap().ignoring(libc::SIGHUP);
    assert_eq!(masks(&nohup.into()), [0, 1]);
}

#[test]
fn each_resource_limit_is_set_soft_and_hard() {
    let limits = [
        (Resource::As, 1 << 30, "Max address space"),
        (Resource::Core, 0, "Max core file size"),
        (Resource::Cpu, 1000, "Max cpu time"),
        (Resource::Data, 1 << 29, "Max data size"),
        (Resource::Fsize, 12345, "Max file size"),
        (Resource::Memlock, 4096, "Max locked memory"),
        (Resource::Msgqueue, 1000, "Max msgqueue size"),
        (Resource::Nice, 0, "Max nice priority"),
        (Resource::Nofile, 20, "Max open files"),
        (Resource::Nproc, 500, "Max processes"),
        (Resource::Rtprio, 0, "Max realtime priority"),
        (Resource::Rttime, 100_000, "Max realtime timeout"),
        (Resource::Sigpending, 50, "Max pending signals"),
        (Resource::Stack, 1 << 20, "Max stack size"),
    ];
    assert_eq!(limits.len(), Resource::ALL.len());
    let rlimits = limits.iter().map(|(what, value, _)| (*what, *value)).collect();
    let spec = AtomSpec::command("cat").arg("/proc/self/limits");
    let said = says(&spec.limits(Limits { rlimits, ..Limits::default() }));
    for (what, value, name) in limits {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        let value = value.to_string();
        let found: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(found, [&value, &value], "{what}: {line}");
    }
}

#[test]
fn a_limit_above_what_we_may_give_is_named() {
    let rlimits = vec![(Resource::Core, 0), (Resource::Nofile, u64::MAX)];
    let limits = Limits { rlimits, ..Limits::default() };
    // Above fs.nr_open not even root may go.
    fails(&sh("echo ran").limits(limits), Reason::LimitUnsupported, "rlimit nofile");
}

#[test]
fn umask_nice_and_the_like_are_as_they_were_asked_for() {
    assert_eq!(says(&sh("umask").umask(0o27)), "0027");
    // Not that of the process that forks.
    assert_eq!(says(&sh("umask")), "0022");
    assert_eq!(says(&AtomSpec::command("nice").nice(7)), "7");
    let flag = "grep NoNewPrivs /proc/self/status | tr -dc 01";
    assert_eq!(says(&sh(flag).no_new_privs(true)), "1");
    assert_eq!(says(&sh(flag)), "0");
    assert_eq!(says(&sh("cat /proc/self/oom_score_adj").oom_score_adj(321)), "321");
    if is_root() {
        assert_eq!(says(&AtomSpec::command("nice").nice(-5)), "-5");
    }
}

#[test]
fn a_user_comes_with_its_groups() {
    if !is_root() {
        return;
    }
    let nobody = says(&AtomSpec::command("id").arg("-u").user("nobody"));
    assert_eq!(nobody, "65534");
    // What the system itself says of each user that it lists.
    for name in ["nobody", "daemon", "games", "root"] {
        for flag in ["-u", "-g", "-G"] {
            let expected = std::process::Command::new("id").args([flag, name]).output().unwrap();
            let expected = String::from_utf8(expected.stdout).unwrap();
            let said = says(&AtomSpec::command("id").arg(flag).user(name));
            let sorted = |text: &str| {
                let mut words: Vec<String> = text.split_whitespace().map(Into::into).collect();
                words.sort();
                words
            };
            assert_eq!(sorted(&said), sorted(&expected), "{name} {flag}");
        }
    }
    let ids = |spec: AtomSpec| says(&spec.args(["-c", "id -u; id -g; id -G"])).replace('\n', " ");
    let sh = || AtomSpec::command("sh");
    assert_eq!(ids(sh().user("1234").group("4321")), "1234 4321 4321");
    assert_eq!(ids(sh().user("65534").group("tty")).split(' ').nth(1), Some("5"));
    // Only real, effective and saved ids together leave no way back.
    let all = says(
        &AtomSpec::command("grep").args(["^Uid:", "/proc/self/status"]).user("1234").group("1"),
    );
    assert_eq!(all, "Uid:\t1234\t1234\t1234\t1234");
    fails(&sh().user("1234"), Reason::BadUser, "name a group as well");
}

#[test]
fn what_cannot_be_executed_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let plain = write("plain", "no program", 0o644);
    let orphan = write("orphan", "#!/no/such/interpreter\n", 0o755);
    let garbage = write("garbage", "\0garbage", 0o755);
    let missing = dir.path().join("missing");
    let command = |path: &Path| AtomSpec::command(path);
    fails(&command(&missing), Reason::ExecNotFound, "missing");
    fails(&AtomSpec::command("no-such-program-anywhere"), Reason::ExecNotFound, "PATH");
    fails(&command(&orphan), Reason::ExecNotFound, "/no/such/interpreter");
    fails(&command(&plain), Reason::ExecPermission, "plain");
    fails(&command(dir.path()), Reason::ExecPermission, "directory");
    fails(&command(&garbage), Reason::ExecFailed, "garbage");
    fails(&sh("echo ran").arg("x".repeat(200_000)), Reason::ExecFailed, "too large");
    fails(&sh("echo ran").workdir(&missing), Reason::BadWorkdir, "missing");
    fails(&sh("echo ran").workdir(&plain), Reason::BadWorkdir, "Not a directory");
    fails(&sh("echo ran").stdin_file(&missing), Reason::BadStdin, "missing");
    fails(&sh("echo ran").stdin_file(dir.path()), Reason::BadStdin, "is a directory");
    fails(&sh("echo ran").user("no-such-user-here"), Reason::BadUser, "no-such-user-here");
    fails(&sh("echo ran").group("no-such-group"), Reason::BadUser, "no-such-group");
    fails(&sh("echo ran").user("4294967295"), Reason::BadUser, "4294967295");
    let join = Join { files: vec![missing], unified: None };
    let ran = run_plan(&plan(&sh("echo ran")).unwrap(), &join);
    let failure = ran.report.unwrap_err();
    assert_eq!((failure.reason, ran.output.as_str()), (Reason::LimitUnsupported, ""));
    assert!(failure.detail.contains("missing"), "{failure:?}");
}

#[test]
fn what_only_its_own_user_may_not_do_is_found_with_that_users_rights() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "text").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let nobody = |spec: AtomSpec| spec.user("nobody");
    fails(&nobody(sh("echo ran").workdir(&closed)), Reason::BadWorkdir, "denied");
    fails(&nobody(sh("echo ran").stdin_file(&secret)), Reason::BadStdin, "denied");
    assert_eq!(
        says(&sh("pwd; cat").workdir(&closed).stdin_file(&secret)),
        format!("{}\ntext", closed.display())
    );
    let program = dir.path().join("program");
    fs::write(&program, "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    fails(&nobody(AtomSpec::command(&program)), Reason::ExecPermission, "program");
}

#[test]
fn joining_comes_before_rights_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["one", "two"].map(|name| dir.path().join(name));
    for file in &files {
        fs::write(file, "").unwrap();
        fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let mut spec = sh("echo ran");
    if is_root() {
        spec = spec.user("nobody");
    }
    // No cgroup, so that nobody can be born there.
    let unified = dir.path().to_path_buf();
    let born = dir.path().join("cgroup.procs");
    fs::write(&born, "").unwrap();
    let join = Join { files: files.to_vec(), unified: Some(unified) };
    let ran = run_plan(&plan(&spec).unwrap(), &join);
    assert!(ran.report.is_ok(), "{:?}", ran.report);
    assert_eq!(fs::read_to_string(born).unwrap(), "0");
    for file in &files {
        assert_eq!(fs::read_to_string(file).unwrap(), "0");
    }
}

#[test]
fn without_a_go_nothing_is_executed() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let plan = plan(&AtomSpec::command("touch").arg(&mark)).unwrap();
    let begin = || fork(&plan, captured().0, &Join::default(), marker().as_fd(), 67).unwrap();
    // Dropped, which is what the death of the keeper looks like, before it is ready or after.
    for ready in [false, true] {
        let waiting = begin();
        if ready {
            readable(waiting.channel());
        }
        assert_eq!(status(&let_go(waiting)), WaitStatus::Exited { code: 127 });
        assert!(!mark.exists());
    }
    // Set up, it waits, and says nothing of itself.
    let mut waiting = begin();
    readable(waiting.channel());
    assert!(waiting.report().is_none());
    assert!(!mark.exists());
    waiting.go().unwrap();
    report(&mut waiting).unwrap();
    assert_eq!(status(&waiting.pidfd), WaitStatus::Exited { code: 0 });
    assert!(mark.exists());
    // Killed while it waits, it has not been executed.
    let mut waiting = begin();
    readable(waiting.channel());
    rustix::process::pidfd_send_signal(&waiting.pidfd, rustix::process::Signal::KILL).unwrap();
    assert_eq!(report(&mut waiting).unwrap_err().reason, Reason::ExecFailed);
    assert_eq!(status(&waiting.pidfd), WaitStatus::Signaled { signal: 9, core_dumped: false });
}

/// What this process has: descriptors, and children that nobody waited for.
fn possessions() -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children =
        tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    (descriptors, children.map(|list| list.split_whitespace().count()).sum())
}

/// Runs a test of this binary alone, in a process of its own: what it counts is nobody else's.
pub(super) fn alone(name: &str, uid: Option<u32>) -> bool {
    const FLAG: &str = "CAESIUM_TEST_ALONE";
    if std::env::var_os(FLAG).is_some_and(|value| value == name) {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "--test-threads=1"]);
    command.arg(format!("driver::process::fork::{name}")).env(FLAG, name);
    if let Some(uid) = uid {
        use std::os::unix::process::CommandExt;
        command.uid(uid).gid(uid).current_dir("/");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{said}");
    false
}

/// A child that shares our memory would share the variable into which the library writes what went wrong.
#[test]
fn what_goes_wrong_in_a_child_is_not_written_into_our_memory() {
    const OURS: i32 = 77;
    let failing = plan(&sh("true").workdir("/nonexistent")).unwrap();
    assert!(failing.may_share);
    nix::errno::Errno::set_raw(OURS);
    let mut waiting = fork(&failing, silent(), &Join::default(), marker().as_fd(), 67).unwrap();
    nix::errno::Errno::set_raw(OURS);
    // Neither this nor what it calls goes through the library.
    let failure = report(&mut waiting).unwrap_err();
    assert_eq!(nix::errno::Errno::last_raw(), OURS);
    assert_eq!(failure.reason, Reason::BadWorkdir);
    status(&let_go(waiting));
}

#[test]
fn our_memory_is_shared_only_with_whom_it_is_safe() {
    let shares = |spec: &AtomSpec| {
        let waiting =
            fork(&plan(spec).unwrap(), silent(), &Join::default(), marker().as_fd(), 67).unwrap();
        let shares = waiting.shares();
        status(&let_go(waiting));
        shares
    };
    let spec = || AtomSpec::command("true");
    assert_eq!(shares(&spec()), cfg!(target_arch = "x86_64"));
    let memory = Limits { memory: Some(1 << 30), ..Limits::default() };
    let rlimit = Limits { rlimits: vec![(Resource::Core, 0)], ..Limits::default() };
    for spec in [spec().limits(memory), spec().limits(rlimit), spec().oom_score_adj(500)] {
        assert!(!shares(&spec), "{spec:?}");
    }
    if is_root() {
        assert!(!shares(&spec().user("65534").group("65534")));
    }
}

#[test]
fn two_hundred_forks_leave_no_descriptor_and_no_zombie() {
    if !alone("tests::two_hundred_forks_leave_no_descriptor_and_no_zombie", None) {
        return;
    }
    let executed = plan(&AtomSpec::command("true")).unwrap();
    let failing = plan(&sh("true").workdir("/nonexistent")).unwrap();
    let before = possessions();
    for round in 0..200 {
        let plan = if round % 2 == 0 { &executed } else { &failing };
        let ran = run_plan(plan, &Join::default());
        assert_eq!(ran.report.is_ok(), round % 2 == 0);
    }
    assert_eq!(possessions(), before);
    // While it waits, an atom costs two descriptors, its pidfd and its socket.
    let waiting = fork(&executed, silent(), &Join::default(), marker().as_fd(), 67).unwrap();
    assert_eq!(possessions(), (before.0 + 2, before.1 + 1));
    status(&let_go(waiting));
    super::lent::sweep();
    assert_eq!(possessions(), before);
}
