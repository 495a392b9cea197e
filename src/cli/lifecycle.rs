//! `caesium lifecycle`: the state machine, from the code's own table.

use std::io::{self, Write};

use super::args::Lifecycle;
use super::failure::Failure;

pub(super) fn lifecycle(args: &Lifecycle) -> Result<u8, Failure> {
    io::stdout().write_all(args.format.draw().to_string().as_bytes())?;
    Ok(0)
}
