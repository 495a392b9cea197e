//! The keeper holds what a supervising host holds: the same tests, over the socket.

#![cfg(target_os = "linux")]
#![allow(clippy::duplicate_mod, reason = "each of these files is a test of its own, too")]

#[path = "process_endings.rs"]
mod endings;
#[path = "process_logs.rs"]
mod logs;
#[path = "process_stop.rs"]
mod stop;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use caesium::lifecycle::WaitStatus;

#[test]
fn what_is_no_host_takes_nobodys_place() {
    let world = endings::process_harness::World::new();
    let gate = world.atoms.join("gate");
    let script = format!("mkfifo {0}; echo ready; read x < {0}; exit 8", gate.display());
    let atom = world.start(endings::process_harness::sh(&script));
    let following = endings::process_harness::following();
    endings::process_harness::read_until(&mut *world.log(atom, following), "ready\n");
    let socket = world.atoms.parent().unwrap().join("keeper.sock");
    for garbage in [&b""[..], b"x", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // It is closed, or reset with what was not read.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    std::fs::write(&gate, "\n").unwrap();
    assert_eq!(world.exit(atom).status, WaitStatus::Exited { code: 8 });
}
