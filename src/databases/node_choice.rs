//! Which node serves a statement, as the nodes are now.

use std::{sync::atomic::Ordering, time::Instant};

use super::target::Target;
use poolhouse_core::{
    session::{Need, Route},
    topology::{self, Node, NodeId, NodeNeed, NodeSet, Reads, RouteError, State, Topology, Wish, lacks_replicas},
};

/// What a statement asks for.
#[derive(Debug, Clone, Copy)]
pub struct NodeRequest {
    pub need: Need,
    /// When the last write was answered that it must see.
    pub after: Option<Instant>,
    /// The WAL position that it must see.
    pub lsn: Option<u64>,
    /// The rule of the configuration that the session is under.
    pub rule: Option<u16>,
    /// Spreads choices that are otherwise equal.
    pub seed: u64,
}

/// A connection to the primary, or while there is none to whatever node may be read from; when the session has a route,
/// where that goes.
pub fn request_any(target: &Target, route: Route) -> NodeRequest {
    let class_goes = |class| {
        let wish = Wish { class, after: None, lsn: None, weights: None, avoid: NodeSet::NONE };
        topology::route(&target.cluster.monitor.topology(), &target.routing, wish, &|_| 0, 0, Instant::now())
    };
    let no_primary = || matches!(class_goes(NodeNeed::Write), Err(RouteError::NoPrimary));
    let need = match route {
        Route::Replica => Need::Replica,
        Route::Auto if no_primary() && class_goes(NodeNeed::Read).is_ok() => Need::Read,
        Route::Auto | Route::Primary => Need::Write,
    };
    NodeRequest { need, after: None, lsn: None, rule: None, seed: 0 }
}

/// The node that is tried first: not one that lets nobody in, as long as there are others.
pub fn choose_first(target: &Target, request: NodeRequest) -> Result<NodeChoice, RouteError> {
    match target.cluster.only().filter(|_| request.need != Need::Replica) {
        Some(node) => Ok(NodeChoice { node, lacks: false }),
        None => choose(target, request, target.useless()),
    }
}

/// The node for a statement.
#[derive(Debug, Clone, Copy)]
pub struct NodeChoice {
    pub node: NodeId,
    /// It is the primary only because no replica is known to have what the statement must see.
    pub lacks: bool,
}

/// The node that serves a statement, if any can. When replicas lack what it must see, they are looked at again soon.
pub fn choose(target: &Target, request: NodeRequest, avoid: NodeSet) -> Result<NodeChoice, RouteError> {
    let topology = target.cluster.monitor.topology();
    let (wish, now) = (Wish { avoid, ..wish(target, &topology, request) }, Instant::now());
    let node = topology::route(&topology, &target.routing, wish, &*target.cluster, request.seed, now);
    let must_see = request.after.is_some() || request.lsn.is_some();
    let otherwise = node.as_ref().is_ok_and(|node| Some(*node) == topology.primary) || node.is_err();
    let lacks = must_see && otherwise && lacks_replicas(&topology, &target.routing, wish, now);
    if lacks {
        target.cluster.monitor.want_fresh();
    }
    if let Ok(node) = &node
        && matches!(request.need, Need::Read | Need::Replica)
    {
        target.cluster.node(*node).given.fetch_add(1, Ordering::Relaxed);
    }
    node.map(|node| NodeChoice { node, lacks: lacks && target.routing.reads != Reads::Any })
}

/// What is asked of the nodes for a statement.
pub fn wish<'t>(target: &'t Target, topology: &Topology, request: NodeRequest) -> Wish<'t> {
    // With one node there is no choice: what it may not do it refuses itself, as on a direct connection.
    let alone = topology.primary.is_none() && topology.only().is_some();
    let class = match request.need {
        Need::Replica => NodeNeed::Replica,
        Need::Node(node) => NodeNeed::Node(NodeId(node)),
        Need::Write if !alone => NodeNeed::Write,
        Need::Read | Need::Write => NodeNeed::Read,
    };
    let weights = target.routing.rule(request.rule).and_then(|rule| rule.weights.as_deref());
    Wish { class, after: request.after, lsn: request.lsn, weights, avoid: NodeSet::NONE }
}

/// Whether a statement that waits in the queue of this node is right there still, as the nodes are now.
pub fn stays(target: &Target, need: Need, node: NodeId) -> bool {
    let topology = target.cluster.monitor.topology();
    let usable = |known: &Node| !known.gone && matches!(known.state, State::Up | State::Suspect { .. });
    match need {
        // With one node there is no choice.
        _ if topology.only() == Some(node) => true,
        Need::Write => topology.primary == Some(node),
        Need::Read | Need::Replica | Need::Node(_) => topology.node(node).is_some_and(usable),
    }
}
