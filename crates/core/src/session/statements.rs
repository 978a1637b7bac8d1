//! Prepared statements: the texts that all clients share. What one client means by its names is in [`super::client_statements`],
//! what one server connection holds in [`super::server_statements`].
//!
//! A client's name means a [`Statement`]; a server connection knows the statement under a name of ours. So two clients
//! that prepare the same text share one statement on each server connection, and never meet each other's names.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use crate::sql::KnownText;

/// What our names of statements begin with. A client's own name that begins so is never sent to a server.
pub const NAME_PREFIX: &[u8] = b"__poolhouse_";

/// Name of the question about functions.
pub const FUNCTIONS_NAME: &[u8] = b"__poolhouse_functions";

/// One text with its parameter types, under settings that mean the same to the planner.
#[derive(Debug)]
pub struct Statement {
    pub id: u64,
    /// Its name on every server connection that holds it.
    pub name: Box<[u8]>,
    pub sql: Box<[u8]>,
    /// Number and oids of the parameter types, as the client sent them.
    pub types: Box<[u8]>,
    /// Hash of the settings that may change what the text means: search_path, DateStyle and so on.
    planned_under: u64,
    pub verdict: Arc<KnownText>,
}

/// Every statement that some client or server connection may still mean, by its text.
///
/// Sharded, since all workers share it; a shard's lock is held for one look-up.
#[derive(Debug)]
pub struct Statements {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    next_id: AtomicU64,
    next_session: AtomicU64,
    next_moment: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    by_hash: HashMap<u64, Vec<Arc<Statement>>, RandomState>,
    count: usize,
    /// Of all texts and types.
    bytes: usize,
    /// When `count` or `bytes` reaches its limit, statements that nobody holds are dropped.
    sweep_at: usize,
    sweep_at_bytes: usize,
}

const SHARDS: usize = 16;
const SWEEP_MIN: usize = 256;
const SWEEP_MIN_BYTES: usize = 256 << 10;

impl Default for Statements {
    fn default() -> Self {
        let shard = || Shard { sweep_at: SWEEP_MIN, sweep_at_bytes: SWEEP_MIN_BYTES, ..Shard::default() };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Statements {
            hasher: RandomState::default(),
            shards,
            next_id: AtomicU64::new(1),
            next_session: AtomicU64::new(1),
            next_moment: AtomicU64::new(1),
        }
    }
}

impl Statements {
    /// The shared statement of this text; `judge` is called when it is new.
    pub fn intern(
        &self,
        sql: &[u8],
        types: &[u8],
        planned_under: u64,
        judge: impl FnOnce() -> Arc<KnownText>,
    ) -> Arc<Statement> {
        let hash = self.hasher.hash_one((sql, types, planned_under));
        let same = |known: &&Arc<Statement>| {
            *known.sql == *sql && *known.types == *types && known.planned_under == planned_under
        };
        if let Some(known) = self.shard(hash).by_hash.get(&hash).and_then(|bucket| bucket.iter().find(same)) {
            return known.clone();
        }
        let verdict = judge();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let statement = Arc::new(Statement {
            id,
            name: [NAME_PREFIX, id.to_string().as_bytes()].concat().into(),
            sql: sql.into(),
            types: types.into(),
            planned_under,
            verdict,
        });
        let mut shard = self.shard(hash);
        shard.sweep_if_full();
        let bucket = shard.by_hash.entry(hash).or_default();
        if let Some(raced) = bucket.iter().find(same) {
            return raced.clone();
        }
        bucket.push(statement.clone());
        shard.count += 1;
        shard.bytes += sql.len() + types.len();
        statement
    }

    /// The same text with these parameter types.
    pub fn retyped(&self, statement: &Statement, types: &[u8]) -> Arc<Statement> {
        self.intern(&statement.sql, types, statement.planned_under, || statement.verdict.clone())
    }

    /// Another text that is sent in the place of this statement's.
    pub fn retexted(&self, statement: &Statement, sql: &[u8]) -> Arc<Statement> {
        self.intern(sql, &statement.types, statement.planned_under, || statement.verdict.clone())
    }

    /// A number for a session, which no other one is ever given.
    pub fn next_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// The moment of a Parse, to tell which of two came first: a client that parses a text after a table was altered
    /// must not meet what a server connection prepared before.
    pub fn next_moment(&self) -> u64 {
        self.next_moment.fetch_add(1, Ordering::Relaxed)
    }

    /// How many statements are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).count).sum()
    }

    /// How many bytes their texts and types take.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).bytes).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }
}

/// A panic while the lock was held cannot leave a shard half changed in a way that matters: it only caches.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Amortised: the next sweep comes when as many new ones have been added as stayed.
    fn sweep_if_full(&mut self) {
        if self.count < self.sweep_at && self.bytes < self.sweep_at_bytes {
            return;
        }
        self.by_hash.retain(|_, bucket| {
            bucket.retain(|statement| Arc::strong_count(statement) > 1);
            !bucket.is_empty()
        });
        self.count = self.by_hash.values().map(Vec::len).sum();
        let bytes = |statement: &Arc<Statement>| statement.sql.len() + statement.types.len();
        self.bytes = self.by_hash.values().flatten().map(bytes).sum();
        self.sweep_at = SWEEP_MIN.max(self.count * 2);
        self.sweep_at_bytes = SWEEP_MIN_BYTES.max(self.bytes * 2);
    }
}

/// Our name of a statement, from its id.
pub fn name_of_id(id: u64) -> Vec<u8> {
    [NAME_PREFIX, id.to_string().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::judge;

    fn intern(statements: &Statements, sql: &str) -> Arc<Statement> {
        statements.intern(sql.as_bytes(), b"\0\0", 0, || Arc::new(judge(sql).into()))
    }

    #[test]
    fn equal_texts_are_one_statement() {
        let statements = Statements::default();
        let one = intern(&statements, "select 1");
        assert_eq!(one.id, intern(&statements, "select 1").id);
        assert_ne!(one.id, intern(&statements, "select 2").id);
        let typed =
            statements.intern(b"select 1", b"\0\x01\0\0\0\x17", 0, || Arc::new(KnownText::from(judge("select 1"))));
        let planned = statements.intern(b"select 1", b"\0\0", 9, || Arc::new(KnownText::from(judge("select 1"))));
        assert_ne!(one.id, typed.id);
        assert_ne!(one.id, planned.id);
        assert_eq!(one.name, name_of_id(one.id).into());
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        let statements = Statements::default();
        let kept = intern(&statements, "select 'kept'");
        let verdict = Arc::new(KnownText::from(judge("select 1")));
        for number in 0..50_000 {
            statements.intern(format!("select {number}").as_bytes(), b"\0\0", 0, || verdict.clone());
        }
        assert!(statements.len() <= SHARDS * (SWEEP_MIN + 1), "{}", statements.len());
        assert_eq!(kept.id, intern(&statements, "select 'kept'").id);
    }

    #[test]
    fn long_texts_that_nobody_holds_are_swept_before_they_are_many() {
        let statements = Statements::default();
        let verdict = Arc::new(KnownText::from(judge("select 1")));
        let long = "x".repeat(SWEEP_MIN_BYTES / 4);
        for number in 0..1_000 {
            statements.intern(format!("{number} {long}").as_bytes(), b"\0\0", 0, || verdict.clone());
        }
        assert!(statements.bytes() <= SHARDS * 2 * SWEEP_MIN_BYTES, "{}", statements.bytes());
        let kept: Vec<_> = (0..100).map(|number| intern(&statements, &format!("select {number}, '{long}'"))).collect();
        for (number, kept) in kept.iter().enumerate() {
            assert_eq!(kept.id, intern(&statements, &format!("select {number}, '{long}'")).id);
        }
    }
}
