//! sled, which may panic on what is damaged and may never return: what it does is done in here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use super::super::trouble::Trouble;

/// How long a flush or a close may take: there are ways in sled to wait for ever.
const WATCHDOG: Duration = Duration::from_secs(60);

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        Self::Damage(format!("sled: {error}"))
    }
}

/// sled panics on damage more often than it returns an error.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Trouble::Damage(format!("sled panicked: {}", said(&*panic)))))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs what sled may never return from; gives up on it after [`WATCHDOG`].
pub(super) fn watched<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, sled::Error> + Send + 'static,
) -> Result<T, Trouble> {
    watched_for(WATCHDOG, what, work)
}

fn watched_for<T: Send + 'static>(
    patience: Duration,
    what: &'static str,
    work: impl FnOnce() -> Result<T, sled::Error> + Send + 'static,
) -> Result<T, Trouble> {
    let (done, result) = mpsc::channel();
    crate::journal::open::spawn("caesium-history", move || {
        // Nobody listens any more when it took too long.
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    })?;
    match result.recv_timeout(patience) {
        Ok(Ok(result)) => Ok(result?),
        Ok(Err(panic)) => Err(Trouble::Damage(format!("sled panicked: {}", said(&*panic)))),
        Err(_) => Err(Trouble::Damage(format!("sled did not {what} in {patience:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_returns_is_given_up_on() {
        let (stay, gate) = mpsc::channel::<()>();
        let hangs = move || {
            let _ = gate.recv();
            Ok(())
        };
        let given_up = watched_for(Duration::from_millis(20), "flush", hangs).unwrap_err();
        assert!(matches!(&given_up, Trouble::Damage(problem) if problem.contains("did not flush")));
        drop(stay);
    }

    #[test]
    fn a_panic_is_an_error() {
        let panics = || -> Result<(), sled::Error> { panic!("a broken page") };
        for trouble in [watched("flush", panics), caught(|| Ok(panics()?))] {
            let told =
                matches!(&trouble, Err(Trouble::Damage(what)) if what.contains("a broken page"));
            assert!(told, "{trouble:?}");
        }
    }
}
