//! Search paths that name the schema of temporary objects: PostgreSQL's manual advises to put `pg_temp` last. Things are
//! created there only when no other schema of the path is there, and only then a session has something that cannot move.
//! And functions that are made in that schema, called and dropped, as Sequelize does for each findOrCreate.

use super::kit::{
    Config, LabCluster, PATIENCE, Pooler, RawClient, cluster,
    messages::{bind, execute, parse, startup, sync},
    wait_until,
};

const CODE: &str = "
    GRANT ALL ON SCHEMA public TO app;
    CREATE TABLE heard (a int); CREATE TABLE told (a int); GRANT ALL ON heard, told TO app;
    CREATE FUNCTION makes() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TABLE made (a int); END';
    CREATE FUNCTION calls() RETURNS void LANGUAGE sql AS 'SELECT public.makes()';
    CREATE FUNCTION counts() RETURNS int LANGUAGE plpgsql AS
        'DECLARE n int; BEGIN SELECT count(*) INTO n FROM public.heard; RETURN n; END';
    CREATE FUNCTION hears() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN CREATE TABLE IF NOT EXISTS made (a int); RETURN NEW; END';
    CREATE TRIGGER t BEFORE INSERT ON told FOR EACH ROW EXECUTE FUNCTION hears();";

fn started() -> LabCluster {
    let cluster = cluster().trust_user("app").start().unwrap();
    cluster.node(0).query(CODE).unwrap();
    cluster
}

/// With one connection, which another client does not get while a session keeps it.
fn pooler(cluster: &LabCluster) -> Pooler {
    let config = Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1");
    config.set("pool.reserve_size", "0").set("pool.checkout_timeout", "'300ms'").start()
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

/// Runs statements that must succeed.
#[track_caller]
fn run(client: &mut RawClient, statements: &[&str]) {
    for sql in statements {
        let answer = client.query(sql);
        assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
    }
}

/// Whether the other client, who asks now, gets no connection.
fn keeps(other: &mut RawClient) -> bool {
    let answer = other.query("SELECT 1");
    answer.iter().find(|message| message.tag == b'E').is_some_and(|error| {
        assert_eq!(error.sqlstate(), "53300");
        true
    })
}

#[test]
fn a_path_with_the_temporary_schema_keeps_no_connection_by_itself() {
    let cluster = started();
    let pooler = pooler(&cluster);
    let mut other = login(pooler.port());
    for path in ["public, pg_temp", "gone, pg_temp", "pg_temp"] {
        let mut client = login(pooler.port());
        let set = format!("SET search_path = {path}");
        run(&mut client, &[&set, "SELECT 1", "INSERT INTO public.heard VALUES (1)", "SELECT public.counts()"]);
        assert!(!keeps(&mut other), "{path}");
        assert_eq!(client.value("SHOW search_path").as_deref(), Some(path));
        let local = ["BEGIN", "SET LOCAL search_path = gone, pg_temp", "SELECT public.counts()", "COMMIT"];
        run(&mut client, &local);
        assert!(!keeps(&mut other), "{path}");
        let mut begins = RawClient::connect(pooler.port());
        let options = format!("-c search_path={}", path.replace(' ', ""));
        begins.send(&startup(0x30000, &[("user", "app"), ("database", "postgres"), ("options", &options)]));
        begins.finish_login("app", "");
        run(&mut begins, &["SELECT 1", "DELETE FROM public.heard"]);
        assert!(!keeps(&mut other), "{path}");
    }
    // Where another schema comes first, things are created there.
    let mut client = login(pooler.port());
    run(&mut client, &["SET search_path = public, pg_temp", "CREATE TABLE made (a int)", "SELECT 1 AS a INTO more"]);
    assert!(!keeps(&mut other));
    run(&mut other, &["SELECT * FROM public.made, public.more", "DROP TABLE public.made, public.more"]);
}

#[test]
fn what_is_created_in_the_temporary_schema_keeps_the_connection() {
    let cluster = started();
    let pooler = pooler(&cluster);
    let mut other = login(pooler.port());
    let path = "SET search_path = gone, pg_temp";
    for statements in [
        &[path, "CREATE TABLE made (a int)"][..],
        &[path, "SELECT 1 AS a INTO made"],
        &[path, "CREATE TABLE made AS SELECT 1 AS a"],
        &[path, "CREATE VIEW made AS SELECT 1 AS a"],
        &[path, "CREATE SEQUENCE made"],
        &[path, "CREATE TYPE made AS (a int)"],
        &[path, "CREATE TYPE made AS ENUM ('a')"],
        &[path, "CREATE DOMAIN made AS int"],
        &[path, "CREATE FUNCTION made() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
        &[path, "SELECT public.makes()"],
        &[path, "SELECT public.calls()"],
        &[path, "DO 'BEGIN CREATE TABLE made (a int); END'"],
        &[path, "PREPARE p AS SELECT public.makes()", "EXECUTE p"],
        &[path, "BEGIN", "CREATE TABLE made (a int)", "SAVEPOINT a", "DROP TABLE made", "ROLLBACK TO a", "COMMIT"],
        &["SET search_path = gone, pg_temp; CREATE TABLE made (a int)"],
        &["BEGIN", "SET LOCAL search_path = pg_temp", "CREATE TABLE made (a int)", "COMMIT"],
        &["BEGIN; SELECT set_config('search_path', 'pg_' || 'temp', true); CREATE TABLE made (a int); COMMIT"],
        &["SELECT set_config('search_path', 'pg_' || 'temp', false)", "CREATE TABLE made (a int)"],
    ] {
        let mut client = login(pooler.port());
        run(&mut client, statements);
        assert!(keeps(&mut other), "{statements:?}");
        run(&mut client, &["SELECT 1", "DISCARD TEMP"]);
        assert!(!keeps(&mut other), "{statements:?}");
    }
    // By a trigger of somebody else's table, and with parameters.
    let mut client = login(pooler.port());
    run(&mut client, &[path, "INSERT INTO public.told VALUES (1)"]);
    assert!(keeps(&mut other));
    run(&mut client, &["DISCARD TEMP"]);
    let set = "SELECT set_config('search_path', $1, true)";
    let texts =
        [("BEGIN", &[][..]), (set, &[Some("pg_temp")][..]), ("CREATE TABLE made (a int)", &[]), ("COMMIT", &[])];
    let batch = texts.map(|(sql, values)| [parse("", sql), bind("", "", values), execute("", 0)].concat());
    client.send(&[batch.concat(), sync()].concat());
    let answer = client.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    assert!(keeps(&mut other));
}

/// Makes a function, calls it and drops it, all in one transaction.
fn in_passing(client: &mut RawClient, body: &str) {
    let create =
        format!("CREATE OR REPLACE FUNCTION pg_temp.passing(t text) RETURNS text LANGUAGE plpgsql AS $f${body}$f$");
    let drop = "DROP FUNCTION IF EXISTS pg_temp.passing(text)";
    run(client, &["BEGIN", &create, "SELECT pg_temp.passing('x')", drop, "COMMIT"]);
}

#[test]
fn functions_that_one_session_makes_for_itself_cost_the_others_nothing() {
    const READ: &str = "SELECT served(port) FROM place";
    let cluster = cluster().replicas(1).trust_user("app").start().unwrap();
    let owner = cluster.node(0);
    owner.query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    owner.query("CREATE FUNCTION served(port int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1'").unwrap();
    owner.query("CREATE TABLE heard (a int); GRANT ALL ON heard TO app").unwrap();
    cluster.catch_up().unwrap();
    let config = Config::of_cluster(&cluster).set("auth.method", "'trust'");
    let pooler = config.set("log.level", "'debug'").start();
    let (mut client, mut other) = (login(pooler.port()), login(pooler.port()));
    let replica = cluster.node(1).port().to_string();
    let mut reads = || other.value(READ).as_deref() == Some(&replica);
    wait_until("reads with functions reach the replica", PATIENCE, &mut reads);
    let censuses = |log: &[String]| log.iter().filter(|line| line.contains("took a census")).count();
    let before = censuses(&pooler.log());
    for round in 0..20 {
        in_passing(
            &mut client,
            "BEGIN INSERT INTO heard VALUES (1); RETURN t; EXCEPTION WHEN unique_violation THEN END",
        );
        assert!(reads(), "round {round}");
    }
    assert_eq!(censuses(&pooler.log()), before);
}

#[test]
fn what_such_a_function_does_follows_its_client() {
    let cluster = started();
    let pooler = pooler(&cluster);
    let mut other = login(pooler.port());
    run(&mut other, &["SELECT 1"]);
    for (body, shows, mine) in [
        ("BEGIN PERFORM set_config('pass.one', 'me', false); RETURN t; END", "current_setting('pass.one', true)", "me"),
        ("BEGIN SET pass.two = 'me'; RETURN t; END", "current_setting('pass.two', true)", "me"),
        ("BEGIN SET work_mem = '7MB'; RETURN t; END", "current_setting('work_mem')", "7MB"),
        ("BEGIN SET LOCAL work_mem = '8MB'; RETURN t; END", "current_setting('work_mem')", "4MB"),
    ] {
        let mut client = login(pooler.port());
        let sql = format!("SELECT coalesce({shows}, '')");
        let default = other.value(&sql).unwrap();
        in_passing(&mut client, body);
        assert_eq!(other.value(&sql).as_ref(), Some(&default), "{body}");
        assert_eq!(client.value(&sql).as_deref(), Some(mine), "{body}");
    }
    // What the server cannot tell of, or nothing that ends with the transaction, keeps the connection.
    for body in [
        "BEGIN PERFORM set_config('pass.' || t, 'me', false); RETURN t; END",
        "BEGIN PERFORM pg_advisory_lock(1); RETURN t; END",
        "BEGIN CREATE TEMP TABLE passed (a int); RETURN t; END",
    ] {
        let mut client = login(pooler.port());
        in_passing(&mut client, body);
        assert!(keeps(&mut other), "{body}");
        assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    }
}
