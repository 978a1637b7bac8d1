//! What has been found out about a text of SQL: plain values, without the rules that lead to them (see `walk`).

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use super::hint::Hint;
use super::normal::Called;
use super::own::{BlockStep, Own};

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
    pub isolation: Option<Isolation>,
}

/// ISOLATION LEVEL. READ UNCOMMITTED is READ COMMITTED (manual, "Transaction Isolation").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    RepeatableRead,
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
    None,
    /// BEGIN or START TRANSACTION; which of the two, the server's answer tells.
    Begin {
        modes: Modes,
        start: bool,
    },
    /// COMMIT or END. With `chain` (AND CHAIN) the next transaction begins at once.
    Commit {
        chain: bool,
    },
    /// ROLLBACK or ABORT. With `chain` (AND CHAIN) the next transaction begins at once.
    Rollback {
        chain: bool,
    },
    Savepoint,
    RollbackTo,
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
    pub fn insert(&mut self, pin: Pin) {
        self.0 |= 1 << pin as u16;
    }

    pub fn contains(self, pin: Pin) -> bool {
        self.0 & (1 << pin as u16) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Pin> {
        PINS.into_iter().filter(move |pin| self.contains(*pin))
    }

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
    Set(Box<str>),
    Reset(Box<str>),
    ResetAll,
    /// Some setting, but the text does not tell which, or whether for the session.
    Unknown,
}

/// Which of the session's prepared statements a text removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deallocate {
    None,
    /// DEALLOCATE ALL or DISCARD ALL, or several different names.
    All,
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
    pub fn name(&self) -> &str {
        match self {
            NameUse::Prepares(name) | NameUse::Executes(name) | NameUse::Deallocates(name) => name,
        }
    }
}

/// Why a text got its access, for people: the first thing found that speaks against reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Reads,
    /// No statement at all: empty, or only comments.
    Nothing,
    Unreadable,
    /// Not valid UTF-8: a client encoding in which the bytes may mean something else.
    Encoding,
    /// A backslash stands before a quote, so that the text means different things with `standard_conforming_strings`
    /// on and off.
    Backslash,
    /// A kind of statement that does not only read, by the name of its node in the parse tree without "Stmt".
    Statement(Box<str>),
    /// FOR UPDATE, FOR SHARE and so on.
    Locks,
    /// SELECT INTO.
    Into,
    /// A statement inside, such as an INSERT in a WITH.
    WritingPart(Box<str>),
    VolatileFunction(Box<str>),
    UnknownFunction(Box<str>),
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

/// Everything that the rest of Poolhouse wants to know about a text of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub access: Access,
    pub reason: Reason,
    /// Known when it comes out of a cache.
    pub called: Called,
    /// How many statements the text holds; 1 when it cannot be read.
    pub statements: u32,
    pub transaction: TransactionControl,
    /// Changes to settings in the order of the text, without those that end with the transaction.
    pub settings: Box<[SettingChange]>,
    pub pins: PinSet,
    /// DISCARD ALL.
    pub discards: bool,
    pub deallocates: Deallocate,
    /// It calls currval() or lastval().
    pub asks_sequences: bool,
    /// It changes, uses or asks for what the session listens to: LISTEN, UNLISTEN, NOTIFY and the functions for that.
    pub listens: bool,
    /// It sends notifications by itself: NOTIFY and `pg_notify`.
    pub notifies: bool,
    /// The names of prepared statements that it uses, in the order of the text.
    pub names: Box<[NameUse]>,
    /// It asks which prepared statements the session has.
    pub lists_statements: bool,
    /// The tables and views that it names, with their schemas where it does; names that WITH gives are among them.
    pub tables: Box<[Box<str>]>,
    /// It names a column as sequences have them, or all columns of something.
    pub may_read_sequence: bool,
    /// A database that nobody else may be connected to while the text runs: it is dropped, renamed, moved or copied.
    pub vacates: Option<Box<str>>,
    /// It runs code that is not seen here: a function that is not built in, DO, CALL, or a text that cannot be read.
    /// (What EXECUTE runs is the session's to know.) Triggers, rules, views, operators and casts may run code too, and
    /// leave no trace in a text.
    pub unseen: Option<Box<Unseen>>,
    /// It changes the settings with which sessions begin that connect later (ALTER ROLE or DATABASE … SET).
    pub defaults: Option<Box<DefaultsOf>>,
    /// It may change what code there is in the database, or what calls it: functions, triggers, views, defaults.
    pub defines: bool,
    /// Settings with a dot in their names that code in the text names: a DO block, or a function that is created.
    pub customs: Box<[Box<str>]>,
    /// Where it wants to run, by a comment in it.
    pub hint: Option<Box<Hint>>,
    /// It names settings of Poolhouse's own.
    pub own: Option<Box<Own>>,
    /// What it does to transaction blocks, in the order of the text.
    pub steps: Box<[BlockStep]>,
    /// A replica has refused it.
    pub refused: Refused,
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
    /// Nothing speaks against reading but `functions`.
    pub reads_but_for_functions: bool,
}

/// Whether a replica has refused what looked like a read: then it goes to the primary, for as long as the verdict is known.
#[derive(Debug, Default)]
pub struct Refused(AtomicBool);

impl Refused {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Refused {
    fn clone(&self) -> Self {
        Refused(AtomicBool::new(self.is_set()))
    }
}

/// It is learned, and no part of what a text says.
impl PartialEq for Refused {
    fn eq(&self, _: &Refused) -> bool {
        true
    }
}

impl Eq for Refused {}

impl Unseen {
    /// What may be functions of the database's own that it calls.
    pub fn called(&self) -> impl Iterator<Item = &Box<str>> {
        self.functions.iter().chain(&self.perhaps)
    }
}

impl Verdict {
    /// Whether the text runs code that is not seen in it.
    pub fn is_opaque(&self) -> bool {
        self.unseen.is_some()
    }

    /// Whether the text is known to change the state of the session.
    pub fn touches_session(&self) -> bool {
        !self.settings.is_empty()
            || !self.pins.is_empty()
            || self.discards
            || self.deallocates != Deallocate::None
            || !self.names.is_empty()
    }
}
