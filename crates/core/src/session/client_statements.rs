//! The prepared statements of one client: what its names mean to it, its unnamed statement, and what it was told of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    Replies,
    replies::NameChange,
    shape::Shape,
    statements::{NAME_PREFIX, Statement},
    steps::{counted, step},
};
use crate::{
    sql::Called,
    wire::{
        error::{Report, SqlState},
        request::Parse,
    },
};

/// Most named statements that one client may hold.
const CLIENT_STATEMENTS_MAX: usize = 65_536;

/// Most bytes of their names and texts.
const CLIENT_STATEMENT_BYTES_MAX: usize = 64 << 20;

/// Most names of one client whose figures are kept when they pass as they are.
const PASSED_MAX: usize = 1_000;

/// Longest of these names, in bytes.
const PASSED_NAME_BYTES_MAX: usize = 256;

/// An unnamed statement: a session's, and which of those that it has parsed. The same text parsed at another time may mean
/// something else, when tables have changed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unnamed {
    session: u64,
    number: u64,
}

/// How statements are called, by the client's own names.
type Passed = HashMap<Box<[u8]>, Called>;

/// All of them. In the order written, so that what every statement looks at lies together.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ClientStatements {
    /// It outlives its Sync, as on a direct connection.
    unnamed: Option<Arc<Statement>>,
    names: ClientNames,
    /// How those are called that pass under the client's own names, in session mode above all: for where their figures are
    /// shown, and no more.
    passed: Option<Box<Passed>>,
    /// How many unnamed statements it has parsed.
    unnamed_parsed: u64,
}

impl ClientStatements {
    /// What a name means, once all that is under way has succeeded.
    pub fn get(&self, name: &[u8], replies: &Replies) -> Option<Arc<Statement>> {
        if let Some(change) = replies.change(name) {
            return change.cloned();
        }
        if name.is_empty() { self.unnamed.clone() } else { self.names.get(name).cloned() }
    }

    /// When the client prepared what a name means to it; 0 when that is not answered yet.
    pub fn since(&self, name: &[u8], replies: &Replies) -> u64 {
        if replies.change(name).is_some() { 0 } else { self.names.since(name) }
    }

    /// The named ones, as far as they are answered.
    pub fn named(&self) -> &ClientNames {
        &self.names
    }

    pub fn named_mut(&mut self) -> &mut ClientNames {
        &mut self.names
    }

    /// A Parse of a statement is answered without a server. `since` is when it was prepared.
    pub fn set(&mut self, name: &[u8], statement: Arc<Statement>, since: u64) {
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.names.insert(name.into(), statement, since);
        }
    }

    /// The client has closed one.
    pub fn close(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else {
            self.names.remove(name);
        }
    }

    /// A message that changes one of the names has succeeded, which was sent at the moment `since`.
    pub fn accept(&mut self, NameChange { name, statement }: NameChange, since: u64) {
        match statement {
            statement if name.is_empty() => self.unnamed = statement,
            Some(statement) => self.names.insert(name, statement, since),
            None => drop(self.names.remove(&name)),
        }
    }

    /// All named ones are gone.
    pub fn clear_named(&mut self) {
        self.names.clear();
    }

    /// A simple query, or a Parse that fails, takes the unnamed one away.
    pub fn drop_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// Whether there is an unnamed one for a simple query to take away, or will be.
    pub fn has_unnamed(&self, replies: &Replies) -> bool {
        self.unnamed.is_some() || replies.change(b"").is_some()
    }

    /// The unnamed one that a server has described.
    pub fn unnamed_mut(&mut self) -> Option<&mut Arc<Statement>> {
        self.unnamed.as_mut()
    }

    /// An unnamed one is parsed.
    pub fn parse_unnamed(&mut self) {
        self.unnamed_parsed += 1;
    }

    /// The one that was parsed last, by a session of this number.
    pub fn last_unnamed(&self, session: u64) -> Unnamed {
        Unnamed { session, number: self.unnamed_parsed }
    }

    /// Why a client cannot have one more named statement.
    pub fn too_much(&self, parse: &Parse<'_>, replies: &Replies) -> Option<Report> {
        if self.names.len() + replies.changes_len() >= CLIENT_STATEMENTS_MAX {
            return Some(Report::fatal(
                SqlState::LIMIT_EXCEEDED,
                format!("one client cannot hold more than {CLIENT_STATEMENTS_MAX} prepared statements"),
            ));
        }
        if self.names.bytes() + parse.name.len() + parse.sql.len() > CLIENT_STATEMENT_BYTES_MAX {
            let most = CLIENT_STATEMENT_BYTES_MAX >> 20;
            return Some(Report::fatal(
                SqlState::LIMIT_EXCEEDED,
                format!("one client cannot hold prepared statements of more than {most} MB in all"),
            ));
        }
        None
    }

    /// One passes under the client's own name.
    pub fn note_passed(&mut self, name: &[u8], called: Called) {
        let passed = self.passed.get_or_insert_default();
        if let Some(known) = passed.get_mut(name) {
            *known = called;
        } else if passed.len() < PASSED_MAX && name.len() <= PASSED_NAME_BYTES_MAX {
            passed.insert(name.into(), called);
        }
    }

    /// How one is called that has passed so.
    pub fn called_passed(&self, name: &[u8]) -> Called {
        self.passed.as_ref().and_then(|passed| passed.get(name)).cloned().unwrap_or_default()
    }

    pub fn forget_passed(&mut self, name: &[u8]) {
        if let Some(passed) = &mut self.passed {
            passed.remove(name);
        }
    }
}

/// What one of a client's names means.
#[derive(Debug, Clone)]
pub struct Named {
    pub statement: Arc<Statement>,
    /// The PREPARE that made it, alone; `None` when it was prepared by the protocol.
    pub prepare: Option<Box<[u8]>>,
    /// When the client prepared it, by [`super::Statements::next_moment`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session::statements::Statements, sql::judge};
    use proptest::prelude::*;

    fn intern(statements: &Statements, sql: &str) -> Arc<Statement> {
        statements.intern(sql.as_bytes(), b"\0\0", 0, || Arc::new(judge(sql).into()))
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
                let whole = Shape::from_hashes(Some(1), columns);
                let of_portal = Shape::from_hashes(None, columns);
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
    }
}
