//! Sessions that keep their server connection: what the pool says to that, how long it lets them, and when they let go.

use std::thread;

use super::kit::{
    Config, LabCluster, PATIENCE, RawClient, cluster,
    messages::{bind, execute, parse, sync},
    wait_until,
};

fn started() -> LabCluster {
    cluster().trust_user("app").start().unwrap()
}

fn config(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1").set("log.level", "'debug'")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

/// The code of the first error in the answer to a statement, or nothing.
fn refused(client: &mut RawClient, sql: &str) -> Option<String> {
    let answer = client.query(sql);
    answer.iter().find(|message| message.tag == b'E').map(|message| message.sqlstate())
}

/// Migration tools hold a lock of the session on one connection and work on another, several of them at the same time.
#[test]
fn who_holds_a_lock_gets_a_second_connection_while_others_wait_for_the_lock() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE v (i int); GRANT ALL ON v TO app").unwrap();
    let pooler = config(&cluster).set("pool.size", "3").set("pool.reserve_timeout", "'50ms'").start();
    let tools: Vec<_> = (0..4)
        .map(|_| {
            let (mut lock, mut work) = (login(pooler.port()), login(pooler.port()));
            thread::spawn(move || {
                lock.value("SELECT pg_advisory_lock(31337)::text");
                work.value("SELECT count(*) FROM v");
                assert_eq!(refused(&mut work, "INSERT INTO v VALUES (1)"), None);
                assert_eq!(lock.value("SELECT pg_advisory_unlock(31337)").as_deref(), Some("t"));
            })
        })
        .collect();
    tools.into_iter().for_each(|tool| tool.join().unwrap());
    assert_eq!(login(pooler.port()).value("SELECT count(*) FROM v").as_deref(), Some("4"));
}

#[test]
fn who_waits_in_vain_for_pinned_sessions_is_told_so() {
    let cluster = started();
    let config = config(&cluster).set("pool.size", "2").set("pool.reserve_size", "1");
    let config = config.set("pool.reserve_timeout", "'50ms'").set("pool.checkout_timeout", "'500ms'");
    let pooler = config.start();
    let mut keepers: Vec<RawClient> = (0..3).map(|_| login(pooler.port())).collect();
    for keeper in &mut keepers {
        assert_eq!(refused(keeper, "CREATE TEMP TABLE kept (x int)"), None);
    }
    let answer = login(pooler.port()).query("SELECT 1");
    let error = answer.iter().find(|message| message.tag == b'E').unwrap();
    assert_eq!(error.sqlstate(), "53300");
    let detail = error.field(b'D').unwrap();
    assert_eq!(detail, "Of 3 connections, 3 are kept by sessions between their transactions.");
    keepers.pop().unwrap().query("DROP TABLE kept");
    assert_eq!(login(pooler.port()).value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn a_pool_can_refuse_pins() {
    let cluster = started();
    cluster
        .node(0)
        .query("CREATE FUNCTION public.hides() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(7)'")
        .unwrap();
    let pooler = config(&cluster).set("pool.on_pin", "'refuse'").start();
    let (mut client, mut other) = (login(pooler.port()), login(pooler.port()));
    for sql in [
        "CREATE TEMP TABLE t (x int)",
        "SELECT 1 AS x INTO TEMP t",
        "SELECT pg_advisory_lock(1)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LOAD 'auto_explain'",
    ] {
        assert_eq!(refused(&mut client, sql).as_deref(), Some("0A000"), "{sql}");
        assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
    }
    client.send(&[parse("", "CREATE TEMP TABLE t (x int)"), bind("", "", &[]), execute("", 0), sync()].concat());
    assert_eq!(client.read_until_ready()[0].sqlstate(), "0A000");
    // What ends with the transaction is not refused, and a transaction with a refused statement has failed.
    client.begin();
    assert_eq!(refused(&mut client, "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS x"), None);
    assert_eq!(refused(&mut client, "SELECT pg_advisory_xact_lock(1)"), None);
    assert_eq!(refused(&mut client, "SELECT pg_advisory_lock(1)").as_deref(), Some("0A000"));
    assert_eq!(refused(&mut client, "SELECT 1").as_deref(), Some("25P02"));
    client.query("ROLLBACK");
    assert_eq!(refused(&mut client, "SET search_path = public"), None);
    assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
    // A pin that only the server knows of ends the session, and the lock ends with it.
    client.query("SELECT hides()");
    let last = client.read_to_end().pop().unwrap();
    assert_eq!(last.sqlstate(), "0A000");
    wait_until("the lock is gone", PATIENCE, || {
        other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").as_deref() == Some("0")
    });
}

#[test]
fn a_pool_can_warn_of_pins() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.on_pin", "'warn'").start();
    let (mut client, mut other) = (login(pooler.port()), login(pooler.port()));
    assert_eq!(refused(&mut client, "CREATE TEMP TABLE t (x int)"), None);
    let warning = client.read();
    assert_eq!((warning.field(b'S').as_deref(), warning.field(b'C').as_deref()), (Some("WARNING"), Some("01000")));
    assert!(warning.field(b'M').unwrap().contains("temporary object"), "{warning:?}");
    assert_eq!(client.query("INSERT INTO t VALUES (1)").len(), 2);
    assert_eq!(refused(&mut client, "DROP TABLE t"), None);
    assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
    wait_until("the reason is logged", PATIENCE, || pooler.logs("keeps its server connection"));
    assert!(pooler.logs("CREATE TEMP TABLE t (x int)"));
}

#[test]
fn a_pin_has_a_longest_time() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.pin_timeout", "'1s'").start();
    let (mut client, mut other) = (login(pooler.port()), login(pooler.port()));
    client.query("SELECT pg_advisory_lock(1)");
    // A transaction is let to end.
    client.begin();
    client.query("SELECT pg_sleep(1.5)");
    assert_eq!(client.query("COMMIT").last().map(|message| message.tag), Some(b'Z'));
    let last = client.read_to_end().pop().unwrap();
    assert_eq!(last.sqlstate(), "57P05");
    // The client is told first.
    wait_until("the lock is gone", PATIENCE, || {
        other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").as_deref() == Some("0")
    });
    // One that lets go in time stays.
    other.query("SELECT pg_advisory_lock(1)");
    other.query("SELECT pg_advisory_unlock(1)");
    assert_eq!(login(pooler.port()).value("SELECT pg_sleep(1.5) IS NULL").as_deref(), Some("f"));
    assert_eq!(other.value("SELECT 1").as_deref(), Some("1"));
}

fn insert(client: &mut RawClient) -> String {
    client.value("INSERT INTO numbered DEFAULT VALUES RETURNING id").unwrap()
}

/// The value that a session asks for, or the SQLSTATE of the error.
fn lastval(client: &mut RawClient) -> String {
    let answer = client.query("SELECT lastval()");
    match answer.iter().find(|message| message.tag == b'E') {
        Some(error) => error.sqlstate(),
        None => answer[1].values()[0].clone().unwrap(),
    }
}

/// The server connection used last is lent first, so without help it would be the one that others draw on next.
#[test]
fn the_first_lastval_of_a_session_tells_what_it_has_drawn() {
    const ATTEMPTS: usize = 60;
    // Until then it depends on how connections are opened which one was used last.
    const SETTLED: usize = 10;
    let cluster = started();
    cluster
        .node(0)
        .query("CREATE TABLE numbered (id serial); GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        .unwrap();
    cluster.node(0).query("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app").unwrap();
    let pooler = config(&cluster).set("pool.size", "2").set("server.workers", "1").start();
    let mut other = login(pooler.port());
    let mut told = 0;
    for attempt in 0..ATTEMPTS {
        let mut client = login(pooler.port());
        let drawn = insert(&mut client);
        insert(&mut other);
        match lastval(&mut client) {
            // On a slow machine the connection may have been given back before.
            code if code == "55000" => {}
            value => {
                assert_eq!(value, drawn);
                assert_eq!(lastval(&mut client), drawn, "it is kept from now on");
                told += usize::from(attempt >= SETTLED);
            }
        }
    }
    assert!(told > 0, "no session was told what it had drawn");
}

/// What a session has drawn is kept for a moment only, and not from those who wait.
#[test]
fn who_may_ask_for_what_was_drawn_keeps_nobody_from_a_connection() {
    let cluster = started();
    cluster
        .node(0)
        .query("CREATE TABLE numbered (id serial); GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        .unwrap();
    cluster.node(0).query("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app").unwrap();
    let pooler = config(&cluster).start();
    let mut first = login(pooler.port());
    insert(&mut first);
    lastval(&mut first);
    drop(first);
    let writers: Vec<_> = (0..4).map(|_| login(pooler.port())).collect();
    thread::scope(|scope| {
        for mut writer in writers {
            scope.spawn(move || (0..100).for_each(|_| drop(insert(&mut writer))));
        }
    });
    let mut idle = login(pooler.port());
    insert(&mut idle);
    assert_eq!(login(pooler.port()).value("SELECT 1").as_deref(), Some("1"));
}
