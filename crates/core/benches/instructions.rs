//! Counts the instructions of what runs for every message: unlike time, they are the same on a machine that is busy.
//!
//! Each workload runs in a process of its own under callgrind, with few turns and with many; the difference, for one turn,
//! is what is printed. `make instructions` also compares with another commit.

// A program, not a rule: it prints, and starts itself.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use std::{cell::RefCell, env, hint::black_box, process::Command, sync::Arc};

use poolhouse_core::{
    session::{
        Carried, ClientStep, ClusterNodes, DatabaseCode, Judge, Mode, Need, NodeView, OnPin, Outboxes, Pipeline,
        Reported, ServerState, ServerStep, Session, Shared, Shown, Statements,
    },
    sql::{Cache, KnownText},
    wire::{
        frame::{ClientMessage, HEADER_BYTES, Reply, header},
        reply::{notification_parts, parameter_status_parts, set_notification_process},
        request::{BindNames, BindValues, Parse},
    },
};

/// Turns of the two runs.
const FEW: u32 = 200;
const MANY: u32 = 1_200;

/// A workload: its name, and what prepares it and gives its turn.
type Workload = (&'static str, fn() -> Box<dyn FnMut()>);

const WORKLOADS: [Workload; 10] = [
    ("session: a simple SELECT", select),
    ("session: BEGIN, SELECT, UPDATE, COMMIT", block),
    ("session: a prepared SELECT, by name", prepared),
    ("session: an unnamed statement, parsed each time", unnamed),
    ("wire: headers and kinds of 100 rows and their end", headers),
    ("wire: a Parse, read and written with another name", parse),
    ("wire: a Bind of 10 values, read", bind),
    ("wire: a notification, read and given another sender", notification),
    ("wire: a ParameterStatus, read", parameter),
    ("sql: the verdict on a known text of 500 bytes", verdict),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [name, turns] = &arguments[..] {
        let (_, prepare) = WORKLOADS.iter().find(|(workload, _)| workload == name).expect("a workload of this name");
        let mut turn = prepare();
        for _ in 0..turns.parse().unwrap() {
            turn();
        }
        return;
    }
    for (name, _) in WORKLOADS {
        let (few, many) = (count(name, FEW), count(name, MANY));
        println!("{}\t{name}", (many - few) / u64::from(MANY - FEW));
    }
}

/// The instructions of a whole process that runs a workload.
fn count(name: &str, turns: u32) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(env::current_exe().unwrap()).args([name, &turns.to_string()]);
    let output = command.output().expect("valgrind counts the instructions: it has to be installed");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.unwrap_or_else(|| panic!("{name}: {said}"));
    collected.trim().parse().unwrap()
}

// ---- Sessions ----

/// The verdicts, as a worker keeps them.
struct Verdicts(RefCell<Cache>);

impl Judge for Verdicts {
    fn verdict(&self, sql: &[u8]) -> Arc<KnownText> {
        self.0.borrow_mut().verdict(sql)
    }

    fn knows(&self, _: &[u8]) -> bool {
        true
    }

    fn nodes(&self, _: Need, _: Option<u64>) -> Vec<NodeView> {
        Vec::new()
    }
}

/// One session and one server connection, driven as the frontend drives them.
struct Conversation {
    verdicts: Verdicts,
    session: Session,
    pipeline: Pipeline,
    server: ServerState,
    is_lent: bool,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Conversation {
    fn new() -> Conversation {
        let shared = Shared {
            mode: Mode::Transaction,
            statements_max: 500,
            on_pin: OnPin::Allow,
            reads_until_write: false,
            lists: None,
            nodes: Arc::new(ClusterNodes::new([Some("a"), Some("b")].into_iter())),
            statements: Arc::new(Statements::default()),
            code: Arc::new(DatabaseCode::default()),
        };
        Conversation {
            verdicts: Verdicts(RefCell::new(Cache::new_seeded(1_000, 1 << 20, 7))),
            session: Session::new(Arc::new(shared), Arc::new(Carried::default()), Arc::new(Reported::default())),
            pipeline: Pipeline::default(),
            server: ServerState::default(),
            is_lent: false,
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    fn client_says(&mut self, messages: &[u8]) {
        each(messages, |shown| {
            loop {
                let mut out = Outboxes { to_server: &mut self.to_server, to_client: &mut self.to_client };
                let server = self.is_lent.then_some(&mut self.server);
                match self.session.on_client(shown, &mut self.pipeline, server, &self.verdicts, &mut out) {
                    ClientStep::NeedServer(need) => {
                        self.session.attach(&mut self.pipeline, &mut self.server, need, &mut out);
                        self.is_lent = true;
                    }
                    step @ (ClientStep::Hold | ClientStep::More | ClientStep::Fail(_)) => panic!("{step:?}"),
                    _ => break,
                }
            }
        });
    }

    fn server_says(&mut self, messages: &[u8]) {
        each(messages, |shown| {
            if Reply::is_data(shown.head.tag) {
                return;
            }
            let mut out = Outboxes { to_server: &mut self.to_server, to_client: &mut self.to_client };
            match self.session.on_server(shown, &mut self.pipeline, &mut self.server, &mut out) {
                ServerStep::ForwardAndRelease | ServerStep::Release => {
                    self.pipeline.reset();
                    self.is_lent = false;
                }
                ServerStep::Fail(report) => panic!("{report:?}"),
                _ => {}
            }
        });
        self.to_server.clear();
        self.to_client.clear();
    }
}

/// Shows each message of a buffer.
fn each(bytes: &[u8], mut show: impl FnMut(Shown<'_>)) {
    let mut rest = bytes;
    while let Some(head) = header(rest).unwrap() {
        let (message, after) = rest.split_at(head.message());
        show(Shown { head, body: &message[HEADER_BYTES..], after });
        rest = after;
    }
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"])
}

/// CommandComplete and ReadyForQuery.
fn end(tag: &str, status: u8) -> Vec<u8> {
    [message(b'C', &[tag.as_bytes(), b"\0"]), message(b'Z', &[&[status]])].concat()
}

/// One row of no column, and the end.
fn row(status: u8) -> Vec<u8> {
    [message(b'T', &[b"\0\0"]), message(b'D', &[b"\0\0"]), end("SELECT 1", status)].concat()
}

fn select() -> Box<dyn FnMut()> {
    let mut talk = Conversation::new();
    let (asked, answered) = (query("select a from t where b = 1"), row(b'I'));
    Box::new(move || {
        talk.client_says(&asked);
        talk.server_says(&answered);
    })
}

fn block() -> Box<dyn FnMut()> {
    let mut talk = Conversation::new();
    let [begin, select, update, commit] =
        ["begin", "select a from t where b = 1", "update t set a = 1", "commit"].map(query);
    // The server sees BEGIN in front of the first statement, and its answer to that is ours.
    let selected = [message(b'3', &[]), row(b'T')].concat();
    let (updated, committed) = (end("UPDATE 1", b'T'), end("COMMIT", b'I'));
    Box::new(move || {
        talk.client_says(&begin);
        talk.client_says(&select);
        talk.server_says(&selected);
        talk.client_says(&update);
        talk.server_says(&updated);
        talk.client_says(&commit);
        talk.server_says(&committed);
    })
}

/// Bind of one value, Describe, Execute, Sync.
fn run(statement: &[u8]) -> Vec<u8> {
    let bind = message(b'B', &[b"\0", statement, b"\0\0\0\0\x01\0\0\0\x011\0\0"]);
    [bind, message(b'D', &[b"P\0"]), message(b'E', &[b"\0\0\0\0\0"]), message(b'S', &[])].concat()
}

fn prepared() -> Box<dyn FnMut()> {
    let mut talk = Conversation::new();
    talk.client_says(&[message(b'P', &[b"st\0select $1\0\0\0"]), message(b'S', &[])].concat());
    talk.server_says(&[message(b'1', &[]), message(b'Z', &[b"I"])].concat());
    let (asked, answered) = (run(b"st"), [message(b'2', &[]), row(b'I')].concat());
    Box::new(move || {
        talk.client_says(&asked);
        talk.server_says(&answered);
    })
}

fn unnamed() -> Box<dyn FnMut()> {
    let mut talk = Conversation::new();
    let asked = [message(b'P', &[b"\0select $1\0\0\0"]), run(b"")].concat();
    let answered = [message(b'1', &[]), message(b'2', &[]), row(b'I')].concat();
    Box::new(move || {
        talk.client_says(&asked);
        talk.server_says(&answered);
    })
}

// ---- Messages ----

fn headers() -> Box<dyn FnMut()> {
    let values: Vec<u8> = [&b"\0\x03"[..], &b"\0\0\0\x05value".repeat(3)].concat();
    let stream = [message(b'D', &[&values]).repeat(100), end("SELECT 100", b'I')].concat();
    let asked = query("select 1");
    Box::new(move || {
        each(black_box(&asked), |shown| assert!(black_box(ClientMessage::of(shown.head)).is_ok()));
        each(black_box(&stream), |shown| assert!(black_box(Reply::of(shown.head.tag)).is_ok()));
    })
}

fn parse() -> Box<dyn FnMut()> {
    let body = b"statement\0select name, born from people where id = $1 and town = $2\0\0\x02\0\0\0\x17\0\0\0\x19";
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        Parse::read(black_box(body)).unwrap().write(b"__poolhouse_17", &mut out);
        black_box(&out);
    })
}

fn bind() -> Box<dyn FnMut()> {
    let values = b"\0\0\0\x05value".repeat(10);
    let body = [&b"\0statement\0\0\x01\0\x01\0\x0a"[..], &values, b"\0\0"].concat();
    Box::new(move || {
        let names = BindNames::read(black_box(&body)).unwrap();
        let values = BindValues::read(&body[names.bytes..]);
        assert_eq!(values.map(black_box).count(), 10);
    })
}

fn notification() -> Box<dyn FnMut()> {
    let mut whole = message(b'A', &[b"\0\0\x30\x39", b"orders\0", b"{\"id\": 4711, \"state\": \"paid\"}\0"]);
    Box::new(move || {
        let told = notification_parts(black_box(&whole[HEADER_BYTES..])).unwrap();
        let process = told.process.wrapping_add(u32::from(told.channel[0]));
        set_notification_process(&mut whole, process);
    })
}

fn parameter() -> Box<dyn FnMut()> {
    Box::new(|| {
        black_box(parameter_status_parts(black_box(b"application_name\0psql\0"))).unwrap();
    })
}

// ---- Statements ----

fn verdict() -> Box<dyn FnMut()> {
    let columns: Vec<String> = (0..30).map(|column| format!("t.column_{column}")).collect();
    let text = format!("select {} from t where t.id = 4711 and t.name = 'somebody'", columns.join(", "));
    let mut cache = Cache::new_seeded(1_000, 1 << 20, 7);
    Box::new(move || drop(black_box(cache.verdict(black_box(text.as_bytes())))))
}
