//! The child: from the fork to the execution.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use super::plan::Plan;
use super::report::{Report, Step};
use super::sys::{self, Errno};
use super::wait;

/// Where the socket and the marker file are once everything else is closed.
const CHANNEL: RawFd = 3;
const MARKER: RawFd = 4;

/// The status of a child that did not execute its program. Nobody should see it.
const NOT_EXECUTED: i32 = 127;

/// All that a child uses. It may share it with its parent, and nothing of it changes before it is done.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) plan: Arc<Plan>,
    /// What becomes 0, 1 and 2; all above 2.
    pub(super) streams: [RawFd; 3],
    /// Its end of the socket; above 2.
    pub(super) channel: RawFd,
    /// The files that it writes itself into.
    pub(super) joins: Vec<CString>,
    /// The atom's marker file; above 2.
    pub(super) marker: RawFd,
    /// The byte of it that says that the program is being executed.
    pub(super) executing_at: usize,
    /// The highest descriptor, if that has to be known.
    pub(super) highest: RawFd,
    /// It has its parent's memory, not a copy.
    pub(super) shares: bool,
    /// It is born in the cgroup of the last of `joins`.
    pub(super) born: bool,
}

impl Setup {
    /// How the next child begins.
    pub(super) fn begins(&mut self, shares: bool, born: bool) {
        (self.shares, self.born) = (shares, born);
    }
}

/// Where a child begins that has its parent's memory.
pub(super) extern "C" fn enter(setup: *const Setup) -> ! {
    // SAFETY: whoever makes the child keeps it, unchanged, until the child is done.
    match run(unsafe { &*setup }) {}
}

/// Sets itself up, waits for its go, and executes the program.
pub(super) fn run(setup: &Setup) -> Infallible {
    let mut channel = setup.channel;
    let sign = Sign::new(setup);
    let report = match prepare(setup, &mut channel) {
        Ok(()) => {
            let ready = Report { step: Step::Ready, index: 0, errno: 0 };
            // Without a go, nothing is executed: whoever would give it is gone.
            if sys::send(channel, &ready.encode()).is_err() || !sys::receive_byte(channel) {
                sys::exit(NOT_EXECUTED);
            }
            // From here on it may have run, for whoever finds it when both its keeper and its host are gone.
            sign.put(1);
            // Before Linux 5.16 whoever dumps its core takes all with it who share its memory.
            if setup.shares && sys::take_core_signal() {
                sys::kill_self();
            }
            sys::unblock_signals();
            let errno = sys::execute(&setup.plan.program, &setup.plan.argv, &setup.plan.envp);
            sign.put(0);
            Report { step: Step::Exec, index: 0, errno }
        }
        Err(report) => report,
    };
    let _ = sys::send(channel, &report.encode());
    sys::exit(NOT_EXECUTED)
}

fn at(step: Step) -> impl Fn(Errno) -> Report {
    move |errno| Report { step, index: 0, errno }
}

fn at_index(step: Step, index: usize) -> impl Fn(Errno) -> Report {
    move |errno| Report { step, index: index as u16, errno }
}

/// The order matters: what needs rights comes before they are given up, what the atom's own
/// rights decide after, and descriptors are opened before their number is limited.
fn prepare(setup: &Setup, channel: &mut RawFd) -> Result<(), Report> {
    let plan = &*setup.plan;
    sys::setsid().map_err(at(Step::Session))?;
    // Who shares its parent's memory began with nothing but defaults, and what its parent ignores.
    let inherited = plan.inherited.filter(|_| setup.shares).unwrap_or(u64::MAX);
    sys::reset_signals(inherited, plan.ignored);
    let joins = setup.joins.len() - usize::from(setup.born);
    for (index, file) in setup.joins.iter().take(joins).enumerate() {
        // 0 is whoever writes it.
        sys::write_file(file, b"0").map_err(at_index(Step::Join, index))?;
    }
    if let Some(adjustment) = &plan.oom_score_adj {
        sys::write_file(c"/proc/self/oom_score_adj", adjustment.to_bytes())
            .map_err(at(Step::OomScore))?;
    }
    for (place, stream) in (0..).zip(setup.streams) {
        sys::dup2(stream, place).map_err(at(Step::Streams))?;
    }
    // Each may stand where the other one is to be.
    let marker = sys::duplicate_above(setup.marker, MARKER + 1).map_err(at(Step::Channel))?;
    if *channel != CHANNEL {
        sys::dup3(*channel, CHANNEL).map_err(at(Step::Channel))?;
        *channel = CHANNEL;
    }
    sys::dup3(marker, MARKER).map_err(at(Step::Channel))?;
    sys::close_from(MARKER + 1, setup.highest.max(marker));
    if let Some((soft, hard)) = plan.nofile {
        // It was ours before: a refusal leaves it with more than it had, which harms nobody.
        let _ = sys::set_rlimits(libc::RLIMIT_NOFILE as i32, soft, hard);
    }
    for (index, (resource, value)) in plan.rlimits.iter().enumerate() {
        sys::set_rlimit(*resource, *value).map_err(at_index(Step::Rlimit, index))?;
    }
    if let Some(mask) = plan.umask {
        sys::umask(mask);
    }
    if let Some(value) = plan.nice {
        sys::nice(value).map_err(at(Step::Nice))?;
    }
    if plan.no_new_privs {
        sys::no_new_privs().map_err(at(Step::Privileges))?;
    }
    if let Some(who) = &plan.credentials {
        sys::set_groups(&who.groups).map_err(at(Step::Groups))?;
        sys::set_gid(who.gid).map_err(at(Step::Gid))?;
        sys::set_uid(who.uid).map_err(at(Step::Uid))?;
        if who.uid != 0 && sys::set_uid(0).is_ok() {
            return Err(at(Step::WayBack)(0));
        }
    }
    sys::chdir(&plan.workdir).map_err(at(Step::Workdir))?;
    if let Some(path) = &plan.stdin {
        sys::close(0);
        if sys::open_stdin(path).map_err(at(Step::Stdin))? {
            return Err(at(Step::StdinIsDirectory)(0));
        }
    }
    Ok(())
}

/// The byte of the marker file that says that the program is being executed.
struct Sign {
    /// Where the page is mapped; null where it need not be, or could not.
    page: *mut u8,
    at: usize,
}

impl Sign {
    fn new(setup: &Setup) -> Self {
        // Before anything is limited: a page of memory can be written to whatever the limits are.
        let limited = !setup.plan.rlimits.is_empty() && !setup.shares;
        let page = if limited { wait::map_page(setup.marker) } else { ptr::null_mut() };
        Self { page, at: setup.executing_at }
    }

    fn put(&self, value: u8) {
        if self.page.is_null() {
            sys::write_at(MARKER, &[value], self.at);
        } else {
            wait::put(self.page, self.at, value);
        }
    }
}
