//! What is left after the kills, and whether it is what it has to be.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use caesium::journal::{Fact, Record};
use caesium::lifecycle::{Ending, Event, Reason};
use caesium::{Atom, AtomId, DeleteRequest, Engine, GetRequest, ListRequest, ProcessEngine, State};

use super::host::{Place, Said};
use super::processes::{atoms_alive, cgroups, keepers, lives, until};
use super::tally::Tally;

/// Opens the store, and compares what it says with what was acknowledged and with what the atoms have witnessed
/// themselves; then ends everything. `unseen`: the keeper was killed as well, so that an ending may be unknown.
pub(super) fn check(place: &Place, said: &[Said], unseen: bool, tally: &mut Tally) {
    let engine = place.open().unwrap();
    settle(&engine, tally);
    let events: Vec<Record> = engine.events(1).unwrap().map(Result::unwrap).collect();
    acknowledged(&engine, &events, said, tally);
    engine.verify().unwrap();
    // A planned retry may come in between.
    loop {
        let atoms = engine.list(&ListRequest::all()).unwrap();
        for atom in &atoms {
            engine.delete(&DeleteRequest::from(atom.id()).force()).unwrap();
        }
        if atoms.is_empty() {
            break;
        }
    }
    // Nothing of what was deleted runs, at that very moment, and nothing else either.
    for (atom, pid) in atoms_alive(&place.witness()) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let of_it: Vec<_> = events.iter().filter(|event| event.atom.to_string() == atom).collect();
        tally.orphaned.push(format!(
            "{pid} of {atom}: {:?} {:?}; {of_it:#?}",
            read("stat"),
            read("cgroup")
        ));
        super::processes::signal(pid, rustix::process::Signal::KILL);
    }
    let events: Vec<Record> = engine.events(1).unwrap().map(Result::unwrap).collect();
    engine.close().unwrap();
    witnessed(place, &events, unseen, tally);
    until("the keeper leaves", || keepers(&place.atoms()).is_empty().then_some(()));
    if !cgroups(&place.atoms()).is_empty() {
        // One that was killed has left them, and there was no need for another one; whichever comes next clears up.
        let engine = place.open().unwrap();
        let atom = engine.create(place.short_life().into()).unwrap();
        engine.wait(&atom.id().into()).unwrap();
        engine.delete(&atom.id().into()).unwrap();
        engine.close().unwrap();
        until("the keeper leaves", || keepers(&place.atoms()).is_empty().then_some(()));
        assert_eq!(cgroups(&place.atoms()), [] as [PathBuf; 0], "cgroups are left");
    }
}

/// Waits until nothing is on its way, and sees that what is said to run does.
fn settle(engine: &ProcessEngine, tally: &mut Tally) {
    for atom in engine.list(&ListRequest::all()).unwrap() {
        let id = atom.id();
        let settled: Option<Atom> = until("an atom settles", || {
            let Ok(atom) = engine.get(&GetRequest::from(id)) else { return Some(None) };
            let settled = match atom.state() {
                State::Created | State::Stopping | State::Deleting => false,
                // It may have ended a moment ago.
                State::Running => lives(atom.pid().unwrap()),
                State::Stopped | State::Deleted | State::Invalid => true,
            };
            settled.then_some(Some(atom))
        });
        if let Some(atom) = settled.filter(|atom| atom.state() == State::Invalid) {
            tally.wrong.push(format!("invalid: {atom:?}"));
        }
    }
}

/// What was acknowledged is there.
fn acknowledged(engine: &ProcessEngine, events: &[Record], said: &[Said], tally: &mut Tally) {
    let known: HashSet<AtomId> = events.iter().map(|event| event.atom).collect();
    let listed: BTreeMap<AtomId, Atom> = engine
        .list(&ListRequest::all())
        .unwrap()
        .into_iter()
        .map(|atom| (atom.id(), atom))
        .collect();
    for (word, id) in said {
        let good = match word.as_str() {
            "created" => {
                tally.atoms += 1;
                known.contains(id)
            }
            "ended" | "stopped" => listed.get(id).is_none_or(|atom| atom.result().is_some()),
            "deleted" => !listed.contains_key(id),
            other => panic!("what was said: {other}"),
        };
        if !good {
            tally.lost.push(format!("{word} {id}: {:?}", listed.get(id)));
        }
    }
}

/// What the journal says of each atom is what the atom itself has seen.
fn witnessed(place: &Place, events: &[Record], unseen: bool, tally: &mut Tally) {
    let known: HashSet<AtomId> = events.iter().map(|event| event.atom).collect();
    for file in std::fs::read_dir(place.witness()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let starts = place.said_by(&name).iter().filter(|line| line.starts_with("start")).count();
        if starts > 1 {
            tally.doubled.push(format!("{name} started {starts} times"));
        }
        if !known.contains(&name.parse::<AtomId>().unwrap()) {
            tally.orphaned.push(format!("{name} ran, and the journal does not know it"));
        }
    }
    for id in known {
        let of_it = events.iter().filter(|event| event.atom == id);
        let happened: Vec<Event> = of_it
            .filter_map(|event| match &event.fact {
                Fact::Happened { event, .. } => Some(*event),
                Fact::Created(_) | Fact::RetryPlanned(_) | Fact::RetryDropped | Fact::Lost => None,
            })
            .collect();
        let said = place.said_by(&id.to_string());
        let ran = said.iter().any(|line| line.starts_with("start"));
        let end = said.iter().find_map(|line| line.strip_prefix("end ")?.parse::<u8>().ok());
        let stopped = happened.iter().any(|event| matches!(event, Event::StopAsked(_)));
        for event in &happened {
            let good = match event {
                Event::Exited(ending) => is_true(ending, end, stopped),
                // Whether it ran, it cannot have before.
                Event::Withdrawn | Event::StartFailed { .. } => !ran,
                Event::LostSight { reason } => {
                    *tally.unknown.entry(reason.to_string()).or_default() += 1;
                    unseen
                }
                Event::Contradiction { .. } => false,
                Event::Started { .. }
                | Event::StopAsked(_)
                | Event::DeleteAsked
                | Event::Removed => true,
            };
            if !good {
                let of_it: Vec<_> = events.iter().filter(|event| event.atom == id).collect();
                tally.wrong.push(format!("{id}: {of_it:#?}, and it says {said:?}"));
            }
        }
    }
}

/// Whether an ending is what the process has witnessed: it has written `end` with the code that it was about to exit with.
fn is_true(ending: &Ending, end: Option<u8>, stopped: bool) -> bool {
    let by = |reason| ending.reason == reason;
    if by(Reason::Exited) {
        return !stopped_with_five(ending) && ending.exit_code == end && end.is_some();
    }
    if by(Reason::Stopped) {
        // By SIGTERM, or with a code that it chose.
        return stopped && (ending.signal == Some(15) || ending.exit_code == end);
    }
    // Nobody else sends signals here, and nothing else ends anything.
    by(Reason::StopForced) && stopped && ending.signal == Some(9)
}

/// 5 is what is exited with for a SIGTERM alone: who exits with it was stopped.
fn stopped_with_five(ending: &Ending) -> bool {
    ending.exit_code == Some(5)
}
