//! Where the rows of each table come from.

mod databases;
mod nodes;
mod queries;
mod sockets;
mod stats;
mod whole;

pub use databases::{databases, pools, users};
pub use nodes::{nodes, pool_nodes};
pub use queries::queries;
pub use sockets::{clients, pins, servers, sockets};
pub use stats::{database_totals, stats, stats_averages, stats_totals, totals};
pub use whole::{config, errors, lists, mem, state};

use super::table::Value;

/// The rows of one table.
type Rows = Vec<Vec<Value>>;
