//! Clients that ask for the console instead of a database: who is let in, and how they are handed over to those who
//! serve them, whom this module does not know.

use super::errors;
use crate::{
    clients::{ClientPlace, Entry},
    net::Stream,
};
use poolhouse_core::wire::error::Report;

/// The names of the console: Poolhouse's own, and the one that PgBouncer's users know.
pub const CONSOLES: [&str; 2] = ["poolhouse", "pgbouncer"];

/// Who may use the console.
#[derive(Debug, Default)]
pub struct Operators {
    /// May change things.
    pub users: Vec<String>,
    /// May look.
    pub stats_users: Vec<String>,
    /// Places for operators beyond `max_clients`: they must get in when it is full.
    pub reserved: usize,
}

/// Somebody who has logged in to the console, and has not been told so yet.
#[derive(Debug)]
pub struct Visitor {
    pub stream: Stream,
    pub user: String,
    pub database: String,
    pub may_change: bool,
    /// What the startup packet says beyond user and database.
    pub parameters: Vec<(String, String)>,
    pub entry: Entry,
    /// Frees its place among all clients when the visitor goes.
    pub place: ClientPlace,
}

impl Operators {
    /// Whether the user may change things.
    ///
    /// # Errors
    /// The user may not even look.
    pub fn may_change(&self, user: &str) -> Result<bool, Report> {
        let is_in = |names: &[String]| names.iter().any(|name| name == user);
        match (is_in(&self.users), is_in(&self.stats_users)) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err(errors::no_operator(user)),
        }
    }
}
