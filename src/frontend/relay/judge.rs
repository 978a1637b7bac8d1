//! What a session asks of the world around it: verdicts, and how the nodes are.

use std::{cell::Cell, sync::Arc, time::Instant};

use super::worker::Worker;
use crate::databases::{NodeRequest, Target, choose_first, wish};
use poolhouse_core::{
    session::{Judge, Need, NodeView, PoolhouseSettings, Route, RouteBy},
    sql::KnownText,
    topology::{Node, NodeId, Preference, Role, RoutingRule, Topology, standing},
};

/// What it costs to parse a text, and so many bytes of it, when a message that is only looked at costs 1.
const PARSING_EFFORT: u32 = 32;
const BYTES_PER_EFFORT: usize = 16;

/// A long text and its verdict.
pub type Prejudged = (Arc<[u8]>, Arc<KnownText>);

/// For one client.
pub struct ClientJudge<'a> {
    pub worker: &'a Worker,
    pub target: &'a Target,
    /// Somebody waits until long texts have been judged apart.
    pub apart: bool,
    /// The long text that was judged last.
    pub prejudged: Option<&'a Prejudged>,
    /// When the session's last write was answered.
    pub last_write: Option<Instant>,
    /// The rule of the configuration that it is under.
    pub rule: Option<u16>,
    pub seed: u64,
    /// See [`Judge::take_effort`].
    pub effort: Cell<u32>,
}

impl Judge for ClientJudge<'_> {
    fn verdict(&self, sql: &[u8]) -> Arc<KnownText> {
        match self.prejudged {
            Some((text, verdict)) if **text == *sql => verdict.clone(),
            _ => {
                let (verdict, was_parsed) = self.worker.verdict(sql);
                if was_parsed {
                    self.effort.set(self.effort.get() + PARSING_EFFORT + (sql.len() / BYTES_PER_EFFORT) as u32);
                }
                verdict
            }
        }
    }

    fn take_effort(&self) -> u32 {
        self.effort.take()
    }

    fn knows(&self, sql: &[u8]) -> bool {
        !self.apart
            || self.prejudged.is_some_and(|(text, _)| **text == *sql)
            || self.worker.known_verdict(sql).is_some()
    }

    fn processes(&self, node: u16) -> Vec<(u32, u32)> {
        self.target.cluster.senders.lent(node)
    }

    fn nodes(&self, need: Need, lsn: Option<u64>) -> Vec<NodeView> {
        let after = self.target.must_see(self.last_write);
        views(self.target, NodeRequest { need, after, lsn, rule: self.rule, seed: self.seed })
    }
}

/// For operators, who have no session and no thread of clients.
pub struct OperatorJudge<'a> {
    pub target: &'a Target,
    pub rule: Option<u16>,
}

impl Judge for OperatorJudge<'_> {
    fn verdict(&self, sql: &[u8]) -> Arc<KnownText> {
        Arc::new(poolhouse_core::sql::judge_bytes(sql).into())
    }

    fn knows(&self, _: &[u8]) -> bool {
        true
    }

    fn nodes(&self, need: Need, lsn: Option<u64>) -> Vec<NodeView> {
        views(self.target, NodeRequest { need, after: None, lsn, rule: self.rule, seed: 0 })
    }
}

/// The nodes as they are now for a request.
fn views(target: &Target, request: NodeRequest) -> Vec<NodeView> {
    let cluster = &target.cluster;
    let chosen = choose_first(target, request).ok().map(|choice| choice.node);
    let (topology, now) = (cluster.monitor.topology(), Instant::now());
    let wish = wish(target, &topology, request);
    let view = |(id, node): (_, &Node)| {
        let primary = topology.primary == Some(id);
        NodeView {
            id: id.0,
            name: node.name.to_string(),
            role: node.role.map(|role| match role {
                Role::Primary => "primary",
                Role::Replica => "replica",
            }),
            state: node.state.name(),
            lag_bytes: lag_bytes(&topology, node).filter(|_| !primary),
            lag_seconds: node.fresh_as_of.map(|fresh| now.saturating_duration_since(fresh).as_secs_f64()),
            position: node.lsn,
            weight: wish.weight(&topology, id),
            busy: cluster.node(id).pools.lent(),
            unfit: match standing(&topology, &target.routing, wish, id, now) {
                Err(unfit) if chosen != Some(id) => Some(unfit.to_string()),
                Ok(()) if chosen != Some(id) && target.troubled().contains(id) => Some(trouble(target, id)),
                _ => None,
            },
            near: node.near,
            chosen: chosen == Some(id),
        }
    };
    topology.in_use().map(view).collect()
}

/// Why a node is passed over that would be fit.
fn trouble(target: &Target, node: NodeId) -> String {
    match target.refusal(node) {
        Some(error) => format!("lets nobody of this pool in: {error}"),
        None => "has not answered a login of this pool yet".to_owned(),
    }
}

/// WAL of the primary that a node has not replayed, in bytes.
fn lag_bytes(topology: &Topology, node: &Node) -> Option<u64> {
    let primary = topology.node(topology.primary?)?;
    (node.lsn > 0).then(|| primary.lsn.saturating_sub(node.lsn))
}

/// What a session begins with before it says anything: the listener's route is stronger than a rule's.
pub fn begins_with(rule: Option<&RoutingRule>, listener: Option<Route>) -> PoolhouseSettings {
    let by_rule = rule.and_then(|rule| rule.route).map(|preference| match preference {
        Preference::Auto => Route::Auto,
        Preference::Primary => Route::Primary,
        Preference::Replica => Route::Replica,
    });
    match (listener, by_rule) {
        (Some(route), _) => PoolhouseSettings { route, by: RouteBy::Listener, ..PoolhouseSettings::default() },
        (None, Some(route)) => PoolhouseSettings { route, by: RouteBy::Rule, ..PoolhouseSettings::default() },
        (None, None) => PoolhouseSettings::default(),
    }
}
