//! Transaction blocks: BEGIN costs nothing before the first statement after it, and what only reads may run on a replica.
//! That a client sees no difference is the differential tests' business.

use super::kit::{Config, LabCluster, Message, PATIENCE, Pooler, RawClient, cluster, messages, wait_until};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

fn replicated(replicas: usize) -> LabCluster {
    let cluster = cluster().replicas(replicas).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn in_front(cluster: &LabCluster, settings: &[(&str, &str)]) -> Pooler {
    let config = Config::of_cluster(cluster).user("app", "secret");
    settings.iter().fold(config, |config, (key, value)| config.set(key, value)).start()
}

fn login(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

fn port(client: &mut RawClient) -> u16 {
    client.value(PORT).unwrap().parse().unwrap()
}

/// The last message is ReadyForQuery: the status that it tells.
fn status(answer: &[Message]) -> char {
    char::from(answer.last().unwrap().body[0])
}

fn code(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').map(Message::sqlstate)
}

#[test]
fn a_block_holds_no_server_connection_before_its_first_statement() {
    let cluster = replicated(0);
    let pooler = in_front(&cluster, &[("pool.size", "1"), ("pool.checkout_timeout", "'300ms'")]);
    let (mut waiting, mut other) = (login(&pooler), login(&pooler));
    assert_eq!(status(&waiting.query("BEGIN")), 'T');
    assert_eq!(status(&other.query("BEGIN")), 'T');
    assert_eq!(code(&other.query("INSERT INTO ticket VALUES (1)")), None);
    // Now the only connection is taken: the error makes the transaction fail, as any other does.
    let refused = waiting.query("INSERT INTO ticket VALUES (2)");
    assert_eq!((code(&refused).as_deref(), status(&refused)), (Some("53300"), 'E'));
    other.query("COMMIT");
    let refused = waiting.query("INSERT INTO ticket VALUES (3)");
    assert_eq!((code(&refused).as_deref(), status(&refused)), (Some("25P02"), 'E'));
    let ended = waiting.query("COMMIT");
    assert_eq!((ended[0].text().as_str(), status(&ended)), ("ROLLBACK", 'I'));
    assert_eq!(other.value("SELECT string_agg(number::text, ',') FROM ticket").as_deref(), Some("1"));
    // And one of which no server ever hears is over at once.
    other.query("BEGIN");
    other.query("SELECT 1");
    waiting.query("BEGIN");
    assert_eq!(status(&waiting.query("SELECT 1")), 'E');
    let ended = waiting.query("ROLLBACK");
    assert_eq!((ended[0].text().as_str(), status(&ended)), ("ROLLBACK", 'I'));
}

#[test]
fn a_block_that_idles_is_ended_also_before_its_first_statement() {
    let cluster = replicated(0);
    let pooler = in_front(&cluster, &[("pool.idle_transaction_timeout", "'300ms'")]);
    let mut client = login(&pooler);
    client.query("BEGIN");
    let words = client.read_to_end();
    assert_eq!(code(&words).as_deref(), Some("25P03"));
}

#[test]
fn a_hint_on_begin_says_where_the_transaction_runs_and_one_inside_does_not() {
    let cluster = replicated(1);
    let (primary, replica) = (cluster.node(0).port(), cluster.node(1).port());
    let pooler = in_front(&cluster, &[("pool.size", "4")]);
    let mut client = login(&pooler);
    wait_until("reads reach a replica", PATIENCE, || port(&mut client) == replica);
    client.query("/* poolhouse: replica */ BEGIN");
    assert_eq!(port(&mut client), replica);
    client.query("COMMIT");
    client.query("BEGIN");
    assert_eq!(client.value(&format!("/* poolhouse: replica */ {PORT}")), Some(primary.to_string()));
    assert_eq!(code(&client.query("INSERT INTO ticket VALUES (1)")), None);
    client.query("COMMIT");
}

#[test]
fn a_block_that_has_not_begun_survives_the_loss_of_its_server() {
    let cluster = replicated(0);
    let pooler = in_front(&cluster, &[("pool.size", "4"), ("clusters.main.health.interval", "'100ms'")]);
    pooler.allow_warnings("");
    let mut client = login(&pooler);
    client.query("BEGIN");
    cluster.node(0).kill9().unwrap();
    cluster.node(0).start().unwrap();
    assert_eq!(code(&client.query("INSERT INTO ticket VALUES (1)")), None);
    assert_eq!(status(&client.query("COMMIT")), 'I');
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"));
}

/// Whether what `client` reads now, it reads on a replica.
fn is_on_replica(client: &mut RawClient, cluster: &LabCluster) -> bool {
    port(client) != cluster.node(0).port()
}

/// Until the replicas are known to have what the client has written, or may have.
fn wait_for_replicas(client: &mut RawClient, cluster: &LabCluster) {
    wait_until("reads reach a replica", PATIENCE, || is_on_replica(client, cluster));
}

#[test]
fn a_transaction_that_cannot_write_runs_on_a_replica() {
    let cluster = replicated(2);
    let pooler = in_front(&cluster, &[("pool.size", "4")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    for begin in [
        &["BEGIN READ ONLY"][..],
        &["START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"],
        &["BEGIN", "SET TRANSACTION READ ONLY"],
        &["SET default_transaction_read_only = on", "BEGIN"],
    ] {
        wait_for_replicas(&mut client, &cluster);
        begin.iter().for_each(|sql| assert_eq!(code(&client.query(sql)), None, "{sql}"));
        let first = port(&mut client);
        assert_ne!(first, cluster.node(0).port(), "{begin:?}");
        for _ in 0..5 {
            assert_eq!(port(&mut client), first, "a transaction stays where it is");
        }
        let refused = client.query("INSERT INTO ticket VALUES (1)");
        assert_eq!((code(&refused).as_deref(), status(&refused)), (Some("25006"), 'E'));
        assert_eq!(status(&client.query("COMMIT")), 'I');
    }
    client.query("RESET default_transaction_read_only");
    for begin in [
        &["BEGIN"][..],
        &["BEGIN READ ONLY", "SET TRANSACTION READ WRITE"],
        &["BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY"],
        &["BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"],
        &["SET default_transaction_isolation = 'repeatable read'", "BEGIN READ ONLY"],
        // What a standby alone refuses, or where it would mean something else.
        &["RESET ALL", "BEGIN READ ONLY", "LISTEN anything", "UNLISTEN anything"],
        &["BEGIN READ ONLY", "SELECT 1", "SELECT pg_advisory_xact_lock(1)"],
        &["BEGIN READ ONLY", "SELECT 1", "SELECT pg_current_wal_lsn()"],
        &["BEGIN READ ONLY", "SELECT 1", "DECLARE c CURSOR FOR SELECT 1"],
    ] {
        wait_for_replicas(&mut client, &cluster);
        begin.iter().for_each(|sql| assert_eq!(code(&client.query(sql)), None, "{sql}"));
        assert_eq!(port(&mut client), cluster.node(0).port(), "{begin:?}");
        client.query("COMMIT");
    }
}

#[test]
fn the_isolation_that_the_database_sets_keeps_a_transaction_in_one_place() {
    let cluster = replicated(1);
    cluster.node(0).query("ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'").unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, &[("clusters.main.routing.transactions", "'read-until-write'")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    client.query("BEGIN");
    assert!(!is_on_replica(&mut client, &cluster));
    client.query("COMMIT");
    client.query("BEGIN ISOLATION LEVEL READ COMMITTED");
    assert!(is_on_replica(&mut client, &cluster));
    client.query("COMMIT");
}

#[test]
fn transactions_read_on_a_replica_until_they_write() {
    let cluster = replicated(1);
    let pooler =
        in_front(&cluster, &[("pool.size", "4"), ("clusters.main.routing.transactions", "'read-until-write'")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    client.query("SET work_mem = '7MB'");
    client.query("BEGIN");
    assert!(is_on_replica(&mut client, &cluster));
    assert_eq!(client.value("SELECT current_setting('work_mem')").as_deref(), Some("7MB"));
    assert_eq!(code(&client.query("INSERT INTO ticket VALUES (1)")), None);
    assert!(!is_on_replica(&mut client, &cluster));
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("7MB"));
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"), "it sees what it wrote");
    assert_eq!(client.query("ROLLBACK")[0].text(), "ROLLBACK");
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("0"));
    // What is read and written in one text, and what SHOW says of a transaction that may write.
    for sql in ["SELECT 1; INSERT INTO ticket VALUES (2)", "SHOW transaction_read_only", "SAVEPOINT a"] {
        wait_for_replicas(&mut client, &cluster);
        client.query("BEGIN");
        assert!(is_on_replica(&mut client, &cluster));
        let answer = client.query(sql);
        assert_eq!((code(&answer), status(&answer)), (None, 'T'), "{sql}");
        assert!(!is_on_replica(&mut client, &cluster), "{sql}");
        assert_eq!(client.query("COMMIT")[0].text(), "COMMIT");
    }
    // A transaction that has failed stays failed when it leaves.
    wait_for_replicas(&mut client, &cluster);
    client.query("BEGIN");
    assert_eq!(code(&client.query("SELECT 1 / count(*) FROM ticket WHERE number = 3")).as_deref(), Some("22012"));
    let refused = client.query("INSERT INTO ticket VALUES (4)");
    assert_eq!((code(&refused).as_deref(), status(&refused)), (Some("25P02"), 'E'));
    let answer = client.query("COMMIT; INSERT INTO ticket VALUES (5)");
    assert_eq!((answer[0].text().as_str(), status(&answer)), ("ROLLBACK", 'I'));
    assert_eq!(client.value("SELECT string_agg(number::text, ',') FROM ticket").as_deref(), Some("2,5"));
}

#[test]
fn a_batch_that_begins_a_reading_transaction_runs_on_a_replica() {
    let cluster = replicated(1);
    let replica = cluster.node(1).port();
    let pooler = in_front(&cluster, &[("pool.size", "4")]);
    let mut client = login(&pooler);
    wait_until("reads reach a replica", PATIENCE, || port(&mut client) == replica);
    let run = |sql: &str| [messages::parse("", sql), messages::bind("", "", &[]), messages::execute("", 0)].concat();
    let value = |answer: &[Message]| {
        let row = answer.iter().find(|message| message.tag == b'D').expect("a row");
        row.values()[0].as_ref().unwrap().parse::<u16>().unwrap()
    };
    client.send(&[run("BEGIN READ ONLY"), run(PORT), messages::sync()].concat());
    let answer = client.read_until_ready();
    assert_eq!((value(&answer), status(&answer)), (replica, 'T'));
    assert_eq!(port(&mut client), replica);
    client.send(&[run("COMMIT"), messages::sync()].concat());
    assert_eq!(status(&client.read_until_ready()), 'I');
    // By name, and with the statement that was prepared elsewhere.
    let parse = [messages::parse("begin", "BEGIN READ ONLY"), messages::parse("port", PORT), messages::sync()];
    client.send(&parse.concat());
    client.read_until_ready();
    let run = |name: &str| [messages::bind("", name, &[]), messages::execute("", 0)].concat();
    for _ in 0..3 {
        client.send(&[run("begin"), run("port"), messages::sync()].concat());
        let answer = client.read_until_ready();
        assert_eq!((value(&answer), status(&answer)), (replica, 'T'));
        let refused = client.query("DELETE FROM ticket");
        assert_eq!(code(&refused).as_deref(), Some("25006"));
        client.query("ROLLBACK");
        wait_for_replicas(&mut client, &cluster);
    }
    // A cursor that the client reads in parts has the primary to itself.
    let bind = |portal: &str| [messages::bind(portal, "port", &[]), messages::execute(portal, 1)].concat();
    client.send(&[run("begin"), bind("c"), messages::sync()].concat());
    assert_eq!(value(&client.read_until_ready()), cluster.node(0).port());
    client.query("ROLLBACK");
}

#[test]
fn a_function_that_writes_unseen_moves_its_transaction() {
    let cluster = replicated(1);
    let pooler =
        in_front(&cluster, &[("pool.size", "4"), ("clusters.main.routing.transactions", "'read-until-write'")]);
    cluster
        .node(0)
        .query(
            "CREATE FUNCTION hides() RETURNS int LANGUAGE plpgsql STABLE AS \
             'BEGIN EXECUTE ''INSERT INTO ticket VALUES (7)''; RETURN 1; END';
             ALTER FUNCTION hides() VOLATILE; CREATE VIEW hiding AS SELECT hides() AS one;
             GRANT SELECT ON hiding TO app",
        )
        .unwrap();
    cluster.catch_up().unwrap();
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    client.query("BEGIN");
    client.query("SELECT 1");
    assert_eq!(client.value("SELECT one FROM hiding").as_deref(), Some("1"));
    assert_eq!(client.query("COMMIT")[0].text(), "COMMIT");
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"), "once");
}

#[test]
fn a_replica_that_is_lost_costs_a_reading_transaction_nothing() {
    let cluster = replicated(1);
    let replica = cluster.node(1).port();
    let pooler = in_front(&cluster, &[("pool.size", "4"), ("clusters.main.health.interval", "'100ms'")]);
    pooler.allow_warnings("");
    let (mut idle, mut busy, mut failed) = (login(&pooler), login(&pooler), login(&pooler));
    wait_until("reads reach a replica", PATIENCE, || port(&mut idle) == replica);
    for client in [&mut idle, &mut busy, &mut failed] {
        client.query("BEGIN READ ONLY");
        assert_eq!(port(client), replica);
    }
    failed.query("SELECT 1 / count(*) FROM ticket");
    // Long enough to be under way when the replica is lost; a loop of the kind that is run again.
    busy.send(&messages::query("SELECT count(*) FROM generate_series(1, 20000000)"));
    cluster.node(1).kill9().unwrap();
    let answer = busy.read_until_ready();
    assert_eq!((code(&answer), status(&answer)), (None, 'T'));
    assert_eq!(port(&mut idle), cluster.node(0).port());
    assert_eq!(code(&failed.query("SELECT 1")).as_deref(), Some("25P02"));
    for (client, tag) in [(&mut idle, "COMMIT"), (&mut busy, "COMMIT"), (&mut failed, "ROLLBACK")] {
        assert_eq!(client.query("COMMIT")[0].text(), tag);
    }
}

#[test]
fn replication_that_a_transaction_is_in_the_way_of_does_not_end_its_client() {
    let cluster = replicated(1);
    cluster.node(1).query("ALTER SYSTEM SET max_standby_streaming_delay = '100ms'").unwrap();
    cluster.node(1).query("SELECT pg_reload_conf()").unwrap();
    let replica = cluster.node(1).port();
    let pooler = in_front(&cluster, &[("pool.size", "4")]);
    let mut client = login(&pooler);
    wait_until("reads reach a replica", PATIENCE, || port(&mut client) == replica);
    client.query("BEGIN READ ONLY");
    assert_eq!(port(&mut client), replica);
    client.query("SELECT count(*) FROM ticket");
    cluster
        .node(0)
        .query("LOCK TABLE ticket; DROP TABLE ticket; CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app")
        .unwrap();
    cluster.catch_up().unwrap();
    wait_until("the replica has ended it", PATIENCE, || pooler.logs("lost a server connection"));
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("0"));
    assert_eq!(client.query("COMMIT")[0].text(), "COMMIT");
}
