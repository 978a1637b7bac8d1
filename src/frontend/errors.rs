//! What a client is told of every error that is Poolhouse's own: the one table of SQLSTATEs and words.

use std::time::Duration;

use crate::{
    backend::{ConnectError, ServerManager},
    clients::LeaveOrder,
    databases::Target,
    pool::{Pool, PoolCounts},
};
use poolhouse_core::{
    topology::{NodeId, RouteError},
    wire::{
        ErrorFields,
        error::{Report, SqlState},
    },
};

/// Why a client could not have a server connection.
#[derive(Debug)]
pub enum AcquireError {
    /// No node may serve the statement, and none came within `hold`; `nodes` tells how they are.
    Route { error: RouteError, hold: Duration, nodes: String },
    /// Nothing is known of the cluster, since the health check is not let in.
    Health { node: String, cluster: String, user: String, error: ConnectError },
    /// Where the nodes should be, no server has been found yet.
    Absent { cluster: String, nodes: String },
    /// All connections of the pool, that is `lent`, were busy for `checkout_timeout`; sessions keep `pinned` of them.
    Full { limit: Duration, lent: usize, pinned: usize },
    /// A server connection could not be opened.
    Connect { node: String, error: ConnectError, hint: String },
    /// The client cancelled its statement while it waited.
    Canceled,
    /// The client has gone.
    ClientGone,
    /// An order from the operator.
    Ordered,
}

impl AcquireError {
    /// A server connection could not be opened on this node.
    pub fn connect(target: &Target, node: NodeId, error: ConnectError) -> AcquireError {
        let hint = login_hint(target, &error);
        AcquireError::Connect { node: target.cluster.node(node).name.clone(), error, hint }
    }

    /// All connections of this pool were busy for too long.
    pub fn full(target: &Target, pool: &Pool<ServerManager>) -> AcquireError {
        let PoolCounts { lent, pinned, .. } = pool.counts();
        AcquireError::Full { limit: target.checkout_timeout().unwrap_or_default(), lent, pinned }
    }

    /// The words for the client. What a server said is passed on as it is, with a hint at our settings.
    pub fn report(&self) -> ErrorWords {
        let held = |code, message: String, nodes: &String, hint: &str| {
            ErrorWords::Ours(Report::error(code, message).detail(nodes.as_str()).hint(hint))
        };
        match self {
            AcquireError::Route { error: RouteError::NoPrimary, hold, nodes } => held(
                SqlState::CANNOT_CONNECT_NOW,
                format!("no primary server was found within {hold:?}"),
                nodes,
                "The wait is clusters.*.failover.hold; clusters.*.failover.mode says who promotes.",
            ),
            AcquireError::Route { error: RouteError::NoReplica, hold, nodes } => held(
                SqlState::CANNOT_CONNECT_NOW,
                format!("no replica was fit to serve within {hold:?}"),
                nodes,
                "The session asks for a replica (poolhouse.route), or routing.fallback is false; otherwise reads would go to the primary.",
            ),
            AcquireError::Route { error: RouteError::NodeUnfit, hold, nodes } => held(
                SqlState::CANNOT_CONNECT_NOW,
                format!("the node was not fit to serve within {hold:?}"),
                nodes,
                "A comment in the statement names the node.",
            ),
            AcquireError::Route { error: RouteError::NoNode, hold, nodes } => held(
                SqlState::CONNECTION_UNREACHABLE,
                format!("no server was reachable within {hold:?}"),
                nodes,
                "The wait is clusters.*.failover.hold.",
            ),
            AcquireError::Absent { cluster, nodes } => held(
                SqlState::CONNECTION_UNREACHABLE,
                "no server is reachable".to_owned(),
                nodes,
                &format!("clusters.{cluster}.nodes (or --upstream) says where the servers are."),
            ),
            AcquireError::Health { node, cluster, user, error } => {
                let hint = format!(
                    "This is what the health check was told by {node}, which logs in as \"{user}\": see \
                     clusters.{cluster}.health.user, password and database, or the URL of --upstream."
                );
                refused(node, error, &hint)
            }
            AcquireError::Full { limit, lent, pinned } => ErrorWords::Ours(full(*limit, *lent, *pinned)),
            AcquireError::Connect { node, error, hint } => refused(node, error, hint),
            AcquireError::Canceled => {
                ErrorWords::Ours(Report::error(SqlState::QUERY_CANCELED, "canceling statement due to user request"))
            }
            AcquireError::ClientGone | AcquireError::Ordered => ErrorWords::Ours(shutting_down()),
        }
    }
}

/// An error in our words, or in a server's.
#[derive(Debug)]
pub enum ErrorWords {
    Ours(Report),
    Servers(ErrorFields),
}

impl std::fmt::Display for ErrorWords {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, message) = self.code_and_message();
        write!(formatter, "{message} (SQLSTATE {code})")
    }
}

impl ErrorWords {
    pub fn code_and_message(&self) -> (&str, &str) {
        match self {
            ErrorWords::Ours(report) => (report.code.0, report.message.as_str()),
            ErrorWords::Servers(fields) => (fields.code(), fields.message()),
        }
    }

    /// Writes it, as the end of the connection or of the statement.
    pub fn write(self, fatal: bool, out: &mut Vec<u8>) {
        match self {
            ErrorWords::Ours(report) => Report { fatal, ..report }.write(out),
            ErrorWords::Servers(mut fields) => {
                // What fits already stays in the server's own words, and language.
                if fields.is_fatal() != fatal {
                    fields.set_severity(if fatal { "FATAL" } else { "ERROR" });
                }
                fields.write(b'E', out);
            }
        }
    }
}

/// A login that a server has refused, or could not take: in its words, if it had any.
fn refused(node: &str, error: &ConnectError, hint: &str) -> ErrorWords {
    if let ConnectError::Refused { fields } = error {
        let mut fields = fields.as_ref().clone();
        fields.add_hint(hint);
        return ErrorWords::Servers(fields);
    }
    let code = match error {
        ConnectError::NoCredential(_) | ConnectError::Auth(_) => SqlState::INVALID_AUTHORIZATION,
        ConnectError::Unreachable(_)
        | ConnectError::Timeout(_)
        | ConnectError::Refused { .. }
        | ConnectError::Closed
        | ConnectError::Protocol(_)
        | ConnectError::Oversized(_)
        | ConnectError::Endless
        | ConnectError::Parameters(_) => SqlState::CONNECTION_UNREACHABLE,
    };
    let report = Report::error(code, format!("cannot use the server {node}: {error}"));
    ErrorWords::Ours(if hint.is_empty() { report } else { report.hint(hint) })
}

/// The settings that decide about such a failure.
fn login_hint(target: &Target, error: &ConnectError) -> String {
    let (database, cluster) = (&target.account.database, &target.cluster.name);
    let user = target.login_user();
    match (error, error.code().get(..2)) {
        (ConnectError::NoCredential(_), _) if !target.has_fixed_login() => {
            "Give databases.*.user and password, or a password in clear text under [users].".to_owned()
        }
        (_, Some("28")) if target.has_fixed_login() => format!(
            "Poolhouse logs in as \"{user}\": see databases.{database}.user and password, or the URL of --upstream."
        ),
        (_, Some("28")) => format!(
            "Poolhouse logs in as the client's own user \"{user}\" with the password that [users] or the client gave: the \
             server must know the same."
        ),
        (_, Some("3D")) => format!(
            "The database's name on the server is databases.{database}.database, or that in the URL of --upstream."
        ),
        (_, Some("53")) => format!(
            "Of the server's max_connections, clusters.{cluster}.max_connections is what Poolhouse uses at most on each node."
        ),
        (ConnectError::Timeout(_), _) => format!("The limit is clusters.{cluster}.connect_timeout."),
        _ => String::new(),
    }
}

/// What a client is told that has waited for a while.
pub fn waits(why: &str, nodes: String) -> Report {
    waiting(format!("waiting for a server: {why}"))
        .detail(nodes)
        .hint("The statement fails after clusters.*.failover.hold.")
}

/// The same, when the server that it waits for does not let Poolhouse in.
pub fn waits_for_login(node: &str, error: &ConnectError) -> Report {
    waiting(format!("waiting for a server connection: {node} does not let Poolhouse in"))
        .detail(format!("{error} (SQLSTATE {})", error.code()))
}

fn full(limit: Duration, lent: usize, pinned: usize) -> Report {
    let text = format!("all server connections of this pool were busy for {limit:?}");
    let report = Report::error(SqlState::TOO_MANY_CONNECTIONS, text);
    if pinned == 0 {
        return report.hint("Raise pool.size or pool.checkout_timeout, or clusters.*.max_connections.");
    }
    let whose = format!("Of {lent} connections, {pinned} are kept by sessions between their transactions.");
    report.detail(whose).hint(
        "SHOW PINS on the console says by whom and why; pool.pin_timeout ends such sessions, pool.size and \
         pool.reserve_size make room beside them.",
    )
}

/// The same, when other clients have all there are.
pub fn waits_for_others() -> Report {
    waiting("waiting for a server connection: all of this pool are busy".to_owned()).hint(
        "The statement fails after pool.checkout_timeout; pool.size and clusters.*.max_connections bound the pool.",
    )
}

/// The same, when an operator has stopped the lending.
pub fn waits_for_resume() -> Report {
    waiting("waiting for a server connection: the database is paused".to_owned())
        .hint("An operator has paused it (PAUSE, SUSPEND or KILL); RESUME ends that.")
}

fn waiting(message: String) -> Report {
    Report::error(SqlState::SUCCESS, message)
}

/// TLS is asked of everybody who comes over TCP.
pub fn not_encrypted() -> Report {
    Report::fatal(SqlState::INVALID_AUTHORIZATION, "connections without TLS are not accepted")
        .hint("Connect with sslmode=require or more.")
}

/// The words of PostgreSQL.
pub fn data_before_encryption() -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, "received unencrypted data after SSL request")
        .detail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
}

/// The words of PostgreSQL 17.
pub fn direct_without_protocol() -> Report {
    Report::fatal(
        SqlState::PROTOCOL_VIOLATION,
        "received direct SSL connection request without ALPN protocol negotiation extension",
    )
}

pub fn shutting_down() -> Report {
    Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection because Poolhouse is being shut down")
}

/// Why a client that was ordered to leave is disconnected.
pub fn ordered(order: LeaveOrder) -> Report {
    match order {
        LeaveOrder::Drain | LeaveOrder::Abort => shutting_down(),
        LeaveOrder::Evict => Report::fatal(
            SqlState::ADMIN_SHUTDOWN,
            "terminating connection because its database is no longer in the configuration",
        ),
        LeaveOrder::Kill => {
            Report::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
                .hint("An operator has disconnected the client (KILL or KILL_CLIENT).")
        }
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

/// Whoever it is, the servers could not be asked. What they said is in the log.
pub fn not_looked_up(user: &str) -> Report {
    Report::fatal(
        SqlState::CANNOT_CONNECT_NOW,
        format!("it cannot be found out at the moment how user \"{user}\" logs in"),
    )
    .hint("The servers are asked for users by auth.query. What they said is in the log of Poolhouse.")
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

/// Too many have not said who they are, and others are to have a chance.
pub fn crowded_out() -> Report {
    Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many connections have not logged in yet")
        .hint("The oldest ones give way. The limits are server.max_logins and server.max_logins_per_address.")
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
