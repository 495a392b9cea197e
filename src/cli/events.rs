//! `caesium events`: the journal, in order.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::args::Events;
use super::failure::{Failure, complain};
use super::output::{self, printable};
use super::store;
use crate::engine::{Engine, Error};
use crate::journal::{Fact, JournalError, Record};
use crate::lifecycle::Event;

pub(super) fn events(store: Option<&Path>, args: &Events) -> Result<u8, Failure> {
    let engine = match store::open_existing(store)? {
        Ok(engine) => engine,
        Err(absent) if args.follow => return Err(Failure::said(absent.problem())),
        Err(absent) => {
            complain(&absent.problem());
            return Ok(0);
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut next = args.since;
    while !if args.follow {
        follow(&engine, args, &mut next, &mut out)?
    } else {
        read(&engine, args, &mut next, &mut out)?
    } {
        // Who had the store has ended: it goes on with whoever has it now.
    }
    out.flush()?;
    engine.close()?;
    Ok(0)
}

/// Shows the events that there are, from `next` on; false when who has the store has ended meanwhile.
fn read(
    engine: &dyn Engine,
    args: &Events,
    next: &mut Option<u64>,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let events = store::persist(|| match engine.events(next.unwrap_or(1)) {
        // Nobody said where to begin: with the oldest that is kept.
        Err(Error::Journal(JournalError::Compacted { oldest, .. })) if next.is_none() => {
            engine.events(oldest)
        }
        events => events,
    })?;
    for event in events {
        let event = match event {
            Err(Error::HolderGone { .. }) => return Ok(false),
            event => event?,
        };
        show(&event, args.json, out)?;
        *next = Some(event.seq + 1);
    }
    Ok(true)
}

/// Shows events as they come, from `next` on; false when who has the store has ended.
fn follow(
    engine: &dyn Engine,
    args: &Events,
    next: &mut Option<u64>,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let mut subscription = engine.subscribe(next.unwrap_or(1));
    loop {
        let mut record = subscription.next(Some(Instant::now()));
        if matches!(record, Ok(None)) {
            out.flush()?;
            record = subscription.next(None);
        }
        match record {
            // Nobody said where to begin, or this was too slow: with the oldest that is kept.
            Err(Error::Journal(JournalError::Lagged { at, .. }))
                if args.since.is_none_or(|since| at > since) =>
            {
                let missed = subscription.skip_to_oldest();
                if at > 1 {
                    complain(&format!("{missed} events from {at} on are no longer kept"));
                }
            }
            Err(Error::HolderGone { .. }) => {
                *next = Some(subscription.position());
                return Ok(false);
            }
            record => {
                if let Some(record) = record? {
                    show(&record, args.json, out)?;
                }
            }
        }
    }
}

fn show(record: &Record, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let particulars = particulars(&record.fact);
    if json {
        let mut object = Map::new();
        object.insert("seq".into(), record.seq.into());
        object.insert("at".into(), record.at.to_string().into());
        object.insert("atom".into(), about(record).map(|(atom, _)| atom).into());
        object.insert("event".into(), record.event_name().into());
        object.insert("state".into(), about(record).map(|(_, state)| state).into());
        object.extend(particulars.into_iter().map(|(key, value)| (key.to_owned(), value)));
        return output::json_line(out, &object);
    }
    let (atom, state) = about(record).unwrap_or_else(|| ("-".to_owned(), "-"));
    let mut line = format!(
        "{:>6}  {}  {:<36}  {:<13}  {:<8}",
        record.seq,
        record.at,
        atom,
        record.event_name(),
        state,
    );
    for (key, value) in particulars {
        match &value {
            Value::Null | Value::Bool(false) => {}
            Value::String(text) => line.push_str(&format!("  {key}={}", printable(text))),
            // The command says enough of a spec.
            Value::Object(_) => {}
            Value::Bool(true) | Value::Number(_) | Value::Array(_) => {
                line.push_str(&format!("  {key}={value}"));
            }
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    Ok(out.write_all(line.as_bytes())?)
}

/// The atom that an event is about, and the state it led to; a lost one is about none.
fn about(record: &Record) -> Option<(String, &'static str)> {
    match record.fact {
        Fact::Lost => None,
        Fact::Created(_) | Fact::Happened { .. } | Fact::RetryPlanned(_) | Fact::RetryDropped => {
            Some((record.atom.to_string(), record.state.as_str()))
        }
    }
}

/// What an event says beside its name and the state it led to.
fn particulars(fact: &Fact) -> Vec<(&'static str, Value)> {
    match fact {
        Fact::Created(creation) => vec![
            ("engine", json!(creation.engine)),
            ("name", json!(creation.spec.get_name())),
            ("command", json!(output::command_line(&creation.spec))),
            ("attempt", json!(creation.attempt)),
            ("retry_of", json!(creation.retry_of)),
            ("spec", json!(creation.spec)),
        ],
        Fact::RetryPlanned(planned) => {
            vec![("retry", json!(planned.id)), ("due", json!(planned.due))]
        }
        Fact::RetryDropped | Fact::Lost => Vec::new(),
        Fact::Happened { event, note } => {
            let mut particulars = of_event(event);
            particulars.push(("detail", json!(note.detail)));
            if let Some(left) = &note.left_behind {
                particulars.push(("left_behind", json!(left)));
            }
            if let Some(usage) = &note.usage {
                particulars.push(("usage", json!(usage)));
            }
            particulars
        }
    }
}

fn of_event(event: &Event) -> Vec<(&'static str, Value)> {
    match event {
        Event::Started { pid } => vec![("pid", json!(pid))],
        Event::StartFailed { reason }
        | Event::LostSight { reason }
        | Event::Contradiction { reason } => vec![("reason", json!(reason))],
        Event::Withdrawn | Event::DeleteAsked | Event::Removed => Vec::new(),
        Event::StopAsked(order) => vec![
            ("cause", json!(order.cause)),
            ("grace", json!(humantime::format_duration(order.grace).to_string())),
            ("force", json!(order.force)),
        ],
        Event::Exited(ending) => vec![
            ("result", json!(ending.outcome)),
            ("reason", json!(ending.reason)),
            ("exit_code", json!(ending.exit_code)),
            ("signal", json!(ending.signal)),
            ("core_dumped", json!(ending.core_dumped)),
            ("oom_kills", json!(ending.oom_kills)),
        ],
    }
}
