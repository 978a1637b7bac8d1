//! Plays a script on one port and writes down what came back, one line for each message, without what differs from one
//! connection to the next by its nature: process ids, oids of what the script has made, names of temporary schemas.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    super::kit::{
        Message, RawClient,
        messages::{
            any, bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, parse, query, startup, sync,
            terminate,
        },
    },
    script::{Action, Line, Script},
};

/// Oids from this on are given to what users make (FirstNormalObjectId of PostgreSQL's `transam.h`).
const OID_OF_USERS: u32 = 16_384;

/// What stands in a transcript where the other side was silent.
pub const NO_ANSWER: &str = "no answer:";

/// Where to play: a port, the database to ask for, and the password of any user.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub port: u16,
    pub database: &'a str,
    pub password: &'a str,
}

/// What came back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Actions and messages in their order.
    pub lines: Vec<String>,
    /// By client: what NotificationResponse told, apart from when it came.
    pub notifications: BTreeMap<usize, Vec<String>>,
}

impl Transcript {
    /// Where two of them part, for people; `None` when they are equal.
    pub fn difference(&self, other: &Transcript) -> Option<String> {
        if self == other {
            return None;
        }
        let at = self.lines.iter().zip(&other.lines).take_while(|(one, other)| one == other).count();
        if at == self.lines.len() && at == other.lines.len() {
            return Some(format!("notified: {:?}\ndirectly: {:?}", self.notifications, other.notifications));
        }
        let mut text = String::new();
        let from = at.saturating_sub(6);
        for line in &self.lines[from..at] {
            let _ = writeln!(text, "           {line}");
        }
        for (who, lines) in [("poolhouse: ", &self.lines), ("directly:  ", &other.lines)] {
            for line in lines.iter().skip(at).take(4) {
                let _ = writeln!(text, "{who}{line}");
            }
            if lines.len() == at {
                let _ = writeln!(text, "{who}(nothing more)");
            }
        }
        Some(text)
    }
}

/// A connection of the script.
struct Player {
    raw: RawClient,
    /// What is sent with the next message that is waited for.
    unsent: Vec<u8>,
    /// How many ReadyForQuery are owed.
    owed: usize,
    last_value: Option<String>,
}

/// The connection has ended, or did not answer.
struct Over;

/// A play under way. The clients stay until it is dropped or [`Play::end`].
pub struct Play<'a> {
    place: Place<'a>,
    players: BTreeMap<usize, Player>,
    values: BTreeMap<String, String>,
    transcript: Transcript,
}

impl<'a> Play<'a> {
    pub fn new(place: Place<'a>) -> Play<'a> {
        Play { place, players: BTreeMap::new(), values: BTreeMap::new(), transcript: Transcript::default() }
    }

    /// Plays all lines, or up to one that cannot be answered.
    pub fn run(&mut self, script: &Script) {
        for line in &script.lines {
            self.transcript.lines.push(format!("{}> {}", line.client, shortened(&line.text)));
            if self.act(line).is_err() {
                if self.transcript.lines.last().is_some_and(|line| line.contains(NO_ANSWER)) {
                    return;
                }
                self.transcript.lines.push(format!("{}: the connection is over", line.client));
                self.players.remove(&line.client);
            }
        }
    }

    /// All clients leave.
    pub fn end(mut self) -> Transcript {
        for player in self.players.values_mut() {
            let _ = player.raw.try_send(&terminate());
        }
        self.transcript
    }

    fn act(&mut self, line: &Line) -> Result<(), Over> {
        let client = line.client;
        if let Action::Login(parameters) = &line.action {
            return self.login(client, parameters);
        }
        if !self.players.contains_key(&client) {
            self.login(client, &[])?;
        }
        match &line.action {
            Action::Login(_) => Ok(()),
            Action::Query { sql, waits } => {
                let sql = self.filled(sql);
                self.put(client, &query(&sql), 1);
                if *waits { self.wait(client) } else { Ok(()) }
            }
            Action::Sync { waits, answered } => {
                self.put(client, &sync(), usize::from(*answered));
                if *waits { self.wait(client) } else { Ok(()) }
            }
            Action::Call { function, argument } => {
                let length = u32::try_from(argument.len()).expect("a short argument").to_be_bytes();
                let (oid, argument) = (function.to_be_bytes(), argument.as_bytes());
                let body = [&oid[..], &[0, 0, 0, 1], &length, argument, &[0, 0]].concat();
                self.put(client, &any(b'F', &body), 1);
                self.wait(client)
            }
            Action::Flush(until) => {
                self.put(client, &flush(), 0);
                self.send(client)?;
                until.iter().try_for_each(|tag| self.read_until(client, *tag))
            }
            Action::Send => self.send(client),
            Action::Wait => self.wait(client),
            Action::Let(name) => {
                let value = self.player(client).last_value.clone().unwrap_or_default();
                self.values.insert(name.clone(), value);
                // It has been written down already.
                let lines = std::mem::take(&mut self.transcript.lines);
                self.transcript.lines = lines.iter().map(|line| self.masked(line)).collect();
                Ok(())
            }
            Action::Notified(count) => self.read_notifications(client, *count),
            Action::Leave => {
                self.put(client, &terminate(), 0);
                self.send(client)?;
                let left = self.player(client).raw.read_to_end();
                left.into_iter().for_each(|message| self.note(client, message));
                self.players.remove(&client);
                Ok(())
            }
            other => {
                let bytes = self.bytes(other);
                self.put(client, &bytes, 0);
                Ok(())
            }
        }
    }

    /// The message of an action that waits for nothing.
    fn bytes(&self, action: &Action) -> Vec<u8> {
        match action {
            Action::Run(sql) => {
                let messages = [parse("", &self.filled(sql)), bind("", "", &[]), describe(b'P', ""), execute("", 0)];
                messages.concat()
            }
            Action::Parse { name, types, sql } => {
                let mut body = [name.as_bytes(), b"\0", self.filled(sql).as_bytes(), b"\0"].concat();
                body.extend(u16::try_from(types.len()).expect("few types").to_be_bytes());
                body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
                any(b'P', &body)
            }
            Action::Bind { portal, statement, values } => {
                let values: Vec<_> =
                    values.iter().map(|value| value.as_ref().map(|value| self.filled(value))).collect();
                bind(portal, statement, &values.iter().map(Option::as_deref).collect::<Vec<_>>())
            }
            Action::Describe { kind, name } => describe(*kind, name),
            Action::Close { kind, name } => close(*kind, name),
            Action::Execute { portal, rows_max } => execute(portal, *rows_max),
            Action::CopyData(data) => copy_data(data.as_bytes()),
            Action::CopyDone => copy_done(),
            Action::CopyFail(why) => copy_fail(why),
            other => panic!("no message of its own: {other:?}"),
        }
    }

    fn login(&mut self, client: usize, parameters: &[(String, String)]) -> Result<(), Over> {
        let given = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let user = given("user").unwrap_or("app").to_owned();
        let mut all = vec![("user", user.as_str()), ("database", self.place.database)];
        all.extend(parameters.iter().map(|(key, value)| (&**key, &**value)).filter(|(key, _)| *key != "user"));
        let mut raw = RawClient::connect(self.place.port);
        raw.send(&startup(0x30000, &all));
        let answer = raw.finish_login(&user, self.place.password);
        let is_in = answer.last().is_some_and(|message| message.tag == b'Z');
        self.players.insert(client, Player { raw, unsent: Vec::new(), owed: 0, last_value: None });
        answer.into_iter().for_each(|message| self.note(client, message));
        if is_in { Ok(()) } else { Err(Over) }
    }

    fn player(&mut self, client: usize) -> &mut Player {
        self.players.get_mut(&client).expect("it has logged in")
    }

    fn put(&mut self, client: usize, bytes: &[u8], owed: usize) {
        let player = self.player(client);
        player.unsent.extend_from_slice(bytes);
        player.owed += owed;
    }

    fn send(&mut self, client: usize) -> Result<(), Over> {
        let player = self.player(client);
        let bytes = std::mem::take(&mut player.unsent);
        player.raw.try_send(&bytes).map_err(|_| Over)
    }

    fn wait(&mut self, client: usize) -> Result<(), Over> {
        self.send(client)?;
        while self.player(client).owed > 0 {
            self.read_until(client, b'Z')?;
        }
        Ok(())
    }

    fn read_until(&mut self, client: usize, tag: u8) -> Result<(), Over> {
        while self.read(client)? != tag {}
        Ok(())
    }

    fn read(&mut self, client: usize) -> Result<u8, Over> {
        let player = self.player(client);
        let message = match player.raw.try_read() {
            Ok(Some(message)) => message,
            Ok(None) => return Err(Over),
            Err(error) => {
                self.transcript.lines.push(format!("{client}: {NO_ANSWER} {:?}", error.kind()));
                return Err(Over);
            }
        };
        let tag = message.tag;
        player.owed -= usize::from(tag == b'Z' && player.owed > 0);
        self.note(client, message);
        Ok(tag)
    }

    fn read_notifications(&mut self, client: usize, count: usize) -> Result<(), Over> {
        while self.transcript.notifications.get(&client).map_or(0, Vec::len) < count {
            self.read(client)?;
        }
        Ok(())
    }

    fn note(&mut self, client: usize, message: Message) {
        if message.tag == b'D' {
            let first = first_value(&message.body);
            if let Some(player) = self.players.get_mut(&client) {
                player.last_value = first;
            }
        }
        let text = self.masked(&shown(&message));
        if message.tag == b'A' {
            self.transcript.notifications.entry(client).or_default().push(text);
        } else {
            self.transcript.lines.push(format!("{client}: {} {}", char::from(message.tag), shortened(&text)));
            self.order_parameters(client);
        }
    }

    /// Which of several parameters is reported first is not determined: later versions walk a hash table.
    fn order_parameters(&mut self, client: usize) {
        let status = format!("{client}: S ");
        let lines = &mut self.transcript.lines;
        let others = lines.iter().rposition(|line| !line.starts_with(&status)).map_or(0, |at| at + 1);
        lines[others..].sort();
    }

    /// The text with what `\let` has taken.
    fn filled(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn masked(&self, text: &str) -> String {
        const BEFORE_NUMBERS: [&str; 7] =
            ["pg_temp_", "pg_toast_temp_", "process ", "PID ", "with OID ", "large object ", "transaction "];
        let mut text = text.replace(self.place.database, "(database)");
        for (name, value) in &self.values {
            if value.len() > 3 {
                text = text.replace(value, &format!("({name})"));
            }
        }
        BEFORE_NUMBERS.iter().fold(text, |text, word| without_numbers_after(&text, word))
    }
}

fn first_value(row: &[u8]) -> Option<String> {
    let length = usize::try_from(i32::from_be_bytes(row.get(2..6)?.try_into().ok()?)).ok()?;
    Some(String::from_utf8_lossy(row.get(6..6 + length)?).into_owned())
}

fn without_numbers_after(text: &str, word: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(word) {
        out.push_str(before);
        out.push_str(word);
        let number = after.bytes().take_while(u8::is_ascii_digit).count();
        out.push_str(if number > 0 { "#" } else { "" });
        rest = &after[number..];
    }
    out.push_str(rest);
    out
}

/// A message as text, with the numbers of processes and of users' objects left out.
fn shown(message: &Message) -> String {
    match message.tag {
        b'K' => "(key)".to_owned(),
        b'T' => columns(&message.body).unwrap_or_else(|| message.body.escape_ascii().to_string()),
        b't' => {
            let types = message.body[2..].chunks(4).map(|oid| masked_oid(u32::from_be_bytes(oid.try_into().unwrap())));
            types.collect::<Vec<_>>().join(" ")
        }
        b'A' => message.body[4..].escape_ascii().to_string(),
        // In a failed transaction every message is refused; which one it is that the server tells from does not matter. Nor
        // does the line of its source in which it notices that a plan has changed, which we cannot know.
        b'E' if matches!(&*message.sqlstate(), "25P02" | "0A000") => {
            let is_place = |field: &&[u8]| matches!(field.first(), Some(b'L' | b'R'));
            let fields = message.body.split(|byte| *byte == 0).filter(|field| !is_place(field));
            fields.map(|field| field.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
        }
        _ => message.body.escape_ascii().to_string(),
    }
}

fn masked_oid(oid: u32) -> String {
    if oid < OID_OF_USERS { oid.to_string() } else { "(oid)".to_owned() }
}

/// Name, table, type, and so on of each column of a RowDescription.
fn columns(body: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut rest = body.get(2..)?;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, fields) = (rest[..end].escape_ascii(), rest.get(end + 1..end + 19)?);
        let oid = |at: usize| Some(masked_oid(u32::from_be_bytes(fields.get(at..at + 4)?.try_into().ok()?)));
        let (number, sizes) = (fields[4..6].escape_ascii(), fields[10..].escape_ascii());
        let _ = write!(text, "{name}(table {} {number} type {} {sizes}) ", oid(0)?, oid(6)?);
        rest = &rest[end + 19..];
    }
    Some(text)
}

/// A long text by its ends, its length and a sum of its bytes.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 300;
    if text.len() <= SHOWN * 2 {
        return text.to_owned();
    }
    let sum = text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let front: String = text.chars().take(SHOWN).collect();
    format!("{front}… ({} bytes, sum {sum:x})", text.len())
}
