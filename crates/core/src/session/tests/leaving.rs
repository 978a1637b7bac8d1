//! Clients that leave wherever they are, and what the next client finds: from every state that messages lead to, "the
//! client is gone" ends in a server connection that is ready for anybody, or is closed, after a bounded number of messages.

use proptest::prelude::*;

use super::{
    message::{Message, take_messages, tell_reply, tell_request},
    player::World,
};
use crate::session::Mode;

/// Everything that a client can send, well formed or not, as far as it makes a difference.
fn alphabet() -> Vec<Message> {
    let text = str::to_owned;
    let queries = [
        "SELECT 1",
        "SELEC",
        "BEGIN",
        "COMMIT",
        "COPY t FROM STDIN",
        "COPY t TO STDOUT",
        "INSERT INTO t VALUES (1)",
        "/* poolhouse: replica */ SELECT 1",
        "SET poolhouse.route = 'replica'",
        "DEALLOCATE ALL",
        "LISTEN c",
    ];
    let parsed = [("", "SELECT 1"), ("", "SELEC"), ("a", "COPY t FROM STDIN"), ("b", "INSERT INTO t VALUES (1)")];
    let mut all: Vec<Message> = queries.map(|sql| Message::Query(text(sql))).into();
    all.extend(parsed.map(|(name, sql)| Message::Parse(text(name), text(sql))));
    all.extend(["", "a", "b", "nope"].map(|name| Message::Bind(text(""), text(name))));
    all.extend(["a", "nope"].map(|name| Message::DescribeStatement(text(name))));
    all.push(Message::DescribePortal(text("")));
    all.extend(["", "nope"].map(|portal| Message::Execute(text(portal), 0)));
    all.push(Message::CloseStatement(text("a")));
    all.extend([Message::Sync, Message::Flush, Message::FunctionCall]);
    all.extend([Message::CopyData(text("good")), Message::CopyData(text("bad")), Message::CopyDone, Message::CopyFail]);
    all.extend(b"QPBDECSHFcf".map(Message::Malformed));
    all
}

/// How bytes move while the client says its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Everything comes at once, and the client has gone before anything is looked at.
    AtOnce,
    /// Each message is answered, as far as it can be, before the next one comes.
    OneByOne,
}

/// One client says this and leaves, or stays. Another one is served at once, unless the first holds the only server.
fn check(messages: &[&Message], pace: Pace, leaves: bool, mode: Mode, replicas: usize) {
    let mut world = World::new(1 + replicas, replicas, 2, mode);
    let (gone, innocent) = (world.add_client(&[]), world.add_client(&[]));
    for message in messages {
        world.send_message(gone, message);
        if pace == Pace::OneByOne {
            world.settle();
        }
    }
    if leaves {
        world.leave(gone);
    }
    world.settle();
    let why = |world: &World, what: &str| {
        let tell = |message: &&Message| {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            take_messages(&mut bytes).iter().map(|(tag, body)| tell_request(*tag, body)).collect::<String>()
        };
        let said: Vec<String> = messages.iter().map(tell).collect();
        format!("{what}: {said:?}, {pace:?}, leaves: {leaves}, {mode:?}, {replicas} replicas: {:#?}", world.log)
    };
    assert!(!leaves || world.clients[gone].lent.is_none(), "{}", why(&world, "it has left and holds a server"));
    assert!(!leaves || world.clients[gone].ended.is_some(), "{}", why(&world, "it has left and lives on"));
    if world.clients[gone].lent.is_some() {
        return;
    }
    let text = str::to_owned;
    let simple = vec![Message::Query(text("SELECT 1"))];
    let extended = vec![
        Message::Parse(text(""), text("SELECT 2")),
        Message::Bind(text(""), text("")),
        Message::Execute(text(""), 0),
        Message::Sync,
    ];
    let answers =
        ["Columns Row 10 Complete SELECT 1 Ready I", "ParseComplete BindComplete Row 20 Complete SELECT 1 Ready I"];
    for (asked, answer) in [simple, extended].into_iter().zip(answers) {
        let before = world.clients[innocent].received.len();
        asked.iter().for_each(|message| world.send_message(innocent, message));
        world.settle();
        let mut received = world.clients[innocent].received[before..].to_vec();
        let told: Vec<String> = take_messages(&mut received).iter().map(|(tag, body)| tell_reply(*tag, body)).collect();
        assert_eq!(told.join(" "), answer, "{}", why(&world, "another client is answered otherwise"));
    }
}

fn check_all_ways(messages: &[&Message], mode: Mode, replicas: usize) {
    for pace in [Pace::AtOnce, Pace::OneByOne] {
        for leaves in [true, false] {
            check(messages, pace, leaves, mode, replicas);
        }
    }
}

#[test]
fn whatever_two_messages_a_client_says_it_leaves_nothing_to_the_next() {
    let all = alphabet();
    for (mode, replicas) in [(Mode::Transaction, 0), (Mode::Transaction, 1), (Mode::Session, 0), (Mode::Statement, 0)] {
        for one in &all {
            check_all_ways(&[one], mode, replicas);
            for other in &all {
                check_all_ways(&[one, other], mode, replicas);
            }
        }
    }
}

#[test]
fn a_batch_behind_a_copy_that_fails_is_open() {
    let text = str::to_owned;
    let parse = Message::Parse(text(""), text("SELECT 1"));
    let copy = [Message::Query(text("COPY t FROM STDIN")), Message::CopyData(text("bad"))];
    for behind in [vec![&parse], vec![&parse, &Message::Flush], vec![&copy[0], &copy[1], &parse]] {
        let said: Vec<&Message> = copy.iter().chain(behind).collect();
        check_all_ways(&said, Mode::Transaction, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES=1000000 for nearly all of them.
        cases: ProptestConfig::default().cases * 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_more_messages_a_client_says_it_leaves_nothing_to_the_next(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 3..8),
        mode in prop::sample::select(vec![Mode::Transaction, Mode::Transaction, Mode::Session, Mode::Statement]),
        replicas in 0..2_usize,
    ) {
        let all = alphabet();
        let messages: Vec<&Message> = picks.iter().map(|pick| &all[pick.index(all.len())]).collect();
        check_all_ways(&messages, mode, replicas);
    }
}
