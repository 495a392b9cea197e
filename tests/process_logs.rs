//! What atoms print: complete, in order, bounded, and followed without polling.

#![cfg(target_os = "linux")]

mod process_harness;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use caesium::AtomId;
use caesium::lifecycle::WaitStatus;
use caesium::log::{LogItem, LogNext, LogQuery, Stream};
use process_harness::{Output, PATIENCE, World, following, read_until, sh};

fn log_files(world: &World, atom: AtomId) -> Vec<fs::DirEntry> {
    fs::read_dir(world.dir(atom))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log."))
        .collect()
}

fn disk(world: &World, atom: AtomId) -> u64 {
    log_files(world, atom).iter().map(|entry| entry.metadata().unwrap().len()).sum()
}

/// How many bytes `seq LAST` prints.
fn seq_bytes(last: u64) -> u64 {
    let mut bytes = 0;
    let (mut from, mut digits) = (1, 1);
    while from <= last {
        let to = (from * 10 - 1).min(last);
        bytes += (to - from + 1) * (digits + 1);
        (from, digits) = (from * 10, digits + 1);
    }
    bytes
}

/// Checks that this is the end of what `seq LAST` prints, without a gap.
fn is_tail_of_seq(bytes: &[u8], last: u64) {
    let text = std::str::from_utf8(bytes).unwrap().trim_end();
    let (first, whole) = text.split_once('\n').unwrap();
    let mut expected = last - whole.split('\n').count() as u64;
    assert!(expected.to_string().ends_with(first), "{first} is no part of {expected}");
    for line in whole.split('\n') {
        expected += 1;
        assert_eq!(line, expected.to_string());
    }
    assert_eq!(expected, last);
}

#[test]
fn both_streams_are_kept_apart_and_in_the_order_of_their_reading() {
    let world = World::new();
    // Two, because the end of one writing could be taken for the end of the next.
    let (one, two) = (world.atoms.join("one"), world.atoms.join("two"));
    let script = format!(
        "mkfifo {0} {1}; echo a; read x < {0}; echo b >&2; read x < {1}; echo c",
        one.display(),
        two.display()
    );
    let atom = world.start(sh(&script));
    let mut log = world.log(atom, following());
    read_until(&mut *log, "a\n");
    fs::write(&one, "\n").unwrap();
    read_until(&mut *log, "b\n");
    fs::write(&two, "\n").unwrap();
    read_until(&mut *log, "c\n");
    world.exit(atom);
    let output = world.output(atom);
    assert_eq!(output.text(), "a\nb\nc\n");
    assert_eq!(output.of(Stream::Stderr), "b\n");
    let mut offset = 0;
    for pair in output.chunks.windows(2) {
        assert!(pair[0].at <= pair[1].at);
    }
    for chunk in &output.chunks {
        assert_eq!(chunk.offset, offset);
        offset += chunk.bytes.len() as u64;
    }
    let filtered = LogQuery { stream: Some(Stream::Stderr), ..LogQuery::default() };
    assert_eq!(Output::read(&mut *world.log(atom, filtered)).text(), "b\n");
    let since = LogQuery { since: Some(output.chunks[1].at), ..LogQuery::default() };
    assert_eq!(Output::read(&mut *world.log(atom, since)).text(), "b\nc\n");
}

#[test]
fn of_a_hundred_megabytes_the_newest_are_kept_and_the_rest_is_told() {
    const LAST: u64 = 13_000_000;
    const MAX: u64 = 1 << 20;
    let world = World::new();
    let spec = caesium::AtomSpec::command("seq").arg(LAST.to_string()).log_max(MAX);
    let atom = world.start(spec);
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 0 });
    let output = world.follow(atom);
    let bytes = output.bytes();
    assert_eq!(output.dropped + bytes.len() as u64, seq_bytes(LAST));
    assert!(disk(&world, atom) <= MAX, "{} bytes on disk", disk(&world, atom));
    assert!(bytes.len() as u64 > MAX * 3 / 4, "only {} bytes are kept", bytes.len());
    is_tail_of_seq(&bytes, LAST);
}

#[test]
fn the_smallest_log_is_bounded_too() {
    let world = World::new();
    let atom = world.start(sh("seq 20000; echo x >&2").log_max(4096));
    world.exit(atom);
    let output = world.follow(atom);
    assert!(disk(&world, atom) <= 4096, "{} bytes on disk", disk(&world, atom));
    assert_eq!(output.dropped + output.bytes().len() as u64, seq_bytes(20000) + 2);
}

#[test]
fn a_lossless_follower_gets_everything_however_small_the_log() {
    for max in [4096, 100_000, 1 << 20] {
        const LAST: u64 = 300_000;
        let world = World::new();
        let (atom, spec) = world.prepare(sh(&format!("seq {LAST}; echo end >&2")).log_max(max));
        let query = LogQuery { lossless: true, ..following() };
        let mut log = world.log(atom, query);
        world.send(caesium::driver::Command::Start(caesium::driver::Order { atom, spec }));
        let output = Output::read(&mut *log);
        assert_eq!(output.dropped, 0);
        let seq = output.of(Stream::Stdout);
        assert_eq!(seq.len() as u64, seq_bytes(LAST));
        is_tail_of_seq(seq.as_bytes(), LAST);
        assert_eq!(output.of(Stream::Stderr), "end\n");
        assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 0 });
    }
}

#[test]
fn an_atom_goes_on_when_the_lossless_follower_that_held_it_up_goes() {
    let world = World::new();
    let (atom, spec) = world.prepare(sh("seq 1000000").log_max(65536));
    let mut log = world.log(atom, LogQuery { lossless: true, ..following() });
    world.send(caesium::driver::Command::Start(caesium::driver::Order { atom, spec }));
    assert!(matches!(log.next(None).unwrap(), LogNext::Item(LogItem::Chunk(_))));
    drop(log);
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 0 });
}

#[test]
fn an_ordinary_follower_that_does_not_read_holds_nobody_up() {
    let world = World::new();
    let (atom, spec) = world.prepare(sh("seq 1000000").log_max(65536));
    let mut log = world.log(atom, following());
    world.send(caesium::driver::Command::Start(caesium::driver::Order { atom, spec }));
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 0 });
    let output = Output::read(&mut *log);
    assert_eq!(output.dropped + output.bytes().len() as u64, seq_bytes(1_000_000));
    // What it had begun to read when it was overtaken, a gap, and the newest part without one.
    let mut newest = Vec::new();
    let mut next = 0;
    for chunk in &output.chunks {
        if chunk.offset != next {
            newest.clear();
        }
        newest.extend_from_slice(&chunk.bytes);
        next = chunk.offset + chunk.bytes.len() as u64;
    }
    is_tail_of_seq(&newest, 1_000_000);
}

#[test]
fn following_waits_until_its_deadline_and_ends_with_the_atom() {
    let world = World::new();
    let atom = world.start(sh("echo ready; exec sleep 1000"));
    let mut log = world.log(atom, following());
    read_until(&mut *log, "ready\n");
    let soon = Instant::now() + Duration::from_millis(20);
    assert_eq!(log.next(Some(soon)).unwrap(), LogNext::TimedOut);
    let now = Output::read(&mut *world.log(atom, LogQuery::default()));
    assert_eq!(now.text(), "ready\n", "without following it ends at once");
    world.stop(atom, Duration::ZERO, true);
    assert_eq!(log.next(None).unwrap(), LogNext::End);
    assert_eq!(world.follow(atom).text(), "ready\n", "following what has ended ends");
    assert_eq!(world.follow(AtomId::new()).text(), "", "what is not there printed nothing");
}

#[test]
fn a_follower_ends_when_the_atom_is_removed_and_is_told_when_the_driver_closes() {
    use caesium::driver::Driver;
    let world = World::new();
    let spec = || sh("echo ready; exec sleep 1000");
    let atom = world.start(spec());
    let mut log = world.log(atom, following());
    read_until(&mut *log, "ready\n");
    world.remove(atom, None);
    assert_eq!(log.next(None).unwrap(), LogNext::End);

    let atom = world.start(spec());
    let mut log = world.log(atom, following());
    read_until(&mut *log, "ready\n");
    let (pid, _, _) = world.started(atom);
    world.driver.close();
    assert!(matches!(log.next(None), Err(caesium::driver::DriverError::Closed)));
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_damaged_chunk_ends_its_segment_and_is_told() {
    const LAST: u64 = 20_000;
    let world = World::new();
    let atom = world.start(sh(&format!("seq {LAST}")).log_max(65536));
    world.exit(atom);
    let whole = world.follow(atom);
    let mut files = log_files(&world, atom);
    files.sort_by_key(|entry| entry.file_name().to_string_lossy()[4..].parse::<u64>().unwrap());
    for entry in &files {
        let original = fs::read(entry.path()).unwrap();
        for position in [0, 8, 16, 20, 24, 28, 40, 48, 55, original.len() / 2, original.len() - 1] {
            let mut damaged = original.clone();
            damaged[position] ^= 0xff;
            fs::write(entry.path(), &damaged).unwrap();
            let output = world.output(atom);
            let (kept, all) = (output.bytes(), whole.bytes());
            assert!(kept.len() <= all.len());
            // What is shown is right: every chunk is where the whole log has it.
            for chunk in &output.chunks {
                let start = (chunk.offset - whole.dropped) as usize;
                assert_eq!(chunk.bytes, all[start..start + chunk.bytes.len()]);
            }
            if kept.len() < all.len() {
                assert!(output.dropped > whole.dropped, "the loss is told");
            }
        }
        fs::write(entry.path(), &original).unwrap();
        for cut in [0, 7, 24, 30, original.len() - 1] {
            fs::write(entry.path(), &original[..cut]).unwrap();
            world.output(atom);
        }
        fs::write(entry.path(), &original).unwrap();
    }
}

#[test]
fn nobody_else_may_read_what_an_atom_has() {
    let world = World::new();
    let atom = world.start(sh("umask 0; echo x; exec sleep 1000"));
    read_until(&mut *world.log(atom, following()), "x\n");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.dir(atom)), 0o700);
    for entry in fs::read_dir(world.dir(atom)).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    world.remove(atom, None);
}

#[test]
fn a_full_disk_harms_the_log_and_not_the_atom() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&small)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIP: a small file system cannot be mounted here");
        return;
    }
    let world = World::at(small.join("atoms"));
    let atom = world.start(sh("seq 1000000; echo end"));
    let status = world.exit(atom).status;
    let output = world.follow(atom);
    let refused = world.driver_refuses(&small);
    world.remove(atom, None);
    drop(world);
    let deadline = Instant::now() + PATIENCE;
    while !std::process::Command::new("umount").arg(&small).status().unwrap().success() {
        assert!(Instant::now() < deadline, "somebody has it open still");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(status, WaitStatus::Exited { code: 0 });
    assert!(output.dropped > 0);
    assert!(!output.chunks.is_empty());
    assert!(refused.contains("disk space ran out"), "{refused}");
}

impl World {
    /// Fills the disk, and gives the error of preparing another atom.
    fn driver_refuses(&self, dir: &Path) -> String {
        use caesium::driver::Driver;
        let mut file = fs::File::create(dir.join("fill")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let before = fs::read_dir(&self.atoms).unwrap().count();
        let spec = self.driver.complete(sh("true"), None).unwrap();
        let refused = self.driver.prepare(AtomId::new(), &spec, None).map(|()| "was prepared");
        assert_eq!(fs::read_dir(&self.atoms).unwrap().count(), before, "nothing is left behind");
        fs::remove_file(dir.join("fill")).unwrap();
        refused.unwrap_err().to_string()
    }
}
