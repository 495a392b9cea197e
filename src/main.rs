//! The `caesium` command: see `caesium --help`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    caesium::init();
    caesium::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("caesium: processes can be supervised on Linux only");
    ExitCode::FAILURE
}
