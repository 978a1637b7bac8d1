//! A database's own code, as far as it matters to pooling: which functions may change the state of a session, which
//! only read, and whether code that no statement names may change the state of a session. Pure: `question` has the
//! queries, whoever asks them hands the rows to a `Catalog`, and `Census::of` draws the conclusions.
//!
//! Functions are known by their names alone, all overloads and schemas together: what a call means is decided by
//! argument types and the search path, which are not known here.
//!
//! What can be reached without being named is taken from `pg_depend`: whatever a trigger, a view, a rule, a cast, an
//! operator, a default, a constraint, a policy, an index or a type refers to. Functions of PostgreSQL's own leave no
//! trace there, so the stored expressions are searched for those that matter. Not seen: libraries that the server has
//! loaded to change its own behaviour (`shared_preload_libraries`), and what `assumed` takes for granted.

mod assumed;
pub(in crate::sql) mod body;
mod question;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use foldhash::fast::RandomState;

pub(in crate::sql) use assumed::touches_session;
pub use question::{
    BEGIN, DEFAULTS_STAMP, END, FUNCTIONS_PAGE, NAMES, PRIMARY_ONLY, STAMP, VERSION, array_of, before_login,
    functions_after, functions_named, references, version_of,
};

use super::{
    functions::{self, FunctionKind},
    verdict::{Access, Unseen, Verdict},
};

/// A row of an answer; `None` is NULL.
pub type CatalogRow = Vec<Option<String>>;

/// What was read from the server's catalog, before any conclusion.
#[derive(Debug, Default)]
pub struct Catalog {
    functions: Vec<Function>,
    /// Functions that something refers to, by oid.
    reached: BTreeMap<u32, Hidden>,
    /// Functions of PostgreSQL's own that this build does not know, with whether they are volatile.
    newer: Vec<(Box<str>, bool)>,
    /// Functions of PostgreSQL's own that may touch the session are called by stored expressions.
    direct: Hidden,
    /// Relations that are to be read on the primary, and why.
    primary_only: HashMap<Box<str>, PrimaryOnly, RandomState>,
}

/// One function of the database's own.
#[derive(Debug)]
struct Function {
    oid: u32,
    name: Box<str>,
    steady: bool,
    touches: bool,
    sets_any: bool,
    creates: bool,
    customs: BTreeSet<Box<str>>,
    calls: BTreeSet<Box<str>>,
    /// It can be called in the form of a column, `row.function`.
    column: bool,
    stamp: u64,
}

/// What statements may run code that they do not name and that may touch the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Any statement: behind a view, a cast, an operator, a policy.
    pub reads: bool,
    /// Statements that write: behind a trigger, a default, a constraint.
    pub writes: bool,
}

impl Hidden {
    const READS: Hidden = Hidden { reads: true, writes: true };
    const WRITES: Hidden = Hidden { reads: false, writes: true };
    /// As long as nothing is known.
    pub const ANYTHING: Hidden = Hidden::READS;

    fn of(text: Option<&str>) -> Hidden {
        if text == Some("w") { Hidden::WRITES } else { Hidden::READS }
    }

    fn join(&mut self, other: Hidden) {
        self.reads |= other.reads;
        self.writes |= other.writes;
    }
}

/// Why a relation is to be read on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrimaryOnly {
    /// No replica has its rows.
    Unlogged,
    /// A replica is ahead: values are logged before they are drawn (PostgreSQL's `SEQ_LOG_VALS`).
    Sequence,
}

impl fmt::Display for PrimaryOnly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PrimaryOnly::Unlogged => "is unlogged, or reads what is",
            PrimaryOnly::Sequence => "is a sequence, or reads one",
        })
    }
}

/// What all functions of one name have in common, at worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traits {
    /// It surely only reads what every server holds.
    steady: bool,
    /// It may change the state of the session.
    touches: bool,
    /// It may change state of the session that the server cannot tell of.
    sets_any: bool,
    /// It may create something in the schema that comes first in the search path.
    creates: bool,
}

/// What is known of a database's own code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    functions: BTreeMap<Box<str>, Traits>,
    hidden: Hidden,
    /// Hidden code may change state of the session that the server cannot tell of.
    hidden_sets_any: bool,
    /// Hidden code may create something in the schema that comes first in the search path.
    hidden_creates: bool,
    customs: Box<[Box<str>]>,
    /// What each function of the database's own calls, and which version of it that was read from.
    read_from: HashMap<Box<str>, ReadFrom, RandomState>,
    /// Relations that are to be read on the primary, by their names without schema.
    primary_only: HashMap<Box<str>, PrimaryOnly, RandomState>,
}

/// What was read of all functions of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ReadFrom {
    /// The sum of their stamps.
    stamps: u64,
    calls: BTreeSet<Box<str>>,
}

/// Some functions and all that they call, as they were when the census was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Names that may be those of functions, also of such as were not there.
    pub names: Vec<Box<str>>,
    /// The sum of their stamps.
    pub stamps: u64,
}

/// A number that is another one once a function has been changed or made anew, by its oid and the transaction that has
/// written it. Only those that are not PostgreSQL's own have one.
pub fn stamp(oid: u32, xmin: &str) -> Option<u64> {
    let written = xmin.parse::<u32>().ok().filter(|_| oid >= 16_384)?;
    // So that a sum of them tells the same as a list. The constants are those of splitmix64.
    let mut mixed = (u64::from(oid) << 32 | u64::from(written)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(mixed ^ (mixed >> 31))
}

/// Most functions that are looked at by their names to learn what one statement may have done.
pub const NAMED_MAX: usize = 200;

/// Most names of settings that are remembered: each makes the question longer that the server is asked.
pub const CUSTOMS_MAX: usize = 64;

/// What a text may do that is not seen in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing that outlives its transaction but what the verdict tells.
    Harmless,
    /// It may touch what outlives its transaction: the server is asked after it.
    MayTouch,
    /// Also what the server cannot tell of: a setting whose name is not known to us and listed nowhere.
    MaySetAny,
    /// It calls a function that did not exist when the census was taken.
    Unknown,
}

impl Catalog {
    /// Takes in rows of `functions_after` and of `references`, which tell themselves apart by their first column.
    /// Rows of any other kind are passed over.
    pub fn take(&mut self, rows: &[CatalogRow]) {
        for row in rows {
            let text = |column: usize| row.get(column).and_then(Option::as_deref);
            match text(0) {
                Some("f") => self.functions.extend(Function::read(&text)),
                Some("r") => {
                    if let Some(oid) = text(1).and_then(|oid| oid.parse().ok()) {
                        self.reached.entry(oid).or_default().join(Hidden::of(text(2)));
                    }
                }
                Some("b") => {
                    let name = text(1).unwrap_or_default();
                    if functions::kind(name) == FunctionKind::Unknown {
                        self.newer.push((name.into(), text(2) != Some("f")));
                    }
                }
                Some("d") => self.direct.join(Hidden::of(text(1))),
                Some("u") => {
                    let why = if text(2) == Some("S") { PrimaryOnly::Sequence } else { PrimaryOnly::Unlogged };
                    let found = self.primary_only.entry(text(1).unwrap_or_default().into()).or_insert(why);
                    *found = (*found).min(why);
                }
                _ => {}
            }
        }
    }

    /// The oid of the last function, for the next page.
    pub fn last_oid(&self) -> u32 {
        self.functions.last().map_or(0, |function| function.oid)
    }

    /// Settings with a dot in their names that the functions name.
    pub fn customs(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().flat_map(|function| &function.customs).map(|name| &**name)
    }

    /// Whether the functions may by themselves change state of the session that the server cannot tell of.
    pub fn sets_any(&self) -> bool {
        self.functions.iter().any(|function| function.sets_any)
    }

    /// What the functions call, as far as it may be the database's own.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().flat_map(Function::called).map(|name| &**name)
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }
}

impl Function {
    /// What it calls that is not PostgreSQL's own, or not by its name.
    fn called(&self) -> impl Iterator<Item = &Box<str>> {
        self.calls.iter().filter(|name| functions::kind(name) == FunctionKind::Unknown)
    }

    /// Columns: see `question::functions_after`.
    fn read<'r>(text: &impl Fn(usize) -> Option<&'r str>) -> Option<Function> {
        let (oid, name) = (text(1)?.parse().ok()?, text(2)?);
        let (language, volatility, kind) = (text(3).unwrap_or_default(), text(4), text(5));
        let (source, defaults, settings) = (text(6).unwrap_or_default(), text(7), text(8).unwrap_or_default());
        let extension = text(9);
        let mut body = body::Body::default();
        let mut steady = volatility == Some("i") || volatility == Some("s");
        let touches = if kind == Some("a") || matches!(language, "sql" | "plpgsql") {
            body = body::scan(source);
            steady &= !body.writes;
            body.creates |= body.selects_into && language != "plpgsql";
            // What is created may go to the temporary schema, if that stands in the function's own search path.
            body.touches || body.creates && body::names_temporary(settings)
        } else {
            match (language, extension) {
                ("c" | "internal", Some(extension)) => {
                    steady &= !assumed::extension_is_local(extension);
                    assumed::extension_touches(extension, name)
                }
                ("internal", None) => !assumed::comes_with_a_range(source),
                ("c", None) => {
                    body.sets_any = true;
                    true
                }
                _ => {
                    body.note_text(source);
                    true
                }
            }
        };
        let defaults = defaults.map(body::scan).unwrap_or_default();
        body.names.extend(defaults.names);
        body.customs.extend(defaults.customs);
        let touches = touches || defaults.touches;
        Some(Function {
            oid,
            name: name.into(),
            steady: steady && !touches && !defaults.writes,
            touches,
            sets_any: body.sets_any || defaults.sets_any,
            creates: body.creates || touches,
            customs: body.customs,
            calls: body.names,
            column: text(10) == Some("t"),
            stamp: text(11).and_then(|xmin| stamp(oid, xmin)).unwrap_or_default(),
        })
    }
}

impl Census {
    /// Judges the functions of a catalog, each by its own body and by what it calls, to any depth.
    pub fn of(catalog: &Catalog) -> Census {
        let mut functions: BTreeMap<Box<str>, Traits> = BTreeMap::new();
        let mut callers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut note = |name: &str, found: Traits| {
            let all = functions.entry(name.into()).or_insert(found);
            (all.steady, all.touches) = (all.steady && found.steady, all.touches || found.touches);
            (all.sets_any, all.creates) = (all.sets_any || found.sets_any, all.creates || found.creates);
        };
        for function in &catalog.functions {
            let Function { steady, touches, sets_any, creates, .. } = *function;
            note(&function.name, Traits { steady, touches, sets_any, creates });
            for called in &function.calls {
                callers.entry(called).or_default().push(&function.name);
            }
        }
        for (name, volatile) in &catalog.newer {
            note(name, Traits { steady: !volatile, touches: *volatile, sets_any: false, creates: *volatile });
        }
        spread(&mut functions, &callers, |all| all.touches, |all| (all.touches, all.steady) = (true, false));
        spread(&mut functions, &callers, |all| !all.steady, |all| all.steady = false);
        spread(&mut functions, &callers, |all| all.sets_any, |all| all.sets_any = true);
        spread(&mut functions, &callers, |all| all.creates, |all| all.creates = true);
        let (mut hidden, mut hidden_sets_any, mut hidden_creates) = (catalog.direct, false, false);
        for function in &catalog.functions {
            // A function of the same name as one of PostgreSQL's own is not noticed in a statement.
            let unnoticed = function.column || functions::kind(&function.name) != FunctionKind::Unknown;
            let reached = catalog.reached.get(&function.oid).copied().or(unnoticed.then_some(Hidden::READS));
            let Some(all) = functions.get(&function.name) else { continue };
            hidden_creates |= all.creates && reached.is_some();
            if let Some(mut reached) = reached.filter(|_| all.touches) {
                reached.reads |= unnoticed;
                hidden.join(reached);
                hidden_sets_any |= all.sets_any;
            }
        }
        let mut read_from: HashMap<Box<str>, ReadFrom, RandomState> = HashMap::default();
        for function in &catalog.functions {
            let all = read_from.entry(function.name.clone()).or_default();
            all.stamps = all.stamps.wrapping_add(function.stamp);
            all.calls.extend(function.called().cloned());
        }
        let customs: BTreeSet<_> = catalog.functions.iter().flat_map(|function| &function.customs).collect();
        let customs = customs.into_iter().take(CUSTOMS_MAX).cloned().collect();
        let primary_only = catalog.primary_only.clone();
        Census { functions, hidden, hidden_sets_any, hidden_creates, customs, read_from, primary_only }
    }

    /// What may be reached by statements that name nothing of it.
    pub fn hidden(&self) -> Hidden {
        self.hidden
    }

    /// Whether code that is reached without being named may do what nobody knew of when `before` was true.
    pub fn exceeds(&self, before: &Census) -> bool {
        let (now, then) = (self.hidden, before.hidden);
        let news = || self.customs.iter().any(|name| !before.customs.contains(name));
        now.reads && !then.reads
            || now.writes && !then.writes
            || self.hidden_sets_any && !before.hidden_sets_any
            || now != Hidden::default() && news()
    }

    /// Whether code that a text runs without that it is seen there may create something in the schema that comes first in
    /// the search path.
    pub fn may_create(&self, verdict: &Verdict) -> bool {
        let called = |name| self.functions.get(name).is_none_or(|all| all.creates);
        let perhaps = |name| self.functions.get(name).is_some_and(|all| all.creates);
        let seen = verdict.unseen.as_deref().is_some_and(|unseen| {
            unseen.dark || unseen.creates || unseen.functions.iter().any(called) || unseen.perhaps.iter().any(perhaps)
        });
        seen || self.hidden_creates && !verdict.only_controls()
    }

    /// Settings with a dot in their names that functions name. The server lists such settings nowhere, so it has to be
    /// asked for each when code that is not seen may have changed them.
    pub fn customs(&self) -> &[Box<str>] {
        &self.customs
    }

    /// What a text may do to the session by code that is not seen in it.
    pub fn find(&self, verdict: &Verdict) -> Finding {
        let reads = verdict.access() == Access::Read || self.reads(verdict);
        let hidden = if reads { self.hidden.reads } else { self.hidden.writes };
        let Some(unseen) = verdict.unseen.as_deref() else {
            return self.finding(hidden, hidden);
        };
        if unseen.functions.iter().any(|name| !self.functions.contains_key(name)) {
            return Finding::Unknown;
        }
        let called = || unseen.functions.iter().chain(&unseen.perhaps).filter_map(|name| self.functions.get(name));
        if unseen.sets_any || called().any(|all| all.sets_any) {
            return Finding::MaySetAny;
        }
        self.finding(hidden || unseen.dark || called().any(|all| all.touches), hidden)
    }

    fn finding(&self, touches: bool, hidden: bool) -> Finding {
        match touches {
            true if hidden && self.hidden_sets_any => Finding::MaySetAny,
            true => Finding::MayTouch,
            false => Finding::Harmless,
        }
    }

    /// The functions of these names and all that they call, if they are known and not too many.
    pub fn version<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<Version> {
        let mut version = Version { names: Vec::new(), stamps: 0 };
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut left: Vec<&str> = names.collect();
        while let Some(name) = left.pop() {
            if !seen.insert(name) {
                continue;
            }
            if seen.len() > NAMED_MAX {
                return None;
            }
            version.names.push(name.into());
            if let Some(all) = self.read_from.get(name) {
                version.stamps = version.stamps.wrapping_add(all.stamps);
                left.extend(all.calls.iter().map(|called| &**called));
            }
        }
        Some(version)
    }

    /// Whether a text that calls functions only reads what every server holds.
    pub fn reads(&self, verdict: &Verdict) -> bool {
        verdict.reads_if(|name| self.is_steady(name))
    }

    /// Whether all functions of a name surely only read what every server holds.
    pub fn is_steady(&self, name: &str) -> bool {
        self.functions.get(name).is_some_and(|all| all.steady)
    }

    /// Whether there are relations that are to be read on the primary.
    pub fn knows_primary_only(&self) -> bool {
        !self.primary_only.is_empty()
    }

    /// The relation that a text names and that is to be read on the primary.
    pub fn primary_only<'v>(&self, verdict: &'v Verdict) -> Option<(&'v str, PrimaryOnly)> {
        let bare = |table: &'v str| table.rsplit_once('.').map_or(table, |(_, name)| name);
        let why = |table: &'v str| Some((table, *self.primary_only.get(bare(table))?));
        verdict.tables.iter().find_map(|table| why(table))
    }
}

/// Carries what some functions have over to all that call them, and to those that call these.
fn spread(
    functions: &mut BTreeMap<Box<str>, Traits>,
    callers: &BTreeMap<&str, Vec<&str>>,
    has: impl Fn(&Traits) -> bool,
    take: impl Fn(&mut Traits),
) {
    let mut left: Vec<Box<str>> = functions.iter().filter(|(_, all)| has(all)).map(|(name, _)| name.clone()).collect();
    while let Some(name) = left.pop() {
        for caller in callers.get(&*name).into_iter().flatten() {
            if let Some(all) = functions.get_mut(*caller).filter(|all| !has(all)) {
                take(all);
                left.push((*caller).into());
            }
        }
    }
}

impl Unseen {
    /// What a DO block of SQL or PL/pgSQL runs, by its text.
    pub(in crate::sql) fn of_block(body: &body::Body, unseen: &mut Unseen) {
        unseen.dark |= body.touches;
        unseen.sets_any |= body.sets_any;
        unseen.creates |= body.creates;
        let perhaps = std::mem::take(&mut unseen.perhaps).into_vec();
        // PostgreSQL's own have been judged with the body.
        let others = body.names.iter().filter(|name| functions::kind(name) == FunctionKind::Unknown).cloned();
        unseen.perhaps = perhaps.into_iter().chain(others).collect();
    }
}
