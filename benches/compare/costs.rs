//! What a part of Poolhouse costs: the same load with it and without it, in turns, on processes of the same program.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use poolhouse_core::sql::Cache;
use poolhouse_lab::throwaway::free_port;

use super::{
    Outcome,
    cells::{Cell, Load, Protocol},
    idle::Client,
    lab::Lab,
    load::{self, Sample},
    proxy::Proxy,
    series::Spread,
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// `/metrics` every second and SHOW CLIENTS every ten, beside many idle clients; relative to nobody who looks.
    Watched,
    /// The same looks at a process that has nothing else to do, and what a second's worth of them adds to the CPU of a second
    /// under load. Other noise than that of the pairs, and much less.
    Looks,
    /// Reads routed to a replica; relative to all on the primary, for which there is no choice.
    Routing,
    /// Statements of which no two are alike; relative to those that differ in values alone.
    Distinct,
    /// Microseconds to find a statement of 500 bytes among the known ones.
    Verdict,
}

/// Idle clients beside those that are watched.
const IDLE: usize = 10_000;

/// How often the metrics are read, and SHOW CLIENTS after so many of them.
const PERIOD: Duration = Duration::from_secs(1);
const CLIENTS_EVERY: u32 = 10;

/// Seconds' worth of looks for one figure.
const LOOKS: u32 = 100;

/// How often a verdict is looked up for one figure.
const LOOKUPS: u32 = 200_000;

const WARM_UP: Duration = Duration::from_secs(1);

const BUSY: Cell = Cell { load: Load::Select(Protocol::Simple), clients: 50 };

/// A cost with what was measured in each round.
pub struct Measured {
    pub cost: Cost,
    /// CPU with it relative to without; for a verdict the time.
    pub cpu: Vec<f64>,
    /// The 99th percentile of latency, likewise; nothing for a verdict.
    pub p99: Vec<f64>,
}

impl Cost {
    pub const ALL: [Cost; 5] = [Cost::Watched, Cost::Looks, Cost::Routing, Cost::Distinct, Cost::Verdict];

    /// What BENCH_ONLY chooses by.
    pub fn name(self) -> &'static str {
        match self {
            Cost::Watched => "watched",
            Cost::Looks => "looks",
            Cost::Routing => "routing",
            Cost::Distinct => "distinct",
            Cost::Verdict => "verdict",
        }
    }

    pub fn title(self) -> String {
        match self {
            Cost::Watched => format!(
                "CPU when `/metrics` is read every second and SHOW CLIENTS every ten, with {IDLE} idle clients, to unwatched"
            ),
            Cost::Looks => format!(
                "CPU of a load, and of as many such looks at {IDLE} idle clients as are made meanwhile, to the load alone"
            ),
            Cost::Routing => "CPU of reads routed to a replica, to all on the primary".to_owned(),
            Cost::Distinct => "CPU of statements no two of which are alike, to those that differ in values".to_owned(),
            Cost::Verdict => "µs to find the verdict on a known statement of 500 bytes".to_owned(),
        }
    }

    /// Not more than this, where there is a goal.
    pub fn goal(self) -> Option<f64> {
        match self {
            Cost::Watched | Cost::Looks => Some(1.03),
            Cost::Routing => Some(1.05),
            Cost::Distinct => None,
            Cost::Verdict => Some(1.0),
        }
    }

    pub fn measure(self, lab: &Lab, rounds: usize, round: Duration) -> Outcome<Measured> {
        let (cpu, p99) = match self {
            Cost::Watched => watched(lab, rounds, round)?,
            Cost::Looks => looks(lab, rounds, round)?,
            Cost::Routing => routing(rounds, round)?,
            Cost::Distinct => distinct(lab, rounds, round)?,
            Cost::Verdict => ((0..rounds).map(|_| verdict()).collect(), Vec::new()),
        };
        Ok(Measured { cost: self, cpu, p99 })
    }
}

impl Measured {
    pub fn cpu(&self) -> Option<Spread> {
        Spread::of(self.cpu.clone())
    }

    pub fn p99(&self) -> Option<Spread> {
        Spread::of(self.p99.clone())
    }
}

/// The ratios of CPU and of the 99th percentile: with it to without it, which take turns in going first.
type Ratios = (Vec<f64>, Vec<f64>);

fn ratios(rounds: usize, mut run: impl FnMut(bool) -> Outcome<Sample>) -> Outcome<Ratios> {
    let (mut cpu, mut p99) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let with_first = round % 2 == 0;
        let (first, second) = (run(with_first)?, run(!with_first)?);
        let (with, without) = if with_first { (first, second) } else { (second, first) };
        eprintln!("with    {with}\nwithout {without}");
        cpu.push(with.cpu / without.cpu);
        p99.push(with.p99 / without.p99);
    }
    Ok((cpu, p99))
}

fn watched(lab: &Lab, rounds: usize, round: Duration) -> Outcome<Ratios> {
    let (proxy, http, _crowd) = crowded(lab)?;
    ratios(rounds, |with| {
        let done = Arc::new(AtomicBool::new(!with));
        let (stop, port) = (done.clone(), proxy.port());
        let watcher = thread::spawn(move || watch(port, http, &done).map_err(|error| error.to_string()));
        let sample = load::run(lab, &proxy, &BUSY, round);
        stop.store(true, Ordering::Relaxed);
        watcher.join().map_err(|_| "the watcher panicked")??;
        sample
    })
}

/// A process with many idle clients, and where its pages are.
fn crowded(lab: &Lab) -> Outcome<(Proxy, u16, Vec<Client>)> {
    let http = free_port()?;
    let proxy = lab.launch_poolhouse(&format!("[admin]\nhttp = \"127.0.0.1:{http}\"\nusers = [\"bench\"]\n"), "")?;
    let crowd = (0..IDLE).map(|_| Client::connect(proxy.port())).collect::<Outcome<Vec<Client>>>()?;
    load::warm_up(lab, &proxy, &BUSY, WARM_UP)?;
    Ok((proxy, http, crowd))
}

fn looks(lab: &Lab, rounds: usize, round: Duration) -> Outcome<Ratios> {
    let (proxy, http, _crowd) = crowded(lab)?;
    let mut console = Client::connect_to(proxy.port(), "pgbouncer")?;
    let mut cpu = Vec::new();
    for _ in 0..rounds {
        let load = load::run(lab, &proxy, &BUSY, round)?;
        let before = proxy.cpu_time()?;
        (0..LOOKS).try_for_each(|number| look(&mut console, http, number))?;
        let look = (proxy.cpu_time()? - before).as_secs_f64() * 1e6 / f64::from(LOOKS);
        let second = load.cpu * load.throughput;
        eprintln!("a second's looks take {look:.0} µs, a second of load {second:.0} µs: {load}");
        cpu.push(1.0 + look / second);
    }
    Ok((cpu, Vec::new()))
}

/// Reads the metrics, and every so often looks at the clients.
fn look(console: &mut Client, http: u16, number: u32) -> Outcome<()> {
    let mut page = TcpStream::connect((Ipv4Addr::LOCALHOST, http))?;
    page.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    page.read_to_string(&mut text)?;
    if !text.starts_with("HTTP/1.1 200") {
        return Err("the metrics cannot be read".into());
    }
    if number.is_multiple_of(CLIENTS_EVERY) {
        console.query("SHOW CLIENTS")?;
    }
    Ok(())
}

/// Looks until it is told that all is done.
fn watch(port: u16, http: u16, done: &AtomicBool) -> Outcome<()> {
    if done.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut console = Client::connect_to(port, "pgbouncer")?;
    let mut looks = 0;
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        look(&mut console, http, looks)?;
        looks += 1;
        thread::sleep(PERIOD.saturating_sub(began.elapsed()));
    }
    Ok(())
}

fn routing(rounds: usize, round: Duration) -> Outcome<Ratios> {
    let lab = Lab::start(1, 1)?;
    let routed = lab.launch_poolhouse("", "[clusters.main.routing]\nreads = \"replica\"\n")?;
    let unrouted = lab.launch_poolhouse("", "[clusters.main.routing]\nreads = \"primary\"\n")?;
    for proxy in [&routed, &unrouted] {
        load::warm_up(&lab, proxy, &BUSY, WARM_UP)?;
    }
    ratios(rounds, |with| load::run(&lab, if with { &routed } else { &unrouted }, &BUSY, round))
}

/// The name of a column tells statements apart; as many digits are a value in the others.
fn distinct(lab: &Lab, rounds: usize, round: Duration) -> Outcome<Ratios> {
    let script = |name: &str, sql: &str| {
        let path = lab.directory().join(name);
        let text = format!("\\set n random(1000000000, 2000000000)\n{sql}\n");
        fs::write(&path, text).map(|()| path)
    };
    let all_distinct = script("distinct.sql", "SELECT abalance AS c:n FROM pgbench_accounts WHERE aid = 77;")?;
    let alike = script("alike.sql", "SELECT abalance AS c FROM pgbench_accounts WHERE aid = 77 AND :n > 7;")?;
    let proxy: Proxy = lab.launch_poolhouse("", "")?;
    load::warm_up(lab, &proxy, &BUSY, WARM_UP)?;
    ratios(rounds, |with| load::run_script(lab, &proxy, if with { &all_distinct } else { &alike }, BUSY.clients, round))
}

/// Microseconds.
fn verdict() -> f64 {
    let columns: Vec<String> = (0..46).map(|number| format!("column_{number:02}")).collect();
    let text = |number: u32| format!("SELECT {} FROM ticket WHERE id = {number:08}", columns.join(","));
    let mut cache = Cache::new_seeded(1_000, 1 << 20, 7);
    let texts: Vec<String> = (0..64).map(text).collect();
    assert!(texts.iter().all(|text| (490..=520).contains(&text.len())), "{} bytes", texts[0].len());
    texts.iter().for_each(|text| drop(cache.verdict(text.as_bytes())));
    let (began, misses) = (Instant::now(), cache.misses());
    for number in 0..LOOKUPS {
        let text = &texts[number as usize % texts.len()];
        std::hint::black_box(cache.verdict(std::hint::black_box(text.as_bytes())));
    }
    assert_eq!(cache.misses(), misses, "all are known");
    began.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKUPS)
}
