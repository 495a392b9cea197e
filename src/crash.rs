//! Named moments at which a test stops this process, to kill it or another one just there.
//!
//! In a build without the feature `test-util` there is nothing of it.

/// Every point, in the order in which an atom's life passes them. A test goes through all of them.
#[cfg(feature = "test-util")]
pub const POINTS: &[&str] = &[
    "host/keeper-is-spawned",
    "keeper/is-alone",
    "keeper/has-the-lock",
    "keeper/listens",
    "host/has-connected",
    "keeper/has-set-aside",
    "keeper/has-answered",
    "keeper/has-forked",
    "host/has-prepared",
    "host/has-queued-created",
    "host/created-is-durable",
    "host/has-sent-start",
    "keeper/has-written-the-pid",
    "keeper/has-given-the-go",
    "keeper/knows-the-execution",
    "host/has-heard-started",
    "host/has-queued-stop",
    "host/stop-is-durable",
    "host/has-sent-stop",
    "keeper/has-sent-term",
    "keeper/has-sent-kill",
    "keeper/has-seen-an-end",
    "keeper/has-written-the-status",
    "keeper/has-reaped",
    "keeper/has-cleared",
    "keeper/has-written-an-ending",
    "host/has-heard-an-end",
    "host/has-queued-an-end",
    "host/has-planned-a-retry",
    "host/delete-is-durable",
    "host/has-sent-remove",
    "keeper/has-removed",
    "host/has-heard-removed",
    "host/has-asked-for-all",
];

/// Stops this process here, if the environment asks for that: see [`POINTS`].
///
/// `CAESIUM_CRASH_POINT` names the point, with `@N` behind it for the N-th time that it is passed, and
/// `CAESIUM_CRASH_TOLD` a FIFO that is told our pid before. When that is no longer there, nothing is stopped.
#[cfg(feature = "test-util")]
pub(crate) fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    debug_assert!(POINTS.contains(&name), "{name} is not among the points");
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("CAESIUM_CRASH_POINT").ok()?;
        let (name, number) = text.split_once('@').unwrap_or((&text, "1"));
        Some((name.to_owned(), number.parse().unwrap_or(1)))
    });
    let Some((wanted, number)) = wanted else { return };
    if wanted != name || PASSED.fetch_add(1, Ordering::Relaxed) + 1 != *number {
        return;
    }
    let told = std::env::var_os("CAESIUM_CRASH_TOLD").and_then(|fifo| {
        use std::io::Write;
        let mut fifo = std::fs::OpenOptions::new().write(true).open(fifo).ok()?;
        // In one piece, for whoever reads it.
        fifo.write_all(format!("{}\n", std::process::id()).as_bytes()).ok()
    });
    #[cfg(target_os = "linux")]
    if told.is_some() {
        let us = rustix::process::getpid();
        // Nothing after this point happens, in no thread.
        let _ = rustix::process::kill_process(us, rustix::process::Signal::STOP);
    }
}

#[cfg(not(feature = "test-util"))]
pub(crate) const fn point(_name: &'static str) {}
