//! pgbench: fills its tables, puts load on a proxy, and what came out: transactions, throughput and latencies as
//! pgbench saw them, CPU time from the system.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    cells::{Cell, Load},
    idle::{DATABASE, USER},
    lab::Lab,
    proxy::{Proxy, last_lines},
    series::percentile,
};

/// What pgbench may take longer than it was told to, for connecting and ending.
const GRACE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);

/// The clients of pgbench are gone, and the proxy may still be putting away their connections.
const AFTERMATH: Duration = Duration::from_millis(50);

/// The share of transactions whose latency is logged: enough for a percentile, little enough not to cost pgbench much.
const SAMPLING: &str = "0.1";

/// One round of a contender.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Microseconds of the proxy's CPU per transaction, user and system.
    pub cpu: f64,
    /// Transactions per second.
    pub throughput: f64,
    /// Milliseconds.
    pub median: f64,
    /// Milliseconds that one transaction in a hundred exceeds.
    pub p99: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { cpu, throughput, median, p99 } = self;
        write!(f, "{cpu:7.2} µs CPU  {throughput:8.0} tps  p50 {median:7.3} ms  p99 {p99:7.3} ms")
    }
}

/// Makes pgbench's tables, directly on the server.
pub fn initialise(lab: &Lab, scale: usize) -> Outcome<()> {
    let mut command = lab.pgbench();
    command.args(["-i", "-q", "-s", &scale.to_string()]);
    finish(lab, command, lab.server_port(), Duration::from_secs(120)).map(drop)
}

/// Load whose figures nobody wants: server connections are opened, caches filled. However slow that is.
pub fn warm_up(lab: &Lab, proxy: &Proxy, cell: &Cell, duration: Duration) -> Outcome<()> {
    finish(lab, command(lab, cell, duration), proxy.port(), duration + GRACE)?;
    take_latencies(lab.directory()).map(drop)
}

/// One run of pgbench through a proxy.
pub fn run(lab: &Lab, proxy: &Proxy, cell: &Cell, duration: Duration) -> Outcome<Sample> {
    sample(lab, proxy, command(lab, cell, duration), duration)
}

fn sample(lab: &Lab, proxy: &Proxy, command: Command, duration: Duration) -> Outcome<Sample> {
    let before = proxy.cpu_time()?;
    let finished = finish(lab, command, proxy.port(), duration + GRACE);
    thread::sleep(AFTERMATH);
    let cpu = proxy.cpu_time()? - before;
    let latencies = take_latencies(lab.directory());
    let (output, latencies) = (finished?, latencies?);
    let transactions = figure(&output, "number of transactions actually processed: ")?;
    if transactions == 0.0 || latencies.is_empty() {
        return Err("pgbench got no transaction through".into());
    }
    Ok(Sample {
        cpu: cpu.as_secs_f64() * 1e6 / transactions,
        throughput: figure(&output, "tps = ")?,
        median: percentile(&latencies, 0.5),
        p99: percentile(&latencies, 0.99),
    })
}

/// One run of a script of pgbench's through a proxy, in the simple protocol.
pub fn run_script(lab: &Lab, proxy: &Proxy, script: &Path, clients: usize, duration: Duration) -> Outcome<Sample> {
    let mut command = common(lab, clients, duration);
    command.args(["-M", "simple", "--sampling-rate", SAMPLING, "-f"]).arg(script);
    sample(lab, proxy, command, duration)
}

fn command(lab: &Lab, cell: &Cell, duration: Duration) -> Command {
    let mut command = common(lab, cell.clients, duration);
    match cell.load {
        Load::Select(protocol) => command.args(["-S", "-M", protocol.name(), "--sampling-rate", SAMPLING]),
        Load::Tpcb => command.args(["-M", "simple"]),
        Load::Connect => command.args(["-S", "-C", "-M", "simple"]),
    };
    command
}

fn common(lab: &Lab, clients: usize, duration: Duration) -> Command {
    let mut command = lab.pgbench();
    let threads = if clients == 1 { "1" } else { "2" };
    command.args(["-n", "-c", &clients.to_string(), "-j", threads, "-T", &duration.as_secs().to_string()]);
    command.arg("--log").arg("--log-prefix").arg(lab.directory().join("transactions"));
    command
}

/// Runs pgbench to its end against a port of 127.0.0.1 and returns what it printed.
fn finish(lab: &Lab, mut command: Command, port: u16, limit: Duration) -> Outcome<String> {
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, DATABASE]);
    let (out, log) = (lab.directory().join("pgbench.out"), lab.directory().join("pgbench.log"));
    command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&log)?).stdin(Stdio::null());
    let status = wait(lab, command, limit)?;
    if status.is_some_and(|status| status.success()) {
        return Ok(fs::read_to_string(&out)?);
    }
    let how = status.map_or_else(|| format!("did not end within {limit:?}"), |status| format!("ended with {status}"));
    Err(format!("pgbench {how}:\n{}", last_lines(&log)).into())
}

/// Waits for the end of a command, and kills it when it takes longer.
fn wait(lab: &Lab, mut command: Command, limit: Duration) -> Outcome<Option<ExitStatus>> {
    let mut child = command.spawn().map_err(|error| format!("cannot run pgbench: {error}"))?;
    lab.watch(child.id())?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The number after `label` in what pgbench printed.
fn figure(output: &str, label: &str) -> Outcome<f64> {
    let rest = output.lines().find_map(|line| line.strip_prefix(label));
    let number = rest.and_then(|rest| rest.split([' ', '/']).next()?.parse().ok());
    number.ok_or_else(|| format!("pgbench printed no `{label}…`:\n{output}").into())
}

/// Reads and removes the logs of pgbench's threads; sorted milliseconds. The third of a line's fields is microseconds.
fn take_latencies(directory: &Path) -> Outcome<Vec<f64>> {
    let entries = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let is_log = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("transactions."))
    };
    let mut latencies = Vec::new();
    for path in entries.filter(is_log) {
        let text = fs::read_to_string(&path)?;
        let fields = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
        latencies.extend(fields.map(|microseconds| microseconds / 1e3));
        fs::remove_file(&path)?;
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}
