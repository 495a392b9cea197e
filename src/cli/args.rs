//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueHint};

use super::values::{self, Moment};
use crate::atom::{AtomId, Leftovers, Resource};
use crate::engine::LabelSelector;
use crate::lifecycle::{Drawing, Outcome, State};
use crate::log::Stream;

/// Supervised processes that never lose how they ended.
#[derive(Debug, Parser)]
#[command(name = "caesium", version, disable_help_subcommand = true, after_help = EXIT_STATUS)]
pub(super) struct Args {
    /// The store [default: $CAESIUM_STORE, $XDG_STATE_HOME/caesium, ~/.local/state/caesium]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) store: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_STATUS: &str = "\
Exit status: 0, or 1 when something went wrong, or 2 for what cannot be understood. \
`run` and `wait` end with the atom's own status: its exit code; 128+n for signal n; \
127 when its program was not found; 126 when it could not be executed; \
125 when it was not started for another reason, when nobody can know how it ended, \
and when caesium itself failed.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a program: show its output, end with its status
    Run(Box<Run>),
    /// List the atoms that live
    Ps(Ps),
    /// Show everything about one atom
    Inspect(Inspect),
    /// Show what an atom printed
    Logs(Logs),
    /// Wait until atoms have stopped; end with the status of the last
    Wait(Wait),
    /// Stop atoms: SIGTERM, then after the grace SIGKILL; returns when nothing of them runs
    Stop(Stop),
    /// Delete atoms with their output
    Rm(Rm),
    /// Show the journal, in order
    Events(Events),
    /// Read the whole store, and check that everything in it fits together
    Verify,
    /// Rebuild a store from whatever can still be read of a damaged one, which is not written to
    Salvage(Salvage),
    /// Drop the oldest events; atoms that exist are never forgotten
    Compact(Compact),
    /// Show how large the journal is, and how it fares
    Stats(Stats),
    /// Show the state machine of an atom
    Lifecycle(Lifecycle),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page
    Man,
}

impl Command {
    /// The exit status when caesium itself fails.
    pub(super) fn own_failure(&self) -> u8 {
        match self {
            // These end with an atom's status, which may be anything below.
            Self::Run(_) | Self::Wait(_) => super::status::OWN_FAILURE,
            Self::Ps(_)
            | Self::Inspect(_)
            | Self::Logs(_)
            | Self::Stop(_)
            | Self::Rm(_)
            | Self::Events(_)
            | Self::Verify
            | Self::Compact(_)
            | Self::Salvage(_)
            | Self::Stats(_)
            | Self::Lifecycle(_)
            | Self::Completions(_)
            | Self::Man => super::status::FAILURE,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The program, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["PROGRAM", "ARG"],
          value_hint = ValueHint::CommandWithArguments)]
    pub(super) command: Vec<OsString>,
    /// Print the id and return; the atom lives on, and its keeper watches it
    #[arg(short, long)]
    pub(super) detach: bool,
    /// A name to find it by; one atom at a time has it
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Name the request itself: made again with the same key, it shows the atom that was made first
    #[arg(long)]
    pub(super) key: Option<String>,
    /// Set an environment variable; its value is journaled, and shown as ***
    #[arg(long, value_name = "K=V", value_parser = values::KeyValue)]
    pub(super) env: Vec<(String, OsString)>,
    /// Set an environment variable whose value is never written to disk
    #[arg(long, value_name = "K=V", value_parser = values::KeyValue)]
    pub(super) secret_env: Vec<(String, OsString)>,
    /// Start from an empty environment
    #[arg(long)]
    pub(super) env_clear: bool,
    /// The working directory [default: this one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) workdir: Option<PathBuf>,
    /// Put a label on it
    #[arg(long, value_name = "K=V", value_parser = values::label)]
    pub(super) label: Vec<(String, String)>,
    /// Stop it when it has run this long: 300ms, 10s, "1h 30m"
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub(super) timeout: Option<Duration>,
    /// How long a stop waits between SIGTERM and SIGKILL [default: 10s]
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub(super) grace: Option<Duration>,
    /// What becomes of processes that are left when its leader has exited by itself [default: kill]
    #[arg(long, value_name = "kill|keep", value_parser = values::leftovers())]
    pub(super) leftovers: Option<Leftovers>,
    /// Limit the memory of all its processes together: a number of bytes, or with K, M, G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(super) memory: Option<u64>,
    /// Limit how many processes and threads it has at one time
    #[arg(long, value_name = "N")]
    pub(super) pids: Option<u64>,
    /// Limit its CPU time: 0.5 is half of one CPU
    #[arg(long, value_name = "F")]
    pub(super) cpus: Option<f64>,
    /// Set a limit of setrlimit(2), soft and hard: nofile=1024
    #[arg(long, value_name = "NAME=N", value_parser = values::rlimit)]
    pub(super) rlimit: Vec<(Resource, u64)>,
    /// Set its nice value: -20 (favoured) to 19 (yields to everything)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) nice: Option<i32>,
    /// How readily it is killed when memory runs out: -1000 (never) to 1000 (first)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(super) oom_score_adj: Option<i32>,
    /// Run it as another user: a name or a number
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Run it in this group instead of its user's own: a name or a number
    #[arg(long)]
    pub(super) group: Option<String>,
    /// The permissions that files which it makes do not get, in octal: 077
    #[arg(long, value_name = "OCTAL", value_parser = values::octal)]
    pub(super) umask: Option<u32>,
    /// No program that it executes may give it more privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Pass our own standard input on to it, to its end
    #[arg(short, long, conflicts_with_all = ["stdin", "detach"])]
    pub(super) interactive: bool,
    /// Read standard input from a file [default: /dev/null]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) stdin: Option<PathBuf>,
    /// How much of its output is kept, the newest [default: 16M]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(super) log_max: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Ps {
    /// Also those that have stopped
    #[arg(short, long)]
    pub(super) all: bool,
    /// Only those in this state, or in one of these, stopped ones included
    #[arg(long, value_name = "STATE", value_parser = values::state())]
    pub(super) state: Vec<State>,
    /// Only those that ended like this, or like one of these
    #[arg(long, value_name = "RESULT", value_parser = values::outcome())]
    pub(super) result: Vec<Outcome>,
    /// Only those whose labels fit: KEY=VALUE, KEY!=VALUE, KEY or !KEY; more than one must all fit
    #[arg(long, value_name = "SELECTOR")]
    pub(super) label: Vec<LabelSelector>,
    /// Only those whose name fits: * stands for any characters, ? for any one
    #[arg(long, value_name = "PATTERN")]
    pub(super) name: Option<String>,
    /// Only those created since this time: 2026-01-02T03:04:05Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub(super) since: Option<Moment>,
    /// Only those created before this time
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub(super) before: Option<Moment>,
    /// The newest first
    #[arg(long)]
    pub(super) newest: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Only those that come after the atom with this whole id: the next page
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<AtomId>,
    /// One JSON object per atom and line
    #[arg(long)]
    pub(super) json: bool,
    /// Only the whole ids, one on each line, for other commands
    #[arg(short, long, conflicts_with = "json")]
    pub(super) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// Its id, the first characters of it (4 or more), or its name
    pub(super) id: String,
    /// As one JSON object, on one line
    #[arg(long)]
    pub(super) json: bool,
    /// Show the values of environment variables, but for the secret ones
    #[arg(long)]
    pub(super) show_env: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// Its id, the first characters of it (4 or more), or its name
    pub(super) id: String,
    /// Go on with what it prints, until it has stopped
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only what was printed after this time: 2026-01-02T03:04:05Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub(super) since: Option<Moment>,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(super) tail: Option<usize>,
    /// Begin each line with the time at which it was read
    #[arg(long)]
    pub(super) timestamps: bool,
    /// Only this stream
    #[arg(long, value_parser = values::stream())]
    pub(super) stream: Option<Stream>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Ids, first characters of ids (4 or more), or names
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Stop {
    /// Ids, first characters of ids (4 or more), or names
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Kill at once
    #[arg(long)]
    pub(super) force: bool,
    /// How long to wait between SIGTERM and SIGKILL [default: the atom's own]
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub(super) grace: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Rm {
    /// Ids, first characters of ids (4 or more), or names
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Also those that run: they are killed first
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Go on with what happens
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Begin with the event of this number
    #[arg(long, value_name = "SEQ")]
    pub(super) since: Option<u64>,
    /// One JSON object per event and line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Salvage {
    /// Where the new store is made: a directory that is empty, or not there yet
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(super) into: PathBuf,
    /// As one JSON object, on one line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Compact {
    /// Keep the newest N events
    #[arg(long, value_name = "N")]
    pub(super) keep_events: Option<u64>,
    /// Keep the events that are younger than this: 90days, "1year 6months"
    #[arg(long, value_name = "DUR", value_parser = values::duration)]
    pub(super) keep_age: Option<Duration>,
    /// As one JSON object, on one line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Stats {
    /// As one JSON object, on one line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Lifecycle {
    /// How: table, mermaid or dot
    #[arg(long, default_value = "table", value_parser = values::drawing())]
    pub(super) format: Drawing,
}

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}
