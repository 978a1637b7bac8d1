//! The other clients: each does things to its session all the time, under names that scripts use too, and looks whether
//! it finds what it has done, and nothing else.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{
    super::kit::{
        RawClient,
        messages::{bind, close, execute, parse, sync, terminate},
    },
    play::Place,
};

/// Every fifth client is a superuser, in a pool of its own.
const SUPERUSERS: usize = 5;

/// Every seventh client only takes a connection for a moment and lets it go, so that the others get another one each
/// time.
const MOVERS: usize = 7;
const MOVES: Duration = Duration::from_millis(3);

/// Between two things that a client does; the machine has work to do besides.
const PAUSE_MILLIS: u64 = 60;

/// Its settings are found again later: name, values, of which each client has one.
const SETTINGS: [(&str, [&str; 3]); 8] = [
    ("work_mem", ["3MB", "11MB", "12MB"]),
    ("application_name", ["noise", "it's", "psql"]),
    ("TimeZone", ["Asia/Tokyo", "America/New_York", "UTC"]),
    ("DateStyle", ["German, DMY", "SQL, MDY", "ISO, YMD"]),
    ("search_path", ["two", "nowhere, one", "pg_catalog"]),
    ("client_min_messages", ["error", "debug1", "warning"]),
    ("default_transaction_isolation", ["serializable", "repeatable read", "read committed"]),
    ("app.tenant", ["one", "two", "three"]),
];

/// One client's work until it is told to stop: what it should not have seen.
pub fn work(number: usize, place: Place<'_>, stop: &AtomicBool) -> Vec<String> {
    let user = if number.is_multiple_of(SUPERUSERS) { "boss" } else { "app" };
    let login = || RawClient::login(place.port, place.database, user, place.password);
    let mut client = Client { raw: login(), number, set: Vec::new(), complaints: Vec::new() };
    if number % MOVERS == 1 {
        client.move_others(stop);
    }
    let mut round = number;
    while !stop.load(Ordering::Relaxed) && client.complaints.len() < 5 {
        round += 1;
        client.act(round);
        if round.is_multiple_of(11) {
            // Some say goodbye and some do not, in the middle of something.
            if round.is_multiple_of(2) {
                client.raw.query("BEGIN; SET work_mem = '13MB'; CREATE TEMP TABLE t (left_behind int)");
            }
            if round.is_multiple_of(3) {
                client.raw.send(&terminate());
            }
            // First gone, then back: a login may have to wait for a server connection, and this session holds one.
            let Client { raw, complaints, .. } = client;
            drop(raw);
            client = Client { raw: login(), number, set: Vec::new(), complaints };
        }
        let jitter = (round * 7 + number * 13) % 30;
        thread::sleep(Duration::from_millis(PAUSE_MILLIS + u64::try_from(jitter).unwrap_or(0)));
    }
    client.complaints
}

struct Client {
    raw: RawClient,
    number: usize,
    /// What it has set for good.
    set: Vec<(&'static str, &'static str)>,
    complaints: Vec<String>,
}

impl Client {
    fn move_others(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.raw.query("BEGIN");
            thread::sleep(MOVES);
            self.raw.query("COMMIT");
            thread::sleep(MOVES);
        }
    }

    fn act(&mut self, round: usize) {
        match round % 10 {
            0 | 5 => self.settings(round),
            1 => self.settings_undone(),
            2 => self.statements(),
            3 => self.statements_of_sql(),
            4 => self.locks(),
            6 => self.temporary_table(),
            7 => self.channels(),
            8 => self.cursor(),
            _ => self.errors(),
        }
        for (name, value) in self.set.clone() {
            self.expect(&format!("SHOW {name}"), value);
        }
    }

    fn expect(&mut self, sql: &str, value: &str) {
        let answer = self.raw.query(sql);
        let row = answer.iter().find(|message| message.tag == b'D').and_then(|message| message.values()[0].clone());
        if row.as_deref() != Some(value) {
            let answer: Vec<_> =
                answer.iter().map(|m| format!("{} {}", char::from(m.tag), m.body.escape_ascii())).collect();
            self.complaints.push(format!("client {}: {sql} should be {value}, not {answer:?}", self.number));
        }
    }

    fn settings(&mut self, round: usize) {
        let (name, values) = SETTINGS[(round + self.number) % SETTINGS.len()];
        let value = values[(round / 5) % values.len()];
        self.set.retain(|(known, _)| *known != name);
        if round.is_multiple_of(7) {
            self.raw.query("RESET ALL");
            self.set.clear();
        } else if round.is_multiple_of(3) {
            self.raw.query(&format!("SELECT set_config('{name}', '{}', false)", value.replace('\'', "''")));
            self.set.push((name, value));
        } else if matches!(name, "DateStyle" | "search_path") {
            self.raw.query(&format!("SET {name} = {value}"));
            self.set.push((name, value));
        } else {
            self.raw.query(&format!("SET {name} = '{}'", value.replace('\'', "''")));
            self.set.push((name, value));
        }
    }

    fn settings_undone(&mut self) {
        self.raw.query("BEGIN");
        self.raw.query("SET LOCAL statement_timeout = '50s'; SET lock_timeout = '51s'");
        self.raw.query("SAVEPOINT a; SET ROLE guest; ROLLBACK TO a");
        self.expect("SHOW lock_timeout", "51s");
        self.raw.query("ROLLBACK");
        self.expect("SHOW lock_timeout", "0");
    }

    fn statements(&mut self) {
        for name in ["s", "a", ""] {
            let own = format!("{name}{}", self.number);
            let sql = format!("SELECT '{own}'");
            let run = [parse(name, &sql), bind("", name, &[]), execute("", 0), sync(), bind("", name, &[])];
            self.raw.send(&[run.concat(), execute("", 0), close(b'S', name), sync()].concat());
            let answer = [self.raw.read_until_ready(), self.raw.read_until_ready()].concat();
            let rows: Vec<_> = answer.iter().filter(|message| message.tag == b'D').collect();
            if rows.len() != 2 || rows.iter().any(|row| row.values()[0].as_deref() != Some(&own)) {
                self.complaints.push(format!("client {}: statement {name:?} gave {answer:?}", self.number));
            }
        }
    }

    fn statements_of_sql(&mut self) {
        self.raw.query(&format!("PREPARE p AS SELECT 'sql {}'", self.number));
        self.expect("EXECUTE p", &format!("sql {}", self.number));
        self.raw.query("DEALLOCATE p");
    }

    fn locks(&mut self) {
        let key = 900_000 + self.number;
        self.expect(&format!("SELECT pg_try_advisory_lock({key})"), "t");
        self.expect(&format!("SELECT pg_advisory_unlock({key})"), "t");
        self.expect("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "0");
    }

    fn temporary_table(&mut self) {
        self.raw.query(&format!("CREATE TEMP TABLE t AS SELECT {} AS noise", self.number));
        self.expect("SELECT noise FROM pg_temp.t", &self.number.to_string());
        self.raw.query("DROP TABLE pg_temp.t");
    }

    fn channels(&mut self) {
        self.raw.query("LISTEN noise");
        self.raw.query("UNLISTEN *");
    }

    fn cursor(&mut self) {
        self.raw.query(&format!("DECLARE c CURSOR WITH HOLD FOR SELECT {}", self.number));
        self.expect("FETCH c", &self.number.to_string());
        self.raw.query("CLOSE c");
        self.raw.query("SELECT nextval('noise_counter')");
    }

    fn errors(&mut self) {
        self.raw.query("SELECT 1/0");
        self.raw.query("BEGIN; SET work_mem = '14MB'; SELECT nothing");
        self.raw.query("ROLLBACK; SET no_such_setting = 1");
    }
}
