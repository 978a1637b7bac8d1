//! Peers that break the protocol, users who mistype, and a machine that runs out: a clear error, and nobody else
//! disturbed.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    thread,
};

use super::kit::{Config, LabCluster, PATIENCE, RawClient, bounded, cluster, messages, wait_until};

fn one() -> LabCluster {
    cluster().trust_user("app").start().unwrap()
}

fn in_front(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).user("app", "secret")
}

fn login(port: u16) -> RawClient {
    RawClient::login(port, "postgres", "app", "secret")
}

#[test]
fn nonsense_before_the_login_gets_an_error() {
    let cluster = one();
    let pooler = in_front(&cluster).start();
    let mut oversized = 20_000u32.to_be_bytes().to_vec();
    oversized.extend_from_slice(&[0, 3, 0, 0]);
    let mut unterminated = 12u32.to_be_bytes().to_vec();
    unterminated.extend_from_slice(&[0, 3, 0, 0, b'u', b's', b'e', b'r']);
    for (bytes, code) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        (vec![0, 0, 0, 4], "08P01"),
        (vec![0xff; 8], "08P01"),
        (oversized, "08P01"),
        (unterminated, "08P01"),
        (vec![0, 0, 0, 8, 0, 2, 0, 0], "0A000"),
        (messages::startup(0x30000, &[("database", "postgres")]), "28000"),
    ] {
        let mut client = RawClient::connect(pooler.port());
        client.send(&bytes);
        let last = client.read_to_end();
        assert_eq!(last.last().map(|message| message.sqlstate()).as_deref(), Some(code), "{bytes:?}");
    }
    wait_until("the refusals are logged", PATIENCE, || pooler.logs("refused a client"));
    assert_eq!(login(pooler.port()).value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn nonsense_after_the_login_ends_that_client_only() {
    let cluster = one();
    let pooler = in_front(&cluster).set("pool.size", "1").start();
    let mut witness = login(pooler.port());
    for bytes in [
        messages::any(b'!', b""),
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0xff, 0xff, 0xff, 0xff],
        messages::any(b'Q', b"SELECT 1"),
        messages::any(b'Q', b"SELECT\0 1\0"),
        messages::any(b'P', b"name\0no end"),
        messages::any(b'B', b"\0"),
        messages::any(b'D', b"X\0"),
        messages::any(b'C', b"S"),
        messages::any(b'p', b"secret\0"),
        messages::any(b'S', &[0; 20_000]),
    ] {
        for in_transaction in [false, true] {
            let mut client = login(pooler.port());
            if in_transaction {
                client.query("BEGIN; CREATE TABLE left_behind ()");
            }
            client.send(&bytes);
            let last = client.read_to_end();
            assert_eq!(last.last().map(|message| message.sqlstate()).as_deref(), Some("08P01"), "{bytes:?}");
        }
        assert_eq!(witness.value("SELECT count(*) FROM pg_class WHERE relname = 'left_behind'").as_deref(), Some("0"));
    }
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in%'";
    wait_until("no transaction is left", PATIENCE, || {
        cluster.node(0).query(open).unwrap()[0][0].as_deref() == Some("0")
    });
    wait_until("the reasons are logged", PATIENCE, || pooler.logs("disconnecting a client"));
}

#[test]
fn a_server_that_sends_nonsense_is_not_believed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            });
        }
    });
    let pooler = Config::of_ports([port]).user("app", "secret").set("clusters.main.failover.hold", "'500ms'").start();
    pooler.allow_warnings("");
    let mut client = RawClient::connect(pooler.port());
    client.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    let answer = client.finish_login("app", "secret");
    assert_eq!(answer.last().unwrap().sqlstate(), "08001", "{answer:?}");
    assert!(!pooler.logs("panicked"));
}

#[test]
fn mistakes_in_the_configuration_are_told_all_at_once() {
    let directory = poolhouse_lab::throwaway::Throwaway::new().unwrap();
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, "[server]\nlisten = [\"127.0.0.1:x\"]\n[pool]\nsice = 5\n[clusters.main]\nnodes = []\n")
        .unwrap();
    let output = bounded(env!("CARGO_BIN_EXE_poolhouse")).arg("serve").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for words in ["bad.toml:2:", "bad.toml:4:", "did you mean `size`", "bad.toml:6:"] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    let missing = bounded(env!("CARGO_BIN_EXE_poolhouse")).args(["serve", "/no/such/file.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let cluster = one();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listen = format!("127.0.0.1:{}", taken.local_addr().unwrap().port());
    let url = format!("postgres://app:x@127.0.0.1:{}/postgres", cluster.node(0).port());
    let output = bounded(env!("CARGO_BIN_EXE_poolhouse"))
        .args(["serve", "--upstream", &url, "--listen", &listen])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("cannot listen on {listen}")), "{said}");
}

#[test]
fn a_copy_may_fail_in_the_middle_of_a_message() {
    let cluster = one();
    cluster.node(0).query("CREATE TABLE number (n int); GRANT ALL ON number TO app").unwrap();
    let pooler = in_front(&cluster).set("pool.size", "1").start();
    let mut client = login(pooler.port());
    for opening in ["COPY number FROM STDIN", "SET work_mem = '5MB'; COPY number FROM STDIN"] {
        client.send(&messages::query(opening));
        while client.read().tag != b'G' {}
        let wrong = messages::copy_data(b"not a number\n");
        let long = messages::copy_data(&vec![b'1'; 300_000]);
        let (begin, rest) = long.split_at(100_000);
        // In one piece, so that the long message is on its way when the server finds the mistake.
        client.send(&[&wrong, begin].concat());
        let failed = client.read_until_ready();
        assert_eq!(failed.iter().find(|message| message.tag == b'E').unwrap().sqlstate(), "22P02");
        client.send(rest);
        client.send(&messages::copy_done());
        assert_eq!(client.value("SELECT 'after ' || count(*) FROM number").as_deref(), Some("after 0"));
        assert_eq!(login(pooler.port()).value("SELECT 'other'").as_deref(), Some("other"));
    }
}
