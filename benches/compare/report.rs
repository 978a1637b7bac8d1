//! The results as Markdown: what was measured where, the goals, and one table per figure.

use std::{fmt::Write as _, time::Duration};

use super::{
    Outcome,
    cells::{Cell, Contender, IDLE_CONTENDERS, Load, Protocol},
    costs::{Cost, Measured},
    idle,
    lab::{Lab, POOL_SIZE},
    load::Sample,
    machine,
    series::{Runs, Spread},
};

/// Above this share of the cores in other hands, ratios of single rounds mean little.
const NOISE_MAX: f64 = 0.1;

/// Everything that a run has found out.
pub struct Report {
    date: String,
    shape: String,
    versions: [String; 3],
    command: String,
    rounds: usize,
    round: Duration,
    bouncer_prepares: bool,
    /// How busy others kept the cores, 0 to 1, before each round.
    pub noise: Vec<f64>,
    pub cells: Vec<(Cell, Runs<Sample>)>,
    /// By number of clients.
    pub idle: Vec<(usize, Runs<idle::Sample>)>,
    pub costs: Vec<Measured>,
    pub failed_costs: Vec<(Cost, String)>,
}

/// A figure of a sample, for a table of its own.
struct Figure {
    title: &'static str,
    of: fn(&Sample) -> f64,
    decimals: usize,
    /// What to know about it, below the table.
    note: &'static str,
}

const LATENCY_NOTE: &str = "\nAs pgbench logs it: where it connects per transaction, without that, but with the wait \
                            while its thread connects others.\n";
const CPU_NOTE: &str = "\nLogging the clients in is part of it, once per round: noticeable for haproxy, whose \
                        clients each log in to PostgreSQL.\n";

const FIGURES: [Figure; 4] = [
    Figure { title: "CPU of the proxy, µs per transaction", of: |sample| sample.cpu, decimals: 1, note: CPU_NOTE },
    Figure { title: "Throughput, transactions per second", of: |sample| sample.throughput, decimals: 0, note: "" },
    Figure { title: "Median latency, ms", of: |sample| sample.median, decimals: 2, note: LATENCY_NOTE },
    Figure { title: "99th percentile of latency, ms", of: |sample| sample.p99, decimals: 2, note: LATENCY_NOTE },
];

impl Report {
    pub fn new(lab: &Lab, command: String, rounds: usize, round: Duration) -> Outcome<Report> {
        Ok(Report {
            date: machine::date()?,
            shape: machine::shape()?,
            versions: lab.versions()?,
            command,
            rounds,
            round,
            bouncer_prepares: lab.bouncer_prepares(),
            noise: Vec::new(),
            cells: Vec::new(),
            idle: Vec::new(),
            costs: Vec::new(),
            failed_costs: Vec::new(),
        })
    }

    /// One line for each measurement that could not be made.
    pub fn failures(&self) -> Vec<String> {
        let of_cells = self.cells.iter().map(|(cell, runs)| (cell.name(), &runs.failures));
        let of_idle = self.idle.iter().map(|(clients, runs)| (format!("idle-{clients}"), &runs.failures));
        let lines = of_cells.chain(of_idle).flat_map(|(cell, failures)| {
            let line = move |(contender, why): &(Contender, String)| format!("{cell}, {}: {why}", contender.name());
            failures.iter().map(line).collect::<Vec<String>>()
        });
        let of_costs = self.failed_costs.iter().map(|(cost, why)| format!("{}: {why}", cost.name()));
        lines.chain(of_costs).collect()
    }

    pub fn to_markdown(&self) -> String {
        let mut text = String::from("# Poolhouse, PgBouncer and haproxy side by side\n\n");
        self.write_circumstances(&mut text);
        self.write_goals(&mut text);
        if !self.cells.is_empty() {
            for figure in &FIGURES {
                self.write_figure(&mut text, figure);
            }
            self.write_workers(&mut text);
        }
        self.write_idle(&mut text);
        self.write_costs(&mut text);
        let failures = self.failures();
        if !failures.is_empty() {
            text.push_str("\n## What could not be measured\n\n");
            for failure in failures {
                let _ = writeln!(text, "- {}", failure.trim_end());
            }
        }
        text
    }

    fn write_circumstances(&self, text: &mut String) {
        let _ = writeln!(text, "{} on {}.\n{}.", self.date, self.shape, self.versions.join(", "));
        let seconds = self.round.as_secs();
        let _ = writeln!(text, "{} interleaved rounds of {seconds} s for each cell and contender.", self.rounds);
        let _ = writeln!(text, "Again: `{}`\n", self.command);
        text.push_str(&self.noise_line());
        let _ = writeln!(
            text,
            "\npgbench, the proxies and PostgreSQL share the cores, over loopback, without TLS and passwords.\n\
             Poolhouse runs as delivered; PgBouncer without its log of connections, in transaction mode with the same\n\
             pool of {POOL_SIZE}; haproxy understands nothing, has one thread and one server connection per client: a\n\
             floor, not a pooler.{}\n\n\
             Cells show the median over the rounds, then in brackets the ratio to PgBouncer in the same round: its\n\
             median, and from least to most. Differences below 10 % are ties.",
            self.prepared_note()
        );
    }

    fn prepared_note(&self) -> &'static str {
        if self.bouncer_prepares {
            return "";
        }
        " In the prepared rows PgBouncer, which has no prepared statements in transaction mode before\n\
         version 1.21, is in session mode with as many server connections as clients."
    }

    fn noise_line(&self) -> String {
        let Some(noise) = Spread::of(self.noise.clone()) else { return String::new() };
        let percent = |share: f64| share * 100.0;
        let verdict = if noise.median > NOISE_MAX {
            "**The machine was noisy: these figures decide no goal but that of memory; measure again on a quiet one.**"
        } else if noise.most > NOISE_MAX {
            "The machine was quiet most of the time."
        } else {
            "The machine was quiet."
        };
        let (median, most) = (percent(noise.median), percent(noise.most));
        let looks = format!("Others kept the cores busy to {median:.0} % (median of looks between the rounds;");
        format!("{verdict}\n{looks} at most {most:.0} %).\n")
    }

    /// The goals of the project that this run can judge.
    fn write_goals(&self, text: &mut String) {
        let goals: Vec<Goal> = self.cells.iter().flat_map(|(cell, runs)| goals_of(cell, runs)).collect();
        let goals: Vec<Goal> =
            goals.into_iter().chain(self.idle.iter().flat_map(|(clients, runs)| idle_goals(*clients, runs))).collect();
        let goals: Vec<Goal> = goals.into_iter().chain(self.costs.iter().filter_map(cost_goal)).collect();
        if goals.is_empty() {
            return;
        }
        text.push_str("\n## Goals\n\n| what | goal | measured | reached |\n|---|---|---|---|\n");
        for Goal { what, bound, limit, measured } in goals {
            let (sign, reached) = match bound {
                Bound::AtMost => ("≤", measured <= limit),
                Bound::AtLeast => ("≥", measured >= limit),
            };
            let reached = if reached { "yes" } else { "**no**" };
            let _ = writeln!(text, "| {what} | {sign} {limit:.2} | {measured:.2} | {reached} |");
        }
    }

    fn write_figure(&self, text: &mut String, figure: &Figure) {
        let _ = writeln!(text, "\n## {}\n", figure.title);
        write_head(text, "cell", Contender::ALL.map(Contender::name).as_slice());
        for (cell, runs) in &self.cells {
            let columns = Contender::ALL.map(|contender| entry(runs, contender, figure.of, figure.decimals));
            let _ = writeln!(text, "| {} | {} |", cell.title(), columns.join(" | "));
        }
        text.push_str(figure.note);
    }

    fn write_workers(&self, text: &mut String) {
        text.push_str("\n## Poolhouse with 2 workers relative to 1\n\n");
        write_head(text, "cell", &["CPU per transaction", "throughput"]);
        for (cell, runs) in &self.cells {
            let ratio = |of: fn(&Sample) -> f64| {
                let ratio = runs.ratio(Contender::TwoWorkers, Contender::OneWorker, of);
                ratio.map_or_else(|| "–".to_owned(), ratio_words)
            };
            let (cpu, throughput) = (ratio(|sample| sample.cpu), ratio(|sample| sample.throughput));
            let _ = writeln!(text, "| {} | {cpu} | {throughput} |", cell.title());
        }
    }

    fn write_costs(&self, text: &mut String) {
        if self.costs.is_empty() {
            return;
        }
        text.push_str("\n## What parts of Poolhouse cost\n\n");
        let _ = writeln!(text, "With it relative to without it, select-only, simple, 50 clients, 2 workers.\n");
        write_head(text, "what", &["measured", "99th percentile of latency"]);
        for measured in &self.costs {
            let words = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), ratio_words);
            let _ =
                writeln!(text, "| {} | {} | {} |", measured.cost.title(), words(measured.cpu()), words(measured.p99()));
        }
    }

    fn write_idle(&self, text: &mut String) {
        if self.idle.is_empty() {
            return;
        }
        text.push_str("\n## Memory, KiB of PSS that each idle, logged-in client adds\n\n");
        write_head(text, "clients", &IDLE_CONTENDERS.map(Contender::name));
        for (clients, runs) in &self.idle {
            let fresh = IDLE_CONTENDERS.map(|contender| entry(runs, contender, |sample| sample.fresh, 2));
            let used = IDLE_CONTENDERS.map(|contender| entry(runs, contender, |sample| sample.used, 2));
            let _ = writeln!(text, "| {clients}, logged in | {} |", fresh.join(" | "));
            let _ = writeln!(text, "| {clients}, after a query of each | {} |", used.join(" | "));
        }
        if let Some((_, runs)) = self.idle.last() {
            let base = |contender| runs.spread(contender, |sample| sample.base).map_or(f64::NAN, |base| base.median);
            let bases = IDLE_CONTENDERS.map(|contender| format!("{} {:.0}", contender.name(), base(contender)));
            let _ = writeln!(text, "\nThe whole process without clients, in KiB: {}.", bases.join("; "));
        }
    }
}

fn write_head(text: &mut String, first: &str, columns: &[&str]) {
    let _ = writeln!(text, "| {first} | {} |\n|---|{}", columns.join(" | "), "---|".repeat(columns.len()));
}

/// `21.3 (0.92; 0.90–0.95)`; PgBouncer has no ratio to itself.
fn entry<S: Copy>(runs: &Runs<S>, contender: Contender, of: fn(&S) -> f64, decimals: usize) -> String {
    let Some(figure) = runs.spread(contender, of) else { return "–".to_owned() };
    let median = format!("{:.decimals$}", figure.median);
    if contender == Contender::PgBouncer {
        return median;
    }
    let ratio = runs.ratio(contender, Contender::PgBouncer, of);
    ratio.map_or_else(|| median.clone(), |ratio| format!("{median} ({})", ratio_words(ratio)))
}

fn ratio_words(Spread { median, least, most }: Spread) -> String {
    if least == most { format!("{median:.2}") } else { format!("{median:.2}; {least:.2}–{most:.2}") }
}

/// Something to reach.
struct Goal {
    what: String,
    bound: Bound,
    limit: f64,
    measured: f64,
}

enum Bound {
    AtMost,
    AtLeast,
}

/// At 50 clients: CPU no more than PgBouncer's, two workers within 10 % of one. At 50 and 500: throughput no less.
fn goals_of(cell: &Cell, runs: &Runs<Sample>) -> Vec<Goal> {
    use Contender::{OneWorker, PgBouncer, TwoWorkers};
    let is_select = Protocol::ALL.iter().any(|protocol| cell.load == Load::Select(*protocol));
    if !is_select || cell.clients < 50 {
        return Vec::new();
    }
    let goal = |what: &str, bound, limit, measured: Option<Spread>| {
        let what = format!("{what}: {}", cell.title());
        measured.map(|measured| Goal { what, bound, limit, measured: measured.median })
    };
    let cpu = |one, other| runs.ratio(one, other, |sample| sample.cpu);
    let throughput = runs.ratio(TwoWorkers, PgBouncer, |sample| sample.throughput);
    let mut goals = vec![goal("throughput, 2 workers to PgBouncer", Bound::AtLeast, 1.0, throughput)];
    if cell.clients == 50 {
        goals.push(goal("CPU, 1 worker to PgBouncer", Bound::AtMost, 1.0, cpu(OneWorker, PgBouncer)));
        goals.push(goal("CPU, 2 workers to 1", Bound::AtMost, 1.1, cpu(TwoWorkers, OneWorker)));
    }
    goals.into_iter().flatten().collect()
}

fn cost_goal(measured: &Measured) -> Option<Goal> {
    let (limit, spread) = (measured.cost.goal()?, measured.cpu()?);
    Some(Goal { what: measured.cost.title(), bound: Bound::AtMost, limit, measured: spread.median })
}

/// At 5,000 clients: 2 KiB each, and no more after a query, but for what the connections of
/// the pool need that the queries open: a twentieth.
fn idle_goals(clients: usize, runs: &Runs<idle::Sample>) -> Vec<Goal> {
    if clients < 5_000 {
        return Vec::new();
    }
    let workers = [Contender::OneWorker, Contender::TwoWorkers];
    let goals = workers.into_iter().flat_map(|contender| {
        let fresh = runs.spread(contender, |sample| sample.fresh)?;
        let growth = runs.spread(contender, |sample| sample.used / sample.fresh)?;
        let name = contender.name();
        Some([
            Goal {
                what: format!("KiB per idle client of {clients}: {name}"),
                bound: Bound::AtMost,
                limit: 2.0,
                measured: fresh.median,
            },
            Goal {
                what: format!("after a query to before: {name}"),
                bound: Bound::AtMost,
                limit: 1.05,
                measured: growth.median,
            },
        ])
    });
    goals.flatten().collect()
}
