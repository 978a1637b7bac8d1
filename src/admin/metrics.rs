//! Metrics in Prometheus' text format: what there is, in base units, with bounded labels. docs/metrics.md lists the same,
//! and a test compares the two. Everything is read when it is asked for; nothing is counted for this alone.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    fs,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use super::Desk;
use crate::{
    frontend::Activity,
    metrics::{Account, Count, Distribution, Errors, Figures, SHOWN_BOUNDS},
    text::plain,
};
use poolhouse_core::topology::{Role, State};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

/// Declares the metrics, each a constant of its own and all of them in a list.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $constant: &Metric =
            &Metric { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] };)*

        /// All metrics, in the order of the page.
        #[cfg(test)]
        const ALL: &[&Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD: Gauge "poolhouse_build_info" ["version"] "Always 1; the label says which version runs.";
    STARTED: Gauge "process_start_time_seconds" [] "When the process began, in seconds since 1970.";
    CPU: Counter "process_cpu_seconds_total" [] "Time of the processor that the process has used, in seconds.";
    MEMORY: Gauge "process_resident_memory_bytes" [] "Memory that the process holds, in bytes.";
    FILES: Gauge "process_open_fds" [] "Open file descriptors.";
    READY: Gauge "poolhouse_ready" ["for"] "1 when Poolhouse can serve writes, or reads; 0 otherwise.";
    CONNECTED: Gauge "poolhouse_clients_connected" []
        "Clients that have proved who they are, those that still wait for a server to begin among them.";
    STRANGERS: Gauge "poolhouse_connections_logging_in" [] "Connections that have not proved yet who they are.";
    CROWDED_OUT: Counter "poolhouse_connections_crowded_out_total" []
        "Connections that had to give way before they had proved who they are, since there were too many.";
    CLIENTS: Gauge "poolhouse_clients" ["database", "user", "state"]
        "Clients that are logged in: active ones have a server connection, waiting ones wait for one, idle ones need none.";
    OLDEST_WAIT: Gauge "poolhouse_client_oldest_wait_seconds" ["database", "user"]
        "How long the client has waited that waits longest for a server connection; 0 when none waits.";
    SERVERS: Gauge "poolhouse_servers" ["database", "user", "node", "state"]
        "Server connections in pools: lent to clients, idle, or opening.";
    WAITS: Histogram "poolhouse_checkout_wait_seconds" ["database", "user"]
        "How long clients waited for server connections, of those that had to.";
    QUERY_TIME: Histogram "poolhouse_query_duration_seconds" ["database", "user", "node"]
        "From sending a query to a server until its ReadyForQuery.";
    TRANSACTION_TIME: Histogram "poolhouse_transaction_duration_seconds" ["database", "user", "node"]
        "From the first query of a transaction until its end.";
    QUERIES: Counter "poolhouse_queries_total" ["database", "user", "node"]
        "Queries answered, by ReadyForQuery; the node is empty for what Poolhouse has answered itself.";
    TRANSACTIONS: Counter "poolhouse_transactions_total" ["database", "user", "node"] "Transactions ended.";
    ASSIGNMENTS: Counter "poolhouse_server_assignments_total" ["database", "user", "node"]
        "How often a server connection was lent to a client.";
    STATEMENTS: Counter "poolhouse_statements_total" ["database", "user", "node", "verdict"]
        "Statements sent to servers: those that surely only read, and all others (write).";
    CLIENT_RECEIVED: Counter "poolhouse_client_received_bytes_total" ["database", "user"]
        "Bytes from clients after their logins.";
    CLIENT_SENT: Counter "poolhouse_client_sent_bytes_total" ["database", "user"] "Bytes to clients after their logins.";
    SERVER_RECEIVED: Counter "poolhouse_server_received_bytes_total" ["database", "user", "node"]
        "Bytes from servers while their connections were lent.";
    SERVER_SENT: Counter "poolhouse_server_sent_bytes_total" ["database", "user", "node"]
        "Bytes to servers while their connections were lent.";
    PARSES: Counter "poolhouse_named_parses_total" ["database", "user", "side"]
        "Parse messages for named statements: from clients, and to servers.";
    BINDS: Counter "poolhouse_named_binds_total" ["database", "user"]
        "Bind messages for named statements that were sent to servers.";
    PINS: Counter "poolhouse_pins_total" ["database", "user"]
        "Sessions that began to keep their server connections between transactions.";
    PINNED: Gauge "poolhouse_pinned_clients" ["reason"]
        "Clients that keep their server connections between transactions, by what they keep them for.";
    LOGINS: Counter "poolhouse_logins_total" ["database", "user"] "Clients that have logged in.";
    SERVER_LOGIN_FAILURES: Counter "poolhouse_server_login_failures_total" ["database", "user", "node", "code"]
        "Logins at servers that have failed, by the SQLSTATE of the error.";
    SERVER_REFUSES: Gauge "poolhouse_server_refuses" ["database", "user", "node"]
        "1 while a server lets no login of this database and user in; others serve as far as they can.";
    ERRORS: Counter "poolhouse_errors_total" ["database", "user", "side", "class"]
        "Errors that clients got, by who reported them (server or poolhouse) and the class of their SQLSTATE.";
    REFUSALS: Counter "poolhouse_refused_clients_total" ["code"] "Clients that were not let in, by the SQLSTATE they were told.";
    VERDICTS: Counter "poolhouse_verdict_cache_lookups_total" ["result"]
        "Texts of statements that were judged: found among those known (hit), or parsed (miss).";
    VERDICT_EVICTIONS: Counter "poolhouse_verdict_cache_evictions_total" []
        "Known texts that had to make room for others.";
    VERDICT_ENTRIES: Gauge "poolhouse_verdict_cache_entries" [] "Known texts.";
    VERDICT_BYTES: Gauge "poolhouse_verdict_cache_bytes" [] "What they take, in bytes.";
    PREPARED: Gauge "poolhouse_prepared_statements" [] "Different prepared statements that are kept for clients.";
    PREPARED_BYTES: Gauge "poolhouse_prepared_statements_bytes" [] "What their texts take, in bytes.";
    HELD: Gauge "poolhouse_held_statements" ["cluster"] "Statements that wait for a server that can run them.";
    HELD_TOTAL: Counter "poolhouse_held_statements_total" ["cluster", "end"]
        "Statements that had to wait for a server that can run them, by how that ended: served, failed, or their clients had left.";
    FAILOVERS: Counter "poolhouse_failovers_total" ["cluster"] "How often another node became the primary.";
    RELOADS: Counter "poolhouse_reloads_total" ["result"]
        "How often the configuration was read again: taken over (ok), or wrong (refused).";
    NODE_STATE: Gauge "poolhouse_node_state" ["cluster", "node", "state"] "1 for the state that the node is in.";
    NODE_ROLE: Gauge "poolhouse_node_role" ["cluster", "node", "role"] "1 for the role that the node says it has.";
    NODE_PRIMARY: Gauge "poolhouse_node_is_primary" ["cluster", "node"] "1 for the node that takes writes.";
    NODE_TIMELINE: Gauge "poolhouse_node_timeline" ["cluster", "node"] "The node's timeline; 0 when that is not known.";
    NODE_LAG_BYTES: Gauge "poolhouse_node_lag_bytes" ["cluster", "node"]
        "WAL of the primary that a replica has not replayed, as they were last asked, in bytes.";
    NODE_LAG: Gauge "poolhouse_node_lag_seconds" ["cluster", "node"]
        "For how long a replica may lack commits of the primary, at most, as it was last asked.";
    NODE_CONNECTIONS: Gauge "poolhouse_node_connections" ["cluster", "node", "state"]
        "Server connections of all pools: lent, or idle.";
    NODE_MAX: Gauge "poolhouse_node_connections_max" ["cluster", "node"] "How many connections the node may have.";
    NODE_SINCE: Gauge "poolhouse_node_state_age_seconds" ["cluster", "node"]
        "How long the node has been in its state and role.";
}

/// The page while it is written.
struct Page(String);

impl Page {
    fn head(&mut self, metric: &Metric) {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let Metric { name, help, .. } = metric;
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, metric: &Metric, values: &[&str], value: f64) {
        self.line(metric, "", values, None, value);
    }

    fn line(&mut self, metric: &Metric, suffix: &str, values: &[&str], bound: Option<&str>, value: f64) {
        let _ = write!(self.0, "{}{suffix}", metric.name);
        let bound = bound.map(|bound| ("le", bound));
        let labels = metric.labels.iter().copied().zip(values.iter().copied()).chain(bound);
        for (at, (label, value)) in labels.enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, escaped(value));
        }
        let close = if values.is_empty() && bound.is_none() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    fn histogram(&mut self, metric: &Metric, values: &[&str], held: &Distribution) {
        for micros in SHOWN_BOUNDS {
            let bound = (micros as f64 / 1e6).to_string();
            self.line(metric, "_bucket", values, Some(&bound), held.up_to(micros) as f64);
        }
        self.line(metric, "_bucket", values, Some("+Inf"), held.count() as f64);
        self.line(metric, "_sum", values, None, held.sum().as_secs_f64());
        self.line(metric, "_count", values, None, held.count() as f64);
    }
}

/// A label's value as the format wants it ("Text-based format": backslash, quote and line feed are escaped), which says what
/// the console says.
fn escaped(value: &str) -> String {
    plain(value).replace('\\', "\\\\").replace('"', "\\\"")
}

/// The whole page.
pub fn page(desk: &Desk) -> String {
    let mut page = Page(String::new());
    process(&mut page);
    page.head(READY);
    for (what, reads) in [("writes", false), ("reads", true)] {
        page.sample(READY, &[what], f64::from(u8::from(desk.ready(reads).is_ok())));
    }
    clients(desk, &mut page);
    servers(desk, &mut page);
    traffic(desk, &mut page);
    events(desk, &mut page);
    nodes(desk, &mut page);
    page.0
}

fn process(page: &mut Page) {
    page.head(BUILD);
    page.sample(BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
    let Some(process) = Process::read() else { return };
    for (metric, value) in
        [(STARTED, process.started), (CPU, process.cpu), (MEMORY, process.memory), (FILES, process.files)]
    {
        page.head(metric);
        page.sample(metric, &[], value);
    }
}

/// What the system says of this process (manual, `proc(5)`).
struct Process {
    started: f64,
    cpu: f64,
    memory: f64,
    files: f64,
}

impl Process {
    fn read() -> Option<Process> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program comes first, in brackets, and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let uptime: f64 = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs_f64();
        Some(Process {
            started: now - uptime + field(22)? / ticks,
            cpu: (field(14)? + field(15)?) / ticks,
            memory: field(24)? * rustix::param::page_size() as f64,
            files: open_files()? as f64,
        })
    }
}

fn open_files() -> Option<u64> {
    const FILES: &str = "/proc/self/fd";
    // The size of the directory is their number since Linux 6.2; to read it takes long when there are many.
    match fs::metadata(FILES).ok()?.len() {
        0 => Some(fs::read_dir(FILES).ok()?.count() as u64),
        files => Some(files),
    }
}

/// The clients of one database and user, by what they do.
#[derive(Default)]
struct Clients {
    active: u32,
    idle: u32,
    waiting: u32,
    since: Option<Instant>,
}

impl Clients {
    fn wait(&mut self, since: Instant) {
        self.waiting += 1;
        self.since = Some(self.since.map_or(since, |earliest| earliest.min(since)));
    }

    fn merge(&mut self, other: &Clients) {
        self.active += other.active;
        self.idle += other.idle;
        self.waiting += other.waiting;
        self.since = self.since.into_iter().chain(other.since).min();
    }

    fn count(&mut self, activity: Activity) {
        match activity {
            Activity::Active => self.active += 1,
            Activity::Idle => self.idle += 1,
            Activity::Waiting { since } => self.wait(since),
        }
    }
}

fn clients(desk: &Desk, page: &mut Page) {
    let registry = &desk.frontend.registry;
    page.head(CONNECTED);
    page.sample(CONNECTED, &[], registry.connected() as f64);
    let strangers = &desk.frontend.strangers;
    page.head(STRANGERS);
    page.sample(STRANGERS, &[], strangers.len() as f64);
    page.head(CROWDED_OUT);
    page.sample(CROWDED_OUT, &[], strangers.evicted() as f64);
    let accounts = desk.frontend.accounts.all();
    let mut by_account: HashMap<*const Account, Clients> = HashMap::new();
    for account in &accounts {
        let clients = by_account.entry(Arc::as_ptr(account)).or_default();
        account.waiting_logins().into_iter().for_each(|since| clients.wait(since));
    }
    let mut pinned: BTreeMap<String, u32> = BTreeMap::new();
    for slot in registry.slots() {
        let (activity, pin) = slot.state();
        by_account.entry(Arc::as_ptr(&slot.account)).or_default().count(activity);
        for reason in pin.iter().flat_map(|pin| pin.why.reason.split(", ")) {
            *pinned.entry(reason.to_owned()).or_default() += 1;
        }
    }
    let mut clients: BTreeMap<(&str, &str), Clients> = BTreeMap::new();
    for account in &accounts {
        if let Some(of) = by_account.get(&Arc::as_ptr(account)) {
            clients.entry((&account.database, &account.user)).or_default().merge(of);
        }
    }
    page.head(CLIENTS);
    for ((database, user), of) in &clients {
        for (state, count) in [("active", of.active), ("idle", of.idle), ("waiting", of.waiting)] {
            page.sample(CLIENTS, &[database, user, state], count.into());
        }
    }
    page.head(PINNED);
    for (reason, count) in &pinned {
        page.sample(PINNED, &[reason], (*count).into());
    }
    page.head(OLDEST_WAIT);
    for ((database, user), of) in &clients {
        let wait = of.since.map_or(Duration::ZERO, |since| since.elapsed());
        page.sample(OLDEST_WAIT, &[database, user], wait.as_secs_f64());
    }
}

fn servers(desk: &Desk, page: &mut Page) {
    page.head(SERVER_REFUSES);
    for ((database, user), target) in desk.frontend.targets() {
        for node in target.troubled().ids() {
            page.sample(SERVER_REFUSES, &[&database, &user, &target.cluster.node(node).name], 1.0);
        }
    }
    let mut failures: BTreeMap<[String; 4], u64> = BTreeMap::new();
    for account in desk.frontend.accounts.all() {
        for ((node, code), count) in account.login_failures() {
            let labels = [account.database.to_string(), account.user.to_string(), node.into(), code];
            *failures.entry(labels).or_default() += count;
        }
    }
    page.head(SERVER_LOGIN_FAILURES);
    for (labels, count) in failures {
        page.sample(SERVER_LOGIN_FAILURES, &labels.each_ref().map(String::as_str), count as f64);
    }
    page.head(SERVERS);
    for ((database, user), target) in desk.frontend.targets() {
        for (node, pool) in target.pools() {
            let (name, counts) = (&target.cluster.node(node).name, pool.counts());
            for (state, count) in [("lent", counts.lent), ("idle", counts.idle), ("opening", counts.opening)] {
                page.sample(SERVERS, &[&database, &user, name, state], count as f64);
            }
        }
    }
}

/// What the accounts of a database and user held at one moment, so that all figures of the page agree. What nodes of the
/// same name have done, of clusters that the database was on one after the other, is one series.
#[derive(Default)]
struct Read {
    logins: u64,
    by_node: BTreeMap<Arc<str>, Figures>,
    all: Figures,
}

impl Read {
    fn add(&mut self, account: &Account) {
        self.logins += account.logins();
        for (node, figures) in account.by_node() {
            self.all.merge(&figures);
            self.by_node.entry(node).or_default().merge(&figures);
        }
    }
}

/// By the names of the database and the user.
type ByName = BTreeMap<(String, String), Read>;

fn traffic(desk: &Desk, page: &mut Page) {
    let mut read = ByName::new();
    for account in desk.frontend.accounts.all() {
        read.entry((account.database.to_string(), account.user.to_string())).or_default().add(&account);
    }
    by_user(&read, page, WAITS, |page, labels, of| page.histogram(WAITS, labels, &of.all.waits));
    by_node(&read, page, QUERY_TIME, |page, labels, figures| page.histogram(QUERY_TIME, labels, &figures.queries));
    by_node(&read, page, TRANSACTION_TIME, |page, labels, figures| {
        page.histogram(TRANSACTION_TIME, labels, &figures.transactions);
    });
    for (metric, count) in
        [(QUERIES, Count::Queries), (TRANSACTIONS, Count::Transactions), (ASSIGNMENTS, Count::Assignments)]
    {
        by_node(&read, page, metric, |page, labels, figures| page.sample(metric, labels, figures.count(count) as f64));
    }
    by_node(&read, page, STATEMENTS, |page, labels, figures| {
        for (verdict, count) in [("read", Count::Reads), ("write", Count::Writes)] {
            page.sample(STATEMENTS, &[labels, &[verdict]].concat(), figures.count(count) as f64);
        }
    });
    for (metric, count) in [(CLIENT_RECEIVED, Count::ClientReceived), (CLIENT_SENT, Count::ClientSent)] {
        by_user(&read, page, metric, |page, labels, of| page.sample(metric, labels, of.all.count(count) as f64));
    }
    for (metric, count) in [(SERVER_RECEIVED, Count::ServerReceived), (SERVER_SENT, Count::ServerSent)] {
        by_node(&read, page, metric, |page, labels, figures| page.sample(metric, labels, figures.count(count) as f64));
    }
    by_user(&read, page, PARSES, |page, labels, of| {
        for (side, count) in [("client", Count::ClientParses), ("server", Count::ServerParses)] {
            page.sample(PARSES, &[labels, &[side]].concat(), of.all.count(count) as f64);
        }
    });
    for (metric, count) in [(BINDS, Count::Binds), (PINS, Count::Pins)] {
        by_user(&read, page, metric, |page, labels, of| page.sample(metric, labels, of.all.count(count) as f64));
    }
    by_user(&read, page, LOGINS, |page, labels, of| page.sample(LOGINS, labels, of.logins as f64));
    by_user(&read, page, ERRORS, |page, labels, of| {
        let mut write = |side: &str, errors: &Errors| {
            for (class, count) in errors.by_class() {
                page.sample(ERRORS, &[labels, &[side, class]].concat(), count as f64);
            }
        };
        write("server", &of.all.server_errors);
        write("poolhouse", &of.all.own_errors);
    });
}

/// What happens now and then, and what is kept for all clients together.
fn events(desk: &Desk, page: &mut Page) {
    let frontend = &desk.frontend;
    page.head(REFUSALS);
    for (code, count) in frontend.registry.refusals.all() {
        page.sample(REFUSALS, &[&code], count as f64);
    }
    let cache = frontend.watch.cache_figures();
    page.head(VERDICTS);
    page.sample(VERDICTS, &["hit"], cache.hits as f64);
    page.sample(VERDICTS, &["miss"], cache.misses as f64);
    let (prepared, prepared_bytes) = frontend.prepared_statements();
    for (metric, value) in [
        (VERDICT_EVICTIONS, cache.evictions as f64),
        (VERDICT_ENTRIES, cache.entries as f64),
        (VERDICT_BYTES, cache.bytes as f64),
        (PREPARED, prepared as f64),
        (PREPARED_BYTES, prepared_bytes as f64),
    ] {
        page.head(metric);
        page.sample(metric, &[], value);
    }
    page.head(HELD);
    let clusters = desk.clusters();
    for cluster in clusters.iter() {
        page.sample(HELD, &[&cluster.name], cluster.held.now.load(Ordering::Relaxed) as f64);
    }
    page.head(HELD_TOTAL);
    for cluster in clusters.iter() {
        let held = &cluster.held;
        for (end, count) in [("served", &held.served), ("failed", &held.failed), ("left", &held.left)] {
            page.sample(HELD_TOTAL, &[&cluster.name, end], count.load(Ordering::Relaxed) as f64);
        }
    }
    page.head(FAILOVERS);
    for cluster in clusters.iter() {
        page.sample(FAILOVERS, &[&cluster.name], cluster.failovers.load(Ordering::Relaxed) as f64);
    }
    page.head(RELOADS);
    for (result, count) in ["ok", "refused"].into_iter().zip(&desk.reloads) {
        page.sample(RELOADS, &[result], count.load(Ordering::Relaxed) as f64);
    }
}

fn by_user(read: &ByName, page: &mut Page, metric: &Metric, mut write: impl FnMut(&mut Page, &[&str], &Read)) {
    page.head(metric);
    for ((database, user), of) in read {
        write(page, &[database, user], of);
    }
}

fn by_node(read: &ByName, page: &mut Page, metric: &Metric, mut write: impl FnMut(&mut Page, &[&str], &Figures)) {
    page.head(metric);
    for ((database, user), of) in read {
        for (node, figures) in &of.by_node {
            write(page, &[database, user, node], figures);
        }
    }
}

/// The states of nodes, one of which each of them is in.
const STATES: [State; 7] = [
    State::Unknown,
    State::Up,
    State::Suspect { failures: 0 },
    State::Down,
    State::Stale,
    State::Draining,
    State::Paused,
];

fn nodes(desk: &Desk, page: &mut Page) {
    let now = Instant::now();
    let all = desk.clusters();
    let clusters: Vec<_> = all.iter().map(|cluster| (cluster, cluster.monitor.topology())).collect();
    let mut each = |metric: &Metric, write: &dyn Fn(&mut Page, &Seen<'_>)| {
        page.head(metric);
        for (cluster, topology) in &clusters {
            for (id, node) in topology.in_use() {
                let place = cluster.node(id);
                let primary = topology.primary.and_then(|primary| topology.node(primary));
                let is_primary = topology.primary == Some(id);
                let lag = primary.filter(|_| node.lsn > 0 && !is_primary);
                write(
                    page,
                    &Seen {
                        labels: [&cluster.name, &place.name],
                        state: node.state.name(),
                        role: node.role,
                        is_primary,
                        timeline: node.timeline,
                        lag_bytes: lag.map(|primary| primary.lsn.saturating_sub(node.lsn)),
                        lag: node.fresh_as_of.map(|fresh| now.saturating_duration_since(fresh)),
                        open: place.pools.open(),
                        lent: place.pools.lent(),
                        most: cluster.monitor.settings().max_connections,
                        age: now.saturating_duration_since(node.since),
                    },
                );
            }
        }
    };
    each(NODE_STATE, &|page, seen| {
        for state in STATES.map(State::name) {
            let value = f64::from(u8::from(state == seen.state));
            page.sample(NODE_STATE, &[seen.labels[0], seen.labels[1], state], value);
        }
    });
    each(NODE_ROLE, &|page, seen| {
        for (name, role) in [("primary", Role::Primary), ("replica", Role::Replica)] {
            let value = f64::from(u8::from(seen.role == Some(role)));
            page.sample(NODE_ROLE, &[seen.labels[0], seen.labels[1], name], value);
        }
    });
    each(NODE_PRIMARY, &|page, seen| page.sample(NODE_PRIMARY, &seen.labels, u8::from(seen.is_primary).into()));
    each(NODE_TIMELINE, &|page, seen| page.sample(NODE_TIMELINE, &seen.labels, seen.timeline.into()));
    each(NODE_LAG_BYTES, &|page, seen| {
        if let Some(bytes) = seen.lag_bytes {
            page.sample(NODE_LAG_BYTES, &seen.labels, bytes as f64);
        }
    });
    each(NODE_LAG, &|page, seen| {
        if let Some(lag) = seen.lag {
            page.sample(NODE_LAG, &seen.labels, lag.as_secs_f64());
        }
    });
    each(NODE_CONNECTIONS, &|page, seen| {
        for (state, count) in [("lent", seen.lent), ("idle", seen.open.saturating_sub(seen.lent))] {
            page.sample(NODE_CONNECTIONS, &[seen.labels[0], seen.labels[1], state], count as f64);
        }
    });
    each(NODE_MAX, &|page, seen| page.sample(NODE_MAX, &seen.labels, seen.most as f64));
    each(NODE_SINCE, &|page, seen| page.sample(NODE_SINCE, &seen.labels, seen.age.as_secs_f64()));
}

/// A node at the moment of the page.
struct Seen<'a> {
    labels: [&'a str; 2],
    state: &'static str,
    role: Option<Role>,
    is_primary: bool,
    timeline: u32,
    lag_bytes: Option<u64>,
    lag: Option<Duration>,
    open: usize,
    lent: usize,
    most: usize,
    age: Duration,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert!(metric.name.starts_with("poolhouse_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        }
    }

    #[test]
    fn the_documentation_lists_them() {
        let page = include_str!("../../docs/metrics.md");
        let row = |metric: &Metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let kind = format!("{:?}", metric.kind).to_lowercase();
            format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help)
        };
        let missing: Vec<_> = ALL.iter().map(|metric| row(metric)).filter(|row| !page.contains(row)).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks:\n{}", missing.join("\n"));
        let rows = page.lines().filter(|line| line.starts_with("| `po") || line.starts_with("| `pr")).count();
        assert_eq!(rows, ALL.len(), "docs/metrics.md lists what is not there");
    }

    #[test]
    fn lines_are_as_the_format_wants_them() {
        let mut page = Page(String::new());
        page.head(READY);
        page.sample(READY, &["a\"b\\c\nd"], 1.0);
        page.sample(CONNECTED, &[], 2.5);
        let held = crate::metrics::histogram::Histogram::default();
        held.add(Duration::from_millis(2), 3, crate::metrics::counter::Writers::One);
        page.histogram(WAITS, &["app", "alice"], &held.read());
        let lines: Vec<_> = page.0.lines().collect();
        assert_eq!(lines[1], "# TYPE poolhouse_ready gauge");
        assert_eq!(lines[2], "poolhouse_ready{for=\"a\\\"b\\\\c\\\\u{a}d\"} 1");
        assert_eq!(lines[3], "poolhouse_clients_connected 2.5");
        let labels = "database=\"app\",user=\"alice\"";
        assert!(
            lines.contains(&format!("poolhouse_checkout_wait_seconds_bucket{{{labels},le=\"0.0025\"}} 3").as_str())
        );
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_bucket{{{labels},le=\"0.001\"}} 0").as_str()));
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_bucket{{{labels},le=\"+Inf\"}} 3").as_str()));
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_sum{{{labels}}} 0.006").as_str()));
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_count{{{labels}}} 3").as_str()));
    }
}
