//! What a statement does, as a set of facts.

use std::fmt;

/// One thing that a statement does. Those up to `Uncertain` speak against reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// It is, or holds, a statement of a kind that changes something: data, the schema, a cursor, what is listened to …
    Writes,
    /// It begins, ends or steers a transaction.
    ControlsTransaction,
    /// It sets or resets settings, by SET and RESET.
    ChangesSettings,
    /// FOR UPDATE, FOR SHARE and so on.
    LocksRows,
    /// It creates a table by SELECT INTO.
    CreatesTable,
    /// It calls a volatile function that is built in.
    CallsVolatile,
    /// It calls a function that is not built in.
    CallsUnknown,
    /// It uses an operator that is not built in.
    UsesOperator,
    /// It asks for the state of the session, which lives on one server connection.
    AsksSession,
    /// It asks about the server rather than the database.
    AsksNode,
    /// It names something in the session's schema of temporary objects.
    UsesTemporary,
    /// The text cannot be read, or may mean something else to the server.
    Uncertain,
    /// It may draw from a sequence: it adds rows, sets columns to their defaults, or calls nextval() or setval().
    DrawsSequence,
    /// It calls currval() or lastval().
    AsksSequence,
    /// It names a column as sequences have them, or all columns of something.
    MayReadSequence,
    /// It may take away state that pins: a temporary table, an advisory lock, a cursor, a channel, a prepared statement.
    ReleasesState,
    /// DISCARD ALL.
    DiscardsAll,
    /// It calls pg_reload_conf().
    ReloadsConfiguration,
    /// It changes, uses or asks for what the session listens to: LISTEN, UNLISTEN, NOTIFY and the functions for that.
    Listens,
    /// It sends notifications by itself: NOTIFY and `pg_notify`.
    Notifies,
    /// It asks which prepared statements the session has.
    ListsStatements,
    /// It may change what code there is in the database, or what calls it: functions, triggers, views, defaults.
    Defines,
    /// It calls pg_backend_pid().
    AsksProcess,
    /// It calls a function of the kind of pg_blocking_pids(), which takes the ids of processes.
    AsksProcesses,
    /// It may create something in the schema that comes first in the search path, without a word that says so.
    Creates,
    /// It may set a search path that names the schema of temporary objects, also for its transaction only.
    NamesTemporaryPath,
}

/// Every fact, in the order of their bits in a `FactSet`.
const FACTS: [Fact; 26] = [
    Fact::Writes,
    Fact::ControlsTransaction,
    Fact::ChangesSettings,
    Fact::LocksRows,
    Fact::CreatesTable,
    Fact::CallsVolatile,
    Fact::CallsUnknown,
    Fact::UsesOperator,
    Fact::AsksSession,
    Fact::AsksNode,
    Fact::UsesTemporary,
    Fact::Uncertain,
    Fact::DrawsSequence,
    Fact::AsksSequence,
    Fact::MayReadSequence,
    Fact::ReleasesState,
    Fact::DiscardsAll,
    Fact::ReloadsConfiguration,
    Fact::Listens,
    Fact::Notifies,
    Fact::ListsStatements,
    Fact::Defines,
    Fact::AsksProcess,
    Fact::AsksProcesses,
    Fact::Creates,
    Fact::NamesTemporaryPath,
];

/// A set of facts, in four bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FactSet(u32);

impl FactSet {
    /// No fact.
    pub const NONE: FactSet = FactSet(0);

    /// The facts that speak against reading.
    pub const AGAINST_READING: FactSet = FactSet((1 << (Fact::Uncertain as u32 + 1)) - 1);

    /// The set of these facts.
    pub const fn of(facts: &[Fact]) -> FactSet {
        let (mut set, mut index) = (FactSet::NONE, 0);
        while index < facts.len() {
            set = set.with(facts[index]);
            index += 1;
        }
        set
    }

    /// This set and one fact more.
    #[must_use]
    pub const fn with(self, fact: Fact) -> FactSet {
        FactSet(self.0 | 1 << fact as u32)
    }

    /// Adds a fact.
    pub fn insert(&mut self, fact: Fact) {
        *self = self.with(fact);
    }

    /// Whether a fact is in it.
    pub const fn contains(self, fact: Fact) -> bool {
        self.0 & (1 << fact as u32) != 0
    }

    /// Whether no fact is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Everything that is in one of the two sets.
    #[must_use]
    pub const fn union(self, other: FactSet) -> FactSet {
        FactSet(self.0 | other.0)
    }

    /// Whether all of it is in another set, too.
    pub const fn is_within(self, other: FactSet) -> bool {
        self.0 & !other.0 == 0
    }

    /// Those that speak against reading.
    #[must_use]
    pub const fn against_reading(self) -> FactSet {
        FactSet(self.0 & FactSet::AGAINST_READING.0)
    }

    /// The facts in it, in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        FACTS.into_iter().filter(move |fact| self.contains(*fact))
    }
}

impl fmt::Debug for FactSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_facts() {
        for (bit, fact) in FACTS.into_iter().enumerate() {
            assert_eq!(fact as usize, bit, "{fact:?}");
            let set = FactSet::of(&[fact]);
            assert!(set.contains(fact) && set.iter().eq([fact]) && !set.is_empty());
            assert_eq!(set.against_reading().is_empty(), bit > Fact::Uncertain as usize, "{fact:?}");
            assert!(
                set.is_within(set.with(Fact::Writes)) && FactSet::NONE.is_within(set) && !set.is_within(FactSet::NONE)
            );
        }
        assert_eq!(FactSet::of(&FACTS).iter().count(), FACTS.len());
    }
}
