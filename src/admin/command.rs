//! What the words of a statement ask the console for. Pure.

use super::{
    query::{Comparison, Condition, Order, Query, Test, like},
    show::Show,
    words::Word,
};
use poolhouse_core::{
    session::nearest_word,
    wire::error::{Report, SqlState},
};

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Show(Show, Query),
    Help,
    /// A setting such as drivers ask for.
    Setting(String),
    /// A SELECT without FROM: what drivers ask to find out where they are.
    Select(Vec<Probe>),
    Set {
        name: String,
        value: String,
    },
    /// `None` for all.
    Reset(Option<String>),
    Begin,
    Commit,
    Rollback,
    /// SAVEPOINT, RELEASE and ROLLBACK TO, with the answer's tag.
    Savepoint(&'static str),
    /// A prepared statement's name; `None` for all.
    Deallocate(Option<String>),
    /// What drivers say to clean a session, which has nothing to clean here; with the answer's tag.
    Nothing(&'static str),
    Act(OperatorAction),
    /// Where a statement would go.
    Explain(Explain),
}

/// EXPLAIN ROUTE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explain {
    /// As clients call it; the only one without this.
    pub database: Option<String>,
    /// Whoever asks without this.
    pub user: Option<String>,
    pub sql: String,
}

/// What changes something outside of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorAction {
    /// `None` for all databases, here and below.
    Pause(Option<String>),
    Resume(Option<String>),
    Disable(String),
    Enable(String),
    Reconnect(Option<String>),
    WaitClose(Option<String>),
    Kill(Option<String>),
    KillClient(u64),
    Suspend,
    Shutdown(Shutdown),
    Reload {
        /// Only says what it would change.
        dry: bool,
    },
    /// A setting of Poolhouse's.
    Set {
        name: String,
        value: String,
    },
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// When the running transactions have ended.
    WaitForServers,
    /// When all clients have left.
    WaitForClients,
}

/// One expression of a SELECT without FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub name: String,
    pub what: Asked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Version,
    Database,
    User,
    Schema,
    Process,
    InRecovery,
    Setting(String),
    Number(i64),
    Text(String),
    Null,
}

impl OperatorAction {
    /// The tag of the answer, which is the command itself.
    pub fn tag(&self) -> &'static str {
        match self {
            OperatorAction::Pause(_) => "PAUSE",
            OperatorAction::Resume(_) => "RESUME",
            OperatorAction::Disable(_) => "DISABLE",
            OperatorAction::Enable(_) => "ENABLE",
            OperatorAction::Reconnect(_) => "RECONNECT",
            OperatorAction::WaitClose(_) => "WAIT_CLOSE",
            OperatorAction::Kill(_) => "KILL",
            OperatorAction::KillClient(_) => "KILL_CLIENT",
            OperatorAction::Suspend => "SUSPEND",
            OperatorAction::Shutdown(_) => "SHUTDOWN",
            OperatorAction::Reload { dry: false } => "RELOAD",
            OperatorAction::Reload { dry: true } => "RELOAD DRY RUN",
            OperatorAction::Set { .. } => "SET",
        }
    }
}

/// Settings that drivers set and ask for, as PostgreSQL calls them. Here they have no effect but that they are kept.
pub const SESSION_SETTINGS: [&str; 22] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lc_messages",
    "lock_timeout",
    "max_identifier_length",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "transaction_isolation",
    "transaction_read_only",
];

const COMMANDS: [&str; 16] = [
    "EXPLAIN",
    "SHOW",
    "SET",
    "PAUSE",
    "RESUME",
    "DISABLE",
    "ENABLE",
    "RECONNECT",
    "WAIT_CLOSE",
    "KILL",
    "KILL_CLIENT",
    "SUSPEND",
    "SHUTDOWN",
    "RELOAD",
    "SELECT",
    "RESET",
];

/// What a statement asks for. There is at least one word.
///
/// # Errors
/// It is none of the console's; the report says what comes closest.
pub fn read(words: &[Word]) -> Result<Command, Report> {
    let mut words = Words { words, at: 0 };
    let command = words.command()?;
    match words.peek() {
        None => Ok(command),
        Some(_) => Err(words.unexpected()),
    }
}

/// Parameters get their values; `None` is NULL.
///
/// # Errors
/// There is no such parameter.
pub fn bind(words: &[Word], values: &[Option<String>]) -> Result<Vec<Word>, Report> {
    let bind = |word: &Word| match word {
        Word::Parameter(number) => match values.get(usize::from(*number) - 1) {
            Some(Some(value)) => Ok(Word::Text(value.clone())),
            Some(None) => Ok(Word::Null),
            None => Err(Report::error(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${number}"))),
        },
        other => Ok(other.clone()),
    };
    words.iter().map(bind).collect()
}

/// The highest parameter's number.
pub fn parameters(words: &[Word]) -> u16 {
    let numbers = words.iter().filter_map(|word| if let Word::Parameter(number) = word { Some(*number) } else { None });
    numbers.max().unwrap_or(0)
}

struct Words<'a> {
    words: &'a [Word],
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a Word> {
        self.words.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at);
        self.at += usize::from(word.is_some());
        word
    }

    /// Takes the next word if it is this keyword.
    fn takes(&mut self, keyword: &str) -> bool {
        let is = self.peek().is_some_and(|word| word.is(keyword));
        self.at += usize::from(is);
        is
    }

    fn takes_sign(&mut self, sign: &'static str) -> bool {
        let is = self.peek() == Some(&Word::Sign(sign));
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, keyword: &str) -> Result<(), Report> {
        if self.takes(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_sign(&mut self, sign: &'static str) -> Result<(), Report> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Report {
        let what = match self.peek() {
            Some(word) => format!("syntax error at or near \"{word}\""),
            None => "syntax error at end of input".to_owned(),
        };
        Report::error(SqlState::SYNTAX_ERROR, what).hint("SHOW HELP says what the console understands.")
    }

    /// A name, however it is written.
    fn name(&mut self) -> Result<String, Report> {
        match self.peek() {
            Some(Word::Name(name) | Word::Quoted(name) | Word::Text(name)) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn name_or_none(&mut self) -> Result<Option<String>, Report> {
        if self.peek().is_none() { Ok(None) } else { self.name().map(Some) }
    }

    fn command(&mut self) -> Result<Command, Report> {
        let Some(first) = self.next() else { return Err(self.unexpected()) };
        let Word::Name(first) = first else {
            self.at -= 1;
            return Err(self.unexpected());
        };
        Ok(match first.to_ascii_uppercase().as_str() {
            "SHOW" => self.show()?,
            "EXPLAIN" => self.explain()?,
            "SELECT" => self.select()?,
            "SET" => self.set()?,
            "RESET" if self.takes("all") => Command::Reset(None),
            "RESET" => Command::Reset(Some(self.name()?)),
            "BEGIN" => self.begin()?,
            "START" => {
                self.expect("transaction")?;
                self.begin()?
            }
            "COMMIT" | "END" => self.end(Command::Commit),
            "ROLLBACK" | "ABORT" => self.rollback()?,
            "SAVEPOINT" => self.name().map(|_| Command::Savepoint("SAVEPOINT"))?,
            "RELEASE" => {
                self.takes("savepoint");
                self.name().map(|_| Command::Savepoint("RELEASE"))?
            }
            "DEALLOCATE" => self.deallocate()?,
            "DISCARD" => self.cleaning("DISCARD ALL")?,
            "CLOSE" => self.cleaning("CLOSE CURSOR ALL")?,
            "UNLISTEN" => {
                if !self.takes_sign("*") {
                    self.name()?;
                }
                Command::Nothing("UNLISTEN")
            }
            _ => Command::Act(self.action(first)?),
        })
    }

    fn action(&mut self, first: &str) -> Result<OperatorAction, Report> {
        Ok(match first.to_ascii_uppercase().as_str() {
            "PAUSE" => OperatorAction::Pause(self.name_or_none()?),
            "RESUME" => OperatorAction::Resume(self.name_or_none()?),
            "DISABLE" => OperatorAction::Disable(self.database(first)?),
            "ENABLE" => OperatorAction::Enable(self.database(first)?),
            "RECONNECT" => OperatorAction::Reconnect(self.name_or_none()?),
            "WAIT_CLOSE" => OperatorAction::WaitClose(self.name_or_none()?),
            "KILL" => OperatorAction::Kill(self.name_or_none()?),
            "KILL_CLIENT" => OperatorAction::KillClient(self.client()?),
            "SUSPEND" => OperatorAction::Suspend,
            "SHUTDOWN" if self.takes("wait_for_servers") => OperatorAction::Shutdown(Shutdown::WaitForServers),
            "SHUTDOWN" if self.takes("wait_for_clients") => OperatorAction::Shutdown(Shutdown::WaitForClients),
            "SHUTDOWN" => OperatorAction::Shutdown(Shutdown::Now),
            "RELOAD" if self.takes("dry") => match self.takes("run") {
                true => OperatorAction::Reload { dry: true },
                false => {
                    let what = "RELOAD DRY needs the word RUN";
                    return Err(Report::error(SqlState::SYNTAX_ERROR, what).hint("Write RELOAD DRY RUN."));
                }
            },
            "RELOAD" => OperatorAction::Reload { dry: false },
            _ => return Err(unknown_command(first)),
        })
    }

    fn explain(&mut self) -> Result<Command, Report> {
        let (mut database, mut user) = (None, None);
        self.expect("route")?;
        loop {
            if self.takes("database") {
                database = Some(self.name()?);
            } else if self.takes("user") {
                user = Some(self.name()?);
            } else {
                break;
            }
        }
        let Some(Word::Text(sql)) = self.next() else {
            return Err(Report::error(SqlState::SYNTAX_ERROR, "EXPLAIN ROUTE needs a statement")
                .hint("Write it like EXPLAIN ROUTE DATABASE app USER alice SELECT 1."));
        };
        Ok(Command::Explain(Explain { database, user, sql: sql.clone() }))
    }

    fn database(&mut self, command: &str) -> Result<String, Report> {
        let command = command.to_ascii_uppercase();
        self.name_or_none()?.ok_or_else(|| {
            Report::error(SqlState::SYNTAX_ERROR, format!("{command} needs the name of a database"))
                .hint(format!("Write it like {command} app; SHOW DATABASES has the names."))
        })
    }

    fn client(&mut self) -> Result<u64, Report> {
        let number = match self.next() {
            Some(Word::Number(text) | Word::Text(text)) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| {
            Report::error(SqlState::SYNTAX_ERROR, "KILL_CLIENT needs the number of a client")
                .hint("It is in the column id of SHOW CLIENTS.")
        })
    }

    fn begin(&mut self) -> Result<Command, Report> {
        // Modes say nothing here: ISOLATION LEVEL …, READ ONLY, and so on.
        while self.peek().is_some_and(|word| matches!(word, Word::Name(_) | Word::Sign(","))) {
            self.at += 1;
        }
        Ok(Command::Begin)
    }

    fn end(&mut self, command: Command) -> Command {
        let _ = self.takes("transaction") || self.takes("work");
        command
    }

    fn rollback(&mut self) -> Result<Command, Report> {
        let command = self.end(Command::Rollback);
        if self.takes("to") {
            self.takes("savepoint");
            self.name()?;
            return Ok(Command::Savepoint("ROLLBACK"));
        }
        Ok(command)
    }

    fn deallocate(&mut self) -> Result<Command, Report> {
        self.takes("prepare");
        if self.takes("all") {
            return Ok(Command::Deallocate(None));
        }
        Ok(Command::Deallocate(Some(self.name()?)))
    }

    fn cleaning(&mut self, tag: &'static str) -> Result<Command, Report> {
        self.expect("all")?;
        Ok(Command::Nothing(tag))
    }

    fn set(&mut self) -> Result<Command, Report> {
        let _ = self.takes("session") || self.takes("local");
        if self.takes("time") {
            self.expect("zone")?;
            return Ok(Command::Set { name: "timezone".to_owned(), value: self.values()? });
        }
        if self.takes("names") {
            return Ok(Command::Set { name: "client_encoding".to_owned(), value: self.values()? });
        }
        if self.takes("transaction") || self.takes("characteristics") {
            self.at = self.words.len();
            return Ok(Command::Nothing("SET"));
        }
        let name = self.name()?;
        if !self.takes("to") {
            self.expect_sign("=")?;
        }
        let value = self.values()?;
        let is_session = SESSION_SETTINGS.iter().any(|known| known.eq_ignore_ascii_case(&name));
        Ok(if is_session { Command::Set { name, value } } else { Command::Act(OperatorAction::Set { name, value }) })
    }

    /// The rest as a value: words and numbers, with commas between them.
    fn values(&mut self) -> Result<String, Report> {
        let mut values = String::new();
        loop {
            if self.takes_sign("-") {
                values.push('-');
            }
            match self.next() {
                Some(Word::Name(text) | Word::Quoted(text) | Word::Text(text) | Word::Number(text)) => {
                    values.push_str(text)
                }
                _ => {
                    self.at -= usize::from(self.at > 0 && self.at <= self.words.len() && self.peek().is_some());
                    return Err(self.unexpected());
                }
            }
            if !self.takes_sign(",") {
                return Ok(values);
            }
            values.push_str(", ");
        }
    }

    fn show(&mut self) -> Result<Command, Report> {
        let first = self.peek().is_none();
        if first {
            return Ok(Command::Help);
        }
        if self.takes("transaction") {
            self.expect("isolation")?;
            self.expect("level")?;
            return Ok(Command::Setting("transaction_isolation".to_owned()));
        }
        if self.takes("time") {
            self.expect("zone")?;
            return Ok(Command::Setting("timezone".to_owned()));
        }
        let name = self.name()?;
        if name.eq_ignore_ascii_case("help") {
            return Ok(Command::Help);
        }
        if let Some(show) = Show::named(&name) {
            return Ok(Command::Show(show, self.query()?));
        }
        if SESSION_SETTINGS.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return Ok(Command::Setting(name.to_ascii_lowercase()));
        }
        Err(unknown_table(&name))
    }

    fn query(&mut self) -> Result<Query, Report> {
        let mut query = Query::default();
        if self.takes("where") {
            query.conditions.push(self.condition()?);
            while self.takes("and") {
                query.conditions.push(self.condition()?);
            }
            if self.peek().is_some_and(|word| word.is("or")) {
                return Err(Report::error(SqlState::FEATURE_NOT_SUPPORTED, "conditions can only be joined by AND")
                    .hint("IN (…) and ~ 'a|b' allow alternatives for one column."));
            }
        }
        if self.takes("order") {
            self.expect("by")?;
            query.order.push(self.order()?);
            while self.takes_sign(",") {
                query.order.push(self.order()?);
            }
        }
        if self.takes("limit") && !self.takes("all") {
            query.limit = Some(self.count()?);
        }
        if self.takes("offset") {
            query.offset = self.count()?;
        }
        Ok(query)
    }

    fn order(&mut self) -> Result<Order, Report> {
        let column = self.name()?;
        let descending = self.takes("desc");
        let _ = !descending && self.takes("asc");
        Ok(Order { column, descending })
    }

    fn count(&mut self) -> Result<usize, Report> {
        match self.next() {
            Some(Word::Number(text) | Word::Text(text)) if text.parse::<usize>().is_ok() => {
                Ok(text.parse().unwrap_or_default())
            }
            word => {
                self.at -= usize::from(word.is_some());
                Err(self.unexpected())
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, Report> {
        let column = self.name()?;
        let not = self.takes("not");
        let test = if self.takes("like") || self.peek().is_some_and(|word| word.is("ilike")) {
            let any_case = self.takes("ilike");
            Test::Matches { pattern: like(&self.text()?), any_case, not }
        } else if self.takes("in") {
            Test::OneOf(self.list()?, not)
        } else if not {
            return Err(self.unexpected());
        } else if self.takes("is") {
            let not = self.takes("not");
            self.expect("null")?;
            Test::IsNull(!not)
        } else {
            self.comparison()?
        };
        Ok(Condition { column, test })
    }

    fn comparison(&mut self) -> Result<Test, Report> {
        let Some(Word::Sign(sign)) = self.peek() else { return Err(self.unexpected()) };
        let comparison = match *sign {
            "=" => Comparison::Equal,
            "<>" | "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::AtMost,
            ">" => Comparison::Greater,
            ">=" => Comparison::AtLeast,
            "~" | "~*" | "!~" | "!~*" => {
                self.at += 1;
                let pattern = self.text()?;
                return Ok(Test::Matches { pattern, any_case: sign.ends_with('*'), not: sign.starts_with('!') });
            }
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(Test::Compare(comparison, self.value()?))
    }

    fn list(&mut self) -> Result<Vec<Word>, Report> {
        self.expect_sign("(")?;
        let mut values = vec![self.value()?];
        while self.takes_sign(",") {
            values.push(self.value()?);
        }
        self.expect_sign(")")?;
        Ok(values)
    }

    /// A value to compare with; a cast behind it says nothing.
    fn value(&mut self) -> Result<Word, Report> {
        let minus = self.takes_sign("-");
        let value = match self.peek() {
            Some(Word::Number(text)) if minus => Word::Number(format!("-{text}")),
            Some(Word::Sign(_)) | None => return Err(self.unexpected()),
            Some(_) if minus => return Err(self.unexpected()),
            Some(word) => word.clone(),
        };
        self.at += 1;
        if self.takes_sign("::") {
            self.name()?;
        }
        Ok(value)
    }

    /// A pattern.
    fn text(&mut self) -> Result<String, Report> {
        match self.value()? {
            Word::Text(text) | Word::Name(text) | Word::Quoted(text) | Word::Number(text) => Ok(text),
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }

    fn select(&mut self) -> Result<Command, Report> {
        let start = self.at;
        // As in PgBouncer, SELECT alone is another word for SHOW.
        if let [Word::Name(name)] = &self.words[start..]
            && let Some(show) = Show::named(name)
        {
            self.at += 1;
            return Ok(Command::Show(show, Query::default()));
        }
        if self.words[start..].iter().any(|word| word.is("from")) {
            return self.select_from();
        }
        let mut probes = vec![self.probe()?];
        while self.takes_sign(",") {
            probes.push(self.probe()?);
        }
        Ok(Command::Select(probes))
    }

    fn select_from(&mut self) -> Result<Command, Report> {
        let columns = if self.takes_sign("*") {
            None
        } else {
            let mut columns = vec![self.name()?];
            while self.takes_sign(",") {
                columns.push(self.name()?);
            }
            Some(columns)
        };
        self.expect("from")?;
        let name = self.name()?;
        let show = Show::named(&name).ok_or_else(|| unknown_table(&name))?;
        Ok(Command::Show(show, Query { columns, ..self.query()? }))
    }

    fn probe(&mut self) -> Result<Probe, Report> {
        let (name, what) = match self.peek() {
            Some(Word::Number(text)) if text.parse::<i64>().is_ok() => {
                ("?column?".to_owned(), Asked::Number(text.parse().unwrap_or_default()))
            }
            Some(Word::Text(text)) => ("?column?".to_owned(), Asked::Text(text.clone())),
            Some(Word::Null) => ("?column?".to_owned(), Asked::Null),
            Some(Word::Name(name)) => return self.function(name),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        self.alias(name, what)
    }

    fn function(&mut self, full: &str) -> Result<Probe, Report> {
        self.at += 1;
        let lower = full.to_ascii_lowercase();
        let name = lower.strip_prefix("pg_catalog.").unwrap_or(&lower).to_owned();
        let mut arguments = Vec::new();
        if self.takes_sign("(") && !self.takes_sign(")") {
            arguments.push(self.value()?);
            while self.takes_sign(",") {
                arguments.push(self.value()?);
            }
            self.expect_sign(")")?;
        }
        let text = |at: usize| match arguments.get(at) {
            Some(Word::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let what = match name.as_str() {
            "version" => Asked::Version,
            "current_database" | "current_catalog" => Asked::Database,
            "current_user" | "session_user" | "user" => Asked::User,
            "current_schema" => Asked::Schema,
            "pg_backend_pid" => Asked::Process,
            "pg_is_in_recovery" => Asked::InRecovery,
            "pg_advisory_unlock_all" | "null" => Asked::Null,
            "current_setting" => text(0).map(Asked::Setting).ok_or_else(|| self.unexpected())?,
            "set_config" => text(1).map(Asked::Text).ok_or_else(|| self.unexpected())?,
            _ => {
                return Err(Report::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("the console does not know {full}"),
                )
                .hint("It is no database: it shows and steers Poolhouse. See SHOW HELP."));
            }
        };
        self.alias(name, what)
    }

    fn alias(&mut self, name: String, what: Asked) -> Result<Probe, Report> {
        if self.takes_sign("::") {
            self.name()?;
        }
        let named = self.takes("as") || matches!(self.peek(), Some(Word::Name(_) | Word::Quoted(_)));
        let name = if named { self.name()? } else { name };
        Ok(Probe { name, what })
    }
}

fn unknown_command(word: &str) -> Report {
    let report = Report::error(SqlState::SYNTAX_ERROR, format!("invalid command \"{word}\""));
    let upper = word.to_ascii_uppercase();
    if Show::named(word).is_some() {
        return report.hint(format!("Did you mean SHOW {upper}? SHOW HELP has all commands."));
    }
    match nearest_word(&upper, COMMANDS) {
        _ if upper == "EXPLAIN" => {
            report.hint("EXPLAIN ROUTE is for sessions of a database: it says where their statements go.")
        }
        Some(meant) => report.hint(format!("Did you mean {meant}? SHOW HELP has all commands.")),
        None => report.hint("SHOW HELP has all commands."),
    }
}

fn unknown_table(name: &str) -> Report {
    let report = Report::error(SqlState::UNDEFINED_OBJECT, format!("there is nothing to show by the name \"{name}\""));
    let upper = name.to_ascii_uppercase();
    match nearest_word(&upper, Show::ALL.iter().map(|show| show.name())) {
        Some(meant) => report.hint(format!("Did you mean SHOW {meant}? SHOW HELP has all of them.")),
        None => report.hint("SHOW HELP has all of them."),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::words::statements;

    fn one(text: &str) -> Result<Command, Report> {
        read(&statements(text).unwrap().remove(0))
    }

    fn some(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn commands() {
        for (text, expected) in [
            ("pause", OperatorAction::Pause(None)),
            ("PAUSE app;", OperatorAction::Pause(some("app"))),
            ("Pause \"My db\"", OperatorAction::Pause(some("My db"))),
            ("resume 'app'", OperatorAction::Resume(some("app"))),
            ("DISABLE app", OperatorAction::Disable("app".into())),
            ("ENABLE app", OperatorAction::Enable("app".into())),
            ("RECONNECT", OperatorAction::Reconnect(None)),
            ("WAIT_CLOSE app", OperatorAction::WaitClose(some("app"))),
            ("KILL", OperatorAction::Kill(None)),
            ("kill app", OperatorAction::Kill(some("app"))),
            ("KILL_CLIENT 7", OperatorAction::KillClient(7)),
            ("KILL_CLIENT '7'", OperatorAction::KillClient(7)),
            ("SUSPEND", OperatorAction::Suspend),
            ("SHUTDOWN", OperatorAction::Shutdown(Shutdown::Now)),
            ("shutdown wait_for_servers", OperatorAction::Shutdown(Shutdown::WaitForServers)),
            ("SHUTDOWN WAIT_FOR_CLIENTS", OperatorAction::Shutdown(Shutdown::WaitForClients)),
            ("RELOAD", OperatorAction::Reload { dry: false }),
            ("reload dry run;", OperatorAction::Reload { dry: true }),
            ("SET pool.size = 5", OperatorAction::Set { name: "pool.size".into(), value: "5".into() }),
        ] {
            assert_eq!(one(text), Ok(Command::Act(expected)), "{text}");
        }
    }

    #[test]
    fn a_statement_to_explain_is_taken_as_it_is() {
        let explain = |database: Option<&str>, user: Option<&str>, sql: &str| {
            let (database, user) = (database.map(str::to_owned), user.map(str::to_owned));
            Ok(Command::Explain(Explain { database, user, sql: sql.to_owned() }))
        };
        for (text, expected) in [
            ("EXPLAIN ROUTE SELECT 1;", explain(None, None, "SELECT 1")),
            ("explain route select a || $1 -- {x}; y", explain(None, None, "select a || $1 -- {x}; y")),
            ("EXPLAIN ROUTE DATABASE app SELECT 'a'", explain(Some("app"), None, "SELECT 'a'")),
            (
                "EXPLAIN ROUTE USER \"A b\" DATABASE 'x y' UPDATE t SET a = 1",
                explain(Some("x y"), Some("A b"), "UPDATE t SET a = 1"),
            ),
            ("EXPLAIN /* why */ ROUTE DATABASE app 'SELECT ''x'', 1'", explain(Some("app"), None, "SELECT 'x', 1")),
        ] {
            assert_eq!(one(text), expected, "{text}");
        }
        for text in [
            "EXPLAIN ROUTE",
            "EXPLAIN ROUTE ;",
            "EXPLAIN ROUTE DATABASE",
            "EXPLAIN ROUTE DATABASE app",
            "EXPLAIN SELECT 1",
        ] {
            assert_eq!(one(text).unwrap_err().code, SqlState::SYNTAX_ERROR, "{text}");
        }
    }

    #[test]
    fn what_drivers_say() {
        let set = |name: &str, value: &str| Command::Set { name: name.into(), value: value.into() };
        for (text, expected) in [
            ("SET client_encoding TO 'UTF8'", set("client_encoding", "UTF8")),
            ("SET SESSION extra_float_digits = -3", set("extra_float_digits", "-3")),
            ("SET DateStyle=ISO, MDY", set("DateStyle", "ISO, MDY")),
            ("SET NAMES 'utf8'", set("client_encoding", "utf8")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Command::Nothing("SET")),
            ("SHOW TRANSACTION ISOLATION LEVEL", Command::Setting("transaction_isolation".into())),
            ("show Server_Version", Command::Setting("server_version".into())),
            ("SHOW", Command::Help),
            ("show help", Command::Help),
            ("BEGIN", Command::Begin),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", Command::Begin),
            ("START TRANSACTION", Command::Begin),
            ("COMMIT WORK", Command::Commit),
            ("ROLLBACK", Command::Rollback),
            ("ROLLBACK TO SAVEPOINT a", Command::Savepoint("ROLLBACK")),
            ("RELEASE a", Command::Savepoint("RELEASE")),
            ("DEALLOCATE ALL", Command::Deallocate(None)),
            ("DEALLOCATE PREPARE _pg3_0", Command::Deallocate(some("_pg3_0"))),
            ("DISCARD ALL", Command::Nothing("DISCARD ALL")),
            ("CLOSE ALL", Command::Nothing("CLOSE CURSOR ALL")),
            ("UNLISTEN *", Command::Nothing("UNLISTEN")),
            ("RESET ALL", Command::Reset(None)),
            ("RESET datestyle", Command::Reset(some("datestyle"))),
            ("SELECT stats", Command::Show(Show::Stats, Query::default())),
            ("SELECT * FROM pools", Command::Show(Show::Pools, Query::default())),
        ] {
            assert_eq!(one(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn probes() {
        let text =
            "SELECT 1, 'a' AS b, version(), pg_catalog.current_database() db, current_setting('datestyle'), NULL";
        let Ok(Command::Select(probes)) = one(text) else { panic!() };
        let shown: Vec<_> = probes.iter().map(|probe| (probe.name.as_str(), probe.what.clone())).collect();
        let expected = [
            ("?column?", Asked::Number(1)),
            ("b", Asked::Text("a".into())),
            ("version", Asked::Version),
            ("db", Asked::Database),
            ("current_setting", Asked::Setting("datestyle".into())),
            ("null", Asked::Null),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn nonsense_is_told_apart() {
        for (text, code, words, hint) in [
            ("foo", "42601", "invalid command \"foo\"", "SHOW HELP"),
            ("pools", "42601", "invalid command \"pools\"", "SHOW POOLS"),
            ("PUASE", "42601", "invalid command", "Did you mean PAUSE?"),
            ("show polls", "42704", "\"polls\"", "Did you mean SHOW POOLS?"),
            ("show pools where", "42601", "at end of input", "SHOW HELP"),
            ("show pools where a", "42601", "at end of input", ""),
            ("show pools where a = ", "42601", "at end of input", ""),
            ("show pools where a = 1 or b = 2", "0A000", "AND", "IN"),
            ("show pools where a = 1 b", "42601", "near \"b\"", ""),
            ("show pools order cl_active", "42601", "near \"cl_active\"", ""),
            ("show pools limit many", "42601", "near \"many\"", ""),
            ("show pools limit -1", "42601", "near \"-\"", ""),
            ("disable", "42601", "needs the name of a database", "DISABLE app"),
            ("kill_client", "42601", "needs the number", "SHOW CLIENTS"),
            ("kill_client all", "42601", "needs the number", "SHOW CLIENTS"),
            ("pause a b", "42601", "near \"b\"", ""),
            ("shutdown now", "42601", "near \"now\"", ""),
            ("set a", "42601", "at end of input", ""),
            ("set a =", "42601", "at end of input", ""),
            ("set = 3", "42601", "near \"=\"", ""),
            ("select txid_current()", "0A000", "does not know txid_current", "no database"),
            ("select a from b", "42704", "\"b\"", ""),
            ("(select 1)", "42601", "near \"(\"", ""),
            ("drop table users", "42601", "invalid command \"drop\"", ""),
        ] {
            let report = one(text).unwrap_err();
            assert_eq!(report.code.0, code, "{text}: {}", report.message);
            assert!(report.message.contains(words), "{text}: {}", report.message);
            assert!(report.hint.unwrap_or_default().contains(hint), "{text}");
        }
    }

    #[test]
    fn parameters_are_values() {
        let words = statements("SHOW POOLS WHERE database = $2 LIMIT $1").unwrap().remove(0);
        assert_eq!(parameters(&words), 2);
        let bound = bind(&words, &[some("5"), some("app")]).unwrap();
        assert_eq!(read(&bound), one("SHOW POOLS WHERE database = 'app' LIMIT 5"));
        assert_eq!(bind(&words, &[some("5")]).unwrap_err().code.0, "42P02");
    }

    proptest! {
        #[test]
        fn any_words_are_read_without_panic(text in "(show|select|set|where|order|by|limit|in|and|from|pools|stats|kill|[a-z=<>,()*'$1-9;~! -]{1,3}| ){0,12}") {
            for words in statements(&text).unwrap_or_default() {
                let _ = read(&words);
                let _ = bind(&words, &[None]).map(|words| read(&words));
            }
        }
    }
}
