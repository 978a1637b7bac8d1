//! By database, and by user.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::Rows;
use crate::{
    admin::{Desk, Value, table::row},
    clients::{Activity, Slot},
    databases::{DatabaseSettings, Target},
    frontend::CONSOLES,
    net::Address,
    pool::PoolCounts,
};
use poolhouse_core::session::Mode;

/// The name of the console among the databases.
const CONSOLE: &str = CONSOLES[1];

/// What PgBouncer's console, too, calls the way in which it serves its clients.
const CONSOLE_MODE: &str = "statement";

pub fn databases(desk: &Desk) -> Rows {
    let slots = desk.frontend.registry.slots();
    let (live, catalog) = (desk.frontend.live(), desk.catalog.load());
    let configured = &live.databases.by_name;
    let mut rows: Rows = Vec::new();
    for (name, database) in configured {
        rows.push(database_row(desk, name, &database.settings, &slots));
    }
    // Those that a wildcard serves, once somebody has asked for them.
    let served: BTreeMap<String, Arc<Target>> =
        desk.frontend.targets().into_iter().map(|((database, _), target)| (database, target)).collect();
    if let Some(any) = configured.get("*") {
        for name in served.keys().filter(|name| !configured.contains_key(*name)) {
            rows.push(database_row(desk, name, &any.settings, &slots));
        }
    }
    let clients = clients_of(&slots, CONSOLE);
    let port = u64::from(catalog.port);
    rows.push(row![
        CONSOLE,
        Value::Null,
        port,
        CONSOLE,
        CONSOLE,
        0_u64,
        0_u64,
        0_u64,
        0_u64,
        CONSOLE_MODE,
        Value::Null,
        0_u64,
        0_u64,
        0_u64,
        clients,
        0_u64,
        0_u64,
        Value::Null,
    ]);
    rows.sort_by(|one, other| one[0].order(&other[0]));
    rows
}

fn database_row(desk: &Desk, name: &str, settings: &DatabaseSettings, slots: &[Arc<Slot>]) -> Vec<Value> {
    let cluster = &settings.cluster;
    let primary = cluster.monitor.topology().primary;
    let node = primary
        .map(|primary| cluster.node(primary))
        .or_else(|| cluster.monitor.topology().in_use().next().map(|(id, _)| cluster.node(id)));
    let (host, port) = node.map_or((String::new(), 0), |node| place(&node.address));
    let gate = desk.frontend.gates.of(name);
    let lifetime = settings.pool.max_lifetime.unwrap_or_default().as_secs();
    row![
        name,
        host,
        u64::from(port),
        settings.database.as_deref().unwrap_or(name),
        settings.login.as_ref().map(|(user, _)| user.as_str()),
        settings.pool.size,
        settings.pool.min_idle,
        0_u64,
        lifetime,
        mode(settings.session.mode),
        Value::Null,
        0_u64,
        gate.connections(),
        0_u64,
        clients_of(slots, name),
        u64::from(gate.is_paused()),
        u64::from(gate.is_disabled()),
        cluster.name.as_str(),
    ]
}

/// Host, or directory of a socket, and port.
pub(super) fn place(address: &Address) -> (String, u16) {
    match address {
        Address::Tcp { host, port } => (host.clone(), *port),
        Address::Unix { directory, port } => (directory.display().to_string(), *port),
    }
}

fn clients_of(slots: &[Arc<Slot>], database: &str) -> usize {
    slots.iter().filter(|slot| &*slot.account.database == database).count()
}

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Session => "session",
        Mode::Transaction => "transaction",
        Mode::Statement => "statement",
    }
}

/// The clients of one database and user.
#[derive(Default)]
struct ClientCounts {
    active: u64,
    waiting: u64,
    /// With a server connection of their own that is in no pool of others.
    apart: u64,
    waits_since: Option<Instant>,
}

impl ClientCounts {
    fn wait(&mut self, since: Instant) {
        self.waiting += 1;
        self.waits_since = Some(self.waits_since.map_or(since, |earliest| earliest.min(since)));
    }
}

pub fn pools(desk: &Desk) -> Rows {
    let mut clients: BTreeMap<(String, String), ClientCounts> = BTreeMap::new();
    let mut counts: BTreeMap<(String, String), (PoolCounts, &'static str)> = BTreeMap::new();
    for account in desk.frontend.accounts.all() {
        for since in account.waiting_logins() {
            clients.entry((account.database.to_string(), account.user.to_string())).or_default().wait(since);
        }
    }
    for (names, target) in desk.frontend.targets() {
        clients.entry(names.clone()).or_default();
        let mut sum = PoolCounts::default();
        target.pools().for_each(|(_, pool)| sum.merge(pool.counts()));
        counts.insert(names, (sum, mode(target.shared.mode)));
    }
    for slot in desk.frontend.registry.slots() {
        let names = (slot.account.database.to_string(), slot.account.user.to_string());
        let of = clients.entry(names).or_default();
        of.apart += u64::from(slot.about.replicates);
        match slot.activity() {
            Activity::Waiting { since } => of.wait(since),
            Activity::Active | Activity::Idle => of.active += 1,
        }
    }
    let row = |((database, user), of): ((String, String), ClientCounts)| {
        let console = (PoolCounts::default(), CONSOLE_MODE);
        let (counts, mode) = counts.get(&(database.clone(), user.clone())).copied().unwrap_or(console);
        let wait = of.waits_since.map_or(Duration::ZERO, |since| since.elapsed());
        row![
            database,
            user,
            of.active,
            of.waiting,
            0_u64,
            0_u64,
            counts.lent as u64 + of.apart,
            0_u64,
            0_u64,
            counts.idle,
            0_u64,
            0_u64,
            counts.opening,
            wait.as_secs(),
            u64::from(wait.subsec_micros()),
            mode,
            Value::Null,
        ]
    };
    clients.into_iter().map(row).collect()
}

pub fn users(desk: &Desk) -> Rows {
    let catalog = desk.catalog.load();
    let mut names: BTreeSet<String> = catalog.users.iter().map(|user| user.name.clone()).collect();
    let mut clients: BTreeMap<String, u64> = BTreeMap::new();
    for slot in desk.frontend.registry.slots() {
        *clients.entry(slot.account.user.to_string()).or_default() += 1;
    }
    let mut connections: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, user), target) in desk.frontend.targets() {
        let open = target.pools().map(|(_, pool)| pool.counts());
        let open = open.map(|counts| (counts.lent + counts.idle + counts.opening) as u64).sum::<u64>();
        *connections.entry(user).or_default() += open;
    }
    names.extend(clients.keys().chain(connections.keys()).cloned());
    let row = |name: String| {
        let user = catalog.users.iter().find(|user| user.name == name);
        let (clients, connections) = (clients.get(&name).copied(), connections.get(&name).copied());
        row![
            name,
            user.and_then(|user| user.pool_size),
            Value::Null,
            user.and_then(|user| user.pool_mode.clone()),
            0_u64,
            connections.unwrap_or(0),
            0_u64,
            clients.unwrap_or(0),
        ]
    };
    names.into_iter().map(row).collect()
}
