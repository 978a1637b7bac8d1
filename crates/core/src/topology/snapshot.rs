//! What is known of the cluster at one moment. Immutable once published; cheap to read.

use std::{sync::Arc, time::Instant};

use super::{NodeId, Role, lag::Lag};

/// What a node may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not asked yet, or a primary that waits until every node was asked once.
    Unknown,
    /// Answers.
    Up,
    /// Failed lately, not often enough to be down. A primary is still used; a replica only when nothing else is left.
    Suspect {
        /// Failed probes in a row, at least 1.
        failures: u32,
    },
    /// Failed too often in a row: not used, and what was lent of it is cut.
    Down,
    /// Answers, and is never used: an old primary, a second primary, a server of another cluster.
    Stale,
    /// An operator lets it run dry: nothing new begins on it.
    Draining,
    /// An operator has taken it out of use until told otherwise.
    Paused,
}

impl State {
    /// As SHOW NODES and the metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Up => "up",
            State::Suspect { .. } => "suspect",
            State::Down => "down",
            State::Stale => "stale",
            State::Draining => "draining",
            State::Paused => "paused",
        }
    }
}

/// One node as last seen. What a node said stays while it is away.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// `address:port`, or as the configuration names it.
    pub name: Arc<str>,
    /// Its share of the reads, relative to the others'; 0 = none.
    pub weight: f64,
    /// It is in our own zone, or no zones are named.
    pub near: bool,
    /// It is no node of the cluster any more.
    pub gone: bool,
    /// What it may be used for.
    pub state: State,
    /// `None` until it has answered once.
    pub role: Option<Role>,
    /// 0 = not known.
    pub timeline: u32,
    /// Of the cluster that it was made for (`pg_control_system()`); `None` = not known.
    pub system_identifier: Option<u64>,
    /// WAL position: inserted on a primary, replayed on a replica.
    pub lsn: u64,
    /// WAL position that a replica has received.
    pub received: u64,
    /// A replica whose receiver hears its sender.
    pub streaming: bool,
    /// A replica has replayed every commit that the present primary acknowledged before this moment. `None` on a
    /// primary, after a failover until it is proven anew, and while the replica does not answer.
    pub fresh_as_of: Option<Instant>,
    /// How far a replica was behind at worst of late.
    pub worst: Lag,
    /// When it came back, if it was down before.
    pub returned: Option<Instant>,
    /// When the state or the role last changed.
    pub since: Instant,
    /// Why the state is what it is.
    pub why: Arc<str>,
    /// Rises when the node is not to be used any more as it was: it is down or stale, or has lost the role of the primary.
    /// Whatever was lent of it before that is cut, and nothing that it says afterwards counts.
    pub fence: u64,
}

/// Why there is no promotion although the primary is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// This replica still hears the primary.
    Heard(NodeId),
    /// This replica still holds its connection to the primary, and nothing has come over it since the primary was lost: it is
    /// made to ask for a sign of life, and when none comes that soon counts as lost.
    Listening(NodeId),
    /// This replica has not been asked since the primary went down, or fails its probes without being down yet.
    Unproven(NodeId),
    /// Fewer than half of the cluster's replicas can be asked.
    FewWitnesses,
    /// No replica that may be promoted has all but the last seconds of the primary's WAL on its timeline.
    NoCandidate,
    /// The pause after a promotion that failed.
    Pausing,
}

/// Where a promotion by us stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Failover {
    /// Nothing to do, or not ours to do.
    #[default]
    Idle,
    /// The primary is down, and this stands against a promotion.
    Waiting(Obstacle),
    /// This replica is being promoted.
    Promoting(NodeId),
}

/// The cluster at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Rises when a state, a role or the primary changes: whoever waits for one of these waits for this. Positions and
    /// freshness change without it.
    pub version: u64,
    /// By `NodeId`.
    pub nodes: Vec<Node>,
    /// The one node that takes writes; its state is `Up` or `Suspect`.
    pub primary: Option<NodeId>,
    /// The timeline of the primary that was adopted last; 0 = none yet.
    pub timeline: u32,
    /// When the last answer of a primary was asked for; `None` until the first one.
    pub primary_seen: Option<Instant>,
    /// Every node has answered or failed once.
    pub settled: bool,
    /// Where a promotion by us stands.
    pub failover: Failover,
}

impl Topology {
    /// The ids of all nodes, in their order, those that are gone among them.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u16).map(NodeId)
    }

    /// The nodes that are in use.
    pub fn in_use(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.ids().zip(&self.nodes).filter(|(_, node)| !node.gone)
    }

    /// The node, if there is but one.
    pub fn only(&self) -> Option<NodeId> {
        let mut nodes = self.in_use();
        nodes.next().filter(|_| nodes.next().is_none()).map(|(id, _)| id)
    }

    /// `None` for an id that is not of this cluster.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(id.0))
    }
}
