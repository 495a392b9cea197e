//! Who is at the other end.

use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;

/// Only a process of our own user, or of root, is trusted; says why another one is not.
pub(crate) fn check_peer(stream: impl AsFd) -> Result<(), String> {
    let ours = rustix::process::geteuid();
    match socket_peercred(stream) {
        Ok(peer) if peer.uid == ours || peer.uid.is_root() => Ok(()),
        Ok(peer) => Err(format!("it is of another user: uid {}", peer.uid.as_raw())),
        Err(error) => Err(format!("cannot tell whose process it is: {error}")),
    }
}
