//! Durable appends, beside what the disk itself can do in the same run.
//!
//! `cargo bench --bench append`. The baseline is a preallocated, zeroed file:
//! one write of as many bytes and one fdatasync per group, alone and with the small second
//! write that the journal makes. Its figures are the limit; the ratio to them is what to look at, absolute ones differ from
//! machine to machine and from run to run.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caesium::Timestamp;
use caesium::atom::{AtomId, AtomSpec};
use caesium::journal::{Creation, Fact, Journal, JournalError, JournalOptions};
use caesium::lifecycle::{Event, StopCause, StopOrder};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A store with one atom that can be asked to stop over and over: events of one size.
struct Bench {
    journal: Journal,
    atom: AtomId,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn open() -> Self {
        let dir = tempfile::tempdir_in(".").expect("a directory on a real disk");
        let options = JournalOptions::default();
        let (journal, _) = Journal::open_dir(dir.path(), options).expect("a new journal");
        let atom = AtomId::new();
        let creation = Creation {
            engine: "bench".into(),
            spec: AtomSpec::command("true").into(),
            attempt: 1,
            retry_of: None,
        };
        let made = journal.change(|draft| {
            draft.append(atom, Timestamp::from_micros(1), Fact::Created(creation)).map(|_| ())
        });
        let ((), ticket) = made.unwrap_or_else(|error: JournalError| panic!("{error}"));
        ticket.wait().expect("a durable atom");
        Self { journal, atom, _dir: dir }
    }

    /// One change of `events` events, durable.
    fn append(&self, events: usize) {
        let order =
            StopOrder { grace: Duration::from_secs(10), force: false, cause: StopCause::Requested };
        // 83 bytes of fields and a detail: frames of about 200 bytes.
        let fact = Fact::Happened {
            event: Event::StopAsked(order),
            note: caesium::journal::Note {
                detail: Some("d".repeat(80).into()),
                ..Default::default()
            },
        };
        let ((), ticket) = self
            .journal
            .change(|draft| {
                for _ in 0..events {
                    draft.append(self.atom, Timestamp::from_micros(2), fact.clone())?;
                }
                Ok::<_, JournalError>(())
            })
            .expect("room");
        ticket.wait().expect("durable");
    }
}

/// The bytes of one such event's frame.
const EVENT_BYTES: usize = 200;
/// The bytes of the frame that says how far the log has come, and the page it is on.
const PROGRESS_BYTES: usize = 44;
const PAGE_BYTES: u64 = 4096;
/// The file that is written round and round, zeroed.
const FILE_BYTES: u64 = 4 << 20;

fn groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable_append");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    group.sample_size(20);
    for events in [1_usize, 10, 100, 1000] {
        group.throughput(Throughput::Elements(events as u64));
        let dir = tempfile::tempdir_in(".").expect("a directory on a real disk");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(dir.path().join("raw"))
            .expect("a file");
        file.write_all_at(&vec![0; FILE_BYTES as usize], 0).expect("space");
        file.sync_all().expect("a sync");
        let bytes = vec![0xA5; events * EVENT_BYTES];
        let mut offset = 0;
        group.bench_function(BenchmarkId::new("raw_file", events), |bencher| {
            bencher.iter(|| {
                if offset + bytes.len() as u64 > FILE_BYTES {
                    offset = 0;
                }
                file.write_all_at(black_box(&bytes), offset).expect("a write");
                file.sync_data().expect("a sync");
                offset += bytes.len() as u64;
            });
        });
        // What it costs to say in a place of its own how far that has come.
        let page = vec![0xA5; PROGRESS_BYTES];
        group.bench_function(BenchmarkId::new("raw_file_and_progress", events), |bencher| {
            bencher.iter(|| {
                if offset + bytes.len() as u64 > FILE_BYTES - PAGE_BYTES {
                    offset = 0;
                }
                file.write_all_at(black_box(&bytes), offset).expect("a write");
                file.write_all_at(black_box(&page), FILE_BYTES - PAGE_BYTES).expect("a write");
                file.sync_data().expect("a sync");
                offset += bytes.len() as u64;
            });
        });
        let bench = Bench::open();
        group.bench_function(BenchmarkId::new("journal", events), |bencher| {
            bencher.iter(|| bench.append(events));
        });
    }
    group.finish();
}

fn writers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable_append_writers");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    group.sample_size(10);
    for writers in [1_u64, 8, 64] {
        group.throughput(Throughput::Elements(1));
        let bench = Bench::open();
        group.bench_function(BenchmarkId::new("journal", writers), |bencher| {
            bencher.iter_custom(|iterations| {
                let left = AtomicU64::new(iterations);
                let begin = Instant::now();
                std::thread::scope(|scope| {
                    for _ in 0..writers {
                        scope.spawn(|| {
                            let take = |left: u64| left.checked_sub(1);
                            while left
                                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                                .is_ok()
                            {
                                bench.append(1);
                            }
                        });
                    }
                });
                begin.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, groups, writers);
criterion_main!(benches);
