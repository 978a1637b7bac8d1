//! Clients: accept, log in, relay, cancel, report. A room for each, and one uses only those below it:
//!
//! - `listener` takes clients in and hands each to a thread;
//! - `login` is everything from the first byte to the first ReadyForQuery;
//! - `replication` is the life of a client that replicates;
//! - `shared` is what all clients share, and `lookups` asks servers for users that are not listed;
//! - `relay` is the life of a client that is logged in: the hot loop, and finding it server connections;
//! - `listening` is the connection that listens for the clients of a database;
//! - `workers` is how many threads work, and which share of their clients moves;
//! - `operators` are those who ask for the console; `errors` has the words of every error of ours; `watch` is what is
//!   kept of statements that have run, and what the log tells of clients.

mod errors;
mod listener;
mod listening;
mod login;
mod lookups;
mod operators;
mod relay;
mod replication;
mod shared;
mod watch;
mod workers;

pub use listener::{Arrivals, Workers, accept, balance, serve};
pub use lookups::Lookups;
pub use operators::{CONSOLES, Operators, Visitor};
pub use relay::Worker;
pub use shared::{Frontend, Live, Settings};
pub use watch::CacheFigures;
pub use workers::MoveOrder;
