//! Segments that are written into the files of dropped ones.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::format::{NO_SEGMENT, segment_path, segments};
use super::{Author, HEADER, LogReader, LogShared, LogWriter, Placeholder};
use crate::atom::AtomId;
use crate::log::{LogItem, LogNext, LogQuery, LogSource, Stream};
use crate::time::Timestamp;

/// Eight segments of 512 bytes.
const MAX: u64 = 4096;

#[derive(Debug)]
struct Nobody;

impl Author for Nobody {
    fn resume(&self, _atom: AtomId) {}
}

fn shared() -> Arc<LogShared> {
    LogShared::new(AtomId::new(), Arc::new(Nobody))
}

fn writer(dir: &Path, max: u64) -> LogWriter {
    LogWriter::new(dir, max, shared(), Arc::new(Placeholder::new()))
}

/// Output in which every byte tells its offset.
fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Appends output of this length; gives the offset after it.
fn print(log: &mut LogWriter, offset: u64, length: u64) -> u64 {
    let mut buffer = vec![0; HEADER];
    buffer.extend((offset..offset + length).map(byte_at));
    log.append(Stream::Stdout, Timestamp::from_micros(offset), &mut buffer);
    offset + length
}

/// Reads on, and checks that everything is where it was printed and that what is missing is told.
fn read_on(log: &mut LogReader, expected: &mut u64, dropped: &mut u64) -> LogNext {
    loop {
        match log.next(None).unwrap() {
            LogNext::Item(LogItem::Dropped { bytes }) => {
                *expected += bytes;
                *dropped += bytes;
            }
            LogNext::Item(LogItem::Chunk(chunk)) => {
                assert_eq!(chunk.offset, *expected, "in order, and every gap told");
                let printed = (chunk.offset..).map(byte_at).take(chunk.bytes.len());
                assert!(printed.eq(chunk.bytes.iter().copied()), "at {}", chunk.offset);
                *expected += chunk.bytes.len() as u64;
            }
            end @ (LogNext::End | LogNext::TimedOut) => return end,
        }
    }
}

/// Everything that a log without a writer has: its first offset and the one after its last byte.
fn kept(dir: &Path) -> Range<u64> {
    let mut log = LogReader::new(dir.to_path_buf(), LogQuery::default(), None).unwrap();
    let (mut expected, mut dropped) = (0, 0);
    assert!(matches!(read_on(&mut log, &mut expected, &mut dropped), LogNext::End));
    dropped..expected
}

/// Another writer goes on with what a killed one has left.
fn another_goes_on(dir: &Path, left: &Range<u64>) {
    let mut log = writer(dir, MAX).reopened();
    assert_eq!(kept(dir), *left);
    let offset = print(&mut log, left.end, 1000);
    log.finish(Timestamp::from_micros(offset));
    assert_eq!(kept(dir).end, offset);
}

#[test]
fn followers_that_are_overtaken_see_no_byte_of_another_segment() {
    const PRINTED: u64 = 4 << 20;
    let dir = tempfile::tempdir().unwrap();
    let shared = shared();
    let mut log =
        LogWriter::new(dir.path(), MAX, Arc::clone(&shared), Arc::new(Placeholder::new()));
    let follower = || {
        let query = LogQuery { follow: true, ..LogQuery::default() };
        LogReader::new(dir.path().to_path_buf(), query, Some(Arc::clone(&shared))).unwrap()
    };
    std::thread::scope(|scope| {
        let followers: Vec<_> = (0..3)
            .map(|_| {
                let mut log = follower();
                scope.spawn(move || {
                    let (mut expected, mut dropped) = (0, 0);
                    let end = read_on(&mut log, &mut expected, &mut dropped);
                    assert!(matches!(end, LogNext::End));
                    assert_eq!(expected, PRINTED);
                    dropped
                })
            })
            .collect();
        let mut offset = 0;
        while offset < PRINTED {
            let length = (1 + u64::from(byte_at(offset)) * 3).min(PRINTED - offset);
            offset = print(&mut log, offset, length);
        }
        log.finish(Timestamp::from_micros(PRINTED));
        let dropped: u64 = followers.into_iter().map(|follower| follower.join().unwrap()).sum();
        assert!(dropped > 0, "they were overtaken");
    });
    assert_eq!(kept(dir.path()).end, PRINTED);
    let disk: u64 = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(disk <= MAX, "{disk}");
}

#[test]
fn what_a_killed_writer_left_ends_with_its_last_byte() {
    for last in (1..480).step_by(7) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), MAX);
        let mut offset = 0;
        for _ in 0..40 {
            offset = print(&mut log, offset, 300);
        }
        offset = print(&mut log, offset, last);
        drop(log);
        let before = kept(dir.path());
        assert_eq!(before.end, offset);
        assert!(before.end - before.start > MAX / 2, "{before:?}");

        another_goes_on(dir.path(), &before);
    }
}

#[test]
fn a_writer_killed_while_it_reuses_a_file_costs_that_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), MAX);
    let mut offset = 0;
    for _ in 0..40 {
        offset = print(&mut log, offset, 300);
    }
    drop(log);
    let before = kept(dir.path());
    let numbers = segments(dir.path()).unwrap();
    let (oldest, next) = (numbers[0], numbers[numbers.len() - 1] + 1);
    // Before it had its new name.
    let path = segment_path(dir.path(), oldest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[..NO_SEGMENT.len()].copy_from_slice(&NO_SEGMENT);
    fs::write(&path, bytes).unwrap();
    let without = kept(dir.path());
    assert!(without.start > before.start);
    assert_eq!(without.end, before.end);
    // And after.
    fs::rename(&path, segment_path(dir.path(), next)).unwrap();
    another_goes_on(dir.path(), &without);
}

#[test]
fn a_complete_log_has_no_more_blocks_than_bytes() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path(), 8 << 20);
    let mut offset = 0;
    while offset < 1_200_000 {
        offset = print(&mut log, offset, 1000);
    }
    log.finish(Timestamp::from_micros(offset));
    assert_eq!(segments(dir.path()).unwrap(), [0, 1]);
    let file = fs::metadata(segment_path(dir.path(), 1)).unwrap();
    assert!(file.blocks() * 512 < file.len() + 8192, "{} blocks", file.blocks());
}
