//! The protocol through Poolhouse: every script is also played to the server itself, and the answers must be the same,
//! message by message. All of these run on every version of PostgreSQL.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::kit::{
    AtEnd, Config, Cut, Direction, Fault, LabCluster, PATIENCE, RawClient, cluster,
    messages::{
        any, bind, cancel_request, close, copy_data, copy_done, copy_fail, describe, execute, flush, parse, query,
        ssl_request, startup, sync, terminate,
    },
    wait_until,
};

/// Bytes to send, and the tags of the messages to read up to, one after the other.
struct Step(Vec<u8>, &'static [u8]);

fn step(messages: &[Vec<u8>], until: &'static [u8]) -> Step {
    Step(messages.concat(), until)
}

fn ask(sql: &str) -> Step {
    step(&[query(sql)], b"Z")
}

fn started() -> LabCluster {
    cluster().trust_user("app").start().unwrap()
}

/// One server connection for all clients, unless a test says otherwise.
fn config(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).set("auth.method", "'trust'").set("pool.size", "1")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "")
}

/// What came back, one line for each message.
fn play(client: &mut RawClient, script: &[Step]) -> Vec<String> {
    let mut answers = Vec::new();
    for Step(bytes, until) in script {
        client.send(bytes);
        for tag in *until {
            loop {
                let message = client.read();
                answers.push(format!("{} {}", char::from(message.tag), message.body.escape_ascii()));
                if message.tag == *tag {
                    break;
                }
                assert!(message.tag != b'Z' || !until.is_empty(), "ready too early: {answers:#?}");
            }
        }
    }
    answers
}

/// Plays a script to the server itself and through Poolhouse, and then asks both whether all has been answered.
#[track_caller]
fn same_at(direct: u16, pooled: u16, script: &[Step]) {
    let last = [ask("SELECT 'the end', current_setting('work_mem')")];
    let mut answers = [direct, pooled].map(|port| {
        let mut client = login(port);
        let mut answers = play(&mut client, script);
        answers.extend(play(&mut client, &last));
        client.send(&terminate());
        assert!(client.read_to_end().is_empty());
        answers
    });
    let pooled = std::mem::take(&mut answers[1]);
    assert_eq!(pooled, answers[0], "through Poolhouse (left) and directly (right)");
}

/// Each script on a new connection.
#[track_caller]
fn same(scripts: &[&[Step]]) {
    let cluster = started();
    let pooler = config(&cluster).start();
    for script in scripts {
        same_at(cluster.node(0).port(), pooler.port(), script);
    }
}

/// Parse, Bind, Describe, Execute of the unnamed statement.
fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), describe(b'P', ""), execute("", 0)].concat()
}

#[test]
fn protocol_simple_queries() {
    same(&[&[
        ask(""),
        ask(" ; -- nothing"),
        ask("SELECT 1, NULL, ''"),
        ask("SELECT 1; SELECT 2; SELECT x FROM generate_series(1, 3) x"),
        ask("SELECT 1; SELECT 1/0; SELECT 2"),
        ask("no such statement"),
        ask("SELECT 1; BEGIN; SELECT 2"),
        ask("SELECT 3; COMMIT; SELECT 4"),
        ask("BEGIN; SELECT 1; COMMIT; SELECT 2; BEGIN; SELECT nothing"),
        ask("SELECT 1"),
        ask("COMMIT"),
        ask("COMMIT"),
        ask("DO $$BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING HINT = 'a hint'; END$$"),
        ask("BEGIN; SAVEPOINT a; SELECT 1/0"),
        ask("ROLLBACK TO a"),
        ask("COMMIT AND CHAIN"),
        ask("ROLLBACK"),
        step(&[query("SELECT 1"), query("BEGIN"), query("SELECT 1/0"), query("ROLLBACK"), query("SELECT 2")], b"ZZZZZ"),
        step(&[query("SELECT repeat('x', 300000)")], b"Z"),
    ]]);
}

#[test]
fn protocol_extended_queries_and_pipelines() {
    same(&[
        &[
            step(&[parse("", "SELECT $1::int + 1"), describe(b'S', ""), bind("", "", &[Some("41")])], b""),
            step(&[describe(b'P', ""), execute("", 0), sync()], b"Z"),
            step(&[parse("", ""), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()], b"Z"),
            step(&[extended("SELECT NULL"), flush()], b"C"),
            step(&[flush(), sync()], b"Z"),
            step(&[sync(), sync(), sync()], b"ZZZ"),
        ],
        // Errors in the middle, out of transactions and in one; 25P02 until its end.
        &[
            step(&[extended("SELECT 1"), sync(), extended("SELECT 1/0"), extended("SELECT 2"), sync()], b"ZZ"),
            step(
                &[extended("BEGIN"), sync(), extended("SELECT nothing"), sync(), extended("SELECT 3"), sync()],
                b"ZZZ",
            ),
            step(&[extended("ROLLBACK"), extended("SELECT 4"), sync()], b"Z"),
            step(&[bind("", "", &[Some("too many")]), execute("", 0), sync()], b"Z"),
            step(&[parse("", "SELECT 1"), bind("", "", &[]), execute("other", 0), sync()], b"Z"),
            step(&[extended("SELECT 1"), query("SELECT 2"), extended("SELECT 3"), sync()], b"ZZ"),
            step(
                &[parse("", "SELECT 1/0"), bind("", "", &[]), execute("", 0), query("SELECT 'skipped'"), sync()],
                b"Z",
            ),
            step(&[extended("BEGIN"), extended("SELECT 1"), extended("COMMIT"), extended("SELECT 2"), sync()], b"Z"),
        ],
    ]);
}

#[test]
fn protocol_portals_have_row_limits_and_names() {
    let rows = "SELECT x FROM generate_series(1, 5) x";
    same(&[
        &[
            ask("BEGIN"),
            step(&[parse("s", rows), describe(b'S', "s"), bind("p", "s", &[]), execute("p", 2), flush()], b"s"),
            step(&[execute("p", 2), sync()], b"Z"),
            step(&[bind("q", "s", &[]), execute("q", 1), execute("p", 0), execute("p", 0), sync()], b"Z"),
            step(&[execute("q", 1), close(b'P', "q"), sync()], b"Z"),
            step(&[execute("q", 1), sync()], b"Z"),
            ask("ROLLBACK"),
            step(&[describe(b'P', "p"), sync()], b"Z"),
            step(&[close(b'P', "never"), close(b'S', "never"), close(b'S', "s"), sync()], b"Z"),
            step(&[bind("", "s", &[]), sync()], b"Z"),
        ],
        // A portal ends with the implicit transaction of its Sync.
        &[
            step(&[parse("s", rows), bind("p", "s", &[]), execute("p", 2), sync()], b"Z"),
            step(&[execute("p", 2), sync()], b"Z"),
            step(&[bind("p", "s", &[]), bind("p", "s", &[]), sync()], b"Z"),
        ],
    ]);
}

#[test]
fn protocol_copy() {
    let table = || ask("BEGIN; CREATE TEMP TABLE t (x int) ON COMMIT DROP");
    let from = || query("COPY t FROM STDIN");
    let unnamed = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    same(&[
        &[
            table(),
            step(&[from()], b"G"),
            step(&[copy_data(b"1\n2"), copy_data(b"\n3\n"), flush(), copy_done()], b"Z"),
            ask("COPY t TO STDOUT; SELECT 1"),
            step(&[from(), copy_data(b"4\n"), copy_done(), query("SELECT count(*) FROM t")], b"ZZ"),
            step(&[unnamed("COPY t TO STDOUT"), sync()], b"Z"),
            step(&[unnamed("COPY t FROM STDIN"), copy_data(b"5\n"), copy_done(), sync()], b"Z"),
            // The server ignores a Sync in the middle of a COPY.
            step(&[unnamed("COPY t FROM STDIN"), sync(), copy_data(b"6\n"), copy_done(), sync()], b"Z"),
            ask("SELECT x + 0 FROM t"),
            ask("COMMIT"),
        ],
        &[table(), step(&[from(), copy_data(b"1\n"), copy_fail("enough")], b"Z"), ask("ROLLBACK")],
        // What still arrives after an error is thrown away.
        &[
            table(),
            step(&[from(), copy_data(b"wrong\n")], b"G"),
            step(&[copy_data(b"1\n"), copy_data(b"2\n"), copy_done(), query("SELECT 1")], b"ZZ"),
            ask("ROLLBACK"),
            step(&[copy_data(b"late\n"), copy_fail("late"), query("SELECT 2")], b"Z"),
        ],
        &[
            table(),
            step(&[unnamed("COPY t FROM STDIN"), copy_data(b"wrong\n"), copy_done(), sync()], b"Z"),
            step(&[unnamed("SELECT 1"), sync()], b"Z"),
            ask("ROLLBACK"),
        ],
        &[
            table(),
            step(&[unnamed("COPY t FROM STDIN"), copy_fail("why"), sync(), unnamed("SELECT 1"), sync()], b"ZZ"),
            ask("ROLLBACK"),
            ask("COPY (SELECT 1/x FROM generate_series(1, 0, -1) x) TO STDOUT"),
        ],
    ]);
}

#[test]
fn protocol_function_calls() {
    // int4abs has the number 1397: one argument and the result as text.
    let call = |argument: &[u8]| {
        let length = u32::try_from(argument.len()).unwrap().to_be_bytes();
        any(b'F', &[&1397_u32.to_be_bytes()[..], &[0, 0, 0, 1], &length, argument, &[0, 0]].concat())
    };
    let unknown = any(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    same(&[&[
        step(&[call(b"-5")], b"Z"),
        step(&[call(b"no number"), call(b"7")], b"ZZ"),
        step(&[unknown], b"Z"),
        ask("BEGIN"),
        step(&[call(b"-5")], b"Z"),
        step(&[call(b"bad")], b"Z"),
        step(&[call(b"-5")], b"Z"),
        ask("ROLLBACK"),
    ]]);
}

#[test]
fn protocol_parameter_changes_are_reported() {
    same(&[
        &[
            ask("SET application_name = 'one'"),
            ask("SET DateStyle = 'German'; SET TimeZone = 'UTC'"),
            ask("SELECT current_date > '01.01.2000'"),
            ask("BEGIN; SET application_name = 'two'"),
            ask("SHOW application_name"),
            ask("ROLLBACK"),
            ask("SHOW application_name"),
            ask("BEGIN; SET LOCAL application_name = 'three'"),
            ask("COMMIT"),
            ask("SELECT set_config('application_name', 'four', false)"),
            ask("SHOW application_name"),
            step(
                &[extended("SET application_name = 'five'"), sync(), extended("SHOW application_name"), sync()],
                b"ZZ",
            ),
            ask("SET client_encoding = 'latin1'"),
            ask("SHOW client_encoding"),
            ask("RESET application_name"),
            ask("RESET ALL"),
            ask("SHOW DateStyle"),
        ],
        &[
            ask("SET work_mem = '5MB'; SELECT 1/0"),
            ask("SHOW work_mem"),
            ask("SET work_mem = '6MB'"),
            ask("SET no_such_setting = 1"),
            ask("SHOW work_mem"),
            ask("DISCARD ALL"),
            ask("SHOW work_mem"),
        ],
    ]);
}

#[test]
fn protocol_prepared_statements() {
    let run = |name: &str| [bind("", name, &[]), execute("", 0), sync()].concat();
    let once = |name: &str| step(&[run(name)], b"Z");
    same(&[
        &[
            step(&[parse("a", "SELECT 'a'"), parse("b", "SELECT 'b'"), sync()], b"Z"),
            step(&[run("a"), run("b"), run("a")], b"ZZZ"),
            step(&[parse("a", "SELECT 'again'"), sync()], b"Z"),
            step(&[close(b'S', "a"), parse("a", "SELECT 'new'"), sync(), run("a")], b"ZZ"),
            once("Unknown Name"),
            step(&[describe(b'S', "Unknown"), sync()], b"Z"),
            step(&[parse("bad", "SELECT nothing"), sync(), run("bad")], b"ZZ"),
            step(&[parse("bad", "SELECT 'good now'"), sync(), run("bad")], b"ZZ"),
            ask("DEALLOCATE ALL"),
            once("a"),
            step(&[parse("a", "SELECT 'third'"), sync(), run("a")], b"ZZ"),
            ask("DISCARD ALL"),
            once("a"),
        ],
        // A Parse in a transaction that is rolled back stays; an error before it makes it skipped.
        &[
            ask("BEGIN"),
            step(&[parse("kept", "SELECT 'kept'"), sync()], b"Z"),
            ask("ROLLBACK"),
            once("kept"),
            step(&[extended("SELECT 1/0"), parse("skipped", "SELECT 1"), sync(), run("skipped")], b"ZZ"),
            step(&[parse("", "SELECT 'unnamed'"), sync(), run("")], b"ZZ"),
            ask("SELECT 1"),
            once(""),
        ],
        &[
            ask("PREPARE sql AS SELECT 'sql'"),
            ask("EXECUTE sql"),
            ask("DEALLOCATE sql"),
            ask("EXECUTE sql"),
            ask("EXECUTE unknown"),
        ],
    ]);
}

fn is_ready_with(client: &mut RawClient, bytes: &[u8], value: &str) -> bool {
    client.send(bytes);
    let answer = client.read_until_ready();
    let row = answer.iter().find(|message| message.tag == b'D');
    let row = row.unwrap_or_else(|| panic!("no row {value}: {answer:?}"));
    row.values()[0].as_deref() == Some(value)
}

/// A client that holds that one of two server connections in a transaction.
fn hold(port: u16, server: &Option<String>) -> RawClient {
    let mut holders = [login(port), login(port)];
    let servers = holders.each_mut().map(|holder| {
        holder.begin();
        holder.server_process()
    });
    let [mut first, mut second] = holders;
    let [of_first, of_second] = servers;
    assert_ne!(of_first, of_second);
    if of_first == *server { (second.query("COMMIT"), first).1 } else { (first.query("COMMIT"), second).1 }
}

#[test]
fn protocol_statement_names_belong_to_their_client() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "2").set("pool.prepared_statements", "2").start();
    let mut clients: Vec<RawClient> = (0..3).map(|_| login(pooler.port())).collect();
    let run = |name: &str| [bind("", name, &[]), execute("", 0), sync()].concat();
    for (number, client) in clients.iter_mut().enumerate() {
        let prepare: Vec<u8> =
            (0..4).flat_map(|n| parse(&format!("s{n}"), &format!("SELECT '{number}/{n}'"))).collect();
        client.send(&[prepare, sync()].concat());
        assert!(client.read_until_ready().iter().all(|message| message.tag != b'E'));
    }
    for round in 0..3 {
        for n in 0..4 {
            for (number, client) in clients.iter_mut().enumerate() {
                assert!(is_ready_with(client, &run(&format!("s{n}")), &format!("{number}/{n}")), "round {round}");
            }
        }
    }
    // The unnamed statement outlives other clients' use of the server.
    let (first, others) = clients.split_first_mut().unwrap();
    first.send(&[parse("", "SELECT 'mine'"), sync()].concat());
    first.read_until_ready();
    others[0].send(&[parse("", "SELECT 'another'"), sync()].concat());
    others[0].read_until_ready();
    // And so do names, on a server connection that has never seen them.
    for _ in 0..2 {
        let before = first.server_process();
        let holder = hold(pooler.port(), &before);
        assert!(is_ready_with(first, &run("s1"), "0/1"));
        assert_ne!(before, first.server_process());
        drop(holder);
    }

    first.send(&[parse("", "SELECT 'mine'"), sync()].concat());
    first.read_until_ready();
    others[0].send(&[parse("", "SELECT 'another'"), sync()].concat());
    others[0].read_until_ready();
    assert!(is_ready_with(first, &run(""), "mine"));
    assert!(is_ready_with(&mut others[0], &run(""), "another"));
    first.query("DEALLOCATE ALL");
    assert!(is_ready_with(&mut others[1], &run("s0"), "2/0"), "another client's names stay");
    first.send(&run("s0"));
    let error = first.read_until_ready().remove(0);
    assert_eq!(error.sqlstate(), "26000");
    assert!(error.field(b'M').unwrap().contains("\"s0\""), "{error:?}");
}

#[test]
fn protocol_versions_and_options_are_negotiated() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let port = pooler.port();
    let begin = |version, more: &[(&str, &str)]| {
        let mut client = RawClient::connect(port);
        let parameters = [&[("user", "app"), ("database", "postgres")], more].concat();
        client.send(&startup(version, &parameters));
        let answer = client.finish_login("app", "");
        assert_eq!(answer.last().unwrap().tag, b'Z', "{answer:?}");
        (client, answer)
    };
    let (client, answer) = begin(0x30000, &[]);
    assert!(answer.iter().all(|message| message.tag != b'v'));
    assert_eq!(client.cancel_key.unwrap().len(), 8);
    let (client, answer) = begin(0x30002, &[]);
    assert!(answer.iter().all(|message| message.tag != b'v'));
    assert_eq!(client.cancel_key.unwrap().len(), 4 + 32);
    let (mut client, answer) = begin(0x30009, &[("_pq_.strange", "1")]);
    assert_eq!((answer[0].tag, &answer[0].body[..]), (b'v', &b"\0\x03\0\x02\0\0\0\x01_pq_.strange\0"[..]));
    assert_eq!(client.value("SELECT 'served'").as_deref(), Some("served"));
    // Encryption is not to be had: N, and then a login in clear.
    let mut client = RawClient::connect(port);
    client.send(&ssl_request());
    assert_eq!(client.read_byte(), b'N');
    client.send(&[8_u32.to_be_bytes(), 80_877_104_u32.to_be_bytes()].concat());
    assert_eq!(client.read_byte(), b'N');
    client.send(&startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    assert_eq!(client.finish_login("app", "").last().unwrap().tag, b'Z');
}

#[test]
fn protocol_startup_parameters_reach_the_server() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let parameters = [
        ("user", "app"),
        ("database", "postgres"),
        ("client_encoding", "latin1"),
        ("application_name", "with space"),
        ("options", "-c work_mem=7MB --statement-timeout=12345 -c search_path=a,\\ b"),
        ("TimeZone", "utc"),
        ("extra.setting", "kept"),
    ];
    let begin = |port| {
        let mut client = RawClient::connect(port);
        client.send(&startup(0x30000, &parameters));
        let answer = client.finish_login("app", "");
        let mut reported: Vec<String> = answer
            .iter()
            .filter(|message| message.tag == b'S')
            .map(|message| message.body.escape_ascii().to_string())
            .collect();
        reported.sort();
        (client, reported)
    };
    let (mut direct, expected) = begin(cluster.node(0).port());
    for _ in 0..2 {
        let (mut client, reported) = begin(pooler.port());
        assert_eq!(reported, expected);
        // Somebody else uses the only server connection in between.
        assert_eq!(login(pooler.port()).value("SHOW work_mem").as_deref(), Some("4MB"));
        for name in [
            "work_mem",
            "statement_timeout",
            "search_path",
            "client_encoding",
            "application_name",
            "TimeZone",
            "extra.setting",
        ] {
            let show = format!("SHOW {name}");
            assert_eq!(client.value(&show), direct.value(&show), "{name}");
        }
    }
    let refused = |port| {
        let mut client = RawClient::connect(port);
        client.send(&startup(0x30000, &[("user", "app"), ("database", "postgres"), ("work_mem", "much")]));
        client.finish_login("app", "").pop().unwrap().sqlstate()
    };
    assert_eq!(refused(pooler.port()), refused(cluster.node(0).port()));
}

/// Waits until a statement runs on the server.
fn wait_for_active(cluster: &LabCluster, sql: &str) {
    let running = format!("SELECT 1 FROM pg_stat_activity WHERE query = '{sql}' AND state = 'active'");
    wait_until("the statement runs", PATIENCE, || !cluster.node(0).query(&running).unwrap().is_empty());
}

/// Returns when the other side has taken the request.
fn cancel(port: u16, key: &[u8]) {
    let mut canceller = RawClient::connect(port);
    canceller.send(&cancel_request(key));
    assert!(canceller.read_to_end().is_empty());
}

fn error_in(client: &mut RawClient) -> Option<String> {
    let answer = client.read_until_ready();
    answer.iter().find(|message| message.tag == b'E').map(|message| message.sqlstate())
}

#[test]
fn protocol_cancel_requests() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let port = pooler.port();
    for version in [0x30000, 0x30002] {
        let mut client = RawClient::connect(port);
        client.send(&startup(version, &[("user", "app"), ("database", "postgres")]));
        client.finish_login("app", "");
        let key = client.cancel_key.clone().unwrap();
        client.send(&query("SELECT pg_sleep(60)"));
        wait_for_active(&cluster, "SELECT pg_sleep(60)");
        cancel(port, &key);
        assert_eq!(error_in(&mut client).as_deref(), Some("57014"));
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));

        // A wrong key, a late one, and one whose client does nothing hit nobody.
        let mut other = login(port);
        other.send(&query("SELECT pg_sleep(1)"));
        wait_for_active(&cluster, "SELECT pg_sleep(1)");
        let mut wrong = key.clone();
        *wrong.last_mut().unwrap() ^= 1;
        for key in [&wrong, &key, &[key.clone(), vec![0; 4]].concat()] {
            cancel(port, key);
        }
        assert_eq!(error_in(&mut other), None);
        assert_eq!(client.value("SELECT 'on'").as_deref(), Some("on"));
    }
}

#[test]
fn protocol_cancel_of_a_client_that_waits_for_a_server() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let port = pooler.port();
    let (mut holder, mut waiter) = (login(port), login(port));
    holder.begin();
    holder.query("SELECT 1");
    let key = waiter.cancel_key.clone().unwrap();
    waiter.send(&query("SELECT 'never run'"));
    let answered = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = AtEnd(&answered);
        // Nobody can see from outside when it waits, so it is cancelled until it answers.
        scope.spawn(|| {
            while !answered.load(Ordering::Relaxed) {
                cancel(port, &key);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let error = error_in(&mut waiter);
        answered.store(true, Ordering::Relaxed);
        assert_eq!(error.as_deref(), Some("57014"));
    });
    assert_eq!(holder.value("SELECT 'mine'").as_deref(), Some("mine"));
    holder.query("COMMIT");
    assert_eq!(waiter.value("SELECT 'served'").as_deref(), Some("served"));
}

#[test]
fn protocol_settings_follow_their_client_and_nobody_else() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "2").start();
    let (mut first, mut second) = (login(pooler.port()), login(pooler.port()));
    first.query("SET work_mem = '5MB'");
    first.query("SET search_path = 'first', public");
    second.query("SET work_mem = '9MB'");
    let before = first.server_process();
    let holder = hold(pooler.port(), &before);
    assert_ne!(first.server_process(), before);
    assert_eq!(first.value("SHOW work_mem").as_deref(), Some("5MB"));
    assert_eq!(first.value("SHOW search_path").as_deref(), Some("first, public"));
    assert_eq!(second.value("SHOW work_mem").as_deref(), Some("9MB"));
    drop(holder);
    second.begin();
    second.query("SET work_mem = '10MB'");
    assert_eq!(second.value("SHOW work_mem").as_deref(), Some("10MB"));
    second.query("ROLLBACK");
    for _ in 0..3 {
        assert_eq!(second.value("SHOW work_mem").as_deref(), Some("9MB"));
        assert_eq!(first.value("SHOW work_mem").as_deref(), Some("5MB"));
        let mut stranger = login(pooler.port());
        assert_eq!(stranger.value("SHOW work_mem").as_deref(), Some("4MB"));
        assert_eq!(stranger.value("SHOW search_path").as_deref(), Some("\"$user\", public"));
    }
}

#[test]
fn protocol_state_that_pins_is_gone_with_its_client() {
    let cluster = started();
    let pooler = config(&cluster).set("pool.size", "2").start();
    let mut owner = login(pooler.port());
    owner.query("CREATE TEMP TABLE mine (x int)");
    owner.query("INSERT INTO mine VALUES (7)");
    owner.query("SELECT pg_advisory_lock(42)");
    owner.query("LISTEN bell");
    let server = owner.server_process();
    let mut other = login(pooler.port());
    for _ in 0..3 {
        assert_ne!(other.server_process(), server);
        assert_eq!(other.value("SELECT to_regclass('mine')::text"), None);
        assert_eq!(other.value("SELECT pg_try_advisory_lock(42)").as_deref(), Some("f"));
        assert_eq!(owner.value("SELECT x FROM mine").as_deref(), Some("7"));
    }
    other.query("NOTIFY bell, 'rung'");
    // It may come before or with the answer to the next statement.
    let mut heard = Vec::new();
    wait_until("the notification comes", PATIENCE, || {
        heard.extend(owner.query("SELECT 1"));
        heard.iter().any(|message| message.tag == b'A' && message.body.ends_with(b"bell\0rung\0"))
    });
    owner.send(&terminate());
    assert!(owner.read_to_end().is_empty());
    wait_until("the lock is free", PATIENCE, || {
        cluster.node(0).query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").unwrap().is_empty()
    });
    let mut clients = [other, login(pooler.port())];
    for client in &mut clients {
        client.begin();
        assert_eq!(client.value("SELECT to_regclass('mine')::text"), None);
        let channels = client.value("SELECT count(*) FROM pg_listening_channels()");
        assert_eq!(channels.as_deref(), Some("0"));
    }
}

/// The most memory that a process has ever held, in bytes.
fn peak(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn protocol_large_values_and_copies_need_little_memory() {
    const MEBIBYTE: usize = 1 << 20;
    let cluster = started();
    cluster.node(0).query("CREATE UNLOGGED TABLE big (x text); GRANT ALL ON big TO app").unwrap();
    let pooler = config(&cluster).start();
    let mut client = login(pooler.port());
    client.query("SELECT count(*) FROM big");
    let before = pooler.rss();

    client.send(&query("SELECT repeat('x', 64 << 20)"));
    let waits = "SELECT 1 FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientWrite'";
    wait_until("the server waits for the client", PATIENCE, || !cluster.node(0).query(waits).unwrap().is_empty());
    let answer = client.read_until_ready();
    assert_eq!(answer[1].body.len(), 6 + 64 * MEBIBYTE);
    drop(answer);
    let long = format!("SELECT length('{}')", "y".repeat(32 * MEBIBYTE));
    assert_eq!(client.value(&long), Some((32 * MEBIBYTE).to_string()));

    client.send(&query("COPY big FROM STDIN"));
    let piece = copy_data(&[&[b'z'; 1023][..], b"\n"].concat().repeat(64));
    for _ in 0..50 * 16 {
        client.send(&piece);
    }
    client.send(&copy_done());
    assert_eq!(client.read_until_ready()[1].text(), "COPY 51200");
    client.send(&query("COPY big TO STDOUT"));
    let mut bytes = 0;
    loop {
        let message = client.read();
        bytes += if message.tag == b'd' { message.body.len() } else { 0 };
        if message.tag == b'Z' {
            break;
        }
    }
    assert_eq!(bytes, 50 * MEBIBYTE);
    let growth = peak(pooler.process()).saturating_sub(before);
    assert!(growth < 20 << 20, "memory grew by {growth} bytes");
}

/// Reads messages until ReadyForQuery has come so often; returns how many of each of the others came, by tag.
fn count_until_ready(stream: &mut TcpStream, ready: usize) -> [usize; 256] {
    let mut counts = [0; 256];
    while counts[usize::from(b'Z')] < ready {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        stream.read_exact(&mut body).unwrap();
        counts[usize::from(head[0])] += 1;
    }
    counts
}

#[test]
fn protocol_many_statements_can_be_sent_before_an_answer_is_read() {
    const STATEMENTS: usize = 20_000;
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, pooler.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&startup(0x30000, &[("user", "app"), ("database", "postgres")])).unwrap();
    count_until_ready(&mut stream, 1);
    let mut sender = stream.try_clone().unwrap();
    let sent = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let one = [extended("SELECT repeat('x', 200)"), sync()].concat();
            for _ in 0..STATEMENTS {
                sender.write_all(&one).unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Nothing is read until nothing more can be sent.
        let mut last = (0, 0);
        wait_until("it is sent or stuck", PATIENCE * 4, || {
            let now = sent.load(Ordering::Relaxed);
            last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
            now == STATEMENTS || last.1 > 100
        });
        let counts = count_until_ready(&mut stream, STATEMENTS);
        assert_eq!((counts[usize::from(b'D')], counts[usize::from(b'E')]), (STATEMENTS, 0));
    });
}

#[test]
fn protocol_bytes_may_come_one_by_one() {
    let cluster = started();
    let direct = cluster.node(0).port();
    let behind = Fault::to(direct);
    let pooled = Config::of_ports([behind.port()]).set("auth.method", "'trust'").set("pool.size", "1");
    let pooled =
        pooled.set("clusters.main.health.user", "'postgres'").set("clusters.main.health.database", "'postgres'");
    let password = format!("{:?}", cluster.superuser_password());
    let pooled = pooled.set("clusters.main.health.password", &password).set("clusters.main.health.timeout", "'30s'");
    let pooler = pooled.start();
    let before = Fault::to(pooler.port());
    let script = || {
        [
            ask("BEGIN; CREATE TEMP TABLE t (x int) ON COMMIT DROP"),
            step(&[query("COPY t FROM STDIN"), copy_data(b"1\n2\n"), copy_done()], b"Z"),
            ask("COPY t TO STDOUT"),
            ask("COMMIT"),
            step(&[parse("s", "SELECT $1::int, 'x'"), describe(b'S', "s"), sync()], b"Z"),
            step(&[bind("", "s", &[Some("5")]), execute("", 0), sync(), extended("SELECT 1/0"), sync()], b"ZZ"),
            ask("SET application_name = 'slow'"),
            ask("SHOW application_name"),
        ]
    };
    before.trickle(Duration::ZERO);
    same_at(direct, before.port(), &script());
    behind.trickle(Duration::ZERO);
    same_at(direct, before.port(), &script());
    before.heal();
    same_at(direct, before.port(), &script());
    assert!(before.passed(Direction::ToClient) > 0 && behind.passed(Direction::ToServer) > 0);
    before.cut(Cut::Close);
}
