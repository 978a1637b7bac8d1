//! Many clients on few server connections: who gets one and when, what becomes of it, and the limits of everything.

use std::{
    io::ErrorKind,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::Signal;

use super::kit::{
    AtEnd, Config, Cut, Fault, LabCluster, PATIENCE, RawClient, cluster,
    messages::{bind, copy_data, execute, parse, query, startup, sync, terminate},
    wait_until,
};

fn started() -> LabCluster {
    cluster().trust_user("app").trust_user("other").start().unwrap()
}

fn config(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

/// Logs in, when the answer may be a refusal: its SQLSTATE.
fn refused(port: u16) -> Option<String> {
    let mut client = RawClient::connect(port);
    client.send(&startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    let last = client.finish_login("app", "").pop()?;
    (last.tag == b'E').then(|| last.sqlstate())
}

/// The SQLSTATE of the first error in the answer to a statement, up to ReadyForQuery.
fn error(client: &mut RawClient, sql: &str) -> Option<String> {
    client.send(&query(sql));
    pending_error(client)
}

fn pending_error(client: &mut RawClient) -> Option<String> {
    let answer = client.read_until_ready();
    answer.iter().find(|message| message.tag == b'E').map(|message| message.sqlstate())
}

/// The last words before the connection ends: the SQLSTATE.
fn last_words(client: &mut RawClient) -> Option<String> {
    let last = client.read_to_end().pop()?;
    (last.tag == b'E').then(|| last.sqlstate())
}

/// One number that the server itself answers.
fn number(cluster: &LabCluster, sql: &str) -> usize {
    cluster.node(0).query(sql).unwrap()[0][0].as_ref().unwrap().parse().unwrap()
}

fn with_state(cluster: &LabCluster, condition: &str) -> usize {
    number(cluster, &format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND {condition}"))
}

fn tables(cluster: &LabCluster) {
    cluster.node(0).query("CREATE TABLE t (id int PRIMARY KEY, x int); GRANT ALL ON t TO PUBLIC").unwrap();
    cluster.node(0).query("INSERT INTO t VALUES (1, 0)").unwrap();
}

/// Ends a server connection from outside, and returns when its process is gone.
fn kill_server(cluster: &LabCluster, process: &str) {
    cluster.node(0).query(&format!("SELECT pg_terminate_backend({process})")).unwrap();
    let path = format!("/proc/{process}");
    wait_until("the server process is gone", PATIENCE, || !Path::new(&path).exists());
}

#[test]
fn many_clients_share_few_connections_and_see_only_their_own() {
    let cluster = started();
    tables(&cluster);
    let pooler = config(&cluster).set("pool.size", "3").start();
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let _end = AtEnd(&done);
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(cluster.node(0).connections("app").unwrap());
            }
            most
        });
        let clients: Vec<_> = (0..50)
            .map(|number| {
                let port = pooler.port();
                scope.spawn(move || {
                    let mut client = login(port);
                    for round in 0..5 {
                        let id = 100 + number * 10 + round;
                        client.begin();
                        client.query(&format!("SET LOCAL application_name = 'client{number}'"));
                        client.query(&format!("INSERT INTO t VALUES ({id}, {number})"));
                        let name = client.value("SHOW application_name").unwrap();
                        assert_eq!(name, format!("client{number}"));
                        let sum = client.value("SELECT count(*) FROM t WHERE xmin = pg_current_xact_id()::xid");
                        assert_eq!(sum.as_deref(), Some("1"));
                        client.query(if round == 0 { "ROLLBACK" } else { "COMMIT" });
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
        watcher.join().unwrap()
    });
    assert!((1..=3).contains(&most), "{most} server connections");
    assert_eq!(number(&cluster, "SELECT count(*) FROM t WHERE id >= 100"), 200);
}

#[test]
fn session_mode_keeps_the_connection_and_cleans_it() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.mode", "'session'").start();
    let mut first = login(pooler.port());
    let server = first.server_process();
    first.query("SET work_mem = '5MB'");
    first.query("CREATE TEMP TABLE mine (x int)");
    first.query("PREPARE mine AS SELECT 1");
    first.query("LISTEN bell");
    first.query("SELECT pg_advisory_lock(1)");
    // The next client's login waits for this connection.
    let mut second = RawClient::connect(pooler.port());
    second.send(&startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    for _ in 0..3 {
        assert_eq!(first.server_process(), server);
    }
    first.send(&terminate());
    assert!(first.read_to_end().is_empty());
    assert_eq!(second.finish_login("app", "").last().unwrap().tag, b'Z');
    assert_eq!(second.server_process(), server);
    assert_eq!(second.value("SHOW work_mem").as_deref(), Some("4MB"));
    assert_eq!(second.value("SELECT to_regclass('mine')::text"), None);
    assert_eq!(error(&mut second, "EXECUTE mine").as_deref(), Some("26000"));
    assert_eq!(second.value("SELECT count(*) FROM pg_listening_channels()").as_deref(), Some("0"));
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(second.value(locks).as_deref(), Some("0"));
}

#[test]
fn statement_mode_has_no_transactions() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.mode", "'statement'").start();
    let mut client = login(pooler.port());
    for sql in ["BEGIN", "START TRANSACTION", "SELECT 1; BEGIN", "begin; SELECT 1; commit"] {
        assert_eq!(error(&mut client, sql).as_deref(), Some("0A000"), "{sql}");
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
    }
    let extended = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat();
    client.send(&extended("BEGIN"));
    assert_eq!(pending_error(&mut client).as_deref(), Some("0A000"));
    client.send(&extended("SELECT 1"));
    assert_eq!(pending_error(&mut client), None);
    client.send(&[parse("begins", "START TRANSACTION READ ONLY"), sync()].concat());
    assert_eq!(pending_error(&mut client).as_deref(), Some("0A000"));
    // Nothing of a text with a block in it has run; one without a block is one transaction of its own.
    tables(&cluster);
    let insert = "INSERT INTO t VALUES (2, 0)";
    assert_eq!(error(&mut client, &format!("{insert}; BEGIN; {insert}; COMMIT")).as_deref(), Some("0A000"));
    assert_eq!(number(&cluster, "SELECT count(*) FROM t"), 1);
    assert_eq!(error(&mut client, &format!("{insert}; SELECT 1/0")).as_deref(), Some("22012"));
    assert_eq!(number(&cluster, "SELECT count(*) FROM t"), 1);
    assert_eq!(error(&mut client, &format!("{insert}; SELECT 1")), None);
    assert_eq!(number(&cluster, "SELECT count(*) FROM t"), 2);

    // Behind what has been sent already, and in a text that is too long to be read, a block ends the client.
    let batch = [parse("", "SELECT 1"), bind("", "", &[]), execute("", 0), extended("BEGIN")].concat();
    for sent in [batch, query(&format!("BEGIN; SELECT '{}'", "x".repeat(2 << 20)))] {
        let mut client = login(pooler.port());
        client.send(&sent);
        let last = client.read_to_end().pop().unwrap();
        assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("0A000", Some("FATAL")));
    }
    wait_until("no transaction is left", PATIENCE, || with_state(&cluster, "state <> 'idle'") == 0);
}

#[test]
fn first_come_is_first_served() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let port = pooler.port();
    let served = Mutex::new(Vec::new());
    let (mut holder, mut clients) = (login(port), (0..8).map(|_| login(port)).collect::<Vec<_>>());
    holder.begin();
    thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            // Each says when it came, by the server's clock, and each is served alone.
            client.send(&query("SELECT clock_timestamp()::text FROM pg_sleep(0.05)"));
            let served = &served;
            scope.spawn(move || {
                let time = client.read_until_ready()[1].values()[0].clone().unwrap();
                served.lock().unwrap().push((time, number));
            });
            // Poolhouse has read a client's statement before the next one's comes.
            thread::sleep(Duration::from_millis(200));
        }
        holder.query("COMMIT");
    });
    let mut served = served.into_inner().unwrap();
    served.sort();
    assert_eq!(served.iter().map(|(_, number)| *number).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
}

#[test]
fn waiting_for_a_connection_has_a_limit() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.checkout_timeout", "'1s'").start();
    let (mut holder, mut waiter) = (login(pooler.port()), login(pooler.port()));
    holder.begin();
    assert_eq!(error(&mut waiter, "SELECT 1").as_deref(), Some("53300"));
    waiter.send(&[parse("s", "SELECT 1"), bind("", "s", &[]), execute("", 0), sync(), sync()].concat());
    assert_eq!(pending_error(&mut waiter).as_deref(), Some("53300"));
    waiter.read_until_ready();
    holder.query("COMMIT");
    assert_eq!(waiter.value("SELECT 'served'").as_deref(), Some("served"));
}

#[test]
fn clients_have_a_limit() {
    let cluster = started();
    let pooler = config(&cluster).set("server.max_clients", "2").start();
    let first = login(pooler.port());
    let mut second = login(pooler.port());
    assert_eq!(refused(pooler.port()).as_deref(), Some("53300"));
    assert_eq!(second.value("SELECT 1").as_deref(), Some("1"));
    drop(first);
    wait_until("the place is free", PATIENCE, || refused(pooler.port()).is_none());
}

#[test]
fn pools_of_one_node_share_its_connections() {
    let cluster = started();
    let config = config(&cluster).set("pool.size", "2").set("clusters.main.max_connections", "2");
    let pooler = config.set("pool.checkout_timeout", "'60s'").start();
    let count = |user| cluster.node(0).connections(user).unwrap();
    let (mut first, mut second) = (login(pooler.port()), login(pooler.port()));
    first.begin();
    second.begin();
    first.query("COMMIT");
    second.query("COMMIT");
    assert_eq!(count("app"), 2);
    // Idle ones of the other pool make room.
    let mut other = RawClient::login(pooler.port(), "postgres", "other", "");
    other.query("SELECT 1");
    wait_until("one was closed", PATIENCE, || (count("app"), count("other")) == (1, 1));
    let mut another = RawClient::login(pooler.port(), "postgres", "other", "");
    other.begin();
    another.begin();
    wait_until("both were closed", PATIENCE, || (count("app"), count("other")) == (0, 2));
    // And a pool that is never idle gives way.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = AtEnd(&stop);
        for client in [&mut other, &mut another] {
            let stop = &stop;
            scope.spawn(move || {
                client.query("COMMIT");
                while !stop.load(Ordering::Relaxed) {
                    client.query("SELECT pg_sleep(0.01)");
                }
            });
        }
        first.send(&query("SELECT 'served'"));
        let answer = first.read_until_ready();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(answer[1].values()[0].as_deref(), Some("served"));
    });
    assert!(count("app") + count("other") <= 2);
}

#[test]
fn idle_and_old_connections_are_closed() {
    let cluster = started();
    let base = || config(&cluster).set("pool.size", "3");
    let busy = |port| {
        let mut clients: Vec<_> = (0..3).map(|_| login(port)).collect();
        clients.iter_mut().for_each(|client| client.begin());
        clients.iter_mut().for_each(|client| drop(client.query("SELECT 1")));
        assert_eq!(cluster.node(0).connections("app").unwrap(), 3);
        clients.iter_mut().for_each(|client| drop(client.query("COMMIT")));
        clients
    };
    let left = |count| {
        wait_until("idle ones are closed", PATIENCE, || cluster.node(0).connections("app").unwrap() == count);
    };
    let pooler = base().set("pool.idle_timeout", "'2s'").start();
    let mut clients = busy(pooler.port());
    left(0);
    assert_eq!(clients[0].value("SELECT 'again'").as_deref(), Some("again"));
    drop(clients);
    assert_eq!(pooler.terminate(PATIENCE).code(), Some(0));
    left(0);

    let pooler = base().set("pool.idle_timeout", "'2s'").set("pool.min_idle", "1").start();
    let clients = busy(pooler.port());
    left(1);
    drop(clients);
    pooler.terminate(PATIENCE);
    left(0);

    let pooler = base().set("pool.max_lifetime", "'1s'").start();
    let mut client = login(pooler.port());
    let first = client.server_process();
    wait_until("another connection", PATIENCE, || client.server_process() != first);
    wait_until("the old one is closed", PATIENCE, || cluster.node(0).connections("app").unwrap() <= 1);
}

#[test]
fn a_connection_that_dies_idle_is_replaced() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut client = login(pooler.port());
    for _ in 0..5 {
        let process = client.server_process().unwrap();
        kill_server(&cluster, &process);
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
        let process = client.server_process().unwrap();
        kill_server(&cluster, &process);
        client.begin();
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
        client.query("COMMIT");
    }
}

/// The last that a client sees is the server's word.
#[track_caller]
fn assert_terminated(client: &mut RawClient) {
    let answer = client.read_to_end();
    let error = answer.last().unwrap();
    let words = "terminating connection due to administrator command".to_owned();
    assert_eq!((error.sqlstate().as_str(), error.field(b'M')), ("57P01", Some(words)), "{answer:?}");
    assert_eq!((error.field(b'S').as_deref(), error.field(b'D')), (Some("FATAL"), None));
}

#[test]
fn a_connection_that_is_terminated_in_use_ends_its_client_as_directly() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut client = login(pooler.port());
    let process = client.server_process().unwrap();
    // It may have written something, so it cannot be run again.
    client.send(&query("DO $$BEGIN PERFORM pg_sleep(60); END$$"));
    wait_until("it runs", PATIENCE, || with_state(&cluster, "state = 'active'") == 1);
    cluster.node(0).query(&format!("SELECT pg_terminate_backend({process})")).unwrap();
    assert_terminated(&mut client);

    // In a transaction, between its statements.
    let mut client = login(pooler.port());
    client.begin();
    let process = client.server_process().unwrap();
    cluster.node(0).query(&format!("SELECT pg_terminate_backend({process})")).unwrap();
    assert_terminated(&mut client);
    assert_eq!(login(pooler.port()).value("SELECT 'on'").as_deref(), Some("on"));
}

/// On a direct connection the server sees the end of the stream, and its transaction is over. A pool of one has nothing
/// for others until then.
#[test]
fn a_client_that_vanishes_in_the_middle_holds_up_nobody() {
    let cluster = cluster().trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE public.t (x int); GRANT ALL ON t TO PUBLIC").unwrap();
    let pooler = Config::of_cluster(&cluster)
        .set("auth.method", "'trust'")
        .set("pool.size", "1")
        .set("pool.checkout_timeout", "'4s'")
        .start();
    let mut other = RawClient::login(pooler.port(), "postgres", "app", "");
    let insert = [parse("", "INSERT INTO t VALUES (1)"), bind("", "", &[]), execute("", 0)].concat();
    for unfinished in [[query("COPY t FROM STDIN"), copy_data(b"1\n")].concat(), insert] {
        let mut client = RawClient::login(pooler.port(), "postgres", "app", "");
        client.send(&[query("INSERT INTO t VALUES (0)"), unfinished].concat());
        client.read();
        drop(client);
        assert_eq!(other.value("SELECT count(*) FILTER (WHERE x = 1) FROM t").as_deref(), Some("0"));
    }
    assert_eq!(other.value("SELECT count(*) FROM t").as_deref(), Some("2"));
}

/// Who sends a statement and a goodbye at once, or leaves while the server is asked what the statement has done.
#[test]
fn a_goodbye_right_behind_a_statement_leaves_the_connection_to_others() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE public.said (x int); GRANT ALL ON public.said TO PUBLIC").unwrap();
    let pooler = config(&cluster).start();
    let mut witness = login(pooler.port());
    let server = witness.server_process();
    let insert = |x: &str| format!("INSERT INTO public.said VALUES ({x})");
    let extended = [parse("", &insert("2")), bind("", "", &[]), execute("", 0), sync()].concat();
    let settings = query("SELECT set_config('work_mem', '1MB', false)");
    for said in [query(&insert("1")), extended, settings, query("SELECT 1")] {
        let mut client = login(pooler.port());
        // Nothing behind a goodbye counts.
        client.send(&[said, terminate(), query(&insert("9"))].concat());
        client.read_to_end();
        assert_eq!(witness.server_process(), server);
    }
    let said = witness.value("SELECT string_agg(x::text, ',' ORDER BY x) FROM public.said");
    assert_eq!(said.as_deref(), Some("1,2"));
    assert_eq!(witness.value("SHOW work_mem").as_deref(), Some("4MB"));
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let cluster = started();
    tables(&cluster);
    let pooler = config(&cluster).start();
    let fault = Fault::to(pooler.port());
    let begun: [(&str, &[&str], &[u8]); 4] = [
        ("a transaction", &["BEGIN", "UPDATE t SET x = 9"], b""),
        ("a failed transaction", &["BEGIN", "UPDATE t SET x = 9", "SELECT 1/0"], b""),
        ("a big result", &["BEGIN", "UPDATE t SET x = 9"], b"SELECT generate_series(1, 100000000)\0"),
        ("a COPY", &["BEGIN", "UPDATE t SET x = 9"], b"COPY t FROM STDIN\0"),
    ];
    for (what, before, last) in begun {
        let mut lost = login(fault.port());
        for sql in before {
            lost.query(sql);
        }
        if let Some((_, sql)) = last.split_last() {
            lost.send(&query(std::str::from_utf8(sql).unwrap()));
            lost.read();
            if what == "a COPY" {
                lost.send(&copy_data(b"5\t5\n6\t"));
            }
        }
        fault.cut(Cut::Reset);
        let error = lost.try_read().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        assert!(error || what == "a big result");
        let mut next = login(pooler.port());
        assert_eq!(next.query("UPDATE t SET x = x + 1 WHERE id = 1")[0].text(), "UPDATE 1", "{what}");
        wait_until(what, PATIENCE, || with_state(&cluster, "state <> 'idle'") == 0);
        let locks = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass";
        assert_eq!(number(&cluster, locks), 0, "{what}");
        assert!(cluster.node(0).connections("app").unwrap() <= 1, "{what}");
    }
    assert_eq!(number(&cluster, "SELECT x FROM t"), 4);

    // What was asked for outside a transaction is over soon, too.
    for sql in ["SELECT generate_series(1, 100000000)", "COPY t FROM STDIN"] {
        let mut lost = login(fault.port());
        lost.send(&query(sql));
        lost.read();
        fault.cut(Cut::Reset);
        drop(lost);
        let mut next = login(pooler.port());
        assert_eq!(next.value("SELECT count(*) FROM t").as_deref(), Some("1"), "{sql}");
        wait_until(sql, PATIENCE, || with_state(&cluster, "state <> 'idle'") == 0);
    }
}

#[test]
fn what_nobody_waits_for_is_broken_off_when_nothing_comes_of_it() {
    let cluster = started();
    tables(&cluster);
    let pooler = config(&cluster).start();
    let mut witness = login(pooler.port());
    let server = witness.server_process();
    let running = |sql: &str| with_state(&cluster, &format!("query = '{sql}' AND state = 'active'")) == 1;

    let in_vain: [&[&str]; 2] =
        [&["SELECT pg_sleep(600)"], &["BEGIN", "INSERT INTO t VALUES (2, 2)", "UPDATE t SET x = 9 FROM pg_sleep(600)"]];
    for statements in in_vain {
        let mut lost = login(pooler.port());
        let Some((last, before)) = statements.split_last() else { continue };
        for sql in before {
            lost.query(sql);
        }
        lost.send(&query(last));
        wait_until("it runs", PATIENCE, || running(last));
        drop(lost);
        // The same connection serves the next one: it was not closed to be rid of the statement.
        assert_eq!(witness.server_process(), server, "{statements:?}");
        assert_eq!(number(&cluster, "SELECT count(*) FROM t"), 1);
    }

    let write = "INSERT INTO t SELECT 3, 3 FROM pg_sleep(1)";
    let mut lost = login(pooler.port());
    lost.send(&query(write));
    wait_until("it runs", PATIENCE, || running(write));
    drop(lost);
    assert_eq!(witness.value("SELECT count(*) FROM t WHERE id = 3").as_deref(), Some("1"));
}

#[test]
fn a_database_that_only_pools_are_connected_to_can_be_dropped() {
    let cluster = started();
    cluster.node(0).query("ALTER ROLE app CREATEDB").unwrap();
    let pooler = config(&cluster).start();
    let mut owner = login(pooler.port());
    // One of each protocol.
    let run = |owner: &mut RawClient, sql: &str| {
        if sql.starts_with("DROP") {
            owner.send(&[parse("", sql), bind("", "", &[]), execute("", 0), sync()].concat());
            owner.read_until_ready()
        } else {
            owner.query(sql)
        }
    };
    owner.query("CREATE DATABASE d");
    // What is left behind in the pool is in the way, and so is what an idle client will use again.
    for (sql, tag) in [("ALTER DATABASE d RENAME TO e", "ALTER DATABASE"), ("DROP DATABASE e", "DROP DATABASE")] {
        let name = if sql.contains("RENAME") { "d" } else { "e" };
        let mut idle = RawClient::login(pooler.port(), name, "app", "");
        assert_eq!(idle.value("SELECT current_database()").as_deref(), Some(name));
        assert_eq!(with_state(&cluster, &format!("datname = '{name}'")), 1);
        let answer = run(&mut owner, sql);
        let complete = answer.iter().find(|message| message.tag == b'C').map(|message| message.text());
        assert_eq!(complete.as_deref(), Some(tag), "{answer:?}");
    }

    // The same for a database that is copied.
    let mut idle = RawClient::login(pooler.port(), "template1", "app", "");
    idle.query("SELECT 1");
    assert_eq!(owner.query("CREATE DATABASE f")[0].text(), "CREATE DATABASE");
}

/// How its sessions begin is known, and nobody is let in for that.
#[test]
fn a_database_that_is_gone_lets_nobody_in() {
    let cluster = started();
    cluster.node(0).query("ALTER ROLE app CREATEDB").unwrap();
    let pooler = config(&cluster).start();
    let login_to = |name: &str| {
        let mut client = RawClient::connect(pooler.port());
        client.send(&startup(0x30000, &[("user", "app"), ("database", name)]));
        let last = client.finish_login("app", "").pop().unwrap();
        if last.tag == b'E' { Err(last.sqlstate()) } else { Ok(client) }
    };
    let mut owner = login(pooler.port());
    owner.query("CREATE DATABASE d");
    for (name, sql) in [("d", "ALTER DATABASE d RENAME TO e"), ("e", "DROP DATABASE e")] {
        for _ in 0..2 {
            assert_eq!(login_to(name).unwrap().value("SELECT 1").as_deref(), Some("1"));
        }
        assert_eq!(error(&mut owner, sql), None);
        assert_eq!(login_to(name).err().as_deref(), Some("3D000"), "{sql}");
    }

    // When it was done elsewhere, once a server has said so.
    cluster.node(0).query("CREATE DATABASE f").unwrap();
    let mut idle = login_to("f").unwrap();
    assert_eq!(idle.value("SELECT 1").as_deref(), Some("1"));
    cluster.node(0).query("DROP DATABASE f WITH (FORCE)").unwrap();
    assert_eq!(error(&mut idle, "SELECT 1").as_deref(), Some("3D000"));
    assert_eq!(login_to("f").err().as_deref(), Some("3D000"));
}

#[test]
fn statements_have_a_limit() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.query_timeout", "'1s'").start();
    let mut client = login(pooler.port());
    for sql in ["SELECT pg_sleep(60)", "DO $$BEGIN PERFORM pg_sleep(60); END$$"] {
        assert_eq!(error(&mut client, sql).as_deref(), Some("57014"));
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
    }
    assert_eq!(with_state(&cluster, "state = 'active'"), 0);
}

#[test]
fn idle_transactions_have_a_limit() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.idle_transaction_timeout", "'1s'").start();
    let mut idle = login(pooler.port());
    let mut client = login(pooler.port());
    client.begin();
    assert_eq!(last_words(&mut client).as_deref(), Some("25P03"));
    assert_eq!(idle.value("SELECT 'free again'").as_deref(), Some("free again"));
    wait_until("it is rolled back", PATIENCE, || with_state(&cluster, "state <> 'idle'") == 0);
}

#[test]
fn idle_clients_have_a_limit() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.client_idle_timeout", "'2s'").start();
    let mut client = login(pooler.port());
    // A transaction is not idle in this sense.
    client.begin();
    client.query("SELECT pg_sleep(2.5)");
    assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
    client.query("COMMIT");
    assert_eq!(last_words(&mut client).as_deref(), Some("57P05"));
}

/// A client between transactions is told that Poolhouse ends, and so is a new one, if it can connect at all.
fn drains(port: u16, idle: &mut RawClient) {
    assert_eq!(last_words(idle).as_deref(), Some("57P01"));
    let connected = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port));
    if connected.is_ok() {
        let mut late = RawClient::connect(port);
        let _ = late.try_send(&startup(0x30000, &[("user", "app"), ("database", "postgres")]));
        assert!(late.read_to_end().iter().all(|message| message.tag != b'Z'));
    }
}

#[test]
fn poolhouse_ends_when_transactions_have_ended() {
    let cluster = started();
    tables(&cluster);
    let pooler = config(&cluster).start();
    let (mut busy, mut idle) = (login(pooler.port()), login(pooler.port()));
    busy.begin();
    busy.query("UPDATE t SET x = 5");
    pooler.signal(Signal::TERM);
    drains(pooler.port(), &mut idle);
    assert_eq!(busy.value("SELECT x FROM t").as_deref(), Some("5"));
    assert!(pooler.exit_status().is_none());
    assert_eq!(busy.query("COMMIT")[0].text(), "COMMIT");
    assert_eq!(last_words(&mut busy).as_deref(), Some("57P01"));
    assert_eq!(pooler.wait_for_exit(PATIENCE).code(), Some(0));
    assert_eq!(number(&cluster, "SELECT x FROM t"), 5);
    wait_until("nothing is left", PATIENCE, || cluster.node(0).connections("app").unwrap() == 0);
}

/// A transaction that does not end is aborted by SIGINT while Poolhouse drains, or when the time is over.
fn aborts(shutdown_timeout: &str, second: bool) {
    let cluster = started();
    tables(&cluster);
    let pooler = config(&cluster).set("server.shutdown_timeout", shutdown_timeout).start();
    pooler.allow_warnings("");
    let (mut busy, mut idle) = (login(pooler.port()), login(pooler.port()));
    busy.begin();
    busy.query("UPDATE t SET x = 5");
    pooler.signal(Signal::TERM);
    assert_eq!(last_words(&mut idle).as_deref(), Some("57P01"));
    if second {
        assert!(pooler.exit_status().is_none());
        pooler.signal(Signal::INT);
    }
    assert_eq!(last_words(&mut busy).as_deref(), Some("57P01"));
    pooler.wait_for_exit(PATIENCE);
    wait_until("nothing is left", PATIENCE, || cluster.node(0).connections("app").unwrap() == 0);
    assert_eq!(number(&cluster, "SELECT x FROM t"), 0);
}

#[test]
fn a_sigint_while_it_drains_ends_poolhouse_at_once() {
    aborts("'1h'", true);
}

#[test]
fn shutting_down_has_a_limit() {
    aborts("'500ms'", false);
}
