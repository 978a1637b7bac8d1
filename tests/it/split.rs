//! Reads reach replicas, all else reaches the primary, and a session reads what it wrote. Which server answered is
//! what the server itself says.

use super::kit::{Config, LabCluster, PATIENCE, RawClient, cluster, messages, wait_until};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

fn replicated() -> LabCluster {
    let cluster = cluster().replicas(2).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.node(0).query("INSERT INTO ticket VALUES (1)").unwrap();
    cluster.node(0).query("CREATE FUNCTION unknown_to_poolhouse(int) RETURNS int LANGUAGE sql AS 'SELECT $1'").unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn in_front(cluster: &LabCluster, key: &str, value: &str) -> Config {
    Config::of_cluster(cluster).user("app", "secret").set(key, value)
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "secret")
}

fn port(client: &mut RawClient, sql: &str) -> u16 {
    client.value(sql).unwrap().parse().unwrap()
}

/// Poolhouse finds the roles within its first checks.
fn wait_for_replicas(client: &mut RawClient, cluster: &LabCluster) {
    let primary = cluster.node(0).port();
    wait_until("reads reach a replica", PATIENCE, || port(client, PORT) != primary);
}

/// Parse, Bind and Execute in one batch.
fn batch(client: &mut RawClient, sql: &str) -> u16 {
    let bytes = [
        messages::parse("", sql),
        messages::bind("", "", &[]),
        messages::describe(b'P', ""),
        messages::execute("", 0),
        messages::sync(),
    ];
    client.send(&bytes.concat());
    answered(client)
}

fn answered(client: &mut RawClient) -> u16 {
    let answer = client.read_until_ready();
    let row = answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("no row: {answer:?}"));
    row.values()[0].as_ref().unwrap().parse().unwrap()
}

#[test]
fn a_session_that_is_pinned_by_a_name_of_its_own_is_pinned_to_the_primary() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "pool.prepared_statements", "0").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);
    let named = [messages::parse("s1", "SELECT number FROM ticket"), messages::sync()].concat();
    let unnamed =
        [messages::parse("", "SELECT number FROM ticket"), messages::parse("s2", "SELECT 1"), messages::sync()];
    for (name, batch) in [("s1", named), ("s2", unnamed.concat())] {
        let mut client = login(pooler.port());
        client.send(&batch);
        client.read_until_ready();
        let answer = client.query("INSERT INTO ticket VALUES (2)");
        assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
        client.send(&[messages::bind("", name, &[]), messages::execute("", 0), messages::sync()].concat());
        let answer = client.read_until_ready();
        assert!(answer.iter().any(|message| message.tag == b'D'), "{answer:?}");
    }
}

#[test]
fn each_statement_reaches_the_right_server() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);

    assert_ne!(batch(&mut client, PORT), primary);
    client.send(&[messages::parse("where", PORT), messages::sync()].concat());
    client.read_until_ready();
    for _ in 0..4 {
        let run = [messages::bind("", "where", &[]), messages::execute("", 0), messages::sync()];
        client.send(&run.concat());
        assert_ne!(answered(&mut client), primary);
    }

    let uncertain = [
        "SELECT port FROM place, ticket FOR UPDATE OF ticket",
        "SELECT port FROM place, ticket FOR SHARE OF ticket",
        "SELECT port, pg_advisory_xact_lock(7) FROM place",
        "SELECT port, unknown_to_poolhouse(1) FROM place",
        "WITH w AS (INSERT INTO ticket VALUES (2) RETURNING 1) SELECT port FROM place, w",
        "INSERT INTO ticket VALUES (3) RETURNING (SELECT port FROM place)",
        "UPDATE ticket SET number = number RETURNING (SELECT port FROM place)",
    ];
    for sql in uncertain {
        let mut client = login(pooler.port());
        assert_eq!(port(&mut client, sql), primary, "{sql}");
        let mut client = login(pooler.port());
        assert_eq!(batch(&mut client, sql), primary, "{sql}");
    }
    let mut client = login(pooler.port());
    client.query("BEGIN");
    assert_eq!(port(&mut client, PORT), primary);
    assert_eq!(batch(&mut client, PORT), primary);
    client.query("COMMIT");
}

#[test]
fn a_session_reads_what_it_wrote() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let (mut writer, mut other) = (login(pooler.port()), login(pooler.port()));
    wait_for_replicas(&mut writer, &cluster);
    let replicas = [cluster.node(1), cluster.node(2)];
    replicas.iter().for_each(|replica| replica.pause_replay().unwrap());
    writer.query("INSERT INTO ticket VALUES (2)");
    for _ in 0..10 {
        assert_eq!(writer.value("SELECT count(*) FROM ticket").as_deref(), Some("2"));
        assert_eq!(port(&mut writer, PORT), primary);
    }
    assert_ne!(port(&mut other, PORT), primary, "who wrote nothing goes on reading from replicas");
    replicas.iter().for_each(|replica| replica.resume_replay().unwrap());
    wait_until("the writer reads from replicas again", PATIENCE, || port(&mut writer, PORT) != primary);
    assert_eq!(writer.value("SELECT count(*) FROM ticket").as_deref(), Some("2"));
}

#[test]
fn eventual_consistency_may_read_old_rows() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "clusters.main.routing.consistency", "'eventual'").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);
    cluster.node(1).pause_replay().unwrap();
    cluster.node(2).pause_replay().unwrap();
    client.query("INSERT INTO ticket VALUES (2)");
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"));
    cluster.node(1).resume_replay().unwrap();
    cluster.node(2).resume_replay().unwrap();
}

#[test]
fn reads_can_be_kept_on_the_primary() {
    let cluster = replicated();
    let pooler = in_front(&cluster, "clusters.main.routing.reads", "'primary'").start();
    let mut client = login(pooler.port());
    for _ in 0..10 {
        assert_eq!(port(&mut client, PORT), cluster.node(0).port());
    }
}

#[test]
fn reads_go_on_without_a_replica_that_died() {
    let cluster = replicated();
    let lost = cluster.node(1);
    let pooler = in_front(&cluster, "clusters.main.health.interval", "'100ms'").start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    wait_until("both replicas are used", PATIENCE, || port(&mut client, PORT) == lost.port());
    lost.kill9().unwrap();
    for _ in 0..50 {
        assert_ne!(port(&mut client, PORT), lost.port());
    }
    lost.start().unwrap();
    wait_until("it is used again", PATIENCE, || port(&mut client, PORT) == lost.port());
}

#[test]
fn functions_that_surely_only_read_are_called_on_replicas() {
    const CODE: &str = "CREATE SCHEMA app AUTHORIZATION app; SET ROLE app;
        CREATE FUNCTION app.sum(int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum(number) + $1 FROM ticket';
        CREATE FUNCTION app.steady(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN app.sum($1); END';
        CREATE FUNCTION app.writes(int) RETURNS int LANGUAGE sql AS 'INSERT INTO ticket VALUES ($1) RETURNING $1';
        CREATE FUNCTION app.claims(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1 FROM app.writes(1)'";
    let cluster = replicated();
    cluster.node(0).query(CODE).unwrap();
    cluster.catch_up().unwrap();
    let primary = cluster.node(0).port();
    let pooler = in_front(&cluster, "pool.size", "2").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);

    let steady = "SELECT port, app.steady(1) FROM place";
    wait_until("steady functions are known", PATIENCE, || port(&mut client, steady) != primary);
    for sql in [steady, "SELECT port FROM place WHERE app.sum(2) > 0", "SELECT port FROM place, app.sum(1) AS s(a)"] {
        for _ in 0..3 {
            assert_ne!(port(&mut client, sql), primary, "{sql}");
            assert_ne!(batch(&mut client, sql), primary, "{sql}");
        }
    }
    client.send(&[messages::parse("named", steady), messages::sync()].concat());
    client.read_until_ready();
    client.send(&[messages::bind("", "named", &[]), messages::execute("", 0), messages::sync()].concat());
    assert_ne!(answered(&mut client), primary);
    for sql in [
        "SELECT port, app.writes(1) FROM place",
        "SELECT port, app.claims(1) FROM place",
        "SELECT port, app.steady(1), app.writes(1) FROM place",
        "SELECT port, app.steady(1), random() FROM place",
        "SELECT port, app.steady(1) FROM place, ticket LIMIT 1 FOR UPDATE OF ticket",
    ] {
        let mut client = login(pooler.port());
        assert_eq!(port(&mut client, sql), primary, "{sql}");
        assert_eq!(batch(&mut login(pooler.port()), sql), primary, "{sql}");
    }
    // Once it may write, no more.
    let writes = "CREATE OR REPLACE FUNCTION app.steady(int) RETURNS int LANGUAGE sql AS 'SELECT app.writes($1)'";
    let mut other = login(pooler.port());
    assert!(other.query(writes).iter().all(|message| message.tag != b'E'));
    assert_eq!(port(&mut client, steady), primary);
    assert_eq!(batch(&mut other, steady), primary);
}

#[test]
fn what_a_replica_refuses_runs_on_the_primary() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    cluster
        .node(0)
        .query(
            "CREATE SEQUENCE drawn; GRANT ALL ON drawn TO app; \
             CREATE VIEW drawing AS SELECT nextval('drawn') * 0 + inet_server_port() AS port; GRANT ALL ON drawing TO app",
        )
        .unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);
    for round in 0..3 {
        assert_eq!(port(&mut client, "SELECT port FROM drawing"), primary, "{round}");
        assert_eq!(batch(&mut client, "SELECT port FROM drawing"), primary, "{round}");
        // A session that has not written reads on replicas all the same.
        assert_ne!(port(&mut login(pooler.port()), PORT), primary);
    }
    let prepare = [messages::parse("s", "SELECT port + 0 FROM drawing"), messages::sync()].concat();
    client.send(&prepare);
    client.read_until_ready();
    for _ in 0..2 {
        client.send(&[messages::bind("", "s", &[]), messages::execute("", 0), messages::sync()].concat());
        assert_eq!(answered(&mut client), primary);
    }
    assert_eq!(client.value("SELECT last_value FROM drawn").as_deref(), Some("8"), "each ran once");
}

#[test]
fn reads_of_unlogged_tables_run_on_the_primary() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    cluster
        .node(0)
        .query(
            "CREATE UNLOGGED TABLE draft AS SELECT 1 AS number; GRANT ALL ON draft TO app; \
             CREATE VIEW drafts AS SELECT port FROM place, draft; GRANT ALL ON drafts TO app; \
             CREATE FUNCTION steady() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'; \
             CREATE FUNCTION drafted() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM draft'",
        )
        .unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);
    let steady = "SELECT port + 0 * steady() FROM place";
    wait_until("the functions are known", PATIENCE, || port(&mut client, steady) != primary);
    for _ in 0..2 {
        for sql in
            ["SELECT port FROM place, draft", "SELECT port FROM drafts", "SELECT port + 0 * drafted() FROM place"]
        {
            assert_eq!(port(&mut client, sql), primary, "{sql}");
            assert_eq!(batch(&mut client, sql), primary, "{sql}");
        }
        // A session that runs on the primary may have written there, and waits for that.
        assert_ne!(port(&mut login(pooler.port()), steady), primary);
    }
}

#[test]
fn a_read_that_replication_breaks_off_runs_on_the_primary_and_the_next_on_a_replica() {
    let cluster = cluster().replicas(1).trust_user("app").setting("max_standby_streaming_delay", "0").start().unwrap();
    let (first, replica) = (cluster.node(0), cluster.node(1));
    first.query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app; INSERT INTO ticket VALUES (1)").unwrap();
    first.query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);

    let slow = "SELECT port, pg_sleep(3) FROM place, ticket";
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3)%' AND wait_event = 'PgSleep'";
    client.send(&messages::query(slow));
    wait_until("it runs on the replica", PATIENCE, || replica.query(asleep).unwrap()[0][0].as_deref() == Some("1"));
    // Its lock keeps the table there, which the replica has to give up.
    first.query("TRUNCATE ticket; INSERT INTO ticket VALUES (2)").unwrap();
    assert_eq!(answered(&mut client), first.port());
    cluster.catch_up().unwrap();
    client.send(&messages::query(slow));
    assert_eq!(answered(&mut client), replica.port(), "a conflict says nothing about the statement");
}

#[test]
fn without_fallback_a_read_waits_for_a_replica_that_has_the_write() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    let pooler = in_front(&cluster, "clusters.main.routing.fallback", "false")
        .set("clusters.main.health.interval", "'100ms'")
        .set("pool.wait_notice", "'0s'")
        .set("clusters.main.failover.hold", "'5s'")
        .start();
    pooler.allow_warnings("");
    let mut client = login(pooler.port());
    for number in 2..5 {
        client.query(&format!("INSERT INTO ticket VALUES ({number})"));
        let row = client.query("SELECT max(number), (SELECT port FROM place) FROM ticket");
        let row = row.iter().find(|message| message.tag == b'D').expect("a row").values();
        assert_eq!(row[0].as_deref(), Some(number.to_string().as_str()));
        assert_ne!(row[1], Some(primary.to_string()));
    }
    cluster.node(1).kill9().unwrap();
    cluster.node(2).kill9().unwrap();
    let refused = client.query("SELECT number FROM ticket");
    assert_eq!(refused[0].sqlstate(), "57P03");
    assert_eq!(client.query("INSERT INTO ticket VALUES (5)")[0].tag, b'C', "writes go on");
}

/// What EXPLAIN ROUTE says of a statement: `read` or `write`, and why.
fn explained(client: &mut RawClient, sql: &str) -> (String, String) {
    let answer = client.query(&format!("EXPLAIN ROUTE {sql}"));
    let row = answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("{answer:?}")).values();
    (row[0].clone().unwrap(), row[1].clone().unwrap())
}

#[test]
fn the_catalog_tells_what_no_replica_can_read() {
    let cluster = replicated();
    let tables = "CREATE UNLOGGED TABLE draft (number int); CREATE VIEW drafts AS SELECT * FROM draft; \
        CREATE VIEW more AS SELECT * FROM drafts; CREATE TABLE whole (number int) PARTITION BY LIST (number); \
        CREATE UNLOGGED TABLE part PARTITION OF whole DEFAULT; \
        CREATE MATERIALIZED VIEW kept AS SELECT * FROM draft; CREATE SEQUENCE numbers; \
        GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON SEQUENCE numbers TO app; \
        ALTER TABLE draft OWNER TO app; GRANT CREATE ON SCHEMA public TO app";
    cluster.node(0).query(tables).unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);
    wait_until("it is known what is unlogged", PATIENCE, || {
        explained(&mut client, "TABLE draft").1.contains("unlogged")
    });
    for name in ["draft", "public.draft", "drafts", "more", "whole", "part"] {
        let (verdict, reason) = explained(&mut client, &format!("SELECT count(*) FROM {name}"));
        assert_eq!((&*verdict, &*reason), ("write", &*format!("{name} is unlogged, or reads what is")), "{name}");
        assert_eq!(client.value(&format!("SELECT count(*) FROM {name}")).as_deref(), Some("0"));
    }
    // A replica would say 33: values are logged before they are drawn.
    cluster.node(0).query("SELECT nextval('numbers'); SELECT nextval('numbers')").unwrap();
    cluster.catch_up().unwrap();
    let sequence = explained(&mut client, "SELECT last_value FROM numbers");
    assert_eq!(sequence, ("write".into(), "numbers is a sequence, or reads one".into()));
    assert_eq!(client.value("SELECT last_value FROM numbers").as_deref(), Some("2"));
    for name in ["kept", "ticket"] {
        assert_eq!(explained(&mut client, &format!("SELECT count(*) FROM {name}")).0, "read", "{name}");
    }
    // It is looked at anew when that has changed.
    let answer = client.query("DROP TABLE draft CASCADE; CREATE TABLE draft (number int)");
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    wait_until("it is known that it is logged", PATIENCE, || explained(&mut client, "TABLE draft").0 == "read");
}

/// Nobody looks at the catalog any more: what is known of it is forgotten then.
fn wait_for_rest(cluster: &LabCluster) {
    const LOOKERS: &str = "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
        AND (query = 'COMMIT' OR query LIKE '%hashint8%')";
    wait_until("nobody looks any more", PATIENCE, || cluster.node(0).query(LOOKERS).unwrap().is_empty());
}

#[test]
fn the_first_read_after_a_pause_reaches_a_replica_as_those_before() {
    let cluster = replicated();
    let owner = "CREATE UNLOGGED TABLE draft (number int); GRANT ALL ON draft TO app";
    cluster.node(0).query(owner).unwrap();
    cluster.catch_up().unwrap();
    let pooler = in_front(&cluster, "pool.size", "4").start();
    let mut client = login(pooler.port());
    wait_for_replicas(&mut client, &cluster);
    // On a machine that takes long to look, the statement has gone to the primary meanwhile: then once more.
    let mut pauses = 0;
    wait_until("a pause changes nothing", PATIENCE, || {
        wait_for_rest(&cluster);
        pauses += 1;
        let view = format!("CREATE VIEW late{pauses} AS SELECT * FROM draft; GRANT SELECT ON late{pauses} TO app");
        cluster.node(0).query(&view).unwrap();
        cluster.catch_up().unwrap();
        let (read, _) = explained(&mut client, PORT);
        let (late, why) = explained(&mut client, &format!("TABLE late{pauses}"));
        assert_eq!(late, "write", "what was made during the pause: {why}");
        read == "read" && why.contains("unlogged") && port(&mut client, PORT) != cluster.node(0).port()
    });
}

#[test]
fn the_configuration_knows_functions_and_tables_better() {
    let cluster = replicated();
    let functions = "CREATE FUNCTION get_port() RETURNS int VOLATILE LANGUAGE plpgsql AS \
            'BEGIN RETURN inet_server_port(); END'; \
        CREATE FUNCTION get_next() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'; \
        CREATE FUNCTION steady() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'; \
        CREATE TABLE jobs (number int); GRANT ALL ON jobs TO app";
    cluster.node(0).query(functions).unwrap();
    cluster.catch_up().unwrap();
    let primary = cluster.node(0).port();
    let plain = in_front(&cluster, "pool.size", "4").start();
    let listed = in_front(&cluster, "clusters.main.routing.read_functions", "['/^get_/']")
        .set("clusters.main.routing.write_functions", "['steady', 'get_next']")
        .set("clusters.main.routing.primary_tables", "['public.jobs']")
        .start();
    let (mut plain, mut listed) = (login(plain.port()), login(listed.port()));
    wait_for_replicas(&mut plain, &cluster);
    wait_for_replicas(&mut listed, &cluster);
    wait_until("it is known what functions do", PATIENCE, || explained(&mut plain, "SELECT steady()").0 == "read");
    assert_eq!(explained(&mut plain, "SELECT get_port()").0, "write");
    assert_eq!(port(&mut plain, "SELECT get_port()"), primary);
    assert_eq!(explained(&mut plain, "TABLE jobs").0, "read");

    assert_eq!(explained(&mut listed, "SELECT get_port()").0, "read");
    assert_ne!(port(&mut listed, "SELECT get_port()"), primary);
    assert_ne!(batch(&mut listed, "SELECT public.get_port()"), primary);
    for (sql, reason) in [
        ("SELECT steady()", "steady is one of write_functions"),
        ("SELECT get_port(), get_next()", "get_next is one of write_functions"),
        ("SELECT * FROM ticket, jobs", "jobs is one of primary_tables"),
    ] {
        assert_eq!(explained(&mut listed, sql), ("write".into(), reason.into()), "{sql}");
    }
    // Until its catalog has been read, all columns of something may be those of a sequence.
    wait_until("it is known what is no sequence", PATIENCE, || explained(&mut listed, "TABLE ticket").0 == "read");
}
