//! Kinds of statements and what they do: for each kind a text, checked against the parser's own list of nodes; and texts
//! of several statements against their parts.

use pg_query::{NodeEnum as Node, protobuf::RawStmt};
use proptest::prelude::*;

use super::tests::CASES;
use super::*;

/// The kind of a node as the parser's own type has it. A node that a new version of the grammar adds does not compile
/// here until it is decided what it is.
fn kind_of(node: &Node) -> Option<StatementKind> {
    #[rustfmt::skip]
    let kind = match node {
        Node::SelectStmt(_) => StatementKind::Select,
        Node::InsertStmt(_) => StatementKind::Insert,
        Node::UpdateStmt(_) => StatementKind::Update,
        Node::DeleteStmt(_) => StatementKind::Delete,
        Node::MergeStmt(_) => StatementKind::Merge,
        Node::CopyStmt(_) => StatementKind::Copy,
        Node::TransactionStmt(_) => StatementKind::Transaction,
        Node::VariableSetStmt(_) => StatementKind::Set,
        Node::VariableShowStmt(_) => StatementKind::Show,
        Node::ExplainStmt(_) => StatementKind::Explain,
        Node::ExecuteStmt(_) => StatementKind::Execute,
        Node::PrepareStmt(_) => StatementKind::Prepare,
        Node::DeallocateStmt(_) => StatementKind::Deallocate,
        Node::DeclareCursorStmt(_) => StatementKind::DeclareCursor,
        Node::FetchStmt(_) => StatementKind::Fetch,
        Node::ClosePortalStmt(_) => StatementKind::Close,
        Node::ListenStmt(_) => StatementKind::Listen,
        Node::UnlistenStmt(_) => StatementKind::Unlisten,
        Node::NotifyStmt(_) => StatementKind::Notify,
        Node::LockStmt(_) => StatementKind::Lock,
        Node::TruncateStmt(_) => StatementKind::Truncate,
        Node::CallStmt(_) => StatementKind::Call,
        Node::DoStmt(_) => StatementKind::Do,
        Node::ReturnStmt(_) => StatementKind::Return,
        Node::DiscardStmt(_) => StatementKind::Discard,
        Node::LoadStmt(_) => StatementKind::Load,
        Node::ConstraintsSetStmt(_) => StatementKind::SetConstraints,
        Node::CheckPointStmt(_) => StatementKind::Checkpoint,
        Node::ClusterStmt(_) => StatementKind::Cluster,
        Node::VacuumStmt(_) => StatementKind::Vacuum,
        Node::ReindexStmt(_) => StatementKind::Reindex,
        Node::RefreshMatViewStmt(_) => StatementKind::RefreshMaterializedView,
        Node::CommentStmt(_) => StatementKind::Comment,
        Node::SecLabelStmt(_) => StatementKind::SecurityLabel,
        Node::GrantStmt(_) => StatementKind::Grant,
        Node::GrantRoleStmt(_) => StatementKind::GrantRole,
        Node::AlterDefaultPrivilegesStmt(_) => StatementKind::AlterDefaultPrivileges,
        Node::CreateStmt(_) => StatementKind::CreateTable,
        Node::CreateTableAsStmt(_) => StatementKind::CreateTableAs,
        Node::AlterTableStmt(_) => StatementKind::AlterTable,
        Node::AlterTableMoveAllStmt(_) => StatementKind::MoveAllToTablespace,
        Node::ReplicaIdentityStmt(_) => StatementKind::ReplicaIdentity,
        Node::IndexStmt(_) => StatementKind::CreateIndex,
        Node::CreateSeqStmt(_) => StatementKind::CreateSequence,
        Node::AlterSeqStmt(_) => StatementKind::AlterSequence,
        Node::ViewStmt(_) => StatementKind::CreateView,
        Node::RuleStmt(_) => StatementKind::CreateRule,
        Node::CreateTrigStmt(_) => StatementKind::CreateTrigger,
        Node::CreateEventTrigStmt(_) => StatementKind::CreateEventTrigger,
        Node::AlterEventTrigStmt(_) => StatementKind::AlterEventTrigger,
        Node::CreatePolicyStmt(_) => StatementKind::CreatePolicy,
        Node::AlterPolicyStmt(_) => StatementKind::AlterPolicy,
        Node::CreateStatsStmt(_) => StatementKind::CreateStatistics,
        Node::AlterStatsStmt(_) => StatementKind::AlterStatistics,
        Node::CreateSchemaStmt(_) => StatementKind::CreateSchema,
        Node::CreateFunctionStmt(_) => StatementKind::CreateFunction,
        Node::AlterFunctionStmt(_) => StatementKind::AlterFunction,
        Node::CreatePlangStmt(_) => StatementKind::CreateLanguage,
        Node::CreateTransformStmt(_) => StatementKind::CreateTransform,
        Node::CreateCastStmt(_) => StatementKind::CreateCast,
        Node::CreateConversionStmt(_) => StatementKind::CreateConversion,
        Node::DefineStmt(_) => StatementKind::Define,
        Node::CompositeTypeStmt(_) => StatementKind::CreateCompositeType,
        Node::CreateEnumStmt(_) => StatementKind::CreateEnumType,
        Node::AlterEnumStmt(_) => StatementKind::AlterEnumType,
        Node::CreateRangeStmt(_) => StatementKind::CreateRangeType,
        Node::AlterTypeStmt(_) => StatementKind::AlterType,
        Node::CreateDomainStmt(_) => StatementKind::CreateDomain,
        Node::AlterDomainStmt(_) => StatementKind::AlterDomain,
        Node::AlterCollationStmt(_) => StatementKind::AlterCollation,
        Node::CreateOpClassStmt(_) => StatementKind::CreateOperatorClass,
        Node::CreateOpFamilyStmt(_) => StatementKind::CreateOperatorFamily,
        Node::AlterOpFamilyStmt(_) => StatementKind::AlterOperatorFamily,
        Node::AlterOperatorStmt(_) => StatementKind::AlterOperator,
        Node::AlterTsdictionaryStmt(_) => StatementKind::AlterTextSearchDictionary,
        Node::AlterTsconfigurationStmt(_) => StatementKind::AlterTextSearchConfiguration,
        Node::CreateAmStmt(_) => StatementKind::CreateAccessMethod,
        Node::CreateExtensionStmt(_) => StatementKind::CreateExtension,
        Node::AlterExtensionStmt(_) => StatementKind::AlterExtension,
        Node::AlterExtensionContentsStmt(_) => StatementKind::AlterExtensionContents,
        Node::CreateFdwStmt(_) => StatementKind::CreateForeignDataWrapper,
        Node::AlterFdwStmt(_) => StatementKind::AlterForeignDataWrapper,
        Node::CreateForeignServerStmt(_) => StatementKind::CreateForeignServer,
        Node::AlterForeignServerStmt(_) => StatementKind::AlterForeignServer,
        Node::CreateForeignTableStmt(_) => StatementKind::CreateForeignTable,
        Node::ImportForeignSchemaStmt(_) => StatementKind::ImportForeignSchema,
        Node::CreateUserMappingStmt(_) => StatementKind::CreateUserMapping,
        Node::AlterUserMappingStmt(_) => StatementKind::AlterUserMapping,
        Node::DropUserMappingStmt(_) => StatementKind::DropUserMapping,
        Node::CreatePublicationStmt(_) => StatementKind::CreatePublication,
        Node::AlterPublicationStmt(_) => StatementKind::AlterPublication,
        Node::CreateSubscriptionStmt(_) => StatementKind::CreateSubscription,
        Node::AlterSubscriptionStmt(_) => StatementKind::AlterSubscription,
        Node::DropSubscriptionStmt(_) => StatementKind::DropSubscription,
        Node::CreateRoleStmt(_) => StatementKind::CreateRole,
        Node::AlterRoleStmt(_) => StatementKind::AlterRole,
        Node::AlterRoleSetStmt(_) => StatementKind::AlterRoleSet,
        Node::DropRoleStmt(_) => StatementKind::DropRole,
        Node::DropOwnedStmt(_) => StatementKind::DropOwned,
        Node::ReassignOwnedStmt(_) => StatementKind::ReassignOwned,
        Node::CreatedbStmt(_) => StatementKind::CreateDatabase,
        Node::AlterDatabaseStmt(_) => StatementKind::AlterDatabase,
        Node::AlterDatabaseRefreshCollStmt(_) => StatementKind::RefreshDatabaseCollation,
        Node::AlterDatabaseSetStmt(_) => StatementKind::AlterDatabaseSet,
        Node::DropdbStmt(_) => StatementKind::DropDatabase,
        Node::AlterSystemStmt(_) => StatementKind::AlterSystem,
        Node::CreateTableSpaceStmt(_) => StatementKind::CreateTablespace,
        Node::AlterTableSpaceOptionsStmt(_) => StatementKind::AlterTablespace,
        Node::DropTableSpaceStmt(_) => StatementKind::DropTablespace,
        Node::RenameStmt(_) => StatementKind::Rename,
        Node::AlterObjectSchemaStmt(_) => StatementKind::SetSchema,
        Node::AlterOwnerStmt(_) => StatementKind::SetOwner,
        Node::AlterObjectDependsStmt(_) => StatementKind::DependOnExtension,
        Node::DropStmt(_) => StatementKind::Drop,
        // Around a statement; made only after parsing; of PL/pgSQL's own grammar.
        Node::RawStmt(_) | Node::SetOperationStmt(_) | Node::PlassignStmt(_) => return None,
        Node::Alias(_) | Node::RangeVar(_) | Node::TableFunc(_) | Node::IntoClause(_) | Node::Var(_)
        | Node::Param(_) | Node::Aggref(_) | Node::GroupingFunc(_) | Node::WindowFunc(_)
        | Node::WindowFuncRunCondition(_) | Node::MergeSupportFunc(_) | Node::SubscriptingRef(_)
        | Node::FuncExpr(_) | Node::NamedArgExpr(_) | Node::OpExpr(_) | Node::DistinctExpr(_)
        | Node::NullIfExpr(_) | Node::ScalarArrayOpExpr(_) | Node::BoolExpr(_) | Node::SubLink(_)
        | Node::SubPlan(_) | Node::AlternativeSubPlan(_) | Node::FieldSelect(_) | Node::FieldStore(_)
        | Node::RelabelType(_) | Node::CoerceViaIo(_) | Node::ArrayCoerceExpr(_)
        | Node::ConvertRowtypeExpr(_) | Node::CollateExpr(_) | Node::CaseExpr(_) | Node::CaseWhen(_)
        | Node::CaseTestExpr(_) | Node::ArrayExpr(_) | Node::RowExpr(_) | Node::RowCompareExpr(_)
        | Node::CoalesceExpr(_) | Node::MinMaxExpr(_) | Node::SqlvalueFunction(_) | Node::XmlExpr(_)
        | Node::JsonFormat(_) | Node::JsonReturning(_) | Node::JsonValueExpr(_)
        | Node::JsonConstructorExpr(_) | Node::JsonIsPredicate(_) | Node::JsonBehavior(_) | Node::JsonExpr(_)
        | Node::JsonTablePath(_) | Node::JsonTablePathScan(_) | Node::JsonTableSiblingJoin(_)
        | Node::NullTest(_) | Node::BooleanTest(_) | Node::MergeAction(_) | Node::CoerceToDomain(_)
        | Node::CoerceToDomainValue(_) | Node::SetToDefault(_) | Node::CurrentOfExpr(_)
        | Node::NextValueExpr(_) | Node::InferenceElem(_) | Node::ReturningExpr(_) | Node::TargetEntry(_)
        | Node::RangeTblRef(_) | Node::JoinExpr(_) | Node::FromExpr(_) | Node::OnConflictExpr(_)
        | Node::Query(_) | Node::TypeName(_) | Node::ColumnRef(_) | Node::ParamRef(_) | Node::AExpr(_)
        | Node::TypeCast(_) | Node::CollateClause(_) | Node::RoleSpec(_) | Node::FuncCall(_) | Node::AStar(_)
        | Node::AIndices(_) | Node::AIndirection(_) | Node::AArrayExpr(_) | Node::ResTarget(_)
        | Node::MultiAssignRef(_) | Node::SortBy(_) | Node::WindowDef(_) | Node::RangeSubselect(_)
        | Node::RangeFunction(_) | Node::RangeTableFunc(_) | Node::RangeTableFuncCol(_)
        | Node::RangeTableSample(_) | Node::ColumnDef(_) | Node::TableLikeClause(_) | Node::IndexElem(_)
        | Node::DefElem(_) | Node::LockingClause(_) | Node::XmlSerialize(_) | Node::PartitionElem(_)
        | Node::PartitionSpec(_) | Node::PartitionBoundSpec(_) | Node::PartitionRangeDatum(_)
        | Node::PartitionCmd(_) | Node::RangeTblEntry(_) | Node::RtepermissionInfo(_)
        | Node::RangeTblFunction(_) | Node::TableSampleClause(_) | Node::WithCheckOption(_)
        | Node::SortGroupClause(_) | Node::GroupingSet(_) | Node::WindowClause(_) | Node::RowMarkClause(_)
        | Node::WithClause(_) | Node::InferClause(_) | Node::OnConflictClause(_) | Node::CtesearchClause(_)
        | Node::CtecycleClause(_) | Node::CommonTableExpr(_) | Node::MergeWhenClause(_)
        | Node::ReturningOption(_) | Node::ReturningClause(_) | Node::TriggerTransition(_)
        | Node::JsonOutput(_) | Node::JsonArgument(_) | Node::JsonFuncExpr(_) | Node::JsonTablePathSpec(_)
        | Node::JsonTable(_) | Node::JsonTableColumn(_) | Node::JsonKeyValue(_) | Node::JsonParseExpr(_)
        | Node::JsonScalarExpr(_) | Node::JsonSerializeExpr(_) | Node::JsonObjectConstructor(_)
        | Node::JsonArrayConstructor(_) | Node::JsonArrayQueryConstructor(_) | Node::JsonAggConstructor(_)
        | Node::JsonObjectAgg(_) | Node::JsonArrayAgg(_) | Node::AlterTableCmd(_)
        | Node::AtalterConstraint(_) | Node::ObjectWithArgs(_) | Node::AccessPriv(_) | Node::Constraint(_)
        | Node::CreateOpClassItem(_) | Node::StatsElem(_) | Node::FunctionParameter(_)
        | Node::InlineCodeBlock(_) | Node::CallContext(_) | Node::VacuumRelation(_)
        | Node::PublicationTable(_) | Node::PublicationObjSpec(_) | Node::Integer(_) | Node::Float(_)
        | Node::Boolean(_) | Node::String(_) | Node::BitString(_) | Node::List(_) | Node::IntList(_)
        | Node::OidList(_) | Node::AConst(_) => return None,
    };
    Some(kind)
}

/// Kinds that stand inside others only: in the body of a function, and in ALTER TABLE.
const INNER: [StatementKind; 2] = [StatementKind::Return, StatementKind::ReplicaIdentity];

/// In each line: the kind, what it does, and a text.
const TEXTS: &str = r#"
Select                       |                                | SELECT 1
Select                       | LocksRows                      | SELECT a FROM t FOR UPDATE
Select                       | CreatesTable Creates           | SELECT a INTO u FROM t
Select                       | CallsVolatile                  | SELECT random()
Select                       | CallsVolatile DrawsSequence    | SELECT random(), nextval('s')
Select                       | CallsVolatile DrawsSequence    | SELECT setval('s', 1)
Select                       | CallsVolatile AsksSequence     | SELECT currval('s')
Select                       | CallsVolatile ReleasesState    | SELECT random(), pg_advisory_unlock(1)
Select                       | CallsVolatile ReloadsConfiguration | SELECT random(), pg_reload_conf()
Select                       | CallsVolatile Listens Notifies | SELECT pg_notify('a', 'b')
Select                       | CallsVolatile                  | SELECT set_config('search_path', 'a', false)
Select                       | AsksSession Listens            | SELECT pg_listening_channels()
Select                       | CallsUnknown                   | SELECT f()
Select                       | CallsUnknown                   | SELECT a FROM t TABLESAMPLE f (1)
Select                       | UsesOperator                   | SELECT 1 OPERATOR(s.+) 2
Select                       | AsksSession                    | SELECT current_setting('a')
Select                       | CallsVolatile AsksSession DrawsSequence | SELECT current_setting('a'), nextval('s')
Select                       | AsksNode                       | SELECT version()
Select                       | AsksNode ListsStatements       | SELECT name FROM pg_prepared_statements
Select                       | UsesTemporary                  | SELECT a FROM pg_temp.t
Select                       | MayReadSequence                | SELECT * FROM t
Select                       | Writes DrawsSequence           | WITH a AS (INSERT INTO t VALUES (1)) SELECT 1
Select                       | Writes                         | WITH a AS (DELETE FROM t) SELECT 1
Insert                       | Writes DrawsSequence           | INSERT INTO t VALUES (1)
Update                       | Writes                         | UPDATE t SET a = 1
Update                       | Writes DrawsSequence           | UPDATE t SET a = DEFAULT
Delete                       | Writes                         | DELETE FROM t
Merge                        | Writes DrawsSequence           | MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE
Copy                         |                                | COPY t TO STDOUT
Copy                         | Writes DrawsSequence           | COPY t FROM STDIN
Copy                         | Writes DrawsSequence           | COPY t TO '/tmp/t'
Transaction                  | ControlsTransaction ReleasesState | BEGIN
Transaction                  | ControlsTransaction ReleasesState | ROLLBACK TO a
Transaction                  | Writes ReleasesState           | PREPARE TRANSACTION 'a'
Transaction                  | Writes ReleasesState           | COMMIT PREPARED 'a'
Set                          | ChangesSettings                | SET a.b = 'c'
Set                          | ChangesSettings                | SET TRANSACTION READ ONLY
Set                          | ChangesSettings                | RESET ALL
Set                          | ChangesSettings                | SET search_path = a
Set                          | ChangesSettings                | RESET search_path
Show                         | AsksSession                    | SHOW timezone
Explain                      |                                | EXPLAIN INSERT INTO t VALUES (1)
Explain                      | Writes                         | EXPLAIN EXECUTE a
Explain                      | Writes DrawsSequence           | EXPLAIN ANALYZE INSERT INTO t VALUES (1)
Execute                      | Writes DrawsSequence           | EXECUTE a
Prepare                      | Writes                         | PREPARE a AS SELECT nextval('s')
Deallocate                   | Writes ReleasesState           | DEALLOCATE a
DeclareCursor                | Writes                         | DECLARE a CURSOR FOR SELECT 1
Fetch                        | Writes                         | FETCH ALL FROM a
Close                        | Writes ReleasesState           | CLOSE a
Listen                       | Writes Listens                 | LISTEN a
Unlisten                     | Writes ReleasesState Listens   | UNLISTEN a
Notify                       | Writes Listens Notifies        | NOTIFY a
Lock                         | Writes                         | LOCK TABLE t
Truncate                     | Writes                         | TRUNCATE t
Call                         | Writes CallsUnknown            | CALL p()
Do                           | Writes                         | DO 'BEGIN END'
Discard                      | Writes ReleasesState           | DISCARD TEMP
Discard                      | Writes ReleasesState DiscardsAll | DISCARD ALL
Load                         | Writes                         | LOAD 'a'
SetConstraints               | Writes                         | SET CONSTRAINTS ALL DEFERRED
Checkpoint                   | Writes                         | CHECKPOINT
Cluster                      | Writes                         | CLUSTER t USING i
Vacuum                       | Writes                         | VACUUM t
Vacuum                       | Writes                         | ANALYZE t
Reindex                      | Writes                         | REINDEX TABLE t
RefreshMaterializedView      | Writes                         | REFRESH MATERIALIZED VIEW v
Comment                      | Writes                         | COMMENT ON TABLE t IS 'a'
SecurityLabel                | Writes                         | SECURITY LABEL ON TABLE t IS 'a'
Grant                        | Writes                         | GRANT SELECT ON t TO a
GrantRole                    | Writes                         | GRANT a TO b
AlterDefaultPrivileges       | Writes                         | ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO a
CreateTable                  | Writes Creates                 | CREATE TABLE t (a int)
CreateTable                  | Writes CallsUnknown Defines Creates | CREATE TABLE t (a int DEFAULT f())
CreateTableAs                | Writes Creates                 | CREATE TABLE t AS SELECT 1
CreateTableAs                | Writes DrawsSequence Creates   | CREATE TABLE t AS EXECUTE a
AlterTable                   | Writes                         | ALTER TABLE t ADD a int
AlterTable                   | Writes                         | ALTER TABLE t REPLICA IDENTITY FULL
MoveAllToTablespace          | Writes                         | ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b
CreateIndex                  | Writes                         | CREATE INDEX ON t (a)
CreateSequence               | Writes Creates                 | CREATE SEQUENCE s
AlterSequence                | Writes                         | ALTER SEQUENCE s RESTART
CreateView                   | Writes Defines Creates         | CREATE VIEW v AS SELECT nextval('s')
CreateRule                   | Writes Defines                 | CREATE RULE r AS ON INSERT TO t DO ALSO NOTIFY a
CreateTrigger                | Writes Defines                 | CREATE TRIGGER a AFTER INSERT ON t EXECUTE FUNCTION f()
CreateEventTrigger           | Writes Defines                 | CREATE EVENT TRIGGER a ON sql_drop EXECUTE FUNCTION f()
AlterEventTrigger            | Writes Defines                 | ALTER EVENT TRIGGER a DISABLE
CreatePolicy                 | Writes Defines                 | CREATE POLICY p ON t USING (true)
AlterPolicy                  | Writes Defines                 | ALTER POLICY p ON t USING (false)
CreateStatistics             | Writes Creates                 | CREATE STATISTICS s ON a, b FROM t
AlterStatistics              | Writes                         | ALTER STATISTICS s SET STATISTICS 1
CreateSchema                 | Writes Defines                 | CREATE SCHEMA a
CreateFunction               | Writes Defines Creates         | CREATE FUNCTION f() RETURNS int RETURN 1
AlterFunction                | Writes Defines                 | ALTER FUNCTION f() STABLE
CreateLanguage               | Writes Defines                 | CREATE LANGUAGE a HANDLER f
CreateTransform              | Writes Defines                 | CREATE TRANSFORM FOR a LANGUAGE b (FROM SQL WITH FUNCTION f(internal))
CreateCast                   | Writes Defines                 | CREATE CAST (a AS b) WITHOUT FUNCTION
CreateConversion             | Writes Defines Creates         | CREATE CONVERSION a FOR 'b' TO 'c' FROM f
Define                       | Writes Defines Creates         | CREATE AGGREGATE a (int) (SFUNC = f, STYPE = int)
CreateCompositeType          | Writes Defines Creates         | CREATE TYPE a AS (b int)
CreateEnumType               | Writes Creates                 | CREATE TYPE a AS ENUM ('b')
AlterEnumType                | Writes Defines                 | ALTER TYPE a ADD VALUE 'c'
CreateRangeType              | Writes Defines Creates         | CREATE TYPE a AS RANGE (SUBTYPE = int)
AlterType                    | Writes Defines                 | ALTER TYPE a SET (STORAGE = plain)
CreateDomain                 | Writes Defines Creates         | CREATE DOMAIN a AS int
AlterDomain                  | Writes Defines                 | ALTER DOMAIN a SET NOT NULL
AlterCollation               | Writes                         | ALTER COLLATION a REFRESH VERSION
CreateOperatorClass          | Writes Defines Creates         | CREATE OPERATOR CLASS a FOR TYPE int USING btree AS OPERATOR 1 <
CreateOperatorFamily         | Writes Defines Creates         | CREATE OPERATOR FAMILY a USING btree
AlterOperatorFamily          | Writes Defines                 | ALTER OPERATOR FAMILY a USING btree DROP OPERATOR 1 (int, int)
AlterOperator                | Writes Defines                 | ALTER OPERATOR + (int, int) SET (RESTRICT = NONE)
AlterTextSearchDictionary    | Writes                         | ALTER TEXT SEARCH DICTIONARY a (b = c)
AlterTextSearchConfiguration | Writes                         | ALTER TEXT SEARCH CONFIGURATION a DROP MAPPING FOR word
CreateAccessMethod           | Writes Defines                 | CREATE ACCESS METHOD a TYPE INDEX HANDLER f
CreateExtension              | Writes Defines Creates         | CREATE EXTENSION a
AlterExtension               | Writes Defines                 | ALTER EXTENSION a UPDATE
AlterExtensionContents       | Writes Defines                 | ALTER EXTENSION a ADD TABLE t
CreateForeignDataWrapper     | Writes Defines                 | CREATE FOREIGN DATA WRAPPER a
AlterForeignDataWrapper      | Writes                         | ALTER FOREIGN DATA WRAPPER a NO HANDLER
CreateForeignServer          | Writes                         | CREATE SERVER a FOREIGN DATA WRAPPER b
AlterForeignServer           | Writes                         | ALTER SERVER a VERSION '1'
CreateForeignTable           | Writes Creates                 | CREATE FOREIGN TABLE t (a int) SERVER b
ImportForeignSchema          | Writes                         | IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c
CreateUserMapping            | Writes                         | CREATE USER MAPPING FOR a SERVER b
AlterUserMapping             | Writes                         | ALTER USER MAPPING FOR a SERVER b OPTIONS (c 'd')
DropUserMapping              | Writes                         | DROP USER MAPPING FOR a SERVER b
CreatePublication            | Writes                         | CREATE PUBLICATION a
AlterPublication             | Writes                         | ALTER PUBLICATION a ADD TABLE t
CreateSubscription           | Writes                         | CREATE SUBSCRIPTION a CONNECTION 'b' PUBLICATION c
AlterSubscription            | Writes                         | ALTER SUBSCRIPTION a DISABLE
DropSubscription             | Writes                         | DROP SUBSCRIPTION a
CreateRole                   | Writes                         | CREATE ROLE a
AlterRole                    | Writes                         | ALTER ROLE a LOGIN
AlterRoleSet                 | Writes                         | ALTER ROLE a SET b = 'c'
DropRole                     | Writes                         | DROP ROLE a
DropOwned                    | Writes Defines                 | DROP OWNED BY a
ReassignOwned                | Writes                         | REASSIGN OWNED BY a TO b
CreateDatabase               | Writes                         | CREATE DATABASE a
AlterDatabase                | Writes                         | ALTER DATABASE a CONNECTION LIMIT 1
RefreshDatabaseCollation     | Writes                         | ALTER DATABASE a REFRESH COLLATION VERSION
AlterDatabaseSet             | Writes                         | ALTER DATABASE a SET b = 'c'
DropDatabase                 | Writes                         | DROP DATABASE a
AlterSystem                  | Writes                         | ALTER SYSTEM SET a = 'b'
CreateTablespace             | Writes                         | CREATE TABLESPACE a LOCATION 'b'
AlterTablespace              | Writes                         | ALTER TABLESPACE a SET (seq_page_cost = 1)
DropTablespace               | Writes                         | DROP TABLESPACE a
Rename                       | Writes Defines                 | ALTER TABLE t RENAME TO u
SetSchema                    | Writes                         | ALTER TABLE t SET SCHEMA a
SetOwner                     | Writes                         | ALTER FUNCTION f() OWNER TO a
DependOnExtension            | Writes Defines                 | ALTER FUNCTION f() DEPENDS ON EXTENSION a
Drop                         | Writes ReleasesState           | DROP TABLE t
Drop                         | Writes ReleasesState Defines   | DROP FUNCTION f()
"#;

/// Kind, facts and text of each line.
fn texts() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    TEXTS.lines().filter(|line| !line.is_empty()).map(|line| {
        let mut parts = line.splitn(3, '|').map(str::trim);
        let mut part = || parts.next().expect("a line has three parts");
        (part(), part(), part())
    })
}

#[test]
fn every_kind_has_a_text_that_tells_what_it_does() {
    let mut wrong = Vec::new();
    for (kind, facts, sql) in texts() {
        let verdict = judge(sql);
        let found = verdict.facts.iter().map(|fact| format!("{fact:?}")).collect::<Vec<_>>().join(" ");
        let found_kind = verdict.composition.kind().map_or_else(String::new, |kind| format!("{kind:?}"));
        if (&*found_kind, &*found) != (kind, facts) {
            wrong.push(format!("{sql}\n    expected {kind}: {facts}\n    but is   {found_kind}: {found}"));
        }
        let RawStmt { stmt, .. } = pg_query::parse(sql, 0).unwrap().protobuf.stmts.remove(0);
        assert_eq!(stmt.unwrap().node.as_ref().and_then(kind_of), verdict.composition.kind(), "{sql}");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for kind in StatementKind::ALL.iter().filter(|kind| !INNER.contains(kind)) {
        assert!(texts().any(|(name, ..)| name == format!("{kind:?}")), "{kind:?} has no text");
    }
}

#[test]
fn kinds_are_known_by_their_nodes() {
    for kind in StatementKind::ALL {
        assert_eq!(StatementKind::of_node(&format!("{kind}Stmt")), Some(*kind));
    }
    for key in
        ["RawStmt", "SetOperationStmt", "PLAssignStmt", "selectStmt", "utilityStmt", "Stmt", "Select", "", "A_Const"]
    {
        assert_eq!(StatementKind::of_node(key), None, "{key}");
    }
}

#[test]
fn what_writes_nothing_although_it_is_no_read() {
    for sql in [
        "BEGIN",
        "COMMIT AND CHAIN",
        "SAVEPOINT a",
        "SET a.b = 1",
        "SET TRANSACTION READ ONLY",
        "RESET ALL",
        "SHOW a.b",
        "SELECT current_setting('a')",
    ] {
        assert!(judge(sql).only_controls(), "{sql}");
    }
    for sql in [
        "",
        "SELEC",
        "SELECT 1",
        "INSERT INTO t VALUES (1)",
        "PREPARE TRANSACTION 'a'",
        "COMMIT PREPARED 'a'",
        "BEGIN; COMMIT",
        "DISCARD ALL",
        "LISTEN a",
        // Something that only asks stands first.
        "SELECT current_setting('a'), nextval('s')",
        "SELECT current_setting('a'), f()",
        "SELECT pg_backend_pid() FROM t FOR UPDATE",
        "WITH a AS (DELETE FROM t) SELECT pg_backend_pid()",
    ] {
        assert!(!judge(sql).only_controls(), "{sql}");
    }
}

/// Whether a text does all that a part of it does.
fn covers(whole: &Verdict, part: &Verdict) -> Result<(), &'static str> {
    let has = |is: bool, what| if is { Ok(()) } else { Err(what) };
    let within = |part: &[Box<str>], whole: &[Box<str>]| part.iter().all(|name| whole.contains(name));
    has(part.facts.is_within(whole.facts), "facts")?;
    has(whole.access() == Access::Write || part.access() == Access::Read, "access")?;
    has((whole.reason == Reason::Reads) == (whole.access() == Access::Read), "reason")?;
    has(part.transaction == TransactionControl::None || whole.transaction != TransactionControl::None, "transaction")?;
    has(part.pins.iter().all(|pin| whole.pins.contains(pin)), "pins")?;
    has(part.settings.iter().all(|change| whole.settings.contains(change)), "settings")?;
    has(part.names.iter().all(|name| whole.names.contains(name)), "names")?;
    has(part.steps.iter().all(|step| whole.steps.contains(step)), "steps")?;
    has(within(&part.tables, &whole.tables) && within(&part.customs, &whole.customs), "tables, customs")?;
    has(part.vacates.is_none() || whole.vacates.is_some(), "vacates")?;
    has(part.defaults.is_none() || whole.defaults.is_some(), "defaults")?;
    has(part.own.is_none() || whole.own.is_some(), "own")?;
    has(part.touches_session() <= whole.touches_session() && part.is_opaque() <= whole.is_opaque(), "session, opaque")?;
    has(
        match (&part.deallocates, &whole.deallocates) {
            (Deallocate::None, _) | (_, Deallocate::All) => true,
            (part, whole) => part == whole,
        },
        "deallocates",
    )?;
    let Some((part, whole)) = part.unseen.as_deref().zip(whole.unseen.as_deref()) else { return Ok(()) };
    has(within(&part.functions, &whole.functions) && within(&part.perhaps, &whole.perhaps), "functions")?;
    has(part.dark <= whole.dark && part.sets_any <= whole.sets_any, "dark")
}

/// Texts of one statement, of which some say something about the same as others.
fn statements() -> Vec<&'static str> {
    let more = [
        "SET poolhouse.route = 'primary'",
        "SHOW poolhouse.route",
        "SET a.b = 'd'",
        "SELECT set_config('poolhouse.route', 'primary', false)",
        "SELECT set_config(a, b, false) FROM t",
        "DEALLOCATE b",
        "DEALLOCATE ALL",
        "DO 'BEGIN PERFORM g(1); SET LOCAL a.c = 1; EXECUTE $1; END'",
        "DO LANGUAGE plperl '1'",
        "SELECT g(), query_to_xml('SELECT 1', true, true, '')",
        "CREATE TEMP TABLE x (a int)",
        "COMMIT AND CHAIN",
        "SAVEPOINT a",
        "SELECT a FROM u, s.v",
        "SELECT pg_advisory_lock(1)",
        "DECLARE b CURSOR WITH HOLD FOR SELECT 1",
        "ALTER ROLE b SET c = 'd'",
        "DROP DATABASE b",
        "UPDATE pg_settings SET setting = 'a'",
    ];
    texts().map(|(.., sql)| sql).chain(more).collect()
}

#[test]
fn a_text_is_never_more_harmless_than_a_part_of_it() {
    let judged: Vec<_> = statements().into_iter().map(|sql| (sql, judge(sql))).collect();
    for (one, left) in &judged {
        for (other, right) in &judged {
            let joined = judge(&format!("{one}; {other}"));
            assert_eq!(left.clone().join(right.clone()), joined, "{one}; {other}");
            for part in [left, right] {
                assert_eq!(covers(&joined, part), Ok(()), "{one}; {other}");
            }
        }
    }
}

#[test]
fn a_text_that_means_one_of_two_things_does_both() {
    let judged: Vec<_> = statements().into_iter().map(|sql| (sql, judge(sql))).collect();
    for (one, left) in &judged {
        for (other, right) in judged.iter().step_by(7) {
            let either = left.clone().either(right.clone());
            let settings = |part: &Verdict| match part.settings == either.settings {
                true => part.settings.clone(),
                false => [SettingChange::Unknown].into(),
            };
            for part in [left.clone(), right.clone()] {
                // What is dark has no names.
                let part = Verdict { settings: settings(&part), unseen: None, ..part };
                let covered = covers(&either, &part);
                assert!(
                    matches!(covered, Ok(()) | Err("settings")) && either.is_opaque(),
                    "{one} / {other}: {covered:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn joining_is_associative(picked in prop::collection::vec(0_usize..1_000, 0..7), at in 0_usize..7) {
        let all = statements();
        let parts: Vec<Verdict> = picked.iter().map(|index| judge(all[index % all.len()])).collect();
        let fold = |parts: &[Verdict]| parts.iter().cloned().fold(Verdict::default(), Verdict::join);
        let (left, right) = parts.split_at(at.min(parts.len()));
        let joined = fold(&parts);
        prop_assert_eq!(&fold(left).join(fold(right)), &joined);
        prop_assert_eq!(&Verdict::join_all(parts.iter().cloned()), &joined);
        prop_assert_eq!(&Verdict::default().join(joined.clone()), &joined);
        prop_assert_eq!(&joined.clone().join(Verdict::default()), &joined);
    }
}
