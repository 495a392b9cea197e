//! The table in `docs/tracing.md` is what is traced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::atom::{AtomId, AtomSpec, PlannedRetry};
use crate::engine::{CreateRequest, DeleteRequest, Error, OnClose, StopRequest};
use crate::journal::{Creation, Cut, Fact, Journal, JournalOptions, Note, Recovery, Retention};
use crate::lifecycle::{
    Ending, Event as Happening, Evidence, Reason, StopCause, StopOrder, WaitStatus,
};
use crate::{Durability, time};

/// A row of the table: what it says, and which of its fields need not be there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Row {
    kind: String,
    target: String,
    level: String,
    fields: BTreeSet<String>,
    always: BTreeSet<String>,
}

type Table = BTreeMap<String, Row>;

fn documented() -> Table {
    let text = include_str!("../../docs/tracing.md");
    let rows =
        text.lines().filter(|line| line.starts_with("| event") || line.starts_with("| span"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [kind, name, target, level, fields, _when] = cells[..] else {
            panic!("a row of six cells: {line}")
        };
        let bare = |cell: &str| cell.trim_matches(['`', '?']).to_owned();
        let fields = fields.split_whitespace();
        let (some, always): (Vec<_>, Vec<_>) = fields.partition(|field| field.ends_with('?'));
        let always: BTreeSet<String> = always.into_iter().map(bare).collect();
        let row = Row {
            kind: kind.to_owned(),
            target: bare(target),
            level: level.to_owned(),
            fields: some.into_iter().map(bare).chain(always.iter().cloned()).collect(),
            always,
        };
        (bare(name), row)
    };
    let mut table = Table::new();
    for (name, row) in rows.map(row) {
        assert!(table.insert(name.clone(), row).is_none(), "{name} is there twice");
    }
    table
}

/// Remembers what is traced under the names that stay, and which fields had a value whenever it was.
#[derive(Debug, Default, Clone)]
struct Seen(Arc<Mutex<Table>>);

impl Seen {
    fn note(&self, kind: &str, metadata: &Metadata<'_>, said: &BTreeSet<String>) {
        // Who gives no name gets one of file and line.
        if metadata.name().starts_with("event ") {
            return;
        }
        let fields = metadata.fields().iter().map(|field| field.name().to_owned());
        let fields: BTreeSet<String> = fields.filter(|name| name != "message").collect();
        let mut table = self.0.lock();
        let row = table.entry(metadata.name().to_owned()).or_insert_with(|| Row {
            kind: kind.to_owned(),
            target: metadata.target().to_owned(),
            level: metadata.level().as_str().to_lowercase(),
            always: fields.clone(),
            fields,
        });
        row.always.retain(|field| said.contains(field));
    }
}

#[derive(Default)]
struct Said(BTreeSet<String>);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, _: &dyn Debug) {
        self.0.insert(field.name().to_owned());
    }
}

impl Subscriber for Seen {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut said = Said::default();
        span.record(&mut said);
        self.note("span", span.metadata(), &said.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        self.note("event", event.metadata(), &said.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Whatever the journal can take of atoms, each with and without what may be there.
fn lives() {
    let options = JournalOptions { durability: Durability::Memory, ..JournalOptions::default() };
    let journal = Journal::in_memory(options).unwrap();
    let tell = |facts: &[Fact]| {
        let id = AtomId::new();
        for fact in facts {
            let change = |draft: &mut crate::journal::Draft<'_>| {
                draft.append(id, time::now(), fact.clone()).map(drop)
            };
            journal.change(change).unwrap().1.wait().unwrap();
        }
    };
    let created = |named: bool| {
        let spec = AtomSpec::command("true");
        Fact::Created(Creation {
            engine: "memory".into(),
            spec: Arc::new(if named { spec.name("a-name") } else { spec }),
            attempt: 1,
            retry_of: None,
        })
    };
    let detailed = |event: Happening| {
        let detail = Some("something".into());
        Fact::Happened { event, note: Note { detail, ..Note::default() } }
    };
    let started = |pid| Fact::from(Happening::Started { pid });
    let exited = |word| {
        let status = WaitStatus::from_raw(word).unwrap();
        Fact::from(Happening::Exited(Ending::observed(status, Evidence::default())))
    };
    let grace = Duration::from_secs(1);
    let stop = StopOrder { grace, force: false, cause: StopCause::Requested };
    let planned = PlannedRetry { id: AtomId::new(), due: time::now() };
    tell(&[
        created(true),
        started(Some(1)),
        Happening::StopAsked(stop).into(),
        exited(0),
        Fact::RetryPlanned(planned),
        Fact::RetryDropped,
        Happening::DeleteAsked.into(),
        Happening::Removed.into(),
    ]);
    tell(&[created(false), started(None), exited(9)]);
    tell(&[created(false), Happening::StopAsked(stop).into(), exited(0)]);
    tell(&[created(false), Happening::Withdrawn.into()]);
    tell(&[created(false), detailed(Happening::Withdrawn)]);
    let reason = Reason::ExecNotFound;
    tell(&[created(false), Happening::StartFailed { reason }.into()]);
    tell(&[created(false), detailed(Happening::StartFailed { reason })]);
    let reason = Reason::HostRebooted;
    tell(&[created(false), Happening::LostSight { reason }.into()]);
    tell(&[created(false), detailed(Happening::LostSight { reason })]);
    let reason = Reason::UnexpectedProcess;
    tell(&[created(false), started(None), Happening::Contradiction { reason }.into()]);
    tell(&[created(false), started(None), detailed(Happening::Contradiction { reason })]);
}

fn parts() {
    let (path, error) = (Path::new("a-store"), Error::Closed);
    super::adopted(AtomId::new());
    super::retry_delayed(AtomId::new(), &error);
    let recovery = Recovery::empty();
    super::opened(None, &recovery);
    super::opened(Some(path), &recovery);
    super::closed(OnClose::Stop, None);
    super::closed(OnClose::Stop, Some(&error));
    super::torn(&Cut { file: path.into(), offset: 1, bytes: 1, why: "torn".into() });
    super::compacted(1, 2);
    super::failed("no disk");
    #[cfg(target_os = "linux")]
    {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        super::serving(path);
        super::client_came(1, io::stderr());
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        super::client_came(1, &ours);
        super::client_gone(1, &error);
        super::client_refused("too many");
        super::holder_gone(&error);
        super::keeper_died();
        super::keeper_missing(&error);
    }
}

fn calls() {
    let id = AtomId::new();
    let plain = CreateRequest::from(AtomSpec::command("true"));
    let mut full = CreateRequest::from(AtomSpec::command("true").name("a-name").key("a-key"));
    full.id = Some(id);
    super::open(Path::new("a-store"));
    super::create(&plain);
    super::create(&full);
    super::create_many(&[plain]);
    super::wait(&[], true, None);
    super::wait(&[id], true, Some(Duration::from_secs(1)));
    super::stop(&[]);
    super::stop(&[StopRequest::from(id)]);
    super::delete(&DeleteRequest::from(id));
    super::verify();
    super::compact(&Retention::EVERYTHING);
    let max_age = Some(Duration::from_secs(1));
    super::compact(&Retention { max_age, max_events: Some(1) });
    super::shutdown(OnClose::Stop);
}

#[test]
fn what_is_traced_is_what_the_table_says() {
    let seen = Seen::default();
    tracing::subscriber::with_default(seen.clone(), || {
        // What another thread comes to for the first time just now may be taken for what nobody wants to see.
        for _ in 0..2 {
            tracing::callsite::rebuild_interest_cache();
            lives();
            parts();
            calls();
        }
    });
    let (seen, documented) = (std::mem::take(&mut *seen.0.lock()), documented());
    for (name, row) in &documented {
        let seen = seen.get(name);
        assert_eq!(seen, Some(row), "{name}: what is traced, and what the table says");
    }
    let names = |table: &Table| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seen), names(&documented));
}
