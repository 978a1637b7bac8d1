//! The console: who gets in, what it shows and understands, by the simple and the extended protocol.

use super::kit::{Config, LabCluster, Message, PATIENCE, Pooler, RawClient, cluster, messages, wait_until};

/// In front of a cluster, with one user of each kind.
pub fn in_front(cluster: &LabCluster) -> Config {
    let config = Config::of_cluster(cluster).user("app", "secret").user("admin", "steer").user("monitor", "look");
    config.set("admin.users", "['admin']").set("admin.stats_users", "['monitor']")
}

pub fn console(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "pgbouncer", "admin", "steer")
}

fn app(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

/// Sends a simple query and reads all that comes.
pub fn ask(client: &mut RawClient, sql: &str) -> Vec<Message> {
    client.send(&messages::query(sql));
    client.read_until_ready()
}

/// The names of the columns, and the rows.
pub fn table(client: &mut RawClient, sql: &str) -> (Vec<String>, Vec<Vec<Option<String>>>) {
    let answer = ask(client, sql);
    let head = answer.iter().find(|message| message.tag == b'T').unwrap_or_else(|| panic!("{sql}: {answer:?}"));
    let rows = answer.iter().filter(|message| message.tag == b'D').map(Message::values).collect();
    (head.columns(), rows)
}

/// The values of one column.
pub fn column(client: &mut RawClient, sql: &str, name: &str) -> Vec<String> {
    let (columns, rows) = table(client, sql);
    let at = columns.iter().position(|column| column == name).unwrap_or_else(|| panic!("no {name}: {columns:?}"));
    rows.into_iter().map(|row| row[at].clone().unwrap_or_default()).collect()
}

/// The SQLSTATE of an answer, and what it says.
fn error(client: &mut RawClient, sql: &str) -> (String, String) {
    let answer = ask(client, sql);
    let error = answer.iter().find(|message| message.tag == b'E').unwrap_or_else(|| panic!("{sql}: {answer:?}"));
    (error.sqlstate(), error.field(b'M').unwrap())
}

fn tag(client: &mut RawClient, sql: &str) -> String {
    let answer = ask(client, sql);
    let done = answer.iter().rfind(|message| message.tag == b'C').unwrap_or_else(|| panic!("{sql}: {answer:?}"));
    done.text()
}

fn refusal(pooler: &Pooler, database: &str, user: &str, password: &str) -> String {
    let mut client = RawClient::connect(pooler.port());
    client.send(&messages::startup(0x30000, &[("user", user), ("database", database)]));
    client.finish_login(user, password).last().unwrap().sqlstate()
}

#[test]
fn only_operators_get_in_and_stats_users_only_look() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    assert_eq!(refusal(&pooler, "pgbouncer", "app", "secret"), "28000");
    assert_eq!(refusal(&pooler, "pgbouncer", "admin", "wrong"), "28P01");
    assert_eq!(refusal(&pooler, "poolhouse", "nobody", "x"), "28P01");
    for database in ["poolhouse", "pgbouncer"] {
        let mut admin = RawClient::login(pooler.port(), database, "admin", "steer");
        assert_eq!(tag(&mut admin, "SHOW VERSION"), "SHOW");
        let mut monitor = RawClient::login(pooler.port(), database, "monitor", "look");
        assert_eq!(tag(&mut monitor, "SHOW STATS"), "SHOW");
        for command in [
            "PAUSE",
            "RESUME",
            "DISABLE postgres",
            "ENABLE postgres",
            "RECONNECT",
            "WAIT_CLOSE",
            "KILL",
            "KILL_CLIENT 1",
            "SUSPEND",
            "SHUTDOWN",
            "RELOAD",
            "SET log.level = 'off'",
            "SHOW FDS",
        ] {
            assert_eq!(error(&mut monitor, command).0, "42501", "{command}");
        }
    }
    assert_eq!(column(&mut console(&pooler), "SHOW STATE WHERE key = 'active'", "value"), ["yes"]);
}

#[test]
fn nonsense_gets_an_error_and_the_session_goes_on() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    let mut admin = console(&pooler);
    for (sql, code) in [
        ("foo", "42601"),
        ("SHOW NONSENSE", "42704"),
        ("SHOW POOLS WHERE", "42601"),
        ("SHOW POOLS WHERE nothing = 1", "42703"),
        ("SHOW POOLS WHERE cl_active = 'x'", "22P02"),
        ("SHOW POOLS WHERE database ~ '['", "2201B"),
        ("SELECT * FROM pg_class", "42704"),
        ("DROP TABLE users", "42601"),
        ("'", "42601"),
        ("/*", "42601"),
        ("\u{1}", "42601"),
        ("PAUSE pgbouncer", "0A000"),
        ("RESUME", "55000"),
        ("KILL_CLIENT 99999", "42704"),
        ("SET pool.size = 3", "55P02"),
        ("SHOW VERSION; foo", "42601"),
    ] {
        assert_eq!(error(&mut admin, sql).0, code, "{sql}");
        assert_eq!(tag(&mut admin, "SHOW VERSION"), "SHOW", "after {sql}");
    }
    let answer = ask(&mut admin, "");
    assert_eq!(answer.iter().map(|message| message.tag).collect::<Vec<_>>(), *b"IZ");
    let help = ask(&mut admin, "SHOW HELP");
    assert_eq!((help[0].tag, help[0].field(b'M').unwrap()), (b'N', "Console usage".to_owned()));
    assert!(help[0].field(b'D').unwrap().contains("SHOW POOLS"));
    assert_eq!(tag(&mut admin, "SHOW VERSION; SHOW STATE; SHOW LISTS"), "SHOW");
}

#[test]
fn the_extended_protocol_is_spoken() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    let (mut admin, _app) = (console(&pooler), app(&pooler));
    // A parameter, described before it is bound.
    let sql = "SHOW POOLS WHERE database = $1";
    admin.send(&[messages::parse("s", sql), messages::describe(b'S', "s"), messages::sync()].concat());
    let answer = admin.read_until_ready();
    assert_eq!(answer.iter().map(|message| message.tag).collect::<Vec<_>>(), *b"1tTZ");
    assert_eq!(answer[1].body, [0, 1, 0, 0, 0, 25]);
    assert_eq!(answer[2].columns()[..3], ["database", "user", "cl_active"]);
    for (value, rows) in [("postgres", 1), ("other", 0)] {
        let run = [
            messages::bind("", "s", &[Some(value)]),
            messages::describe(b'P', ""),
            messages::execute("", 0),
            messages::sync(),
        ];
        admin.send(&run.concat());
        let answer = admin.read_until_ready();
        assert_eq!(answer.iter().filter(|message| message.tag == b'D').count(), rows, "{value}: {answer:?}");
        assert_eq!(answer.iter().find(|message| message.tag == b'C').unwrap().text(), "SHOW");
    }
    // A limit of rows suspends the portal.
    let run = [
        messages::parse("", "SHOW LISTS"),
        messages::bind("p", "", &[]),
        messages::execute("p", 5),
        messages::execute("p", 100),
        messages::sync(),
    ];
    admin.send(&run.concat());
    let answer = admin.read_until_ready();
    let tags: Vec<u8> = answer.iter().map(|message| message.tag).collect();
    assert_eq!(tags, *b"12DDDDDsDDDDDDDDDCZ");
    // After an error all is skipped until Sync.
    admin.send(
        &[messages::parse("", "nonsense"), messages::bind("", "", &[]), messages::execute("", 0), messages::sync()]
            .concat(),
    );
    let answer = admin.read_until_ready();
    assert_eq!(answer.iter().map(|message| message.tag).collect::<Vec<_>>(), *b"EZ");
    // A command, and a statement that nobody knows.
    admin.send(
        &[messages::parse("", "RECONNECT"), messages::bind("", "", &[]), messages::execute("", 0), messages::sync()]
            .concat(),
    );
    let answer = admin.read_until_ready();
    assert_eq!(answer.iter().map(|message| message.tag).collect::<Vec<_>>(), *b"12CZ");
    admin.send(&[messages::bind("", "unknown", &[]), messages::sync()].concat());
    assert_eq!(admin.read_until_ready()[0].sqlstate(), "26000");
}

#[test]
fn drivers_that_look_around_first_are_answered() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).set("admin.pgbouncer_version", "'1.25.0'").start();
    let mut admin = console(&pooler);
    assert_eq!(column(&mut admin, "SHOW VERSION", "version"), ["PgBouncer 1.25.0"]);
    for (sql, expected) in [
        ("SET client_encoding TO 'UTF8'", "SET"),
        ("SET extra_float_digits = 3", "SET"),
        ("SET DateStyle = ISO", "SET"),
        ("SET application_name = 'x'", "SET"),
        ("BEGIN", "BEGIN"),
        ("SHOW STATS", "SHOW"),
        ("COMMIT", "COMMIT"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;", "RESET"),
    ] {
        assert_eq!(tag(&mut admin, sql), expected, "{sql}");
    }
    for (sql, expected) in [
        ("SHOW client_encoding", "UTF8"),
        ("SHOW standard_conforming_strings", "on"),
        ("SHOW application_name", "x"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "read committed"),
        ("SELECT current_database()", "pgbouncer"),
        ("SELECT current_user", "admin"),
        ("SELECT 1", "1"),
        ("select version()", "PgBouncer 1.25.0"),
    ] {
        assert_eq!(table(&mut admin, sql).1, [[Some(expected.to_owned())]], "{sql}");
    }
    // An error in a transaction is one until its end.
    assert_eq!(tag(&mut admin, "BEGIN"), "BEGIN");
    assert_eq!(error(&mut admin, "nonsense").0, "42601");
    assert_eq!(error(&mut admin, "SHOW STATS").0, "25P02");
    assert_eq!(tag(&mut admin, "COMMIT"), "ROLLBACK");
}

#[test]
fn operators_get_in_when_all_places_are_taken() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).set("server.max_clients", "1").start();
    let _app = app(&pooler);
    assert_eq!(refusal(&pooler, "postgres", "app", "secret"), "53300");
    let mut admin = console(&pooler);
    assert_eq!(column(&mut admin, "SHOW CLIENTS WHERE database = 'postgres'", "user"), ["app"]);
    let errors = column(&mut admin, "SHOW ERRORS ORDER BY time", "code");
    assert_eq!(errors, ["53300"]);
}

#[test]
fn times_of_requests_are_those_of_the_last_ones() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = in_front(&cluster).start();
    let (mut admin, mut app) = (console(&pooler), app(&pooler));
    let mut times = |name: &str| column(&mut admin, "SHOW CLIENTS WHERE user = 'app'", name).join("");
    assert!(times("request_time") >= times("connect_time"));
    ask(&mut app, "SELECT 1");
    let first = times("request_time");
    // Only what asks for something moves it.
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(times("request_time"), first);
    ask(&mut app, "SELECT 1");
    assert!(times("request_time") > first);
}

#[test]
fn it_explains_where_a_statement_would_go() {
    let cluster = cluster().replicas(1).trust_user("app").start().unwrap();
    let rule = "[{user = 'app', route = 'replica'}]";
    let pooler = in_front(&cluster).set("clusters.main.routing.rules", rule).start();
    let mut admin = console(&pooler);
    let ports = [0, 1].map(|node| format!("127.0.0.1:{}", cluster.node(node).port()));
    let mut chosen = |sql: &str| -> Vec<(String, String, String)> {
        let answer = ask(&mut admin, sql);
        let rows = answer.iter().filter(|message| message.tag == b'D').map(|row| row.values());
        let rows = rows.filter(|row| row[13].as_deref() == Some("yes"));
        rows.map(|row| (row[3].clone().unwrap(), row[0].clone().unwrap(), row[2].clone().unwrap())).collect()
    };
    let read = "EXPLAIN ROUTE DATABASE postgres USER boss SELECT 1";
    let write = "EXPLAIN ROUTE DATABASE postgres USER boss INSERT INTO t VALUES ('a' || 'b'); -- no more";
    // One that a rule sends to replicas, whatever it says.
    let ruled = "EXPLAIN ROUTE DATABASE postgres USER app DELETE FROM t";
    for (sql, node, verdict) in [(read, &ports[1], "read"), (write, &ports[0], "write"), (ruled, &ports[1], "write")] {
        let mut answer = None;
        // As soon as both nodes are known.
        wait_until(sql, PATIENCE, || {
            answer = chosen(sql).pop();
            answer.as_ref().is_some_and(|(chosen, ..)| chosen == node)
        });
        assert_eq!(answer.unwrap().1, verdict, "{sql}");
    }
    let description = ask(&mut admin, read);
    assert_eq!(description.last().unwrap().tag, b'Z');
    assert_eq!(error(&mut admin, "EXPLAIN ROUTE DATABASE postgres").0, "42601");
    assert_eq!(error(&mut admin, "EXPLAIN ROUTE SELECT 1").0, "42601", "\"*\" serves any name");
    let mut looking = RawClient::login(pooler.port(), "pgbouncer", "monitor", "look");
    assert!(ask(&mut looking, read).iter().any(|message| message.tag == b'D'), "nothing is changed by it");
}
