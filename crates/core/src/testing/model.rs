//! A model of a PostgreSQL server, as far as a pooled conversation can tell: prepared statements, portals, transactions,
//! settings, COPY, errors and the point at which replies are flushed. It knows a handful of statements by their text.
//!
//! Which error comes first, and what an aborted transaction still accepts, was tried out on PostgreSQL 15.

use std::collections::{BTreeMap, VecDeque};

use super::message::{frame, take_messages, texts};
use crate::wire::reply;

/// The settings that the model knows, with their defaults; the first two are reported.
const DEFAULTS: [(&str, &str); 5] =
    [("application_name", ""), ("timezone", "UTC"), ("app.x", ""), ("role", "none"), ("work_mem", "4MB")];

/// A value, and whether the session has set it.
type Settings = BTreeMap<String, (String, bool)>;

#[derive(Debug, Clone)]
struct Portal {
    sql: String,
    /// Rows that were given already; `None` before the first Execute.
    given: Option<u32>,
    done: bool,
}

/// An open transaction.
#[derive(Debug, Clone)]
struct Transaction {
    /// BEGIN was said; otherwise it ends with the Query or Sync.
    block: bool,
    failed: bool,
    read_only: bool,
    saved: Settings,
    /// What COMMIT leaves: without SET LOCAL.
    lasting: Settings,
    saved_pins: Vec<&'static str>,
    /// A deferred constraint is broken: COMMIT fails.
    broken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Simple,
    Extended,
}

/// One connection to the model of a server.
#[derive(Debug)]
pub struct Model {
    input: Vec<u8>,
    /// Written, not flushed.
    output: Vec<u8>,
    flushed: Vec<u8>,
    pub statements: BTreeMap<String, String>,
    portals: BTreeMap<String, Portal>,
    transaction: Option<Transaction>,
    settings: Settings,
    reported: BTreeMap<String, String>,
    /// Session state that cannot move.
    pub pins: Vec<&'static str>,
    skipping: bool,
    open_batch: bool,
    copy: Option<(Protocol, u32)>,
    /// What is left of a simple query of several statements.
    simple: VecDeque<String>,
    /// What its only sequence has given, since values were forgotten.
    drawn: Option<u32>,
    /// A replica: refuses to write.
    pub read_only: bool,
    /// `SET role` is refused: the role is gone.
    pub no_roles: bool,
    /// A cancel request hits the next statement but a read.
    pub canceled: bool,
    /// Messages that it has read, told, for a transcript.
    pub heard: Vec<(u8, Vec<u8>)>,
    /// The client broke the protocol in a way that ends the connection.
    pub closed: bool,
}

struct Refused {
    code: &'static str,
    text: String,
}

fn refused<T>(code: &'static str, text: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { code, text: text.into() })
}

impl Default for Model {
    fn default() -> Self {
        let settings: Settings =
            DEFAULTS.iter().map(|(name, value)| (name.to_string(), (value.to_string(), false))).collect();
        let mut model = Model {
            input: Vec::new(),
            output: Vec::new(),
            flushed: Vec::new(),
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            transaction: None,
            settings,
            reported: BTreeMap::new(),
            pins: Vec::new(),
            skipping: false,
            open_batch: false,
            copy: None,
            simple: VecDeque::new(),
            drawn: None,
            read_only: false,
            no_roles: false,
            canceled: false,
            heard: Vec::new(),
            closed: false,
        };
        model.report();
        model.flushed.clear();
        model.output.clear();
        model
    }
}

/// The texts between `before` and the next quote, wherever they are in `sql`.
pub fn literals(sql: &str, before: &str) -> Vec<String> {
    sql.split(before).skip(1).filter_map(|rest| rest.split('\'').next()).map(str::to_owned).collect()
}

impl Model {
    pub fn new(read_only: bool) -> Model {
        Model { read_only, ..Model::default() }
    }

    /// COPY FROM STDIN runs: data is expected.
    pub fn is_in_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Messages of the extended protocol have come since the last Sync.
    pub fn has_open_batch(&self) -> bool {
        self.skipping || self.open_batch
    }

    pub fn has_unnamed_portal(&self) -> bool {
        self.portals.contains_key("")
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub fn has_input(&self) -> bool {
        crate::wire::header(&self.input).is_ok_and(|head| head.is_some_and(|head| self.input.len() >= head.message()))
    }

    /// Replies that have been flushed and not fetched.
    pub fn has_output(&self) -> bool {
        !self.flushed.is_empty()
    }

    /// Fetches at most `most` bytes of what was flushed.
    pub fn fetch(&mut self, most: usize) -> Vec<u8> {
        let rest = self.flushed.split_off(most.min(self.flushed.len()));
        std::mem::replace(&mut self.flushed, rest)
    }

    /// All that was flushed and not fetched.
    pub fn written_and_flushed(&self) -> Vec<u8> {
        self.flushed.clone()
    }

    /// All that was written and not fetched, flushed or not.
    pub fn written(&self) -> Vec<u8> {
        [&self.flushed[..], &self.output[..]].concat()
    }

    /// Nothing is under way, and nothing of a transaction is open.
    pub fn is_at_rest(&self) -> bool {
        self.input.is_empty()
            && self.output.is_empty()
            && self.flushed.is_empty()
            && self.transaction.is_none()
            && !self.skipping
            && self.copy.is_none()
    }

    /// A simple query would be answered at once, whoever sends it.
    pub fn takes_a_query(&self) -> bool {
        let implicit = self.transaction.as_ref().is_some_and(|transaction| !transaction.block);
        !self.closed && self.input.is_empty() && !self.skipping && self.copy.is_none() && !implicit
    }

    /// What the session has set.
    pub fn set_by_session(&self) -> Vec<(String, String)> {
        let set = self.settings.iter().filter(|(_, (_, set))| *set);
        set.map(|(name, (value, _))| (name.clone(), value.clone())).collect()
    }

    pub fn reported(&self) -> Vec<(String, String)> {
        self.reported.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// ROLLBACK and DISCARD ALL.
    pub fn clean(&mut self) {
        *self = Model { read_only: self.read_only, no_roles: self.no_roles, ..Model::default() };
    }

    /// Reads one message and answers it.
    pub fn step(&mut self) {
        let mut first = std::mem::take(&mut self.input);
        let head = crate::wire::header(&first).unwrap().expect("has_input was asked");
        self.input = first.split_off(head.message());
        for (tag, body) in take_messages(&mut first) {
            self.heard.push((tag, body.clone()));
            self.handle(tag, &body);
        }
    }

    fn flush(&mut self) {
        self.flushed.append(&mut self.output);
    }

    fn say(&mut self, tag: u8, body: &[u8]) {
        frame(tag, &[body], &mut self.output);
    }

    fn error(&mut self, refused: &Refused) {
        let body = format!("SERROR\0VERROR\0C{}\0M{}\0\0", refused.code, refused.text);
        self.say(b'E', body.as_bytes());
        self.flush();
    }

    fn notice(&mut self, text: &str) {
        self.say(b'N', format!("SWARNING\0VWARNING\0C25P01\0M{text}\0\0").as_bytes());
    }

    fn report(&mut self) {
        for name in ["application_name", "timezone"] {
            let value = self.settings[name].0.clone();
            if self.reported.get(name) != Some(&value) {
                reply::parameter_status(name, &value, &mut self.output);
                self.reported.insert(name.to_owned(), value);
            }
        }
    }

    fn ready(&mut self) {
        self.report();
        let status = match &self.transaction {
            None => b"I",
            Some(transaction) if transaction.failed => b"E",
            Some(_) => b"T",
        };
        self.say(b'Z', status);
        self.flush();
    }

    fn handle(&mut self, tag: u8, body: &[u8]) {
        self.open_batch = !matches!(tag, b'Q' | b'S') && (self.open_batch || !matches!(tag, b'd' | b'c' | b'f' | b'H'));
        if let Some((protocol, rows)) = self.copy {
            return self.in_copy(protocol, rows, tag, body);
        }
        match tag {
            b'S' => {
                self.skipping = false;
                if let Err(error) = self.end_implicit() {
                    self.error(&error);
                }
                self.ready();
            }
            b'X' => {}
            _ if self.skipping => {}
            b'F' => self.call(body),
            b'B' | b'E' | b'H' if body.ends_with(b"\xff") => {
                self.error(&Refused { code: "08P01", text: "invalid message format".into() });
                self.fail_transaction();
                self.skipping = true;
            }
            b'Q' => self.query(&texts::<1>(body).0[0]),
            b'H' => self.flush(),
            b'd' | b'c' | b'f' => {}
            _ => {
                if let Err(error) = self.extended(tag, body) {
                    self.error(&error);
                    self.fail_transaction();
                    self.skipping = true;
                }
            }
        }
    }

    /// A function call is a query of its own, and takes no prepared statement away.
    fn call(&mut self, body: &[u8]) {
        self.begin_implicit();
        let called = match body.len() {
            _ if self.is_failed() => refused("25P02", "current transaction is aborted"),
            0..6 => refused("08P01", "insufficient data left in message"),
            _ => {
                self.say(b'V', b"\xff\xff\xff\xff");
                Ok(())
            }
        };
        if let Err(error) = called.and_then(|()| self.end_implicit()) {
            self.error(&error);
            self.fail_transaction();
        }
        self.ready();
    }

    fn in_copy(&mut self, protocol: Protocol, rows: u32, tag: u8, body: &[u8]) {
        let error = match tag {
            b'd' if body != b"bad" => {
                self.copy = Some((protocol, rows + 1));
                return;
            }
            b'S' | b'H' => return,
            b'c' => {
                self.copy = None;
                self.say(b'C', format!("COPY {rows}\0").as_bytes());
                if protocol == Protocol::Simple {
                    self.go_on_simple();
                }
                return;
            }
            b'd' => Refused { code: "22P04", text: "bad data".into() },
            b'f' => Refused { code: "57014", text: "COPY from stdin failed".into() },
            _ => {
                self.error(&Refused { code: "08P01", text: "unexpected message during COPY from stdin".into() });
                self.say(b'E', b"SFATAL\0VFATAL\0C08P01\0Mprotocol synchronization was lost\0\0");
                self.flush();
                self.closed = true;
                return;
            }
        };
        self.copy = None;
        self.error(&error);
        self.fail_transaction();
        if protocol == Protocol::Simple {
            self.simple.clear();
            self.ready();
        } else {
            self.skipping = true;
        }
    }

    fn begin_implicit(&mut self) {
        if self.transaction.is_none() {
            self.transaction = Some(Transaction {
                block: false,
                failed: false,
                read_only: false,
                saved: self.settings.clone(),
                lasting: self.settings.clone(),
                saved_pins: self.pins.clone(),
                broken: false,
            });
        }
    }

    fn end_implicit(&mut self) -> Result<(), Refused> {
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.block) { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Refused> {
        self.portals.clear();
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        if transaction.failed || transaction.broken {
            (self.settings, self.pins) = (transaction.saved, transaction.saved_pins);
            if transaction.broken {
                return refused("23505", "the deferred constraint is broken");
            }
        } else {
            self.settings = transaction.lasting;
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.portals.clear();
        if let Some(transaction) = self.transaction.take() {
            (self.settings, self.pins) = (transaction.saved, transaction.saved_pins);
        }
    }

    fn fail_transaction(&mut self) {
        self.portals.clear();
        match &mut self.transaction {
            Some(transaction) if transaction.block => {
                transaction.failed = true;
                self.settings = transaction.saved.clone();
                transaction.broken = false;
            }
            _ => self.rollback(),
        }
    }

    pub fn is_failed(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.failed)
    }

    fn query(&mut self, sql: &str) {
        let sql = bare(sql);
        self.statements.remove("");
        self.portals.remove("");
        let ours = sql.starts_with("SELECT 's'") || sql.contains("set_config(E'");
        self.simple = if ours { VecDeque::from([sql.to_owned()]) } else { sql.split(';').map(str::to_owned).collect() };
        self.simple.retain(|sql| !sql.trim().is_empty());
        if self.simple.is_empty() {
            self.say(b'I', b"");
        }
        self.go_on_simple();
    }

    fn go_on_simple(&mut self) {
        while let Some(sql) = self.simple.pop_front() {
            self.begin_implicit();
            let analysed = if sql == "SELEC" { analyse(&sql) } else { self.check_aborted(&sql) };
            let done = analysed.and_then(|()| analyse(&sql)).and_then(|()| {
                if has_rows(&sql) {
                    self.say(b'T', b"\0\0");
                }
                let mut portal = Portal { sql: sql.clone(), given: None, done: false };
                self.run(&mut portal, 0, Protocol::Simple)
            });
            match done {
                Ok(()) if self.copy.is_some() => return,
                Ok(()) => {}
                Err(error) => {
                    self.error(&error);
                    self.fail_transaction();
                    self.simple.clear();
                    return self.ready();
                }
            }
        }
        if let Err(error) = self.end_implicit() {
            self.error(&error);
        }
        self.ready();
    }

    fn check_aborted(&self, sql: &str) -> Result<(), Refused> {
        if self.is_failed() && !matches!(sql.trim(), "COMMIT" | "ROLLBACK") {
            return refused("25P02", "current transaction is aborted, commands ignored until end of transaction block");
        }
        Ok(())
    }

    fn extended(&mut self, tag: u8, body: &[u8]) -> Result<(), Refused> {
        self.begin_implicit();
        match tag {
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' if body[0] == b'S' => self.describe_statement(&texts::<1>(&body[1..]).0[0]),
            b'D' => {
                let portal = self.portal(&texts::<1>(&body[1..]).0[0])?.sql;
                if has_rows(&portal) {
                    self.say(b'T', b"\0\0")
                } else {
                    self.say(b'n', b"")
                }
                Ok(())
            }
            b'E' => {
                let ([name], limit) = texts(body);
                let mut portal = self.portal(&name)?;
                self.check_aborted(&portal.sql)?;
                let limit = u32::from_be_bytes(limit.try_into().unwrap_or_default());
                self.run(&mut portal, limit, Protocol::Extended)?;
                if let Some(kept) = self.portals.get_mut(&name) {
                    *kept = portal;
                }
                Ok(())
            }
            b'C' => {
                let ([name], _) = texts(&body[1..]);
                if body[0] == b'S' {
                    self.statements.remove(&name);
                } else {
                    self.portals.remove(&name);
                }
                self.say(b'3', b"");
                Ok(())
            }
            tag => panic!("the model does not know {tag}"),
        }
    }

    fn portal(&self, name: &str) -> Result<Portal, Refused> {
        match self.portals.get(name) {
            Some(portal) => Ok(portal.clone()),
            None => refused("34000", format!("portal \"{name}\" does not exist")),
        }
    }

    fn statement(&self, name: &str) -> Result<String, Refused> {
        match self.statements.get(name) {
            Some(sql) => Ok(sql.clone()),
            None if name.is_empty() => refused("26000", "unnamed prepared statement does not exist"),
            None => refused("26000", format!("prepared statement \"{name}\" does not exist")),
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Refused> {
        let ([name, sql], _) = texts(body);
        let sql = bare(&sql).to_owned();
        if name.is_empty() {
            self.statements.remove("");
        }
        if let Some(word) = sql.split(' ').next().filter(|word| matches!(*word, "SELEC" | "refused")) {
            return refused("42601", format!("syntax error at or near \"{word}\""));
        }
        self.check_aborted(&sql)?;
        analyse(&sql)?;
        if self.statements.contains_key(&name) {
            return refused("42P05", format!("prepared statement \"{name}\" already exists"));
        }
        self.statements.insert(name, sql);
        self.say(b'1', b"");
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Refused> {
        let ([name, statement], _) = texts(body);
        let sql = self.statement(&statement)?;
        self.check_aborted(&sql)?;
        if name.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&name) {
            return refused("42P03", format!("cursor \"{name}\" already exists"));
        }
        if sql == "SELECT 1/0" {
            return refused("22012", "division by zero");
        }
        self.portals.insert(name, Portal { sql, given: None, done: false });
        self.say(b'2', b"");
        Ok(())
    }

    fn describe_statement(&mut self, name: &str) -> Result<(), Refused> {
        let sql = self.statement(name)?;
        if has_rows(&sql) {
            self.check_aborted(&sql)?;
        }
        self.say(b't', b"\0\0");
        if has_rows(&sql) {
            self.say(b'T', b"\0\0")
        } else {
            self.say(b'n', b"")
        }
        Ok(())
    }

    fn complete(&mut self, tag: &str) {
        self.say(b'C', format!("{tag}\0").as_bytes());
    }

    fn row(&mut self, columns: &[Option<&str>]) {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for column in columns {
            body.extend_from_slice(&column.map_or(-1, |text| text.len() as i32).to_be_bytes());
            body.extend_from_slice(column.unwrap_or_default().as_bytes());
        }
        self.say(b'D', &body);
    }

    fn rows(&mut self, portal: &mut Portal, limit: u32, all: u32, value: &str, tag: &str) {
        let given = portal.given.unwrap_or(0);
        let now = if limit == 0 { all - given } else { limit.min(all - given) };
        for row in given..given + now {
            self.row(&[Some(&format!("{value}{row}"))]);
        }
        portal.given = Some(given + now);
        if limit > 0 && now == limit {
            self.say(b's', b"");
        } else {
            self.complete(&format!("{tag} {now}"));
        }
    }

    fn run(&mut self, portal: &mut Portal, limit: u32, protocol: Protocol) -> Result<(), Refused> {
        let sql = portal.sql.trim().to_owned();
        match sql.as_str() {
            "" => {
                self.say(b'I', b"");
                return Ok(());
            }
            "SELECT 1" | "SELECT 2" => {
                self.rows(portal, limit, 1, &sql[7..], "SELECT");
                return Ok(());
            }
            "SELECT lastval()" => {
                let Some(drawn) = self.drawn else {
                    return refused("55000", "lastval is not yet defined in this session");
                };
                self.rows(portal, limit, 1, &format!("drawn {drawn}, "), "SELECT");
                return Ok(());
            }
            "TABLE five" => {
                self.rows(portal, limit, 5, "row ", "SELECT");
                return Ok(());
            }
            _ => {}
        }
        if let Some(name) = sql.strip_prefix("SHOW ") {
            let value = self.settings[name].0.clone();
            self.rows(portal, limit, 1, &format!("{value} "), "SHOW");
            return Ok(());
        }
        if std::mem::replace(&mut portal.done, true) {
            return refused("55000", "portal cannot be run");
        }
        self.run_once(&sql, protocol)
    }

    fn run_once(&mut self, sql: &str, protocol: Protocol) -> Result<(), Refused> {
        if std::mem::take(&mut self.canceled) {
            return refused("57014", "canceling statement due to user request");
        }
        let block = self.transaction.as_ref().filter(|transaction| transaction.block);
        let writes = ["INSERT", "COPY t FROM"].iter().any(|verb| sql.starts_with(verb));
        // A standby alone refuses LISTEN; here both do, since nothing can be done about that.
        let in_block = ["CREATE", "LISTEN"].iter().any(|verb| sql.starts_with(verb));
        let refuses = match block {
            Some(block) if block.read_only => writes || in_block,
            // SET would do, and is not sent here.
            _ => self.read_only && (writes || sql.starts_with("SET")),
        };
        if refuses {
            return refused("25006", "cannot execute in a read-only transaction");
        }
        match sql {
            "SELECT 1/0" | "SELECT 1/zero FROM t" => return refused("22012", "division by zero"),
            "INSERT INTO t VALUES (1)" => {
                self.drawn = Some(self.drawn.unwrap_or(0) + 1);
                self.complete("INSERT 0 1");
            }
            "DISCARD SEQUENCES" => {
                self.drawn = None;
                self.complete("DISCARD SEQUENCES");
            }
            "INSERT INTO deferred VALUES (1)" => {
                self.begin_implicit();
                self.transaction.as_mut().expect("begun").broken = true;
                self.complete("INSERT 0 1");
            }
            "BEGIN" => self.begin_block(self.read_only),
            "BEGIN READ ONLY" => self.begin_block(true),
            "COMMIT" => return self.commit_block(),
            "ROLLBACK" => {
                self.warn_without_block();
                self.rollback();
                self.complete("ROLLBACK");
            }
            "LISTEN c" => self.pin("listen", "LISTEN"),
            "CREATE TEMP TABLE tmp (a int)" => self.pin("temporary table", "CREATE TABLE"),
            "DISCARD ALL" => return self.discard(),
            "DEALLOCATE ALL" => {
                self.statements.retain(|name, _| name.is_empty());
                self.complete("DEALLOCATE ALL");
            }
            "COPY t FROM STDIN" => {
                self.say(b'G', b"\0\0\0");
                self.flush();
                self.copy = Some((protocol, 0));
            }
            "COPY t TO STDOUT" => {
                for (tag, body) in [(b'H', &b"\0\0\0"[..]), (b'd', b"one\n"), (b'd', b"two\n"), (b'c', b"")] {
                    self.say(tag, body);
                }
                self.complete("COPY 2");
            }
            _ => return self.run_setting(sql),
        }
        Ok(())
    }

    fn run_setting(&mut self, sql: &str) -> Result<(), Refused> {
        if let Some(name) = sql.strip_prefix("DEALLOCATE ") {
            return match self.statements.remove(name) {
                Some(_) => {
                    self.complete("DEALLOCATE");
                    Ok(())
                }
                None => refused("26000", format!("prepared statement \"{name}\" does not exist")),
            };
        }
        if sql.starts_with("SELECT 's'") {
            self.answer_probe(sql);
            return Ok(());
        }
        if sql.contains("set_config(") {
            return self.set_configs(sql);
        }
        if sql == "RESET ALL" {
            for (name, default) in DEFAULTS {
                if name != "role" {
                    self.set(name, default, true, false);
                }
            }
            self.complete("RESET");
            return Ok(());
        }
        if let Some(name) = sql.strip_prefix("RESET ") {
            let name = name.replace('"', "");
            let default = DEFAULTS.iter().find(|(known, _)| *known == name).map_or("", |(_, default)| default);
            self.set(&name, default, true, false);
            self.complete("RESET");
            return Ok(());
        }
        let (local, rest) = match sql.strip_prefix("SET LOCAL ") {
            Some(rest) => (true, rest),
            None => (false, sql.strip_prefix("SET ").unwrap_or_else(|| panic!("the model does not know {sql}"))),
        };
        let (name, value) = rest.split_once(" = ").expect("name = value");
        if local && !self.transaction.as_ref().is_some_and(|transaction| transaction.block) {
            self.notice("SET LOCAL can only be used in transaction blocks");
        } else {
            self.set(name, value.trim_matches('\''), !local, true);
        }
        self.complete("SET");
        Ok(())
    }

    /// `RESET a;RESET b;SELECT set_config(…), …`, of a client or of a replay.
    fn set_configs(&mut self, sql: &str) -> Result<(), Refused> {
        for name in sql.split(';').filter_map(|part| part.strip_prefix("RESET ")) {
            self.run_setting(&format!("RESET {name}"))?;
        }
        for part in sql.replace("' || '", "").split("set_config(").skip(1) {
            let mut quoted = part.split('\'').skip(1).step_by(2);
            let (name, value) = (quoted.next().expect("a name"), quoted.next().expect("a value"));
            if name == "role" && self.no_roles {
                return refused("22023", format!("role \"{value}\" does not exist"));
            }
            self.set(name, value, true, true);
        }
        self.row(&[Some("set")]);
        self.complete("SELECT 1");
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str, lasting: bool, by_session: bool) {
        // As PostgreSQL, values are kept in a canonical spelling.
        let value = if value == "1024kB" { "1MB" } else { value };
        self.settings.insert(name.to_owned(), (value.to_owned(), by_session));
        if lasting && let Some(transaction) = &mut self.transaction {
            transaction.lasting.insert(name.to_owned(), (value.to_owned(), by_session));
        }
    }

    fn answer_probe(&mut self, sql: &str) {
        let mut rows = 0;
        for name in literals(sql, "current_setting(E'") {
            let value = self.settings.get(&name).map(|(value, _)| value.clone());
            self.row(&[Some("s"), Some(&name), value.as_deref()]);
            rows += 1;
        }
        if let Some((_, names)) = sql.split_once("IN (E'") {
            for name in names.split('\'').step_by(2).map(str::to_owned) {
                if self.settings.get(&name).is_some_and(|(_, set)| !set) && !name.contains('.') {
                    self.row(&[Some("r"), Some(&name), None]);
                    rows += 1;
                }
            }
        }
        if sql.contains("source='session'") {
            for (name, value) in self.set_by_session() {
                // As in PostgreSQL, neither custom settings nor the role are listed.
                if name != "role" && !name.contains('.') {
                    self.row(&[Some("s"), Some(&name), Some(&value)]);
                    rows += 1;
                }
            }
            for pin in self.pins.clone() {
                self.row(&if pin == "listen" {
                    [Some("l"), None, Some("c")]
                } else {
                    [Some("p"), Some(pin), Some("it")]
                });
                rows += 1;
            }
        }
        self.complete(&format!("SELECT {rows}"));
    }

    fn begin_block(&mut self, read_only: bool) {
        self.begin_implicit();
        if let Some(transaction) = &mut self.transaction {
            transaction.read_only |= read_only;
            if transaction.block {
                self.notice("there is already a transaction in progress");
            } else {
                transaction.block = true;
            }
        }
        self.complete("BEGIN");
    }

    fn warn_without_block(&mut self) {
        if !self.transaction.as_ref().is_some_and(|transaction| transaction.block) {
            self.notice("there is no transaction in progress");
        }
    }

    fn commit_block(&mut self) -> Result<(), Refused> {
        self.warn_without_block();
        let tag = if self.is_failed() { "ROLLBACK" } else { "COMMIT" };
        self.commit()?;
        self.complete(tag);
        Ok(())
    }

    fn pin(&mut self, pin: &'static str, tag: &str) {
        if !self.pins.contains(&pin) {
            self.pins.push(pin);
        }
        self.complete(tag);
    }

    fn discard(&mut self) -> Result<(), Refused> {
        if self.transaction.as_ref().is_some_and(|transaction| transaction.block) {
            return refused("25001", "DISCARD ALL cannot run inside a transaction block");
        }
        self.commit()?;
        self.statements.retain(|name, _| name.is_empty());
        self.pins.clear();
        self.drawn = None;
        for (name, default) in DEFAULTS {
            self.set(name, default, true, false);
        }
        self.complete("DISCARD ALL");
        Ok(())
    }
}

fn analyse(sql: &str) -> Result<(), Refused> {
    match sql.trim() {
        "SELEC" => refused("42601", "syntax error at or near \"SELEC\""),
        "SELECT missing" => refused("42703", "column \"missing\" does not exist"),
        _ => Ok(()),
    }
}

/// Without a comment at the front.
fn bare(sql: &str) -> &str {
    sql.strip_prefix("/*").and_then(|rest| rest.split_once("*/")).map_or(sql, |(_, rest)| rest.trim_start())
}

fn has_rows(sql: &str) -> bool {
    ["SELECT", "TABLE", "SHOW"].iter().any(|verb| sql.trim().starts_with(verb))
}
