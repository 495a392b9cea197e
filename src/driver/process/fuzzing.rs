//! What the fuzz target of the keeper and the replay of its corpus call.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::fork::Word;
use super::identity::Identity;
use super::keeper::fuzzing as wire;
use super::marker::Marker;
use crate::atom::{AtomId, AtomSpec};
use crate::driver::{Command, Order, Surroundings};

/// Any bytes, as they may come over the keeper's socket, from a reaper, or out of a marker file: reading them never
/// panics, takes no more memory than there are bytes, and what can be read is written as the same bytes.
pub fn keeper(bytes: &[u8]) {
    wire::from_a_host(bytes);
    wire::from_a_keeper(bytes);
    if let Some(identity) = Identity::from_handle(bytes) {
        assert_eq!(&*identity.to_handle(), bytes);
    }
    if let Some(word) = bytes.first_chunk().and_then(Word::decode) {
        assert_eq!(Word::decode(&word.encode()), Some(word));
    }
    Marker::fuzz(bytes);
}

/// Seeds of [`keeper`]: a whole conversation of each side, and pieces of one.
pub fn keeper_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let atom = AtomId::from_bytes([7; 16]);
    let spec = AtomSpec::command("sh").args(["-c", "exit 3"]).env("A", "b").secret_env("S", "t");
    let order = Order { atom, spec: Arc::new(spec) };
    let env = vec![("PATH".into(), "/bin".into())];
    let around = Surroundings::new(env, PathBuf::from("/tmp"), Some(0o22));
    let stop = Command::Stop { atom, grace: Duration::from_secs(1), force: false };
    let host = wire::a_host_says(
        &order,
        around,
        &[stop, Command::Sync { token: 3 }, Command::CloseStdin { atom }],
    );
    let keeper = wire::a_keeper_says(atom);
    let cut = host[..host.len() / 2].to_vec();
    let mut long = host.clone();
    // A frame that says to be of four gigabytes.
    long[16..20].fill(0xff);
    vec![
        ("host", host),
        ("keeper", keeper),
        ("cut", cut),
        ("long", long),
        ("marker", vec![1; 4096]),
    ]
}
