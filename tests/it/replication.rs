//! Replication through Poolhouse, with PostgreSQL's own tools and by hand.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
};

use poolhouse_lab::{postgres::Postgres, throwaway::Throwaway};
use rustix::process::{Pid, Signal, kill_process};

use super::kit::{
    Config, Cut, Fault, LabCluster, PATIENCE, RawClient, cluster,
    messages::{any, cancel_request, query, startup, terminate},
    wait_until,
};

const USER: &str = "copier";
const PASSWORD: &str = "secret";

fn started() -> LabCluster {
    cluster().setting("wal_level", "logical").replication_user(USER, PASSWORD).trust_user("app").start().unwrap()
}

fn config(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).user(USER, PASSWORD).user("app", "app")
}

/// A program of PostgreSQL's, as its user, that connects to this port.
fn tool(postgres: &Postgres, name: &str, port: u16) -> Command {
    let mut command = postgres.command(name);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", USER, "-w"]).env("PGPASSWORD", PASSWORD);
    command
}

fn directory(postgres: &Postgres) -> Throwaway {
    let directory = Throwaway::new().unwrap();
    postgres.own(directory.path()).unwrap();
    directory
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Ends a tool as Ctrl-C does, and waits for it.
fn interrupt(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    wait_until("the tool ends", PATIENCE, || child.try_wait().unwrap().is_some());
}

/// A replication connection by hand, and what the login answered.
fn begin(port: u16, kind: &str) -> RawClient {
    let mut client = RawClient::connect(port);
    client.send(&startup(0x30000, &[("user", USER), ("database", "postgres"), ("replication", kind)]));
    let answer = client.finish_login(USER, PASSWORD);
    assert_eq!(answer.last().unwrap().tag, b'Z', "{answer:?}");
    client
}

fn senders(cluster: &LabCluster) -> usize {
    let rows = cluster.node(0).query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'");
    rows.unwrap()[0][0].as_deref().unwrap().parse().unwrap()
}

/// Starts to stream WAL from where it is now.
fn stream(client: &mut RawClient) {
    let answer = client.query("IDENTIFY_SYSTEM");
    let position = answer.iter().find(|message| message.tag == b'D').unwrap().values()[2].clone().unwrap();
    client.send(&query(&format!("START_REPLICATION PHYSICAL {position}")));
    assert_eq!(client.read().tag, b'W');
}

#[test]
fn a_base_backup_is_taken_and_is_whole() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let postgres = Postgres::find().unwrap();
    let scratch = directory(&postgres);
    let target = scratch.path().join("backup");
    let mut command = tool(&postgres, "pg_basebackup", pooler.port());
    succeeds(command.args(["-X", "stream", "-c", "fast", "-D"]).arg(&target));
    succeeds(postgres.command("pg_verifybackup").arg(&target));
    wait_until("the server connections are closed", PATIENCE, || senders(&cluster) == 0);
}

#[test]
fn wal_is_received() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let postgres = Postgres::find().unwrap();
    let scratch = directory(&postgres);
    let child = tool(&postgres, "pg_receivewal", pooler.port()).arg("-D").arg(scratch.path()).spawn().unwrap();
    scratch.watch(child.id()).unwrap();
    wait_until("it streams", PATIENCE, || senders(&cluster) == 1);
    let segments = |path: &Path| {
        let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.len() == 24).count()
    };
    for number in 1..=3 {
        cluster.node(0).query("CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (1)").unwrap();
        cluster.node(0).query("SELECT pg_switch_wal()").unwrap();
        wait_until("a segment is whole", PATIENCE, || segments(scratch.path()) >= number);
    }
    interrupt(child);
    wait_until("the server connection is closed", PATIENCE, || senders(&cluster) == 0);
}

#[test]
fn a_database_is_decoded() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE t (x text)").unwrap();
    let pooler = config(&cluster).start();
    let postgres = Postgres::find().unwrap();
    let scratch = directory(&postgres);
    let file = scratch.path().join("changes");
    let slot = |action: &[&str]| {
        let mut command = tool(&postgres, "pg_recvlogical", pooler.port());
        command.args(["-d", "postgres", "--slot", "s"]).args(action);
        command
    };
    succeeds(&mut slot(&["--create-slot", "--plugin", "test_decoding"]));
    let mut receive = slot(&["--start", "--fsync-interval=0", "-F", "1", "-f"]);
    let child = receive.arg(&file).spawn().unwrap();
    scratch.watch(child.id()).unwrap();
    // More than any buffer on the way holds.
    cluster.node(0).query("INSERT INTO t SELECT repeat('x', 1000) || n FROM generate_series(1, 5000) n").unwrap();
    let has_all = || fs::read_to_string(&file).is_ok_and(|text| text.contains("x5000'") && text.contains("x1'"));
    wait_until("all changes are there", PATIENCE, has_all);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().filter(|line| line.contains("INSERT")).count(), 5000);
    interrupt(child);
    // The slot is free once the server has noticed.
    wait_until("the slot can be dropped", PATIENCE, || slot(&["--drop-slot"]).output().unwrap().status.success());
}

#[test]
fn a_replication_connection_is_the_servers_own() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let login = |port| {
        let mut client = RawClient::connect(port);
        let parameters = [
            ("user", USER),
            ("database", "postgres"),
            ("replication", "database"),
            ("application_name", "mine"),
            ("options", "-c work_mem=7MB"),
        ];
        client.send(&startup(0x30000, &parameters));
        let mut answer = client.finish_login(USER, PASSWORD);
        answer.retain(|message| message.tag == b'S');
        answer.sort_by(|one, other| one.body.cmp(&other.body));
        (client, answer)
    };
    let (mut client, told) = login(pooler.port());
    let (mut direct, expected) = login(cluster.node(0).port());
    assert_eq!(told, expected);
    for sql in ["SHOW work_mem", "SHOW application_name", "SELECT current_database()", "IDENTIFY_SYSTEM", "nonsense"] {
        let tags =
            |client: &mut RawClient| client.query(sql).into_iter().map(|message| message.tag).collect::<Vec<_>>();
        assert_eq!(tags(&mut client), tags(&mut direct), "{sql}");
    }
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("7MB"));
    assert_eq!(client.value("SELECT pg_backend_pid()"), Some(client.process().to_string()));

    client.send(&query("SELECT pg_sleep(60)"));
    let sleeps = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("it runs", PATIENCE, || !cluster.node(0).query(sleeps).unwrap().is_empty());
    let mut canceller = RawClient::connect(pooler.port());
    canceller.send(&cancel_request(client.cancel_key.as_ref().unwrap()));
    assert_eq!(client.read_until_ready().iter().find(|it| it.tag == b'E').unwrap().sqlstate(), "57014");

    // It ends as it does directly: when the client has nothing more to say, and when the server wants it.
    client.send(&query("SELECT 'last'"));
    client.finish_sending();
    assert_eq!(client.read_to_end()[1].values()[0].as_deref(), Some("last"));
    let mut client = begin(pooler.port(), "true");
    client.send(&terminate());
    assert!(client.read_to_end().is_empty());
    let mut client = begin(pooler.port(), "true");
    stream(&mut client);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    cluster.node(0).query(end).unwrap();
    let last = client.read_to_end().pop().unwrap();
    assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("57P01", Some("FATAL")));
}

#[test]
fn refusals_are_the_servers_own() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let refused = |port, user: &str, password: &str, kind: &str| {
        let mut client = RawClient::connect(port);
        client.send(&startup(0x30000, &[("user", user), ("database", "postgres"), ("replication", kind)]));
        let error = client.finish_login(user, password).pop().unwrap();
        (error.sqlstate(), error.field(b'M'), error.field(b'S'))
    };
    for (user, password, kind) in
        [("app", "app", "database"), (USER, "wrong", "true"), (USER, PASSWORD, "maybe"), ("app", "app", "2")]
    {
        let direct = refused(cluster.node(0).port(), user, password, kind);
        assert_eq!(refused(pooler.port(), user, password, kind), direct, "{user} {kind}");
    }
}

#[test]
fn a_server_is_found_without_a_databases_name() {
    let cluster = started();
    let port = cluster.node(0).port();
    let text = format!(
        "[users.{USER}]\npassword = \"{PASSWORD}\"\n[clusters.main]\nnodes = [\"127.0.0.1:{port}\"]\n\
         [clusters.main.health]\nuser = \"app\"\n\
         [databases.front]\ndatabase = \"postgres\"\ncluster = \"main\"\n[databases.back]\ncluster = \"main\"\n"
    );
    let login = |port, database: &str, kind: &str| {
        let mut client = RawClient::connect(port);
        client.send(&startup(0x30000, &[("user", USER), ("database", database), ("replication", kind)]));
        client.finish_login(USER, PASSWORD).pop().unwrap()
    };
    let pooler = Config::of_text(&text).start();
    pooler.allow_warnings("");
    assert_eq!(login(pooler.port(), "replication", "true").tag, b'Z');
    assert_eq!(login(pooler.port(), "front", "database").tag, b'Z');
    assert_eq!(login(pooler.port(), "replication", "database").sqlstate(), "3D000");
    // With two clusters to choose from it has to be named.
    let two = format!(
        "{text}[clusters.other]\nnodes = [\"127.0.0.1:{port}\"]\nhealth.user = \"app\"\n\
         [databases.other]\ncluster = \"other\"\n"
    );
    let pooler = Config::of_text(&two).start();
    pooler.allow_warnings("");
    assert_eq!(login(pooler.port(), "replication", "true").sqlstate(), "3D000");
    assert_eq!(login(pooler.port(), "other", "true").tag, b'Z');
}

#[test]
fn replication_counts_against_the_nodes_connections() {
    let cluster = started();
    let config = config(&cluster).set("clusters.main.max_connections", "1").set("pool.size", "1");
    let pooler = config.set("pool.checkout_timeout", "'1s'").start();
    let client = begin(pooler.port(), "true");
    let refused = || {
        let mut other = RawClient::connect(pooler.port());
        other.send(&startup(0x30000, &[("user", "app"), ("database", "postgres")]));
        let last = other.finish_login("app", "app").pop().unwrap();
        (last.tag == b'E').then(|| last.sqlstate())
    };
    assert_eq!(refused().as_deref(), Some("53300"));
    drop(client);
    wait_until("there is room again", PATIENCE, || refused().is_none());
}

#[test]
fn a_slow_reader_holds_up_the_server_and_not_the_memory() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut client = begin(pooler.port(), "true");
    let before = pooler.rss();
    client.send(&query("BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'no')"));
    let waits = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'ClientWrite'";
    wait_until("the server waits for the client", PATIENCE, || !cluster.node(0).query(waits).unwrap().is_empty());
    let grown = pooler.rss().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
    let bytes: usize = client.read_until_ready().iter().map(|message| message.body.len()).sum();
    assert!(bytes > 10 << 20, "{bytes} bytes");
}

#[test]
fn a_lost_server_is_said_to_be_lost() {
    let cluster = started();
    let fault = Fault::to(cluster.node(0).port());
    let config = Config::of_ports([fault.port()]).user(USER, PASSWORD).set("clusters.main.health.user", "'app'");
    let pooler = config.start();
    pooler.allow_warnings("");
    let mut client = begin(pooler.port(), "true");
    stream(&mut client);
    fault.refuse();
    fault.cut(Cut::Reset);
    let last = client.read_to_end().pop().unwrap();
    assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("08006", Some("FATAL")));
}

#[test]
fn streams_end_when_poolhouse_ends_and_backups_are_waited_for() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let (mut idle, mut streaming, mut busy) =
        (begin(pooler.port(), "true"), begin(pooler.port(), "true"), begin(pooler.port(), "true"));
    stream(&mut streaming);
    busy.send(&query("BASE_BACKUP (CHECKPOINT 'fast', MANIFEST 'no')"));
    assert_eq!(busy.read().tag, b'T');
    pooler.signal(Signal::TERM);
    for client in [&mut idle, &mut streaming] {
        let last = client.read_to_end().pop().unwrap();
        assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("57P01", Some("FATAL")));
    }
    // The backup is whole, and only then its client is told.
    let answer = busy.read_until_ready();
    assert!(answer.iter().all(|message| message.tag != b'E'), "{:?}", answer.last());
    assert_eq!(busy.read_to_end().pop().unwrap().sqlstate(), "57P01");
    assert_eq!(pooler.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_stream_survives_what_a_client_says_in_between() {
    let cluster = started();
    let pooler = config(&cluster).start();
    let mut client = begin(pooler.port(), "true");
    stream(&mut client);
    // A standby status update that asks for an answer, many times, in one write.
    let update = any(b'd', &[&[b'r'][..], &[0; 32], &[1]].concat());
    client.send(&update.repeat(1_000));
    let mut answers = 0;
    while answers < 1_000 {
        let message = client.read();
        assert_eq!(message.tag, b'd');
        answers += usize::from(message.body[0] == b'k');
    }
    let mut direct = begin(cluster.node(0).port(), "true");
    stream(&mut direct);
    let [told, expected] = [client, direct].map(|mut client| {
        client.send(&any(b'c', &[]));
        let mut answer = client.read_until_ready();
        answer.retain(|message| message.tag != b'd');
        answer
    });
    assert_eq!(told, expected);
}
