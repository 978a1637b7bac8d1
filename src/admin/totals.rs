//! The figures of SHOW STATS for one database, in its order.

use crate::metrics::{Account, Count};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    pub assignments: u64,
    pub transactions: u64,
    pub queries: u64,
    pub received: u64,
    pub sent: u64,
    /// Microseconds, and so are the next two.
    pub transaction_time: u64,
    pub query_time: u64,
    pub wait_time: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
    pub logins: u64,
    /// How many the times are of.
    timed_transactions: u64,
    timed_queries: u64,
}

impl Totals {
    pub fn of(account: &Account) -> Totals {
        let figures = account.figures();
        let micros = |time: std::time::Duration| time.as_micros() as u64;
        Totals {
            assignments: figures.count(Count::Assignments),
            transactions: figures.count(Count::Transactions),
            queries: figures.count(Count::Queries),
            received: figures.count(Count::ClientReceived),
            sent: figures.count(Count::ClientSent),
            transaction_time: micros(figures.transactions.sum()),
            query_time: micros(figures.queries.sum()),
            wait_time: micros(figures.waits.sum()),
            client_parses: figures.count(Count::ClientParses),
            server_parses: figures.count(Count::ServerParses),
            binds: figures.count(Count::Binds),
            logins: account.logins(),
            timed_transactions: figures.transactions.count(),
            timed_queries: figures.queries.count(),
        }
    }

    fn each(&self, other: &Totals, combine: impl Fn(u64, u64) -> u64) -> Totals {
        Totals {
            assignments: combine(self.assignments, other.assignments),
            transactions: combine(self.transactions, other.transactions),
            queries: combine(self.queries, other.queries),
            received: combine(self.received, other.received),
            sent: combine(self.sent, other.sent),
            transaction_time: combine(self.transaction_time, other.transaction_time),
            query_time: combine(self.query_time, other.query_time),
            wait_time: combine(self.wait_time, other.wait_time),
            client_parses: combine(self.client_parses, other.client_parses),
            server_parses: combine(self.server_parses, other.server_parses),
            binds: combine(self.binds, other.binds),
            logins: combine(self.logins, other.logins),
            timed_transactions: combine(self.timed_transactions, other.timed_transactions),
            timed_queries: combine(self.timed_queries, other.timed_queries),
        }
    }

    pub fn add(&mut self, other: &Totals) {
        *self = self.each(other, |one, other| one + other);
    }

    /// What has come since an earlier look.
    pub fn since(&self, earlier: &Totals) -> Totals {
        self.each(earlier, u64::saturating_sub)
    }

    /// Per second, if this is what was done in so many; times are those of one transaction and one query.
    pub fn averages(&self, seconds: f64) -> Totals {
        let per_second = |sum: u64| if seconds > 0.0 { (sum as f64 / seconds) as u64 } else { 0 };
        Totals {
            transaction_time: self.transaction_time.checked_div(self.timed_transactions).unwrap_or(0),
            query_time: self.query_time.checked_div(self.timed_queries).unwrap_or(0),
            ..self.each(self, |sum, _| per_second(sum))
        }
    }

    /// In the order of the columns.
    pub fn values(&self) -> [u64; 12] {
        [
            self.assignments,
            self.transactions,
            self.queries,
            self.received,
            self.sent,
            self.transaction_time,
            self.query_time,
            self.wait_time,
            self.client_parses,
            self.server_parses,
            self.binds,
            self.logins,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_what_has_come_since() {
        let before = Totals { transactions: 10, transaction_time: 500, timed_transactions: 5, ..Totals::default() };
        let mut after = before.clone();
        after.add(&Totals {
            transactions: 120,
            received: 90,
            transaction_time: 800,
            timed_transactions: 4,
            query_time: 7,
            wait_time: 600,
            ..Totals::default()
        });
        let averages = after.since(&before).averages(60.0);
        assert_eq!((averages.transactions, averages.received, averages.transaction_time), (2, 1, 200));
        assert_eq!((averages.query_time, averages.wait_time), (0, 10));
        assert_eq!(Totals::default().averages(0.0), Totals::default());
    }
}
