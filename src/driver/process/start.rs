//! Carrying out an order to start.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Signal, WaitOptions, kill_process_group, waitpid};

use super::adopt::leave_nothing;
use super::dir::{AtomDir, Child, Prepared};
use super::identity::Identity;
use super::log::Pump;
use super::marker::Marker;
use super::monitor::Monitor;
use super::signal::Leader;
use super::spawn::{Failure, spawn};
use super::watched::{Phase, Watched};
use crate::atom::AtomId;
use crate::driver::{Observation, Order};
use crate::lifecycle::{Evidence, Reason, WaitStatus};
use crate::time;

impl Monitor {
    /// Starts a prepared atom.
    pub(super) fn start(&mut self, order: &Order) {
        let atom = order.atom;
        if self.withdrawn.remove(&atom) {
            return;
        }
        if self.is_watched(atom) {
            tracing::error!(%atom, "ordered to start an atom that runs; nothing is done");
            return;
        }
        let prepared = match self.take_or_prepare(order) {
            Ok(prepared) => prepared,
            Err(detail) => {
                let failure = Failure::new(Reason::ExecFailed, detail);
                let dir = self.context.dir(atom);
                return self.start_failed(atom, dir.marker(), failure);
            }
        };
        let Prepared { dir, out, err, stdin, log, marker: file, child } = prepared;
        let pump = Pump::new(Some(out), Some(err), log);
        if let Some(secret) = order.spec.missing_secret() {
            let detail =
                format!("the value of the secret {secret} was known to an earlier host only");
            self.give_up(atom, &dir, pump);
            return self.emit(Observation::NeverStarted { atom, at: time::now(), detail });
        }
        let spawned = match child {
            Child::Waiting(forked) => return self.let_go(order, dir, &file, pump, stdin, *forked),
            Child::Failed(failure) => Err(failure),
            Child::Unborn(streams, around) => {
                let marker = dir.marker().by(Some(&file));
                spawn(atom, &order.spec, around, streams, || marker.mark_spawned())
            }
        };
        match spawned {
            Ok(child) => self.spawned(order, dir, &file, pump, stdin, child.id()),
            Err(failure) => {
                // What failed may be that there are no descriptors: this one is open.
                let marker = dir.marker().by(Some(&file));
                marker.unmark_spawned();
                self.give_up(atom, &dir, pump);
                self.start_failed(atom, marker, failure);
            }
        }
    }

    fn take_or_prepare(&self, order: &Order) -> Result<Prepared, String> {
        if let Some(prepared) = self.context.take_prepared(order.atom) {
            return Ok(prepared);
        }
        self.context.prepare(order.atom, &order.spec).map_err(|error| error.to_string())?;
        self.context.take_prepared(order.atom).ok_or_else(|| "it was released".to_owned())
    }

    pub(super) fn give_up(&self, atom: AtomId, dir: &AtomDir, pump: Pump) {
        pump.finish();
        dir.remove_fifos();
        self.context.forget_log(atom);
    }

    pub(super) fn start_failed(&self, atom: AtomId, marker: Marker<'_>, failure: Failure) {
        let Failure { reason, detail } = failure;
        tracing::debug!(%atom, %reason, %detail, "an atom could not be started");
        self.emit_ending(
            marker,
            Observation::StartFailed { atom, at: time::now(), reason, detail },
        );
    }

    /// It was spawned by this host, and runs.
    fn spawned(
        &mut self,
        order: &Order,
        dir: AtomDir,
        marker: &File,
        pump: Pump,
        stdin: Option<OwnedFd>,
        pid: u32,
    ) {
        let (atom, at) = (order.atom, time::now());
        let place = self.context.place;
        let leader = Leader::spawned(atom, pid, place);
        let identity = match &leader {
            Ok(leader) => leader.identity(),
            Err(_) => Identity { pid, start_time: 0, inode: 0, place },
        };
        if let Err(error) = dir.marker().by(Some(marker)).record(identity, at) {
            // Only a host that is killed before the start is journaled misses it; it looks for the marker then.
            tracing::warn!(%atom, %error, "cannot write down which process an atom is");
        }
        tracing::debug!(%atom, pid, "started an atom");
        self.emit(Observation::Started { atom, at, pid: Some(pid), handle: identity.to_handle() });
        let leader = match leader {
            Ok(leader) => leader,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return self.unseen(atom, identity, &dir, pump);
            }
            Err(error) => {
                self.unwatchable(atom, &dir, pid, &error);
                return self.give_up(atom, &dir, pump);
            }
        };
        let phase = Phase::Running(leader);
        let mut watched = Watched::new(atom, order.spec.clone(), dir, None, phase, Some(pump));
        watched.stdin = stdin;
        let began = watched.began;
        match self.watch(watched) {
            Ok(serial) => {
                let deadline = order.spec.get_timeout().and_then(|after| began.checked_add(after));
                self.arm_deadline(serial, deadline);
            }
            Err((watched, error)) => {
                self.unwatchable(atom, &watched.dir, pid, &error);
                if let Watched { dir, pump: Some(pump), .. } = *watched {
                    self.give_up(atom, &dir, pump);
                }
            }
        }
    }

    /// It ended at once, in a host that ignores SIGCHLD: the kernel has forgotten it.
    fn unseen(&mut self, atom: AtomId, identity: Identity, dir: &AtomDir, mut pump: Pump) {
        leave_nothing(atom, identity);
        self.drain_pump(&mut pump);
        let detail =
            "it ended at once, and this host ignores SIGCHLD: nobody was told how".to_owned();
        let reason = Reason::ExitUnobserved;
        let lost = Observation::LostSight { atom, at: time::now(), reason, detail };
        self.emit_ending(dir.marker(), lost);
        self.give_up(atom, dir, pump);
    }

    /// What cannot be watched must not run.
    fn unwatchable(&mut self, atom: AtomId, dir: &AtomDir, pid: u32, error: &io::Error) {
        tracing::error!(%atom, %error, "an atom cannot be watched; it is killed at once");
        // Nobody has waited for it: the pid is its own.
        let pid = rustix::process::Pid::from_raw(pid.cast_signed());
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let waited = pid.and_then(|pid| waitpid(Some(pid), WaitOptions::empty()).ok().flatten());
        self.end_group(atom);
        let at = time::now();
        let status = waited.and_then(|(_, status)| WaitStatus::from_raw(status.as_raw()));
        let ending = match status {
            Some(status) => {
                let evidence = Evidence { kill_sent: true, ..Evidence::default() };
                let (usage, left_behind) = (None, None);
                Observation::Exited { atom, at, status, evidence, usage, left_behind }
            }
            None => {
                let detail = format!("it could not be watched ({error}) and was killed");
                Observation::LostSight { atom, at, reason: Reason::ExitUnobserved, detail }
            }
        };
        self.emit_ending(dir.marker(), ending);
    }
}
