//! Settings with which sessions begin, when they change: sessions that begin later have the new ones.

use super::kit::{Config, LabCluster, PATIENCE, Pooler, RawClient, cluster, messages, wait_until};

/// A cluster, and a pool of one server connection for a superuser.
fn started() -> (LabCluster, Pooler) {
    let cluster = cluster().trust_user("app").start().unwrap();
    cluster.node(0).query("ALTER ROLE app SUPERUSER").unwrap();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "1").start();
    (cluster, pooler)
}

/// A client that logs in now, and the time zone that it is told.
fn login(pooler: &Pooler) -> (RawClient, String) {
    let mut client = RawClient::connect(pooler.port());
    client.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    let answer = client.finish_login("app", "");
    let mut told = answer.iter().filter(|message| message.tag == b'S').filter_map(|message| {
        let text = String::from_utf8(message.body.clone()).unwrap();
        text.strip_prefix("TimeZone\0").map(|zone| zone.trim_end_matches('\0').to_owned())
    });
    let told = told.next().unwrap();
    (client, told)
}

/// What a client finds that logs in now: work_mem, the time zone that it is told and the one that is shown.
fn found(pooler: &Pooler) -> [String; 3] {
    let (mut client, told) = login(pooler);
    [client.value("SHOW work_mem").unwrap(), told, client.value("SHOW TimeZone").unwrap()]
}

#[test]
fn what_is_set_for_a_role_or_database_is_there_at_the_next_login() {
    let (_cluster, pooler) = started();
    let before = found(&pooler);
    let with = |work_mem: &str, zone: &str| [work_mem.to_owned(), zone.to_owned(), zone.to_owned()];
    let (mut client, _) = login(&pooler);
    client.query("BEGIN; ALTER ROLE app SET work_mem = '7MB'; ROLLBACK");
    assert_eq!(found(&pooler), before);
    client.begin();
    client.query("ALTER ROLE app SET work_mem = '7MB'");
    client.query("COMMIT");
    assert_eq!(found(&pooler), with("7MB", &before[1]));
    client.query("ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo'");
    assert_eq!(found(&pooler), with("7MB", "Asia/Tokyo"));
    client.send(&messages::parse("", "ALTER ROLE app IN DATABASE postgres SET TimeZone = 'CET'"));
    client.send(&[messages::bind("", "", &[]), messages::execute("", 0), messages::sync()].concat());
    client.read_until_ready();
    assert_eq!(found(&pooler), with("7MB", "CET"));
    client.query("ALTER ROLE app RESET work_mem; ALTER DATABASE postgres RESET TimeZone");
    client.query("ALTER ROLE app IN DATABASE postgres RESET ALL");
    assert_eq!(found(&pooler), before);
}

#[test]
fn new_defaults_are_there_when_the_old_connections_are_gone() {
    let (cluster, pooler) = started();
    let before = found(&pooler);
    cluster.node(0).query("ALTER ROLE app SET TimeZone = 'Asia/Tokyo'").unwrap();
    let sessions = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
    cluster.node(0).query(sessions).unwrap();
    let with = |zone: &str| [before[0].clone(), zone.to_owned(), zone.to_owned()];
    assert_eq!(found(&pooler), with("Asia/Tokyo"));
}

#[test]
fn what_is_set_beside_the_pool_is_there_at_the_next_login() {
    for mode in ["'transaction'", "'session'"] {
        let cluster = cluster().trust_user("app").start().unwrap();
        let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.mode", mode).start();
        let before = found(&pooler);
        let direct = |sql: &str| cluster.node(0).query(sql).unwrap();
        let with = |work_mem: &str, zone: &str| [work_mem.to_owned(), zone.to_owned(), zone.to_owned()];
        for round in 1..4 {
            let memory = format!("{round}MB");
            direct(&format!("ALTER ROLE app SET work_mem = '{memory}'"));
            assert_eq!(found(&pooler), with(&memory, &before[1]), "{mode}");
            direct("ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo'");
            assert_eq!(found(&pooler), with(&memory, "Asia/Tokyo"), "{mode}");
            direct("ALTER ROLE app IN DATABASE postgres SET TimeZone = 'CET'");
            assert_eq!(found(&pooler), with(&memory, "CET"), "{mode}");
            direct("ALTER ROLE app RESET ALL; ALTER DATABASE postgres RESET ALL");
            direct("ALTER ROLE app IN DATABASE postgres RESET ALL");
            assert_eq!(found(&pooler), before, "{mode}");
        }
    }
}

#[test]
fn a_role_that_is_dropped_and_made_anew_is_another_one() {
    for mode in ["'transaction'", "'session'"] {
        let cluster = cluster().trust_user("app").start().unwrap();
        let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.mode", mode).start();
        for _ in 0..3 {
            let (mut client, _) = login(&pooler);
            assert_eq!(client.value("SELECT current_user").as_deref(), Some("app"), "{mode}");
            drop(client);
            cluster.node(0).query("DROP ROLE app").unwrap();
            cluster.node(0).query("CREATE ROLE app LOGIN").unwrap();
        }
    }
}

#[test]
fn what_a_reload_of_the_configuration_changes_is_told_at_the_next_login() {
    let (cluster, pooler) = started();
    let before = found(&pooler);
    let (mut old, _) = login(&pooler);
    assert_eq!(old.value("SHOW TimeZone").as_deref(), Some(&*before[1]));
    cluster.node(0).query("ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'").unwrap();
    cluster.node(0).query("SELECT pg_reload_conf()").unwrap();
    // The server's processes take it in at their next command.
    wait_until("the next login has it", PATIENCE, || found(&pooler)[1..] == ["Asia/Tokyo", "Asia/Tokyo"]);
    cluster.node(0).query("ALTER SYSTEM RESET TimeZone").unwrap();
    cluster.node(0).query("SELECT pg_reload_conf()").unwrap();
    wait_until("and has it no more", PATIENCE, || found(&pooler) == before);
}
