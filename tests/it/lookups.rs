//! Users that are on no list: a server is asked for them (`auth.query`).

use super::kit::{Config, LabCluster, PATIENCE, Pooler, RawClient, cluster, messages, wait_until};
use std::time::{Duration, Instant};

/// Tries to log in, and gives the SQLSTATE and message when that fails.
fn refusal(port: u16, database: &str, user: &str, password: &str) -> Option<(String, String)> {
    let mut client = RawClient::connect(port);
    client.send(&messages::startup(0x30000, &[("user", user), ("database", database)]));
    let answer = client.finish_login(user, password);
    let error = answer.iter().find(|message| message.tag == b'E')?;
    Some((error.sqlstate(), error.field(b'M').unwrap()))
}

fn run(cluster: &LabCluster, sql: &str) {
    cluster.node(0).query(sql).unwrap();
}

fn users() -> LabCluster {
    let builder = cluster().scram_user("ann", "first").scram_user("bob", "other").md5_user("old", "md5ish");
    // The look-up's own user is no superuser, and asks by the function of the documentation.
    let cluster = builder.scram_user("asker", "asking").scram_user(&"l".repeat(63), "x").start().unwrap();
    run(&cluster, include_str!("../../docs/lookup.sql"));
    cluster
}

/// As somebody without rights asks: by the documentation's function.
fn asking(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster)
        .set("auth.query_user", "'asker'")
        .set("auth.query_password", "'asking'")
        .set("auth.query", "'SELECT * FROM poolhouse.find_user($1)'")
        .set("auth.query_database", "'postgres'")
}

fn logs_in(pooler: &Pooler, user: &str, password: &str) -> bool {
    let refused = refusal(pooler.port(), "postgres", user, password);
    assert!(refused.as_ref().is_none_or(|(code, _)| code == "28P01"), "{refused:?}");
    refused.is_none()
}

#[test]
fn users_of_the_server_log_in_as_themselves() {
    let cluster = users();
    for method in ["'scram-sha-256'", "'md5'"] {
        let pooler = asking(&cluster).set("auth.method", method).start();
        for (user, password) in [("ann", "first"), ("bob", "other")] {
            let mut client = RawClient::login(pooler.port(), "postgres", user, password);
            assert_eq!(client.value("SELECT current_user").as_deref(), Some(user), "{method}");
        }
        let wrong = refusal(pooler.port(), "postgres", "ann", "other").unwrap();
        let unknown = refusal(pooler.port(), "postgres", "nobody", "other").unwrap();
        assert_eq!((wrong.0.as_str(), unknown.0.as_str()), ("28P01", "28P01"));
        assert_eq!(wrong.1.replace("ann", "nobody"), unknown.1, "the words tell who exists");
        // The server's hash of an md5 password cannot be used by SCRAM, and by md5 it can.
        assert_eq!(logs_in(&pooler, "old", "md5ish"), method == "'md5'");
        assert!(!logs_in(&pooler, "old", "wrong"));
    }
}

#[test]
fn the_default_query_is_for_superusers() {
    let cluster = users();
    let config = Config::of_cluster(&cluster).set("auth.query_user", "'postgres'");
    let pooler = config.set("auth.query_password", &format!("{:?}", cluster.superuser_password())).start();
    assert!(logs_in(&pooler, "ann", "first"));
    run(&cluster, "ALTER ROLE bob VALID UNTIL '2001-01-01'");
    assert!(!logs_in(&pooler, "bob", "other"), "expired");
    run(&cluster, "CREATE ROLE nologin PASSWORD 'x'");
    assert!(!logs_in(&pooler, "nologin", "x"));
    run(&cluster, "CREATE ROLE bare LOGIN");
    assert!(!logs_in(&pooler, "bare", ""), "without a password");
    // A name that the server cuts short is another name.
    let long = "l".repeat(63);
    assert!(logs_in(&pooler, &long, "x"));
    assert!(!logs_in(&pooler, &format!("{long}l"), "x"));
    // Without `query_database` it is asked where the client wants to go: a slip in that name has the server's own words.
    let (code, message) = refusal(pooler.port(), "no such place", "ann", "first").unwrap();
    assert_eq!((code.as_str(), message.as_str()), ("3D000", "database \"no such place\" does not exist"));
}

#[test]
fn what_changes_on_the_server_counts_within_the_lifetime() {
    let cluster = users();
    let pooler = asking(&cluster).set("auth.query_lifetime", "'1s'").set("pool.size", "2").start();
    let mut there = RawClient::login(pooler.port(), "postgres", "ann", "first");
    assert!(logs_in(&pooler, "bob", "other"));
    for (sql, user, password) in [
        ("ALTER ROLE bob VALID UNTIL '2001-01-01'", "bob", "other"),
        ("ALTER ROLE ann PASSWORD 'second'", "ann", "first"),
    ] {
        run(&cluster, sql);
        wait_until("the old one is no more", PATIENCE, || !logs_in(&pooler, user, password));
    }
    // Whoever is in stays in, and who comes with the new password gets connections by it: all of the pool's are new.
    assert_eq!(there.value("SELECT 1").as_deref(), Some("1"));
    run(&cluster, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'");
    wait_until("the new one is taken", PATIENCE, || {
        let refused = refusal(pooler.port(), "postgres", "ann", "second");
        assert!(refused.as_ref().is_none_or(|(code, _)| ["28P01", "57P01"].contains(&code.as_str())), "{refused:?}");
        refused.is_none()
    });
    let mut clients: Vec<_> = (0..2).map(|_| RawClient::login(pooler.port(), "postgres", "ann", "second")).collect();
    for client in &mut clients {
        client.begin();
        assert_eq!(client.value("SELECT current_user").as_deref(), Some("ann"));
    }
    run(&cluster, "DROP ROLE bob");
    assert!(!logs_in(&pooler, "bob", "other"));
}

#[test]
fn a_failed_login_and_reload_have_the_server_asked_again() {
    let cluster = users();
    let pooler = asking(&cluster).set("auth.query_lifetime", "'1h'").user("boss", "x").set("admin.users", "['boss']");
    let pooler = pooler.start();
    assert!(logs_in(&pooler, "ann", "first") && logs_in(&pooler, "bob", "other"));
    run(&cluster, "ALTER ROLE ann PASSWORD 'second'");
    run(&cluster, "ALTER ROLE bob NOLOGIN");
    wait_until("the new password counts after the first refusal", PATIENCE, || logs_in(&pooler, "ann", "second"));
    assert!(!logs_in(&pooler, "ann", "first"));
    let mut console = RawClient::login(pooler.port(), "poolhouse", "boss", "x");
    console.query("RELOAD");
    assert!(!logs_in(&pooler, "bob", "other"), "RELOAD forgets what was known");
}

#[test]
fn a_crowd_asks_once_and_look_ups_take_no_place_of_the_user() {
    let cluster = users();
    run(&cluster, "CREATE TABLE poolhouse.asked (at timestamptz DEFAULT now())");
    run(
        &cluster,
        "CREATE FUNCTION poolhouse.slowly(name text, OUT a text, OUT b text) LANGUAGE plpgsql SECURITY DEFINER AS \
         $$BEGIN PERFORM pg_sleep(0.3); INSERT INTO poolhouse.asked DEFAULT VALUES; \
         SELECT * INTO a, b FROM poolhouse.find_user(name); END$$",
    );
    let pooler = asking(&cluster).set("auth.query", "'SELECT a, b FROM poolhouse.slowly($1)'").set("pool.size", "1");
    let pooler = pooler.start();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert!(logs_in(&pooler, "ann", "first")));
        }
    });
    let asked = cluster.node(0).query("SELECT count(*) FROM poolhouse.asked").unwrap();
    assert_eq!(asked[0][0].as_deref(), Some("1"));
    // The user's one connection is free, and the look-up's own are few.
    let mut client = RawClient::login(pooler.port(), "postgres", "ann", "first");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    std::thread::scope(|scope| {
        for number in 0..20 {
            let pooler = &pooler;
            scope.spawn(move || logs_in(pooler, &format!("stranger {number}"), "x"));
        }
    });
    assert!(cluster.node(0).connections("asker").unwrap() <= 2);
}

#[test]
fn a_server_that_hangs_or_says_no_is_told_of_in_time_and_keeps_nobody_else() {
    let cluster = users();
    let pooler = asking(&cluster).user("listed", "x").set("auth.query_lifetime", "'0s'").start();
    assert!(logs_in(&pooler, "ann", "first"));
    let mut there = RawClient::login(pooler.port(), "postgres", "bob", "other");
    // A look-up that the database refuses: the cause is in the log, and not for whoever asks.
    run(&cluster, "REVOKE EXECUTE ON FUNCTION poolhouse.find_user FROM asker");
    let (code, message) = refusal(pooler.port(), "postgres", "ann", "first").unwrap();
    assert_eq!(code, "57P03");
    assert_eq!(message, "it cannot be found out at the moment how user \"ann\" logs in");
    wait_until("the log has the cause", PATIENCE, || pooler.logs("permission denied for function find_user"));
    assert_eq!(there.value("SELECT 1").as_deref(), Some("1"));
    run(&cluster, "GRANT EXECUTE ON FUNCTION poolhouse.find_user TO asker");
    assert!(logs_in(&pooler, "ann", "first"), "at once");
    // One that hangs: strangers wait for it, nobody else does.
    let begun = Instant::now();
    let locked = "LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE";
    let mut locker = RawClient::login(cluster.node(0).port(), "postgres", "postgres", cluster.superuser_password());
    locker.begin();
    locker.query(locked);
    let hung = std::thread::scope(|scope| {
        let hung = scope.spawn(|| refusal(pooler.port(), "postgres", "ann", "first"));
        assert_eq!(there.value("SELECT 2").as_deref(), Some("2"));
        hung.join().unwrap()
    });
    assert_eq!(hung.unwrap().0, "57P03");
    assert!(begun.elapsed() < Duration::from_secs(60));
    locker.query("ROLLBACK");
    wait_until("it is well again", PATIENCE, || refusal(pooler.port(), "postgres", "ann", "first").is_none());
}

#[test]
fn a_pool_for_every_user_counts_for_those_who_are_looked_up() {
    let cluster = users();
    let config = asking(&cluster).set("users.'*'.pool.mode", "'session'").set("users.bob.pool.mode", "'statement'");
    let pooler = config.start();
    let kept = |user, password| {
        let mut client = RawClient::login(pooler.port(), "postgres", user, password);
        client.query("BEGIN").iter().find(|message| message.tag == b'E').map(|error| error.sqlstate())
    };
    // Statement mode refuses transaction blocks.
    assert_eq!(kept("ann", "first"), None);
    assert!(kept("bob", "other").is_some());
    let mut ann = RawClient::login(pooler.port(), "postgres", "ann", "first");
    // In session mode the process id is the server's.
    assert_eq!(ann.server_process(), Some(ann.process().to_string()));
}

#[test]
fn operators_are_looked_up_where_it_is_said() {
    let cluster = users();
    let pooler = asking(&cluster).set("admin.users", "['ann']").start();
    let mut console = RawClient::login(pooler.port(), "pgbouncer", "ann", "first");
    // The look-up's own pool is shown like any other.
    let pools = console.query("SHOW POOLS");
    let is_asker = |row: &Vec<Option<String>>| row[1].as_deref() == Some("asker");
    assert!(pools.iter().filter(|message| message.tag == b'D').map(|row| row.values()).any(|row| is_asker(&row)));
    assert_eq!(refusal(pooler.port(), "pgbouncer", "ann", "wrong").unwrap().0, "28P01");
    assert_eq!(refusal(pooler.port(), "pgbouncer", "bob", "other").unwrap().0, "28000", "no operator");
}
