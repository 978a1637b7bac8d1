//! The configuration read again: all of it is right or nothing changes, and nobody is disturbed whom it does not concern.

use rustix::process::Signal;

use super::{
    console::{ask, column, console, in_front},
    kit::{Config, Message, PATIENCE, RawClient, cluster, messages, wait_until},
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
    pooler.rewrite(&after.set("admin.stats_users", "['monitor', 'late']").set("server.max_clients", "77"));
    let notes = reload(&mut admin);
    for expected in [
        "server.max_clients: needs a restart",
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
    assert!(reload(&mut admin).contains(&"server.max_clients: needs a restart".to_owned()), "it still does");
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
