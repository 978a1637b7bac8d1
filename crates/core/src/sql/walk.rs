//! The rules: from a parse tree to a verdict. Everything in the tree is looked at, whatever clause it stands in, and
//! only what is known to read may read: a kind of statement or a function that is not listed counts as writing.
//!
//! What no text shows: functions behind views, rules, triggers, casts and operators; a user's function that is found
//! before the built-in one of the same name (other argument types, or a schema placed before `pg_catalog`); a function
//! called in the form of a column (`row.function`). Whether any of these touches the session is told by a census of the
//! database's code. As for reading, such a statement is sent to a replica, which refuses to write
//! (SQLSTATE 25006), so that nothing is lost but the chance to run it at once.

use std::collections::BTreeSet;

use super::census::body;
use super::definitions;
use super::facts::{Fact, FactSet};
use super::functions::{self, FunctionKind};
use super::own::{self, BlockStep, OwnCommand, OwnText};
use super::process_id;
use super::statement::StatementKind;
use super::tree::{Tree, TreeValue, is_built_in, last_part, parts, unescape};
use super::verdict::{
    Composition, Deallocate, DefaultsOf, Isolation, Modes, NameUse, Pin, PinSet, Reason, SettingChange,
    TransactionControl, Unseen, Verdict,
};

/// A verdict, and whether it depends on the value of a literal rather than on the form of the text alone.
#[derive(Debug)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) literal: bool,
}

/// Judges a parsed text.
pub(super) fn judge(tree: &Tree<'_>) -> Judgement {
    let statements = tree.root().get("stmts").into_iter().flat_map(TreeValue::children);
    let nodes = statements.filter_map(|statement| statement.get("stmt").and_then(TreeValue::only));
    let mut literal = false;
    let verdict = Verdict::join_all(nodes.map(|node| {
        let mut judge = Walk::default();
        judge.statement(node);
        literal |= judge.literal;
        judge.finish()
    }));
    Judgement { verdict, literal }
}

/// The verdict of one statement while it is being found.
#[derive(Default)]
struct Walk {
    kind: Option<StatementKind>,
    facts: FactSet,
    /// The first thing that speaks against reading.
    reason: Option<Reason>,
    transaction: Option<TransactionControl>,
    settings: Vec<SettingChange>,
    pins: PinSet,
    deallocates: Option<Deallocate>,
    names: Vec<NameUse>,
    vacates: Option<Box<str>>,
    defaults: Option<Box<DefaultsOf>>,
    /// There is code that is not seen.
    opaque: bool,
    /// What is known of it.
    unseen: Unseen,
    functions: Vec<Box<str>>,
    tables: Vec<Box<str>>,
    customs: BTreeSet<Box<str>>,
    update: Update,
    /// A command about a setting of our own, and whether such a setting is named where it cannot be.
    own: Option<OwnCommand>,
    misplaced: bool,
    step: Option<BlockStep>,
    literal: bool,
}

/// An UPDATE of the view `pg_settings` is a SET.
#[derive(Default)]
struct Update {
    /// The statement names that view.
    names_settings: bool,
    /// It updates something.
    is_there: bool,
}

/// How far the functions in a statement are called when it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calls {
    Now,
    /// The statement only stores or explains them.
    Later,
}

impl Walk {
    fn finish(mut self) -> Verdict {
        if self.update.names_settings && self.update.is_there {
            self.dark();
        }
        self.functions.sort();
        self.functions.dedup();
        self.unseen.functions = self.functions.into();
        self.tables.sort();
        self.tables.dedup();
        Verdict {
            composition: self.kind.map_or(Composition::Unreadable, Composition::One),
            facts: self.facts,
            reason: self.reason.unwrap_or(Reason::Reads),
            transaction: self.transaction.unwrap_or(TransactionControl::None),
            pins: self.pins,
            settings: self.settings.into(),
            deallocates: self.deallocates.unwrap_or(Deallocate::None),
            names: self.names.into(),
            tables: self.tables.into(),
            vacates: self.vacates,
            unseen: self.opaque.then(|| Box::new(self.unseen)),
            defaults: self.defaults,
            customs: self.customs.into_iter().collect(),
            own: match self.own {
                _ if self.misplaced => Some(Box::new(OwnText::Misplaced)),
                own => own.map(|command| Box::new(OwnText::Commands([command].into()))),
            },
            steps: self.step.into_iter().collect(),
            ..Verdict::default()
        }
    }

    /// Notes something that speaks against reading; the first reason stays.
    fn write(&mut self, fact: Fact, reason: impl FnOnce() -> Reason) {
        self.facts.insert(fact);
        self.reason.get_or_insert_with(reason);
    }

    /// Notes what a kind of statement does.
    fn kind(&mut self, kind: StatementKind, reason: fn(StatementKind) -> Reason) {
        self.facts = self.facts.union(kind.facts());
        if !kind.facts().against_reading().is_empty() {
            self.reason.get_or_insert(reason(kind));
        }
    }

    /// Notes a call of a function that is not built in.
    fn unknown_function(&mut self, name: Box<str>) {
        self.opaque = true;
        self.functions.push(name.clone());
        self.write(Fact::CallsUnknown, || Reason::UnknownFunction(name));
    }

    /// A node of which nothing is known: as if the text could not be read.
    fn unknown_node(&mut self) {
        self.dark();
        self.pins.insert(Pin::Unreadable);
        self.write(Fact::Uncertain, || Reason::Unreadable);
    }

    /// Judges the statement, by its node.
    fn statement(&mut self, node: TreeValue<'_, '_>) {
        let Some(kind) = StatementKind::of_node(node.key()) else { return self.unknown_node() };
        self.kind.get_or_insert(kind);
        let temporary = is_of_temporary_functions(kind, node);
        if definitions::defines(kind, node) && !temporary {
            self.facts.insert(Fact::Defines);
        }
        if kind.creates() {
            self.facts.insert(Fact::Creates);
        }
        match kind {
            StatementKind::Copy if copies_to_client(node) => {}
            StatementKind::Explain => return self.explain(node),
            StatementKind::Show => {
                let name = unescape(node.text_of("name"));
                self.write(Fact::AsksSession, || Reason::SessionState(name.into()));
                self.own = own::command(kind, node);
            }
            StatementKind::Transaction => self.transaction(node),
            _ => self.kind(kind, Reason::Statement),
        }
        match kind {
            StatementKind::Set => self.variable(node),
            StatementKind::Update => self.update.is_there = true,
            StatementKind::Discard if node.text_of("target") == "DISCARD_ALL" => self.discard_all(),
            StatementKind::Deallocate => self.deallocate(node),
            StatementKind::Listen => self.pins.insert(Pin::Listen),
            StatementKind::Load => self.pins.insert(Pin::Load),
            StatementKind::Prepare => {
                self.pins.insert(Pin::Prepare);
                self.names.push(NameUse::Prepares(unescape(node.text_of("name")).into()));
                if process_id::is_called_in(node) {
                    self.facts.insert(Fact::AsksProcess);
                }
            }
            StatementKind::DeclareCursor if node.get("options").map_or(0, TreeValue::number) & CURSOR_OPT_HOLD != 0 => {
                self.pins.insert(Pin::HoldCursor);
            }
            StatementKind::Do => self.block(node),
            StatementKind::CreateFunction if temporary => self.temporary_function(node),
            StatementKind::CreateFunction => self.new_function(node),
            StatementKind::Call => self.opaque = true,
            StatementKind::DropDatabase
            | StatementKind::CreateDatabase
            | StatementKind::AlterDatabase
            | StatementKind::Rename => self.database(kind, node),
            StatementKind::AlterRoleSet | StatementKind::AlterDatabaseSet => self.defaults(kind, node),
            StatementKind::Execute | StatementKind::CreateTableAs => self.executes(node),
            _ => {}
        }
        self.contents(node, if kind.calls_functions() || temporary { Calls::Now } else { Calls::Later });
    }

    /// Code that nothing more can be said of.
    fn dark(&mut self) {
        (self.opaque, self.unseen.dark) = (true, true);
    }

    /// DO: its text is looked at when it is of a language that can be.
    fn block(&mut self, node: TreeValue<'_, '_>) {
        let language = option(node, "language").and_then(option_text).map(unescape);
        let plain = language.is_none_or(|language| language == "plpgsql");
        self.code(plain, option(node, "as").and_then(option_text).as_slice());
    }

    /// Code of the text itself: a language that is read here is `plain`.
    fn code(&mut self, plain: bool, texts: &[&str]) {
        (self.opaque, self.literal) = (true, true);
        match texts {
            [text] if plain => {
                let body = body::scan(&unescape(text));
                if body.defines {
                    self.facts.insert(Fact::Defines);
                }
                Unseen::of_block(&body, &mut self.unseen);
                self.customs.extend(body.customs);
            }
            texts => {
                let mut body = body::Body::default();
                texts.iter().for_each(|text| body.note_text(&unescape(text)));
                self.unseen.sets_any |= body.sets_any;
                self.customs.extend(body.customs);
                self.unseen.dark = true;
                self.facts.insert(Fact::Defines);
            }
        }
    }

    /// CREATE FUNCTION in the schema of temporary objects: only this session can call it, and it may be gone before its
    /// transaction ends. So it counts as if it ran at once, and no catalog is looked at for it.
    fn temporary_function(&mut self, node: TreeValue<'_, '_>) {
        let language = option(node, "language").and_then(option_text).map(unescape);
        let texts = option(node, "as").into_iter().flat_map(TreeValue::walk);
        let texts: Vec<_> = texts.filter(|value| value.key() == "sval").map(TreeValue::text).collect();
        // A body of parsed SQL is looked at like any other statement.
        if node.get("sql_body").is_none() {
            self.code(language.is_some_and(|language| matches!(&*language, "sql" | "plpgsql")), &texts);
        }
        // What it may do that the server cannot tell of it does not say when it is called.
        if self.unseen.sets_any {
            self.settings.push(SettingChange::Unknown);
        }
    }

    /// CREATE FUNCTION: until the catalog has been read anew, only its text tells which settings it may change.
    fn new_function(&mut self, node: TreeValue<'_, '_>) {
        self.literal = true;
        let texts = option(node, "as").into_iter().flat_map(TreeValue::walk);
        let texts = texts.filter(|value| value.key() == "sval").map(|value| unescape(value.text()));
        self.customs.extend(texts.flat_map(|text| body::scan(&text).customs));
    }

    /// EXPLAIN reads what it explains without running it, and with ANALYZE is what it runs. The value of the option
    /// (`ANALYZE false`) is not looked at, so that it need not be known.
    fn explain(&mut self, node: TreeValue<'_, '_>) {
        let Some(inner) = node.get("query").and_then(TreeValue::only) else {
            return self.unknown_node();
        };
        let analyze = node
            .get("options")
            .into_iter()
            .flat_map(TreeValue::children)
            .filter_map(TreeValue::only)
            .any(|option| option.text_of("defname") == "analyze");
        if analyze {
            return self.statement(inner);
        }
        self.executes(inner);
        match StatementKind::of_node(inner.key()) {
            Some(kind) if kind.is_planned_without_effect() => {}
            Some(kind) => self.write(Fact::Writes, || Reason::WritingPart(kind)),
            None => self.unknown_node(),
        }
        self.contents(inner, Calls::Later);
    }

    /// Looks at everything inside a statement.
    fn contents(&mut self, statement: TreeValue<'_, '_>, calls: Calls) {
        let mut schema = "";
        // A temporary table that ends with its transaction keeps nothing beyond it.
        let drops = statement.walk().any(|value| value.text() == "ONCOMMIT_DROP");
        for value in statement.walk().skip(1) {
            match value.key() {
                "FuncCall" | "funccall" if calls == Calls::Now => self.call(value),
                "ColumnRef" => {
                    // A star has no name of its own.
                    let name = value.get("fields").map_or("", last_part);
                    if matches!(name, "" | "last_value" | "is_called" | "log_cnt") {
                        self.facts.insert(Fact::MayReadSequence);
                    }
                }
                "lockingClause" if calls == Calls::Now => self.write(Fact::LocksRows, || Reason::Locks),
                "intoClause" if calls == Calls::Now => {
                    self.facts.insert(Fact::Creates);
                    self.write(Fact::CreatesTable, || Reason::Into);
                }
                "SetToDefault" if calls == Calls::Now => self.facts.insert(Fact::DrawsSequence),
                "setstmt" | "VariableSetStmt" if own::is_own_setting(&unescape(value.text_of("name"))) => {
                    self.misplaced = true
                }
                "schemaname" => schema = value.text(),
                "relname" => {
                    self.relation(schema, value.text());
                    schema = "";
                }
                "relpersistence" if value.text() == "t" && !drops => self.pins.insert(Pin::TemporaryTable),
                // Lists of the parts of a name that is not a relation's: functions, types, operators, families.
                "funcname" | "names" | "typeName" | "defnames" | "domainname" if first_part_is_temporary(value) => {
                    self.temporary();
                }
                "name" | "operName" | "useOp" if value.is_array() && !is_built_in(value) => {
                    self.opaque = true;
                    self.write(Fact::UsesOperator, || Reason::UnknownOperator);
                }
                "method" if value.is_array() && !is_built_in_sampling(value) => {
                    self.unknown_function(unescape(last_part(value)).into());
                }
                key if calls == Calls::Now && is_statement(key) => match StatementKind::of_node(key) {
                    Some(StatementKind::Select) => {}
                    Some(kind) => self.part(kind),
                    None => self.unknown_node(),
                },
                _ => {}
            }
        }
    }

    /// A statement inside.
    fn part(&mut self, kind: StatementKind) {
        self.update.is_there |= kind == StatementKind::Update;
        self.write(Fact::Writes, || Reason::WritingPart(kind));
        self.facts = self.facts.union(kind.facts());
    }

    /// Notes the prepared statements that a statement runs or, in EXPLAIN, plans.
    fn executes(&mut self, node: TreeValue<'_, '_>) {
        for execute in node.walk().filter(|value| value.key() == "ExecuteStmt") {
            self.names.push(NameUse::Executes(unescape(execute.text_of("name")).into()));
        }
    }

    fn relation(&mut self, schema: &str, name: &str) {
        if name == "pg_prepared_statements" {
            self.facts.insert(Fact::ListsStatements);
        }
        let bare = unescape(name);
        self.tables.push(if schema.is_empty() { bare.into() } else { format!("{}.{bare}", unescape(schema)).into() });
        if is_temporary(schema) {
            self.temporary();
        } else if functions::is_node_relation(name) {
            self.update.names_settings |= name == "pg_settings";
            self.write(Fact::AsksNode, || Reason::NodeLocal(unescape(name).into()));
        }
    }

    fn temporary(&mut self) {
        self.pins.insert(Pin::TemporaryTable);
        self.write(Fact::UsesTemporary, || Reason::Temporary);
    }

    /// A function call.
    fn call(&mut self, call: TreeValue<'_, '_>) {
        let Some(parts) = call.get("funcname") else { return };
        let name = last_part(parts);
        let kind = if is_built_in(parts) { functions::kind(name) } else { FunctionKind::Unknown };
        let owned = || unescape(name).into();
        match kind {
            FunctionKind::Steady => return,
            FunctionKind::Volatile => self.write(Fact::CallsVolatile, || Reason::VolatileFunction(owned())),
            FunctionKind::Session => self.write(Fact::AsksSession, || Reason::SessionState(owned())),
            FunctionKind::Node => self.write(Fact::AsksNode, || Reason::NodeLocal(owned())),
            FunctionKind::RunsText => {
                self.dark();
                self.write(Fact::CallsVolatile, || Reason::VolatileFunction(owned()));
            }
            FunctionKind::Unknown if parts.children().count() > 1 && first_part_is_temporary(parts) => {
                // It was judged when it was made.
                self.dark();
                return self.write(Fact::CallsUnknown, || Reason::UnknownFunction(owned()));
            }
            FunctionKind::Unknown => return self.unknown_function(owned()),
        }
        self.facts = self.facts.union(functions::facts(name));
        match name {
            "set_config" => self.set_config(call),
            "setseed" => self.pins.insert(Pin::Seed),
            "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared" => {
                self.pins.insert(Pin::AdvisoryLock);
            }
            _ => {}
        }
    }

    /// `set_config(name, value, is_local)`: what changes is in the arguments, when they are constants.
    fn set_config(&mut self, call: TreeValue<'_, '_>) {
        self.literal = true;
        let mut arguments = call.get("args").into_iter().flat_map(TreeValue::children);
        let (name, value, local) = (arguments.next(), arguments.next(), arguments.next());
        self.misplaced |= name.and_then(constant_text).is_some_and(own::is_own_setting);
        let local = local.and_then(constant).and_then(|constant| constant.get("boolval"));
        let name = name.and_then(constant_text).map(unescape);
        let is_path = name.as_ref().is_none_or(|name| name.eq_ignore_ascii_case("search_path"));
        if is_path && value.is_none_or(|value| constant_text(value).is_none_or(names_temporary)) {
            self.facts.insert(Fact::NamesTemporaryPath);
        }
        match (local.map(|local| local.flag("boolval")), name) {
            (Some(true), _) => {}
            (Some(false), Some(name)) => self.set(&name),
            _ => self.settings.push(SettingChange::Unknown),
        }
    }

    /// Notes a setting that outlives its transaction.
    fn set(&mut self, name: &str) {
        let name = name.to_ascii_lowercase();
        if name == "seed" {
            // Its value cannot be read back.
            return self.pins.insert(Pin::Seed);
        }
        self.settings.push(SettingChange::Set(name.into()));
    }

    /// SET and RESET in all their forms.
    fn variable(&mut self, node: TreeValue<'_, '_>) {
        if let Some(command) = own::command(StatementKind::Set, node) {
            self.literal = true;
            self.own = Some(command);
            return;
        }
        let name = unescape(node.text_of("name"));
        let kind = node.text_of("kind");
        let arguments = || node.get("args").into_iter().flat_map(TreeValue::children);
        if name.eq_ignore_ascii_case("search_path") {
            self.literal = true;
            if arguments().any(|value| constant_text(value).is_some_and(names_temporary)) {
                self.facts.insert(Fact::NamesTemporaryPath);
            }
        }
        if kind == "VAR_SET_MULTI" && name == "SESSION CHARACTERISTICS" {
            for option in arguments().filter_map(TreeValue::only) {
                self.set(&format!("default_{}", option.text_of("defname")));
            }
        } else if kind == "VAR_SET_MULTI" || is_of_transaction(&name.to_ascii_lowercase()) {
            let plain = kind == "VAR_SET_MULTI" && name == "TRANSACTION";
            self.transaction = Some(TransactionControl::SetTransaction(plain.then(|| modes(node, "args"))));
        } else if node.flag("is_local") {
            // Ends with the transaction.
        } else if kind == "VAR_RESET_ALL" {
            self.settings.push(SettingChange::ResetAll);
        } else if kind == "VAR_RESET" || kind == "VAR_SET_DEFAULT" {
            self.settings.push(SettingChange::Reset(name.to_ascii_lowercase().into()));
        } else {
            self.set(&name);
        }
    }

    fn transaction(&mut self, node: TreeValue<'_, '_>) {
        self.step = BlockStep::of(node);
        let chain = node.flag("chain");
        self.transaction = match node.text_of("kind") {
            kind @ ("TRANS_STMT_BEGIN" | "TRANS_STMT_START") => {
                let start = kind == "TRANS_STMT_START";
                Some(TransactionControl::Begin { modes: modes(node, "options"), start })
            }
            "TRANS_STMT_COMMIT" => Some(TransactionControl::Commit { chain }),
            "TRANS_STMT_ROLLBACK" => Some(TransactionControl::Rollback { chain }),
            "TRANS_STMT_SAVEPOINT" => Some(TransactionControl::Savepoint),
            "TRANS_STMT_RELEASE" => Some(TransactionControl::Release),
            "TRANS_STMT_ROLLBACK_TO" => Some(TransactionControl::RollbackTo),
            "TRANS_STMT_PREPARE" => Some(TransactionControl::PrepareTransaction),
            // COMMIT PREPARED and ROLLBACK PREPARED end another session's transaction and run outside of any.
            _ => None,
        };
        self.kind(StatementKind::Transaction, Reason::Statement);
        let fact = match self.transaction {
            None | Some(TransactionControl::PrepareTransaction) => Fact::Writes,
            Some(_) => Fact::ControlsTransaction,
        };
        self.write(fact, || Reason::Statement(StatementKind::Transaction));
    }

    /// Composition about a database that nobody else may be connected to.
    fn database(&mut self, kind: StatementKind, node: TreeValue<'_, '_>) {
        let name = |key| Some(unescape(node.text_of(key)).into());
        self.vacates = match kind {
            StatementKind::DropDatabase => name("dbname"),
            StatementKind::Rename if node.text_of("renameType") == "OBJECT_DATABASE" => name("subname"),
            StatementKind::AlterDatabase if option(node, "tablespace").is_some() => name("dbname"),
            StatementKind::CreateDatabase => {
                // A name may also be written as a literal.
                self.literal = true;
                let template = option(node, "template").and_then(option_text);
                Some(template.map_or("template1".into(), |template| unescape(template).into()))
            }
            _ => return,
        };
    }

    /// ALTER ROLE … SET, ALTER DATABASE … SET and their RESET.
    fn defaults(&mut self, kind: StatementKind, node: TreeValue<'_, '_>) {
        let name = |text: &str| Some(unescape(text)).filter(|name| !name.is_empty()).map(Box::from);
        let role = node.get("role").filter(|role| role.text_of("roletype") == "ROLESPEC_CSTRING");
        let database = if kind == StatementKind::AlterDatabaseSet { "dbname" } else { "database" };
        self.defaults = Some(Box::new(DefaultsOf {
            database: name(node.text_of(database)),
            user: role.and_then(|role| name(role.text_of("rolename"))),
        }));
    }

    fn discard_all(&mut self) {
        self.facts.insert(Fact::DiscardsAll);
        self.deallocates = Some(Deallocate::All);
        self.settings.push(SettingChange::ResetAll);
    }

    fn deallocate(&mut self, node: TreeValue<'_, '_>) {
        if node.flag("isall") {
            self.deallocates = Some(Deallocate::All);
            return;
        }
        let name: Box<str> = unescape(node.text_of("name")).into();
        self.names.push(NameUse::Deallocates(name.clone()));
        self.deallocates = Some(Deallocate::Named(name));
    }
}

/// `CURSOR_OPT_HOLD` of PostgreSQL's `parsenodes.h`.
const CURSOR_OPT_HOLD: i64 = 0x20;

/// COPY … TO STDOUT, of a table or a query.
fn copies_to_client(node: TreeValue<'_, '_>) -> bool {
    !node.flag("is_from") && !node.flag("is_program") && node.get("filename").is_none()
}

/// The modes of a transaction that a list of options names.
fn modes(node: TreeValue<'_, '_>, list: &str) -> Modes {
    let mut modes = Modes::default();
    for option in node.get(list).into_iter().flat_map(TreeValue::children).filter_map(TreeValue::only) {
        let value = option.get("arg").and_then(constant);
        match option.text_of("defname") {
            "transaction_read_only" => {
                let integer = value.and_then(|value| value.get("ival")).and_then(|integer| integer.get("ival"));
                modes.read_only = Some(integer.is_some_and(|integer| integer.number() == 1));
            }
            "transaction_isolation" => {
                modes.isolation = option.get("arg").and_then(constant_text).and_then(Isolation::of);
            }
            _ => {}
        }
    }
    modes
}

/// Settings that SET changes for the running transaction only.
fn is_of_transaction(name: &str) -> bool {
    matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable")
}

/// Whether a name is that of a node for a whole statement.
fn is_statement(key: &str) -> bool {
    key.ends_with("Stmt") && key.starts_with(|letter: char| letter.is_ascii_uppercase()) && key != "RawStmt"
}

/// Whether TABLESAMPLE names one of the two methods that come with PostgreSQL.
fn is_built_in_sampling(names: TreeValue<'_, '_>) -> bool {
    is_built_in(names) && matches!(last_part(names), "system" | "bernoulli")
}

fn first_part_is_temporary(names: TreeValue<'_, '_>) -> bool {
    names.is_array() && names.children().count() > 1 && parts(names).next().is_some_and(is_temporary)
}

/// CREATE FUNCTION of one in the schema of temporary objects, or DROP of nothing but such. They are called by a name with
/// that schema only, and by no other session.
fn is_of_temporary_functions(kind: StatementKind, node: TreeValue<'_, '_>) -> bool {
    match kind {
        StatementKind::CreateFunction => node.get("funcname").is_some_and(first_part_is_temporary),
        StatementKind::Drop => {
            let of_functions =
                matches!(node.text_of("removeType"), "OBJECT_FUNCTION" | "OBJECT_PROCEDURE" | "OBJECT_ROUTINE");
            let mut names = node
                .get("objects")
                .into_iter()
                .flat_map(TreeValue::children)
                .map(|object| object.get("ObjectWithArgs").and_then(|object| object.get("objname")));
            of_functions && names.all(|name| name.is_some_and(first_part_is_temporary))
        }
        _ => false,
    }
}

/// The schema of temporary objects, by its alias or its real name.
fn is_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}

/// One of a statement's options, by its name. DO has them in a list of another name.
fn option<'t, 'a>(node: TreeValue<'t, 'a>, name: &str) -> Option<TreeValue<'t, 'a>> {
    let list = node.get(if node.key() == "DoStmt" { "args" } else { "options" });
    let options = list.into_iter().flat_map(TreeValue::children).filter_map(TreeValue::only);
    options.filter(|option| option.text_of("defname") == name).last()
}

/// The text that an option is given.
fn option_text<'a>(option: TreeValue<'_, 'a>) -> Option<&'a str> {
    Some(option.get("arg")?.get("String")?.text_of("sval"))
}

/// Whether a value for the search path names the schema of temporary objects, in which things are then created without
/// being called temporary.
fn names_temporary(path: &str) -> bool {
    path.to_ascii_lowercase().contains("pg_temp")
}

/// A constant, also below a cast such as `'name'::text`.
fn constant<'t, 'a>(node: TreeValue<'t, 'a>) -> Option<TreeValue<'t, 'a>> {
    let mut value = if node.key() == "arg" || node.key().is_empty() { node.only()? } else { node };
    while value.key() == "TypeCast" {
        value = value.get("arg")?.only()?;
    }
    (value.key() == "A_Const").then_some(value)
}

/// The text of a constant string.
fn constant_text<'a>(node: TreeValue<'_, 'a>) -> Option<&'a str> {
    constant(node)?.get("sval").map(|text| text.text_of("sval"))
}
