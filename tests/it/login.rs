//! Who gets in: every way to log in to Poolhouse before every way in which Poolhouse logs in to a server.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use super::kit::{Cluster, Config, PATIENCE, RawClient, cluster, messages, wait_until};

fn users() -> Cluster {
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
    let port = poolhouse::cli::demo::throwaway::free_port().unwrap();
    let url = format!("postgres://s:secret@127.0.0.1:{}/postgres", cluster.node(0).port());
    for by_environment in [false, true] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poolhouse"));
        command.arg("serve").args(["--listen", &format!("127.0.0.1:{port}")]);
        match by_environment {
            true => command.env("DATABASE_URL", &url),
            false => command.args(["--upstream", &url]),
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        cluster.watch(child.id()).unwrap();
        wait_until("it listens", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut client = RawClient::login(port, "postgres", "s", "secret");
        assert_eq!(client.value("SELECT current_user").as_deref(), Some("s"));
        assert_eq!(refusal(port, "postgres", "s", "wrong").unwrap().0, "28P01");
        let _ = (child.kill(), child.wait());
        wait_until("the port is free", Duration::from_secs(30), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
        });
    }
}
