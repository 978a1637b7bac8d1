//! Random scripts, read from bytes, so that a property test and a fuzzer can share them: clients send messages in any
//! pipelining, bytes move in any chunks and order, servers may break. What each client receives is compared with what
//! the same messages get from a model server of its own.

use std::collections::BTreeMap;

use super::{
    message::{Message, take_messages, tell_reply, tell_request, texts},
    model::Model,
    player::World,
};
use crate::session::Mode;

/// Bytes as a source of choices; zeros when they have run out.
#[derive(Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn take(&mut self) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(*first)
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.take() % items.len()]
    }
}

const NAMES: [&str; 4] = ["", "a", "b", "c"];
const PORTALS: [&str; 3] = ["", "", "p"];
const TEXTS: [&str; 29] = [
    "SELECT 1",
    "SELECT 2",
    "TABLE five",
    "INSERT INTO t VALUES (1)",
    "BEGIN",
    "BEGIN READ ONLY",
    "COMMIT",
    "ROLLBACK",
    "SELECT 1/0",
    "SELECT 1/zero FROM t",
    "SELECT missing",
    "SELEC",
    "SET work_mem = '1024kB'",
    "SET LOCAL work_mem = '2MB'",
    "RESET work_mem",
    "SHOW work_mem",
    "SET application_name = 'x'",
    "SHOW application_name",
    "SET app.x = 'secret'",
    "SHOW app.x",
    "RESET ALL",
    "SELECT set_config('work_mem','3MB',false)",
    "INSERT INTO deferred VALUES (1)",
    "COPY t TO STDOUT",
    "COPY t FROM STDIN",
    "LISTEN c",
    "CREATE TEMP TABLE tmp (a int)",
    "",
    "SET application_name = 'y'",
];
const MORE_TEXTS: [&str; 8] = [
    "DISCARD ALL",
    "DEALLOCATE ALL",
    "DEALLOCATE a",
    "DEALLOCATE b",
    "SELECT 1; SELECT 1/zero FROM t; SELECT 2",
    "BEGIN; SET work_mem = '5MB'",
    "COPY t FROM STDIN; SELECT 1",
    "SET work_mem = '6MB'; SET app.x = 'other'",
];

/// What one client has sent, and what a server of its own answered.
#[derive(Debug)]
struct Party {
    alone: Model,
    sent: Vec<(u8, Vec<u8>)>,
    outgoing: Vec<u8>,
    /// Replies of `alone` so far, and how many of them it had flushed.
    expected: Vec<(u8, Vec<u8>)>,
    flushed: usize,
    /// Data of a COPY was sent, and its end was not: only the end may follow.
    in_data: bool,
    /// Its blocks may leave the server on which they began.
    roams: bool,
}

/// Plays a script. Panics when a promise is broken.
pub fn play(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let flags = choices.take();
    let (servers, replicas) = [(1, 0), (2, 0), (2, 1), (2, 0)][flags % 4];
    let clients = 1 + flags / 4 % 2;
    let losses = flags / 8 % 4 == 3;
    let statements_max = 1 + flags / 32 % 3;
    let world = World::new(servers, replicas, statements_max, Mode::Transaction);
    let mut world = if flags >= 128 { world.reading_until_write() } else { world };
    let mut parties = Vec::new();
    for _ in 0..clients {
        let client = world.add_client(&[]);
        world.clients[client].pipeline.verbatim = flags.is_multiple_of(5);
        let alone = Model::new(false);
        let roams = replicas > 0;
        parties.push(Party {
            alone,
            sent: vec![],
            outgoing: vec![],
            expected: vec![],
            flushed: 0,
            in_data: false,
            roams,
        });
    }
    while !choices.is_empty() {
        act(&mut world, &mut parties, losses, &mut choices);
    }
    end(&mut world, &mut parties, losses);
}

fn act(world: &mut World, parties: &mut [Party], losses: bool, choices: &mut Choices<'_>) {
    let client = choices.take() % parties.len();
    let server = choices.take() % world.servers.len();
    match choices.take() % 16 {
        0..=6 => send(&mut parties[client], losses, choices),
        7 => send_batch(&mut parties[client], losses, choices),
        8 | 9 => {
            let most = choices.take() + 1;
            deliver(world, parties, client, most);
            world.move_client(client);
        }
        10 => {
            deliver(world, parties, client, usize::MAX);
            world.move_client(client);
        }
        11 => {
            world.move_server(server);
        }
        12 => {
            world.move_replies(server, choices.take() + 1);
        }
        13 => {
            world.move_client(client);
            while world.move_server(server) {}
            world.move_replies(server, usize::MAX);
        }
        14 => wait(world, parties, client, losses),
        _ if losses && choices.take().is_multiple_of(4) => world.lose(server),
        _ => world.lend_next = Some(server),
    }
}

fn deliver(world: &mut World, parties: &mut [Party], client: usize, most: usize) {
    let outgoing = &mut parties[client].outgoing;
    let bytes: Vec<u8> = outgoing.drain(..most.min(outgoing.len())).collect();
    world.send(client, &bytes);
}

/// The client waits for what it has coming before it goes on.
fn wait(world: &mut World, parties: &mut [Party], client: usize, losses: bool) {
    deliver(world, parties, client, usize::MAX);
    world.settle();
    if losses {
        return;
    }
    let party = &mut parties[client];
    let received = received(world, client);
    assert!(received.len() <= party.expected.len(), "too many replies: {}", differ(world, party, client));
    assert!(received == party.expected[..received.len()], "other replies: {}", differ(world, party, client));
    if !world.waits(client) {
        assert!(received.len() >= party.flushed, "replies are missing: {}", differ(world, party, client));
        party.in_data &= party.alone.is_in_copy();
    }
}

fn send(party: &mut Party, losses: bool, choices: &mut Choices<'_>) {
    let owned = |text: &str| text.to_owned();
    let message = match choices.take() % 20 {
        0..=2 => Message::Query(owned(query(choices))),
        3 | 4 => Message::Parse(owned(choices.of(&NAMES)), owned(choices.of(&TEXTS))),
        5..=7 => Message::Bind(owned(choices.of(&PORTALS)), owned(choices.of(&NAMES))),
        8 => Message::DescribeStatement(owned(choices.of(&NAMES))),
        9 => Message::DescribePortal(owned(choices.of(&PORTALS))),
        10 | 11 => Message::Execute(owned(choices.of(&PORTALS)), choices.of(&[0, 0, 1, 2])),
        12 => Message::CloseStatement(owned(choices.of(&NAMES))),
        13 => Message::ClosePortal(owned(choices.of(&PORTALS))),
        14..=16 => Message::Sync,
        17 => Message::Flush,
        18 => Message::CopyData(owned(choices.of(&["good", "good", "bad"]))),
        _ if choices.take().is_multiple_of(3) => Message::CopyFail,
        _ => Message::CopyDone,
    };
    say(party, losses, message);
}

fn query(choices: &mut Choices<'_>) -> &'static str {
    let choice = choices.take();
    if choice % 4 == 3 { MORE_TEXTS[choice / 4 % MORE_TEXTS.len()] } else { TEXTS[choice / 4 % TEXTS.len()] }
}

/// Parse, Bind, Execute and Sync, as most drivers send them.
fn send_batch(party: &mut Party, losses: bool, choices: &mut Choices<'_>) {
    let name = choices.of(&NAMES).to_owned();
    let text = choices.take();
    let text = if text % 16 == 15 { MORE_TEXTS[text / 16 % 2] } else { TEXTS[text % TEXTS.len()] };
    say(party, losses, Message::Parse(name.clone(), text.to_owned()));
    say(party, losses, Message::Bind(String::new(), name));
    if choices.take().is_multiple_of(2) {
        say(party, losses, Message::DescribePortal(String::new()));
    }
    say(party, losses, Message::Execute(String::new(), 0));
    say(party, losses, Message::Sync);
}

/// The client says it, if a client may at this point.
fn say(party: &mut Party, losses: bool, message: Message) {
    let of_copy = matches!(message, Message::CopyData(_) | Message::CopyDone | Message::CopyFail);
    let copies = |text: &str| text.contains("FROM STDIN");
    let starts_copy = matches!(&message, Message::Parse(_, text) | Message::Query(text) if copies(text));
    // Which Syncs a server has ignored in a COPY that is lost cannot be told afterwards.
    if losses && starts_copy {
        return;
    }
    // In an unfinished batch a DEALLOCATE of one name reaches the server, which does not know the client's name.
    let one = matches!(&message, Message::Query(text) if text.starts_with("DEALLOCATE ") && text != "DEALLOCATE ALL");
    if one && (party.alone.has_open_batch() || party.alone.has_unnamed_portal()) {
        return;
    }
    // A statement that has to be parsed again in an aborted transaction gives that error before its own.
    let parses_again = matches!(&message, Message::Parse(name, _) if !name.is_empty());
    if (parses_again || matches!(message, Message::DescribeStatement(_))) && party.alone.is_failed() {
        return;
    }
    // A portal that is done stays behind where a block that moves has left it.
    let of_portal = matches!(&message, Message::DescribePortal(name) | Message::Execute(name, _) if name.is_empty());
    if of_portal && party.roams && !party.alone.has_open_batch() && party.alone.has_unnamed_portal() {
        return;
    }
    let quiet = of_copy || message == Message::Flush;
    if party.in_data && !quiet || party.alone.is_in_copy() && !quiet && message != Message::Sync {
        return;
    }
    if party.alone.is_in_copy() {
        party.in_data |= matches!(message, Message::CopyData(_));
    }
    if matches!(message, Message::CopyDone | Message::CopyFail) {
        party.in_data = false;
    }
    // A name that is free again since all were deallocated can be used after the Sync, not before.
    let ends_batch = match &message {
        Message::Bind(_, name) => party.alone.statements.get(name).is_some_and(|text| text.ends_with(" ALL")),
        _ => false,
    };
    if ends_batch && !matches!(&message, Message::Bind(portal, _) if portal.is_empty()) {
        return;
    }
    put(party, &message);
    if ends_batch {
        put(party, &Message::Execute(String::new(), 0));
        put(party, &Message::Sync);
    }
}

fn put(party: &mut Party, message: &Message) {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    party.outgoing.extend_from_slice(&bytes);
    party.alone.receive(&bytes);
    party.sent.extend(take_messages(&mut bytes));
    while party.alone.has_input() {
        party.alone.step();
    }
    party.alone.heard.clear();
    let flushed = visible(&party.alone.written());
    party.flushed = visible(&party.alone.written_and_flushed()).len();
    party.expected = flushed;
}

/// The messages that have their place in the order of replies.
fn visible(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut messages = take_messages(&mut bytes.to_vec());
    messages.retain(|(tag, _)| *tag != b'S');
    messages
}

fn received(world: &World, client: usize) -> Vec<(u8, Vec<u8>)> {
    visible(&world.clients[client].received)
}

/// What ParameterStatus messages have said last.
fn told(bytes: &[u8]) -> BTreeMap<String, String> {
    let messages = take_messages(&mut bytes.to_vec());
    let told = messages.iter().filter(|(tag, _)| *tag == b'S').map(|(_, body)| texts::<2>(body).0);
    let mut all: BTreeMap<String, String> = Model::default().reported().into_iter().collect();
    all.extend(told.map(|[name, value]| (name, value)));
    all
}

/// Every client ends what it has begun and says a last word; then everything must have been answered.
fn end(world: &mut World, parties: &mut [Party], losses: bool) {
    for party in parties.iter_mut() {
        say(party, losses, Message::CopyFail);
        for last in ["", "ROLLBACK", "SHOW work_mem", "SHOW app.x", "DISCARD ALL", "SELECT 1"] {
            say(party, losses, Message::Sync);
            say(party, losses, Message::Query(last.to_owned()));
        }
    }
    for client in 0..parties.len() {
        deliver(world, parties, client, usize::MAX);
    }
    world.settle();
    for (client, party) in parties.iter().enumerate() {
        if losses {
            if world.clients[client].ended.is_none() {
                check_answers(world, party, client);
            }
            continue;
        }
        assert!(received(world, client) == party.expected, "{}", differ(world, party, client));
        let (theirs, alone) = (told(&world.clients[client].received), told(&party.alone.written()));
        assert_eq!(theirs, alone, "what ParameterStatus told: {}", differ(world, party, client));
    }
    let lent: Vec<_> = world.clients.iter().filter(|client| client.ended.is_none()).map(|client| client.lent).collect();
    assert!(lent.iter().all(Option::is_none), "a server is still lent: {:#?}", world.log);
}

/// Every message has been answered once, with a success or an error.
fn check_answers(world: &World, party: &Party, client: usize) {
    let mut replies = received(world, client);
    replies.retain(|(tag, _)| *tag != b'N');
    let mut replies = replies.iter().map(|(tag, _)| *tag).peekable();
    let mut skipping = false;
    for (tag, body) in &party.sent {
        let ends: &[u8] = match tag {
            b'Q' | b'S' => b"Z",
            b'P' => b"1",
            b'B' => b"2",
            b'D' => b"Tn",
            b'E' => b"CIs",
            b'C' => b"3",
            _ => continue,
        };
        if skipping && *tag != b'S' {
            continue;
        }
        loop {
            let Some(reply) = replies.next() else {
                panic!("no answer to {}: {}", tell_request(*tag, body), differ(world, party, client));
            };
            skipping = reply == b'E' && !matches!(tag, b'Q' | b'S');
            if skipping || ends.contains(&reply) {
                break;
            }
            let between = match tag {
                b'Q' => true,
                b'S' => reply == b'E',
                b'D' => reply == b't',
                b'E' => matches!(reply, b'D' | b'H' | b'd' | b'c'),
                _ => false,
            };
            let request = tell_request(*tag, body);
            assert!(between, "{} answers {request}: {}", char::from(reply), differ(world, party, client));
        }
    }
    assert!(replies.next().is_none(), "too many replies: {}", differ(world, party, client));
}

/// All that is known, for the message of a failure.
fn differ(world: &World, party: &Party, client: usize) -> String {
    let sent: Vec<String> = party.sent.iter().map(|(tag, body)| tell_request(*tag, body)).collect();
    let expected: Vec<String> = party.expected.iter().map(|(tag, body)| tell_reply(*tag, body)).collect();
    let received: Vec<String> = received(world, client).iter().map(|(tag, body)| tell_reply(*tag, body)).collect();
    let same = expected.iter().zip(&received).take_while(|(one, other)| one == other).count();
    format!(
        "client {}, ended: {:?}\nsent: {sent:#?}\nexpected, from {same}: {:#?}\nreceived: {:#?}\nall: {:#?}",
        super::player::name_of(client),
        world.clients[client].ended,
        &expected[same..],
        &received[same..],
        world.log,
    )
}
