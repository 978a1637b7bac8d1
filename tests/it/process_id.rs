//! A client has one process id, the one that it was given at its login, whichever server process runs its statements.

use super::kit::{Config, LabCluster, Message, PATIENCE, RawClient, cluster, messages::*, wait_until};

fn started() -> (LabCluster, impl Fn() -> RawClient) {
    started_with(2)
}

/// With so many server connections.
fn started_with(connections: usize) -> (LabCluster, impl Fn() -> RawClient) {
    let cluster = cluster().trust_user("app").start().unwrap();
    let size = connections.to_string();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", &size).start();
    (cluster, move || RawClient::login(pooler.port(), "postgres", "app", ""))
}

fn rows(messages: &[Message]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| row.values().into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")).collect()
}

/// What a client reads of itself is what it was told at its login, and another client on the same server connection reads
/// its own.
#[test]
fn a_client_reads_the_process_id_that_it_was_given() {
    let (_cluster, login) = started();
    let mut clients = [login(), login(), login()];
    for _ in 0..3 {
        for client in &mut clients {
            let own = client.process().to_string();
            for sql in [
                "SELECT pg_backend_pid()",
                "SELECT pg_catalog.pg_backend_pid() WHERE pg_backend_pid() > 0",
                "SELECT * FROM pg_backend_pid()",
                "SELECT pid FROM pg_backend_pid() AS pid GROUP BY 1",
                "SELECT pg_backend_pid() GROUP BY pg_backend_pid() ORDER BY pg_backend_pid()",
                "SELECT max(pg_backend_pid()) FROM pg_class",
                "BEGIN; SELECT pg_backend_pid(); COMMIT",
                "PREPARE p(int) AS SELECT $1; EXECUTE p(pg_backend_pid()); DEALLOCATE p",
                "PREPARE p AS SELECT pg_backend_pid(); EXECUTE p; DEALLOCATE p",
                "CREATE TEMP TABLE t AS SELECT pg_backend_pid() AS a; SELECT a FROM t; DROP TABLE t",
                "BEGIN; DECLARE c CURSOR FOR SELECT pg_backend_pid(); FETCH c; COMMIT",
                "COPY (SELECT 1) TO STDOUT; SELECT pg_backend_pid()",
            ] {
                assert_eq!(rows(&client.query(sql)), [&*own], "{sql}");
            }
            client.query("PREPARE kept AS SELECT pg_backend_pid()");
            client
                .send(&[parse("", "SELECT $1 - pg_backend_pid()"), parse("named", "SELECT pg_backend_pid()")].concat());
            client
                .send(&[bind("", "", &[Some(&own)]), execute("", 0), bind("", "named", &[]), execute("", 0)].concat());
            client.send(&[close(b'S', "named"), sync()].concat());
            assert_eq!(rows(&client.read_until_ready()), ["0", &*own]);
        }
    }
    for client in &mut clients {
        assert_eq!(rows(&client.query("EXECUTE kept")), [client.process().to_string()]);
    }
}

/// Columns have the names that the function gives them, and errors point to where the client wrote what is wrong.
#[test]
fn names_and_positions_are_those_of_the_client_s_text() {
    let (cluster, login) = started();
    let mut client = login();
    let mut direct = RawClient::login(cluster.node(0).port(), "postgres", "app", "");
    for sql in [
        "SELECT pg_backend_pid(), pg_backend_pid() AS other, pg_backend_pid()::text, coalesce(pg_backend_pid(), 1)",
        "SELECT * FROM pg_backend_pid()",
        "SELECT x.* FROM (SELECT pg_backend_pid()) AS x",
    ] {
        let columns = |client: &mut RawClient| client.query(sql)[0].columns();
        assert_eq!(columns(&mut client), columns(&mut direct), "{sql}");
    }
    for sql in [
        "SELECT '\u{e9}', pg_backend_pid(), nosuch",
        "SELECT nosuch, pg_backend_pid()",
        "SELECT pg_backend_pid() + pg_catalog.pg_backend_pid ( ) + nosuch + pg_backend_pid()",
        "SELECT pg_backend_pid() FROM pg_class WHERE",
        "SELECT pg_backend_pid() + 'x'",
        "SELECT 1 FROM nosuch",
    ] {
        let place = |client: &mut RawClient| {
            let answer = client.query(sql);
            let error = answer.iter().find(|message| message.tag == b'E').unwrap();
            (error.sqlstate(), error.field(b'P'), error.field(b'M'))
        };
        assert_eq!(place(&mut client), place(&mut direct), "{sql}");
        let place = |client: &mut RawClient| {
            client.send(&[parse("", "SELECT 1"), parse("", sql), sync()].concat());
            let answer = client.read_until_ready();
            let error = answer.iter().find(|message| message.tag == b'E').unwrap();
            (error.sqlstate(), error.field(b'P'))
        };
        assert_eq!(place(&mut client), place(&mut direct), "{sql}");
    }
}

/// What looks at server processes, and what is kept in the database, says the server's own.
#[test]
fn what_is_about_server_processes_fits_the_server() {
    let (_cluster, login) = started();
    let mut client = login();
    for (sql, expected) in [
        ("SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()", "1"),
        ("SELECT count(*) > 0 FROM pg_locks WHERE pid = pg_backend_pid()", "t"),
        ("SELECT pg_blocking_pids(pg_backend_pid())", "{}"),
        ("SELECT pg_cancel_backend(pg_backend_pid()) IS NULL", ""),
    ] {
        let answer = client.query(sql);
        match expected {
            "" => assert_eq!(answer.iter().find(|message| message.tag == b'E').unwrap().sqlstate(), "57014"),
            _ => assert_eq!(rows(&answer), [expected], "{sql}"),
        }
    }
    client.query("CREATE VIEW v AS SELECT pg_backend_pid() AS pid");
    assert_ne!(rows(&client.query("SELECT pid FROM v")), [client.process().to_string()]);
}

/// Who blocks whom is asked and told by the ids of clients, whichever server processes they have.
#[test]
fn those_who_wait_are_known_by_their_process_ids() {
    let (cluster, login) = started_with(4);
    cluster.node(0).query("CREATE TABLE held (a int); GRANT ALL ON held TO app").unwrap();
    let (mut holder, mut waiter, mut asks) = (login(), login(), login());
    let (holding, waiting) = (holder.process(), waiter.process());
    let blocked = format!("SELECT pg_catalog.pg_isolation_test_session_is_blocked($1, '{{{holding},{waiting}}}')");
    asks.send(&[parse("waits", &blocked), parse("by", "SELECT pg_blocking_pids($1)"), sync()].concat());
    assert!(asks.read_until_ready().iter().all(|message| message.tag != b'E'));
    let mut ask = |statement: &str, process: u32| {
        asks.send(&[bind("", statement, &[Some(&process.to_string())]), execute("", 0), sync()].concat());
        rows(&asks.read_until_ready()).join(",")
    };
    assert_eq!((&*ask("waits", waiting), &*ask("by", waiting)), ("f", "{}"));
    holder.begin();
    holder.query("LOCK TABLE held");
    waiter.send(&query("INSERT INTO held VALUES (1)"));
    wait_until("it waits", PATIENCE, || ask("waits", waiting) == "t");
    assert_eq!((&*ask("waits", holding), &*ask("by", waiting)), ("f", &*format!("{{{holding}}}")));
    // By simple queries, by the server's own ids, and by one that nobody has.
    let mut other = login();
    let own =
        format!("SELECT pg_blocking_pids({waiting}) FROM generate_series(1, 2) ORDER BY pg_blocking_pids({waiting})");
    let answer = other.query(&own);
    assert_eq!(answer[0].columns(), ["pg_blocking_pids"]);
    assert_eq!(rows(&answer), [&*format!("{{{holding}}}"); 2]);
    let servers = "SELECT pid FROM pg_locks WHERE NOT granted";
    let servers = other.value(servers).unwrap();
    assert_eq!(rows(&other.query(&format!("SELECT pg_blocking_pids({servers})"))), [format!("{{{holding}}}")]);
    let nobody = "SELECT pg_blocking_pids(1073741825 + 1), pg_safe_snapshot_blocking_pids(1)";
    assert_eq!(rows(&other.query(nobody)), ["{} {}"]);
    // In a transaction, in one that has failed, and behind others in a pipeline.
    other.begin();
    assert_eq!(rows(&other.query(&own)).len(), 2);
    other.query("SELECT nosuch");
    assert!(other.query(&own)[0].sqlstate() == "25P02");
    other.query("ROLLBACK");
    other.send(&[query("SELECT 1"), query(&own), query("SELECT 2")].concat());
    let answers: Vec<_> = (0..3).flat_map(|_| rows(&other.read_until_ready())).collect();
    assert_eq!(answers, ["1", &*format!("{{{holding}}}"), &*format!("{{{holding}}}"), "2"]);
    holder.query("COMMIT");
    waiter.read_until_ready();
    assert_eq!(ask("waits", waiting), "f");
}
