//! The command line: what each command takes, and what the process's exit code is. 0 is fine, 1 failed while running,
//! 2 wrong usage or configuration.

pub mod check;
pub mod demo;
mod log;
pub mod serve;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Wrong usage or a wrong configuration.
const EXIT_USAGE: u8 = 2;

/// A PostgreSQL connection pooler and proxy: many clients on few server connections, reads to replicas, writes to
/// the primary, alive after the primary dies.
#[derive(Debug, Parser)]
#[command(name = "poolhouse", version, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Demo(demo::Arguments),
}

/// Runs the command that `arguments` (the first is the program's name) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match CommandLine::try_parse_from(arguments).map(|line| line.command) {
        Ok(Command::Serve(arguments)) => serve::run(&arguments),
        Ok(Command::Check(arguments)) => check::run(&arguments),
        Ok(Command::Demo(arguments)) => demo::run(&arguments),
        Err(help) => {
            // Standard error may be closed; the exit code says the same.
            let _ = help.print();
            if help.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn every_flag_has_help() {
        let mut command = CommandLine::command();
        command.build();
        for command in command.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn usages() {
        for right in [
            "poolhouse serve",
            "poolhouse serve poolhouse.toml",
            "poolhouse serve poolhouse.toml --listen 127.0.0.1:1 --listen unix:/run --workers 2",
            "poolhouse serve --upstream postgres://u@h/d",
            "poolhouse check poolhouse.toml",
            "poolhouse check --reference",
            "poolhouse check --schema",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "poolhouse",
            "poolhouse check",
            "poolhouse check poolhouse.toml --reference",
            "poolhouse check --schema --reference",
            "poolhouse serve poolhouse.toml --upstream postgres://u@h/d",
            "poolhouse serve --workers -1",
            "poolhouse serve --workers 1025",
            "poolhouse serve --port 1",
            "poolhouse surve",
        ] {
            assert!(parse(wrong).is_err_and(|error| error.use_stderr()), "{wrong}");
        }
        assert!(parse("poolhouse --version").is_err_and(|shown| !shown.use_stderr()));
        assert!(parse("poolhouse serve --help").is_err_and(|shown| !shown.use_stderr()));
    }
}
