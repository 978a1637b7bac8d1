//! What the page of metrics shows, read once, so that all figures of the page agree.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    admin::Desk,
    clients::Activity,
    databases::Cluster,
    frontend::CacheFigures,
    metrics::{Account, Figures},
};
use poolhouse_core::topology::Role;

/// By the names of the database and the user.
type ByName<T> = BTreeMap<(String, String), T>;

/// Everything at one moment.
pub struct View<'d> {
    pub desk: &'d Desk,
    /// Nodes, and users of histograms, are told apart.
    pub by_node: bool,
    pub process: Option<Process>,
    pub clusters: Vec<Arc<Cluster>>,
    pub accounts: ByName<Read>,
    pub clients: ByName<Clients>,
    /// Clients that are pinned, by what for.
    pub pinned: BTreeMap<String, u32>,
    pub nodes: Vec<Seen>,
    pub verdicts: CacheFigures,
    /// How many prepared statements are kept, and their bytes.
    pub prepared: (usize, usize),
}

impl<'d> View<'d> {
    pub fn of(desk: &'d Desk) -> View<'d> {
        let mut accounts: ByName<Read> = ByName::new();
        for account in desk.frontend.accounts.all() {
            accounts.entry((account.database.to_string(), account.user.to_string())).or_default().add(&account);
        }
        let (clients, pinned) = clients(desk);
        let clusters = desk.clusters();
        View {
            desk,
            by_node: desk.catalog.load().settings.metrics_by_node,
            process: Process::read(),
            accounts,
            clients,
            pinned,
            nodes: nodes(&clusters),
            clusters: clusters.to_vec(),
            verdicts: desk.frontend.watch.cache_figures(),
            prepared: desk.frontend.prepared_statements(),
        }
    }
}

/// What the system says of this process (manual, `proc(5)`).
#[derive(Clone, Copy)]
pub struct Process {
    pub started: f64,
    pub cpu: f64,
    pub memory: f64,
    pub files: f64,
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
pub struct Clients {
    pub active: u32,
    pub idle: u32,
    pub waiting: u32,
    pub since: Option<Instant>,
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

fn clients(desk: &Desk) -> (ByName<Clients>, BTreeMap<String, u32>) {
    let accounts = desk.frontend.accounts.all();
    let mut by_account: HashMap<*const Account, Clients> = HashMap::new();
    for account in &accounts {
        let clients = by_account.entry(Arc::as_ptr(account)).or_default();
        account.waiting_logins().into_iter().for_each(|since| clients.wait(since));
    }
    let mut pinned: BTreeMap<String, u32> = BTreeMap::new();
    for slot in desk.frontend.registry.slots() {
        let (activity, pin) = slot.state();
        by_account.entry(Arc::as_ptr(&slot.account)).or_default().count(activity);
        for reason in pin.iter().flat_map(|pin| pin.why.reason.split(", ")) {
            *pinned.entry(reason.to_owned()).or_default() += 1;
        }
    }
    let mut clients: ByName<Clients> = ByName::new();
    for account in &accounts {
        if let Some(of) = by_account.get(&Arc::as_ptr(account)) {
            clients.entry((account.database.to_string(), account.user.to_string())).or_default().merge(of);
        }
    }
    (clients, pinned)
}

/// What the accounts of a database and user held at one moment, so that all figures of the page agree. What nodes of the
/// same name have done, of clusters that the database was on one after the other, is one series.
#[derive(Default)]
pub struct Read {
    pub logins: u64,
    /// Logins at servers that have failed, by node and SQLSTATE.
    pub login_failures: BTreeMap<(String, String), u64>,
    pub by_node: BTreeMap<Arc<str>, Figures>,
    pub all: Figures,
}

impl Read {
    fn add(&mut self, account: &Account) {
        self.logins += account.logins();
        for ((node, code), count) in account.login_failures() {
            *self.login_failures.entry((node.into(), code)).or_default() += count;
        }
        for (node, figures) in account.by_node() {
            self.all.merge(&figures);
            self.by_node.entry(node).or_default().merge(&figures);
        }
    }
}

/// A node of a cluster.
pub struct Seen {
    /// The names of the cluster and the node.
    pub names: [String; 2],
    pub state: &'static str,
    pub role: Option<Role>,
    pub is_primary: bool,
    pub timeline: u32,
    pub lag_bytes: Option<u64>,
    pub lag: Option<Duration>,
    pub open: usize,
    pub lent: usize,
    pub most: usize,
    pub age: Duration,
}

fn nodes(clusters: &[Arc<Cluster>]) -> Vec<Seen> {
    let now = Instant::now();
    let mut nodes = Vec::new();
    for cluster in clusters {
        let topology = cluster.monitor.topology();
        for (id, node) in topology.in_use() {
            let place = cluster.node(id);
            let primary = topology.primary.and_then(|primary| topology.node(primary));
            let is_primary = topology.primary == Some(id);
            let lag = primary.filter(|_| node.lsn > 0 && !is_primary);
            nodes.push(Seen {
                names: [cluster.name.to_string(), place.name.to_string()],
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
            });
        }
    }
    nodes
}
