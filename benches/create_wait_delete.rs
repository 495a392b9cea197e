//! What an atom costs from its creation to its deletion, beside bare `std::process::Command`.
//!
//! Each measured step is one `/bin/true`, one at a time; every acknowledgement is on disk.

use std::process::{Command, Stdio};

use caesium::{AtomSpec, Engine, Outcome, ProcessEngine};
use criterion::{Criterion, criterion_group, criterion_main};

const PROGRAM: &str = "/bin/true";

fn create_wait_delete(c: &mut Criterion) {
    // Beside the benchmark's own files, not in /tmp: that may be in memory, where durable costs nothing.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    let engine = ProcessEngine::open(dir.path().join("store")).expect("an empty store");
    let mut group = c.benchmark_group("one process");
    group.bench_function("bare Command, output to a file", |b| {
        let output = dir.path().join("output");
        b.iter(|| {
            let file = std::fs::File::create(&output).expect("a file");
            let mut command = Command::new(PROGRAM);
            command.stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor"));
            let mut child = command.stderr(file).spawn().expect("a process");
            assert!(child.wait().expect("its status").success());
            std::fs::remove_file(&output).expect("it is there");
        });
    });
    group.bench_function("create, wait, delete, durable", |b| {
        b.iter(|| {
            let atom = engine.create(AtomSpec::command(PROGRAM).into()).expect("an atom");
            let atom = engine.wait(&atom.id().into()).expect("its end");
            assert_eq!(atom.result(), Some(Outcome::Success));
            engine.delete(&atom.id().into()).expect("its deletion");
        });
    });
    group.finish();
    engine.close().expect("a clean close");
}

criterion_group!(benches, create_wait_delete);
criterion_main!(benches);
