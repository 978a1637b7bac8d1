//! A cluster as clients see it: its nodes with their budgets of connections, which come and go while clients are
//! served, and what all its databases share.

use std::{
    fmt::Write,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{census::Censuses, hubs::Hubs, latency::Latency, writes::Writes};
use crate::{
    backend::{Defaults, Senders, ServerManager},
    clients::Registry,
    metrics::NodeNames,
    monitor::{self, Monitor},
    net::Address,
    pool,
    tasks::Scope,
};
use poolhouse_core::{
    session::{ClusterNodes, NewDefaults},
    topology::{NODES_MAX, NodeId, NodeLoads},
};

/// The nodes of one cluster with their budgets of connections.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    pub monitor: Monitor,
    nodes: Box<[OnceLock<ClusterNode>]>,
    /// The node, if there is but one; otherwise [`SEVERAL`].
    only: AtomicU16,
    pub roster: Arc<ClusterNodes>,
    /// For the figures.
    pub names: NodeNames,
    pub connect_timeout: Duration,
    /// They listen for clients.
    pub hubs: Hubs,
    /// Who sends the notifications that clients hear.
    pub senders: Arc<Senders>,
    pub censuses: Censuses,
    pub writes: Writes,
    /// Of all databases and users, as far as it was changed through Poolhouse.
    pub defaults: Defaults,
    pub held: StatementsWaiting,
    /// How often it got another primary than it had.
    pub failovers: AtomicU64,
    /// All its tasks; it ends with them.
    pub scope: Scope,
    /// There is one more for each target on it.
    users: Arc<()>,
}

/// Most nodes that a message tells of.
const NODES_TOLD_MAX: usize = 8;

/// No node.
const SEVERAL: u16 = u16::MAX;

/// Statements that found no server to run on, and waited for one.
#[derive(Debug, Default)]
pub struct StatementsWaiting {
    /// Those that wait.
    pub now: AtomicUsize,
    pub served: AtomicU64,
    /// They were answered with an error.
    pub failed: AtomicU64,
    /// Their clients have left, or were told to.
    pub left: AtomicU64,
}

impl StatementsWaiting {
    /// A statement waits until what is returned is dropped: as one whose client has left, unless that is told
    /// otherwise.
    pub fn hold(&self) -> WaitingStatement<'_> {
        self.now.fetch_add(1, Ordering::Relaxed);
        WaitingStatement { held: self, end: &self.left }
    }
}

#[derive(Debug)]
pub struct WaitingStatement<'a> {
    held: &'a StatementsWaiting,
    end: &'a AtomicU64,
}

impl WaitingStatement<'_> {
    pub fn serve(mut self) {
        self.end = &self.held.served;
    }

    pub fn fail(mut self) {
        self.end = &self.held.failed;
    }
}

impl Drop for WaitingStatement<'_> {
    fn drop(&mut self) {
        self.held.now.fetch_sub(1, Ordering::Relaxed);
        self.end.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct ClusterNode {
    pub name: String,
    pub address: Address,
    pub pools: Arc<pool::NodePools<ServerManager>>,
    /// As far as reads are balanced by it.
    pub latency: Arc<Latency>,
    /// Reads that it was given lately: half of them are forgotten every second.
    pub given: AtomicU32,
}

impl NodeLoads for Cluster {
    fn busy(&self, id: NodeId) -> usize {
        self.node(id).pools.lent()
    }

    fn given(&self, id: NodeId) -> f64 {
        self.node(id).given.load(Ordering::Relaxed).into()
    }

    fn latency(&self, id: NodeId) -> f64 {
        self.node(id).latency.seconds()
    }
}

impl Cluster {
    /// A cluster that is watched and served from now on, below this scope. Must be called on a tokio runtime.
    pub fn start(settings: monitor::Settings, above: &Scope) -> Arc<Cluster> {
        let scope = above.child();
        let settings = Arc::new(settings);
        let cluster = Cluster {
            name: settings.name.clone(),
            monitor: Monitor::start(settings.clone(), &scope),
            nodes: (0..NODES_MAX).map(|_| OnceLock::new()).collect(),
            only: AtomicU16::new(SEVERAL),
            roster: Arc::default(),
            names: NodeNames::of(&settings.name),
            connect_timeout: settings.connect_timeout,
            hubs: Hubs::new(scope.child()),
            senders: Arc::default(),
            censuses: Censuses::new(scope.child()),
            writes: Writes::default(),
            defaults: Defaults::default(),
            held: StatementsWaiting::default(),
            failovers: AtomicU64::new(0),
            scope,
            users: Arc::default(),
        };
        cluster.take_nodes(&settings);
        Arc::new(cluster)
    }

    /// It is as these settings say from now on, which must have all its nodes in their places. Must be called on a
    /// tokio runtime.
    pub fn configure(&self, settings: monitor::Settings) {
        let settings = Arc::new(settings);
        // Before anybody can be sent there.
        self.take_nodes(&settings);
        self.monitor.set_settings(settings);
    }

    fn take_nodes(&self, settings: &monitor::Settings) {
        for (address, place) in settings.addresses.iter().zip(&self.nodes) {
            let node = place.get_or_init(|| ClusterNode {
                name: address.to_string(),
                address: address.clone(),
                pools: pool::NodePools::new(settings.max_connections, self.scope.child()),
                latency: Arc::default(),
                given: AtomicU32::new(0),
            });
            node.pools.set_connections_max(settings.max_connections);
        }
        let nodes = &settings.topology.nodes;
        self.names.extend(nodes.iter().map(|node| &*node.name));
        self.roster.set(nodes.iter().map(|node| (!node.gone).then_some(&*node.name)));
        let mut in_use = (0..).zip(nodes).filter(|(_, node)| !node.gone).map(|(at, _)| at);
        let only = in_use.next().filter(|_| in_use.next().is_none());
        self.only.store(only.unwrap_or(SEVERAL), Ordering::Relaxed);
    }

    /// Who holds this uses the cluster.
    pub fn using(&self) -> Arc<()> {
        self.users.clone()
    }

    pub fn is_used(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }

    /// The node, if there is but one.
    pub fn only(&self) -> Option<NodeId> {
        let only = self.only.load(Ordering::Relaxed);
        (only != SEVERAL).then_some(NodeId(only))
    }

    /// All nodes in the order of their ids, those that are gone among them.
    pub fn nodes(&self) -> impl Iterator<Item = &ClusterNode> {
        self.nodes.iter().map_while(OnceLock::get)
    }

    /// Looks after what is lent, from now on: when the nodes change, those that hold a connection to one which is
    /// fenced, and those that wait for one, learn of it at once. Must be called on a tokio runtime.
    pub fn mind_the_lent(self: &Arc<Self>, clients: Arc<Registry>) {
        let cluster = self.clone();
        self.scope.spawn("mind what is lent", async move {
            let (mut version, mut heights) = (0, vec![0; NODES_MAX]);
            loop {
                tokio::select! {
                    () = cluster.scope.stopping() => return,
                    () = cluster.monitor.changed(version) => {}
                }
                version = cluster.renew_fenced(&mut heights);
                clients.wake_busy();
            }
        });
    }

    /// Closes what idles on nodes that have been fenced since they were as high as `heights` says. Answers the version
    /// of the topology.
    fn renew_fenced(&self, heights: &mut [u64]) -> u64 {
        let topology = self.monitor.topology();
        for ((node, known), height) in self.nodes().zip(&topology.nodes).zip(heights) {
            if std::mem::replace(height, known.fence) != known.fence {
                node.pools.renew();
            }
        }
        topology.version
    }

    /// To be called every second or so: looks after the pools, and closes the idle connections to nodes that are gone.
    pub fn keep(&self) {
        let topology = self.monitor.topology();
        for (node, known) in self.nodes().zip(&topology.nodes) {
            if known.gone {
                node.pools.renew();
            } else {
                node.pools.keep();
            }
            // What is given meanwhile may be lost: it only tilts the balance.
            node.given.store(node.given.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }

    /// How its nodes are, for a message.
    pub fn how_nodes_are(&self) -> String {
        let topology = self.monitor.topology();
        let mut text = String::new();
        for (at, (id, node)) in topology.in_use().enumerate() {
            if at == NODES_TOLD_MAX {
                text.push_str("; and others");
                break;
            }
            let between = if at == 0 { "" } else { "; " };
            let _ = match self.monitor.told(id) {
                Some(told) => write!(text, "{between}{} is {}: {told}", node.name, node.state.name()),
                None => write!(text, "{between}{} is {}: {}", node.name, node.state.name(), node.why),
            };
        }
        text
    }

    /// How long statements wait for a node that can serve them.
    pub fn hold(&self) -> Duration {
        self.monitor.settings().hold
    }

    /// # Panics
    /// When it never had such a node.
    pub fn node(&self, id: NodeId) -> &ClusterNode {
        self.nodes[usize::from(id.0)].get().expect("ids are of this cluster")
    }

    /// Closes the connections to a database (by its name on the servers) that idle, and those in use when they are
    /// given back: PostgreSQL drops, renames or copies it only while nobody else is connected to it, and gives those
    /// who are five seconds to leave.
    pub fn vacate(&self, database: &str) {
        self.censuses.vacate(database);
        self.renew(database);
        // A login to it has to ask a server whether it is still there.
        self.defaults.change();
    }

    /// New server connections for all clients of a database: those that are there are closed once nobody uses them.
    pub fn renew(&self, database: &str) {
        for node in self.nodes() {
            node.pools.renew_where(|manager| manager.database() == database);
        }
    }

    /// Sessions begin with other settings from now on: nothing that was found out about that is trusted any more, and
    /// when servers hold to the old ones on connections that are there, those whom it concerns get new connections.
    pub fn take_defaults(&self, new: &NewDefaults) {
        if let NewDefaults::Of(of) = new {
            let is_meant = |name: &Option<Box<str>>, own: &str| name.as_deref().is_none_or(|name| name == own);
            for node in self.nodes() {
                node.pools.renew_where(|manager| {
                    is_meant(&of.database, manager.database()) && is_meant(&of.user, manager.user())
                });
            }
        }
        // Last, so that what is found out on an old connection until then is not trusted either.
        self.defaults.change();
    }
}
