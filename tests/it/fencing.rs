//! Nodes that are not to be used any more, and servers that hang: what is lent of them is cut, and who waits for them moves.

use std::time::Duration;

use super::kit::{Config, Fault, LabCluster, PATIENCE, RawClient, cluster, messages, wait_until};

fn replicated(replicas: usize) -> LabCluster {
    let cluster = cluster().replicas(replicas).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn in_front(cluster: &LabCluster, mode: &str) -> Config {
    let config = Config::of_cluster(cluster).user("app", "secret");
    let config = config.set("databases.postgres.cluster", "'main'");
    let config = config.set("databases.kept.cluster", "'main'").set("databases.kept.database", "'postgres'");
    let config = config.set("databases.kept.pool.mode", "'session'");
    let config = config.set("clusters.main.health.interval", "'200ms'").set("clusters.main.health.timeout", "'1s'");
    config.set("clusters.main.failover.mode", mode).set("clusters.main.failover.hold", "'60s'")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "secret")
}

fn insert(number: u32) -> String {
    format!("INSERT INTO ticket VALUES ({number})")
}

fn numbers(cluster: &LabCluster, node: usize) -> String {
    let sql = "SELECT coalesce(string_agg(number::text, ',' ORDER BY number), '') FROM ticket";
    cluster.node(node).query(sql).unwrap()[0][0].clone().unwrap_or_default()
}

/// The last error that a client is told before it is disconnected.
fn last_error(client: &mut RawClient) -> (String, String) {
    let answer = client.read_to_end();
    let error = answer.iter().rfind(|message| message.tag == b'E').unwrap_or_else(|| panic!("no error: {answer:?}"));
    (error.sqlstate(), error.field(b'D').unwrap_or_default())
}

#[test]
fn nothing_of_an_old_primary_counts_once_another_is_known() {
    let cluster = replicated(2);
    let pooler = in_front(&cluster, "'follow'").start();
    pooler.allow_warnings("");
    let port = pooler.port();
    let mut session = RawClient::login(port, "kept", "app", "secret");
    session.query(&insert(1));
    let mut temporary = login(port);
    temporary.query("CREATE TEMPORARY TABLE mine (x int)");
    let mut lock = login(port);
    lock.query("SELECT pg_advisory_lock(7)");
    let mut open = login(port);
    open.begin();
    open.query(&insert(2));
    let mut plain = login(port);
    plain.query(&insert(3));
    let mut running = login(port);
    running.send(&messages::query("WITH slow AS (SELECT pg_sleep(3600)) INSERT INTO ticket SELECT 4 FROM slow"));
    wait_until("the statement runs", PATIENCE, || cluster.node(0).connections("app").unwrap() >= 5);
    cluster.catch_up().unwrap();

    // The old primary lives on, and takes writes.
    cluster.node(1).promote().unwrap();
    wait_until("the new primary is known", PATIENCE, || pooler.logs("pg_rewind"));
    for client in [&mut session, &mut temporary, &mut lock] {
        let (code, detail) = last_error(client);
        assert_eq!((code.as_str(), detail.as_str()), ("08006", "No statement or transaction was under way."));
    }
    let answer = running.read_until_ready();
    let detail = answer[0].field(b'D').unwrap_or_default();
    assert_eq!((answer[0].sqlstate().as_str(), detail.contains("may or may not")), ("08006", true), "{answer:?}");
    let answer = open.query(&insert(5));
    assert_eq!(answer[0].field(b'D').as_deref(), Some("The transaction was not committed."));
    for client in [&mut open, &mut plain, &mut running] {
        let answer = client.query(&insert(6));
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    }
    assert_eq!(numbers(&cluster, 1), "1,3,6,6,6");
    wait_until("what ran on the old primary was cancelled", PATIENCE, || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        cluster.node(0).query(sql).unwrap()[0][0].as_deref() == Some("0")
    });
    assert_eq!(numbers(&cluster, 0), "1,3", "and nothing was written there");
}

#[test]
fn a_primary_that_hangs_is_as_lost_as_one_that_is_dead() {
    // As PostgreSQL comes: no replica notices within a minute that its connection is dead.
    let cluster = replicated(2);
    let pooler = in_front(&cluster, "'promote'").set("pool.size", "1").set("pool.checkout_timeout", "'10m'").start();
    pooler.allow_warnings("");
    let mut session = RawClient::login(pooler.port(), "kept", "app", "secret");
    let (mut running, mut waiting) = (login(pooler.port()), login(pooler.port()));
    running.query(&insert(1));
    waiting.query(&insert(2));
    session.query(&insert(3));
    cluster.catch_up().unwrap();

    cluster.node(0).pause().unwrap();
    session.send(&messages::query(&insert(4)));
    running.send(&messages::query(&insert(5)));
    waiting.send(&messages::query(&insert(6)));
    let (code, detail) = last_error(&mut session);
    assert_eq!((code.as_str(), detail.contains("may or may not")), ("08006", true), "{detail}");
    // One of the two was on its way, the other one waited for the connection; it moves to the new primary.
    let answers = [running.read_until_ready(), waiting.read_until_ready()];
    let failed = |answer: &[super::kit::Message]| answer.iter().any(|message| message.tag == b'E');
    assert_eq!(answers.iter().filter(|answer| failed(answer)).count(), 1, "{answers:?}");

    cluster.node(0).resume().unwrap();
    wait_until("the old primary is known to be stale", PATIENCE, || pooler.logs("pg_rewind"));
    let mut after = login(pooler.port());
    assert_eq!(after.query(&insert(7)).last().unwrap().tag, b'Z');
    let new =
        cluster.nodes().iter().position(|node| node.is_primary().unwrap() && node.port() != cluster.node(0).port());
    let known = numbers(&cluster, new.expect("a new primary"));
    assert!(known == "1,2,3,5,7" || known == "1,2,3,6,7", "{known}");
    assert!(pooler.logs("has asked the primary for a sign of life, and heard none"));
    for replica in [1, 2] {
        until_reset(&cluster, replica);
    }
}

/// What an inquiry has changed is as it was.
fn until_reset(cluster: &LabCluster, replica: usize) {
    let sql = "SELECT setting FROM pg_settings WHERE name = 'wal_receiver_timeout' AND source = 'default'";
    wait_until("wal_receiver_timeout is reset", PATIENCE, || {
        cluster.node(replica).query(sql).unwrap() == [[Some("60000".to_owned())]]
    });
}

/// Waits until a replica's receiver has heard nothing for a while, as when nobody writes.
fn until_quiet(cluster: &LabCluster, replica: usize) {
    let sql = "SELECT clock_timestamp() - last_msg_receipt_time > interval '2 seconds' FROM pg_stat_wal_receiver";
    wait_until("nothing is sent", PATIENCE, || cluster.node(replica).query(sql).unwrap() == [[Some("t".to_owned())]]);
}

/// In front of a cluster whose primary it reaches by way of a relay.
fn by_relay(cluster: &LabCluster, fault: &Fault) -> Config {
    let ports = [fault.port(), cluster.node(1).port(), cluster.node(2).port()];
    let nodes = ports.map(|port| format!("127.0.0.1:{port}"));
    in_front(cluster, "'promote'").set("clusters.main.nodes", &format!("{nodes:?}"))
}

#[test]
fn a_quiet_primary_that_only_we_cannot_reach_stays_the_primary() {
    let cluster = replicated(2);
    let fault = Fault::to(cluster.node(0).port());
    let pooler = by_relay(&cluster, &fault).set("clusters.main.failover.witness_silence", "'1s'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    client.query(&insert(1));
    cluster.catch_up().unwrap();
    [1, 2].into_iter().for_each(|replica| until_quiet(&cluster, replica));

    fault.stall();
    client.send(&messages::query(&insert(2)));
    wait_until("a replica hears that it lives", PATIENCE, || pooler.logs("no promotion: this replica still hears"));
    let answered = std::time::Instant::now();
    while answered.elapsed() < Duration::from_secs(5) {
        assert!(!cluster.node(1).is_primary().unwrap() && !cluster.node(2).is_primary().unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(pooler.logs("has answered it: only we cannot reach it"));
    let asked = |line: &&String| line.contains("has answered it") || line.contains("heard none");
    assert!(pooler.log().iter().filter(asked).count() <= 2, "once each: {:#?}", pooler.log());
    fault.heal();
    client.read_until_ready();
    let answer = client.query(&insert(3));
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    assert!(numbers(&cluster, 0).ends_with('3'), "the same server");
    [1, 2].into_iter().for_each(|replica| until_reset(&cluster, replica));
    assert!(!pooler.logs("is being promoted"));
}

#[test]
fn without_the_right_to_have_replicas_ask_silence_counts_and_that_is_said() {
    let cluster = cluster().replicas(2).trust_user("app").trust_user("poolhouse").start().unwrap();
    let rights = "CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app; GRANT pg_monitor TO poolhouse; \
         GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO poolhouse";
    cluster.node(0).query(rights).unwrap();
    cluster.catch_up().unwrap();
    let fault = Fault::to(cluster.node(0).port());
    let config = by_relay(&cluster, &fault).set("clusters.main.health.user", "'poolhouse'");
    let pooler = config.set("clusters.main.health.password", "'secret'").start();
    pooler.allow_warnings("");
    wait_until("the lack is told in good time", PATIENCE, || {
        pooler.logs("GRANT ALTER SYSTEM ON PARAMETER wal_receiver_timeout TO poolhouse")
    });
    let mut client = login(pooler.port());
    client.query(&insert(1));
    cluster.catch_up().unwrap();
    [1, 2].into_iter().for_each(|replica| until_quiet(&cluster, replica));
    fault.stall();
    wait_until("one is promoted", PATIENCE, || {
        cluster.node(1).is_primary().unwrap() || cluster.node(2).is_primary().unwrap()
    });
    assert!(pooler.logs("its silence alone counts"), "{:#?}", pooler.log());
}

#[test]
fn a_read_on_a_replica_that_hangs_is_run_elsewhere() {
    let cluster = replicated(1);
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, "'follow'").set("clusters.main.routing.consistency", "'eventual'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    let ports = [0, 1].map(|node| Some(cluster.node(node).port().to_string()));
    wait_until("reads go to the replica", PATIENCE, || client.value("SELECT port FROM place") == ports[1]);
    cluster.node(1).pause().unwrap();
    assert_eq!(client.value("SELECT port FROM place"), ports[0], "as if nothing had happened");
    cluster.node(1).resume().unwrap();
}

#[test]
fn a_replication_connection_to_a_node_that_is_fenced_is_cut() {
    let cluster = cluster().replicas(1).replication_user("copier", "secret").start().unwrap();
    let pooler = in_front(&cluster, "'follow'").user("copier", "secret").start();
    pooler.allow_warnings("");
    let mut stream = RawClient::connect(pooler.port());
    let parameters = [("user", "copier"), ("database", "postgres"), ("replication", "true")];
    stream.send(&messages::startup(0x30000, &parameters));
    stream.finish_login("copier", "secret");
    cluster.node(1).promote().unwrap();
    assert_eq!(last_error(&mut stream).0, "08006");
}

#[test]
fn a_connection_that_idled_for_long_is_asked_before_it_is_lent() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let fault = Fault::to(cluster.node(0).port());
    let nodes = format!("['127.0.0.1:{}']", fault.port());
    let config = Config::of_cluster(&cluster).set("clusters.main.nodes", &nodes).user("app", "secret");
    let config = config.set("pool.check_delay", "'1s'").set("clusters.main.health.timeout", "'500ms'");
    // The health check is silent as well, and only that would cut what is lent.
    let pooler = config.set("clusters.main.health.failures", "1000").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    let process = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'";
    let before = client.value(process);
    let sent = fault.passed(super::kit::Direction::ToServer);
    std::thread::sleep(Duration::from_millis(2_500));
    // A firewall forgets what has idled.
    fault.stall();
    client.send(&messages::query(process));
    wait_until("the connection is found to be dead", PATIENCE, || pooler.logs("had idled works no more"));
    fault.heal();
    let answer = client.read_until_ready();
    assert_ne!(answer[1].values()[0], before, "another one serves it: {answer:?}");
    assert!(fault.passed(super::kit::Direction::ToServer) > sent);
}

#[test]
fn a_strict_fence_acknowledges_only_what_a_proven_primary_says() {
    let cluster = cluster().trust_user("app").superuser("watcher", "secret").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    let config = in_front(&cluster, "'follow'").set("clusters.main.health.user", "'watcher'");
    let config = config.set("clusters.main.health.password", "'secret'");
    let config =
        config.set("clusters.main.failover.fence", "'strict'").set("clusters.main.failover.fence_limit", "'1s'");
    let pooler = config.start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    let done = |answer: Vec<super::kit::Message>| answer.iter().all(|message| message.tag != b'E');
    assert!(done(client.query(&insert(1))));
    // The health check is not let in any more, which is no failure of the node.
    let watchers = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watcher'";
    cluster.node(0).query(&format!("ALTER ROLE watcher NOLOGIN; {watchers}")).unwrap();
    wait_until("the check is refused", PATIENCE, || pooler.logs("is not let in"));
    std::thread::sleep(Duration::from_millis(1_500));
    client.send(&messages::query(&insert(2)));
    wait_until("it is done", PATIENCE, || numbers(&cluster, 0) == "1,2");
    client.set_patience(Duration::from_millis(500));
    assert!(client.try_read().is_err(), "nobody has proven the primary since");
    client.set_patience(PATIENCE);
    cluster.node(0).query("ALTER ROLE watcher LOGIN").unwrap();
    assert!(done(client.read_until_ready()));
}
