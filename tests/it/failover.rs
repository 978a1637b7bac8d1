//! Losing servers: who takes over, what waits, and what clients are told.

use super::kit::{Config, LabCluster, PATIENCE, RawClient, cluster, messages, wait_until};

fn replicated() -> LabCluster {
    let cluster = cluster().replicas(2).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn in_front(cluster: &LabCluster, mode: &str) -> Config {
    let config = Config::of_cluster(cluster).user("app", "secret");
    let config = config.set("clusters.main.health.interval", "'200ms'").set("clusters.main.health.timeout", "'1s'");
    config.set("clusters.main.failover.mode", mode).set("clusters.main.failover.hold", "'60s'")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "secret")
}

fn number_of_primaries(cluster: &LabCluster) -> usize {
    let running = cluster.nodes().iter().filter(|node| node.is_running());
    running.filter(|node| node.is_primary().is_ok_and(|primary| primary)).count()
}

#[test]
fn a_lost_primary_is_replaced_and_writes_wait_for_it() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "'promote'").start();
    pooler.allow_warnings("");
    let mut idle = login(pooler.port());
    let mut open = login(pooler.port());
    idle.query("INSERT INTO ticket VALUES (1)");
    open.begin();
    open.query("INSERT INTO ticket VALUES (2)");
    cluster.catch_up().unwrap();
    cluster.node(0).kill9().unwrap();

    // Between transactions: the write waits for the new primary, on the same connection.
    let answer = idle.query("INSERT INTO ticket VALUES (3)");
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    // In a transaction: it is lost, the client is told that nothing was committed, and goes on.
    let answer = open.query("INSERT INTO ticket VALUES (4)");
    let error = answer.iter().find(|message| message.tag == b'E').expect("the transaction is lost");
    assert_eq!(error.sqlstate(), "08006");
    assert_eq!(error.field(b'D').as_deref(), Some("The transaction was not committed."));
    open.query("INSERT INTO ticket VALUES (5)");
    let numbers = open.value("BEGIN; SELECT string_agg(number::text, ',' ORDER BY number) FROM ticket; COMMIT");
    assert_eq!(numbers.as_deref(), Some("1,3,5"));
    assert_eq!(number_of_primaries(&cluster), 1);

    let new = cluster.nodes().iter().find(|node| node.is_running() && node.is_primary().unwrap()).unwrap();
    let other = cluster.nodes()[1..].iter().find(|node| node.port() != new.port()).unwrap();
    wait_until("the other replica follows", PATIENCE, || {
        other.streams_from().is_ok_and(|port| port == Some(new.port()))
    });

    // The old primary comes back as it was: it must not be used.
    cluster.node(0).start().unwrap();
    wait_until("it is known to be stale", PATIENCE, || pooler.logs("stale"));
    for number in 6..20 {
        let answer = idle.query(&format!("INSERT INTO ticket VALUES ({number})"));
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    }
    assert_eq!(cluster.node(0).query("SELECT max(number) FROM ticket").unwrap()[0][0].as_deref(), Some("1"));
}

#[test]
fn a_primary_that_somebody_else_promotes_is_found() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "'follow'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    client.query("INSERT INTO ticket VALUES (1)");
    cluster.catch_up().unwrap();
    cluster.node(0).kill9().unwrap();
    wait_until("the loss is noticed", PATIENCE, || pooler.logs("down"));
    assert_eq!(number_of_primaries(&cluster), 0, "nobody is promoted");
    client.send(&messages::query("INSERT INTO ticket VALUES (2)"));
    cluster.node(1).promote().unwrap();
    let answer = client.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    assert_eq!(cluster.node(1).query("SELECT count(*) FROM ticket").unwrap()[0][0].as_deref(), Some("2"));
}

#[test]
fn a_wait_for_a_primary_ends_with_hold() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "'follow'").set("clusters.main.failover.hold", "'500ms'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    client.query("INSERT INTO ticket VALUES (1)");
    cluster.node(0).kill9().unwrap();
    wait_until("the loss is noticed", PATIENCE, || pooler.logs("down"));
    let answer = client.query("INSERT INTO ticket VALUES (2)");
    assert_eq!(answer[0].sqlstate(), "57P03", "{answer:?}");
    // One that has written nothing may read what a replica has; the other might miss its own write there.
    let mut reader = login(pooler.port());
    assert!(reader.value("SELECT count(*) FROM ticket").is_some(), "reads go on");
}

#[test]
fn a_server_may_come_after_poolhouse() {
    let cluster = cluster().trust_user("app").start().unwrap();
    cluster.node(0).stop_fast().unwrap();
    let pooler = in_front(&cluster, "'follow'").start();
    pooler.allow_warnings("");
    let mut client = RawClient::connect(pooler.port());
    client.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    wait_until("the server is missed", PATIENCE, || pooler.logs("down"));
    cluster.node(0).start().unwrap();
    let answer = client.finish_login("app", "secret");
    assert_eq!(answer.last().unwrap().tag, b'Z', "{answer:?}");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn a_connection_that_an_operator_ends_takes_no_node_down() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster, "'promote'").start();
    let mut idle = login(pooler.port());
    for _ in 0..10 {
        let mut client = login(pooler.port());
        client.begin();
        let others = "usename IN ('app', 'postgres') AND pid <> pg_backend_pid()";
        let end = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}");
        cluster.node(0).query(&end).unwrap();
        let answer = client.read_to_end();
        assert_eq!(answer.last().map(|message| message.sqlstate()).as_deref(), Some("57P01"), "{answer:?}");
        assert_eq!(idle.value("SELECT 1").as_deref(), Some("1"));
    }
    assert!(!pooler.logs("to=\"down\""));
    pooler.allow_warnings("");
}

#[test]
fn what_a_shutdown_interrupts_is_told_and_its_session_goes_on() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "'promote'").start();
    pooler.allow_warnings("");
    let (mut open, mut running, mut idle) = (login(pooler.port()), login(pooler.port()), login(pooler.port()));
    idle.query("INSERT INTO ticket VALUES (1)");
    cluster.catch_up().unwrap();
    open.begin();
    open.query("INSERT INTO ticket VALUES (2)");
    running.send(&messages::query("DO $$BEGIN PERFORM pg_sleep(60); END$$"));
    let active = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'";
    wait_until("it runs", PATIENCE, || !cluster.node(0).query(active).unwrap().is_empty());
    cluster.node(0).stop_fast().unwrap();
    let answer = running.read_until_ready();
    assert_eq!((answer[0].sqlstate().as_str(), answer[0].field(b'S').as_deref()), ("57P01", Some("ERROR")));
    let answer = open.query("INSERT INTO ticket VALUES (3)");
    assert_eq!(answer[0].field(b'D').as_deref(), Some("The transaction was not committed."), "{answer:?}");
    for client in [&mut idle, &mut open, &mut running] {
        let answer = client.query("INSERT INTO ticket VALUES (4)");
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    }
}

#[test]
fn a_read_goes_elsewhere_when_its_replica_shuts_down() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "'follow'").start();
    pooler.allow_warnings("");
    let read = "SELECT count(*) FROM ticket CROSS JOIN (SELECT count(*) FROM generate_series(1, 30000000)) AS long";
    let mut client = login(pooler.port());
    client.send(&messages::query(read));
    let active = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'";
    let mut on = None;
    wait_until("a replica runs it", PATIENCE, || {
        on = cluster.nodes()[1..].iter().find(|node| !node.query(active).unwrap().is_empty());
        on.is_some()
    });
    on.unwrap().stop_fast().unwrap();
    let answer = client.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
}

#[test]
fn a_paused_primary_is_noticed_and_used_again() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster, "'follow'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    cluster.node(0).pause().unwrap();
    wait_until("the pause is noticed", PATIENCE, || pooler.logs("down"));
    cluster.node(0).resume().unwrap();
    assert_eq!(client.value("SELECT 2").as_deref(), Some("2"));
}
