//! The golden table: statements of all kinds, what is said of them, and what a real replica says.

use std::collections::BTreeMap;

use super::kit::{Config, Message, PATIENCE, RawClient, cluster, wait_until};

/// What is expected of a statement, see the head of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Reads,
    Refused,
    Kept,
}

fn table() -> Vec<(Mark, &'static str)> {
    let lines = include_str!("statements.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (mark, statement) = line.split_once(" | ").unwrap_or_else(|| panic!("no mark: {line}"));
            let mark = match mark {
                "reads" => Mark::Reads,
                "refused" => Mark::Refused,
                "kept" => Mark::Kept,
                _ => panic!("unknown mark: {line}"),
            };
            (mark, statement)
        })
        .collect()
}

fn error(answer: &[Message]) -> Option<String> {
    let error = answer.iter().find(|message| message.tag == b'E')?;
    Some(format!("{} {}", error.sqlstate(), error.field(b'M').unwrap_or_default()))
}

#[test]
fn the_golden_table_is_what_a_replica_says() {
    let table = table();
    assert!(table.len() >= 300, "only {} statements", table.len());
    let cluster = cluster().replicas(1).superuser("admin", "secret").trust_user("app").start().unwrap();
    cluster.node(0).query(include_str!("setting.sql")).unwrap();
    cluster.catch_up().unwrap();
    let pooler = Config::of_cluster(&cluster).user("admin", "secret").start();
    let mut client = RawClient::login(pooler.port(), "postgres", "admin", "secret");
    // First what can be said only once the catalog has been read.
    let said = |client: &mut RawClient, statement: &str| -> (String, String) {
        let answer = client.query(&format!("EXPLAIN ROUTE {statement}"));
        let row =
            answer.iter().find(|message| message.tag == b'D').unwrap_or_else(|| panic!("{statement}: {answer:?}"));
        let row = row.values();
        (row[0].clone().unwrap(), row[1].clone().unwrap())
    };
    client.query("SELECT 1");
    wait_until("the catalog has been read", PATIENCE, || said(&mut client, "SELECT plus_one(1)").0 == "read");
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<Mark, usize> = BTreeMap::new();
    for (mark, statement) in table {
        *counts.entry(mark).or_default() += 1;
        let (verdict, reason) = said(&mut client, statement);
        if (verdict == "read") != (mark == Mark::Reads) {
            wrong.push(format!("{statement}\n    is marked {mark:?}, and Poolhouse says: {verdict}, {reason}"));
        }
        // Each alone: what it leaves behind must not matter.
        let mut direct = RawClient::login(cluster.node(1).port(), "postgres", "admin", "secret");
        let refused = error(&direct.query(statement));
        if refused.is_some() != (mark == Mark::Refused) {
            wrong.push(format!("{statement}\n    is marked {mark:?}, and a replica says: {refused:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(counts[&Mark::Reads] >= 100 && counts[&Mark::Refused] >= 150, "{counts:?}");
}
