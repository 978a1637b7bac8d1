//! The configuration: `raw` mirrors the file, `check` turns it into the typed settings that each module declares and
//! reports every mistake at once.

use std::collections::BTreeMap;

use crate::{auth, frontend, monitor, net, pool, session, topology};

/// Everything that a running Poolhouse needs to know; made by `check`, and by `upstream` without a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub listen: Vec<net::Listen>,
    /// Threads that serve clients, at least 1; `workers = 0` has been replaced by the number of cores.
    pub workers: usize,
    pub frontend: frontend::Settings,
    pub auth: auth::Settings,
    pub clusters: Vec<monitor::Settings>,
    /// By the name that clients ask for; `"*"` serves any other name.
    pub databases: BTreeMap<String, Database>,
    /// `[users.X.pool]`: overrides by user, the strongest.
    pub user_pools: BTreeMap<String, PoolOverride>,
    pub log: Log,
}

/// `[databases.X]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Index into `Settings::clusters`.
    pub cluster: usize,
    /// Name on the server; `None` = the name that the client asked for.
    pub database: Option<String>,
    /// Fixed identity on the server; `None` = the client's own name and password.
    pub login: Option<Login>,
    /// Already merged from `[pool]` and `[databases.X.pool]`.
    pub pool: pool::Settings,
    pub session: session::Settings,
    /// Already merged from the cluster's and the database's own.
    pub routing: topology::Routing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Option<auth::Secret>,
}

/// What `[users.X.pool]` says, key by key; `None` leaves the database's value. The inner `None` of a duration means
/// "no limit", as everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolOverride {
    pub mode: Option<session::Mode>,
    pub size: Option<usize>,
    pub min_idle: Option<usize>,
    pub checkout_timeout: Option<Option<std::time::Duration>>,
    pub idle_timeout: Option<Option<std::time::Duration>>,
    pub max_lifetime: Option<Option<std::time::Duration>>,
    pub query_timeout: Option<Option<std::time::Duration>>,
    pub idle_transaction_timeout: Option<Option<std::time::Duration>>,
    pub client_idle_timeout: Option<Option<std::time::Duration>>,
    pub prepared_statements: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter: a level, or directives like `poolhouse::monitor=debug,info`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
