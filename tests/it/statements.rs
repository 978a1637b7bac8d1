//! Prepared statements of SQL and of the protocol in one namespace, as on a direct connection: each script of messages
//! is run directly and through a pool of one server connection on which a stranger uses the same names in between.

use super::kit::{
    Config, LabCluster, Message, Pooler, RawClient, cluster,
    messages::{any, bind, close, describe, execute, flush, parse, query, sync},
};

fn started() -> LabCluster {
    cluster().trust_user("app").start().unwrap()
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

fn pooled(cluster: &LabCluster) -> Pooler {
    Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1").start()
}

/// A whole turn of the extended protocol: all messages, then Sync.
fn batch(messages: &[Vec<u8>]) -> Vec<u8> {
    [messages.concat(), sync()].concat()
}

/// What a stranger does to the server connection between two turns.
const STRANGER: [&str; 4] = [
    "PREPARE one AS SELECT 'a stranger''s'",
    "PREPARE \"Two\" (text) AS SELECT 'a stranger''s', $1",
    "DEALLOCATE ALL",
    "PREPARE three AS SELECT 'a stranger''s'",
];

/// Runs the turns directly and through the pool, and compares every message.
#[track_caller]
fn same(cluster: &LabCluster, turns: &[Vec<u8>]) {
    let pooler = pooled(cluster);
    let (mut direct, mut client, mut stranger) =
        (login(cluster.node(0).port()), login(pooler.port()), login(pooler.port()));
    let mut strange = STRANGER.iter().cycle();
    let mut free = true;
    for (number, turn) in turns.iter().enumerate() {
        if free {
            stranger.query(strange.next().unwrap());
        }
        direct.send(turn);
        client.send(turn);
        let (expected, got) = (direct.read_until_ready(), client.read_until_ready());
        assert_eq!(got, expected, "turn {number}: {}", String::from_utf8_lossy(turn));
        free = expected.last().is_some_and(|ready: &Message| ready.body == b"I");
    }
    // The stranger still has what it had, and nothing else.
    let listed = stranger.value("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%stranger%'");
    let others = stranger.value("SELECT count(*) FROM pg_prepared_statements WHERE statement NOT LIKE '%stranger%'");
    assert_eq!(others.as_deref(), Some("0"));
    assert!(listed.is_some_and(|count| count != "0") || turns.is_empty() || !free || turns.len() % 4 == 3);
}

/// What a batch does to names is believed when the server has answered it, in its order.
#[test]
fn what_a_batch_takes_away_is_gone_behind_that_and_what_is_skipped_is_not() {
    let cluster = started();
    let run = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let uses = |name: &str| [bind("", name, &[]), execute("", 0)].concat();
    let named = parse("a", "SELECT 'a'");
    let mut turns = Vec::new();
    for sql in ["DEALLOCATE a", "DEALLOCATE ALL", "DISCARD ALL"] {
        let new = parse("a", "SELECT 'new'");
        for batch in [
            [run(sql), new.clone(), uses("a")].concat(),
            [run(sql), flush(), new, uses("a")].concat(),
            [run(sql), uses("a")].concat(),
            [run(sql), describe(b'S', "a")].concat(),
            [uses("nosuch"), run(sql)].concat(),
            [uses("nosuch"), run("PREPARE a AS SELECT 'other'")].concat(),
            [parse("", sql), bind("", "", &[])].concat(),
        ] {
            turns.push(query("DEALLOCATE ALL"));
            turns.push([named.clone(), sync()].concat());
            turns.push([batch, sync()].concat());
            turns.push([uses("a"), sync()].concat());
            turns.push(query("SELECT 1"));
        }
    }
    same(&cluster, &turns);
}

#[test]
fn sql_statements_follow_their_client() {
    let cluster = started();
    same(
        &cluster,
        &[
            query("PREPARE one (int) AS SELECT $1 + 1 AS a"),
            query("EXECUTE one (1)"),
            query("PREPARE one AS SELECT 2"),
            query("EXECUTE one (2)"),
            query("PREPARE \"Two\" AS SELECT 'mine' AS b"),
            query("EXECUTE \"Two\""),
            query("EXECUTE two"),
            query("EXPLAIN (COSTS OFF) EXECUTE one (3)"),
            query("CREATE TEMP TABLE made ON COMMIT DROP AS EXECUTE one (4)"),
            query("DEALLOCATE one"),
            query("EXECUTE one (5)"),
            query("DEALLOCATE one"),
            query("EXECUTE \"Two\""),
            query("EXECUTE three"),
            query("DEALLOCATE three"),
            query("DEALLOCATE ALL"),
            query("EXECUTE \"Two\""),
        ],
    );
}

#[test]
fn sql_and_the_protocol_share_names() {
    let cluster = started();
    same(
        &cluster,
        &[
            batch(&[parse("one", "SELECT $1::int + 10"), describe(b'S', "one")]),
            query("EXECUTE one (1)"),
            query("PREPARE one AS SELECT 0"),
            query("PREPARE three (int, text) AS SELECT $1 AS x, $2 AS y"),
            batch(&[bind("", "three", &[Some("1"), Some("z")]), describe(b'P', ""), execute("", 0)]),
            batch(&[describe(b'S', "three")]),
            batch(&[parse("three", "SELECT 1")]),
            query("DEALLOCATE one"),
            batch(&[bind("", "one", &[Some("1")]), execute("", 0)]),
            batch(&[close(b'S', "three")]),
            query("EXECUTE three (1, 'x')"),
            batch(&[parse("", "PREPARE \"Two\" AS SELECT 22"), bind("", "", &[]), execute("", 0)]),
            batch(&[parse("", "EXECUTE \"Two\""), bind("", "", &[]), describe(b'P', ""), execute("", 0)]),
            batch(&[parse("run", "EXECUTE \"Two\""), describe(b'S', "run")]),
            batch(&[bind("", "run", &[]), execute("", 0)]),
            batch(&[parse("", "DEALLOCATE \"Two\""), bind("", "", &[]), execute("", 0)]),
            batch(&[bind("", "run", &[]), execute("", 0)]),
            query("EXECUTE \"Two\""),
            batch(&[bind("", "Two", &[]), execute("", 0)]),
        ],
    );
}

#[test]
fn names_do_not_follow_transactions() {
    let cluster = started();
    same(
        &cluster,
        &[
            query("BEGIN"),
            query("PREPARE one AS SELECT 1"),
            query("EXECUTE one"),
            query("ROLLBACK"),
            query("EXECUTE one"),
            query("BEGIN"),
            query("DEALLOCATE one"),
            query("EXECUTE one"),
            query("ROLLBACK"),
            query("EXECUTE one"),
            query("BEGIN"),
            query("PREPARE one AS SELECT 3"),
            batch(&[bind("", "one", &[]), execute("", 0)]),
            batch(&[parse("one", "SELECT 4")]),
            query("PREPARE one AS SELECT 5"),
            query("COMMIT"),
            query("EXECUTE one"),
            query("PREPARE three AS SELECT 1/0 AS x; SELECT 1"),
            query("DEALLOCATE one; PREPARE one AS SELECT 6"),
            query("EXECUTE one"),
            query("PREPARE two AS SELECT nothing"),
            query("EXECUTE two"),
            query("DO $$BEGIN EXECUTE 'PREPARE four AS SELECT 4'; END$$"),
            query("EXECUTE four"),
        ],
    );
}

/// A server is not asked for all statements that a transaction has made by SQL, when they are very many: those that it does
/// not tell of must be nobody's trouble either.
#[test]
fn very_many_statements_of_sql_are_not_in_the_way_of_the_next_client() {
    const MANY: usize = 3_000;
    let cluster = started();
    let pooler = pooled(&cluster);
    let one_text: String = (0..MANY).map(|number| format!("PREPARE s{number} AS SELECT {number};")).collect();
    let in_code = format!(
        "DO $$BEGIN FOR n IN 0..{} LOOP EXECUTE format('PREPARE s%s AS SELECT %s', n, n); END LOOP; END$$",
        MANY - 1
    );
    for makes in [&one_text, &in_code] {
        let mut first = login(pooler.port());
        let answer = first.query(makes);
        assert!(answer.iter().all(|message| message.tag != b'E'), "{:?}", answer.last());
        drop(first);
        let mut next = login(pooler.port());
        for number in (0..MANY).step_by(100) {
            let answer = next.query(&format!("PREPARE s{number} AS SELECT 1"));
            let error = answer.iter().find(|message| message.tag == b'E');
            assert!(error.is_none(), "{error:?}");
        }
    }
}

#[test]
fn the_list_of_statements_is_the_clients_own() {
    let cluster = started();
    let list = "SELECT name, statement, from_sql, parameter_types FROM pg_prepared_statements ORDER BY name";
    same(
        &cluster,
        &[
            query(list),
            query("PREPARE one (int) AS SELECT $1;"),
            batch(&[parse("three", "SELECT $1::text")]),
            query(list),
            query("EXECUTE one (1)"),
            query("DEALLOCATE three"),
            query(list),
            batch(&[parse("", list), bind("", "", &[]), execute("", 0), close(b'S', "one")]),
            query(list),
        ],
    );
}

#[test]
fn what_came_in_one_text_with_a_prepare_is_done_once() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE public.done (x int); GRANT ALL ON done TO PUBLIC").unwrap();
    let pooler = pooled(&cluster);
    let (mut client, mut stranger) = (login(pooler.port()), login(pooler.port()));
    client.query("INSERT INTO done VALUES (1); PREPARE one AS SELECT 1");
    stranger.query("SELECT 1");
    let listed = client.value("SELECT count(*) FROM pg_prepared_statements WHERE from_sql");
    assert_eq!(listed.as_deref(), Some("1"));
    assert_eq!(client.value("SELECT count(*) FROM done").as_deref(), Some("1"));
}

#[test]
fn a_statement_that_cannot_be_prepared_any_more_says_why() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE public.gone (x int); GRANT ALL ON gone TO PUBLIC").unwrap();
    let pooler = pooled(&cluster);
    let (mut client, mut stranger) = (login(pooler.port()), login(pooler.port()));
    client.query("PREPARE one AS SELECT * FROM gone");
    stranger.query("DEALLOCATE ALL");
    cluster.node(0).query("DROP TABLE gone").unwrap();
    for _ in 0..2 {
        let answer = client.query("EXECUTE one");
        assert_eq!(answer[0].sqlstate(), "42P01", "{answer:?}");
    }
    client.begin();
    assert_eq!(client.query("EXECUTE one")[0].sqlstate(), "42P01");
    assert_eq!(client.query("EXECUTE one")[0].sqlstate(), "25P02");
    client.query("ROLLBACK");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
}

/// The server knows names in its own encoding, clients each in theirs.
#[test]
fn nobody_finds_a_strangers_statement_by_its_name_in_another_encoding() {
    let cluster = started();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "3").start();
    let (mut client, mut stranger) = (login(pooler.port()), login(pooler.port()));
    stranger.query("SET client_encoding TO LATIN1");
    client.query("PREPARE \"é\" AS SELECT 'mine'");
    client.send(&batch(&[parse("ü", "SELECT 'mine'")]));
    client.read_until_ready();
    for (mine, theirs) in [("é", b"EXECUTE \"\xe9\"\0"), ("ü", b"EXECUTE \"\xfc\"\0")] {
        for _ in 0..2 {
            assert_eq!(client.value(&format!("EXECUTE \"{mine}\"")).as_deref(), Some("mine"));
            stranger.send(&any(b'Q', theirs));
            assert_eq!(stranger.read_until_ready()[0].sqlstate(), "26000", "{mine}");
        }
    }
    client.query("DISCARD ALL");
    stranger.send(&any(b'Q', b"PREPARE \"\xe9\" AS SELECT 1\0"));
    assert_eq!(stranger.read_until_ready()[0].text(), "PREPARE");
}

#[test]
fn sql_statements_do_not_hold_the_server_connection() {
    let cluster = started();
    let pooler = pooled(&cluster);
    let mut clients: Vec<_> = (0..5).map(|_| login(pooler.port())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.query(&format!("PREPARE one AS SELECT {number}"));
    }
    for _ in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.value("EXECUTE one"), Some(number.to_string()));
        }
    }
}

/// The tags of the messages, and the code of an error.
fn outline(client: &mut RawClient) -> String {
    let answer = client.read_until_ready();
    let told = answer.iter().map(|message| match message.tag {
        b'E' => format!("E{} ", message.sqlstate()),
        tag => char::from(tag).to_string(),
    });
    told.collect()
}

fn run(client: &mut RawClient, messages: &[Vec<u8>]) -> String {
    client.send(&batch(messages));
    outline(client)
}

/// A statement of two clients on one server connection, and what they see when its table changes.
struct Changing {
    cluster: LabCluster,
    pooler: Pooler,
}

impl Changing {
    fn start() -> Changing {
        let cluster = started();
        cluster
            .node(0)
            .query("CREATE TABLE public.t (x int); GRANT ALL ON t TO PUBLIC; INSERT INTO t VALUES (1)")
            .unwrap();
        let pooler = pooled(&cluster);
        Changing { cluster, pooler }
    }

    fn alter(&self) {
        self.cluster.node(0).query("ALTER TABLE t ADD y text DEFAULT 'new'").unwrap();
    }
}

#[test]
fn a_plan_that_gives_other_columns_is_made_anew_for_a_client_that_asks_for_them() {
    let changing = Changing::start();
    let mut client = login(changing.pooler.port());
    assert_eq!(run(&mut client, &[parse("s", "SELECT * FROM t")]), "1Z");
    let each = [bind("", "s", &[]), describe(b'P', ""), execute("", 0)];
    assert_eq!(run(&mut client, &each), "2TDCZ");
    changing.alter();
    // As libpq does: the columns are described each time.
    assert_eq!(run(&mut client, &each), "2TDCZ");
    changing.cluster.node(0).query("ALTER TABLE t DROP y").unwrap();
    client.begin();
    assert_eq!(run(&mut client, &each), "E0A000 Z");
    client.query("ROLLBACK");
    assert_eq!(run(&mut client, &each), "2TDCZ");
}

#[test]
fn a_client_that_was_told_of_columns_never_gets_others() {
    let changing = Changing::start();
    let (mut client, mut other) = (login(changing.pooler.port()), login(changing.pooler.port()));
    let each = [bind("", "s", &[]), execute("", 0)];
    assert_eq!(run(&mut client, &[parse("s", "SELECT * FROM t"), describe(b'S', "s")]), "1tTZ");
    assert_eq!(run(&mut client, &each), "2DCZ");
    changing.alter();
    // Another client has it prepared anew: the same server connection gives new columns now.
    assert_eq!(run(&mut other, &[parse("mine", "SELECT * FROM t"), describe(b'S', "mine")]), "1tTZ");
    assert_eq!(run(&mut other, &[bind("", "mine", &[]), execute("", 0)]), "2DCZ");
    for _ in 0..2 {
        assert_eq!(run(&mut client, &each), "E0A000 Z");
    }
    client.begin();
    assert_eq!(run(&mut client, &each), "E0A000 Z");
    assert_eq!(client.query("SELECT 1")[0].sqlstate(), "25P02");
    client.query("ROLLBACK");
    assert_eq!(run(&mut client, &[close(b'S', "s"), parse("s", "SELECT * FROM t"), describe(b'S', "s")]), "31tTZ");
    assert_eq!(run(&mut client, &each), "2DCZ");
    assert_eq!(run(&mut other, &[bind("", "mine", &[]), execute("", 0)]), "2DCZ");
}

/// A Bind with one parameter in binary format.
fn bind_binary(statement: &str, value: &[u8]) -> Vec<u8> {
    let names = [b"\0", statement.as_bytes(), b"\0"].concat();
    let value = [&(value.len() as u32).to_be_bytes(), value].concat();
    let body = [&names[..], &[0, 1, 0, 1, 0, 1], &value, &[0, 0]].concat();
    [&b"B"[..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}

/// What a client sends is taken for what it was told that it should be, whatever has become of the table, and whoever
/// has prepared the same text on a server connection before or since.
#[test]
fn a_client_that_was_told_of_parameter_types_keeps_them() {
    let Changing { cluster, .. } = Changing::start();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "2").start();
    let [mut narrow, mut wide, mut one, mut two] = [(); 4].map(|()| login(pooler.port()));
    let prepare = [parse("s", "INSERT INTO t VALUES ($1)"), describe(b'S', "s")];
    let insert_narrow = |value: i32| [bind_binary("s", &value.to_be_bytes()), execute("", 0)];
    let insert_wide = |value: i64| [bind_binary("s", &value.to_be_bytes()), execute("", 0)];
    one.begin();
    assert_eq!(run(&mut narrow, &prepare), "1tnZ");
    assert_eq!(run(&mut narrow, &insert_narrow(2)), "2CZ");
    two.begin();
    one.query("COMMIT");
    // Both server connections have prepared it for a column of four bytes.
    assert_eq!(run(&mut narrow, &insert_narrow(3)), "2CZ");
    two.query("COMMIT");
    cluster.node(0).query("ALTER TABLE t ALTER x TYPE bigint").unwrap();
    one.begin();
    assert_eq!(run(&mut wide, &prepare), "1tnZ");
    for (mut held, value) in [(one, 4), (two, 6)] {
        assert_eq!(run(&mut wide, &insert_wide(value)), "2CZ");
        assert_eq!(run(&mut narrow, &insert_narrow(value as i32 + 1)), "2CZ");
        held.query("COMMIT");
    }
    let numbers = wide.value("SELECT string_agg(x::text, ' ' ORDER BY x) FROM t");
    assert_eq!(numbers.as_deref(), Some("1 2 3 4 5 6 7"));
    // What cannot be stored any more is refused as on a direct connection.
    cluster.node(0).query("ALTER TABLE t ALTER x TYPE date USING now()").unwrap();
    assert_eq!(run(&mut wide, &[close(b'S', "s"), prepare.concat()]), "31tnZ");
    assert_eq!(run(&mut narrow, &insert_narrow(8)), "E42804 Z");
}

/// Drivers that cache no statements parse and describe the unnamed one in one batch, and bind it in the next: that may be
/// on a server connection where it was parsed at another time, or gets parsed only then.
#[test]
fn an_unnamed_statement_keeps_its_parameter_types() {
    let Changing { cluster, .. } = Changing::start();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "2").start();
    let [mut narrow, mut wide, mut one, mut two] = [(); 4].map(|()| login(pooler.port()));
    let prepare = [parse("", "INSERT INTO t VALUES ($1)"), describe(b'S', "")];
    let insert_narrow = |value: i32| [bind_binary("", &value.to_be_bytes()), execute("", 0)];
    let insert_wide = |value: i64| [bind_binary("", &value.to_be_bytes()), execute("", 0)];
    one.begin();
    assert_eq!(run(&mut narrow, &prepare), "1tnZ");
    two.begin();
    one.query("COMMIT");
    assert_eq!(run(&mut narrow, &prepare), "1tnZ");
    assert_eq!(run(&mut narrow, &insert_narrow(2)), "2CZ");
    cluster.node(0).query("ALTER TABLE t ALTER x TYPE bigint").unwrap();
    assert_eq!(run(&mut wide, &prepare), "1tnZ");
    one.begin();
    two.query("COMMIT");
    // This one knows the text from before.
    assert_eq!(run(&mut wide, &insert_wide(3)), "2CZ");
    // This one parses it only now.
    assert_eq!(run(&mut narrow, &insert_narrow(4)), "2CZ");
    one.query("COMMIT");
    let numbers = wide.value("SELECT string_agg(x::text, ' ' ORDER BY x) FROM t");
    assert_eq!(numbers.as_deref(), Some("1 2 3 4"));
}

/// Two server connections hold a statement from before its table changed. A client that prepares it afterwards is
/// served by both as if it were alone, also within a transaction, whether it has asked for the columns or not.
#[test]
fn what_a_server_prepared_before_a_change_is_nothing_to_a_client_that_prepared_after_it() {
    for asks in [true, false] {
        let Changing { cluster, .. } = Changing::start();
        let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "2").start();
        let [mut old, mut one, mut two, mut client] = [(); 4].map(|()| login(pooler.port()));
        let mut prepare = vec![parse("s", "SELECT * FROM t")];
        prepare.extend(asks.then(|| describe(b'S', "s")));
        let each = [bind("", "s", &[]), execute("", 0)];
        let sql = ["PREPARE q AS SELECT * FROM t", "EXECUTE q"].map(query);
        one.begin();
        run(&mut old, &prepare);
        run(&mut old, &each);
        old.send(&sql.concat());
        old.read_until_ready();
        assert_eq!(outline(&mut old), "TDCZ");
        two.begin();
        one.query("COMMIT");
        run(&mut old, &each);
        old.send(&sql[1]);
        assert_eq!(outline(&mut old), "TDCZ");
        cluster.node(0).query("ALTER TABLE t ADD y text DEFAULT 'new'").unwrap();
        run(&mut client, &prepare);
        client.send(&sql[0]);
        assert_eq!(outline(&mut client), "CZ");
        assert_eq!(run(&mut client, &each), "2DCZ");
        one.begin();
        two.query("COMMIT");
        client.begin();
        assert_eq!(run(&mut client, &each), "2DCZ", "asks: {asks}");
        client.send(&sql[1]);
        assert_eq!(outline(&mut client), "TDCZ", "asks: {asks}");
        client.query("COMMIT");
    }
}

/// Its last batch has to wait in the middle, until the server has said what a statement gives.
#[test]
fn the_last_batch_of_a_client_that_has_left_is_done() {
    let changing = Changing::start();
    let (mut client, mut other) = (login(changing.pooler.port()), login(changing.pooler.port()));
    run(&mut client, &[parse("s", "SELECT * FROM t"), describe(b'S', "s")]);
    run(&mut other, &[parse("s", "SELECT * FROM t")]);
    let insert = [parse("", "INSERT INTO t VALUES (2)"), bind("", "", &[]), execute("", 0)].concat();
    client.send(&batch(&[insert, bind("", "s", &[]), execute("", 0)]));
    client.finish_sending();
    drop(client);
    assert_eq!(other.value("SELECT count(*) FROM t").as_deref(), Some("2"));
}

/// Drivers parse and describe in one round trip, and bind in the next.
#[test]
fn an_unnamed_statement_that_is_too_long_to_be_held_outlives_its_sync() {
    let cluster = started();
    let pooler = pooled(&cluster);
    let (mut client, mut other) = (login(pooler.port()), login(pooler.port()));
    let long = format!("SELECT 1, '{}'", "x".repeat(2 << 20));
    for _ in 0..2 {
        assert_eq!(run(&mut client, &[parse("", &long), describe(b'S', "")]), "1tTZ");
        assert_eq!(run(&mut client, &[bind("", "", &[]), execute("", 0)]), "2DCZ");
        assert_eq!(other.value("SELECT 1").as_deref(), Some("1"), "it is free again");
    }
}

#[test]
fn statements_that_the_server_has_lost_are_prepared_again() {
    let changing = Changing::start();
    let mut client = login(changing.pooler.port());
    assert_eq!(run(&mut client, &[parse("s", "SELECT * FROM t")]), "1Z");
    client.query("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$");
    assert_eq!(run(&mut client, &[bind("", "s", &[]), execute("", 0)]), "2DCZ");
    client.query("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$");
    assert_eq!(run(&mut client, &[describe(b'S', "s")]), "tTZ");
}

#[test]
fn texts_of_prepared_statements_are_bounded_in_bytes() {
    let cluster = started();
    let pooler = Config::of_cluster(&cluster).set("auth.method", "'trust'").set("pool.size", "1").start();
    let mut client = login(pooler.port());
    let padding = "x".repeat(1_000_000);
    let prepare = |client: &mut RawClient, number: usize| {
        let message = parse(&format!("s{number}"), &format!("SELECT {number} /* {number} {padding} */"));
        client.send(&[message, sync()].concat());
    };
    for number in 0..40 {
        prepare(&mut client, number);
        assert_eq!(client.read_until_ready()[0].tag, b'1');
    }
    // What is there for all clients is not listed for one, unless in a text that is put together there.
    let sum = "SELECT (xpath('//s/text()', query_to_xml('SELECT sum(length(statement)) AS s FROM pg_prepared_' || \
               'statements', true, false, '')))[1]::text";
    let held = login(pooler.port()).value(sum).unwrap();
    assert!((10_000_000..=16 << 20).contains(&held.parse::<usize>().unwrap()), "{held}");
    // The first one has made room for others, and is prepared again.
    client.send(&[bind("", "s0", &[]), execute("", 0), sync()].concat());
    assert!(
        client.read_until_ready().iter().any(|message| message.tag == b'D' && message.values() == [Some("0".into())])
    );
    for number in 40..67 {
        prepare(&mut client, number);
        assert_eq!(client.read_until_ready()[0].tag, b'1');
    }
    prepare(&mut client, 67);
    let end = client.read_to_end();
    assert_eq!(end[0].sqlstate(), "54000");
}
