//! The process: command line to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    poolhouse::cli::run(std::env::args_os())
}
