//! Prepared statements: the texts that all clients share, the names of one client, and what one server connection holds.
//!
//! A client's name means a [`Statement`]; a server connection knows the statement under a name of ours. So two clients
//! that prepare the same text share one statement on each server connection, and never meet each other's names.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use super::steps::{counted, step};
use crate::{sql::Verdict, wire};

/// What our names of statements begin with. A client's own name that begins so is never sent to a server.
pub const NAME_PREFIX: &[u8] = b"__poolhouse_";

/// Name of the question about functions.
pub const FUNCTIONS_NAME: &[u8] = b"__poolhouse_functions";

/// Most named statements that one client may hold.
pub const CLIENT_STATEMENTS_MAX: usize = 65_536;

/// Most bytes of their names and texts.
pub const CLIENT_STATEMENT_BYTES_MAX: usize = 64 << 20;

/// Most bytes of texts that one server connection is let hold; a single text may be longer.
pub const SERVER_STATEMENT_BYTES_MAX: usize = 16 << 20;

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
    pub verdict: Arc<Verdict>,
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
        judge: impl FnOnce() -> Arc<Verdict>,
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

/// What one of a client's names means.
#[derive(Debug, Clone)]
pub struct Named {
    pub statement: Arc<Statement>,
    /// The PREPARE that made it, alone; `None` when it was prepared by the protocol.
    pub prepare: Option<Box<[u8]>>,
    /// When the client prepared it, by [`Statements::next_moment`].
    pub since: u64,
    /// What the client was told of it while it meant the same text with other parameter types.
    kept: Option<Shape>,
    /// When it came to mean this, among all that was told: see [`Told`].
    at: u64,
}

impl Named {
    pub fn new(statement: Arc<Statement>, prepare: Option<Box<[u8]>>, since: u64) -> Named {
        Named { statement, prepare, since, kept: None, at: 0 }
    }
}

/// What goes into a statement and what comes out, as hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Types of the parameters; not known of a portal.
    parameters: Option<u64>,
    /// Names and types of the columns of the result.
    columns: u64,
}

impl Shape {
    /// From the bodies of ParameterDescription, which a portal has not, and RowDescription; no row stands for NoData. What
    /// a column is called and what it is counts, as for PostgreSQL ("cached plan must not change result type"), not which
    /// table it is from.
    pub fn of(parameters: Option<&[u8]>, row: Option<&[u8]>) -> Shape {
        const COLUMN_BYTES: usize = 18;
        let parameters = parameters.map(|parameters| {
            let mut types = std::hash::DefaultHasher::new();
            parameters.hash(&mut types);
            types.finish()
        });
        let mut hasher = std::hash::DefaultHasher::new();
        let mut rest = row.and_then(|body| body.get(2..)).unwrap_or_default();
        row.map(|body| body.get(..2)).hash(&mut hasher);
        while let Some((name, after)) = wire::frame::split_text(rest) {
            let Some((column, after)) = after.split_at_checked(COLUMN_BYTES) else { break };
            (name, &column[6..16]).hash(&mut hasher);
            rest = after;
        }
        Shape { parameters, columns: hasher.finish() }
    }

    pub fn has_columns_of(self, other: Shape) -> bool {
        self.columns == other.columns
    }

    pub fn is_of_portal(self) -> bool {
        self.parameters.is_none()
    }

    /// Whether nothing is here that would be news to who was told `told`.
    pub fn fits(self, told: Shape) -> bool {
        self.has_columns_of(told) && (told.is_of_portal() || self.parameters == told.parameters)
    }
}

impl Named {
    fn bytes(&self, name: &[u8]) -> usize {
        name.len() + self.statement.sql.len() + self.prepare.as_ref().map_or(0, |prepare| prepare.len())
    }
}

/// What a client was told of one statement, which holds for all names that meant it at the time. Kept once for all of
/// them: a client may have a text under very many names.
#[derive(Debug, Default)]
struct Told {
    /// In the order in which it was told. To each name the first one counts that came after it.
    tellings: Vec<Telling>,
    /// When a name came to mean the statement last.
    newest: u64,
    /// When there are so many tellings, those that count to nobody any more are forgotten.
    sweep_at: usize,
}

#[derive(Debug)]
struct Telling {
    at: u64,
    /// Of the statement, or of a portal of it.
    shape: Shape,
    /// The parameter types, when the client has not named all of them itself.
    types: Option<Box<[u8]>>,
}

const TELLINGS_MIN: usize = 8;

impl Told {
    fn first_after(&self, at: u64) -> Option<&Telling> {
        self.tellings.get(self.tellings.partition_point(|telling| telling.at < at))
    }
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<Arc<[u8]>, Named, RandomState>,
    /// The names of each statement, by its id.
    by_id: BTreeSet<(u64, Arc<[u8]>)>,
    told: HashMap<u64, Told, RandomState>,
    /// Counts what was named and told.
    moment: u64,
    bytes: usize,
}

impl Names {
    fn of(&self, id: u64) -> impl Iterator<Item = &Arc<[u8]>> {
        let first = (id, Arc::default());
        self.by_id.range(first..).take_while(move |(other, _)| *other == id).map(|(_, name)| name)
    }

    fn insert(&mut self, name: Arc<[u8]>, mut named: Named) {
        self.moment += 1;
        named.at = self.moment;
        let id = named.statement.id;
        if let Some(told) = self.told.get_mut(&id) {
            told.newest = named.at;
        }
        self.bytes += named.bytes(&name);
        self.by_id.insert((id, name.clone()));
        self.by_name.insert(name, named);
    }

    fn remove(&mut self, name: &[u8]) -> Option<(Arc<[u8]>, Named)> {
        let (name, named) = self.by_name.remove_entry(name)?;
        self.bytes -= named.bytes(&name);
        let id = named.statement.id;
        let entry = (id, name);
        self.by_id.remove(&entry);
        if self.of(id).next().is_none() {
            self.told.remove(&id);
        }
        Some((entry.1, named))
    }

    fn telling(&self, named: &Named) -> Option<&Telling> {
        self.told.get(&named.statement.id)?.first_after(named.at)
    }

    /// Forgets what was told of a statement before the oldest of its names, and what counts to none of them.
    fn sweep(&mut self, id: u64) {
        let times: BTreeSet<u64> =
            counted(self.of(id)).filter_map(|name| self.by_name.get(name)).map(|named| named.at).collect();
        let Some(told) = self.told.get_mut(&id) else { return };
        let mut before = 0;
        told.tellings.retain(|telling| {
            step();
            let counts = times.range(before..=telling.at).next().is_some();
            before = telling.at;
            counts
        });
        told.sweep_at = TELLINGS_MIN.max(told.tellings.len() * 2);
    }
}

/// One client's names. Empty clients hold nothing.
#[derive(Debug, Default)]
pub struct ClientNames {
    names: Option<Box<Names>>,
}

impl ClientNames {
    fn named(&self, name: &[u8]) -> Option<(&Names, &Named)> {
        let names = self.names.as_deref()?;
        Some((names, names.by_name.get(name)?))
    }

    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named(name).map(|(_, named)| &named.statement)
    }

    pub fn insert(&mut self, name: Box<[u8]>, statement: Arc<Statement>, since: u64) {
        self.insert_named(name, Named::new(statement, None, since));
    }

    pub fn insert_named(&mut self, name: Box<[u8]>, named: Named) {
        let names = self.names.get_or_insert_default();
        names.remove(&name);
        names.insert(name.into(), named);
    }

    /// The shape that the client was told first of what a name means, if it has asked: of the statement, or of a portal
    /// of it. What it is told of the statement counts in any case.
    pub fn told(&self, name: &[u8]) -> Option<Shape> {
        let (names, named) = self.named(name)?;
        let telling = names.telling(named).map(|telling| telling.shape);
        telling.filter(|shape| named.kept.is_none() || !shape.is_of_portal()).or(named.kept)
    }

    /// When the client prepared it; 0 for what it does not have.
    pub fn since(&self, name: &[u8]) -> u64 {
        self.named(name).map_or(0, |(_, named)| named.since)
    }

    /// The client is told of a statement's parameters and result.
    pub fn tell(&mut self, id: u64, shape: Shape, parameters: &[u8]) {
        let Some(names) = &mut self.names else { return };
        let Some(name) = names.of(id).next() else { return };
        let named_all = names.by_name.get(name).is_some_and(|named| *named.statement.types == *parameters);
        let types = (!named_all).then(|| parameters.into());
        names.moment += 1;
        let telling = Telling { at: names.moment, shape, types };
        names.told.insert(id, Told { tellings: vec![telling], newest: 0, sweep_at: TELLINGS_MIN });
    }

    /// The client is told of the result of a portal, which counts where it knows nothing of the statement yet.
    pub fn tell_columns(&mut self, id: u64, shape: Shape) {
        let Some(names) = &mut self.names else { return };
        if names.of(id).next().is_none() {
            return;
        }
        let new = || Told { sweep_at: TELLINGS_MIN, ..Told::default() };
        let told = names.told.entry(id).or_insert_with(new);
        if told.tellings.last().is_some_and(|last| last.at > told.newest) {
            return;
        }
        names.moment += 1;
        told.tellings.push(Telling { at: names.moment, shape, types: None });
        if told.tellings.len() > told.sweep_at {
            names.sweep(id);
        }
    }

    /// The parameter types that the client was told, when it has not named all of them itself.
    pub fn told_types(&self, name: &[u8]) -> Option<&[u8]> {
        let (names, named) = self.named(name)?;
        names.telling(named)?.types.as_deref()
    }

    /// A name means from now on the same text with the parameter types that the client was told.
    pub fn retype(&mut self, name: &[u8], statement: &Arc<Statement>) {
        let told = self.told(name);
        let Some(names) = &mut self.names else { return };
        if let Some((name, named)) = names.remove(name) {
            names.insert(name, Named { statement: statement.clone(), kept: told, ..named });
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Named)> {
        counted(self.names.iter().flat_map(|names| names.by_name.iter())).map(|(name, named)| (&**name, named))
    }

    /// All names.
    pub fn all(&self) -> Vec<Box<[u8]>> {
        self.iter().map(|(name, _)| name.into()).collect()
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<Named> {
        let names = self.names.as_mut()?;
        let removed = names.remove(name);
        if names.by_name.is_empty() {
            self.names = None;
        }
        removed.map(|(_, named)| named)
    }

    pub fn clear(&mut self) {
        self.names = None;
    }

    pub fn len(&self) -> usize {
        self.names.as_ref().map_or(0, |names| names.by_name.len())
    }

    /// Bytes of names and texts; a text that others hold as well is counted for each.
    pub fn bytes(&self) -> usize {
        self.names.as_ref().map_or(0, |names| names.bytes)
    }

    /// The client's name for one of ours, for error texts.
    pub fn name_of(&self, ours: &[u8]) -> Option<&[u8]> {
        let id = str::from_utf8(ours.strip_prefix(NAME_PREFIX)?).ok()?.parse().ok()?;
        self.names.as_deref()?.of(id).next().map(|name| &**name)
    }
}

/// What one server connection holds, as its replies have told.
#[derive(Debug, Default)]
pub struct ServerStatements {
    /// By the statement's id.
    used: HashMap<u64, Held, RandomState>,
    tick: u64,
    /// Of all texts.
    bytes: usize,
    leaving: Leaving,
    /// Statements under clients' own names, for SQL's EXECUTE.
    own: Option<Box<OwnNames>>,
    /// The session for which strangers' were closed last.
    own_swept: u64,
    /// Whether our question about functions is prepared there.
    asks_functions: bool,
}

/// So many of clients' own names may be on one server connection before strangers' are closed.
const OWN_NAMES_MAX: usize = 200;

/// And so many are looked at for one statement.
const OWN_NAMES_SWEPT: usize = 400;

/// Those that were used least recently when all were last looked through: who goes next is found among them, so that all
/// are looked through only once in a while.
#[derive(Debug, Default)]
struct Leaving {
    /// Ticks and ids, the oldest last. One that was used since has another tick.
    oldest: Vec<(u64, u64)>,
    /// Not before so many more were asked for are all looked through again.
    patience: usize,
}

/// One of so many is among those that are found at once.
const LEAVING_SHARE: usize = 8;

/// One statement on a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When it was used last.
    tick: u64,
    /// What its parameters and its result look like, when the server has said.
    pub shape: Option<Shape>,
    /// The server has refused to run it: it has to be prepared anew.
    pub stale: bool,
    /// When it was prepared there, by [`Statements::next_moment`].
    pub since: u64,
    /// Length of its text, as far as it was sent by us.
    bytes: usize,
}

/// For each name what stands under it, and since when; `None` when it may be there or not.
type OwnNames = HashMap<Box<[u8]>, Option<(u64, u64)>, RandomState>;

impl ServerStatements {
    /// What is known of it, if the connection holds it; marks it as used.
    pub fn touch(&mut self, id: u64) -> Option<Held> {
        self.tick += 1;
        let held = self.used.get_mut(&id)?;
        held.tick = self.tick;
        Some(*held)
    }

    /// The one that was used least recently, of those that may go. Sometimes none, when hardly any may.
    pub fn oldest(&mut self, may_go: impl Fn(u64) -> bool) -> Option<u64> {
        loop {
            while let Some((tick, id)) = self.leaving.oldest.pop() {
                step();
                if self.used.get(&id).is_some_and(|held| held.tick == tick) && may_go(id) {
                    self.leaving.patience = self.leaving.patience.saturating_sub(1);
                    return Some(id);
                }
            }
            if self.leaving.patience > 0 {
                self.leaving.patience -= 1;
                return None;
            }
            let share = self.used.len().div_ceil(LEAVING_SHARE);
            let able = counted(self.used.iter()).filter(|(id, _)| may_go(**id)).map(|(id, held)| (held.tick, *id));
            let mut oldest: Vec<_> = able.collect();
            if oldest.len() > share {
                oldest.select_nth_unstable(share);
                oldest.truncate(share);
            }
            oldest.sort_unstable_by(|one, other| other.cmp(one));
            // However few they are, the look was as long.
            self.leaving = Leaving { oldest, patience: share };
            if self.leaving.oldest.is_empty() {
                return None;
            }
        }
    }

    /// It was prepared at the moment `since`, or dropped.
    pub fn set(&mut self, id: u64, held: Option<u64>) {
        match held {
            Some(since) => self.insert(id, since),
            None => self.remove(id),
        }
    }

    pub fn insert(&mut self, id: u64, since: u64) {
        self.tick += 1;
        let held = Held { tick: self.tick, shape: None, stale: false, since, bytes: 0 };
        let before = self.used.insert(id, held);
        self.bytes -= before.map_or(0, |before| before.bytes);
    }

    /// The length of its text, once it is there.
    pub fn set_bytes(&mut self, id: u64, bytes: usize) {
        if let Some(held) = self.used.get_mut(&id) {
            self.bytes = self.bytes - held.bytes + bytes;
            held.bytes = bytes;
        }
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one text; 0 when it is not held.
    pub fn bytes_of(&self, id: u64) -> usize {
        self.used.get(&id).map_or(0, |held| held.bytes)
    }

    pub fn set_shape(&mut self, id: u64, shape: Shape) {
        if let Some(held) = self.used.get_mut(&id)
            && (!shape.is_of_portal() || held.shape.is_none_or(|known| !known.has_columns_of(shape)))
        {
            held.shape = Some(shape);
        }
    }

    pub fn set_stale(&mut self, id: u64) {
        if let Some(held) = self.used.get_mut(&id) {
            held.stale = true;
        }
    }

    pub fn remove(&mut self, id: u64) {
        let removed = self.used.remove(&id);
        self.bytes -= removed.map_or(0, |removed| removed.bytes);
    }

    pub fn clear(&mut self) {
        self.used.clear();
        (self.bytes, self.leaving) = (0, Leaving::default());
        (self.own, self.asks_functions) = (None, false);
    }

    /// Our question about functions is prepared from now on, or not any more: whether it was before.
    pub fn set_asks_functions(&mut self, asks: bool) -> bool {
        std::mem::replace(&mut self.asks_functions, asks)
    }

    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// The ids of all.
    pub fn ids(&self) -> Vec<u64> {
        counted(self.used.keys()).copied().collect()
    }

    /// What stands under a client's own name: nothing, surely this statement, or perhaps something.
    pub fn own(&self, name: &[u8]) -> Option<Option<u64>> {
        Some(self.own.as_ref()?.get(name)?.map(|(id, _)| id))
    }

    /// Whether this statement stands under a client's own name, prepared at this moment or later.
    pub fn has_own_since(&self, name: &[u8], id: u64, moment: u64) -> bool {
        let own = self.own.as_ref().and_then(|own| own.get(name).copied().flatten());
        own.is_some_and(|(own, since)| own == id && since >= moment)
    }

    /// Under a client's own name stands now a statement, prepared at a moment; or perhaps something.
    pub fn set_own(&mut self, name: &[u8], own: Option<(u64, u64)>) {
        self.own.get_or_insert_default().insert(name.into(), own);
    }

    pub fn remove_own(&mut self, name: &[u8]) {
        let Some(own) = &mut self.own else { return };
        own.remove(name);
        if own.is_empty() {
            self.own = None;
        }
    }

    pub fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// When there are so many own names that the strangers' among them are to be closed for this session: some of them,
    /// with what stands under them.
    pub fn own_to_sweep(&self, session: u64) -> Vec<(Box<[u8]>, Option<u64>)> {
        let len = self.own.as_ref().map_or(0, |own| own.len());
        if len <= OWN_NAMES_MAX || self.own_swept == session {
            return Vec::new();
        }
        self.iter_own().take(OWN_NAMES_SWEPT).collect()
    }

    /// No stranger's was among them. What this session adds from now on is its own.
    pub fn note_own_swept(&mut self, session: u64) {
        self.own_swept = session;
    }

    fn iter_own(&self) -> impl Iterator<Item = (Box<[u8]>, Option<u64>)> {
        let own = self.own.iter().flat_map(|own| own.iter());
        counted(own).map(|(name, own)| (name.clone(), own.map(|(id, _)| id)))
    }

    /// All own names, with what stands under them.
    pub fn all_own(&self) -> Vec<(Box<[u8]>, Option<u64>)> {
        self.iter_own().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
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
    use proptest::prelude::*;

    fn intern(statements: &Statements, sql: &str) -> Arc<Statement> {
        statements.intern(sql.as_bytes(), b"\0\0", 0, || Arc::new(judge(sql)))
    }

    #[test]
    fn equal_texts_are_one_statement() {
        let statements = Statements::default();
        let one = intern(&statements, "select 1");
        assert_eq!(one.id, intern(&statements, "select 1").id);
        assert_ne!(one.id, intern(&statements, "select 2").id);
        let typed = statements.intern(b"select 1", b"\0\x01\0\0\0\x17", 0, || Arc::new(judge("select 1")));
        let planned = statements.intern(b"select 1", b"\0\0", 9, || Arc::new(judge("select 1")));
        assert_ne!(one.id, typed.id);
        assert_ne!(one.id, planned.id);
        assert_eq!(one.name, name_of_id(one.id).into());
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        let statements = Statements::default();
        let kept = intern(&statements, "select 'kept'");
        let verdict = Arc::new(judge("select 1"));
        for number in 0..50_000 {
            statements.intern(format!("select {number}").as_bytes(), b"\0\0", 0, || verdict.clone());
        }
        assert!(statements.len() <= SHARDS * (SWEEP_MIN + 1), "{}", statements.len());
        assert_eq!(kept.id, intern(&statements, "select 'kept'").id);
    }

    #[test]
    fn long_texts_that_nobody_holds_are_swept_before_they_are_many() {
        let statements = Statements::default();
        let verdict = Arc::new(judge("select 1"));
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

    #[test]
    fn a_clients_bytes_are_those_of_its_names_and_texts() {
        let statements = Statements::default();
        let mut names = ClientNames::default();
        names.insert(b"a".as_slice().into(), intern(&statements, "select 1"), 0);
        names.insert(b"bc".as_slice().into(), intern(&statements, "select 22"), 0);
        assert_eq!(names.bytes(), 1 + 8 + 2 + 9);
        names.insert(b"a".as_slice().into(), intern(&statements, "select 333"), 0);
        assert_eq!(names.bytes(), 1 + 10 + 2 + 9);
        names.remove(b"bc");
        assert_eq!(names.bytes(), 1 + 10);
        names.remove(b"a");
        assert_eq!(names.bytes(), 0);
    }

    #[test]
    fn a_client_without_names_holds_nothing() {
        let statements = Statements::default();
        let mut names = ClientNames::default();
        names.insert(b"a".as_slice().into(), intern(&statements, "select 1"), 1);
        assert_eq!(names.name_of(&names.get(b"a").unwrap().name.clone()), Some(&b"a"[..]));
        assert!(names.remove(b"a").is_some());
        assert!(names.remove(b"a").is_none());
        assert_eq!(names.len(), 0);
    }

    proptest! {
        /// Against names that each keep what was told of them.
        #[test]
        fn each_name_was_told_what_came_after_it(
            acts in prop::collection::vec((0u8..5, 0usize..6, 0usize..3, 0u64..9), 1..300),
        ) {
            let all = Statements::default();
            let texts: Vec<_> = (0..3).map(|text| intern(&all, &format!("select {text}"))).collect();
            let mut names = ClientNames::default();
            let mut model: HashMap<usize, (usize, Option<Shape>)> = HashMap::new();
            for (act, name, text, columns) in acts {
                let key = format!("n{name}");
                let whole = Shape { parameters: Some(1), columns };
                let of_portal = Shape { parameters: None, columns };
                let told = model.values_mut().filter(|(of, _)| *of == text).map(|(_, told)| told);
                match act {
                    0 | 1 => {
                        names.insert(key.as_bytes().into(), texts[text].clone(), 0);
                        model.insert(name, (text, None));
                    }
                    2 => prop_assert_eq!(names.remove(key.as_bytes()).is_some(), model.remove(&name).is_some()),
                    3 => {
                        names.tell(texts[text].id, whole, b"\0\0");
                        told.for_each(|told| *told = Some(whole));
                    }
                    _ => {
                        names.tell_columns(texts[text].id, of_portal);
                        told.filter(|told| told.is_none()).for_each(|told| *told = Some(of_portal));
                    }
                }
                for name in 0..6 {
                    let told = model.get(&name).and_then(|(_, told)| *told);
                    prop_assert_eq!(names.told(format!("n{name}").as_bytes()), told);
                }
                for (at, text) in texts.iter().enumerate() {
                    let found = names.name_of(&text.name).map(|name| usize::from(name[1] - b'0'));
                    prop_assert_eq!(found.is_some(), model.values().any(|(of, _)| *of == at));
                    prop_assert!(found.is_none_or(|found| model[&found].0 == at));
                }
                prop_assert_eq!(names.len(), model.len());
            }
        }

        /// Against a list in order of use.
        #[test]
        fn the_least_recently_used_goes_first(uses in prop::collection::vec(0u64..12, 1..200), max in 1usize..6) {
            let mut held = ServerStatements::default();
            let mut model: Vec<u64> = Vec::new();
            for id in uses {
                let has = held.touch(id).is_some();
                prop_assert_eq!(has, model.contains(&id));
                model.retain(|other| *other != id);
                if !has {
                    if held.len() >= max {
                        let oldest = held.oldest(|_| true);
                        prop_assert_eq!(oldest, Some(model.remove(0)));
                        held.remove(oldest.unwrap());
                    }
                    held.insert(id, 0);
                }
                model.push(id);
                prop_assert!(held.len() <= max);
            }
        }
    }
}
