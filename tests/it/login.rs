//! Who gets in: every way to log in to Poolhouse before every way in which Poolhouse logs in to a server.

use super::kit::{Config, LabCluster, PATIENCE, Program, RawClient, bounded, cluster, messages, wait_until};

fn users() -> LabCluster {
    let cluster = cluster().trust_user("t").password_user("p", "secret").md5_user("m", "secret");
    cluster.scram_user("s", "secret").start().unwrap()
}

/// Tries to log in, and gives the SQLSTATE and message when that fails.
fn refusal(port: u16, database: &str, user: &str, password: &str) -> Option<(String, String)> {
    let mut client = RawClient::connect(port);
    client.send(&messages::startup(0x30000, &[("user", user), ("database", database)]));
    let answer = client.finish_login(user, password);
    let error = answer.iter().find(|message| message.tag == b'E')?;
    Some((error.sqlstate(), error.field(b'M').unwrap()))
}

#[test]
fn every_way_in_leads_to_every_server() {
    let cluster = users();
    for method in ["'md5'", "'scram-sha-256'"] {
        let mut config = Config::of_cluster(&cluster).set("auth.method", method);
        for user in ["t", "p", "m", "s"] {
            config = config.user(user, "secret");
        }
        let pooler = config.start();
        for user in ["t", "p", "m", "s"] {
            let mut client = RawClient::login(pooler.port(), "postgres", user, "secret");
            assert_eq!(client.value("SELECT current_user").as_deref(), Some(user), "{method}");
        }
        let wrong = refusal(pooler.port(), "postgres", "s", "wrong").unwrap();
        let unknown = refusal(pooler.port(), "postgres", "nobody", "wrong").unwrap();
        assert_eq!((wrong.0.as_str(), unknown.0.as_str()), ("28P01", "28P01"));
        assert_eq!(wrong.1.replace("\"s\"", ""), unknown.1.replace("\"nobody\"", ""), "the words tell who exists");
    }
}

#[test]
fn a_scram_verifier_is_enough_for_both_sides() {
    let cluster = users();
    let rows = cluster.node(0).query("SELECT rolpassword FROM pg_authid WHERE rolname = 's'").unwrap();
    let verifier = rows[0][0].clone().unwrap();
    let pooler = Config::of_cluster(&cluster).user("s", &verifier).start();
    let mut client = RawClient::login(pooler.port(), "postgres", "s", "secret");
    assert_eq!(client.value("SELECT current_user").as_deref(), Some("s"));
    assert_eq!(refusal(pooler.port(), "postgres", "s", "wrong").unwrap().0, "28P01");
}

#[test]
fn databases_go_by_name() {
    let cluster = cluster().trust_user("t").database("shop").start().unwrap();
    let ports = cluster.nodes().iter().map(|node| node.port());
    let text = format!(
        "[auth]\nmethod = \"trust\"\n[clusters.main]\nnodes = [{}]\n[clusters.main.health]\nuser = \"t\"\n\
         [databases.front]\ndatabase = \"shop\"\nuser = \"t\"\n",
        ports.map(|port| format!("\"127.0.0.1:{port}\"")).collect::<String>()
    );
    let pooler = Config::of_text(&text).start();
    let mut client = RawClient::login(pooler.port(), "front", "whoever", "");
    assert_eq!(client.value("SELECT current_database()").as_deref(), Some("shop"));
    assert_eq!(client.value("SELECT current_user").as_deref(), Some("t"));
    assert_eq!(refusal(pooler.port(), "elsewhere", "t", "").unwrap().0, "3D000");
    pooler.allow_warnings("pg_monitor");
}

#[test]
fn what_the_server_says_to_a_login_is_passed_on_at_once() {
    let cluster = users();
    let pooler = Config::of_cluster(&cluster).user("s", "not what the server knows").start();
    let refused = refusal(pooler.port(), "postgres", "s", "not what the server knows").unwrap();
    assert_eq!(refused.0, "28P01");
    let pooler = Config::of_cluster(&cluster).user("s", "secret").start();
    assert_eq!(refusal(pooler.port(), "no such database", "s", "secret").unwrap().0, "3D000");
}

#[test]
fn startup_parameters_are_checked_by_the_server() {
    let cluster = users();
    let pooler = Config::of_cluster(&cluster).user("s", "secret").start();
    let code = |extra: (&str, &str)| {
        let mut client = RawClient::connect(pooler.port());
        client.send(&messages::startup(0x30000, &[("user", "s"), ("database", "postgres"), extra]));
        let answer = client.finish_login("s", "secret");
        answer.iter().find(|message| message.tag == b'E').map(|error| error.sqlstate())
    };
    assert_eq!(code(("no_such_setting", "1")).as_deref(), Some("42704"));
    assert_eq!(code(("work_mem", "much")).as_deref(), Some("22023"));
    assert_eq!(code(("work_mem", "8MB")), None);
}

/// Logs in with these parameters, and gives what came: an error's severity, SQLSTATE and message, or the settings asked
/// for after a login that succeeded.
fn begin(port: u16, parameters: &[(&str, &str)], password: &str, settings: &[&str]) -> Vec<Option<String>> {
    let mut client = RawClient::connect(port);
    client.send(&messages::startup(0x30000, parameters));
    let user = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, user)| user);
    let last = client.finish_login(user, password).pop().unwrap();
    if last.tag == b'E' {
        assert!(client.read_to_end().is_empty(), "a refusal is the last message");
        return [b'S', b'V', b'C', b'M'].map(|field| last.field(field)).to_vec();
    }
    settings.iter().map(|name| client.value(&format!("SHOW {name}"))).collect()
}

#[test]
fn refusals_are_those_of_a_direct_login() {
    let cluster = users();
    let direct = cluster.node(0).port();
    let pooler = |mode| Config::of_cluster(&cluster).user("s", "secret").set("pool.mode", mode).start();
    let (user, database) = (("user", "s"), ("database", "postgres"));
    let cases: [(&[(&str, &str)], &str); 14] = [
        (&[], "secret"),
        (&[user, database], "wrong"),
        (&[("user", "s"), ("database", "")], "secret"),
        (&[user, ("database", "nowhere")], "secret"),
        (&[user, ("database", "nowhere"), ("options", "nonsense")], "wrong"),
        (&[user, database, ("work_mem", "much")], "secret"),
        (&[user, database, ("no_such_setting", "1")], "secret"),
        (&[user, database, ("client_encoding", "klingon")], "secret"),
        (&[user, database, ("TimeZone", "Nowhere/Land")], "secret"),
        (&[user, database, ("log_statement", "all")], "secret"),
        (&[user, database, ("shared_buffers", "1GB")], "secret"),
        (&[user, database, ("options", "-c work_mem")], "secret"),
        (&[user, database, ("options", "-N 5")], "secret"),
        (&[user, database, ("replication", "perhaps")], "secret"),
    ];
    for mode in ["'transaction'", "'session'"] {
        let pooler = pooler(mode);
        for (parameters, password) in &cases {
            let expected = begin(direct, parameters, password, &[]);
            assert_eq!(expected.len(), 4, "{parameters:?} is refused");
            assert_eq!(begin(pooler.port(), parameters, password, &[]), expected, "{mode} {parameters:?}");
        }
    }
}

#[test]
fn a_server_that_is_full_says_so_itself() {
    let cluster = cluster().setting("max_connections", "10").scram_user("s", "secret").start().unwrap();
    let held: Vec<_> = (0..7).map(|_| RawClient::login(cluster.node(0).port(), "postgres", "s", "secret")).collect();
    let parameters = [("user", "s"), ("database", "postgres")];
    let expected = begin(cluster.node(0).port(), &parameters, "secret", &[]);
    assert_eq!(expected[2].as_deref(), Some("53300"));
    let pooler = Config::of_cluster(&cluster).user("s", "secret").start();
    // The server has other words as soon as a process that ends makes up its last place.
    wait_until("the client reads the server's own words", PATIENCE, || {
        let told = begin(pooler.port(), &parameters, "secret", &[]);
        assert_eq!(told[2].as_deref(), Some("53300"), "{told:?}");
        told == begin(cluster.node(0).port(), &parameters, "secret", &[])
    });
    drop(held);
}

#[test]
fn another_protocol_is_refused() {
    let cluster = users();
    let pooler = Config::of_cluster(&cluster).user("s", "secret").start();
    let mut client = RawClient::connect(pooler.port());
    client.send(&messages::startup(0x20000, &[("user", "s")]));
    let error = client.read_to_end().pop().unwrap();
    assert_eq!((error.sqlstate().as_str(), error.field(b'S').as_deref()), ("0A000", Some("FATAL")));
    assert!(error.field(b'M').unwrap().starts_with("unsupported frontend protocol 2.0: server supports 3.0 to 3."));
}

#[test]
fn options_are_understood_in_every_spelling() {
    let cluster = users();
    cluster.node(0).query("ALTER ROLE s SUPERUSER").unwrap();
    let settings = [
        "work_mem",
        "DateStyle",
        "enable_seqscan",
        "log_statement_stats",
        "log_min_messages",
        "search_path",
        "TimeZone",
    ];
    for mode in ["'transaction'", "'session'"] {
        let pooler = Config::of_cluster(&cluster).user("s", "secret").set("pool.mode", mode).start();
        for options in [
            "-c work_mem=7MB",
            "-cwork_mem=7MB --search-path=a,\\ b",
            "-e -S 4096 -fs -n -T",
            "-esS4096",
            "-d 1 -c TimeZone=CET",
            "--work-mem=9MB -- ",
            "-E -b -j -D /nowhere -O",
        ] {
            let parameters = [("user", "s"), ("database", "postgres"), ("options", options), ("TimeZone", "UTC")];
            let expected = begin(cluster.node(0).port(), &parameters, "secret", &settings);
            assert_eq!(expected.len(), settings.len(), "{options} is understood: {expected:?}");
            assert_eq!(begin(pooler.port(), &parameters, "secret", &settings), expected, "{mode} {options}");
        }
    }
}

#[test]
fn psql_passes_its_options_on() {
    let cluster = users();
    let pooler = Config::of_cluster(&cluster).user("s", "secret").start();
    let shown = |port: u16| {
        let mut psql = bounded("psql");
        psql.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "s", "-d", "postgres", "-Atw"]);
        psql.args(["-c", "SHOW work_mem", "-c", "SHOW search_path", "-c", "RESET ALL", "-c", "SHOW work_mem"]);
        psql.env("PGPASSWORD", "secret").env("PGOPTIONS", "-c work_mem=7MB --search_path=a");
        String::from_utf8(psql.output().unwrap().stdout).unwrap()
    };
    assert_eq!(shown(pooler.port()), shown(cluster.node(0).port()));
    assert_eq!(shown(pooler.port()), "7MB\na\nRESET\n7MB\n");
}

#[test]
fn session_mode_gives_the_client_its_servers_process() {
    let cluster = users();
    let pooler = Config::of_cluster(&cluster).user("s", "secret").set("pool.mode", "'session'").start();
    for version in [0x30000, 0x30002] {
        let mut client = RawClient::connect(pooler.port());
        let parameters = [("user", "s"), ("database", "postgres"), ("work_mem", "7MB"), ("options", "-c TimeZone=CET")];
        client.send(&messages::startup(version, &parameters));
        client.finish_login("s", "secret");
        let (key, process) = (client.cancel_key.clone().unwrap(), client.process());
        assert_eq!(client.value("SELECT pg_backend_pid()"), Some(process.to_string()));
        // The parameters are the session's defaults, as on a direct connection.
        for (sql, expected) in [
            ("SET work_mem = '9MB'", "9MB"),
            ("BEGIN; RESET work_mem; ROLLBACK", "9MB"),
            ("RESET work_mem", "7MB"),
            ("SET work_mem = '9MB'", "9MB"),
            ("RESET ALL", "7MB"),
            ("SET work_mem = '9MB'", "9MB"),
            ("DISCARD ALL", "7MB"),
        ] {
            client.query(sql);
            assert_eq!(client.value("SHOW work_mem").as_deref(), Some(expected), "{sql}");
            assert_eq!(client.value("SHOW TimeZone").as_deref(), Some("CET"), "{sql}");
        }
        let answer = client.query("LISTEN bell; NOTIFY bell");
        let heard = answer.iter().find(|message| message.tag == b'A').unwrap();
        assert_eq!(heard.body[..4], process.to_be_bytes(), "the sender of a notification is known by it");

        client.send(&messages::query("SELECT pg_sleep(60)"));
        let sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        wait_until("it runs", PATIENCE, || !cluster.node(0).query(sleeps).unwrap().is_empty());
        let mut wrong = key.clone();
        *wrong.last_mut().unwrap() ^= 1;
        for key in [&wrong, &key] {
            let mut canceller = RawClient::connect(pooler.port());
            canceller.send(&messages::cancel_request(key));
            assert!(canceller.read_to_end().is_empty());
        }
        let answer = client.read_until_ready();
        assert_eq!(answer.iter().find(|message| message.tag == b'E').unwrap().sqlstate(), "57014");

        cluster.node(0).query(&format!("SELECT pg_terminate_backend({process})")).unwrap();
        let last = client.read_to_end().pop().unwrap();
        assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("57P01", Some("FATAL")));
    }
}

#[test]
fn a_login_in_session_mode_waits_and_gives_up_with_its_client() {
    let cluster = users();
    let config = Config::of_cluster(&cluster).user("s", "secret").set("pool.mode", "'session'").set("pool.size", "1");
    let pooler = config.set("pool.checkout_timeout", "'60s'").start();
    let holder = RawClient::login(pooler.port(), "postgres", "s", "secret");
    let start = || {
        let mut client = RawClient::connect(pooler.port());
        client.send(&messages::startup(0x30000, &[("user", "s"), ("database", "postgres")]));
        client
    };
    let (impatient, mut patient) = (start(), start());
    drop(impatient);
    drop(holder);
    assert_eq!(patient.finish_login("s", "secret").pop().unwrap().tag, b'Z');
    assert_eq!(patient.value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn idle_sessions_are_ended_by_the_server_in_its_own_words() {
    let cluster = users();
    let ended = |mode: &str, setting: &str, sql: &str| {
        let pooler = Config::of_cluster(&cluster).user("s", "secret").set("pool.mode", mode).start();
        // A longer time where the machine is too busy to ask within a short one.
        let end = |port| {
            ["100ms", "2s", "30s"].into_iter().find_map(|limit| {
                let mut client = RawClient::connect(port);
                client.send(&messages::startup(0x30000, &[("user", "s"), ("database", "postgres"), (setting, limit)]));
                client.finish_login("s", "secret");
                let _ = client.try_send(&messages::query(sql));
                let mut told = client.read_to_end();
                let last = told.pop()?;
                told.iter().any(|message| message.tag == b'Z').then_some(last.body)
            })
        };
        assert_eq!(end(pooler.port()), end(cluster.node(0).port()), "{mode} {setting}");
    };
    ended("'transaction'", "idle_in_transaction_session_timeout", "BEGIN");
    ended("'session'", "idle_in_transaction_session_timeout", "BEGIN");
    ended("'session'", "idle_session_timeout", "SELECT 1");
    // While it is pinned, a client is to its server as on a direct connection.
    ended("'transaction'", "idle_session_timeout", "CREATE TEMP TABLE mine (x int)");
}

#[test]
fn protocol_notices_of_the_login_reach_the_client() {
    let cluster = users();
    // What a server says of a collation that has changed since the database was made; since 17 a trigger can speak, too.
    cluster.node(0).query("UPDATE pg_database SET datcollversion = '0' WHERE datname = 'postgres'").unwrap();
    let version = cluster.node(0).query("SHOW server_version_num").unwrap()[0][0].clone().unwrap();
    if version.parse::<u32>().unwrap() >= 170_000 {
        let trigger = "CREATE FUNCTION hello() RETURNS event_trigger LANGUAGE plpgsql AS \
             $$BEGIN RAISE NOTICE 'hello %', session_user; END$$; \
             CREATE EVENT TRIGGER hello ON login EXECUTE FUNCTION hello(); ALTER EVENT TRIGGER hello ENABLE ALWAYS";
        cluster.node(0).query(trigger).unwrap();
    }
    let told = |port| {
        let mut client = RawClient::connect(port);
        client.send(&messages::startup(0x30000, &[("user", "s"), ("database", "postgres")]));
        let mut answer = client.finish_login("s", "secret");
        answer.retain(|message| matches!(message.tag, b'N' | b'K' | b'Z'));
        answer.iter_mut().filter(|message| message.tag == b'K').for_each(|message| message.body.clear());
        answer
    };
    let expected = told(cluster.node(0).port());
    for mode in ["'transaction'", "'session'"] {
        let pooler = Config::of_cluster(&cluster).user("s", "secret").set("pool.mode", mode).start();
        for _ in 0..3 {
            assert_eq!(told(pooler.port()), expected, "{mode}");
        }
    }
    assert!(expected.iter().any(|message| message.tag == b'N'), "{expected:?}");
}

#[test]
fn a_login_that_takes_too_long_is_told_so() {
    let cluster = users();
    let pooler = Config::of_cluster(&cluster).user("s", "secret").set("server.login_timeout", "'300ms'").start();
    let mut client = RawClient::connect(pooler.port());
    client.send(&messages::startup(0x30000, &[("user", "s")])[..5]);
    let last = client.read_to_end();
    assert_eq!(last.last().unwrap().sqlstate(), "57014");
}

#[test]
fn one_command_makes_a_sidecar() {
    let cluster = users();
    let port = poolhouse_lab::throwaway::free_port().unwrap();
    let port_of_server = cluster.node(0).port();
    let url = format!("postgresql+psycopg2://s:secret@127.0.0.1:{port_of_server}/postgres?application_name=app&pool=5");
    for by_environment in [false, true] {
        let program = Program::start(env!("CARGO_BIN_EXE_poolhouse"), |command, _| {
            let listen = format!("127.0.0.1:{port}");
            match by_environment {
                true => command.arg("serve").envs([("POOLHOUSE_LISTEN", listen.as_str()), ("POOLHOUSE_HTTP", "")]),
                false => command.args(["serve", "--listen", &listen, "--http", ""]),
            };
            match by_environment {
                // What applications have may be Poolhouse's own address.
                true => command
                    .env("POOLHOUSE_UPSTREAM", &url)
                    .env("DATABASE_URL", format!("postgres://x@127.0.0.1:{port}/x")),
                false => command.args(["--upstream", &url]),
            };
        });
        wait_until("it listens", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut client = RawClient::login(port, "postgres", "s", "secret");
        assert_eq!(client.value("SELECT current_user").as_deref(), Some("s"));
        assert_eq!(client.value("SHOW application_name").as_deref(), Some("app"));
        assert_eq!(refusal(port, "postgres", "s", "wrong").unwrap().0, "28P01");
        drop(program);
        wait_until("the port is free", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
