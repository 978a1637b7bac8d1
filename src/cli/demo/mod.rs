//! `poolhouse demo`: a throwaway primary, two streaming replicas and Poolhouse in front of them, to try out; with
//! `--check` under load, with the primary killed, and judged. The clusters and the load are `poolhouse_lab`'s.

mod check;
mod pooler;
mod report;
mod show;
mod stage;

use std::{
    fmt::Display,
    io::{Write, stdout},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

/// Try Poolhouse out: starts a throwaway primary and two streaming replicas with the PostgreSQL found on this machine,
/// and itself in front of them.
///
/// Prints how to connect and runs until Ctrl-C; then everything is removed. The PostgreSQL programs come from
/// $POSTGRES_BIN, else from pg_config, else the newest below /usr/lib/postgresql, else PATH. With --check it puts load
/// on them instead, kills the primary, reports what clients saw, and exits with 0 only if no acknowledged commit is
/// missing or doubled and no client between transactions saw an error.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Put load on it, kill the primary under load, and report what clients saw.
    #[arg(long)]
    check: bool,
    /// Where to listen [default: 127.0.0.1:6432, or another port when that is taken; with --check a free port].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Clients of the load.
    #[arg(long, value_name = "N", default_value_t = 20, requires = "check", value_parser = clap::value_parser!(u32).range(1..=500))]
    clients: u32,
    /// How long the load lasts; the primary is killed after a third of it.
    #[arg(long, value_name = "N", default_value_t = 12, requires = "check", value_parser = clap::value_parser!(u64).range(3..=600))]
    seconds: u64,
}

/// Shows or checks. What goes wrong is said on standard error.
pub fn run(arguments: &Arguments) -> ExitCode {
    let done = if arguments.check {
        check::run(arguments.listen, arguments.clients, Duration::from_secs(arguments.seconds))
    } else {
        show::run(arguments.listen).map(|()| true)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("poolhouse demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A line to standard output, which may be closed.
fn say(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}
