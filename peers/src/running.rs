//! Short programs, many at a time and from a shell; and programs that sleep.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caesium::driver::process::Supervision;
use caesium::{AtomSpec, Engine, ListRequest, State};

use crate::Result;
use crate::journal::Events;
use crate::programs::{
    Bare, Ours, PROGRAM, Podman, Pueue, Runner, TaskSpooler, WIDTH, checked, is_there, pss,
};
use crate::table::{Way, rates, repeat, times};

/// How many are run before anybody looks at the clock.
const BATCH: usize = 64;

/// `/bin/true`, many.
pub(crate) fn many(dir: &Path) -> Result<()> {
    let mut runners: Vec<(String, Box<dyn Runner>)> = vec![
        ("bare Command, output to a file".into(), Box::new(Bare(dir.to_owned()))),
        ("caesium in the host, durable".into(), Box::new(Ours::new(dir, Supervision::InHost)?)),
        (
            "caesium through the keeper, durable".into(),
            Box::new(Ours::new(dir, Supervision::Keeper)?),
        ),
    ];
    if is_there("tsp") {
        runners.push(("task-spooler".into(), Box::new(TaskSpooler::new(dir)?)));
    }
    if is_there("pueue") {
        runners.push(("pueue".into(), Box::new(Pueue::new(dir, WIDTH)?)));
    }
    let title = format!("{PROGRAM}, {WIDTH} at a time: asked for, waited for, removed");
    rates(&title, "programs", &mut runners, |runner, turn| {
        repeat(turn, || runner.run(BATCH).map(|()| BATCH))
    })
}

/// The command line, one program at a time.
pub(crate) fn shell(dir: &Path) -> Result<()> {
    let program = program()?;
    // A store with a long history.
    let (warm, long) = (dir.join("warm"), dir.join("long"));
    let engine = caesium::ProcessEngine::open(&long)?;
    engine.close()?;
    Events::fill(&long, HISTORY)?;
    let tsp = is_there("tsp").then(|| TaskSpooler::new(dir)).transpose()?;
    let mut fresh = 0;
    let mut ways: Vec<(String, Way<'_>)> = vec![
        sh(),
        ("caesium run -- true".into(), run(&program, warm)),
        (format!("caesium run -- true, {HISTORY} events of history"), run(&program, long)),
        (
            "caesium run -- true, a new store and keeper each".into(),
            Box::new(|| {
                fresh += 1;
                run(&program, dir.join(format!("new{fresh}")))()
            }),
        ),
    ];
    if let Some(tsp) = &tsp {
        let add = || checked(tsp.command().args(["-nf", "true"])).map(drop);
        ways.push(("tsp -nf true".into(), Box::new(add)));
    }
    times("From a shell, one after the other", &mut ways)
}

/// The same with those that are slower by far, and hold up whoever has the next turn.
pub(crate) fn containers(dir: &Path) -> Result<()> {
    let program = program()?;
    let pueue = is_there("pueue").then(|| Pueue::new(dir, WIDTH)).transpose()?;
    let podman = ["podman", "runc", "busybox"].into_iter().all(is_there).then(|| Podman::new(dir));
    let podman = podman.and_then(|podman| {
        podman.inspect_err(|error| println!("SKIP podman: it does not work here: {error}")).ok()
    });
    let mut ways = vec![sh(), ("caesium run -- true".into(), run(&program, dir.join("warm")))];
    if let Some(pueue) = &pueue {
        ways.push((
            "pueue add, pueue wait".into(),
            Box::new(|| {
                checked(pueue.command().args(["add", "--", "true"]))?;
                checked(pueue.command().args(["wait", "--quiet"])).map(drop)
            }),
        ));
    }
    if let Some(podman) = &podman {
        ways.push((format!("podman run --rm {PROGRAM}"), Box::new(|| podman.run())));
    }
    times("From a shell, beside daemons and containers", &mut ways)
}

/// Our command line.
fn program() -> Result<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/caesium");
    if !program.is_file() {
        return Err(format!("no {}: run `cargo build --release` first", program.display()).into());
    }
    Ok(program)
}

fn sh() -> (String, Way<'static>) {
    let sh = || checked(Command::new("sh").args(["-c", "true"])).map(drop);
    ("sh -c true".into(), Box::new(sh))
}

fn run(program: &Path, store: PathBuf) -> Way<'static> {
    let program = program.to_owned();
    Box::new(move || {
        let mut command = Command::new(&program);
        checked(command.arg("--store").arg(&store).args(["run", "--", "true"])).map(drop)
    })
}

const HISTORY: usize = 1_000_000;

/// What supervising a sleeping program takes.
pub(crate) fn sleeping(dir: &Path) -> Result<()> {
    const OURS: usize = 5000;
    const THEIRS: usize = 200;
    println!("\n### Programs that sleep\n");
    println!(
        "| | programs | KiB of the supervisors for each | wake-ups of them in a minute, all together |"
    );
    println!("|---|---|---|---|");
    let row = |name: &str, programs: usize, before: f64, pids: &[u32]| -> Result<()> {
        let kib = pids.iter().map(|pid| pss(*pid)).sum::<std::io::Result<f64>>()? - before;
        let woken = wake_ups(pids);
        std::thread::park_timeout(Duration::from_secs(60));
        let woken = wake_ups(pids) - woken;
        println!("| {name} | {programs} | {:.1} | {woken} |", kib / programs as f64);
        Ok(())
    };

    let ours = Ours::new(dir, Supervision::Keeper)?;
    let spec = || AtomSpec::command("sleep").arg("1000");
    ours.0.create(spec().into())?;
    let supervisors = supervisors(dir);
    let before = supervisors.iter().map(|pid| pss(*pid)).sum::<std::io::Result<f64>>()?;
    for _ in 0..OURS {
        ours.0.create(spec().into())?;
    }
    // Until all of them run, and the last timer that watched over a start has gone off.
    while ours.0.list(&ListRequest::all())?.iter().any(|atom| atom.state() != State::Running) {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    std::thread::park_timeout(Duration::from_secs(40));
    row("caesium, keeper and guard", OURS, before, &supervisors)?;
    let before = host_threads();
    std::thread::park_timeout(Duration::from_secs(60));
    let after = host_threads();
    let woken = after.into_iter().filter_map(|(name, count)| {
        let more = count - before.get(&name).copied().unwrap_or(0);
        (more > 0).then(|| format!("{name} {more}"))
    });
    let woken = woken.collect::<Vec<_>>().join(", ");
    println!(
        "\nWake-ups of the host's threads in a minute, by name: {}.\n",
        if woken.is_empty() { "none" } else { &woken }
    );
    drop(ours);

    for (supervisor, script) in [("s6-supervise", "run"), ("runsv", "run")] {
        if !is_there(supervisor) {
            continue;
        }
        let mut children = Vec::new();
        for number in 0..THEIRS {
            let service = dir.join(format!("{supervisor}{number}"));
            fs::create_dir(&service)?;
            let script = service.join(script);
            fs::write(&script, "#!/bin/sh\nexec sleep 1000\n")?;
            checked(Command::new("chmod").arg("+x").arg(&script))?;
            children.push(Service(Command::new(supervisor).arg(&service).spawn()?));
        }
        std::thread::park_timeout(Duration::from_secs(2));
        let pids: Vec<u32> = children.iter().map(|child| child.0.id()).collect();
        row(supervisor, THEIRS, 0.0, &pids)?;
    }
    if is_there("pueue") {
        let pueue = Pueue::new(dir, THEIRS)?;
        let pids = [pueue.pid()];
        let before = pss(pids[0])?;
        for _ in 0..THEIRS {
            checked(pueue.command().args(["add", "--", "sleep", "1000"]))?;
        }
        row("pueue", THEIRS, before, &pids)?;
    }
    if is_there("supervisord") {
        let config = dir.join("supervisord.conf");
        let at = dir.display();
        let programs = format!(
            "[supervisord]\nnodaemon=true\nlogfile={at}/log\npidfile={at}/pid\nchildlogdir={at}\nminfds=4096\n[program:sleep]\ncommand=sleep 1000\nnumprocs={{}}\nprocess_name=%(process_num)s\n"
        );
        let mut before = 0.0;
        for count in [1, THEIRS + 1] {
            fs::write(&config, programs.replace("{}", &count.to_string()))?;
            let mut command = Command::new("supervisord");
            let supervisor = Service(command.arg("-c").arg(&config).stdout(Stdio::null()).spawn()?);
            std::thread::park_timeout(Duration::from_secs(10));
            let pids = [supervisor.0.id()];
            if count == 1 {
                before = pss(pids[0])?;
            } else {
                row("supervisord", THEIRS, before, &pids)?;
            }
        }
    }
    Ok(())
}

/// A supervisor that ends its program when it is asked to end.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = checked(Command::new("kill").arg(self.0.id().to_string()));
        let _ = self.0.wait();
    }
}

/// The keeper and the guard of a store below `dir`.
fn supervisors(dir: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let dir = dir.as_os_str().as_encoded_bytes();
    pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(b"caesium-keeper") && command.windows(dir.len()).any(|part| part == dir)
    })
    .collect()
}

/// The same for the threads of this process, by their names; the main thread, which measures, left out.
fn host_threads() -> BTreeMap<String, u64> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        if task.file_name().to_string_lossy() != std::process::id().to_string() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            *threads.entry(name.trim().to_owned()).or_default() += switches(&task.path());
        }
    }
    threads
}

/// How often a thread went to sleep by itself so far.
fn switches(task: &Path) -> u64 {
    let status = fs::read_to_string(task.join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// How often the threads of processes went to sleep by themselves so far.
fn wake_ups(pids: &[u32]) -> u64 {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")));
    tasks.flatten().flatten().map(|task| switches(&task.path())).sum()
}
