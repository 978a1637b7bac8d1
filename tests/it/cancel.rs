//! Cancel requests: each hits the statement that its client is running, wherever that runs, and nothing else; and a flood
//! of them costs other clients nothing.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use super::kit::{
    AtEnd, Config, Fault, LabCluster, Message, PATIENCE, RawClient, cluster,
    messages::{bind, cancel_request, execute, parse, query, sync},
    wait_until,
};

fn started() -> LabCluster {
    cluster().trust_user("app").start().unwrap()
}

fn config(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).set("auth.method", "'trust'")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

/// Returns when the other side has taken the request.
fn cancel(port: u16, key: &[u8]) {
    let mut canceller = RawClient::connect(port);
    canceller.send(&cancel_request(key));
    assert!(canceller.read_to_end().is_empty());
}

/// The SQLSTATE in the answer that comes next, if it is an error.
fn error_in(client: &mut RawClient) -> Option<String> {
    error_in_answer(&client.read_until_ready())
}

fn error_in_answer(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').map(|message| message.sqlstate())
}

/// Waits until so many statements sleep on the server.
fn wait_for_sleepers(cluster: &LabCluster, count: usize) {
    let sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("statements run", PATIENCE, || cluster.node(0).query(sleeps).unwrap().len() == count);
}

/// Clients whose cancel requests come in great numbers, and what each must see.
struct Flood {
    port: u16,
    stop: AtomicBool,
    canceled: AtomicUsize,
}

impl Flood {
    /// Runs statements of which none may fail, as long as the flood lasts.
    fn unharmed(&self, client: &mut RawClient) -> usize {
        let mut count = 0;
        while !self.stop.load(Ordering::Relaxed) || count < 100 {
            assert_eq!(client.value("SELECT 'unharmed' FROM pg_sleep(0.001)").as_deref(), Some("unharmed"));
            count += 1;
        }
        count
    }

    /// Is cancelled all the time. Its settings change, so that Poolhouse has questions of its own to the server.
    fn harmed(&self, client: &mut RawClient) {
        let mut expected = "4MB".to_owned();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let wanted = format!("{}MB", 5 + number % 3);
            if self.fails(client, &format!("SET work_mem = '{wanted}'; SELECT pg_sleep(0.001)")).is_none() {
                expected = wanted;
            }
            if let Some(shown) = self.shown(client) {
                assert_eq!(shown, expected, "settings are as the statements that succeeded have left them");
            }
        }
        // Requests that nobody waited for may still be on their way; there is an end to them.
        let shown = std::iter::repeat_with(|| self.shown(client)).find_map(|shown| shown);
        assert_eq!(shown, Some(expected));
    }

    fn fails(&self, client: &mut RawClient, sql: &str) -> Option<String> {
        client.send(&query(sql));
        let error = error_in(client)?;
        assert_eq!(error, "57014", "{sql}");
        self.canceled.fetch_add(1, Ordering::Relaxed);
        Some(error)
    }

    fn shown(&self, client: &mut RawClient) -> Option<String> {
        let answer = client.query("SHOW work_mem");
        let error = answer.iter().find(|message| message.tag == b'E').map(|message| message.sqlstate());
        assert!(error.as_deref().is_none_or(|error| error == "57014"), "{error:?}");
        answer.iter().find(|message| message.tag == b'D').map(|row| row.values()[0].clone().unwrap())
    }

    /// Sends requests with each of the keys in turn, without waiting for anything.
    fn send(&self, keys: &[Vec<u8>], count: usize) {
        for key in keys.iter().cycle().take(count) {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
            socket.write_all(&cancel_request(key)).unwrap();
        }
    }
}

#[test]
fn a_flood_of_cancels_hits_only_whom_it_is_for() {
    const SENDERS: usize = 4;
    let cluster = started();
    let fault = Fault::to(cluster.node(0).port());
    let password = format!("{:?}", cluster.superuser_password());
    let config = Config::of_ports([fault.port()]).set("auth.method", "'trust'").set("pool.size", "3");
    let config = config.set("clusters.main.health.user", "'postgres'").set("clusters.main.health.password", &password);
    let pooler = config.start();
    let port = pooler.port();
    let flood = Flood { port, stop: AtomicBool::new(false), canceled: AtomicUsize::new(0) };
    let (mut unharmed, mut harmed) = ([login(port), login(port)], [login(port), login(port)]);
    let mut idle = login(port);
    let wrong = |client: &RawClient| {
        let mut key = client.cancel_key.clone().unwrap();
        *key.last_mut().unwrap() ^= 1;
        key
    };
    let mut keys: Vec<Vec<u8>> = unharmed.iter().map(wrong).collect();
    keys.extend(harmed.iter().chain([&idle]).map(|client| client.cancel_key.clone().unwrap()));
    keys.push(vec![0; 8]);
    let most = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (flood, keys, fault, most) = (&flood, &keys, &fault, &most);
        let _end = AtEnd(&flood.stop);
        for client in &mut unharmed {
            scope.spawn(move || flood.unharmed(client));
        }
        for client in &mut harmed {
            scope.spawn(move || flood.harmed(client));
        }
        scope.spawn(move || {
            while !flood.stop.load(Ordering::Relaxed) {
                most.fetch_max(fault.connections(), Ordering::Relaxed);
                thread::yield_now();
            }
        });
        let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(move || flood.send(keys, 1_000))).collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        // Until somebody has been hit for certain.
        while flood.canceled.load(Ordering::Relaxed) == 0 {
            flood.send(keys, keys.len());
        }
        flood.stop.store(true, Ordering::Relaxed);
    });
    // Three server connections, two clients of which each can have one cancel request under way, and the health check,
    // which may open one connection while the relay has not noticed the end of another; each may be ending, too.
    let most = most.into_inner();
    assert!(most <= 2 * (3 + 2 + 2), "{most} connections to the server");
    for client in &mut unharmed {
        assert_eq!(client.value("SELECT 'well'").as_deref(), Some("well"));
    }
    for client in harmed.iter_mut().chain([&mut idle]) {
        assert!(std::iter::repeat_with(|| flood.shown(client)).any(|shown| shown.is_some()));
    }
}

#[test]
fn a_cancel_follows_its_client_to_another_server_connection() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "2").start();
    let port = pooler.port();
    let mut client = login(port);
    let key = client.cancel_key.clone().unwrap();
    let before = client.server_process().unwrap();
    // Another client takes the connection that this one had.
    let mut holder = login(port);
    holder.begin();
    assert_eq!(holder.server_process().unwrap(), before);
    holder.send(&query("SELECT 'held' FROM pg_sleep(2)"));
    wait_for_sleepers(&cluster, 1);
    cancel(port, &key);
    client.send(&query("SELECT pg_sleep(60)"));
    wait_for_sleepers(&cluster, 2);
    cancel(port, &key);
    assert_eq!(error_in(&mut client).as_deref(), Some("57014"));
    assert_eq!(error_in(&mut holder), None);
    // In a transaction, too, a cancel that comes between statements hits none of them.
    client.begin();
    cancel(port, &key);
    assert_eq!(client.value("SELECT 'on' FROM pg_sleep(0.1)").as_deref(), Some("on"));
}

#[test]
fn a_cancel_ends_the_wait_for_a_server() {
    let cluster = started();
    let pooler = config(&cluster).set("clusters.main.health.interval", "'200ms'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    let key = client.cancel_key.clone().unwrap();
    client.query("CREATE TABLE t (x int)");
    cluster.node(0).stop_fast().unwrap();
    wait_until("the server is missed", PATIENCE, || pooler.logs("down"));
    client.send(&query("INSERT INTO t VALUES (1)"));
    let answered = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = AtEnd(&answered);
        // Nobody can see from outside when it waits, so it is cancelled until it answers.
        scope.spawn(|| {
            while !answered.load(Ordering::Relaxed) {
                cancel(pooler.port(), &key);
            }
        });
        let error = error_in(&mut client);
        answered.store(true, Ordering::Relaxed);
        assert_eq!(error.as_deref(), Some("57014"));
    });
    cluster.node(0).start().unwrap();
    assert_eq!(client.value("SELECT count(*) FROM t").as_deref(), Some("0"), "it has not run");
}

/// BEGIN is answered before a server has it, and travels with the first statement: that one can be cancelled all the same.
#[test]
fn the_first_statement_of_a_block_can_be_cancelled() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "1").start();
    let mut client = login(pooler.port());
    let mut next = login(pooler.port());
    client.query("CREATE TABLE t (x int)");
    let key = client.cancel_key.clone().unwrap();
    let sleep = "WITH slow AS (SELECT pg_sleep(60)) INSERT INTO t SELECT 1 FROM slow";
    let batch = || [parse("", sleep), bind("", "", &[]), execute("", 0), sync()].concat();
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION"] {
        for sent in [query(sleep), batch()] {
            client.query(begin);
            client.send(&sent);
            wait_for_sleepers(&cluster, 1);
            cancel(pooler.port(), &key);
            let answer = client.read_until_ready();
            let error = answer.iter().find(|message| message.tag == b'E').unwrap();
            assert_eq!(error.sqlstate(), "57014");
            assert_eq!(answer.last().unwrap().body, b"E", "the block has failed");
            assert_eq!(error_in_answer(&client.query("SELECT 1")).as_deref(), Some("25P02"));
            client.query("COMMIT");
            assert_eq!(next.value("SELECT count(*) FROM t").as_deref(), Some("0"));
        }
    }
}

/// So do the limits of Poolhouse's own, and a client that leaves.
#[test]
fn limits_and_leaving_end_the_first_statement_of_a_block() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "1").set("pool.query_timeout", "'1s'").start();
    let mut client = login(pooler.port());
    client.query("BEGIN");
    assert_eq!(error_in_answer(&client.query("SELECT pg_sleep(60)")).as_deref(), Some("57014"));
    client.query("ROLLBACK");
    let pooler = config(&cluster).set("pool.size", "1").start();
    let mut client = login(pooler.port());
    client.query("BEGIN");
    client.send(&query("SELECT pg_sleep(60)"));
    wait_for_sleepers(&cluster, 1);
    drop(client);
    assert_eq!(login(pooler.port()).value("SELECT 'on'").as_deref(), Some("on"));
}

/// Cancels at every moment: whatever they hit, the client is told of a block that has failed or of a statement that ran in
/// one, and nothing is written outside of it.
#[test]
fn cancels_around_a_begin_leave_nothing_behind() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "1").start();
    let mut client = login(pooler.port());
    client.query("CREATE TABLE t (x int)");
    let key = client.cancel_key.clone().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = AtEnd(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cancel(pooler.port(), &key);
            }
        });
        let batch = || {
            let insert = [parse("", "INSERT INTO t VALUES (1)"), bind("", "", &[]), execute("", 0), sync()].concat();
            [insert.clone(), insert].concat()
        };
        for round in 0..200 {
            client.query("BEGIN");
            if round % 2 == 0 {
                client.send(&[query("INSERT INTO t VALUES (1)"), query("SELECT 1")].concat());
            } else {
                client.send(&batch());
            }
            for _ in 0..2 {
                let status = client.read_until_ready().last().unwrap().body.clone();
                assert!(status == b"T" || status == b"E", "{status:?}");
            }
            // A cancel may hit this one, too.
            while client.query("ROLLBACK").last().unwrap().body != b"I" {}
        }
    });
    assert_eq!(login(pooler.port()).value("SELECT count(*) FROM t").as_deref(), Some("0"));
}
