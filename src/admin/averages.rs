//! What was done per second in the last full period: the difference of two looks at the totals.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::totals::Totals;

/// As PgBouncer's `stats_period` is by default.
pub const PERIOD: Duration = Duration::from_secs(60);

/// The totals by database at two moments, a period apart.
#[derive(Debug)]
pub struct Averages {
    older: (Instant, BTreeMap<String, Totals>),
    newer: (Instant, BTreeMap<String, Totals>),
}

impl Averages {
    pub fn new(now: Instant) -> Averages {
        Averages { older: (now, BTreeMap::new()), newer: (now, BTreeMap::new()) }
    }

    /// A period has ended.
    pub fn turn(&mut self, now: Instant, totals: BTreeMap<String, Totals>) {
        self.older = std::mem::replace(&mut self.newer, (now, totals));
    }

    /// Of one database; zeros before the first period has ended.
    pub fn of(&self, database: &str) -> Totals {
        let zeros = Totals::default();
        let look = |at: &BTreeMap<String, Totals>| at.get(database).unwrap_or(&zeros).clone();
        let seconds = self.newer.0.duration_since(self.older.0).as_secs_f64();
        look(&self.newer.1).since(&look(&self.older.1)).averages(seconds)
    }
}
