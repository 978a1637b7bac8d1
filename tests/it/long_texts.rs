//! Texts that take long to parse hold up nobody but the client that sends them.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use super::kit::{AtEnd, Config, Direction, Fault, LabCluster, PATIENCE, RawClient, cluster, messages, wait_until};

fn started() -> LabCluster {
    cluster().password_user("app", "secret").start().unwrap()
}

/// Its form is that of no other number of rows.
fn long_text(rows: usize) -> String {
    let values = "(1, 'some text'), ".repeat(rows);
    format!("SELECT count(*) FROM (VALUES {values} (0, '')) AS rows")
}

#[test]
fn others_are_served_while_a_long_text_is_judged() {
    let cluster = started();
    let fault = Fault::to(cluster.node(0).port());
    let node = format!("['127.0.0.1:{}']", fault.port());
    let config = Config::of_cluster(&cluster).user("app", "secret").set("server.workers", "1");
    let pooler = config.set("clusters.main.nodes", &node).start();
    let login = || RawClient::login(pooler.port(), "postgres", "app", "secret");
    let (mut long, mut short) = (login(), login());
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _end = AtEnd(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(short.value("SELECT 1").as_deref(), Some("1"));
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_until("the other is served", PATIENCE, || served.load(Ordering::Relaxed) > 10);
        // On a busy machine the other may have little of one text's time, but not of each.
        let mut texts = 0;
        wait_until("the other is served while a text is judged", PATIENCE * 4, || {
            texts += 1;
            let text = messages::query(&long_text(30_000 + texts));
            let (before, passed) = (served.load(Ordering::Relaxed), fault.passed(Direction::ToServer));
            long.send(&text);
            // What the server is sent is judged by then.
            wait_until("the text is sent on", PATIENCE, || {
                fault.passed(Direction::ToServer) >= passed + text.len() as u64
            });
            let meanwhile = served.load(Ordering::Relaxed) - before;
            long.read_until_ready();
            meanwhile >= 20
        });
    });
}

/// Long texts in both protocols, in a pipeline, again and again, and by a client that leaves at once.
#[test]
fn long_texts_are_run_like_others() {
    let cluster = started();
    cluster.node(0).query("CREATE TABLE line (text text); GRANT ALL ON line TO app").unwrap();
    let pooler = Config::of_cluster(&cluster).user("app", "secret").start();
    let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
    let insert = |length: usize| format!("INSERT INTO line VALUES ('{}')", "x".repeat(length));
    for length in [16_300, 16_400, 100_000, 100_000, 900_000, 2_000_000] {
        client.query(&insert(length));
        let batch =
            [messages::parse("", &insert(length)), messages::bind("", "", &[]), messages::execute("", 0)].concat();
        let text = messages::query("SELECT count(*) FROM line");
        client.send(&[batch, messages::sync(), text].concat());
        client.read_until_ready();
        client.read_until_ready();
    }
    assert_eq!(client.value("SELECT count(*) FROM line").as_deref(), Some("12"));
    client.send(&[messages::parse("s", &long_text(2_000)), messages::sync()].concat());
    client.read_until_ready();
    for _ in 0..2 {
        client.send(&[messages::bind("", "s", &[]), messages::execute("", 0), messages::sync()].concat());
        let answer = client.read_until_ready();
        let row = answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(row.values(), [Some("2001".to_owned())]);
    }
    let mut leaving = RawClient::login(pooler.port(), "postgres", "app", "secret");
    leaving.send(&[messages::query(&insert(50_000)), messages::query(&insert(60_000))].concat());
    leaving.finish_sending();
    drop(leaving);
    wait_until("what it has sent is done or undone", PATIENCE, || {
        matches!(client.value("SELECT count(*) FROM line").as_deref(), Some("12" | "13" | "14"))
    });
}

/// What a session has become may be long as well: bodies of functions, values of settings, texts of prepared statements.
#[test]
fn long_bodies_and_values_are_the_sessions_like_short_ones() {
    let cluster = started();
    let pooler = Config::of_cluster(&cluster).user("app", "secret").set("pool.size", "4").start();
    let login = || RawClient::login(pooler.port(), "postgres", "app", "secret");
    let mut other = login();
    for length in [10_000, 70_000, 1_000_000] {
        let long = "x".repeat(length);
        let body = format!("BEGIN PERFORM set_config('long.tenant', '{length}', false); /* {long} */ END");
        let make = format!("CREATE FUNCTION long_{length}() RETURNS void LANGUAGE plpgsql AS $${body}$$");
        cluster.node(0).query(&make).unwrap();
        let mut caller = login();
        for _ in 0..3 {
            caller.query(&format!("SELECT long_{length}()"));
            assert_eq!(other.value("SELECT coalesce(current_setting('long.tenant', true), '')").as_deref(), Some(""));
            let tenant = caller.value("SELECT current_setting('long.tenant')");
            assert_eq!(tenant, Some(length.to_string()));
        }
        let sets = format!("SET long.value = '{long}'");
        let calls = format!("DO $$BEGIN PERFORM set_config('long.value', repeat('x', {length}), false); END$$");
        for sets in [sets, calls] {
            let mut client = login();
            client.query(&sets);
            for _ in 0..2 {
                let value = "SELECT coalesce(length(current_setting('long.value', true)), 0)";
                assert_ne!(other.value(value), Some(length.to_string()));
                assert_eq!(client.value(value), Some(length.to_string()));
            }
        }
        let mut client = login();
        client.query(&format!("PREPARE long AS SELECT length('{long}')"));
        for _ in 0..2 {
            assert_eq!(client.value("EXECUTE long"), Some(length.to_string()));
        }
    }
}
