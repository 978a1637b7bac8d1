//! Clients: accept, log in, relay, cancel, report.

use std::time::Duration;

/// `[server]`, the part that concerns clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The next client gets SQLSTATE 53300.
    pub max_clients: usize,
    /// From accept to the first ReadyForQuery.
    pub login_timeout: Duration,
    /// How long a drain waits for open transactions.
    pub shutdown_timeout: Duration,
}
