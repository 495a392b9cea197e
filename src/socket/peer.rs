//! Who is at the other end.

use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;

/// Whether it is a process of our own user, or of root; says so when it is not.
pub(crate) fn is_trusted(stream: impl AsFd) -> bool {
    let ours = rustix::process::geteuid();
    match socket_peercred(stream) {
        Ok(peer) if peer.uid == ours || peer.uid.is_root() => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid.as_raw(), "a process of another user was sent away");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell whose process wants to be let in");
            false
        }
    }
}
