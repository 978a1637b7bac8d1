//! What a client is told of every error that is Poolhouse's own: the one table of SQLSTATEs and words.

use std::time::Duration;

use super::registry::Order;
use crate::{
    backend::ConnectError,
    pool::CheckoutError,
    topology::RouteError,
    wire::{
        ErrorFields,
        error::{Report, SqlState},
    },
};

/// Why a client could not have a server connection.
#[derive(Debug)]
pub enum AcquireError {
    /// No node may serve the statement, and none came within `hold`.
    Route(RouteError, Duration),
    /// All connections of the pool were busy for `checkout_timeout`.
    Full(Duration),
    /// A server connection could not be opened.
    Connect { node: String, error: ConnectError },
    /// The client cancelled its statement while it waited.
    Canceled,
    /// The client has gone.
    ClientGone,
    /// An order from the operator.
    Ordered,
}

impl AcquireError {
    pub fn from_checkout(error: CheckoutError<ConnectError>, node: &str, limit: Duration) -> AcquireError {
        match error {
            CheckoutError::Timeout => AcquireError::Full(limit),
            CheckoutError::Open(error) => AcquireError::Connect { node: node.to_owned(), error },
        }
    }

    /// The words for the client. What a server said is passed on as it is.
    pub fn report(&self) -> Words {
        match self {
            AcquireError::Route(RouteError::NoPrimary, hold) => Words::Ours(
                Report::error(SqlState::CANNOT_CONNECT_NOW, format!("no primary server was found within {hold:?}"))
                    .hint("The wait is clusters.*.failover.hold; clusters.*.failover.mode says who promotes."),
            ),
            AcquireError::Route(RouteError::NoReplica, hold) => Words::Ours(
                Report::error(SqlState::CANNOT_CONNECT_NOW, format!("no replica was fit to serve within {hold:?}"))
                    .hint(
                        "The session asks for a replica (poolhouse.route), or routing.fallback is false; otherwise reads would go to the primary.",
                    ),
            ),
            AcquireError::Route(RouteError::NodeUnfit, hold) => Words::Ours(
                Report::error(SqlState::CANNOT_CONNECT_NOW, format!("the node was not fit to serve within {hold:?}"))
                    .hint("A comment in the statement names the node."),
            ),
            AcquireError::Route(RouteError::NoNode, hold) => Words::Ours(
                Report::error(SqlState::CONNECTION_UNREACHABLE, format!("no server was reachable within {hold:?}"))
                    .hint("The wait is clusters.*.failover.hold."),
            ),
            AcquireError::Full(limit) => Words::Ours(
                Report::error(
                    SqlState::TOO_MANY_CONNECTIONS,
                    format!("all server connections of this pool were busy for {limit:?}"),
                )
                .hint("Raise pool.size or pool.checkout_timeout, or clusters.*.max_connections."),
            ),
            AcquireError::Connect { error: ConnectError::Refused { fields }, .. } => {
                Words::Servers(fields.as_ref().clone())
            }
            AcquireError::Connect { node, error } => Words::Ours(connect_report(node, error)),
            AcquireError::Canceled => {
                Words::Ours(Report::error(SqlState::QUERY_CANCELED, "canceling statement due to user request"))
            }
            AcquireError::ClientGone | AcquireError::Ordered => Words::Ours(shutting_down()),
        }
    }
}

/// An error in our words, or in a server's.
#[derive(Debug)]
pub enum Words {
    Ours(Report),
    Servers(ErrorFields),
}

impl std::fmt::Display for Words {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, message) = self.code_and_message();
        write!(formatter, "{message} (SQLSTATE {code})")
    }
}

impl Words {
    pub fn code_and_message(&self) -> (&str, &str) {
        match self {
            Words::Ours(report) => (report.code.0, report.message.as_str()),
            Words::Servers(fields) => (fields.code(), fields.message()),
        }
    }

    /// Writes it, as the end of the connection or of the statement.
    pub fn write(self, fatal: bool, out: &mut Vec<u8>) {
        match self {
            Words::Ours(report) => Report { fatal, ..report }.write(out),
            Words::Servers(mut fields) => {
                // What fits already stays in the server's own words, and language.
                if fields.is_fatal() != fatal {
                    fields.set_severity(if fatal { "FATAL" } else { "ERROR" });
                }
                fields.write(b'E', out);
            }
        }
    }
}

fn connect_report(node: &str, error: &ConnectError) -> Report {
    let message = format!("cannot use the server {node}: {error}");
    match error {
        ConnectError::NoCredential(_) => Report::error(SqlState::INVALID_AUTHORIZATION, message)
            .hint("Give databases.*.user and password, or a password in clear text under [users]."),
        ConnectError::Auth(_) => Report::error(SqlState::INVALID_AUTHORIZATION, message),
        ConnectError::Unreachable(_)
        | ConnectError::Timeout(_)
        | ConnectError::Refused { .. }
        | ConnectError::Closed
        | ConnectError::Protocol(_)
        | ConnectError::Oversized(_) => Report::error(SqlState::CONNECTION_UNREACHABLE, message),
    }
}

pub fn shutting_down() -> Report {
    Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection because Poolhouse is being shut down")
}

/// Why a client that was ordered to leave is disconnected.
pub fn ordered(order: Order) -> Report {
    match order {
        Order::Drain | Order::Abort => shutting_down(),
        Order::Evict => Report::fatal(
            SqlState::ADMIN_SHUTDOWN,
            "terminating connection because its database is no longer in the configuration",
        ),
        Order::Kill => Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
            .hint("An operator has disconnected the client (KILL or KILL_CLIENT)."),
    }
}

/// An operator lets nobody in.
pub fn disabled(database: &str) -> Report {
    let what = format!("database \"{database}\" is not currently accepting connections");
    Report::fatal(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, what).hint("An operator has disabled it (DISABLE).")
}

/// One message for an unknown user and a wrong password.
pub fn wrong_password(user: &str) -> Report {
    Report::fatal(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

pub fn unknown_database(database: &str) -> Report {
    Report::fatal(SqlState::UNKNOWN_DATABASE, format!("database \"{database}\" does not exist"))
        .hint("Poolhouse serves the names under [databases] in its configuration.")
}

/// The console is not for everybody.
pub fn no_operator(user: &str) -> Report {
    Report::fatal(SqlState::INVALID_AUTHORIZATION, format!("user \"{user}\" may not use the console"))
        .hint("admin.users and admin.stats_users in the configuration name those who may.")
}

pub fn no_replication() -> Report {
    Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, "the console has nothing to replicate")
}

/// A connection for the replication of a whole server names no database, and there is more than one server to choose.
pub fn ambiguous_server(database: &str) -> Report {
    Report::fatal(SqlState::UNKNOWN_DATABASE, "it is not clear which server's replication is asked for")
        .hint(format!("Name one of the databases in the configuration; \"{database}\" is not among them."))
}

pub fn server_lost(node: &str) -> Report {
    Report::fatal(SqlState::CONNECTION_LOST, format!("the connection to the server {node} was lost"))
}

pub fn too_many_clients(max: usize) -> Report {
    Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
        .hint(format!("server.max_clients is {max}."))
}

pub fn login_timeout(limit: Duration) -> Report {
    Report::fatal(SqlState::QUERY_CANCELED, "canceling authentication due to timeout")
        .hint(format!("server.login_timeout is {limit:?}."))
}

pub fn query_timeout(limit: Duration) -> Report {
    Report::fatal(SqlState::QUERY_CANCELED, format!("the statement ran longer than {limit:?}"))
        .hint("The limit is pool.query_timeout.")
}

pub fn idle_transaction_timeout(limit: Duration) -> Report {
    Report::fatal(SqlState::IDLE_IN_TRANSACTION_TIMEOUT, "terminating connection due to idle-in-transaction timeout")
        .hint(format!("pool.idle_transaction_timeout is {limit:?}."))
}

pub fn pin_timeout(limit: Duration) -> Report {
    Report::fatal(
        SqlState::IDLE_SESSION_TIMEOUT,
        "terminating connection because its session has kept a server connection for too long",
    )
    .hint(format!("pool.pin_timeout is {limit:?}."))
}

pub fn client_idle_timeout(limit: Duration) -> Report {
    Report::fatal(SqlState::IDLE_SESSION_TIMEOUT, "terminating connection due to idle-session timeout")
        .hint(format!("pool.client_idle_timeout is {limit:?}."))
}
