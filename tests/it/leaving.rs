//! Clients that leave wherever they are, and the next one on the same server connection. What the tests of `session`
//! play against a model is played here to real servers: a client says anything, well formed or not, and is gone; after
//! each, another client is served, and is answered rightly.
//!
//! LEAVING_SECONDS plays for longer than usual, LEAVING_SEED repeats a run, LEAVING_ALL plays all sequences of up to four
//! messages, which takes days.

use std::{
    env,
    io::ErrorKind,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::kit::{
    Config, LabCluster, PATIENCE, Pooler, RawClient, cluster,
    messages::{
        any, bind, close, copy_data, copy_done, copy_fail, describe, execute, flush, parse, query, sync, terminate,
    },
    wait_until,
};

/// Threads that play, each as a user of its own, with a pool of one connection.
const PLAYERS: usize = 4;

/// Longest sequence of messages.
const MESSAGES_MAX: usize = 4;

/// What the next client should wait for at most; the machine may be busy, so that only what takes longer each time counts.
const AT_ONCE: Duration = Duration::from_secs(2);

fn started() -> LabCluster {
    let users: Vec<String> = (0..PLAYERS).map(|number| format!("player{number}")).collect();
    let started =
        users.iter().fold(cluster().trust_user("app"), |cluster, user| cluster.trust_user(user)).start().unwrap();
    started.node(0).query("CREATE TABLE t (a int); GRANT ALL ON t TO PUBLIC").unwrap();
    started
}

fn front(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1")
}

fn login(pooler: &Pooler, user: &str) -> RawClient {
    RawClient::login(pooler.port(), "postgres", user, "")
}

/// Everything that a client can send, well formed or not, as far as it makes a difference.
fn alphabet() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |what: String, bytes: Vec<u8>| all.push((what, bytes));
    for sql in [
        "SELECT 1",
        "SELEC",
        "BEGIN",
        "COMMIT",
        "COPY t FROM STDIN",
        "COPY t TO STDOUT",
        "INSERT INTO t VALUES (1)",
        "/* poolhouse: replica */ SELECT 1",
        "SET poolhouse.route = 'replica'",
        "SELECT name FROM pg_prepared_statements",
        "DEALLOCATE ALL",
        "LISTEN c",
    ] {
        add(format!("Query {sql}"), query(sql));
    }
    for (name, sql) in [
        ("", "SELECT 1"),
        ("", "SELEC"),
        ("", "SELECT 1/length(pg_sleep(0.02)::text)"),
        ("a", "COPY t FROM STDIN"),
        ("b", "INSERT INTO t VALUES (1)"),
        ("c", "SELECT name FROM pg_prepared_statements"),
    ] {
        add(format!("Parse {name:?} {sql}"), parse(name, sql));
    }
    for name in ["", "a", "b", "c", "nope"] {
        add(format!("Bind {name:?}"), bind("", name, &[]));
    }
    for (kind, name) in [(b'S', "c"), (b'S', "nope"), (b'P', "")] {
        add(format!("Describe {} {name:?}", char::from(kind)), describe(kind, name));
    }
    for portal in ["", "nope"] {
        add(format!("Execute {portal:?}"), execute(portal, 0));
    }
    add("Close c".into(), close(b'S', "c"));
    add("Sync".into(), sync());
    add("Flush".into(), flush());
    // to_regtype, without arguments: refused.
    add("FunctionCall".into(), any(b'F', &[0, 0, 6, 0x3e, 0, 0, 0, 0, 0, 0]));
    add("CopyData good".into(), copy_data(b"1\n"));
    add("CopyData bad".into(), copy_data(b"x\n"));
    add("CopyDone".into(), copy_done());
    add("CopyFail".into(), copy_fail("given up"));
    for tag in *b"QPDCESHFcfB" {
        let body: &[u8] = if tag == b'B' { b"\0\0\xff" } else { b"\xff" };
        add(format!("malformed {}", char::from(tag)), any(tag, body));
    }
    all
}

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Everything is sent at once, and the socket is closed.
    AtOnce,
    /// After each message what it is answered is read, and the socket is closed.
    Later,
    /// The same, with a goodbye.
    Politely,
}

const LEAVES: [Leave; 3] = [Leave::AtOnce, Leave::Later, Leave::Politely];

/// A client says these messages and leaves.
fn say(pooler: &Pooler, user: &str, messages: &[&[u8]], leave: Leave) {
    let mut client = login(pooler, user);
    if leave == Leave::AtOnce {
        let _ = client.try_send(&messages.concat());
        return;
    }
    for message in messages {
        if client.try_send(message).is_err() {
            return;
        }
        client.set_patience(Duration::from_millis(3));
        loop {
            match client.try_read() {
                Ok(Some(_)) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Ok(None) | Err(_) => return,
            }
        }
    }
    if leave == Leave::Politely {
        let _ = client.try_send(&terminate());
    }
}

/// Another client runs a statement in each protocol. How long it took.
fn innocent(client: &mut RawClient, number: usize, what: &dyn Fn() -> String) -> Duration {
    let begun = Instant::now();
    let simple = query(&format!("SELECT {number}"));
    let extended = [parse("", &format!("SELECT {number}")), bind("", "", &[]), execute("", 0), sync()].concat();
    for (sent, tags) in [(simple, "TDCZ"), (extended, "12DCZ")] {
        client.send(&sent);
        let mut answer = Vec::new();
        while answer.last().is_none_or(|message: &super::kit::Message| message.tag != b'Z') {
            match client.try_read() {
                Ok(Some(message)) => answer.push(message),
                end => panic!("the next client has no answer ({end:?}, after {answer:?}): {}", what()),
            }
        }
        let told: String = answer.iter().map(|message| char::from(message.tag)).collect();
        assert_eq!(told, tags, "the next client is answered {answer:?}: {}", what());
        let row = answer.iter().find(|message| message.tag == b'D').unwrap();
        assert_eq!(row.values(), [Some(number.to_string())], "{}", what());
    }
    begun.elapsed()
}

/// A small generator of our own: runs must repeat from their seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

/// The sequence of this number, shorter ones first.
fn sequence(mut number: usize, letters: usize) -> Option<Vec<usize>> {
    let mut length = 1;
    while length <= MESSAGES_MAX && number >= letters.pow(length as u32) {
        number -= letters.pow(length as u32);
        length += 1;
    }
    let digit = |at: u32| number / letters.pow(at) % letters;
    (length <= MESSAGES_MAX).then(|| (0..length as u32).map(digit).collect())
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_a_client_says_before_it_leaves_the_next_one_is_served() {
    let seconds = number("LEAVING_SECONDS").unwrap_or(20);
    let clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seed = number("LEAVING_SEED").unwrap_or_else(clock);
    let all = number("LEAVING_ALL").is_some();
    println!("LEAVING_SEED={seed}");
    let cluster = started();
    let pooler = front(&cluster).set("log.level", "'warn'").start();
    pooler.allow_warnings("");
    let letters = alphabet();
    let (end, next, played) = (Instant::now() + Duration::from_secs(seconds), AtomicUsize::new(0), AtomicUsize::new(0));
    let play = |player: usize| {
        let user = format!("player{player}");
        let mut dice = Dice(seed ^ ((player as u64) << 32));
        let mut other = login(&pooler, &user);
        while all || Instant::now() < end {
            let picks = if all {
                match sequence(next.fetch_add(1, Ordering::Relaxed), letters.len()) {
                    Some(picks) => picks,
                    None => return,
                }
            } else {
                (0..1 + dice.roll(MESSAGES_MAX)).map(|_| dice.roll(letters.len())).collect()
            };
            let leave = LEAVES[dice.roll(LEAVES.len())];
            let what = || {
                let names: Vec<&str> = picks.iter().map(|pick| letters[*pick].0.as_str()).collect();
                format!("{names:?}, {leave:?}, seed {seed}")
            };
            let messages: Vec<&[u8]> = picks.iter().map(|pick| letters[*pick].1.as_slice()).collect();
            // What takes long once may be the machine's doing.
            let times: Vec<Duration> = (0..3)
                .map(|_| {
                    say(&pooler, &user, &messages, leave);
                    innocent(&mut other, played.fetch_add(1, Ordering::Relaxed), &what)
                })
                .take_while(|took| *took > AT_ONCE)
                .collect();
            assert!(times.len() < 3, "the next client has to wait for {times:?}: {}", what());
        }
    };
    thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS).map(|player| scope.spawn(move || play(player))).collect();
        for player in players {
            player.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    println!("{} cases", played.load(Ordering::Relaxed));
    assert!(!pooler.logs("this is a bug"), "{:?}", pooler.log());
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'player%' AND state <> 'idle'";
    wait_until("nothing of them is left", PATIENCE, || {
        cluster.node(0).query(left).unwrap()[0][0].as_deref() == Some("0")
    });
}

#[test]
fn a_client_that_says_something_else_in_a_copy_hears_what_the_server_would_say() {
    let cluster = started();
    let pooler = front(&cluster).start();
    let batch = [parse("", "/* poolhouse: replica */ SELECT 1"), bind("", "", &[]), execute("", 0), sync()].concat();
    for (tag, sent) in
        [(0x51, query("/* poolhouse: replica */ SELECT 1")), (0x51, query("SET poolhouse.explain = on")), (0x50, batch)]
    {
        let played = [cluster.node(0).port(), pooler.port()].map(|port| {
            let mut client = RawClient::login(port, "postgres", "app", "");
            client.send(&query("COPY t FROM STDIN"));
            assert_eq!(client.read().tag, b'G');
            client.send(&sent);
            let words = |message: super::kit::Message| (message.field(b'S'), message.field(b'C'), message.field(b'M'));
            client.read_to_end().into_iter().map(words).collect::<Vec<_>>()
        });
        assert_eq!(played[0], played[1], "{tag:#x}");
        assert_eq!(login(&pooler, "app").value("SELECT 1").as_deref(), Some("1"));
    }
}

#[test]
fn what_a_batch_did_that_was_never_ended_is_not_committed() {
    let cluster = started();
    let pooler = front(&cluster).start();
    let insert = [parse("", "INSERT INTO t VALUES (7)"), bind("", "", &[]), execute("", 0)].concat();
    for end in
        [vec![], flush(), describe(b'S', "nope"), [describe(b'S', "nope"), query("COMMIT")].concat(), terminate()]
    {
        let mut client = login(&pooler, "app");
        client.send(&[insert.clone(), end].concat());
        drop(client);
        let mut next = login(&pooler, "app");
        assert_eq!(next.value("SELECT count(*) FROM t").as_deref(), Some("0"));
        next.query("ROLLBACK");
        assert_eq!(next.value("SELECT count(*) FROM t").as_deref(), Some("0"));
    }
    // A Query or Sync has ended it.
    let mut client = login(&pooler, "app");
    // The server connection is free now: who leaves while it waits for one has asked for nothing.
    client.query("SELECT 1");
    client.send(&[insert.clone(), sync(), insert, query("SELECT 1"), terminate()].concat());
    drop(client);
    let mut next = login(&pooler, "app");
    wait_until("both are there", PATIENCE, || next.value("SELECT count(*) FROM t").as_deref() == Some("2"));
}

/// A session keeps the server connection on which it has drawn from a sequence for a moment. One that has left must not
/// wait for the one that it keeps itself.
#[test]
fn what_was_said_behind_a_draw_is_done_by_a_client_that_has_left() {
    let cluster = started();
    let setup = "CREATE TABLE numbered (id serial); CREATE TABLE told (id int);
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app";
    cluster.node(0).query(setup).unwrap();
    let pooler = front(&cluster).set("server.workers", "1").start();
    let mut next = login(&pooler, "app");
    let mut lock = RawClient::login(cluster.node(0).port(), "postgres", "app", "");
    for drawn in ["1", "2", "3"] {
        lock.begin();
        lock.query("LOCK TABLE numbered");
        let mut client = login(&pooler, "app");
        // What follows DEALLOCATE ALL has to wait for its end.
        let draws = query("INSERT INTO numbered DEFAULT VALUES; DEALLOCATE ALL");
        client.send(&[draws, query("INSERT INTO told VALUES (lastval())"), terminate()].concat());
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        wait_until("it waits", PATIENCE, || cluster.node(0).query(waits).unwrap()[0][0].as_deref() == Some("1"));
        drop(client);
        // Whoever answers this has seen the end of the other on its only thread.
        next.query("SHOW poolhouse.route");
        lock.query("COMMIT");
        wait_until("all is done", PATIENCE, || next.value("SELECT max(id) FROM told").as_deref() == Some(drawn));
    }
    assert!(!pooler.logs("was broken off"), "{:?}", pooler.log());
}

/// On a direct connection a goodbye behind a request, or the end of what is sent, does not take the answer away.
#[test]
fn a_client_that_says_goodbye_behind_a_request_is_answered() {
    let cluster = started();
    let returns = "INSERT INTO t VALUES (1) RETURNING a";
    let prepared = [parse("", returns), bind("", "", &[]), execute("", 0), sync()].concat();
    let much = format!("SELECT repeat('x', 1000) FROM generate_series(1, {})", 20_000);
    let requests: [(&str, Vec<u8>); 9] = [
        ("a write", query(returns)),
        ("a batch", prepared.clone()),
        ("a read", query("SELECT 1")),
        ("a slow read", query("SELECT pg_sleep(0.2)")),
        ("an error", query("SELECT 1/0")),
        ("a block", [query("BEGIN"), query(returns), query("COMMIT")].concat()),
        ("a block that is not ended", [query("BEGIN"), query(returns)].concat()),
        ("a batch that is not ended", [query(returns), parse("", "SELECT 1"), bind("", "", &[])].concat()),
        ("much", query(&much)),
    ];
    for mode in ["transaction", "session"] {
        let pooler = front(&cluster).set("pool.mode", &format!("'{mode}'")).start();
        for (what, request) in &requests {
            for goodbye in [true, false] {
                let answers = [cluster.node(0).port(), pooler.port()].map(|port| {
                    let mut client = RawClient::login(port, "postgres", "app", "");
                    if goodbye {
                        client.send(&[request.clone(), terminate()].concat());
                    } else {
                        client.send(request);
                        client.finish_sending();
                    }
                    client.read_to_end()
                });
                let [direct, pooled] = answers;
                assert!(pooled == direct, "{mode}, {what}, goodbye: {goodbye}: {} of {}", pooled.len(), direct.len());
            }
        }
        let mut next = login(&pooler, "app");
        assert_eq!(next.value("SELECT 1").as_deref(), Some("1"));
        assert!(!pooler.logs("was broken off"), "{:?}", pooler.log());
    }
}

/// Who hears nothing any more keeps nobody waiting.
#[test]
fn a_client_that_does_not_read_behind_its_goodbye_is_not_waited_for() {
    let cluster = started();
    let pooler = front(&cluster).start();
    let mut client = login(&pooler, "app");
    let much = query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)");
    client.send(&[much, terminate()].concat());
    let mut next = login(&pooler, "app");
    assert_eq!(next.value("SELECT 1").as_deref(), Some("1"));
    drop(client);
}

#[test]
fn the_end_of_a_client_is_seen_behind_what_nobody_reads() {
    let cluster = started();
    let pooler = front(&cluster).start();
    // The server works, and what is behind that fills the buffer.
    let mut client = login(&pooler, "app");
    client.send(&query("SELECT pg_sleep(600)"));
    let runs = |count: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        cluster.node(0).query(sql).unwrap()[0][0].as_deref() == Some(count)
    };
    wait_until("it runs", PATIENCE, || runs("1"));
    let much = query(&format!("SELECT '{}'", "x".repeat(8 << 10)));
    for _ in 0..8 {
        client.send(&much);
    }
    drop(client);
    let mut next = login(&pooler, "app");
    assert_eq!(next.value("SELECT 1").as_deref(), Some("1"));
    wait_until("nothing of it runs on", PATIENCE, || runs("0"));
}

#[test]
fn what_is_prepared_can_be_listed_by_a_statement_whose_columns_are_known() {
    let cluster = started();
    let pooler = front(&cluster).start();
    let mut client = login(&pooler, "app");
    client.send(&[parse("s1", "SELECT name FROM pg_prepared_statements"), describe(b'S', "s1"), sync()].concat());
    client.read_until_ready();
    for _ in 0..3 {
        client.send(&[bind("", "s1", &[]), execute("", 0), sync()].concat());
        let answer = client.read_until_ready();
        let rows: Vec<_> = answer.iter().filter(|message| message.tag == b'D').map(|row| row.values()).collect();
        assert_eq!(rows, [[Some("s1".to_owned())]], "{answer:?}");
    }
}

#[test]
fn a_failed_batch_holds_no_server_connection_while_its_sync_is_not_there() {
    let cluster = started();
    let pooler = front(&cluster).start();
    let mut other = login(&pooler, "app");
    let begins = [parse("", "BEGIN"), bind("", "", &[]), execute("", 0)].concat();
    for (sent, status) in [
        (parse("", "SELEC"), b"I"),
        ([describe(b'S', "nope"), query("COMMIT")].concat(), b"I"),
        ([bind("", "nope", &[]), execute("", 0), flush()].concat(), b"I"),
        ([begins, parse("", "SELEC")].concat(), b"E"),
    ] {
        let mut client = login(&pooler, "app");
        client.send(&sent);
        while client.read().tag != b'E' {}
        if status == b"I" {
            assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
        }
        client.send(&[query("SELECT 'dropped'"), parse("", "SELECT 1"), sync()].concat());
        let ready = client.read();
        assert_eq!((ready.tag, ready.body.as_slice()), (b'Z', &status[..]));
        client.query("ROLLBACK");
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
    }
}

#[test]
fn a_client_that_keeps_its_server_connection_and_sends_no_sync_is_under_the_limit_of_transactions() {
    let cluster = started();
    let pooler = front(&cluster).set("pool.mode", "'session'").set("pool.idle_transaction_timeout", "'100ms'").start();
    pooler.allow_warnings("");
    for stuck in [parse("", "SELEC"), [describe(b'S', "nope"), query("SELECT 1")].concat()] {
        let mut client = login(&pooler, "app");
        client.send(&stuck);
        assert_eq!(client.read_to_end().last().map(|message| message.sqlstate()).as_deref(), Some("25P03"));
        assert_eq!(login(&pooler, "app").value("SELECT 1").as_deref(), Some("1"));
    }
}
