//! What the fuzz targets do with bytes. The tests of `session` replay the seeds with it.

use std::sync::Arc;

use super::{
    player::Verdicts,
    script::{self, Choices},
};
use crate::{
    session::{
        Carried, ClientStep, ClusterNodes, Loss, Mode, OnPin, Outboxes, Pipeline, Reported, ServerState, ServerStep,
        Session, Shared, Shown, Statements,
    },
    wire::{
        self, ErrorFields,
        frame::{self, ClientMessage, HEADER_BYTES, Reply},
        header, reply, request, startup,
    },
};

/// Every reader of messages, on arbitrary bytes: none panics, none reads past the end, none takes a message for longer
/// than its header says.
pub fn frames(bytes: &[u8]) {
    let _ = startup::read(bytes);
    let mut rest = bytes;
    while let Ok(Some(head)) = header(rest) {
        let _ = (ClientMessage::of(head), Reply::of(head.tag));
        let Some((message, after)) = rest.split_at_checked(head.message()) else { break };
        bodies(&message[HEADER_BYTES..]);
        rest = after;
    }
    bodies(bytes);
}

fn bodies(body: &[u8]) {
    let _ = (request::Object::read(body), request::query_text(body), frame::split_text(body));
    if let Ok(parse) = request::Parse::read(body) {
        let mut out = Vec::new();
        parse.write(parse.name, &mut out);
        assert_eq!(&out[HEADER_BYTES..], body, "a Parse that is written again");
    }
    if let Some(names) = request::BindNames::read(body) {
        let mut out = Vec::new();
        names.write_front(body.len(), names.statement, &mut out);
        out.extend_from_slice(&body[names.bytes..]);
        assert_eq!(&out[HEADER_BYTES..], body, "a Bind that is written again");
        request::BindValues::read(&body[names.bytes..]).for_each(drop);
    }
    let _ = (reply::Status::read(body), reply::parameter_status_parts(body), reply::data_row(body));
    if let Ok(authentication) = reply::Authentication::read(body) {
        let mut out = Vec::new();
        authentication.write(&mut out);
    }
    let fields = ErrorFields::read(body);
    let mut out = Vec::new();
    fields.write(b'E', &mut out);
    assert_eq!(ErrorFields::read(&out[HEADER_BYTES..]), fields, "an error that is written again");
}

/// The first byte chooses: a script for model servers, or a conversation with a server that says anything.
pub fn session(bytes: &[u8]) {
    match bytes.split_first() {
        Some((mode, script)) if mode % 4 != 0 => script::play(script),
        Some((mode, script)) => wild(mode / 4, script),
        None => {}
    }
}

/// Any messages from both sides, well framed or not: the session may refuse, and does not panic.
fn wild(mode: u8, bytes: &[u8]) {
    let mode = [Mode::Transaction, Mode::Session, Mode::Statement][usize::from(mode % 3)];
    let mut choices = Choices::new(bytes);
    let shared = Shared {
        mode,
        statements_max: choices.take() % 4,
        reads_until_write: false,
        lists: None,
        nodes: Arc::new(ClusterNodes::new(["a", "b"][..1 + choices.take() % 2].iter().map(|name| Some(*name)))),
        statements: Arc::new(Statements::default()),
        on_pin: OnPin::Allow,
        code: Arc::default(),
    };
    let mut session = Session::new(Arc::new(shared), Arc::new(Carried::default()), Arc::new(Reported::default()));
    let (mut pipeline, mut server) = (Pipeline::default(), ServerState::default());
    let mut lent = false;
    while !choices.is_empty() {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut out = Outboxes { to_server: &mut to_server, to_client: &mut to_client };
        let action = choices.take();
        if lent && action % 16 == 15 {
            session.on_loss(
                Loss { node: "n", mid_message: action > 240, alone: action.is_multiple_of(2) },
                &mut pipeline,
                &mut out,
            );
            (pipeline, lent) = (Pipeline::default(), false);
            continue;
        }
        let from_server = lent && action % 2 == 1;
        let (head, body) = message(from_server, &mut choices);
        let there = if action % 8 < 6 { body.len() } else { choices.take().min(body.len()) };
        let shown = Shown { head, body: &body[..there], after: &[] };
        let ended = if from_server {
            let whole = Shown { body: &body, ..shown };
            let step = session.on_server(whole, &mut pipeline, &mut server, &mut out);
            if step == ServerStep::ForwardThenAnswer {
                session.answer_after_forward(&mut pipeline, &mut out);
            }
            if matches!(step, ServerStep::ForwardAndRelease | ServerStep::Release) {
                assert!(pipeline.owed.is_empty(), "released while something is owed");
                pipeline.reset();
                lent = false;
            }
            matches!(step, ServerStep::Fail(_))
        } else {
            let state = lent.then_some(&mut server);
            let step = session.on_client(shown, &mut pipeline, state, &Verdicts, &mut out);
            if let ClientStep::NeedServer(need) = step {
                assert!(!lent, "a second server is wanted");
                session.attach(&mut pipeline, &mut server, need, &mut out);
                lent = true;
            }
            matches!(step, ClientStep::Fail(_) | ClientStep::Bye)
        };
        if ended {
            return;
        }
    }
}

/// A message with a likely type and a likely body.
fn message(from_server: bool, choices: &mut Choices<'_>) -> (wire::Header, Vec<u8>) {
    const REQUESTS: &[u8] = b"QPBDECSHFdcfXp!";
    const REPLIES: &[u8] = b"ZC123EtTnsIGHWDdcSNAVK";
    const BODIES: [&[u8]; 16] = [
        b"",
        b"I",
        b"T",
        b"E",
        b"\0",
        b"\0\0",
        b"S\0",
        b"Sa\0",
        b"P\0",
        b"a\0SELECT 1\0\0\0",
        b"\0SELECT 1\0\0\0",
        b"SET work_mem = '1MB'\0",
        b"DISCARD ALL\0",
        b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0",
        b"SERROR\0VERROR\0C26000\0M\"__poolhouse_1\"\0\0",
        b"\0\x03\0\0\0\x01s\0\0\0\x08work_mem\0\0\0\x01x",
    ];
    let tags = if from_server { REPLIES } else { REQUESTS };
    let tag = tags[choices.take() % tags.len()];
    let choice = choices.take();
    let body = match BODIES.get(choice) {
        Some(body) => body.to_vec(),
        None => (0..choice % 32).map(|_| choices.take() as u8).collect(),
    };
    (wire::Header { tag, body: body.len() }, body)
}
