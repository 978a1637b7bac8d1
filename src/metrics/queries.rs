//! How often statements ran and how long they took, by text without values and by database. Each worker has a table of
//! its own, so that none waits for another; whoever looks adds them up, and holds one up for a few entries at a time.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    histogram::Distribution,
    traffic::{Account, NodeNames},
};

/// Workers with tables of their own; further ones share them.
const TABLES: usize = 8;

/// Most statements of one table. Those that ran least make room, and are counted as others.
const QUERIES_MAX: usize = 2_000;

/// The share that makes room at once.
const MAKES_ROOM: usize = 4;

/// Of calls long ago, one in so many is forgotten each time that room is made.
const FORGETS: u64 = 10;

/// How many entries are looked at in a row, while the worker has to wait.
const SLICE: usize = 50;

/// A statement that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ran<'a> {
    /// Tells its text from others.
    pub id: u64,
    pub text: &'a str,
    pub took: Duration,
    pub failed: bool,
}

/// What is known of one statement in one database.
#[derive(Debug, Clone)]
pub struct QueryFigures {
    /// Of its text; 0 for others.
    pub id: u64,
    /// Without values; nothing for statements that are counted together since there are so many.
    pub text: Arc<str>,
    pub database: Box<str>,
    pub calls: u64,
    /// Calls that ended with an error, among them.
    pub errors: u64,
    pub times: Distribution,
    /// Calls by the name of the node.
    pub by_node: BTreeMap<Arc<str>, u64>,
}

/// All statements.
#[derive(Debug, Default)]
pub struct Queries {
    tables: [Mutex<QueryTable>; TABLES],
}

#[derive(Debug, Default)]
struct QueryTable {
    entries: HashMap<QueryKey, Box<QueryEntry>, BuildHasherDefault<HashedAlready>>,
    /// By the name of the database.
    others: BTreeMap<Box<str>, QueryFigures>,
}

/// A text's id, mixed with the number of the database on its cluster.
type QueryKey = u64;

#[derive(Debug)]
struct QueryEntry {
    id: u64,
    text: Arc<str>,
    account: Arc<Account>,
    calls: u64,
    errors: u64,
    times: Distribution,
    /// Calls by the index of the node, as far as there were any.
    by_node: Vec<u64>,
    /// Calls, of which some are forgotten each time that room is made.
    lately: u64,
}

impl QueryEntry {
    fn add(&mut self, node: Option<usize>, ran: Ran<'_>) {
        self.calls += 1;
        self.lately += 1;
        self.errors += u64::from(ran.failed);
        self.times.add(ran.took);
        if let Some(node) = node {
            if self.by_node.len() <= node {
                self.by_node.resize(node + 1, 0);
            }
            self.by_node[node] += 1;
        }
    }

    fn figures(&self) -> QueryFigures {
        let names = self.account.nodes.as_ref().map(NodeNames::all).unwrap_or_default();
        let names = names.into_iter().zip(&self.by_node).filter(|(_, calls)| **calls > 0);
        QueryFigures {
            id: self.id,
            text: self.text.clone(),
            database: self.account.database.clone(),
            calls: self.calls,
            errors: self.errors,
            times: self.times.clone(),
            by_node: names.map(|(name, calls)| (name, *calls)).collect(),
        }
    }
}

impl QueryFigures {
    fn merge(&mut self, other: &QueryFigures) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.times.merge(&other.times);
        for (name, calls) in &other.by_node {
            *self.by_node.entry(name.clone()).or_default() += calls;
        }
    }
}

impl Queries {
    /// Adds statements that have ended on the node of this index, for the worker of this number.
    pub fn add<'a>(
        &self,
        worker: usize,
        account: &Arc<Account>,
        node: Option<usize>,
        ran: impl Iterator<Item = Ran<'a>>,
    ) {
        let mut table = lock(&self.tables[worker % TABLES]);
        ran.for_each(|ran| table.add(account, node, ran));
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<QueryFigures> {
        let mut sums: HashMap<(u64, Box<str>), QueryFigures> = HashMap::new();
        let mut add = |figures: QueryFigures| match sums.get_mut(&(figures.id, figures.database.clone())) {
            Some(sum) => sum.merge(&figures),
            None => drop(sums.insert((figures.id, figures.database.clone()), figures)),
        };
        for table in &self.tables {
            let keys: Vec<QueryKey> = lock(table).entries.keys().copied().collect();
            for keys in keys.chunks(SLICE) {
                let table = lock(table);
                let found: Vec<_> = keys.iter().filter_map(|key| Some(table.entries.get(key)?.figures())).collect();
                drop(table);
                found.into_iter().for_each(&mut add);
            }
            let others: Vec<_> = lock(table).others.values().cloned().collect();
            others.into_iter().for_each(&mut add);
        }
        sums.into_values().collect()
    }
}

impl QueryTable {
    fn add(&mut self, account: &Arc<Account>, node: Option<usize>, ran: Ran<'_>) {
        let key = ran.id ^ account.key;
        let node = node.filter(|_| account.nodes.is_some());
        if let Some(entry) = self.entries.get_mut(&key) {
            return entry.add(node, ran);
        }
        if self.entries.len() >= QUERIES_MAX {
            self.make_room();
        }
        let mut entry = Box::new(QueryEntry {
            id: ran.id,
            text: ran.text.into(),
            account: account.clone(),
            calls: 0,
            errors: 0,
            times: Distribution::default(),
            by_node: Vec::new(),
            lately: 0,
        });
        entry.add(node, ran);
        self.entries.insert(key, entry);
    }

    fn make_room(&mut self) {
        let mut calls: Vec<(u64, QueryKey)> = self.entries.iter().map(|(key, entry)| (entry.lately, *key)).collect();
        let few = calls.len() / MAKES_ROOM;
        calls.select_nth_unstable(few);
        for (_, key) in &calls[..few] {
            let Some(entry) = self.entries.remove(key) else { continue };
            let figures = QueryFigures { id: 0, text: "".into(), ..entry.figures() };
            match self.others.get_mut(&figures.database) {
                Some(sum) => sum.merge(&figures),
                None => drop(self.others.insert(figures.database.clone(), figures)),
            }
        }
        self.entries.values_mut().for_each(|entry| entry.lately -= entry.lately.div_ceil(FORGETS));
    }
}

fn lock(table: &Mutex<QueryTable>) -> MutexGuard<'_, QueryTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For keys that are hashes already.
#[derive(Debug, Default)]
struct HashedAlready(u64);

impl Hasher for HashedAlready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Accounts;

    fn ran(id: u64, text: &str, millis: u64, failed: bool) -> Ran<'_> {
        Ran { id, text, took: Duration::from_millis(millis), failed }
    }

    #[test]
    fn workers_are_added_up_and_databases_told_apart() {
        let (accounts, queries) = (Accounts::default(), Queries::default());
        let (nodes, others) = (NodeNames::of("main"), NodeNames::of("second"));
        nodes.extend(["a", "b"]);
        others.extend(["b", "c"]);
        let (alice, bob) = (accounts.of("app", "alice", Some(&nodes)), accounts.of("app", "bob", Some(&nodes)));
        let moved = accounts.of("app", "bob", Some(&others));
        let other = accounts.of("other", "alice", Some(&nodes));
        queries.add(0, &alice, Some(0), [ran(7, "SELECT ?", 10, false), ran(7, "SELECT ?", 20, true)].into_iter());
        queries.add(1, &bob, Some(1), [ran(7, "SELECT ?", 30, false)].into_iter());
        queries.add(1, &moved, Some(0), [ran(7, "SELECT ?", 5, false)].into_iter());
        queries.add(1, &moved, Some(1), [ran(7, "SELECT ?", 5, false)].into_iter());
        queries.add(0, &other, None, [ran(7, "SELECT ?", 40, false)].into_iter());
        let mut all = queries.all();
        all.sort_by(|left, right| left.database.cmp(&right.database));
        let [app, other] = &all[..] else { panic!("{all:?}") };
        assert_eq!((&*app.database, app.calls, app.errors), ("app", 5, 1));
        assert_eq!(app.times.sum(), Duration::from_millis(70));
        assert_eq!(app.by_node, BTreeMap::from([("a".into(), 2), ("b".into(), 2), ("c".into(), 1)]));
        assert_eq!((&*other.database, other.calls, other.by_node.len()), ("other", 1, 0));
    }

    #[test]
    fn what_hardly_ever_runs_makes_room_and_stays_in_the_sum() {
        let (accounts, queries) = (Accounts::default(), Queries::default());
        let account = accounts.of("app", "alice", Some(&NodeNames::of("main")));
        let often = || (0..100).map(|_| ran(1, "often", 1, false));
        queries.add(0, &account, Some(0), often());
        let many = 3 * QUERIES_MAX as u64;
        queries.add(0, &account, Some(0), (0..many).map(|id| ran(1_000 + id, "once", 1, true)));
        let all = queries.all();
        assert!(all.len() <= QUERIES_MAX + 1);
        assert_eq!(all.iter().map(|it| it.calls).sum::<u64>(), 100 + many);
        assert_eq!(all.iter().map(|it| it.errors).sum::<u64>(), many);
        assert_eq!(all.iter().find(|it| it.id == 1).map(|it| it.calls), Some(100));
        assert_eq!(all.iter().filter(|it| it.id == 0).map(|it| &*it.text).collect::<Vec<_>>(), [""]);
    }
}
