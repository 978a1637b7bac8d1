//! The configuration read again: all of it is right or nothing changes, and nobody is disturbed whom it does not concern.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use rustix::process::Signal;

use super::{
    console::{ask, column, console, in_front},
    kit::{AtEnd, Config, Message, PATIENCE, RawClient, cluster, messages, wait_until},
};

/// What RELOAD says has changed.
fn reload(admin: &mut RawClient) -> Vec<String> {
    notes(admin, "RELOAD")
}

fn notes(admin: &mut RawClient, command: &str) -> Vec<String> {
    let answer = ask(admin, command);
    let tag = answer.iter().find(|message| message.tag == b'C').map(Message::text);
    assert_eq!(tag.as_deref(), Some(command), "{answer:?}");
    answer.iter().filter(|message| message.tag == b'N').map(|note| note.field(b'M').unwrap()).collect()
}

fn refusal(port: u16, database: &str, user: &str, password: &str) -> Option<String> {
    let mut client = RawClient::connect(port);
    client.send(&messages::startup(0x30000, &[("user", user), ("database", database)]));
    let last = client.finish_login(user, password).pop().unwrap();
    (last.tag == b'E').then(|| last.sqlstate())
}

#[test]
fn a_broken_file_changes_nothing_and_says_all_that_is_wrong() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let config = in_front(&cluster);
    let pooler = config.clone().start();
    let mut admin = console(&pooler);
    pooler.allow_warnings("the configuration is wrong");
    pooler.rewrite(&config.clone().user("late", "x").set("pool.size", "'many'").set("log.level", "'loud'"));
    let answer = ask(&mut admin, "RELOAD");
    assert_eq!((answer[0].tag, answer[0].sqlstate()), (b'E', "F0000".to_owned()));
    let detail = answer[0].field(b'D').unwrap();
    assert!(detail.contains("pool.size") && detail.contains("unknown level"), "{detail}");
    assert_eq!(refusal(pooler.port(), "postgres", "late", "x").as_deref(), Some("28P01"));
    assert_eq!(column(&mut admin, "SHOW EVENTS WHERE kind = 'reload'", "what"), ["refused"]);
    pooler.rewrite(&config);
    assert_eq!(reload(&mut admin), ["nothing has changed"]);
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let config = in_front(&cluster);
    let pooler = config.clone().start();
    let mut admin = console(&pooler);
    let preview = |admin: &mut RawClient| notes(admin, "RELOAD DRY RUN");
    assert_eq!(preview(&mut admin), ["nothing would change"]);
    let changed = config.clone().set("pool.size", "7").set("server.workers", "3").user("late", "hush");
    pooler.rewrite(&changed.set("log.slow", "'2s'"));
    for _ in 0..2 {
        let notes = preview(&mut admin);
        for expected in [
            "server.workers: needs a restart",
            "users.late: changed for new sessions",
            "databases.*: changed",
            "  databases.*.pool.size: \"20\" → \"7\"",
            "log.slow: changed",
            "  log.slow: \"0s\" → \"2s\"",
        ] {
            assert!(notes.iter().any(|note| note == expected), "{expected} is not in {notes:?}");
        }
        assert!(!notes.concat().contains("hush"), "{notes:?}");
    }
    assert_eq!(column(&mut admin, "SHOW CONFIG WHERE key = 'databases.*.pool.size'", "value"), ["20"]);
    assert!(column(&mut admin, "SHOW EVENTS WHERE kind = 'reload'", "what").is_empty());
    pooler.rewrite(&config.set("pool.size", "'many'"));
    let answer = ask(&mut admin, "RELOAD DRY RUN");
    assert_eq!((answer[0].tag, answer[0].sqlstate()), (b'E', "F0000".to_owned()));
    assert!(answer[0].field(b'D').unwrap().contains("pool.size"));
    assert_eq!(ask(&mut admin, "RELOAD DRY")[0].sqlstate(), "42601");
}

#[test]
fn users_operators_pools_and_databases_change_without_a_restart() {
    let cluster = cluster().trust_user("app").trust_user("late").start().unwrap();
    let before = in_front(&cluster).set("pool.size", "1").set("databases.gone.cluster", "'main'");
    let before = before.set("databases.gone.database", "'postgres'");
    let pooler = before.start();
    let port = pooler.port();
    let (mut admin, mut app) = (console(&pooler), RawClient::login(port, "postgres", "app", "secret"));
    let mut evicted = RawClient::login(port, "gone", "app", "secret");
    ask(&mut app, "BEGIN; SELECT 1");
    ask(&mut evicted, "BEGIN; SELECT 1");

    let after: Config = in_front(&cluster).set("pool.size", "2").user("late", "x").set("log.level", "'debug'");
    pooler.rewrite(&after.set("admin.stats_users", "['monitor', 'late']").set("server.workers", "7"));
    let notes = reload(&mut admin);
    for expected in [
        "server.workers: needs a restart",
        "users.late: changed for new sessions",
        "databases.*: changed",
        "databases.gone: changed",
        "admin.stats_users: changed for new sessions",
        "log.level: changed",
    ] {
        assert!(notes.iter().any(|note| note == expected), "{expected} is not in {notes:?}");
    }
    // The other one has a server connection of its own now.
    let mut late = RawClient::login(port, "postgres", "app", "secret");
    assert_eq!(ask(&mut late, "SELECT 5")[1].values(), [Some("5".to_owned())]);
    assert_eq!(refusal(port, "postgres", "late", "x"), None);
    assert_eq!(refusal(port, "pgbouncer", "late", "x"), None);
    // "*" serves the name now, but the one who was there ends with the transaction only if nothing serves it.
    assert_eq!(ask(&mut evicted, "COMMIT")[0].text(), "COMMIT");
    assert_eq!(ask(&mut app, "COMMIT")[0].text(), "COMMIT");
    assert_eq!(column(&mut admin, "SHOW CONFIG WHERE key = 'databases.*.pool.size'", "value"), ["2"]);
    assert!(reload(&mut admin).contains(&"server.workers: needs a restart".to_owned()), "it still does");
}

#[test]
fn sessions_of_a_database_that_is_removed_end_with_their_transactions() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let port_of = cluster.node(0).port();
    let config = |names: &[&str]| {
        let config = Config::default().set("clusters.main.nodes", &format!("['127.0.0.1:{port_of}']"));
        let password = format!("{:?}", cluster.superuser_password());
        let config = config.set("clusters.main.health.user", "'postgres'").set("clusters.main.health.timeout", "'30s'");
        let config = config.set("clusters.main.health.password", &password);
        let config = config.user("app", "secret").user("admin", "steer").set("admin.users", "['admin']");
        names.iter().fold(config, |config, name| config.set(&format!("databases.{name}.database"), "'postgres'"))
    };
    let pooler = config(&["kept", "gone"]).start();
    let login = |database| RawClient::login(pooler.port(), database, "app", "secret");
    let (mut kept, mut idle, mut busy, mut admin) = (login("kept"), login("gone"), login("gone"), console(&pooler));
    ask(&mut busy, "BEGIN; SELECT 1");
    pooler.rewrite(&config(&["kept", "new"]));
    pooler.signal(Signal::HUP);
    assert_eq!(idle.read().sqlstate(), "57P01");
    assert_eq!(refusal(pooler.port(), "gone", "app", "secret").as_deref(), Some("3D000"));
    assert_eq!(ask(&mut busy, "SELECT 2")[1].values(), [Some("2".to_owned())]);
    assert_eq!(ask(&mut busy, "COMMIT")[0].text(), "COMMIT");
    assert_eq!(busy.read().sqlstate(), "57P01");
    assert_eq!(ask(&mut kept, "SELECT 3")[1].values(), [Some("3".to_owned())]);
    assert_eq!(ask(&mut login("new"), "SELECT 4")[1].values(), [Some("4".to_owned())]);
    let told = "SHOW EVENTS WHERE kind = 'reload' ORDER BY what";
    wait_until("it is written down", PATIENCE, || column(&mut admin, told, "what").len() == 2);
    assert_eq!(column(&mut admin, told, "who"), ["SIGHUP"; 2]);
}

/// Clients that read, write and open transactions see nothing of changes that do not concern them.
#[test]
fn twenty_changes_under_load_disturb_nobody() {
    let cluster = cluster().replicas(1).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    let mut config = in_front(&cluster).set("pool.size", "3").set("clusters.main.health.interval", "'200ms'");
    let pooler = config.clone().start();
    pooler.allow_warnings("");
    let mut admin = console(&pooler);
    let (stop, turns) = (AtomicBool::new(false), AtomicUsize::new(0));
    let serve = |number: usize| {
        let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
        let write = format!("INSERT INTO ticket VALUES ({number})");
        let mut written = 0;
        while !stop.load(Ordering::Relaxed) {
            for sql in ["SELECT 1", &write, "BEGIN", "SELECT count(*) FROM ticket", &write, "COMMIT"] {
                let answer = ask(&mut client, sql);
                let error = answer.iter().find(|message| message.tag == b'E');
                assert!(error.is_none(), "{sql}: {answer:?}");
            }
            written += 2;
            turns.fetch_add(1, Ordering::Relaxed);
        }
        written
    };
    let changes = [
        ("pool.size", "6"),
        ("pool.size", "2"),
        ("pool.min_idle", "1"),
        ("pool.idle_timeout", "'2s'"),
        ("pool.max_lifetime", "'3s'"),
        ("pool.checkout_timeout", "'60s'"),
        ("pool.query_timeout", "'50s'"),
        ("pool.mode", "'session'"),
        ("pool.prepared_statements", "10"),
        ("clusters.main.max_connections", "4"),
        ("clusters.main.max_connections", "40"),
        ("clusters.main.health.interval", "'100ms'"),
        ("clusters.main.health.failures", "5"),
        ("clusters.main.failover.hold", "'20s'"),
        ("clusters.main.routing.reads", "'any'"),
        ("databases.other.database", "'postgres'"),
        ("users.late.password", "'late'"),
        ("server.max_clients", "500"),
        ("admin.stats_users", "['monitor', 'late']"),
        ("log.slow", "'30s'"),
    ];
    let written: usize = thread::scope(|scope| {
        let _end = AtEnd(&stop);
        let clients: Vec<_> = (0..8).map(|number| scope.spawn(move || serve(number))).collect();
        for (key, value) in changes {
            let before = turns.load(Ordering::Relaxed);
            let ended = || clients.iter().any(|client| client.is_finished());
            wait_until("clients go on", PATIENCE, || ended() || turns.load(Ordering::Relaxed) >= before + 16);
            pooler.rewrite(&config.clone().set("pool.size", "'many'"));
            assert_eq!(ask(&mut admin, "RELOAD")[0].sqlstate(), "F0000", "a mistake between two changes");
            config = config.set(key, value);
            pooler.rewrite(&config);
            let notes = reload(&mut admin);
            assert!(notes.iter().all(|note| note.contains(": changed")), "{key}: {notes:?}");
        }
        let before = turns.load(Ordering::Relaxed);
        let ended = || clients.iter().any(|client| client.is_finished());
        wait_until("clients go on to the end", PATIENCE, || ended() || turns.load(Ordering::Relaxed) >= before + 16);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let count = cluster.node(0).query("SELECT count(*) FROM ticket").unwrap()[0][0].clone();
    assert_eq!(count, Some(written.to_string()), "each write once");
    assert_eq!(column(&mut admin, "SHOW CONFIG WHERE key = 'clusters.main.health.failures'", "value"), ["5"]);
    assert_eq!(column(&mut admin, "SHOW NODES LIMIT 1", "max_connections"), ["40"]);
}

/// Where the session's next read goes: what EXPLAIN ROUTE says, and what a read then says itself.
fn reads_on(client: &mut RawClient) -> (String, bool) {
    let rows = client.query("EXPLAIN ROUTE SELECT 1");
    let chosen = rows.iter().filter(|row| row.tag == b'D').map(Message::values);
    let chosen = chosen.filter(|row| row.last().unwrap().as_deref() == Some("yes")).filter_map(|row| row[3].clone());
    let in_recovery = client.value("SELECT pg_is_in_recovery() /* poolhouse: replica */");
    (chosen.collect(), in_recovery.as_deref() == Some("t"))
}

#[test]
fn nodes_come_and_go_and_sessions_stay() {
    let cluster = cluster().replicas(1).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE count (n int); GRANT ALL ON count TO app").unwrap();
    let address = |at: usize| format!("127.0.0.1:{}", cluster.node(at).port());
    let with = |nodes: &[usize]| {
        let nodes: Vec<_> = nodes.iter().map(|at| address(*at)).collect();
        in_front(&cluster).set("clusters.main.nodes", &format!("{nodes:?}"))
    };
    let pooler = with(&[0]).start();
    let mut admin = console(&pooler);
    let login = || RawClient::login(pooler.port(), "postgres", "app", "secret");
    let (mut client, mut listener) = (login(), login());
    ask(&mut listener, "LISTEN news");
    ask(&mut client, "PREPARE p AS SELECT 7; SET work_mem = '1234kB'");
    assert_eq!(column(&mut admin, "SHOW NODES", "node"), [address(0)]);
    assert_eq!(reads_on(&mut client).0, address(0));

    // A replica joins: sessions that are there read on it.
    pooler.rewrite(&with(&[1, 0]));
    assert_eq!(notes(&mut admin, "RELOAD DRY RUN")[0], "clusters.main.nodes: changed");
    assert_eq!(reload(&mut admin), ["clusters.main.nodes: changed"]);
    wait_until("reads are on the replica", PATIENCE, || reads_on(&mut client) == (address(1), true));
    assert_eq!(client.value("EXECUTE p").as_deref(), Some("7"));
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("1234kB"));
    assert_eq!(column(&mut admin, "SHOW NODES", "role"), ["primary", "replica"]);
    assert_eq!(reload(&mut admin), ["nothing has changed"]);

    // A transaction on a node that leaves ends there.
    wait_until("reads are on the replica", PATIENCE, || reads_on(&mut client) == (address(1), true));
    ask(&mut client, "BEGIN READ ONLY");
    assert_eq!(client.value("SELECT 4").as_deref(), Some("4"));
    let open = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'";
    assert_eq!(cluster.node(1).query(open).unwrap().len(), 1);
    pooler.rewrite(&with(&[0]));
    assert_eq!(reload(&mut admin), ["clusters.main.nodes: changed"]);
    assert_eq!(client.value("SELECT 5").as_deref(), Some("5"));
    assert_eq!(ask(&mut client, "COMMIT")[0].text(), "COMMIT");
    assert_eq!(reads_on(&mut client).0, address(0));
    assert_eq!(column(&mut admin, "SHOW NODES", "node"), [address(0)]);
    wait_until("nobody is connected to it", PATIENCE, || {
        cluster.node(1).query("SELECT 1 FROM pg_stat_activity WHERE usename = 'app'").unwrap().is_empty()
    });
    let asked = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'poolhouse'";
    wait_until("it is not asked for its health", PATIENCE, || cluster.node(1).query(asked).unwrap().is_empty());

    // It comes back, becomes the primary, and the old one leaves.
    pooler.rewrite(&with(&[0, 1]));
    assert_eq!(reload(&mut admin), ["clusters.main.nodes: changed"]);
    wait_until("reads are on the replica", PATIENCE, || reads_on(&mut client) == (address(1), true));
    pooler.allow_warnings("");
    cluster.node(1).promote().unwrap();
    pooler.rewrite(&with(&[1]));
    assert_eq!(reload(&mut admin), ["clusters.main.nodes: changed"]);
    let written = ask(&mut client, "INSERT INTO count VALUES (1)");
    assert_eq!(written[0].text(), "INSERT 0 1", "{written:?}");
    assert_eq!(cluster.node(1).query("SELECT n FROM count").unwrap().len(), 1);
    assert!(cluster.node(0).query("SELECT n FROM count").unwrap().is_empty());
    wait_until("the listener hears the new primary", PATIENCE, || {
        ask(&mut client, "NOTIFY news");
        ask(&mut listener, "SELECT 1").iter().any(|message| message.tag == b'A')
    });
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("1234kB"));
}

#[test]
fn clusters_come_and_go() {
    let (one, other) = (cluster().trust_user("app").start().unwrap(), cluster().trust_user("app").start().unwrap());
    other.node(0).query("CREATE TABLE other (); GRANT ALL ON other TO app").unwrap();
    let base = || in_front(&one).set("databases.'*'.cluster", "'main'");
    let both = || {
        let nodes = format!("['127.0.0.1:{}']", other.node(0).port());
        let config = base().set("clusters.second.nodes", &nodes).set("clusters.second.health.user", "'postgres'");
        let config = config.set("clusters.second.health.password", &format!("{:?}", other.superuser_password()));
        let config = config.set("clusters.second.health.timeout", "'30s'");
        config.set("databases.more.cluster", "'second'").set("databases.more.database", "'postgres'")
    };
    let pooler = base().start();
    let mut admin = console(&pooler);
    let login = |database| RawClient::login(pooler.port(), database, "app", "secret");
    let mut first = login("postgres");
    for round in 0..2 {
        pooler.rewrite(&both());
        assert_eq!(reload(&mut admin), ["clusters.second: changed", "databases.more: changed for new sessions"]);
        let mut more = login("more");
        assert_eq!(more.value("SELECT to_regclass('other')").as_deref(), Some("other"), "{round}");
        assert_eq!(first.value("SELECT to_regclass('other')"), None);
        assert_eq!(column(&mut admin, "SHOW NODES", "cluster"), ["main", "second"]);
        wait_until("its changes are noted", PATIENCE, || {
            column(&mut admin, "SHOW EVENTS WHERE kind = 'primary' AND who = 'second'", "what").len() == round + 1
        });
        // Who is there ends the transaction on it.
        ask(&mut more, "BEGIN");
        assert_eq!(more.value("SELECT 1").as_deref(), Some("1"));
        pooler.rewrite(&base());
        assert_eq!(reload(&mut admin), ["clusters.second: changed", "databases.more: changed"]);
        assert_eq!(column(&mut admin, "SHOW NODES", "cluster"), ["main"]);
        assert_eq!(more.value("SELECT count(*) FROM other").as_deref(), Some("0"));
        ask(&mut more, "COMMIT");
        drop(more);
        let there = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' OR application_name = 'poolhouse'";
        wait_until("nobody is connected to it", PATIENCE, || other.node(0).query(there).unwrap().is_empty());
    }
    assert_eq!(first.value("SELECT 1").as_deref(), Some("1"));
}
