//! What has been found out about a text of SQL: plain values, without the rules that lead to them (see `walk`).

use std::fmt;

use super::facts::{Fact, FactSet};
use super::hint::Hint;
use super::own::{BlockStep, OwnText};
use super::statement::StatementKind;

/// What statements a text is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Composition {
    /// Nothing, or only comments.
    #[default]
    None,
    /// One statement of this kind.
    One(StatementKind),
    /// At least two.
    Several(u32),
    /// The text cannot be read.
    Unreadable,
}

impl Composition {
    /// Nothing but one statement, as far as is known.
    pub fn is_one(self) -> bool {
        matches!(self, Composition::One(_) | Composition::Unreadable)
    }

    /// The kind, if there is only one statement.
    pub fn kind(self) -> Option<StatementKind> {
        match self {
            Composition::One(kind) => Some(kind),
            Composition::None | Composition::Several(_) | Composition::Unreadable => None,
        }
    }

    /// How many; 1 when the text cannot be read.
    pub fn count(self) -> u32 {
        match self {
            Composition::None => 0,
            Composition::One(_) | Composition::Unreadable => 1,
            Composition::Several(count) => count,
        }
    }

    fn join(self, other: Composition) -> Composition {
        match (self, other) {
            (Composition::Unreadable, _) | (_, Composition::Unreadable) => Composition::Unreadable,
            (Composition::None, composition) | (composition, Composition::None) => composition,
            (one, other) => Composition::Several(one.count().saturating_add(other.count())),
        }
    }
}

/// Where a statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It surely only reads what every node holds: any node may serve it.
    Read,
    /// It writes, or it is not certain that it only reads: the primary.
    Write,
}

/// What BEGIN, START TRANSACTION or SET TRANSACTION says of its transaction; of several words for the same, the last
/// counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// READ ONLY or READ WRITE.
    pub read_only: Option<bool>,
    /// ISOLATION LEVEL; `None` = not said.
    pub isolation: Option<Isolation>,
}

/// ISOLATION LEVEL. READ UNCOMMITTED is READ COMMITTED (manual, "Transaction Isolation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see what was committed before the first.
    RepeatableRead,
    /// As if transactions ran one after the other.
    Serializable,
}

impl Isolation {
    /// From what SET and SHOW call it.
    pub fn of(name: &str) -> Option<Isolation> {
        match name {
            "read committed" | "read uncommitted" => Some(Isolation::ReadCommitted),
            "repeatable read" => Some(Isolation::RepeatableRead),
            "serializable" => Some(Isolation::Serializable),
            _ => None,
        }
    }
}

/// How a text of SQL begins, ends or steers a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionControl {
    /// It leaves transaction blocks alone.
    None,
    /// BEGIN or START TRANSACTION; which of the two, the server's answer tells.
    Begin {
        /// What it says of the transaction.
        modes: Modes,
        /// START TRANSACTION rather than BEGIN.
        start: bool,
    },
    /// COMMIT or END. With `chain` (AND CHAIN) the next transaction begins at once.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT. With `chain` (AND CHAIN) the next transaction begins at once.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint,
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo,
    /// RELEASE SAVEPOINT.
    Release,
    /// SET TRANSACTION, or SET of one of the `transaction_…` settings, which live as long as the transaction; the modes
    /// when that is all it says.
    SetTransaction(Option<Modes>),
    /// PREPARE TRANSACTION: the session's transaction ends, to be finished by any session later.
    PrepareTransaction,
    /// Several statements, at least one of which controls transactions.
    Mixed,
}

impl TransactionControl {
    /// COMMIT or ROLLBACK, after which no transaction is open.
    pub fn is_plain_end(self) -> bool {
        matches!(self, TransactionControl::Commit { chain: false } | TransactionControl::Rollback { chain: false })
    }
}

/// Session state that cannot move to another server connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A temporary table, view, sequence, function or type.
    TemporaryTable,
    /// DECLARE … WITH HOLD.
    HoldCursor,
    /// An advisory lock of the session (not of the transaction).
    AdvisoryLock,
    /// LISTEN to a channel.
    Listen,
    /// LOAD of a library.
    Load,
    /// SQL's PREPARE.
    Prepare,
    /// The seed of random(), by setseed() or SET seed.
    Seed,
    /// What currval() and lastval() tell. No text pins by it alone: a session must have asked for it.
    Sequence,
    /// The text could not be read. When the server accepts it all the same (it is newer, older or extended), anything
    /// may have happened to the session; when the server refuses it, nothing did.
    Unreadable,
}

/// Every pin, in the order of their bits in a `PinSet`.
const PINS: [Pin; 9] = [
    Pin::TemporaryTable,
    Pin::HoldCursor,
    Pin::AdvisoryLock,
    Pin::Listen,
    Pin::Load,
    Pin::Prepare,
    Pin::Seed,
    Pin::Sequence,
    Pin::Unreadable,
];

/// A set of pins, in two bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct PinSet(u16);

impl PinSet {
    /// Adds a pin.
    pub fn insert(&mut self, pin: Pin) {
        self.0 |= 1 << pin as u16;
    }

    /// Whether a pin is in it.
    pub fn contains(self, pin: Pin) -> bool {
        self.0 & (1 << pin as u16) != 0
    }

    /// Whether no pin is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The pins in it, in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = Pin> {
        PINS.into_iter().filter(move |pin| self.contains(*pin))
    }

    /// Takes a pin out.
    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !(1 << pin as u16);
    }

    /// Those that nothing takes away from a server connection, not even DISCARD ALL.
    pub fn that_last(self) -> PinSet {
        let mut lasting = PinSet::default();
        self.iter().filter(|pin| matches!(pin, Pin::Load | Pin::Seed)).for_each(|pin| lasting.insert(pin));
        lasting
    }

    /// Everything that is in one of the two sets.
    pub fn union(self, other: PinSet) -> PinSet {
        PinSet(self.0 | other.0)
    }
}

impl fmt::Debug for PinSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

/// A change to the session's settings that outlives the transaction when that commits. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingChange {
    /// SET of this one.
    Set(Box<str>),
    /// RESET of this one, or SET … TO DEFAULT.
    Reset(Box<str>),
    /// RESET ALL or DISCARD ALL.
    ResetAll,
    /// Some setting, but the text does not tell which, or whether for the session.
    Unknown,
}

/// Which of the session's prepared statements a text removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deallocate {
    /// It removes none.
    None,
    /// DEALLOCATE ALL or DISCARD ALL, or several different names.
    All,
    /// DEALLOCATE of this one.
    Named(Box<str>),
}

/// What a text does with a name of a prepared statement in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameUse {
    /// PREPARE.
    Prepares(Box<str>),
    /// EXECUTE, also inside EXPLAIN and CREATE TABLE AS.
    Executes(Box<str>),
    /// DEALLOCATE of one name.
    Deallocates(Box<str>),
}

impl NameUse {
    /// The name, as the server knows it.
    pub fn name(&self) -> &str {
        match self {
            NameUse::Prepares(name) | NameUse::Executes(name) | NameUse::Deallocates(name) => name,
        }
    }
}

/// Why a text got its access, for people only: the first thing found that speaks against reading. What a text does is
/// told by its facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing speaks against reading.
    Reads,
    /// No statement at all: empty, or only comments.
    Nothing,
    /// The parser does not take it.
    Unreadable,
    /// Not valid UTF-8: a client encoding in which the bytes may mean something else.
    Encoding,
    /// A backslash stands before a quote, so that the text means different things with `standard_conforming_strings`
    /// on and off.
    Backslash,
    /// A kind of statement that does not only read.
    Statement(StatementKind),
    /// FOR UPDATE, FOR SHARE and so on.
    Locks,
    /// SELECT INTO.
    Into,
    /// A statement inside, such as an INSERT in a WITH.
    WritingPart(StatementKind),
    /// It calls this function, which is volatile.
    VolatileFunction(Box<str>),
    /// It calls this function, of which nothing is known.
    UnknownFunction(Box<str>),
    /// It uses an operator that is not built in.
    UnknownOperator,
    /// It asks for the state of the session, which lives on one server connection.
    SessionState(Box<str>),
    /// It asks about the server rather than the database.
    NodeLocal(Box<str>),
    /// It names something in the session's schema of temporary objects.
    Temporary,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Reads => formatter.write_str("only reads"),
            Reason::Nothing => formatter.write_str("no statement"),
            Reason::Unreadable => formatter.write_str("the text cannot be parsed"),
            Reason::Encoding => formatter.write_str("the text is not valid UTF-8"),
            Reason::Backslash => formatter.write_str("a backslash before a quote can be read in two ways"),
            Reason::Statement(kind) => write!(formatter, "statement of kind {kind}"),
            Reason::Locks => formatter.write_str("locks rows"),
            Reason::Into => formatter.write_str("creates a table (INTO)"),
            Reason::WritingPart(kind) => write!(formatter, "holds a statement of kind {kind}"),
            Reason::VolatileFunction(name) => write!(formatter, "calls the volatile function {name}"),
            Reason::UnknownFunction(name) => write!(formatter, "calls the function {name}, which is not built in"),
            Reason::UnknownOperator => formatter.write_str("uses an operator of another schema"),
            Reason::SessionState(name) => write!(formatter, "asks for the state of the session ({name})"),
            Reason::NodeLocal(name) => write!(formatter, "asks about the server itself ({name})"),
            Reason::Temporary => formatter.write_str("uses a temporary object"),
        }
    }
}

/// Everything that the rest of Poolhouse wants to know about a text of SQL: facts alone. What is learned of a text later
/// is kept with it, in a [`super::KnownText`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How many statements it is made of.
    pub composition: Composition,
    /// What it does.
    pub facts: FactSet,
    /// Why it is no read, for people.
    pub reason: Reason,
    /// What it does to the transaction block.
    pub transaction: TransactionControl,
    /// What it may leave on the server connection that cannot move.
    pub pins: PinSet,
    /// Changes to settings in the order of the text, without those that end with the transaction.
    pub settings: Box<[SettingChange]>,
    /// Which prepared statements it removes.
    pub deallocates: Deallocate,
    /// The names of prepared statements that it uses, in the order of the text.
    pub names: Box<[NameUse]>,
    /// The tables and views that it names, with their schemas where it does; names that WITH gives are among them. Sorted.
    pub tables: Box<[Box<str>]>,
    /// A database that nobody else may be connected to while the text runs: it is dropped, renamed, moved or copied.
    pub vacates: Option<Box<str>>,
    /// It runs code that is not seen here: a function that is not built in, DO, CALL, or a text that cannot be read.
    /// (What EXECUTE runs is the session's to know.) Triggers, rules, views, operators and casts may run code too, and
    /// leave no trace in a text.
    pub unseen: Option<Box<Unseen>>,
    /// It changes the settings with which sessions begin that connect later (ALTER ROLE or DATABASE … SET).
    pub defaults: Option<Box<DefaultsOf>>,
    /// Settings with a dot in their names that code in the text names: a DO block, or a function that is created. Sorted.
    pub customs: Box<[Box<str>]>,
    /// Where it wants to run, by a comment in it.
    pub hint: Option<Box<Hint>>,
    /// It names settings of Poolhouse's own.
    pub own: Option<Box<OwnText>>,
    /// What it does to transaction blocks, in the order of the text.
    pub steps: Box<[BlockStep]>,
}

/// The caches hold thousands of them.
const _: () = assert!(size_of::<Verdict>() <= 200);

/// The verdict of a text without a statement.
impl Default for Verdict {
    fn default() -> Self {
        Verdict {
            composition: Composition::None,
            facts: FactSet::NONE,
            reason: Reason::Nothing,
            transaction: TransactionControl::None,
            pins: PinSet::default(),
            settings: Box::default(),
            deallocates: Deallocate::None,
            names: Box::default(),
            tables: Box::default(),
            vacates: None,
            unseen: None,
            defaults: None,
            customs: Box::default(),
            hint: None,
            own: None,
            steps: Box::default(),
        }
    }
}

/// Whose sessions begin with other settings from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultsOf {
    /// In this database only.
    pub database: Option<Box<str>>,
    /// Of this role only.
    pub user: Option<Box<str>>,
}

/// What a text runs that is not seen in it. A `Census` of the database tells what that may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Functions and procedures that are not built in, by their names without schema.
    pub functions: Box<[Box<str>]>,
    /// Names in DO blocks that are called if they are functions.
    pub perhaps: Box<[Box<str>]>,
    /// Code that no catalog tells of: EXECUTE, SQL in an argument, a DO block that may touch the session by itself.
    pub dark: bool,
    /// A DO block may change what the server cannot tell of.
    pub sets_any: bool,
    /// A DO block may create something in the schema that comes first in the search path.
    pub creates: bool,
}

impl Unseen {
    /// Code of which nothing can be said.
    pub(super) fn dark() -> Box<Unseen> {
        Box::new(Unseen { dark: true, ..Unseen::default() })
    }

    /// What may be functions of the database's own that it calls.
    pub fn called(&self) -> impl Iterator<Item = &Box<str>> {
        self.functions.iter().chain(&self.perhaps)
    }

    fn join(self, other: Unseen) -> Unseen {
        Unseen {
            functions: merge(self.functions, other.functions),
            perhaps: concat(self.perhaps, other.perhaps),
            dark: self.dark || other.dark,
            sets_any: self.sets_any || other.sets_any,
            creates: self.creates || other.creates,
        }
    }
}

impl Deallocate {
    fn join(self, other: Deallocate) -> Deallocate {
        match (self, other) {
            (Deallocate::None, deallocates) | (deallocates, Deallocate::None) => deallocates,
            (one, other) if one == other => one,
            _ => Deallocate::All,
        }
    }
}

impl Verdict {
    /// Of a text that cannot be read: anything may be in it.
    pub(super) fn unreadable() -> Verdict {
        let mut pins = PinSet::default();
        pins.insert(Pin::Unreadable);
        Verdict {
            composition: Composition::Unreadable,
            facts: FactSet::of(&[Fact::Uncertain, Fact::Listens, Fact::Notifies]),
            reason: Reason::Unreadable,
            pins,
            unseen: Some(Unseen::dark()),
            ..Verdict::default()
        }
    }

    /// Of two texts, one behind the other: what either does, the joined text does. The order in which more than two are
    /// joined makes no difference.
    #[must_use]
    pub fn join(self, other: Verdict) -> Verdict {
        let nothing = |verdict: &Verdict| verdict.composition == Composition::None;
        let transaction = match (self.transaction, other.transaction) {
            (TransactionControl::None, TransactionControl::None) => TransactionControl::None,
            (_, control) if nothing(&self) => control,
            (control, _) if nothing(&other) => control,
            _ => TransactionControl::Mixed,
        };
        let keeps_reason = self.access() == Access::Write || nothing(&other);
        let own = match (self.own.as_deref(), other.own.as_deref()) {
            (None, None) => None,
            (None, Some(_)) if nothing(&self) => other.own,
            (Some(_), None) if nothing(&other) => self.own,
            (Some(OwnText::Commands(one)), Some(OwnText::Commands(other))) => {
                Some(Box::new(OwnText::Commands(one.iter().chain(other).cloned().collect())))
            }
            _ => Some(Box::new(OwnText::Misplaced)),
        };
        Verdict {
            reason: if keeps_reason { self.reason } else { other.reason },
            composition: self.composition.join(other.composition),
            facts: self.facts.union(other.facts),
            transaction,
            pins: self.pins.union(other.pins),
            settings: concat(self.settings, other.settings),
            deallocates: self.deallocates.join(other.deallocates),
            names: concat(self.names, other.names),
            tables: merge(self.tables, other.tables),
            vacates: other.vacates.or(self.vacates),
            unseen: match (self.unseen, other.unseen) {
                (Some(one), Some(other)) => Some(Box::new(one.join(*other))),
                (one, other) => one.or(other),
            },
            // Several are told as those of everybody.
            defaults: match (self.defaults, other.defaults) {
                (Some(_), Some(_)) => Some(Box::default()),
                (one, other) => one.or(other),
            },
            customs: merge(self.customs, other.customs),
            hint: self.hint.or(other.hint),
            own,
            steps: concat(self.steps, other.steps),
        }
    }

    /// Of a text that means one of two things, which depends on the session: the worse of both in everything.
    pub(super) fn either(self, other: Verdict) -> Verdict {
        let composition =
            if self.composition.count() < other.composition.count() { other.composition } else { self.composition };
        let transaction =
            if self.transaction == other.transaction { self.transaction } else { TransactionControl::Mixed };
        let deallocates =
            if self.deallocates == other.deallocates { self.deallocates.clone() } else { Deallocate::All };
        let settings =
            if self.settings == other.settings { self.settings.clone() } else { [SettingChange::Unknown].into() };
        let mut either = self.join(other);
        either.facts.insert(Fact::Uncertain);
        either.pins.insert(Pin::Unreadable);
        Verdict {
            composition,
            reason: Reason::Backslash,
            transaction,
            settings,
            deallocates,
            unseen: Some(Unseen::dark()),
            own: either.own.map(|_| Box::new(OwnText::Misplaced)),
            ..either
        }
    }

    /// The verdict of several texts, one behind the other. Lists are copied as often as the count has binary digits.
    pub(super) fn join_all(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
        // As a binary number is counted up: what stands here has joined so many, always more than what follows it.
        let mut joined: Vec<(u32, Verdict)> = Vec::new();
        for verdict in verdicts {
            let (mut count, mut verdict) = (1, verdict);
            while let Some((_, before)) = joined.pop_if(|(before, _)| *before == count) {
                (count, verdict) = (2 * count, before.join(verdict));
            }
            joined.push((count, verdict));
        }
        let joined = joined.into_iter().map(|(_, verdict)| verdict).rev();
        joined.reduce(|after, before| before.join(after)).unwrap_or_default()
    }

    /// Whether something is known of what the text does.
    pub fn does(&self, fact: Fact) -> bool {
        self.facts.contains(fact)
    }

    /// Where the text may run, as far as it tells by itself.
    pub fn access(&self) -> Access {
        if self.facts.against_reading().is_empty() { Access::Read } else { Access::Write }
    }

    /// Whether nothing speaks against reading but functions that are not built in.
    pub fn reads_but_for_functions(&self) -> bool {
        self.facts.against_reading() == FactSet::of(&[Fact::CallsUnknown])
    }

    /// Whether the text calls functions that are not built in, and only reads, given which of them do.
    pub fn reads_if(&self, reads: impl Fn(&str) -> bool) -> bool {
        self.reads_but_for_functions()
            && self
                .unseen
                .as_deref()
                .is_some_and(|unseen| !unseen.dark && unseen.functions.iter().all(|name| reads(name)))
    }

    /// Whether nothing is written although the text is no read: it only begins or ends a transaction, sets settings, or
    /// asks for the state of the session.
    pub fn only_controls(&self) -> bool {
        const CONTROLS: FactSet = FactSet::of(&[Fact::ControlsTransaction, Fact::ChangesSettings, Fact::AsksSession]);
        self.composition.is_one() && self.access() == Access::Write && self.facts.against_reading().is_within(CONTROLS)
    }

    /// Whether the text runs code that is not seen in it.
    pub fn is_opaque(&self) -> bool {
        self.unseen.is_some()
    }

    /// Whether the text is known to change the state of the session.
    pub fn touches_session(&self) -> bool {
        !self.settings.is_empty()
            || !self.pins.is_empty()
            || self.does(Fact::DiscardsAll)
            || self.deallocates != Deallocate::None
            || !self.names.is_empty()
    }
}

/// One list behind the other.
fn concat<T>(one: Box<[T]>, other: Box<[T]>) -> Box<[T]> {
    match (one.is_empty(), other.is_empty()) {
        (_, true) => one,
        (true, _) => other,
        _ => one.into_iter().chain(other).collect(),
    }
}

/// Two sorted lists in one, each entry once.
fn merge<T: Ord>(one: Box<[T]>, other: Box<[T]>) -> Box<[T]> {
    if one.is_empty() || other.is_empty() {
        return concat(one, other);
    }
    let mut merged = concat(one, other).into_vec();
    merged.sort();
    merged.dedup();
    merged.into()
}
