//! The nodes of one cluster as a value: what is known of each, what to do when one is lost, and which may serve a
//! statement. Pure: events and `now` come in, decisions go out. Knows no addresses: a node is its index.
//!
//! `machine` judges what is observed (with `history` for freshness and `election` for promotions), `snapshot` is what
//! it publishes, and `route` picks a node from that.

mod election;
mod history;
mod lag;
mod machine;
mod observation;
mod route;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use crate::sql::Lists;

pub use lag::Lag;
pub use machine::Machine;
pub use observation::{Action, NodeProbe, Observation, Order, Receiver, Testimony};
pub use route::{NodeLoads, NodeNeed, NodeSet, RouteError, Unfit, Wish, lacks_replicas, route, standing};
pub use rules::{Preference, RoutingRule, Who};
pub use snapshot::{Failover, Node, Obstacle, State, Topology};

/// A node's place in the cluster's list of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

/// What a node is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes writes, and sends its WAL to the others.
    Primary,
    /// In recovery: replays the WAL of another server.
    Replica,
}

/// One node as the configuration names it; the rest is found out by asking it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// Its address as text, for messages.
    pub name: String,
    /// Share of the reads relative to the other nodes, greater than 0, at most 1000.
    pub weight: f64,
    /// When set, the node is never used in the other role.
    pub role: Option<Role>,
    /// It is in our own zone, or no zones are named.
    pub near: bool,
    /// It has been removed from the configuration. Its place stays, so that those of the others do.
    pub gone: bool,
}

/// Most nodes that a cluster can have had, those that are gone among them.
pub const NODES_MAX: usize = 128;

/// Where statements that only read may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// The primary only.
    Primary,
    /// Replicas; the primary when no replica is fit, if [`Routing::fallback`] says so.
    #[default]
    Replica,
    /// Replicas and the primary alike.
    Any,
}

/// Which of several fit nodes gets a read. Weights count in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// That with the fewest connections lent, for its weight.
    #[default]
    LeastBusy,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The fastest, for what it has to do already.
    Latency,
}

/// What a session's reads may miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Anything that a replica has not replayed yet.
    Eventual,
    /// Nothing that the session itself has written.
    #[default]
    Session,
    /// Nothing that any session of the database has written by way of this Poolhouse.
    Global,
}

/// `[clusters.X.routing]`, and overridden in `[databases.X.routing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Where reads may go.
    pub reads: Reads,
    /// Which node of several gets them.
    pub balance: Balance,
    /// A replica that is further behind serves no reads; `None` = no bound.
    pub max_lag: Option<Duration>,
    /// The same in bytes of WAL.
    pub max_lag_bytes: Option<u64>,
    /// What a read must see.
    pub consistency: Consistency,
    /// How long a read waits for a replica that has what it must see, before it goes to the primary.
    pub causal_wait: Duration,
    /// Reads go to the primary when no replica is fit; otherwise they wait for one.
    pub fallback: bool,
    /// Where transactions run that may write.
    pub transactions: Transactions,
    /// What the configuration knows better of functions and tables.
    pub lists: Arc<Lists>,
    /// For sessions by who they are; the first that fits counts.
    pub rules: Arc<[RoutingRule]>,
}

impl Default for Routing {
    fn default() -> Self {
        Routing {
            reads: Reads::default(),
            balance: Balance::default(),
            max_lag: Some(Duration::from_secs(10)),
            max_lag_bytes: None,
            consistency: Consistency::default(),
            causal_wait: Duration::ZERO,
            fallback: true,
            transactions: Transactions::default(),
            lists: Arc::default(),
            rules: Arc::default(),
        }
    }
}

/// Where explicit transactions run that may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transactions {
    /// On the primary.
    #[default]
    Primary,
    /// READ COMMITTED ones read on a replica until something else than a read comes.
    ReadUntilWrite,
}

/// What is done when the primary is lost. `[clusters.X.failover] mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailoverMode {
    /// The first primary seen stays the only one; its loss is an outage until it comes back.
    Off,
    /// Someone else promotes; the new primary is found by role and highest timeline.
    #[default]
    Follow,
    /// Poolhouse promotes.
    Promote,
}

/// What the machine needs to know of one cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The nodes, in the order of the configuration; at most [`NODES_MAX`].
    pub nodes: Vec<NodeSettings>,
    /// What is done when the primary is lost.
    pub failover: FailoverMode,
    /// Failed probes in a row until a node is down, at least 1. `[clusters.X.health] failures`.
    pub failures: u32,
    /// After so long without a word from a primary that is down, a replica that has asked for one has lost it although it
    /// still holds its connection; `None` = only when that has ended. `[clusters.X.failover] witness_silence`.
    pub silence: Option<Duration>,
}
