//! Clients that say themselves where their statements go. Which server answered is what the server itself says.

use std::{collections::HashMap, net::TcpStream};

use poolhouse_lab::throwaway::free_port;

use super::kit::{Config, LabCluster, Message, PATIENCE, Pooler, RawClient, bounded, cluster, messages, wait_until};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

const WRITE: &str = "INSERT INTO ticket VALUES (2)";

fn replicated() -> LabCluster {
    let cluster = cluster().replicas(2).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

/// Poolhouse in front, once it has found the roles.
fn in_front(cluster: &LabCluster) -> Pooler {
    let pooler = Config::of_cluster(cluster).user("app", "secret").set("pool.size", "4").start();
    let primary = cluster.node(0).port();
    let mut client = login(&pooler, &[]);
    wait_until("reads reach a replica", PATIENCE, || port(&mut client) != primary);
    pooler
}

fn login(pooler: &Pooler, parameters: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(pooler.port());
    let own = [("user", "app"), ("database", "postgres")];
    client.send(&messages::startup(196_608, &[&own, parameters].concat()));
    client.finish_login("app", "secret");
    client
}

fn port(client: &mut RawClient) -> u16 {
    client.value(PORT).unwrap().parse().unwrap()
}

/// The SQLSTATE of the error that a text is answered with; empty when there is none.
fn error(client: &mut RawClient, sql: &str) -> String {
    let answer = client.query(sql);
    answer.iter().find(|message| message.tag == b'E').map(|error| error.sqlstate()).unwrap_or_default()
}

#[test]
fn a_session_says_where_its_statements_go() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    let pooler = in_front(&cluster);
    let mut client = login(&pooler, &[]);
    client.query("SET poolhouse.route = 'primary'");
    for _ in 0..10 {
        assert_eq!(port(&mut client), primary);
    }
    client.query("SET poolhouse.route = 'replica'");
    for _ in 0..10 {
        assert_ne!(port(&mut client), primary);
    }
    assert_eq!(error(&mut client, WRITE), "25006", "and it is not run on the primary");
    assert_eq!(client.value("SHOW transaction_read_only").as_deref(), Some("on"));
    client.begin();
    assert_ne!(port(&mut client), primary);
    client.query("SET poolhouse.route = 'auto'");
    assert_eq!(error(&mut client, WRITE), "25006", "the transaction stays where it has begun");
    client.query("ROLLBACK");
    assert_eq!(client.value("SHOW poolhouse.route").as_deref(), Some("replica"), "the change was rolled back");
    client.query("RESET ALL");
    assert_eq!(client.value("SHOW poolhouse.route").as_deref(), Some("auto"));
    assert_eq!(error(&mut client, WRITE), "");
    client.query("SET poolhouse.route = 'replica'");
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"), "a session reads its own writes");
    client.query("SET poolhouse.route = 'auto'");
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"), "nothing was run twice");
}

#[test]
fn startup_parameters_say_so_too() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    let pooler = in_front(&cluster);
    for parameters in [[("poolhouse.route", "replica")], [("options", "-c poolhouse.route=REPLICA -c work_mem=1MB")]] {
        let mut client = login(&pooler, &parameters);
        assert_ne!(port(&mut client), primary);
        assert_eq!(error(&mut client, WRITE), "25006");
        client.query("SET poolhouse.route = 'primary'; RESET poolhouse.route");
        assert_eq!(client.value("SHOW poolhouse.route").as_deref(), Some("replica"), "RESET returns to it");
    }
    for (value, code) in [("poolhouse.route", "22023"), ("poolhouse.root", "42704")] {
        let mut client = RawClient::connect(pooler.port());
        client.send(&messages::startup(196_608, &[("user", "app"), ("database", "postgres"), (value, "x")]));
        let told = client.finish_login("app", "secret");
        let told = told.iter().find(|message| message.tag == b'E').expect("it is refused");
        assert_eq!((told.sqlstate().as_str(), told.field(b'S').as_deref()), (code, Some("FATAL")));
    }
}

#[test]
fn a_notice_tells_where_a_statement_ran() {
    let cluster = replicated();
    let pooler = in_front(&cluster);
    let mut client = login(&pooler, &[("poolhouse.explain", "on")]);
    let mut notice = |sql: &str| {
        let answer = client.query(sql);
        let notices: Vec<_> = answer.iter().filter(|message| message.tag == b'N').collect();
        assert_eq!(notices.len(), 1, "{answer:?}");
        notices[0].field(b'M').unwrap()
    };
    let primary = cluster.node(0).port();
    assert_eq!(notice(WRITE), format!("runs on 127.0.0.1:{primary}: statement of kind Insert"));
    let read = notice(PORT);
    assert!(read.ends_with(": only reads"), "{read}");
}

#[test]
fn a_comment_says_where_its_statement_goes() {
    let cluster = replicated();
    let ports: Vec<u16> = cluster.nodes().iter().map(|node| node.port()).collect();
    let pooler = in_front(&cluster);
    let mut client = login(&pooler, &[]);
    let mut go = |hint: &str| client.value(&format!("/* {hint} */ {PORT}")).unwrap().parse::<u16>().unwrap();
    for _ in 0..5 {
        assert_eq!(go("poolhouse: primary"), ports[0]);
        assert_eq!(go("NO LOAD BALANCE"), ports[0]);
        assert_ne!(go("poolhouse: replica"), ports[0]);
        for port in &ports {
            assert_eq!(go(&format!("poolhouse: node=127.0.0.1:{port}")), *port);
        }
    }
    assert_eq!(error(&mut client, &format!("{WRITE} /* poolhouse: replica */")), "25006");
    assert_eq!(error(&mut client, WRITE), "", "the same text without the hint is another one");
    let answer = client.query("SELECT 1 /* poolhouse: node=nowhere:1 */");
    let notice = answer.iter().find(|message| message.tag == b'N').expect("a warning");
    assert_eq!(notice.sqlstate(), "01000");
    client.send(&[messages::parse("", &format!("/* poolhouse: primary */ {PORT}")), messages::sync()].concat());
    client.read_until_ready();
    client.send(&[messages::bind("", "", &[]), messages::execute("", 0), messages::sync()].concat());
    let answer = client.read_until_ready();
    let row = answer.iter().find(|message| message.tag == b'D').expect("a row").values();
    assert_eq!(row[0].as_deref(), Some(ports[0].to_string().as_str()), "a statement keeps its hint");
}

/// The answer to EXPLAIN ROUTE: for each node the values by their columns.
fn explain(client: &mut RawClient, statement: &str) -> Vec<HashMap<String, String>> {
    let answer = client.query(&format!("EXPLAIN ROUTE {statement}"));
    let names = answer.iter().find(|message| message.tag == b'T').unwrap_or_else(|| panic!("{answer:?}")).columns();
    let rows = answer.iter().filter(|message| message.tag == b'D');
    rows.map(|row| names.iter().cloned().zip(row.values().into_iter().map(Option::unwrap_or_default)).collect())
        .collect()
}

#[test]
fn explain_route_tells_where_a_statement_would_go_and_why() {
    let cluster = replicated();
    let ports: Vec<String> = (0..3).map(|node| cluster.node(node).port().to_string()).collect();
    let pooler = in_front(&cluster);
    let mut client = login(&pooler, &[]);
    let chosen = |rows: &[HashMap<String, String>]| {
        let chosen: Vec<_> = rows.iter().filter(|row| row["chosen"] == "yes").map(|row| row["node"].clone()).collect();
        assert!(chosen.len() <= 1, "{chosen:?}");
        chosen.first().map(|node| ports.iter().position(|port| node.ends_with(port.as_str())).unwrap())
    };
    let read = explain(&mut client, "/* a comment */ SELECT count(*) FROM ticket");
    assert_eq!(read.len(), 3);
    assert!(
        read.iter().all(|row| row["verdict"] == "read" && row["rule"] == "verdict" && row["weight"] == "1"),
        "{read:?}"
    );
    assert_eq!(read[0]["role"], "primary");
    assert_eq!(read[0]["standing"], "the primary serves reads when no replica can");
    for row in &read[1..] {
        assert_eq!((&*row["role"], &*row["state"], &*row["standing"]), ("replica", "up", "fit"));
        assert!(row["position"].contains('/') && row["lag_bytes"].parse::<u64>().is_ok(), "{row:?}");
        assert!(row["lag_seconds"].parse::<f64>().is_ok(), "{row:?}");
    }
    assert!(chosen(&read) > Some(0), "{read:?}");
    let write = explain(&mut client, "INSERT INTO ticket VALUES (1)");
    assert_eq!((&*write[0]["verdict"], chosen(&write)), ("write", Some(0)));
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("0"), "nothing was run");
    assert!(write[1]["standing"].contains("not the primary"), "{write:?}");
    let unreadable = explain(&mut client, "SELEC 1");
    assert_eq!((chosen(&unreadable), &*unreadable[0]["verdict"]), (Some(0), "write"));

    client.query("SET poolhouse.route = 'primary'");
    let steered = explain(&mut client, "SELECT 1");
    assert_eq!((chosen(&steered), &*steered[0]["rule"]), (Some(0), "poolhouse.route is primary"));
    client.query("RESET poolhouse.route");
    let hinted = explain(&mut client, "/* poolhouse: primary */ SELECT 1");
    assert_eq!((chosen(&hinted), &*hinted[0]["rule"]), (Some(0), "a comment in the statement says so"));
    client.begin();
    client.query("INSERT INTO ticket VALUES (1)");
    let inside = explain(&mut client, "SELECT 1");
    assert_eq!((chosen(&inside), &*inside[0]["rule"]), (Some(0), "the transaction runs there"));
    client.query("ROLLBACK");
    let own = explain(&mut client, "SET poolhouse.explain = on");
    assert_eq!(chosen(&own), None);
    assert!(own[0]["reason"].contains("Poolhouse itself"), "{own:?}");

    // It says what then happens.
    for _ in 0..20 {
        let explained = explain(&mut client, "/* poolhouse: replica */ SELECT 1");
        assert_ne!(chosen(&explained), Some(0));
    }
    for (wrong, code) in [("", "42601"), ("; -- nothing", "42601")] {
        assert_eq!(error(&mut client, &format!("EXPLAIN ROUTE {wrong}")), code);
    }
}

#[test]
fn explain_route_in_the_extended_protocol() {
    let cluster = replicated();
    let pooler = in_front(&cluster);
    let mut client = login(&pooler, &[]);
    for name in ["", "why"] {
        let parse = messages::parse(name, "explain route SELECT count(*) FROM ticket WHERE number = $1");
        let run = [messages::bind("", name, &[]), messages::describe(b'P', ""), messages::execute("", 0)].concat();
        client.send(&[parse, messages::describe(b'S', name), run, messages::sync()].concat());
        let tags: String = client.read_until_ready().iter().map(|message| message.tag as char).collect();
        assert_eq!(tags, "1tT2TDDDCZ", "{name:?}");
    }
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn an_address_can_be_read_only_by_itself() {
    let cluster = replicated();
    let primary = cluster.node(0).port();
    for mode in ["transaction", "session"] {
        let (readers, writers) = (free_port().unwrap(), free_port().unwrap());
        let listener = |port, route| format!("{{ address = \"127.0.0.1:{port}\", route = \"{route}\" }}");
        let pooler = Config::of_cluster(&cluster)
            .user("app", "secret")
            .set("pool.size", "4")
            .set("pool.mode", &format!("{mode:?}"))
            .set("listener", &format!("[{}, {}]", listener(readers, "replica"), listener(writers, "primary")))
            .start();
        let login = |port| RawClient::login(port, "postgres", "app", "secret");
        // It is ready when the usual address is, and that comes first.
        for port in [readers, writers] {
            wait_until("it listens", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        let mut reader = login(readers);
        assert_ne!(port(&mut reader), primary, "{mode}");
        assert_eq!(error(&mut reader, WRITE), "25006", "{mode}");
        assert_eq!(reader.value("SHOW poolhouse.route").as_deref(), Some("replica"));
        assert_eq!(error(&mut reader, "SET poolhouse.route = 'auto'"), "55P02");
        assert_eq!(error(&mut reader, "SET poolhouse.route = 'replica'; RESET poolhouse.route; RESET ALL"), "0A000");
        assert_eq!(error(&mut reader, "RESET poolhouse.route"), "");
        reader.query("/* poolhouse: primary */ SELECT 1");
        assert_ne!(port(&mut reader), primary, "{mode}");
        let mut writer = login(writers);
        assert_eq!(port(&mut writer), primary, "{mode}");
        assert_eq!(error(&mut writer, WRITE), "", "{mode}");
        // libpq chooses by what a session is told when it begins.
        for (wanted, chosen) in
            [("standby", readers), ("read-only", readers), ("primary", writers), ("read-write", writers)]
        {
            let attributes = format!(
                "host=127.0.0.1,127.0.0.1 port={readers},{writers} user=app password=secret dbname=postgres \
                 target_session_attrs={wanted}"
            );
            let mut psql = bounded("psql");
            let psql = psql.args(["-XAtc", "\\echo :PORT", "-d", &attributes]).output().unwrap();
            let port = String::from_utf8_lossy(&psql.stdout).trim().to_owned();
            assert_eq!(port, chosen.to_string(), "{mode} {wanted}: {psql:?}");
        }
        // The usual address takes any of them.
        assert_eq!(error(&mut RawClient::login(pooler.port(), "postgres", "app", "secret"), WRITE), "", "{mode}");
        let mut begun = RawClient::connect(readers);
        begun.send(&messages::startup(
            196_608,
            &[("user", "app"), ("database", "postgres"), ("poolhouse.route", "auto")],
        ));
        let answer = begun.finish_login("app", "secret");
        assert_eq!(answer.last().map(Message::sqlstate).as_deref(), Some("55P02"));
    }
}

#[test]
fn rules_say_where_sessions_go_by_who_they_are() {
    let cluster = replicated();
    let ports: Vec<u16> = (0..3).map(|node| cluster.node(node).port()).collect();
    let rules = format!(
        "[{{ application_name = \"/^report/\", route = \"replica\", weights = {{ \"127.0.0.1:{}\" = 0 }} }}, \
          {{ user = \"app\", database = \"postgres\", application_name = \"cron\", route = \"primary\" }}]",
        ports[1]
    );
    let pooler = Config::of_cluster(&cluster)
        .user("app", "secret")
        .set("pool.size", "4")
        .set("clusters.main.routing.rules", &rules)
        .start();
    let mut plain = login(&pooler, &[]);
    wait_until("reads reach both replicas", PATIENCE, || port(&mut plain) == ports[1]);
    wait_until("reads reach both replicas", PATIENCE, || port(&mut plain) == ports[2]);
    let mut report = login(&pooler, &[("application_name", "reporting")]);
    for _ in 0..20 {
        assert_eq!(port(&mut report), ports[2]);
    }
    assert_eq!(error(&mut report, WRITE), "25006");
    let explained = explain(&mut report, "SELECT 1");
    assert_eq!(explained[0]["rule"], "a rule of the configuration says replica");
    assert_eq!(explained[1]["standing"], "has no weight for this session");
    let mut cron = login(&pooler, &[("application_name", "cron")]);
    for _ in 0..10 {
        assert_eq!(port(&mut cron), ports[0]);
    }
    // Who says so itself is stronger.
    cron.query("SET poolhouse.route = 'auto'");
    assert_ne!(port(&mut cron), ports[0]);
    cron.query("RESET poolhouse.route");
    assert_eq!(port(&mut cron), ports[0]);
    let mut begun = login(&pooler, &[("application_name", "cron"), ("poolhouse.route", "replica")]);
    assert_ne!(port(&mut begun), ports[0]);
}
