//! What the clients of one database and user share: their pools, one for each node, and what a login has found out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{census::OwnCodeCensus, cluster::Cluster, configured::DatabaseSettings, gate::Gate, writes::LastWrite};
use crate::{
    backend::{ConnectError, Defaults, Greeting, Logins, ServerLogin, ServerManager},
    metrics::Account,
    pool,
};
use poolhouse_core::{
    auth::Credential,
    session::{self, Carried, Mode, Reported, Shared, Statements},
    sql::Isolation,
    topology::{Consistency, NODES_MAX, NodeId, NodeSet, Routing, Transactions},
};

/// How a session begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its settings as the server spells them.
    pub settings: Arc<Carried>,
    /// What the server reports of them.
    pub reported: Arc<Reported>,
    /// What the server reports of itself.
    pub about_server: Arc<Reported>,
    /// What the server said to the login.
    pub greeting: Option<Arc<Greeting>>,
    /// The isolation of its transactions when nothing else is said; it is asked for where it decides about a node.
    pub isolation: Option<Isolation>,
}

/// A [`Beginning`], and when it was found out.
#[derive(Debug)]
struct Remembered {
    beginning: Beginning,
    as_of: AsOf,
    since: Instant,
}

/// A moment, by the changes of settings that were known then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    of_cluster: u64,
    of_target: u64,
}

/// How long it is trusted how a session begins, while nothing speaks against it: not every change of a default is
/// reported by servers.
const BEGINNING_AGE_MAX: Duration = Duration::from_secs(60);

/// How long a connection that only logins use is kept for the next one.
const LOGIN_POOL_IDLE: Duration = Duration::from_secs(5);

/// Most distinct sets of startup parameters that are remembered.
const BEGINNINGS_MAX: usize = 1_000;

/// What a [`Target`] is made of.
pub struct NewTarget<'a> {
    pub settings: DatabaseSettings,
    /// As the clients call it.
    pub database: &'a str,
    pub user: &'a str,
    /// What the client has proved, for servers that are to see its own name.
    pub credential: Credential,
    pub statements: Arc<Statements>,
    pub account: Arc<Account>,
    pub gate: Arc<Gate>,
}

/// What the clients of one database and user share.
#[derive(Debug)]
pub struct Target {
    pub cluster: Arc<Cluster>,
    pub routing: Routing,
    pub limits: session::Settings,
    pub shared: Arc<Shared>,
    /// When any session has written to the database last, if these sessions must see that.
    pub writes: Option<Arc<LastWrite>>,
    /// The same, for others.
    pub writes_here: Arc<LastWrite>,
    /// What its clients do is counted there.
    pub account: Arc<Account>,
    /// As it was made.
    pub settings: DatabaseSettings,
    gate: Arc<Gate>,
    pool: Mutex<pool::Settings>,
    /// One of these settings, to be looked at by those who wait; 0 for never.
    wait_notice: AtomicU64,
    login: ServerLogin,
    /// Made when first needed.
    pools: Vec<OnceLock<Arc<pool::Pool<ServerManager>>>>,
    /// See [`Target::login_pool`].
    login_pools: Mutex<BTreeMap<u16, Arc<pool::Pool<ServerManager>>>>,
    beginnings: Mutex<HashMap<Vec<(String, String)>, Remembered>>,
    /// Told of by its connections.
    defaults: Arc<Defaults>,
    /// What its sessions begin with, by node, in session mode.
    stamps: Mutex<BTreeMap<u16, String>>,
    /// What the nodes do to its logins.
    pub logins: Arc<Logins>,
    /// What is known of the database's own code is kept as long as this is.
    census: Arc<OwnCodeCensus>,
    _using: Arc<()>,
}

impl Target {
    pub fn new(new: NewTarget<'_>) -> Target {
        let NewTarget { settings, database, user, credential, statements, account, gate } = new;
        let as_made = settings.clone();
        let (user, credential) = settings.login.unwrap_or_else(|| (user.to_owned(), credential));
        let cluster = settings.cluster;
        let database = settings.database.unwrap_or_else(|| database.to_owned());
        let census = cluster.censuses.of(&database);
        let writes_here = cluster.writes.of(&database);
        let sees_all = settings.routing.consistency == Consistency::Global;
        if sees_all {
            writes_here.want();
        }
        let shared = Shared {
            mode: settings.session.mode,
            statements_max: settings.session.prepared_statements,
            on_pin: settings.session.on_pin,
            reads_until_write: settings.routing.transactions == Transactions::ReadUntilWrite,
            lists: Some(settings.routing.lists.clone()).filter(|lists| !lists.is_empty()),
            nodes: cluster.roster.clone(),
            statements,
            code: census.code.clone(),
        };
        Target {
            routing: settings.routing,
            limits: settings.session,
            shared: Arc::new(shared),
            writes: sees_all.then(|| writes_here.clone()),
            writes_here,
            account,
            settings: as_made,
            gate,
            wait_notice: AtomicU64::new(notice_millis(&settings.pool)),
            pool: Mutex::new(settings.pool),
            login: ServerLogin {
                // Replaced for each node.
                address: cluster.node(NodeId(0)).address.clone(),
                database,
                user,
                credential: Arc::new(ArcSwap::from_pointee(credential)),
                parameters: Vec::new(),
                tcp: cluster.monitor.settings().tcp,
                tls: cluster.monitor.tls(),
            },
            _using: cluster.using(),
            pools: (0..NODES_MAX).map(|_| OnceLock::new()).collect(),
            login_pools: Mutex::default(),
            cluster,
            beginnings: Mutex::default(),
            defaults: Arc::default(),
            stamps: Mutex::default(),
            logins: Arc::default(),
            census,
        }
    }

    /// Lets what is known of the database's own code be kept for its sessions, unless they are of session mode, where
    /// nobody wants to know.
    pub fn keep_census(self: &Arc<Self>) {
        if self.shared.mode != Mode::Session {
            let reader: Weak<Target> = Arc::downgrade(self);
            self.census.join(reader);
        }
    }

    /// Waits for the first look at the database's own code.
    pub async fn code_looked_at(&self) {
        if self.shared.mode != Mode::Session {
            self.census.looked().await;
        }
    }

    /// Waits until somebody has looked, from now on, whether sessions of this user begin as they did before.
    pub async fn defaults_looked_at(&self) {
        if self.shared.mode != Mode::Session {
            self.census.defaults_looked(self.login_user()).await;
        }
    }

    /// What sessions begin with on a node, as a server connection that is there has just told. False when the
    /// connections that are there have begun otherwise.
    pub fn begins_as_before(&self, node: NodeId, stamp: String) -> bool {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let before = stamps.insert(node.0, stamp.clone());
        let same = before.is_none_or(|before| before == stamp);
        if !same {
            self.defaults.change();
        }
        same
    }

    /// Whether the statements that come now go to the primary only because the database's own code has not been looked
    /// at for a while. Costs one load.
    #[inline]
    pub fn is_code_at_rest(&self) -> bool {
        self.shared.code.is_at_rest() && self.shared.is_routed()
    }

    /// Waits for the next look, a moment at most.
    pub async fn code_looked_at_again(&self) {
        self.census.looked_again().await;
    }

    /// The pool of one node.
    pub fn pool(&self, node: NodeId) -> &Arc<pool::Pool<ServerManager>> {
        self.pools[usize::from(node.0)]
            .get_or_init(|| self.open_pool(node, self.pool_settings(), Vec::new(), self.defaults.clone()))
    }

    /// The nodes that let none of its logins in at the moment, or have not answered one yet: others come first. They
    /// are tried again without a client.
    pub fn troubled(&self) -> NodeSet {
        NodeSet::of_bits(self.logins.troubled())
    }

    /// Of these the ones where no connection idles, either.
    pub fn useless(&self) -> NodeSet {
        let mut nodes = self.troubled();
        for node in nodes.ids() {
            if self.pool(node).counts().idle > 0 {
                nodes.remove(node);
            }
        }
        nodes
    }

    /// Why a node lets none of its logins in.
    pub fn refusal(&self, node: NodeId) -> Option<ConnectError> {
        if !self.troubled().contains(node) {
            return None;
        }
        self.pool(node).trouble()?.error
    }

    /// A pool of one connection that is for one client alone, opened with its startup parameters. It has its share of
    /// the node's budget like any other.
    pub fn own_pool(&self, node: NodeId, parameters: Vec<(String, String)>) -> Arc<pool::Pool<ServerManager>> {
        let settings =
            pool::Settings { size: 1, min_idle: 0, idle_timeout: None, max_lifetime: None, ..self.pool_settings() };
        self.open_pool(node, settings, parameters, Arc::default())
    }

    /// A pool of one connection over which logins find out how they begin while all of the other pool are in use. It
    /// has its share of the node's budget, and is closed soon.
    pub fn login_pool(&self, node: NodeId) -> Arc<pool::Pool<ServerManager>> {
        let mut pools = self.login_pools.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || {
            let pool = self.pool_settings();
            let idle_timeout = Some(pool.idle_timeout.map_or(LOGIN_POOL_IDLE, |limit| limit.min(LOGIN_POOL_IDLE)));
            let settings = pool::Settings { size: 1, reserve_size: 0, min_idle: 0, idle_timeout, ..pool };
            self.open_pool(node, settings, Vec::new(), self.defaults.clone())
        };
        pools.entry(node.0).or_insert_with(open).clone()
    }

    fn open_pool(
        &self,
        node: NodeId,
        settings: pool::Settings,
        parameters: Vec<(String, String)>,
        defaults: Arc<Defaults>,
    ) -> Arc<pool::Pool<ServerManager>> {
        let login = ServerLogin { parameters, ..self.login(node) };
        let (senders, fence) = (self.cluster.senders.clone(), self.cluster.monitor.fence(node));
        let (logins, limit) = (self.logins.clone(), self.cluster.connect_timeout);
        let manager = ServerManager::new(login, node.0, fence, senders, defaults, logins, limit);
        let pool = self.cluster.node(node).pools.pool(settings, manager);
        self.gate.enter(&pool);
        pool
    }

    /// As whom the clients log in at a node.
    pub fn login(&self, node: NodeId) -> ServerLogin {
        ServerLogin { address: self.cluster.node(node).address.clone(), ..self.login.clone() }
    }

    /// How the hub of this database logs in, wherever the primary is, for clients with this encoding.
    pub fn login_for_listening(&self, encoding: &str) -> ServerLogin {
        let parameters = [("application_name", "poolhouse"), ("client_encoding", encoding)];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ServerLogin { parameters: parameters.into(), ..self.login.clone() }
    }

    /// When the last write was answered that a session must see which itself wrote then.
    pub fn must_see(&self, last_write: Option<Instant>) -> Option<Instant> {
        match &self.writes {
            Some(writes) => last_write.max(writes.last()),
            None => last_write,
        }
    }

    /// The database's name on the server.
    pub fn server_database(&self) -> &str {
        &self.login.database
    }

    /// As whom it logs in to servers.
    pub fn login_user(&self) -> &str {
        &self.login.user
    }

    /// An operator has stopped the lending.
    pub fn is_paused(&self) -> bool {
        self.gate.is_paused()
    }

    /// Another client of the same user has proved who it is: the connections that are opened from now on log in with what
    /// it has, since what was there before may be out of date.
    pub fn renew_credential(&self, proved: Credential) {
        let is_new = proved != Credential::None && **self.login.credential.load() != proved;
        if is_new && !self.has_fixed_login() {
            self.login.credential.store(Arc::new(proved));
        }
    }

    /// Whether that is the same whoever the client is.
    pub fn has_fixed_login(&self) -> bool {
        self.settings.login.is_some()
    }

    /// How long a client waits for a connection; `None` for ever.
    pub fn checkout_timeout(&self) -> Option<Duration> {
        self.pool_settings().checkout_timeout
    }

    /// A client that has waited for so long is told what for; `None` for never.
    pub fn wait_notice(&self) -> Option<Duration> {
        let millis = self.wait_notice.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    fn pool_settings(&self) -> pool::Settings {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its pools lend by other settings from now on.
    pub fn set_pool_settings(&self, settings: &pool::Settings) {
        // Under the lock, so that a pool that is made meanwhile gets them one way or the other.
        let mut held = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if *held != *settings {
            *held = settings.clone();
            self.wait_notice.store(notice_millis(settings), Ordering::Relaxed);
            self.pools().for_each(|(_, pool)| pool.set_settings(settings.clone()));
        }
    }

    /// Its pools, as far as they have been needed.
    pub fn pools(&self) -> impl Iterator<Item = (NodeId, &Arc<pool::Pool<ServerManager>>)> {
        let numbered = (0..).map(NodeId).zip(&self.pools);
        numbered.filter_map(|(node, pool)| Some((node, pool.get()?)))
    }

    /// Whether no server connection belongs to it.
    pub fn is_empty(&self) -> bool {
        let is_empty = |pool: &Arc<pool::Pool<ServerManager>>| pool.counts() == pool::PoolCounts::default();
        let of_logins = self.login_pools.lock().unwrap_or_else(PoisonError::into_inner);
        self.pools.iter().filter_map(OnceLock::get).chain(of_logins.values()).all(is_empty)
    }

    /// Now.
    pub fn as_of(&self) -> AsOf {
        AsOf { of_cluster: self.cluster.defaults.changes(), of_target: self.defaults.changes() }
    }

    /// How a session with these startup parameters begins, if one has begun before, and nothing has changed since.
    pub fn beginning(&self, startup: &[(String, String)]) -> Option<Beginning> {
        let now = self.as_of();
        let mut beginnings = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = beginnings.get(startup)?;
        if remembered.as_of != now || remembered.since.elapsed() > BEGINNING_AGE_MAX {
            beginnings.remove(startup);
            return None;
        }
        Some(remembered.beginning.clone())
    }

    /// Remembers how a session begins, which was asked for at `as_of`.
    pub fn remember(&self, startup: Vec<(String, String)>, beginning: Beginning, as_of: AsOf) {
        let mut beginnings = self.beginnings.lock().unwrap_or_else(PoisonError::into_inner);
        if beginnings.len() >= BEGINNINGS_MAX {
            beginnings.clear();
        }
        beginnings.insert(startup, Remembered { beginning, as_of, since: Instant::now() });
    }
}

fn notice_millis(settings: &pool::Settings) -> u64 {
    settings.wait_notice.map_or(0, |notice| notice.as_millis().max(1) as u64)
}
