//! `caesium run`: create, show the output, wait, end with the atom's status.

use std::io::Write;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, Scope};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::args::Run;
use super::failure::{Failure, complain};
use super::forward::forward;
use super::{feed, status, store};
use crate::atom::{Atom, AtomId, AtomSpec, Limits};
use crate::control::Attached;
use crate::engine::{
    CreateRequest, Engine, Error, Logs, LogsRequest, OnClose, StopRequest, WaitRequest,
};
use crate::lifecycle::{Outcome, Reason};

pub(super) fn run(store: Option<&Path>, args: Run) -> Result<u8, Failure> {
    let (detach, interactive) = (args.detach, args.interactive);
    let spec = spec(args)?;
    spec.validate().map_err(Error::from)?;
    let engine = Arc::new(store::open(store)?);
    if detach {
        return detached(&engine, spec);
    }
    let signals = signals()?;
    let (atom, logs) = create(&engine, spec, |request| engine.create_followed(request))?;
    if interactive && atom.started_at().is_some() {
        feed::begin(&engine, atom.id())?;
    }
    let atom = accompany(&engine, &atom, logs, signals)?;
    if let Err(error) = engine.close() {
        // How the atom ended is journaled; that is what was asked for.
        complain(&error.to_string());
    }
    if let Some(remark) = status::remark(&atom) {
        complain(&remark);
    }
    Ok(status::of(&atom))
}

/// Creates it, once, whoever has the store meanwhile: who had it may end before it says what came of the request.
fn create<T>(
    engine: &Attached,
    spec: AtomSpec,
    ask: impl Fn(CreateRequest) -> Result<(Atom, T), Error>,
) -> Result<(Atom, T), Failure> {
    let request = CreateRequest::from(spec).id(AtomId::new());
    let mut asked_before = false;
    loop {
        match ask(request.clone()) {
            Ok((atom, _)) if asked_before && atom.reason() == Some(Reason::NeverStarted) => {
                // It is certain never to have run: who had the store ended before it was started.
                store::persist(|| engine.delete(&atom.id().into()))?;
            }
            Err(Error::HolderGone { .. } | Error::InDoubt(_)) if !engine.is_here() => {}
            created => return Ok(created?),
        }
        asked_before = true;
    }
}

/// Starts an atom and leaves it to the keeper.
fn detached(engine: &Attached, spec: AtomSpec) -> Result<u8, Failure> {
    let (atom, ()) = create(engine, spec, |request| Ok((engine.create(request)?, ())))?;
    writeln!(std::io::stdout(), "{}", atom.id()).map_err(Failure::from)?;
    if let Err(error) = engine.close() {
        complain(&error.to_string());
    }
    if atom.result() != Some(Outcome::StartupFailure) {
        return Ok(0);
    }
    if let Some(remark) = status::remark(&atom) {
        complain(&remark);
    }
    Ok(status::of(&atom))
}

fn spec(args: Run) -> Result<AtomSpec, Failure> {
    let mut command = args.command.into_iter();
    let program = command.next().ok_or_else(|| Failure::said("no program to run"))?;
    let mut spec = AtomSpec::command(program).args(command).env_clear(args.env_clear);
    for (key, value) in args.env {
        spec = spec.env(key, value);
    }
    for (key, value) in args.secret_env {
        spec = spec.secret_env(key, value);
    }
    for (key, value) in args.label {
        spec = spec.label(key, value);
    }
    if let Some(name) = args.name {
        spec = spec.name(name);
    }
    if let Some(key) = args.key {
        spec = spec.key(key);
    }
    if let Some(dir) = args.workdir {
        spec = spec.workdir(dir);
    }
    if let Some(file) = args.stdin {
        spec = spec.stdin_file(file);
    }
    if args.interactive {
        spec = spec.stdin_pipe();
    }
    if let Some(timeout) = args.timeout {
        spec = spec.timeout(timeout);
    }
    if let Some(grace) = args.grace {
        spec = spec.grace(grace);
    }
    if let Some(leftovers) = args.leftovers {
        spec = spec.leftovers(leftovers);
    }
    if let Some(bytes) = args.log_max {
        spec = spec.log_max(bytes);
    }
    if let Some(user) = args.user {
        spec = spec.user(user);
    }
    if let Some(group) = args.group {
        spec = spec.group(group);
    }
    if let Some(nice) = args.nice {
        spec = spec.nice(nice);
    }
    if let Some(adjustment) = args.oom_score_adj {
        spec = spec.oom_score_adj(adjustment);
    }
    if let Some(mask) = args.umask {
        spec = spec.umask(mask);
    }
    Ok(spec.no_new_privs(args.no_new_privs).limits(Limits {
        memory: args.memory,
        pids: args.pids,
        cpus: args.cpus,
        rlimits: args.rlimit,
    }))
}

/// The signals that stop the atom, from now on. Before, they end us, and there is no atom yet.
fn signals() -> Result<Signals, Failure> {
    let mut wanted = vec![SIGINT, SIGTERM];
    // Whoever says `nohup` means that a hangup is to change nothing.
    if !ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    Signals::new(wanted)
        .map_err(|error| Failure::said(format!("cannot listen for signals: {error}")))
}

/// Whether we were started with this signal ignored.
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Shows what the atom prints, and passes on the wish that it should end, until it has.
fn accompany(
    engine: &Attached,
    atom: &Atom,
    logs: Logs,
    mut signals: Signals,
) -> Result<Atom, Failure> {
    let id = atom.id();
    let handle = signals.handle();
    let stopper = Stopper { engine, id, asked: AtomicU32::new(0) };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _signal in signals.forever() {
                stopper.ask(scope);
            }
        });
        let again = |offset| {
            let request = LogsRequest::from(id).follow().lossless().from_offset(offset);
            store::persist(|| engine.logs(&request))
        };
        // An atom that never ran printed nothing.
        let shown = match atom.started_at() {
            Some(_) => forward(logs, again, || stopper.ask(scope)),
            None => Ok(()),
        };
        let ended = store::persist(|| engine.wait(&WaitRequest::from(id)));
        handle.close();
        let atom = ended?;
        shown.map(|()| atom)
    })
}

/// The how-manieth wish gives up the output as well: whoever should read it may never do so.
const GIVES_UP: u32 = 3;

/// Ends the atom: when first asked to politely, then by force; and then ourselves.
struct Stopper<'a> {
    engine: &'a Attached,
    id: AtomId,
    asked: AtomicU32,
}

impl Stopper<'_> {
    fn ask<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let request = StopRequest::from(self.id);
        let before = self.asked.fetch_add(1, Ordering::Relaxed);
        let request = if before > 0 { request.force() } else { request };
        let give_up = before + 1 >= GIVES_UP;
        // On a thread of its own: a stop returns when it is done, and the next signal must not wait for that.
        scope.spawn(move || match store::persist(|| self.engine.stop(&request)) {
            Ok(atom) if give_up => self.give_up(&atom),
            Ok(_) => {}
            Err(error) => complain(&format!("cannot stop it: {error}")),
        });
    }

    /// Ends this process with the atom's status, while another thread still waits to write.
    fn give_up(&self, atom: &Atom) -> ! {
        if let Err(error) = self.engine.shutdown(OnClose::Leave) {
            complain(&error.to_string());
        }
        process::exit(status::of(atom).into())
    }
}
