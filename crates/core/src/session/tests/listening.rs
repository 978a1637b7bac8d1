//! A session that listens, its server connection, and the hub, in front of a model of the server's queue of
//! notifications: whoever moves next, each notification comes once, and in order.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use proptest::prelude::*;

use super::player::Verdicts;
use crate::{
    session::{
        AfterLoss, Carried, Channel, ClientStep, Delivery, Errand, HubAddress, Loss, Mail, Mode, Need, OnPin, Outboxes,
        Pipeline, Reported, ServerState, ServerStep, Session, Shared, Shown, Statements, read_marker,
    },
    wire::{frame::HEADER_BYTES, header, reply, reply::Status, request},
};

const MARKER: &str = "marker";
const SUBSCRIBER: u64 = 7;

/// What the client may say; "more" is a second channel, on which nothing is ever sent.
const STATEMENTS: [&str; 7] =
    ["SELECT 1", "NOTIFY other,'x'", "LISTEN more", "UNLISTEN more", "BEGIN", "COMMIT", "LISTEN bell;SELECT 1"];

/// Channel and payload of each notification, in the order of commits.
type Queue = Vec<(String, String)>;

/// The backend of the server connection.
#[derive(Debug, Default)]
struct Backend {
    channels: BTreeSet<String>,
    /// How far it has read the queue.
    at: usize,
    input: VecDeque<String>,
    output: VecDeque<Vec<u8>>,
    in_block: bool,
    /// What the open transaction will have done at its end.
    pending_channels: BTreeSet<String>,
    pending_notifies: Queue,
}

impl Backend {
    /// Runs one simple query. True when there was one.
    fn step(&mut self, queue: &mut Queue) -> bool {
        let Some(sql) = self.input.pop_front() else { return false };
        if !self.in_block {
            self.pending_channels = self.channels.clone();
        }
        let statements = if sql.starts_with("SELECT 's'") { vec![&*sql] } else { sql.split(';').collect() };
        for statement in statements {
            self.run(statement.trim());
        }
        let status = if self.in_block { Status::Transaction } else { Status::Idle };
        if !self.in_block {
            if self.channels.is_empty() {
                self.at = queue.len();
            }
            self.channels = self.pending_channels.clone();
            queue.append(&mut self.pending_notifies);
            self.read(queue);
        }
        let mut ready = Vec::new();
        reply::ready_for_query(status, &mut ready);
        self.output.push_back(ready);
        true
    }

    fn run(&mut self, statement: &str) {
        let (verb, rest) = statement.split_once(' ').unwrap_or((statement, ""));
        let name = |text: &str| text.trim_matches('"').to_owned();
        match verb {
            "LISTEN" => drop(self.pending_channels.insert(name(rest))),
            "UNLISTEN" if rest == "*" => self.pending_channels.clear(),
            "UNLISTEN" => drop(self.pending_channels.remove(&name(rest))),
            "NOTIFY" => {
                let (channel, payload) = rest.split_once(',').expect("a payload");
                self.pending_notifies.push((channel.to_owned(), payload.trim_matches('\'').to_owned()));
            }
            "BEGIN" => self.in_block = true,
            "COMMIT" => self.in_block = false,
            "SELECT" if rest.contains("pg_listening_channels") => {
                for channel in &self.pending_channels {
                    let mut row = b"\0\x03\0\0\0\x01l\xff\xff\xff\xff".to_vec();
                    row.extend_from_slice(&(channel.len() as u32).to_be_bytes());
                    row.extend_from_slice(channel.as_bytes());
                    self.output.push_back(message(b'D', &row));
                }
            }
            "SELECT" | "SET" | "" => {}
            _ => panic!("the model does not know {statement}"),
        }
        let mut tag = Vec::new();
        reply::command_complete(verb, &mut tag);
        self.output.push_back(tag);
    }

    /// Delivers what the queue holds, as a backend does that idles.
    fn read(&mut self, queue: &Queue) {
        for (channel, payload) in &queue[self.at.min(queue.len())..] {
            if self.channels.contains(channel) {
                self.output.push_back(notification(channel, payload));
            }
        }
        self.at = queue.len();
    }
}

/// The hub, as far as this one client sees it.
#[derive(Debug, Default)]
struct Hub {
    connected: bool,
    at: usize,
    channels: BTreeSet<String>,
    delivering: bool,
    /// The version that will be acknowledged, and whether it delivers then.
    promises: VecDeque<(BTreeSet<String>, u32, bool)>,
    version: u32,
    mail: VecDeque<Mail>,
}

impl Hub {
    /// Reads one entry of the queue, or answers what it was asked. True when there was something.
    fn step(&mut self, queue: &Queue) -> bool {
        if !self.connected {
            return false;
        }
        if let Some((channel, payload)) = queue.get(self.at) {
            self.at += 1;
            if channel == MARKER {
                let (subscriber, number, to_hub) = read_marker(payload.as_bytes()).expect("a marker");
                if subscriber != SUBSCRIBER {
                    return true;
                }
                self.delivering = to_hub;
                self.mail.push_back(if to_hub { Mail::Started(number) } else { Mail::Ended(number) });
            } else if self.delivering && self.channels.contains(channel) {
                self.mail.push_back(Mail::Notification(notification(channel, payload).into()));
            }
            return true;
        }
        let Some((channels, version, deliver)) = self.promises.pop_front() else { return false };
        self.channels = channels;
        self.delivering |= deliver;
        self.version = version;
        self.mail.push_back(Mail::Listening { version, node: 0 });
        true
    }

    fn lose(&mut self) {
        if std::mem::replace(&mut self.connected, false) {
            self.mail.push_back(Mail::Lost);
        }
    }

    fn connect(&mut self, queue: &Queue) {
        if std::mem::replace(&mut self.connected, true) {
            return;
        }
        self.at = queue.len();
        let last = self.promises.drain(..).next_back();
        let (channels, version, _) = last.unwrap_or_else(|| (self.channels.clone(), self.version, true));
        self.promises.push_back((channels, version, true));
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    request::begin(tag, body.len(), &mut out);
    out.extend_from_slice(body);
    out
}

fn notification(channel: &str, payload: &str) -> Vec<u8> {
    message(b'A', &[&[0; 4], channel.as_bytes(), b"\0", payload.as_bytes(), b"\0"].concat())
}

#[derive(Debug)]
struct World {
    queue: Queue,
    session: Session,
    pipeline: Pipeline,
    state: ServerState,
    backend: Backend,
    lent: bool,
    held: bool,
    asked: VecDeque<Vec<u8>>,
    hub: Hub,
    received: Vec<u8>,
    sent: usize,
}

impl World {
    fn new() -> World {
        let statements = Arc::new(Statements::default());
        let shared = Shared {
            mode: Mode::Transaction,
            statements_max: 10,
            reads_until_write: false,
            lists: None,
            nodes: Arc::default(),
            statements,
            on_pin: OnPin::Allow,
            code: Arc::default(),
        };
        let session = Session::new(Arc::new(shared), Arc::new(Carried::default()), Arc::new(Reported::default()));
        World {
            queue: Queue::new(),
            session,
            pipeline: Pipeline::default(),
            state: ServerState::default(),
            backend: Backend::default(),
            lent: false,
            held: false,
            asked: VecDeque::new(),
            hub: Hub { connected: true, ..Hub::default() },
            received: Vec::new(),
            sent: 0,
        }
    }

    fn ask(&mut self, sql: &str) {
        let mut bytes = Vec::new();
        request::query(sql, &mut bytes);
        self.asked.push_back(bytes);
    }

    fn notify(&mut self) {
        self.sent += 1;
        self.queue.push(("bell".into(), self.sent.to_string()));
    }

    fn send_to_backend(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(head) = header(rest).expect("well framed") {
            let sql = request::query_text(&rest[HEADER_BYTES..head.message()]).expect("a query");
            self.backend.input.push_back(String::from_utf8(sql.to_vec()).expect("text"));
            rest = &rest[head.message()..];
        }
    }

    /// Lets the session look at the client's next message.
    fn move_client(&mut self) -> bool {
        if self.held {
            return false;
        }
        let Some(bytes) = self.asked.front().cloned() else { return false };
        let head = header(&bytes).expect("well framed").expect("whole");
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let shown = Shown { head, body: &bytes[HEADER_BYTES..], after: &[] };
        let state = self.lent.then_some(&mut self.state);
        let step = self.session.on_client(shown, &mut self.pipeline, state, &Verdicts, &mut out);
        self.received.extend_from_slice(&to_client);
        self.send_to_backend(&to_server);
        match step {
            ClientStep::Forward => self.send_to_backend(&bytes),
            ClientStep::Answered => {}
            ClientStep::Hold => {
                self.held = true;
                return false;
            }
            ClientStep::NeedServer(need) => {
                self.lent = true;
                let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
                let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
                assert_eq!(need, Need::Write);
                self.session.attach(&mut self.pipeline, &mut self.state, need, &mut out);
                assert!(to_server.is_empty() && to_client.is_empty());
                return true;
            }
            step => panic!("{step:?}"),
        }
        self.asked.pop_front();
        true
    }

    /// Lets the session look at the server's next message.
    fn move_replies(&mut self) -> bool {
        if !self.lent {
            assert!(self.backend.output.is_empty(), "a free server connection says {:?}", self.backend.output);
            return false;
        }
        let Some(bytes) = self.backend.output.pop_front() else { return false };
        self.held = false;
        let head = header(&bytes).expect("well framed").expect("whole");
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let shown = Shown { head, body: &bytes[HEADER_BYTES..], after: &[] };
        let step = self.session.on_server(shown, &mut self.pipeline, &mut self.state, &mut out);
        let release = matches!(step, ServerStep::Release | ServerStep::ForwardAndRelease);
        match step {
            ServerStep::Forward | ServerStep::ForwardAndRelease => self.received.extend_from_slice(&bytes),
            ServerStep::Swallow | ServerStep::Release => {}
            step => panic!("{step:?}"),
        }
        self.received.extend_from_slice(&to_client);
        self.send_to_backend(&to_server);
        if release {
            assert!(self.backend.channels.is_empty(), "a stranger would hear {:?}", self.backend.channels);
            assert!(self.pipeline.owed.is_empty() && self.backend.input.is_empty());
            self.pipeline.reset();
            self.lent = false;
        }
        true
    }

    /// What the client's task does for a session that listens.
    fn attend(&mut self) -> bool {
        let mut moved = false;
        while let Some(errand) = self.session.errand() {
            moved = true;
            match errand {
                Errand::Subscribe { channels, version, deliver, .. } => {
                    self.session.set_hub(HubAddress { marker: MARKER.into(), subscriber: SUBSCRIBER });
                    let text = |channel: &Channel| String::from_utf8(channel.to_vec()).expect("text");
                    self.hub.promises.push_back((channels.iter().map(text).collect(), version, deliver));
                }
                Errand::Leave => panic!("it listens to the bell all the time"),
            }
        }
        let delivery = if self.pipeline.owed.is_quiet() { Delivery::Quiet } else { Delivery::Busy };
        while let Some(mail) = self.hub.mail.pop_front() {
            if let Some(mail) = self.session.on_mail(mail, delivery, &mut self.pipeline, &mut self.received) {
                self.hub.mail.push_front(mail);
                break;
            }
            (moved, self.held) = (true, false);
        }
        if self.lent {
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
            moved |= self.session.hand_over(&mut self.pipeline, &mut self.state, &mut out);
            self.send_to_backend(&to_server);
        }
        moved
    }

    /// The server connection breaks.
    fn lose_server(&mut self) {
        // While it is being asked what has become of the session, or before any hub is, the session would end with it.
        let probing = self.pipeline.owed.iter().any(|owed| format!("{owed:?}").starts_with("Probe"));
        if !self.lent || probing || self.session.listens_here_only() {
            return;
        }
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let loss = Loss { node: "n1", mid_message: false, alone: false };
        let after = self.session.on_loss(loss, &mut self.pipeline, &mut out);
        assert_eq!(after, AfterLoss::GoesOn);
        self.received.extend_from_slice(&to_client);
        self.pipeline.reset();
        (self.backend, self.state) = (Backend::default(), ServerState::default());
        (self.lent, self.held) = (false, false);
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.hub.connect(&self.queue);
            let mut moved = self.attend() | self.move_client() | self.move_replies();
            moved |= self.backend.step(&mut self.queue) | self.hub.step(&self.queue);
            if !moved && (self.backend.in_block || self.backend.at == self.queue.len() || !self.lent) {
                return;
            }
            self.poke();
        }
        panic!("it never settles: {:?}", self.session);
    }

    /// The backend idles, and looks into the queue.
    fn poke(&mut self) {
        if !self.backend.in_block && self.backend.input.is_empty() && !self.backend.channels.is_empty() {
            self.backend.read(&self.queue);
        }
    }

    /// The numbers that the client has heard, and how often it was told of a gap.
    fn heard(&self) -> (Vec<usize>, usize) {
        let (mut numbers, mut gaps) = (Vec::new(), 0);
        let mut rest = &self.received[..];
        while let Some(head) = header(rest).expect("well framed") {
            let body = &rest[HEADER_BYTES..head.message()];
            match head.tag {
                b'A' => {
                    let parts = reply::notification_parts(body).expect("well formed");
                    assert_eq!(parts.channel, b"bell");
                    numbers.push(std::str::from_utf8(parts.payload).expect("text").parse().expect("a number"));
                }
                b'N' => gaps += 1,
                _ => {}
            }
            rest = &rest[head.message()..];
        }
        (numbers, gaps)
    }

    fn play(&mut self, step: u8) {
        match step {
            0..=3 => self.notify(),
            // Another session moves at the same time.
            4 => self.queue.push((MARKER.into(), format!("{} 1 hub", SUBSCRIBER + 1))),
            5..=8 if self.asked.is_empty() => {
                let statement = STATEMENTS[(self.sent + usize::from(step)) % STATEMENTS.len()];
                // COMMIT outside of a block, or a second BEGIN, would only warn.
                let fits = match statement {
                    "BEGIN" => !self.backend.in_block,
                    "COMMIT" => self.backend.in_block,
                    _ => true,
                };
                if fits && self.pipeline.owed.is_empty() {
                    self.ask(statement);
                }
            }
            9..=12 => drop(self.move_client()),
            13..=16 => drop(self.backend.step(&mut self.queue)),
            17..=22 => drop(self.move_replies()),
            23 => self.poke(),
            24..=29 => drop(self.hub.step(&self.queue)),
            30..=33 => drop(self.attend()),
            _ => {}
        }
    }
}

fn listening() -> World {
    let mut world = World::new();
    world.ask("LISTEN bell");
    while world.asked.front().is_some() || !world.pipeline.owed.is_empty() || !world.session.listens() {
        let moved = world.move_client() | world.backend.step(&mut world.queue) | world.move_replies();
        assert!(moved, "{:?}", world.session);
    }
    world
}

fn finish(world: &mut World) {
    world.settle();
    if world.backend.in_block {
        world.ask("COMMIT");
        world.settle();
    }
    world.notify();
    world.settle();
}

#[test]
fn a_session_that_listens_lets_its_server_connection_go() {
    let mut world = listening();
    assert!(world.lent, "until the hub listens");
    world.settle();
    assert!(!world.lent);
    world.notify();
    world.settle();
    assert_eq!(world.heard(), (vec![1], 0));
    world.ask("LISTEN more");
    world.settle();
    assert!(!world.lent);
    world.notify();
    world.settle();
    assert_eq!(world.heard(), (vec![1, 2], 0));
    assert_eq!(world.hub.channels, BTreeSet::from(["bell".to_owned(), "more".to_owned()]));
}

#[test]
fn a_hub_that_was_lost_is_a_gap() {
    let mut world = listening();
    world.settle();
    world.hub.lose();
    world.notify();
    world.settle();
    assert_eq!(world.heard(), (vec![], 1));
    world.notify();
    world.settle();
    assert_eq!(world.heard(), (vec![2], 1));
}

#[test]
fn a_server_connection_that_is_lost_while_it_listens_leaves_the_channels_to_the_hub() {
    let mut world = listening();
    world.settle();
    world.ask("BEGIN");
    world.settle();
    assert!(world.lent);
    world.lose_server();
    world.settle();
    world.notify();
    world.settle();
    assert_eq!(world.heard(), (vec![1], 1));
    assert!(!world.lent);
}

proptest! {
    #[test]
    fn each_notification_comes_once_and_in_order(steps in prop::collection::vec(0u8..34, 0..600)) {
        let mut world = listening();
        for step in steps {
            world.play(step);
        }
        finish(&mut world);
        let (heard, gaps) = world.heard();
        prop_assert_eq!(heard, (1..=world.sent).collect::<Vec<_>>());
        prop_assert_eq!(gaps, 0);
    }

    #[test]
    fn what_is_lost_is_told(
        steps in prop::collection::vec((0u8..34, 0u8..100), 0..600),
    ) {
        let mut world = listening();
        for (step, chance) in steps {
            world.play(step);
            match chance {
                0 => world.hub.lose(),
                1..=5 => world.hub.connect(&world.queue),
                6 => world.lose_server(),
                _ => {}
            }
        }
        finish(&mut world);
        let (heard, gaps) = world.heard();
        prop_assert!(heard.is_sorted_by(|one, two| one < two), "{:?}", heard);
        prop_assert_eq!(heard.last(), Some(&world.sent));
        prop_assert!(gaps > 0 || heard.len() == world.sent, "{:?}", heard);
    }
}
