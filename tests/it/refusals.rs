//! Servers that do not let Poolhouse in, or leave a login without an answer: others serve as long as there are any, and
//! when there are none, clients hear at once what the servers say.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use poolhouse_lab::{node::LabNode, throwaway::free_port};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    console::console,
    http::{get, samples, sum},
    kit::{Config, LabCluster, Message, PATIENCE, Pooler, RawClient, cluster, messages, wait_until},
};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

/// A wait that no test would outlast.
const LONG: &str = "'120s'";

fn replicated() -> LabCluster {
    let cluster = cluster().replicas(2).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

/// In front of these nodes of the cluster; nobody who had to wait for something would live to see it.
fn patient(cluster: &LabCluster, ports: impl IntoIterator<Item = u16>) -> Config {
    let nodes: Vec<String> = ports.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let config = Config::of_cluster(cluster).set("clusters.main.nodes", &format!("{nodes:?}")).user("app", "secret");
    // The first packet says who it is, and not that TLS is wanted.
    let config = config.set("clusters.main.tls.mode", "'disable'");
    let config = config.set("clusters.main.connect_timeout", LONG).set("clusters.main.failover.hold", LONG);
    let config = config.set("admin.users", "['admin']").user("admin", "steer");
    config.set("pool.checkout_timeout", LONG)
}

fn ports(cluster: &LabCluster) -> Vec<u16> {
    cluster.nodes().iter().map(LabNode::port).collect()
}

/// A short session with one read: the port of the server that has answered.
fn read_once(pooler: &Pooler) -> u16 {
    RawClient::login(pooler.port(), "postgres", "app", "secret").value(PORT).unwrap().parse().unwrap()
}

/// The servers that so many short sessions have read from. Each must have had its answer.
fn readers(pooler: &Pooler, sessions: usize) -> BTreeSet<u16> {
    (0..sessions).map(|_| read_once(pooler)).collect()
}

/// What the console says of a node.
fn reason(pooler: &Pooler, port: u16) -> String {
    console(pooler).value(&format!("SELECT reason FROM nodes WHERE node = '127.0.0.1:{port}'")).unwrap()
}

/// A server's access rules as they were before they refused the user.
struct Access {
    path: String,
    text: String,
    process: Pid,
}

impl Access {
    /// The server refuses new logins of `app` from now on.
    fn refuse(node: &LabNode) -> Access {
        let path = node.query("SHOW hba_file").unwrap()[0][0].clone().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let process = node.process().and_then(|process| Pid::from_raw(process as i32)).unwrap();
        let access = Access { path, text, process };
        access.write(&format!("host all app 127.0.0.1/32 reject\n{}", access.text));
        let refused = || {
            let mut client = RawClient::connect(node.port());
            client.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
            client.finish_login("app", "secret").pop().unwrap().tag == b'E'
        };
        wait_until("the rule is in force", PATIENCE, refused);
        access
    }

    fn restore(&self) {
        self.write(&self.text);
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
        kill_process(self.process, Signal::HUP).unwrap();
    }
}

/// A relay that lets the logins of one user hang.
struct Silencer {
    port: u16,
    silent: Arc<AtomicBool>,
    /// Logins that got no answer.
    hung: Arc<AtomicUsize>,
}

impl Silencer {
    fn to(target: u16, user: &'static str) -> Silencer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let silencer = Silencer { port, silent: Arc::new(AtomicBool::new(true)), hung: Arc::default() };
        let (silent, hung) = (silencer.silent.clone(), silencer.hung.clone());
        let held: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (silent, hung, held) = (silent.clone(), hung.clone(), held.clone());
                thread::spawn(move || {
                    let Some(packet) = first_packet(&client) else { return };
                    let name = format!("user\0{user}\0");
                    let meant = packet.windows(name.len()).any(|part| part == name.as_bytes());
                    if meant && silent.load(Ordering::SeqCst) {
                        hung.fetch_add(1, Ordering::SeqCst);
                        held.lock().unwrap().push(client);
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
                    if server.write_all(&packet).is_ok() {
                        pass(client, server);
                    }
                });
            }
        });
        silencer
    }
}

fn first_packet(mut client: &TcpStream) -> Option<Vec<u8>> {
    let mut packet = vec![0; 4];
    client.read_exact(&mut packet).ok()?;
    packet.resize(u32::from_be_bytes(packet[..4].try_into().ok()?) as usize, 0);
    client.read_exact(&mut packet[4..]).ok()?;
    Some(packet)
}

/// Passes bytes both ways until one side has ended.
fn pass(client: TcpStream, server: TcpStream) {
    let one_way = |mut from: TcpStream, mut to: TcpStream| {
        move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        }
    };
    thread::spawn(one_way(client.try_clone().unwrap(), server.try_clone().unwrap()));
    one_way(server, client)();
}

/// One replica refuses by `refuse`, with this SQLSTATE, until `mend`.
fn one_refuses(code: &str, refuse: impl FnOnce(&LabCluster) -> Box<dyn FnOnce()>) {
    let cluster = replicated();
    let [primary, bad, good] = [0, 1, 2].map(|number| cluster.node(number).port());
    let mend = refuse(&cluster);
    let http = free_port().unwrap();
    let config = patient(&cluster, ports(&cluster));
    let pooler = config.set("admin.http", &format!("'127.0.0.1:{http}'")).start();
    wait_until("reads reach a replica", PATIENCE, || read_once(&pooler) != primary);
    assert!(!readers(&pooler, 40).contains(&bad), "it lets nobody in");
    wait_until("the refusal is seen", PATIENCE, || {
        read_once(&pooler);
        reason(&pooler, bad).contains(&format!("(SQLSTATE {code})"))
    });
    assert!(reason(&pooler, good).starts_with("answers as replica") && !reason(&pooler, good).contains("lets nobody"));
    let label = format!("node=\"127.0.0.1:{bad}\"");
    wait_until("it is counted", PATIENCE, || {
        let samples = samples(http);
        sum(&samples, "poolhouse_server_login_failures_total", &[&label, &format!("code=\"{code}\"")]) >= 1.0
            && sum(&samples, "poolhouse_server_refuses", &[&label]) == 1.0
    });
    let node = console(&pooler).value(&format!("SELECT node FROM errors WHERE code = '{code}'"));
    assert_eq!(node, Some(format!("127.0.0.1:{bad}")));
    let state = console(&pooler).value(&format!("SELECT state FROM nodes WHERE node = '127.0.0.1:{bad}'"));
    assert_eq!(state.as_deref(), Some("up"), "it serves other pools");
    mend();
    wait_until("it serves again", PATIENCE, || readers(&pooler, 4).contains(&bad));
    assert_eq!(sum(&samples(http), "poolhouse_server_refuses", &[&label]), 0.0);
    assert!(!reason(&pooler, bad).contains("lets nobody"));
}

#[test]
fn a_replica_whose_access_rules_refuse_costs_nobody_anything() {
    one_refuses("28000", |cluster| {
        let access = Access::refuse(cluster.node(1));
        Box::new(move || access.restore())
    });
}

#[test]
fn a_replica_without_free_connections_costs_nobody_anything() {
    one_refuses("53300", |cluster| {
        let mut held = Vec::new();
        loop {
            let mut client = RawClient::connect(cluster.node(1).port());
            client.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
            if client.finish_login("app", "secret").pop().unwrap().tag == b'E' {
                break;
            }
            held.push(client);
        }
        Box::new(move || drop(held))
    });
}

/// Nobody waits for the login to fail, which takes longer than any test.
#[test]
fn a_replica_that_leaves_logins_without_an_answer_costs_a_moment_at_most() {
    let cluster = replicated();
    let silencer = Silencer::to(cluster.node(1).port(), "app");
    let ports = [cluster.node(0).port(), silencer.port, cluster.node(2).port()];
    let pooler = patient(&cluster, ports).start();
    wait_until("reads reach a replica", PATIENCE, || read_once(&pooler) != ports[0]);
    wait_until("a login hangs", PATIENCE, || {
        read_once(&pooler);
        silencer.hung.load(Ordering::SeqCst) > 0
    });
    // Its own port is what the server answers with, not the relay's.
    assert!(!readers(&pooler, 50).contains(&cluster.node(1).port()));
    assert_eq!(silencer.hung.load(Ordering::SeqCst), 1, "others are not sent there");
    assert!(reason(&pooler, silencer.port).contains("does not answer a login"), "{}", reason(&pooler, silencer.port));
}

/// As before, with logins that fail after a while: it is found out in the background that all is well again.
#[test]
fn a_replica_that_answers_logins_again_is_used_again() {
    let cluster = replicated();
    let silencer = Silencer::to(cluster.node(1).port(), "app");
    let ports = [cluster.node(0).port(), silencer.port, cluster.node(2).port()];
    let pooler = patient(&cluster, ports).set("clusters.main.connect_timeout", "'2s'").start();
    wait_until("a login hangs", PATIENCE, || {
        read_once(&pooler);
        silencer.hung.load(Ordering::SeqCst) > 1
    });
    silencer.silent.store(false, Ordering::SeqCst);
    wait_until("it serves again", PATIENCE, || readers(&pooler, 4).contains(&cluster.node(1).port()));
}

/// What idles in the pool goes on being used, and is waited for when nothing else serves.
#[test]
fn connections_that_are_there_go_on_being_used() {
    let cluster = replicated();
    let pooler = patient(&cluster, [cluster.node(0).port()]).start();
    let mut first = RawClient::login(pooler.port(), "postgres", "app", "secret");
    let mut second = RawClient::login(pooler.port(), "postgres", "app", "secret");
    first.begin();
    let _access = Access::refuse(cluster.node(0));
    let refusals = || cluster.node(0).log().matches("pg_hba.conf rejects").count();
    let before = refusals();
    second.send(&messages::query("SELECT 'second'"));
    wait_until("it waits", PATIENCE, || refusals() > before);
    first.query("COMMIT");
    let answer = second.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == b'D'), "{answer:?}");
}

/// The last words of a login.
fn refusal(port: u16, database: &str) -> Message {
    let mut client = RawClient::connect(port);
    client.send(&messages::startup(0x30000, &[("user", "app"), ("database", database)]));
    let last = client.finish_login("app", "secret").pop().unwrap();
    assert_eq!(last.tag, b'E', "it is let in");
    last
}

fn direct_refusal(node: &LabNode, user: &str, password: &str) -> (String, String) {
    let mut client = RawClient::connect(node.port());
    client.send(&messages::startup(0x30000, &[("user", user), ("database", "postgres")]));
    let last = client.finish_login(user, password).pop().unwrap();
    (last.sqlstate(), last.field(b'M').unwrap())
}

fn hint(message: &Message) -> String {
    message.field(b'H').unwrap_or_else(|| panic!("no hint: {message:?}"))
}

#[test]
fn a_wrong_password_for_the_servers_is_told_at_once() {
    let cluster = cluster().replicas(1).scram_user("real", "right").start().unwrap();
    cluster.catch_up().unwrap();
    let expected = direct_refusal(cluster.node(0), "real", "wrong");
    for mode in ["'transaction'", "'session'"] {
        let config = patient(&cluster, ports(&cluster)).set("pool.mode", mode);
        let config = config.set("databases.app.cluster", "'main'").set("databases.app.database", "'postgres'");
        let pooler = config.set("databases.app.user", "'real'").set("databases.app.password", "'wrong'").start();
        for _ in 0..3 {
            let last = refusal(pooler.port(), "app");
            assert_eq!((last.sqlstate(), last.field(b'M').unwrap()), expected, "{mode}");
            assert!(hint(&last).contains("databases.app.user and password"), "{last:?}");
        }
    }
}

#[test]
fn what_has_been_mended_serves_whoever_comes_next() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let direct = |sql: &str| cluster.node(0).query(sql).unwrap();
    for mode in ["'transaction'", "'session'"] {
        let pooler = patient(&cluster, ports(&cluster)).set("pool.mode", mode).start();
        let came = |database: &str| {
            let mut client = RawClient::connect(pooler.port());
            client.send(&messages::startup(0x30000, &[("user", "app"), ("database", database)]));
            let last = client.finish_login("app", "secret").pop().unwrap();
            let answer = if last.tag == b'E' { vec![last] } else { client.query("SELECT 1") };
            answer.iter().find(|message| message.tag == b'E').map_or("served".into(), Message::sqlstate)
        };
        for _ in 0..3 {
            assert_eq!(came("later"), "3D000", "{mode}");
            direct("CREATE DATABASE later");
            assert_eq!(came("later"), "served", "{mode}");
            direct("DROP DATABASE later WITH (FORCE)");
        }
    }
}

#[test]
fn what_the_health_check_is_told_clients_are_told_at_once() {
    let cluster = cluster().scram_user("real", "right").trust_user("app").start().unwrap();
    let http = free_port().unwrap();
    let config = patient(&cluster, ports(&cluster)).set("clusters.main.health.user", "'real'");
    let config = config.set("clusters.main.health.password", "'wrong'");
    let pooler = config.set("admin.http", &format!("'127.0.0.1:{http}'")).start();
    pooler.allow_warnings("the health check is not let in");
    let expected = direct_refusal(cluster.node(0), "real", "wrong");
    let last = refusal(pooler.port(), "postgres");
    assert_eq!((last.sqlstate(), last.field(b'M').unwrap()), expected);
    assert!(hint(&last).contains("clusters.main.health.user, password"), "{last:?}");
    let (code, body) = get(http, "/readyz");
    assert_eq!(code, 503);
    assert!(body.contains(&expected.1), "{body}");
}

#[test]
fn a_server_that_was_never_there_is_not_waited_for() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let nobody = free_port().unwrap();
    let pooler = patient(&cluster, [nobody]).start();
    pooler.allow_warnings("");
    let last = refusal(pooler.port(), "postgres");
    assert_eq!(last.sqlstate(), "08001");
    let detail = last.field(b'D').unwrap();
    assert!(detail.contains(&format!("127.0.0.1:{nobody} is ")) && detail.contains("Connection refused"), "{detail}");
    assert!(hint(&last).contains("clusters.main.nodes"), "{last:?}");
}

/// The NOTICE that comes next.
fn notice(client: &mut RawClient) -> Message {
    let message = client.read();
    assert_eq!(message.tag, b'N', "{message:?}");
    assert_eq!((message.sqlstate().as_str(), message.field(b'S').as_deref()), ("00000", Some("NOTICE")));
    message
}

#[test]
fn who_waits_for_long_is_told_what_for() {
    let cluster = cluster().trust_user("app").start().unwrap();
    for mode in ["'transaction'", "'session'"] {
        let config = patient(&cluster, ports(&cluster)).set("pool.size", "1").set("pool.mode", mode);
        let pooler = config.set("pool.wait_notice", "'100ms'").set("auth.method", "'trust'").start();
        let mut first = RawClient::login(pooler.port(), "postgres", "app", "secret");
        first.begin();
        first.query("SELECT 1");
        let mut second = RawClient::connect(pooler.port());
        second.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
        if mode == "'transaction'" {
            second.finish_login("app", "secret");
            second.send(&messages::query("SELECT 'served'"));
            assert!(notice(&mut second).field(b'M').unwrap().contains("all of this pool are busy"));
            first.query("COMMIT");
            let answer = second.read_until_ready();
            assert!(answer.iter().all(|message| message.tag != b'N'), "it is told once: {answer:?}");
        } else {
            // It is told first that it is let in: some drivers take a NOTICE only after that.
            assert_eq!(second.read().tag, b'R');
            assert!(notice(&mut second).field(b'M').unwrap().contains("all of this pool are busy"));
            drop(first);
            let answers = second.finish_login("app", "secret");
            assert_eq!(answers.last().unwrap().tag, b'Z', "{answers:?}");
            assert!(answers.iter().all(|message| message.tag != b'N'), "it is told once: {answers:?}");
        }
    }
}

#[test]
fn who_waits_for_a_primary_is_told_so() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = patient(&cluster, ports(&cluster)).set("pool.wait_notice", "'100ms'").start();
    pooler.allow_warnings("");
    let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    cluster.node(0).kill9().unwrap();
    client.send(&messages::query("SELECT 2"));
    let told = notice(&mut client);
    assert!(told.field(b'M').unwrap().starts_with("waiting for a server"), "{told:?}");
    cluster.node(0).start().unwrap();
    let answer = client.read_until_ready();
    assert!(answer.iter().any(|message| message.tag == b'D'), "{answer:?}");
}
