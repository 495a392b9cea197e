//! What a command is at, for a person who waits: one line at a terminal, and nothing elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::output::roughly;

/// Whoever waits for less than this is not to be bothered.
const BEFORE: Duration = Duration::from_millis(500);

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(250);

/// A line on stderr that says what is going on, from some time after its making until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of `what`; `figures` says how far it is, if that is known.
    pub(super) fn of(
        what: &'static str,
        figures: impl Fn() -> Option<String> + Send + 'static,
    ) -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        // One that knows no more than to write lines would get one for each change.
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        let wanted = io::stderr().is_terminal() && !dumb;
        let thread = wanted.then(|| {
            let over = Arc::clone(&over);
            let show = move || show(what, &figures, &over);
            thread::Builder::new().name("caesium-progress".into()).spawn(show).ok()
        });
        Self { over, thread: thread.flatten() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.over.0.lock() = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // Nobody writes between its last word and ours.
            let _ = thread.join();
        }
    }
}

fn show(what: &str, figures: &impl Fn() -> Option<String>, over: &(Mutex<bool>, Condvar)) {
    let began = Instant::now();
    let (mut wait, mut shown) = (BEFORE, false);
    let mut ended = over.0.lock();
    while !*ended {
        if over.1.wait_for(&mut ended, wait).timed_out() && !*ended {
            let line = line(what, figures().as_deref(), began.elapsed(), columns());
            // To its beginning, what was there away, and the new one.
            let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
            (wait, shown) = (EVERY, true);
        }
    }
    if shown {
        let _ = io::stderr().write_all(b"\r\x1b[K");
    }
}

/// How wide the terminal is; some do not know, and say 0.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
}

/// The line, cut so that it stays one.
fn line(what: &str, figures: Option<&str>, took: Duration, columns: usize) -> String {
    let figures = figures.map(|figures| format!(", {figures}")).unwrap_or_default();
    let line = format!("{what}: {}{figures}", roughly(took));
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is_and_stays_one() {
        let took = Duration::from_secs(7);
        assert_eq!(line("verifying", None, took, 80), "verifying: 7s");
        let figures = Some("12 of 34 events");
        assert_eq!(line("verifying", figures, took, 80), "verifying: 7s, 12 of 34 events");
        assert_eq!(line("verifying", figures, took, 11), "verifying:");
        assert_eq!(line("verifying", figures, took, 0), "");
    }
}
