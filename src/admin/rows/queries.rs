//! Statements by their texts.

use std::{cmp::Reverse, time::Duration};

use super::Rows;
use crate::{
    admin::{Desk, Value, table::row},
    metrics::QueryFigures,
};

/// Those that took most time come first.
pub fn queries(desk: &Desk) -> Rows {
    let mut all = desk.frontend.watch.queries.all();
    all.sort_by_key(|query| (Reverse(query.times.sum()), query.id));
    all.iter().map(query_row).collect()
}

fn query_row(query: &QueryFigures) -> Vec<Value> {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let quantile = |share| query.times.quantile(share).map(micros);
    let total = micros(query.times.sum());
    let named = !query.text.is_empty();
    row![
        &*query.database,
        named.then(|| format!("{:016x}", query.id)),
        query.calls,
        query.errors,
        total,
        total / query.calls.max(1),
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
        shares(query),
        named.then(|| query.text.to_string()),
    ]
}

/// How many of the calls ran on each node: "a 75 %, b 25 %".
fn shares(query: &QueryFigures) -> String {
    let all: u64 = query.by_node.values().sum();
    let share = |calls: u64| (calls as f64 * 100.0 / all.max(1) as f64).round();
    let shares = query.by_node.iter().map(|(node, calls)| format!("{node} {} %", share(*calls)));
    shares.collect::<Vec<_>>().join(", ")
}
