//! `cargo bench --bench compare`: Poolhouse against PgBouncer and haproxy, in one run on one machine, with pgbench over
//! loopback. Rounds are interleaved, so that a slow minute of the machine hits everybody, and what counts are ratios
//! to PgBouncer in the same round.
//!
//! Environment: BENCH_ROUNDS (5) and BENCH_SECONDS (4) of each round; BENCH_ONLY, a regular expression (as PostgreSQL
//! reads it) that chooses cells by name; BENCH_OUT, the file for the results; BENCH_SMOKE=1, a minute's try of the
//! benchmark itself. A partial or smoke run is only printed, unless BENCH_OUT is set.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

mod cells;
mod costs;
mod idle;
mod lab;
mod load;
mod machine;
mod proxy;
mod report;
mod series;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use cells::{Cell, Contender, IDLE_CONTENDERS};
use costs::Cost;
use lab::Lab;
use report::Report;
use series::Runs;

/// Whatever keeps a measurement from being made, in words for whoever reads the terminal.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// What Cargo passes to benchmarks under `cargo bench` but not under `cargo test --benches`.
const BENCH_FLAG: &str = "--bench";

/// Discarded at the start of each cell: server connections are opened, caches filled.
const WARM_UP: Duration = Duration::from_secs(1);

/// How the whole is measured.
struct Options {
    rounds: usize,
    round: Duration,
    only: Option<String>,
    out: Option<PathBuf>,
    smoke: bool,
}

impl Options {
    fn from_environment() -> Outcome<Options> {
        let smoke = text("BENCH_SMOKE").is_some_and(|value| value != "0");
        let only = text("BENCH_ONLY");
        let whole = !smoke && only.is_none();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md");
        Ok(Options {
            rounds: number("BENCH_ROUNDS", if smoke { 1 } else { 5 })?,
            round: Duration::from_secs(number("BENCH_SECONDS", if smoke { 1 } else { 4 })? as u64),
            only,
            out: text("BENCH_OUT").map(PathBuf::from).or(whole.then_some(file)),
            smoke,
        })
    }

    /// What to type for the same measurement again.
    fn command(&self) -> String {
        let only = self.only.as_ref().map_or_else(String::new, |only| format!("BENCH_ONLY='{only}' "));
        let smoke = if self.smoke { "BENCH_SMOKE=1 " } else { "" };
        format!("BENCH_ROUNDS={} BENCH_SECONDS={} {only}{smoke}make bench", self.rounds, self.round.as_secs())
    }
}

fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|value| !value.is_empty())
}

fn number(variable: &str, default: usize) -> Outcome<usize> {
    let Some(text) = text(variable) else { return Ok(default) };
    let parsed = text.parse().ok().filter(|number| (1..=1000).contains(number));
    parsed.ok_or_else(|| format!("{variable} is {text:?}; it takes a whole number from 1 to 1000").into())
}

fn main() -> ExitCode {
    if !env::args().any(|argument| argument == BENCH_FLAG) && text("BENCH_SMOKE").is_none() {
        eprintln!("compare: measures only under `cargo bench`, or with BENCH_SMOKE=1");
        return ExitCode::SUCCESS;
    }
    match Options::from_environment().and_then(|options| measure(&options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("compare: {failures} measurements failed; the report says which");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything that was asked for, writes the report, and returns how many measurements failed.
fn measure(options: &Options) -> Outcome<usize> {
    machine::raise_file_limit()?;
    let lab = Lab::start(if options.smoke { 1 } else { 10 }, 0)?;
    let mut report = Report::new(&lab, options.command(), options.rounds, options.round)?;
    let cells = if options.smoke { Cell::smoke() } else { Cell::all() };
    let idle = if options.smoke { vec![200] } else { vec![1_000, 5_000] };
    let names: Vec<String> =
        cells.iter().map(Cell::name).chain(idle.iter().map(|clients| idle_name(*clients))).collect();
    let costs: Vec<Cost> = if options.smoke { vec![Cost::Verdict] } else { Cost::ALL.to_vec() };
    let names = names.into_iter().chain(costs.iter().map(|cost| cost.name().to_owned())).collect::<Vec<_>>();
    let chosen = match &options.only {
        Some(pattern) => lab.matching(&names, pattern)?,
        None => names,
    };
    for cell in cells.into_iter().filter(|cell| chosen.contains(&cell.name())) {
        let runs = run_cell(&lab, &cell, options, &mut report.noise)?;
        report.cells.push((cell, runs));
    }
    for clients in idle.into_iter().filter(|clients| chosen.contains(&idle_name(*clients))) {
        report.noise.push(machine::others_busy()?);
        report.idle.push((clients, run_idle(&lab, clients, options.rounds)));
    }
    for cost in costs.into_iter().filter(|cost| chosen.iter().any(|name| name == cost.name())) {
        report.noise.push(machine::others_busy()?);
        eprintln!("{}", cost.name());
        match cost.measure(&lab, options.rounds, options.round) {
            Ok(measured) => report.costs.push(measured),
            Err(error) => report.failed_costs.push((cost, error.to_string())),
        }
    }
    let text = report.to_markdown();
    println!("{text}");
    if let Some(out) = &options.out {
        fs::write(out, &text).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    }
    Ok(report.failures().len())
}

fn idle_name(clients: usize) -> String {
    format!("idle-{clients}")
}

/// All contenders of a cell run until its end; they take turns, in an order that moves on from round to round.
/// Before each round goes a look at who else is at work.
fn run_cell(lab: &Lab, cell: &Cell, options: &Options, noise: &mut Vec<f64>) -> Outcome<Runs<load::Sample>> {
    let mut runs = Runs::new(&Contender::ALL, options.rounds);
    let mut proxies = Vec::new();
    for contender in Contender::ALL {
        let started = lab.launch(contender, cell).and_then(|proxy| {
            load::warm_up(lab, &proxy, cell, WARM_UP)?;
            Ok(proxy)
        });
        match started {
            Ok(proxy) => proxies.push((contender, proxy)),
            Err(error) => runs.fail(contender, &error.to_string()),
        }
    }
    for round in 0..options.rounds {
        let turns = proxies.len().max(1);
        proxies.rotate_left(usize::from(round > 0) % turns);
        noise.push(machine::others_busy()?);
        for (contender, proxy) in &proxies {
            lab.tidy(cell)?;
            match load::run(lab, proxy, cell, options.round) {
                Ok(sample) => {
                    eprintln!("{:<12} round {}  {:<22} {sample}", cell.name(), round + 1, contender.name());
                    runs.add(*contender, round, sample);
                }
                Err(error) => runs.fail(*contender, &error.to_string()),
            }
        }
    }
    Ok(runs)
}

/// Every measurement of memory has a process of its own, since none gives back what it once had.
fn run_idle(lab: &Lab, clients: usize, rounds: usize) -> Runs<idle::Sample> {
    let mut runs = Runs::new(&IDLE_CONTENDERS, rounds);
    for round in 0..rounds {
        for contender in IDLE_CONTENDERS {
            match idle::run(lab, contender, clients) {
                Ok(sample) => {
                    eprintln!("{:<12} round {}  {:<22} {sample}", idle_name(clients), round + 1, contender.name());
                    runs.add(contender, round, sample);
                }
                Err(error) => runs.fail(contender, &error.to_string()),
            }
        }
    }
    runs
}
