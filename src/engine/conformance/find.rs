//! Finding an atom by what a person types.

use super::{Case, Fixture, create, ended, spec};
use crate::driver::memory::Act;
use crate::engine::Error;

pub(super) const CASES: &[Case] = &[("atoms are found by name, id and unambiguous prefix", finds)];

fn finds(fixture: &dyn Fixture) {
    let engine = fixture.engine();
    let Some(spec) = spec(fixture, &Act::Exit(0)) else { return };
    let first = ended(&*engine, &create(&*engine, spec.clone().name("first")));
    let id = first.id().to_string();
    for text in ["first", &id, &id[..8], &id[..4], &id.replace('-', "")] {
        assert_eq!(engine.find(text).unwrap(), first, "{text}");
    }
    // A name that looks like the other's id: the exact name comes first.
    let second = ended(&*engine, &create(&*engine, spec.clone().name(&id)));
    assert_eq!(engine.find(&id).unwrap(), second);
    // Ids made in one test share their beginning, which is the time.
    match engine.find(&id[..4]) {
        Err(Error::Ambiguous { text, ids, count }) => {
            assert_eq!((text.as_str(), count), (&id[..4], 2));
            assert_eq!(ids, [first.id(), second.id()]);
        }
        other => panic!("{other:?}"),
    }
    for text in ["", "fir", "firs", &id[..3], "ffff-not-hex", "ffffffff"] {
        assert!(matches!(engine.find(text), Err(Error::NotFound(_))), "{text:?}");
    }
}
