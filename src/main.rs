//! The process: command line to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    poolhouse::run(std::env::args_os())
}
