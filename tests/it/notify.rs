//! LISTEN and NOTIFY in transaction mode: as on a direct connection, without a server connection for each client.

use std::thread;

use super::kit::{
    Config, LabCluster, Message, PATIENCE, RawClient, cluster,
    messages::{bind, execute, parse, query, sync, terminate},
    wait_until,
};

fn started() -> LabCluster {
    cluster().trust_user("app").start().unwrap()
}

fn config(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

/// A notification: the sender, the channel and the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    process: u32,
    channel: String,
    payload: String,
}

fn heard(message: &Message) -> Option<Heard> {
    if message.tag != b'A' {
        return None;
    }
    let (process, rest) = message.body.split_first_chunk::<4>()?;
    let mut texts = rest.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()).unwrap());
    Some(Heard { process: u32::from_be_bytes(*process), channel: texts.next()?, payload: texts.next()? })
}

fn payloads(messages: &[Message]) -> Vec<String> {
    messages.iter().filter_map(heard).map(|heard| heard.payload).collect()
}

/// Waits for the next message, which has to be a notification, without sending anything.
#[track_caller]
fn hear(client: &mut RawClient) -> Heard {
    let message = client.read();
    heard(&message).unwrap_or_else(|| panic!("a notification, not {message:?}"))
}

#[track_caller]
fn ok(client: &mut RawClient, sql: &str) -> Vec<Message> {
    let answer = client.query(sql);
    assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
    answer
}

/// Nothing but the answer comes.
#[track_caller]
fn silent(client: &mut RawClient, sql: &str) {
    let answer = ok(client, sql);
    assert!(payloads(&answer).is_empty(), "{sql}: {answer:?}");
}

/// What the client listens to, as the server tells it.
fn channels(client: &mut RawClient) -> String {
    let sql = "SELECT string_agg(c, ',' ORDER BY c) FROM pg_listening_channels() c";
    client.value(sql).unwrap_or_default()
}

/// Connections of Poolhouse that listen for clients.
fn hubs(cluster: &LabCluster) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name = 'poolhouse'";
    cluster.node(0).query(sql).unwrap()[0][0].as_ref().unwrap().parse().unwrap()
}

#[test]
fn a_client_that_idles_hears_without_a_server_connection() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut listener = login(pooler.port());
    ok(&mut listener, "LISTEN bell");
    let mut other = login(pooler.port());
    for number in 0..20 {
        // The only server connection listens to nothing.
        assert_eq!(channels(&mut other), "");
        ok(&mut other, &format!("NOTIFY bell, '{number}'"));
        assert_eq!(hear(&mut listener).payload, number.to_string());
    }
    ok(&mut other, "BEGIN");
    ok(&mut other, "NOTIFY bell, 'in a transaction'");
    ok(&mut other, "SELECT 1");
    ok(&mut other, "COMMIT");
    assert_eq!(hear(&mut listener).payload, "in a transaction");
    assert_eq!(hubs(&cluster), 1);
    listener.send(&terminate());
    assert!(listener.read_to_end().is_empty());
}

/// Before such a statement the channels come back from the hub, which has a word in it.
#[test]
fn what_touches_the_channels_is_done_for_a_client_that_has_left() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE told (number int, channel text); GRANT ALL ON told TO app").unwrap();
    let pooler = config(&cluster).start();
    let mut other = login(pooler.port());
    for number in 0..10 {
        let mut listener = login(pooler.port());
        ok(&mut listener, "LISTEN bell");
        // The only server connection is free, so the channels are at the hub.
        assert_eq!(channels(&mut other), "");
        let tells = format!("INSERT INTO told SELECT {number}, c FROM pg_listening_channels() c");
        listener.send(&[query(&tells), terminate()].concat());
        drop(listener);
        let told = format!("SELECT max(channel) FROM told WHERE number = {number}");
        wait_until("it is done", PATIENCE, || other.value(&told).as_deref() == Some("bell"));
    }
    assert!(!pooler.logs("was broken off"), "{:?}", pooler.log());
    assert_eq!(channels(&mut other), "", "what they listened to is gone with them");
}

#[test]
fn nothing_is_lost_or_doubled_or_out_of_order_while_channels_move() {
    const COUNT: usize = 10_000;
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut listener = login(pooler.port());
    let mut other = login(pooler.port());
    ok(&mut listener, "LISTEN bell");
    let mut heard = Vec::new();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sender = RawClient::login(cluster.node(0).port(), "postgres", "app", "");
            for number in 0..COUNT {
                ok(&mut sender, &format!("NOTIFY bell, '{number}'"));
            }
        });
        // Each brings the channels to the server connection.
        let moves = ["NOTIFY other", "BEGIN; SELECT 1; COMMIT", "LISTEN more", "UNLISTEN more", "DO 'BEGIN END'"];
        for sql in moves.iter().cycle() {
            heard.extend(payloads(&ok(&mut listener, sql)));
            // It is the only one, so the channels have gone to the hub when another client has it.
            ok(&mut other, "SELECT 1");
            heard.extend(payloads(&ok(&mut listener, "SELECT 2")));
            if sender.is_finished() {
                break;
            }
        }
        sender.join().unwrap();
    });
    while heard.len() < COUNT {
        heard.push(hear(&mut listener).payload);
    }
    silent(&mut listener, "SELECT 1");
    let expected: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    let wrong = heard.iter().zip(&expected).position(|(heard, expected)| heard != expected);
    assert_eq!(wrong.map(|at| &heard[at.saturating_sub(2)..(at + 3).min(heard.len())]), None);
    assert_eq!(heard.len(), COUNT);
}

#[test]
fn listening_is_transactional() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "2").start();
    let mut client = login(pooler.port());
    let mut sender = login(pooler.port());
    let mut check = |statements: &[&str], expected: &str| {
        for sql in statements {
            client.query(sql);
        }
        assert_eq!(channels(&mut client), expected, "after {statements:?}");
        ok(&mut sender, "BEGIN; NOTIFY a, 'a'; NOTIFY b, 'b'; NOTIFY c, 'c'; COMMIT");
        let channels: Vec<&str> = expected.split(',').filter(|channel| !channel.is_empty()).collect();
        for channel in channels {
            assert_eq!(hear(&mut client).payload, channel, "after {statements:?}");
        }
        silent(&mut client, "SELECT 1");
    };
    check(&["BEGIN", "LISTEN a", "ROLLBACK"], "");
    check(&["BEGIN", "LISTEN a", "SELECT 1/0", "COMMIT"], "");
    check(&["BEGIN", "LISTEN a", "COMMIT"], "a");
    check(&["BEGIN", "UNLISTEN a", "LISTEN b", "ROLLBACK"], "a");
    check(&["BEGIN", "SAVEPOINT s", "LISTEN b", "ROLLBACK TO s", "LISTEN c", "COMMIT"], "a,c");
    check(&["BEGIN", "SAVEPOINT s", "UNLISTEN *", "ROLLBACK TO s", "UNLISTEN c", "COMMIT"], "a");
    check(&["LISTEN b; LISTEN c; SELECT 1/0"], "a");
    check(&["LISTEN b; LISTEN c"], "a,b,c");
    check(&["BEGIN", "UNLISTEN *", "LISTEN b", "COMMIT"], "b");
    check(&["DO 'BEGIN LISTEN a; UNLISTEN b; END'"], "a");
    check(&["UNLISTEN *"], "");
    check(&["LISTEN a", "LISTEN b", "DISCARD ALL"], "");
    check(&["LISTEN c"], "c");
}

#[test]
fn what_a_client_sends_itself_comes_before_the_end_of_its_answer() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut client = login(pooler.port());
    let own = client.process();
    let mut other = login(pooler.port());
    ok(&mut client, "LISTEN bell");
    let extended = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
    for number in 0..10 {
        let asks = [
            query(&format!("NOTIFY bell, '{number}'")),
            query(&format!("SELECT pg_notify('bell', '{number}')")),
            query(&format!("BEGIN; SELECT 1; NOTIFY bell, '{number}'; COMMIT")),
            extended(&format!("SELECT pg_notify('bell', '{number}')")),
            extended(&format!("NOTIFY bell, '{number}'")),
            // The first statement of the batch touches nothing.
            [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), extended(&format!("NOTIFY bell, '{number}'"))]
                .concat(),
        ];
        for (at, ask) in asks.iter().enumerate() {
            client.send(ask);
            let answer = client.read_until_ready();
            let heard: Vec<Heard> = answer.iter().filter_map(heard).collect();
            let expected = Heard { process: own, channel: "bell".to_owned(), payload: number.to_string() };
            assert_eq!(heard, [expected], "way {at}: {answer:?}");
        }
        // What others send has another sender.
        ok(&mut other, &format!("NOTIFY bell, 'other {number}'"));
        let from_other = hear(&mut client);
        assert_eq!(from_other.payload, format!("other {number}"));
        assert_ne!(from_other.process, own);
    }
    assert_eq!(channels(&mut client), "bell");
    assert_eq!(channels(&mut other), "");
}

#[test]
fn the_sender_of_what_the_hub_delivers_is_the_client_that_sent_it() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut listener = login(pooler.port());
    ok(&mut listener, "LISTEN bell");
    let mut sender = login(pooler.port());
    let process = sender.process();
    // The first is lent while nobody knows yet that somebody listens.
    ok(&mut sender, "SELECT 1");
    for _ in 0..3 {
        ok(&mut sender, "NOTIFY bell");
        hear(&mut listener);
    }
    // While one client alone writes over the connection there is no doubt.
    wait_until("the sender is certain", PATIENCE, || {
        ok(&mut sender, "NOTIFY bell");
        hear(&mut listener).process == process
    });
    // Who only begins to listen sends nothing.
    let mut other = login(pooler.port());
    wait_until("a LISTEN raises no doubt", PATIENCE, || {
        ok(&mut other, "LISTEN whistle");
        ok(&mut sender, "NOTIFY bell");
        hear(&mut listener).process == process
    });
}

#[test]
fn one_connection_listens_for_many_clients() {
    const CLIENTS: usize = 100;
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| login(pooler.port())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        ok(client, &format!("LISTEN all_of_them; LISTEN \"Number {number}\""));
    }
    let mut sender = login(pooler.port());
    for round in 0..10 {
        ok(&mut sender, &format!("NOTIFY all_of_them, '{round}'"));
        for number in (0..CLIENTS).rev() {
            ok(&mut sender, &format!("NOTIFY \"Number {number}\", '{round}'"));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let one = hear(client);
            assert_eq!((one.channel.as_str(), one.payload), ("all_of_them", round.to_string()));
            let two = hear(client);
            assert_eq!((two.channel, two.payload), (format!("Number {number}"), round.to_string()));
        }
    }
    assert_eq!(hubs(&cluster), 1);
    // One that unlistens, and one that leaves, are missed by nobody.
    ok(&mut clients[0], "UNLISTEN all_of_them");
    clients.pop();
    ok(&mut sender, "NOTIFY all_of_them, 'last'");
    for client in &mut clients[1..] {
        assert_eq!(hear(client).payload, "last");
    }
    silent(&mut clients[0], "SELECT 1");
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "2").start();
    let mut slow = login(pooler.port());
    let mut quick = login(pooler.port());
    for client in [&mut slow, &mut quick] {
        ok(client, "LISTEN bell");
    }
    let mut sender = login(pooler.port());
    let payload = "x".repeat(7_000);
    let mut number = 0;
    wait_until("the slow client is disconnected", PATIENCE, || {
        for _ in 0..100 {
            number += 1;
            ok(&mut sender, &format!("NOTIFY bell, '{number} {payload}'"));
            assert_eq!(hear(&mut quick).payload.split(' ').next(), Some(number.to_string().as_str()));
        }
        pooler.logs("too many notifications")
    });
    // It gets, in order, what was on its way, and then the reason.
    let mut last = slow.read_to_end();
    let error = last.pop().unwrap();
    assert_eq!(error.sqlstate(), "54000", "{error:?}");
    for (at, payload) in payloads(&last).iter().enumerate() {
        assert_eq!(payload.split(' ').next(), Some((at + 1).to_string().as_str()));
    }
    ok(&mut sender, "NOTIFY bell, 'on'");
    assert_eq!(hear(&mut quick).payload, "on");
}

#[test]
fn clients_hear_with_an_encoding_of_their_own() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut utf8 = login(pooler.port());
    let mut latin = login(pooler.port());
    ok(&mut latin, "SET client_encoding = 'LATIN1'");
    ok(&mut utf8, "LISTEN bell");
    ok(&mut latin, "LISTEN bell");
    let mut sender = login(pooler.port());
    ok(&mut sender, "NOTIFY bell, 'gr\u{fc}n'");
    assert_eq!(hear(&mut utf8).payload, "gr\u{fc}n");
    let message = latin.read();
    assert!(message.body.ends_with(b"bell\0gr\xfcn\0"), "{message:?}");
    ok(&mut latin, "SET client_encoding = 'UTF8'");
    ok(&mut sender, "NOTIFY bell, 'bl\u{e4}u'");
    assert_eq!(hear(&mut utf8).payload, "bl\u{e4}u");
    assert_eq!(hear(&mut latin).payload, "bl\u{e4}u");
}

#[test]
fn after_a_failover_it_listens_again_and_says_so() {
    let cluster = cluster().replicas(1).trust_user("app").start().unwrap();
    cluster.catch_up().unwrap();
    let fast = [("interval", "'200ms'"), ("timeout", "'1s'")];
    let config = fast
        .iter()
        .fold(config(&cluster), |config, (key, value)| config.set(&format!("clusters.main.health.{key}"), value));
    let pooler = config.set("clusters.main.failover.hold", "'60s'").start();
    pooler.allow_warnings("");
    let mut listener = login(pooler.port());
    let mut sender = login(pooler.port());
    ok(&mut listener, "LISTEN bell");
    ok(&mut sender, "NOTIFY bell, 'before'");
    assert_eq!(hear(&mut listener).payload, "before");
    cluster.node(0).kill9().unwrap();
    cluster.node(1).promote().unwrap();
    let notice = listener.read();
    assert_eq!((notice.tag, notice.sqlstate().as_str()), (b'N', "01000"), "{notice:?}");
    assert_eq!(notice.field(b'S').as_deref(), Some("WARNING"));
    ok(&mut sender, "NOTIFY bell, 'after'");
    assert_eq!(hear(&mut listener).payload, "after");
    assert_eq!(channels(&mut listener), "bell");
    let own = listener.process();
    let answer = ok(&mut listener, "NOTIFY bell, 'own'");
    let heard: Vec<Heard> = answer.iter().filter_map(heard).collect();
    assert_eq!(heard, [Heard { process: own, channel: "bell".into(), payload: "own".into() }]);
}

#[test]
fn a_listening_connection_that_is_ended_is_opened_again() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut listener = login(pooler.port());
    let mut sender = login(pooler.port());
    ok(&mut listener, "LISTEN bell");
    for _ in 0..3 {
        ok(&mut sender, "NOTIFY bell, 'before'");
        assert_eq!(hear(&mut listener).payload, "before");
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND \
                   application_name = 'poolhouse'";
        cluster.node(0).query(sql).unwrap();
        let notice = listener.read();
        assert_eq!((notice.tag, notice.sqlstate().as_str()), (b'N', "01000"), "{notice:?}");
    }
}
