//! `caesium completions` and `caesium man`: from the same description as the command line itself.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Args, Completions};
use super::failure::Failure;

pub(super) fn completions(args: &Completions) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "caesium", &mut script);
    io::stdout().write_all(&script)?;
    Ok(0)
}

pub(super) fn man() -> Result<u8, Failure> {
    let mut command = Args::command();
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    for command in command.get_subcommands() {
        writeln!(page, ".SH \"{}\"", command.get_name().to_uppercase())?;
        page.write_all(&section(command)?)?;
    }
    whole.render_extra_section(&mut page)?;
    io::stdout().write_all(&page)?;
    Ok(0)
}

/// One command, its sections one level below those of the page.
fn section(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let man = Man::new(command.clone());
    let mut section = Vec::new();
    man.render_synopsis_section(&mut section)?;
    man.render_description_section(&mut section)?;
    man.render_options_section(&mut section)?;
    let text = String::from_utf8_lossy(&section).replace(".SH ", ".SS ");
    Ok(text.into_bytes())
}
