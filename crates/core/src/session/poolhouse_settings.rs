//! Poolhouse's own settings, `poolhouse.*`: a session keeps them itself, and no server ever sees them. They follow
//! transactions as PostgreSQL's do: what a transaction has changed is undone with it, or with its savepoint, and SET
//! LOCAL ends with it.
//!
//! Commands about them are answered in the server's place, without a server connection when none is lent. While one is,
//! a command waits until the server has answered everything before it, so that its own answer comes in its turn and it
//! is known whether the transaction goes on. A session that has never named such a setting has none of this.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use super::{
    ClientStep, Judge, Outboxes, Pipeline, Session, Shown,
    ask::Lent,
    client::{Said, violation},
    explain::{self, Explained},
    owed::Owed,
    similar_words::nearest_word,
    statements::Statement,
};
use crate::{
    sql::{BlockStep, KnownText, OwnCommand, OwnText as Text, SettingChange, Verdict, is_own_setting},
    wire::{
        self,
        error::{Report, SqlState},
        frame::ClientMessage,
        reply::{self, Status},
        request::{self, BindNames, Object, Parse},
    },
};

/// Most portals of commands of our own that a client may hold.
const PORTALS_MAX: usize = 100;

/// Longest Bind message to a statement without parameters.
const BIND_BYTES_MAX: usize = 64 << 10;

/// Has a meaning of its own for SHOW: a position that only a server can tell.
const POSITION_SETTING: &str = "poolhouse.lsn";

/// What a server is asked in the place of SHOW poolhouse.lsn: a position at or behind everything that was committed.
pub(super) const POSITION_QUERY: &str = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END)::pg_catalog.text \
     AS \"poolhouse.lsn\"";

/// Whether a text is SHOW poolhouse.lsn.
pub(super) fn asks_position(verdict: &Verdict) -> bool {
    let Some(Text::Commands(commands)) = verdict.own.as_deref() else { return false };
    matches!(&**commands, [OwnCommand::Show { name }] if **name == *POSITION_SETTING)
}

/// Where a session's statements go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Route {
    /// Each where it may: reads to replicas, writes to the primary.
    #[default]
    Auto,
    /// All to the primary.
    Primary,
    /// All to replicas, which refuse to write.
    Replica,
}

impl Route {
    const NAMES: [(&'static str, Route); 3] =
        [("auto", Route::Auto), ("primary", Route::Primary), ("replica", Route::Replica)];

    pub fn name(self) -> &'static str {
        Route::NAMES.iter().find(|(_, route)| *route == self).map_or("auto", |(name, _)| name)
    }

    /// In any case; `None` for another word.
    pub fn of(name: &str) -> Option<Route> {
        Route::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, route)| *route)
    }
}

/// Who has said what the route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouteBy {
    #[default]
    Session,
    /// A rule of the configuration.
    Rule,
    /// The address that it has connected to: not to be changed.
    Listener,
}

/// The values of all settings of Poolhouse's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolhouseSettings {
    pub route: Route,
    pub by: RouteBy,
    /// A notice after each statement says where it ran, and why.
    pub explain: bool,
    /// A WAL position that the session's reads must see.
    pub lsn: Option<u64>,
}

/// One of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Route,
    Explain,
    Lsn,
}

impl Name {
    const ALL: [(&'static str, Name); 3] =
        [("poolhouse.route", Name::Route), ("poolhouse.explain", Name::Explain), (POSITION_SETTING, Name::Lsn)];

    /// From its name in lower case.
    fn of(name: &str) -> Result<Name, Report> {
        let found = Name::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, name)| *name).ok_or_else(|| {
            let names = Name::ALL.map(|(name, _)| name);
            let report =
                Report::error(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""));
            match nearest_word(name, names) {
                Some(meant) => report.hint(format!("Perhaps you meant \"{meant}\".")),
                None => report.hint(format!("Poolhouse has these: {}.", names.join(", "))),
            }
        })
    }

    fn text(self) -> &'static str {
        Name::ALL.iter().find(|(_, name)| *name == self).map_or("", |(text, _)| text)
    }
}

impl PoolhouseSettings {
    /// Whether a setting, in any case, is one of these, or would be if there were one of that name.
    pub fn are_named_by(name: &str) -> bool {
        is_own_setting(name)
    }

    /// Takes the settings of our own out of startup parameters, whose names are in lower case. A route that the listener
    /// gives stays.
    ///
    /// # Errors
    /// One is unknown, or has a value that it cannot have.
    pub fn take(&mut self, startup: &mut Vec<(String, String)>) -> Result<(), Report> {
        let before = *self;
        for (name, value) in startup.extract_if(.., |(name, _)| PoolhouseSettings::are_named_by(name)) {
            let set = Name::of(&name).and_then(|name| self.set(name, &value));
            set.map_err(|report| Report { fatal: true, ..report })?;
        }
        if before.by == RouteBy::Listener {
            if self.route != before.route {
                return Err(Report { fatal: true, ..fixed_by_listener(before.route) });
            }
            self.by = before.by;
        }
        Ok(())
    }

    fn set(&mut self, name: Name, value: &str) -> Result<(), Report> {
        match name {
            Name::Route => {
                self.route = Route::of(value).ok_or_else(|| {
                    let names = Route::NAMES.map(|(name, _)| name).join(", ");
                    invalid(name, value).hint(format!("Available values: {names}."))
                })?;
                self.by = RouteBy::Session;
            }
            Name::Lsn => {
                self.lsn = match value.trim() {
                    "" => None,
                    value => Some(position(value).ok_or_else(|| {
                        invalid(name, value).hint("Write a position as SHOW poolhouse.lsn says it, such as 0/16B3748.")
                    })?),
                };
            }
            Name::Explain => {
                self.explain = truth(value).ok_or_else(|| {
                    let message = format!("parameter \"{}\" requires a Boolean value", name.text());
                    Report::error(SqlState::INVALID_PARAMETER_VALUE, message).hint("Available values: on, off.")
                })?;
            }
        }
        Ok(())
    }

    /// As SHOW tells it.
    fn get(&self, name: Name) -> Cow<'static, str> {
        match name {
            Name::Route => self.route.name().into(),
            Name::Explain => if self.explain { "on" } else { "off" }.into(),
            Name::Lsn => self.lsn.map_or_else(String::new, explain::position).into(),
        }
    }

    /// Takes one value from others.
    fn copy(&mut self, name: Name, from: &PoolhouseSettings) {
        match name {
            Name::Route => (self.route, self.by) = (from.route, from.by),
            Name::Explain => self.explain = from.explain,
            Name::Lsn => self.lsn = from.lsn,
        }
    }
}

/// A WAL position as PostgreSQL writes it (manual, "pg_lsn Type"): two hexadecimal halves. One just behind the header of a
/// page is the end of the page before: no replica gets there until something more is written.
fn position(value: &str) -> Option<u64> {
    const PAGE_BYTES: u64 = 8 << 10;
    const PAGE_HEADER_BYTES: u64 = 24;
    const SEGMENT_BYTES_MIN: u64 = 1 << 20;
    const SEGMENT_HEADER_BYTES: u64 = 40;
    let (upper, lower) = value.split_once('/')?;
    let half = |text: &str| {
        let digits = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|_| digits).map(u64::from)
    };
    let lsn = half(upper)? << 32 | half(lower)?;
    let header = if lsn % SEGMENT_BYTES_MIN == SEGMENT_HEADER_BYTES {
        SEGMENT_HEADER_BYTES
    } else if lsn % PAGE_BYTES == PAGE_HEADER_BYTES {
        PAGE_HEADER_BYTES
    } else {
        0
    };
    Some(lsn - header)
}

fn invalid(name: Name, value: &str) -> Report {
    let message = format!("invalid value for parameter \"{}\": \"{value}\"", name.text());
    Report::error(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// A truth value as PostgreSQL reads it: in any case, and cut short where that is unambiguous.
pub fn truth(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let is = |word: &str, shortest: usize| value.len() >= shortest && word.starts_with(&value);
    if is("true", 1) || is("yes", 1) || is("on", 2) || value == "1" {
        Some(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || value == "0" {
        Some(false)
    } else {
        None
    }
}

/// What a session knows of settings of our own, once it has named one or begun with one.
#[derive(Debug, Default)]
pub(super) struct SettingsState {
    /// RESET returns to these.
    startup: PoolhouseSettings,
    now: PoolhouseSettings,
    /// Something was changed in the transaction that is open.
    transaction: Option<Box<SettingsTransaction>>,
    portals: Vec<SettingsPortal>,
    /// Where what is under way runs, and why.
    explanation: Option<String>,
    /// What else is to be said of it.
    warning: Option<String>,
}

/// A transaction that has changed settings.
#[derive(Debug)]
struct SettingsTransaction {
    /// The settings when it began to change them.
    before: PoolhouseSettings,
    /// Those that stay when it is committed: without what SET LOCAL did.
    kept: PoolhouseSettings,
    /// Those at each savepoint made since then, now and to be kept.
    savepoints: Vec<(Box<str>, PoolhouseSettings, PoolhouseSettings)>,
    /// What was sent and does something to the transaction, until its CommandComplete comes.
    steps: VecDeque<BlockStep>,
}

/// A command of our own that was bound.
#[derive(Debug)]
struct SettingsPortal {
    name: Box<[u8]>,
    statement: Arc<Statement>,
    /// The format of its column, if it has one.
    format: u16,
}

impl SettingsState {
    /// The route that the client cannot change, if there is one.
    pub fn fixed_route(&self) -> Option<Route> {
        (self.startup.by == RouteBy::Listener).then_some(self.startup.route)
    }

    /// The client is told this after its statement.
    pub fn warn(&mut self, warning: String) {
        self.warning = Some(warning);
    }

    /// The values of the moment.
    pub fn now(&self) -> PoolhouseSettings {
        self.now
    }

    /// Changes settings in the transaction that is open, be it an implicit one.
    fn change(&mut self, local: bool, change: impl Fn(&mut PoolhouseSettings)) {
        let now = self.now;
        let transaction = self.transaction.get_or_insert_with(|| {
            Box::new(SettingsTransaction { before: now, kept: now, savepoints: Vec::new(), steps: VecDeque::new() })
        });
        change(&mut self.now);
        if !local {
            change(&mut transaction.kept);
        }
    }

    fn commit(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.now = transaction.kept;
        }
    }

    fn roll_back(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.now = transaction.before;
        }
    }

    /// A command that may begin or end a transaction, or a part of it, has succeeded.
    pub fn on_command_complete(&mut self, tag: &[u8]) {
        let Some(transaction) = &mut self.transaction else { return };
        match tag {
            b"BEGIN\0" | b"START TRANSACTION\0" => drop(transaction.steps.pop_front()),
            b"SAVEPOINT\0" => {
                if let Some(BlockStep::Savepoint(name)) = transaction.steps.pop_front() {
                    transaction.savepoints.push((name, self.now, transaction.kept));
                }
            }
            b"RELEASE\0" => {
                let Some(BlockStep::Release(name)) = transaction.steps.pop_front() else { return };
                // One that is not known is older than all that are.
                let at = transaction.savepoints.iter().rposition(|(known, ..)| *known == name);
                transaction.savepoints.truncate(at.unwrap_or(0));
            }
            b"COMMIT\0" | b"PREPARE TRANSACTION\0" => {
                self.commit();
            }
            b"ROLLBACK\0" => match transaction.steps.pop_front() {
                Some(BlockStep::RollbackTo(name)) => {
                    let at = transaction.savepoints.iter().rposition(|(known, ..)| *known == name);
                    let values = at.map(|at| &transaction.savepoints[at]);
                    let before = transaction.before;
                    (self.now, transaction.kept) = values.map_or((before, before), |(_, now, kept)| (*now, *kept));
                    transaction.savepoints.truncate(at.map_or(0, |at| at + 1));
                }
                _ => self.roll_back(),
            },
            _ => {}
        }
    }

    /// The server is ready for the next query.
    pub fn on_ready(&mut self, failed: bool, before: Status, now: Status) {
        if now == Status::Idle {
            self.end(!failed && before == Status::Idle);
        } else if let Some(transaction) = &mut self.transaction {
            transaction.steps.clear();
        }
    }

    /// The transaction is over, and its end was not a command of its own.
    fn end(&mut self, committed: bool) {
        if committed {
            self.commit()
        } else {
            self.roll_back()
        }
        self.portals.clear();
    }

    /// Does what a command says and writes the answer, without a description of rows.
    fn run(&mut self, command: &OwnCommand, in_block: bool, to_client: &mut Vec<u8>) -> Result<(), Report> {
        let (name, local, tag) = match command {
            // Takes more than the settings.
            OwnCommand::ExplainRoute { .. } => return Err(misplaced()),
            OwnCommand::Show { name } => {
                let name = Name::of(name)?;
                if name == Name::Lsn {
                    return Err(misplaced());
                }
                let value = self.now.get(name);
                reply::text_row([Some(&*value)], to_client);
                reply::command_complete("SHOW", to_client);
                return Ok(());
            }
            OwnCommand::Set { name, local, .. } => (name, *local, "SET"),
            OwnCommand::Reset { name, local, tag } => (name, *local, *tag),
        };
        let name = Name::of(name)?;
        let mut wanted = self.startup;
        if let OwnCommand::Set { values, .. } = command {
            let [value] = &**values else {
                let message = format!("SET {} takes only one argument", name.text());
                return Err(Report::error(SqlState::INVALID_PARAMETER_VALUE, message));
            };
            wanted.set(name, value)?;
        }
        if name == Name::Route
            && let Some(fixed) = self.fixed_route()
        {
            if wanted.route != fixed {
                return Err(fixed_by_listener(fixed));
            }
            wanted.by = RouteBy::Listener;
        }
        self.change(local, |settings| settings.copy(name, &wanted));
        if local && !in_block {
            let message = "SET LOCAL can only be used in transaction blocks";
            Report::error(SqlState::NO_ACTIVE_TRANSACTION, message).write_notice("WARNING", to_client);
        }
        reply::command_complete(tag, to_client);
        Ok(())
    }
}

/// Describes the row that a command answers with, in a format.
fn describe(command: &OwnCommand, format: u16, to_client: &mut Vec<u8>) -> Result<(), Report> {
    match command {
        OwnCommand::Show { name } => reply::text_columns([Name::of(name)?.text()], format, to_client),
        OwnCommand::Set { .. } | OwnCommand::Reset { .. } => to_client.extend_from_slice(&reply::NO_DATA),
        OwnCommand::ExplainRoute { .. } => explain::describe_route(format, to_client),
    }
    Ok(())
}

fn fixed_by_listener(route: Route) -> Report {
    let message = format!("parameter \"{}\" cannot be changed", Name::Route.text());
    let hint = format!("All sessions at the address that this one has connected to have the route {}.", route.name());
    Report::error(SqlState::CANNOT_CHANGE_PARAMETER, message).hint(hint)
}

fn misplaced() -> Report {
    Report::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "settings of Poolhouse cannot be named together with other statements, in set_config, or as a default",
    )
    .hint("Send SET, RESET or SHOW of poolhouse.… alone. A default is a matter of Poolhouse's own configuration.")
}

fn aborted() -> Report {
    Report::error(
        SqlState::IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// The only command of a prepared statement.
fn only(text: &Text) -> Result<&OwnCommand, Report> {
    match text {
        Text::Commands(commands) => match &**commands {
            [command] => Ok(command),
            _ => {
                Err(Report::error(SqlState::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement"))
            }
        },
        Text::Misplaced => Err(misplaced()),
    }
}

/// What stands behind the names of a Bind message to a statement without parameters: the format of its only column.
fn read_format(mut rest: &[u8]) -> Result<u16, Report> {
    let malformed = || Report::error(SqlState::PROTOCOL_VIOLATION, "invalid message format");
    let mut number = || {
        let (two, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        Some(u16::from_be_bytes(*two))
    };
    let mut list = || {
        let count = number()?;
        (0..count).map(|_| number()).collect::<Option<Vec<u16>>>()
    };
    list().ok_or_else(malformed)?;
    let parameters = number().ok_or_else(malformed)?;
    if parameters > 0 {
        let message = format!("bind message supplies {parameters} parameters, but the prepared statement requires 0");
        return Err(Report::error(SqlState::PROTOCOL_VIOLATION, message));
    }
    let mut list = || {
        let count = number()?;
        (0..count).map(|_| number()).collect::<Option<Vec<u16>>>()
    };
    Ok(list().ok_or_else(malformed)?.first().copied().unwrap_or(0))
}

/// Whether something that was sent has to be answered before a command of our own; in an open batch the server is asked
/// to say what it has to say so far.
fn waits(pipeline: &Pipeline, out: &mut Outboxes<'_>) -> bool {
    if pipeline.owed.is_empty() {
        return false;
    }
    if pipeline.owed.has_open_batch() {
        request::flush(out.to_server);
    }
    true
}

/// Whether a server is in a transaction of the client's, be it an implicit one.
fn is_open(pipeline: &Pipeline, attached: bool) -> bool {
    attached && (pipeline.owed.status() != Status::Idle || pipeline.owed.has_open_batch())
}

/// Where something is answered in a server's place.
pub(super) struct Here<'a, 'o> {
    pub pipeline: &'a mut Pipeline,
    /// The node of the server connection, if one is lent.
    pub node: Option<u16>,
    pub out: &'a mut Outboxes<'o>,
}

impl Session {
    /// Lets the session begin with these settings.
    pub fn steer(&mut self, startup: PoolhouseSettings) {
        if startup != PoolhouseSettings::default() {
            self.own = Some(Box::new(SettingsState { startup, now: startup, ..SettingsState::default() }));
        }
    }

    /// Poolhouse's own settings of the moment.
    pub fn poolhouse_settings(&self) -> PoolhouseSettings {
        self.own.as_ref().map_or_else(PoolhouseSettings::default, |own| own.now())
    }

    /// A simple query that names settings of our own, with the node of the server connection if there is one.
    pub(super) fn on_own_query(&mut self, text: &Text, judge: &impl Judge, here: &mut Here<'_, '_>) -> ClientStep {
        let &mut Here { ref mut pipeline, node, ref mut out } = here;
        if waits(pipeline, out) {
            return ClientStep::Hold;
        }
        let attached = node.is_some();
        let open = is_open(pipeline, attached);
        let mut answer = Vec::new();
        if let Err(report) = self.run_all(text, judge, &mut Here { pipeline, node, out }, &mut answer) {
            return self.fail_own(report, ClientMessage::Query, &mut Here { pipeline, node, out });
        }
        out.to_client.append(&mut answer);
        self.prepared.drop_unnamed();
        if open && pipeline.owed.has_open_batch() {
            // A query ends the batch before it, and only the server can say what has become of that.
            request::sync(out.to_server);
            pipeline.owed.push(Owed::Sync);
            return ClientStep::Answered;
        }
        if !open {
            self.end_own(true);
        }
        reply::ready_for_query(if open { pipeline.owed.status() } else { Status::Idle }, out.to_client);
        ClientStep::Answered
    }

    fn run_all(
        &mut self,
        text: &Text,
        judge: &impl Judge,
        here: &mut Here<'_, '_>,
        answer: &mut Vec<u8>,
    ) -> Result<(), Report> {
        let Text::Commands(commands) = text else { return Err(misplaced()) };
        if here.pipeline.owed.status() == Status::Failed {
            return Err(aborted());
        }
        for command in commands {
            if matches!(command, OwnCommand::Show { .. } | OwnCommand::ExplainRoute { .. }) {
                describe(command, 0, answer)?;
            }
            self.run_own(command, judge, here, answer)?;
        }
        Ok(())
    }

    fn run_own(
        &mut self,
        command: &OwnCommand,
        judge: &impl Judge,
        here: &mut Here<'_, '_>,
        answer: &mut Vec<u8>,
    ) -> Result<(), Report> {
        let &mut Here { ref mut pipeline, node, .. } = here;
        match command {
            OwnCommand::ExplainRoute { sql } => {
                let explained = self.explain_route(&Explained { sql, pipeline, node }, judge, answer);
                if node.is_none() {
                    // The next statement may find that more is known.
                    pipeline.forget_message();
                }
                explained
            }
            command => self.own.get_or_insert_default().run(command, pipeline.owed.status() != Status::Idle, answer),
        }
    }

    /// Parse of a text that names settings of our own. No server is told of it.
    pub(super) fn on_own_parse(
        &mut self,
        parse: &Parse<'_>,
        statement: Arc<Statement>,
        here: &mut Here<'_, '_>,
    ) -> ClientStep {
        let &mut Here { ref mut pipeline, node, ref mut out } = here;
        if waits(pipeline, out) {
            return ClientStep::Hold;
        }
        let checked = match statement.verdict.own.as_deref() {
            _ if pipeline.owed.status() == Status::Failed => Err(aborted()),
            Some(text) => only(text).map(drop),
            None => Ok(()),
        };
        let taken = !parse.name.is_empty() && self.prepared.get(parse.name, &pipeline.owed).is_some();
        let checked = checked.and_then(|()| if taken { Err(name_taken(parse.name)) } else { Ok(()) });
        if let Err(report) = checked {
            return self.fail_own(report, ClientMessage::Parse, &mut Here { pipeline, node, out });
        }
        if !parse.name.is_empty()
            && let Some(report) = self.prepared.too_much(parse, &pipeline.owed)
        {
            return ClientStep::fail(report);
        }
        self.prepared.set(parse.name, statement, 0);
        out.to_client.extend_from_slice(&reply::PARSE_COMPLETE);
        ClientStep::Answered
    }

    /// Bind of a statement of our own.
    pub(super) fn on_own_bind(
        &mut self,
        message: Shown<'_>,
        names: &BindNames<'_>,
        statement: Arc<Statement>,
        here: &mut Here<'_, '_>,
    ) -> ClientStep {
        let &mut Here { ref mut pipeline, node, ref mut out } = here;
        if waits(pipeline, out) {
            return ClientStep::Hold;
        }
        if !message.is_whole() {
            return if message.head.body <= BIND_BYTES_MAX {
                ClientStep::More
            } else {
                violation(wire::Error::Malformed("Bind"))
            };
        }
        let own = self.own.get_or_insert_default();
        let format = match read_format(&message.body[names.bytes..]) {
            _ if pipeline.owed.status() == Status::Failed => Err(aborted()),
            Ok(_) if own.portals.len() >= PORTALS_MAX => Err(Report::error(
                SqlState::LIMIT_EXCEEDED,
                format!("one client cannot hold more than {PORTALS_MAX} portals of settings of Poolhouse"),
            )),
            format => format,
        };
        match format {
            Ok(format) => {
                own.portals.retain(|portal| *portal.name != *names.portal);
                own.portals.push(SettingsPortal { name: names.portal.into(), statement, format });
                out.to_client.extend_from_slice(&reply::BIND_COMPLETE);
                ClientStep::Answered
            }
            Err(report) => self.fail_own(report, ClientMessage::Bind, &mut Here { pipeline, node, out }),
        }
    }

    /// Describe of a statement or portal of our own; `None` when it is not one.
    pub(super) fn on_own_describe(
        &mut self,
        object: Object<'_>,
        statement: Option<&Arc<Statement>>,
        here: &mut Here<'_, '_>,
    ) -> Option<ClientStep> {
        let &mut Here { ref mut pipeline, node, ref mut out } = here;
        let (text, format) = match object {
            Object::Statement(_) => (statement?.verdict.clone(), 0),
            Object::Portal(name) => {
                let portal = self.own_portal(name)?;
                (portal.statement.verdict.clone(), portal.format)
            }
        };
        let text = text.own.as_deref()?;
        if waits(pipeline, out) {
            return Some(ClientStep::Hold);
        }
        let mut answer = Vec::new();
        if matches!(object, Object::Statement(_)) {
            answer.extend_from_slice(&reply::NO_PARAMETERS);
        }
        Some(match only(text).and_then(|command| describe(command, format, &mut answer)) {
            Ok(()) => {
                out.to_client.append(&mut answer);
                ClientStep::Answered
            }
            Err(report) => self.fail_own(report, ClientMessage::Describe, &mut Here { pipeline, node, out }),
        })
    }

    /// Execute of a portal of our own; `None` when it is not one.
    pub(super) fn on_own_execute(
        &mut self,
        said: &Said<'_, impl Judge>,
        pipeline: &mut Pipeline,
        node: Option<u16>,
        out: &mut Outboxes<'_>,
    ) -> Option<ClientStep> {
        let Said { shown: message, judge, .. } = *said;
        if self.own.as_ref()?.portals.is_empty() {
            return None;
        }
        let Some((name, _)) = wire::frame::split_text(message.body) else {
            return (!message.is_whole()).then_some(ClientStep::More);
        };
        let verdict = self.own_portal(name)?.statement.verdict.clone();
        if waits(pipeline, out) {
            return Some(ClientStep::Hold);
        }
        let mut answer = Vec::new();
        let run = match verdict.own.as_deref().map(only)? {
            _ if pipeline.owed.status() == Status::Failed => Err(aborted()),
            Ok(command) => self.run_own(command, judge, &mut Here { pipeline, node, out }, &mut answer),
            Err(report) => Err(report),
        };
        Some(match run {
            Ok(()) => {
                out.to_client.append(&mut answer);
                ClientStep::Answered
            }
            Err(report) => self.fail_own(report, ClientMessage::Execute, &mut Here { pipeline, node, out }),
        })
    }

    fn own_portal(&self, name: &[u8]) -> Option<&SettingsPortal> {
        self.own.as_ref()?.portals.iter().find(|portal| *portal.name == *name)
    }

    /// A portal of this name is bound by the server or closed, so there is none of our own.
    pub(super) fn forget_own_portal(&mut self, name: &[u8]) {
        if let Some(own) = &mut self.own {
            own.portals.retain(|portal| *portal.name != *name);
        }
    }

    /// Notes what a statement that goes to a server will do to settings of our own. `Some` when it cannot go yet, or not
    /// at all.
    pub(super) fn note_own(
        &mut self,
        verdict: Option<&KnownText>,
        request: ClientMessage,
        lent: &mut Lent<'_, '_>,
    ) -> Option<ClientStep> {
        let Lent { pipeline, server, out } = lent;
        if self.own.as_ref()?.now.explain {
            if pipeline.owed.ready_owed() > 0 {
                return Some(ClientStep::Hold);
            }
            let why = self.explanation(verdict, pipeline, server);
            self.own.as_mut()?.explanation.get_or_insert(why);
        }
        let (own, verdict) = (self.own.as_mut()?, verdict?);
        let resets = own.now != own.startup && verdict.settings.contains(&SettingChange::ResetAll);
        let ends = own.transaction.is_some() && !verdict.steps.is_empty();
        if !resets && !ends {
            return None;
        }
        if waits(pipeline, out) {
            return Some(ClientStep::Hold);
        }
        if resets && !verdict.steps.is_empty() {
            return Some(self.fail_own(misplaced(), request, &mut Here { pipeline, node: Some(server.node), out }));
        }
        if resets {
            let startup = own.startup;
            own.change(false, |settings| *settings = startup);
        }
        if let Some(transaction) = &mut own.transaction {
            transaction.steps = verdict.steps.iter().cloned().collect();
        }
        None
    }

    /// A reply to the client's statement has passed: what is to be said of the statement follows.
    pub(super) fn explain(&mut self, out: &mut Outboxes<'_>) {
        let Some(own) = &mut self.own else { return };
        if let Some(warning) = own.warning.take() {
            let hint = "A hint is primary, replica, or node=NAME with the node's address as it is configured.";
            Report::error(SqlState::WARNING, warning).hint(hint).write_notice("WARNING", out.to_client);
        }
        if let Some(explanation) = own.explanation.take() {
            Report::error(SqlState::SUCCESS, explanation).write_notice("NOTICE", out.to_client);
        }
    }

    /// A batch without a server has ended, or what a transaction has changed is lost with its server.
    pub(super) fn end_own(&mut self, committed: bool) {
        if let Some(own) = &mut self.own {
            own.end(committed);
        }
    }

    /// The answer to a message is an error. A transaction at a server has to fail with it, and only the server can let it
    /// fail: it is sent what it must refuse, and its words are replaced by ours.
    fn fail_own(&mut self, report: Report, request: ClientMessage, here: &mut Here<'_, '_>) -> ClientStep {
        let &mut Here { ref mut pipeline, node, ref mut out } = here;
        if !is_open(pipeline, node.is_some()) {
            self.end_own(false);
            return self.refuse(&report, request, out);
        }
        let refused = Parse { name: b"", sql: b"refused by Poolhouse", types: b"\0\0" };
        refused.write(b"", out.to_server);
        pipeline.owed.push(Owed::Refused { report: Box::new(report) });
        if request == ClientMessage::Query {
            request::sync(out.to_server);
            pipeline.owed.push(Owed::Sync);
        }
        ClientStep::Answered
    }
}

fn name_taken(name: &[u8]) -> Report {
    let message = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
    Report::error(SqlState::DUPLICATE_PREPARED_STATEMENT, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::judge;

    fn try_run(own: &mut SettingsState, sql: &str) -> Result<String, Report> {
        let verdict = judge(sql);
        let Some(Text::Commands(commands)) = verdict.own.as_deref() else { panic!("{sql} is not our own") };
        let mut out = Vec::new();
        for command in commands {
            own.run(command, own.transaction.is_some(), &mut out)?;
        }
        Ok(format!("{} {}", own.now.get(Name::Route), own.now.get(Name::Explain)))
    }

    fn refused(sql: &str) -> (&'static str, String, Option<String>) {
        let report = try_run(&mut SettingsState::default(), sql).unwrap_err();
        (report.code.0, report.message, report.hint)
    }

    #[test]
    fn values() {
        let own = &mut SettingsState::default();
        let mut check = |sql: &str, expected: &str| assert_eq!(try_run(own, sql).as_deref(), Ok(expected), "{sql}");
        check("SET poolhouse.route = 'replica'", "replica off");
        check("SET SESSION POOLHOUSE.Route TO 'Primary'; SET \"Poolhouse.Explain\" = on", "primary on");
        check("SET poolhouse.explain = 0", "primary off");
        check("SET poolhouse.explain = true", "primary on");
        check("SHOW poolhouse.route", "primary on");
        check("SET poolhouse.route TO DEFAULT", "auto on");
        check("RESET poolhouse.explain", "auto off");

        let hint = |text: &str| Some(text.to_owned());
        assert_eq!(
            refused("SET poolhouse.route = 'standby'"),
            (
                "22023",
                "invalid value for parameter \"poolhouse.route\": \"standby\"".into(),
                hint("Available values: auto, primary, replica.")
            )
        );
        assert_eq!(
            refused("SET poolhouse.explain = 'o'"),
            (
                "22023",
                "parameter \"poolhouse.explain\" requires a Boolean value".into(),
                hint("Available values: on, off.")
            )
        );
        assert_eq!(refused("SET poolhouse.route = auto, replica").0, "22023");
        assert_eq!(
            refused("SHOW poolhouse.rout"),
            (
                "42704",
                "unrecognized configuration parameter \"poolhouse.rout\"".into(),
                hint("Perhaps you meant \"poolhouse.route\".")
            )
        );
        assert_eq!(
            refused("RESET poolhouse.something").2,
            hint("Poolhouse has these: poolhouse.route, poolhouse.explain, poolhouse.lsn.")
        );
        assert_eq!(refused("SET poolhouse.lsn = '0/1; x'").0, "22023");
        assert_eq!(refused("SHOW poolhouse.lsn").0, "0A000", "only a server can tell, and not among others");
    }

    #[test]
    fn positions() {
        for (text, expected) in [
            ("0/16B3748", Some(0x16B_3748)),
            ("1A/2b", Some(0x1A_0000_002B)),
            ("FFFFFFFF/FFFFFFFF", Some(u64::MAX)),
            ("0/0", Some(0)),
            // Behind a header, nothing is to be seen.
            ("0/4000028", Some(0x400_0000)),
            ("0/4002018", Some(0x400_2000)),
            ("0/4002028", Some(0x400_2028)),
            ("", None),
            ("0", None),
            ("0/", None),
            ("/0", None),
            ("0/123456789", None),
            ("+1/0", None),
            ("0/1/2", None),
            ("x/y", None),
        ] {
            assert_eq!(position(text), expected, "{text}");
        }
        let own = &mut SettingsState::default();
        try_run(own, "SET poolhouse.lsn = ' 1a/2B '").unwrap();
        assert_eq!((own.now.lsn, &*own.now.get(Name::Lsn)), (Some(0x1A_0000_002B), "1A/2B"));
        try_run(own, "SET poolhouse.lsn = ''").unwrap();
        assert_eq!((own.now.lsn, &*own.now.get(Name::Lsn)), (None, ""));
    }

    #[test]
    fn truth_values_may_be_cut_short() {
        for (text, expected) in [
            ("on", Some(true)),
            ("T", Some(true)),
            ("y", Some(true)),
            ("1", Some(true)),
            ("of", Some(false)),
            ("fals", Some(false)),
            ("no", Some(false)),
            ("0", Some(false)),
            ("o", None),
            ("", None),
            ("2", None),
            ("truely", None),
        ] {
            assert_eq!(truth(text), expected, "{text}");
        }
    }

    #[test]
    fn a_fixed_route_stays() {
        let startup =
            PoolhouseSettings { route: Route::Replica, by: RouteBy::Listener, ..PoolhouseSettings::default() };
        let own = &mut SettingsState { startup, now: startup, ..SettingsState::default() };
        assert_eq!(try_run(own, "SET poolhouse.route = 'auto'").unwrap_err().code.0, "55P02");
        assert_eq!(
            try_run(own, "SET poolhouse.route = 'replica'; RESET poolhouse.route").as_deref(),
            Ok("replica off")
        );
    }

    #[test]
    fn startup_parameters() {
        let mut startup =
            vec![("application_name".to_owned(), "a".to_owned()), ("poolhouse.route".to_owned(), "REPLICA".to_owned())];
        let mut settings = PoolhouseSettings::default();
        settings.take(&mut startup).unwrap();
        assert_eq!((settings.route, startup.len()), (Route::Replica, 1));
        startup.push(("poolhouse.root".to_owned(), "x".to_owned()));
        let report = settings.take(&mut startup).unwrap_err();
        assert_eq!((report.fatal, report.code.0), (true, "42704"));
    }

    /// Plays statements in a transaction: ours are run, others succeed with their tag.
    fn play(own: &mut SettingsState, statements: &[&str]) -> String {
        for sql in statements {
            let verdict = judge(sql);
            if verdict.own.is_some() {
                try_run(own, sql).unwrap();
                continue;
            }
            if let Some(transaction) = &mut own.transaction {
                transaction.steps = verdict.steps.iter().cloned().collect();
            }
            let tag = match verdict.steps.first() {
                Some(BlockStep::Begin) => "BEGIN",
                Some(BlockStep::Commit) => "COMMIT",
                Some(BlockStep::Rollback | BlockStep::RollbackTo(_)) => "ROLLBACK",
                Some(BlockStep::Savepoint(_)) => "SAVEPOINT",
                Some(BlockStep::Release(_)) => "RELEASE",
                None => "SELECT 1",
            };
            own.on_command_complete(format!("{tag}\0").as_bytes());
        }
        own.now.get(Name::Route).into_owned()
    }

    #[test]
    fn transactions_undo_what_they_have_set() {
        const PRIMARY: &str = "SET poolhouse.route = 'primary'";
        const REPLICA: &str = "SET poolhouse.route = 'replica'";
        const LOCAL: &str = "SET LOCAL poolhouse.route = 'replica'";
        let check = |statements: &[&str], then: &str, committed: &str| {
            assert_eq!(play(&mut SettingsState::default(), statements), then, "{statements:?}");
            let all = [statements, &["COMMIT"]].concat();
            assert_eq!(play(&mut SettingsState::default(), &all), committed, "{all:?}");
            let all = [statements, &["ROLLBACK"]].concat();
            assert_eq!(play(&mut SettingsState::default(), &all), "auto", "{all:?}");
        };
        check(&[PRIMARY], "primary", "primary");
        check(&[LOCAL], "replica", "auto");
        check(&[PRIMARY, LOCAL], "replica", "primary");
        check(&[LOCAL, PRIMARY], "primary", "primary");
        check(&["SAVEPOINT a", PRIMARY, "ROLLBACK TO a"], "auto", "auto");
        check(&[PRIMARY, "SAVEPOINT a", REPLICA, "ROLLBACK TO a"], "primary", "primary");
        check(&[PRIMARY, "SAVEPOINT a", REPLICA, "RELEASE a"], "replica", "replica");
        check(&[PRIMARY, "SAVEPOINT a", LOCAL, "RELEASE a"], "replica", "primary");
        check(&[PRIMARY, "SAVEPOINT a", LOCAL, "ROLLBACK TO a", LOCAL, "ROLLBACK TO a"], "primary", "primary");
        check(
            &[PRIMARY, "SAVEPOINT a", REPLICA, "SAVEPOINT a", "RELEASE a", "ROLLBACK TO SAVEPOINT \"a\""],
            "primary",
            "primary",
        );
        check(&["SAVEPOINT a", PRIMARY, "SAVEPOINT b", "RELEASE a"], "primary", "primary");
        check(&[PRIMARY, "SAVEPOINT a", REPLICA, "SELECT 1", "ROLLBACK TO b"], "auto", "auto");
    }

    #[test]
    fn the_end_of_a_batch_decides() {
        let run = |failed, before, now| {
            let mut own = SettingsState::default();
            try_run(&mut own, "SET poolhouse.route = 'primary'").unwrap();
            own.on_ready(failed, before, now);
            (own.now.route, own.transaction.is_some())
        };
        assert_eq!(run(false, Status::Idle, Status::Idle), (Route::Primary, false));
        assert_eq!(run(true, Status::Idle, Status::Idle), (Route::Auto, false));
        assert_eq!(run(false, Status::Transaction, Status::Transaction), (Route::Primary, true));
        // COMMIT of what has failed.
        assert_eq!(run(false, Status::Failed, Status::Idle), (Route::Auto, false));
    }

    #[test]
    fn bind_messages() {
        assert_eq!(read_format(b"\0\0\0\0\0\0"), Ok(0));
        assert_eq!(read_format(b"\0\x01\0\x01\0\0\0\x01\0\x01"), Ok(1));
        assert_eq!(read_format(b"\0\0\0\x01\0\0\0\x01x\0\0").unwrap_err().code.0, "08P01");
        assert_eq!(read_format(b"\0\0").unwrap_err().code.0, "08P01");
    }
}
