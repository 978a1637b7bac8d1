//! What a message costs however much its client has piled up before: counted in steps, which are the turns of all loops
//! over what a client can make grow (`session::steps`). Time would depend on the machine, and an average would hide the
//! one message that holds up an event loop.

use std::{cell::Cell, sync::Arc};

use super::message::{Message, frame};
use crate::{
    session::{
        Carried, ClientStep, ClusterNodes, DatabaseCode, Judge, Mode, Need, NodeView, OnPin, Outboxes, Pipeline,
        Reported, ServerState, ServerStep, Session, Shared, Shown, Statements,
    },
    sql::{self, Deallocate, KnownText, NameUse, SettingChange, Verdict},
    wire::{frame::HEADER_BYTES, header},
};

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// See [`crate::session`].
pub fn step() {
    STEPS.set(STEPS.get() + 1);
}

/// The steps that one message may take: now and then all statements that a server connection may hold are looked through,
/// 500 by the setting and as many more that were sent while it was full, each with a look at a few under way.
const STEPS_MAX: u64 = 8_000;

/// Those that one may take on the average.
const STEPS_MEAN_MAX: u64 = 20;

/// Knows what texts of these tests do without parsing each of them.
struct Quick {
    read: Arc<KnownText>,
}

impl Judge for Quick {
    fn verdict(&self, sql: &[u8]) -> Arc<KnownText> {
        let text = str::from_utf8(sql).unwrap();
        let (verb, name) = text.split_once(' ').unwrap_or((text, ""));
        let judged = |template: &str| sql::judge(template);
        let names = |name: NameUse| vec![name].into();
        let verdict = match verb {
            "select" => return self.read.clone(),
            "set" => Verdict { settings: vec![SettingChange::Set(name.into())].into(), ..judged("set a.b to 1") },
            "reset" => Verdict { settings: vec![SettingChange::Reset(name.into())].into(), ..judged("reset a.b") },
            "prepare" => Verdict { names: names(NameUse::Prepares(name.into())), ..judged("prepare x as select 1") },
            "execute" => Verdict { names: names(NameUse::Executes(name.into())), ..judged("execute x") },
            "deallocate" => Verdict {
                names: names(NameUse::Deallocates(name.into())),
                deallocates: Deallocate::Named(name.into()),
                ..judged("deallocate x")
            },
            _ => judged(text),
        };
        Arc::new(verdict.into())
    }

    fn knows(&self, _: &[u8]) -> bool {
        true
    }

    fn nodes(&self, _: Need, _: Option<u64>) -> Vec<NodeView> {
        Vec::new()
    }
}

/// One session with a server connection whose replies the test writes itself.
struct Stage {
    judge: Quick,
    session: Session,
    pipeline: Pipeline,
    server: ServerState,
    most: u64,
    all: u64,
    messages: u64,
}

impl Stage {
    fn new() -> Stage {
        let shared = Shared {
            mode: Mode::Transaction,
            statements_max: 500,
            on_pin: OnPin::Allow,
            reads_until_write: false,
            lists: None,
            nodes: Arc::new(ClusterNodes::new([Some("n1"), Some("n2")].into_iter())),
            statements: Arc::new(Statements::default()),
            code: Arc::new(DatabaseCode::default()),
        };
        let session = Session::new(Arc::new(shared), Arc::new(Carried::default()), Arc::new(Reported::default()));
        let mut stage = Stage {
            judge: Quick { read: Arc::new(sql::judge("select 1").into()) },
            session,
            pipeline: Pipeline::default(),
            server: ServerState::default(),
            most: 0,
            all: 0,
            messages: 0,
        };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        stage.session.attach(&mut stage.pipeline, &mut stage.server, Need::Write, &mut out);
        stage
    }

    /// From now on the dearest message counts.
    fn measure(&mut self) {
        (self.most, self.all, self.messages) = (0, 0, 0);
    }

    fn note(&mut self, before: u64) {
        let steps = STEPS.get() - before;
        self.most = self.most.max(steps);
        self.all += steps;
        self.messages += 1;
    }

    fn client(&mut self, message: Message) -> ClientStep {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        self.shows(&bytes)
    }

    /// The first message of what has come.
    fn shows(&mut self, bytes: &[u8]) -> ClientStep {
        let head = header(bytes).unwrap().unwrap();
        let (message, after) = bytes.split_at(head.message());
        let shown = Shown { head, body: &message[HEADER_BYTES..], after };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let before = STEPS.get();
        let step = self.session.on_client(shown, &mut self.pipeline, Some(&mut self.server), &self.judge, &mut out);
        self.note(before);
        step
    }

    /// A message that goes on.
    fn sends(&mut self, message: Message) {
        let told = format!("{message:?}");
        let step = self.client(message);
        let goes = matches!(step, ClientStep::Forward | ClientStep::Replaced { .. } | ClientStep::Answered);
        assert!(goes, "{told}: {step:?}");
    }

    fn server(&mut self, tag: u8, parts: &[&[u8]]) -> ServerStep {
        let mut bytes = Vec::new();
        frame(tag, parts, &mut bytes);
        let head = header(&bytes).unwrap().unwrap();
        let shown = Shown { head, body: &bytes[HEADER_BYTES..], after: &[] };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let before = STEPS.get();
        let step = self.session.on_server(shown, &mut self.pipeline, &mut self.server, &mut out);
        if step == ServerStep::ForwardThenAnswer {
            self.session.answer_after_forward(&mut self.pipeline, &mut out);
        }
        self.note(before);
        step
    }

    fn parse(&mut self, number: usize) {
        self.sends(Message::Parse(format!("n{number}"), format!("select {number}")));
    }

    /// Replies to all that is owed, up to what brings rows.
    fn complete(&mut self) {
        use crate::session::owed::Owed;
        while let Some(owed) = self.pipeline.owed.front() {
            let tag = match owed {
                Owed::Parse { .. } | Owed::OurParse { .. } | Owed::ParseForSql { .. } => b'1',
                Owed::OurClose { .. } | Owed::Close { .. } | Owed::CloseForSql { .. } => b'3',
                Owed::Bind { .. } => b'2',
                Owed::Sync | Owed::OurSync => b'Z',
                _ => return,
            };
            let body: &[u8] = if tag == b'Z' { b"I" } else { b"" };
            self.server(tag, &[body]);
        }
    }

    /// So many named statements, all of which the server has prepared.
    fn with_statements(count: usize) -> Stage {
        let mut stage = Stage::new();
        for number in 0..count {
            stage.parse(number);
            if number % 1_000 == 999 {
                stage.sends(Message::Sync);
                stage.complete();
            }
        }
        stage.sends(Message::Sync);
        stage.complete();
        stage.measure();
        stage
    }
}

/// Each case does its thing so many times, and gives what the dearest message took.
type Case = (&'static str, fn(usize) -> Stage);

/// The table of costs: for each kind of thing that a client can make many.
const CASES: &[Case] = &[
    ("statements parsed in one batch", |n| {
        let mut stage = Stage::with_statements(600);
        (600..600 + n).for_each(|number| stage.parse(number));
        stage.complete();
        stage
    }),
    // Its first message looks at all of it, once, to find out where it may run.
    ("a batch of reads that came at once", |n| {
        let (mut stage, mut batch) = (Stage::new(), Vec::new());
        for number in 0..n / 16 {
            Message::Parse(format!("n{number}"), "select 1".into()).write(&mut batch);
        }
        for number in 0..n / 16 {
            Message::Bind(String::new(), format!("n{number}")).write(&mut batch);
        }
        Message::Sync.write(&mut batch);
        let mut rest = &batch[..];
        while let Some(head) = header(rest).unwrap() {
            assert_ne!(stage.shows(rest), ClientStep::Hold);
            rest = &rest[head.message()..];
        }
        stage
    }),
    ("one text parsed under many names", |n| {
        let mut stage = Stage::new();
        for number in 0..n {
            stage.sends(Message::Parse(format!("n{number}"), "select 1".into()));
        }
        stage
    }),
    ("statements bound in one batch", |n| {
        let mut stage = Stage::with_statements(600);
        for number in 0..n {
            stage.sends(Message::Bind(String::new(), format!("n{}", number % 600)));
        }
        stage
    }),
    ("names closed in one batch", |n| {
        let mut stage = Stage::new();
        for number in 0..n / 2 {
            stage.parse(number);
            stage.sends(Message::CloseStatement(format!("n{number}")));
        }
        stage
    }),
    ("ends of a COPY that is none", |n| {
        let mut stage = Stage::new();
        for number in 0..n {
            if number % 2 == 0 {
                stage.sends(Message::ClosePortal("p".into()));
            }
            stage.client(Message::CopyDone);
        }
        stage
    }),
    ("settings set in one transaction", |n| {
        let mut stage = Stage::new();
        for number in 0..n {
            stage.sends(Message::Query(format!("set a.x{number}")));
        }
        stage
    }),
    ("settings reset and set in one transaction", |n| {
        let mut stage = Stage::new();
        for number in 0..n {
            stage.sends(Message::Query(format!("reset a.x{number}")));
        }
        for number in 0..n {
            stage.sends(Message::Query(format!("set a.y{number}")));
        }
        stage
    }),
    ("statements prepared by SQL in one transaction", |n| {
        let mut stage = Stage::new();
        for number in 0..n {
            stage.sends(Message::Query(format!("prepare x{number}")));
        }
        stage.sends(Message::Query("execute x7".into()));
        stage
    }),
    ("statements described one by one", |n| {
        let mut stage = Stage::with_statements(n);
        for number in 0..n {
            stage.sends(Message::DescribeStatement(format!("n{number}")));
            stage.complete();
            stage.server(b't', &[b"\0\0"]);
            stage.server(b'n', &[]);
        }
        stage
    }),
    ("a text described under ever more names", |n| {
        let mut stage = Stage::new();
        for number in 0..n {
            stage.sends(Message::Parse(format!("n{number}"), "select 1".into()));
            stage.sends(Message::Sync);
            stage.complete();
            stage.sends(Message::Bind(String::new(), format!("n{number}")));
            stage.sends(Message::DescribePortal(String::new()));
            stage.complete();
            stage.server(b'T', &[b"\0\0"]);
        }
        stage
    }),
    ("errors that name a statement", |n| {
        let mut stage = Stage::with_statements(n);
        let ours = stage.session.prepared.named().get(b"n3").unwrap().name.clone();
        for _ in 0..n {
            stage.sends(Message::Query("select 1".into()));
            stage.server(b'E', &[b"SERROR\0C26000\0Mno ", &ours, b"\0\0"]);
            stage.server(b'Z', &[b"I"]);
        }
        stage
    }),
    ("executed by SQL, one by one", |n| {
        let mut stage = Stage::with_statements(n);
        for number in 0..n {
            stage.sends(Message::Parse(String::new(), format!("execute n{number}")));
            stage.sends(Message::Sync);
            stage.complete();
        }
        stage
    }),
    ("COPYs that begin, with more behind them", |n| {
        let mut stage = Stage::new();
        stage.sends(Message::Query("copy".into()));
        (0..n).for_each(|_| stage.sends(Message::ClosePortal("p".into())));
        for _ in 0..n {
            stage.server(b'G', &[b"\0\0\0"]);
            stage.sends(Message::CopyDone);
        }
        stage
    }),
];

#[test]
fn no_message_costs_more_because_of_what_came_before_it() {
    const COUNTS: [usize; 2] = [100, 10_000];
    let mut dear = Vec::new();
    println!("steps of the dearest message, and of one on the average, with so many before it: {COUNTS:?}");
    for (what, case) in CASES {
        let costs = COUNTS.map(case).map(|stage| (stage.most, stage.all / stage.messages));
        println!("{what:<50} {costs:?}");
        if costs.iter().any(|(most, mean)| *most > STEPS_MAX || *mean > STEPS_MEAN_MAX) {
            dear.push((what, costs));
        }
    }
    assert!(dear.is_empty(), "{dear:?}");
}

/// One column of a row after the other.
fn row(columns: [&str; 3]) -> Vec<u8> {
    let mut row = 3_u16.to_be_bytes().to_vec();
    for column in columns {
        row.extend_from_slice(&(column.len() as u32).to_be_bytes());
        row.extend_from_slice(column.as_bytes());
    }
    row
}

#[test]
fn a_session_with_more_settings_than_are_carried_keeps_its_connection() {
    for (settings, keeps) in [(2_000, false), (2_001, true), (100_000, true)] {
        let mut stage = Stage::new();
        stage.sends(Message::Query("set a.x0".into()));
        stage.server(b'C', &[b"SET\0"]);
        assert_eq!(stage.server(b'Z', &[b"I"]), ServerStep::Forward, "the server is asked");
        for number in 0..settings {
            let answer = row(["s", &format!("a.x{number}"), "1"]);
            assert_eq!(stage.server(b'D', &[&answer]), ServerStep::Swallow);
        }
        stage.server(b'C', &[b"SELECT 1\0"]);
        let end = if keeps { ServerStep::Swallow } else { ServerStep::Release };
        assert_eq!(stage.server(b'Z', &[b"I"]), end, "{settings} settings");
        assert_eq!(stage.session.is_pinned(), keeps, "{settings} settings");
        // Its next statements run all the same.
        if keeps {
            stage.sends(Message::Query("select 1".into()));
        }
    }
}
