//! Operators: the console, which any PostgreSQL client reaches by the database name `poolhouse` or `pgbouncer`.
//!
//! `words`, `command` and `query` understand what is typed, `conversation` speaks the protocol, `show` and `table` are
//! what there is to see, `encode` writes it: all of these are pure. `console` serves the clients that have logged in, at
//! the `desk`, where `rows` come from and `actions` are carried out; `averages` of `totals`, and `events`, are kept there.
//! `http` shows the same tables to machines, and `metrics` to Prometheus.

use std::net::SocketAddr;

use poolhouse_core::auth::Secret;

mod actions;
mod averages;
mod command;
mod console;
mod conversation;
mod desk;
mod encode;
mod events;
mod help;
mod http;
mod metrics;
mod query;
mod rows;
mod show;
mod table;
mod totals;
mod words;

pub use command::{OperatorAction, Shutdown};
pub use console::serve;
pub use desk::{Catalog, Desk, Request, SetLevel, Setting, User};
pub use http::serve_http;
pub use show::Show;
pub use table::{Table, Value};

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// May look and change things.
    pub users: Vec<String>,
    /// May look.
    pub stats_users: Vec<String>,
    /// The PgBouncer whose version SHOW VERSION answers instead of ours.
    pub pgbouncer_version: Option<String>,
    pub http: Option<Http>,
    /// The page of metrics tells all of them by node, and durations by user, too.
    pub metrics_by_node: bool,
    /// How many operators get in when all places of clients are taken.
    pub reserved: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            users: Vec::new(),
            stats_users: Vec::new(),
            pgbouncer_version: None,
            http: None,
            metrics_by_node: false,
            reserved: 3,
        }
    }
}

/// Where HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    pub address: SocketAddr,
    /// The address is the default: that somebody else has it is no reason not to start.
    pub by_default: bool,
    /// What those show who are not on this machine.
    pub token: Option<Secret>,
}
