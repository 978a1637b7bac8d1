//! Which node may serve a statement. Called once per transaction: no allocation, no lock, one or two passes over the
//! nodes.
//!
//! A replica serves a read when it is up and fresh enough, and not before every node was asked once: until then it may
//! be of another cluster, or far behind a primary that has not answered yet. Its lag is measured against the primary:
//! while the primary is in doubt or gone, against the primary's last answer, so that reads go on. When no primary was
//! ever seen there is nothing to measure, and `max_lag` does not apply. A replica that has not followed the primary to
//! its timeline serves nothing: it may hold what the failover undid.

use std::time::Instant;

use super::{Balance, Consistency, NodeId, Reads, Role, Routing, State, Topology};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Surely only reads.
    Read,
    Write,
    /// Whatever it does, a replica: the session insists.
    Replica,
}

/// What a statement, or the transaction that it opens, needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub class: Class,
    /// When the session's last write was answered; `None` = it has written nothing.
    pub after: Option<Instant>,
}

/// No node now. Either may pass when the topology's version rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A write, or a read that no replica may serve.
    #[error("no primary is known")]
    NoPrimary,
    #[error("no replica is fit to serve")]
    NoReplica,
    #[error("no server is up")]
    NoNode,
}

/// The node for `wish`. `busy` tells how many connections of a node are lent; `seed` is any number that changes from
/// call to call: a counter for round-robin.
pub fn route(
    topology: &Topology,
    routing: &Routing,
    wish: Wish,
    busy: &dyn Fn(NodeId) -> usize,
    seed: u64,
    now: Instant,
) -> Result<NodeId, RouteError> {
    let alone = topology.nodes.len() == 1;
    let insists = wish.class == Class::Replica;
    if wish.class == Class::Write || (routing.reads == Reads::Primary && !alone && !insists) {
        return topology.primary.ok_or(RouteError::NoPrimary);
    }
    let reader = Reader::new(topology, routing, wish, now);
    let fit = |id: NodeId| reader.fit(id, false);
    let otherwise = topology.primary.filter(|_| !insists);
    if let Some(id) = pick(topology, routing.balance, &fit, busy, seed).or(otherwise) {
        return Ok(id);
    }
    // One broken connection makes a replica suspect: better that one than none.
    let last_resort = |id: NodeId| reader.fit(id, true);
    let error = || if insists { RouteError::NoReplica } else { reader.error() };
    pick(topology, routing.balance, &last_resort, busy, seed).ok_or_else(error)
}

/// The bounds that a node must keep to serve one read.
struct Reader<'a> {
    topology: &'a Topology,
    with_primary: bool,
    /// Has replayed everything up to this moment, and more.
    after: Option<Instant>,
    /// Has replayed everything up to this moment.
    floor: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(topology: &'a Topology, routing: &Routing, wish: Wish, now: Instant) -> Reader<'a> {
        let primary_up =
            topology.primary.and_then(|id| topology.node(id)).is_some_and(|primary| primary.state == State::Up);
        let reference = if primary_up { Some(now) } else { topology.primary_seen };
        Reader {
            topology,
            with_primary: primary_up && routing.reads == Reads::Any && wish.class != Class::Replica,
            after: wish.after.filter(|_| routing.consistency == Consistency::Session),
            floor: routing.max_lag.and_then(|lag| reference?.checked_sub(lag)),
        }
    }

    fn fit(&self, id: NodeId, suspect_too: bool) -> bool {
        let node = &self.topology.nodes[usize::from(id.0)];
        if self.topology.primary == Some(id) {
            return self.with_primary;
        }
        let usable = match node.state {
            State::Up => true,
            State::Suspect { .. } => suspect_too,
            State::Unknown | State::Down | State::Stale | State::Draining | State::Paused => false,
        };
        usable
            && node.role == Some(Role::Replica)
            && self.topology.settled
            && (node.timeline == 0 || node.timeline >= self.topology.timeline)
            && self.after.is_none_or(|after| node.fresh_as_of.is_some_and(|fresh| fresh > after))
            && self.floor.is_none_or(|floor| node.fresh_as_of.is_some_and(|fresh| fresh >= floor))
    }

    fn error(&self) -> RouteError {
        let up = |state| matches!(state, State::Up | State::Suspect { .. });
        if self.topology.nodes.iter().any(|node| up(node.state)) { RouteError::NoPrimary } else { RouteError::NoNode }
    }
}

fn pick(
    topology: &Topology,
    balance: Balance,
    fit: &dyn Fn(NodeId) -> bool,
    busy: &dyn Fn(NodeId) -> usize,
    seed: u64,
) -> Option<NodeId> {
    match balance {
        Balance::LeastBusy => least_busy(topology, fit, busy, seed),
        Balance::RoundRobin => by_weight(topology, fit, |total, least| {
            // Steps of the smallest weight around the circle of all weights, from the middle of each step, so that
            // rounding never falls on a border.
            let step = least / total;
            ((seed as u32 as f64 + 0.5) * step).fract() * total
        }),
        Balance::Random => by_weight(topology, fit, |total, _| {
            const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
            (mix(seed) >> 11) as f64 * UNIT * total
        }),
    }
}

/// The node with the fewest lent connections for its weight; among equals, each is as likely as the others.
fn least_busy(
    topology: &Topology,
    fit: &dyn Fn(NodeId) -> bool,
    busy: &dyn Fn(NodeId) -> usize,
    seed: u64,
) -> Option<NodeId> {
    let mut best: Option<(NodeId, f64)> = None;
    let mut equals = 1;
    for id in ids(topology).filter(|id| fit(*id)) {
        let load = (busy(id) + 1) as f64 / topology.nodes[usize::from(id.0)].weight;
        match best {
            Some((_, least)) if load > least => {}
            Some((_, least)) if load == least => {
                equals += 1;
                if mix(seed.wrapping_add(equals)).is_multiple_of(equals) {
                    best = Some((id, load));
                }
            }
            _ => {
                best = Some((id, load));
                equals = 1;
            }
        }
    }
    best.map(|(id, _)| id)
}

/// The fit node at the point that `point(sum of weights, smallest weight)` names on the line of their weights.
fn by_weight(topology: &Topology, fit: &dyn Fn(NodeId) -> bool, point: impl FnOnce(f64, f64) -> f64) -> Option<NodeId> {
    let weight = |id: NodeId| topology.nodes[usize::from(id.0)].weight;
    let (mut total, mut least) = (0.0, f64::INFINITY);
    for id in ids(topology).filter(|id| fit(*id)) {
        total += weight(id);
        least = weight(id).min(least);
    }
    let mut left = if total > 0.0 { point(total, least) } else { 0.0 };
    let mut chosen = None;
    for id in ids(topology).filter(|id| fit(*id)) {
        chosen = Some(id);
        left -= weight(id);
        if left < 0.0 {
            break;
        }
    }
    chosen
}

fn ids(topology: &Topology) -> impl Iterator<Item = NodeId> {
    (0..topology.nodes.len() as u16).map(NodeId)
}

/// Spreads the bits of a counter: the finishing steps of MurmurHash3 (public domain).
fn mix(seed: u64) -> u64 {
    let mut value = seed ^ (seed >> 33);
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}
