//! Those who have not proved who they are: they take nobody's place, forge nothing, and fill no log.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    console::{ask, column, console},
    kit::{
        Config, Cut, Fault, LabCluster, PATIENCE, Pooler, RawClient, cluster,
        messages::{cancel_request, query, startup},
        wait_until,
    },
};

fn started() -> LabCluster {
    cluster().scram_user("app", "secret").start().unwrap()
}

fn config(cluster: &LabCluster) -> Config {
    let config = Config::of_cluster(cluster).user("app", "secret").user("admin", "steer").user("monitor", "look");
    config.set("admin.users", "['admin']").set("server.login_timeout", "'1d'")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "secret")
}

/// The SQLSTATE with which a login is refused.
fn refused(port: u16, user: &str, password: &str) -> Option<String> {
    let mut client = RawClient::connect(port);
    client.send(&startup(0x30000, &[("user", user), ("database", "postgres")]));
    let last = client.finish_login(user, password).pop().unwrap();
    (last.tag == b'E').then(|| last.sqlstate())
}

fn list(pooler: &Pooler, name: &str) -> usize {
    let mut console = console(pooler);
    column(&mut console, &format!("SHOW LISTS WHERE list = '{name}'"), "items")[0].parse().unwrap()
}

/// How many of these connections are still open.
fn open(crowd: &[TcpStream]) -> usize {
    let is_open = |socket: &&TcpStream| {
        socket.set_nonblocking(true).unwrap();
        let mut bytes = [0; 4096];
        loop {
            match std::io::Read::read(&mut &**socket, &mut bytes) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
    };
    crowd.iter().filter(is_open).count()
}

#[test]
fn a_crowd_that_only_stands_there_keeps_nobody_out() {
    const LOGINS: usize = 50;
    let cluster = started();
    let config = config(&cluster).set("server.max_clients", "5");
    let pooler = config.clone().set("server.max_logins", &LOGINS.to_string()).start();
    let port = pooler.port();
    let mut inside = login(port);
    let hello = startup(0x30000, &[("user", "app"), ("database", "postgres")]);
    // Silent ones, half a packet, and a whole one without a proof; each round renews them.
    for said in [&[][..], &hello[..9], &hello] {
        let crowd: Vec<TcpStream> = (0..3 * LOGINS)
            .map(|_| {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let _ = std::io::Write::write_all(&mut socket, said);
                socket
            })
            .collect();
        wait_until("the oldest have given way", PATIENCE, || open(&crowd) <= LOGINS);
        for _ in 0..20 {
            assert_eq!(login(port).value("SELECT 'served'").as_deref(), Some("served"), "{}", said.len());
        }
        assert!(list(&pooler, "login_clients") >= LOGINS / 2, "the newest are still there");
        // A cancel request gets through, too.
        inside.send(&query("SELECT pg_sleep(600)"));
        let sleeps = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'";
        wait_until("it sleeps", PATIENCE, || cluster.node(0).query(sleeps).unwrap().len() == 1);
        RawClient::connect(port).send(&cancel_request(inside.cancel_key.as_ref().unwrap()));
        let answer = inside.read_until_ready();
        assert_eq!(answer.iter().find(|it| it.tag == b'E').map(|it| it.sqlstate()).as_deref(), Some("57014"));
    }
    // Fewer from now on: as soon as the next one comes.
    pooler.rewrite(&config.set("server.max_logins", "10"));
    let mut console = console(&pooler);
    ask(&mut console, "RELOAD");
    let crowd: Vec<_> = (0..30).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    wait_until("there are fewer", PATIENCE, || open(&crowd) <= 10);
}

#[test]
fn many_who_log_in_at_once_all_get_in() {
    const CLIENTS: usize = 500;
    let cluster = started();
    let pooler = config(&cluster).set("auth.method", "'md5'").start();
    // All are connected before any of them says a word.
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| RawClient::connect(pooler.port())).collect();
    let hello = startup(0x30000, &[("user", "app"), ("database", "postgres")]);
    clients.iter_mut().for_each(|client| client.send(&hello));
    for client in &mut clients {
        assert_eq!(client.finish_login("app", "secret").pop().unwrap().tag, b'Z');
    }
    assert_eq!(list(&pooler, "used_clients"), CLIENTS + 1, "and the one that asks");
}

#[test]
fn operators_have_places_of_their_own() {
    let cluster = started();
    let config = config(&cluster).set("server.max_clients", "2");
    let pooler = config.clone().set("admin.reserved", "1").start();
    let port = pooler.port();
    let _clients = [login(port), login(port)];
    assert_eq!(refused(port, "app", "secret").as_deref(), Some("53300"));
    assert_eq!(refused(port, "app", "wrong").as_deref(), Some("28P01"), "who proves nothing learns nothing");
    let operator = |user: &str, password: &str| {
        let mut client = RawClient::connect(port);
        client.send(&startup(0x30000, &[("user", user), ("database", "poolhouse")]));
        let last = client.finish_login(user, password).pop().unwrap();
        (client, (last.tag == b'E').then(|| last.sqlstate()))
    };
    assert_eq!(operator("app", "secret").1.as_deref(), Some("28000"), "it is none");
    let (mut first, told) = operator("admin", "steer");
    assert_eq!(told, None);
    assert_eq!(operator("admin", "steer").1.as_deref(), Some("53300"), "there was one place");
    pooler.rewrite(&config.set("admin.reserved", "2"));
    ask(&mut first, "RELOAD");
    assert_eq!(operator("admin", "steer").1, None);
}

const HOSTILE: &str =
    "a\n2026-01-01T00:00:00.000000Z  WARN poolhouse: forged\r\u{1b}[31m\u{9b}31m\u{7f}\u{202e}\u{85}b";

#[test]
fn names_forge_no_lines_and_steer_no_terminal() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let is_plain = |text: &str| !text.contains(|it: char| it.is_control() || ('\u{202a}'..='\u{202e}').contains(&it));
    for format in ["text", "json"] {
        let http = poolhouse_lab::throwaway::free_port().unwrap();
        let pooler = Config::of_cluster(&cluster)
            .set("auth.method", "'trust'")
            .set("admin.users", "['admin']")
            .set("admin.http", &format!("'127.0.0.1:{http}'"))
            .set("log.format", &format!("'{format}'"))
            .set("log.connections", "true")
            .set("log.slow", "'1ms'")
            .start();
        let begin = |parameters: &[(&str, &str)]| {
            let mut client = RawClient::connect(pooler.port());
            client.send(&startup(0x30000, parameters));
            client.finish_login("app", "");
            client
        };
        // `slow statements` are warnings.
        pooler.allow_warnings("a slow statement");
        let mut named = begin(&[("user", "app"), ("database", "postgres"), ("application_name", HOSTILE)]);
        named.query(&format!("SELECT pg_sleep(0.01) AS \"{HOSTILE}\""));
        named.query(&format!("SELECT * FROM \"{HOSTILE}\""));
        for parameters in [
            &[("user", HOSTILE), ("database", "postgres")][..],
            &[("user", "app"), ("database", HOSTILE)],
            &[("user", "app"), ("database", "postgres"), ("replication", HOSTILE)],
            &[("user", "app"), ("database", "postgres"), ("options", HOSTILE)],
        ] {
            begin(parameters);
        }
        let mut console = RawClient::login(pooler.port(), "poolhouse", "admin", "");
        for name in ["CLIENTS", "ERRORS", "EVENTS", "DATABASES", "POOLS", "USERS", "QUERIES", "SERVERS"] {
            let rows = ask(&mut console, &format!("SHOW {name}"));
            let cells = rows.iter().filter(|row| row.tag == b'D').flat_map(|row| row.values()).flatten();
            for cell in cells {
                assert!(is_plain(&cell), "SHOW {name}: {cell:?}");
            }
        }
        let errors = column(&mut console, "SHOW ERRORS", "message");
        assert!(errors.iter().any(|message| message.contains(r"a\u{a}2026")), "{errors:?}");
        for path in ["/metrics", "/api/clients", "/api/errors", "/api/pools"] {
            let page = super::http::get(http, path).1;
            assert!(page.lines().all(is_plain) && !page.contains("\n2026"), "{path}: {page:?}");
        }
        wait_until("the refusals are logged", PATIENCE, || pooler.logs("refused a client"));
        for line in pooler.log() {
            assert!(is_plain(&line), "{format}: {line:?}");
            assert!(!line.starts_with("2026-01-01T00:00:00.000000Z"), "{format}: {line:?}");
        }
    }
}

#[test]
fn wrong_logins_do_not_fill_the_log() {
    let cluster = started();
    let pooler = config(&cluster).set("auth.method", "'md5'").start();
    let mut real = login(pooler.port());
    real.query("SELECT * FROM nowhere");
    // Each of those that come late waits for a second.
    thread::scope(|scope| {
        for _ in 0..220 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(refused(pooler.port(), "app", "wrong").as_deref(), Some("28P01"));
                }
            });
        }
    });
    let told = || pooler.log().iter().filter(|line| line.contains("refused a client")).count();
    wait_until("the rest is added up", PATIENCE, || pooler.logs("refused more clients like those before"));
    // Twenty in ten seconds, however long it took.
    let more: usize =
        pooler.log().iter().filter_map(|line| line.split("more=").nth(1)?.trim().parse::<usize>().ok()).sum();
    assert!(told() + more <= 1_100 && more > 0, "{} {more}", told());
    let errors = column(&mut console(&pooler), "SHOW ERRORS WHERE code = '42P01'", "code");
    assert_eq!(errors.len(), 1, "what clients met is not forgotten for it");
}

#[test]
fn whoever_guesses_waits_longer_each_time_and_nobody_else_does() {
    let cluster = started();
    let pooler = config(&cluster).set("auth.method", "'md5'").start();
    let guess = |user| {
        let begun = Instant::now();
        assert_eq!(refused(pooler.port(), user, "wrong").as_deref(), Some("28P01"));
        begun.elapsed()
    };
    // Whether there is such a user does not matter.
    for user in ["app", "nobody"] {
        let slow = (0..100).find(|_| guess(user) >= Duration::from_millis(600));
        assert!(slow.is_some(), "{user}");
    }
    thread::scope(|scope| {
        let guesses = ["app", "nobody"].map(|user| scope.spawn(move || guess(user)));
        // From the same address.
        assert_eq!(login(pooler.port()).value("SELECT 1").as_deref(), Some("1"));
        for guess in guesses {
            guess.join().unwrap();
        }
    });
}

/// A statement that is on its way when the client is told to go does not cost the client the reason.
#[test]
fn whoever_is_told_to_go_can_read_it() {
    const CLIENTS: usize = 40;
    let cluster = started();
    for mode in ["'transaction'", "'session'"] {
        let config = config(&cluster).set("pool.mode", mode).set("pool.size", &CLIENTS.to_string());
        let pooler = config.set("server.shutdown_timeout", "'10s'").start();
        let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| login(pooler.port())).collect();
        pooler.signal(Signal::TERM);
        wait_until("it drains", PATIENCE, || pooler.logs("draining"));
        for client in &mut clients {
            // Sent without a look at what has come, as drivers do.
            let sent = client.try_send(&query("SELECT 1"));
            let told = client.read_to_end();
            assert_eq!(told.last().map(|it| it.sqlstate()).as_deref(), Some("57P01"), "{mode} {sent:?} {told:?}");
        }
        pooler.wait_for_exit(PATIENCE);
    }
    // One that sends more than anybody reads.
    let pooler = config(&cluster).start();
    let mut client = RawClient::connect(pooler.port());
    client.send(&startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    assert_eq!(client.read().tag, b'R');
    client.send(&[b"Q\0\0\0\x0cSELECT\0\0", &[b'x'; 200_000][..]].concat());
    assert_eq!(client.read_to_end().last().unwrap().sqlstate(), "08P01");
}

#[test]
fn a_replication_connection_that_breaks_says_nothing_of_its_node() {
    let cluster = cluster().replication_user("copier", "secret").start().unwrap();
    let fault = Fault::to(cluster.node(0).port());
    let password = format!("{:?}", cluster.superuser_password());
    let config = Config::of_ports([fault.port()]).user("copier", "secret").user("admin", "steer");
    let pooler = config
        .set("admin.users", "['admin']")
        .set("clusters.main.health.user", "'postgres'")
        .set("clusters.main.health.password", &password)
        .set("clusters.main.health.database", "'postgres'")
        .set("clusters.main.health.timeout", "'1m'")
        .set("clusters.main.connect_timeout", "'1m'")
        // No probe is under way when the network breaks.
        .set("clusters.main.health.interval", "'1h'")
        .start();
    let mut console = console(&pooler);
    wait_until("the node is known", PATIENCE, || column(&mut console, "SHOW NODES", "state") == ["up"]);
    for cut in [Cut::Reset, Cut::Close] {
        let mut client = RawClient::connect(pooler.port());
        client.send(&startup(0x30000, &[("user", "copier"), ("database", "postgres"), ("replication", "true")]));
        assert_eq!(client.finish_login("copier", "secret").pop().unwrap().tag, b'Z');
        fault.cut(cut);
        assert_eq!(client.read_to_end().pop().unwrap().sqlstate(), "08006");
    }
    let events = column(&mut console, "SHOW EVENTS WHERE kind = 'node'", "what");
    assert!(!events.iter().any(|what| what.contains("suspect")), "{events:?}");
}

#[test]
fn a_stranger_has_so_much_time() {
    let cluster = started();
    let pooler = config(&cluster).set("server.login_timeout", "'500ms'").start();
    let hello = startup(0x30000, &[("user", "app"), ("database", "postgres")]);
    for said in [&[][..], &hello[..9], &hello] {
        let mut client = RawClient::connect(pooler.port());
        client.send(said);
        let told = client.read_to_end();
        assert_eq!(told.last().unwrap().sqlstate(), "57014", "{}", said.len());
    }
    let mut client = login(pooler.port());
    thread::sleep(Duration::from_secs(1));
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"), "who is known has none");
}
