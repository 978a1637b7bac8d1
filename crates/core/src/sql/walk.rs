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
use super::functions::{self, Kind};
use super::normal::Called;
use super::own::{self, BlockStep, Own, OwnCommand};
use super::tree::{Tree, Value, unescape};
use super::verdict::{
    Access, Deallocate, DefaultsOf, Isolation, Modes, NameUse, Pin, PinSet, Reason, Refused, SettingChange,
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
    let mut judge = Judge::default();
    for statement in tree.root().get("stmts").into_iter().flat_map(Value::children) {
        if let Some(node) = statement.get("stmt").and_then(Value::only) {
            judge.statement(node);
        }
    }
    judge.finish()
}

/// The verdict while it is being found.
#[derive(Default)]
struct Judge {
    statements: u32,
    /// The first thing that speaks against reading.
    reason: Option<Reason>,
    transaction: Option<TransactionControl>,
    settings: Vec<SettingChange>,
    pins: PinSet,
    discards: bool,
    deallocates: Option<Deallocate>,
    names: Vec<NameUse>,
    lists_statements: bool,
    asks_sequences: bool,
    listens: bool,
    notifies: bool,
    /// There is code that is not seen.
    opaque: bool,
    vacates: Option<Box<str>>,
    defaults: Option<Box<DefaultsOf>>,
    /// What is known of it.
    unseen: Unseen,
    functions: Vec<Box<str>>,
    tables: Vec<Box<str>>,
    may_read_sequence: bool,
    /// Something else than functions speaks against reading.
    writes: bool,
    defines: bool,
    customs: BTreeSet<Box<str>>,
    /// It names the view in which an UPDATE is a SET; and it updates something.
    names_settings: bool,
    updates: bool,
    /// Commands about settings of our own, and whether such a setting is named where it cannot be.
    own: Vec<OwnCommand>,
    misplaced: bool,
    steps: Vec<BlockStep>,
    literal: bool,
}

/// How far the functions in a statement are called when it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calls {
    Now,
    /// The statement only stores or explains them.
    Later,
}

impl Judge {
    fn finish(mut self) -> Judgement {
        if self.names_settings && self.updates {
            (self.opaque, self.unseen.dark) = (true, true);
        }
        self.functions.sort();
        self.functions.dedup();
        self.unseen.reads_but_for_functions = !self.writes && !self.functions.is_empty();
        self.unseen.functions = self.functions.into();
        self.tables.sort();
        self.tables.dedup();
        let verdict = Verdict {
            called: Called::default(),
            access: if self.reason.is_none() { Access::Read } else { Access::Write },
            reason: self.reason.unwrap_or(if self.statements == 0 { Reason::Nothing } else { Reason::Reads }),
            statements: self.statements,
            transaction: match self.transaction {
                Some(_) if self.statements > 1 => TransactionControl::Mixed,
                Some(control) => control,
                None => TransactionControl::None,
            },
            settings: self.settings.into(),
            pins: self.pins,
            discards: self.discards,
            deallocates: self.deallocates.unwrap_or(Deallocate::None),
            names: self.names.into(),
            lists_statements: self.lists_statements,
            asks_sequences: self.asks_sequences,
            listens: self.listens,
            notifies: self.notifies,
            tables: self.tables.into(),
            may_read_sequence: self.may_read_sequence,
            vacates: self.vacates,
            defaults: self.defaults,
            unseen: self.opaque.then(|| Box::new(self.unseen)),
            defines: self.defines,
            customs: self.customs.into_iter().collect(),
            hint: None,
            own: match self.own.len() {
                0 if !self.misplaced => None,
                commands if commands as u32 == self.statements && !self.misplaced => {
                    Some(Box::new(Own::Commands(self.own.into())))
                }
                _ => Some(Box::new(Own::Misplaced)),
            },
            steps: self.steps.into(),
            refused: Refused::default(),
        };
        Judgement { verdict, literal: self.literal }
    }

    /// Notes a reason to write; the first one stays.
    fn write(&mut self, reason: impl FnOnce() -> Reason) {
        self.writes = true;
        self.reason.get_or_insert_with(reason);
    }

    /// Notes a call of a function that is not built in.
    fn unknown_function(&mut self, name: Box<str>) {
        self.opaque = true;
        self.functions.push(name.clone());
        self.reason.get_or_insert(Reason::UnknownFunction(name));
    }

    /// Judges one statement, by its node.
    fn statement(&mut self, node: Value<'_, '_>) {
        self.statements += 1;
        self.defines |= definitions::defines(node);
        self.updates |= node.key() == "UpdateStmt";
        match node.key() {
            "SelectStmt" => {}
            "CopyStmt" if copies_to_client(node) => {}
            "ExplainStmt" => return self.explain(node),
            "VariableShowStmt" => {
                let name = unescape(node.text_of("name"));
                self.write(|| Reason::SessionState(name.into()));
                self.own.extend(own::command(node));
            }
            kind => self.write(|| Reason::Statement(statement_name(kind))),
        }
        self.listens |= matches!(node.key(), "ListenStmt" | "UnlistenStmt" | "NotifyStmt");
        self.notifies |= node.key() == "NotifyStmt";
        match node.key() {
            "TransactionStmt" => self.transaction(node),
            "VariableSetStmt" => self.variable(node),
            "DiscardStmt" if node.text_of("target") == "DISCARD_ALL" => self.discard_all(),
            "DeallocateStmt" => self.deallocate(node),
            "ListenStmt" => self.pins.insert(Pin::Listen),
            "LoadStmt" => self.pins.insert(Pin::Load),
            "PrepareStmt" => {
                self.pins.insert(Pin::Prepare);
                self.names.push(NameUse::Prepares(unescape(node.text_of("name")).into()));
            }
            "DeclareCursorStmt" if node.get("options").map_or(0, Value::number) & CURSOR_OPT_HOLD != 0 => {
                self.pins.insert(Pin::HoldCursor);
            }
            "DoStmt" => self.block(node),
            "CreateFunctionStmt" => self.new_function(node),
            "CallStmt" => self.opaque = true,
            "DropdbStmt" | "CreatedbStmt" | "AlterDatabaseStmt" | "RenameStmt" => self.database(node),
            "AlterRoleSetStmt" | "AlterDatabaseSetStmt" => self.defaults(node),
            "ExecuteStmt" | "CreateTableAsStmt" => self.executes(node),
            _ => {}
        }
        self.contents(node, calls_of(node.key()));
    }

    /// Code that nothing more can be said of.
    fn dark(&mut self) {
        (self.opaque, self.unseen.dark) = (true, true);
    }

    /// DO: its text is looked at when it is of a language that can be.
    fn block(&mut self, node: Value<'_, '_>) {
        (self.opaque, self.literal) = (true, true);
        let language = option(node, "language").and_then(option_text).map(unescape);
        let plain = language.is_none_or(|language| language == "plpgsql");
        match option(node, "as").and_then(option_text) {
            Some(text) if plain => {
                let body = body::scan(&unescape(text));
                self.defines |= body.defines;
                Unseen::of_block(&body, &mut self.unseen);
                self.customs.extend(body.customs);
            }
            text => {
                let mut body = body::Body::default();
                text.into_iter().for_each(|text| body.note_text(&unescape(text)));
                self.unseen.sets_any |= body.sets_any;
                self.customs.extend(body.customs);
                (self.unseen.dark, self.defines) = (true, true);
            }
        }
    }

    /// CREATE FUNCTION: until the catalog has been read anew, only its text tells which settings it may change.
    fn new_function(&mut self, node: Value<'_, '_>) {
        self.literal = true;
        let texts = option(node, "as").into_iter().flat_map(Value::walk);
        let texts = texts.filter(|value| value.key() == "sval").map(|value| unescape(value.text()));
        self.customs.extend(texts.flat_map(|text| body::scan(&text).customs));
    }

    /// EXPLAIN reads what it explains without running it, and with ANALYZE is what it runs. The value of the option
    /// (`ANALYZE false`) is not looked at, so that it need not be known.
    fn explain(&mut self, node: Value<'_, '_>) {
        let Some(inner) = node.get("query").and_then(Value::only) else {
            return self.write(|| Reason::Statement("Explain".into()));
        };
        let analyze = node
            .get("options")
            .into_iter()
            .flat_map(Value::children)
            .filter_map(Value::only)
            .any(|option| option.text_of("defname") == "analyze");
        if analyze {
            self.statements -= 1;
            return self.statement(inner);
        }
        self.executes(inner);
        match inner.key() {
            "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {}
            kind => self.write(|| Reason::WritingPart(statement_name(kind))),
        }
        self.contents(inner, Calls::Later);
    }

    /// Looks at everything inside a statement.
    fn contents(&mut self, statement: Value<'_, '_>, calls: Calls) {
        let mut schema = "";
        // A temporary table that ends with its transaction keeps nothing beyond it.
        let drops = statement.walk().any(|value| value.text() == "ONCOMMIT_DROP");
        for value in statement.walk().skip(1) {
            match value.key() {
                "FuncCall" | "funccall" if calls == Calls::Now => self.call(value),
                "ColumnRef" => {
                    // A star has no name of its own.
                    let name = value.get("fields").map_or("", last_part);
                    self.may_read_sequence |= matches!(name, "" | "last_value" | "is_called" | "log_cnt");
                }
                "lockingClause" if calls == Calls::Now => self.write(|| Reason::Locks),
                "intoClause" if calls == Calls::Now => self.write(|| Reason::Into),
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
                    self.write(|| Reason::UnknownOperator);
                }
                "method" if value.is_array() && !is_built_in_sampling(value) => {
                    self.unknown_function(unescape(last_part(value)).into());
                }
                kind if is_statement(kind) && kind != "SelectStmt" && calls == Calls::Now => {
                    self.updates |= kind == "UpdateStmt";
                    self.write(|| Reason::WritingPart(statement_name(kind)));
                }
                _ => {}
            }
        }
    }

    /// Notes the prepared statements that a statement runs or, in EXPLAIN, plans.
    fn executes(&mut self, node: Value<'_, '_>) {
        for execute in node.walk().filter(|value| value.key() == "ExecuteStmt") {
            self.names.push(NameUse::Executes(unescape(execute.text_of("name")).into()));
        }
    }

    fn relation(&mut self, schema: &str, name: &str) {
        self.lists_statements |= name == "pg_prepared_statements";
        let bare = unescape(name);
        self.tables.push(if schema.is_empty() { bare.into() } else { format!("{}.{bare}", unescape(schema)).into() });
        if is_temporary(schema) {
            self.temporary();
        } else if functions::is_node_relation(name) {
            self.names_settings |= name == "pg_settings";
            self.write(|| Reason::NodeLocal(unescape(name).into()));
        }
    }

    fn temporary(&mut self) {
        self.pins.insert(Pin::TemporaryTable);
        self.write(|| Reason::Temporary);
    }

    /// A function call.
    fn call(&mut self, call: Value<'_, '_>) {
        let Some(parts) = call.get("funcname") else { return };
        let name = last_part(parts);
        let kind = if is_built_in(parts) { functions::kind(name) } else { Kind::Unknown };
        let owned = || unescape(name).into();
        self.lists_statements |= name == "pg_prepared_statement";
        match kind {
            Kind::Steady => return,
            Kind::Volatile => self.write(|| Reason::VolatileFunction(owned())),
            Kind::Session => self.write(|| Reason::SessionState(owned())),
            Kind::Node => self.write(|| Reason::NodeLocal(owned())),
            Kind::RunsText => {
                self.dark();
                self.write(|| Reason::VolatileFunction(owned()));
            }
            Kind::Unknown => self.unknown_function(owned()),
        }
        match name {
            "pg_notify" if kind != Kind::Unknown => (self.listens, self.notifies) = (true, true),
            "pg_listening_channels" if kind != Kind::Unknown => self.listens = true,
            "set_config" if kind == Kind::Volatile => self.set_config(call),
            "currval" | "lastval" if kind == Kind::Volatile => self.asks_sequences = true,
            "setseed" if kind == Kind::Volatile => self.pins.insert(Pin::Seed),
            "pg_advisory_lock" | "pg_advisory_lock_shared" | "pg_try_advisory_lock" | "pg_try_advisory_lock_shared"
                if kind == Kind::Volatile =>
            {
                self.pins.insert(Pin::AdvisoryLock);
            }
            _ => {}
        }
    }

    /// `set_config(name, value, is_local)`: what changes is in the arguments, when they are constants.
    fn set_config(&mut self, call: Value<'_, '_>) {
        self.literal = true;
        let mut arguments = call.get("args").into_iter().flat_map(Value::children);
        let (name, value, local) = (arguments.next(), arguments.next(), arguments.next());
        self.misplaced |= name.and_then(constant_text).is_some_and(own::is_own_setting);
        let local = local.and_then(constant).and_then(|constant| constant.get("boolval"));
        match (local.map(|local| local.flag("boolval")), name.and_then(constant_text)) {
            (Some(true), _) => {}
            (Some(false), Some(name)) => {
                let temporary = value.is_none_or(|value| constant_text(value).is_none_or(names_temporary));
                self.set(&unescape(name), temporary);
            }
            _ => {
                self.settings.push(SettingChange::Unknown);
                // It may have been the search path, which may name the temporary schema.
                self.pins.insert(Pin::TemporaryTable);
            }
        }
    }

    /// Notes a setting. Once the search path names the temporary schema, tables are created in it without TEMPORARY.
    fn set(&mut self, name: &str, names_temporary: bool) {
        let name = name.to_ascii_lowercase();
        if name == "seed" {
            // Its value cannot be read back.
            return self.pins.insert(Pin::Seed);
        }
        if name == "search_path" {
            self.literal = true;
            if names_temporary {
                self.pins.insert(Pin::TemporaryTable);
            }
        }
        self.settings.push(SettingChange::Set(name.into()));
    }

    /// SET and RESET in all their forms.
    fn variable(&mut self, node: Value<'_, '_>) {
        if let Some(command) = own::command(node) {
            self.literal = true;
            return self.own.push(command);
        }
        let name = unescape(node.text_of("name"));
        let kind = node.text_of("kind");
        let arguments = || node.get("args").into_iter().flat_map(Value::children);
        if kind == "VAR_SET_MULTI" && name == "SESSION CHARACTERISTICS" {
            for option in arguments().filter_map(Value::only) {
                self.set(&format!("default_{}", option.text_of("defname")), false);
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
            let temporary = arguments().any(|value| constant_text(value).is_some_and(names_temporary));
            self.set(&name, temporary);
        }
    }

    fn transaction(&mut self, node: Value<'_, '_>) {
        self.steps.extend(BlockStep::of(node));
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
            _ => self.transaction,
        };
    }

    /// Statements about a database that nobody else may be connected to.
    fn database(&mut self, node: Value<'_, '_>) {
        let name = |key| Some(unescape(node.text_of(key)).into());
        self.vacates = match node.key() {
            "DropdbStmt" => name("dbname"),
            "RenameStmt" if node.text_of("renameType") == "OBJECT_DATABASE" => name("subname"),
            "AlterDatabaseStmt" if option(node, "tablespace").is_some() => name("dbname"),
            "CreatedbStmt" => {
                // A name may also be written as a literal.
                self.literal = true;
                let template = option(node, "template").and_then(option_text);
                Some(template.map_or("template1".into(), |template| unescape(template).into()))
            }
            _ => return,
        };
    }

    /// ALTER ROLE … SET, ALTER DATABASE … SET and their RESET. Several in one text are told as those of everybody.
    fn defaults(&mut self, node: Value<'_, '_>) {
        let name = |text: &str| Some(unescape(text)).filter(|name| !name.is_empty()).map(Box::from);
        let role = node.get("role").filter(|role| role.text_of("roletype") == "ROLESPEC_CSTRING");
        let database = if node.key() == "AlterDatabaseSetStmt" { "dbname" } else { "database" };
        let of = DefaultsOf {
            database: name(node.text_of(database)),
            user: role.and_then(|role| name(role.text_of("rolename"))),
        };
        let of = if self.defaults.is_some() { DefaultsOf::default() } else { of };
        self.defaults = Some(Box::new(of));
    }

    fn discard_all(&mut self) {
        self.discards = true;
        self.deallocates = Some(Deallocate::All);
        self.settings.push(SettingChange::ResetAll);
    }

    fn deallocate(&mut self, node: Value<'_, '_>) {
        if !node.flag("isall") {
            self.names.push(NameUse::Deallocates(unescape(node.text_of("name")).into()));
        }
        let one = Deallocate::Named(unescape(node.text_of("name")).into());
        self.deallocates = match (&self.deallocates, node.flag("isall")) {
            (None, false) => Some(one),
            (Some(before), false) if *before == one => Some(one),
            _ => Some(Deallocate::All),
        };
    }
}

/// `CURSOR_OPT_HOLD` of PostgreSQL's `parsenodes.h`.
const CURSOR_OPT_HOLD: i64 = 0x20;

/// Whether running a statement of a kind calls the functions in it, or keeps them for later.
fn calls_of(kind: &str) -> Calls {
    match kind {
        "ViewStmt" | "CreateFunctionStmt" | "RuleStmt" | "CreatePolicyStmt" | "AlterPolicyStmt" | "CreateTrigStmt"
        | "PrepareStmt" => Calls::Later,
        _ => Calls::Now,
    }
}

/// COPY … TO STDOUT, of a table or a query.
fn copies_to_client(node: Value<'_, '_>) -> bool {
    !node.flag("is_from") && !node.flag("is_program") && node.get("filename").is_none()
}

/// The modes of a transaction that a list of options names.
fn modes(node: Value<'_, '_>, list: &str) -> Modes {
    let mut modes = Modes::default();
    for option in node.get(list).into_iter().flat_map(Value::children).filter_map(Value::only) {
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

/// The name of a node without its ending.
fn statement_name(kind: &str) -> Box<str> {
    kind.strip_suffix("Stmt").unwrap_or(kind).into()
}

/// The parts of a name with dots.
fn parts<'t, 'a: 't>(names: Value<'t, 'a>) -> impl Iterator<Item = &'a str> {
    names.children().filter_map(Value::only).map(|part| part.text_of("sval"))
}

fn last_part<'a>(names: Value<'_, 'a>) -> &'a str {
    parts(names).last().unwrap_or("")
}

/// Whether a name has no schema, or that of the built-in things.
fn is_built_in(names: Value<'_, '_>) -> bool {
    let count = names.children().count();
    count == 1 || count == 2 && parts(names).next() == Some("pg_catalog")
}

/// Whether TABLESAMPLE names one of the two methods that come with PostgreSQL.
fn is_built_in_sampling(names: Value<'_, '_>) -> bool {
    is_built_in(names) && matches!(last_part(names), "system" | "bernoulli")
}

fn first_part_is_temporary(names: Value<'_, '_>) -> bool {
    names.is_array() && names.children().count() > 1 && parts(names).next().is_some_and(is_temporary)
}

/// The schema of temporary objects, by its alias or its real name.
fn is_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}

/// One of a statement's options, by its name. DO has them in a list of another name.
fn option<'t, 'a>(node: Value<'t, 'a>, name: &str) -> Option<Value<'t, 'a>> {
    let list = node.get(if node.key() == "DoStmt" { "args" } else { "options" });
    let options = list.into_iter().flat_map(Value::children).filter_map(Value::only);
    options.filter(|option| option.text_of("defname") == name).last()
}

/// The text that an option is given.
fn option_text<'a>(option: Value<'_, 'a>) -> Option<&'a str> {
    Some(option.get("arg")?.get("String")?.text_of("sval"))
}

/// Whether a value for the search path names the schema of temporary objects.
fn names_temporary(path: &str) -> bool {
    path.to_ascii_lowercase().contains("pg_temp")
}

/// A constant, also below a cast such as `'name'::text`.
fn constant<'t, 'a>(node: Value<'t, 'a>) -> Option<Value<'t, 'a>> {
    let mut value = if node.key() == "arg" || node.key().is_empty() { node.only()? } else { node };
    while value.key() == "TypeCast" {
        value = value.get("arg")?.only()?;
    }
    (value.key() == "A_Const").then_some(value)
}

/// The text of a constant string.
fn constant_text<'a>(node: Value<'_, 'a>) -> Option<&'a str> {
    constant(node)?.get("sval").map(|text| text.text_of("sval"))
}
