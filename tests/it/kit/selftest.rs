//! The kit does what it says. Those with `protocol` in their names run on every version of PostgreSQL.

use std::{
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    Config, Cut, Direction, Fault, LabCluster, LabLogin, PATIENCE, RawClient, cluster, connect, messages, wait_until,
};

const TICKET: &str = "CREATE TABLE ticket (number int)";

fn tickets(node: usize, cluster: &LabCluster) -> usize {
    let rows = cluster.node(node).query("SELECT count(*) FROM ticket").unwrap();
    rows[0][0].as_ref().unwrap().parse().unwrap()
}

#[test]
fn protocol_replicas_stream_and_a_replica_takes_over() {
    let cluster = cluster().replicas(2).start().unwrap();
    let (primary, second, third) = (cluster.node(0), cluster.node(1), cluster.node(2));
    assert!(primary.is_primary().unwrap() && !second.is_primary().unwrap());
    assert_eq!(primary.streams_to().unwrap(), ["node2", "node3"]);
    primary.query(TICKET).unwrap();
    primary.query("INSERT INTO ticket VALUES (1)").unwrap();
    cluster.catch_up().unwrap();
    assert_eq!((tickets(1, &cluster), tickets(2, &cluster)), (1, 1));

    primary.kill9().unwrap();
    assert!(!primary.is_running());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, primary.port())).is_err());
    second.promote().unwrap();
    assert!(second.is_primary().unwrap());
    third.follow(second).unwrap();
    wait_until("node3 follows node2", PATIENCE, || third.streams_from().unwrap() == Some(second.port()));
    second.query("INSERT INTO ticket VALUES (2)").unwrap();
    third.catch_up(second).unwrap();
    assert_eq!(tickets(2, &cluster), 2);

    primary.start().unwrap();
    assert_eq!((primary.is_primary().unwrap(), tickets(0, &cluster)), (true, 1));
}

#[test]
fn replay_can_lag() {
    let cluster = cluster().replicas(1).start().unwrap();
    let (primary, replica) = (cluster.node(0), cluster.node(1));
    primary.query(TICKET).unwrap();
    cluster.catch_up().unwrap();
    replica.pause_replay().unwrap();
    primary.query("INSERT INTO ticket VALUES (1)").unwrap();
    assert_eq!(tickets(1, &cluster), 0);
    replica.resume_replay().unwrap();
    cluster.catch_up().unwrap();
    assert_eq!(tickets(1, &cluster), 1);

    replica.delay_replay(Duration::from_secs(3600)).unwrap();
    wait_until("the delay is in force", PATIENCE, || {
        replica.query("SHOW recovery_min_apply_delay").unwrap() == [[Some("1h".to_owned())]]
    });
    primary.query("INSERT INTO ticket VALUES (2)").unwrap();
    assert_eq!(tickets(1, &cluster), 1);
    replica.delay_replay(Duration::ZERO).unwrap();
    cluster.catch_up().unwrap();
    assert_eq!(tickets(1, &cluster), 2);
}

#[test]
fn protocol_every_way_to_log_in() {
    let builder = cluster().database("app").setting("max_connections", "33").superuser("boss", "b'oss");
    let builder = builder.trust_user("open").password_user("clear", "pw1").md5_user("old", "pw2");
    let cluster = builder.scram_user("new", "pw3").user("again", "pw4", LabLogin::Scram).start().unwrap();
    let node = cluster.node(0);
    let (port, superuser) = (node.port(), cluster.superuser_password());
    let users = [("open", ""), ("clear", "pw1"), ("old", "pw2"), ("new", "pw3"), ("again", "pw4"), ("boss", "b'oss")];
    for (user, password) in users.into_iter().chain([("postgres", superuser)]) {
        let mut client = RawClient::login(port, "app", user, password);
        assert_eq!(client.value("SELECT current_user").as_deref(), Some(user));
        assert_eq!(client.value("SHOW max_connections").as_deref(), Some("33"));
        client.query(&format!("CREATE TABLE of_{user} (x int)"));
    }
    for (user, password) in [("clear", "no"), ("old", "no"), ("new", "no"), ("boss", ""), ("postgres", "no")] {
        let mut client = RawClient::connect(port);
        client.send(&messages::startup(0x30000, &[("user", user), ("database", "app")]));
        let refusal = client.finish_login(user, password).pop().unwrap();
        assert_eq!((refusal.tag, refusal.sqlstate()), (b'E', "28P01".to_owned()), "{user}");
        assert!(client.read_to_end().is_empty());
    }
    let tables = node.query_in("app", "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'of_%'").unwrap();
    assert_eq!(tables, [[Some("7".to_owned())]]);
}

#[tokio::test]
async fn servers_freeze_stop_and_start() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let node = cluster.node(0);
    let client = connect(node.port(), "postgres", "app", "").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
    wait_until("one connection", PATIENCE, || node.connections("app").unwrap() == 1);

    node.pause().unwrap();
    let frozen = tokio::time::timeout(Duration::from_millis(300), client.simple_query("SELECT 2")).await;
    assert!(frozen.is_err(), "a frozen server does not answer");
    node.resume().unwrap();
    client.simple_query("SELECT 3").await.unwrap();

    let before = node.process().unwrap();
    node.stop_fast().unwrap();
    assert!(client.simple_query("SELECT 4").await.is_err());
    let error = node.query("SELECT 5").unwrap_err().to_string();
    assert!(error.contains("node1") && error.contains("SELECT 5"), "{error}");
    assert!(node.stop_fast().unwrap_err().to_string().contains("it does not run"));
    assert!(node.log().contains("database system is shut down"));
    node.start().unwrap();
    assert_ne!(node.process(), Some(before));
    assert!(node.start().unwrap_err().to_string().contains("it runs already"));
    assert_eq!(node.address(), format!("127.0.0.1:{}", node.port()));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = cluster().setting("no_such_setting", "1").start().unwrap_err().to_string();
    assert!(error.contains("node1 did not start: it ended") && error.contains("no_such_setting"), "{error}");
}

#[test]
fn nothing_is_left_after_a_panic() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let test = std::thread::spawn(move || {
        let cluster = cluster().replicas(1).start().unwrap();
        cluster.node(1).pause().unwrap();
        let processes: Vec<u32> = cluster.nodes().iter().map(|node| node.process().unwrap()).collect();
        sender.send((cluster.socket_directory().to_owned(), processes)).unwrap();
        panic!("expected by the test");
    });
    let (directory, processes) = receiver.recv().unwrap();
    assert!(test.join().is_err());
    assert!(!directory.exists());
    for process in processes {
        assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
    }
}

#[test]
fn protocol_messages_are_built_and_read() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let mut client = RawClient::connect(cluster.node(0).port());
    client.send(&messages::ssl_request());
    assert_eq!(client.read_byte(), b'N');
    client.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    let parameters = client.finish_login("app", "");
    assert!(parameters.iter().any(|message| message.tag == b'S' && message.text() == "server_version"));

    let pipeline = [
        messages::parse("s", "SELECT $1::text, 'x' FROM generate_series(1, 3)"),
        messages::describe(b'S', "s"),
        messages::bind("p", "s", &[None]),
        messages::execute("p", 2),
        messages::flush(),
    ];
    client.send(&pipeline.concat());
    let tags: Vec<u8> = (0..7).map(|_| client.read().tag).collect();
    assert_eq!(tags, *b"1tT2DDs");
    client.send(&[messages::execute("p", 0), messages::close(b'P', "p"), messages::sync()].concat());
    let answer = client.read_until_ready();
    assert_eq!(answer[0].values(), [None, Some("x".to_owned())]);
    assert_eq!(answer.iter().map(|message| message.tag).collect::<Vec<_>>(), *b"DC3Z");

    client.query("CREATE TEMP TABLE t (x int)");
    let copy = |end: Vec<u8>| [messages::query("COPY t FROM STDIN"), messages::copy_data(b"1\n2\n"), end].concat();
    client.send(&copy(messages::copy_done()));
    assert_eq!(client.read_until_ready()[1].text(), "COPY 2");
    client.send(&copy(messages::copy_fail("enough")));
    let failed = client.read_until_ready();
    assert_eq!(failed[1].sqlstate(), "57014");
    assert!(failed[1].field(b'M').unwrap().contains("enough"));

    client.send(&messages::query("SELECT pg_sleep(60)"));
    let mut canceller = RawClient::connect(cluster.node(0).port());
    wait_until("the query runs", PATIENCE, || {
        let running = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        !cluster.node(0).query(running).unwrap().is_empty()
    });
    canceller.send(&messages::cancel_request(client.cancel_key.as_ref().unwrap()));
    assert!(canceller.read_to_end().is_empty());
    assert_eq!(client.read_until_ready().iter().find(|message| message.tag == b'E').unwrap().sqlstate(), "57014");

    client.send(&messages::terminate());
    assert!(client.read_to_end().is_empty());
    let mut garbled = RawClient::login(cluster.node(0).port(), "postgres", "app", "");
    garbled.try_send(&messages::any(b'!', b"")).unwrap();
    assert_eq!(garbled.read_to_end()[0].sqlstate(), "08P01");
}

#[test]
fn the_network_fails_on_purpose() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let fault = Fault::to(cluster.node(0).port());
    let login = || RawClient::login(fault.port(), "postgres", "app", "");
    let mut client = login();
    assert_eq!(fault.connections(), 1);

    fault.delay(Duration::from_millis(60));
    let start = Instant::now();
    client.query("SELECT 1");
    assert!(start.elapsed() >= Duration::from_millis(120), "both ways are delayed");
    fault.heal();

    fault.trickle(Duration::from_micros(50));
    assert_eq!(client.value("SELECT repeat('x', 500)").unwrap().len(), 500);
    fault.heal();

    let before = fault.passed(Direction::ToServer);
    fault.stall();
    // What a pump is reading when the stall begins is held too.
    client.send(&messages::query("SELECT 'stalled'"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fault.passed(Direction::ToServer), before);
    fault.heal();
    assert_eq!(client.read_until_ready()[1].values(), [Some("stalled".to_owned())]);

    fault.cut_after(Direction::ToClient, 10, Cut::Close);
    let before = fault.passed(Direction::ToClient);
    client.send(&messages::query("SELECT 1"));
    assert!(client.read_to_end().is_empty(), "ten bytes are no whole message here");
    assert_eq!(fault.passed(Direction::ToClient), before + 10);

    let mut client = login();
    fault.cut_after(Direction::ToServer, 3, Cut::Reset);
    client.send(&messages::query("SELECT 1"));
    assert!(client.try_read().is_err(), "a reset is an error, an end is not");

    let (mut first, mut second) = (login(), login());
    fault.cut(Cut::Reset);
    assert!(first.try_read().is_err() && second.try_read().is_err());
    let mut client = login();
    fault.cut(Cut::Close);
    assert_eq!(client.try_read().unwrap(), None);
    assert_eq!(fault.connections(), 0);
}

#[test]
fn connections_end_on_one_side_and_are_refused() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let fault = Fault::to(cluster.node(0).port());
    let login = || RawClient::login(fault.port(), "postgres", "app", "");

    // The client's end of stream passes, and the answer still comes back.
    let mut client = login();
    client.send(&messages::query("SELECT 'last'"));
    client.finish_sending();
    assert_eq!(client.read_to_end()[1].values(), [Some("last".to_owned())]);

    let mut client = login();
    fault.half_close(Direction::ToServer);
    assert!(client.read_to_end().is_empty(), "a server ends a connection whose client has ended its side");
    fault.heal();

    let mut client = login();
    fault.refuse();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, fault.port())).is_err());
    client.query("SELECT 1");
    fault.heal();
    login().query("SELECT 1");
}

#[tokio::test]
async fn poolhouse_starts_serves_and_ends() {
    let cluster = cluster().replicas(1).scram_user("app", "secret").start().unwrap();
    let config = Config::of_cluster(&cluster).user("app", "secret").set("pool.size", "3");
    let pooler = config.start();
    let client = connect(pooler.port(), "postgres", "app", "secret").await.unwrap();
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    assert!(pooler.rss() >= pooler.pss() && pooler.pss() > 0);
    assert!(pooler.process() > 0 && pooler.exit_status().is_none());
    drop(client);
    assert_eq!(pooler.terminate(PATIENCE).code(), Some(0));
}

#[test]
fn unannounced_warnings_fail_the_test() {
    // A configuration that is wrong when it is read again is an error; a node that nobody listens at is a warning.
    let nowhere = poolhouse_lab::throwaway::free_port().unwrap();
    let start = || {
        let pooler = Config::of_ports([nowhere]).start();
        pooler.rewrite(&Config::of_text("nonsense"));
        pooler.signal(Signal::HUP);
        wait_until("it complains", PATIENCE, || pooler.logs("SIGHUP"));
        pooler
    };
    let judged = std::panic::catch_unwind(|| drop(start()));
    assert!(judged.is_err());
    let text = format!("[clusters.main]\nnodes = [\"127.0.0.1:{nowhere}\"]\n[databases.'*']\ncluster = \"main\"\n");
    let pooler = Config::of_text(&text).start();
    pooler.allow_warnings("");
    pooler.kill();
    assert!(!pooler.wait_for_exit(PATIENCE).success());
}
