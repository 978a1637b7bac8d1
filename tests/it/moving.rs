//! Clients that move between the threads that serve them. Whether they move depends on how busy the threads are, so here
//! the threads are in this process, and the test gives the orders.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::kit::{
    LabCluster, PATIENCE, RawClient, Served, cluster,
    messages::{bind, cancel_request, execute, parse, query, sync},
    wait_until,
};

const THREADS: usize = 3;

fn served(cluster: &LabCluster) -> Served {
    Served::start(cluster, THREADS, |settings| {
        settings.databases.values_mut().for_each(|database| database.pool.size = 3);
    })
}

fn started() -> LabCluster {
    let cluster = cluster().password_user("app", "secret").start().unwrap();
    cluster.node(0).query("CREATE TABLE tally (client int, turn int); GRANT ALL ON tally TO app").unwrap();
    cluster
}

/// What one client does in a turn: a transaction, a setting, and a statement that was prepared once.
fn turn(client: &mut RawClient, number: usize, turn: usize) {
    let count = format!("SELECT count(*) FROM tally WHERE client = {number}");
    client.begin();
    client.query(&format!("INSERT INTO tally VALUES ({number}, {turn})"));
    assert_eq!(client.value(&count), Some((turn + 1).to_string()));
    client.query("COMMIT");
    assert_eq!(client.value(&count), Some((turn + 1).to_string()));
    assert_eq!(client.value("SHOW application_name"), Some(format!("client {number}")));
    client.send(&[bind("", "add", &[Some("40")]), execute("", 0), sync()].concat());
    let answer = client.read_until_ready();
    let row = answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("no row: {answer:?}"));
    assert_eq!(row.values(), [Some((40 + number).to_string())]);
}

fn prepare(client: &mut RawClient, number: usize) {
    client.query(&format!("SET application_name = 'client {number}'"));
    client.send(&[parse("add", &format!("SELECT $1::int + {number}")), sync()].concat());
    client.read_until_ready();
}

#[test]
fn clients_move_under_load_and_notice_nothing() {
    const CLIENTS: usize = 8;
    let cluster = started();
    let mut served = served(&cluster);
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| served.login()).collect();
    assert_eq!(served.workers.clients(), [CLIENTS, 0, 0]);
    clients.iter_mut().enumerate().for_each(|(number, client)| prepare(client, number));
    let working = clients.into_iter().enumerate().map(|(number, mut client)| {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut turns = 0;
            while !stop.load(Ordering::Relaxed) {
                turn(&mut client, number, turns);
                turns += 1;
            }
            client
        })
    });
    let working: Vec<_> = working.collect();
    for round in 1..=20 {
        let to = round % THREADS;
        let others = (0..THREADS).filter(|from| *from != to);
        served.order(&others.map(|from| (from, to, 1000)).collect::<Vec<_>>());
        wait_until("all are on one thread", PATIENCE, || {
            assert!(working.iter().all(|client| !client.is_finished()), "a client has failed");
            served.workers.clients()[to] == CLIENTS
        });
    }
    let crowded = 20 % THREADS;
    served.order(&[(crowded, 0, 500)]);
    wait_until("half of them have gone", PATIENCE, || served.workers.clients()[0] == CLIENTS / 2);
    stop.store(true, Ordering::Relaxed);
    let mut clients: Vec<RawClient> = working.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(served.workers.clients()[crowded], CLIENTS / 2, "each is asked once");

    // A cancel request finds a client that has moved.
    let mut client = clients.pop().unwrap();
    client.send(&query("SELECT pg_sleep(600)"));
    wait_until("the statement runs", PATIENCE, || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)'";
        cluster.node(0).query(running).unwrap() == [[Some("1".to_owned())]]
    });
    RawClient::connect(served.port).send(&cancel_request(client.cancel_key.as_ref().unwrap()));
    let answer = client.read_until_ready();
    assert_eq!(
        answer.iter().find(|message| message.tag == b'E').map(|message| message.sqlstate()),
        Some("57014".into())
    );

    drop((client, clients));
    wait_until("no place is kept", PATIENCE, || served.frontend.registry.connected() == 0);
    served.drain();
}

#[test]
fn a_drain_reaches_clients_that_are_on_the_move() {
    const CLIENTS: usize = 12;
    let cluster = started();
    let mut served = served(&cluster);
    let working: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = served.login();
            thread::spawn(move || {
                // Until it is told to go: a client that finds its socket closed has not been told.
                while client.try_send(&query("SELECT 1")).is_ok() {
                    loop {
                        match client.try_read() {
                            Ok(Some(message)) if message.tag == b'E' => return Some(message.sqlstate()),
                            Ok(Some(message)) if message.tag == b'Z' => break,
                            Ok(Some(_)) => {}
                            Ok(None) | Err(_) => return None,
                        }
                    }
                }
                client.read_to_end().last().map(|message| message.sqlstate())
            })
        })
        .collect();
    for round in 0..500 {
        served.order(&[(0, 1, 1000), (1, 2, 500), (2, 0, 1000)]);
        if round % 10 == 0 {
            thread::yield_now();
        }
        served.order(&[(0, 2, 500), (1, 0, 1000), (2, 1, 1000)]);
    }
    served.drain();
    for client in working {
        assert_eq!(client.join().unwrap().as_deref(), Some("57P01"));
    }
}
