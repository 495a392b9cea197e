//! What supervision costs, each figure beside its baseline in the same run.
//!
//! `cargo bench --bench supervision [-- SECTION …]`: `create`, `memory`, `adopt`, `exit`, `log`; all of them when none is
//! named. Rounds take turns, so that a slow moment of the machine hits both sides; medians are printed.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caesium::driver::process::Supervision;
use caesium::{
    Atom, AtomSpec, DeleteRequest, Engine, Error, ListRequest, OnClose, ProcessEngine, State,
    WaitRequest,
};

/// Measures in a directory of its own, and prints a table.
type Section = fn(&Path) -> Result<()>;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    caesium::init();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let sections: [(&str, Section); 5] = [
        ("create", create),
        ("memory", memory),
        ("adopt", adopt),
        ("exit", exit_to_wait),
        ("log", log),
    ];
    for (name, section) in sections {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            println!("\n## {name}");
            // Not in /tmp: that may be in memory, where durable costs nothing.
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
            section(dir.path())?;
        }
    }
    Ok(())
}

/// The ways of supervising.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Host,
    Cgroups,
    Reapers,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "in-host",
            Self::Cgroups => "keeper, cgroups",
            Self::Reapers => "keeper, reapers",
        }
    }

    fn open(self, dir: &Path) -> std::result::Result<ProcessEngine, Error> {
        let supervision = match self {
            Self::Host => Supervision::InHost,
            Self::Cgroups | Self::Reapers => Supervision::Keeper,
        };
        ProcessEngine::options()
            .supervision(supervision)
            .keeper_program(env!("CARGO_BIN_EXE_caesium"))
            .cgroups(self == Self::Cgroups)
            .on_close(OnClose::Leave)
            .open(dir.join(self.name().replace(", ", "-")))
    }
}

const ALL: [By; 3] = [By::Host, By::Cgroups, By::Reapers];

fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let done = what();
    (began.elapsed(), done)
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn clear(engine: &ProcessEngine) -> Result<()> {
    for atom in engine.list(&ListRequest::all())? {
        engine.delete(&DeleteRequest::from(atom.id()).force())?;
    }
    Ok(())
}

// ---- create

/// How long `create` takes in a small host and in a large one, beside std's two ways to start a process.
fn create(dir: &Path) -> Result<()> {
    const ROUNDS: usize = 10;
    const EACH: usize = 20;
    let engines: Vec<(By, ProcessEngine)> =
        ALL.into_iter().map(|by| Ok((by, by.open(dir)?))).collect::<Result<_>>()?;
    let measure = || -> Result<Vec<(&'static str, Duration)>> {
        let mut spawn = Vec::new();
        let mut fork = Vec::new();
        let mut ours: Vec<Vec<Duration>> = vec![Vec::new(); engines.len()];
        for _ in 0..ROUNDS {
            for _ in 0..EACH {
                let mut command = Command::new("/bin/true");
                let (time, child) = timed(|| command.stdin(Stdio::null()).spawn());
                child?.wait()?;
                spawn.push(time);
            }
            for _ in 0..EACH {
                let mut command = Command::new("/bin/true");
                // SAFETY: the closure does nothing; that there is one makes std fork.
                unsafe { command.pre_exec(|| Ok(())) };
                let (time, child) = timed(|| command.stdin(Stdio::null()).spawn());
                child?.wait()?;
                fork.push(time);
            }
            for ((_, engine), times) in engines.iter().zip(&mut ours) {
                for _ in 0..EACH {
                    let (time, atom) =
                        timed(|| engine.create(AtomSpec::command("/bin/true").into()));
                    let atom = engine.wait(&WaitRequest::from(atom?.id()))?;
                    times.push(time);
                    engine.delete(&DeleteRequest::from(atom.id()))?;
                }
            }
        }
        let mut rows = vec![
            ("std, posix_spawn", median(&mut spawn)),
            ("std, fork (pre_exec)", median(&mut fork)),
        ];
        for ((by, _), mut times) in engines.iter().zip(ours) {
            rows.push((by.name(), median(&mut times)));
        }
        Ok(rows)
    };
    let small = measure()?;
    // Touched, so that it is resident.
    let ballast = vec![1_u8; 4 << 30];
    let large = measure()?;
    drop(ballast);
    println!("| p50 of | small host | 4 GiB resident | ratio |\n|---|---|---|---|");
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        println!("| {name} | {small:.0?} | {large:.0?} | {:.2} |", ratio(large, small));
    }
    for (_, engine) in engines {
        engine.close()?;
    }
    Ok(())
}

// ---- memory and descriptors

/// The processes of a store: its keeper, that one's guard, and reapers.
fn ours(store: &Path) -> Vec<(String, u32)> {
    let atoms = store.join("atoms");
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_store = |pid: u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = command.split(|byte| *byte == 0);
        let ours = words.next()? == b"caesium-keeper"
            && words.next()? == atoms.as_os_str().as_encoded_bytes();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        ours.then(|| (name.trim().to_owned(), pid))
    };
    pids.filter_map(of_store).collect()
}

/// Proportional set size, in KiB.
fn pss(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// What the keeper needs when it is empty, and for each atom.
fn memory(dir: &Path) -> Result<()> {
    const ATOMS: usize = 1000;
    println!("| | keeper empty | its guard | per atom, {ATOMS} asleep | descriptors per atom |");
    println!("|---|---|---|---|---|");
    for by in [By::Cgroups, By::Reapers] {
        let store = dir.join(by.name().replace(", ", "-"));
        let engine = by.open(dir)?;
        let one = engine.create(AtomSpec::command("/bin/true").into())?;
        engine.wait(&WaitRequest::from(one.id()))?;
        let sum = |processes: &[(String, u32)], name: &str| -> Result<u64> {
            let of_name = processes.iter().filter(|(of, _)| of == name);
            Ok(of_name.map(|(_, pid)| pss(*pid)).sum::<io::Result<u64>>()?)
        };
        let empty = ours(&store);
        let keeper = |processes: &[(String, u32)]| {
            processes.iter().find(|(name, _)| name == "caesium-keeper").map(|(_, pid)| *pid)
        };
        let fds = keeper(&empty).map_or(0, descriptors);
        let (keeper_kib, guard_kib) =
            (sum(&empty, "caesium-keeper")?, sum(&empty, "caesium-guard")?);
        for _ in 0..ATOMS {
            engine.create(AtomSpec::command("/bin/sleep").arg("1000").into())?;
        }
        let full = ours(&store);
        let all: u64 = full.iter().map(|(_, pid)| pss(*pid)).sum::<io::Result<u64>>()?;
        let each = (all - keeper_kib - guard_kib) as f64 / ATOMS as f64;
        let more = keeper(&full).map_or(0, descriptors) - fds;
        println!(
            "| {} | {keeper_kib} KiB | {guard_kib} KiB | {each:.1} KiB | {:.1} |",
            by.name(),
            more as f64 / ATOMS as f64
        );
        clear(&engine)?;
        engine.close()?;
    }
    Ok(())
}

// ---- adopt

/// How long opening takes when a thousand atoms live: with the keeper that has them, and with another one.
fn adopt(dir: &Path) -> Result<()> {
    println!("| atoms alive | | open, same keeper | open, keeper was killed |\n|---|---|---|---|");
    for atoms in [100, 1000, 5000] {
        for by in [By::Cgroups, By::Reapers] {
            let store = dir.join(by.name().replace(", ", "-"));
            let engine = by.open(dir)?;
            for _ in 0..atoms {
                engine.create(AtomSpec::command("/bin/sleep").arg("1000").into())?;
            }
            engine.close()?;
            let (same, engine) = timed(|| by.open(dir));
            let engine = engine?;
            all_run(&engine, atoms)?;
            engine.close()?;
            for (_, pid) in ours(&store).into_iter().filter(|(name, _)| name == "caesium-keeper") {
                let pid = rustix::process::Pid::from_raw(pid.cast_signed()).ok_or("no pid")?;
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
            let (other, engine) = timed(|| by.open(dir));
            let engine = engine?;
            all_run(&engine, atoms)?;
            println!("| {atoms} | {} | {same:.0?} | {other:.0?} |", by.name());
            clear(&engine)?;
            engine.close()?;
        }
    }
    Ok(())
}

fn all_run(engine: &ProcessEngine, atoms: usize) -> Result<()> {
    let running = engine.list(&ListRequest::all().state(State::Running))?.len();
    if running == atoms { Ok(()) } else { Err(format!("{running} of {atoms} run").into()) }
}

// ---- exit

/// From the moment at which a program may end until `wait` returns, beside `waitpid`, an append and an fdatasync.
fn exit_to_wait(dir: &Path) -> Result<()> {
    const ROUNDS: usize = 300;
    let gate = dir.join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU)?;
    let engines: Vec<(By, ProcessEngine)> =
        ALL.into_iter().map(|by| Ok((by, by.open(dir)?))).collect::<Result<_>>()?;
    let mut file = File::create(dir.join("plain"))?;
    let mut plain = Vec::new();
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); engines.len()];
    // Opens when the program has it open for reading.
    let open = || File::options().write(true).open(&gate);
    for _ in 0..ROUNDS {
        let mut child =
            Command::new("/usr/bin/head").arg("-c1").arg(&gate).stdout(Stdio::null()).spawn()?;
        let mut writer = open()?;
        let (time, done) = timed(|| -> io::Result<()> {
            writer.write_all(b"x")?;
            child.wait()?;
            file.write_all(&[7; 200])?;
            file.sync_data()
        });
        done?;
        plain.push(time);
        for ((_, engine), times) in engines.iter().zip(&mut times) {
            let spec = AtomSpec::command("/usr/bin/head").arg("-c1").arg(&gate);
            let atom: Atom = engine.create(spec.into())?;
            let mut writer = open()?;
            let (time, done) = timed(|| -> Result<()> {
                writer.write_all(b"x")?;
                engine.wait(&WaitRequest::from(atom.id()))?;
                Ok(())
            });
            done?;
            times.push(time);
            engine.delete(&DeleteRequest::from(atom.id()))?;
        }
    }
    let base = median(&mut plain);
    println!("| | p50 | p99 | p50 to waitpid + append + fdatasync |\n|---|---|---|---|");
    println!(
        "| waitpid + append + fdatasync | {base:.0?} | {:.0?} | 1 |",
        percentile(&mut plain, 99)
    );
    for ((by, engine), mut times) in engines.into_iter().zip(times) {
        let (half, most) = (median(&mut times), percentile(&mut times, 99));
        println!("| {} | {half:.0?} | {most:.0?} | {:.2} |", by.name(), ratio(half, base));
        engine.close()?;
    }
    Ok(())
}

// ---- log

/// A gigabyte of output, beside `cat` into a file; and how a quiet atom fares beside a noisy one.
fn log(dir: &Path) -> Result<()> {
    const ROUNDS: usize = 5;
    const BYTES: u64 = 1 << 30;
    println!(
        "| 1 GiB of output | bounded to 16 MiB, to `cat > file` | kept whole, to `cat > file` |"
    );
    println!("|---|---|---|");
    for by in ALL {
        let engine = by.open(dir)?;
        let mut rates: [Vec<Duration>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let to: PathBuf = dir.join("cat");
            let (time, done) = timed(|| -> io::Result<()> {
                let mut head = Command::new("head")
                    .args(["-c", &BYTES.to_string(), "/dev/zero"])
                    .stdout(Stdio::piped())
                    .spawn()?;
                let from = head.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                Command::new("cat").stdin(from).stdout(File::create(&to)?).status()?;
                head.wait().map(drop)
            });
            done?;
            fs::remove_file(&to)?;
            rates[0].push(time);
            for (place, max) in [16 << 20, 4 << 30].into_iter().enumerate() {
                let spec = AtomSpec::command("head")
                    .args(["-c", &BYTES.to_string(), "/dev/zero"])
                    .log_max(max);
                let (time, atom) = timed(|| -> Result<Atom> {
                    let atom = engine.create(spec.into())?;
                    Ok(engine.wait(&WaitRequest::from(atom.id()))?)
                });
                rates[1 + place].push(time);
                engine.delete(&DeleteRequest::from(atom?.id()))?;
            }
        }
        let [mut cat, mut bounded, mut whole] = rates;
        let cat = median(&mut cat);
        println!(
            "| {} | {:.2} | {:.2} |",
            by.name(),
            ratio(cat, median(&mut bounded)),
            ratio(cat, median(&mut whole))
        );
        engine.close()?;
    }
    Ok(())
}
