//! The connection that listens for all clients of a database: see [`crate::databases::HubContact`] for how sessions
//! reach it.

mod hub;

pub use hub::start;
