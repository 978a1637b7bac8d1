//! Lending server connections: limits, order and lifetimes. Knows neither SQL nor PostgreSQL.

use std::time::Duration;

/// How one pool (database, user, node) lends. `[pool]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most server connections of this pool, at least 1.
    pub size: usize,
    /// Connections kept open even when nobody uses them, at most `size`.
    pub min_idle: usize,
    /// How long a client waits for a connection before it gets SQLSTATE 53300; `None` waits for ever.
    pub checkout_timeout: Option<Duration>,
    /// An idle connection is closed after this long; `None` keeps it.
    pub idle_timeout: Option<Duration>,
    /// A connection is closed once it is this old and idle, give or take a tenth, so that they do not all go at once.
    pub max_lifetime: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            size: 20,
            min_idle: 0,
            checkout_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(3600)),
        }
    }
}
