//! Which of several nodes serve reads: shares as the weights say, nodes that are slow, lag or die.
//!
//! `BALANCE_CLIENTS`, `BALANCE_ROUNDS` make the long run longer.

use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use poolhouse_lab::node::LabNode;

use super::kit::{AtEnd, Config, Fault, LabCluster, PATIENCE, Pooler, RawClient, cluster, crash, wait_until};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

fn replicated() -> LabCluster {
    let cluster = cluster().replicas(2).trust_user("app").setting("max_connections", "150").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn of(cluster: &LabCluster) -> Config {
    Config::of_cluster(cluster).user("app", "secret").set("pool.size", "50")
}

fn login(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

fn port(client: &mut RawClient) -> u16 {
    client.value(PORT).unwrap().parse().unwrap()
}

/// Reads reach all these nodes.
fn wait_for(pooler: &Pooler, ports: &[u16]) {
    let mut client = login(pooler);
    for wanted in ports {
        wait_until("reads reach all nodes", PATIENCE, || port(&mut client) == *wanted);
    }
}

/// The shares of the nodes, in the order of the cluster, in percent of all reads of so many clients.
fn shares(pooler: &Pooler, cluster: &LabCluster, clients: usize) -> Vec<f64> {
    const ROUNDS: usize = 1_200;
    let work = || {
        let mut client = login(pooler);
        (0..ROUNDS / clients).map(|_| port(&mut client)).collect::<Vec<u16>>()
    };
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        for port in workers.into_iter().flat_map(|worker| worker.join().unwrap()) {
            *counts.entry(port).or_default() += 1;
        }
    });
    let all: usize = counts.values().sum();
    let share = |node: usize| counts.get(&cluster.node(node).port()).copied().unwrap_or(0) as f64 * 100.0 / all as f64;
    (0..3).map(share).collect()
}

#[test]
fn reads_spread_as_the_weights_say() {
    let cluster = replicated();
    let ports: Vec<u16> = cluster.nodes().iter().map(|node| node.port()).collect();
    let weighted = |weights: [u32; 3]| {
        let node = |(port, weight)| format!("{{ address = \"127.0.0.1:{port}\", weight = {weight} }}");
        let nodes: Vec<_> = ports.iter().zip(weights).map(node).collect();
        format!("[{}]", nodes.join(", "))
    };
    for balance in ["least-busy", "round-robin", "random"] {
        for (weights, expected) in [([1, 1, 1], [33.3, 33.3, 33.3]), ([1, 2, 5], [12.5, 25.0, 62.5])] {
            let pooler = of(&cluster)
                .set("clusters.main.nodes", &weighted(weights))
                .set("clusters.main.routing.reads", "'any'")
                .set("clusters.main.routing.balance", &format!("{balance:?}"))
                .start();
            wait_for(&pooler, &ports);
            for clients in [1, 8] {
                let found = shares(&pooler, &cluster, clients);
                let near =
                    found.iter().zip(expected).all(|(found, expected): (&f64, f64)| (found - expected).abs() <= 5.0);
                assert!(near, "{balance} {weights:?} {clients}: {found:?}");
            }
        }
    }
}

#[test]
fn the_fast_node_serves_most_reads_until_it_is_slow() {
    let cluster = replicated();
    let mut faults: Vec<Fault> = (1..3).map(|node| Fault::to(cluster.node(node).port())).collect();
    let node = |port: u16| format!("\"127.0.0.1:{port}\"");
    let nodes = [node(cluster.node(0).port()), node(faults[0].port()), node(faults[1].port())].join(", ");
    let pooler = of(&cluster)
        .set("clusters.main.nodes", &format!("[{nodes}]"))
        .set("clusters.main.routing.balance", "'latency'")
        .start();
    pooler.allow_warnings("");
    wait_for(&pooler, &[cluster.node(1).port(), cluster.node(2).port()]);
    for slow in [1, 2] {
        faults[slow - 1].delay(Duration::from_millis(30));
        let mut client = login(&pooler);
        let served = |client: &mut RawClient| (0..60).filter(|_| port(client) != cluster.node(slow).port()).count();
        wait_until("the slow node serves few reads", PATIENCE, || served(&mut client) >= 54);
        faults[slow - 1].heal();
    }
    faults.clear();
}

#[test]
fn a_replica_that_lags_in_bytes_is_left_out_and_comes_back() {
    let cluster = replicated();
    let pooler = of(&cluster)
        .set("clusters.main.routing.max_lag", "'1MB'")
        .set("clusters.main.health.interval", "'100ms'")
        .start();
    let ports = [cluster.node(1).port(), cluster.node(2).port()];
    wait_for(&pooler, &ports);
    cluster.node(1).pause_replay().unwrap();
    let fill = "INSERT INTO ticket SELECT generate_series(1, 40000)";
    cluster.node(0).query(fill).unwrap();
    let mut client = login(&pooler);
    let explained = |client: &mut RawClient| -> Vec<String> {
        let answer = client.query("EXPLAIN ROUTE SELECT 1");
        let rows = answer.iter().filter(|message| message.tag == b'D').map(|row| row.values()[11].clone().unwrap());
        rows.collect()
    };
    // The other one has to replay all of it, too.
    wait_until("it is left out", PATIENCE, || explained(&mut client)[1..] == ["lags more than max_lag", "fit"]);
    for _ in 0..20 {
        assert_eq!(port(&mut client), ports[1]);
    }
    cluster.node(1).resume_replay().unwrap();
    wait_until("it has caught up", PATIENCE, || explained(&mut client)[1] != "lags more than max_lag");
    wait_until("it is used again", PATIENCE, || port(&mut client) == ports[0]);
    assert_eq!(explained(&mut client)[1], "fit");
}

#[test]
fn a_replica_that_is_killed_costs_readers_nothing() {
    readers_never_notice(|replica| {
        replica.kill9().unwrap();
        Lost::Down
    });
}

/// Its processes say a warning to their clients, and nothing more.
#[test]
fn a_replica_that_is_stopped_at_once_costs_readers_nothing() {
    readers_never_notice(|replica| {
        replica.stop_at_once().unwrap();
        Lost::Down
    });
}

/// One process is killed; the others warn their clients and end, and the replica starts anew by itself.
#[test]
fn a_replica_that_crashes_costs_readers_nothing() {
    readers_never_notice(|replica| {
        let process =
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app' LIMIT 1";
        let process = replica.query(process).unwrap();
        crash(process[0][0].as_deref().unwrap());
        Lost::ForAMoment
    });
}

/// What becomes of a node that a test has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Down,
    ForAMoment,
}

/// Clients that only read never notice what happens to a replica under them.
fn readers_never_notice(lose: fn(&LabNode) -> Lost) {
    let number = |name: &str, usual| env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (clients, rounds) = (number("BALANCE_CLIENTS", 20), number("BALANCE_ROUNDS", 2));
    let cluster = replicated();
    let pooler = of(&cluster).set("clusters.main.health.interval", "'100ms'").start();
    pooler.allow_warnings("");
    let ports = [cluster.node(1).port(), cluster.node(2).port()];
    wait_for(&pooler, &ports);
    let (stop, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _end = AtEnd(&stop);
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = login(&pooler);
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.query(PORT);
                    let tags: String = answer.iter().map(|message| message.tag as char).collect();
                    if tags != "TDCZ" {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{answer:?}");
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..rounds {
            let lost = cluster.node(1 + round % 2);
            let before = reads.load(Ordering::Relaxed);
            let go_on =
                |more: usize| stop.load(Ordering::Relaxed) || reads.load(Ordering::Relaxed) > before + more * clients;
            wait_until("clients read", PATIENCE, || go_on(5));
            let fate = lose(lost);
            wait_until("clients read on", PATIENCE, || go_on(20));
            if fate == Lost::Down {
                lost.start().unwrap();
            }
            let mut client = login(&pooler);
            wait_until("it is used again", PATIENCE, || {
                stop.load(Ordering::Relaxed) || port(&mut client) == lost.port()
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
}
