//! Programs that nobody wrote for this: started, used, and ended with all that they have forked.
//!
//! Short forms; `CAESIUM_REAL_SECONDS=60` has the stressors run longer. `scripts/real-programs` installs what is
//! needed and runs the long form.

#![cfg(target_os = "linux")]

mod cli_harness;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cli_harness::{Place, text};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// Where a program is, among the usual places and those given; says so when it is not here.
fn find(program: &str, others: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = std::env::split_paths(&path).chain(others.iter().map(PathBuf::from));
    let found = usual.map(|dir| dir.join(program)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIP: {program} is not here");
    }
    found
}

/// Everything that lives and was started as this atom, wherever it has gone. Some write other things where their
/// environment was; those are known by their cgroup.
fn living(id: &str) -> Vec<u32> {
    let entry = format!("CAESIUM_ATOM={id}").into_bytes();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        (environ.split(|byte| *byte == 0).any(|one| one == entry) || cgroup.contains(id))
            && cli_harness::alive((*pid).into())
    };
    pids.filter(is_it).collect()
}

fn until<T>(what: &str, mut so: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = so() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn seconds() -> u64 {
    std::env::var("CAESIUM_REAL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Stops a stressor when it has many processes; what is there when that returns is nothing.
fn stressed(options: &[&str], run: &[&str]) -> Option<Value> {
    stressed_by(&[], options, run)
}

/// The same, started by another command.
fn stressed_by(by: &[&str], options: &[&str], run: &[&str]) -> Option<Value> {
    let stress = find("stress-ng", &[])?;
    let place = Place::new();
    // Under a /tmp of its own the place is not to be seen.
    let temporary = if by.is_empty() { place.dir.path() } else { Path::new("/tmp") };
    let temporary = temporary.to_str().unwrap();
    let stress = [stress.to_str().unwrap(), "--temp-path", temporary, "--timeout", "600s"];
    let arguments = [&["run", "-d"], run, &["--"], by, &stress[..], options].concat();
    let id = place.ok(arguments);
    let id = id.trim();
    until("it is under stress", || (living(id).len() > 3).then_some(()));
    // For a while, in which it forks and is killed.
    std::thread::park_timeout(Duration::from_secs(seconds()));
    place.run(["stop", "--grace", "300ms", id]);
    assert_eq!(living(id), [0_u32; 0], "{options:?}");
    let atom = place.inspect(id);
    assert_eq!(atom["state"], "stopped", "{atom}");
    assert!(["terminated", "killed"].contains(&text(&atom, "result").as_str()), "{atom}");
    Some(atom)
}

#[test]
fn stressors_that_fork_end_with_all_their_children() {
    for stressor in ["--fork", "--vfork", "--clone", "--daemon", "--zombie"] {
        stressed(&[stressor, "4"], &[]);
    }
    // This one takes all of the disk that is under /tmp, so it has a /tmp of its own.
    let script = "mount -t tmpfs -o size=8m tmpfs /tmp && exec \"$@\"";
    let apart = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let can = Command::new(apart[0]).args(&apart[1..]).arg("true").status();
    if can.is_ok_and(|status| status.success()) {
        stressed_by(&apart, &["--forkheavy", "4"], &[]);
    } else {
        eprintln!("SKIP: a greedy stressor cannot have a file system of its own here");
    }
}

#[test]
fn stressors_of_memory_and_signals_end_with_all_their_children() {
    stressed(&["--vm", "3", "--vm-bytes", "16M"], &[]);
    stressed(&["--kill", "4"], &[]);
    stressed(&["--sigpending", "2", "--switch", "4"], &[]);
}

#[test]
fn a_stressor_beyond_its_limits_is_ended_within_them() {
    if find("stress-ng", &[]).is_none() {
        return;
    }
    let place = Place::new();
    let probe = place.run(["run", "--memory", "64M", "--pids", "50", "true"]);
    if probe.status != 0 {
        eprintln!("SKIP: no limits of memory and processes can be set here");
        return;
    }
    // It starts again those of its children that the kernel kills.
    let atom = stressed(&["--vm", "4", "--vm-bytes", "256M"], &["--memory", "64M"]).unwrap();
    assert!(atom["oom_kills"].as_u64() > Some(0), "{atom}");
    stressed(&["--fork", "8", "--fork-max", "64"], &["--pids", "40"]);
}

#[test]
fn an_init_that_reaps_ends_with_what_it_has_adopted() {
    let Some(tini) = find("tini", &["/usr/bin", "/sbin"]) else { return };
    let place = Place::new();
    let script = "setsid sleep 1000 & (setsid sleep 1000 &) ; echo ready; sleep 1000";
    let mut run = place.command(["run", "-d", "--"]);
    run.arg(tini).args(["-s", "-g", "--", "sh", "-c", script]);
    let output = run.output().unwrap();
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    until("it has started all", || (living(&id).len() >= 4).then_some(()));
    place.run(["stop", "--grace", "2s", &id]);
    assert_eq!(living(&id), [0_u32; 0]);
    assert_eq!(place.inspect(&id)["state"], "stopped");
}

#[test]
fn a_build_runs_and_its_output_is_whole() {
    let place = Place::new();
    let cargo = env!("CARGO");
    let project = place.dir.path().join("project");
    let made = Command::new(cargo).args(["new", "--quiet", "--vcs", "none"]).arg(&project).status();
    assert!(made.unwrap().success());
    let mut run = place.command(["run", "--name", "build", "--workdir"]);
    run.arg(&project).args(["--", cargo, "build", "--offline", "--color", "never"]);
    // Its own, whatever this build has.
    run.env_remove("CARGO_TARGET_DIR").env_remove("RUSTC_WRAPPER");
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Compiling project") && said.contains("Finished"), "{said}");
    assert!(project.join("target/debug/project").is_file());
    assert_eq!(text(&place.inspect("build"), "result"), "success");
    let logged = place.run(["logs", "build"]);
    assert_eq!(logged.err, said);
}

/// A PostgreSQL server in a directory of its own.
struct Server<'a> {
    place: &'a Place,
    bin: PathBuf,
    user: Vec<&'static str>,
}

impl Server<'_> {
    fn dir(&self) -> PathBuf {
        self.place.dir.path().join("pg")
    }

    fn start(&self, name: &str) {
        let (postgres, dir) = (self.bin.join("postgres"), self.dir());
        let mut run = self.place.command(["run", "-d", "--name", name]);
        run.args(&self.user).arg("--").arg(postgres).arg("-D").arg(dir.join("data"));
        run.arg("-k").arg(&dir).args(["-c", "listen_addresses="]);
        let output = run.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        until("the server is ready", || self.query("select 1").map(drop));
    }

    fn query(&self, sql: &str) -> Option<String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.arg("-h").arg(self.dir()).args(["-U", "postgres", "-At", "-c", sql, "postgres"]);
        let output = psql.output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

#[test]
fn a_database_server_is_started_used_stopped_and_started_again() {
    let bins = ["/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/17/bin", "/usr/bin"];
    let Some(initdb) = find("initdb", &bins) else { return };
    let bin = initdb.canonicalize().unwrap().parent().unwrap().to_owned();
    if !bin.join("postgres").is_file() || !bin.join("psql").is_file() {
        eprintln!("SKIP: no PostgreSQL server is here");
        return;
    }
    let place = Place::new();
    // It refuses to be root.
    let root = rustix::process::geteuid().is_root();
    let user = if root { vec!["--user", "nobody"] } else { Vec::new() };
    let server = Server { place: &place, bin, user };
    make_for_everybody(place.dir.path(), &server.dir());
    let data = server.dir().join("data");
    let mut run = place.command(["run", "--name", "initdb", "--workdir"]);
    run.arg(server.dir()).args(&server.user).arg("--").arg(&initdb);
    run.args(["-U", "postgres", "-A", "trust", "-D"]).arg(&data);
    let output = run.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.start("first");
    assert_eq!(
        server.query("create table t as select generate_series(1, 1000) n"),
        Some("SELECT 1000".into())
    );
    // More than one process, and none of them is left.
    let first: Value = place.inspect("first");
    let id = text(&first, "id");
    assert!(living(&id).len() >= 4);
    place.run(["stop", "first"]);
    assert_eq!(living(&id), [0_u32; 0]);
    let first = place.inspect(&id);
    // SIGTERM is its smart shutdown.
    assert_eq!(
        (text(&first, "result"), &first["exit_code"]),
        ("terminated".into(), &Value::from(0))
    );
    server.start("second");
    assert_eq!(server.query("select sum(n) from t").as_deref(), Some("500500"));
    // Killed, it has to recover; that too is known for what it was.
    place.run(["stop", "--force", "second"]);
    assert_eq!(text(&place.inspect("second"), "result"), "killed");
    server.start("third");
    assert_eq!(server.query("select count(*) from t").as_deref(), Some("1000"));
    place.run(["stop", "third"]);
}

fn make_for_everybody(parent: &Path, dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(dir).unwrap();
    for dir in [parent, dir] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).unwrap();
    }
}
