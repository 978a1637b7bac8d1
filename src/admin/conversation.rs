//! One console client's conversation: messages come in, answers go out, by the simple and the extended protocol. Pure:
//! what has to be looked up or done outside is handed out as a [`Wanted`], and comes back through
//! [`Conversation::resume`].

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    command::{Asked, Command, Explain, OperatorAction, bind, parameters, read},
    encode::{Formats, data_rows, row_description},
    help,
    show::Show,
    table::{Column, Table, Type, Value},
    words::{Stray, Word, statements},
};
use poolhouse_core::session::ROUTE_COLUMNS;
use poolhouse_core::wire::{
    error::{Report, SqlState},
    frame::split_text,
    reply::{self, Status},
    request::{Object, Parse, begin, query_text},
};

/// Most prepared statements, and most portals, of one client.
const NAMES_MAX: usize = 1_000;

/// Who talks to the console.
#[derive(Debug, Clone)]
pub struct Identity {
    pub user: String,
    pub database: String,
    pub process: u32,
    /// Otherwise the client may only look.
    pub may_change: bool,
    /// What `SHOW server_version` answers, and `version()`.
    pub server_version: String,
    pub version: String,
}

/// What the conversation needs from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Table(Show),
    Act(OperatorAction),
    Explain(Explain),
}

/// What comes back for it.
#[derive(Debug)]
pub enum CommandResult {
    Table(Table),
    Done,
}

/// What comes after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The next message.
    Message,
    /// This is to be done, and [`Conversation::resume`] to be called with its outcome.
    Run(Wanted),
    /// The end.
    End,
}

#[derive(Debug)]
pub struct Conversation {
    identity: Identity,
    status: Status,
    /// After an error in the extended protocol, until Sync.
    skipping: bool,
    settings: BTreeMap<String, String>,
    statements: HashMap<Vec<u8>, Prepared>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Statements of a Query message that have not been run yet.
    queue: VecDeque<Vec<Word>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Prepared {
    /// Empty for an empty statement.
    words: Vec<Word>,
    types: Vec<u32>,
}

#[derive(Debug)]
struct Portal {
    /// `None` for an empty statement.
    command: Option<Command>,
    formats: Formats,
    /// Rows that are there, and how many of them have been sent.
    table: Option<(Table, usize)>,
    /// Its command has been run.
    done: bool,
}

/// What is being run outside.
#[derive(Debug)]
enum Running {
    Simple(Command),
    Portal { name: Vec<u8>, rows_max: usize },
}

/// What a command without rows says when it is done, or rows and what is said after them.
enum CommandAnswer {
    Rows(Table, String),
    Tag(String),
}

impl Conversation {
    pub fn new(identity: Identity, startup: impl IntoIterator<Item = (String, String)>) -> Conversation {
        let mut settings = BTreeMap::new();
        for (name, value) in [
            ("client_encoding", "UTF8"),
            ("datestyle", "ISO, MDY"),
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_read_only", "off"),
            ("extra_float_digits", "1"),
            ("integer_datetimes", "on"),
            ("intervalstyle", "postgres"),
            ("is_superuser", "off"),
            ("max_identifier_length", "63"),
            ("server_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("timezone", "UTC"),
            ("transaction_isolation", "read committed"),
            ("transaction_read_only", "off"),
        ] {
            settings.insert(name.to_owned(), value.to_owned());
        }
        settings.insert("server_version".to_owned(), identity.server_version.clone());
        let asked = startup.into_iter().filter(|(name, _)| name == "application_name");
        settings.extend(asked);
        Conversation {
            identity,
            status: Status::Idle,
            skipping: false,
            settings,
            statements: HashMap::new(),
            portals: HashMap::new(),
            queue: VecDeque::new(),
            running: None,
        }
    }

    /// The settings that a client is told of when it is in, and their names as PostgreSQL spells them.
    pub fn greet(&self, out: &mut Vec<u8>) {
        for name in REPORTED {
            if let Some(value) = self.settings.get(&name.to_ascii_lowercase()) {
                reply::parameter_status(name, value, out);
            }
        }
    }

    pub fn ready(&self, out: &mut Vec<u8>) {
        reply::ready_for_query(self.status, out);
    }

    /// One message of the client.
    pub fn on_message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Next {
        let done = match tag {
            b'X' => return Next::End,
            b'S' => {
                self.skipping = false;
                self.end_batch();
                self.ready(out);
                return Next::Message;
            }
            _ if self.skipping => return Next::Message,
            b'Q' => return self.query(body, out),
            b'P' => self.parse(body, out),
            b'B' => self.bind(body, out),
            b'D' => self.describe(body, out),
            b'E' => return self.execute(body, out),
            b'C' => self.close(body, out),
            // Everything is sent at once; and what belongs to COPY is ignored outside of it.
            b'H' | b'd' | b'c' | b'f' => Ok(()),
            b'F' => Err(Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the console has no functions to call")),
            tag => {
                Report::fatal(SqlState::PROTOCOL_VIOLATION, format!("invalid frontend message type {tag}")).write(out);
                return Next::End;
            }
        };
        if let Err(report) = done {
            self.fail_batch(&report, out);
        }
        Next::Message
    }

    /// What was wanted is done.
    pub fn resume(&mut self, outcome: Result<CommandResult, Report>, out: &mut Vec<u8>) -> Next {
        match self.running.take() {
            Some(Running::Simple(command)) => {
                let answer = outcome.and_then(|outcome| answer(&command, outcome));
                match answer {
                    Ok(answer) => {
                        write_answer(&answer, out);
                        self.run_queue(out)
                    }
                    Err(report) => self.fail_query(&report, out),
                }
            }
            Some(Running::Portal { name, rows_max }) => {
                let portal = self.portals.get_mut(&name);
                let command = portal.as_ref().and_then(|portal| portal.command.clone());
                let answer = outcome.and_then(|outcome| match command {
                    Some(command) => answer(&command, outcome),
                    None => Ok(CommandAnswer::Tag(String::new())),
                });
                match (answer, portal) {
                    (Ok(answer), Some(portal)) => portal.send(answer, rows_max, out),
                    (Ok(_), None) => {}
                    (Err(report), _) => self.fail_batch(&report, out),
                }
                Next::Message
            }
            None => Next::Message,
        }
    }

    fn query(&mut self, body: &[u8], out: &mut Vec<u8>) -> Next {
        // As in PostgreSQL, the unnamed ones end with a simple query.
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        match query_text(body).map_err(|error| malformed(&error)).and_then(split) {
            Ok(statements) if statements.is_empty() => {
                begin(b'I', 0, out);
                self.ready(out);
                Next::Message
            }
            Ok(statements) => {
                self.queue = statements.into();
                self.run_queue(out)
            }
            Err(report) => self.fail_query(&report, out),
        }
    }

    fn run_queue(&mut self, out: &mut Vec<u8>) -> Next {
        while let Some(words) = self.queue.pop_front() {
            let ran = read(&words).and_then(|command| Ok((self.run(&command, out)?, command)));
            match ran {
                Ok((Ok(answer), _)) => write_answer(&answer, out),
                Ok((Err(wanted), command)) => {
                    self.running = Some(Running::Simple(command));
                    return Next::Run(wanted);
                }
                Err(report) => return self.fail_query(&report, out),
            }
        }
        self.ready(out);
        Next::Message
    }

    fn fail_query(&mut self, report: &Report, out: &mut Vec<u8>) -> Next {
        self.queue.clear();
        self.fail(report, out);
        self.ready(out);
        Next::Message
    }

    fn fail_batch(&mut self, report: &Report, out: &mut Vec<u8>) {
        self.skipping = true;
        self.fail(report, out);
    }

    fn fail(&mut self, report: &Report, out: &mut Vec<u8>) {
        report.write(out);
        if self.status == Status::Transaction {
            self.status = Status::Failed;
        }
    }

    fn end_batch(&mut self) {
        if self.status == Status::Idle {
            self.portals.clear();
        }
    }

    /// Answers a command, or says what has to be done for that.
    fn run(&mut self, command: &Command, out: &mut Vec<u8>) -> Result<Result<CommandAnswer, Wanted>, Report> {
        let ends = matches!(command, Command::Commit | Command::Rollback | Command::Savepoint("ROLLBACK"));
        if self.status == Status::Failed && !ends {
            return Err(Report::error(
                SqlState::IN_FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        let answer = match command {
            Command::Show(show, query) => {
                if show.is_for_admins() && !self.identity.may_change {
                    return Err(self.forbidden(&format!("SHOW {}", show.name())));
                }
                // A wrong column is told before anything is looked up.
                query.apply(show.table())?;
                return Ok(Err(Wanted::Table(*show)));
            }
            Command::Act(action) => {
                if !self.identity.may_change {
                    return Err(self.forbidden(action.tag()));
                }
                return Ok(Err(Wanted::Act(action.clone())));
            }
            Command::Explain(explain) => return Ok(Err(Wanted::Explain(explain.clone()))),
            Command::Help => {
                let usage = Report::error(SqlState::SUCCESS, "Console usage").detail(help::text());
                usage.write_notice("NOTICE", out);
                CommandAnswer::Tag("SHOW".to_owned())
            }
            Command::Setting(name) => CommandAnswer::Rows(self.setting_table(name)?, "SHOW".to_owned()),
            Command::Select(_) => CommandAnswer::Rows(self.select(command)?, "SELECT 1".to_owned()),
            Command::Set { name, value } => {
                self.set(name, value, out)?;
                CommandAnswer::Tag("SET".to_owned())
            }
            Command::Reset(_) => CommandAnswer::Tag("RESET".to_owned()),
            Command::Begin => {
                if self.status == Status::Transaction {
                    let warning = "there is already a transaction in progress";
                    Report::error(SqlState::ACTIVE_TRANSACTION, warning).write_notice("WARNING", out);
                }
                self.status = Status::Transaction;
                CommandAnswer::Tag("BEGIN".to_owned())
            }
            Command::Commit | Command::Rollback => self.end_transaction(*command == Command::Commit, out),
            Command::Savepoint(tag) => {
                if self.status == Status::Idle {
                    let what = format!("{tag} can only be used in transaction blocks");
                    return Err(Report::error(SqlState::NO_ACTIVE_TRANSACTION, what));
                }
                if *tag == "ROLLBACK" {
                    self.status = Status::Transaction;
                }
                CommandAnswer::Tag((*tag).to_owned())
            }
            Command::Deallocate(None) => {
                self.statements.retain(|name, _| name.is_empty());
                CommandAnswer::Tag("DEALLOCATE ALL".to_owned())
            }
            Command::Deallocate(Some(name)) => match self.statements.remove(name.as_bytes()) {
                Some(_) => CommandAnswer::Tag("DEALLOCATE".to_owned()),
                None => return Err(unknown_statement(name.as_bytes())),
            },
            Command::Nothing(tag) => CommandAnswer::Tag((*tag).to_owned()),
        };
        Ok(Ok(answer))
    }

    fn forbidden(&self, what: &str) -> Report {
        let who = &self.identity.user;
        Report::error(SqlState::INSUFFICIENT_PRIVILEGE, format!("user \"{who}\" may only look: {what} is not allowed"))
            .hint("admin.users names those who may change things, admin.stats_users those who may look.")
    }

    fn end_transaction(&mut self, commits: bool, out: &mut Vec<u8>) -> CommandAnswer {
        if self.status == Status::Idle {
            let warning = "there is no transaction in progress";
            Report::error(SqlState::NO_ACTIVE_TRANSACTION, warning).write_notice("WARNING", out);
        }
        let commits = commits && self.status != Status::Failed;
        self.status = Status::Idle;
        CommandAnswer::Tag(if commits { "COMMIT" } else { "ROLLBACK" }.to_owned())
    }

    fn set(&mut self, name: &str, value: &str, out: &mut Vec<u8>) -> Result<(), Report> {
        let key = name.to_ascii_lowercase();
        if key == "client_encoding" {
            let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            if !["utf8", "unicode", "sqlascii", "auto", "default"].contains(&plain.to_ascii_lowercase().as_str()) {
                return Err(Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the console speaks UTF8 only"));
            }
            return Ok(());
        }
        if ["server_version", "server_version_num", "server_encoding", "max_identifier_length"].contains(&key.as_str())
        {
            let what = format!("parameter \"{key}\" cannot be changed");
            return Err(Report::error(SqlState::CANNOT_CHANGE_PARAMETER, what));
        }
        if let Some(name) = REPORTED.into_iter().find(|reported| reported.eq_ignore_ascii_case(&key)) {
            reply::parameter_status(name, value, out);
        }
        self.settings.insert(key, value.to_owned());
        Ok(())
    }

    fn setting(&self, name: &str) -> Result<&str, Report> {
        let key = name.to_ascii_lowercase();
        self.settings.get(&key).map(String::as_str).ok_or_else(|| {
            let what = format!("unrecognized configuration parameter \"{key}\"");
            Report::error(SqlState::UNDEFINED_OBJECT, what).hint("SHOW CONFIG has the settings of Poolhouse.")
        })
    }

    fn setting_table(&self, name: &str) -> Result<Table, Report> {
        let value = self.settings.get(name).map_or("", String::as_str);
        let column = Column { name: name.to_owned().into(), kind: Type::Text };
        Ok(Table { columns: vec![column], rows: vec![vec![value.into()]] })
    }

    fn select(&self, command: &Command) -> Result<Table, Report> {
        let Command::Select(probes) = command else { return Ok(Table::new(Vec::new())) };
        let mut table = Table::new(columns(command)?.unwrap_or_default());
        let value = |asked: &Asked| -> Result<Value, Report> {
            Ok(match asked {
                Asked::Version => self.identity.version.as_str().into(),
                Asked::Database => self.identity.database.as_str().into(),
                Asked::User => self.identity.user.as_str().into(),
                Asked::Process => self.identity.process.into(),
                Asked::InRecovery => "f".into(),
                Asked::Setting(name) => self.setting(name)?.into(),
                Asked::Number(number) => (*number).into(),
                Asked::Text(text) => text.as_str().into(),
                Asked::Schema | Asked::Null => Value::Null,
            })
        };
        table.rows.push(probes.iter().map(|probe| value(&probe.what)).collect::<Result<_, _>>()?);
        Ok(table)
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Report> {
        let parse = Parse::read(body).map_err(|error| malformed(&error))?;
        let mut statements = split(parse.sql)?;
        if statements.len() > 1 {
            let what = "cannot insert multiple commands into a prepared statement";
            return Err(Report::error(SqlState::SYNTAX_ERROR, what));
        }
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            let what = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(parse.name));
            return Err(Report::error(SqlState::DUPLICATE_PREPARED_STATEMENT, what));
        }
        if self.statements.len() >= NAMES_MAX {
            return Err(Report::error(SqlState::LIMIT_EXCEEDED, "too many prepared statements"));
        }
        let words = statements.pop().unwrap_or_default();
        let oids = parse.types[2..].as_chunks::<4>().0.iter().map(|oid| u32::from_be_bytes(*oid));
        let mut types: Vec<u32> = oids.collect();
        types.resize(types.len().max(parameters(&words).into()), 0);
        let prepared = Prepared { words, types };
        prepared.shape()?;
        self.statements.insert(parse.name.to_vec(), prepared);
        out.extend_from_slice(&reply::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Report> {
        let message = Bind::read(body).ok_or_else(|| malformed(&poolhouse_core::wire::Error::Malformed("Bind")))?;
        let prepared = self.statements.get(message.statement).ok_or_else(|| unknown_statement(message.statement))?;
        if message.values.len() != prepared.types.len() {
            let (given, wanted) = (message.values.len(), prepared.types.len());
            let what = format!("bind message supplies {given} parameters, but the statement requires {wanted}");
            return Err(Report::error(SqlState::PROTOCOL_VIOLATION, what));
        }
        if !message.portal.is_empty() && self.portals.contains_key(message.portal) {
            let what = format!("cursor \"{}\" already exists", String::from_utf8_lossy(message.portal));
            return Err(Report::error(SqlState::DUPLICATE_CURSOR, what));
        }
        if self.portals.len() >= NAMES_MAX {
            return Err(Report::error(SqlState::LIMIT_EXCEEDED, "too many portals"));
        }
        let values = message.values.iter().zip(&prepared.types);
        let values = values.map(|((value, binary), oid)| value.map(|value| text(value, *binary, *oid)).transpose());
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let command = match prepared.words.as_slice() {
            [] => None,
            words => Some(read(&bind(words, &values)?)?),
        };
        let wanted = command.as_ref().map(columns).transpose()?.flatten();
        let fits = |count| wanted.as_ref().is_none_or(|columns| columns.len() == count);
        if message.formats.columns().is_some_and(|count| !fits(count)) {
            let what = "bind message has another number of result formats than the query has columns";
            return Err(Report::error(SqlState::PROTOCOL_VIOLATION, what));
        }
        let portal = Portal { command, formats: message.formats, table: None, done: false };
        self.portals.insert(message.portal.to_vec(), portal);
        out.extend_from_slice(&reply::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Report> {
        let (columns, formats) = match Object::read(body).map_err(|error| malformed(&error))? {
            Object::Statement(name) => {
                let prepared = self.statements.get(name).ok_or_else(|| unknown_statement(name))?;
                begin(b't', 2 + 4 * prepared.types.len(), out);
                out.extend_from_slice(&(prepared.types.len() as u16).to_be_bytes());
                for oid in &prepared.types {
                    let oid = if *oid == 0 { Type::Text.oid() } else { *oid };
                    out.extend_from_slice(&oid.to_be_bytes());
                }
                (prepared.shape()?, Formats::default())
            }
            Object::Portal(name) => {
                let portal = self.portals.get(name).ok_or_else(|| unknown_portal(name))?;
                let columns = portal.command.as_ref().map(columns).transpose()?.flatten();
                (columns, portal.formats.clone())
            }
        };
        match columns {
            Some(columns) => row_description(&columns, &formats, out),
            None => out.extend_from_slice(&reply::NO_DATA),
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8], out: &mut Vec<u8>) -> Next {
        match self.begin_execute(body, out) {
            Ok(next) => next,
            Err(report) => {
                self.fail_batch(&report, out);
                Next::Message
            }
        }
    }

    fn begin_execute(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Report> {
        let malformed = || malformed(&poolhouse_core::wire::Error::Malformed("Execute"));
        let (name, limit) = split_text(body).ok_or_else(malformed)?;
        let limit: [u8; 4] = limit.try_into().map_err(|_| malformed())?;
        let rows_max = match i32::from_be_bytes(limit) {
            limit if limit <= 0 => usize::MAX,
            limit => limit as usize,
        };
        let portal = self.portals.get_mut(name).ok_or_else(|| unknown_portal(name))?;
        let Some(command) = portal.command.clone() else {
            begin(b'I', 0, out);
            return Ok(Next::Message);
        };
        if portal.table.is_some() {
            portal.send_rows(rows_max, "SHOW", out);
            return Ok(Next::Message);
        }
        if std::mem::replace(&mut portal.done, true) {
            let what = format!("portal \"{}\" cannot be run", String::from_utf8_lossy(name));
            return Err(Report::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, what));
        }
        match self.run(&command, out)? {
            Ok(answer) => {
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.send(answer, rows_max, out);
                }
                Ok(Next::Message)
            }
            Err(wanted) => {
                self.running = Some(Running::Portal { name: name.to_vec(), rows_max });
                Ok(Next::Run(wanted))
            }
        }
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Report> {
        match Object::read(body).map_err(|error| malformed(&error))? {
            Object::Statement(name) => drop(self.statements.remove(name)),
            Object::Portal(name) => drop(self.portals.remove(name)),
        }
        out.extend_from_slice(&reply::CLOSE_COMPLETE);
        Ok(())
    }
}

/// The settings that are reported, as PostgreSQL spells them.
const REPORTED: [&str; 10] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "standard_conforming_strings",
    "TimeZone",
];

impl Prepared {
    /// The columns of what it answers, whatever its parameters are.
    fn shape(&self) -> Result<Option<Vec<Column>>, Report> {
        if self.words.is_empty() {
            return Ok(None);
        }
        let zeros = vec![Some("0".to_owned()); self.types.len()];
        columns(&read(&bind(&self.words, &zeros)?)?)
    }
}

impl Portal {
    fn send(&mut self, answer: CommandAnswer, rows_max: usize, out: &mut Vec<u8>) {
        match answer {
            CommandAnswer::Rows(table, tag) => {
                self.table = Some((table, 0));
                self.send_rows(rows_max, &tag, out);
            }
            CommandAnswer::Tag(tag) => reply::command_complete(&tag, out),
        }
    }

    fn send_rows(&mut self, rows_max: usize, tag: &str, out: &mut Vec<u8>) {
        let Some((table, sent)) = &mut self.table else { return };
        let to = sent.saturating_add(rows_max).min(table.rows.len());
        data_rows(table, &table.rows[*sent..to], &self.formats, out);
        *sent = to;
        if to < table.rows.len() {
            begin(b's', 0, out);
        } else {
            reply::command_complete(tag, out);
        }
    }
}

/// The columns of what a command answers; `None` when it has no rows.
fn columns(command: &Command) -> Result<Option<Vec<Column>>, Report> {
    Ok(match command {
        Command::Show(show, query) => Some(query.apply(show.table())?.columns),
        Command::Explain(_) => Some(route_table().columns),
        Command::Setting(name) => Some(vec![Column { name: name.clone().into(), kind: Type::Text }]),
        Command::Select(probes) => {
            let kind = |asked: &Asked| match asked {
                Asked::Number(_) | Asked::Process => Type::Int4,
                Asked::InRecovery => Type::Bool,
                _ => Type::Text,
            };
            let column =
                |probe: &super::command::Probe| Column { name: probe.name.clone().into(), kind: kind(&probe.what) };
            Some(probes.iter().map(column).collect())
        }
        _ => None,
    })
}

/// The answer to a command whose work was done outside.
fn answer(command: &Command, outcome: CommandResult) -> Result<CommandAnswer, Report> {
    Ok(match (command, outcome) {
        (Command::Show(_, query), CommandResult::Table(table)) => {
            CommandAnswer::Rows(query.apply(table)?, "SHOW".to_owned())
        }
        (Command::Act(action), _) => CommandAnswer::Tag(action.tag().to_owned()),
        (Command::Explain(_), CommandResult::Table(table)) => CommandAnswer::Rows(table, "EXPLAIN".to_owned()),
        (_, CommandResult::Table(table)) => CommandAnswer::Rows(table, "SHOW".to_owned()),
        (_, CommandResult::Done) => CommandAnswer::Tag("SHOW".to_owned()),
    })
}

/// The answer to EXPLAIN ROUTE, without rows.
pub fn route_table() -> Table {
    Table::new(ROUTE_COLUMNS.iter().map(|name| Column::new(name, Type::Text)).collect())
}

fn write_answer(answer: &CommandAnswer, out: &mut Vec<u8>) {
    match answer {
        CommandAnswer::Rows(table, tag) => {
            row_description(&table.columns, &Formats::default(), out);
            data_rows(table, &table.rows, &Formats::default(), out);
            reply::command_complete(tag, out);
        }
        CommandAnswer::Tag(tag) => reply::command_complete(tag, out),
    }
}

fn split(text: &[u8]) -> Result<Vec<Vec<Word>>, Report> {
    let text = std::str::from_utf8(text)
        .map_err(|_| Report::error(SqlState::UNTRANSLATABLE, "invalid byte sequence for encoding \"UTF8\""))?;
    statements(text).map_err(|stray| {
        let code = match stray {
            Stray::Parameter(_) => SqlState::UNDEFINED_PARAMETER,
            _ => SqlState::SYNTAX_ERROR,
        };
        Report::error(code, stray.to_string()).hint("SHOW HELP says what the console understands.")
    })
}

fn malformed(error: &poolhouse_core::wire::Error) -> Report {
    Report::error(SqlState::PROTOCOL_VIOLATION, error.to_string())
}

fn unknown_statement(name: &[u8]) -> Report {
    let what = format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
    Report::error(SqlState::UNDEFINED_STATEMENT, what)
}

fn unknown_portal(name: &[u8]) -> Report {
    let what = format!("portal \"{}\" does not exist", String::from_utf8_lossy(name));
    Report::error(SqlState::UNDEFINED_CURSOR, what)
}

/// A parameter's value as text.
fn text(value: &[u8], binary: bool, oid: u32) -> Result<String, Report> {
    let wrong = || Report::error(SqlState::INVALID_TEXT_REPRESENTATION, "a parameter's value does not fit its type");
    let whole = match (binary, oid, value) {
        (true, 21, [a, b]) => i64::from(i16::from_be_bytes([*a, *b])),
        (true, 23 | 26, [a, b, c, d]) => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
        (true, 20, value) => i64::from_be_bytes(value.try_into().map_err(|_| wrong())?),
        (true, 701, value) => {
            return Ok(f64::from_be_bytes(value.try_into().map_err(|_| wrong())?).to_string());
        }
        (false, _, value) | (true, 0 | 19 | 25 | 705 | 1042 | 1043, value) => {
            return String::from_utf8(value.to_vec()).map_err(|_| wrong());
        }
        (true, 21 | 23 | 26, _) => return Err(wrong()),
        (true, ..) => {
            let what = format!("the console takes parameters of the type {oid} as text only");
            return Err(Report::error(SqlState::FEATURE_NOT_SUPPORTED, what));
        }
    };
    Ok(whole.to_string())
}

/// A Bind message.
struct Bind<'a> {
    portal: &'a [u8],
    statement: &'a [u8],
    /// Each with whether it is binary.
    values: Vec<(Option<&'a [u8]>, bool)>,
    formats: Formats,
}

impl<'a> Bind<'a> {
    fn read(body: &'a [u8]) -> Option<Bind<'a>> {
        let (portal, rest) = split_text(body)?;
        let (statement, mut rest) = split_text(rest)?;
        let formats = codes(&mut rest)?;
        let mut values = Vec::new();
        for at in 0..short(&mut rest)? {
            let binary = match formats.as_slice() {
                [] => false,
                [all] => *all,
                each => *each.get(usize::from(at))?,
            };
            let (length, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            let value = match i32::from_be_bytes(*length) {
                -1 => None,
                length => {
                    let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                    rest = after;
                    Some(value)
                }
            };
            values.push((value, binary));
        }
        let formats = Formats::new(codes(&mut rest)?);
        rest.is_empty().then_some(Bind { portal, statement, values, formats })
    }
}

fn short(rest: &mut &[u8]) -> Option<u16> {
    let (short, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*short))
}

fn codes(rest: &mut &[u8]) -> Option<Vec<bool>> {
    (0..short(rest)?).map(|_| Some(short(rest)? == 1)).collect()
}

#[cfg(test)]
mod tests;
