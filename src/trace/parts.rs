//! What the parts of an engine say: its store, those that it serves, its keeper.

use std::fmt::Display;
#[cfg(target_os = "linux")]
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::path::Path;

use tracing::{debug, error, info, warn};

#[cfg(target_os = "linux")]
use super::{CONTROL, KEEPER};
use super::{ENGINE, JOURNAL};
use crate::engine::{Error, OnClose};
use crate::journal::{Cut, Recovery};

/// A store is open, and what runs of it is supervised.
pub(crate) fn opened(store: Option<&Path>, recovery: &Recovery) {
    let store = store.map(|store| store.display().to_string());
    let Recovery { events, atoms, clean, .. } = *recovery;
    info!(name: "engine.opened", target: ENGINE, store, events, atoms, clean, "a store was opened");
}

/// A store was closed.
pub(crate) fn closed(policy: OnClose, error: Option<&Error>) {
    let error = error.map(ToString::to_string);
    info!(name: "engine.closed", target: ENGINE, ?policy, error, "a store was closed");
}

/// The end of the log is not whole.
pub(crate) fn torn(cut: &Cut) {
    let (file, offset, bytes) = (cut.file.display(), cut.offset, cut.bytes);
    warn!(name: "journal.torn", target: JOURNAL, %file, offset, bytes, "the journal was not closed, and its last write is torn: it is left out");
}

/// The oldest events went.
pub(crate) fn compacted(dropped: u64, oldest: u64) {
    info!(name: "journal.compacted", target: JOURNAL, dropped, oldest, "the journal was compacted");
}

/// Something could not be written: nothing is, from here on.
pub(crate) fn failed(cause: &str) {
    error!(name: "journal.failed", target: JOURNAL, cause, "the journal takes no more events");
}

/// Other processes are let in.
#[cfg(target_os = "linux")]
pub(crate) fn serving(store: &Path) {
    let store = store.display();
    debug!(name: "control.serving", target: CONTROL, %store, "other processes are served");
}

/// One was let in.
#[cfg(target_os = "linux")]
pub(crate) fn client_came(client: u64, socket: impl AsFd) {
    if tracing::enabled!(target: CONTROL, tracing::Level::DEBUG) {
        let peer = rustix::net::sockopt::socket_peercred(socket).ok();
        let pid = peer.map(|peer| peer.pid.as_raw_nonzero().get());
        let uid = peer.map(|peer| peer.uid.as_raw());
        debug!(name: "control.client_came", target: CONTROL, client, pid, uid, "a client came");
    }
}

/// It has gone, or was not served any longer.
#[cfg(target_os = "linux")]
pub(crate) fn client_gone(client: u64, why: &io::Error) {
    debug!(name: "control.client_gone", target: CONTROL, client, %why, "a client has gone");
}

/// One was sent away.
#[cfg(target_os = "linux")]
pub(crate) fn client_refused(why: impl Display) {
    warn!(name: "control.client_refused", target: CONTROL, %why, "a client was sent away");
}

/// The process that served this one has gone.
#[cfg(target_os = "linux")]
pub(crate) fn holder_gone(error: &io::Error) {
    info!(name: "control.holder_gone", target: CONTROL, %error, "the process that has the store open has gone");
}

/// The keeper has gone; its atoms live on.
#[cfg(target_os = "linux")]
pub(crate) fn keeper_died() {
    warn!(name: "keeper.died", target: KEEPER, "the keeper died; another one is started");
}

/// Nobody takes its place for now.
#[cfg(target_os = "linux")]
pub(crate) fn keeper_missing(error: impl Display) {
    error!(name: "keeper.missing", target: KEEPER, %error, "the keeper died, and no other one can be started; the atoms live on");
}
