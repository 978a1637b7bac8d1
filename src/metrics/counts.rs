//! What is counted of clients and servers, by database, user and node: each declared once, with the metric that shows
//! it. Adding one is its declaration here, and `Tally::add` where it happens.

use super::{
    histogram::Distribution,
    metric::{Kind, Metric},
    traffic::Figures,
};

/// A metric, and what is counted for it: several when a label of its own tells them apart.
#[derive(Debug)]
pub struct Counted {
    pub metric: Metric,
    /// With the value of the label of its own, if it has one.
    pub counts: &'static [(Count, &'static [&'static str])],
}

/// Declares what is counted by the unit: a metric's name, labels and help, and the counts that it shows. Without the
/// label `node` those of all nodes are one.
macro_rules! counts {
    ($(
        $name:literal [$($label:literal),*] $help:literal {
            $($(#[doc = $doc:literal])* $count:ident $(= $value:literal)?,)*
        }
    )*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count {
            $($($(#[doc = $doc])* $count,)*)*
        }

        /// How many there are.
        pub const COUNTS: usize = [$($(Count::$count,)*)*].len();

        pub const COUNTED: &[Counted] = &[$(Counted {
            metric: Metric { name: $name, kind: Kind::Counter, help: $help, labels: &[$($label),*] },
            counts: &[$((Count::$count, &[$($value)?]),)*],
        },)*];
    };
}

counts! {
    "poolhouse_server_assignments_total" ["database", "user", "node"] "How often a server connection was lent to a client." {
        /// A server connection was lent to a client.
        Assignments,
    }
    "poolhouse_transactions_total" ["database", "user", "node"] "Transactions ended." {
        /// ReadyForQuery outside of a transaction was sent to a client.
        Transactions,
    }
    "poolhouse_queries_total" ["database", "user", "node"]
    "Queries answered, by ReadyForQuery; the node is empty for what Poolhouse has answered itself." {
        /// ReadyForQuery was sent to a client.
        Queries,
    }
    "poolhouse_client_received_bytes_total" ["database", "user"] "Bytes from clients after their logins." {
        /// Bytes from clients after their logins, but for their goodbyes.
        ClientReceived,
    }
    "poolhouse_client_sent_bytes_total" ["database", "user"] "Bytes to clients after their logins." {
        /// Bytes to clients after their logins.
        ClientSent,
    }
    "poolhouse_server_received_bytes_total" ["database", "user", "node"]
    "Bytes from servers while their connections were lent." {
        /// Bytes from servers while they were lent.
        ServerReceived,
    }
    "poolhouse_server_sent_bytes_total" ["database", "user", "node"] "Bytes to servers while their connections were lent." {
        /// Bytes to servers while they were lent.
        ServerSent,
    }
    "poolhouse_named_parses_total" ["database", "user", "side"]
    "Parse messages for named statements: from clients, and to servers." {
        /// Parse messages of clients for named statements.
        ClientParses = "client",
        /// Parse messages for named statements that were sent to servers, those of clients among them.
        ServerParses = "server",
    }
    "poolhouse_named_binds_total" ["database", "user"] "Bind messages for named statements that were sent to servers." {
        /// Bind messages for named statements that were sent to servers.
        Binds,
    }
    "poolhouse_statements_total" ["database", "user", "node", "verdict"]
    "Statements sent to servers: those that surely only read, and all others (write)." {
        /// Statements sent that surely only read.
        Reads = "read",
        /// All other statements sent.
        Writes = "write",
    }
    "poolhouse_pins_total" ["database", "user"]
    "Sessions that began to keep their server connections between transactions." {
        /// Sessions that began to keep their server connections between transactions.
        Pins,
    }
}

/// A metric of durations, and where they are kept.
#[derive(Debug)]
pub struct Timed {
    pub metric: Metric,
    pub times: fn(&Figures) -> &Distribution,
}

pub const TIMED: &[Timed] = &[
    Timed {
        metric: Metric {
            name: "poolhouse_checkout_wait_seconds",
            kind: Kind::Histogram,
            help: "How long clients waited for server connections, of those that had to.",
            labels: &["database", "user"],
        },
        times: |figures| &figures.waits,
    },
    Timed {
        metric: Metric {
            name: "poolhouse_query_duration_seconds",
            kind: Kind::Histogram,
            help: "From sending a query to a server until its ReadyForQuery.",
            labels: &["database", "user", "node"],
        },
        times: |figures| &figures.queries,
    },
    Timed {
        metric: Metric {
            name: "poolhouse_transaction_duration_seconds",
            kind: Kind::Histogram,
            help: "From the first query of a transaction until its end.",
            labels: &["database", "user", "node"],
        },
        times: |figures| &figures.transactions,
    },
];
