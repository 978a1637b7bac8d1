//! Watches the nodes of one cluster: probes them, feeds `topology`, and carries out what it decides.

use std::time::Duration;

use crate::{auth::Secret, net::Address, topology};

/// One cluster: `[clusters.X]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub name: String,
    /// In the order of `topology.nodes`.
    pub addresses: Vec<Address>,
    pub topology: topology::Settings,
    pub routing: topology::Routing,
    /// Server connections per node, over all pools, at least 1.
    pub max_connections: usize,
    pub health: Health,
    /// How long statements wait for a primary before they fail with SQLSTATE 57P03.
    pub hold: Duration,
    /// Longest time to connect and log in to a server.
    pub connect_timeout: Duration,
}

/// `[clusters.X.health]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Who asks; without one, the first database entry with a fixed user is borrowed.
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub interval: Duration,
    pub timeout: Duration,
}
