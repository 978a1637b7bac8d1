//! The commands of the console, under load: what they promise happens, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    console::{ask, column, console, in_front},
    kit::{Config, LabCluster, PATIENCE, Pooler, RawClient, cluster, messages, wait_until},
};

/// Clients that run one transaction after the other until they are stopped; each of them must succeed.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(pooler: &Pooler, clients: usize) -> Load {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let port = pooler.port();
        let client = |_| {
            let (stop, done) = (stop.clone(), done.clone());
            thread::spawn(move || {
                let mut client = RawClient::login(port, "postgres", "app", "secret");
                while !stop.load(Ordering::Relaxed) {
                    for sql in ["BEGIN", "UPDATE count SET n = n + 1", "COMMIT"] {
                        let answer = ask(&mut client, sql);
                        assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let clients = (0..clients).map(client).collect();
        Load { stop, done, clients }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until more has been done.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.done();
        wait_until("the load goes on", PATIENCE, || self.done() > before + 20);
    }

    /// What has been done, once all have ended.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        self.done.load(Ordering::Relaxed)
    }
}

fn counted() -> LabCluster {
    let cluster = cluster().trust_user("app").start().unwrap();
    cluster
        .node(0)
        .query("CREATE TABLE count (n int); GRANT ALL ON count TO app; INSERT INTO count VALUES (0)")
        .unwrap();
    cluster
}

fn configured(cluster: &LabCluster) -> Config {
    in_front(cluster).set("pool.size", "3").set("pool.checkout_timeout", "'30s'")
}

fn app(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

fn value(cluster: &LabCluster, sql: &str) -> String {
    cluster.node(0).query(sql).unwrap()[0][0].clone().unwrap()
}

/// Server connections of the user, as the server sees them.
fn backends(cluster: &LabCluster) -> Vec<String> {
    let sql = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE usename = 'app'";
    let pids = value(cluster, sql);
    pids.split_whitespace().map(str::to_owned).collect()
}

fn tag(client: &mut RawClient, sql: &str) -> String {
    let answer = ask(client, sql);
    let done = answer.iter().rfind(|message| message.tag == b'C').unwrap_or_else(|| panic!("{sql}: {answer:?}"));
    done.text()
}

#[test]
fn a_pause_waits_for_transactions_and_holds_new_ones_without_an_error() {
    let cluster = counted();
    // Those who wait during a pause do so longer than any checkout may take.
    let pooler = configured(&cluster).set("pool.checkout_timeout", "'1s'").start();
    let (mut admin, mut holder) = (console(&pooler), app(&pooler));
    let load = Load::start(&pooler, 2);
    load.goes_on();
    ask(&mut holder, "BEGIN; SELECT 1");
    admin.send(&messages::query("PAUSE postgres"));
    // It waits for the holder, and all others are held.
    wait_until("only the holder is left", PATIENCE, || backends(&cluster).len() == 1);
    let before = load.done();
    let mut other = console(&pooler);
    wait_until("the others wait", PATIENCE, || {
        column(&mut other, "SHOW POOLS WHERE database = 'postgres'", "cl_waiting") == ["2"]
    });
    assert_eq!(column(&mut other, "SHOW DATABASES WHERE paused = 1", "name"), ["postgres"]);
    ask(&mut holder, "COMMIT");
    assert_eq!(admin.read_until_ready()[0].text(), "PAUSE");
    wait_until("their processes have ended", PATIENCE, || backends(&cluster).is_empty());
    thread::sleep(Duration::from_millis(1_500));
    assert!(load.done() <= before + 2, "something has run during the pause");
    assert_eq!(tag(&mut admin, "RESUME postgres"), "RESUME");
    load.goes_on();
    let done = load.end();
    assert_eq!(value(&cluster, "SELECT n FROM count"), done.to_string());
    let events = column(&mut admin, "SHOW EVENTS WHERE kind = 'command'", "what");
    assert_eq!(events, ["PAUSE postgres", "RESUME postgres"]);
}

#[test]
fn a_pause_of_all_holds_those_who_come_too_and_can_be_cancelled() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let (mut admin, mut holder) = (console(&pooler), app(&pooler));
    ask(&mut holder, "BEGIN; SELECT 1");
    admin.send(&messages::query("PAUSE"));
    let key = admin.cancel_key.clone().unwrap();
    let mut other = console(&pooler);
    wait_until("it is paused", PATIENCE, || column(&mut other, "SHOW STATE WHERE key = 'paused'", "value") == ["yes"]);
    RawClient::connect(pooler.port()).send(&messages::cancel_request(&key));
    assert_eq!(admin.read_until_ready()[0].sqlstate(), "57014");
    // The order stands.
    assert_eq!(ask(&mut admin, "PAUSE")[0].sqlstate(), "55000");
    ask(&mut holder, "COMMIT");
    holder.send(&messages::query("SELECT 7"));
    wait_until("it waits", PATIENCE, || {
        column(&mut other, "SHOW CLIENTS WHERE state = 'waiting' AND database = 'postgres'", "user") == ["app"]
    });
    assert_eq!(tag(&mut admin, "RESUME"), "RESUME");
    assert_eq!(holder.read_until_ready()[1].values(), [Some("7".to_owned())]);
    assert_eq!(ask(&mut admin, "RESUME")[0].sqlstate(), "55000");
}

#[test]
fn reconnect_and_wait_close_replace_every_connection_under_load() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let (mut admin, mut holder) = (console(&pooler), app(&pooler));
    let load = Load::start(&pooler, 4);
    load.goes_on();
    ask(&mut holder, "BEGIN; SELECT 1");
    wait_until("all are open", PATIENCE, || backends(&cluster).len() == 3);
    let before = backends(&cluster);
    assert_eq!(tag(&mut admin, "RECONNECT postgres"), "RECONNECT");
    let kept = cluster
        .node(0)
        .query("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND query = 'SELECT 1'");
    let kept = kept.unwrap();
    let marked = column(&mut admin, "SHOW SERVERS WHERE close_needed = 1", "remote_pid");
    assert!(kept.iter().all(|row| marked.contains(row[0].as_ref().unwrap())), "{marked:?} lacks {kept:?}");
    admin.send(&messages::query("WAIT_CLOSE postgres"));
    load.goes_on();
    ask(&mut holder, "COMMIT");
    assert_eq!(admin.read_until_ready()[0].text(), "WAIT_CLOSE");
    wait_until("the old ones are gone", PATIENCE, || backends(&cluster).iter().all(|pid| !before.contains(pid)));
    load.goes_on();
    let done = load.end();
    assert_eq!(value(&cluster, "SELECT n FROM count"), done.to_string());
}

#[test]
fn kill_client_ends_exactly_one() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let mut admin = console(&pooler);
    let mut clients: Vec<RawClient> = (0..3).map(|_| app(&pooler)).collect();
    let ids = column(&mut admin, "SHOW CLIENTS WHERE database = 'postgres' ORDER BY id", "id");
    assert_eq!(ids.len(), 3);
    // One that idles, and one in the middle of a statement.
    assert_eq!(tag(&mut admin, &format!("KILL_CLIENT {}", ids[0])), "KILL_CLIENT");
    assert_eq!(clients[0].read().sqlstate(), "57P01");
    clients[1].send(&messages::query("SELECT pg_sleep(600)"));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(600)' AND state = 'active'";
    wait_until("it runs", PATIENCE, || value(&cluster, sleeping) == "1");
    assert_eq!(tag(&mut admin, &format!("KILL_CLIENT {}", ids[1])), "KILL_CLIENT");
    wait_until("it is told", PATIENCE, || clients[1].read().tag == b'E');
    wait_until("it runs no more", PATIENCE, || value(&cluster, sleeping) == "0");
    assert_eq!(ask(&mut clients[2], "SELECT 1")[1].values(), [Some("1".to_owned())]);
    assert_eq!(column(&mut admin, "SHOW CLIENTS WHERE database = 'postgres'", "id"), ids[2..]);
    assert_eq!(ask(&mut admin, &format!("KILL_CLIENT {}", ids[0]))[0].sqlstate(), "42704");
}

#[test]
fn kill_disconnects_all_and_holds_those_who_come_until_resume() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let (mut admin, mut idle, mut busy) = (console(&pooler), app(&pooler), app(&pooler));
    ask(&mut busy, "BEGIN; UPDATE count SET n = 77");
    assert_eq!(tag(&mut admin, "KILL postgres"), "KILL");
    for client in [&mut idle, &mut busy] {
        assert_eq!(client.read().sqlstate(), "57P01");
    }
    wait_until("all are closed", PATIENCE, || backends(&cluster).is_empty());
    // Its login may need the server already.
    let late = thread::spawn({
        let port = pooler.port();
        move || {
            let mut late = RawClient::login(port, "postgres", "app", "secret");
            ask(&mut late, "SELECT n FROM count")[1].values()
        }
    });
    wait_until("it waits", PATIENCE, || {
        let waiting = column(&mut admin, "SHOW POOLS WHERE database = 'postgres'", "cl_waiting") == ["1"];
        waiting || column(&mut admin, "SHOW LISTS WHERE list = 'login_clients'", "items") == ["1"]
    });
    assert!(backends(&cluster).is_empty());
    assert_eq!(tag(&mut admin, "RESUME postgres"), "RESUME");
    assert_eq!(late.join().unwrap(), [Some("0".to_owned())], "nothing was committed");
}

#[test]
fn a_disabled_database_lets_nobody_else_in() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let (mut admin, mut before) = (console(&pooler), app(&pooler));
    assert_eq!(tag(&mut admin, "DISABLE postgres"), "DISABLE");
    let mut refused = RawClient::connect(pooler.port());
    refused.send(&messages::startup(0x30000, &[("user", "app"), ("database", "postgres")]));
    assert_eq!(refused.finish_login("app", "secret").last().unwrap().sqlstate(), "55000");
    assert_eq!(ask(&mut before, "SELECT 1")[1].values(), [Some("1".to_owned())]);
    assert_eq!(column(&mut admin, "SHOW DATABASES WHERE disabled = 1", "name"), ["postgres"]);
    assert_eq!(tag(&mut admin, "ENABLE postgres"), "ENABLE");
    app(&pooler);
}

#[test]
fn suspended_all_wait_until_the_operator_resumes_or_leaves() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let mut client = app(&pooler);
    for leaves in [false, true] {
        let mut admin = console(&pooler);
        assert_eq!(tag(&mut admin, "SUSPEND"), "SUSPEND");
        assert_eq!(column(&mut admin, "SHOW STATE WHERE key = 'suspended'", "value"), ["yes"]);
        wait_until("their processes have ended", PATIENCE, || backends(&cluster).is_empty());
        client.send(&messages::query("SELECT 5"));
        let late = thread::spawn({
            let port = pooler.port();
            move || drop(RawClient::login(port, "postgres", "app", "secret"))
        });
        wait_until("it waits", PATIENCE, || {
            column(&mut admin, "SHOW POOLS WHERE database = 'postgres'", "cl_waiting") == ["1"]
        });
        if leaves {
            pooler.allow_warnings("the operator who had suspended Poolhouse has left");
            drop(admin);
        } else {
            assert!(!late.is_finished());
            assert_eq!(tag(&mut admin, "RESUME"), "RESUME");
        }
        assert_eq!(client.read_until_ready()[1].values(), [Some("5".to_owned())]);
        late.join().unwrap();
    }
}

#[test]
fn shutdown_ends_as_it_is_told() {
    for (command, waits_for) in
        [("SHUTDOWN", None), ("SHUTDOWN WAIT_FOR_SERVERS", Some("COMMIT")), ("SHUTDOWN WAIT_FOR_CLIENTS", Some(""))]
    {
        let cluster = counted();
        let pooler = configured(&cluster).start();
        let (mut admin, mut client) = (console(&pooler), app(&pooler));
        ask(&mut client, "BEGIN; UPDATE count SET n = 9");
        admin.send(&messages::query(command));
        if let Some(last) = waits_for {
            wait_until("nobody else is let in", PATIENCE, || {
                std::net::TcpStream::connect(("127.0.0.1", pooler.port())).is_err()
            });
            assert_eq!(pooler.exit_status(), None, "{command}");
            ask(&mut client, if last.is_empty() { "COMMIT; SELECT 1" } else { last });
            drop(client);
        } else {
            assert_eq!(client.read().sqlstate(), "57P01");
        }
        assert!(pooler.wait_for_exit(PATIENCE).success(), "{command}");
        let expected = if waits_for.is_some() { "9" } else { "0" };
        assert_eq!(value(&cluster, "SELECT n FROM count"), expected, "{command}");
    }
}

#[test]
fn the_level_of_the_log_can_be_set() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let mut admin = console(&pooler);
    drop(app(&pooler));
    assert!(!pooler.logs("a client logged in"));
    assert_eq!(tag(&mut admin, "SET log.level = 'debug'"), "SET");
    assert_eq!(column(&mut admin, "SHOW CONFIG WHERE key = 'log.level'", "value"), ["debug"]);
    drop(app(&pooler));
    wait_until("it is logged", PATIENCE, || pooler.logs("a client logged in"));
    for wrong in ["", "loud", "a=b=c"] {
        assert_eq!(ask(&mut admin, &format!("SET log.level = '{wrong}'"))[0].sqlstate(), "22023", "{wrong}");
    }
}

#[test]
fn reloads_under_load_disturb_nobody() {
    let cluster = counted();
    let pooler = configured(&cluster).start();
    let mut admin = console(&pooler);
    let load = Load::start(&pooler, 4);
    for number in 0..20 {
        load.goes_on();
        let config = configured(&cluster).set("pool.size", &format!("{}", 1 + number % 4));
        let config = config.set("pool.idle_timeout", &format!("'{}m'", 1 + number)).user(&format!("user{number}"), "x");
        let config = config.set(&format!("databases.app{number}.cluster"), "'main'");
        let config = config.set("pool.client_idle_timeout", &format!("'{}m'", 10 + number));
        let reads = ["'primary'", "'any'", "'replica'"][number % 3];
        pooler.rewrite(&config.set("clusters.main.routing.reads", reads));
        assert_eq!(tag(&mut admin, "RELOAD"), "RELOAD");
    }
    load.goes_on();
    let done = load.end();
    assert_eq!(value(&cluster, "SELECT n FROM count"), done.to_string());
}
