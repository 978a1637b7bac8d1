//! How statements are called while their values are to be kept, and while not.

use std::{cell::RefCell, sync::Arc};

use super::message::frame;
use crate::{
    session::{
        Carried, ClientStep, ClusterNodes, Judge, Mode, Need, NodeView, OnPin, Outboxes, Pipeline, Reported,
        ServerState, Session, Shared, Shown, Statements, owed::Owed,
    },
    sql::{Cache, KnownText},
    wire::{frame::HEADER_BYTES, header},
};

/// Verdicts with names, as clients get them.
struct Judging(RefCell<Cache>);

impl Judge for Judging {
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

/// A client that holds a server connection. Nothing is answered.
struct Talk {
    session: Session,
    pipeline: Pipeline,
    server: ServerState,
    judging: Judging,
}

/// A text without values, as it was sent, and the values, as far as they are kept.
type Told = (String, Option<String>, Option<String>);

impl Talk {
    fn new(mode: Mode, verbatim: bool) -> Talk {
        let shared = Shared {
            mode,
            statements_max: 100,
            reads_until_write: false,
            lists: None,
            nodes: Arc::new(ClusterNodes::new([Some("n")].into_iter())),
            statements: Arc::new(Statements::default()),
            on_pin: OnPin::Allow,
            code: Arc::default(),
        };
        let session = Session::new(Arc::new(shared), Arc::new(Carried::default()), Arc::new(Reported::default()));
        let judging = Judging(RefCell::new(Cache::new(10, 1 << 20)));
        let mut talk = Talk { session, pipeline: Pipeline::default(), server: ServerState::default(), judging };
        talk.pipeline.verbatim = verbatim;
        talk
    }

    /// Shows the first `there` bytes of a message.
    fn show(&mut self, message: &[u8], there: usize) -> ClientStep {
        let head = header(message).unwrap().unwrap();
        let shown = Shown { head, body: &message[HEADER_BYTES..there], after: &[] };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        self.session.on_client(shown, &mut self.pipeline, Some(&mut self.server), &self.judging, &mut out)
    }

    fn send(&mut self, tag: u8, parts: &[&[u8]]) {
        let mut message = Vec::new();
        frame(tag, parts, &mut message);
        let step = self.show(&message, message.len());
        assert!(matches!(step, ClientStep::Forward | ClientStep::Answered | ClientStep::Replaced { .. }), "{step:?}");
    }

    fn parse(&mut self, name: &str, sql: &str) {
        self.send(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"]);
    }

    fn query(&mut self, sql: &str) -> Told {
        self.send(b'Q', &[sql.as_bytes(), b"\0"]);
        self.told()
    }

    /// Binds one value as text, and executes that.
    fn run(&mut self, name: &str, value: &str) -> Told {
        self.send(b'B', &bind(name, value).each_ref().map(|part| &part[..]));
        self.send(b'E', &[b"\0\0\0\0\0"]);
        self.told()
    }

    /// How the statement is called that was sent last.
    fn told(&self) -> Told {
        let Some(Owed::Query { called, .. } | Owed::Execute { called }) = self.pipeline.owed.back() else {
            panic!("no statement is under way")
        };
        let normal = called.0.as_ref().unwrap();
        let own = |text: Option<Box<str>>| text.map(String::from);
        let (text, values) =
            normal.verbatim.as_deref().cloned().map(|all| (own(all.text), own(all.values))).unwrap_or_default();
        (normal.text.to_string(), text, values)
    }
}

fn bind(name: &str, value: &str) -> [Vec<u8>; 4] {
    let length = (value.len() as i32).to_be_bytes();
    let names = format!("\0{name}\0");
    [names.into_bytes(), [&b"\0\0\0\x01"[..], &length].concat(), value.into(), b"\0\0".to_vec()]
}

fn told(normal: &str, text: Option<&str>, values: Option<&str>) -> Told {
    (normal.to_owned(), text.map(str::to_owned), values.map(str::to_owned))
}

#[test]
fn statements_are_kept_as_they_were_sent_only_when_that_is_wanted() {
    for mode in [Mode::Transaction, Mode::Session] {
        for name in ["", "s"] {
            let mut talk = Talk::new(mode, true);
            assert_eq!(talk.query("SELECT 2 -- why"), told("SELECT ?", Some("SELECT 2 -- why"), None));
            talk.parse(name, "SELECT $1, 2");
            let expected = told("SELECT $1, ?", Some("SELECT $1, 2"), Some("$1 = 'x'"));
            assert_eq!(talk.run(name, "x"), expected, "{mode:?} {name}");
            talk.pipeline.verbatim = false;
            assert_eq!(talk.query("SELECT 2 -- why"), told("SELECT ?", None, None));
            talk.parse("", "SELECT $1, 3");
            assert_eq!(talk.run("", "x"), told("SELECT $1, ?", None, None), "{mode:?} {name}");
        }
    }
}

#[test]
fn values_that_are_to_be_shown_are_waited_for() {
    let mut message = Vec::new();
    frame(b'B', &bind("", "value").each_ref().map(|part| &part[..]), &mut message);
    for verbatim in [true, false] {
        let mut talk = Talk::new(Mode::Transaction, verbatim);
        talk.parse("", "SELECT $1");
        for there in HEADER_BYTES + 2..message.len() {
            let step = talk.show(&message, there);
            assert_eq!(step, if verbatim { ClientStep::More } else { ClientStep::Forward });
        }
    }
    // Only for the beginning of what is longer than will be shown.
    let long = "x".repeat(1 << 20);
    let mut message = Vec::new();
    frame(b'B', &bind("", &long).each_ref().map(|part| &part[..]), &mut message);
    let mut talk = Talk::new(Mode::Transaction, true);
    talk.parse("", "SELECT $1");
    assert_eq!(talk.show(&message, 1_000), ClientStep::More);
    assert_eq!(talk.show(&message, 10_000), ClientStep::Forward);
    talk.send(b'E', &[b"\0\0\0\0\0"]);
    let (_, _, values) = talk.told();
    assert!(values.is_some_and(|values| values.starts_with("$1 = 'xxx") && values.ends_with("x…")));
}

#[test]
fn what_was_prepared_before_is_shown_without_its_literals() {
    let mut talk = Talk::new(Mode::Session, false);
    talk.parse("s", "SELECT $1, 2");
    talk.parse("t", "UPDATE account SET password = $1");
    talk.pipeline.verbatim = true;
    assert_eq!(talk.run("s", "x"), told("SELECT $1, ?", None, Some("$1 = 'x'")));
    assert!(talk.run("t", "hush").2.is_some_and(|values| values.starts_with("(not shown")));
}

#[test]
fn what_may_take_a_password_is_kept_without_values() {
    let withheld = |normal: &str| told(normal, None, Some("(not shown: there may be a password among them)"));
    let mut talk = Talk::new(Mode::Transaction, true);
    assert_eq!(talk.query("ALTER ROLE a PASSWORD 'x'"), withheld("ALTER ROLE a PASSWORD ?"));
    assert_eq!(talk.query("ALTER ROLE a PASSWORD 'x\\'"), withheld(""));
    talk.parse("s", "UPDATE account SET password = $1");
    talk.parse("t", "UPDATE account SET name = $1");
    assert_eq!(talk.run("s", "x"), withheld("UPDATE account SET password = $1"));
    for (name, is_shown) in [("t", true), ("s", false), ("unknown", false)] {
        let (sql, normal) = (format!("EXECUTE {name}('x')"), format!("EXECUTE {name}(?)"));
        let expected = if is_shown { told(&normal, Some(&sql), None) } else { withheld(&normal) };
        let mut talk = Talk::new(Mode::Transaction, true);
        talk.parse("s", "UPDATE account SET password = $1");
        talk.parse("t", "UPDATE account SET name = $1");
        assert_eq!(talk.query(&sql), expected);
    }
}
