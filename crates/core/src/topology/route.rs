//! Which node may serve a statement. Called once per transaction: no allocation, no lock, one or two passes over the
//! nodes.
//!
//! A replica serves a read when it is up and fresh enough, and not before every node was asked once: until then it may
//! be of another cluster, or far behind a primary that has not answered yet. Its lag is measured against the primary:
//! while the primary is in doubt or gone, against the primary's last answer, so that reads go on. When no primary was
//! ever seen there is nothing to measure, and `max_lag` does not apply. A replica that has not followed the primary to
//! its timeline serves nothing: it may hold what the failover undid.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{Balance, Consistency, NodeId, Reads, Role, Routing, State, Topology};

/// What a statement needs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeNeed {
    /// Surely only reads.
    Read,
    /// May write, or is not certain to read only: the primary.
    Write,
    /// Whatever it does, a replica: the session insists.
    Replica,
    /// This node and no other.
    Node(NodeId),
}

/// What a statement, or the transaction that it opens, needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish<'a> {
    /// What it needs of a node.
    pub class: NodeNeed,
    /// When the last write was answered that it must see; `None` = there is none.
    pub after: Option<Instant>,
    /// The WAL position that it must see, as the session says itself.
    pub lsn: Option<u64>,
    /// Weights of the nodes in place of their own.
    pub weights: Option<&'a [f64]>,
    /// Nodes that could not be connected to just now: others come first.
    pub avoid: NodeSet,
}

/// Some of the nodes of a cluster, of which there are at most [`NODES_MAX`](super::NODES_MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeSet(u128);

impl NodeSet {
    /// No node.
    pub const NONE: NodeSet = NodeSet(0);

    /// Adds a node.
    pub fn insert(&mut self, id: NodeId) {
        self.0 |= 1_u128.checked_shl(id.0.into()).unwrap_or(0);
    }

    /// A bit for each node.
    pub fn of_bits(bits: u128) -> NodeSet {
        NodeSet(bits)
    }

    /// Takes a node out.
    pub fn remove(&mut self, id: NodeId) {
        self.0 &= !1_u128.checked_shl(id.0.into()).unwrap_or(0);
    }

    /// The nodes of both.
    pub fn union(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    /// Its nodes, in their order.
    pub fn ids(self) -> impl Iterator<Item = NodeId> {
        (0..128).map(NodeId).filter(move |id| self.contains(*id))
    }

    /// Whether a node is in it.
    pub fn contains(self, id: NodeId) -> bool {
        self.0 & 1_u128.checked_shl(id.0.into()).unwrap_or(0) != 0
    }
}

/// What the nodes have to do.
pub trait NodeLoads {
    /// How many connections of a node are lent.
    fn busy(&self, id: NodeId) -> usize;

    /// How many reads a node was given lately, in any unit that is the same for all.
    fn given(&self, _: NodeId) -> f64 {
        0.0
    }

    /// How long a node takes to answer, in any unit that is the same for all; 0 when that is not known.
    fn latency(&self, _: NodeId) -> f64 {
        0.0
    }
}

impl<F: Fn(NodeId) -> usize> NodeLoads for F {
    fn busy(&self, id: NodeId) -> usize {
        self(id)
    }
}

impl Wish<'_> {
    /// What a node weighs.
    pub fn weight(&self, topology: &Topology, id: NodeId) -> f64 {
        let index = usize::from(id.0);
        let own = || topology.nodes.get(index).map_or(0.0, |node| node.weight);
        self.weights.and_then(|weights| weights.get(index).copied()).unwrap_or_else(own)
    }
}

/// No node now. Either may pass when the topology's version rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A write, or a read that no replica may serve.
    #[error("no primary is known")]
    NoPrimary,
    /// Only a replica will do, and none is fit.
    #[error("no replica is fit to serve")]
    NoReplica,
    /// The node that the statement names.
    #[error("the node is not fit to serve")]
    NodeUnfit,
    /// A read that any node may serve, and none is fit.
    #[error("no server is up")]
    NoNode,
}

/// The node for `wish`. `seed` is any number that changes from call to call: a counter for round-robin.
pub fn route(
    topology: &Topology,
    routing: &Routing,
    wish: Wish<'_>,
    load: &dyn NodeLoads,
    seed: u64,
    now: Instant,
) -> Result<NodeId, RouteError> {
    let reader = match Candidates::of(topology, routing, wish, now) {
        Candidates::Primary => return topology.primary.ok_or(RouteError::NoPrimary),
        Candidates::Node(id, reader) => {
            return reader.standing(id, true).map(|()| id).map_err(|_| RouteError::NodeUnfit);
        }
        Candidates::Reader(reader) => reader,
    };
    let replicas_only = reader.replicas_only;
    let fit = |id: NodeId| reader.standing(id, false).is_ok();
    let fit_and_reached = |id: NodeId| !wish.avoid.contains(id) && fit(id);
    let weight = |id: NodeId| wish.weight(topology, id) * ease(topology, id, now);
    let scales = Scales { topology, balance: routing.balance, weight: &weight, load, seed };
    let primary = topology.primary.filter(|_| !replicas_only);
    let reached_primary = primary.filter(|id| !wish.avoid.contains(*id));
    if let Some(id) = scales.pick(&fit_and_reached).or(reached_primary).or_else(|| scales.pick(&fit)).or(primary) {
        return Ok(id);
    }
    // One broken connection makes a replica suspect: better that one than none.
    let last_resort = |id: NodeId| reader.standing(id, true).is_ok();
    let error = || if replicas_only { RouteError::NoReplica } else { reader.error() };
    scales.pick(&last_resort).ok_or_else(error)
}

/// For so long a node that was down gets fewer reads than its share: its caches are cold, and it has no connections.
const EASE_IN: Duration = Duration::from_secs(10);

/// The part of its weight that a node has: less just after it came back.
fn ease(topology: &Topology, id: NodeId, now: Instant) -> f64 {
    const LEAST: f64 = 0.1;
    let returned = topology.nodes.get(usize::from(id.0)).and_then(|node| node.returned);
    returned.map_or(1.0, |returned| {
        let age = now.saturating_duration_since(returned);
        (age.as_secs_f64() / EASE_IN.as_secs_f64()).clamp(LEAST, 1.0)
    })
}

/// Whether a node is one of those among which [`route`] picks, or why not.
///
/// # Errors
/// Why not.
pub fn standing(topology: &Topology, routing: &Routing, wish: Wish<'_>, id: NodeId, now: Instant) -> Result<(), Unfit> {
    match Candidates::of(topology, routing, wish, now) {
        Candidates::Primary if topology.primary == Some(id) => Ok(()),
        Candidates::Primary => Err(Unfit::NotPrimary),
        Candidates::Node(named, _) if named != id => Err(Unfit::NotNamed),
        Candidates::Node(_, reader) => reader.standing(id, true),
        Candidates::Reader(reader) => reader.standing(id, false),
    }
}

/// Whether a read would find more replicas once they have replayed what it must see.
pub fn lacks_replicas(topology: &Topology, routing: &Routing, wish: Wish<'_>, now: Instant) -> bool {
    let sees = wish.lsn.is_some() || wish.after.is_some() && routing.consistency != Consistency::Eventual;
    let lacks = |id| standing(topology, routing, wish, id, now) == Err(Unfit::LacksWrite);
    sees && matches!(wish.class, NodeNeed::Read | NodeNeed::Replica) && topology.ids().any(lacks)
}

/// Why a node is not one of those among which the one for a statement is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The statement is for the primary.
    NotPrimary,
    /// The statement is for another node by name.
    NotNamed,
    /// It is the primary, which serves reads only when no replica can.
    Primary,
    /// It is the primary, and only a replica will do.
    NotReplica,
    /// What its state is, which is not one that serves.
    State(State),
    /// It has not said what it is.
    NoRole,
    /// Not all nodes have been asked yet.
    Unsettled,
    /// It has not followed the primary to its timeline.
    Timeline,
    /// It may lack what the statement must see.
    LacksWrite,
    /// It lags more than `max_lag`.
    Lag,
    /// It did so a moment ago.
    Lagged,
    /// Its weight is 0 for the session.
    Weightless,
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unfit::NotPrimary => "not the primary",
            Unfit::NotNamed => "another node is named",
            Unfit::Primary => "the primary serves reads when no replica can",
            Unfit::NotReplica => "not a replica",
            Unfit::State(State::Suspect { .. }) => "failed lately, a last resort",
            Unfit::State(state) => state.name(),
            Unfit::NoRole => "has not said what it is",
            Unfit::Unsettled => "not all nodes have been asked yet",
            Unfit::Timeline => "has not followed the primary to its timeline",
            Unfit::LacksWrite => "may lack a write that must be seen",
            Unfit::Lag => "lags more than max_lag",
            Unfit::Lagged => "lagged more than max_lag a moment ago",
            Unfit::Weightless => "has no weight for this session",
        })
    }
}

/// Among which nodes to pick.
enum Candidates<'a> {
    Primary,
    Node(NodeId, Reader<'a>),
    Reader(Reader<'a>),
}

impl<'a> Candidates<'a> {
    fn of(topology: &'a Topology, routing: &Routing, wish: Wish<'a>, now: Instant) -> Candidates<'a> {
        let alone = topology.only().is_some();
        match wish.class {
            NodeNeed::Write => Candidates::Primary,
            NodeNeed::Read if routing.reads == Reads::Primary && !alone => Candidates::Primary,
            NodeNeed::Node(id) => Candidates::Node(id, Reader::new(topology, routing, wish, now)),
            NodeNeed::Read | NodeNeed::Replica => Candidates::Reader(Reader::new(topology, routing, wish, now)),
        }
    }
}

/// The bounds that a node must keep to serve one read.
struct Reader<'a> {
    topology: &'a Topology,
    wish: Wish<'a>,
    with_primary: bool,
    /// The primary is no way out, either.
    replicas_only: bool,
    /// Has replayed everything up to this moment, and more.
    after: Option<Instant>,
    /// Has replayed up to this position.
    lsn: Option<u64>,
    /// Has replayed everything up to this moment.
    floor: Option<Instant>,
    /// What it may lag at most, now and lately.
    max_lag: Option<Duration>,
    max_lag_bytes: Option<u64>,
}

impl<'a> Reader<'a> {
    fn new(topology: &'a Topology, routing: &Routing, wish: Wish<'a>, now: Instant) -> Reader<'a> {
        let primary_up =
            topology.primary.and_then(|id| topology.node(id)).is_some_and(|primary| primary.state == State::Up);
        let reference = if primary_up { Some(now) } else { topology.primary_seen };
        let with_primary = match wish.class {
            NodeNeed::Replica => false,
            NodeNeed::Node(_) => true,
            NodeNeed::Read | NodeNeed::Write => primary_up && routing.reads == Reads::Any,
        };
        let named = matches!(wish.class, NodeNeed::Node(_));
        let max_lag = routing.max_lag.filter(|_| !named);
        Reader {
            topology,
            wish,
            with_primary,
            replicas_only: wish.class == NodeNeed::Replica
                || wish.class == NodeNeed::Read && !routing.fallback && !with_primary,
            after: wish.after.filter(|_| routing.consistency != Consistency::Eventual),
            lsn: wish.lsn,
            floor: max_lag.and_then(|lag| reference?.checked_sub(lag)),
            max_lag,
            max_lag_bytes: routing.max_lag_bytes.filter(|_| !named),
        }
    }

    fn standing(&self, id: NodeId, suspect_too: bool) -> Result<(), Unfit> {
        let node = self.topology.node(id).ok_or(Unfit::NoRole)?;
        if self.topology.primary == Some(id) {
            return match (self.with_primary, self.replicas_only) {
                (true, _) => self.has_weight(id),
                (false, true) => Err(Unfit::NotReplica),
                (false, false) => Err(Unfit::Primary),
            };
        }
        match node.state {
            State::Up => {}
            State::Suspect { .. } if suspect_too => {}
            state => return Err(Unfit::State(state)),
        }
        if node.role != Some(Role::Replica) {
            return Err(Unfit::NoRole);
        }
        if !self.topology.settled {
            return Err(Unfit::Unsettled);
        }
        if node.timeline != 0 && node.timeline < self.topology.timeline {
            return Err(Unfit::Timeline);
        }
        if self.after.is_some_and(|after| node.fresh_as_of.is_none_or(|fresh| fresh <= after)) {
            return Err(Unfit::LacksWrite);
        }
        // What it said before it was away may not be so any more: then it is not known how fresh it is.
        if self.lsn.is_some_and(|lsn| node.fresh_as_of.is_none() || node.lsn < lsn) {
            return Err(Unfit::LacksWrite);
        }
        if self.floor.is_some_and(|floor| node.fresh_as_of.is_none_or(|fresh| fresh < floor)) {
            return Err(Unfit::Lag);
        }
        let position = self.topology.primary.and_then(|primary| self.topology.node(primary)).map_or(0, |node| node.lsn);
        if self.max_lag_bytes.is_some_and(|most| position.saturating_sub(node.lsn) > most) {
            return Err(Unfit::Lag);
        }
        let lagged = self.max_lag.is_some_and(|most| node.worst.time > most)
            || self.max_lag_bytes.is_some_and(|most| node.worst.bytes > most);
        if lagged {
            return Err(Unfit::Lagged);
        }
        self.has_weight(id)
    }

    fn has_weight(&self, id: NodeId) -> Result<(), Unfit> {
        let named = matches!(self.wish.class, NodeNeed::Node(_));
        if named || self.wish.weight(self.topology, id) > 0.0 { Ok(()) } else { Err(Unfit::Weightless) }
    }

    fn error(&self) -> RouteError {
        let up = |state| matches!(state, State::Up | State::Suspect { .. });
        if self.topology.nodes.iter().any(|node| up(node.state)) { RouteError::NoPrimary } else { RouteError::NoNode }
    }
}

/// How one of several nodes is picked.
struct Scales<'a> {
    topology: &'a Topology,
    balance: Balance,
    weight: &'a dyn Fn(NodeId) -> f64,
    load: &'a dyn NodeLoads,
    seed: u64,
}

impl Scales<'_> {
    /// One of the nodes that are fit: of our own zone as long as there is one.
    fn pick(&self, fit: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
        let nodes = &self.topology.nodes;
        if nodes.iter().any(|node| !node.near) {
            let fit_and_near = |id: NodeId| nodes[usize::from(id.0)].near && fit(id);
            if let Some(id) = self.pick_of(&fit_and_near) {
                return Some(id);
            }
        }
        self.pick_of(fit)
    }

    fn pick_of(&self, fit: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
        match self.balance {
            Balance::LeastBusy => self.least_busy(fit),
            // What is not known is found out first.
            Balance::Latency => {
                self.cheapest(fit, |id| (self.load.busy(id) + 1) as f64 * self.load.latency(id).max(f64::MIN_POSITIVE))
            }
            Balance::RoundRobin => self.by_weight(fit, |total, least| {
                // Steps of the smallest weight around the circle of all weights, from the middle of each step, so that
                // rounding never falls on a border.
                let step = least / total;
                ((self.seed as u32 as f64 + 0.5) * step).fract() * total
            }),
            Balance::Random => self.by_weight(fit, |total, _| {
                const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
                (mix(self.seed) >> 11) as f64 * UNIT * total
            }),
        }
    }

    /// The node that was given least lately for its weight, of those that do not hold more connections than is theirs: a
    /// node that is slower than the others holds on to them.
    fn least_busy(&self, fit: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
        let (mut busy, mut given, mut weights) = (1.0, 1.0, 0.0);
        for id in self.topology.ids().filter(|id| fit(*id)) {
            busy += self.load.busy(id) as f64;
            given += self.load.given(id);
            weights += (self.weight)(id);
        }
        // How much an excess weighs against having been given less. Both are divided by the node's weight in the end.
        const HEAVINESS: f64 = 8.0;
        self.cheapest(fit, |id| {
            let share = (self.weight)(id) / weights;
            let own = share * busy;
            // One more is chance.
            let excess = (self.load.busy(id) as f64 - own - 1.0).max(0.0);
            self.load.given(id) / given + HEAVINESS * share * excess / own
        })
    }

    /// The node with the least cost for its weight; among equals, each is as likely as the others.
    fn cheapest(&self, fit: &dyn Fn(NodeId) -> bool, cost: impl Fn(NodeId) -> f64) -> Option<NodeId> {
        let mut best: Option<(NodeId, f64)> = None;
        let mut equals = 1;
        for id in self.topology.ids().filter(|id| fit(*id)) {
            let load = cost(id) / (self.weight)(id);
            match best {
                Some((_, least)) if load > least => {}
                Some((_, least)) if load == least => {
                    equals += 1;
                    if mix(self.seed.wrapping_add(equals)).is_multiple_of(equals) {
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
    fn by_weight(&self, fit: &dyn Fn(NodeId) -> bool, point: impl FnOnce(f64, f64) -> f64) -> Option<NodeId> {
        let (mut total, mut least) = (0.0, f64::INFINITY);
        for id in self.topology.ids().filter(|id| fit(*id)) {
            total += (self.weight)(id);
            least = (self.weight)(id).min(least);
        }
        let mut left = if total > 0.0 { point(total, least) } else { 0.0 };
        let mut chosen = None;
        for id in self.topology.ids().filter(|id| fit(*id)) {
            chosen = Some(id);
            left -= (self.weight)(id);
            if left < 0.0 {
                break;
            }
        }
        chosen
    }
}

/// Spreads the bits of a counter: the finishing steps of MurmurHash3 (public domain).
fn mix(seed: u64) -> u64 {
    let mut value = seed ^ (seed >> 33);
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}
