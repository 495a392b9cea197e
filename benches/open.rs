//! What it costs to open a store, by how long its history is.
//!
//! `cargo bench --bench open`. Each opening is a process of its own, this one executed again, so
//! that its memory can be told. All stores have the same atoms; the baseline is the one without a history:
//! the ratio to it is what to look at. `CAESIUM_BENCH_ATOMS` says how many atoms exist.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use caesium::Timestamp;
use caesium::atom::{AtomId, AtomSpec};
use caesium::journal::{Creation, Draft, Fact, Journal, JournalError, JournalOptions};
use caesium::lifecycle::{Event, Reason};

/// Where the store is that a process is to open.
const STORE: &str = "CAESIUM_BENCH_STORE";

/// Events of the history, beside those of the atoms that exist.
const HISTORIES: [u64; 4] = [0, 10_000, 100_000, 1_000_000];

/// Each store is opened so often.
const ROUNDS: usize = 9;

/// Events in the newest segment, after its snapshot.
const NEWEST: u64 = 1000;

fn main() {
    if let Some(store) = std::env::var_os(STORE) {
        return open(Path::new(&store));
    }
    // `cargo test --benches` runs it too, and needs no figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let atoms = std::env::var("CAESIUM_BENCH_ATOMS").map_or(10_000, |text| text.parse().unwrap());
    let place = tempfile::tempdir_in(".").expect("a directory on a real disk");
    let stores: Vec<PathBuf> = HISTORIES
        .iter()
        .map(|events| {
            let dir = place.path().join(events.to_string());
            std::fs::create_dir(&dir).expect("a directory");
            fill(&dir, atoms, *events);
            dir
        })
        .collect();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); stores.len()];
    // By turns, so that what else the machine does meets all of them.
    for _ in 0..ROUNDS {
        for (store, measured) in stores.iter().zip(&mut measured) {
            measured.push(Measured::of(store));
        }
    }
    println!("{atoms} atoms that exist; medians of {ROUNDS} openings, in processes of their own\n");
    println!(
        "| events of history | on disk | open | ratio | peak memory | ratio | then read all |"
    );
    println!("|---|---|---|---|---|---|---|");
    let base = Measured::median(&measured[0]);
    for ((events, store), measured) in HISTORIES.iter().zip(&stores).zip(&measured) {
        let median = Measured::median(measured);
        println!(
            "| {events} | {:.1} MiB | {:.1} ms | {:.2} | {:.1} MiB | {:.2} | {:.0} ms |",
            disk_use(store) as f64 / 1048576.0,
            median.open.as_secs_f64() * 1e3,
            median.open.as_secs_f64() / base.open.as_secs_f64(),
            median.memory as f64 / 1024.0,
            median.memory as f64 / base.memory as f64,
            median.read.as_secs_f64() * 1e3,
        );
    }
}

/// What one opening took.
#[derive(Debug, Clone, Copy)]
struct Measured {
    open: Duration,
    /// Peak resident memory once it is open, in KiB, less what the process has without it.
    memory: u64,
    read: Duration,
}

impl Measured {
    fn of(store: &Path) -> Self {
        let exe = std::env::current_exe().expect("this program");
        let output = Command::new(exe).env(STORE, store).output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let figures: Vec<u64> =
            text.split_ascii_whitespace().map(|figure| figure.parse().expect("a figure")).collect();
        let [open, memory, read] = figures[..] else { panic!("{text}") };
        let (open, read) = (Duration::from_micros(open), Duration::from_micros(read));
        Self { open, memory, read }
    }

    fn median(all: &[Self]) -> Self {
        fn middle<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
            let mut values: Vec<T> = values.collect();
            values.sort_unstable();
            values[values.len() / 2]
        }
        Self {
            open: middle(all.iter().map(|one| one.open)),
            memory: middle(all.iter().map(|one| one.memory)),
            read: middle(all.iter().map(|one| one.read)),
        }
    }
}

/// The other process: opens, says what that took, reads everything, and says that too.
fn open(store: &Path) {
    let before = peak_memory();
    let began = Instant::now();
    let opened = Journal::open_dir(store, JournalOptions::default().must_exist(true));
    let (journal, recovery) = opened.expect("it opens");
    let took = began.elapsed();
    let memory = peak_memory() - before;
    assert!(recovery.clean);
    let began = Instant::now();
    let read = journal.read(1).expect("a history").filter(Result::is_ok).count() as u64;
    assert_eq!(read, recovery.events);
    println!("{} {memory} {}", took.as_micros(), began.elapsed().as_micros());
    journal.close().expect("it closes");
}

/// In KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn disk_use(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("a file");
            if metadata.is_dir() { disk_use(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

/// Atoms that run, then a history of others that have come and gone, and a newest segment that is alike in all stores.
fn fill(dir: &Path, atoms: u64, events: u64) {
    let (journal, _) = Journal::open_dir(dir, JournalOptions::default()).expect("a new journal");
    let each = |numbers: std::ops::Range<u64>, facts: &dyn Fn() -> Vec<Fact>| {
        for from in numbers.clone().step_by(200) {
            change(&journal, |draft| {
                for number in from..numbers.end.min(from + 200) {
                    for fact in facts() {
                        draft.append(atom(number), Timestamp::from_micros(number), fact)?;
                    }
                }
                Ok(())
            });
        }
    };
    let born = || vec![created(), Event::Started { pid: Some(4711) }.into()];
    let life = || {
        let lost = Event::LostSight { reason: Reason::ExitUnobserved };
        let rest = [lost, Event::DeleteAsked, Event::Removed];
        born().into_iter().chain(rest.map(Fact::from)).collect()
    };
    each(0..atoms, &born);
    let others = 1 << 32;
    each(others..others + events / 5, &life);
    let newest = || {
        std::fs::read_dir(dir.join("wal"))
            .expect("segments")
            .map(|e| e.expect("one").file_name())
            .max()
    };
    let before = newest();
    let mut more = 1 << 33;
    while newest() == before {
        each(more..more + 200, &life);
        more += 200;
    }
    each(more..more + NEWEST / 5, &life);
    journal.close().expect("it closes");
}

fn atom(number: u64) -> AtomId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes[6] = 0x70;
    AtomId::from_bytes(bytes)
}

fn created() -> Fact {
    Fact::Created(Creation {
        engine: "bench".into(),
        spec: AtomSpec::command("true").arg("an argument").into(),
        attempt: 1,
        retry_of: None,
    })
}

fn change(journal: &Journal, append: impl Fn(&mut Draft<'_>) -> Result<(), JournalError>) {
    let ((), ticket) = journal.change(|draft| append(draft)).expect("room");
    ticket.wait().expect("durable");
}
