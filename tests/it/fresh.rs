//! Reads after writes: what a session must see it sees, wherever it reads, and it reads on replicas again soon.
//!
//! `FRESH_CLIENTS` and `FRESH_ROUNDS` make the long runs longer.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use super::kit::{Config, LabCluster, Message, PATIENCE, Pooler, RawClient, cluster, messages, wait_until};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

fn replicated(replicas: usize) -> LabCluster {
    let cluster = cluster().replicas(replicas).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (owner int, number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn in_front(cluster: &LabCluster, settings: &[(&str, &str)]) -> Pooler {
    let config = Config::of_cluster(cluster).user("app", "secret");
    settings.iter().fold(config, |config, (key, value)| config.set(key, value)).start()
}

fn login(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

fn port(client: &mut RawClient) -> u16 {
    client.value(PORT).unwrap().parse().unwrap()
}

fn reads_on_replica(client: &mut RawClient, cluster: &LabCluster) -> bool {
    port(client) != cluster.node(0).port()
}

fn wait_for_replicas(client: &mut RawClient, cluster: &LabCluster) {
    wait_until("reads reach a replica", PATIENCE, || reads_on_replica(client, cluster));
}

fn code(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').map(Message::sqlstate)
}

fn number(name: &str, usual: usize) -> usize {
    env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Clients that insert, and count at once what they have inserted. One replica is three seconds late, the other stops now
/// and then. The answer is how often the count was too small, and how often it was taken on a replica.
fn count_stale_reads(cluster: &LabCluster, pooler: &Pooler) -> (usize, usize) {
    let (clients, rounds) = (number("FRESH_CLIENTS", 8), number("FRESH_ROUNDS", 60));
    cluster.node(1).query("ALTER SYSTEM SET recovery_min_apply_delay = '3s'").unwrap();
    cluster.node(1).query("SELECT pg_reload_conf()").unwrap();
    let primary = cluster.node(0).port().to_string();
    let work = |owner: usize| {
        let mut client = login(pooler);
        let (mut stale, mut far) = (0, 0);
        for round in 1..=rounds {
            assert_eq!(code(&client.query(&format!("INSERT INTO ticket VALUES ({owner}, {round})"))), None);
            // Some read at once, others a moment later.
            thread::sleep(Duration::from_millis((owner % 3 * 10) as u64));
            let answer = client.query(&format!(
                "SELECT (SELECT count(*) FROM ticket WHERE owner = {owner}), (SELECT port FROM place)"
            ));
            let row = answer.iter().find(|message| message.tag == b'D').expect("a row").values();
            stale += usize::from(row[0] != Some(round.to_string()));
            far += usize::from(row[1].as_deref() != Some(&*primary));
        }
        (stale, far)
    };
    let counted = thread::scope(|scope| {
        let workers: Vec<_> = (0..clients).map(|owner| scope.spawn(move || work(owner))).collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            cluster.node(2).pause_replay().unwrap();
            thread::sleep(Duration::from_millis(100));
            cluster.node(2).resume_replay().unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        workers.into_iter().map(|worker| worker.join().unwrap()).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    });
    cluster.node(1).query("ALTER SYSTEM RESET recovery_min_apply_delay").unwrap();
    cluster.node(1).query("SELECT pg_reload_conf()").unwrap();
    counted
}

#[test]
fn no_session_reads_less_than_it_wrote() {
    let cluster = replicated(2);
    let pooler = in_front(&cluster, &[("pool.size", "10")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    let (stale, far) = count_stale_reads(&cluster, &pooler);
    assert_eq!(stale, 0, "of which {far} were on replicas");
    // Once the replicas have caught up, reads are on them.
    cluster.catch_up().unwrap();
    client.query("INSERT INTO ticket VALUES (-1, 1)");
    cluster.catch_up().unwrap();
    wait_for_replicas(&mut client, &cluster);
    let there = (0..100).filter(|_| reads_on_replica(&mut client, &cluster)).count();
    assert!(there >= 90, "only {there} of 100 reads are on replicas");
}

#[test]
fn eventual_sessions_read_less_than_they_wrote() {
    let cluster = replicated(2);
    let pooler = in_front(&cluster, &[("pool.size", "10"), ("clusters.main.routing.consistency", "'eventual'")]);
    wait_for_replicas(&mut login(&pooler), &cluster);
    let (stale, _) = count_stale_reads(&cluster, &pooler);
    assert!(stale > 0, "the other test could not fail");
}

#[test]
fn a_session_is_back_on_replicas_long_before_the_next_health_check() {
    let cluster = replicated(1);
    let pooler =
        in_front(&cluster, &[("clusters.main.health.interval", "'1m'"), ("clusters.main.routing.max_lag", "'0s'")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    for round in 0..20 {
        assert_eq!(code(&client.query(&format!("INSERT INTO ticket VALUES (1, {round})"))), None);
        wait_for_replicas(&mut client, &cluster);
        assert_eq!(client.value("SELECT count(*) FROM ticket"), Some((round + 1).to_string()));
    }
}

#[test]
fn a_read_can_wait_for_a_replica_that_has_the_write() {
    let cluster = replicated(1);
    let pooler = in_front(&cluster, &[("clusters.main.routing.causal_wait", "'1m'")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    for round in 0..10 {
        client.query(&format!("INSERT INTO ticket VALUES (1, {round})"));
        assert!(reads_on_replica(&mut client, &cluster));
        assert_eq!(client.value("SELECT count(*) FROM ticket"), Some((round + 1).to_string()));
    }
    let pooler = in_front(&cluster, &[("clusters.main.routing.causal_wait", "'300ms'")]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    cluster.node(1).pause_replay().unwrap();
    client.query("INSERT INTO ticket VALUES (1, 10)");
    let since = Instant::now();
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("11"));
    assert!(since.elapsed() >= Duration::from_millis(300), "it has waited");
    cluster.node(1).resume_replay().unwrap();
}

#[test]
fn with_global_consistency_everybody_sees_what_anybody_has_written() {
    let cluster = replicated(1);
    let pooler = in_front(&cluster, &[("clusters.main.routing.consistency", "'global'")]);
    let (mut writer, mut reader) = (login(&pooler), login(&pooler));
    wait_for_replicas(&mut reader, &cluster);
    cluster.node(1).pause_replay().unwrap();
    for round in 1..=20 {
        let sql = format!("INSERT INTO ticket VALUES (1, {round})");
        match round % 3 {
            0 => drop(writer.query(&sql)),
            1 => drop(writer.query(&format!("BEGIN; {sql}; COMMIT"))),
            _ => {
                writer.send(
                    &[
                        messages::parse("", &sql),
                        messages::bind("", "", &[]),
                        messages::execute("", 0),
                        messages::sync(),
                    ]
                    .concat(),
                );
                writer.read_until_ready();
            }
        }
        assert_eq!(reader.value("SELECT count(*) FROM ticket"), Some(round.to_string()));
    }
    cluster.node(1).resume_replay().unwrap();
    wait_for_replicas(&mut reader, &cluster);
    // Who hears of a commit must see it.
    reader.query("LISTEN news");
    for round in 21..=40 {
        writer.send(&messages::query(&format!("BEGIN; INSERT INTO ticket VALUES (1, {round}); NOTIFY news; COMMIT")));
        while reader.read().tag != b'A' {}
        assert_eq!(reader.value("SELECT count(*) FROM ticket"), Some(round.to_string()));
        writer.read_until_ready();
    }
}

#[test]
fn a_position_can_be_carried_to_another_session() {
    let cluster = replicated(1);
    let pooler = in_front(&cluster, &[]);
    let (mut writer, mut reader) = (login(&pooler), login(&pooler));
    wait_for_replicas(&mut reader, &cluster);
    cluster.node(1).pause_replay().unwrap();
    writer.query("INSERT INTO ticket VALUES (1, 1)");
    let position = writer.value("SHOW poolhouse.lsn").unwrap();
    assert_eq!(reader.value("SELECT count(*) FROM ticket").as_deref(), Some("0"), "it knows nothing of the writer");
    let count = |client: &mut RawClient| client.value("SELECT count(*) FROM ticket");
    assert_eq!(code(&reader.query(&format!("SET poolhouse.lsn = '{position}'"))), None);
    assert_eq!(count(&mut reader).as_deref(), Some("1"));
    reader.query("RESET poolhouse.lsn");
    assert_eq!(count(&mut reader).as_deref(), Some("0"));
    let startup = [("user", "app"), ("database", "postgres"), ("poolhouse.lsn", &*position)];
    let mut begun = RawClient::connect(pooler.port());
    begun.send(&messages::startup(196_608, &startup));
    begun.finish_login("app", "secret");
    assert_eq!(count(&mut begun).as_deref(), Some("1"));
    cluster.node(1).resume_replay().unwrap();
    wait_for_replicas(&mut begun, &cluster);
    assert_eq!(count(&mut begun).as_deref(), Some("1"));
    // What says nothing is refused, and changes nothing.
    for wrong in ["here", "0", "0/xyz", "1/2/3"] {
        assert_eq!(code(&reader.query(&format!("SET poolhouse.lsn = '{wrong}'"))).as_deref(), Some("22023"), "{wrong}");
    }
}

#[test]
fn a_position_can_be_asked_for_in_every_way() {
    let cluster = replicated(1);
    let pooler = in_front(&cluster, &[]);
    let mut client = login(&pooler);
    wait_for_replicas(&mut client, &cluster);
    let is_position =
        |text: &str| text.split_once('/').is_some_and(|(upper, lower)| !upper.is_empty() && !lower.is_empty());
    let value = |answer: &[Message]| {
        let row = answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("a row: {answer:?}"));
        row.values()[0].clone().unwrap()
    };
    let answer = client.query("SHOW poolhouse.lsn");
    assert!(is_position(&value(&answer)));
    for name in ["", "lsn"] {
        client.send(&[messages::parse(name, "show POOLHOUSE.lsn"), messages::sync()].concat());
        assert_eq!(code(&client.read_until_ready()), None);
        for _ in 0..2 {
            let used = [messages::bind("", name, &[]), messages::describe(b'P', ""), messages::execute("", 0)].concat();
            client.send(&[messages::describe(b'S', name), used, messages::sync()].concat());
            let answer = client.read_until_ready();
            assert_eq!(answer.iter().filter(|message| message.tag == b'T').count(), 2, "{answer:?}");
            assert!(is_position(&value(&answer)), "{name:?}");
        }
    }
    client.query("BEGIN");
    client.query("INSERT INTO ticket VALUES (1, 1)");
    assert!(is_position(&value(&client.query("SHOW poolhouse.lsn"))));
    client.query("SELECT nothing");
    assert_eq!(code(&client.query("SHOW poolhouse.lsn")).as_deref(), Some("25P02"));
    client.query("ROLLBACK");
    assert_eq!(code(&client.query("SHOW poolhouse.lsn; SELECT 1")).as_deref(), Some("0A000"));
}
