//! What has been done so far.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use super::Rows;
use crate::admin::{
    Desk, Value,
    averages::Averages,
    table::row,
    totals::{NAMES, Totals},
};

/// The totals of each database.
pub fn database_totals(desk: &Desk) -> BTreeMap<String, Totals> {
    let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
    for account in desk.frontend.accounts.all() {
        totals.entry(account.database.to_string()).or_default().add(&Totals::of(&account));
    }
    totals
}

fn averages(desk: &Desk) -> MutexGuard<'_, Averages> {
    desk.averages.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rows(desk: &Desk, values: impl Fn(&Totals, &Totals) -> Vec<u64>) -> Rows {
    let averages = averages(desk);
    let row = |(database, totals): (String, Totals)| {
        let values = values(&totals, &averages.of(&database));
        row![database].into_iter().chain(values.into_iter().map(Value::from)).collect()
    };
    database_totals(desk).into_iter().map(row).collect()
}

pub fn stats(desk: &Desk) -> Rows {
    rows(desk, |totals, averages| [totals.values(), averages.values()].concat())
}

pub fn stats_totals(desk: &Desk) -> Rows {
    rows(desk, |totals, _| totals.values().to_vec())
}

pub fn stats_averages(desk: &Desk) -> Rows {
    rows(desk, |_, averages| averages.values().to_vec())
}

pub fn totals(desk: &Desk) -> Rows {
    let (mut totals, mut averages_of_all) = (Totals::default(), Totals::default());
    let averages = averages(desk);
    for (database, of_one) in database_totals(desk) {
        totals.add(&of_one);
        averages_of_all.add(&averages.of(&database));
    }
    let named = |prefix: &'static str, totals: Totals| {
        NAMES.iter().zip(totals.values()).map(move |(name, value)| row![format!("{prefix}_{name}"), value])
    };
    named("total", totals).chain(named("avg", averages_of_all)).collect()
}
