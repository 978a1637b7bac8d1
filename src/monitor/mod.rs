//! Watches the nodes of one cluster: probes them, feeds `topology`, and carries out what it decides.
//!
//! One `prober` per node asks at every interval over a connection that it keeps. The `coordinator` owns the machine:
//! it takes in what probers and clients saw, publishes the topology, and sets `orders` going. Nobody else decides.

mod conninfo;
mod coordinator;
mod inquiry;
mod orders;
mod probe;
mod prober;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::{
    sync::{Notify, futures::OwnedNotified, mpsc, watch},
    time::timeout,
};

use self::prober::{Advice, Bell};
use crate::{
    backend::{ConnectError, Fence, ServerLogin},
    net::{Address, LiveTls, ServerTls, Tcp},
    tasks::Scope,
};
use poolhouse_core::{
    auth::{Credential, Secret},
    topology::{self, Machine, NODES_MAX, NodeId, Observation, Order, Topology},
};

/// Events that wait for the coordinator; beyond that, reports of clients are dropped: they say the same.
const EVENTS_MAX: usize = 1024;

/// One cluster: `[clusters.X]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub name: String,
    /// In the order of `topology.nodes`: those that are gone keep their places, and new ones come after them.
    pub addresses: Vec<Address>,
    pub topology: topology::Settings,
    pub routing: topology::Routing,
    /// Server connections per node, over all pools, at least 1.
    pub max_connections: usize,
    pub health: Health,
    /// How long statements wait for a primary before they fail with SQLSTATE 57P03.
    pub hold: Duration,
    /// Nothing that the primary answers is passed on while its last answer to a probe is older; `None` = passed on at
    /// once.
    pub fence_limit: Option<Duration>,
    /// Of the connections to its nodes.
    pub tcp: Tcp,
    /// How these are encrypted.
    pub tls: Arc<ServerTls>,
    /// Longest time to connect and log in to a server.
    pub connect_timeout: Duration,
}

/// `[clusters.X.health]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Who asks; without one, the first database entry with a fixed user is borrowed.
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub interval: Duration,
    pub timeout: Duration,
}

/// What a client's connection saw of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientReport {
    /// Nobody listens there, or it does not let anybody in at the moment.
    ConnectionRefused { reason: String },
    /// An established connection broke.
    ServerLost { reason: String },
    /// A server said that its role is another now.
    Turned,
    /// A server that was used as primary said SQLSTATE 25006, or `in_hot_standby = on`.
    ReadOnly,
}

/// One cluster under watch. Clones are the same watch; its tasks end with the scope that they were started in.
#[derive(Debug, Clone)]
pub struct Monitor {
    shared: Arc<MonitorState>,
}

/// Written by the coordinator, read by everybody.
#[derive(Debug)]
struct MonitorState {
    settings: ArcSwap<Settings>,
    /// Those of the settings, for connections of pools.
    tls: LiveTls,
    /// There is a `fence_limit`.
    strict: AtomicBool,
    /// The settings are others.
    reconfigured: Notify,
    topology: ArcSwap<Topology>,
    version: watch::Sender<u64>,
    events: mpsc::Sender<Event>,
    /// By node, for all that there can be.
    fences: Box<[Arc<Fence>]>,
    /// One for each node's prober.
    bells: ArcSwap<Vec<Bell>>,
    /// A replica has been found to have replayed more.
    fresher: Notify,
    /// For each node, why the last health check got no connection, or no answer; `None` when all is well.
    told: Box<[ArcSwapOption<ConnectError>]>,
    /// When the watch began.
    began: tokio::time::Instant,
    /// The primary has answered a probe.
    proven: Arc<Notify>,
    advice: Advice,
    scope: Scope,
}

impl MonitorState {
    fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Asks the prober of a node for a probe, over a new connection if `anew`. Nothing when there is none.
    fn ring(&self, node: NodeId, anew: bool) {
        if let Some(bell) = self.bells.load().get(usize::from(node.0)) {
            if anew {
                bell.reopen();
            } else {
                bell.ring();
            }
        }
    }
}

/// Something that happened to a node.
#[derive(Debug)]
struct Event {
    node: NodeId,
    observation: Observation,
    /// Seen by a client: the next probe must prove that new connections work.
    reported: bool,
}

impl Monitor {
    /// Starts to watch; the first probes leave at once. Must be called on a tokio runtime.
    pub fn start(settings: Arc<Settings>, scope: &Scope) -> Monitor {
        let machine = Machine::new(&settings.topology, now());
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(MonitorState {
            topology: ArcSwap::from_pointee(machine.topology().clone()),
            version: watch::Sender::new(machine.topology().version),
            fences: (0..NODES_MAX).map(|_| Arc::default()).collect(),
            bells: ArcSwap::default(),
            strict: AtomicBool::new(settings.fence_limit.is_some()),
            tls: Arc::new(ArcSwap::new(settings.tls.clone())),
            settings: ArcSwap::new(settings),
            reconfigured: Notify::new(),
            events,
            fresher: Notify::new(),
            told: (0..NODES_MAX).map(|_| ArcSwapOption::empty()).collect(),
            began: tokio::time::Instant::now(),
            proven: Arc::default(),
            advice: Advice::default(),
            scope: scope.clone(),
        });
        prober::settle(&shared);
        coordinator::start(machine, &shared, inbox, scope);
        Monitor { shared }
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.shared.settings()
    }

    /// Watches and decides by other settings from now on. Must be called on a tokio runtime.
    ///
    /// # Panics
    /// In tests, when the addresses are not those that were there, with new ones after them.
    pub fn set_settings(&self, settings: Arc<Settings>) {
        debug_assert!(settings.addresses.starts_with(&self.shared.settings().addresses));
        self.shared.strict.store(settings.fence_limit.is_some(), Ordering::Relaxed);
        self.shared.tls.store(settings.tls.clone());
        self.shared.settings.store(settings);
        self.shared.reconfigured.notify_one();
        prober::settle(&self.shared);
        self.shared.bells.load().iter().for_each(Bell::ring);
    }

    /// How connections to the nodes are encrypted, now and after a change of the settings.
    pub fn tls(&self) -> LiveTls {
        self.shared.tls.clone()
    }

    /// As who checks its health, but to another database.
    pub fn login(&self, node: NodeId, database: &str) -> ServerLogin {
        ServerLogin { database: database.to_owned(), ..self.shared.settings().login(node) }
    }

    /// What cuts the connections to a node when it is not to be used any more.
    pub fn fence(&self, node: NodeId) -> Arc<Fence> {
        self.shared.fences[usize::from(node.0)].clone()
    }

    /// What is known now. Cheap; hold it for one decision, not across an await.
    pub fn topology(&self) -> Guard<Arc<Topology>> {
        self.shared.topology.load()
    }

    /// Why the last health check of a node got no connection, or no answer.
    pub fn told(&self, node: NodeId) -> Option<Arc<ConnectError>> {
        self.shared.told.get(usize::from(node.0))?.load_full()
    }

    /// For how long the cluster has been watched.
    pub fn age(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Tells what a client's connection saw. Never waits.
    pub fn report(&self, node: NodeId, report: ClientReport) {
        let observation = match report {
            ClientReport::ConnectionRefused { reason } => Observation::ConnectionRefused { reason },
            ClientReport::ServerLost { reason } => Observation::ServerLost { reason },
            ClientReport::Turned => Observation::Turned,
            ClientReport::ReadOnly => Observation::ReadOnly,
        };
        self.tell(Event { node, observation, reported: true });
    }

    /// Takes a node out of use for new transactions, or back into use.
    pub fn order(&self, node: NodeId, order: Order) {
        self.tell(Event { node, observation: Observation::Ordered(order), reported: false });
    }

    /// A read finds no replica that is known to have what it must see: the primary is asked now where it is, and then
    /// those behind it, how far they are. Never waits; cheap.
    pub fn want_fresh(&self) {
        if let Some(primary) = self.topology().primary {
            self.shared.ring(primary, false);
        }
    }

    /// Resolves when a replica has been found to have replayed more, which is no change of the version. What is to be
    /// noticed must be looked for after the first poll. Cancel-safe.
    pub async fn fresher(&self) {
        self.shared.fresher.notified().await;
    }

    /// Whether commits are to be acknowledged only by a primary that has been proven lately.
    #[inline]
    pub fn is_strict(&self) -> bool {
        self.shared.strict.load(Ordering::Relaxed)
    }

    /// Whether what the primary answers may be passed on: always, unless commits are to be acknowledged only by a
    /// primary that has been proven lately.
    pub fn is_proven(&self) -> bool {
        let Some(limit) = self.shared.settings.load().fence_limit else { return true };
        let seen = self.topology().primary_seen;
        seen.is_some_and(|seen| now().saturating_duration_since(seen) <= limit)
    }

    /// Resolves when the primary has answered another probe, which is asked for. What comes of it must be looked for
    /// after this was made.
    pub fn proven(&self) -> OwnedNotified {
        self.want_fresh();
        self.shared.proven.clone().notified_owned()
    }

    /// Resolves when the topology's version is above `seen`, so that it pays to route again. Cancel-safe. Pends for
    /// ever once the watch has ended.
    pub async fn changed(&self, seen: u64) {
        let waited = self.shared.version.subscribe().wait_for(|version| *version > seen).await.is_ok();
        debug_assert!(waited, "`self` keeps the sender");
    }

    /// Resolves when every node has answered or failed once, or after `limit`; tells which. Cancel-safe.
    pub async fn ready(&self, limit: Duration) -> bool {
        let settled = async {
            while let Some(version) = self.unsettled() {
                self.changed(version).await;
            }
        };
        timeout(limit, settled).await.is_ok()
    }

    fn unsettled(&self) -> Option<u64> {
        let topology = self.topology();
        (!topology.settled).then_some(topology.version)
    }

    fn tell(&self, event: Event) {
        // Full: the coordinator has a thousand events to learn the same from. Closed: we are shutting down.
        let _ = self.shared.events.try_send(event);
    }
}

impl Settings {
    /// As whom health checks log in at `node`, which must be of this cluster.
    fn login(&self, node: NodeId) -> ServerLogin {
        let password = self.health.password.clone();
        ServerLogin {
            address: self.addresses[usize::from(node.0)].clone(),
            database: self.health.database.clone(),
            user: self.health.user.clone(),
            credential: Arc::new(ArcSwap::from_pointee(password.map_or(Credential::None, Credential::Secret))),
            parameters: vec![("application_name".into(), "poolhouse".into())],
            tcp: self.tcp,
            tls: Arc::new(ArcSwap::new(self.tls.clone())),
        }
    }
}

/// The runtime's clock, which tests can pause, as the pure modules count time.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
