//! What the fuzz targets and the replay of their corpora call.

mod store;

use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{self, Place};
use super::read::packed;
use super::storage::MemoryStorage;
use super::view::View;
use super::wal::recover::Scan;
use super::{Creation, Fact, Journal, JournalOptions, MemoryHistory, Record, codec};
use crate::atom::{AtomId, AtomSpec};
use crate::lifecycle::{Ending, Event, Evidence, Reason, State, StopCause, StopOrder, WaitStatus};
use crate::time::Timestamp;

pub use store::{store, store_seeds};

/// Any bytes: decoding never panics, and what decodes encodes to the same bytes.
pub fn frame(bytes: &[u8]) {
    if let Ok((header, payload)) = frame::decode(bytes) {
        let place =
            Place { kind: header.kind, back: header.back, seq: header.seq, prev: header.prev };
        let mut again = Vec::new();
        assert_eq!(frame::encode(place, payload, &mut again), header.crc);
        assert_eq!(again, bytes[..header.frame_bytes()], "a frame that decodes is the one encoded");
        if let Ok(record) = codec::decode::<Record>(payload)
            && let Ok(bytes) = codec::encode(&record)
        {
            let twice: Record = codec::decode(&bytes).expect("what was encoded decodes");
            // Compared as bytes: a NaN in a spec is not equal to itself.
            assert_eq!(codec::encode(&twice).ok(), Some(bytes));
        }
    }
    // A payload without its frame: the checksum would keep most inputs out.
    if let Ok(record) = codec::decode::<Record>(bytes) {
        assert!(codec::encode(&record).is_ok());
    }
    let mut offset = 0;
    while let Ok(Some(_)) = packed(bytes, &mut offset) {}
    if let Ok(mut scan) = Scan::preface(bytes, PathBuf::new(), 1) {
        // Any answer is right, as long as there is one.
        let _ = scan.events();
    }
}

/// Any bytes as the file of a damaged store, and as that of a part of its history.
pub fn salvage(bytes: &[u8]) {
    super::history::fuzz(bytes);
    super::salvage::fuzz(bytes);
}

/// Any bytes as the only segment of a store: it opens, or is refused with a typed
/// error and left as it is; what opens can be written, closed and opened again.
pub fn segment(bytes: &[u8]) {
    let name = super::wal::segment::name(1);
    let memory = MemoryStorage::new();
    memory.put(&name, bytes.to_vec());
    let open = || {
        let options = JournalOptions::default().segment_bytes(1 << 12).must_exist(true);
        Journal::open(Arc::new(memory.clone()), Arc::new(MemoryHistory::new()), options)
    };
    let Ok((journal, recovery)) = open() else {
        assert_eq!(
            memory.contents(&name).as_deref(),
            Some(bytes),
            "what is refused is not touched"
        );
        return;
    };
    let records = journal.read(1).expect("it can be read").count() as u64;
    assert_eq!(records, recovery.events);
    let created = Fact::Created(Creation {
        engine: "fuzz".into(),
        spec: Arc::new(AtomSpec::command("true")),
        attempt: 1,
        retry_of: None,
    });
    let appended = journal
        .change(|draft| draft.append(AtomId::from_bytes([9; 16]), Timestamp::default(), created))
        .is_ok_and(|(_, ticket)| ticket.wait().is_ok());
    // A made-up snapshot opens, and is not what the events give.
    let _ = journal.verify();
    journal.close().expect("memory does not fail");
    let (_, again) = open().expect("what was closed opens");
    assert_eq!(again.events, recovery.events + u64::from(appended));
    assert!(again.clean);
}

/// Any bytes as a sequence of events: what is accepted keeps the invariants,
/// what is rejected changes nothing, and replaying gives the same.
pub fn lifecycle(bytes: &[u8]) {
    let id = AtomId::from_bytes([7; 16]);
    let created = Fact::Created(Creation {
        engine: "fuzz".into(),
        spec: AtomSpec::command("true").into(),
        attempt: 1,
        retry_of: None,
    });
    let mut accepted = vec![(Timestamp::from_micros(1000), created.clone())];
    let mut view = View::default();
    view.apply(id, accepted[0].0, &created).expect("a first atom fits");
    for step in bytes.chunks(2) {
        let at = Timestamp::from_micros(u64::from(step.get(1).copied().unwrap_or(0)) * 20);
        let fact: Fact = event(step[0]).into();
        let before = view.clone();
        match view.apply(id, at, &fact) {
            Ok(atom) => {
                let life = atom.life();
                let state = atom.state();
                if state == State::Stopped {
                    assert!(life.end().is_some(), "what has stopped has an ending");
                }
                if state.is_live() {
                    assert!(life.end().is_none(), "what lives has no ending");
                }
                if let Some(earlier) = before.get(id) {
                    assert!(earlier.state() != State::Deleted, "deleted is the end");
                    assert!(earlier.life().latest() <= life.latest(), "time never goes back");
                }
                accepted.push((at, fact));
            }
            Err(_) => assert_eq!(view, before, "a rejected event changes nothing"),
        }
    }
    let mut replayed = View::default();
    for (at, fact) in &accepted {
        replayed.apply(id, *at, fact).expect("what was accepted is accepted again");
    }
    assert_eq!(replayed, view);
}

/// The event that a byte stands for: its kind in the low bits, its particulars in the others.
fn event(byte: u8) -> Event {
    let high = byte >> 4;
    match byte & 0x0F {
        0 | 9 => Event::Started { pid: Some(u32::from(high)) },
        1 | 10 => Event::StartFailed { reason: Reason::ExecNotFound },
        2 | 11 => Event::Withdrawn,
        3 | 12 => Event::StopAsked(StopOrder {
            grace: std::time::Duration::from_micros(u64::from(high)),
            force: high & 1 == 1,
            cause: if high & 2 == 2 { StopCause::Deadline } else { StopCause::Requested },
        }),
        4 | 13 => {
            Event::Exited(Ending::observed(WaitStatus::Exited { code: high }, Evidence::default()))
        }
        5 | 14 => Event::LostSight { reason: Reason::ExitUnobserved },
        6 | 15 => Event::DeleteAsked,
        7 => Event::Removed,
        _ => Event::Contradiction { reason: Reason::ExitUnobserved },
    }
}
