//! Settings with which sessions begin, when they change: sessions that begin later have the new ones.

use super::kit::{Cluster, Config, Pooler, RawClient, cluster, messages};

/// A cluster, and a pool of one server connection for a superuser.
fn started() -> (Cluster, Pooler) {
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
fn a_server_connection_that_begins_otherwise_tells_of_new_defaults() {
    let (cluster, pooler) = started();
    let before = found(&pooler);
    cluster.node(0).query("ALTER ROLE app SET TimeZone = 'Asia/Tokyo'").unwrap();
    let sessions = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
    cluster.node(0).query(sessions).unwrap();
    // What is remembered is believed until a server says otherwise.
    let (mut client, told) = login(&pooler);
    assert_eq!(told, before[1]);
    assert_eq!(client.value("SHOW TimeZone").as_deref(), Some("Asia/Tokyo"));
    assert_eq!(login(&pooler).1, "Asia/Tokyo");
}
