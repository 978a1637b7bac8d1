//! `poolhouse serve`: from the command line to settings and a log, then `app` runs.

use std::{env, path::PathBuf, process::ExitCode};

use super::{EXIT_USAGE, log};
use crate::app::ReadAgain;
use crate::config::{self, Loaded, Overrides};

/// Where the connection string comes from when no flag says it: the second is what many applications have, and may name
/// Poolhouse itself, for them.
const UPSTREAM_VARIABLES: [&str; 2] = ["POOLHOUSE_UPSTREAM", "DATABASE_URL"];

/// Run Poolhouse until SIGTERM or SIGINT.
///
/// With CONFIG everything comes from that file. Without it, the servers come from --upstream or from the environment
/// variable POOLHOUSE_UPSTREAM, else DATABASE_URL: clients log in with the user and password of that URL and find its
/// database under the same name. Applications get the same URL with Poolhouse's address, like
/// postgres://app:secret@127.0.0.1:6432/app.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The configuration file (TOML).
    config: Option<PathBuf>,
    /// The servers, as a PostgreSQL URL or keyword string; several hosts are allowed [env: POOLHOUSE_UPSTREAM, else
    /// DATABASE_URL].
    ///
    /// It may be the application's own URL: what is for its driver or pool is ignored. The list of processes shows what
    /// stands here, a password too: prefer the environment for one. sslmode and its like say how the connections to the
    /// servers are encrypted.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Option<String>,
    /// Where to listen, in place of what the file says; may be given several times [env: POOLHOUSE_LISTEN]
    /// [default: 127.0.0.1:6432].
    ///
    /// `127.0.0.1:6432`, `[::1]:6432`, or `unix:/run/poolhouse` for a socket in that directory. Several stand in
    /// POOLHOUSE_LISTEN with commas between them.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Threads that serve clients, in place of what the file says; 0 is one per core [env: POOLHOUSE_WORKERS].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(WORKERS_MAX)))]
    workers: Option<u16>,
    /// Where metrics and the console's tables are served by HTTP, in place of what the file says; "" is nowhere [env:
    /// POOLHOUSE_HTTP] [default: 127.0.0.1:6433].
    ///
    /// Any other address than one of loopback needs a token.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// What those show over HTTP who are not on this machine, or `file:PATH` [env: POOLHOUSE_TOKEN].
    ///
    /// The list of processes shows what stands here: prefer the environment.
    #[arg(long, value_name = "SECRET")]
    token: Option<String>,
}

impl Arguments {
    /// What the command line says, and where it is silent the environment.
    fn overrides(&self) -> Result<Overrides, String> {
        let variable = |name: &str| env::var(name).ok();
        let listed = || variable("POOLHOUSE_LISTEN").filter(|text| !text.is_empty());
        let listen = match &self.listen[..] {
            [] => listed().map(|text| text.split(',').map(|address| address.trim().to_owned()).collect()),
            given => Some(given.to_vec()),
        };
        let workers = match (self.workers, variable("POOLHOUSE_WORKERS").filter(|text| !text.is_empty())) {
            (None, Some(text)) => {
                let number = text.parse().ok().filter(|number| *number <= WORKERS_MAX);
                Some(number.ok_or(format!("POOLHOUSE_WORKERS: write a whole number from 0 to {WORKERS_MAX}"))?)
            }
            (given, _) => given,
        };
        Ok(Overrides {
            listen: listen.unwrap_or_default(),
            workers: workers.map(usize::from),
            http: self.http.clone().or_else(|| variable("POOLHOUSE_HTTP")),
            token: self.token.clone().or_else(|| variable("POOLHOUSE_TOKEN")).filter(|text| !text.is_empty()),
        })
    }
}

const WORKERS_MAX: u16 = 1024;

/// Runs until it is told to stop.
pub fn run(arguments: &Arguments) -> ExitCode {
    let (loaded, read_again) = match load(arguments) {
        Ok(loaded) => loaded,
        Err(problem) => return wrong_usage(&problem),
    };
    let set_level = match log::start(&loaded.settings.log) {
        Ok(set_level) => set_level,
        Err(problem) => return wrong_usage(&problem),
    };
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match crate::app::run(loaded.settings, set_level, read_again) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration, and how to read it again.
fn load(arguments: &Arguments) -> Result<(Loaded, ReadAgain), String> {
    let over = arguments.overrides()?;
    let read: ReadAgain = match (arguments.config.clone(), arguments.upstream.clone()) {
        (Some(path), _) => Box::new(move || config::load(&path, &over)),
        (None, Some(upstream)) => Box::new(move || config::from_upstream(&upstream, "--upstream", &over)),
        (None, None) => {
            let set = |name: &'static str| Some((name, env::var(name).ok().filter(|text| !text.is_empty())?));
            let [first, second] = UPSTREAM_VARIABLES;
            let (variable, upstream) = set(first).or_else(|| set(second)).ok_or_else(|| {
                format!("poolhouse serve: name a configuration file, give --upstream URL, or set {first} or {second}")
            })?;
            Box::new(move || config::from_upstream(&upstream, variable, &over))
        }
    };
    let loaded = read().map_err(|mistakes| mistakes.to_string())?;
    Ok((loaded, read))
}

fn wrong_usage(problem: &str) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::from(EXIT_USAGE)
}
