//! One client's conversation, as a machine without sockets or clock.

use std::time::Duration;

/// When a client gives its server connection back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// When it disconnects.
    Session,
    /// When its transaction has ended.
    #[default]
    Transaction,
    /// After every statement; transaction blocks are refused.
    Statement,
}

/// How sessions of one database behave. The part of `[pool]` that is about conversations, not about lending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub mode: Mode,
    /// Prepared statements kept per server connection and per client; 0 passes protocol-level names through unchanged
    /// and pins a client that prepares a named statement.
    pub prepared_statements: usize,
    /// A statement that runs longer is cancelled with SQLSTATE 57014.
    pub query_timeout: Option<Duration>,
    /// A transaction that idles longer ends its client with SQLSTATE 25P03.
    pub idle_transaction_timeout: Option<Duration>,
    /// A client that idles longer outside a transaction is disconnected with SQLSTATE 57P05.
    pub client_idle_timeout: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Transaction,
            prepared_statements: 500,
            query_timeout: None,
            idle_transaction_timeout: None,
            client_idle_timeout: None,
        }
    }
}
