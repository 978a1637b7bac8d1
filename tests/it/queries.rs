//! Statements by their texts: what is counted of each, and which are logged as slow.

use std::collections::BTreeMap;

use poolhouse::testing::QueryFigures;
use poolhouse_core::session::Mode;

use super::kit::{Config, LabCluster, PATIENCE, Pooler, RawClient, Served, cluster, messages, wait_until};

fn started() -> LabCluster {
    let cluster = cluster().password_user("app", "secret").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster
}

/// Calls and errors by text.
fn counted(served: &Served) -> BTreeMap<String, (u64, u64)> {
    let all = served.frontend.watch.queries.all();
    all.into_iter().map(|query| (query.text.to_string(), (query.calls, query.errors))).collect()
}

/// What is sent in one go, and its answer awaited.
fn batch(client: &mut RawClient, messages: &[Vec<u8>]) {
    client.send(&messages.concat());
    client.read_until_ready();
}

#[test]
fn each_statement_is_counted_by_its_text_and_how_it_ended() {
    let cluster = started();
    for mode in [Mode::Session, Mode::Transaction] {
        let served = Served::start(&cluster, 1, |settings| {
            for database in settings.databases.values_mut() {
                database.session.mode = mode;
            }
        });
        let mut client = served.login();
        for number in 0..5 {
            client.query(&format!("SELECT {number} FROM ticket WHERE number = {number}"));
        }
        client.query("INSERT INTO ticket VALUES (1)");
        client.query("SELEC 1");
        client.query("SELECT nothing");
        client.query("BEGIN");
        client.query("SELECT 1 / 0");
        client.query("SELECT 1 / 1");
        client.query("ROLLBACK");
        // Prepared once, run three times, twice of them in one batch; and once with a value that is refused.
        let prepare = messages::parse("s", "SELECT $1::int + 17");
        let run = |value| [messages::bind("", "s", &[Some(value)]), messages::execute("", 0)].concat();
        batch(&mut client, &[prepare, run("1"), messages::sync()]);
        batch(&mut client, &[run("2"), run("3"), messages::sync()]);
        batch(&mut client, &[run("x"), messages::sync()]);
        // What an error makes the server skip has not run.
        let fails = [messages::parse("", "SELECT nobody"), messages::bind("", "", &[]), messages::execute("", 0)];
        batch(&mut client, &[fails.concat(), run("4"), messages::sync()]);
        // A portal that is read in parts is one call.
        client.query("BEGIN");
        let open = [messages::parse("", "SELECT generate_series(1, 10)"), messages::bind("p", "", &[])].concat();
        batch(&mut client, &[open, messages::execute("p", 3), messages::sync()]);
        batch(&mut client, &[messages::execute("p", 3), messages::sync()]);
        client.query("COMMIT");
        client.query("SELECT E'\\101'");
        let expected = [
            ("SELECT ? FROM ticket WHERE number = ?", (5, 0)),
            ("INSERT INTO ticket VALUES (?)", (1, 0)),
            ("SELEC ?", (1, 1)),
            ("SELECT nothing", (1, 1)),
            ("BEGIN", (2, 0)),
            ("SELECT ? / ?", (2, 2)),
            ("ROLLBACK", (1, 0)),
            ("SELECT $1::int + ?", (4, 1)),
            ("SELECT nobody", (1, 1)),
            ("SELECT generate_series(?, ?)", (1, 0)),
            ("COMMIT", (1, 0)),
            // Of such a text its value decides whether it can be read.
            ("", (1, 0)),
        ];
        let mut expected: BTreeMap<_, _> = expected.map(|(text, counts)| (text.to_owned(), counts)).into();
        if mode == Mode::Transaction {
            // It is answered before there is a server, and goes there with what follows.
            expected.remove("BEGIN");
        }
        wait_until("all is counted", PATIENCE, || counted(&served).len() >= expected.len());
        assert_eq!(counted(&served), expected, "{mode:?}");
        let all = served.frontend.watch.queries.all();
        let node = &cluster.node(0).port().to_string();
        let everywhere = |query: &QueryFigures| query.by_node.values().sum::<u64>() == query.calls;
        assert!(all.iter().all(everywhere), "{all:?}");
        assert!(all.iter().all(|query| query.by_node.keys().all(|name| name.ends_with(node.as_str()))), "{all:?}");
        assert!(all.iter().all(|query| query.times.count() == query.calls && !query.times.sum().is_zero()));
        drop(client);
        served.drain();
    }
}

fn in_front(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).user("app", "secret").user("admin", "secret").set("admin.users", "['admin']")
}

fn app(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

/// Every value of the answer, row by row.
fn rows(client: &mut RawClient, sql: &str) -> Vec<Vec<Option<String>>> {
    client.query(sql).iter().filter(|message| message.tag == b'D').map(|row| row.values()).collect()
}

#[test]
fn the_console_shows_how_long_statements_take() {
    let cluster = started();
    let pooler = in_front(&cluster).start();
    let mut client = app(&pooler);
    for _ in 0..3 {
        client.query("SELECT pg_sleep(0.02)");
    }
    client.query("SELECT 1");
    let mut admin = RawClient::login(pooler.port(), "pgbouncer", "admin", "secret");
    let shown = "SELECT database, calls, errors, total_time, avg_time, p50, p95, p99, nodes FROM queries \
                 WHERE query = 'SELECT pg_sleep(?)'";
    let mut found = Vec::new();
    wait_until("they are counted", PATIENCE, || {
        found = rows(&mut admin, shown);
        found.first().is_some_and(|row| row[1].as_deref() == Some("3"))
    });
    let row: Vec<String> = found.remove(0).into_iter().map(Option::unwrap_or_default).collect();
    let number = |at: usize| row[at].parse::<u64>().unwrap();
    assert_eq!((row[0].as_str(), row[2].as_str()), ("postgres", "0"));
    assert!(number(3) >= 60_000 && number(4) == number(3) / 3, "{row:?}");
    // True to an eighth.
    assert!(number(5) >= 17_500 && number(5) <= number(6) && number(6) <= number(7), "{row:?}");
    assert!(row[8].ends_with(" 100 %"), "{row:?}");
    // What took most time comes first.
    assert_eq!(rows(&mut admin, "SELECT query FROM queries LIMIT 1"), [[Some("SELECT pg_sleep(?)".to_owned())]]);
}

#[test]
fn slow_statements_and_connections_are_logged_when_that_is_wanted() {
    let cluster = started();
    let quiet = in_front(&cluster).set("pool.size", "1");
    let loud = quiet.clone().set("log.slow", "'100ms'").set("log.connections", "true");
    let pooler = loud.start();
    pooler.allow_warnings("a slow statement");
    let mut client = app(&pooler);
    client.query("SELECT 'secret', pg_sleep(0.2)");
    let told = |words: &[&str]| {
        let log = pooler.log();
        log.into_iter().any(|line| words.iter().all(|word| line.contains(word)))
    };
    wait_until("it is logged", PATIENCE, || {
        told(&["a slow statement", "SELECT ?, pg_sleep(?)", "database=\"postgres\"", "user=\"app\"", "failed=false"])
    });
    assert!(!told(&["'secret'"]), "{:?}", pooler.log());
    // Also one that was quick, but had to wait.
    let mut other = app(&pooler);
    client.begin();
    other.send(&messages::query("SELECT 2 AS quick"));
    client.query("SELECT pg_sleep(0.2)");
    client.query("COMMIT");
    other.read_until_ready();
    wait_until("the wait is logged", PATIENCE, || told(&["a slow statement", "SELECT ? AS quick"]));
    assert!(!told(&["a slow statement", "COMMIT"]), "{:?}", pooler.log());
    wait_until("the logins are logged", PATIENCE, || told(&["a client has logged in", "user=\"app\""]));
    drop(other);
    wait_until("its end is logged", PATIENCE, || told(&["a client has gone", "user=\"app\""]));
    // By a reload at once, for those who are there, too.
    pooler.rewrite(&quiet);
    let mut admin = RawClient::login(pooler.port(), "pgbouncer", "admin", "secret");
    assert!(admin.query("RELOAD").iter().all(|message| message.tag != b'E'));
    client.query("SELECT pg_sleep(0.2) AS unsaid");
    client.query("SELECT 1");
    assert!(!told(&["unsaid"]), "{:?}", pooler.log());
}

/// The one line of the log that tells of a slow statement with these words, once it is there.
fn slow_line(pooler: &Pooler, words: &[&str]) -> String {
    let mut found = Vec::new();
    wait_until("it is logged", PATIENCE, || {
        found = pooler.log();
        found.retain(|line| words.iter().all(|word| line.contains(word)));
        !found.is_empty()
    });
    assert!(found.len() == 1 && found[0].contains("a slow statement"), "{found:?}");
    found.remove(0)
}

/// Parses, binds and runs as one, with what follows the names in the Bind message.
fn run_bound(client: &mut RawClient, sql: &str, bound: &[u8]) {
    let bind = messages::any(b'B', &[b"\0\0", bound].concat());
    batch(client, &[messages::parse("", sql), bind, messages::execute("", 0), messages::sync()]);
}

#[test]
fn slow_statements_are_logged_with_their_values_only_when_that_is_wanted() {
    let cluster = started();
    for format in ["'text'", "'json'"] {
        let without = in_front(&cluster).set("log.slow", "'10ms'").set("log.format", format);
        let with = without.clone().set("log.slow_values", "true");
        let pooler = without.clone().start();
        pooler.allow_warnings("a slow statement");
        let mut client = app(&pooler);
        let mut admin = RawClient::login(pooler.port(), "pgbouncer", "admin", "secret");
        let mut reload = |config: &Config| {
            pooler.rewrite(config);
            assert!(admin.query("RELOAD").iter().all(|message| message.tag != b'E'));
        };
        client.query("SELECT 'hush 1' AS one, pg_sleep(0.02)");
        slow_line(&pooler, &["SELECT ? AS one, pg_sleep(?)"]);
        let text = b"\0\0\0\x02\0\0\0\x06hush 2\xff\xff\xff\xff\0\0";
        run_bound(&mut client, "SELECT $1::text, $2::int AS two, pg_sleep(0.02)", text);
        let line = slow_line(&pooler, &["AS two, pg_sleep(?)"]);
        assert!(!line.contains("values"), "{line}");
        // At once, for those who are there, too.
        reload(&with);
        client.query("SELECT 'shown 3' AS three, pg_sleep(0.02) -- why");
        let line = slow_line(&pooler, &["SELECT 'shown 3' AS three, pg_sleep(0.02) -- why"]);
        assert!(!line.contains("values"), "{line}");
        let text = b"\0\0\0\x02\0\0\0\x07shown 4\xff\xff\xff\xff\0\0";
        run_bound(&mut client, "SELECT $1::text, $2::int AS four, pg_sleep(0.02)", text);
        slow_line(&pooler, &["AS four, pg_sleep(0.02)", "$1 = 'shown 4', $2 = NULL"]);
        run_bound(
            &mut client,
            "SELECT $1::int AS five, pg_sleep(0.02)",
            b"\0\x01\0\x01\0\x01\0\0\0\x04\0\0\x01\x02\0\0",
        );
        slow_line(&pooler, &["AS five, pg_sleep(0.02)", "$1 = \\\\x00000102"]);
        // No other line can be made of a value, and nothing else of a terminal.
        client.query("SELECT 'six\n2026-01-01T00:00:00Z ERROR forged\r\x1b[31m', pg_sleep(0.02)");
        let line = slow_line(&pooler, &["SELECT 'six\\n", "ERROR forged"]);
        assert!(!line.contains(['\r', '\x1b']), "{line}");
        client.query("SELECT 'hush 7' AS password, pg_sleep(0.02)");
        slow_line(&pooler, &["SELECT ? AS password, pg_sleep(?)", "(not shown: "]);
        // What runs while it is switched off is not shown any more.
        client.begin();
        client.query("SELECT 1");
        reload(&without);
        client.query("SELECT 'hush 8' AS eight, pg_sleep(0.02)");
        slow_line(&pooler, &["SELECT ? AS eight, pg_sleep(?)"]);
        client.query("COMMIT");
        client.query("SELECT 'hush 9' AS nine, pg_sleep(0.02)");
        slow_line(&pooler, &["SELECT ? AS nine, pg_sleep(?)"]);
        assert!(pooler.log().iter().all(|line| !line.contains("hush")), "{:?}", pooler.log());
    }
}
