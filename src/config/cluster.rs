//! `[clusters.X]`: the nodes, how they are watched, what happens when the primary is lost, and where reads go.

use std::{sync::Arc, time::Duration};

use toml::de::DeValue;

use super::{
    Database,
    address::{self, SERVER_PORT},
    mistake::{Findings, Place},
    raw::{self, Item},
    value::{Choice, DURATION_DAY, Outside, or},
};
use crate::{
    monitor::{self, Health},
    net::{Address, Tcp},
};
use poolhouse_core::{
    sql::{Lists, Pattern},
    topology::{
        self, Balance, Consistency, FailoverMode, NodeSettings, Preference, Reads, Role, Routing, Rule, Transactions,
    },
};

const NODES_MAX: usize = 100;
const RULES_MAX: usize = 1_000;
const CONNECTIONS_MAX: usize = 100_000;
const FAILURES_MAX: usize = 1000;
const WEIGHT_MAX: f64 = 1000.0;
/// The shortest wait for a server that is not surely a slip of the pen.
const WAIT_MIN: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(3600);

/// The database that health checks ask when nothing names one; every PostgreSQL has it.
const HEALTH_NAME: &str = "postgres";

const ROLES: &[Choice<'static, Role>] = &[("primary", Some(Role::Primary)), ("replica", Some(Role::Replica))];
const FAILOVERS: &[Choice<'static, FailoverMode>] = &[
    ("off", Some(FailoverMode::Off)),
    ("follow", Some(FailoverMode::Follow)),
    ("promote", Some(FailoverMode::Promote)),
];
const READS: &[Choice<'static, Reads>] =
    &[("primary", Some(Reads::Primary)), ("replica", Some(Reads::Replica)), ("any", Some(Reads::Any))];
const BALANCES: &[Choice<'static, Balance>] = &[
    ("least-busy", Some(Balance::LeastBusy)),
    ("round-robin", Some(Balance::RoundRobin)),
    ("random", Some(Balance::Random)),
    ("latency", Some(Balance::Latency)),
];
const CONSISTENCIES: &[Choice<'static, Consistency>] = &[
    ("eventual", Some(Consistency::Eventual)),
    ("session", Some(Consistency::Session)),
    ("global", Some(Consistency::Global)),
];

const PREFERENCES: &[Choice<'static, Preference>] =
    &[("auto", Some(Preference::Auto)), ("primary", Some(Preference::Primary)), ("replica", Some(Preference::Replica))];

const TRANSACTIONS: &[Choice<'static, Transactions>] =
    &[("primary", Some(Transactions::Primary)), ("read-until-write", Some(Transactions::ReadUntilWrite))];

/// A cluster that has been read, with what is settled once the databases are known.
#[derive(Debug)]
pub(super) struct Cluster {
    pub settings: monitor::Settings,
    pub place: Place,
    pub nodes: Option<Place>,
    pub max_connections: Option<Place>,
    /// No health user is named: one of the databases' is borrowed.
    borrows: bool,
    names_database: bool,
}

impl Cluster {
    pub fn read(
        name: &str,
        item: &Item<'_>,
        zone: Option<&str>,
        outside: &Outside<'_>,
        findings: &mut Findings,
    ) -> Cluster {
        let raw = raw::Cluster::read(Some(item), findings);
        refuse_tls(&raw, findings);
        let (addresses, nodes): (_, Vec<NodeSettings>) = nodes(&raw, item, zone, outside, findings).into_iter().unzip();
        warn_of_zone(&nodes, zone, raw.nodes.as_ref(), findings);
        let health = raw::Health::read(raw.health.as_ref(), findings);
        let failover = raw::Failover::read(raw.failover.as_ref(), findings);
        if let Some(patroni) = &failover.patroni {
            patroni.not_yet(
                "remove it: mode = \"follow\" finds the primary that Patroni promotes by asking the nodes",
                findings,
            );
        }
        let mut settings = defaults(name, addresses, nodes);
        read_health(&health, &mut settings.health, outside, findings);
        let topology = &mut settings.topology;
        topology.failures =
            or(&health.failures, topology.failures as usize, |i| i.whole(1..=FAILURES_MAX, findings)) as u32;
        topology.failover = or(&failover.mode, topology.failover, |i| i.choice(FAILOVERS, "", findings));
        settings.hold = or(&failover.hold, settings.hold, |i| i.duration(Duration::ZERO..=DURATION_DAY, findings));
        let topology = &mut settings.topology;
        topology.silence =
            failover.witness_silence.as_ref().and_then(|i| i.time_limit(findings)).unwrap_or(topology.silence);
        settings.fence_limit = fence_limit(&failover, settings.health.interval, findings);
        settings.tcp = tcp(raw.tcp.as_ref(), settings.tcp, findings);
        settings.max_connections =
            or(&raw.max_connections, settings.max_connections, |i| i.whole(1..=CONNECTIONS_MAX, findings));
        settings.connect_timeout =
            or(&raw.connect_timeout, settings.connect_timeout, |i| i.duration(WAIT_MIN..=HOUR, findings));
        settings.routing = routing(raw.routing.as_ref(), &settings.routing, &settings.topology.nodes, findings);
        if settings.topology.failover == FailoverMode::Promote && settings.addresses.len() == 1 {
            let place = failover.mode.as_ref().map_or(&item.place, |mode| &mode.place);
            findings.warning(place, "there is no replica to promote", "add a node, or write \"follow\"");
        }
        Cluster {
            settings,
            place: item.place.clone(),
            nodes: raw.nodes.map(|item| item.place),
            max_connections: raw.max_connections.map(|item| item.place),
            borrows: health.user.is_none(),
            names_database: health.database.is_some(),
        }
    }

    /// Settles who asks the nodes for their health: the named user, else the first database entry that has a fixed
    /// one (`databases` in the order of the file, of this cluster only), else `postgres` without a password.
    pub fn finish(self, databases: &[(String, Database)], findings: &mut Findings) -> monitor::Settings {
        let mut settings = self.settings;
        if !self.borrows {
            return settings;
        }
        let fixed = databases.iter().find_map(|(name, database)| Some((name, database, database.login.as_ref()?)));
        let Some((name, database, login)) = fixed else {
            let what = format!("no health user: checks log in as \"{}\" without a password", settings.health.user);
            let mend = format!("name one under [{}]", raw::join(&self.place.key, "health"));
            findings.warning(&self.place, what, mend);
            return settings;
        };
        settings.health.user = login.user.clone();
        settings.health.password = login.password.clone();
        if !self.names_database && name != "*" {
            settings.health.database = database.database.as_ref().unwrap_or(name).clone();
        }
        settings
    }
}

/// A cluster of which nothing but the nodes is said.
pub(super) fn defaults(name: &str, addresses: Vec<Address>, nodes: Vec<NodeSettings>) -> monitor::Settings {
    monitor::Settings {
        name: name.to_owned(),
        addresses,
        topology: topology::Settings {
            nodes,
            failover: FailoverMode::default(),
            failures: 3,
            silence: Some(Duration::from_secs(3)),
        },
        routing: Routing::default(),
        max_connections: 90,
        health: Health {
            user: HEALTH_NAME.to_owned(),
            password: None,
            database: HEALTH_NAME.to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        },
        hold: Duration::from_secs(30),
        fence_limit: None,
        tcp: Tcp::TO_SERVERS,
        connect_timeout: Duration::from_secs(5),
    }
}

pub(super) fn node(address: &Address) -> NodeSettings {
    NodeSettings { name: address.to_string(), weight: 1.0, role: None, near: true, gone: false }
}

/// A routing section over the one above it, for a cluster of these nodes.
pub(super) fn routing(
    item: Option<&Item<'_>>,
    base: &Routing,
    nodes: &[NodeSettings],
    findings: &mut Findings,
) -> Routing {
    let raw = raw::Routing::read(item, findings);
    let (max_lag, max_lag_bytes) =
        or(&raw.max_lag, (base.max_lag, base.max_lag_bytes), |item| item.lag_limits(findings));
    Routing {
        reads: or(&raw.reads, base.reads, |item| item.choice(READS, "", findings)),
        balance: or(&raw.balance, base.balance, |item| item.choice(BALANCES, "", findings)),
        max_lag,
        max_lag_bytes,
        consistency: or(&raw.consistency, base.consistency, |item| item.choice(CONSISTENCIES, "", findings)),
        causal_wait: or(&raw.causal_wait, base.causal_wait, |item| item.duration(Duration::ZERO..=HOUR, findings)),
        fallback: or(&raw.fallback, base.fallback, |item| item.flag(findings)),
        transactions: or(&raw.transactions, base.transactions, |item| item.choice(TRANSACTIONS, "", findings)),
        lists: lists(&raw, &base.lists, findings),
        rules: match &raw.rules {
            Some(item) => rules(item, nodes, findings).into(),
            None => base.rules.clone(),
        },
    }
}

/// The lists of functions and tables; each replaces the one above it.
fn lists(raw: &raw::Routing<'_>, base: &Arc<Lists>, findings: &mut Findings) -> Arc<Lists> {
    if raw.read_functions.is_none() && raw.write_functions.is_none() && raw.primary_tables.is_none() {
        return base.clone();
    }
    let mut list = |item: &Option<Item<'_>>, base: &[Pattern], functions: bool| match item {
        Some(item) => patterns(item, functions, findings),
        None => base.to_vec(),
    };
    Arc::new(Lists {
        read_functions: list(&raw.read_functions, &base.read_functions, true),
        write_functions: list(&raw.write_functions, &base.write_functions, true),
        primary_tables: list(&raw.primary_tables, &base.primary_tables, false),
    })
}

/// `[[clusters.X.routing.rules]]`.
fn rules(item: &Item<'_>, nodes: &[NodeSettings], findings: &mut Findings) -> Vec<Rule> {
    const MEND: &str = "write it like [[clusters.main.routing.rules]] with user = \"report\" and route = \"replica\"";
    let items = item.list(MEND, findings);
    if items.len() > RULES_MAX {
        findings.mistake(&item.place, format!("has {} rules", items.len()), format!("write at most {RULES_MAX}"));
    }
    items.iter().map(|item| rule(item, nodes, findings)).collect()
}

fn rule(item: &Item<'_>, nodes: &[NodeSettings], findings: &mut Findings) -> Rule {
    let raw = raw::Rule::read(Some(item), findings);
    if matches!(item.value, DeValue::Table(_)) {
        if raw.user.is_none() && raw.database.is_none() && raw.application_name.is_none() {
            findings.mistake(&item.place, "is for no session", "add `user`, `database` or `application_name`");
        }
        if raw.route.is_none() && raw.weights.is_none() {
            findings.mistake(&item.place, "says nothing", "add `route` or `weights`");
        }
    }
    let mut pattern = |item: &Option<Item<'_>>| {
        let item = item.as_ref()?;
        let parsed = Pattern::parse(item.text(findings)?);
        let mend = "write a name, or a regular expression between slashes";
        parsed.map_err(|why| findings.mistake(&item.place, format!("is no regular expression: {why}"), mend)).ok()
    };
    let (user, database, application_name) =
        (pattern(&raw.user), pattern(&raw.database), pattern(&raw.application_name));
    Rule {
        user,
        database,
        application_name,
        route: raw.route.as_ref().and_then(|item| item.choice(PREFERENCES, "", findings)),
        weights: raw.weights.as_ref().map(|item| weights(item, nodes, findings)),
    }
}

/// The weights of all nodes, of which a rule names some.
fn weights(item: &Item<'_>, nodes: &[NodeSettings], findings: &mut Findings) -> Box<[f64]> {
    let mut weights: Box<[f64]> = nodes.iter().map(|node| node.weight).collect();
    for entry in item.entries(findings) {
        let Some(node) = nodes.iter().position(|node| node.name == entry.name) else {
            let known = nodes.iter().map(|node| &*node.name).collect::<Vec<_>>().join(", ");
            findings.mistake(
                &entry.item.place,
                format!("there is no node \"{}\"", entry.name),
                format!("known are {known}"),
            );
            continue;
        };
        if let Some(weight) = entry.item.weight(WEIGHT_MAX, findings) {
            weights[node] = weight;
        }
    }
    weights
}

fn patterns(item: &Item<'_>, functions: bool, findings: &mut Findings) -> Vec<Pattern> {
    const MEND: &str = "write it like [\"name\", \"/^regular_expression/\"]";
    let mut patterns = Vec::new();
    for entry in item.list(MEND, findings) {
        let Some(text) = entry.text(findings) else { continue };
        match Pattern::parse(text) {
            Err(why) => findings.mistake(&entry.place, format!("is no regular expression: {why}"), MEND),
            Ok(Pattern::Name(name)) if functions && name.contains('.') => {
                let mend = "write its name without the schema: all functions of the name are meant";
                findings.mistake(&entry.place, format!("\"{name}\" names a schema"), mend);
            }
            Ok(pattern) if functions && pattern.is_built_in_function() => {
                let what = format!("\"{text}\" is one of PostgreSQL's own functions");
                findings.mistake(&entry.place, what, "remove it: what these do is known");
            }
            Ok(pattern) => patterns.push(pattern),
        }
    }
    patterns
}

/// `fence = "strict"` and its limit.
fn fence_limit(failover: &raw::Failover<'_>, interval: Duration, findings: &mut Findings) -> Option<Duration> {
    const FENCES: &[Choice<'static, bool>] = &[("detect", Some(false)), ("strict", Some(true))];
    let strict = or(&failover.fence, false, |item| item.choice(FENCES, "", findings));
    let default = Duration::from_secs(3).max(interval * 3);
    let limit = or(&failover.fence_limit, default, |item| item.duration(WAIT_MIN..=HOUR, findings));
    if let Some(item) = &failover.fence_limit {
        if !strict {
            findings.warning(&item.place, "has no effect without fence = \"strict\"", "add that, or remove it");
        } else if limit <= interval {
            let what = "is not longer than health.interval, so that every write waits for the next probe";
            findings.warning(&item.place, what, "raise it, or lower health.interval");
        }
    }
    strict.then_some(limit)
}

/// `[server.tcp]` or `[clusters.X.tcp]` over the defaults. The kernel counts in seconds.
pub(super) fn tcp(item: Option<&Item<'_>>, default: Tcp, findings: &mut Findings) -> Tcp {
    const SECOND: Duration = Duration::from_secs(1);
    const COUNT_MAX: usize = 127;
    let raw = raw::Tcp::read(item, findings);
    let mut time =
        |item: &Option<Item<'_>>, default| item.as_ref().and_then(|item| item.time_limit(findings)).unwrap_or(default);
    let keepalive_idle = time(&raw.keepalive_idle, default.keepalive_idle).map(|idle| idle.max(SECOND));
    let user_timeout = time(&raw.user_timeout, default.user_timeout);
    Tcp {
        keepalive_idle,
        user_timeout,
        keepalive_interval: or(&raw.keepalive_interval, default.keepalive_interval, |i| {
            i.duration(SECOND..=HOUR, findings)
        }),
        keepalive_count: or(&raw.keepalive_count, default.keepalive_count as usize, |i| {
            i.whole(1..=COUNT_MAX, findings)
        }) as u32,
    }
}

fn read_health(raw: &raw::Health<'_>, health: &mut Health, outside: &Outside<'_>, findings: &mut Findings) {
    if let Some(user) = raw.user.as_ref().and_then(|item| item.text(findings)) {
        health.user = user.to_owned();
    }
    if let Some(database) = raw.database.as_ref().and_then(|item| item.text(findings)) {
        health.database = database.to_owned();
    }
    if let Some(item) = &raw.password {
        health.password = item.server_secret(outside, findings);
        if raw.user.is_none() {
            findings.mistake(&item.place, "is a password without a user", "add `user` beside it");
        }
    }
    health.interval = or(&raw.interval, health.interval, |item| item.duration(WAIT_MIN..=HOUR, findings));
    health.timeout = or(&raw.timeout, health.timeout, |item| item.duration(WAIT_MIN..=HOUR, findings));
}

fn refuse_tls(cluster: &raw::Cluster<'_>, findings: &mut Findings) {
    let tls = raw::ClusterTls::read(cluster.tls.as_ref(), findings);
    let instead = "write mode = \"disable\" and let the servers accept connections without TLS";
    if let Some(mode) = &tls.mode {
        let later = ["prefer", "require", "verify-ca", "verify-full"].map(|name| (name, None));
        let choices: Vec<_> = std::iter::once(("disable", Some(()))).chain(later).collect();
        mode.choice(&choices, instead, findings);
    }
    if let Some(ca) = &tls.ca {
        ca.not_yet("remove it: there is no TLS to servers", findings);
    }
}

/// A zone of Poolhouse's own that no node is in is a slip of the pen.
fn warn_of_zone(nodes: &[NodeSettings], zone: Option<&str>, list: Option<&Item<'_>>, findings: &mut Findings) {
    if let (Some(zone), Some(list)) = (zone, list)
        && !nodes.is_empty()
        && nodes.iter().all(|node| !node.near)
    {
        let what = format!("no node is in the zone \"{zone}\" of [server], so zones do not count");
        findings.warning(&list.place, what, "write `zone` at the nodes that are near");
    }
}

type Node = (Address, NodeSettings);

fn nodes(
    raw: &raw::Cluster<'_>,
    item: &Item<'_>,
    zone: Option<&str>,
    outside: &Outside<'_>,
    findings: &mut Findings,
) -> Vec<Node> {
    const MEND: &str = "write it like nodes = [\"10.0.0.1:5432\"]";
    let Some(list) = &raw.nodes else {
        findings.mistake(&item.place, "has no nodes", MEND);
        return Vec::new();
    };
    let items = list.list(MEND, findings);
    if items.is_empty() && matches!(list.value, DeValue::Array(_)) {
        findings.mistake(&list.place, "names no node", MEND);
    }
    if items.len() > NODES_MAX {
        findings.mistake(&list.place, format!("names {} nodes", items.len()), format!("name at most {NODES_MAX}"));
    }
    let mut nodes: Vec<Node> = Vec::new();
    for item in &items {
        let Some(node) = read_node(item, zone, outside, findings) else { continue };
        if nodes.iter().any(|(address, _)| *address == node.0) {
            findings.mistake(&item.place, format!("{} is already in the list", node.0), "remove one of them");
        } else {
            nodes.push(node);
        }
    }
    nodes
}

/// An address, or a table with an address and what is to be said about it.
fn read_node(item: &Item<'_>, zone: Option<&str>, outside: &Outside<'_>, findings: &mut Findings) -> Option<Node> {
    let parse = |item: &Item<'_>, findings: &mut Findings| {
        let text = item.text(findings)?;
        address::server(text, &outside.directory).map_err(|wrong| findings.wrong(&item.place, wrong)).ok()
    };
    if !matches!(item.value, DeValue::Table(_)) {
        let address = parse(item, findings)?;
        return Some((address.clone(), NodeSettings { near: zone.is_none(), ..node(&address) }));
    }
    let raw = raw::Node::read(Some(item), findings);
    let weight = or(&raw.weight, 1.0, |item| item.share(WEIGHT_MAX, findings));
    let role = raw.role.as_ref().and_then(|item| item.choice(ROLES, "", findings));
    let near = match (&raw.zone, zone) {
        (None, ours) => ours.is_none(),
        (Some(item), Some(ours)) => item.text(findings) == Some(ours),
        (Some(item), None) => {
            let what = "is not used as long as it is not said where Poolhouse is";
            findings.warning(&item.place, what, "write `zone` under [server], too");
            true
        }
    };
    let Some(address) = &raw.address else {
        let mend = format!("write it like {{ address = \"10.0.0.1:{SERVER_PORT}\" }}");
        findings.mistake(&item.place, "has no address", mend);
        return None;
    };
    let address = parse(address, findings)?;
    Some((address.clone(), NodeSettings { weight, role, near, ..node(&address) }))
}
