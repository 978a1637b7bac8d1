//! What clients and servers did, by database, user and node. A client's task counts in a [`Tally`] of its own, and adds
//! that to the [`Traffic`] of its pool once its transaction is done: no look-up and no lock on the way.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    counter::{Counter, Writers},
    counts::{COUNTS, Count},
    histogram::{Distribution, Histogram},
    sqlstate::{ErrorCounters, Errors, SqlStateClass},
};

/// Most pairs of database and user that have figures of their own: names that clients make up must not fill the memory.
const ACCOUNTS_MAX: usize = 1_000;

/// Workers that count in numbers of their own, so that they do not take the cache lines of these from each other.
const SHARDS_OF_WORKERS: usize = 15;

/// The last one is for all others.
const SHARDS: usize = SHARDS_OF_WORKERS + 1;

/// Most nodes of a cluster.
const NODES_MAX: usize = 128;

/// Most clusters of one such pair. Each RELOAD may move its database to another one.
const CLUSTERS_MAX: usize = 16;

/// Who the others are counted as.
const OTHERS: &str = "(others)";

/// Numbers of one client that have not been added to those of its pool yet.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [u64; COUNTS],
    /// Durations, and how often: one of each, as a rule.
    queries: SmallVec<[(Duration, u32); 1]>,
    transactions: SmallVec<[(Duration, u32); 1]>,
    waits: SmallVec<[Duration; 1]>,
    server_errors: Option<Box<Errors>>,
    own_errors: Option<Box<Errors>>,
}

impl Tally {
    #[inline]
    pub fn add(&mut self, count: Count, more: u64) {
        self.counts[count as usize] += more;
    }

    /// Takes something back that was added since the last [`Tally::flush`].
    pub fn take_back(&mut self, count: Count, less: u64) {
        let held = &mut self.counts[count as usize];
        *held = held.saturating_sub(less);
    }

    /// Queries that a server has answered, each in this time.
    pub fn add_queries(&mut self, each: Duration, times: u32) {
        self.queries.push((each, times));
    }

    /// Transactions that have ended on a server, each after this time.
    pub fn add_transactions(&mut self, each: Duration, times: u32) {
        self.transactions.push((each, times));
    }

    /// A client got a server connection for which it had to wait.
    pub fn add_wait(&mut self, wait: Duration) {
        self.waits.push(wait);
    }

    /// A server has reported an error.
    pub fn add_server_error(&mut self, class: SqlStateClass) {
        self.server_errors.get_or_insert_default().add(class);
    }

    /// A client got an error of Poolhouse's own.
    pub fn add_own_error(&mut self, class: SqlStateClass) {
        self.own_errors.get_or_insert_default().add(class);
    }

    /// How many durations are held.
    pub fn durations(&self) -> usize {
        self.queries.len() + self.transactions.len()
    }

    /// Adds all to the traffic of a pool, and begins anew.
    pub fn flush(&mut self, traffic: &Traffic) {
        let writers = traffic.writers;
        for (held, counter) in self.counts.iter_mut().zip(&traffic.counts).filter(|(held, _)| **held > 0) {
            counter.add(std::mem::take(held), writers);
        }
        self.queries.drain(..).for_each(|(each, times)| traffic.queries.add(each, times.into(), writers));
        self.transactions.drain(..).for_each(|(each, times)| traffic.transactions.add(each, times.into(), writers));
        self.waits.drain(..).for_each(|wait| traffic.waits.add(wait, 1, writers));
        if let Some(errors) = self.server_errors.take() {
            traffic.server_errors.merge(&errors);
        }
        if let Some(errors) = self.own_errors.take() {
            traffic.own_errors.merge(&errors);
        }
    }
}

/// What was done for one database and user on one node, or by Poolhouse itself.
#[derive(Debug)]
pub struct Traffic {
    writers: Writers,
    counts: [Counter; COUNTS],
    queries: Histogram,
    transactions: Histogram,
    waits: Histogram,
    server_errors: ErrorCounters,
    own_errors: ErrorCounters,
}

impl Traffic {
    fn new(writers: Writers) -> Traffic {
        Traffic {
            writers,
            counts: Default::default(),
            queries: Histogram::default(),
            transactions: Histogram::default(),
            waits: Histogram::default(),
            server_errors: ErrorCounters::default(),
            own_errors: ErrorCounters::default(),
        }
    }

    pub fn add(&self, count: Count, more: u64) {
        self.counts[count as usize].add(more, self.writers);
    }

    pub fn add_wait(&self, wait: Duration) {
        self.waits.add(wait, 1, self.writers);
    }

    pub fn add_own_error(&self, class: SqlStateClass) {
        self.own_errors.add(class);
    }

    pub fn read(&self) -> Figures {
        Figures {
            counts: std::array::from_fn(|at| self.counts[at].get()),
            queries: self.queries.read(),
            transactions: self.transactions.read(),
            waits: self.waits.read(),
            server_errors: self.server_errors.read(),
            own_errors: self.own_errors.read(),
        }
    }
}

/// What a `Traffic` held at one moment, or several together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    counts: [u64; COUNTS],
    /// Of queries that servers have answered.
    pub queries: Distribution,
    /// Of transactions that have ended on servers.
    pub transactions: Distribution,
    /// Of clients that had to wait for a server connection and got one.
    pub waits: Distribution,
    /// What servers have reported.
    pub server_errors: Errors,
    /// What Poolhouse itself has told clients.
    pub own_errors: Errors,
}

impl Figures {
    pub fn count(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    pub fn merge(&mut self, other: &Figures) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, more)| *sum += more);
        self.queries.merge(&other.queries);
        self.transactions.merge(&other.transactions);
        self.waits.merge(&other.waits);
        self.server_errors.merge(&other.server_errors);
        self.own_errors.merge(&other.own_errors);
    }
}

/// The names of a cluster's nodes by their index. There may be more later; none is ever another's. Clones are the same.
#[derive(Debug, Clone)]
pub struct NodeNames {
    cluster: Arc<str>,
    names: Arc<Mutex<Vec<Arc<str>>>>,
}

impl NodeNames {
    /// A cluster's that has no nodes yet. One that takes the place of another of the same name has others.
    pub fn of(cluster: &str) -> NodeNames {
        NodeNames { cluster: cluster.into(), names: Arc::default() }
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    fn is(&self, other: &NodeNames) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }

    /// Adds the names that are not there yet: those after as many as are.
    pub fn extend<'a>(&self, all: impl IntoIterator<Item = &'a str>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.len();
        names.extend(all.into_iter().skip(known).map(Arc::from));
    }

    pub(super) fn all(&self) -> Vec<Arc<str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is counted of one node, in the numbers of each shard; made when there is something to count.
type Shards = [OnceLock<Box<Traffic>>; SHARDS];

/// Most nodes and SQLSTATEs by which logins that failed are counted.
const LOGIN_FAILURES_MAX: usize = 500;

/// The figures of one database and user, as clients call them, on one cluster. Once a client has got in, they last as
/// long as the process, also when nobody uses the pool any more, or a RELOAD moves the database to another cluster: a
/// total must not fall.
#[derive(Debug)]
pub struct Account {
    pub database: Box<str>,
    /// Another one for each name of a database and each cluster; well mixed.
    pub key: u64,
    pub user: Box<str>,
    /// Of its cluster; `None` when it has not one for all.
    pub nodes: Option<NodeNames>,
    logins: AtomicU64,
    /// Logins at servers that have failed, by node and SQLSTATE.
    login_failures: Mutex<BTreeMap<(Box<str>, String), u64>>,
    /// Logins that wait for a server connection, since when.
    waiting: Mutex<BTreeMap<u64, Instant>>,
    /// For each node, and then for what needed none.
    traffic: Box<[OnceLock<Box<Shards>>]>,
}

impl Account {
    pub fn new(database: &str, user: &str, nodes: Option<NodeNames>) -> Account {
        let places = if nodes.is_some() { NODES_MAX } else { 0 };
        let traffic = std::iter::repeat_with(OnceLock::new).take(places + 1).collect();
        let mut hasher = DefaultHasher::new();
        database.hash(&mut hasher);
        // No other ones are there as long as these are held.
        nodes.as_ref().map(|nodes| Arc::as_ptr(&nodes.names)).hash(&mut hasher);
        Account {
            database: database.into(),
            key: hasher.finish(),
            user: user.into(),
            nodes,
            logins: AtomicU64::new(0),
            login_failures: Mutex::default(),
            waiting: Mutex::default(),
            traffic,
        }
    }

    /// What is done on the node of this index, or on none; the part that the worker of this number counts in, or
    /// whoever is no worker. Only that worker's thread may add to it.
    pub fn traffic(&self, node: Option<usize>, worker: Option<usize>) -> &Traffic {
        let last = self.traffic.len() - 1;
        let shards = self.traffic[node.map_or(last, |node| node.min(last))].get_or_init(Box::default);
        let (shard, writers) = match worker {
            Some(worker) if worker < SHARDS_OF_WORKERS => (worker, Writers::One),
            _ => (SHARDS_OF_WORKERS, Writers::Many),
        };
        shards[shard].get_or_init(|| Box::new(Traffic::new(writers)))
    }

    pub fn add_login(&self) {
        self.logins.fetch_add(1, Ordering::Relaxed);
    }

    pub fn logins(&self) -> u64 {
        self.logins.load(Ordering::Relaxed)
    }

    /// So many logins at a server have failed with this SQLSTATE.
    pub fn add_login_failures(&self, node: &str, code: &str, count: u64) {
        let mut failures = self.login_failures.lock().unwrap_or_else(PoisonError::into_inner);
        // Servers may make codes up.
        let code = if failures.len() < LOGIN_FAILURES_MAX { code } else { "XX000" };
        *failures.entry((node.into(), code.to_owned())).or_default() += count;
    }

    /// How many, by node and SQLSTATE.
    pub fn login_failures(&self) -> BTreeMap<(Box<str>, String), u64> {
        self.login_failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A login has to wait for a server connection, until what is returned is dropped.
    pub fn wait_to_log_in(self: &Arc<Self>) -> LoginWait {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        waiting.insert(number, Instant::now());
        LoginWait { account: self.clone(), number }
    }

    /// Since when logins wait for server connections.
    pub fn waiting_logins(&self) -> Vec<Instant> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// The figures by the name of the node, the empty one for what needed none.
    pub fn by_node(&self) -> impl Iterator<Item = (Arc<str>, Figures)> {
        let names = self.nodes.as_ref().map(NodeNames::all).unwrap_or_default();
        self.traffic.iter().enumerate().filter_map(move |(at, shards)| {
            let name = names.get(at).cloned().unwrap_or_default();
            let sum = shards.get()?.iter().filter_map(OnceLock::get).map(|traffic| traffic.read());
            let sum = sum.reduce(|mut sum, more| {
                sum.merge(&more);
                sum
            });
            Some((name, sum?))
        })
    }

    /// Whether any client has ever got in: what is asked for in vain leaves nothing to look at.
    fn was_of_use(&self) -> bool {
        self.logins() > 0
    }

    /// Takes over what another one has counted, but for durations: no client of that one has had a server.
    fn absorb(&self, other: &Account) {
        let figures = other.figures();
        let traffic = self.traffic(None, None);
        for (counter, count) in traffic.counts.iter().zip(figures.counts) {
            counter.add(count, traffic.writers);
        }
        traffic.server_errors.merge(&figures.server_errors);
        traffic.own_errors.merge(&figures.own_errors);
        for ((node, code), count) in other.login_failures() {
            self.add_login_failures(&node, &code, count);
        }
    }

    /// All of them together.
    pub fn figures(&self) -> Figures {
        self.by_node().fold(Figures::default(), |mut sum, (_, figures)| {
            sum.merge(&figures);
            sum
        })
    }
}

/// A login that waits.
#[derive(Debug)]
pub struct LoginWait {
    account: Arc<Account>,
    number: u64,
}

impl Drop for LoginWait {
    fn drop(&mut self) {
        self.account.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// A database and a user, as clients call them.
type AccountName = (Box<str>, Box<str>);

/// All accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    /// Of each pair one for each cluster that it has been on.
    by_name: Mutex<BTreeMap<AccountName, Vec<Arc<Account>>>>,
}

impl Accounts {
    /// That of a database and user on the cluster with these nodes, or on none. Once there are very many, the rest
    /// share one, without nodes.
    pub fn of(&self, database: &str, user: &str, nodes: Option<&NodeNames>) -> Arc<Account> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = by_name.len() < ACCOUNTS_MAX || by_name.contains_key(&(database.into(), user.into()));
        let (database, user, nodes) = if is_kept { (database, user, nodes) } else { (OTHERS, OTHERS, None) };
        let accounts = by_name.entry((database.into(), user.into())).or_default();
        let find = |nodes: Option<&NodeNames>| {
            accounts.iter().find(|account| match (&account.nodes, nodes) {
                (Some(known), Some(nodes)) => known.is(nodes),
                (known, nodes) => known.is_none() && nodes.is_none(),
            })
        };
        let nodes = nodes.filter(|nodes| accounts.len() < CLUSTERS_MAX || find(Some(nodes)).is_some());
        if let Some(account) = find(nodes) {
            return account.clone();
        }
        let account = Arc::new(Account::new(database, user, nodes.cloned()));
        accounts.push(account.clone());
        account
    }

    /// Forgets those whom nobody uses and no client has ever got into, such as of databases that do not exist: the
    /// shared one has their figures from then on. To be called now and then.
    pub fn keep(&self) {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut vain = Vec::new();
        by_name.retain(|(database, _), accounts| {
            if **database != *OTHERS {
                vain.extend(
                    accounts.extract_if(.., |account| Arc::strong_count(account) == 1 && !account.was_of_use()),
                );
            }
            !accounts.is_empty()
        });
        if vain.is_empty() {
            return;
        }
        let others = by_name.entry((OTHERS.into(), OTHERS.into())).or_default();
        if others.is_empty() {
            others.push(Arc::new(Account::new(OTHERS, OTHERS, None)));
        }
        vain.iter().for_each(|account| others[0].absorb(account));
    }

    /// In the order of their names. There may be several of one database and user.
    pub fn all(&self) -> Vec<Arc<Account>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_added_once() {
        let nodes = NodeNames::of("main");
        nodes.extend(["a"]);
        let account = Account::new("app", "alice", Some(nodes.clone()));
        nodes.extend(["other", "b"]);
        let mut tally = Tally::default();
        tally.add(Count::Queries, 3);
        tally.add(Count::ClientReceived, 100);
        tally.take_back(Count::ClientReceived, 5);
        tally.add_queries(Duration::from_millis(2), 3);
        tally.add_transactions(Duration::from_millis(6), 1);
        tally.add_wait(Duration::from_millis(1));
        tally.add_server_error(SqlStateClass::of("42P01"));
        tally.add_own_error(SqlStateClass::of("53300"));
        tally.flush(account.traffic(Some(1), Some(0)));
        tally.flush(account.traffic(Some(1), Some(0)));
        account.traffic(None, Some(0)).add(Count::Queries, 1);
        let by_node: Vec<_> =
            account.by_node().map(|(node, it)| (node.to_string(), it.count(Count::Queries))).collect();
        assert_eq!(by_node, [("b".to_owned(), 3), (String::new(), 1)]);
        let all = account.figures();
        assert_eq!((all.count(Count::Queries), all.count(Count::ClientReceived)), (4, 95));
        assert_eq!((all.queries.count(), all.queries.sum()), (3, Duration::from_millis(6)));
        assert_eq!((all.transactions.count(), all.waits.count()), (1, 1));
        assert_eq!((all.server_errors.total(), all.own_errors.total()), (1, 1));
    }

    #[test]
    fn what_was_asked_for_in_vain_is_forgotten_and_its_errors_are_not() {
        let accounts = Accounts::default();
        let nodes = NodeNames::of("main");
        nodes.extend(["a"]);
        accounts.of("real", "alice", Some(&nodes)).add_login();
        let in_use = accounts.of("slow", "alice", Some(&nodes));
        for number in 0..3 {
            let vain = accounts.of(&format!("vain{number}"), "alice", Some(&nodes));
            vain.add_login_failures("a", "3D000", 2);
            vain.traffic(None, None).add_own_error(SqlStateClass::of("3D000"));
            vain.traffic(Some(0), None).add(Count::ClientSent, 7);
        }
        accounts.keep();
        let names = |accounts: &Accounts| accounts.all().iter().map(|it| it.database.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&accounts), [OTHERS, "real", "slow"]);
        let others = accounts.all()[0].clone();
        assert_eq!(others.login_failures().into_values().sum::<u64>(), 6);
        assert_eq!((others.figures().own_errors.total(), others.figures().count(Count::ClientSent)), (3, 21));
        drop(in_use);
        accounts.keep();
        assert_eq!(names(&accounts), [OTHERS, "real"]);
        assert!(Arc::ptr_eq(&others, &accounts.all()[0]), "it is kept, whoever uses it");
    }

    #[test]
    fn logins_wait_until_they_end() {
        let account = Arc::new(Account::new("app", "alice", None));
        let (first, second) = (account.wait_to_log_in(), account.wait_to_log_in());
        assert_eq!(account.waiting_logins().len(), 2);
        drop(first);
        let third = account.wait_to_log_in();
        assert_eq!(account.waiting_logins().len(), 2);
        drop((second, third));
        assert!(account.waiting_logins().is_empty());
    }

    #[test]
    fn names_that_clients_make_up_do_not_fill_the_memory() {
        let accounts = Accounts::default();
        let nodes = NodeNames::of("main");
        nodes.extend(["a"]);
        for number in 0..2 * ACCOUNTS_MAX {
            accounts.of("app", &number.to_string(), Some(&nodes)).traffic(Some(0), Some(number)).add(Count::Queries, 1);
        }
        let all = accounts.all();
        assert_eq!(all.len(), ACCOUNTS_MAX + 1);
        let total: u64 = all.iter().map(|account| account.figures().count(Count::Queries)).sum();
        assert_eq!(total, 2 * ACCOUNTS_MAX as u64);
        let first = accounts.of("app", "0", Some(&nodes));
        assert_eq!(first.figures().count(Count::Queries), 1);
    }

    #[test]
    fn what_runs_on_another_cluster_is_counted_by_the_names_there() {
        let accounts = Accounts::default();
        let (main, second) = (NodeNames::of("main"), NodeNames::of("second"));
        main.extend(["a", "b"]);
        second.extend(["c", "a"]);
        let add = |nodes: &NodeNames, node, queries| {
            accounts.of("app", "alice", Some(nodes)).traffic(Some(node), Some(0)).add(Count::Queries, queries);
        };
        add(&main, 0, 1);
        add(&second, 0, 10);
        add(&second, 1, 100);
        add(&main, 1, 1_000);
        let all = accounts.all();
        let of = |account: &Arc<Account>| {
            let by_node = account.by_node().map(|(node, it)| (node.to_string(), it.count(Count::Queries)));
            (account.nodes.as_ref().unwrap().cluster().to_owned(), by_node.collect::<Vec<_>>())
        };
        let node = |name: &str, queries| (name.to_owned(), queries);
        assert_eq!(
            all.iter().map(of).collect::<Vec<_>>(),
            [
                ("main".to_owned(), vec![node("a", 1), node("b", 1_000)]),
                ("second".to_owned(), vec![node("c", 10), node("a", 100)]),
            ]
        );
        assert_ne!(all[0].key, all[1].key);
        assert_eq!(accounts.of("app", "bob", Some(&main)).key, all[0].key, "they share what is known of statements");
        // One that comes back may have its nodes in another order.
        assert!(!Arc::ptr_eq(&accounts.of("app", "alice", Some(&NodeNames::of("main"))), &all[0]));
    }

    #[test]
    fn databases_that_move_again_and_again_do_not_fill_the_memory() {
        let accounts = Accounts::default();
        let first = NodeNames::of("first");
        for _ in 0..2 * CLUSTERS_MAX {
            for nodes in [&first, &NodeNames::of("another")] {
                accounts.of("app", "alice", Some(nodes)).traffic(Some(0), Some(0)).add(Count::Queries, 1);
            }
        }
        let all = accounts.all();
        assert_eq!(all.len(), CLUSTERS_MAX + 1);
        let counts: Vec<_> = all.iter().map(|account| account.figures().count(Count::Queries)).collect();
        assert_eq!((counts[0], counts.iter().sum::<u64>()), (2 * CLUSTERS_MAX as u64, 4 * CLUSTERS_MAX as u64));
        assert_eq!(accounts.of("console", "operator", None).by_node().count(), 0);
        assert!(Arc::ptr_eq(&accounts.of("console", "operator", None), &accounts.of("console", "operator", None)));
    }
}
