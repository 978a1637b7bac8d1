//! Metrics, tables as JSON, and whether Poolhouse is well, over HTTP.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use poolhouse_lab::throwaway::free_port;
use rustix::process::Signal;

use super::kit::{Config, LabCluster, PATIENCE, Pooler, RawClient, cluster, messages, wait_until};

fn started(replicas: usize) -> LabCluster {
    cluster().replicas(replicas).password_user("app", "secret").start().unwrap()
}

/// Poolhouse, and the port of its HTTP.
fn in_front(cluster: &LabCluster) -> (Pooler, u16) {
    let http = free_port().unwrap();
    let config = Config::of_cluster(cluster).user("app", "secret").set("pool.size", "2");
    (config.set("admin.http", &format!("'127.0.0.1:{http}'")).start(), http)
}

fn login(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

/// Code and body of the answer to what is sent.
fn ask(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (code, body.to_owned())
}

pub fn get(port: u16, path: &str) -> (u16, String) {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: poolhouse\r\nConnection: close\r\n\r\n"))
}

/// The samples of the page, each by its name with its labels, of which there may be but one.
pub fn samples(port: u16) -> BTreeMap<String, f64> {
    let (code, page) = get(port, "/metrics");
    assert_eq!(code, 200);
    let mut samples = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(samples.insert(name.to_owned(), value).is_none(), "{name} is there twice");
    }
    samples
}

/// The sum of all samples of a metric whose labels hold all of these.
pub fn sum(samples: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let is_meant =
        |sample: &str| sample.split('{').next() == Some(name) && labels.iter().all(|label| sample.contains(label));
    samples.iter().filter(|(sample, _)| is_meant(sample)).map(|(_, value)| value).sum()
}

#[test]
fn open_metrics_come_to_who_asks_for_them() {
    let cluster = started(0);
    let (_pooler, http) = in_front(&cluster);
    let accepting = |accept: &str| {
        let (code, page) =
            ask(http, &format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"));
        assert_eq!(code, 200);
        page
    };
    let open = accepting("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2");
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    assert!(open.contains("\n# TYPE poolhouse_logins counter\n"), "{open}");
    let plain = accepting("text/plain");
    assert!(plain.contains("\n# TYPE poolhouse_logins_total counter\n") && !plain.contains("# EOF"), "{plain}");
    // Each family is declared once, and its samples follow it.
    let mut families = BTreeMap::new();
    for line in open.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(family.split(' ').next().unwrap(), ()).is_none(), "{family} is there twice");
        }
    }
}

#[test]
fn metrics_and_tables_say_what_happened() {
    let cluster = started(0);
    let (pooler, http) = in_front(&cluster);
    wait_until("the primary is known", PATIENCE, || get(http, "/readyz").0 == 200);
    let mut client = login(&pooler);
    for _ in 0..7 {
        client.query("SELECT 1");
    }
    client.begin();
    client.query("SELEC 1");
    client.query("ROLLBACK");
    let of = ["database=\"postgres\"", "user=\"app\""];
    // BEGIN and SELECT are what `begin` sends.
    // A client's figures are added up one after the other, while the page may be written.
    wait_until("all is counted", PATIENCE, || {
        let all = samples(http);
        let idle = sum(&all, "poolhouse_clients", &["state=\"idle\""]) == 1.0;
        idle && sum(&all, "poolhouse_queries_total", &of) >= 11.0 && sum(&all, "poolhouse_errors_total", &of) >= 1.0
    });
    let all = samples(http);
    let count = |name: &str, labels: &[&str]| sum(&all, name, &[&of[..], labels].concat());
    assert_eq!(count("poolhouse_queries_total", &[]), 11.0);
    assert_eq!(count("poolhouse_transactions_total", &[]), 8.0);
    assert_eq!(count("poolhouse_logins_total", &[]), 1.0);
    assert_eq!(count("poolhouse_errors_total", &["side=\"server\"", "class=\"42\""]), 1.0);
    assert_eq!(count("poolhouse_clients", &["state=\"idle\""]), 1.0);
    assert_eq!(count("poolhouse_servers", &[]), 1.0);
    // Of all users and nodes together.
    let timed = |name: &str, more: &str| sum(&all, name, &[of[0], "user=\"\"", "node=\"\"", more]);
    let buckets = timed("poolhouse_query_duration_seconds_bucket", "le=\"+Inf\"");
    assert_eq!(buckets, timed("poolhouse_query_duration_seconds_count", ""));
    assert!(buckets > 0.0 && timed("poolhouse_query_duration_seconds_sum", "") > 0.0);
    assert_eq!(sum(&all, "poolhouse_ready", &["for=\"writes\""]), 1.0);
    assert_eq!(sum(&all, "poolhouse_node_is_primary", &[]), 1.0);
    assert_eq!(sum(&all, "poolhouse_node_state", &["state=\"up\""]), 1.0);
    let by_node =
        |samples: &_| sum(samples, "poolhouse_query_duration_seconds_count", &[&of[..], &["node=\"127"]].concat());
    assert_eq!(by_node(&all), 0.0);
    assert!(sum(&all, "process_resident_memory_bytes", &[]) > 1e6);
    assert!(sum(&all, "process_start_time_seconds", &[]) > 1.7e9);

    // The console's tables say the same.
    let (code, totals) = get(http, "/api/stats_totals");
    assert_eq!(code, 200);
    let row = totals.split('{').find(|row| row.contains("\"postgres\"")).unwrap_or_else(|| panic!("{totals}"));
    assert!(row.contains("\"query_count\":11,") && row.contains("\"xact_count\":8,"), "{row}");
    for name in
        ["pools", "queries", "nodes", "clients", "servers", "stats", "events", "config", "errors", "pins", "databases"]
    {
        let (code, body) = get(http, &format!("/api/{name}"));
        assert_eq!((code, body.starts_with('[')), (200, true), "{name}: {body}");
        assert!(!body.contains("secret"), "{name}: {body}");
    }
    assert!(get(http, "/api/clients").1.contains("\"app\""));
}

#[test]
fn it_tells_whether_it_is_ready() {
    let cluster = started(1);
    let (pooler, http) = in_front(&cluster);
    pooler.allow_warnings("");
    assert_eq!(get(http, "/healthz"), (200, "ok\n".to_owned()));
    wait_until("it is ready", PATIENCE, || get(http, "/readyz").0 == 200 && get(http, "/readyz?reads").0 == 200);
    cluster.node(0).kill9().unwrap();
    wait_until("it is not ready for writes", PATIENCE, || {
        let (code, body) = get(http, "/readyz");
        let why = format!("{} is down: cannot connect: ", cluster.node(0).address());
        code == 503 && body.starts_with("cluster main: no primary is known: ") && body.contains(&why)
    });
    assert_eq!(get(http, "/readyz?reads"), (200, "ready\n".to_owned()));
    assert_eq!(sum(&samples(http), "poolhouse_ready", &["for=\"writes\""]), 0.0);
    assert_eq!(get(http, "/healthz").0, 200);
}

/// As soon as Poolhouse drains, and for as long as a transaction holds it up.
#[test]
fn it_is_not_ready_while_it_drains() {
    let cluster = started(0);
    let (pooler, http) = in_front(&cluster);
    let mut client = login(&pooler);
    client.begin();
    pooler.signal(Signal::TERM);
    wait_until("it is not ready", PATIENCE, || get(http, "/readyz").0 == 503);
    assert_eq!(get(http, "/readyz?reads").1, "Poolhouse is shutting down\n");
    assert_eq!(get(http, "/healthz").0, 200);
    client.query("COMMIT");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cluster = started(0);
    let (_pooler, http) = in_front(&cluster);
    for path in ["/nothing", "/api/", "/api/nothing", "/api/POOLS", "/api/pools/", "/metrics/x", "/..%2f..%2fetc"] {
        assert_eq!(get(http, path).0, 404, "{path}");
    }
    assert_eq!(get(http, "/readyz?whatever").0, 400);
    assert_eq!(ask(http, "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").0, 405);
    assert_eq!(ask(http, "nonsense\r\n\r\n").0, 400);
    assert!(get(http, "/").1.contains("href=\"/api/pools\""));
}

/// Connections that ask for nothing, those that ask now and then, and those that read no answer.
#[test]
fn a_crowd_blinds_nobody() {
    let cluster = started(0);
    let (pooler, http) = in_front(&cluster);
    let mut client = login(&pooler);
    let metrics = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for said in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", &metrics.repeat(50)] {
        let crowd: Vec<_> = (0..300)
            .map(|_| {
                let mut socket = TcpStream::connect(("127.0.0.1", http)).unwrap();
                let _ = socket.write_all(said.as_bytes());
                socket
            })
            .collect();
        for path in ["/healthz", "/readyz", "/metrics", "/api/pools"] {
            assert_eq!(get(http, path).0, 200, "{path} beside {} bytes", said.len());
        }
        assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
        drop(crowd);
    }
}

/// What all clients of a database have done, while RELOAD moves it: to another cluster with the same nodes in another
/// order, then to one with another node.
#[test]
fn figures_of_a_database_that_moves_are_those_of_the_nodes_it_ran_on() {
    let (one, other) = (started(1), started(0));
    let addresses = [one.node(0), one.node(1), other.node(0)].map(|node| format!("127.0.0.1:{}", node.port()));
    let [primary, replica, elsewhere] = addresses.each_ref().map(String::as_str);
    let http = free_port().unwrap();
    let clusters = [
        ("main", &one, vec![primary, replica]),
        ("second", &one, vec![replica, primary]),
        ("third", &other, vec![elsewhere]),
    ];
    let config = Config::of_cluster(&one).user("app", "secret").user("admin", "steer").set("admin.users", "['admin']");
    let config = config.set("admin.http", &format!("'127.0.0.1:{http}'")).set("databases.app.database", "'postgres'");
    let config = config.set("admin.metrics_by_node", "true");
    let config = clusters.iter().fold(config, |config, (name, cluster, nodes)| {
        let config = config.set(&format!("clusters.{name}.nodes"), &format!("{nodes:?}"));
        let health = |key: &str| format!("clusters.{name}.health.{key}");
        let config = config.set(&health("user"), "'postgres'").set(&health("timeout"), "'30s'");
        config.set(&health("password"), &format!("{:?}", cluster.superuser_password()))
    });
    let pooler = config.clone().set("databases.app.cluster", "'main'").start();
    let mut admin = RawClient::login(pooler.port(), "pgbouncer", "admin", "steer");
    let (mut clients, mut written, mut read, mut elsewhere_written) = (Vec::new(), 0.0, 0.0, 0.0);
    for (cluster, _, nodes) in &clusters {
        pooler.rewrite(&config.clone().set("databases.app.cluster", &format!("'{cluster}'")));
        assert!(admin.query("RELOAD").iter().all(|message| message.tag != b'E'));
        clients.push(RawClient::login(pooler.port(), "app", "app", "secret"));
        // Those who are there stay on the cluster that they began on.
        for (at, client) in clients.iter_mut().enumerate() {
            for _ in 0..3 {
                client.query("SELECT 7 AS here /* poolhouse: primary */");
            }
            let written = if at < 2 { &mut written } else { &mut elsewhere_written };
            *written += 3.0;
        }
        if nodes.len() > 1 {
            clients.last_mut().unwrap().query("SELECT 8 AS there /* poolhouse: replica */");
            read += 1.0;
        }
        let of = |samples: &BTreeMap<String, f64>, name: &str, node: &str| {
            sum(samples, name, &["database=\"app\"", &format!("node=\"{node}\"")])
        };
        let total = written + elsewhere_written + read;
        let mut rows = |sql: &str| -> Vec<Vec<String>> {
            let answer = admin.query(sql);
            let rows = answer.iter().filter(|message| message.tag == b'D').map(|row| row.values());
            rows.map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect()
        };
        // Of what a client has done, its statements are added up last.
        wait_until("all is counted", PATIENCE, || {
            let calls = rows("SELECT calls FROM queries WHERE database = 'app'");
            let calls = calls.concat().iter().map(|calls| calls.parse::<f64>().unwrap()).sum::<f64>();
            let idle = sum(&samples(http), "poolhouse_clients", &["database=\"app\"", "state=\"idle\""]);
            calls >= total && idle == clients.len() as f64
        });
        let all = samples(http);
        for name in ["poolhouse_queries_total", "poolhouse_query_duration_seconds_count"] {
            assert_eq!(of(&all, name, primary), written, "{name} {cluster}");
            assert_eq!(of(&all, name, replica), read, "{name} {cluster}");
            assert_eq!(of(&all, name, elsewhere), elsewhere_written, "{name} {cluster}");
            assert_eq!(sum(&all, name, &["database=\"app\""]), total, "{name} {cluster}");
        }
        let logins = sum(&all, "poolhouse_logins_total", &["database=\"app\""]);
        assert_eq!(logins, clients.len() as f64);
        let counts = [total.to_string(), logins.to_string()];
        let shown = rows("SELECT query_count, client_login_count FROM stats_totals WHERE database = 'app'");
        assert_eq!(shown, [counts]);
        assert_eq!(rows("SELECT cl_active FROM pools WHERE database = 'app'"), [[clients.len().to_string()]]);
        let shares = rows("SELECT nodes FROM queries WHERE query = 'SELECT ? AS there /* poolhouse: replica */'");
        assert_eq!(shares, [[format!("{replica} 100 %")]]);
        let shares = rows("SELECT nodes FROM queries WHERE query = 'SELECT ? AS here /* poolhouse: primary */'");
        assert!(shares.iter().flatten().all(|shares| !shares.contains(replica)), "{shares:?}");
        assert_eq!(shares[0][0].contains(elsewhere), *cluster == "third", "{shares:?}");
    }
    // On each cluster what was sent there: 9, 6 and 3 by those who came one after the other.
    let answer = admin.query("SELECT cluster, node, statements FROM nodes");
    let rows: Vec<_> = answer.iter().filter(|message| message.tag == b'D').map(|row| row.values()).collect();
    let row = |cluster: &str, node: &str, statements: &str| [cluster, node, statements].map(|it| Some(it.to_owned()));
    let mut expected = vec![
        row("main", primary, "9"),
        row("main", replica, "1"),
        row("second", replica, "1"),
        row("second", primary, "6"),
        row("third", elsewhere, "3"),
    ];
    expected.sort();
    let mut rows: Vec<_> = rows.into_iter().map(|row| <[_; 3]>::try_from(row).unwrap()).collect();
    rows.sort();
    assert_eq!(rows, expected);
}

/// What happens now and then: refusals, errors, pins, a failover that a statement waits for, reloads.
#[test]
fn rare_events_are_counted_too() {
    let cluster = started(1);
    let http = free_port().unwrap();
    let config = Config::of_cluster(&cluster).user("app", "secret").user("admin", "steer");
    let config = config.set("admin.users", "['admin']").set("admin.http", &format!("'127.0.0.1:{http}'"));
    let config = config.set("clusters.main.health.interval", "'100ms'").set("clusters.main.failover.mode", "'follow'");
    let pooler = config.clone().start();
    pooler.allow_warnings("");
    wait_until("the primary is known", PATIENCE, || get(http, "/readyz").0 == 200);
    let count = |name: &str, labels: &[&str]| sum(&samples(http), name, labels);

    let mut stranger = RawClient::connect(pooler.port());
    stranger.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    stranger.finish_login("app", "wrong");
    wait_until("the refusal is counted", PATIENCE, || {
        count("poolhouse_refused_clients_total", &["code=\"28P01\""]) == 1.0
    });

    let mut client = login(&pooler);
    let mut admin = RawClient::login(pooler.port(), "pgbouncer", "admin", "steer");
    client.query("SELECT nothing");
    let mut shown = Vec::new();
    wait_until("the server's error is shown", PATIENCE, || {
        let answer = admin.query("SELECT code, message, node FROM errors WHERE code = '42703'");
        shown = answer.iter().filter(|message| message.tag == b'D').flat_map(|row| row.values()).collect();
        !shown.is_empty()
    });
    assert_eq!(shown[1].as_deref(), Some("column \"nothing\" does not exist"));
    // A replica, as far as it was one for reads already.
    let ports = [0, 1].map(|node| format!(":{}", cluster.node(node).port()));
    assert!(ports.iter().any(|port| shown[2].as_ref().unwrap().ends_with(port.as_str())), "{shown:?}");

    assert_eq!(count("poolhouse_pinned_clients", &[]), 0.0);
    client.query("CREATE TEMPORARY TABLE note (number int)");
    wait_until("the pin is counted", PATIENCE, || {
        count("poolhouse_pinned_clients", &[]) == 1.0 && count("poolhouse_pins_total", &[]) == 1.0
    });
    let mut other = login(&pooler);
    let prepare = [messages::parse("s", "SELECT 1"), messages::sync()].concat();
    other.send(&prepare);
    other.read_until_ready();
    for _ in 0..3 {
        other.query("SELECT 17");
    }
    let all = samples(http);
    assert_eq!(sum(&all, "poolhouse_prepared_statements", &[]), 1.0);
    assert!(sum(&all, "poolhouse_prepared_statements_bytes", &[]) >= 8.0);
    assert!(sum(&all, "poolhouse_verdict_cache_lookups_total", &["hit"]) >= 2.0);
    assert!(sum(&all, "poolhouse_verdict_cache_lookups_total", &["miss"]) >= 3.0);
    assert!(sum(&all, "poolhouse_verdict_cache_entries", &[]) >= 3.0);
    assert!(sum(&all, "poolhouse_verdict_cache_bytes", &[]) > 0.0);
    assert_eq!(sum(&all, "poolhouse_verdict_cache_evictions_total", &[]), 0.0);

    assert_eq!((count("poolhouse_failovers_total", &[]), count("poolhouse_held_statements_total", &[])), (0.0, 0.0));
    cluster.catch_up().unwrap();
    cluster.node(0).kill9().unwrap();
    wait_until("the loss is noticed", PATIENCE, || get(http, "/readyz").0 == 503);
    other.send(&messages::query("CREATE TABLE later (number int)"));
    wait_until("it is held", PATIENCE, || count("poolhouse_statements_on_hold", &[]) == 1.0);
    cluster.node(1).promote().unwrap();
    let answer = other.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != b'E'), "{answer:?}");
    wait_until("the failover is counted", PATIENCE, || count("poolhouse_failovers_total", &["main"]) == 1.0);
    assert_eq!(count("poolhouse_statements_on_hold", &[]), 0.0);
    assert!(count("poolhouse_held_statements_total", &["end=\"served\""]) >= 1.0);
    assert_eq!(count("poolhouse_held_statements_total", &["end=\"failed\""]), 0.0);

    admin.query("RELOAD");
    pooler.rewrite(&config.set("pool.size", "'many'"));
    admin.query("RELOAD DRY RUN");
    admin.query("RELOAD");
    assert_eq!(count("poolhouse_reloads_total", &["ok"]), 1.0);
    assert_eq!(count("poolhouse_reloads_total", &["refused"]), 1.0);
}
