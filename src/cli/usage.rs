//! What was typed and cannot be understood, in one line.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use super::failure::complain;
use super::status;

/// Answers `--help` and `--version` on stdout, and everything else with one line on stderr.
pub(super) fn answer(error: &clap::Error, given: &[OsString]) -> ExitCode {
    let command = command(given);
    let status = match command {
        Some("run" | "wait") => status::OWN_FAILURE,
        Some(_) | None => status::USAGE,
    };
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody reads it: then nobody misses it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && command.is_none() {
        let _ = error.print();
        return ExitCode::from(status);
    }
    let help = match command {
        Some(command) => format!("caesium {command} --help"),
        None => "caesium --help".to_owned(),
    };
    complain(&format!("{} (see `{help}`)", in_one_line(&error.to_string())));
    ExitCode::from(status)
}

/// The first paragraph of what clap says, and its tips.
fn in_one_line(text: &str) -> String {
    let mut paragraphs = text.split("\n\n");
    let joined = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = joined(paragraphs.next().unwrap_or_default());
    let mut line = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    for tip in text.lines().filter_map(|line| line.trim().strip_prefix("tip: ")) {
        line.push_str("; ");
        line.push_str(tip);
    }
    line
}

/// The first word that is no option: the command, if it is one.
fn command(given: &[OsString]) -> Option<&str> {
    let mut words = given.iter().skip(1).filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if word == "--store" {
            words.next();
        } else if !word.starts_with('-') {
            let known = <super::args::Args as clap::CommandFactory>::command();
            return known.find_subcommand(word).is_some().then_some(word);
        }
    }
    None
}
