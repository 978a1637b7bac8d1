//! What clients connect to: clusters with their nodes, the databases on them, and what the clients of one database and
//! user share. No byte of a client passes here.
//!
//! `cluster` is what all on the same nodes share; `configured` which databases there are; `target` what the clients of
//! one database and user share, with their pools; `node_choice` which node serves what; `gate` what operators have
//! ordered for a database. `census` keeps what is known of a database's own code (`census_reader` says as whom it is
//! read), `writes` when it was last written to, `latency` how fast nodes answer reads, `hubs` how sessions reach the
//! connection that listens for a database, and `mailbox` what that has for one of them.

mod census;
mod census_reader;
mod cluster;
mod configured;
mod gate;
mod hubs;
mod latency;
mod mailbox;
mod node_choice;
mod target;
mod writes;

pub use cluster::Cluster;
pub use configured::{ConfiguredDatabase, DatabaseSettings, Databases};
pub use gate::{Gate, Gates};
pub use hubs::{HubCommand, HubContact, HubSubscription};
pub use latency::Latency;
pub use mailbox::Mailbox;
pub use node_choice::{NodeChoice, NodeRequest, choose, choose_first, request_any, stays, wish};
pub use target::{Beginning, NewTarget, Target};
pub use writes::LastWrite;
