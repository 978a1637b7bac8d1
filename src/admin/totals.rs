//! The figures of SHOW STATS for one database: each declared once, with its names in the tables that show it.

use super::table::Type;
use crate::metrics::{Account, Count, Figures};

/// Declares the figures: where each comes from, and how it is called in SHOW STATS (as a total and as an average), in SHOW
/// STATS_TOTALS, in SHOW STATS_AVERAGES and in SHOW TOTALS, for which PgBouncer has names of different kinds.
macro_rules! figures {
    ($($figure:ident: $of:expr, [$total:literal, $average:literal], $totals:literal, $averages:literal, $named:literal;)*) => {
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Totals {
            $(pub $figure: u64,)*
            /// How many the times are of.
            timed_transactions: u64,
            timed_queries: u64,
        }

        impl Totals {
            pub fn of(account: &Account) -> Totals {
                let figures = account.figures();
                let value = |of: fn(&Account, &Figures) -> u64| of(account, &figures);
                Totals {
                    $($figure: value($of),)*
                    timed_transactions: figures.transactions.count(),
                    timed_queries: figures.queries.count(),
                }
            }

            fn each(&self, other: &Totals, combine: impl Fn(u64, u64) -> u64) -> Totals {
                Totals {
                    $($figure: combine(self.$figure, other.$figure),)*
                    timed_transactions: combine(self.timed_transactions, other.timed_transactions),
                    timed_queries: combine(self.timed_queries, other.timed_queries),
                }
            }

            /// In the order of the columns.
            pub fn values(&self) -> [u64; NAMES.len()] {
                [$(self.$figure),*]
            }
        }

        pub const STATS: &[(&str, Type)] =
            &[("database", Type::Text), $(($total, Type::Numeric),)* $(($average, Type::Numeric),)*];
        pub const STATS_TOTALS: &[(&str, Type)] = &[("database", Type::Text), $(($totals, Type::Numeric),)*];
        pub const STATS_AVERAGES: &[(&str, Type)] = &[("database", Type::Text), $(($averages, Type::Numeric),)*];

        /// What SHOW TOTALS calls the figures, behind `total_` and `avg_`.
        pub const NAMES: &[&str] = &[$($named),*];
    };
}

figures! {
    assignments: |_, figures| figures.count(Count::Assignments),
        ["total_server_assignment_count", "avg_server_assignment_count"],
        "server_assignment_count", "server_assignment_count", "server_assignment_count";
    transactions: |_, figures| figures.count(Count::Transactions),
        ["total_xact_count", "avg_xact_count"], "xact_count", "xact_count", "xact_count";
    queries: |_, figures| figures.count(Count::Queries),
        ["total_query_count", "avg_query_count"], "query_count", "query_count", "query_count";
    received: |_, figures| figures.count(Count::ClientReceived),
        ["total_received", "avg_recv"], "bytes_received", "bytes_received", "client_bytes";
    sent: |_, figures| figures.count(Count::ClientSent),
        ["total_sent", "avg_sent"], "bytes_sent", "bytes_sent", "server_bytes";
    // Microseconds, and so are the next two.
    transaction_time: |_, figures| micros(figures.transactions.sum()),
        ["total_xact_time", "avg_xact_time"], "xact_time", "xact_time", "xact_time";
    query_time: |_, figures| micros(figures.queries.sum()),
        ["total_query_time", "avg_query_time"], "query_time", "query_time", "query_time";
    wait_time: |_, figures| micros(figures.waits.sum()),
        ["total_wait_time", "avg_wait_time"], "wait_time", "wait_time", "wait_time";
    client_parses: |_, figures| figures.count(Count::ClientParses),
        ["total_client_parse_count", "avg_client_parse_count"],
        "client_parse_count", "avg_client_parse_count", "ps_client_parse_count";
    server_parses: |_, figures| figures.count(Count::ServerParses),
        ["total_server_parse_count", "avg_server_parse_count"],
        "server_parse_count", "avg_server_parse_count", "ps_server_parse_count";
    binds: |_, figures| figures.count(Count::Binds),
        ["total_bind_count", "avg_bind_count"], "bind_count", "avg_bind_count", "ps_bind_count";
    logins: |account, _| account.logins(),
        ["total_client_login_count", "avg_client_login_count"],
        "client_login_count", "avg_client_login_count", "client_login_count";
}

fn micros(time: std::time::Duration) -> u64 {
    time.as_micros() as u64
}

impl Totals {
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
