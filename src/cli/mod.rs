//! The `caesium` command.
//!
//! ```text
//!  args ──▶ one file per command ──▶ engine
//!  values    run ps inspect logs …      │
//!            │                          │
//!            ▼                          ▼
//!          output (stdout)        failure (stderr, status)
//! ```

mod args;
mod compact;
mod events;
mod failure;
mod feed;
mod forward;
mod generate;
mod inspect;
mod lifecycle;
mod logs;
mod output;
mod progress;
mod ps;
mod rm;
mod run;
mod salvage;
mod stats;
mod status;
mod stop;
mod store;
mod usage;
mod values;
mod verify;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    let args = match Args::try_parse_from(&given) {
        Ok(args) => args,
        Err(error) => return usage::answer(&error, &given),
    };
    diagnostics();
    let own_failure = args.command.own_failure();
    match dispatch(args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.report(own_failure),
    }
}

fn dispatch(args: Args) -> Result<u8, Failure> {
    let store = args.store.as_deref();
    match args.command {
        Command::Run(run) => run::run(store, *run),
        Command::Ps(ps) => ps::ps(store, &ps),
        Command::Inspect(inspect) => inspect::inspect(store, &inspect),
        Command::Logs(logs) => logs::logs(store, &logs),
        Command::Wait(wait) => wait::wait(store, &wait),
        Command::Stop(stop) => stop::stop(store, &stop),
        Command::Rm(rm) => rm::rm(store, &rm),
        Command::Events(events) => events::events(store, &events),
        Command::Verify => verify::verify(store),
        Command::Compact(compact) => compact::compact(store, &compact),
        Command::Salvage(salvage) => salvage::salvage(store, &salvage),
        Command::Stats(stats) => stats::stats(store, &stats),
        Command::Lifecycle(lifecycle) => lifecycle::lifecycle(&lifecycle),
        Command::Completions(completions) => generate::completions(&completions),
        Command::Man => generate::man(),
    }
}

/// What the library has to say goes to stderr: errors and alerts, or more with `CAESIUM_LOG`.
fn diagnostics() {
    let level = std::env::var("CAESIUM_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::ERROR);
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        // Colours would need a feature of its own, without which asking for them panics.
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
}
