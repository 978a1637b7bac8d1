//! `[clusters.X]`: the nodes, how they are watched, what happens when the primary is lost, and where reads go.

use std::{path::PathBuf, sync::Arc, time::Duration};

use toml::de::DeValue;

use super::{
    Database,
    address::{self, SERVER_PORT},
    keys::{self, FENCES, HOUR, PREFERENCES, ROLES, WAIT_MIN, WEIGHT_MAX},
    kind::Kind,
    mistake::{Findings, Place},
    raw::{self, Item},
    value::{Outside, or},
};
use crate::{
    monitor::{self, Health},
    net::{Address, SYSTEM, ServerTls, Tcp, TlsFiles, TlsMistake, TlsMode},
};
use poolhouse_core::{
    sql::Pattern,
    topology::{self, FailoverMode, NodeSettings, Routing, RoutingRule},
};

const NODES_MAX: usize = 100;
const RULES_MAX: usize = 1_000;
/// The database that health checks ask when nothing names one; every PostgreSQL has it.
const HEALTH_NAME: &str = "postgres";

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
        let raw = keys::Cluster::read(Some(item), findings);
        let (addresses, nodes): (_, Vec<NodeSettings>) = nodes(&raw, item, zone, outside, findings).into_iter().unzip();
        warn_of_zone(&nodes, zone, raw.nodes.as_ref(), findings);
        let health = keys::Health::read(raw.health.as_ref(), findings);
        let failover = keys::Failover::read(raw.failover.as_ref(), findings);
        let mut settings = defaults(name, addresses, nodes);
        raw.put(&mut settings, findings);
        health.put(&mut settings, findings);
        failover.put(&mut settings, findings);
        read_health(&health, &mut settings.health, outside, findings);
        settings.fence_limit = fence_limit(&failover, settings.health.interval, findings);
        settings.tcp = tcp(raw.tcp.as_ref(), settings.tcp, findings);
        settings.tls = tls(raw.tls.as_ref(), &item.place, outside, findings);
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
        tls: preferred(),
        connect_timeout: Duration::from_secs(5),
    }
}

/// TLS with nodes that have it, whoever they are.
fn preferred() -> Arc<ServerTls> {
    ServerTls::new(TlsFiles::default()).map(Arc::new).unwrap_or_default()
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
    let raw = keys::Routing::read(item, findings);
    let mut routing = base.clone();
    raw.put(&mut routing, findings);
    if let Some(item) = &raw.rules {
        routing.rules = rules(item, nodes, findings).into();
    }
    routing
}

/// `[[clusters.X.routing.rules]]`.
fn rules(item: &Item<'_>, nodes: &[NodeSettings], findings: &mut Findings) -> Vec<RoutingRule> {
    const MEND: &str = "write it like [[clusters.main.routing.rules]] with user = \"report\" and route = \"replica\"";
    let items = item.list(MEND, findings);
    if items.len() > RULES_MAX {
        findings.mistake(&item.place, format!("has {} rules", items.len()), format!("write at most {RULES_MAX}"));
    }
    items.iter().map(|item| rule(item, nodes, findings)).collect()
}

fn rule(item: &Item<'_>, nodes: &[NodeSettings], findings: &mut Findings) -> RoutingRule {
    let raw = keys::Rule::read(Some(item), findings);
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
    RoutingRule {
        user,
        database,
        application_name,
        route: raw.route.as_ref().and_then(|item| PREFERENCES.read(item, findings)),
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

/// `fence = "strict"` and its limit.
fn fence_limit(failover: &keys::Failover<'_>, interval: Duration, findings: &mut Findings) -> Option<Duration> {
    let strict = or(&failover.fence, false, |item| FENCES.read(item, findings));
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

/// `[server.tcp]` or `[clusters.X.tcp]` over the defaults.
pub(super) fn tcp(item: Option<&Item<'_>>, mut tcp: Tcp, findings: &mut Findings) -> Tcp {
    keys::Tcp::read(item, findings).put(&mut tcp, findings);
    tcp
}

/// `[clusters.X.tls]`, with its files read; paths start at the folder of the config file.
fn tls(item: Option<&Item<'_>>, cluster: &Place, outside: &Outside<'_>, findings: &mut Findings) -> Arc<ServerTls> {
    let raw = keys::ClusterTls::read(item, findings);
    let mut files = TlsFiles::default();
    raw.put(&mut files, findings);
    let mut path = |item: &Option<Item<'_>>| {
        let text = item.as_ref()?.text(findings)?;
        Some(if text == SYSTEM { PathBuf::from(text) } else { outside.directory.join(text) })
    };
    (files.ca, files.crl) = (path(&raw.ca), path(&raw.crl));
    (files.certificate, files.private_key) = (path(&raw.certificate), path(&raw.private_key));
    if let (TlsMode::Disable, Some(ca)) = (files.mode, &raw.ca) {
        findings.warning(&ca.place, "has no effect with mode = \"disable\"", "name another mode, or remove it");
    }
    match ServerTls::new(files) {
        Ok(tls) => Arc::new(tls),
        Err(TlsMistake { key, what, mend }) => {
            let section = item.map_or(cluster, |item| &item.place);
            let named = [
                ("ca", &raw.ca),
                ("crl", &raw.crl),
                ("certificate", &raw.certificate),
                ("private_key", &raw.private_key),
                ("negotiation", &raw.negotiation),
                ("max_protocol", &raw.max_protocol),
            ];
            match named.into_iter().find_map(|(name, item)| item.as_ref().filter(|_| name == key)) {
                Some(item) => findings.mistake(&item.place, what, mend),
                None => findings.mistake(section, format!("`{key}` {what}"), mend),
            }
            Arc::default()
        }
    }
}

/// Who asks.
fn read_health(raw: &keys::Health<'_>, health: &mut Health, outside: &Outside<'_>, findings: &mut Findings) {
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
    raw: &keys::Cluster<'_>,
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
    let raw = keys::Node::read(Some(item), findings);
    let weight = or(&raw.weight, 1.0, |item| item.share(WEIGHT_MAX, findings));
    let role = raw.role.as_ref().and_then(|item| ROLES.read(item, findings));
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
