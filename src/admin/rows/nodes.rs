//! By node.

use std::{
    collections::BTreeMap,
    fmt::Write,
    ptr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{Rows, databases::place};
use crate::{
    admin::{Desk, Value, desk::timestamp, table::row},
    databases::Cluster,
    metrics::{Count, Figures},
};
use poolhouse_core::topology::{Node, NodeId, Role, State, Topology};

/// The figures of the nodes, by the names of their clusters and their own.
type ByNode = BTreeMap<(String, String), Figures>;

fn figures(desk: &Desk) -> ByNode {
    let mut figures = ByNode::new();
    for account in desk.frontend.accounts.all() {
        let cluster = account.nodes.as_ref().map_or("", |nodes| nodes.cluster());
        for (node, of_node) in account.by_node().filter(|(node, _)| !node.is_empty()) {
            figures.entry((cluster.to_owned(), node.to_string())).or_default().merge(&of_node);
        }
    }
    figures
}

fn of_node(figures: &ByNode, cluster: &Cluster, node: &str) -> Figures {
    figures.get(&(cluster.name.clone(), node.to_owned())).cloned().unwrap_or_default()
}

/// Every node with its cluster and what is known of that.
fn each(desk: &Desk, mut row: impl FnMut(&Cluster, &Topology, NodeId, &Node) -> Vec<Value>) -> Rows {
    let mut rows = Vec::new();
    for cluster in desk.clusters().iter() {
        let topology = cluster.monitor.topology();
        for (id, node) in topology.in_use() {
            rows.push(row(cluster, &topology, id, node));
        }
    }
    rows
}

/// How far a replica is behind the primary in the log, if both are known.
fn lag_bytes(topology: &Topology, node: &Node) -> Option<u64> {
    let primary = topology.node(topology.primary?)?;
    (node.role == Some(Role::Replica) && node.lsn > 0).then(|| primary.lsn.saturating_sub(node.lsn))
}

fn role(node: &Node) -> &'static str {
    match node.role {
        Some(Role::Primary) => "primary",
        Some(Role::Replica) => "replica",
        None => "unknown",
    }
}

/// The pools that each node lets nobody of in, in words that follow others.
fn refused(desk: &Desk) -> BTreeMap<(*const Cluster, NodeId), String> {
    const TOLD_MAX: usize = 3;
    let mut refused: BTreeMap<(*const Cluster, NodeId), (usize, String)> = BTreeMap::new();
    for ((database, user), target) in desk.frontend.targets() {
        for node in target.troubled().ids() {
            let (count, text) = refused.entry((Arc::as_ptr(&target.cluster), node)).or_default();
            *count += 1;
            if *count > TOLD_MAX {
                continue;
            }
            let _ = match target.refusal(node) {
                Some(error) => write!(
                    text,
                    "; lets nobody in for user {user:?} of database {database:?}: {error} (SQLSTATE {})",
                    error.code()
                ),
                None => write!(text, "; does not answer a login for user {user:?} of database {database:?}"),
            };
        }
    }
    let whole = |(count, text): (usize, String)| match count.checked_sub(TOLD_MAX) {
        None | Some(0) => text,
        Some(more) => format!("{text}; and {more} more"),
    };
    refused.into_iter().map(|(key, told)| (key, whole(told))).collect()
}

pub fn nodes(desk: &Desk) -> Rows {
    let (figures, now, refused) = (figures(desk), Instant::now(), refused(desk));
    each(desk, |cluster, topology, id, node| {
        let place = cluster.node(id);
        let refused = refused.get(&(ptr::from_ref(cluster), id)).map(String::as_str).unwrap_or_default();
        let (open, lent) = (place.pools.open(), place.pools.lent());
        let of_node = of_node(&figures, cluster, &place.name);
        let fresh = node.fresh_as_of.map(|as_of| now.saturating_duration_since(as_of).as_millis() as u64);
        row![
            cluster.name.as_str(),
            place.name.as_str(),
            role(node),
            node.state.name(),
            node.timeline,
            (node.lsn > 0).then(|| format!("{:X}/{:X}", node.lsn >> 32, node.lsn & 0xffff_ffff)),
            lag_bytes(topology, node),
            fresh,
            open,
            lent,
            open.saturating_sub(lent),
            cluster.monitor.settings().max_connections,
            of_node.count(Count::Reads) + of_node.count(Count::Writes),
            of_node.server_errors.total(),
            now.saturating_duration_since(node.since).as_millis() as u64,
            format!("{}{refused}", node.why),
        ]
    })
}

pub fn pool_nodes(desk: &Desk) -> Rows {
    let (figures, now) = (figures(desk), Instant::now());
    let mut number = 0_u64;
    each(desk, |cluster, topology, id, node| {
        let named = cluster.node(id);
        let (host, port) = place(&named.address);
        let status = match node.state {
            State::Up | State::Suspect { .. } => "up",
            State::Unknown => "unused",
            State::Down | State::Stale | State::Draining | State::Paused => "down",
        };
        let pg_status = match node.state {
            State::Up => "up",
            State::Unknown => "unknown",
            State::Down => "down",
            _ => node.state.name(),
        };
        let role = if role(node) == "replica" { "standby" } else { role(node) };
        let reads = of_node(&figures, cluster, &named.name).count(Count::Reads);
        let changed = SystemTime::now() - now.saturating_duration_since(node.since);
        number += 1;
        row![
            (number - 1).to_string(),
            host,
            port.to_string(),
            status,
            pg_status,
            format!("{:.6}", node.weight),
            role,
            role,
            reads.to_string(),
            "false",
            lag_bytes(topology, node).unwrap_or(0).to_string(),
            if node.streaming { "streaming" } else { "" },
            "",
            timestamp(changed),
        ]
    })
}
