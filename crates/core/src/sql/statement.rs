//! The kinds of statements that PostgreSQL's grammar has, and what each does by its kind alone.

use std::fmt;

use super::facts::{Fact, FactSet};

/// Declares the kinds, each with the name of its node in the parse tree, without "Stmt".
macro_rules! statement_kinds {
    ($($kind:ident = $node:literal,)*) => {
        /// A kind of statement: one for each that the grammar tells apart. `DROP TABLE` and `DROP VIEW` are of one kind,
        /// and so are BEGIN and COMMIT.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum StatementKind {
            $(
                #[doc = concat!("`", $node, "Stmt` in the parse tree.")]
                $kind,
            )*
        }

        impl StatementKind {
            /// All of them, those that come often first.
            pub const ALL: &[StatementKind] = &[$(StatementKind::$kind,)*];

            /// How it is called where people read it: as its node in the parse tree, without "Stmt".
            pub const fn name(self) -> &'static str {
                match self {
                    $(StatementKind::$kind => $node,)*
                }
            }

            /// The kind of a node of the parse tree; `None` when that is no whole statement.
            pub(super) fn of_node(key: &str) -> Option<StatementKind> {
                match key.strip_suffix("Stmt")? {
                    $($node => Some(StatementKind::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

statement_kinds! {
    Select = "Select",
    Insert = "Insert",
    Update = "Update",
    Delete = "Delete",
    Merge = "Merge",
    Copy = "Copy",
    Transaction = "Transaction",
    Set = "VariableSet",
    Show = "VariableShow",
    Explain = "Explain",
    Execute = "Execute",
    Prepare = "Prepare",
    Deallocate = "Deallocate",
    DeclareCursor = "DeclareCursor",
    Fetch = "Fetch",
    Close = "ClosePortal",
    Listen = "Listen",
    Unlisten = "Unlisten",
    Notify = "Notify",
    Lock = "Lock",
    Truncate = "Truncate",
    Call = "Call",
    Do = "Do",
    Return = "Return",
    Discard = "Discard",
    Load = "Load",
    SetConstraints = "ConstraintsSet",
    Checkpoint = "CheckPoint",
    Cluster = "Cluster",
    Vacuum = "Vacuum",
    Reindex = "Reindex",
    RefreshMaterializedView = "RefreshMatView",
    Comment = "Comment",
    SecurityLabel = "SecLabel",
    Grant = "Grant",
    GrantRole = "GrantRole",
    AlterDefaultPrivileges = "AlterDefaultPrivileges",
    CreateTable = "Create",
    CreateTableAs = "CreateTableAs",
    AlterTable = "AlterTable",
    MoveAllToTablespace = "AlterTableMoveAll",
    ReplicaIdentity = "ReplicaIdentity",
    CreateIndex = "Index",
    CreateSequence = "CreateSeq",
    AlterSequence = "AlterSeq",
    CreateView = "View",
    CreateRule = "Rule",
    CreateTrigger = "CreateTrig",
    CreateEventTrigger = "CreateEventTrig",
    AlterEventTrigger = "AlterEventTrig",
    CreatePolicy = "CreatePolicy",
    AlterPolicy = "AlterPolicy",
    CreateStatistics = "CreateStats",
    AlterStatistics = "AlterStats",
    CreateSchema = "CreateSchema",
    CreateFunction = "CreateFunction",
    AlterFunction = "AlterFunction",
    CreateLanguage = "CreatePLang",
    CreateTransform = "CreateTransform",
    CreateCast = "CreateCast",
    CreateConversion = "CreateConversion",
    Define = "Define",
    CreateCompositeType = "CompositeType",
    CreateEnumType = "CreateEnum",
    AlterEnumType = "AlterEnum",
    CreateRangeType = "CreateRange",
    AlterType = "AlterType",
    CreateDomain = "CreateDomain",
    AlterDomain = "AlterDomain",
    AlterCollation = "AlterCollation",
    CreateOperatorClass = "CreateOpClass",
    CreateOperatorFamily = "CreateOpFamily",
    AlterOperatorFamily = "AlterOpFamily",
    AlterOperator = "AlterOperator",
    AlterTextSearchDictionary = "AlterTSDictionary",
    AlterTextSearchConfiguration = "AlterTSConfiguration",
    CreateAccessMethod = "CreateAm",
    CreateExtension = "CreateExtension",
    AlterExtension = "AlterExtension",
    AlterExtensionContents = "AlterExtensionContents",
    CreateForeignDataWrapper = "CreateFdw",
    AlterForeignDataWrapper = "AlterFdw",
    CreateForeignServer = "CreateForeignServer",
    AlterForeignServer = "AlterForeignServer",
    CreateForeignTable = "CreateForeignTable",
    ImportForeignSchema = "ImportForeignSchema",
    CreateUserMapping = "CreateUserMapping",
    AlterUserMapping = "AlterUserMapping",
    DropUserMapping = "DropUserMapping",
    CreatePublication = "CreatePublication",
    AlterPublication = "AlterPublication",
    CreateSubscription = "CreateSubscription",
    AlterSubscription = "AlterSubscription",
    DropSubscription = "DropSubscription",
    CreateRole = "CreateRole",
    AlterRole = "AlterRole",
    AlterRoleSet = "AlterRoleSet",
    DropRole = "DropRole",
    DropOwned = "DropOwned",
    ReassignOwned = "ReassignOwned",
    CreateDatabase = "Createdb",
    AlterDatabase = "AlterDatabase",
    RefreshDatabaseCollation = "AlterDatabaseRefreshColl",
    AlterDatabaseSet = "AlterDatabaseSet",
    DropDatabase = "Dropdb",
    AlterSystem = "AlterSystem",
    CreateTablespace = "CreateTableSpace",
    AlterTablespace = "AlterTableSpaceOptions",
    DropTablespace = "DropTableSpace",
    Rename = "Rename",
    SetSchema = "AlterObjectSchema",
    SetOwner = "AlterOwner",
    DependOnExtension = "AlterObjectDepends",
    Drop = "Drop",
}

impl fmt::Display for StatementKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl StatementKind {
    /// What every statement of the kind does. Only what is known to read may read. Of COPY, transactions and EXPLAIN the
    /// rest of the statement tells more (see `walk`).
    pub(super) const fn facts(self) -> FactSet {
        const WRITES: FactSet = FactSet::of(&[Fact::Writes]);
        match self {
            StatementKind::Select | StatementKind::Explain => FactSet::NONE,
            StatementKind::Set => FactSet::of(&[Fact::ChangesSettings]),
            StatementKind::Show => FactSet::of(&[Fact::AsksSession]),
            StatementKind::Transaction => FactSet::of(&[Fact::ReleasesState]),
            StatementKind::Insert | StatementKind::Copy | StatementKind::Merge | StatementKind::Execute => {
                WRITES.with(Fact::DrawsSequence)
            }
            StatementKind::Listen => WRITES.with(Fact::Listens),
            StatementKind::Unlisten => WRITES.with(Fact::Listens).with(Fact::ReleasesState),
            StatementKind::Notify => WRITES.with(Fact::Listens).with(Fact::Notifies),
            StatementKind::Discard | StatementKind::Deallocate | StatementKind::Close => {
                WRITES.with(Fact::ReleasesState)
            }
            // What is dropped may be code, too: see `definitions`.
            StatementKind::Drop => WRITES.with(Fact::ReleasesState),
            // It may be one that nobody else can call.
            StatementKind::CreateFunction => WRITES,
            StatementKind::AlterDomain
            | StatementKind::AlterEnumType
            | StatementKind::AlterEventTrigger
            | StatementKind::AlterExtension
            | StatementKind::AlterExtensionContents
            | StatementKind::AlterFunction
            | StatementKind::AlterOperator
            | StatementKind::AlterOperatorFamily
            | StatementKind::AlterPolicy
            | StatementKind::AlterType
            | StatementKind::CreateAccessMethod
            | StatementKind::CreateCast
            | StatementKind::CreateCompositeType
            | StatementKind::CreateConversion
            | StatementKind::CreateDomain
            | StatementKind::CreateEventTrigger
            | StatementKind::CreateExtension
            | StatementKind::CreateForeignDataWrapper
            | StatementKind::CreateLanguage
            | StatementKind::CreateOperatorClass
            | StatementKind::CreateOperatorFamily
            | StatementKind::CreatePolicy
            | StatementKind::CreateRangeType
            | StatementKind::CreateRule
            | StatementKind::CreateSchema
            | StatementKind::CreateTransform
            | StatementKind::CreateTrigger
            | StatementKind::CreateView
            | StatementKind::Define
            | StatementKind::DependOnExtension
            | StatementKind::DropOwned
            | StatementKind::Rename => WRITES.with(Fact::Defines),
            StatementKind::Update
            | StatementKind::Delete
            | StatementKind::Prepare
            | StatementKind::DeclareCursor
            | StatementKind::Fetch
            | StatementKind::Lock
            | StatementKind::Truncate
            | StatementKind::Call
            | StatementKind::Do
            | StatementKind::Return
            | StatementKind::Load
            | StatementKind::SetConstraints
            | StatementKind::Checkpoint
            | StatementKind::Cluster
            | StatementKind::Vacuum
            | StatementKind::Reindex
            | StatementKind::RefreshMaterializedView
            | StatementKind::Comment
            | StatementKind::SecurityLabel
            | StatementKind::Grant
            | StatementKind::GrantRole
            | StatementKind::AlterDefaultPrivileges
            | StatementKind::CreateTable
            | StatementKind::CreateTableAs
            | StatementKind::AlterTable
            | StatementKind::MoveAllToTablespace
            | StatementKind::ReplicaIdentity
            | StatementKind::CreateIndex
            | StatementKind::CreateSequence
            | StatementKind::AlterSequence
            | StatementKind::CreateStatistics
            | StatementKind::AlterStatistics
            | StatementKind::CreateEnumType
            | StatementKind::AlterCollation
            | StatementKind::AlterTextSearchDictionary
            | StatementKind::AlterTextSearchConfiguration
            | StatementKind::AlterForeignDataWrapper
            | StatementKind::CreateForeignServer
            | StatementKind::AlterForeignServer
            | StatementKind::CreateForeignTable
            | StatementKind::ImportForeignSchema
            | StatementKind::CreateUserMapping
            | StatementKind::AlterUserMapping
            | StatementKind::DropUserMapping
            | StatementKind::CreatePublication
            | StatementKind::AlterPublication
            | StatementKind::CreateSubscription
            | StatementKind::AlterSubscription
            | StatementKind::DropSubscription
            | StatementKind::CreateRole
            | StatementKind::AlterRole
            | StatementKind::AlterRoleSet
            | StatementKind::DropRole
            | StatementKind::ReassignOwned
            | StatementKind::CreateDatabase
            | StatementKind::AlterDatabase
            | StatementKind::RefreshDatabaseCollation
            | StatementKind::AlterDatabaseSet
            | StatementKind::DropDatabase
            | StatementKind::AlterSystem
            | StatementKind::CreateTablespace
            | StatementKind::AlterTablespace
            | StatementKind::DropTablespace
            | StatementKind::SetSchema
            | StatementKind::SetOwner => WRITES,
        }
    }

    /// Whether a statement of the kind makes something that lies in a schema: when it names none, in the one that comes
    /// first in the search path.
    pub(super) const fn creates(self) -> bool {
        matches!(
            self,
            StatementKind::CreateTable
                | StatementKind::CreateTableAs
                | StatementKind::CreateSequence
                | StatementKind::CreateView
                | StatementKind::CreateStatistics
                | StatementKind::CreateFunction
                | StatementKind::CreateConversion
                | StatementKind::Define
                | StatementKind::CreateCompositeType
                | StatementKind::CreateEnumType
                | StatementKind::CreateRangeType
                | StatementKind::CreateDomain
                | StatementKind::CreateOperatorClass
                | StatementKind::CreateOperatorFamily
                | StatementKind::CreateExtension
                | StatementKind::CreateForeignTable
        )
    }

    /// Whether running a statement of the kind calls the functions in it, or keeps them for later.
    pub(super) const fn calls_functions(self) -> bool {
        !matches!(
            self,
            StatementKind::CreateView
                | StatementKind::CreateFunction
                | StatementKind::CreateRule
                | StatementKind::CreatePolicy
                | StatementKind::AlterPolicy
                | StatementKind::CreateTrigger
                | StatementKind::Prepare
        )
    }

    /// Whether EXPLAIN of such a statement only reads.
    pub(super) const fn is_planned_without_effect(self) -> bool {
        matches!(
            self,
            StatementKind::Select
                | StatementKind::Insert
                | StatementKind::Update
                | StatementKind::Delete
                | StatementKind::Merge
        )
    }
}
