//! Reading whatever comes over the socket, for fuzzing.

use crate::atom::AtomId;
use crate::driver::{Command, Observation, Order, Surroundings};
use crate::lifecycle::{Evidence, WaitStatus};
use crate::socket;
use crate::time::Timestamp;

use super::wire::{Answer, Extent, Hello, Preparation, Purpose, Request};

/// As the keeper reads what a host says.
pub(in crate::driver::process) fn from_a_host(bytes: &[u8]) {
    let Some((hello, rest)) = bytes.split_first_chunk() else { return };
    if let Some(hello) = Hello::from_bytes(hello) {
        assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
    }
    read::<Request>(rest);
}

/// As a host reads what the keeper says.
pub(in crate::driver::process) fn from_a_keeper(bytes: &[u8]) {
    read::<Answer>(bytes);
}

fn read<T: serde::Serialize + serde::de::DeserializeOwned>(mut bytes: &[u8]) {
    while let Ok(Some((message, taken))) = socket::take::<T>(bytes) {
        let mut again = Vec::new();
        socket::put(&mut again, &message).expect("what was read is no larger than a frame may be");
        // Read once more: secrets are not sent, so that the bytes may differ the first time.
        let (message, _) =
            socket::take::<T>(&again).expect("it is whole").expect("it is a message");
        let mut twice = Vec::new();
        socket::put(&mut twice, &message).expect("as before");
        assert_eq!(again, twice);
        bytes = &bytes[taken..];
    }
}

/// A hello, and one of each kind of request.
pub(in crate::driver::process) fn a_host_says(
    order: &Order,
    around: Surroundings,
    commands: &[Command],
) -> Vec<u8> {
    let atom = order.atom;
    let secrets = Vec::new();
    let preparation = Preparation { order: order.clone(), secrets, around, cgroups: true };
    let mut requests = vec![
        Request::Prepare { id: 1, order: preparation },
        Request::Release(atom),
        Request::Start(atom),
        Request::WatchLog { id: 2, atom, lossless: true },
        Request::NeedLog(atom, Some(4)),
        Request::UnwatchLog(atom),
        Request::Forget(atom),
    ];
    requests.extend(commands.iter().cloned().map(Request::Command));
    requests.push(Request::Close);
    let mut bytes = Hello::new(Purpose::Work).to_bytes().to_vec();
    for request in &requests {
        socket::put(&mut bytes, request).expect("it is small");
    }
    bytes
}

/// Some answers.
pub(in crate::driver::process) fn a_keeper_says(atom: AtomId) -> Vec<u8> {
    let status = WaitStatus::Signaled { signal: 9, core_dumped: false };
    let at = Timestamp::from_micros(1);
    let (evidence, usage, left_behind) = (Evidence::default(), None, None);
    let answers = [
        Answer::Prepared { id: 1, result: Ok(()) },
        Answer::Observed(Observation::Exited { atom, at, status, evidence, usage, left_behind }),
        Answer::Watching { id: 2, atom, extent: Some(Extent::default()) },
        Answer::LogGrew(atom, Extent { segment: 1, written: 2, complete: true }),
    ];
    let mut bytes = Vec::new();
    for answer in &answers {
        socket::put(&mut bytes, answer).expect("it is small");
    }
    bytes
}
